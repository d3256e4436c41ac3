"""Turning intended writes into entries: the rules of a commit, applied under the lock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from koru_delta.causal import (
    CAUSE_KINDS,
    DELETE,
    ERASE,
    FOREVER,
    HIDE,
    LAST_TIME,
    OPERATIONS,
    PUT,
    SUPERSEDE,
    Version,
    chained_root,
    commit_header,
    commit_tree,
    moment,
    version_id,
)
from koru_delta.errors import (
    AnnotationError,
    ChangedSinceError,
    ConflictError,
    DimensionMismatchError,
    ErasedError,
    InvalidDataError,
    InvalidTimestampError,
    KeyNotFoundError,
    MetricMismatchError,
    UnknownCauseError,
    UnknownVersionError,
)
from koru_delta.log.writes import ANY, EXPECT, RETENTION, Pending, Write
from koru_delta.storage import Head, KeyHead, NewVersion, Space, Stored
from koru_delta.storage.writer import SqliteWriter
from koru_delta.values import (
    decode,
    distinction_id,
    known_bytes,
    points_nowhere,
)

_AT_TIMES: Final = ("expires_at", "valid_from", "valid_to")  # in records of what may not hold now


class Current(NamedTuple):
    """What a key holds now, as far as a write must know."""

    seq: int
    id: str
    operation: int
    expires_at: int
    distinction: str | None
    body: bytes | None
    vectors: dict[str, Any]
    erased: bool = False

    def present(self, clock: int) -> bool:
        """Whether there is a value at `clock`."""
        return self.operation == PUT and clock < self.expires_at


@dataclass(slots=True)
class _KeyState:
    """A key as this commit has left it so far."""

    previous: str | None
    clock: dict[str, int]
    put_before: bool
    current: Current | None = None
    known: bool = False  # whether `current` was looked up


@dataclass(slots=True)
class Appender:
    """Append batches to one open write; a refused batch leaves nothing behind."""

    writer: SqliteWriter
    node: str
    now: int
    # Of the batch at hand: what was looked up for all of it, by namespace and key; the
    # keys it writes more than once; and how those stand.
    _heads: dict[str, dict[str, KeyHead]] = field(default_factory=dict)
    _again: set[tuple[str, str]] = field(default_factory=set)
    _keys: dict[tuple[str, str], _KeyState] = field(default_factory=dict)
    _hidden: dict[int, bool] = field(default_factory=dict)  # what it hid or brought back
    _erased: set[int] = field(default_factory=set)  # what it erased

    def append(self, writes: Sequence[Write]) -> list[Version]:
        """Make one commit of `writes`, in order; returns their versions."""
        try:
            if len(writes) > 1:
                self._look_up(writes)
            expected = [write for write in writes if write.operation == EXPECT]
            if expected:
                self._check(expected)
                writes = [write for write in writes if write.operation != EXPECT]
            versions = self._append(writes)
        except BaseException:
            self.writer.discard()
            raise
        finally:
            for known in (self._heads, self._again, self._keys, self._hidden, self._erased):
                known.clear()
        self.writer.flush()
        return versions

    def _append(self, writes: Sequence[Write]) -> list[Version]:
        head = self.writer.head
        tx_time = max(self.now, head.tx_time + 1)
        versions: list[Version] = []
        for write in writes:
            version = self._entry(write, head.seq + len(versions) + 1, tx_time)
            if version is not None:
                versions.append(version)
        if not versions:
            return []
        last_seq = head.seq + len(versions)
        ids = [bytes.fromhex(version.id) for version in versions]
        header = commit_header(head.seq + 1, last_seq, tx_time, commit_tree(ids))
        root = chained_root(head.root, header)
        self.writer.append_commit(Head(last_seq, head.commits + 1, tx_time, root), head.seq + 1)
        return versions

    def _entry(self, write: Write, seq: int, tx_time: int) -> Version | None:
        state = self._state(write.namespace, write.key)
        if write.if_match is not ANY:
            current = self._current(write, state, tx_time)
            found = current.id if current is not None and current.present(tx_time) else None
            if found != write.if_match:
                raise ConflictError(write.namespace, write.key, write.if_match, found)
        if write.if_last is not ANY and state.previous != write.if_last:
            raise ConflictError(write.namespace, write.key, write.if_last, state.previous)
        body, distinction = write.body, None
        held: dict[str, Any] = {}
        marks: list[tuple[int, int]] = []
        target: str | None = None
        targets: list[str] = []
        if write.operation == ERASE:
            if write.every and state.previous is None:
                raise KeyNotFoundError(write.namespace, write.key)
            targets = self._erasures(write, marks)
            if not targets:
                return None
        elif write.annotates:
            place, target = self._target(write, state, tx_time)
            if self._is_hidden(place) == (write.operation == HIDE):
                if write.missing_ok:
                    return None
                raise AnnotationError(
                    target,
                    "is hidden already" if write.operation == HIDE
                    else "is not hidden, so there is nothing to bring back",
                )  # fmt: skip
            self._hidden[place] = write.operation == HIDE
            marks.append((write.operation, place))
        elif write.operation == DELETE:
            if not self._deletable(write, state, tx_time):
                if write.missing_ok:
                    return None
                raise self._nothing_to_delete(write, state)
        else:
            if body is None or write.vectors:
                body, held = self._kept_value(write, state, tx_time)
            distinction = distinction_id("json", body)
        clock = {**state.clock, self.node: state.clock.get(self.node, 0) + 1}
        record: dict[str, Any] = {
            "op": OPERATIONS[write.operation],
            "namespace": write.namespace,
            "key": write.key,
            "time": tx_time,
            "clock": clock,
        }
        if distinction is not None:
            record["distinction"] = distinction.hex()
        if target is not None:
            record["target"] = target
        if targets:
            record["targets"] = targets
        if state.previous is not None:
            record["previous"] = state.previous
        if write.parents:
            record["parents"] = self._parents(write)
        causes = self._causes(write, marks) if write.causes else []
        if causes:
            record["causes"] = causes
        for name, value in (
            ("author", write.author), ("message", write.message), ("run", write.run),
            ("valid_from", write.valid_from), ("valid_to", write.valid_to),
        ):  # fmt: skip
            if value is not None:
                record[name] = value
        _check_interval(write, tx_time)
        if write.ttl is not None:
            record["expires_at"] = min(tx_time + write.ttl, LAST_TIME)
        elif write.expires_at is not None:
            record["expires_at"] = max(tx_time + 1, write.expires_at)
        vectors: list[tuple[int, bytes, bytes | None]] = []
        if write.vectors or write.carried:
            record["vectors"] = self._vectors(write, held, vectors)
        encoded = known_bytes(record)
        identity = version_id(encoded)
        self.writer.append(
            NewVersion(
                seq, identity, write.namespace, write.key, write.operation, tx_time,
                write.valid_from, write.valid_to, record.get("expires_at"), encoded, body,
                distinction, vectors, [bytes.fromhex(ref) for _, ref in causes], marks,
            )
        )  # fmt: skip
        version = Version(seq, identity.hex(), encoded, body)
        if write.made is not None:
            write.made.version = version
        if self._again and (write.namespace, write.key) in self._again:
            self._advance(state, write, version, record, tx_time)
        return version

    def _check(self, expected: Sequence[Write]) -> None:
        oldest = last = self.writer.head.seq
        clock = max(self.now, self.writer.head.tx_time + 1)
        for write in expected:
            if write.since is not None:
                oldest = min(oldest, write.since)
            elif not self._holds(write.namespace, write.key, clock):
                raise KeyNotFoundError(write.namespace, write.key)
        for seq in range(oldest + 1, last + 1):
            facts = self.writer.facts(seq)
            for write in expected:
                since = last if write.since is None else write.since
                if (
                    facts is not None
                    and seq > since
                    and facts.namespace == write.namespace
                    and facts.key.startswith(write.key)
                ):
                    raise ChangedSinceError(facts.namespace, facts.key, since, seq)

    def _holds(self, namespace: str, key: str, clock: int) -> bool:
        heads = self._heads.get(namespace)
        head = self.writer.key_head(namespace, key) if heads is None else heads.get(key)
        if head is None:
            return False
        record = decode(head.record)
        if record["op"] == OPERATIONS[PUT] and record.keys().isdisjoint(_AT_TIMES):
            return True  # since its last entry, and whatever the time
        found = self.writer.visible(namespace, key, FOREVER, clock, body=False)
        if found is None or found.erased:
            return False
        return found.operation == PUT and clock < found.expires_at

    # The key as it stands

    def _look_up(self, writes: Sequence[Write]) -> None:
        """Ask for the keys and vectors of many writes at once: one by one takes longer."""
        keys: dict[str, set[str]] = {}
        for write in writes:
            if write.since is not None:
                continue
            named = keys.setdefault(write.namespace, set())
            if write.key in named:
                self._again.add((write.namespace, write.key))
            named.add(write.key)
        for namespace, wanted in keys.items():
            self._heads[namespace] = self.writer.key_heads(namespace, list(wanted))
        self.writer.find_objects([vector.id for write in writes for vector in write.vectors])

    def _state(self, namespace: str, key: str) -> _KeyState:
        state = self._keys.get((namespace, key))
        if state is None:
            heads = self._heads.get(namespace)
            head = self.writer.key_head(namespace, key) if heads is None else heads.get(key)
            state = _key_state(head)
            if (namespace, key) in self._again:
                self._keys[namespace, key] = state
        return state

    def _current(self, write: Write, state: _KeyState, tx_time: int) -> Current | None:
        if not state.known:
            found = self.writer.visible(write.namespace, write.key, FOREVER, tx_time)
            state.current = None if found is None else _current(found)
            state.known = True
        current = state.current
        if current is not None and current.seq in self._erased:
            return current._replace(erased=True)
        return current

    def _advance(
        self,
        state: _KeyState,
        write: Write,
        version: Version,
        record: dict[str, Any],
        tx_time: int,
    ) -> None:
        state.previous, state.clock, state.put_before = version.id, record["clock"], True
        if write.annotates:
            return
        starts = tx_time if write.valid_from is None else write.valid_from
        ends = FOREVER if write.valid_to is None else write.valid_to
        if starts <= tx_time < ends:
            expires = record.get("expires_at", FOREVER)
            state.known = True
            state.current = Current(
                version.seq, version.id, write.operation, expires, record.get("distinction"),
                version.raw, record.get("vectors", {}),
            )  # fmt: skip

    def _deletable(self, write: Write, state: _KeyState, tx_time: int) -> bool:
        if write.valid_from is not None or write.valid_to is not None:
            return state.put_before  # what it takes away may lie in the past
        current = self._current(write, state, tx_time)
        return current is not None and current.present(tx_time)

    def _nothing_to_delete(self, write: Write, state: _KeyState) -> KeyNotFoundError:
        deleted = None
        if state.current is not None and state.current.operation == DELETE:
            seq = self.writer.seq_of(bytes.fromhex(state.current.id))
            entry = (
                None
                if seq is None
                else self.writer.visible(write.namespace, write.key, seq, self.writer.head.tx_time)
            )
            deleted = None if entry is None else moment(entry.valid_from)
        return KeyNotFoundError(write.namespace, write.key, deleted)

    def _kept_value(
        self, write: Write, state: _KeyState, tx_time: int
    ) -> tuple[bytes, dict[str, Any]]:
        """The value an embed carries, and the vectors of other models that go on with it."""
        current = self._current(write, state, tx_time)
        if current is None or not current.present(tx_time):
            return write.body or write.fallback or b"null", {}
        if write.body is None:
            if current.erased:
                raise ErasedError(write.namespace, write.key, current.id)
            assert current.body is not None
            return current.body, current.vectors
        if current.erased:
            return write.body, {}
        same = distinction_id("json", write.body).hex() == current.distinction
        return write.body, (current.vectors if same else {})

    # Annotations

    def _target(self, write: Write, state: _KeyState, tx_time: int) -> tuple[int, str]:
        """The place and id of the put that a hide or unhide is about.

        Raises:
            KeyNotFoundError: none was named, and the key holds none.
            UnknownVersionError: the one named is not in the log.
            AnnotationError: it is no put of this key.
        """
        named = write.target
        if named is None:
            current = self._current(write, state, tx_time)
            if current is None or not current.present(tx_time):
                raise self._nothing_to_delete(write, state)
            return current.seq, current.id
        if isinstance(named, Pending):
            version = named.version
            if version is None:
                raise UnknownVersionError("a write that comes later in the same commit")
        else:
            seq = self.writer.seq_of(bytes.fromhex(named))
            stored = None if seq is None else self.writer.at(seq)
            if stored is None:
                raise UnknownVersionError(f"version {named}")
            version = Version(stored.seq, named, stored.record, stored.body)
        if version.operation != OPERATIONS[PUT]:
            raise AnnotationError(version.id, f"is a {version.operation}; only puts can be hidden")
        if (version.namespace, version.key) != (write.namespace, write.key):
            raise AnnotationError(
                version.id, f"belongs to {version.key!r} in {version.namespace!r}, not to "
                f"{write.key!r} in {write.namespace!r}",
            )  # fmt: skip
        return version.seq, version.id

    def _erasures(self, write: Write, marks: list[tuple[int, int]]) -> list[str]:
        """The ids of what an erase removes, in log order; their places are added to `marks`.

        Raises:
            UnknownVersionError: one is not in the log.
            AnnotationError: one is no put of this key, or is erased already.
        """
        found: list[tuple[int, str]] = []
        named_ones = write.targets
        if write.every:
            named_ones = [each.hex() for each in self.writer.kept(write.namespace, write.key)]
        for named in dict.fromkeys(named_ones):
            seq = self.writer.seq_of(bytes.fromhex(named))
            stored = None if seq is None else self.writer.facts(seq)
            if stored is None:
                raise UnknownVersionError(f"version {named}")
            swept = write.namespace == RETENTION and stored.namespace == write.key
            mine = (stored.namespace, stored.key) == (write.namespace, write.key)
            if stored.operation != PUT or not (mine or swept):
                raise AnnotationError(named, "is no put of its key; only those can be erased")
            if stored.erased or stored.seq in self._erased:
                if write.missing_ok:
                    continue
                raise AnnotationError(named, "is erased already")
            self._erased.add(stored.seq)
            found.append((stored.seq, named))
        found.sort()
        marks += [(ERASE, seq) for seq, _ in found]
        return [named for _, named in found]

    def _is_hidden(self, seq: int) -> bool:
        known = self._hidden.get(seq)
        return self.writer.shade(seq).hidden if known is None else known

    # References

    def _causes(self, write: Write, marks: list[tuple[int, int]]) -> list[list[str]]:
        """The causes as a record has them; what they supersede is added to `marks`."""
        found: list[list[str]] = []
        for kind, target in write.causes:
            if kind not in CAUSE_KINDS:
                raise InvalidDataError(
                    f"{kind!r} is no kind of cause; the kinds are {', '.join(CAUSE_KINDS)}"
                )
            if isinstance(target, Pending):
                if target.version is None:
                    raise UnknownCauseError("a write that comes later in the same commit")
                place, named = target.version.seq, target.version.id
            else:
                place, named = self._check_reference(target), target
            found.append([kind, named])
            if kind == "supersedes" and (SUPERSEDE, place) not in marks:
                marks.append((SUPERSEDE, place))
        return found

    def _parents(self, write: Write) -> list[str]:
        for parent in write.parents:
            self._check_reference(parent)
        return list(write.parents)

    def _check_reference(self, target: str) -> int:
        place = self.writer.seq_of(bytes.fromhex(target))
        if place is None:
            raise UnknownCauseError(target)
        return place

    # Vectors

    def _vectors(
        self,
        write: Write,
        held: dict[str, Any],
        rows: list[tuple[int, bytes, bytes | None]],
    ) -> dict[str, Any]:
        described: dict[str, Any] = {}
        for new in write.vectors:
            try:
                space = self._space(write.namespace, new.model, new.metric, new.dimensions)
            except DimensionMismatchError as error:
                error.key = write.key
                raise
            if space.metric == "cosine" and points_nowhere(new.data):
                nowhere = InvalidDataError(
                    "a zero vector points nowhere, which cosine needs; leave the vector out, "
                    "or begin the namespace with metric='dot' or 'l2'"
                )
                nowhere.namespace, nowhere.key = write.namespace, write.key
                raise nowhere
            described[new.model] = {
                "id": new.id.hex(), "dimensions": new.dimensions, "metric": space.metric,
            }  # fmt: skip
            rows.append((space.space_id, new.id, new.data))
        for model, old in (held if write.carried is None else write.carried).items():
            if model not in described:
                space = self._space(write.namespace, model, old["metric"], old["dimensions"])
                described[model] = old
                rows.append((space.space_id, bytes.fromhex(old["id"]), None))
        return described

    def _space(self, namespace: str, model: str, metric: str | None, dimensions: int) -> Space:
        space = self.writer.space(namespace, model)
        if space is None:
            return self.writer.add_space(namespace, model, dimensions, metric or "cosine")
        if space.dimensions != dimensions:
            raise DimensionMismatchError(namespace, space.dimensions, dimensions)
        if metric is not None and metric != space.metric:
            raise MetricMismatchError(namespace, model, space.metric, metric)
        return space


def _key_state(head: KeyHead | None) -> _KeyState:
    if head is None:
        return _KeyState(None, {}, put_before=False, known=True)
    clock: dict[str, int] = decode(head.record)["clock"]
    return _KeyState(head.version_id.hex(), clock, put_before=True)


def _current(found: Stored) -> Current:
    record = decode(found.record)
    return Current(
        found.seq, found.version_id.hex(), found.operation, found.expires_at,
        record.get("distinction"), found.body, record.get("vectors", {}), found.erased > 0,
    )  # fmt: skip


def _check_interval(write: Write, tx_time: int) -> None:
    starts = tx_time if write.valid_from is None else write.valid_from
    if write.valid_to is not None and write.valid_to <= starts:
        raise InvalidTimestampError(
            moment(write.valid_to).isoformat(),
            f"valid_to must be later than valid_from ({moment(starts).isoformat()}); "
            "the interval is half-open, [valid_from, valid_to)",
        )
