"""Connections to `log.db`: shared by threads, alone when writing, never carried across a fork.

Readers take an idle connection each and give it back. There is one connection that writes;
whoever uses it holds `_write_lock` and, over all processes, an advisory lock on `lock`.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal

import apsw

from koru_delta.errors import (
    CorruptionError,
    DatabaseClosedError,
    DatabaseLockedError,
    InvalidDataError,
    KoruDeltaError,
    NotADatabaseError,
    ReadOnlyError,
    StorageError,
    StorageFullError,
)
from koru_delta.storage import formats
from koru_delta.storage.place import check_directory, remove_directory

Durability = Literal["full", "relaxed"]

_LONGEST_LOOK_SECONDS = 0.005  # between two looks of a writer that waits for the lock
CACHE_BYTES: Final = 16_000 * 1024  # of pages, most that one connection keeps
_NO_ROOM_TO_SHARE: Final = apsw.SQLITE_IOERR_SHMSIZE
_OLDEST_SQLITE = 3051003  # earlier ones can corrupt a WAL that several processes write


class Connections:
    """One directory, and the connections of this process to the log in it."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        *,
        durability: Durability,
        read_only: bool,
        lock_timeout_seconds: float,
        cache_bytes: int,
    ) -> None:
        if apsw.SQLITE_VERSION_NUMBER < _OLDEST_SQLITE:  # pragma: no cover - packaging forbids it
            raise StorageError(
                f"SQLite {apsw.sqlitelibversion()} can corrupt a shared log; pip install -U apsw"
            )
        if path is not None and not os.fspath(path):
            raise NotADatabaseError("an empty path names no directory; None is in memory")
        self.temporary = path is None
        self.path = None if path is None else Path(os.path.abspath(os.fspath(path)))
        self.durability: Durability = durability
        self.read_only = read_only
        self._timeout = lock_timeout_seconds
        self._cache_bytes = cache_bytes
        self._closed: str | None = None
        self._fork_lock = threading.Lock()  # held to create, collect or drop readers
        self._write_lock = threading.Lock()
        self._idle: deque[apsw.Connection] = deque()
        self._back = self._idle  # where readers return theirs; another deque before a fork
        self._connections: list[apsw.Connection] = []
        self._writer: apsw.Connection | None = None
        self._lock_fd: int | None = None
        self._immutable = False
        self.after_fork: list[Callable[[], None]] = []  # called in the child
        if self.path is None:
            self.directory = Path(tempfile.mkdtemp(prefix="koru-delta-"))
            self._cleanup = weakref.finalize(self, remove_directory, self.directory, os.getpid())
        else:
            self.directory = self.path
            check_directory(self.path, read_only=read_only)

    def close(self) -> None:
        """Close every connection; later calls raise `DatabaseClosedError`."""
        if self._closed is not None:
            return
        with self._write_lock, self._fork_lock:
            self._closed = "the database is closed; open it again"
            _open_here.discard(self)
            self.after_fork.clear()
            self._release()
        if self.temporary:
            self._cleanup()

    def _release(self) -> None:
        """Let go of every file."""
        self._drop_connections()
        self._close_lock()

    def _forget(self) -> None:
        """Forget what was read: it may not be so any more."""

    def _drop_connections(self) -> None:
        """Close idle connections; one in use closes itself when it comes back."""
        with suppress(IndexError):  # other threads may take one at any time
            while True:
                con = self._idle.popleft()
                self._connections.remove(con)
                con.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._forget()

    def _not_ours(self) -> NotADatabaseError:
        return NotADatabaseError(
            f"{self.directory / 'log.db'} is some other program's database; "
            "choose another directory"
        )

    def _check_open(self) -> None:
        if self._closed is not None:
            raise DatabaseClosedError(self._closed)

    # Connections

    def _connect(self, *, writable: bool) -> apsw.Connection:
        file = self.directory / "log.db"
        flags = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_NOMUTEX
        flags |= apsw.SQLITE_OPEN_READONLY if self.read_only else apsw.SQLITE_OPEN_READWRITE
        if writable:
            flags |= apsw.SQLITE_OPEN_CREATE
        mode = "?immutable=1" if self._immutable else ""
        previous = os.umask(0o077)
        con: apsw.Connection | None = None
        try:
            con = apsw.Connection(file.as_uri() + mode, flags=flags)
            con.set_busy_timeout(int(self._timeout * 1000))
            # Without this, SQLite plans a statement anew each time a bound value changes.
            con.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
            # In this order: another process may be making it.
            if not formats.is_empty(con) and not formats.is_ours(con):
                raise self._not_ours()  # before anything is changed
            if not self.read_only and con.execute("PRAGMA page_count").get == 0:
                # Of a new file only: in any other it waits for writers, and changes nothing.
                con.execute("PRAGMA auto_vacuum = INCREMENTAL").fetchall()
            for pragma in self._pragmas():
                con.execute(f"PRAGMA {pragma}").fetchall()
        except BaseException as error:
            if con is not None:
                con.close()
            if isinstance(error, apsw.Error):
                raise self._foreign(error) from error
            raise
        finally:
            os.umask(previous)
        return con

    def _pragmas(self) -> Iterator[str]:
        yield "trusted_schema = OFF"
        yield "cell_size_check = ON"
        yield "mmap_size = 0"
        yield f"cache_size = -{self._cache_bytes // 1024}"
        if self.read_only:
            return
        yield "journal_mode = WAL"
        yield "secure_delete = ON"
        if self.temporary:
            yield "synchronous = OFF"
        else:
            yield f"synchronous = {'FULL' if self.durability == 'full' else 'NORMAL'}"
            yield "fullfsync = ON"
            yield "checkpoint_fullfsync = ON"

    def _writer_connection(self) -> apsw.Connection:
        if self._writer is None:
            self._writer = self._connect(writable=True)
        return self._writer

    def _check_in_place(self, con: apsw.Connection) -> None:
        """Check that what the writer writes to is still the file by that name.

        Raises:
            StorageError: it was deleted, moved or replaced, and nobody would find the write.
        """
        moved = ctypes.c_int()
        con.file_control("main", apsw.SQLITE_FCNTL_HAS_MOVED, ctypes.addressof(moved))
        if moved.value and not self.temporary:
            raise StorageError(
                f"{self.directory / 'log.db'} was deleted, moved or replaced while it was open; "
                "nothing of this write was kept: close the database, put the directory back or "
                "open the one that is there now, and write again"
            )

    def _new_reader(self) -> apsw.Connection:
        with self._fork_lock:
            self._check_open()
            with suppress(IndexError):
                return self._idle.pop()  # came back while this thread waited for a fork
            con = self._connect(writable=False)
            self._connections.append(con)
            return con

    @contextmanager
    def _reading(self) -> Iterator[apsw.Connection]:
        try:
            con = self._idle.pop()
        except IndexError:
            con = self._new_reader()
        try:
            yield con
        except (apsw.Error, UnicodeEncodeError, UnicodeDecodeError) as error:
            raise self._foreign(error) from error
        finally:
            self._back.append(con)
            if self._closed is not None:
                with self._fork_lock:
                    self._drop_connections()

    def _rows(self, sql: str, bindings: Any = None) -> list[Any]:
        """Run one read; the only way to the file outside a write."""
        try:
            con = self._idle.pop()
        except IndexError:
            con = self._new_reader()
        try:
            return con.execute(sql, bindings).fetchall()
        except (apsw.Error, UnicodeEncodeError, UnicodeDecodeError) as error:
            raise self._foreign(error) from error
        finally:
            self._back.append(con)
            if self._closed is not None:
                with self._fork_lock:
                    self._drop_connections()

    def _foreign(self, error: apsw.Error | UnicodeError) -> KoruDeltaError:
        """Say in our words what SQLite reported."""
        where = self.directory / "log.db"
        match error:
            case UnicodeEncodeError():
                return InvalidDataError("text holds a lone surrogate")
            case UnicodeDecodeError():
                return CorruptionError(f"a name in {self.directory} is damaged: {error}")
            case apsw.FullError():
                return StorageFullError(
                    f"no room left for {where}; nothing of this write was kept: "
                    "free some space and write again"
                )
            case apsw.IOError() if getattr(error, "extendedresult", 0) == _NO_ROOM_TO_SHARE:
                return StorageFullError(
                    f"no room left beside {where}, for the few kilobytes that processes share: "
                    "free some space and open it again"
                )
            case apsw.BusyError() | apsw.LockedError() | apsw.ProtocolError():
                return DatabaseLockedError(str(self.directory), self._timeout)
            case apsw.NotADBError() | apsw.CorruptError() | apsw.FormatError():
                return CorruptionError(
                    f"{where} is damaged ({error}); restore a backup, or save what is left "
                    "with: kdelta export"
                )
            case apsw.ReadOnlyError() | apsw.PermissionsError() | apsw.CantOpenError():
                return ReadOnlyError(f"cannot open or write {where}: {error}")
            case apsw.TooBigError():
                return InvalidDataError(f"too large for one row of {where}: {error}")
            case apsw.IOError():
                return StorageError(
                    f"reading or writing {where} failed ({error}); what was acknowledged is "
                    "safe, this call was not kept"
                )
        return StorageError(f"SQLite refused at {where}: {error}")

    # The write lock

    def _open_lock(self) -> None:
        try:
            self._lock_fd = os.open(
                self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise StorageError(f"cannot open the lock of {self.directory}: {error}") from error
        # A handle that is dropped without `close` keeps nothing open.
        self._lock_closer = weakref.finalize(self, os.close, self._lock_fd)

    def _close_lock(self) -> None:
        if self._lock_fd is not None:
            self._lock_fd = None
            self._lock_closer()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the advisory lock that keeps other processes' writers out."""
        self._check_open()
        if self._lock_fd is None:
            raise ReadOnlyError(f"{self.directory} was opened with read_only=True")
        try:
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._wait_for_lock(self._lock_fd)
            yield
        finally:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def _wait_for_lock(self, fd: int) -> None:
        start, pause = time.monotonic(), 0.0002
        while True:
            time.sleep(pause)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() - start > self._timeout:
                    raise DatabaseLockedError(str(self.directory), self._timeout) from None
                pause = min(pause * 1.5, _LONGEST_LOOK_SECONDS)

    def step_aside(self) -> None:
        """Between two writes of many in a row: let in the writers of other processes who wait.

        They look now and then; who goes on at once takes the lock again before they do.
        """
        time.sleep(2 * _LONGEST_LOOK_SECONDS)

    # Forking

    def _stand_still_for_forks(self) -> None:
        """From now on, and until it is closed."""
        _open_here.add(self)

    def _before_fork(self) -> None:
        """Stand still: no write, and no connection in any thread's hands."""
        self._write_lock.acquire()
        self._fork_lock.acquire()
        self._idle = deque()  # who reads next waits for `_fork_lock`
        give_up = time.monotonic() + 5
        while len(self._back) < len(self._connections) and time.monotonic() < give_up:
            time.sleep(0.0002)

    def _after_fork_in_parent(self) -> None:
        self._idle = self._back
        self._fork_lock.release()
        self._write_lock.release()

    def _after_fork_in_child(self) -> None:
        # None is in a transaction (see _before_fork), so closing them here touches
        # nothing of the parent's: POSIX locks belong to the process that took them.
        if len(self._back) < len(self._connections) and self._closed is None:
            # SQLite would think this process still holds the locks of that reader.
            self._closed = "a thread was reading when this process was forked; open it again here"
        for con in self._back:
            con.close()
        self._back.clear()
        self._idle = self._back
        self._connections.clear()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._forget()
        self._close_lock()
        self._fork_lock.release()
        self._write_lock.release()
        if self.temporary:
            self._closed = (
                "an in-memory database belongs to the process that opened it; "
                "open one here, or give it a path to share"
            )
        elif self._closed is None and not self.read_only:
            self._open_lock()
        for renew in self.after_fork:
            renew()


_open_here: weakref.WeakSet[Connections] = weakref.WeakSet()
_held_for_fork: list[Connections] = []


def _before_fork() -> None:
    for each in list(_open_here):
        each._before_fork()
        _held_for_fork.append(each)


def _after_fork_in_parent() -> None:
    while _held_for_fork:
        _held_for_fork.pop()._after_fork_in_parent()


def _after_fork_in_child() -> None:
    while _held_for_fork:
        _held_for_fork.pop()._after_fork_in_child()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
