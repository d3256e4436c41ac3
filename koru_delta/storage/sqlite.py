"""The log in one SQLite file, in WAL mode, shared by threads and processes.

FORMAT.md beside this file describes the tables. Every write takes an advisory lock on
`lock`, then SQLite's own, and moves the generation (see `generation.py`) around its
commit, so that readers elsewhere can keep caches and know when they are stale.
"""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import apsw
import orjson

from koru_delta.causal import (
    DELETE,
    ERASE,
    FOREVER,
    GENESIS,
    HIDE,
    PUT,
    SUPERSEDE,
    UNHIDE,
    marks_of,
)
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
    UnsupportedFormatError,
)
from koru_delta.storage import clean
from koru_delta.storage.engine import (
    Candidate,
    Entry,
    Head,
    Shade,
    Space,
    Stored,
    StoredCommit,
    chunks,
)
from koru_delta.storage.generation import Generation
from koru_delta.storage.place import check_directory, remove_directory, sync_directory
from koru_delta.storage.recent import Recent
from koru_delta.storage.schema import (
    ADD_MARK,
    ANY_HIDDEN,
    APPLICATION_ID,
    BLOCK,
    CANDIDATES,
    COMMITS,
    EFFECTS,
    ENTRY,
    ENTRY_MARK,
    ERASED,
    ERASED_BETWEEN,
    GONE,
    HIDDEN,
    LACKS,
    MARKS,
    PLACES,
    RECORDS_AT,
    SCHEMA,
    SEQ_OF,
    SHADE,
    SPACES,
    STORED,
    VISIBLE,
    WINNER,
    first8,
    read_stored,
    shade_of,
    unpack,
)
from koru_delta.storage.writer import SqliteWriter
from koru_delta.values import MAX_KEY_BYTES, decode, distinction_id

Durability = Literal["full", "relaxed"]

# What ends a whole write, whichever part of it met it.
ENGINE_FAILURES = (apsw.Error, CorruptionError, DatabaseClosedError)

