"""The log in one SQLite file, in WAL mode, shared by threads and processes.

FORMAT.md beside this file describes the tables. Every write takes an advisory lock on
`lock`, then SQLite's own, and moves the generation (see `generation.py`) around its
commit, so that readers elsewhere can keep caches and know when they are stale.

The engine stands on layers, a class and a module each: `connections`, `reader` (what can be
asked), `feeds` (what indexes are made of), `scrubber` (what erasing leaves), `steps`, `mover`
and `tiercare` (bodies that lie in the files of tiers). Here it is opened, written to, checked
and copied; `writer` is the one open write.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import apsw

from koru_delta.errors import (
    CorruptionError,
    DatabaseClosedError,
    DatabaseLockedError,
    NotADatabaseError,
    ReadOnlyError,
    StorageError,
    UnsupportedFormatError,
)
from koru_delta.storage import formats
from koru_delta.storage.connections import CACHE_BYTES, Durability
from koru_delta.storage.generation import Generation
from koru_delta.storage.place import sync_directory
from koru_delta.storage.reader import read_head
from koru_delta.storage.schema import MOVED, first8
from koru_delta.storage.scrubber import CHECKPOINT_PAGES, note_scrub
from koru_delta.storage.tiercare import SqliteTierCare
from koru_delta.storage.tierfile import NAMES
from koru_delta.storage.writer import SqliteWriter
from koru_delta.values import distinction_id

# What ends a whole write, whichever part of it met it.
ENGINE_FAILURES = (apsw.Error, CorruptionError, DatabaseClosedError)

_MADE_BY_ANOTHER_SECONDS: Final = 0.005  # between two looks at a file in the making
_log = logging.getLogger("koru_delta")

T = TypeVar("T")


class SqliteEngine(SqliteTierCare):
    """One directory: `log.db`, `lock`, `generation`, `index/`. Safe to share by threads."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        *,
        durability: Durability = "full",
        read_only: bool = False,
        lock_timeout_seconds: float = 30.0,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """Open the log in a directory; each connection keeps up to `cache_bytes` of its pages."""
        super().__init__(
            path, durability=durability, read_only=read_only,
            lock_timeout_seconds=lock_timeout_seconds, cache_bytes=cache_bytes,
        )  # fmt: skip
        self.transactions = 0  # SQLite commits by this handle; group commit keeps it low
        self._numbers: tuple[int, dict[str, int]] = (0, {})  # next row numbers at a generation
        self._durability_noted = False
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        self._stand_still_for_forks()

    # Opening

    def _open(self) -> None:
        file = self.directory / "log.db"
        writable_directory = os.access(self.directory, os.W_OK)
        if not self.read_only:
            if not writable_directory:
                raise ReadOnlyError(
                    f"{self.directory} is not writable by this user; open it with "
                    "read_only=True, or mend its permissions"
                )
            self._open_lock()
            if not file.exists() or self._patiently(self._unfinished):
                with self._locked():
                    # Another process may have made it, and written, since that was asked.
                    if not file.exists() or self._patiently(self._unfinished):
                        self._check_never_written()
                        self._patiently(self._initialise)
        elif not file.exists():
            raise NotADatabaseError(
                f"{self.directory} holds no KoruDelta database; "
                "open it once without read_only=True to make one"
            )
        else:
            wal = self.directory / "log.db-wal"
            self._immutable = not writable_directory and not wal.exists()
        self._check_format()
        self._generation = self._map_generation()
        self._check_acknowledged()
        if not self.read_only:
            self._resume()

    def _check_never_written(self) -> None:
        """Refuse to make a new log where the old one was acknowledged and is gone."""
        try:
            noted = Generation(self.directory / "generation", writable=False).acknowledged()
        except (FileNotFoundError, ValueError):
            return
        if noted is not None:
            raise CorruptionError(
                f"{self.directory}: log.db is gone or empty, {noted[0]} entries were "
                "acknowledged; restore a backup, or delete the file 'generation' to begin anew"
            )

    def _patiently(self, step: Callable[[], T]) -> T:
        """Take a step on a file that may be in the making.

        To switch a new file to WAL, SQLite must be alone with it, and does not wait for that.
        """
        until = time.monotonic() + self._timeout
        while True:
            try:
                return step()
            except DatabaseLockedError:
                if time.monotonic() > until:
                    raise
                time.sleep(_MADE_BY_ANOTHER_SECONDS)

    def _unfinished(self) -> bool:
        """Whether a maker was killed before its first transaction."""
        with self._reading() as con:
            return formats.is_empty(con)

    def _initialise(self) -> None:
        con = self._writer_connection()
        con.execute("BEGIN IMMEDIATE")
        with con:  # nested: a savepoint, rolled back if anything below raises
            if formats.is_empty(con):
                formats.make(con, self.durability)
        con.execute("COMMIT")
        for folder in (self.directory, self.directory.parent):
            sync_directory(folder)

    def _check_format(self) -> None:
        with self._reading() as con:
            ours, found = formats.is_ours(con), formats.format_of(con)
        if not ours:
            raise self._not_ours()
        if found > formats.FORMAT:
            raise UnsupportedFormatError(str(self.directory), found, formats.FORMAT)
        if found < formats.FORMAT:
            self._migrate(found)

    def _migrate(self, found: int) -> None:
        if self.read_only:
            raise ReadOnlyError(
                f"{self.directory} has the older format {found}; "
                "open it once without read_only=True to bring it up to date"
            )
        with self._locked():
            formats.migrate(self._writer_connection())

    def _map_generation(self) -> Generation | None:
        path = self.directory / "generation"
        try:
            return Generation(path, writable=not self.read_only)
        except FileNotFoundError:
            return None  # read-only and never written: nothing to cache by
        except OSError as error:
            raise StorageError(f"cannot make or map {path}: {error}") from error
        except ValueError as error:
            raise CorruptionError(
                f"{error}; close every process that uses {self.directory}, then delete that "
                "one file: it is made anew"
            ) from error

    def _check_acknowledged(self) -> None:
        """Compare the log with the end last acknowledged outside it (DESIGN 3)."""
        if self._generation is None:
            return
        noted = self._generation.acknowledged()
        if noted is None:
            return
        seq, root = noted
        with self._reading() as con:
            # A writer in another process may be ahead of what was noted, never behind.
            row = con.execute(
                "SELECT c.root FROM commits c JOIN versions v ON v.tx_time = c.tx_time "
                "WHERE v.seq = ? AND c.last_seq = v.seq",
                (seq,),
            ).get
            mode = con.execute("SELECT value FROM meta WHERE name = 'durability'").get
        if row == root:
            return
        problem = (
            f"{self.directory}: the log does not hold entry {seq}, which was acknowledged; "
            "the end of log.db or its WAL is damaged or was replaced: restore a backup, or "
            "delete the file 'generation' to go on from what is left"
        )
        if mode == "full":
            raise CorruptionError(problem)
        _log.warning("%s (opened all the same: it was written with relaxed durability)", problem)

    # Writing

    @contextmanager
    def writing(self, kept: Callable[[int, int], None]) -> Iterator[SqliteWriter]:
        """One write, alone over all processes; kept when the block ends, else undone.

        `kept(before, after)` is called once the write is durable and before readers
        are let back to their caches: the generations around it, both even.

        Raises:
            DatabaseLockedError: another writer held the lock too long.
            StorageFullError, StorageError: the file system refused; nothing was kept.
        """
        with self._write_lock, self._locked():
            generation = self._generation
            assert generation is not None  # a writable engine has one
            con = self._writer_connection()
            late = False
            try:
                self._check_in_place(con)
                try:
                    con.execute("BEGIN IMMEDIATE")
                    before = generation.begin()
                    if before & 1:
                        _note_end(con, generation)  # a killed writer may not have come to it
                    numbers = self._numbers[1] if self._numbers[0] == before else {}
                    spaces = dict(self._spaces[1]) if self._spaces[0] == before else {}
                    head = self._known_head(con, before)
                    writer = SqliteWriter(self, con, head, numbers, spaces)
                    yield writer
                    writer.flush()
                    if writer.dirty:
                        if writer.erased:
                            late = note_scrub(con, writer.erased)
                            con.wal_autocheckpoint(0)  # what follows does it, and cleaner
                        self._note_durability(con)
                        con.execute("COMMIT")
                        self.transactions += 1
                        generation.acknowledge(
                            writer.head.seq, writer.head.root, writer.head.tx_time
                        )
                    else:
                        con.execute("ROLLBACK")
                except BaseException:
                    self._known = None
                    self._durability_noted = False
                    con.wal_autocheckpoint(CHECKPOINT_PAGES)
                    if con.in_transaction:
                        con.execute("ROLLBACK")
                    if generation.cells[0] & 1:
                        with suppress(apsw.Error):
                            _note_end(con, generation)  # interrupted after its commit, perhaps
                        generation.end()
                    raise
                self._namespaces.update(writer.new_namespaces)
                after = generation.next_even()
                self._known = (after, writer.head)
                self._numbers = (after, numbers)
                self._spaces = (after, spaces)
                known_at, erased = self._erased
                if known_at == before:
                    self._erased = (after, {**erased, **writer.erased})
                self._recent = self._recent.followed(before, after, writer.head.seq, writer.written)
                kept(before, after)
                generation.end()
                if writer.erased:
                    self._clean(con, late=late)
            except apsw.Error as error:
                raise self._foreign(error) from error

    def _note_durability(self, con: apsw.Connection) -> None:
        """Say once, with the first write, whether losing the end of the log is an error."""
        if not self._durability_noted:
            con.execute(
                "UPDATE meta SET value = :mode WHERE name = 'durability' AND value <> :mode",
                {"mode": self.durability},
            )
            self._durability_noted = True

    # Care

    def statistics(self) -> dict[str, Any]:
        """Counts and sizes; sizes in bytes."""
        counts = {
            name: self._rows(f"SELECT count(*) FROM {name}")[0][0]
            for name in ("namespaces", "keys", "versions", "commits", "objects", "vectors", "edges",
                         "marks")
        }  # fmt: skip
        files = {
            name: (self.directory / file).stat().st_size if (self.directory / file).exists() else 0
            for name, file in (("log_bytes", "log.db"), ("wal_bytes", "log.db-wal"))
        }
        sizes = self.tier_sizes()
        tiers = {f"{NAMES[tier]}_bytes": size.size_bytes for tier, size in sizes.items()}
        return {**counts, **files, **tiers}

    def acknowledged(self) -> tuple[int, bytes] | None:
        """The end of the log as noted outside it, or None if nothing was noted."""
        return None if self._generation is None else self._generation.acknowledged()

    def problems(self) -> Iterator[str]:
        """What is wrong with the files themselves: structure, objects, their hashes, tiers."""
        for (line,) in self._rows("PRAGMA integrity_check"):
            if line != "ok":
                yield f"structure: {line}"
        yield from self.tier_problems()
        last = 0
        while True:
            rows = self._rows(
                "SELECT object, id8, object_id, codec FROM objects WHERE object > ? "
                "ORDER BY object LIMIT 500",
                (last,),
            )
            if not rows:
                break
            for item, id8, identity, codec in rows:
                try:
                    data = self._object(item)
                except CorruptionError as error:
                    if not self._rows("SELECT 1 FROM objects WHERE object = ?", (item,)):
                        continue  # erased since
                    yield str(error) if codec == MOVED else f"object {item}: {error}"
                    continue
                whole = identity in (distinction_id("vec", data), distinction_id("json", data))
                if not whole or id8 != first8(identity):
                    yield f"object {item} does not match its hash {identity.hex()[:16]}"
            last = rows[-1][0]

    def rows_of(
        self, table: Literal["vectors", "edges", "marks", "keys", "spaces", "blocks"]
    ) -> int:
        """How many rows a reading of the log has, to compare with the log."""
        count: int = self._rows(f"SELECT count(*) FROM {table}")[0][0]
        return count

    def backup(self, target: Path) -> None:
        """Copy the whole database, as of one moment, to a new directory."""
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise NotADatabaseError(f"{target} is a file, or not empty; back up to a new directory")
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        previous = os.umask(0o077)
        try:
            with self._standing():
                self._copy_log(target / "log.db")
                self._copy_tiers(target)
        finally:
            os.umask(previous)
        sync_directory(target)
        with SqliteEngine(target)._closing() as fresh:
            head = fresh.head()
            generation = fresh._generation
            if generation is not None and head.commits:
                generation.acknowledge(head.seq, head.root, head.tx_time)

    def _copy_log(self, file: Path) -> None:
        with self._reading() as con:
            copy = apsw.Connection(str(file))
            try:
                with copy.backup("main", con, "main") as job:
                    job.step(-1)
                copy.execute("PRAGMA journal_mode = WAL").fetchall()
            finally:
                copy.close()
        sync_directory(file)

    @contextmanager
    def _closing(self) -> Iterator[SqliteEngine]:
        try:
            yield self
        finally:
            self.close()


def _note_end(con: apsw.Connection, generation: Generation) -> None:
    head = read_head(con)
    if head.commits:
        generation.acknowledge(head.seq, head.root, head.tx_time)
