"""Where uses are kept: a small file beside the log, shared by processes.

It is none of the log: whoever deletes it loses what was learned about uses, and no answer
changes. A damaged one is begun anew.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import apsw
import numpy as np
import orjson

from koru_delta.errors import StorageError
from koru_delta.lifecycle.usage import Floats, Place, Trace, Usage, faded
from koru_delta.storage.pace import rest

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
_TOLD: Final = "first, last, got, hit, recalled, used, lately, gaps, gap_log, hex(hours)"
_FORMAT: Final = 2
_ADDED_AT_ONCE: Final = 500  # keys in one transaction
_READ_AT_ONCE: Final = 500
_USED_SINCE: Final = """SELECT u.last, u.namespace, u.key, f.next, f.times, f.last FROM
    (SELECT last, namespace, key FROM uses WHERE (last, namespace, key) > (?, ?, ?)
        ORDER BY last, namespace, key LIMIT ?) u
    LEFT JOIN followers f ON f.namespace = u.namespace AND f.key = u.key
    ORDER BY u.last, u.namespace, u.key, f.next"""
# Each of these is told a JSON array, an array for each key, and does all of it in one statement.
_OF_PLACE: Final = "{0}.namespace = j.value ->> 0 AND {0}.key = j.value ->> 1"
_FULFIL: Final = f"""UPDATE samples SET used = 1 WHERE (namespace, key, made) IN (
    SELECT s.namespace, s.key, s.made FROM json_each(?) j
    CROSS JOIN samples s ON {_OF_PLACE.format("s")}
    WHERE s.used = 0 AND s.made < j.value ->> 3 AND s.made + ? >= j.value ->> 2)"""
_KNOWN: Final = f"""SELECT json_group_array(json_array(j.key, {_TOLD}))
    FROM json_each(?) j CROSS JOIN uses u ON {_OF_PLACE.format("u")}"""
_CHANGED: Final = f"""SELECT json_group_array(json_array(changed, namespace, key, {_TOLD}))
    FROM (SELECT * FROM uses WHERE changed > ? ORDER BY changed LIMIT ?)"""
_PUT: Final = f"""INSERT OR REPLACE INTO uses
    SELECT {", ".join(f"j.value ->> {column}" for column in range(11))},
    substr(?2, 1 + 96 * j.key, 96), ?3 + j.key FROM json_each(?1) j"""  # 24 hours, 4 bytes each
_FOLLOWED: Final = f"""SELECT json_group_array(json_array(j.key, f.next, f.times, f.last))
    FROM json_each(?) j CROSS JOIN followers f ON {_OF_PLACE.format("f")}"""
_UNFOLLOW: Final = """DELETE FROM followers WHERE (namespace, key, next) IN (
    SELECT j.value ->> 0, j.value ->> 1, j.value ->> 2 FROM json_each(?) j)"""
_FOLLOW: Final = """INSERT OR REPLACE INTO followers
    SELECT j.value ->> 0, j.value ->> 1, j.value ->> 2, j.value ->> 3, ?2 FROM json_each(?1) j"""
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
        traces: dict[Place, Trace],
        followers: dict[Place, dict[str, float]],
        time: int,
        *,
        horizon: int,
    ) -> None:
        """Add what was gathered, and note of whom it was foretold that they would be used.

        Some of it in each transaction; what was added is taken out of both.
        """
        for places in _portions(traces):
            some = [traces[place] for place in places]
            with self._writing() as con:
                _add_traces(con, places, some, horizon)
            for place in places:
                del traces[place]
            rest()
        for places in _portions(followers):
            with self._writing() as con:
                _add_followers(con, places, [followers[place] for place in places], time)
            for place in places:
                del followers[place]
            rest()
        with self._writing() as con:
            _keep_within(con, "uses", "namespace, key", "last", MOST_KEYS)
            _keep_within(con, "followers", "namespace, key, next", "last", _MOST_PAIRS)

    def changed(self, after: int, limit: int) -> tuple[int, list[Place], Usage]:
        """Keys whose uses were added to after a change, and the last change of those.

        The changes begin at 1; fewer than were known before are those of a new file, so `after` is
        then taken for 0.
        """
        with self._reading() as con:
            last = con.execute("SELECT max(changed) FROM uses").get or 0
            told = con.execute(_CHANGED, (after if after <= last else 0, limit)).get
        rows: list[list[Any]] = orjson.loads(told)
        last = max((row[0] for row in rows), default=last)
        return last, [(row[1], row[2]) for row in rows], _columns([row[3:] for row in rows])

    def followers(self, used_since: int, time: int) -> list[tuple[str, str, str, float]]:
        """What was used right after keys, of those that were used since a time.

        Namespace, key, the key used after it, and how often, faded to a time; those used longest
        ago first.
        """
        found: dict[tuple[str, str, str], float] = {}
        after = (used_since, "", "")
        while True:
            with self._reading() as con:  # not for long: writers wait for who reads
                rows = _rows(con, _USED_SINCE, (*after, _READ_AT_ONCE))
            if not rows:
                return [(*pair, times) for pair, times in found.items()]
            for _, name, key, following, times, last in rows:
                if following is not None:
                    found[name, key, following] = times * faded(max(0, time - last))
            after = rows[-1][:3]
            rest()

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


def _portions(gathered: Mapping[Place, object]) -> Iterator[list[Place]]:
    """Places in order, so that rows share pages, some at a time."""
    by_name: dict[str, list[str]] = {}
    for name, key in gathered:
        by_name.setdefault(name, []).append(key)
        rest()
    for name, keys in sorted(by_name.items()):
        keys.sort()
        rest()
        for start in range(0, len(keys), _ADDED_AT_ONCE):
            yield [(name, key) for key in keys[start : start + _ADDED_AT_ONCE]]


def _add_traces(
    con: apsw.Connection, places: Sequence[Place], traces: Sequence[Trace], horizon: int
) -> None:
    """Add traces to what is known, in few statements: SQLite runs one without the interpreter."""
    usage = Usage.of(traces)
    times = zip(places, usage.first.tolist(), usage.last.tolist(), strict=True)
    told = _json([(*place, first, last) for place, first, last in times])
    con.execute(_FULFIL, (told, horizon))
    known: list[list[Any]] = orjson.loads(con.execute(_KNOWN, (told,)).get)
    if known:
        rows = np.array([row[0] for row in known])
        usage.put(rows, _columns([row[1:] for row in known]).plus(usage.rows(rows)))
    columns = [
        usage.first, usage.last, *usage.counts.T, usage.lately, usage.gaps, usage.gap_log
    ]  # fmt: skip
    rows_of = zip(places, *(each.tolist() for each in columns), strict=True)
    told = _json([(*place, *numbers) for place, *numbers in rows_of])
    last = con.execute("SELECT max(changed) FROM uses").get or 0
    con.execute(_PUT, (told, usage.hours.astype("<f4").tobytes(), last + 1))


def _add_followers(
    con: apsw.Connection,
    places: Sequence[Place],
    followers: Sequence[Mapping[str, float]],
    time: int,
) -> None:
    """Add what followed keys; where that is too much of one, the rarest makes room."""
    known: list[dict[str, float]] = [{} for _ in places]
    found: list[list[Any]] = orjson.loads(con.execute(_FOLLOWED, (_json(places),)).get)
    for number, after, times, last in found:
        known[number][after] = times * faded(time - last)
    put, gone = [], []
    for place, before, new in zip(places, known, followers, strict=True):
        now = dict(before)
        for after, times in new.items():
            if after not in now and len(now) >= MOST_FOLLOWERS:
                del now[min(now, key=lambda name: (now[name], name))]
            now[after] = now.get(after, 0.0) + times
        put += [(*place, after, now[after]) for after in new if after in now]
        gone += [(*place, after) for after in before if after not in now]
    con.execute(_UNFOLLOW, (_json(gone),))
    con.execute(_FOLLOW, (_json(put), time))


def _json(rows: Sequence[object]) -> str:
    return orjson.dumps(rows).decode()


def _keep_within(con: apsw.Connection, table: str, name: str, time: str, most: int) -> None:
    """Delete the oldest rows, some more than are too many."""
    count = _rows(con, f"SELECT count(*) FROM {table}")[0][0]
    if count > most:
        con.execute(
            f"DELETE FROM {table} WHERE ({name}) IN "
            f"(SELECT {name} FROM {table} ORDER BY {time}, {name} LIMIT ?)",
            (count - most + most // 20,),
        )


def _columns(rows: Sequence[list[Any]]) -> Usage:
    """Uses as `_TOLD` tells them."""
    hours = np.frombuffer(bytes.fromhex("".join([row.pop() for row in rows])), "<f4")
    numbers = np.array(rows, dtype=np.float64).reshape(len(rows), 9).T
    lately, gaps, gap_log = numbers[6:]
    return Usage(
        numbers[0].astype(np.int64), numbers[1].astype(np.int64), numbers[2:6].T.copy(),
        lately, gaps, gap_log, hours.reshape(-1, 24),
    )  # fmt: skip
