"""What every store here has: a database, one namespace of it, perhaps one past moment."""

from __future__ import annotations

import asyncio
import copy
import os
from typing import Self

import koru_delta
from koru_delta import AsOf, Database, View


class Home(koru_delta.adapters.Connected):
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
            InvalidDataError: both are given, `database` is none, or the namespace cannot be
                one; and the errors of `koru_delta.open`.
        """
        self._connection = koru_delta.adapters.Connection(database, path)
        self._namespace = namespace
        try:
            self._database.contains(namespace, "-")  # refuses what cannot be a namespace
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        at = "" if self._view is None else f" at {self._view.seq}"
        return f"<{type(self).__name__} {self._namespace!r}{at} of {self._database!r}>"

    @property
    def namespace(self) -> str:
        """The namespace of the database that holds what is stored here."""
        return self._namespace

    def as_of(self, ref: AsOf) -> Self:
        """The store as it stood at a moment, that instant included, to be read only.

        It shares the database, which the first store closes. Writes raise `ReadOnlyError`.
        """
        past = copy.copy(self)
        past._connection = self._connection.past(ref)
        return past

    async def aas_of(self, ref: AsOf) -> Self:
        """As `as_of`; finding the moment reads storage."""
        return await asyncio.to_thread(self.as_of, ref)

    @property
    def _database(self) -> Database:
        return self._connection.database

    @property
    def _view(self) -> View | None:
        return self._connection.view

    def _moment(self, as_of: AsOf) -> View:
        return self._connection.at(as_of)

    def _reader(self, as_of: AsOf = None) -> Database | View:
        return self._connection.reader(as_of)

    def _check_writable(self) -> None:
        self._connection.check_writable()
