"""The facade: opens a database, turns arguments into cuts and entries, forwards.

No rule lives here; `log`, `search` and `transaction` have them.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from math import inf, isfinite
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from koru_delta.causal import (
    CAUSE_KINDS,
    Clock,
    Commit,
    ConsistencyProof,
    Cut,
    InclusionProof,
    TreeHead,
    Version,
    When,
    check_kept,
    microseconds,
    moment,
    system_clock,
)
from koru_delta.embedders import Embedder, TextEmbedder, as_embedder
from koru_delta.errors import (
    ConflictError,
    ErasedError,
    InvalidDataError,
    InvalidTimestampError,
    KeyNotFoundError,
    KoruDeltaError,
    ModelMismatchError,
    NotPicklableError,
    NoVectorError,
    QueryError,
    ReadOnlyError,
    StorageError,
    TransactionError,
    UnknownVersionError,
)
from koru_delta.log import CausalLog, VerifyReport
from koru_delta.log.append import RETENTION
from koru_delta.log.audit import Audit, prove, prove_consistency, tree_head
from koru_delta.log.causes import Walk
from koru_delta.log.log import FREE_PAGES, TAGS, AsOf
from koru_delta.log.retention import (
    Retention,
    Swept,
    checked_policy,
    recorded,
    retained,
    retention_of,
    sweep,
)
from koru_delta.log.sweeper import Sweeper
from koru_delta.search.answers import Answers, Match, Matches
from koru_delta.search.causality import CausalFilter, Causality, valid_time
from koru_delta.search.difference import RetrievalDiff, compare
from koru_delta.search.explained import explained, of_similar
from koru_delta.search.filters import Filter, compiled
from koru_delta.search.fusion import FUSIONS, LEGS, MODES, Fusion, Mode, checked_weights
from koru_delta.search.hybrid import Asked, Cursor, Question, digest_of, window_of
from koru_delta.search.nearest import Target, VectorSpace
from koru_delta.search.query import Row, check_page, count_rows, select_rows
from koru_delta.search.scrub import scrub
from koru_delta.search.synthesis.explanation import Explanation
from koru_delta.search.synthesis.layers import Descent, Layers, LayersOf, Shape, no_layers
from koru_delta.search.synthesis.navigation import Operand, Step, Words, operands, walk
from koru_delta.search.synthesis.relations import Relation, related
from koru_delta.search.text.analysis import Analyzer
from koru_delta.search.text.queries import excludes, is_bounded, meaning
from koru_delta.search.texts import SETTINGS, Texts, TextSettings
from koru_delta.search.vectors import Vectors
from koru_delta.storage import SqliteEngine
from koru_delta.transaction import (
    DEFAULT_MODEL,
    KEEP,
    CauseLike,
    Erasable,
    Intents,
    Transaction,
    WriteOptions,
)
from koru_delta.values import Value, Vector, VectorLike, as_matrix, as_vector, check_key, decode

if TYPE_CHECKING:  # loaded where it is used
    from koru_delta.ingest.chunking import ChunkingConfig
    from koru_delta.ingest.lineage import Lineage, Reference
    from koru_delta.ingest.quarantine import Quarantine
    from koru_delta.ingest.sources import Source
    from koru_delta.ingest.writer import Run

_TRIES: Final = 20  # against others who say the same thing at the same time
_VECTORS_SWEPT_SECONDS: Final = 3600.0  # at most so often, since their indexes are made anew
_logger = logging.getLogger("koru_delta")
_RAISE: Final[Any] = object()
_ANY: Final[Any] = object()


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased: the ids of the versions, the entries that say so, and how many bytes.

    `is_clean` tells that no file of the database holds a copy any more. It is False while a
    long reader keeps the write-ahead log from being emptied, or an index file could not be
    removed; the next erase, sweep, `compact` or opening sees to it.
    """

    versions: tuple[str, ...]
    entries: tuple[Version, ...]
    bytes_erased: int
    is_clean: bool


