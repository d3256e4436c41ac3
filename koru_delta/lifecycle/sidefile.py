"""Where uses are kept: a small file beside the log, shared by processes.

It is none of the log: whoever deletes it loses what was learned about uses, and no answer
changes. A damaged one is begun anew.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import apsw
import numpy as np

from koru_delta.errors import StorageError
from koru_delta.lifecycle.usage import Floats, Place, Row, Trace, faded

MOST_KEYS: Final = 200_000  # told of in the file
MOST_FOLLOWERS: Final = 8  # of one key
_MOST_PAIRS: Final = 2 * MOST_KEYS
_BUSY_MS: Final = 2_000
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS uses(
    namespace TEXT NOT NULL, key TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    got REAL NOT NULL, hit REAL NOT NULL, recalled REAL NOT NULL, used REAL NOT NULL,
    lately REAL NOT NULL, gaps REAL NOT NULL, gap_log REAL NOT NULL, hours BLOB NOT NULL,
    changed INTEGER NOT NULL, PRIMARY KEY(namespace, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS uses_by_time ON uses(last);
CREATE UNIQUE INDEX IF NOT EXISTS uses_by_change ON uses(changed);
CREATE TABLE IF NOT EXISTS followers(
    namespace TEXT NOT NULL, key TEXT NOT NULL, next TEXT NOT NULL, times REAL NOT NULL,
    last INTEGER NOT NULL, PRIMARY KEY(namespace, key, next)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS samples(
    namespace TEXT NOT NULL, key TEXT NOT NULL, made INTEGER NOT NULL, features BLOB NOT NULL,
    used INTEGER NOT NULL, PRIMARY KEY(namespace, key, made)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS moved(
    namespace TEXT NOT NULL, key TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY(namespace, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS moved_by_time ON moved(at);
CREATE TABLE IF NOT EXISTS jobs(name TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS models(name TEXT PRIMARY KEY, state BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""
_COLUMNS: Final = "first, last, got, hit, recalled, used, lately, gaps, gap_log, hours"
_FORMAT: Final = 2
_log = logging.getLogger("koru_delta")


@dataclass(frozen=True, slots=True)
class Sample:
    """What was known of a key at a moment, and later: whether it was used within the horizon."""

    place: Place
    made: int
    features: Floats
    used: bool = False


class UsageFile:
    """The side file, or the same in memory. Safe to share by threads and processes.

    It is open only while something is done, and a fork waits for that: nothing of it crosses one.
    """

    def __init__(self, path: Path | None) -> None:
        """`path` need not exist; None keeps everything in memory."""
        self._path = path
        self._begin()
        _files.add(self)

    def _begin(self) -> None:
        """Start with nothing at work, as a forked child does."""
        self._lock = threading.Lock()
        self._memory: apsw.Connection | None = None

    # Uses

    def add(
        self,
        traces: Mapping[Place, Trace],
        followers: Mapping[Place, Mapping[str, float]],
        time: int,
        *,
        horizon: int,
    ) -> None:
        """Add what was gathered, and note of whom it was foretold that they would be used."""
        with self._writing() as con:
            last = con.execute("SELECT max(changed) FROM uses").get or 0
            for changed, (place, trace) in enumerate(traces.items(), last + 1):
                row = trace.row()
                known = _rows(
                    con, f"SELECT {_COLUMNS} FROM uses WHERE namespace = ? AND key = ?", place
                )
                if known:
                    row = _read_row(known[0]).plus(row)
                con.execute(
                    "INSERT OR REPLACE INTO uses VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)",
                    (
                        *place, row.first, row.last, *row.counts, row.lately, row.gaps, row.gap_log,
                        array("f", row.hours).tobytes(), changed,
                    ),
                )  # fmt: skip
                con.execute(
                    "UPDATE samples SET used = 1 WHERE namespace = ? AND key = ? AND used = 0 "
                    "AND made < ? AND made + ? >= ?",
                    (*place, trace.last, horizon, trace.first),
                )
            for (namespace, key), next_keys in followers.items():
                for next_key, times in next_keys.items():
                    self._add_follower(con, (namespace, key, next_key), times, time)
            _keep_within(con, "uses", "namespace, key", "last", MOST_KEYS)
            _keep_within(con, "followers", "namespace, key, next", "last", _MOST_PAIRS)

    def _add_follower(
        self, con: apsw.Connection, pair: tuple[str, str, str], times: float, time: int
    ) -> None:
        known = _rows(
            con, "SELECT next, times, last FROM followers WHERE namespace = ? AND key = ?", pair[:2]
        )
        now = {name: count * faded(time - last) for name, count, last in known}
        if pair[2] not in now and len(now) >= MOST_FOLLOWERS:
            rarest = min(now, key=lambda name: (now[name], name))
            con.execute(
                "DELETE FROM followers WHERE namespace = ? AND key = ? AND next = ?",
                (*pair[:2], rarest),
            )
        total = now.get(pair[2], 0.0) + times
        con.execute("INSERT OR REPLACE INTO followers VALUES(?,?,?,?,?)", (*pair, total, time))

    def changed(self, after: int, limit: int) -> tuple[int, list[tuple[Place, Row]]]:
        """Keys whose uses were added to after a change, in order, and the last change of those.

        The changes begin at 1; fewer than were known before are those of a new file, so `after` is
        then taken for 0.
        """
        with self._reading() as con:
            last = con.execute("SELECT max(changed) FROM uses").get or 0
            rows = _rows(
                con,
                f"SELECT changed, namespace, key, {_COLUMNS} FROM uses WHERE changed > ? "
                "ORDER BY changed LIMIT ?",
                (after if after <= last else 0, limit),
            )
        found = [((row[1], row[2]), _read_row(row[3:])) for row in rows]
        return (rows[-1][0] if rows else last), found

    def followers(self, used_since: int, time: int) -> list[tuple[str, str, str, float]]:
        """What was used right after keys, of those that were used since a time.

        Namespace, key, the key used after it, and how often, faded to a time.
        """
        with self._reading() as con:
            rows = _rows(
                con,
                "SELECT f.namespace, f.key, f.next, f.times, f.last FROM uses u CROSS JOIN "
                "followers f ON f.namespace = u.namespace AND f.key = u.key WHERE u.last >= ? "
                "ORDER BY f.namespace, f.key, f.next",
                (used_since,),
            )
        return [(*row[:3], row[3] * faded(max(0, time - row[4]))) for row in rows]

    def namespaces(self) -> list[str]:
        """Whose keys were used."""
        with self._reading() as con:
            return [row[0] for row in con.execute("SELECT DISTINCT namespace FROM uses")]

    # What the model learns from

    def add_samples(self, samples: Iterable[Sample], *, most: int) -> None:
        """Keep these until it is known what became of them; the oldest make room."""
        with self._writing() as con:
            con.executemany(
                "INSERT OR REPLACE INTO samples VALUES(?,?,?,?,?)",
                [
                    (*each.place, each.made, each.features.astype("<f8").tobytes(), each.used)
                    for each in samples
                ],
            )
            _keep_within(con, "samples", "namespace, key, made", "made", most)

    def settled(self, made_by: int) -> list[Sample]:
        """Take out the samples made up to a time, in the order they were made."""
        with self._writing() as con:
            rows = _rows(
                con,
                "SELECT namespace, key, made, features, used FROM samples WHERE made <= ? "
                "ORDER BY made, namespace, key",
                (made_by,),
            )
            con.execute("DELETE FROM samples WHERE made <= ?", (made_by,))
        return [
            Sample((namespace, key), made, np.frombuffer(features, "<f8"), bool(used))
            for namespace, key, made, features, used in rows
        ]

    def model(self, name: str) -> bytes | None:
        """What was kept under that name."""
        with self._reading() as con:
            found = _rows(con, "SELECT state FROM models WHERE name = ?", (name,))
        return bytes(found[0][0]) if found else None

    def keep_model(self, name: str, state: bytes) -> None:
        """Keep this under that name."""
        with self._writing() as con:
            con.execute("INSERT OR REPLACE INTO models VALUES(?,?)", (name, state))

    # Moves and jobs

    def note_moved(self, namespace: str, keys: Iterable[str], time: int) -> None:
        """Keep when keys were last moved to another tier."""
        with self._writing() as con:
            con.executemany(
                "INSERT OR REPLACE INTO moved VALUES(?,?,?)",
                [(namespace, key, time) for key in keys],
            )

    def moved(self, since: int) -> list[tuple[str, str, int]]:
        """Keys that were moved at a time or later: namespace, key, when."""
        with self._reading() as con:
            return _rows(con, "SELECT namespace, key, at FROM moved WHERE at >= ?", (since,))

    def forget_moved(self, before: int) -> None:
        """Forget moves of before a time."""
        with self._writing() as con:
            con.execute("DELETE FROM moved WHERE at < ?", (before,))

    def claim(self, job: str, time: int, every: int) -> bool:
        """Take on a job that is due; False if it, or another process, was at it since."""
        with self._writing() as con:
            found = _rows(con, "SELECT at FROM jobs WHERE name = ?", (job,))
            # A clock that was set back makes it due.
            if found and 0 <= time - found[0][0] < every:
                return False
            con.execute("INSERT OR REPLACE INTO jobs VALUES(?,?)", (job, time))
            return True

    def note_done(self, job: str, time: int) -> None:
        """Keep that a job was done at a time."""
        with self._writing() as con:
            con.execute("INSERT OR REPLACE INTO jobs VALUES(?,?)", (job, time))

    def done(self) -> dict[str, int]:
        """When each job was last done."""
        with self._reading() as con:
            return dict(con.execute("SELECT name, at FROM jobs ORDER BY name"))

    def sizes(self) -> dict[str, int]:
        """How many rows each table has."""
        with self._reading() as con:
            return {
                table: con.execute(f"SELECT count(*) FROM {table}").get
                for table in ("uses", "followers", "samples")
            }

    def close(self) -> None:
        """Let go of what is in memory."""
        with self._lock:
            if self._memory is not None:
                self._memory.close()
                self._memory = None

    # The file

    @contextmanager
    def _writing(self) -> Iterator[apsw.Connection]:
        """One transaction: all of it or nothing.

        Raises:
            StorageError: the file cannot be written just now.
        """
        with self._open() as con:
            con.execute("BEGIN IMMEDIATE")
            try:
                yield con
            except BaseException:
                if con.in_transaction:
                    con.execute("ROLLBACK")
                raise
            con.execute("COMMIT")

    @contextmanager
    def _reading(self) -> Iterator[apsw.Connection]:
        with self._open() as con:
            yield con

    @contextmanager
    def _open(self) -> Iterator[apsw.Connection]:
        with self._lock:
            if self._path is None:
                if self._memory is None:
                    self._memory = _prepared(apsw.Connection(":memory:"))
                yield self._memory
                return
            try:
                con = self._connected(self._path)
                try:
                    yield con
                finally:
                    con.close()
            except (apsw.NotADBError, apsw.CorruptError) as error:
                _remove(self._path)
                raise StorageError(
                    f"{self._path} was damaged, and is begun anew: what it told of uses is lost"
                ) from error
            except (apsw.Error, OSError) as error:
                raise StorageError(f"cannot use {self._path}: {error}") from error

    def _connected(self, path: Path) -> apsw.Connection:
        try:
            return _connect(path)
        except (apsw.NotADBError, apsw.CorruptError) as error:
            _log.warning("%s was damaged (%s); what it told of uses is lost", path, error)
            _remove(path)
            return _connect(path)


_files: weakref.WeakSet[UsageFile] = weakref.WeakSet()
_held_for_fork: list[UsageFile] = []


def _before_fork() -> None:
    for each in list(_files):
        each._lock.acquire()
        _held_for_fork.append(each)


def _after_fork_in_parent() -> None:
    while _held_for_fork:
        _held_for_fork.pop()._lock.release()


def _after_fork_in_child() -> None:
    while _held_for_fork:
        _held_for_fork.pop()._begin()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)


def _connect(path: Path) -> apsw.Connection:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    con = apsw.Connection(str(path))
    try:
        return _prepared(con)
    except BaseException:
        con.close()
        raise


def _prepared(con: apsw.Connection) -> apsw.Connection:
    """A connection to a file that has the tables; nothing here is worth a sync."""
    con.set_busy_timeout(_BUSY_MS)
    con.execute("PRAGMA synchronous = OFF; PRAGMA secure_delete = ON; PRAGMA trusted_schema = OFF")
    found = con.execute("PRAGMA user_version").get
    if found != _FORMAT:
        con.execute("BEGIN IMMEDIATE")
        if con.execute("PRAGMA user_version").get != _FORMAT:
            for (name,) in _rows(con, "SELECT name FROM sqlite_schema WHERE type = 'table'"):
                con.execute(f'DROP TABLE "{name}"')  # of another format: gathered anew
            con.execute(_SCHEMA)
            con.execute(f"PRAGMA user_version = {_FORMAT}")
        con.execute("COMMIT")
    return con


def _rows(con: apsw.Connection, statement: str, given: Sequence[Any] = ()) -> list[Any]:
    return con.execute(statement, given).fetchall()


def _remove(path: Path) -> None:
    for name in (path.name, f"{path.name}-journal"):
        path.with_name(name).unlink(missing_ok=True)


def _keep_within(con: apsw.Connection, table: str, name: str, time: str, most: int) -> None:
    """Delete the oldest rows, some more than are too many."""
    count = _rows(con, f"SELECT count(*) FROM {table}")[0][0]
    if count > most:
        con.execute(
            f"DELETE FROM {table} WHERE ({name}) IN "
            f"(SELECT {name} FROM {table} ORDER BY {time}, {name} LIMIT ?)",
            (count - most + most // 20,),
        )


def _read_row(row: Sequence[Any]) -> Row:
    first, last, *counts, lately, gaps, gap_log, hours = row
    return Row(first, last, counts, lately, gaps, gap_log, list(array("f", hours)))
