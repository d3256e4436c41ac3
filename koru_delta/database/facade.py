"""`Database`: opening and closing it, and the families of verbs it is made of."""

from __future__ import annotations

import os
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Literal

from koru_delta.causal import Clock, system_clock
from koru_delta.database import erasing
from koru_delta.database.arguments import memory_budget
from koru_delta.database.care import CareVerbs
from koru_delta.database.handle import Parts
from koru_delta.database.lifecycle import Around
from koru_delta.database.workspaces import WorkspaceVerbs
from koru_delta.embedders import Embedder, as_embedder
from koru_delta.errors import InvalidDataError, NotPicklableError
from koru_delta.intents import Intents
from koru_delta.lifecycle import (
    GENOME_SECONDS,
    Consolidator,
    Lifecycle,
    Runner,
    Tiers,
    Tracker,
    UsageFile,
)
from koru_delta.log import CausalLog
from koru_delta.search.budget import page_bytes
from koru_delta.storage import SqliteEngine


class Database(CareVerbs, WorkspaceVerbs):
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
        vector_memory: int | None = None,
        track: bool = True,
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
            vector_memory: Bytes of memory for vectors and what makes search by them fast, about;
                None is all it takes. Beyond it codes stay in memory and vectors in files,
                then both in files: hits and scores stay as exact, searches take longer. Some
                fifty bytes a vector stay whatever is given: `stats()["vector_memory"]` tells
                the least, and a warning if this is below it; 0 asks for as little as can be.
            track: Note which keys are used, so that what matters can be kept near (see
                `lifecycle`). It is kept beside the log, never in it.

        Raises:
            NotADatabaseError: the path is a file or holds something else.
            UnsupportedFormatError: written by a newer KoruDelta.
            CorruptionError: damaged, or acknowledged entries are missing.
            ReadOnlyError: the directory cannot be written; open it read-only.
        """
        if durability not in ("full", "relaxed"):
            raise InvalidDataError(f"durability is 'full' or 'relaxed', not {durability!r}")
        text = None if embedder is None else as_embedder(embedder)
        budget = memory_budget(vector_memory)
        engine = SqliteEngine(
            path, durability=durability, read_only=read_only,
            lock_timeout_seconds=lock_timeout_seconds, cache_bytes=page_bytes(budget),
        )  # fmt: skip
        log = CausalLog(engine, clock or system_clock, node=node)
        file = UsageFile(None if engine.temporary else engine.directory / "tiers" / "usage.db")
        tracker = Tracker(None if read_only else file, log.clock, is_on=track)
        intents = Intents(log, text, author=author, run=run)
        parts = Parts.of(log, intents, tracker, budget)
        super().__init__(parts)
        log.after_erase = parts.scrub
        self._transaction = ContextVar("transaction", default=None)
        self._runner = Runner(log.clock, tracker.uses)
        engine.after_fork.append(self._runner.begin)
        self._runner.add("sweep", erasing.SWEEP_SECONDS, self._sweep_quietly)
        tiers = Tiers(log, tracker.file)
        consolidator = Consolidator(log, Around(intents), author=author)
        intents.besides_erases = consolidator.besides_erases
        self._lifecycle = Lifecycle(
            log, tracker, self._runner, author=author, mover=tiers, consolidator=consolidator
        )
        self._lifecycle.add_job("genome", GENOME_SECONDS, tiers.genome)
        self._swept = {}
        self._closing: object = None
        if not read_only and not engine.temporary:
            if not engine.is_scrubbed():  # whoever erased was killed before it had cleaned up
                parts.scrub()
            if any(policy.is_active for policy in self.retentions().values()):
                self._runner.start()

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

        Waits for jobs (see `lifecycle`), which stop at their next step. Matches that are still
        held keep their values. Closing twice is fine, by several threads and by a job too.
        """
        try:
            self._runner.stop()
        finally:
            working = self._runner.working  # another one in a forked child
            with working:
                if self._closing is not working:  # else a signal came amid it; it goes on then
                    self._closing = working
                    try:
                        self._parts.close()
                    finally:
                        self._closing = None


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
    vector_memory: int | None = None,
    track: bool = True,
) -> Database:
    """Open the database in a directory, made if missing; None is in memory.

    Arguments and errors are those of `Database`.
    """
    return Database(
        path, durability=durability, read_only=read_only, embedder=embedder, clock=clock,
        author=author, run=run, node=node, lock_timeout_seconds=lock_timeout_seconds,
        vector_memory=vector_memory, track=track,
    )  # fmt: skip
