"""One mover at a time, over all processes, that changes the log in short transactions."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, Final

import apsw

from koru_delta.errors import ReadOnlyError, StorageError
from koru_delta.storage.pace import PAUSE_SECONDS
from koru_delta.storage.rows import note_laid_anew
from koru_delta.storage.scrubber import CHECKPOINT_PAGES, INCREMENTAL, SqliteScrubber
from koru_delta.storage.tierfile import FOLDER

_HOLD_SECONDS: Final = 0.003  # how long a transaction is to keep writers waiting
_FIRST_ROWS: Final = 16
_MOST_ROWS: Final = 250
_PAGES_CHECKPOINTED: Final = 400  # written until they are moved into the file
_PAGES_BEGUN_ANEW: Final = 1_000  # in the write-ahead log, until it is begun anew
_TRIES: Final = 3
_PAGES_KEPT: Final = 32  # free ones, for the next writes


class SqliteSteps(SqliteScrubber):
    """What moves between tiers are made of."""

    _moving_fd: int | None = None
    _pages_written = 0  # by the connection that writes, at the last checkpoint

    # One mover at a time

    @contextmanager
    def _moving(self, *, wait: bool = True) -> Iterator[None]:
        """Keep other movers out, of this process and all others.

        Raises:
            BlockingIOError: there is one, and this is not to wait.
        """
        self._check_open()
        if self.read_only:
            raise ReadOnlyError(f"{self.directory} was opened with read_only=True")
        folder = self.directory / FOLDER
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"cannot open the lock of {folder}: {error}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            self._moving_fd = fd
            try:
                yield
            finally:
                self._moving_fd = None
                fcntl.flock(fd, fcntl.LOCK_UN)
        finally:
            os.close(fd)

    def _in_steps(
        self,
        items: Sequence[Any],
        prepare: Callable[[Sequence[Any]], Callable[[apsw.Connection], object]],
        *,
        lasting: bool = False,
        alone: bool = False,
        most: int = _MOST_ROWS,
    ) -> float:
        """Change the log in short transactions, a few items each; the longest wait in seconds.

        What `prepare` does with them keeps nobody waiting, what it returns is the transaction.

        Nothing that readers keep by the generation changes by it, so it stands still. A power
        cut may take the last steps back, unless they are to be `lasting` when this returns.

        Args:
            alone: The step is one statement, and so a transaction by itself.
        """
        if not items:
            return 0.0
        self._checkpoint_in_commits(False)
        try:
            return self._taken(items, prepare, lasting=lasting, alone=alone, most=most)
        finally:
            self._checkpoint_in_commits(True)

    def _taken(
        self,
        items: Sequence[Any],
        prepare: Callable[[Sequence[Any]], Callable[[apsw.Connection], object]],
        *,
        lasting: bool,
        alone: bool,
        most: int,
    ) -> float:
        """Take all steps; the longest wait in seconds."""
        longest, count, start = 0.0, _FIRST_ROWS, 0
        while start < len(items):
            some = items[start : start + count]
            step = prepare(some)
            with self._write_lock, self._locked():
                begun = time.perf_counter()
                try:
                    self._one_step(step, lasting=lasting, alone=alone)
                except apsw.Error as error:
                    raise self._foreign(error) from error
                taken = time.perf_counter() - begun
                written = self._writer_connection().status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)[0]
            longest = max(longest, taken)
            start += len(some)
            if not 0 <= written - self._pages_written < _PAGES_CHECKPOINTED:
                self._pages_written = written
                longest = max(longest, self._checkpoint_gently())
            # A step that took long was perhaps kept from its work by others.
            faster = min(2.0, max(0.5, _HOLD_SECONDS / max(taken, 1e-6)))
            count = max(1, min(most, int(count * faster)))
            time.sleep(PAUSE_SECONDS)  # whoever waits goes first
        return longest

    def _one_step(
        self, step: Callable[[apsw.Connection], object], *, lasting: bool, alone: bool
    ) -> None:
        con = self._writer_connection()
        usual = "FULL" if self.durability == "full" else "NORMAL"
        sync = "FULL" if lasting else "NORMAL"
        if sync != usual and not self.temporary:
            con.execute(f"PRAGMA synchronous = {sync}").fetchall()
        try:
            if alone:
                step(con)
                return
            con.execute("BEGIN IMMEDIATE")
            try:
                note_laid_anew(con)
                step(con)
                con.execute("COMMIT")
            except BaseException:
                if con.in_transaction:
                    con.execute("ROLLBACK")
                raise
        finally:
            if sync != usual and not self.temporary:
                con.execute(f"PRAGMA synchronous = {usual}").fetchall()

    def _checkpoint_in_commits(self, is_wanted: bool) -> None:
        """Whether a commit moves pages into the file, and whoever made it waits for that."""
        with self._write_lock, suppress(apsw.Error):
            self._writer_connection().wal_autocheckpoint(CHECKPOINT_PAGES if is_wanted else 0)

    def _checkpoint_gently(self) -> float:
        """Move pages into the file, so that no commit has to; the longest wait in seconds.

        Nearly all of it goes beside writes. Only if nobody writes until the rest is moved, too,
        the write-ahead log begins anew instead of growing.
        """
        there = 0
        for _ in range(_TRIES):
            there, done = self._checkpointed(self._reading())
            if there == done:  # only then it has been synced
                break
        if there < _PAGES_BEGUN_ANEW:
            return 0.0
        with self._write_lock, self._locked():
            begun = time.perf_counter()
            self._checkpointed(nullcontext(self._writer_connection()))
            return time.perf_counter() - begun

    @staticmethod
    def _checkpointed(connection: AbstractContextManager[apsw.Connection]) -> tuple[int, int]:
        """Move pages into the file as far as readers let it: how many there are, and were moved."""
        with connection as con, suppress(apsw.BusyError):  # somebody else does it
            found: list[Any] = con.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            return int(found[0][1]), int(found[0][2])
        return 0, 0

    def _give_back_gently(self) -> None:
        """Return free pages to the file system, a few at a time."""
        free = self._rows("PRAGMA freelist_count")[0][0]
        if self._rows("PRAGMA auto_vacuum")[0][0] == INCREMENTAL and free > _PAGES_KEPT:
            self._in_steps(
                range(free - _PAGES_KEPT),
                lambda some: (
                    lambda con: con.execute(f"PRAGMA incremental_vacuum({len(some)})").fetchall()
                ),
            )

    def _after_fork_in_child(self) -> None:
        super()._after_fork_in_child()
        if self._moving_fd is not None:  # the parent's to hold, and to let go
            os.close(self._moving_fd)
            self._moving_fd = None