FORMAT = 3
_OLDEST_SQLITE = 3051003  # earlier ones can corrupt a WAL that several processes write
_INCREMENTAL = 2  # what `PRAGMA auto_vacuum` says
_PAGES_AT_ONCE = 1000
_READERS_LEAVE_MS = 1000
_TRIED_AGAIN_MS = 50  # once they were waited for in vain
_LONGEST_LOOK_SECONDS = 0.005  # between two looks of a writer that waits for the lock
_CHECKPOINT_PAGES = 1000  # SQLite's own choice
_LAST_KEY = "\U0010ffff" * (MAX_KEY_BYTES // 4 + 1)  # longer than any key
_log = logging.getLogger("koru_delta")


def _begin_marks(con: apsw.Connection) -> None:
    """Format 2 files what entries do to other versions; format 1 knew only `supersedes`."""
    _create(con, MARKS)
    found: list[tuple[int, int, int]] = []
    for seq, record in con.execute(
        "SELECT seq, record FROM versions WHERE seq IN (SELECT DISTINCT seq FROM edges)"
    ):
        if b'"supersedes"' in record:
            for kind, ref in sorted(marks_of(decode(record))):
                identity = bytes.fromhex(ref)
                target = con.execute(SEQ_OF, (first8(identity), identity)).get
                if target is not None:
                    found.append((kind, seq, target))
    con.executemany(ADD_MARK, found)


def _begin_erasing(con: apsw.Connection) -> None:
    """Format 3 notes with each version which entry erased it."""
    con.execute("ALTER TABLE versions ADD COLUMN erased INTEGER")


def _create(con: apsw.Connection, schema: str) -> None:
    for statement in schema.split(";\n"):
        if statement.strip():
            con.execute(statement)


# From one format to the next; run in one transaction, under the write lock.
MIGRATIONS: dict[int, Callable[[apsw.Connection], None]] = {1: _begin_marks, 2: _begin_erasing}


class SqliteEngine:
    """One directory: `log.db`, `lock`, `generation`, `index/`. Safe to share by threads."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        *,
        durability: Durability = "full",
        read_only: bool = False,
        lock_timeout_seconds: float = 30.0,
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
        self.transactions = 0  # SQLite commits by this handle; group commit keeps it low
        self._timeout = lock_timeout_seconds
        self._closed: str | None = None
        self._fork_lock = threading.Lock()  # held to create, collect or drop readers
        self._write_lock = threading.Lock()
        self._idle: deque[apsw.Connection] = deque()
        self._back = self._idle  # where readers return theirs; another deque before a fork
        self._connections: list[apsw.Connection] = []
        self._writer: apsw.Connection | None = None
        self._lock_fd: int | None = None
        self._namespaces: dict[str, int] = {}
        self._known: tuple[int, Head] | None = None  # the head at a generation
        self._numbers: tuple[int, dict[str, int]] = (0, {})  # next row numbers, likewise
        self._spaces: tuple[int, dict[str, list[Space]]] = (0, {})
        self._erased: tuple[int, dict[str, int]] = (0, {})  # at a generation, by namespace
        self._recent = Recent(-1, 0)  # no generation yet
        self._immutable = False
        self._durability_noted = False
        self.after_fork: list[Callable[[], None]] = []  # called in the child
        if self.path is None:
            self.directory = Path(tempfile.mkdtemp(prefix="koru-delta-"))
            self._cleanup = weakref.finalize(self, remove_directory, self.directory, os.getpid())
        else:
            self.directory = self.path
            check_directory(self.path, read_only=read_only)
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        _open_engines.add(self)

    # Opening and closing

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
            if not file.exists() or self._unfinished():
                with self._locked():
                    self._check_never_written()
                    self._initialise()
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

    def _unfinished(self) -> bool:
        """Whether a maker was killed before its first transaction."""
        with self._reading() as con:
            return not con.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()

    def _initialise(self) -> None:
        con = self._writer_connection()
        con.execute("BEGIN IMMEDIATE")
        with con:  # nested: a savepoint, rolled back if anything below raises
            if not con.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall():
                _create(con, SCHEMA + MARKS)
                con.execute(f"PRAGMA application_id = {APPLICATION_ID}").fetchall()
                con.execute(f"PRAGMA user_version = {FORMAT}").fetchall()
                con.execute("INSERT INTO meta VALUES('durability', ?)", (self.durability,))
        con.execute("COMMIT")
        for folder in (self.directory, self.directory.parent):
            sync_directory(folder)

    def _check_format(self) -> None:
        with self._reading() as con:
            application = con.execute("PRAGMA application_id").get
            found = con.execute("PRAGMA user_version").get
        if application != APPLICATION_ID:
            raise NotADatabaseError(
                f"{self.directory / 'log.db'} is some other program's database; "
                "choose another directory"
            )
        if found > FORMAT:
            raise UnsupportedFormatError(str(self.directory), found, FORMAT)
        if found < FORMAT:
            self._migrate(found)

    def _migrate(self, found: int) -> None:
        if self.read_only:
            raise ReadOnlyError(
                f"{self.directory} has the older format {found}; "
                "open it once without read_only=True to bring it up to date"
            )
        with self._locked():
            con = self._writer_connection()
            con.execute("BEGIN IMMEDIATE")
            try:
                for step in range(con.execute("PRAGMA user_version").get, FORMAT):
                    MIGRATIONS[step](con)
                con.execute(f"PRAGMA user_version = {FORMAT}").fetchall()
            except BaseException:
                con.execute("ROLLBACK")
                raise
            con.execute("COMMIT")

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

    def close(self) -> None:
        """Close every connection; later calls raise `DatabaseClosedError`."""
        if self._closed is not None:
            return
        with self._write_lock, self._fork_lock:
            self._closed = "the database is closed; open it again"
            _open_engines.discard(self)
            self.after_fork.clear()
            self._drop_connections()
            self._close_lock()
            if getattr(self, "_generation", None) is not None:
                self._generation.close()  # type: ignore[union-attr]
        if self.temporary:
            self._cleanup()

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
        self._known = None
        self._recent = Recent(-1, 0)

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
            self._check_ours(con)  # before anything is changed
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

    def _check_ours(self, con: apsw.Connection) -> None:
        ours = con.execute("PRAGMA application_id").get == APPLICATION_ID
        if not ours and con.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall():
            raise NotADatabaseError(
                f"{self.directory / 'log.db'} is some other program's database; "
                "choose another directory"
            )

    def _pragmas(self) -> Iterator[str]:
        yield "trusted_schema = OFF"
        yield "cell_size_check = ON"
        yield "mmap_size = 0"
        yield "cache_size = -16000"
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
        except apsw.Error as error:
            raise self._foreign(error) from error
        except UnicodeEncodeError as error:
            raise InvalidDataError("text holds a lone surrogate") from error
        except UnicodeDecodeError as error:
            raise CorruptionError(f"a name in {self.directory} is damaged: {error}") from error
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
        except apsw.Error as error:
            raise self._foreign(error) from error
        except UnicodeEncodeError as error:
            raise InvalidDataError("text holds a lone surrogate") from error
        except UnicodeDecodeError as error:
            raise CorruptionError(f"a name in {self.directory} is damaged: {error}") from error
        finally:
            self._back.append(con)
            if self._closed is not None:
                with self._fork_lock:
                    self._drop_connections()

    def _foreign(self, error: apsw.Error) -> KoruDeltaError:
        """Say in our words what SQLite reported."""
        where = self.directory / "log.db"
        match error:
            case apsw.FullError():
                return StorageFullError(
                    f"no room left for {where}; nothing of this write was kept: "
                    "free some space and write again"
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
                            late = _note_scrub(con, writer.erased)
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
                    con.wal_autocheckpoint(_CHECKPOINT_PAGES)
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

    def _clean(self, con: apsw.Connection, *, late: bool) -> None:
        """Empty the write-ahead log of what was just erased; what is in the way stays noted."""
        con.wal_autocheckpoint(_CHECKPOINT_PAGES)
        try:
            if self._checkpoint(late=late) and not late:
                _amend_scrub(con, late=False)
            # What is in memory of its pages has not been cleaned.
            con.execute("PRAGMA shrink_memory").fetchall()
        except apsw.Error as error:  # what was erased is erased; cleaning up is tried again
            _log.warning("the write-ahead log still holds what was erased: %s", error)

    def _note_durability(self, con: apsw.Connection) -> None:
        """Say once, with the first write, whether losing the end of the log is an error."""
        if not self._durability_noted:
            con.execute(
                "UPDATE meta SET value = :mode WHERE name = 'durability' AND value <> :mode",
                {"mode": self.durability},
            )
            self._durability_noted = True

    def _known_head(self, con: apsw.Connection, generation: int) -> Head:
        known = self._known
        return known[1] if known is not None and known[0] == generation else _read_head(con)

    # Reading

    def cells(self) -> memoryview | None:
        """The generation's shared memory (see `generation.py`), or None without one."""
        return None if self._generation is None else self._generation.cells

    def generation(self) -> int:
        """The counter of `generation.py`; odd means: ask, and do not cache."""
        return 1 if self._generation is None else self._generation.cells[0]

    def head(self) -> Head:
        """The end of the log, over all processes."""
        before, known = self.generation(), self._known
        if known is not None and before == known[0]:
            return known[1]
        with self._reading() as con:
            head = _read_head(con)
        if not before & 1 and self.generation() == before:
            self._known = (before, head)
        return head

    def last_time(self) -> int:
        """The time of the last commit of any process."""
        if self._generation is not None and not self._generation.cells[0] & 1:
            noted = self._generation.cells[1]
            if noted:  # else the file is younger than the log
                return noted
        return self.head().tx_time

    def _namespace(self, name: str) -> int | None:
        found = self._namespaces.get(name)
        if found is None:
            rows = self._rows("SELECT ns FROM namespaces WHERE name = ?", (name,))
            if not rows:
                return None
            found = self._namespaces[name] = rows[0][0]
        return found

    def _stored(self, row: tuple[Any, ...]) -> Stored:
        try:
            return read_stored(row, self._object)
        except _MissingError:  # erased since the row was read, perhaps
            rows = self._rows(
                f"SELECT {STORED}, v.body, v.object, ? FROM versions v WHERE v.seq = ?",
                (row[-1], row[0]),
            )
            return read_stored(rows[0], self._object)

    def _object(self, item: int) -> bytes:
        try:
            return self._object_once(item)
        except _MissingError:  # its base was erased meanwhile, and it was told anew
            return self._object_once(item)

    def _object_once(self, item: int) -> bytes:
        rows = self._rows("SELECT codec, base, data FROM objects WHERE object = ?", (item,))
        if not rows:
            raise _MissingError(f"object {item} of {self.directory} is missing; run: verify")
        codec, base, data = rows[0]
        return unpack(codec, data, None if base is None else self._object_once(base))

    def visible(self, namespace: str, key: str, seq: int, valid_at: int) -> Stored | None:
        """The put or delete of greatest seq up to `seq` whose valid interval holds `valid_at`."""
        ns = self._namespace(namespace)
        if ns is None:
            self._check_open()
            return None
        rows = self._rows(VISIBLE, {"ns": ns, "key": key, "seq": seq, "at": valid_at})
        return self._stored(rows[0]) if rows else None

    def visible_keys(
        self,
        namespace: str,
        seq: int,
        valid_at: int,
        clock: int,
        *,
        prefix: str = "",
        after: str | None = None,
        limit: int | None = None,
        bodies: bool = True,
        hidden: bool = True,
        erased: bool = False,
    ) -> list[tuple[str, Stored]]:
        """Present keys in order, from `prefix` on, with what each holds at the cut.

        Those whose version there was erased are left out unless `erased`, and those whose
        version there is hidden unless `hidden`.
        """
        ns = self._namespace(namespace)
        if ns is None:
            self._check_open()
            return []
        body = "v.body, v.object" if bodies else "NULL, NULL"
        shown = "" if hidden or not self._any_hidden(ns, seq) else f"AND NOT {HIDDEN}"
        rows = self._rows(
            f"""SELECT k.key, {STORED}, {body}, 0 FROM keys k
            CROSS JOIN versions v ON v.seq = {WINNER}
            WHERE k.ns = :ns AND k.key >= :prefix AND k.key < :end AND k.key > :after
            AND v.op = {PUT} {"" if erased else "AND v.erased IS NULL"}
            AND (v.expires_at IS NULL OR v.expires_at > :clock) {shown}
            ORDER BY k.key LIMIT :limit""",
            {
                "ns": ns, "seq": seq, "at": valid_at, "clock": clock, "prefix": prefix,
                "end": prefix + _LAST_KEY, "after": "" if after is None else after,
                "limit": -1 if limit is None else limit,
            },
        )  # fmt: skip
        return [(row[0], self._stored(row[1:])) for row in rows]

    def count_visible(self, namespace: str, seq: int, valid_at: int, clock: int) -> int:
        """How many keys are present at the cut, with a version not hidden there, nor erased."""
        ns = self._namespace(namespace)
        if ns is None:
            self._check_open()
            return 0
        shown = f"AND NOT {HIDDEN}" if self._any_hidden(ns, seq) else ""
        count: int = self._rows(
            f"""SELECT count(*) FROM keys k CROSS JOIN versions v ON v.seq = {WINNER}
            WHERE k.ns = :ns AND v.op = {PUT} AND v.erased IS NULL
            AND (v.expires_at IS NULL OR v.expires_at > :clock) {shown}""",
            {"ns": ns, "seq": seq, "at": valid_at, "clock": clock},
        )[0][0]
        return count

    def _any_hidden(self, ns: int, seq: int) -> bool:
        """Whether any version of a namespace was ever hidden, up to `seq`."""
        return bool(self._rows(ANY_HIDDEN, (ns, seq))[0][0])

    def shade(self, seq: int, until: int) -> Shade:
        """What marks up to place `until` have made of the version at `seq`."""
        return shade_of(self._rows(SHADE, (seq, until)))

    def marks_at(self, seq: int) -> list[tuple[int, bytes]]:
        """What an entry does to other versions: kind and id of each."""
        return self._rows(
            """SELECT m.kind, v.version_id FROM marks m JOIN versions v ON v.seq = m.target
            WHERE m.seq = ?""",
            (seq,),
        )

    def namespaces(self, seq: int, valid_at: int, clock: int, *, hidden: bool) -> list[str]:
        """Namespaces with a key present at the cut, in order."""
        rows = self._rows(
            f"""SELECT name FROM namespaces s WHERE EXISTS (
                SELECT 1 FROM keys k CROSS JOIN versions v ON v.seq = {WINNER}
                WHERE k.ns = s.ns AND v.op = {PUT}
                AND (v.expires_at IS NULL OR v.expires_at > :clock))
            ORDER BY name""",
            {"seq": seq, "at": valid_at, "clock": clock},
        )
        return [name for (name,) in rows if hidden or not name.startswith("$")]

    def key_versions(
        self,
        namespace: str,
        key: str,
        seq: int,
        *,
        reverse: bool,
        limit: int | None,
        annotations: bool = False,
    ) -> list[Stored]:
        """All puts and deletes of a key up to `seq`, oldest first unless `reverse`.

        With `annotations`, what was said of them as well.
        """
        ns = self._namespace(namespace)
        if ns is None:
            self._check_open()
            return []
        rows = self._rows(
            f"""SELECT {STORED}, v.body, v.object, 0 FROM versions v
            WHERE v.key_id = (SELECT key_id FROM keys WHERE ns = ? AND key = ?)
            AND v.seq <= ? {"" if annotations else f"AND v.op <= {DELETE}"}
            ORDER BY v.seq {"DESC" if reverse else "ASC"} LIMIT ?""",
            (ns, key, seq, -1 if limit is None else limit),
        )
        return [self._stored(row) for row in rows]

    def at(self, seq: int) -> Stored | None:
        rows = self._rows(
            f"SELECT {STORED}, v.body, v.object, 0 FROM versions v WHERE v.seq = ?", (seq,)
        )
        return self._stored(rows[0]) if rows else None

    def at_many(self, seqs: Sequence[int]) -> list[Stored]:
        """The entries at these places, in the order asked for; each must exist."""
        found: dict[int, Stored] = {}
        for some in chunks(seqs):
            marks = ",".join("?" * len(some))
            for row in self._rows(
                f"SELECT {STORED}, v.body, v.object, 0 FROM versions v WHERE v.seq IN ({marks})",
                tuple(some),
            ):
                found[row[0]] = self._stored(row)
        return [found[seq] for seq in seqs]

    def bodies(self, seqs: Sequence[int]) -> list[bytes | None]:
        """The values of the entries at these places, in the order asked for."""
        found: dict[int, bytes | None] = {}
        for some in chunks(seqs):
            marks = ",".join("?" * len(some))
            for seq, body, item in self._rows(
                f"SELECT seq, body, object FROM versions WHERE seq IN ({marks})", tuple(some)
            ):
                try:
                    found[seq] = body if item is None else self._object(item)
                except _MissingError:
                    entry = self.at(seq)  # erased since, perhaps
                    found[seq] = None if entry is None else entry.body
        return [found[seq] for seq in seqs]

    def scan(self, after: int, until: int, limit: int) -> list[tuple[str, str, Stored]]:
        """Entries in log order, `after` exclusive, `until` inclusive, with their key's name."""
        rows = self._rows(
            f"""SELECT s.name, k.key, {STORED}, v.body, v.object, 0 FROM versions v
            LEFT JOIN keys k ON k.key_id = v.key_id LEFT JOIN namespaces s ON s.ns = k.ns
            WHERE v.seq > ? AND v.seq <= ? ORDER BY v.seq LIMIT ?""",
            (after, until, limit),
        )
        return [(row[0], row[1], self._stored(row[2:])) for row in rows]

    def ids_like(self, prefix: str, until: int = FOREVER) -> list[tuple[int, bytes]]:
        """Up to two entries up to a place whose id starts with these hex digits (at least one)."""
        low, high = (
            int.from_bytes(bytes.fromhex(prefix[:16].ljust(16, fill)), "big", signed=True)
            for fill in "0f"
        )
        rows = self._rows(
            "SELECT seq, version_id FROM versions WHERE id8 BETWEEN ? AND ? AND seq <= ?",
            (low, high, until),
        )
        return [(seq, found) for seq, found in rows if found.hex().startswith(prefix)][:2]

    def seq_of(self, version_id: bytes) -> int | None:
        rows = self._rows(SEQ_OF, (first8(version_id), version_id))
        return rows[0][0] if rows else None

    def effects(self, version_id: bytes, seq: int) -> list[int]:
        """Places up to `seq` of the entries that may name this one as a cause, in order."""
        rows = self._rows(
            "SELECT seq FROM edges WHERE cause8 = ? AND seq <= ? ORDER BY seq",
            (first8(version_id), seq),
        )
        return [row[0] for row in rows]

    def effects_many(self, version_ids: Sequence[bytes], seq: int) -> list[int]:
        """Places up to `seq` of the entries that may name one of these as a cause, in order."""
        rows = self._rows(EFFECTS, {"ids": _numbers(map(first8, version_ids)), "seq": seq})
        return sorted({row[0] for row in rows})

    def places_of(self, version_ids: Sequence[bytes]) -> dict[bytes, int]:
        """The places of those of these entries that there are."""
        wanted = set(version_ids)
        rows = self._rows(PLACES, (_numbers(map(first8, wanted)),)) if wanted else []
        return {identity: seq for seq, identity in reversed(rows) if identity in wanted}

    def records_at(self, seqs: Sequence[int]) -> list[tuple[int, bytes, bytes]]:
        """What the entries at these places are: (place, id, record), not always in order."""
        return self._rows(RECORDS_AT, (_numbers(seqs),)) if seqs else []

    def key_places(self, namespace: str, key: str, seq: int) -> list[int]:
        """The places of all puts and deletes of a key up to `seq`, in order."""
        ns = self._namespace(namespace)
        if ns is None:
            self._check_open()
            return []
        rows = self._rows(
            f"""SELECT v.seq FROM versions v
            WHERE v.key_id = (SELECT key_id FROM keys WHERE ns = ? AND key = ?)
            AND v.seq <= ? AND v.op <= {DELETE} ORDER BY v.seq""",
            (ns, key, seq),
        )
        return [row[0] for row in rows]

    def puts(self, namespace: str, after: int, until: int) -> list[tuple[int, int]]:
        """Puts of a namespace, `after` exclusive, `until` inclusive: (place, key), in order."""
        ns = self._namespace(namespace)
        if ns is None:
            self._check_open()
            return []
        # As in `entries`: the end of the log, or only this namespace.
        source = (
            "versions v CROSS JOIN keys k ON k.key_id = v.key_id"
            if after
            else "keys k CROSS JOIN versions v ON v.key_id = k.key_id"
        )
        rows = self._rows(
            f"""SELECT v.seq, v.key_id FROM {source}
            WHERE v.seq > ? AND v.seq <= ? AND k.ns = ? AND v.op = {PUT}""",
            (after, until, ns),
        )
        rows.sort()
        return rows

    def commit_at(self, tx_time: int) -> StoredCommit | None:
        """The last commit at or before `tx_time`."""
        rows = self._rows(
            f"{COMMITS} WHERE c.tx_time <= ? ORDER BY c.tx_time DESC LIMIT 1", (tx_time,)
        )
        return StoredCommit(*rows[0]) if rows else None

    def commits(
        self, *, after: int, until: int, reverse: bool, limit: int | None
    ) -> list[StoredCommit]:
        """Commits by time, `after` exclusive, `until` inclusive."""
        rows = self._rows(
            f"{COMMITS} WHERE c.tx_time > ? AND c.tx_time <= ? "
            f"ORDER BY c.tx_time {'DESC' if reverse else 'ASC'} LIMIT ?",
            (after, until, -1 if limit is None else limit),
        )
        return [StoredCommit(*row) for row in rows]

    def commit_roots(self, start: int, stop: int) -> list[bytes]:
        """Chained roots of the commits numbered `start` to `stop`, exclusive."""
        roots: list[bytes] = []
        for block in range(start // BLOCK, (stop + BLOCK - 1) // BLOCK):
            rows = self._rows(
                """SELECT number, root FROM commits
                WHERE tx_time >= (SELECT tx_time FROM blocks WHERE block = ?)
                ORDER BY tx_time LIMIT ?""",
                (block, BLOCK),
            )
            roots += [root for number, root in rows if start <= number < stop]
        return roots

    def spaces(self, namespace: str) -> list[Space]:
        """The vector spaces of a namespace, oldest first."""
        generation, (known_at, known) = self.generation(), self._spaces
        if generation == known_at and namespace in known:
            return known[namespace]
        found = [Space(*row) for row in self._rows(SPACES, (namespace,))]
        if not generation & 1 and self.generation() == generation:
            if generation != known_at:
                known = {}
            self._spaces = (generation, {**known, namespace: found})
        return found

    def space_used(self, space: Space) -> int:
        """The place of the first entry with a vector of this space."""
        first: int | None = self._rows(
            "SELECT min(seq) FROM vectors WHERE space = ?", (space.space_id,)
        )[0][0]
        return FOREVER if first is None else first

    def entries(self, space: Space, after: int, *, key_id: int | None = None) -> list[Entry]:
        """Puts, deletes and marks of the space's namespace after a place, in log order.

        With `key_id`, those of one key only, from the first on.
        """
        recent = self._recent
        if key_id is None and recent.at == self.generation() and after >= recent.start:
            return recent.entries(space.namespace, space.space_id, after)
        vector = f"""(SELECT nullif(x.object, {GONE}) FROM vectors x
            WHERE x.space = :space AND x.seq = v.seq)"""
        return self._entries(space.namespace, after, key_id, vector, {"space": space.space_id})

    def records(self, namespace: str, after: int, *, key_id: int | None = None) -> list[Entry]:
        """As `entries`, whatever vectors they carry: each put's `vector` is its own place.

        That of a mark is the place of its target; what was erased has none.
        """
        recent = self._recent
        if key_id is None and recent.at == self.generation() and after >= recent.start:
            return recent.entries(namespace, None, after)
        vector = f"CASE WHEN v.op = {PUT} AND v.erased IS NULL THEN v.seq END"
        return self._entries(namespace, after, key_id, vector, {})

    def _entries(
        self, namespace: str, after: int, key_id: int | None, vector: str, names: dict[str, Any]
    ) -> list[Entry]:
        names |= {"ns": self._namespace(namespace)}
        target = "marks m CROSS JOIN versions v ON v.seq = m.target WHERE m.ns = :ns"
        if key_id is not None:
            source = "versions v WHERE v.key_id = :key"
            target = "versions v CROSS JOIN marks m ON m.target = v.seq WHERE v.key_id = :key"
            names |= {"key": key_id}
        elif after:  # read the end of the log, and look whose keys these are
            source = """versions v CROSS JOIN keys k ON k.key_id = v.key_id
                WHERE v.seq > :after AND k.ns = :ns"""
            target += f" AND m.kind IN ({HIDE}, {UNHIDE}, {SUPERSEDE}) AND m.seq > :after"
            names |= {"after": after}
        else:  # read only this namespace, however long the rest of the log is
            source = "keys k CROSS JOIN versions v ON v.key_id = k.key_id WHERE k.ns = :ns"
        # One statement, and so one moment.
        rows = self._rows(
            f"""{ENTRY.format(vector)} FROM {source} AND v.op <= {DELETE}
            UNION ALL {ENTRY_MARK.format(vector)} FROM {target} AND v.op = {PUT}
                AND m.kind <> {ERASE}""",
            names,
        )
        rows.sort(key=_by_place)
        return [Entry(*row) for row in rows]

    def stored(self, namespace: str) -> int:
        """How many entries there are of a namespace's keys."""
        rows = self._rows(
            """SELECT count(*) FROM keys k CROSS JOIN versions v ON v.key_id = k.key_id
            WHERE k.ns = ?""",
            (self._namespace(namespace),),
        )
        count: int = rows[0][0]
        return count

    def keys_of(self, key_ids: Sequence[int]) -> list[str]:
        """The names of keys, in the order asked for."""
        recent = self._recent.names(key_ids)
        if recent is not None:
            return recent
        found: dict[int, str] = {}
        for some in chunks(key_ids):
            marks = ",".join("?" * len(some))
            found.update(
                self._rows(f"SELECT key_id, key FROM keys WHERE key_id IN ({marks})", tuple(some))
            )
        return [found[key_id] for key_id in key_ids]

    def vectors(self, rows: Sequence[int]) -> list[bytes]:
        """The float32 bytes of vector objects, in the order asked for."""
        recent = self._recent.vectors(rows)
        if recent is not None:
            return recent
        found: dict[int, bytes] = {}
        for some in chunks(rows):
            marks = ",".join("?" * len(some))
            for item, identity, data in self._rows(
                f"SELECT object, object_id, data FROM objects WHERE object IN ({marks})",
                tuple(some),
            ):
                if distinction_id("vec", data) != identity:
                    raise CorruptionError(
                        f"vector {identity.hex()[:16]} of {self.directory} does not match its "
                        "hash; restore a backup"
                    )
                found[item] = data
        try:
            return [found[row] for row in rows]
        except KeyError as error:
            raise CorruptionError(
                f"vector object {error} of {self.directory} is missing; restore a backup"
            ) from error

    def vectors_at(self, seq: int) -> list[tuple[str, str, int, bytes, bytes]]:
        """What an entry carries: (model, metric, dimensions, vector id, float32 bytes)."""
        return self._rows(
            """SELECT p.model, p.metric, p.dimensions, o.object_id, o.data
            FROM spaces p CROSS JOIN vectors x ON x.space = p.space AND x.seq = ?
            JOIN objects o ON o.object = x.object ORDER BY p.model""",
            (seq,),
        )

    # Erasing

    def erased(self, namespace: str) -> int:
        """The place of the last entry that erased something in a namespace; 0 if none did."""
        generation, (known_at, known) = self.generation(), self._erased
        if generation == known_at and namespace in known:
            return known[namespace]
        found: int = self._rows(ERASED, (namespace,))[0][0] or 0
        if not generation & 1 and self.generation() == generation:
            if generation != known_at:
                known = {}
            self._erased = (generation, {**known, namespace: found})
        return found

    def erased_between(self, namespace: str, after: int, until: int) -> list[int]:
        """What entries after a place, up to another, erased in a namespace: the places of it."""
        rows = self._rows(ERASED_BETWEEN, (self._namespace(namespace), after, until))
        return [row[0] for row in rows]

    def lacks(self, namespace: str, seq: int, valid_at: int, clock: int) -> bool:
        """Whether some key holds at the cut and valid time what was erased."""
        ns = self._namespace(namespace)
        if ns is None:
            return False
        names = {"ns": ns, "seq": seq, "at": valid_at, "clock": clock}
        return bool(self._rows(LACKS.format(WINNER), names)[0][0])

    def candidates(self, namespace: str, time: int, *, last: int) -> list[Candidate]:
        """Puts out of use by a time, in log order, but for the `last` entries of each key."""
        ns = self._namespace(namespace)
        if ns is None:
            self._check_open()
            return []
        rows = self._rows(CANDIDATES, {"ns": ns, "time": time, "last": last})
        return [Candidate(*row) for row in rows]

    def timeline(self, key_id: int) -> list[tuple[int, int, int, int, int, int]]:
        """A key's puts and deletes: place, operation, time, validity and end of life, in order."""
        return self._rows(
            f"""SELECT v.seq, v.op, v.tx_time, coalesce(v.valid_from, v.tx_time),
            coalesce(v.valid_to, {FOREVER}), coalesce(v.expires_at, {FOREVER}) FROM versions v
            WHERE v.key_id = ? AND v.op <= {DELETE} ORDER BY v.seq""",
            (key_id,),
        )

    def scrubbing(self) -> list[str]:
        """Namespaces of which copies of what was erased may lie in files beside the log."""
        rows = self._rows("SELECT value FROM meta WHERE name = 'scrub'")
        found: list[str] = orjson.loads(rows[0][0])["namespaces"] if rows else []
        return found

    def is_scrubbed(self) -> bool:
        """Whether nothing that was erased is left anywhere that this engine knows of."""
        return not self._rows("SELECT 1 FROM meta WHERE name = 'scrub'")

    def scrubbed(self, last: dict[str, int]) -> bool:
        """Empty the write-ahead log of what was erased; False if a reader is in the way.

        Args:
            last: Of each namespace whose files were scrubbed, the last erasure then.
        """
        with self._write_lock, self._locked():
            con = self._writer_connection()
            try:
                con.execute("BEGIN IMMEDIATE")
                found = con.execute("SELECT value FROM meta WHERE name = 'scrub'").get
                con.execute("ROLLBACK")
                if found is None:
                    return True
                said = orjson.loads(found)
                late = bool(said.get("late"))
                left = [
                    name for name in said["namespaces"]
                    if last.get(name, -1) < self._last_erased(con, name)
                ]  # fmt: skip
                clean = self._checkpoint(late=late, everywhere=late)
                if clean and not left:
                    con.execute("DELETE FROM meta WHERE name = 'scrub'")
                elif said != {**said, "namespaces": left, "late": late and not clean}:
                    _amend_scrub(con, namespaces=left, late=late and not clean)
                con.execute("PRAGMA shrink_memory").fetchall()
                return clean and not left
            except apsw.BusyError:
                return False
            except apsw.Error as error:
                raise self._foreign(error) from error

    @staticmethod
    def _last_erased(con: apsw.Connection, namespace: str) -> int:
        found: int | None = con.execute(ERASED, (namespace,)).get
        return found or 0

    def give_back(self, *, at_least: int = 0) -> int:
        """Return free pages to the file system, a little at a time; the bytes returned.

        Nothing happens where there are fewer than `at_least`, or the file was made by an
        older version and not yet compacted: its free pages are used again.
        """
        given = 0
        while True:
            with self._write_lock, self._locked():
                con = self._writer_connection()
                try:
                    free = con.execute("PRAGMA freelist_count").get
                    if con.execute("PRAGMA auto_vacuum").get != _INCREMENTAL or not free:
                        break
                    if not given and free < at_least:
                        break
                    con.execute(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})").fetchall()
                    size = con.execute("PRAGMA page_size").get
                    left = con.execute("PRAGMA freelist_count").get
                except apsw.Error as error:
                    raise self._foreign(error) from error
            given += (free - left) * size
            if left >= free or not left:
                break
            self.step_aside()
        if given:
            with self._write_lock, self._locked():
                self._checkpoint()
        return given

    def _checkpoint(self, *, late: bool = False, everywhere: bool = False) -> bool:
        """Move the write-ahead log into the file, and cut both to size, if no reader minds.

        The write lock is held, so readers that were waited for once are not waited for again.
        """
        wait = min(_READERS_LEAVE_MS, _TRIED_AGAIN_MS) if late else _READERS_LEAVE_MS
        return clean.checkpoint(
            self.directory / "log.db", wait_milliseconds=wait, everywhere=everywhere
        )

    def compact(self) -> int:
        """Write the file anew without free pages or remains; the bytes it is shorter by.

        Writers wait, readers go on. Needs as much room again as the file takes.
        """
        file = self.directory / "log.db"
        with self._write_lock, self._locked():
            con = self._writer_connection()
            try:
                self._checkpoint()
                before = file.stat().st_size
                con.execute("PRAGMA auto_vacuum = INCREMENTAL").fetchall()
                con.wal_autocheckpoint(0)
                try:
                    con.execute("VACUUM")
                finally:
                    con.wal_autocheckpoint(_CHECKPOINT_PAGES)
                self._checkpoint()
            except apsw.Error as error:
                raise self._foreign(error) from error
        return before - file.stat().st_size

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
        return {**counts, **files}

    def acknowledged(self) -> tuple[int, bytes] | None:
        """The end of the log as noted outside it, or None if nothing was noted."""
        return None if self._generation is None else self._generation.acknowledged()

    def problems(self) -> Iterator[str]:
        """What is wrong with the file itself: structure, objects, their hashes."""
        for (line,) in self._rows("PRAGMA integrity_check"):
            if line != "ok":
                yield f"structure: {line}"
        last = 0
        while True:
            rows = self._rows(
                "SELECT object, id8, object_id FROM objects WHERE object > ? "
                "ORDER BY object LIMIT 500",
                (last,),
            )
            if not rows:
                break
            for item, id8, identity in rows:
                try:
                    data = self._object(item)
                except CorruptionError as error:
                    if not self._rows("SELECT 1 FROM objects WHERE object = ?", (item,)):
                        continue  # erased since
                    yield f"object {item}: {error}"
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
        file = target / "log.db"
        previous = os.umask(0o077)
        try:
            with self._reading() as con:
                copy = apsw.Connection(str(file))
                try:
                    with copy.backup("main", con, "main") as job:
                        job.step(-1)
                    copy.execute("PRAGMA journal_mode = WAL").fetchall()
                finally:
                    copy.close()
        finally:
            os.umask(previous)
        for item in (file, target):
            sync_directory(item)
        with SqliteEngine(target)._closing() as fresh:
            head = fresh.head()
            generation = fresh._generation
            if generation is not None and head.commits:
                generation.acknowledge(head.seq, head.root, head.tx_time)

    @contextmanager
    def _closing(self) -> Iterator[SqliteEngine]:
        try:
            yield self
        finally:
            self.close()

    # Forking

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
        self._known = None
        self._recent = Recent(-1, 0)
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


class _MissingError(CorruptionError):
    """An object is not there: it was erased, or the file is damaged."""


def _note_scrub(con: apsw.Connection, erased: dict[str, int]) -> bool:
    """Say, with the erasure, that copies are to be removed; whether it was late before.

    It is late until its pages have gone into the file the clean way.
    """
    found = con.execute("SELECT value FROM meta WHERE name = 'scrub'").get
    said = orjson.loads(found) if found else {"namespaces": []}
    namespaces = sorted({*erased, *said["namespaces"]})
    _amend_scrub(con, namespaces=namespaces, late=True)
    return bool(said.get("late"))


def _amend_scrub(
    con: apsw.Connection, *, late: bool, namespaces: Sequence[str] | None = None
) -> None:
    if namespaces is None:
        found = con.execute("SELECT value FROM meta WHERE name = 'scrub'").get
        namespaces = orjson.loads(found)["namespaces"]
    value = orjson.dumps({"namespaces": namespaces, "late": late}).decode()
    con.execute("INSERT OR REPLACE INTO meta VALUES('scrub', ?)", (value,))


def _numbers(numbers: Iterable[int]) -> str:
    """Integers as a JSON array, for a statement that takes any number of them."""
    return orjson.dumps(list(numbers)).decode()


def _by_place(row: tuple[Any, ...]) -> tuple[int, int]:
    """An entry before the marks it makes."""
    return row[0], row[2]


def _read_head(con: apsw.Connection) -> Head:
    row = con.execute(
        "SELECT last_seq, number + 1, tx_time, root FROM commits ORDER BY tx_time DESC LIMIT 1"
    ).get
    return Head(0, 0, 0, GENESIS) if row is None else Head(*row)


def _note_end(con: apsw.Connection, generation: Generation) -> None:
    head = _read_head(con)
    if head.commits:
        generation.acknowledge(head.seq, head.root, head.tx_time)


_open_engines: weakref.WeakSet[SqliteEngine] = weakref.WeakSet()
_held_for_fork: list[SqliteEngine] = []


def _before_fork() -> None:
    for engine in list(_open_engines):
        engine._before_fork()
        _held_for_fork.append(engine)


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
