"""What every store here has: a database, one namespace of it, perhaps one past moment."""

from __future__ import annotations

import asyncio
import copy
import os
from types import TracebackType
from typing import Self

import koru_delta
from koru_delta import AsOf, Database, View


class Home:
    """A namespace of a database that was passed open, or is opened, and closed, here.

    Several stores share a database when they are made with the same `database=`: each has
    its own namespace, and one transaction may write to all of them.
    """

    def __init__(
        self,
        namespace: str,
        database: Database | None = None,
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        """Keep to `database`, or to one opened at `path`; in memory by default.

        Raises:
            InvalidDataError: both are given; and the errors of `koru_delta.open`.
        """
        if database is not None and path is not None:
            raise koru_delta.errors.InvalidDataError(
                "pass an open database or a path to open, not both"
            )
        if isinstance(database, koru_delta.AsyncDatabase):
            raise koru_delta.errors.InvalidDataError(
                "pass the Database that `koru_delta.open` returns, not an AsyncDatabase: what is "
                "awaited here runs in threads of its own"
            )
        self._database = koru_delta.open(path) if database is None else database
        self._owned = database is None
        self._namespace = namespace
        self._view: View | None = None

    def __repr__(self) -> str:
        at = "" if self._view is None else f" at {self._view.seq}"
        return f"<{type(self).__name__} {self._namespace!r}{at} of {self._database!r}>"

    @property
    def database(self) -> Database:
        """The database: for `history`, `diff`, `tag` and the rest."""
        return self._database

    @property
    def namespace(self) -> str:
        """The namespace of the database that holds what is stored here."""
        return self._namespace

    def as_of(self, ref: AsOf) -> Self:
        """The store as it stood at a moment, that instant included, to be read only.

        It shares the database, which the first store closes. Writes raise `ReadOnlyError`.
        """
        past = copy.copy(self)
        past._view = self._moment(ref)
        past._owned = False
        return past

    async def aas_of(self, ref: AsOf) -> Self:
        """As `as_of`; finding the moment reads storage."""
        return await asyncio.to_thread(self.as_of, ref)

    def close(self) -> None:
        """Close the database if the store opened it. Closing twice is fine."""
        if self._owned:
            self._database.close()

    async def aclose(self) -> None:
        """As `close`."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _moment(self, as_of: AsOf) -> View:
        if self._view is None:
            return self._database.as_of(as_of)
        if as_of is not None:
            raise koru_delta.errors.QueryError(
                "this store shows one moment already; ask the store it was made from for another"
            )
        return self._view

    def _reader(self, as_of: AsOf = None) -> Database | View:
        """What to read from: the database itself for now, which saves making a view of it."""
        return self._database if as_of is None and self._view is None else self._moment(as_of)

    def _check_writable(self) -> None:
        if self._view is not None:
            raise koru_delta.errors.ReadOnlyError(
                f"this store shows the moment {self._view.time.isoformat()}; write to the "
                "store it was made from"
            )
        if self._database.read_only:  # before anything is made in vain
            raise koru_delta.errors.ReadOnlyError("the database was opened read-only")
