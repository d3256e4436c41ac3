"""`Database` for event loops: the same verbs, awaited, with storage off the loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from koru_delta.causal import (
    Clock,
    Version,
)
from koru_delta.database import Database, View
from koru_delta.embedders import Embedder
from koru_delta.errors import DatabaseClosedError
from koru_delta.log import Pending
from koru_delta.log.log import AsOf
from koru_delta.search.answers import Matches
from koru_delta.transaction import KEEP, Erasable, Transaction
from koru_delta.values import Value, VectorLike

P = ParamSpec("P")
T = TypeVar("T")
_READERS = 8


def _reading(
    verb: Callable[Concatenate[Database, P], T], then: Callable[[T], T] | None = None
) -> Callable[Concatenate[AsyncDatabase, P], Coroutine[Any, Any, T]]:
    """A verb that reads, awaited: run on a thread, `then` included."""

    @wraps(verb)
    async def awaited(self: AsyncDatabase, /, *args: P.args, **kwargs: P.kwargs) -> T:
        def call() -> T:
            found = verb(self._database, *args, **kwargs)
            return found if then is None else then(found)

        return await self._read(call)

    return awaited


def _writing(
    verb: Callable[Concatenate[Database, P], T],
) -> Callable[Concatenate[AsyncDatabase, P], Coroutine[Any, Any, T]]:
    """A verb that writes, awaited: in the order of the calls."""

    @wraps(verb)
    async def awaited(self: AsyncDatabase, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._write(verb, self._database, *args, **kwargs)

    return awaited


def _viewing(
    verb: Callable[Concatenate[View, P], T], then: Callable[[T], T] | None = None
) -> Callable[Concatenate[AsyncView, P], Coroutine[Any, Any, T]]:
    """A verb of a view, awaited."""

    @wraps(verb)
    async def awaited(self: AsyncView, /, *args: P.args, **kwargs: P.kwargs) -> T:
        def call() -> T:
            found = verb(self._view, *args, **kwargs)
            return found if then is None else then(found)

        return await self._read(call)

    return awaited


def _every_loaded(found: list[Matches]) -> list[Matches]:
    """Read the hits' versions too, so that no storage is touched on the loop."""
    return [matches.load() for matches in found]