class Database:
    """A causal database: what is, what was, and how it came about.

    Safe to share by threads; several processes may open one directory. A forked child
    may go on using its handle; a handle cannot be pickled. Close it, or use `with`.

    Every read takes `as_of` (what was known then: a position, an aware datetime, ISO 8601
    text with a zone, a `Version` or `Commit` or version id, `"tag:name"`; that instant
    included) and `valid_at` (what was true then, by default at the moment of `as_of`).
    Every write takes `author`, `message`, `run`; `causes`, a list of versions or of
    `(kind, version)` with a kind out of `caused_by derived_from supersedes references
    same_run`; and `valid_from` (inclusive) and `valid_to` (exclusive), by default from
    now on. All but the obvious: reads raise `InvalidTimestampError` or
    `UnknownVersionError` for a moment that is none, any call raises
    `DatabaseClosedError` after `close`.
    """

    def __init__(
        self,
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
    ) -> None:
        """Open the database in the directory `path`, made if missing; None is in memory.

        Args:
            durability: "full" syncs every commit to disk before it returns; "relaxed"
                may lose the last ones in a power cut (never in a crash of the process).
            read_only: Refuse writes; the directory must hold a database.
            embedder: Turns text to vectors: a callable from a list of texts to vectors,
                sync or async, or a LangChain or LlamaIndex embeddings object.
            clock: Microseconds since 1970, UTC; the system's clock by default.
            author: Who writes, unless a write says otherwise.
            run: The run writes belong to, unless a write says otherwise.
            node: The name of this copy in vector clocks.
            lock_timeout_seconds: How long a write waits for other processes' writes.

        Raises:
            NotADatabaseError: the path is a file or holds something else.
            UnsupportedFormatError: written by a newer KoruDelta.
            CorruptionError: damaged, or acknowledged entries are missing.
            ReadOnlyError: the directory cannot be written; open it read-only.
        """
        if durability not in ("full", "relaxed"):
            raise InvalidDataError(f"durability is 'full' or 'relaxed', not {durability!r}")
        text = None if embedder is None else as_embedder(embedder)
        engine = SqliteEngine(
            path, durability=durability, read_only=read_only,
            lock_timeout_seconds=lock_timeout_seconds,
        )  # fmt: skip
        self._log = CausalLog(engine, clock or system_clock, node=node)
        self._intents = Intents(self._log, text, author=author, run=run)
        self._vectors = Vectors(self._log)
        self._texts = Texts(self._log)
        self._causality = Causality(self._log)
        self._answers = Answers(self._log)
        self._layers = LayersOf(self._log, Analyzer().terms)
        self._sweeper = Sweeper(self._sweep_quietly)
        engine.after_fork.append(self._sweeper.begin)
        self._log.after_erase = self._scrub
        # The last transaction begun in this thread or task, which may have ended since.
        self._transaction: ContextVar[Transaction | None] = ContextVar("transaction", default=None)
        self._closing = threading.Lock()
        self._swept: dict[str, float] = {}  # when its namespaces were swept in the background
        if not read_only and not self._log.engine.temporary:
            if not engine.is_scrubbed():  # whoever erased was killed before it had cleaned up
                self._scrub()
            if any(policy.is_active for policy in self.retentions().values()):
                self._sweeper.start()

    @property
    def directory(self) -> Path | None:
        """Where the database lives, or None in memory."""
        return self._log.engine.path

    @property
    def embedder(self) -> TextEmbedder | None:
        """What turns text to vectors here, or None."""
        return self._intents.embedder

    @property
    def read_only(self) -> bool:
        """Whether writes are refused."""
        return self._log.engine.read_only

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce_ex__(self, _protocol: object) -> Any:
        raise NotPicklableError(
            f"a database handle cannot be pickled or copied; pass its path ({self.directory}) "
            "and open it again there"
        )

    def __repr__(self) -> str:
        return f"<Database {'in memory' if self.directory is None else str(self.directory)!r}>"

    def close(self) -> None:
        """Close every file; indexes made meanwhile are kept for the next opening.

        Matches that are still held keep their values. Closing twice is fine.
        """
        with self._closing:
            try:
                self._sweeper.stop()
                self._answers.close()
                self._texts.close()
                self._vectors.close()
            finally:
                self._log.close()

    # Writing

    def put(
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
        """Store a JSON value under a key, as a new version; drops the key's vectors.

        Args:
            if_match: The version that must be the present one; None if there must be none.
            ttl: Seconds (or a timedelta) after which the key counts as absent, exactly.

        Raises:
            InvalidDataError: the value, key or namespace cannot be stored.
            ConflictError: another version than `if_match` is the present one.
            UnknownCauseError: a cause is not in the log.
            ReadOnlyError, DatabaseLockedError, StorageFullError, StorageError.
        """
        options = _options(if_match, causes, ttl, valid_from, valid_to, author, message, run)
        return self._log.commit([self._intents.put(namespace, key, value, options)])[0]

    def put_many(
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
        """Store many `(namespace, key, value)` in one commit: all of them or none."""
        options = _options(_ANY, causes, ttl, valid_from, valid_to, author, message, run)
        writes = []
        for item in items:
            if not isinstance(item, tuple) or len(item) != 3:
                raise InvalidDataError("an item to put is (namespace, key, value)")
            writes.append(self._intents.put(*item, options))
        return self._log.commit(writes)

    def delete(
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
        """Mark a key as deleted from now on; the past before it stays readable.

        Raises:
            KeyNotFoundError: there is nothing to delete.
            ConflictError: another version than `if_match` is the present one.
        """
        options = _options(if_match, causes, None, valid_from, valid_to, author, message, run)
        return self._log.commit([self._intents.delete(namespace, key, options)])[0]

    def delete_many(
        self,
        namespace: str,
        keys: Iterable[str],
        *,
        causes: Sequence[CauseLike] = (),
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> list[Version]:
        """Delete those of the keys that are present, in one commit; absent ones are no error."""
        options = _options(_ANY, causes, None, None, None, author, message, run)
        writes = []
        for key in dict.fromkeys(_keys(keys)):
            write = self._intents.delete(namespace, key, options)
            write.missing_ok = True
            writes.append(write)
        return self._log.commit(writes)

    def hide(
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
        """Take a version out of search and `query` from now on, and out of nothing else.

        `get`, `version` and `history` go on as before, and so does every moment before this.
        What the key held earlier does not come back into search; what is put later is found.
        What was derived from it is found as well, so of an ingested document its chunks:
        `quarantine` takes out these too.

        Args:
            version: A put of this key, by itself or its id; None is what the key holds now.

        Returns:
            The entry of the log that hides it: its `target` is the version hidden.

        Raises:
            KeyNotFoundError: the key holds nothing, and no version was named.
            AnnotationError: the version is hidden already, or is no put of this key.
            UnknownVersionError: the version is not in the log.
            UnknownCauseError, ReadOnlyError, DatabaseLockedError, StorageError.
        """
        options = _options(_ANY, causes, None, None, None, author, message, run)
        write = self._intents.hide(namespace, key, version, options)
        return self._log.commit([write])[0]

    def unhide(
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
        """Bring a hidden version back into search and `query`, if its key still holds it.

        Arguments and errors are those of `hide`.

        Raises:
            AnnotationError: the version is not hidden.
        """
        options = _options(_ANY, causes, None, None, None, author, message, run)
        write = self._intents.hide(namespace, key, version, options, back=True)
        return self._log.commit([write])[0]

    def hide_many(
        self,
        versions: Iterable[Version | str],
        *,
        causes: Sequence[CauseLike] = (),
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> list[Version]:
        """Hide many versions, of any keys, in one commit; those hidden already are left out.

        Returns:
            The entries written, one for each version that was not hidden before.
        """
        options = _options(_ANY, causes, None, None, None, author, message, run)
        return self._log.commit(self._intents.hide_many(versions, options))

    def unhide_many(
        self,
        versions: Iterable[Version | str],
        *,
        causes: Sequence[CauseLike] = (),
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> list[Version]:
        """Unhide many versions in one commit; those that are not hidden are left out."""
        options = _options(_ANY, causes, None, None, None, author, message, run)
        return self._log.commit(self._intents.hide_many(versions, options, back=True))

    def embed(
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
        """Store a vector with a key, so that `similar` finds it.

        Args:
            vector: Shape (dimensions,), or text for the database's embedder.
            value: Left out, the key keeps the value it has; where it has none, text
                is stored as `{"text": ...}` and a bare vector as null.
            model: Files the vector; by default the embedder's name for text, else the
                one model the namespace has, else "default".
            metric: Fixed by the first vector of a namespace and model ("cosine" then).

        Raises:
            DimensionMismatchError, MetricMismatchError, InvalidDataError (NaN, infinity,
            a zero vector under cosine), EmbedderError; and those of `put`.
        """
        options = _options(if_match, causes, ttl, valid_from, valid_to, author, message, run)
        write = self._intents.embed(
            namespace, key, vector, value, keep=value is KEEP, model=model, metric=metric,
            options=options,
        )  # fmt: skip
        return self._log.commit([write])[0]

    def embed_many(
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
        """Embed many `(key, vector_or_text)` or `(key, vector_or_text, value)` in one commit."""
        options = _options(_ANY, causes, ttl, valid_from, valid_to, author, message, run)
        writes = self._intents.embed_many(
            namespace, list(items), model=model, metric=metric, options=options
        )
        return self._log.commit(writes)

    def transaction(
        self,
        *,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> Transaction:
        """Gather writes into one commit: `with db.transaction() as tx: tx.put(...)`.

        An exception inside the block writes nothing. `tx.get` sees the beginning and
        the transaction's own writes; `tx.versions` are there after the block.

        Raises:
            TransactionError: one is already open here; they do not nest.
        """
        options = _options(_ANY, (), None, None, None, author, message, run)
        return Transaction(self._intents, options, self._begin_transaction)

    def revert(
        self,
        namespace: str,
        key: str,
        to: AsOf,
        *,
        if_match: Version | str | None = _ANY,
        author: str | None = None,
        message: str | None = None,
    ) -> Version:
        """Make a key hold again what it held as of `to`, vectors included, as a new version.

        `to` is a moment, or a version of this key (its whole commit, as everywhere). The
        version that is brought back becomes a `references` cause; where the key was absent,
        it is deleted.

        Raises:
            KeyNotFoundError: absent then and now.
            InvalidDataError: `to` is a version of another key.
            ConflictError: another version than `if_match` is the present one.
        """
        check_key(namespace, key)
        if isinstance(to, Version) and (to.namespace, to.key) != (namespace, key):
            raise InvalidDataError(
                f"{to!r} is a version of another key; pass one out of "
                f"history({namespace!r}, {key!r}), or a moment"
            )
        cut = self._log.cut(to)
        note = message or f"revert to {cut.seq}"
        try:
            past = self._log.version_at(namespace, key, cut, cut.clock)
        except KeyNotFoundError:
            return self.delete(namespace, key, if_match=if_match, author=author, message=note)
        options = _options(if_match, [("references", past)], None, None, None, author, note, None)
        write = self._intents.put(namespace, key, past.value, options)
        write.carried = dict(past.vectors)
        return self._log.commit([write])[0]

    def reembed(
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
        """Give every present key that has a vector a vector of another model, and no other.

        Each becomes a new version of the same value, `derived_from` the version before, so
        what is asked of an earlier moment is answered by the model of that moment. The valid
        interval and the end of life of the version stay; what only holds at other valid
        times than now keeps its model. Keys that have a vector of this model alone are
        passed over, so a call that was interrupted is ended by the same call. A model that
        is new here measures as the namespace's others do.

        Args:
            embed_fn: As `embedder=` of `koru_delta.open`; called outside of every lock.
            text: What is embedded, of a key and its value. By default the value if it is a
                string, its field "text" if that is one, else its canonical JSON.
            batch: Keys embedded in one call and written in one commit.
            progress: Called with `(done, total)`; True shows a bar on standard error, False
                nothing, None a bar for more than 1,000 keys on a terminal.

        Returns:
            How many versions were written.

        Raises:
            IngestError: somebody wrote a key again and again while it was embedded. Here
                and below, what was embedded before stays.
            InvalidDataError: a key holds null and there is no `text`; and as `embed`.
            DimensionMismatchError, EmbedderError; and those of `put`.
        """
        from koru_delta.ingest.reembed import reembed

        note = message or f"embed with {model}"
        return reembed(
            self._intents, namespace, model, embed_fn, text=text, batch=batch, progress=progress,
            options=_options(_ANY, (), None, None, None, author, note, run),
        )  # fmt: skip

    def ingest(
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
        """Take in documents, cut into chunks with vectors; again, only what has changed.

        A document is kept in `namespace`, its chunks in `f"{namespace}.chunks"`, which is
        what to search, the record of the run in `f"{namespace}.runs"`. A chunk is
        `derived_from` the version of its document that brought it. Of a changed document
        only changed chunks are embedded; those that are gone are deleted, so that every
        moment before finds what stood there then. Each flush is one commit: a run that was
        killed leaves whole documents, and the same call goes on from there.

        Args:
            source: A file or directory by its path, as it is now (a repository too; its
                history is `koru_delta.ingest.Git(path, rev=)`), or an iterable of records:
                mappings with `id` and `text`, or tuples `(id, text)` or `(id, text,
                metadata)`. `koru_delta.ingest.Files(paths, prune=True)` and
                `Records(records, complete=True)` also delete what is gone. A namespace has
                one kind of source.
            chunking: How to cut; None is as the runs before did, and by content in the first,
                see `koru_delta.ingest.chunking`. It and `embedder` are the same in every run
                that fills a namespace.
            include: Glob patterns of the files wanted; none is all.
            embedder: Makes the vectors; None stores text alone.
            max_bytes: Larger files are skipped; 2 MiB by default.
            run: Names the run; by default it is numbered.
            progress: Called with what is done and what there is to do (None: nobody knows);
                True shows a bar on standard error, False nothing, None a bar on a terminal
                for long work.

        Raises:
            IngestError: the source cannot be read, the namespace was filled in another way,
                or another run writes into it.
            InvalidDataError: a record or argument is not well formed, or the namespace ends in
                `.chunks`, `.commits` or `.runs`.
            EmbedderError: there is no embedder, or it failed.
            MissingExtraError: a PDF or HTML file was named itself, and the extra
                `documents` is not installed; in a directory such files are `skipped`.
        """
        from koru_delta.ingest.sources import ingest

        self._check_writable()
        return ingest(
            self, source, namespace=namespace, chunking=chunking, include=include,
            embedder=embedder, max_bytes=max_bytes, author=author, message=message, run=run,
            progress=progress,
        )  # fmt: skip

    def quarantine(
        self,
        ref: Reference,
        *,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> Quarantine:
        """Take a version and all that was derived from it out of search, until `release`.

        It is one commit; `get`, `history` and every moment before it go on as before. What
        is derived later, such as by ingesting a changed document again, is found; asking
        once more covers that too.

        Args:
            ref: A version or its id, a match, `(namespace, key)` for every version a key
                has had, or a `Run` for all that it wrote.

        Raises:
            KeyNotFoundError, UnknownVersionError: there is no such thing.
            InvalidDataError: there is nothing that could be found in it.
        """
        from koru_delta.ingest.quarantine import quarantine

        self._check_writable()
        options = _options(_ANY, (), None, None, None, author, message, run)
        return quarantine(self._intents, ref, options)

    def release(
        self,
        quarantine: Quarantine | str,
        *,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> list[Version]:
        """End a quarantine, by itself or its id: what no other one covers can be found again.

        Returns:
            The entries of the log that brought versions back, in one commit; their `target`s
            are those. Empty where another quarantine covers all of them: `quarantines()`
            tells which stand.

        Raises:
            UnknownVersionError: no such quarantine stands.
        """
        from koru_delta.ingest.quarantine import release

        self._check_writable()
        options = _options(_ANY, (), None, None, None, author, message, run)
        return release(self._intents, quarantine, options)

    def drop_namespace(
        self, namespace: str, *, author: str | None = None, message: str | None = None
    ) -> int:
        """Delete every present key of a namespace in one commit; returns how many.

        The past stays readable; the namespace is there again with its next put.
        """
        _check_namespace(namespace)
        cut = self._log.now()
        found = self._log.engine.visible_keys(
            namespace, cut.seq, cut.clock, cut.clock, bodies=False, erased=True
        )
        keys = [key for key, _ in found]
        return len(self.delete_many(namespace, keys, author=author, message=message))

    # Erasing

    def erase(
        self,
        what: Erasable | Iterable[Erasable],
        *,
        causes: Sequence[CauseLike] = (),
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> Erased:
        """Remove values and vectors for good, from the past too; what they were is recorded.

        It is an entry of the log, in one commit with all that is erased together. Records and
        hashes stay, so that the log still verifies and every proof still holds; what is erased
        is in no file of the database afterwards (`Erased.is_clean` says so), and out of
        search, `query`, `count` and `list_keys` at every moment, past ones too. Whoever asks for
        a value that is gone gets `ErasedError`. A value that another version holds as well
        stays there. Names of namespaces and keys, authors and messages are records: keep
        nothing in them that may have to go.

        Args:
            what: A version or its id; or `(namespace, key)` for all that a key ever held, and
                then the key is deleted as well. One, or a list of them. What was erased
                already is left out.
            message: Why: `ErasedError.reason` to whoever asks later.

        Raises:
            KeyNotFoundError: a key was never written.
            UnknownVersionError: a version is not in the log.
            AnnotationError: a version is no put.
            UnknownCauseError, ReadOnlyError, DatabaseLockedError, StorageError.
        """
        self._check_writable()
        options = _options(_ANY, causes, None, None, None, author, message, run)
        made, removed = self._log.erase(self._intents.erase(what, options))
        self._log.shrink(removed)
        return Erased(
            tuple(each for entry in made if not entry.is_tombstone for each in entry.targets),
            tuple(made), removed, self._log.engine.is_scrubbed(),
        )  # fmt: skip

    def retain(
        self,
        namespace: str,
        *,
        keep: timedelta | None = None,
        versions: int | None = None,
        author: str | None = None,
        message: str | None = None,
    ) -> Retention:
        """Say how much of its past a namespace retains; recorded in the log, until said anew.

        A version is out of use once its key has been written again or deleted, or once it has
        expired. `sweep` erases what has been out of use for all of `keep` and is not
        among the last `versions` entries of its key (deletes count); where one of the two is
        None, the other alone decides. What a key holds now is never swept, nor what holds
        explicit valid times still. With neither, everything is retained from now on.

        While a namespace has a policy, this handle and every one opened later sweep about
        once a minute (a namespace with vectors: once an hour), beside everything else.

        Args:
            keep: For instance `timedelta(days=30)`; zero retains nothing out of use.
            versions: From 1 on.

        Raises:
            InvalidDataError: they make no sense, or the namespace cannot be.
        """
        _check_namespace(namespace)
        self._check_writable()
        policy = checked_policy(namespace, keep, versions)
        for _ in range(_TRIES):
            known, said_by = retention_of(self._log, namespace, self._log.now())
            horizon = None if known is None else known.horizon
            options = _options(_ANY, (), None, None, None, author, message, None)
            write = self._intents.put(namespace, namespace, None, options)
            write.namespace, write.if_match = RETENTION, said_by
            write.body = recorded(policy, 0 if horizon is None else microseconds(horizon))
            try:
                self._log.commit([write])
            except ConflictError:
                continue
            break
        else:
            raise ConflictError(RETENTION, namespace, None, None)
        if policy.is_active and not self._log.engine.temporary:
            self._sweeper.start()
        return replace(policy, horizon=horizon)

    def retentions(self) -> dict[str, Retention]:
        """What each namespace retains, by name: of those for which somebody ever said so."""
        return {name: policy for name, (policy, _) in retained(self._log, self._log.now()).items()}

    def sweep(
        self,
        namespace: str | None = None,
        *,
        author: str | None = None,
        message: str | None = None,
    ) -> Swept:
        """Erase now what is no longer retained (see `retain`), and give disk back.

        From then on, searches, queries and lists of moments before the namespace's horizon
        (`retentions()`) raise `ErasedError`, since they would lack what was there; `get` raises
        it where what the key held is gone, and answers where it is not.

        Args:
            namespace: Only this one; None is every namespace that has a policy.
        """
        self._check_writable()
        if namespace is not None:
            _check_namespace(namespace)
        return self._sweep([namespace] if namespace is not None else None, author, message)

    def compact(self) -> int:
        """Write the log's file anew without free room; returns the bytes it is shorter by.

        `sweep` and `erase` give disk back by themselves, but for files of an older version: those
        keep what is free for the next writes until they were compacted once. Writers wait
        meanwhile, readers do not; it takes as much free disk as the file is large, twice.
        """
        self._check_writable()
        self._scrub()
        return self._log.engine.compact()

    def tag(
        self,
        name: str,
        ref: AsOf = None,
        *,
        move: bool = False,
        author: str | None = None,
        message: str | None = None,
    ) -> Version:
        """Name a moment (now by default), to be asked for as `as_of="tag:name"`.

        Raises:
            ConflictError: the name is taken; pass `move=True` to point it elsewhere.
        """
        check_key("tags", name)
        cut = self._log.cut(ref)
        write = self._intents.put(
            "tags", name, None, _options(_ANY, (), None, None, None, author, message, None)
        )
        write.namespace, write.body = TAGS, self._log.tag_value(cut)
        if not move:
            write.if_match = None
        return self._log.commit([write])[0]

    def tags(self) -> dict[str, int]:
        """Every tag and the position it names, by name."""
        cut = self._log.now()
        found = self._log.engine.visible_keys(TAGS, cut.seq, cut.clock, cut.clock)
        return {name: int(decode(entry.body or b"null")["seq"]) for name, entry in found}

    # Reading

    def get(
        self,
        namespace: str,
        key: str,
        default: Value = _RAISE,
        *,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> Value:
        """The value of a key, a fresh copy.

        Args:
            default: Returned where the key is absent, in place of an error.

        Raises:
            KeyNotFoundError: never written, deleted (`deleted_at` says when) or expired.
            ErasedError: what it held was erased; `default` is not for that.
        """
        if as_of is None and valid_at is None:
            hot = self._log.hot
            if hot.cells[0] == hot.at:
                try:
                    kept, nested = hot.values[namespace][key]
                except (KeyError, TypeError):
                    pass  # not cached, or a key that is no key: said below
                else:
                    value = kept.copy()
                    for name in nested:
                        value[name] = value[name].copy()
                    return value
        try:
            return decode(self.get_raw(namespace, key, as_of=as_of, valid_at=valid_at))
        except KeyNotFoundError:
            if default is _RAISE:
                raise
            return default

    def get_raw(
        self,
        namespace: str,
        key: str,
        *,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> bytes:
        """The canonical JSON bytes of a key: what `get` decodes.

        Raises:
            KeyNotFoundError: absent, deleted or expired.
        """
        if as_of is None and valid_at is None:
            hot = self._log.hot
            if hot.cells[0] == hot.at:
                try:
                    return hot.raw[namespace][key]
                except (KeyError, TypeError):
                    pass  # as above
            check_key(namespace, key)
            return self._log.present(namespace, key)
        check_key(namespace, key)
        cut = self._log.cut(as_of)
        return self._log.get(namespace, key, cut, _valid(valid_at, cut))

    def get_many(
        self,
        namespace: str,
        keys: Iterable[str],
        *,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> dict[str, Value]:
        """The values of those keys that are present, in the order asked for, at one moment.

        Raises:
            ErasedError: what one of them held was erased.
        """
        cut = self._log.cut(as_of)
        at = _valid(valid_at, cut)
        found: dict[str, Value] = {}
        for key in _keys(keys):
            check_key(namespace, key)
            try:
                found[key] = decode(self._log.get(namespace, key, cut, at))
            except KeyNotFoundError:
                continue
        return found

    def get_at(self, namespace: str, key: str, timestamp: AsOf) -> Value:
        """The value of a key as of a moment: `get(namespace, key, as_of=timestamp)`."""
        return self.get(namespace, key, as_of=timestamp)

    def version(
        self,
        namespace: str,
        key: str,
        *,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> Version:
        """The version `get` takes its value from: what `if_match` compares with.

        One that was erased is returned all the same: its record is there, its value raises.

        Raises:
            KeyNotFoundError: absent, deleted or expired.
        """
        check_key(namespace, key)
        cut = self._log.cut(as_of)
        return self._log.version_at(namespace, key, cut, _valid(valid_at, cut))

    def get_version(self, version: Version | str) -> Version:
        """The version of that id, or of its first 8 or more hex digits, with its value.

        Raises:
            UnknownVersionError: there is none, or more than one.
        """
        return self._log.version(version)

    def contains(
        self,
        namespace: str,
        key: str,
        *,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> bool:
        """Whether `get` would find a value."""
        try:
            self.get_raw(namespace, key, as_of=as_of, valid_at=valid_at)
        except (KeyNotFoundError, ErasedError):
            return False
        return True

    def query(
        self,
        namespace: str,
        filter: Filter | None = None,
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        offset: int = 0,
        select: Sequence[str] | None = None,
        causal: CausalFilter | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> list[Row]:
        """The keys whose values match a filter, in key order unless `sort` says otherwise.

        A key whose version is hidden there is left out, or was erased since.

        Args:
            filter: As in `koru_delta.search.filters`; None is everything.
            sort: Dotted paths, most significant first; `-path` descends. null sorts
                before booleans, numbers and strings, a missing field last.
            select: Dotted paths; each row's value is then `{path: field}` of those present.
            causal: Where versions come from; it leaves out what is superseded, as searches do.

        Raises:
            QueryError: the filter, sort, page or selection is not well formed.
            ErasedError: a moment behind what the namespace retains.
        """
        _check_namespace(namespace)
        cut, at = self._moment(namespace, as_of, valid_time(causal, valid_at))
        return select_rows(
            self._texts.records(namespace), cut, at,
            filter=filter, sort=sort, limit=limit, offset=offset, select=select,
            causal=self._causality.compile(causal, namespace, cut), searched=causal is not None,
        )  # fmt: skip

    def count(
        self,
        namespace: str,
        filter: Filter | None = None,
        *,
        text: str | None = None,
        causal: CausalFilter | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> int:
        """How many keys `query` would return; with `text`, how many a search by words would.

        As searches do, `text` and `causal` leave out what is superseded.
        """
        _check_namespace(namespace)
        cut, at = self._moment(namespace, as_of, valid_time(causal, valid_at))
        only = self._causality.compile(causal, namespace, cut)
        if text is not None:
            where = None if filter is None else compiled(filter)
            return self._texts.index(namespace, cut).count(text, cut, at, where=where, causal=only)
        return count_rows(
            self._texts.records(namespace), cut, at, filter=filter, causal=only,
            searched=causal is not None,
        )  # fmt: skip

    def list_keys(
        self,
        namespace: str,
        *,
        prefix: str = "",
        after: str | None = None,
        limit: int | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> list[str]:
        """Present keys in code point order, those that start with `prefix`, `after` exclusive.

        A key whose version there was erased is left out.

        Raises:
            ErasedError: a moment behind what the namespace retains; `query`, `count` and all
                searches raise it too.
        """
        _check_namespace(namespace)
        check_page(limit)
        cut, at = self._moment(namespace, as_of, valid_at)
        found = self._log.engine.visible_keys(
            namespace, cut.seq, at, cut.clock,
            prefix=prefix, after=after, limit=limit, bodies=False,
        )  # fmt: skip
        return [key for key, _ in found]

    def list_namespaces(self, *, as_of: AsOf = None, valid_at: When | None = None) -> list[str]:
        """Namespaces with at least one present key, in order; erased ones count."""
        cut = self._log.cut(as_of)
        return self._log.engine.namespaces(cut.seq, _valid(valid_at, cut), cut.clock, hidden=False)

    def as_of(self, ref: AsOf) -> View:
        """The database as it stood at a moment, to be read only."""
        return View(self, self._log.cut(ref))

    # History

    def history(
        self,
        namespace: str,
        key: str,
        *,
        as_of: AsOf = None,
        reverse: bool = False,
        limit: int | None = None,
        include_annotations: bool = False,
    ) -> list[Version]:
        """Every put and delete of a key, oldest first unless `reverse`; [] if never written.

        Args:
            include_annotations: Every hide and unhide of its versions as well.
        """
        check_key(namespace, key)
        check_page(limit)
        cut = self._log.cut(as_of)
        return self._log.history(
            namespace, key, cut, reverse=reverse, limit=limit, annotations=include_annotations
        )

    def diff(self, before: Version | str, after: Version | str) -> list[dict[str, Any]]:
        """What turns the value of one version into that of another: an RFC 6902 JSON Patch.

        A tombstone counts as null. Equal values give [].
        """
        import jsonpatch

        old, new = self._log.version(before), self._log.version(after)
        patch: list[dict[str, Any]] = jsonpatch.make_patch(old.value, new.value).patch
        return patch

    def commits(
        self,
        *,
        after: AsOf = 0,
        as_of: AsOf = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> list[Commit]:
        """Commits, oldest first unless `reverse`: `after` exclusive, up to `as_of` inclusive."""
        check_page(limit)
        start, until = self._log.cut(after), self._log.cut(as_of)
        return self._log.commits(start, until, reverse=reverse, limit=limit)

    def changes(self, after: AsOf = 0, *, as_of: AsOf = None) -> Iterator[Version]:
        """Every version in log order, annotations too: `after` exclusive, `as_of` inclusive."""
        start, until = self._log.cut(after), self._log.cut(as_of)
        return self._log.changes(start, until)

    def ancestors(
        self,
        version: Version | str,
        *,
        kinds: Sequence[str] | None = None,
        max_hops: int | None = None,
        as_of: AsOf = None,
    ) -> list[Version]:
        """The versions this one came from, over its causes: nearest first, then log order.

        Args:
            kinds: Kinds of cause to follow; None is all.
            max_hops: How far to go; None is to the end.
        """
        return self._walk(version, kinds, max_hops, as_of, up=True)

    def descendants(
        self,
        version: Version | str,
        *,
        kinds: Sequence[str] | None = None,
        max_hops: int | None = None,
        as_of: AsOf = None,
    ) -> list[Version]:
        """The versions that came from this one: as `ancestors`, the other way."""
        return self._walk(version, kinds, max_hops, as_of, up=False)

    def path(
        self,
        effect: Version | str,
        cause: Version | str,
        *,
        kinds: Sequence[str] | None = None,
        as_of: AsOf = None,
    ) -> list[Version]:
        """A shortest way from a version up to one of its ancestors, both included; [] if none."""
        cut, allowed = self._log.cut(as_of), _kinds(kinds)
        start, goal = self._log.version(effect), self._log.version(cause)
        return self._log.versions(
            Walk(self._log.engine, cut.seq, allowed).path(start.seq, goal.seq)
        )

    def lineage(
        self,
        ref: Reference,
        direction: Literal["up", "down"] = "up",
        *,
        kinds: Sequence[str] | None = None,
        max_hops: int | None = None,
        as_of: AsOf = None,
    ) -> Lineage:
        """What something came from, or with `"down"` what came of it, to print or to walk.

        From a chunk that was found up to its document, commit and run: along every cause,
        and from a document to the record of the run that wrote it (kind `"written_in"`).

        Args:
            ref: A version or its id, a match, a `Run`, or `(namespace, key)`: the version
                present then, downwards every version the key has had.
            kinds: Kinds of step to take; None is all.
            max_hops: How far to go; None is to the end.
            as_of: With the causes known then.

        Raises:
            KeyNotFoundError, UnknownVersionError: there is no such thing at that moment.
            QueryError: the direction or a kind is none.
        """
        from koru_delta.ingest.lineage import trace

        check_page(max_hops)
        return trace(
            self._log, ref, direction, kinds=kinds, max_hops=max_hops, cut=self._log.cut(as_of)
        )

    def quarantines(self, *, as_of: AsOf = None) -> list[Quarantine]:
        """The quarantines that stand, oldest first."""
        from koru_delta.ingest.quarantine import active

        return active(self._log, self._log.cut(as_of))

    # Searching

    def similar(
        self,
        namespace: str,
        query: VectorLike | str,
        *,
        k: int = 10,
        filter: Filter | None = None,
        causal: CausalFilter | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
        model: str | None = None,
        threshold: float | None = None,
        exact: bool = False,
        recall: float = 0.95,
        explain: bool = False,
    ) -> Matches:
        """Find the keys whose vectors are most like the query.

        Args:
            query: Shape (dimensions,), or text for the database's embedder.
            k: At most this many; 0 finds nothing.
            filter: Applied before the best `k` are chosen.
            causal: Likewise; chooses by where a version comes from (see `CausalFilter`).
            model: May be left out where the namespace has one model at that moment.
            threshold: Keep hits with `score >= threshold`.
            exact: Compare every row: the answer a database built anew would give.
            recall: In (0, 1]; the share of the true best `k` to find on average. Above
                .99 every search is exact.
            explain: Explain every hit at once; else `hit.explanation` does when asked.

        Returns:
            Best first; equal scores in key order, so a search can be repeated exactly.
            `score` is the cosine in [-1, 1], the dot product, or minus the Euclidean
            distance, as the namespace's metric says; scores are exact in every plan. There
            are `min(k, rows that pass)` hits, always. The answer says how it was found:
            `plan`, `approximate`, `considered`.

        Raises:
            DimensionMismatchError, ModelMismatchError, QueryError, EmbedderError.
        """
        _check_namespace(namespace)
        k = _check_search(k, threshold, recall)
        where = None if filter is None else compiled(filter)
        only = None
        if causal is not None:
            valid_at = valid_time(causal, valid_at)
        cut, at = self._moment(namespace, as_of, valid_at)
        if causal is not None:
            only = self._causality.compile(causal, namespace, cut)
        target = self._target(query)
        space = self._space(namespace, model, cut, at, text=isinstance(query, str))
        if space is None:
            return Matches()
        found = space.search(
            target, k, cut, at, where=where, causal=only, threshold=threshold,
            recall=1.0 if exact else recall,
        )  # fmt: skip
        matches = self._answers.of(found, of_similar(self._log, space, cut, found.hits))
        return matches.load(explain=True) if explain else matches

    def similar_many(
        self,
        namespace: str,
        queries: Sequence[VectorLike | str] | npt.NDArray[Any],
        *,
        k: int = 10,
        filter: Filter | None = None,
        causal: CausalFilter | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
        model: str | None = None,
        threshold: float | None = None,
        exact: bool = False,
        recall: float = 0.95,
        explain: bool = False,
    ) -> list[Matches]:
        """What `similar` finds for each of several queries, at one moment, on all cores.

        Args:
            queries: Shape (n, dimensions), or texts for the database's embedder.
        """
        _check_namespace(namespace)
        k = _check_search(k, threshold, recall)
        if isinstance(queries, (str, bytes)):
            raise InvalidDataError("queries is a list of them; for one query there is similar()")
        if not isinstance(queries, (Sequence, np.ndarray)):
            raise InvalidDataError(f"queries is a list or an array, not {type(queries).__name__}")
        if isinstance(queries, np.ndarray) and not queries.ndim:
            raise InvalidDataError("queries is a list of vectors, this is a single number")
        where = None if filter is None else compiled(filter)
        cut, at = self._moment(namespace, as_of, valid_time(causal, valid_at))
        only = self._causality.compile(causal, namespace, cut)
        if not len(queries):
            return []
        texts = isinstance(queries[0], str)
        targets = self._query_matrix(queries)
        space = self._space(namespace, model, cut, at, text=texts)
        if space is None:
            return [Matches() for _ in queries]
        found = space.search_many(
            targets, k, cut, at, where=where, causal=only, threshold=threshold,
            recall=1.0 if exact else recall,
        )  # fmt: skip
        every = [
            self._answers.of(one, of_similar(self._log, space, cut, one.hits)) for one in found
        ]
        return [matches.load(explain=True) for matches in every] if explain else every

    def search(
        self,
        namespace: str,
        text: str,
        *,
        mode: Mode = "hybrid",
        k: int = 10,
        filter: Filter | None = None,
        causal: CausalFilter | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
        model: str | None = None,
        vector: VectorLike | None = None,
        weights: Mapping[str, float] | None = None,
        fusion: Fusion = "score",
        mmr: float | None = None,
        half_life: float | timedelta | None = None,
        group_by: str | None = None,
        threshold: float | None = None,
        cursor: str | None = None,
        syntax: bool = True,
        exact: bool = False,
        recall: float = 0.95,
        explain: bool = False,
    ) -> Matches:
        """Find the keys that answer a text best: by words, by meaning, or both fused.

        Filters, the moment and what has been superseded are applied before the best are
        taken: there are `min(k, matches)` hits, always.

        Args:
            text: A question, or words: `"a phrase"`, `prefix*`, `+must`, `-not`. What must be
                in a text, or must not, holds for every hit of "text" and "hybrid"; a vector
                is made of the words alone. Blank text, or one that only excludes, finds
                nothing without `vector`.
            mode: "text" ranks by BM25 over the texts that are visible at that moment, "vector"
                as `similar` does, "hybrid" fuses both. Where a namespace has no vectors, or a
                text none of the words, hybrid is what the other leg finds.
            vector: Shape (dimensions,); in the place of what the database's embedder makes
                of the text.
            weights: Of the legs "vector" and "text", 1 each by default; 0 leaves a leg out.
            fusion: Of each leg's best 30 or 3 k. "score" adds their weighted scores, scaled to
                [0, 1]: it found more in every set measured. "rrf" adds weight / (60 + rank).
                What lies deeper is fused by itself, and comes after.
            mmr: In [0, 1]: choose by maximal marginal relevance among those best; 1 is by
                relevance alone, 0 by difference alone. Not for pages.
            half_life: Seconds (or a timedelta) after which a score counts half, from when
                the version began to be true; scores below 0 stay. The best 50 or 3 k are put
                in order anew, then what lies deeper.
            group_by: A dotted path into the value; only the best hit of those that say the
                same there is kept. What lacks the path is a group of its own.
            threshold: Keep hits with `score >= threshold`, whatever the mode's score is.
            cursor: `cursor` of the page before, of this database or a copy of it, in any
                process. All else but `k` must be as it was; the moment is that of the first
                page. Pages after the first compare every row.
            syntax: False takes the text as it is, with no operators.
            exact, recall, explain, model, filter, causal, as_of, valid_at: As for `similar`.

        Returns:
            Best first; equal scores in key order. `score` is the fused one in "hybrid", BM25
            in "text", that of `similar` in "vector".

        Raises:
            QueryError, DimensionMismatchError, ModelMismatchError, EmbedderError.
        """
        question = self._question(
            namespace, text, mode=mode, k=k, filter=filter, causal=causal, as_of=as_of,
            valid_at=valid_at, model=model, vector=vector, weights=weights, fusion=fusion,
            mmr=mmr, half_life=half_life, group_by=group_by, threshold=threshold, cursor=cursor,
            syntax=syntax, recall=1.0 if exact else recall,
        )  # fmt: skip
        ranked = question.ranked(self._log)
        matches = self._answers.ranked(ranked, partial(explained, question, ranked, self._log))
        return matches.load(explain=True) if explain else matches

    def explain(self, hit: Match) -> Explanation:
        """Why a hit of a search was found and stands where it stands: `hit.explanation`.

        Raises:
            QueryError: the hit does not come from a search of this process.
        """
        found = hit.explanation
        if found is None:
            raise QueryError("this match came without its search; search again, and explain that")
        return found

    def retrieval_diff(
        self,
        namespace: str,
        query: VectorLike | str,
        t1: AsOf,
        t2: AsOf = None,
        *,
        axis: Literal["as_of", "valid_at"] = "as_of",
        k: int = 10,
        mode: Mode | None = None,
        filter: Filter | None = None,
        causal: CausalFilter | None = None,
        model: str | None = None,
        weights: Mapping[str, float] | None = None,
        fusion: Fusion = "score",
        syntax: bool = True,
    ) -> RetrievalDiff:
        """How the answer to a question changed from `t1` to `t2` (now, by default), and why.

        Each hit that entered, left, moved, or has another version has its causes, each with
        the version that did it. They are tried: the question is asked again as of `t2`, with
        those keys as they were at `t1`; `verified` says whether that undoes the change.

        Args:
            query: Text, or a vector for a search by vector alone.
            axis: "as_of" compares what was known at two moments, "valid_at" what was true at
                two times, by what is known now.
            mode: "hybrid" for text, "vector" for a vector.

        Raises:
            QueryError: `t1` is later than `t2`, or those of `search`.
        """
        if axis not in ("as_of", "valid_at"):
            raise QueryError(f"axis is 'as_of' or 'valid_at', not {axis!r}")
        text = query if isinstance(query, str) else ""
        vector = None if isinstance(query, str) else query
        chosen: Mode = mode or ("hybrid" if vector is None else "vector")
        now = self._log.now()
        if axis == "as_of":
            cuts = [self._log.cut(t1), now if t2 is None else self._log.cut(t2)]
            times = [cut.clock for cut in cuts]
        else:
            cuts = [now, now]
            times = [self._time_of(t) for t in (t1, now if t2 is None else t2)]
        if times[0] > times[1] or cuts[0].seq > cuts[1].seq:
            raise QueryError("t1 is later than t2; give the earlier moment first")
        asked = [
            self._question(
                namespace, text, mode=chosen, k=k, filter=filter, causal=causal, as_of=cut,
                valid_at=moment(time) if axis == "valid_at" else None, model=model, vector=vector,
                weights=weights, fusion=fusion, syntax=syntax, recall=1.0,
            )
            for cut, time in zip(cuts, times, strict=True)
        ]  # fmt: skip
        index = self._texts.index(namespace, cuts[1])
        return compare(self._log, self._texts.records(namespace), index, self._answers, *asked)

    def _time_of(self, given: AsOf) -> int:
        """A valid time: a time itself, or the clock of whatever else names a moment."""
        if isinstance(given, (datetime, str)):
            try:
                return microseconds(given)
            except InvalidTimestampError:
                if not isinstance(given, str):
                    raise
        return self._log.cut(given).clock

    def _question(
        self,
        namespace: str,
        text: str,
        *,
        mode: Mode,
        k: int,
        filter: Filter | None,
        causal: CausalFilter | None,
        as_of: AsOf,
        valid_at: When | None,
        model: str | None,
        vector: VectorLike | None,
        weights: Mapping[str, float] | None,
        fusion: Fusion,
        syntax: bool,
        recall: float,
        mmr: float | None = None,
        half_life: float | timedelta | None = None,
        group_by: str | None = None,
        threshold: float | None = None,
        cursor: str | None = None,
    ) -> Question:
        """A search, checked, with its moment resolved and the readings it goes to."""
        _check_namespace(namespace)
        k = _check_search(k, threshold, recall)
        legs = _check_mode(mode, fusion, mmr, text)
        if mmr is not None and cursor is not None:
            raise QueryError("mmr chooses among one page; leave cursor out, and ask for more (k)")
        chosen = checked_weights(weights, legs)
        where = None if filter is None else compiled(filter)
        valid_at = valid_time(causal, valid_at)
        digest = digest_of(
            {
                "namespace": namespace, "text": text, "mode": mode, "filter": filter,
                "causal": None if causal is None else causal.facts(), "model": model,
                "weights": chosen, "fusion": fusion, "group": group_by,
                "threshold": threshold, "half_life": half_life, "syntax": syntax,
                "vector": None if vector is None else as_vector(vector).tobytes(),
            }
        )  # fmt: skip
        page = None if cursor is None else Cursor.read(cursor, self._log.root_of)
        if page is None:
            cut, at = self._moment(namespace, as_of, valid_at)
        else:
            if page.asked != digest:
                raise QueryError("this cursor is of another question; ask as for the first page")
            cut, at = page.cut, page.valid_at
            if as_of is not None and self._log.cut(as_of) != cut:
                raise QueryError(
                    "this cursor is of another moment than as_of; leave as_of out: every page is "
                    "of the first one's moment"
                )
            if valid_at is not None and _valid(valid_at, cut) != at:
                raise QueryError("this cursor is of another valid_at; leave valid_at out")
            self._log.check_window(namespace, cut, at)
        target: Target | None = None
        space: VectorSpace | None = None
        said, bounded = text, False
        if mode == "hybrid" and syntax:
            said, bounded = meaning(text), is_bounded(text)
            if not said and not excludes(text):
                said = text  # empty quotes, say
        if chosen.get("vector") and (vector is not None or said.strip()):
            meant = said if vector is None else vector
            if vector is not None or self._intents.embedder is not None:
                space = self._space(namespace, model, cut, at, text=vector is None)
            elif self._vectors.known(namespace, cut):
                self._target(meant)  # raises, and says what to do
            if space is not None:
                target = self._target(meant)
        if mmr is not None and space is None:  # to tell what is alike
            space = self._space(namespace, model, cut, at, text=vector is None and mode != "text")
        return Question(
            Asked(
                namespace, text, k, cut, at, where,
                self._causality.compile(causal, namespace, cut),
                {name: weight for name, weight in chosen.items() if weight}, fusion,
                None if mmr is None else float(mmr), threshold,
                None if group_by is None else _path(group_by), _half_life(half_life),
                syntax, bounded, recall, page, digest, page.window if page else window_of(k),
            ),
            self._texts.index(namespace, cut) if chosen.get("text") or bounded else None,
            space,
            target,
        )  # fmt: skip

    def configure_text(
        self,
        namespace: str,
        *,
        fields: Sequence[str] | None = None,
        stemmer: str | None = None,
        author: str | None = None,
        message: str | None = None,
    ) -> Version:
        """Say what of a namespace's values is searched by words, and how; recorded in the log.

        It holds from now on: searches of earlier moments go by what was recorded then.

        Args:
            fields: Dotted paths of strings, or of arrays or objects that hold some; None is
                a value that is a string, the `"text"` of an object, or else all its strings.
            stemmer: A Snowball language, such as "english"; None compares whole words.

        Raises:
            QueryError: a field that is no path, or an unknown stemmer.
        """
        _check_namespace(namespace)
        settings = TextSettings.of(fields, stemmer)
        options = _options(_ANY, (), None, None, None, author, message, None)
        write = self._intents.put(namespace, namespace, settings.to_json(), options)
        write.namespace = SETTINGS
        return self._log.commit([write])[0]

    def similar_at(
        self, namespace: str, query: VectorLike | str, timestamp: AsOf, top_k: int = 10
    ) -> Matches:
        """Search as of a moment: `similar(namespace, query, as_of=timestamp, k=top_k)`."""
        return self.similar(namespace, query, as_of=timestamp, k=top_k)

    def embed_search(self, namespace: str, query: str, top_k: int = 10) -> Matches:
        """Search by the embedding of a text: `similar(namespace, query, k=top_k)`."""
        return self.similar(namespace, query, k=top_k)

    def vectors(self, version: Version | str) -> dict[str, Vector]:
        """The vectors a version carries, per model: float32, as they were stored.

        Raises:
            ErasedError: they were erased, if it carried any.
        """
        if isinstance(version, Version):  # it was checked when it was read; is it of this log?
            seq = self._log.engine.seq_of(bytes.fromhex(version.id))
            if seq is None:
                raise UnknownVersionError(f"version {version.id}")
        else:
            seq = self._log.version(version).seq
        rows = self._log.engine.vectors_at(seq)
        if not rows:
            found = self._log.versions([seq])[0]
            if found.vectors:
                check_kept(found)
        return {model: np.frombuffer(data, dtype="<f4").copy() for model, _, _, _, data in rows}

    # Synthesis

    def related(
        self,
        namespace: str,
        key: str,
        *,
        types: Iterable[str] | None = None,
        k: int = 10,
        as_of: AsOf = None,
        valid_at: When | None = None,
        model: str | None = None,
    ) -> list[Relation]:
        """What a key's version is related to, and by what evidence.

        Args:
            types: Out of `proximity composition abstraction instantiation sequence
                causation`; None is all. Their criteria are told in
                `koru_delta.search.synthesis.relations`.
            k: At most this many of each type.
            model: Whose vectors proximity goes by, where the key has several.

        Returns:
            Type by type, the strongest first, then by keys. The version is the `source` or
            the `target`; `relation.verify(db, as_of)` checks the criterion again.

        Raises:
            KeyNotFoundError: the key is absent at that moment.
            QueryError: an unknown type, or several models and none named.
        """
        check_key(namespace, key)
        k = _check_search(k, None, 1.0)
        cut, _ = self._moment(namespace, as_of, valid_at)
        return related(self, namespace, key, cut, valid_at, types=types, k=k, model=model)

    def layers(
        self,
        namespace: str,
        *,
        levels: int = 2,
        branching: int | None = None,
        labels: int = 5,
        representatives: int = 3,
        seed: int = 0,
        as_of: AsOf = None,
        valid_at: When | None = None,
        model: str | None = None,
    ) -> Layers:
        """Clusters of a namespace's vectors, clusters of those, with keys and terms that tell.

        By spherical k-means; the same for the same vectors, however they came to be there.

        Args:
            levels: How deep, 1 to 8.
            branching: Clusters inside one, at most, 2 to 256; by default what makes the
                smallest clusters as large as there are branches, up to 64.
            labels: Terms for each cluster.
            representatives: Keys for each, those nearest to its centroid.

        Raises:
            QueryError: a number out of its range.
            ModelMismatchError: several models and none named.
        """
        _check_namespace(namespace)
        shape = Shape.of(levels, branching, labels, representatives, seed)
        cut, at = self._moment(namespace, as_of, valid_at)
        space = self._space(namespace, model, cut, at, text=False)
        if space is None:
            return no_layers(namespace, cut.seq)
        return self._layers.of(space, cut, at, shape)

    def descend(
        self,
        namespace: str,
        query: VectorLike | str | None = None,
        *,
        cluster: str | None = None,
        levels: int = 2,
        branching: int | None = None,
        seed: int = 0,
        as_of: AsOf = None,
        valid_at: When | None = None,
        model: str | None = None,
    ) -> Descent:
        """Go from layer to layer to the keys most like a query, or into a named cluster.

        Args:
            query: A vector, or text for the database's embedder.
            cluster: Id of a cluster of `layers` with the same arguments: where the descent
                begins; without a query, where it ends.

        Raises:
            QueryError: neither query nor cluster, no such cluster; and those of `layers`.
        """
        target = None if query is None else self._query_vector(query)
        layers = self.layers(
            namespace, levels=levels, branching=branching, seed=seed, as_of=as_of,
            valid_at=valid_at, model=model,
        )  # fmt: skip
        return layers.descend(target, cluster=cluster)

    def navigate(
        self,
        namespace: str,
        start: Operand,
        steps: Sequence[Step],
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
        """Find the keys where steps from a start lead to, other than those named on the way.

        Each step ends on a unit vector: `Add` and `Subtract` move by a unit vector, `Toward`
        turns by a share of the angle.

        Args:
            start: A key, a vector, or `Words` for the database's embedder; as the operands
                of the steps. What keys held at that moment counts.

        Returns:
            As `similar`; the keys that start and steps name are never among the hits.

        Raises:
            KeyNotFoundError: a key is absent at that moment; NoVectorError: has no vector.
            QueryError: a step leads to zero or is none; and those of `similar`.
        """
        _check_namespace(namespace)
        k = _check_search(k, threshold, recall)
        where = None if filter is None else compiled(filter)
        cut, at = self._moment(namespace, as_of, valid_at)
        used = operands(start, steps)
        texts = any(isinstance(operand, Words) for operand in used)
        space = self._space(namespace, model, cut, at, text=texts)

        def vector_of(operand: Operand) -> Vector:
            if isinstance(operand, Words):
                return self._query_vector(operand.text)
            if not isinstance(operand, str):
                return as_vector(operand)
            check_key(namespace, operand)
            version = self._log.version_at(namespace, operand, cut, at)
            held = self.vectors(version)
            if space is None or space.space.model not in held:
                raise NoVectorError(namespace, operand, model)
            return held[space.space.model]

        target = Target.of(as_vector(walk(vector_of(start), steps, vector_of)))
        if space is None:
            return Matches()
        named = {operand for operand in used if isinstance(operand, str)}
        found = space.search(
            target, k + len(named), cut, at, where=where, threshold=threshold,
            recall=1.0 if exact else recall,
        )  # fmt: skip
        # A key is there at most once, so that many more hits than wanted are enough.
        hits = [hit for hit in found.hits if hit[1] not in named][:k]
        return self._answers.of(found._replace(hits=hits))

    # Care

    def stats(self, *, spaces: bool = False) -> dict[str, Any]:
        """Counts and sizes (bytes) of the log and of what is held in memory.

        Args:
            spaces: Read all vectors' rows and index files first; else `vector_spaces` tells
                only of those that something has searched.
        """
        head = self._log.head()
        if spaces:
            for space in self._read_spaces(None, self._log.now()):
                self._vectors.upkeep.load(space)
        return {
            "path": None if self.directory is None else str(self.directory),
            "durability": self._log.engine.durability,
            "seq": head.seq,
            "root": head.root.hex(),
            "last_commit": None if not head.commits else moment(head.tx_time).isoformat(),
            "transactions": self._log.engine.transactions,
            "hot_bytes": self._log.hot.size_bytes,
            **self._log.engine.statistics(),
            **self._vectors.statistics(),
            **self._texts.statistics(),
        }

    def build_index(self, namespace: str | None = None) -> None:
        """Make now, and keep in files, what search otherwise makes in the background.

        Searches are right without it; after it they are as fast as they get, and in a
        process that opens the database later, once it has read the files (about a second for
        each 100,000 vectors).

        Args:
            namespace: Only the vectors and words of this one; None is all vectors, and
                the words of every namespace that has some.
        """
        cut = self._log.now()
        names = [namespace] if namespace is not None else self.list_namespaces(as_of=cut)
        for name in names:
            _check_namespace(name)
            for known in self._vectors.known(name, cut):
                space = self._vectors.open(known)
                space.at(cut.seq)
                self._vectors.upkeep.work(space, complete=True)
            if namespace is not None or self._vectors.known(name, cut):
                self._texts.index(name, cut).build(cut)

    def tune(
        self,
        namespace: str | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Measure what ways of searching cost on this machine, and choose by that from now on.

        It takes a few seconds and is kept with the database (not through a read-only
        handle). Only what a search costs changes by it, never an answer's promise.

        Args:
            namespace: Measure on vectors of this one; None is all. Where there are too few,
                made-up ones take their place.
            progress: Called with `(done, total)` steps.

        Raises:
            QueryError: there are no vectors in that namespace.

        Returns:
            `costs` and `defaults` (nanoseconds, by name), which of them were `measured`, on
            whose vectors (`namespace` and `model`, None: made up; `dimensions`, `rows`), in
            how many `seconds`, and as `plans` what both would do in some situations.
        """
        from koru_delta.search.tune import tune

        spaces = self._read_spaces(namespace, self._log.now())
        if namespace is not None and not spaces:
            raise QueryError(
                f"namespace {namespace!r} holds no vectors to measure; leave it out to measure "
                "on those of the whole database"
            )
        tuned = tune(spaces, progress or (lambda _done, _total: None))
        self._vectors.upkeep.set_costs(tuned.costs)
        for space in self._vectors.opened():
            space.reading.ways.clear()  # chosen by the costs before
        return tuned.to_json()

    def verify(self) -> VerifyReport:
        """Check every byte that matters against its hash; the report lists what fails."""
        return Audit(self._log).run()

    def tree_head(self) -> TreeHead:
        """The Merkle root over all commits so far: keep it, to hold the log to it later."""
        return tree_head(self._log)

    def prove(self, version: Version | str, head: TreeHead | None = None) -> InclusionProof:
        """Evidence that a version is in the log; `koru_delta.verify_inclusion` checks it."""
        return prove(self._log, self._log.version(version), head)

    def prove_consistency(self, old_size: int, new_size: int | None = None) -> ConsistencyProof:
        """Evidence that the first `old_size` commits are unchanged in the log of today."""
        return prove_consistency(self._log, old_size, new_size)

    def backup(self, target: str | os.PathLike[str]) -> None:
        """Copy the database, as of one moment, to a new directory; others may go on writing."""
        self._log.engine.backup(Path(target).absolute())

    def export_log(self, target: str | os.PathLike[str] | IO[bytes], *, as_of: AsOf = None) -> int:
        """Write the log as JSON lines to a file; returns the number of lines."""
        from koru_delta.log.transfer import export_lines

        lines = export_lines(self._log, self._log.cut(as_of))
        if not isinstance(target, (str, os.PathLike)):
            return _write_lines(target, lines)
        file = Path(target).absolute()
        own = self._log.engine.directory.resolve()
        if own in (file.resolve(), *file.resolve().parents):
            raise InvalidDataError(f"{file} lies inside the database; export to another place")
        try:
            return _write_whole(file, lines)
        except KoruDeltaError:
            raise
        except OSError as error:
            raise StorageError(f"cannot write {file}: {error}") from error

    def import_log(
        self,
        source: str | os.PathLike[str] | IO[bytes],
        *,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Take up an exported log that begins as this one does; returns the new commits.

        All of it or nothing; every hash is computed anew and must match.

        Raises:
            ConflictError: this database has entries the other does not begin with.
            InvalidDataError, CorruptionError: the file is not as it was written.
        """
        from koru_delta.log.transfer import import_lines  # loads pydantic

        if not isinstance(source, (str, os.PathLike)):
            return self._imported(import_lines(self._log, source, progress))
        try:
            with Path(source).open("rb") as file:
                return self._imported(import_lines(self._log, file, progress))
        except KoruDeltaError:
            raise
        except OSError as error:
            raise StorageError(f"cannot read {os.fspath(source)}: {error}") from error

    # Parts of the above

    def _moment(self, namespace: str, as_of: AsOf, valid_at: When | None) -> tuple[Cut, int]:
        """The cut and valid time of a search, query or list.

        Raises:
            ErasedError: a moment behind what the namespace retains.
        """
        cut = self._log.cut(as_of)
        at = _valid(valid_at, cut)
        if as_of is not None or valid_at is not None:
            self._log.check_window(namespace, cut, at)
        return cut, at

    def _imported(self, commits: int) -> int:
        """After an import: what it erased is removed from other files, too."""
        if not self._log.engine.is_scrubbed():
            self._scrub()
        return commits

    def _scrub(self) -> bool:
        """Remove every copy of what was erased; False if something is in the way, for now."""
        engine = self._log.engine
        names = engine.scrubbing()
        last = {name: engine.erased(name) for name in names}
        self._vectors.forget(names)
        self._texts.forget(names)
        self._layers.forget()
        try:
            scrub(engine, names)
        except OSError as error:
            _logger.warning("copies of what was erased are still in index files: %s", error)
            return False
        return engine.scrubbed(last)

    def _sweep(
        self, namespaces: Iterable[str] | None, author: str | None, message: str | None
    ) -> Swept:
        names = self.retentions() if namespaces is None else namespaces
        versions = removed = 0
        swept = []
        for name in names:
            count, given = sweep(
                self._log, name, author=author or self._intents.author,
                message=message or "no longer retained",
            )  # fmt: skip
            versions, removed = versions + count, removed + given
            if count:
                swept.append(name)
        engine = self._log.engine
        if not engine.is_scrubbed():
            self._scrub()
        return Swept(versions, removed, engine.give_back(at_least=FREE_PAGES), tuple(swept))

    def _sweep_quietly(self) -> None:
        """What is due, from time to time; indexes of vectors are not made anew all the time."""
        now = monotonic()
        due = []
        for name, policy in self.retentions().items():
            often = 0.0 if not self._log.engine.spaces(name) else _VECTORS_SWEPT_SECONDS
            if policy.is_active and now - self._swept.get(name, -inf) >= often:
                due.append(name)
                self._swept[name] = now
        if due:
            self._sweep(due, None, None)

    def _check_writable(self) -> None:
        if self.read_only:
            raise ReadOnlyError(f"{self.directory} was opened with read_only=True")

    def _begin_transaction(self, transaction: Transaction) -> None:
        last = self._transaction.get()
        if last is not None and last.is_open:
            raise TransactionError("a transaction is already open here; they do not nest")
        self._transaction.set(transaction)

    def _space(
        self, namespace: str, model: str | None, cut: Cut, valid_at: int, *, text: bool
    ) -> VectorSpace | None:
        """The vectors a search means: those of the embedder's model, for text."""
        embedder = self._intents.embedder
        if text and model is None and embedder is not None:
            known = self._vectors.known(namespace, cut)
            alive = []
            for space in map(self._vectors.open, known):
                if space.count(cut, valid_at):
                    if space.space.model == embedder.name:
                        return space
                    alive.append(space.space.model)
            if any(model != DEFAULT_MODEL for model in alive):
                # This embedder's vectors mean something else, however long they are.
                raise ModelMismatchError(namespace, embedder.name, tuple(alive))
        return self._vectors.space(namespace, model, cut, valid_at)

    def _read_spaces(self, namespace: str | None, cut: Cut) -> list[VectorSpace]:
        """The spaces of a namespace, or of all that are there now, read up to a cut."""
        names = [namespace] if namespace is not None else self.list_namespaces(as_of=cut)
        found = []
        for name in names:
            _check_namespace(name)
            for known in self._vectors.known(name, cut):
                found.append(self._vectors.open(known))
                found[-1].at(cut.seq)
        return found

    def _query_matrix(self, queries: Any) -> npt.NDArray[np.float32]:
        texts = [isinstance(query, str) for query in queries]
        if not any(texts):
            return as_matrix(queries)
        if not all(texts):
            raise InvalidDataError("queries are all texts or all vectors, not some of each")
        return as_matrix([self._query_vector(query) for query in queries])

    def _target(self, query: VectorLike | str) -> Target:
        """A query, checked and made ready."""
        if type(query) is np.ndarray and query.dtype == np.float32 and query.ndim == 1:
            target = Target.of(query)
            if len(query) and isfinite(target.square):
                return target
        return Target.of(self._query_vector(query))

    def _query_vector(self, query: VectorLike | str) -> Vector:
        if not isinstance(query, str):
            return as_vector(query)
        if self._intents.embedder is None:
            return self._intents.embed_texts([query])[0]  # raises, and says what to do
        return as_vector(self._intents.embedder.embed_query(query))

    def _walk(
        self,
        version: Version | str,
        kinds: Sequence[str] | None,
        max_hops: int | None,
        as_of: AsOf,
        *,
        up: bool,
    ) -> list[Version]:
        check_page(max_hops)
        cut, allowed = self._log.cut(as_of), _kinds(kinds)
        start = self._log.version(version)
        walk = Walk(self._log.engine, cut.seq, allowed)
        rings = walk.rings([start.seq], "up" if up else "down", max_hops)
        return self._log.versions([seq for ring in rings for seq in ring])


class View:
    """A database as it stood at one moment: the read verbs, without `as_of`."""

    def __init__(self, database: Database, cut: Cut) -> None:
        self._database = database
        self._cut = cut

    @property
    def seq(self) -> int:
        """The last position of the log this view sees."""
        return self._cut.seq

    @property
    def time(self) -> datetime:
        """The moment of the view (UTC)."""
        return moment(self._cut.clock)

    def __repr__(self) -> str:
        return f"<View of {self._database!r} at {self.seq}, {self.time.isoformat()}>"

    def get(
        self, namespace: str, key: str, default: Value = _RAISE, *, valid_at: When | None = None
    ) -> Value:
        """As `Database.get`."""
        return self._database.get(namespace, key, default, as_of=self._cut, valid_at=valid_at)

    def get_raw(self, namespace: str, key: str, *, valid_at: When | None = None) -> bytes:
        """As `Database.get_raw`."""
        return self._database.get_raw(namespace, key, as_of=self._cut, valid_at=valid_at)

    def get_many(
        self, namespace: str, keys: Iterable[str], *, valid_at: When | None = None
    ) -> dict[str, Value]:
        """As `Database.get_many`."""
        return self._database.get_many(namespace, keys, as_of=self._cut, valid_at=valid_at)

    def contains(self, namespace: str, key: str, *, valid_at: When | None = None) -> bool:
        """As `Database.contains`."""
        return self._database.contains(namespace, key, as_of=self._cut, valid_at=valid_at)

    def version(self, namespace: str, key: str, *, valid_at: When | None = None) -> Version:
        """As `Database.version`."""
        return self._database.version(namespace, key, as_of=self._cut, valid_at=valid_at)

    def query(
        self,
        namespace: str,
        filter: Filter | None = None,
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        offset: int = 0,
        select: Sequence[str] | None = None,
        causal: CausalFilter | None = None,
        valid_at: When | None = None,
    ) -> list[Row]:
        """As `Database.query`."""
        return self._database.query(
            namespace, filter, sort=sort, limit=limit, offset=offset, select=select,
            causal=causal, as_of=self._cut, valid_at=valid_at,
        )  # fmt: skip

    def count(
        self,
        namespace: str,
        filter: Filter | None = None,
        *,
        text: str | None = None,
        causal: CausalFilter | None = None,
        valid_at: When | None = None,
    ) -> int:
        """As `Database.count`."""
        return self._database.count(
            namespace, filter, text=text, causal=causal, as_of=self._cut, valid_at=valid_at
        )

    def list_keys(
        self,
        namespace: str,
        *,
        prefix: str = "",
        after: str | None = None,
        limit: int | None = None,
        valid_at: When | None = None,
    ) -> list[str]:
        """As `Database.list_keys`."""
        return self._database.list_keys(
            namespace, prefix=prefix, after=after, limit=limit, as_of=self._cut, valid_at=valid_at
        )

    def list_namespaces(self, *, valid_at: When | None = None) -> list[str]:
        """As `Database.list_namespaces`."""
        return self._database.list_namespaces(as_of=self._cut, valid_at=valid_at)

    def history(
        self,
        namespace: str,
        key: str,
        *,
        reverse: bool = False,
        limit: int | None = None,
        include_annotations: bool = False,
    ) -> list[Version]:
        """As `Database.history`."""
        return self._database.history(
            namespace, key, as_of=self._cut, reverse=reverse, limit=limit,
            include_annotations=include_annotations,
        )  # fmt: skip

    def commits(self, *, reverse: bool = False, limit: int | None = None) -> list[Commit]:
        """As `Database.commits`."""
        return self._database.commits(as_of=self._cut, reverse=reverse, limit=limit)

    def ancestors(
        self,
        version: Version | str,
        *,
        kinds: Sequence[str] | None = None,
        max_hops: int | None = None,
    ) -> list[Version]:
        """As `Database.ancestors`."""
        return self._database.ancestors(version, kinds=kinds, max_hops=max_hops, as_of=self._cut)

    def descendants(
        self,
        version: Version | str,
        *,
        kinds: Sequence[str] | None = None,
        max_hops: int | None = None,
    ) -> list[Version]:
        """As `Database.descendants`."""
        return self._database.descendants(version, kinds=kinds, max_hops=max_hops, as_of=self._cut)

    def lineage(
        self,
        ref: Reference,
        direction: Literal["up", "down"] = "up",
        *,
        kinds: Sequence[str] | None = None,
        max_hops: int | None = None,
    ) -> Lineage:
        """As `Database.lineage`."""
        return self._database.lineage(
            ref, direction, kinds=kinds, max_hops=max_hops, as_of=self._cut
        )

    def quarantines(self) -> list[Quarantine]:
        """As `Database.quarantines`."""
        return self._database.quarantines(as_of=self._cut)

    def similar(
        self,
        namespace: str,
        query: VectorLike | str,
        *,
        k: int = 10,
        filter: Filter | None = None,
        causal: CausalFilter | None = None,
        valid_at: When | None = None,
        model: str | None = None,
        threshold: float | None = None,
        exact: bool = False,
        recall: float = 0.95,
        explain: bool = False,
    ) -> Matches:
        """As `Database.similar`."""
        return self._database.similar(
            namespace, query, k=k, filter=filter, causal=causal, as_of=self._cut,
            valid_at=valid_at, model=model, threshold=threshold, exact=exact, recall=recall,
            explain=explain,
        )  # fmt: skip

    def search(
        self,
        namespace: str,
        text: str,
        *,
        mode: Mode = "hybrid",
        k: int = 10,
        filter: Filter | None = None,
        causal: CausalFilter | None = None,
        valid_at: When | None = None,
        model: str | None = None,
        vector: VectorLike | None = None,
        weights: Mapping[str, float] | None = None,
        fusion: Fusion = "score",
        mmr: float | None = None,
        half_life: float | timedelta | None = None,
        group_by: str | None = None,
        threshold: float | None = None,
        cursor: str | None = None,
        syntax: bool = True,
        exact: bool = False,
        recall: float = 0.95,
        explain: bool = False,
    ) -> Matches:
        """As `Database.search`."""
        return self._database.search(
            namespace, text, mode=mode, k=k, filter=filter, causal=causal, as_of=self._cut,
            valid_at=valid_at, model=model, vector=vector, weights=weights, fusion=fusion, mmr=mmr,
            half_life=half_life, group_by=group_by, threshold=threshold, cursor=cursor,
            syntax=syntax, exact=exact, recall=recall, explain=explain,
        )  # fmt: skip

    def similar_many(
        self,
        namespace: str,
        queries: Sequence[VectorLike | str] | npt.NDArray[Any],
        *,
        k: int = 10,
        filter: Filter | None = None,
        causal: CausalFilter | None = None,
        valid_at: When | None = None,
        model: str | None = None,
        threshold: float | None = None,
        exact: bool = False,
        recall: float = 0.95,
        explain: bool = False,
    ) -> list[Matches]:
        """As `Database.similar_many`."""
        return self._database.similar_many(
            namespace, queries, k=k, filter=filter, causal=causal, as_of=self._cut,
            valid_at=valid_at, model=model, threshold=threshold, exact=exact, recall=recall,
            explain=explain,
        )  # fmt: skip

    def related(
        self,
        namespace: str,
        key: str,
        *,
        types: Iterable[str] | None = None,
        k: int = 10,
        valid_at: When | None = None,
        model: str | None = None,
    ) -> list[Relation]:
        """As `Database.related`."""
        return self._database.related(
            namespace, key, types=types, k=k, as_of=self._cut, valid_at=valid_at, model=model
        )

    def layers(
        self,
        namespace: str,
        *,
        levels: int = 2,
        branching: int | None = None,
        labels: int = 5,
        representatives: int = 3,
        seed: int = 0,
        valid_at: When | None = None,
        model: str | None = None,
    ) -> Layers:
        """As `Database.layers`."""
        return self._database.layers(
            namespace, levels=levels, branching=branching, labels=labels,
            representatives=representatives, seed=seed, as_of=self._cut, valid_at=valid_at,
            model=model,
        )  # fmt: skip

    def descend(
        self,
        namespace: str,
        query: VectorLike | str | None = None,
        *,
        cluster: str | None = None,
        levels: int = 2,
        branching: int | None = None,
        seed: int = 0,
        valid_at: When | None = None,
        model: str | None = None,
    ) -> Descent:
        """As `Database.descend`."""
        return self._database.descend(
            namespace, query, cluster=cluster, levels=levels, branching=branching, seed=seed,
            as_of=self._cut, valid_at=valid_at, model=model,
        )  # fmt: skip

    def navigate(
        self,
        namespace: str,
        start: Operand,
        steps: Sequence[Step],
        *,
        k: int = 10,
        filter: Filter | None = None,
        valid_at: When | None = None,
        model: str | None = None,
        threshold: float | None = None,
        exact: bool = False,
        recall: float = 0.95,
    ) -> Matches:
        """As `Database.navigate`."""
        return self._database.navigate(
            namespace, start, steps, k=k, filter=filter, as_of=self._cut, valid_at=valid_at,
            model=model, threshold=threshold, exact=exact, recall=recall,
        )  # fmt: skip


def open(
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
) -> Database:
    """Open the database in a directory, made if missing; None is in memory.

    Arguments and errors are those of `Database`.
    """
    return Database(
        path, durability=durability, read_only=read_only, embedder=embedder, clock=clock,
        author=author, run=run, node=node, lock_timeout_seconds=lock_timeout_seconds,
    )  # fmt: skip


def _options(
    if_match: Any,
    causes: Sequence[CauseLike],
    ttl: float | timedelta | None,
    valid_from: When | None,
    valid_to: When | None,
    author: str | None,
    message: str | None,
    run: str | None,
) -> WriteOptions:
    options: WriteOptions = {}
    if if_match is not _ANY:
        options["if_match"] = if_match
    if causes:
        options["causes"] = causes
    if ttl is not None:
        options["ttl"] = ttl
    if valid_from is not None:
        options["valid_from"] = valid_from
    if valid_to is not None:
        options["valid_to"] = valid_to
    if author is not None:
        options["author"] = author
    if message is not None:
        options["message"] = message
    if run is not None:
        options["run"] = run
    return options


def _valid(valid_at: When | None, cut: Cut) -> int:
    return cut.clock if valid_at is None else microseconds(valid_at)


def _check_search(k: int, threshold: float | None, recall: float) -> int:
    """`k` as a plain integer, once all three make sense."""
    if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or k < 0:
        raise QueryError(f"k is a whole number from 0 on, not {k!r}")
    if threshold is not None and (
        not _is_number(threshold) or threshold != threshold  # noqa: PLR0124 - NaN
    ):
        raise QueryError(f"threshold is a number, not {threshold!r}")
    if not _is_number(recall) or not 0 < recall <= 1:
        raise QueryError(f"recall is a share in (0, 1], not {recall!r}")
    return int(k)


def _check_mode(mode: str, fusion: str, mmr: object, text: object) -> Sequence[str]:
    """The legs of a mode, once all of these make sense."""
    if not isinstance(text, str):
        raise QueryError(f"text is a string, not {type(text).__name__}; vectors go into vector=")
    if mode not in MODES:
        raise QueryError(f"there is no mode {mode!r}; it is one of {', '.join(MODES)}")
    if fusion not in FUSIONS:
        raise QueryError(f"there is no fusion {fusion!r}; it is one of {', '.join(FUSIONS)}")
    if mmr is not None and (not _is_number(mmr) or not 0 <= mmr <= 1):  # type: ignore[operator]
        raise QueryError(f"mmr is a number in [0, 1], not {mmr!r}")
    return LEGS if mode == "hybrid" else (mode,)


def _half_life(given: float | timedelta | None) -> int | None:
    if given is None:
        return None
    seconds = given.total_seconds() if isinstance(given, timedelta) else given
    if not _is_number(seconds) or not isfinite(seconds) or seconds <= 0:
        raise QueryError(f"half_life is seconds or a timedelta above 0, not {given!r}")
    return max(1, int(seconds * 1_000_000))


def _path(name: object) -> tuple[str, ...]:
    if not isinstance(name, str):
        raise QueryError(f"group_by is a dotted path, not {name!r}")
    return tuple(name.split(".")) if name else ()


def _is_number(given: object) -> bool:
    return isinstance(given, (int, float, np.integer, np.floating)) and not isinstance(given, bool)


def _check_namespace(namespace: str) -> None:
    check_key(namespace, "-")


def _kinds(kinds: Sequence[str] | None) -> frozenset[str]:
    if kinds is None:
        return frozenset(CAUSE_KINDS)
    named = frozenset([kinds] if isinstance(kinds, str) else kinds)
    if not named <= frozenset(CAUSE_KINDS):
        raise QueryError(
            f"unknown kind of cause {sorted(named - frozenset(CAUSE_KINDS))[0]!r}; "
            f"the kinds are {', '.join(CAUSE_KINDS)}"
        )
    return named


def _keys(keys: Iterable[str]) -> Iterable[str]:
    """Refuse one string where a list of them belongs: it would be taken letter by letter."""
    if isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):
        raise InvalidDataError(f"keys is a list of keys, not {type(keys).__name__}")
    return keys


def _write_whole(path: Path, lines: Iterable[bytes]) -> int:
    """Write a file beside `path` and put it in its place: the old one or the whole new one."""
    if not path.parent.is_dir() or path.is_dir() or (path.exists() and not path.is_file()):
        with path.open("wb") as file:  # a device or pipe is written as it is; others raise
            return _write_lines(file, lines)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            written = _write_lines(file, lines)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return written


def _write_lines(file: IO[bytes], lines: Iterable[bytes]) -> int:
    written = 0
    for line in lines:
        file.write(line + b"\n")
        written += 1
    return written
