"""What adapters of frameworks share: a database at hand, ids as keys, scores as relevance.

An adapter keeps what a framework gives it in a database that was passed open or is opened for
it, perhaps seen at one moment of its past. Frameworks take any string for an id, want
similarities in [0, 1], and pass options on unseen.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

from koru_delta.aio import AsyncDatabase
from koru_delta.database import Database, View, open
from koru_delta.errors import InvalidDataError, NotPicklableError, QueryError, ReadOnlyError
from koru_delta.log.moments import AsOf
from koru_delta.values import MAX_KEY_BYTES

HASHED: Final = "id-sha256:"  # starts the keys of ids that cannot be keys themselves


class Connection:
    """An open database, whether it is ours to close, and the one moment it shows, if any.

    >>> connection = Connection()
    >>> connection.database.put("sky", "today", "rain").key
    'today'
    >>> connection.past(0).at().list_keys("sky"), connection.at().list_keys("sky")
    ([], ['today'])
    >>> connection.close()
    """

    def __init__(
        self,
        database: Database | None = None,
        path: str | os.PathLike[str] | None = None,
        *,
        as_of: AsOf = None,
    ) -> None:
        """Use `database`, or open one at `path`; in memory where there is neither.

        Raises:
            InvalidDataError: both are given, or `database` is none; and the errors of
                `koru_delta.open`.
        """
        if database is not None and path is not None:
            raise InvalidDataError("pass an open database or a path to open, not both")
        given: object = database
        if isinstance(given, AsyncDatabase):
            raise InvalidDataError(
                "pass the Database that `koru_delta.open` returns, not an AsyncDatabase: what is "
                "awaited here runs in threads of its own"
            )
        if given is not None and not isinstance(given, Database):
            raise InvalidDataError(
                f"database is what koru_delta.open() returns, not {type(given).__name__}; to "
                "open one here pass path="
            )
        self.owned = database is None
        self.database = open(path) if database is None else database
        self.view: View | None = None
        if as_of is not None:
            try:
                self.view = self.database.as_of(as_of)
            except BaseException:
                self.close()
                raise

    def past(self, ref: AsOf) -> Self:
        """The same, as it stood at a moment, to be read only; the first one closes it."""
        past = self.shared()
        past.view = self.at(ref)
        return past

    def shared(self) -> Self:
        """The same, for another store; the first one closes it."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__, owned=False)
        return other

    def at(self, as_of: AsOf = None) -> View:
        """The moment to read at.

        Raises:
            QueryError: this shows one moment already, and another is asked for.
        """
        if self.view is None:
            return self.database.as_of(as_of)
        if as_of is not None:
            raise QueryError(
                "this store shows one moment already; ask the store it was made from for another"
            )
        return self.view

    def reader(self, as_of: AsOf = None) -> Database | View:
        """What to read from: the database itself for now, which saves making a view of it."""
        return self.database if as_of is None and self.view is None else self.at(as_of)

    def check_writable(self) -> None:
        """Refuse to write to the past, or to what was opened read-only, before all else.

        Raises:
            ReadOnlyError: it is one of these.
        """
        if self.view is not None:
            raise ReadOnlyError(
                f"this store shows the moment {self.view.time.isoformat()}; write to the "
                "store it was made from"
            )
        if self.database.read_only:
            raise ReadOnlyError("the database was opened read-only")

    def reopening(self) -> dict[str, str | int | None]:
        """The arguments that open the same in another process.

        Raises:
            NotPicklableError: the database is in memory.
        """
        directory = self.database.directory
        if directory is None:
            raise NotPicklableError(
                "a store of a database in memory cannot be pickled; open it at a path"
            )
        return {"path": str(directory), "as_of": None if self.view is None else self.view.seq}

    def close(self) -> None:
        """Close the database if it was opened here. Closing twice is fine."""
        if self.owned:
            self.database.close()


class Connected:
    """A store of a framework that has a connection, and is closed with it, by `with` too."""

    _connection: Connection

    @property
    def database(self) -> Database:
        """The database: for `history`, `diff`, `tag` and the rest."""
        return self._connection.database

    def close(self) -> None:
        """Close the database if the store opened it. Closing twice is fine."""
        self._connection.close()

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


def retain_by_default(database: Database, namespace: str, keep: timedelta | None) -> None:
    """Let a namespace whose past nobody asks for give the disk of it back.

    Nothing is done where `keep` is None, or where somebody has said how much the namespace
    retains (`Database.retain`): that holds.
    """
    if keep is not None and namespace not in database.retentions():
        database.retain(namespace, keep=keep, message="what a cache no longer answers")


def key_of(name: object, *, max_bytes: int = MAX_KEY_BYTES) -> str:
    """The key of an id: itself where it can be one, else its hash; no two ids share a key.

    A lone surrogate cannot be stored, and is refused when it is; its key finds nothing.

    Raises:
        InvalidDataError: it is no string.

    >>> key_of("rain"), key_of("")[:16]
    ('rain', 'id-sha256:e3b0c4')
    """
    if not isinstance(name, str):
        raise InvalidDataError(f"an id is a string, not {type(name).__name__}")
    data = name.encode(errors="surrogatepass")
    if (
        0 < len(data) <= max_bytes
        and b"\0" not in data
        and not name.startswith(HASHED)
        and (name.isascii() or data == name.encode(errors="ignore"))
    ):
        return name
    return HASHED + hashlib.sha256(data).hexdigest()


def check_options(method: str, options: Iterable[str], known: Iterable[str]) -> None:
    """Refuse what a method does not take.

    Raises:
        TypeError: as Python raises it.
    """
    for name in options:
        if name not in known:
            raise TypeError(
                f"{method}() got an unexpected keyword argument {name!r}; it also takes "
                f"{', '.join(known)}"
            )


def _of_cosine(score: float) -> float:
    return min(1.0, max(0.0, (1 + score) / 2))  # a cosine may be 1 and a rounding


def _of_dot(score: float) -> float:
    if score < 0:  # exp(-score) could overflow
        part = math.exp(score)
        return part / (1 + part)
    return 1 / (1 + math.exp(-score))


def _of_l2(score: float) -> float:
    return 1 / (1 - score)


def of_bm25(score: float) -> float:
    """The relevance, in [0, 1], of a score by words."""
    return score / (1 + score)


RELEVANCE: Final[Mapping[str, Callable[[float], float]]] = {
    "cosine": _of_cosine,
    "dot": _of_dot,
    "l2": _of_l2,
}
"""By metric, the relevance in [0, 1] of a score by vectors; it rises with the score."""