class AsyncDatabase:
    """`Database` for event loops: same names, same arguments, awaited.

    Writes happen in the order they were made; reads may run side by side. Cancelling an
    await does not undo a write that has begun. One handle serves any number of loops.
    """

    def __init__(self, database: Database) -> None:
        """Serve an open database; closing this closes it."""
        given: object = database
        if not isinstance(given, Database):
            raise TypeError(
                f"AsyncDatabase() takes an open Database, not {type(given).__name__}; "
                "to open one: await AsyncDatabase.open(path)"
            )
        self._database = database
        self._begin()
        database._log.engine.after_fork.append(self._begin)

    def _begin(self) -> None:
        """Start with threads of one's own, as a forked child does."""
        # One thread for writes keeps their order.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="koru-delta-write")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="koru-delta-read")

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        durability: Literal["full", "relaxed"] = "full",
        read_only: bool = False,
        embedder: Embedder | None = None,
        clock: Clock | None = None,
        author: str | None = None,
        run: str | None = None,
        node: str = "local",
        lock_timeout_seconds: float = 30.0,
    ) -> AsyncDatabase:
        """Open a database as `koru_delta.open` does."""
        opening = partial(
            Database, path, durability=durability, read_only=read_only, embedder=embedder,
            clock=clock, author=author, run=run, node=node,
            lock_timeout_seconds=lock_timeout_seconds,
        )  # fmt: skip
        return cls(await asyncio.to_thread(opening))

    @property
    def database(self) -> Database:
        """The same database, for synchronous code."""
        return self._database

    async def __aenter__(self) -> AsyncDatabase:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def transaction(
        self,
        *,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> AsyncTransaction:
        """As `Database.transaction`, with `async with`."""
        begun = self._database.transaction(author=author, message=message, run=run)
        return AsyncTransaction(self, begun)

    async def as_of(self, ref: AsOf) -> AsyncView:
        """The database as it stood at a moment, to be read only."""
        return AsyncView(self, await self._read(self._database.as_of, ref))

    async def changes(self, after: AsOf = 0, *, as_of: AsOf = None) -> AsyncIterator[Version]:
        """As `Database.changes`."""
        found = await self._read(self._database.changes, after, as_of=as_of)
        while (version := await self._read(next, found, None)) is not None:
            yield version

    put = _writing(Database.put)
    put_many = _writing(Database.put_many)
    delete = _writing(Database.delete)
    delete_many = _writing(Database.delete_many)
    hide = _writing(Database.hide)
    unhide = _writing(Database.unhide)
    hide_many = _writing(Database.hide_many)
    unhide_many = _writing(Database.unhide_many)
    embed = _writing(Database.embed)
    embed_many = _writing(Database.embed_many)
    revert = _writing(Database.revert)
    reembed = _reading(Database.reembed)
    drop_namespace = _writing(Database.drop_namespace)
    erase = _writing(Database.erase)
    retain = _writing(Database.retain)
    retentions = _reading(Database.retentions)
    sweep = _writing(Database.sweep)
    compact = _writing(Database.compact)
    tag = _writing(Database.tag)
    tags = _reading(Database.tags)
    get = _reading(Database.get)
    get_raw = _reading(Database.get_raw)
    get_many = _reading(Database.get_many)
    get_at = _reading(Database.get_at)
    version = _reading(Database.version)
    get_version = _reading(Database.get_version)
    contains = _reading(Database.contains)
    query = _reading(Database.query)
    count = _reading(Database.count)
    list_keys = _reading(Database.list_keys)
    list_namespaces = _reading(Database.list_namespaces)
    history = _reading(Database.history)
    diff = _reading(Database.diff)
    commits = _reading(Database.commits)
    ancestors = _reading(Database.ancestors)
    descendants = _reading(Database.descendants)
    path = _reading(Database.path)
    similar = _reading(Database.similar, Matches.load)
    similar_many = _reading(Database.similar_many, _every_loaded)
    search = _reading(Database.search, Matches.load)
    explain = _reading(Database.explain)
    retrieval_diff = _reading(Database.retrieval_diff)
    related = _reading(Database.related)
    layers = _reading(Database.layers)
    descend = _reading(Database.descend)
    navigate = _reading(Database.navigate, Matches.load)
    ingest = _writing(Database.ingest)
    lineage = _reading(Database.lineage)
    quarantine = _writing(Database.quarantine)
    release = _writing(Database.release)
    quarantines = _reading(Database.quarantines)
    configure_text = _writing(Database.configure_text)
    similar_at = _reading(Database.similar_at, Matches.load)
    embed_search = _reading(Database.embed_search, Matches.load)
    vectors = _reading(Database.vectors)
    stats = _reading(Database.stats)
    build_index = _reading(Database.build_index)
    tune = _reading(Database.tune)
    verify = _reading(Database.verify)
    tree_head = _reading(Database.tree_head)
    prove = _reading(Database.prove)
    prove_consistency = _reading(Database.prove_consistency)
    backup = _reading(Database.backup)
    export_log = _reading(Database.export_log)
    import_log = _writing(Database.import_log)

    def _close(self) -> None:
        self._writer.shutdown()
        self._readers.shutdown()
        self._database.close()

    async def _read(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._on(self._readers, partial(call, *args, **kwargs))

    async def _write(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._on(self._writer, partial(call, *args, **kwargs))

    async def _on(self, threads: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        try:
            work = asyncio.get_running_loop().run_in_executor(threads, call)
        except RuntimeError as error:
            raise DatabaseClosedError from error  # the threads ended with `close`
        return await work


class AsyncView:
    """`View`, awaited: the database as it stood at one moment."""

    def __init__(self, database: AsyncDatabase, view: View) -> None:
        self._view = view
        self._read = database._read

    @property
    def seq(self) -> int:
        """The last position of the log this view sees."""
        return self._view.seq

    @property
    def time(self) -> datetime:
        """The moment of the view (UTC)."""
        return self._view.time

    get = _viewing(View.get)
    get_raw = _viewing(View.get_raw)
    get_many = _viewing(View.get_many)
    contains = _viewing(View.contains)
    version = _viewing(View.version)
    query = _viewing(View.query)
    count = _viewing(View.count)
    list_keys = _viewing(View.list_keys)
    list_namespaces = _viewing(View.list_namespaces)
    history = _viewing(View.history)
    commits = _viewing(View.commits)
    ancestors = _viewing(View.ancestors)
    descendants = _viewing(View.descendants)
    similar = _viewing(View.similar, Matches.load)
    similar_many = _viewing(View.similar_many, _every_loaded)
    search = _viewing(View.search, Matches.load)
    lineage = _viewing(View.lineage)
    quarantines = _viewing(View.quarantines)
    related = _viewing(View.related)
    layers = _viewing(View.layers)
    descend = _viewing(View.descend)
    navigate = _viewing(View.navigate, Matches.load)


class AsyncTransaction:
    """`Transaction`, awaited: `async with db.transaction() as tx: await tx.put(...)`."""

    def __init__(self, database: AsyncDatabase, transaction: Transaction) -> None:
        self._database = database
        self._transaction = transaction

    @property
    def versions(self) -> list[Version]:
        """What it wrote, once the block has ended."""
        return self._transaction.versions

    async def __aenter__(self) -> AsyncTransaction:
        # The flag against nesting lives in this task's context, the storage in a thread.
        self._transaction.begin(await self._database._read(self._transaction.now))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._transaction.end()
        if kind is None:
            await self._database._write(self._transaction.commit)

    async def put(self, namespace: str, key: str, value: Value, **options: Any) -> Pending:
        return await self._database._read(self._transaction.put, namespace, key, value, **options)

    async def delete(self, namespace: str, key: str, **options: Any) -> Pending:
        return await self._database._read(self._transaction.delete, namespace, key, **options)

    async def hide(
        self,
        namespace: str,
        key: str,
        *,
        version: Version | str | Pending | None = None,
        **options: Any,
    ) -> Pending:
        return await self._database._read(
            self._transaction.hide, namespace, key, version=version, **options
        )

    async def unhide(
        self,
        namespace: str,
        key: str,
        *,
        version: Version | str | Pending | None = None,
        **options: Any,
    ) -> Pending:
        return await self._database._read(
            self._transaction.unhide, namespace, key, version=version, **options
        )

    async def erase(self, what: Erasable | Iterable[Erasable], **options: Any) -> None:
        await self._database._read(self._transaction.erase, what, **options)

    async def embed(
        self,
        namespace: str,
        key: str,
        vector: VectorLike | str,
        value: Value = KEEP,
        *,
        model: str | None = None,
        metric: str | None = None,
        **options: Any,
    ) -> Pending:
        return await self._database._read(
            self._transaction.embed, namespace, key, vector, value, model=model, metric=metric,
            **options,
        )  # fmt: skip

    async def embed_many(
        self,
        namespace: str,
        items: Iterable[tuple[str, VectorLike | str] | tuple[str, VectorLike | str, Value]],
        *,
        model: str | None = None,
        metric: str | None = None,
        **options: Any,
    ) -> list[Pending]:
        return await self._database._read(
            self._transaction.embed_many, namespace, items, model=model, metric=metric, **options
        )

    async def delete_many(self, namespace: str, keys: Iterable[str], **options: Any) -> None:
        await self._database._read(self._transaction.delete_many, namespace, keys, **options)

    async def expect_unchanged(
        self, namespace: str, *, prefix: str = "", since: int | None = None
    ) -> None:
        self._transaction.expect_unchanged(namespace, prefix=prefix, since=since)

    async def get(self, namespace: str, key: str) -> Value:
        return await self._database._read(self._transaction.get, namespace, key)

    async def contains(self, namespace: str, key: str) -> bool:
        return await self._database._read(self._transaction.contains, namespace, key)
