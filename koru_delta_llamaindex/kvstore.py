"""A LlamaIndex key-value store in a KoruDelta database.

A collection is a namespace, `<namespace>/<collection>`; a value is kept as
`{"value": ...}`, and what it was stays readable with `as_of`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, ParamSpec, Self, TypeVar

from llama_index.core.storage.kvstore.types import (
    DEFAULT_BATCH_SIZE,
    DEFAULT_COLLECTION,
    BaseKVStore,
)

import koru_delta
from koru_delta import AsOf, Database
from koru_delta_llamaindex.connection import GONE, Batch, Connection, atomically
from koru_delta_llamaindex.keys import in_order, key_of, listed, namespace_of, order_of, plain
from koru_delta_llamaindex.store import Store

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_NAMESPACE: Final = "llamaindex/kv"


class KoruDeltaKVStore(Store, BaseKVStore):
    """JSON values by collection and key, at any moment of their past.

    Keys and collections are any strings. Values come back as fresh copies, equal to what was
    given, the order of keys included. Async methods wait in threads, never on the event
    loop. Pickled, a store opens its directory anew; a copy shares its database.

    >>> store = KoruDeltaKVStore()
    >>> store.put("rain", {"litres": 3})
    >>> then = store.database.commits()[-1]
    >>> store.put("rain", {"litres": 5})
    >>> store.get("rain"), store.as_of(then).get("rain")
    ({'litres': 5}, {'litres': 3})
    >>> store.close()
    """

    def __init__(
        self,
        database: Database | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        ttl: float | None = None,
        keep: timedelta | None = None,
        as_of: AsOf = None,
        connection: Connection | None = None,
    ) -> None:
        """Keep values in `database`, or in one opened at `path`; in memory by default.

        Args:
            database: An open database; closing the store leaves it open.
            ttl: Seconds after which a value written from now on is absent: for caches.
            keep: For how long a value that expired or was replaced stays on disk, to be read
                with `as_of`: said to `Database.retain` with the first value of a collection,
                unless somebody has said so before. None is for ever.
            as_of: Show the store as it stood then, to be read only.
            connection: In the place of database, path and as_of.

        Raises:
            InvalidDataError: both `database` and `path` are given; and the errors of
                `koru_delta.open`.
        """
        self._connection = connection or Connection(database, path, as_of=as_of)
        self._namespace = namespace
        self._ttl = ttl
        self._keep = keep
        self._retained: set[str] = set()
        self._local = threading.local()

    # Writing

    def put(self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION) -> None:
        """Store a value.

        Raises:
            InvalidDataError: it is not JSON (the message names the path to what is not).
            ReadOnlyError: the store shows a past moment, or the database is read-only.
        """
        self.put_all([(key, val)], collection)

    async def aput(
        self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION
    ) -> None:
        """As `put`."""
        await self._connection.threads.write(self.put, key, val, collection)

    def put_all(
        self,
        kv_pairs: list[tuple[str, dict[str, Any]]],
        collection: str = DEFAULT_COLLECTION,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> None:
        """Store many values in one commit, whatever `batch_size` is; the last of a key wins."""
        self._connection.check_writable()
        namespace = namespace_of(self._namespace, collection)
        values = {}
        for pair in listed("kv_pairs", kv_pairs, of=object):
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise koru_delta.errors.InvalidDataError(
                    f"kv_pairs are pairs of a key and a value, and {type(pair).__name__} is none"
                )
            values[key_of(pair[0])] = _value(*pair)
        self._retain(namespace)
        batch = self._batch
        if batch is not None:
            for key, value in values.items():
                batch.put(namespace, key, value)
            return
        self.database.put_many(
            [(namespace, key, value) for key, value in values.items()], ttl=self._ttl
        )

    async def aput_all(
        self,
        kv_pairs: list[tuple[str, dict[str, Any]]],
        collection: str = DEFAULT_COLLECTION,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> None:
        """As `put_all`."""
        await self._connection.threads.write(self.put_all, kv_pairs, collection, batch_size)

    def delete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        """Delete a value; whether there was one. Before that, it is still there."""
        self._connection.check_writable()
        namespace, name = namespace_of(self._namespace, collection), key_of(key)
        batch = self._batch
        if batch is not None:
            return batch.delete(namespace, name)
        return bool(self.database.delete_many(namespace, [name]))

    async def adelete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        """As `delete`."""
        return await self._connection.threads.write(self.delete, key, collection)

    def atomically(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call; what it writes to this store in this thread is one commit, or none.

        It is called again if somebody else wrote meanwhile what it had read and written.
        """
        if self._batch is not None:
            return call(*args, **kwargs)
        self._connection.check_writable()

        def work(batch: Batch) -> T:
            self._local.batch = batch
            try:
                return call(*args, **kwargs)
            finally:
                self._local.batch = None

        return atomically(self.database, work, self._ttl)

    # Reading

    def get(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, Any] | None:
        """A value, or None where there is none."""
        namespace, name = namespace_of(self._namespace, collection), key_of(key)
        batch = self._batch
        if batch is not None:
            found = batch.get(namespace, name)
        else:
            found = self._connection.reader().get(namespace, name, None)
        return None if found is None else _given(namespace, name, found)

    async def aget(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, Any] | None:
        """As `get`."""
        return await self._connection.threads.read(self.get, key, collection)

    def get_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        """Every value of a collection by its key, at one moment."""
        namespace = namespace_of(self._namespace, collection)
        rows = self._connection.at().query(namespace)
        found: dict[str, Any] = {row.key: row.value for row in rows}
        batch = self._batch
        if batch is not None:
            for (place, key), value in batch.writes.items():
                if place == namespace:
                    found.pop(key, None)
                    if value is not GONE:
                        found[key] = value
        return {_name(key, value): _given(namespace, key, value) for key, value in found.items()}

    async def aget_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        """As `get_all`."""
        return await self._connection.threads.read(self.get_all, collection)

    # Parts of the above

    @property
    def connection(self) -> Connection:
        """The database and threads, for stores that stand on this one."""
        return self._connection

    @property
    def _batch(self) -> Batch | None:
        return getattr(self._local, "batch", None)

    def _retain(self, namespace: str) -> None:
        """Say once how much of its past a collection retains."""
        if namespace not in self._retained:
            koru_delta.adapters.retain_by_default(self.database, namespace, self._keep)
            self._retained.add(namespace)

    def _made_with(self) -> dict[str, Any]:
        return {"namespace": self._namespace, "ttl": self._ttl, "keep": self._keep}


