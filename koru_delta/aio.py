"""`Database` for event loops: the same verbs, awaited, with storage off the loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial, wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeVar

from koru_delta.causal import Clock, Version
from koru_delta.database import Database, ReadVerbs, View
from koru_delta.embedders import Embedder
from koru_delta.errors import DatabaseClosedError
from koru_delta.intents import KEEP, Erasable
from koru_delta.lifecycle import Lifecycle
from koru_delta.log import Pending
from koru_delta.log.moments import AsOf
from koru_delta.search.answers import Matches
from koru_delta.transaction import Transaction
from koru_delta.values import Value, VectorLike

if TYPE_CHECKING:  # loaded where it is used
    from koru_delta.workspace.awaited import AsyncWorkspace

P = ParamSpec("P")
T = TypeVar("T")
S_co = TypeVar("S_co", covariant=True)  # what is served
Reads_co = TypeVar("Reads_co", bound=ReadVerbs, covariant=True)
_READERS = 8


class _Threads:
    """Where the verbs run: one thread for writes, which keeps their order, some for reads."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Start with threads of one's own, as a forked child does."""
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="koru-delta-write")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="koru-delta-read")

    async def read(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._on(self._readers, partial(call, *args, **kwargs))

    async def write(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._on(self._writer, partial(call, *args, **kwargs))

    def close(self) -> None:
        self._writer.shutdown()
        self._readers.shutdown()

    async def _on(self, threads: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        try:
            work = asyncio.get_running_loop().run_in_executor(threads, call)
        except RuntimeError as error:
            raise DatabaseClosedError from error  # the threads ended with `close`
        return await work


class _Awaited(Generic[S_co]):
    """A handle, served by threads."""

    def __init__(self, served: S_co, threads: _Threads) -> None:
        self._served = served
        self._threads = threads

    def __repr__(self) -> str:
        return f"<Async{repr(self._served)[1:]}"


def _reading(
    verb: Callable[Concatenate[S_co, P], T], then: Callable[[T], T] | None = None
) -> Callable[Concatenate[_Awaited[S_co], P], Coroutine[Any, Any, T]]:
    """A verb that reads, awaited: run on a thread, `then` included."""

    @wraps(verb)
    async def awaited(self: _Awaited[S_co], /, *args: P.args, **kwargs: P.kwargs) -> T:
        def call() -> T:
            found = verb(self._served, *args, **kwargs)
            return found if then is None else then(found)

        return await self._threads.read(call)

    return awaited


def _writing(
    verb: Callable[Concatenate[S_co, P], T],
) -> Callable[Concatenate[_Awaited[S_co], P], Coroutine[Any, Any, T]]:
    """A verb that writes, awaited: in the order of the calls."""

    @wraps(verb)
    async def awaited(self: _Awaited[S_co], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._threads.write(verb, self._served, *args, **kwargs)

    return awaited


def _every_loaded(found: list[Matches]) -> list[Matches]:
    """Read the hits' versions too, so that no storage is touched on the loop."""
    return [matches.load() for matches in found]


class AsyncReads(_Awaited[Reads_co]):
    """Every verb that reads, awaited: of a database and of its views."""

    async def as_of(self, ref: AsOf) -> AsyncView:
        """The database as it stood at a moment, to be read only."""
        return AsyncView(await self._threads.read(self._served.as_of, ref), self._threads)

    async def changes(self, after: AsOf = 0, *, as_of: AsOf = None) -> AsyncIterator[Version]:
        """As `Database.changes`."""
        found = await self._threads.read(self._served.changes, after, as_of=as_of)
        while (version := await self._threads.read(next, found, None)) is not None:
            yield version

    tags = _reading(ReadVerbs.tags)
    get = _reading(ReadVerbs.get)
    get_raw = _reading(ReadVerbs.get_raw)
    get_many = _reading(ReadVerbs.get_many)
    get_at = _reading(ReadVerbs.get_at)
    version = _reading(ReadVerbs.version)
    get_version = _reading(ReadVerbs.get_version)
    contains = _reading(ReadVerbs.contains)
    query = _reading(ReadVerbs.query)
    count = _reading(ReadVerbs.count)
    models = _reading(ReadVerbs.models)
    list_keys = _reading(ReadVerbs.list_keys)
    list_namespaces = _reading(ReadVerbs.list_namespaces)
    list_workspaces = _reading(ReadVerbs.list_workspaces)
    history = _reading(ReadVerbs.history)
    diff = _reading(ReadVerbs.diff)
    commits = _reading(ReadVerbs.commits)
    ancestors = _reading(ReadVerbs.ancestors)
    descendants = _reading(ReadVerbs.descendants)
    path = _reading(ReadVerbs.path)
    similar = _reading(ReadVerbs.similar, Matches.load)
    similar_many = _reading(ReadVerbs.similar_many, _every_loaded)
    search = _reading(ReadVerbs.search, Matches.load)
    explain = _reading(ReadVerbs.explain)
    retrieval_diff = _reading(ReadVerbs.retrieval_diff)
    related = _reading(ReadVerbs.related)
    layers = _reading(ReadVerbs.layers)
    descend = _reading(ReadVerbs.descend)
    navigate = _reading(ReadVerbs.navigate, Matches.load)
    lineage = _reading(ReadVerbs.lineage)
    quarantines = _reading(ReadVerbs.quarantines)
    similar_at = _reading(ReadVerbs.similar_at, Matches.load)
    embed_search = _reading(ReadVerbs.embed_search, Matches.load)
    vectors = _reading(ReadVerbs.vectors)


class AsyncLifecycle(_Awaited[Lifecycle]):
    """`Lifecycle` for event loops: same names, same arguments, awaited.

    Wishes keep their order, and that of writes; jobs run beside both.
    """

    policy = _writing(Lifecycle.policy)
    policies = _reading(Lifecycle.policies)
    pin = _writing(Lifecycle.pin)
    unpin = _writing(Lifecycle.unpin)
    pins = _reading(Lifecycle.pins)
    importance = _reading(Lifecycle.importance)
    plan = _reading(Lifecycle.plan)
    stats = _reading(Lifecycle.stats)
    add_job = _reading(Lifecycle.add_job)
    run_once = _reading(Lifecycle.run_once)
    run_due = _reading(Lifecycle.run_due)
    check = _reading(Lifecycle.check)
    consolidate = _reading(Lifecycle.consolidate)
    consolidations = _reading(Lifecycle.consolidations)
    undo = _writing(Lifecycle.undo)


class AsyncDatabase(AsyncReads[Database]):
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
        super().__init__(database, _Threads())
        database._log.engine.after_fork.append(self._threads.begin)

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
        vector_memory: int | None = None,
        track: bool = True,
    ) -> AsyncDatabase:
        """Open a database as `koru_delta.open` does."""
        opening = partial(
            Database, path, durability=durability, read_only=read_only, embedder=embedder,
            clock=clock, author=author, run=run, node=node,
            lock_timeout_seconds=lock_timeout_seconds, vector_memory=vector_memory,
            track=track,
        )  # fmt: skip
        return cls(await asyncio.to_thread(opening))

    @property
    def database(self) -> Database:
        """The same database, for synchronous code."""
        return self._served

    @property
    def lifecycle(self) -> AsyncLifecycle:
        """What is near, what is far, what is forgotten, and why."""
        return AsyncLifecycle(self._served.lifecycle, self._threads)

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
        begun = self._served.transaction(author=author, message=message, run=run)
        return AsyncTransaction(begun, self._threads)

    async def workspace(self, name: str, *, embedder: Embedder | None = None) -> AsyncWorkspace:
        """As `Database.workspace`."""
        from koru_delta.workspace.awaited import AsyncWorkspace

        opened = await self._threads.read(self._served.workspace, name, embedder=embedder)
        return AsyncWorkspace(opened, self._threads)

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
    expire = _writing(Database.expire)
    touch = _writing(Database.touch)
    drop_namespace = _writing(Database.drop_namespace)
    erase = _writing(Database.erase)
    retain = _writing(Database.retain)
    retentions = _reading(Database.retentions)
    used = _reading(Database.used)
    sweep = _writing(Database.sweep)
    compact = _writing(Database.compact)
    tag = _writing(Database.tag)
    ingest = _writing(Database.ingest)
    quarantine = _writing(Database.quarantine)
    release = _writing(Database.release)
    configure_text = _writing(Database.configure_text)
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
        self._served._runner.stop()  # a job on one of the threads is not waited for to its end
        self._threads.close()
        self._served.close()


class AsyncView(AsyncReads[View]):
    """`View`, awaited: the database as it stood at one moment."""

    @property
    def seq(self) -> int:
        """The last position of the log this view sees."""
        return self._served.seq

    @property
    def time(self) -> datetime:
        """The moment of the view (UTC)."""
        return self._served.time


class AsyncTransaction:
    """`Transaction`, awaited: `async with db.transaction() as tx: await tx.put(...)`."""

    def __init__(self, transaction: Transaction, threads: _Threads) -> None:
        self._threads = threads
        self._transaction = transaction

    @property
    def versions(self) -> list[Version]:
        """What it wrote, once the block has ended."""
        return self._transaction.versions

    async def __aenter__(self) -> AsyncTransaction:
        # The flag against nesting lives in this task's context, the storage in a thread.
        self._transaction.begin(await self._threads.read(self._transaction.now))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._transaction.end()
        if kind is None:
            await self._threads.write(self._transaction.commit)

    async def put(self, namespace: str, key: str, value: Value, **options: Any) -> Pending:
        return await self._threads.read(self._transaction.put, namespace, key, value, **options)

    async def delete(self, namespace: str, key: str, **options: Any) -> Pending:
        return await self._threads.read(self._transaction.delete, namespace, key, **options)

    async def hide(
        self,
        namespace: str,
        key: str,
        *,
        version: Version | str | Pending | None = None,
        **options: Any,
    ) -> Pending:
        return await self._threads.read(
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
        return await self._threads.read(
            self._transaction.unhide, namespace, key, version=version, **options
        )

    async def erase(self, what: Erasable | Iterable[Erasable], **options: Any) -> None:
        await self._threads.read(self._transaction.erase, what, **options)

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
        return await self._threads.read(
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
        return await self._threads.read(
            self._transaction.embed_many, namespace, items, model=model, metric=metric, **options
        )

    async def delete_many(self, namespace: str, keys: Iterable[str], **options: Any) -> None:
        await self._threads.read(self._transaction.delete_many, namespace, keys, **options)

    async def expect_unchanged(
        self, namespace: str, *, prefix: str = "", since: int | None = None
    ) -> None:
        self._transaction.expect_unchanged(namespace, prefix=prefix, since=since)

    async def expect_present(self, namespace: str, keys: Iterable[str]) -> None:
        self._transaction.expect_present(namespace, keys)

    async def get(self, namespace: str, key: str) -> Value:
        return await self._threads.read(self._transaction.get, namespace, key)

    async def contains(self, namespace: str, key: str) -> bool:
        return await self._threads.read(self._transaction.contains, namespace, key)

    async def similar(self, *_arguments: object, **_options: object) -> None:
        """Raise, as `Transaction.similar`."""
        self._transaction.similar()

    search = similar
