"""`Database` for event loops: the same verbs, awaited, with storage off the loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

import numpy.typing as npt

from koru_delta.causal import (
    Clock,
    Commit,
    ConsistencyProof,
    InclusionProof,
    TreeHead,
    Version,
    When,
)
from koru_delta.database import _ANY, _RAISE, Database, View
from koru_delta.embedders import Embedder
from koru_delta.errors import DatabaseClosedError
from koru_delta.log import Pending, VerifyReport
from koru_delta.log.log import AsOf
from koru_delta.search.answers import Matches
from koru_delta.search.filters import Filter
from koru_delta.search.query import Row
from koru_delta.transaction import KEEP, CauseLike, Transaction
from koru_delta.values import Value, Vector, VectorLike

if TYPE_CHECKING:  # loaded where it is used
    from koru_delta.ingest.chunking import ChunkingConfig
    from koru_delta.ingest.lineage import Lineage, Reference
    from koru_delta.ingest.quarantine import Quarantine
    from koru_delta.ingest.sources import Source
    from koru_delta.ingest.writer import Run

P = ParamSpec("P")
T = TypeVar("T")
_READERS = 8


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

    async def put(
        self,
        namespace: str,
        key: str,
        value: Value,
        *,
        if_match: Version | str | None = _ANY,
        causes: Sequence[CauseLike] = (),
        ttl: float | timedelta | None = None,
        valid_from: When | None = None,
        valid_to: When | None = None,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> Version:
        return await self._write(
            self._database.put,
            namespace,
            key,
            value,
            if_match=if_match,
            causes=causes,
            ttl=ttl,
            valid_from=valid_from,
            valid_to=valid_to,
            author=author,
            message=message,
            run=run,
        )

    async def put_many(
        self,
        items: Iterable[tuple[str, str, Value]],
        *,
        causes: Sequence[CauseLike] = (),
        ttl: float | timedelta | None = None,
        valid_from: When | None = None,
        valid_to: When | None = None,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> list[Version]:
        return await self._write(
            self._database.put_many,
            items,
            causes=causes,
            ttl=ttl,
            valid_from=valid_from,
            valid_to=valid_to,
            author=author,
            message=message,
            run=run,
        )

    async def delete(
        self,
        namespace: str,
        key: str,
        *,
        if_match: Version | str | None = _ANY,
        causes: Sequence[CauseLike] = (),
        valid_from: When | None = None,
        valid_to: When | None = None,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> Version:
        return await self._write(
            self._database.delete,
            namespace,
            key,
            if_match=if_match,
            causes=causes,
            valid_from=valid_from,
            valid_to=valid_to,
            author=author,
            message=message,
            run=run,
        )

    async def delete_many(
        self,
        namespace: str,
        keys: Iterable[str],
        *,
        causes: Sequence[CauseLike] = (),
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> list[Version]:
        return await self._write(
            self._database.delete_many,
            namespace,
            keys,
            causes=causes,
            author=author,
            message=message,
            run=run,
        )

    async def hide(
        self,
        namespace: str,
        key: str,
        *,
        version: Version | str | None = None,
        causes: Sequence[CauseLike] = (),
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> Version:
        return await self._write(
            self._database.hide, namespace, key, version=version, causes=causes, author=author,
            message=message, run=run,
        )  # fmt: skip

    async def unhide(
        self,
        namespace: str,
        key: str,
        *,
        version: Version | str | None = None,
        causes: Sequence[CauseLike] = (),
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> Version:
        return await self._write(
            self._database.unhide, namespace, key, version=version, causes=causes, author=author,
            message=message, run=run,
        )  # fmt: skip

    async def hide_many(
        self,
        versions: Iterable[Version | str],
        *,
        causes: Sequence[CauseLike] = (),
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> list[Version]:
        return await self._write(
            self._database.hide_many,
            versions,
            causes=causes,
            author=author,
            message=message,
            run=run,
        )

    async def unhide_many(
        self,
        versions: Iterable[Version | str],
        *,
        causes: Sequence[CauseLike] = (),
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> list[Version]:
        return await self._write(
            self._database.unhide_many,
            versions,
            causes=causes,
            author=author,
            message=message,
            run=run,
        )

    async def embed(
        self,
        namespace: str,
        key: str,
        vector: VectorLike | str,
        value: Value = KEEP,
        *,
        model: str | None = None,
        metric: Literal["cosine", "dot", "l2"] | None = None,
        if_match: Version | str | None = _ANY,
        causes: Sequence[CauseLike] = (),
        ttl: float | timedelta | None = None,
        valid_from: When | None = None,
        valid_to: When | None = None,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> Version:
        return await self._write(
            self._database.embed,
            namespace,
            key,
            vector,
            value,
            model=model,
            metric=metric,
            if_match=if_match,
            causes=causes,
            ttl=ttl,
            valid_from=valid_from,
            valid_to=valid_to,
            author=author,
            message=message,
            run=run,
        )

    async def embed_many(
        self,
        namespace: str,
        items: Iterable[tuple[str, VectorLike | str] | tuple[str, VectorLike | str, Value]],
        *,
        model: str | None = None,
        metric: Literal["cosine", "dot", "l2"] | None = None,
        causes: Sequence[CauseLike] = (),
        ttl: float | timedelta | None = None,
        valid_from: When | None = None,
        valid_to: When | None = None,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> list[Version]:
        return await self._write(
            self._database.embed_many,
            namespace,
            items,
            model=model,
            metric=metric,
            causes=causes,
            ttl=ttl,
            valid_from=valid_from,
            valid_to=valid_to,
            author=author,
            message=message,
            run=run,
        )

    async def revert(
        self,
        namespace: str,
        key: str,
        to: AsOf,
        *,
        if_match: Version | str | None = _ANY,
        author: str | None = None,
        message: str | None = None,
    ) -> Version:
        return await self._write(
            self._database.revert, namespace, key, to, if_match=if_match, author=author,
            message=message,
        )  # fmt: skip

    async def reembed(
        self,
        namespace: str,
        model: str,
        embed_fn: Embedder,
        *,
        text: Callable[[str, Value], str] | None = None,
        batch: int = 256,
        progress: Callable[[int, int], None] | bool | None = None,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> int:
        # Beside the writes, which it gives way to: it may take hours.
        return await self._read(
            self._database.reembed, namespace, model, embed_fn, text=text, batch=batch,
            progress=progress, author=author, message=message, run=run,
        )  # fmt: skip

    async def ingest(
        self,
        source: Source,
        *,
        namespace: str,
        chunking: ChunkingConfig | None = None,
        include: Sequence[str] = (),
        embedder: Embedder | Literal["own"] | None = "own",
        max_bytes: int | None = None,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
        progress: Callable[[int, Any], None] | bool | None = None,
    ) -> Run:
        # Beside the writes, as `reembed`.
        return await self._read(
            self._database.ingest, source, namespace=namespace, chunking=chunking,
            include=include, embedder=embedder, max_bytes=max_bytes, author=author,
            message=message, run=run, progress=progress,
        )  # fmt: skip

    async def quarantine(
        self,
        ref: Reference,
        *,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> Quarantine:
        return await self._write(
            self._database.quarantine, ref, author=author, message=message, run=run
        )

    async def release(
        self,
        quarantine: Quarantine | str,
        *,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> list[Version]:
        return await self._write(
            self._database.release, quarantine, author=author, message=message, run=run
        )

    async def drop_namespace(
        self, namespace: str, *, author: str | None = None, message: str | None = None
    ) -> int:
        return await self._write(
            self._database.drop_namespace, namespace, author=author, message=message
        )

    async def tag(
        self,
        name: str,
        ref: AsOf = None,
        *,
        move: bool = False,
        author: str | None = None,
        message: str | None = None,
    ) -> Version:
        return await self._write(
            self._database.tag, name, ref, move=move, author=author, message=message
        )

    async def tags(self) -> dict[str, int]:
        return await self._read(self._database.tags)

    async def get(
        self,
        namespace: str,
        key: str,
        default: Value = _RAISE,
        *,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> Value:
        return await self._read(
            self._database.get, namespace, key, default, as_of=as_of, valid_at=valid_at
        )

    async def get_raw(
        self, namespace: str, key: str, *, as_of: AsOf = None, valid_at: When | None = None
    ) -> bytes:
        return await self._read(
            self._database.get_raw, namespace, key, as_of=as_of, valid_at=valid_at
        )

    async def get_many(
        self,
        namespace: str,
        keys: Iterable[str],
        *,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> dict[str, Value]:
        return await self._read(
            self._database.get_many, namespace, keys, as_of=as_of, valid_at=valid_at
        )

    async def get_at(self, namespace: str, key: str, timestamp: AsOf) -> Value:
        return await self._read(self._database.get_at, namespace, key, timestamp)

    async def version(
        self, namespace: str, key: str, *, as_of: AsOf = None, valid_at: When | None = None
    ) -> Version:
        return await self._read(
            self._database.version, namespace, key, as_of=as_of, valid_at=valid_at
        )

    async def get_version(self, version: Version | str) -> Version:
        return await self._read(self._database.get_version, version)

    async def contains(
        self, namespace: str, key: str, *, as_of: AsOf = None, valid_at: When | None = None
    ) -> bool:
        return await self._read(
            self._database.contains, namespace, key, as_of=as_of, valid_at=valid_at
        )

    async def query(
        self,
        namespace: str,
        filter: Filter | None = None,
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        offset: int = 0,
        select: Sequence[str] | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> list[Row]:
        return await self._read(
            self._database.query,
            namespace,
            filter,
            sort=sort,
            limit=limit,
            offset=offset,
            select=select,
            as_of=as_of,
            valid_at=valid_at,
        )

    async def count(
        self,
        namespace: str,
        filter: Filter | None = None,
        *,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> int:
        return await self._read(
            self._database.count, namespace, filter, as_of=as_of, valid_at=valid_at
        )

    async def list_keys(
        self,
        namespace: str,
        *,
        prefix: str = "",
        after: str | None = None,
        limit: int | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> list[str]:
        return await self._read(
            self._database.list_keys,
            namespace,
            prefix=prefix,
            after=after,
            limit=limit,
            as_of=as_of,
            valid_at=valid_at,
        )

    async def list_namespaces(
        self, *, as_of: AsOf = None, valid_at: When | None = None
    ) -> list[str]:
        return await self._read(self._database.list_namespaces, as_of=as_of, valid_at=valid_at)

    async def history(
        self,
        namespace: str,
        key: str,
        *,
        as_of: AsOf = None,
        reverse: bool = False,
        limit: int | None = None,
        include_annotations: bool = False,
    ) -> list[Version]:
        return await self._read(
            self._database.history, namespace, key, as_of=as_of, reverse=reverse, limit=limit,
            include_annotations=include_annotations,
        )  # fmt: skip

    async def diff(self, before: Version | str, after: Version | str) -> list[dict[str, Any]]:
        return await self._read(self._database.diff, before, after)

    async def commits(
        self,
        *,
        after: AsOf = 0,
        as_of: AsOf = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> list[Commit]:
        return await self._read(
            self._database.commits, after=after, as_of=as_of, reverse=reverse, limit=limit
        )

    async def ancestors(
        self,
        version: Version | str,
        *,
        kinds: Sequence[str] | None = None,
        max_hops: int | None = None,
        as_of: AsOf = None,
    ) -> list[Version]:
        return await self._read(
            self._database.ancestors, version, kinds=kinds, max_hops=max_hops, as_of=as_of
        )

    async def descendants(
        self,
        version: Version | str,
        *,
        kinds: Sequence[str] | None = None,
        max_hops: int | None = None,
        as_of: AsOf = None,
    ) -> list[Version]:
        return await self._read(
            self._database.descendants, version, kinds=kinds, max_hops=max_hops, as_of=as_of
        )

    async def lineage(
        self,
        ref: Reference,
        direction: Literal["up", "down"] = "up",
        *,
        kinds: Sequence[str] | None = None,
        max_hops: int | None = None,
        as_of: AsOf = None,
    ) -> Lineage:
        return await self._read(
            self._database.lineage, ref, direction, kinds=kinds, max_hops=max_hops, as_of=as_of
        )

    async def quarantines(self, *, as_of: AsOf = None) -> list[Quarantine]:
        return await self._read(self._database.quarantines, as_of=as_of)

    async def path(
        self,
        effect: Version | str,
        cause: Version | str,
        *,
        kinds: Sequence[str] | None = None,
        as_of: AsOf = None,
    ) -> list[Version]:
        return await self._read(self._database.path, effect, cause, kinds=kinds, as_of=as_of)

    async def similar(
        self,
        namespace: str,
        query: VectorLike | str,
        *,
        k: int = 10,
        filter: Filter | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
        model: str | None = None,
        threshold: float | None = None,
        exact: bool = False,
        recall: float = 0.95,
    ) -> Matches:
        return await self._read(
            _loaded,
            self._database.similar,
            namespace,
            query,
            k=k,
            filter=filter,
            as_of=as_of,
            valid_at=valid_at,
            model=model,
            threshold=threshold,
            exact=exact,
            recall=recall,
        )

    async def similar_many(
        self,
        namespace: str,
        queries: Sequence[VectorLike | str] | npt.NDArray[Any],
        *,
        k: int = 10,
        filter: Filter | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
        model: str | None = None,
        threshold: float | None = None,
        exact: bool = False,
        recall: float = 0.95,
    ) -> list[Matches]:
        return await self._read(
            _all_loaded,
            self._database.similar_many,
            namespace,
            queries,
            k=k,
            filter=filter,
            as_of=as_of,
            valid_at=valid_at,
            model=model,
            threshold=threshold,
            exact=exact,
            recall=recall,
        )

    async def similar_at(
        self, namespace: str, query: VectorLike | str, timestamp: AsOf, top_k: int = 10
    ) -> Matches:
        return await self._read(
            _loaded, self._database.similar_at, namespace, query, timestamp, top_k
        )

    async def vectors(self, version: Version | str) -> dict[str, Vector]:
        return await self._read(self._database.vectors, version)

    async def stats(self, *, spaces: bool = False) -> dict[str, Any]:
        return await self._read(self._database.stats, spaces=spaces)

    async def build_index(self, namespace: str | None = None) -> None:
        return await self._read(self._database.build_index, namespace)

    async def tune(
        self,
        namespace: str | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        return await self._read(self._database.tune, namespace, progress=progress)

    async def verify(self) -> VerifyReport:
        return await self._read(self._database.verify)

    async def tree_head(self) -> TreeHead:
        return await self._read(self._database.tree_head)

    async def prove(self, version: Version | str, head: TreeHead | None = None) -> InclusionProof:
        return await self._read(self._database.prove, version, head)

    async def prove_consistency(
        self, old_size: int, new_size: int | None = None
    ) -> ConsistencyProof:
        return await self._read(self._database.prove_consistency, old_size, new_size)

    async def backup(self, target: str | os.PathLike[str]) -> None:
        return await self._read(self._database.backup, target)

    async def export_log(
        self, target: str | os.PathLike[str] | IO[bytes], *, as_of: AsOf = None
    ) -> int:
        return await self._read(self._database.export_log, target, as_of=as_of)

    async def import_log(
        self,
        source: str | os.PathLike[str] | IO[bytes],
        *,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        return await self._write(self._database.import_log, source, progress=progress)

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

    async def get(
        self, namespace: str, key: str, default: Value = _RAISE, *, valid_at: When | None = None
    ) -> Value:
        return await self._read(self._view.get, namespace, key, default, valid_at=valid_at)

    async def get_raw(self, namespace: str, key: str, *, valid_at: When | None = None) -> bytes:
        return await self._read(self._view.get_raw, namespace, key, valid_at=valid_at)

    async def get_many(
        self, namespace: str, keys: Iterable[str], *, valid_at: When | None = None
    ) -> dict[str, Value]:
        return await self._read(self._view.get_many, namespace, keys, valid_at=valid_at)

    async def contains(self, namespace: str, key: str, *, valid_at: When | None = None) -> bool:
        return await self._read(self._view.contains, namespace, key, valid_at=valid_at)

    async def version(self, namespace: str, key: str, *, valid_at: When | None = None) -> Version:
        return await self._read(self._view.version, namespace, key, valid_at=valid_at)

    async def query(
        self,
        namespace: str,
        filter: Filter | None = None,
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        offset: int = 0,
        select: Sequence[str] | None = None,
        valid_at: When | None = None,
    ) -> list[Row]:
        return await self._read(
            self._view.query,
            namespace,
            filter,
            sort=sort,
            limit=limit,
            offset=offset,
            select=select,
            valid_at=valid_at,
        )

    async def count(
        self, namespace: str, filter: Filter | None = None, *, valid_at: When | None = None
    ) -> int:
        return await self._read(self._view.count, namespace, filter, valid_at=valid_at)

    async def list_keys(
        self,
        namespace: str,
        *,
        prefix: str = "",
        after: str | None = None,
        limit: int | None = None,
        valid_at: When | None = None,
    ) -> list[str]:
        return await self._read(
            self._view.list_keys,
            namespace,
            prefix=prefix,
            after=after,
            limit=limit,
            valid_at=valid_at,
        )

    async def list_namespaces(self, *, valid_at: When | None = None) -> list[str]:
        return await self._read(self._view.list_namespaces, valid_at=valid_at)

    async def history(
        self,
        namespace: str,
        key: str,
        *,
        reverse: bool = False,
        limit: int | None = None,
        include_annotations: bool = False,
    ) -> list[Version]:
        return await self._read(
            self._view.history, namespace, key, reverse=reverse, limit=limit,
            include_annotations=include_annotations,
        )  # fmt: skip

    async def commits(self, *, reverse: bool = False, limit: int | None = None) -> list[Commit]:
        return await self._read(self._view.commits, reverse=reverse, limit=limit)

    async def ancestors(
        self,
        version: Version | str,
        *,
        kinds: Sequence[str] | None = None,
        max_hops: int | None = None,
    ) -> list[Version]:
        return await self._read(self._view.ancestors, version, kinds=kinds, max_hops=max_hops)

    async def descendants(
        self,
        version: Version | str,
        *,
        kinds: Sequence[str] | None = None,
        max_hops: int | None = None,
    ) -> list[Version]:
        return await self._read(self._view.descendants, version, kinds=kinds, max_hops=max_hops)

    async def lineage(
        self,
        ref: Reference,
        direction: Literal["up", "down"] = "up",
        *,
        kinds: Sequence[str] | None = None,
        max_hops: int | None = None,
    ) -> Lineage:
        return await self._read(self._view.lineage, ref, direction, kinds=kinds, max_hops=max_hops)

    async def quarantines(self) -> list[Quarantine]:
        return await self._read(self._view.quarantines)

    async def similar(
        self,
        namespace: str,
        query: VectorLike | str,
        *,
        k: int = 10,
        filter: Filter | None = None,
        valid_at: When | None = None,
        model: str | None = None,
        threshold: float | None = None,
        exact: bool = False,
        recall: float = 0.95,
    ) -> Matches:
        return await self._read(
            _loaded,
            self._view.similar,
            namespace,
            query,
            k=k,
            filter=filter,
            valid_at=valid_at,
            model=model,
            threshold=threshold,
            exact=exact,
            recall=recall,
        )

    async def similar_many(
        self,
        namespace: str,
        queries: Sequence[VectorLike | str] | npt.NDArray[Any],
        *,
        k: int = 10,
        filter: Filter | None = None,
        valid_at: When | None = None,
        model: str | None = None,
        threshold: float | None = None,
        exact: bool = False,
        recall: float = 0.95,
    ) -> list[Matches]:
        return await self._read(
            _all_loaded,
            self._view.similar_many,
            namespace,
            queries,
            k=k,
            filter=filter,
            valid_at=valid_at,
            model=model,
            threshold=threshold,
            exact=exact,
            recall=recall,
        )


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

    async def get(self, namespace: str, key: str) -> Value:
        return await self._database._read(self._transaction.get, namespace, key)

    async def contains(self, namespace: str, key: str) -> bool:
        return await self._database._read(self._transaction.contains, namespace, key)


def _loaded(search: Callable[P, Matches], *args: P.args, **kwargs: P.kwargs) -> Matches:
    """Search and read the hits' versions too, so that no storage is touched on the loop."""
    return search(*args, **kwargs).load()


def _all_loaded(
    search: Callable[P, list[Matches]], *args: P.args, **kwargs: P.kwargs
) -> list[Matches]:
    return [found.load() for found in search(*args, **kwargs)]
