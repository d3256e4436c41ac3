"""The causal log: every write goes through here, and every question gets its moment here.

How that is named is the business of `moments`. Writes that wait for each other in one process
are committed together. Values read at the present are kept in memory for as long as no
process has written.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from koru_delta.causal import (
    ERASE,
    FOREVER,
    PUT,
    Clock,
    Commit,
    Cut,
    Erasure,
    Version,
    check_kept,
    moment,
)
from koru_delta.errors import (
    DatabaseLockedError,
    ErasedError,
    KeyNotFoundError,
    StorageError,
    UnknownVersionError,
)
from koru_delta.log.append import Appender
from koru_delta.log.lately import MOST_AT_ONCE, Lately
from koru_delta.log.moments import TAGS, Moments
from koru_delta.log.records import as_commit, checked, checked_record, damaged, identified_record
from koru_delta.log.writes import EXPECT, RETENTION, Write
from koru_delta.storage import ENGINE_FAILURES, Head, SqliteEngine, Stored
from koru_delta.values import Value, decode

QUARANTINES: Final = "$quarantines"
TEXTS: Final = "$text"  # how the words of each namespace are read
WORKSPACES: Final = "$workspaces"  # embedder, quota, retention and patterns of each
LIFECYCLE: Final = "$lifecycle"  # budgets, pins and what becomes of idle keys
# Namespaces that only KoruDelta writes.
OWN: Final = (TAGS, QUARANTINES, TEXTS, RETENTION, WORKSPACES, LIFECYCLE)
_FREE_PAGES: Final = 64  # fewer are left in the file for the next writes
_MUCH_REMOVED: Final = 1024 * 1024  # bytes, from which the file is made shorter at once
_HOT_BYTES = 64 * 1024 * 1024
_HOT_LARGEST = _HOT_BYTES // 64
_TOGETHER = 256  # most batches in one group commit
_logger = logging.getLogger("koru_delta")


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


class CausalLog(Moments):
    """One append-only log over one storage engine. Safe to share by threads."""

    def __init__(self, engine: SqliteEngine, clock: Clock, *, node: str = "local") -> None:
        super().__init__(engine, clock)
        self.node = node
        self.after_commit: Callable[[Sequence[Write]], object] = lambda _writes: None
        self.after_erase: Callable[[], object] = lambda: None  # called once it is committed
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
        self._lately = Lately(self.engine.erased)

    # Writing

    def commit(self, writes: Sequence[Write]) -> list[Version]:
        """Append `writes` as one commit, in order: all of them or none.

        Raises:
            ConflictError, KeyNotFoundError, UnknownCauseError, DimensionMismatchError,
            MetricMismatchError, InvalidDataError: one of the writes cannot be; none was made.
            DatabaseLockedError, StorageFullError, StorageError: nothing was written.
        """
        if not writes:
            return []
        versions = self._committed(writes).versions
        self.after_commit(writes)
        return versions

    def erase(self, writes: Sequence[Write]) -> tuple[list[Version], int]:
        """As `commit`, for writes that erase: also how many bytes were removed."""
        done = self._committed(writes)
        return done.versions, done.given_back

    def shrink(self, removed: int) -> None:
        """Make the file shorter at once where so many removed bytes are worth it."""
        if removed > _MUCH_REMOVED:
            self.give_back()

    def give_back(self) -> int:
        """Return room to the file system, if it lets us: what freed it has been done."""
        try:
            return self.engine.give_back(at_least=_FREE_PAGES)
        except (StorageError, DatabaseLockedError) as error:
            _logger.warning("free room of the log was not returned: %s", error)
            return 0

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
            self._lately.clear()
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
                    if write.namespace in hot.raw and write.operation != EXPECT:
                        hot.raw[write.namespace].pop(write.key, None)
                        hot.values[write.namespace].pop(write.key, None)
            hot.at = after

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

    def cool(self, namespace: str, keys: Iterable[str]) -> None:
        """Keep what these keys hold in memory no longer; a read keeps it again."""
        self._lately.clear()
        with self._hot_lock:
            raw, values = self.hot.raw.get(namespace, {}), self.hot.values.get(namespace, {})
            for key in keys:
                raw.pop(key, None)
                values.pop(key, None)

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
            raise damaged(found.seq, f"is filed under {key!r}, and belongs elsewhere")
        if found.operation != PUT or clock >= found.expires_at:
            expired = found.operation == PUT
            raise KeyNotFoundError(
                namespace, key, moment(found.expires_at if expired else found.valid_from)
            )
        return record

    def version(self, reference: str | Version, *, until: int = FOREVER) -> Version:
        """The version of that id (or its first 8 or more digits), with its value.

        Raises:
            UnknownVersionError: this log holds none up to position `until`.
        """
        identity = self.full_id(reference, until=until)
        assert identity is not None
        seq = self.engine.seq_of(bytes.fromhex(identity))
        if seq is None or seq > until:
            raise UnknownVersionError(f"version {identity}")
        return self.versions([seq])[0]

    def versions(self, seqs: Sequence[int]) -> list[Version]:
        """The versions at these positions, in the order asked for."""
        if len(seqs) > MOST_AT_ONCE:
            return self.loaded(self.engine.at_many(seqs))
        known = self._lately.find(seqs)
        missing = [seq for seq, version in zip(seqs, known, strict=True) if version is None]
        if missing:
            generation = self.engine.generation()
            entries = self.engine.at_many(missing)
            loaded = self.loaded(entries)
            erased = {name: self.engine.erased(name) for name in {v.namespace for v in loaded}}
            if not generation & 1 and self.engine.generation() == generation:
                self._lately.keep(loaded, entries, erased)
            if len(missing) == len(seqs):
                return loaded
            fresh = iter(loaded)
            return [next(fresh) if version is None else version for version in known]
        return [version for version in known if version is not None]

    @property
    def kept_bytes(self) -> int:
        """Bytes of values in memory, of what was read lately."""
        return self.hot.size_bytes + self._lately.size_bytes

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
                    raise damaged(entry.seq, "is filed as erased, by an entry that does not say so")
            body = None if entry.body is None else checked(entry, record.get("distinction"))
            found.append(Version(entry.seq, identity, record, body, erasure))
        for version, key in zip(found, keys or (), strict=keys is not None):
            if version.key != key:
                raise damaged(version.seq, f"is filed under {key!r}, and belongs elsewhere")
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
        if horizon and (  # else a moment before 1970 is as any other
            cut.clock < horizon
            or (
                valid_at < min(horizon, cut.clock)
                and self.engine.lacks(namespace, cut.seq, valid_at, cut.clock)
            )
        ):
            raise ErasedError(namespace, horizon=moment(horizon))

    def close(self) -> None:
        """Close the engine; later calls raise `DatabaseClosedError`."""
        self.engine.close()
        with self._hot_lock:  # only now: a reader may have been filling it
            self.hot = _NEVER_HOT
        self._lately.clear()


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
