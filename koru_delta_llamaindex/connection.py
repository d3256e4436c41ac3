"""What every store here stands on: a database, perhaps at one moment, and threads to wait in.

LlamaIndex's own async methods call the sync ones on the event loop's thread. Those of the
stores run them in threads: reads side by side, writes one after the other in the order
they were made.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

import koru_delta
from koru_delta import AsOf, Database, Version

P = ParamSpec("P")
T = TypeVar("T")

_READERS: Final = 2  # more of them only take the interpreter from the event loop
GONE: Final = object()  # in the place of a value: a delete
_TRIES: Final = 1000  # of a batch, each after another writer's was committed


class Threads:
    """Where async methods wait for storage; made when first needed, anew in a forked child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._readers: ThreadPoolExecutor | None = None
        self._writer: ThreadPoolExecutor | None = None

    async def read(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call, beside other reads."""
        readers, _ = self._both()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(readers, partial(call, *args, **kwargs))

    async def write(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call, after the writes that were made before."""
        _, writer = self._both()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(writer, partial(call, *args, **kwargs))

    def close(self) -> None:
        """Wait for what has begun, and end the threads."""
        with self._lock:
            both = (self._readers, self._writer) if self._pid == os.getpid() else ()
            self._readers = self._writer = None
        for threads in both:
            if threads is not None:
                threads.shutdown()

    def _both(self) -> tuple[ThreadPoolExecutor, ThreadPoolExecutor]:
        if self._pid != os.getpid():  # a lock of the parent may never be opened here
            self._lock = threading.Lock()
            self._pid, self._readers, self._writer = os.getpid(), None, None
        with self._lock:
            if self._readers is None or self._writer is None:
                self._readers = ThreadPoolExecutor(
                    _READERS, thread_name_prefix="koru-delta-llamaindex-read"
                )
                self._writer = ThreadPoolExecutor(
                    1, thread_name_prefix="koru-delta-llamaindex-write"
                )
            return self._readers, self._writer


class Connection(koru_delta.adapters.Connection):
    """A database as adapters have it, and threads to wait for it in."""

    def __init__(
        self,
        database: Database | None = None,
        path: str | os.PathLike[str] | None = None,
        *,
        as_of: AsOf = None,
    ) -> None:
        """As of `koru_delta.adapters.Connection`."""
        self.threads = Threads()
        super().__init__(database, path, as_of=as_of)

    def close(self) -> None:
        """Close the database if it was opened here. Closing twice is fine."""
        if self.owned:
            self.threads.close()
        super().close()


class Batch:
    """Reads and writes of several keys that become one commit, if no key read was written since.

    Reads see the writes before them.
    """

    def __init__(self, database: Database, ttl: float | None = None) -> None:
        self._database = database
        self._ttl = ttl
        self._read: dict[tuple[str, str], Version | None] = {}
        self.writes: dict[tuple[str, str], Any] = {}  # `GONE` is a delete

    def get(self, namespace: str, key: str) -> Any:
        """The value of a key; None where it is absent."""
        if (namespace, key) in self.writes:
            found = self.writes[namespace, key]
            return None if found is GONE else found
        before = self._before(namespace, key)
        return None if before is None else before.value

    def put(self, namespace: str, key: str, value: Any) -> None:
        """Write a key."""
        self.writes[namespace, key] = value

    def delete(self, namespace: str, key: str) -> bool:
        """Delete a key; whether there was one."""
        self._before(namespace, key)
        there = self.get(namespace, key) is not None
        if there:
            self.writes[namespace, key] = GONE
        return there

    def _before(self, namespace: str, key: str) -> Version | None:
        """What is stored, which must be so still when this is committed."""
        if (namespace, key) not in self._read:
            try:
                self._read[namespace, key] = self._database.version(namespace, key)
            except koru_delta.errors.KeyNotFoundError:
                self._read[namespace, key] = None
        return self._read[namespace, key]

    def commit(self) -> None:
        """Write it all, or nothing.

        Raises:
            ConflictError: a key that was read and written here was written by others since.
        """
        if not self.writes:
            return
        with self._database.transaction() as transaction:
            for (namespace, key), value in self.writes.items():
                options: dict[str, Any] = {}
                if (namespace, key) in self._read:
                    before = self._read[namespace, key]
                    options["if_match"] = before
                    if value is GONE and before is None:  # written here only
                        continue
                if value is GONE:
                    try:
                        transaction.delete(namespace, key, **options)
                    except koru_delta.errors.KeyNotFoundError as error:
                        before = options.get("if_match")
                        raise koru_delta.errors.ConflictError(
                            namespace, key, None if before is None else before.id, None
                        ) from error
                else:
                    if self._ttl is not None:
                        options["ttl"] = self._ttl
                    transaction.put(namespace, key, value, **options)


def atomically(database: Database, work: Callable[[Batch], T], ttl: float | None = None) -> T:
    """Do some work on a batch and commit it; again, as often as another writer came between.

    Raises:
        ConflictError: others came between every time.
    """
    for attempt in range(_TRIES):
        batch = Batch(database, ttl)
        result = work(batch)
        try:
            batch.commit()
        except koru_delta.errors.ConflictError:
            if attempt + 1 == _TRIES:
                raise
        else:
            return result
    raise AssertionError("the last attempt returns or raises")
