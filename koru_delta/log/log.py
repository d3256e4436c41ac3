"""The causal log: every write goes through here, and every question gets its moment here.

Times, versions, commits and tags become a `Cut` in `CausalLog.cut` and nowhere else.
Writes that wait for each other in one process are committed together. Values read at
the present are kept in memory for as long as no process has written.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from koru_delta.causal import (
    DELETE,
    ERASE,
    FOREVER,
    GENESIS,
    OPERATIONS,
    PUT,
    Clock,
    Commit,
    Cut,
    Erasure,
    Version,
    When,
    check_kept,
    checked_clock,
    microseconds,
    moment,
    version_id,
)
from koru_delta.errors import (
    CorruptionError,
    ErasedError,
    InvalidDataError,
    InvalidTimestampError,
    KeyNotFoundError,
    StorageError,
    UnknownVersionError,
)
from koru_delta.log.append import ANY, RETENTION, Appender, Pending, Write
from koru_delta.storage import ENGINE_FAILURES, Head, SqliteEngine, Stored, StoredCommit
from koru_delta.values import Value, canonical_bytes, decode, distinction_id

__all__ = ["ANY", "AsOf", "CausalLog", "Pending", "Write"]

AsOf = int | datetime | str | Version | Commit | Cut | None
TAGS: Final = "$tags"
QUARANTINES: Final = "$quarantines"
TEXTS: Final = "$text"  # how the words of each namespace are read
FREE_PAGES: Final = 64  # fewer are left in the file for the next writes
OWN: Final = (TAGS, QUARANTINES, TEXTS, RETENTION)  # namespaces that only KoruDelta writes
_HEX_ID = re.compile(r"[0-9a-f]{8,64}\Z")
_HOT_BYTES = 64 * 1024 * 1024
_HOT_LARGEST = _HOT_BYTES // 64
_CUTS_KEPT = 4096
_TOGETHER = 256  # most batches in one group commit


class Hot:
    """Present values as bytes, true while `cells[0] == at`.

    `values` holds objects that are quicker to copy than to decode: the object, and the
    names of its fields that are arrays or objects of scalars and need a copy of their own.
    """

    __slots__ = ("at", "cells", "raw", "size_bytes", "values")

    def __init__(self, cells: Sequence[int] | memoryview, at: int) -> None:
        self.cells = cells
        self.at = at
        self.raw: dict[str, dict[str, bytes]] = {}
        self.values: dict[str, dict[str, tuple[dict[str, Any], tuple[str, ...]]]] = {}
        self.size_bytes = 0


_MUCH_REMOVED: Final = 1024 * 1024  # bytes, from which the file is made shorter at once
_NEVER_HOT: Final = Hot((1,), 0)


class _Ticket:
    """A batch waiting for its commit."""

    __slots__ = ("done", "error", "given_back", "turn", "versions", "writes")

    def __init__(self, writes: Sequence[Write]) -> None:
        self.writes = writes
        self.versions: list[Version] = []
        self.given_back = 0
        self.error: BaseException | None = None
        self.done = False
        self.turn: threading.Lock | None = None  # held while another thread leads


class CausalLog:
    """One append-only log over one storage engine. Safe to share by threads."""

    def __init__(self, engine: SqliteEngine, clock: Clock, *, node: str = "local") -> None:
        self.engine = engine
        self.clock = clock
        self.node = node
        self.after_erase: Callable[[], object] = lambda: None  # called once it is committed
        self._cuts: dict[str, Cut] = {}
        self._horizons: tuple[int, dict[str, int]] = (0, {})  # at a generation
        self._begin()
        engine.after_fork.append(self._begin)

    def _begin(self) -> None:
        """Start with no thread at work, as a forked child does."""
        self._queue_lock = threading.Lock()
        self._waiting: deque[_Ticket] = deque()
        self._leader: _Ticket | None = None  # whose thread commits for the others
        self._hot_lock = threading.Lock()
        self.hot = _NEVER_HOT

    # Writing

    def commit(self, writes: Sequence[Write]) -> list[Version]:
        """Append `writes` as one commit, in order: all of them or none.

        Raises:
            ConflictError, KeyNotFoundError, UnknownCauseError, DimensionMismatchError,
            MetricMismatchError, InvalidDataError: one of the writes cannot be; none was made.
            DatabaseLockedError, StorageFullError, StorageError: nothing was written.
        """
        return self._committed(writes).versions if writes else []

    def erase(self, writes: Sequence[Write]) -> tuple[list[Version], int]:
        """As `commit`, for writes that erase: also how many bytes were removed."""
        done = self._committed(writes)
        return done.versions, done.given_back

    def shrink(self, removed: int) -> None:
        """Make the file shorter at once where so many removed bytes are worth it."""
        if removed > _MUCH_REMOVED:
            self.engine.give_back(at_least=FREE_PAGES)

    def _committed(self, writes: Sequence[Write]) -> _Ticket:
        ticket = _Ticket(writes)
        try:
            with self._queue_lock:
                if self._leader is None:
                    self._leader = ticket
                else:
                    ticket.turn = threading.Lock()
                    ticket.turn.acquire()
                self._waiting.append(ticket)
            if ticket.turn is not None:
                ticket.turn.acquire()  # until it is done, or next to lead
            if not ticket.done:
                self._lead()
        except BaseException:
            self._leave(ticket)  # interrupted, by Ctrl-C say
            raise
        if ticket.error is not None:
            raise ticket.error
        if any(write.operation == ERASE for write in writes):
            self.after_erase()
        return ticket

    def _lead(self) -> None:
        """Commit for all who wait, then hand the lead to whoever came meanwhile."""
        tickets: list[_Ticket] = []
        try:
            with self._queue_lock:
                while self._waiting and len(tickets) < _TOGETHER:
                    tickets.append(self._waiting.popleft())
            self._commit_together(tickets)
        finally:
            for ticket in tickets:
                ticket.done = True
                if ticket.turn is not None:
                    ticket.turn.release()
            with self._queue_lock:
                self._hand_over()

    def _leave(self, ticket: _Ticket) -> None:
        """Wait no more; who leads, or was to lead next, hands the lead on."""
        with self._queue_lock:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            if self._leader is ticket:
                self._hand_over()

    def _hand_over(self) -> None:
        self._leader = self._waiting[0] if self._waiting else None
        if self._leader is not None and self._leader.turn is not None:
            self._leader.turn.release()

    def _commit_together(self, tickets: Sequence[_Ticket]) -> None:
        kept = False

        def keep(before: int, after: int) -> None:
            nonlocal kept
            kept = True
            self._kept(tickets, before, after)

        try:
            with self.engine.writing(keep) as writer:
                appender = Appender(writer, self.node, self._now())
                for ticket in tickets:
                    before = writer.given_back
                    try:
                        ticket.versions = appender.append(ticket.writes)
                        ticket.given_back = writer.given_back - before
                    except ENGINE_FAILURES:
                        raise  # nothing of this write can be trusted
                    except Exception as error:  # noqa: BLE001 - whoever asked for it raises it
                        ticket.error = error
        except Exception as error:  # noqa: BLE001 - each who waits raises it
            for ticket in tickets:
                ticket.error = ticket.error or error
        except BaseException:  # for this thread alone; the others hear what became of theirs
            for ticket in tickets:
                if not kept and ticket.error is None:
                    ticket.error = StorageError(
                        "the thread that was to commit this write together with its own was "
                        "interrupted; look whether it is there, and write again if not"
                    )
            raise

    def _kept(self, tickets: Sequence[_Ticket], before: int, after: int) -> None:
        """Forget what these batches changed, and go on trusting the rest."""
        with self._hot_lock:
            hot = self.hot
            if hot.at != before:
                return
            for ticket in tickets:
                for write in ticket.writes:
                    if write.namespace in hot.raw:
                        hot.raw[write.namespace].pop(write.key, None)
                        hot.values[write.namespace].pop(write.key, None)
            hot.at = after

    # Moments

    def _now(self) -> int:
        return checked_clock(self.clock())

    def now(self) -> Cut:
        """The present: everything written, by a clock that never runs backwards."""
        head = self.engine.head()
        now = self._now()
        return Cut(head.seq, now if now > head.tx_time else head.tx_time)

    def cut(self, as_of: AsOf = None, *, ahead: bool = False) -> Cut:
        """Turn any way of naming a moment into a `Cut`.

        Args:
            ahead: Take a time that lies ahead too: up to then, all that is written now.

        Raises:
            InvalidTimestampError: a time that is naive, unreadable or ahead, or a
                position inside a commit or past the end.
            UnknownVersionError: a version, commit or tag this log does not hold.
        """
        if as_of is None:
            return self.now()
        if isinstance(as_of, Cut):
            return as_of
        if isinstance(as_of, Version):
            return self._cuts.get(as_of.id) or self._cut_at_id(as_of.id)
        if isinstance(as_of, Commit):
            return self._cut_at_commit(as_of)
        if isinstance(as_of, int) and not isinstance(as_of, bool):
            return self._cut_at_seq(as_of)
        if isinstance(as_of, str):
            if as_of.startswith("tag:"):
                return self._cut_at_tag(as_of[4:])
            if _HEX_ID.match(as_of):
                known = self._cuts.get(as_of)
                if known is not None:
                    return known
                identity = self.full_id(as_of, missing_ok=True)
                if identity is not None:
                    return self._cut_at_id(identity)
                if len(as_of) > 8:
                    raise UnknownVersionError(f"version {as_of}")
        if isinstance(as_of, (datetime, str)):
            return self._cut_at_time(as_of, ahead=ahead)
        raise InvalidTimestampError(
            repr(as_of),
            "not a moment; pass a datetime, ISO 8601 text, a version, a commit, "
            "a position or 'tag:name'",
        )

    def checked_cut(self, cut: Cut) -> Cut:
        """A cut that came from outside, if this log has got that far.

        Raises:
            InvalidTimestampError: it has not.
        """
        end = self.engine.head().seq
        if not 0 <= cut.seq <= end or (cut.seq and self.position(cut.clock) < cut.seq):
            raise InvalidTimestampError(
                f"position {cut.seq}", f"is not of this database, whose log goes from 0 to {end}"
            )
        return cut

    def full_id(
        self, reference: str | Version, *, missing_ok: bool = False, until: int = FOREVER
    ) -> str | None:
        """The whole id of a version given by itself, its id, or at least 8 digits of it.

        Digits are looked for among the entries up to position `until`.

        Raises:
            UnknownVersionError: there is none, or more than one.
        """
        if isinstance(reference, Version):
            return reference.id
        if not isinstance(reference, str):
            raise InvalidDataError(
                f"a version is named by itself or its id, not by {type(reference).__name__}"
            )
        found = self.engine.ids_like(reference, until) if _HEX_ID.match(reference) else []
        if len(found) == 1:
            return found[0][1].hex()
        if missing_ok and not found:
            return None
        many = "more than one version starts with " if found else "version "
        raise UnknownVersionError(f"{many}{reference}")

    def _cut_at_id(self, version_id: str) -> Cut:
        seq = self.engine.seq_of(bytes.fromhex(version_id))
        if seq is None:
            raise UnknownVersionError(f"version {version_id}")
        cut = self._cut_around(seq)
        if len(self._cuts) >= _CUTS_KEPT:
            self._cuts.clear()
        self._cuts[version_id] = cut
        return cut

    def _cut_around(self, seq: int) -> Cut:
        """The end of the commit that holds entry `seq`."""
        entry = self.engine.at(seq)
        commit = None if entry is None else self.engine.commit_at(entry.tx_time)
        if commit is None:
            raise CorruptionError(f"entry {seq} belongs to no commit; run: kdelta verify")
        return Cut(commit.last_seq, commit.tx_time)

    def _cut_at_commit(self, commit: Commit) -> Cut:
        found = self.engine.commit_at(commit.tx_time)
        if found is None or found.root.hex() != commit.root:
            raise UnknownVersionError(f"commit {commit.root[:16]}")
        return Cut(found.last_seq, found.tx_time)

    def _cut_at_seq(self, seq: int) -> Cut:
        if seq == 0:
            return Cut(0, 0)
        end = self.engine.head().seq
        if not 0 < seq <= end:
            raise InvalidTimestampError(f"position {seq}", f"the log goes from 0 to {end}")
        cut = self._cut_around(seq)
        if cut.seq != seq:
            raise InvalidTimestampError(
                f"position {seq}", f"lies inside a commit, which ends at {cut.seq}; use that"
            )
        return cut

    def _cut_at_time(self, when: When, *, ahead: bool) -> Cut:
        time = microseconds(when)
        head = self.engine.head()
        latest = max(self._now(), head.tx_time)
        if time > latest and not ahead:
            raise InvalidTimestampError(
                repr(when) if isinstance(when, str) else when.isoformat(),
                f"lies ahead of the database, which has got to {moment(latest).isoformat()}; "
                "to ask what is planned to be true then, use valid_at=",
            )
        if time >= head.tx_time:
            return Cut(head.seq, time)
        return Cut(self.position(time), time)

    def _cut_at_tag(self, name: str) -> Cut:
        found = self.engine.visible(TAGS, name, FOREVER, self.now().clock)
        if found is None or found.operation == DELETE or found.body is None:
            raise UnknownVersionError(f"tag {name!r}")
        pointed = decode(found.body)
        return Cut(int(pointed["seq"]), int(pointed["time"]))

    def position(self, time: int) -> int:
        """The last entry written at or before `time` (microseconds); 0 if none was."""
        commit = self.engine.commit_at(time)
        return 0 if commit is None else commit.last_seq

    def root_at(self, seq: int) -> bytes:
        """The chained root of the commit that ends at `seq`: what the log was up to there."""
        entry = self.engine.at(seq)
        commit = None if entry is None else self.engine.commit_at(entry.tx_time)
        return GENESIS if commit is None else commit.root

    def root_of(self, cut: Cut) -> bytes:
        """The chained root of the log at a cut, which may come from outside.

        Raises:
            InvalidTimestampError: this log has not got that far.
        """
        head = self.engine.head()
        if head.seq == cut.seq:
            return head.root
        return self.root_at(self.checked_cut(cut).seq)

    # Reading

    def present(self, namespace: str, key: str) -> bytes:
        """The canonical bytes a key holds now, kept for the next reader when they may be."""
        engine = self.engine
        generation = engine.generation()
        clock = max(self._now(), engine.last_time())
        found = engine.visible(namespace, key, FOREVER, clock)
        body = self._body(namespace, key, found, clock)
        assert found is not None
        lasting = (
            found.latest
            and found.expires_at == FOREVER
            and found.valid_to == FOREVER
            and found.valid_from <= found.tx_time
        )
        if lasting and not generation & 1:
            self._keep(namespace, key, body, generation)
        return body

    def _keep(self, namespace: str, key: str, body: bytes, generation: int) -> None:
        if len(body) > _HOT_LARGEST:
            return
        with self._hot_lock:
            cells = self.engine.cells()
            if cells is None or cells[0] != generation:
                return  # somebody wrote while we read
            hot = self.hot
            if hot.at != generation or hot.size_bytes > _HOT_BYTES or hot is _NEVER_HOT:
                hot = self.hot = Hot(cells, generation)
            kept = hot.raw.setdefault(namespace, {})
            values = hot.values.setdefault(namespace, {})
            kept[key] = body
            hot.size_bytes += len(body) + len(key) + 200
            shallow = _shallow(decode(body))
            if shallow is not None:
                values[key] = shallow
                hot.size_bytes += 2 * len(body)

    def get(self, namespace: str, key: str, cut: Cut, valid_at: int) -> bytes:
        """The canonical bytes of a key at a cut and valid time.

        Raises:
            KeyNotFoundError: absent, deleted or expired there.
            ErasedError: what it held there was erased.
            CorruptionError: the stored bytes do not match their hash.
        """
        found = self.engine.visible(namespace, key, cut.seq, valid_at)
        return self._body(namespace, key, found, cut.clock)

    def version_at(self, namespace: str, key: str, cut: Cut, valid_at: int) -> Version:
        """The version whose value `get` returns, or would if that had not been erased."""
        found = self.engine.visible(namespace, key, cut.seq, valid_at)
        self._record(namespace, key, found, cut.clock)
        assert found is not None
        return self.loaded([found])[0]

    def _body(self, namespace: str, key: str, found: Stored | None, clock: int) -> bytes:
        record = self._record(namespace, key, found, clock)
        assert found is not None
        if found.erased:
            check_kept(self.loaded([found])[0])
        return checked(found, record.get("distinction"))

    def _record(self, namespace: str, key: str, found: Stored | None, clock: int) -> dict[str, Any]:
        if found is None:
            raise KeyNotFoundError(namespace, key)
        record = checked_record(found)
        if record["key"] != key or record["namespace"] != namespace:
            raise _damaged(found.seq, f"is filed under {key!r}, and belongs elsewhere")
        if found.operation != PUT or clock >= found.expires_at:
            expired = found.operation == PUT
            raise KeyNotFoundError(
                namespace, key, moment(found.expires_at if expired else found.valid_from)
            )
        return record

    def version(self, reference: str | Version) -> Version:
        """The version of that id (or its first 8 or more digits), with its value.

        Raises:
            UnknownVersionError: this log holds none.
        """
        identity = self.full_id(reference)
        assert identity is not None
        seq = self.engine.seq_of(bytes.fromhex(identity))
        if seq is None:
            raise UnknownVersionError(f"version {identity}")
        return self.versions([seq])[0]

    def versions(self, seqs: Sequence[int]) -> list[Version]:
        """The versions at these positions, in the order asked for."""
        return self.loaded(self.engine.at_many(seqs))

    def loaded(self, entries: Sequence[Stored], keys: Sequence[str] | None = None) -> list[Version]:
        """Turn stored entries into versions, checking each against its hashes and its key."""
        found = []
        erasures = self._erasures({entry.erased for entry in entries if entry.erased})
        for entry in entries:
            record = checked_record(entry)
            identity, erasure = entry.version_id.hex(), None
            if entry.erased:
                erasure = erasures[entry.erased].get(identity)
                if erasure is None:
                    raise _damaged(
                        entry.seq, "is filed as erased, by an entry that does not say so"
                    )
            body = None if entry.body is None else checked(entry, record.get("distinction"))
            found.append(Version(entry.seq, identity, record, body, erasure))
        for version, key in zip(found, keys or (), strict=keys is not None):
            if version.key != key:
                raise _damaged(version.seq, f"is filed under {key!r}, and belongs elsewhere")
        return found

    def _erasures(self, seqs: set[int]) -> dict[int, dict[str, Erasure]]:
        """What the entries at these places erased: by id, when and why."""
        found: dict[int, dict[str, Erasure]] = {seq: {} for seq in seqs}
        for seq, identity, stored in self.engine.records_at(sorted(seqs)):
            record = identified_record(seq, identity, stored)
            why = Erasure(
                identity.hex(), moment(record["time"]), record.get("author"), record.get("message")
            )
            found[seq] = dict.fromkeys(record.get("targets", ()), why)
        return found

    def history(
        self,
        namespace: str,
        key: str,
        cut: Cut,
        *,
        reverse: bool,
        limit: int | None,
        annotations: bool = False,
    ) -> list[Version]:
        """Every put and delete of a key up to a cut, with `annotations` those as well."""
        return self.loaded(
            self.engine.key_versions(
                namespace, key, cut.seq, reverse=reverse, limit=limit, annotations=annotations
            )
        )

    def changes(self, after: Cut, until: Cut) -> Iterator[Version]:
        """Every entry in log order, `after` exclusive, `until` inclusive."""
        position = after.seq
        while position < until.seq:
            rows = self.engine.scan(position, until.seq, 1000)
            yield from self.loaded([stored for _, _, stored in rows])
            position = rows[-1][2].seq

    def commits(self, after: Cut, until: Cut, *, reverse: bool, limit: int | None) -> list[Commit]:
        """Commits in log order, `after` exclusive, `until` inclusive."""
        # By their positions: the clock of a cut may lie after commits it does not see.
        rows = self.engine.commits(
            after=self._time_of(after.seq), until=self._time_of(until.seq),
            reverse=reverse, limit=limit,
        )  # fmt: skip
        return [as_commit(row) for row in rows]

    def _time_of(self, seq: int) -> int:
        """When the entry at `seq` was written; before all others for 0."""
        entry = self.engine.at(seq) if seq else None
        return -(2**63) if entry is None else entry.tx_time

    def commit_of(self, version: Version) -> Commit:
        """The commit a version belongs to."""
        found = self.engine.commit_at(version.tx_time)
        if found is None or not found.first_seq <= version.seq <= found.last_seq:
            raise UnknownVersionError(f"version {version.id}")
        return as_commit(found)

    def head(self) -> Head:
        """The end of the log."""
        return self.engine.head()

    # What is retained

    def horizon(self, namespace: str) -> int:
        """Where what a namespace retains begins (microseconds); 0 if nothing was swept away."""
        generation, (known_at, known) = self.engine.generation(), self._horizons
        if generation != known_at:
            clock = self.now().clock
            known = {
                name: int(decode(entry.body or b"null")["horizon"] or 0)
                for name, entry in self.engine.visible_keys(RETENTION, FOREVER, clock, clock)
            }
            if not generation & 1 and self.engine.generation() == generation:
                self._horizons = (generation, known)
        return known.get(namespace, 0)

    def check_window(self, namespace: str, cut: Cut, valid_at: int) -> None:
        """Refuse a moment of which a namespace no longer knows everything.

        Raises:
            ErasedError: what was there then was swept away.
        """
        horizon = self.horizon(namespace)
        if cut.clock < horizon or (
            valid_at < min(horizon, cut.clock)
            and self.engine.lacks(namespace, cut.seq, valid_at, cut.clock)
        ):
            raise ErasedError(namespace, horizon=moment(horizon))

    # Tags

    def tag_value(self, cut: Cut) -> bytes:
        """What a tag keeps of the moment it names."""
        commit = self.engine.commit_at(cut.clock)
        root = GENESIS if commit is None else commit.root
        return canonical_bytes({"seq": cut.seq, "time": cut.clock, "root": root.hex()})

    def close(self) -> None:
        """Close the engine; later calls raise `DatabaseClosedError`."""
        self.engine.close()
        with self._hot_lock:  # only now: a reader may have been filling it
            self.hot = _NEVER_HOT


def _shallow(value: Value) -> tuple[dict[str, Any], tuple[str, ...]] | None:
    """An object with its fields that hold scalars one level down; None if it goes deeper."""
    if type(value) is not dict:
        return None
    names = []
    for name, field in value.items():
        if type(field) is list or type(field) is dict:
            inner = field.values() if isinstance(field, dict) else field
            if any(type(item) is list or type(item) is dict for item in inner):
                return None
            names.append(name)
    return value, tuple(names)


def identified_record(seq: int, identity: bytes, stored: bytes) -> dict[str, Any]:
    """The record of the entry at `seq`, once it matches its id.

    Raises:
        CorruptionError: it does not.
    """
    if version_id(stored) != identity:
        raise _damaged(seq, "does not match its id")
    record: dict[str, Any] = decode(stored)
    return record


def checked_record(entry: Stored) -> dict[str, Any]:
    """The record of an entry, once it matches its id and the facts it is filed under.

    Raises:
        CorruptionError: it does not.
    """
    record = identified_record(entry.seq, entry.version_id, entry.record)
    time = record["time"]
    if (
        entry.tx_time != time
        or entry.operation != OPERATIONS.index(record["op"])
        or entry.valid_from != record.get("valid_from", time)
        or entry.valid_to != record.get("valid_to", FOREVER)
        or entry.expires_at != record.get("expires_at", FOREVER)
    ):
        raise _damaged(entry.seq, "is filed under other facts than its record states")
    return record


def checked(entry: Stored, distinction: str | None) -> bytes:
    """The body of a put, once it matches the hash its record names.

    Raises:
        CorruptionError: it does not.
    """
    body = entry.body
    if body is None or distinction_id("json", body).hex() != distinction:
        raise _damaged(entry.seq, "holds a value that does not match its hash")
    return body


def _damaged(seq: int, problem: str) -> CorruptionError:
    return CorruptionError(
        f"entry {seq} {problem}; restore a backup, and run kdelta verify to see what else is "
        "damaged"
    )


def as_commit(row: StoredCommit) -> Commit:
    """A commit with what its first version says of it."""
    try:
        record: dict[str, Value] = decode(row.record)
    except ValueError as error:
        raise _damaged(row.first_seq, "does not match its id") from error
    return Commit(
        row.number, row.first_seq, row.last_seq, row.tx_time, row.root.hex(),
        record.get("author"), record.get("message"), record.get("run"),
    )  # fmt: skip
