"""What every store here can do, whatever it keeps: show the past, be shared, sent and closed."""

from __future__ import annotations

from typing import Any, Self

import koru_delta
from koru_delta import AsOf
from koru_delta_llamaindex.connection import Connection


class Store(koru_delta.adapters.Connected):
    """A namespace of a database that was passed open, or is opened, and closed, here.

    Pickled, a store opens its directory anew; a copy shares its database.
    """

    _connection: Connection

    def as_of(self, ref: AsOf) -> Self:
        """The store as it stood at a moment, that instant included, to be read only.

        It shares the database, which the first store closes. Writes raise `ReadOnlyError`.
        """
        return self._over(self._connection.past(ref))

    async def aas_of(self, ref: AsOf) -> Self:
        """As `as_of`; finding the moment reads storage."""
        return await self._connection.threads.read(self.as_of, ref)

    def __repr__(self) -> str:
        view = self._connection.view
        at = "" if view is None else f" at {view.seq}"
        return (
            f"<{type(self).__name__} {self._made_with()['namespace']!r}{at} of {self.database!r}>"
        )

    __str__ = __repr__

    def __copy__(self) -> Self:
        return self._over(self._connection.shared())

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self.__copy__()

    def __reduce_ex__(self, _protocol: object) -> Any:
        return _again, (type(self), {**self._made_with(), **self._connection.reopening()})

    def persist(self, persist_path: str, fs: Any = None) -> None:
        """Nothing to do on disk: every write is there; in memory, copy the database to a path.

        Raises:
            NotADatabaseError: something is there already.
            InvalidDataError: `fs` is given for a database in memory.
        """
        if self.database.directory is not None:
            return
        if fs is not None:
            raise koru_delta.errors.InvalidDataError(
                "a database is a directory of this machine; leave fs out"
            )
        self.database.backup(persist_path)

    def _made_with(self) -> dict[str, Any]:
        """The arguments that make it anew, but for those of its database; `namespace` is one."""
        raise NotImplementedError

    def _over(self, connection: Connection) -> Self:
        other: Self = _again(type(self), {**self._made_with(), "connection": connection})
        return other


def _again(cls: Any, options: dict[str, Any]) -> Any:
    return cls(**options)