class OnKeys(Store):
    """A store that stands on one of keys, and on its database."""

    _kvstore: KoruDeltaKVStore
    _namespace: str

    @property
    def _connection(self) -> Connection:  # type: ignore[override]
        return self._kvstore.connection

    def __reduce_ex__(self, _protocol: object) -> Any:
        return _standing, (type(self), self._namespace, self._kvstore)

    def _made_with(self) -> dict[str, Any]:
        return {"namespace": self._namespace}

    def _over(self, connection: Connection) -> Self:
        kvstore = self._kvstore._over(connection)
        other: Self = _standing(type(self), self._namespace, kvstore)
        return other


def kvstore_of(
    given: KoruDeltaKVStore | None, database: Database | None, path: str | os.PathLike[str] | None
) -> KoruDeltaKVStore:
    """The store that another one is to stand on: the one given, or else one of its own.

    Raises:
        InvalidDataError: it is of another class.
    """
    if given is None:
        return KoruDeltaKVStore(database, path=path, namespace=DEFAULT_NAMESPACE)
    if not isinstance(given, KoruDeltaKVStore):
        raise koru_delta.errors.InvalidDataError(
            f"kvstore is a KoruDeltaKVStore, not {type(given).__name__}"
        )
    return given


def _standing(cls: Any, namespace: str, kvstore: KoruDeltaKVStore) -> Any:
    return cls(namespace=namespace, kvstore=kvstore)


def _value(key: str, given: Any) -> dict[str, Any]:
    value = {"value": plain(given)}
    if key_of(key) != key:
        value["key"] = key
    order = order_of(given)
    if order is not None:
        value["order"] = order
    return value


def _given(namespace: str, key: str, value: Any) -> Any:
    if not isinstance(value, dict) or "value" not in value:
        raise koru_delta.errors.InvalidDataError(
            f"{key!r} in namespace {namespace!r} is no value of a key-value store; keep other "
            "values in another namespace"
        )
    return in_order(value["value"], value.get("order"))


def _name(key: str, value: Any) -> str:
    return str(value.get("key", key)) if isinstance(value, dict) else key
