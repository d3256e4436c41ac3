"""One mover at a time, over all processes, that changes the log in short transactions."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import apsw

from koru_delta.errors import ReadOnlyError, StorageError
from koru_delta.storage import clean
from koru_delta.storage.scrubber import CHECKPOINT_PAGES, INCREMENTAL, SqliteScrubber
from koru_delta.storage.tierfile import FOLDER

_HOLD_SECONDS: Final = 0.006  # how long a transaction is to keep writers waiting
_FIRST_ROWS: Final = 16
_MOST_ROWS: Final = 1_000
_STEPS_SWEPT: Final = 16
_PAGES_KEPT: Final = 32  # free ones, for the next writes
_READERS_LEAVE_SECONDS: Final = 0.5


class SqliteSteps(SqliteScrubber):
    """What moves between tiers are made of."""

    _moving_fd: int | None = None

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
    ) -> float:
        """Change the log in short transactions, a few items each; the longest wait in seconds.

        What `prepare` does with them keeps nobody waiting, what it returns is the transaction.

        Nothing that readers keep by the generation changes by it, so it stands still. A power
        cut may take the last steps back, unless they are to be `lasting` when this returns.
        """
        longest, count, start, steps = 0.0, _FIRST_ROWS, 0, 0
        sweeping = clean.Sweeping(self.directory / "log.db")
        try:
            while start < len(items):
                some = items[start : start + count]
                step = prepare(some)
                with self._write_lock, self._locked():
                    begun = time.perf_counter()
                    self._one_step(step, lasting=lasting)
                    taken = time.perf_counter() - begun
                longest = max(longest, taken)
                start, steps = start + len(some), steps + 1
                if steps % _STEPS_SWEPT == 0:
                    self._sweep(sweeping)
                # A step that took long was perhaps kept from its work by others.
                faster = min(2.0, max(0.5, _HOLD_SECONDS / max(taken, 1e-6)))
                count = max(1, min(_MOST_ROWS, int(count * faster)))
                time.sleep(0)  # whoever waits for the lock goes first
            self._let_readers_leave(sweeping)
        except apsw.Error as error:
            raise self._foreign(error) from error
        finally:
            sweeping.close()
        return longest

    def _one_step(self, step: Callable[[apsw.Connection], object], *, lasting: bool) -> None:
        con, generation = self._writer_connection(), self._generation
        assert generation is not None  # a writable engine has one
        sync = "OFF" if self.temporary else "FULL" if lasting else "NORMAL"
        con.wal_autocheckpoint(0)
        con.execute(f"PRAGMA synchronous = {sync}").fetchall()
        try:
            con.execute("BEGIN IMMEDIATE")
            try:
                step(con)
                generation.lay_anew()
                con.execute("COMMIT")
            except BaseException:
                if con.in_transaction:
                    con.execute("ROLLBACK")
                raise
        finally:
            con.wal_autocheckpoint(CHECKPOINT_PAGES)
            if not self.temporary:
                usual = "FULL" if self.durability == "full" else "NORMAL"
                con.execute(f"PRAGMA synchronous = {usual}").fetchall()

    def _let_readers_leave(self, sweeping: clean.Sweeping) -> None:
        """Sweep what was laid anew, all of it if readers allow."""
        give_up = time.monotonic() + _READERS_LEAVE_SECONDS
        while not self._sweep(sweeping) and time.monotonic() < give_up:
            time.sleep(0.001)

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
