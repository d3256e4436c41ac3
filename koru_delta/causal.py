"""What the log is made of, and the rules of its two clocks. No I/O here.

A `Version` is one entry of the log, a `Commit` an atomic run of them, a `Cut` a moment
as the log sees it. Everything here can be recomputed from the canonical record alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, get_args

from koru_delta.errors import ErasedError, InvalidDataError, InvalidTimestampError
from koru_delta.merkle import consistent, root_from_inclusion, tree_hash
from koru_delta.values import (
    DistinctionId,
    Value,
    canonical_bytes,
    decode,
    distinction_id,
    known_bytes,
    synthesis,
)

Clock = Callable[[], int]  # integer microseconds since 1970, UTC
CauseKind = Literal["caused_by", "derived_from", "supersedes", "references", "same_run"]
Metric = Literal["cosine", "dot", "l2"]
When = datetime | str  # an aware datetime, or ISO 8601 with a zone

CAUSE_KINDS: Final[tuple[str, ...]] = get_args(CauseKind)
METRICS: Final[tuple[str, ...]] = get_args(Metric)
PUT, DELETE = 0, 1  # operations that move a key; larger numbers annotate a version
HIDE, UNHIDE, ERASE = 2, 3, 4
OPERATIONS: Final = ("put", "delete", "hide", "unhide", "erase")
SUPERSEDE: Final = 100  # no operation: what a cause of kind `supersedes` does to its target
FOREVER: Final = 2**63 - 1  # a seq or time after all others
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_TIME: Final = -62_135_596_800_000_000  # the year 1
LAST_TIME: Final = 253_402_300_799_999_999  # the end of the year 9999
GENESIS: Final = distinction_id("genesis", b"")
_MICROSECOND: Final = timedelta(microseconds=1)


def system_clock() -> int:
    """Microseconds since 1970, UTC, by the clock of this machine."""
    return time.time_ns() // 1000


def moment(microseconds: int) -> datetime:
    """Turn the log's microseconds into an aware datetime (UTC)."""
    return EPOCH + timedelta(microseconds=microseconds)


def microseconds(when: When) -> int:
    """Turn an aware datetime or ISO 8601 string into the log's microseconds.

    Raises:
        InvalidTimestampError: not a time, or without a time zone.

    >>> microseconds("1970-01-01T00:00:01+00:00")
    1000000
    """
    if isinstance(when, str):
        try:
            parsed = datetime.fromisoformat(when)
        except ValueError as error:
            raise InvalidTimestampError(
                repr(when), "not a time; write it as in 2026-02-01T12:00:00Z"
            ) from error
    elif isinstance(when, datetime):
        parsed = when
    else:
        raise InvalidTimestampError(repr(when), "not a time; pass a datetime or ISO 8601 text")
    if parsed.tzinfo is None or parsed.utcoffset() is None:
        written = "write it as in 2026-02-01T12:00:00Z"
        given = "give it one, such as tzinfo=datetime.UTC"
        raise InvalidTimestampError(
            repr(when), f"has no time zone; {written if isinstance(when, str) else given}"
        )
    return _in_range(repr(when), (parsed - EPOCH) // _MICROSECOND)


def checked_clock(now: object) -> int:
    """What a clock returned, if it is a time.

    Raises:
        InvalidTimestampError: not whole microseconds since 1970, or beyond the year 9999.
    """
    if type(now) is not int or now < 0:
        raise InvalidTimestampError(
            f"clock() returned {now!r}", "a clock returns whole microseconds since 1970, an int"
        )
    return now if now <= LAST_TIME else _in_range(f"clock() returned {now}", now)


def _in_range(given: str, time: int) -> int:
    if not FIRST_TIME <= time <= LAST_TIME:
        raise InvalidTimestampError(given, "lies outside the years 1 to 9999, in UTC")
    return time


class Cut(NamedTuple):
    """A moment of the log: entries up to `seq`, with the clock standing at `clock`."""

    seq: int
    clock: int


class Cause(NamedTuple):
    """A typed reference from one version to an earlier one."""

    kind: str
    id: str


class Erasure(NamedTuple):
    """Why a version has no value any more: the entry that erased it."""

    id: str
    time: datetime
    author: str | None
    message: str | None


class Version:
    """One immutable entry of the log, named by the BLAKE3 hash of its whole record.

    Two versions are equal when their ids are. `value` is decoded anew at each access.
    """

    __slots__ = ("_body", "_stored", "erasure", "id", "seq")

    def __init__(
        self,
        seq: int,
        version_id: str,
        record: dict[str, Any] | bytes,
        body: bytes | None,
        erasure: Erasure | None = None,
    ) -> None:
        """Make a version of its record, decoded or still as canonical bytes."""
        self.seq = seq
        self.id = version_id
        self._stored = record
        self._body = body
        self.erasure = erasure

    @property
    def _record(self) -> dict[str, Any]:
        stored = self._stored
        if isinstance(stored, bytes):
            stored = self._stored = decode(stored)
        return stored

    @property
    def operation(self) -> str:
        """`"put"` or `"delete"`, which move the key; `"hide"`, `"unhide"` or `"erase"`."""
        return str(self._record["op"])

    @property
    def is_annotation(self) -> bool:
        """Whether this says something of other versions (`targets`), and moves no key."""
        return "target" in self._record or "targets" in self._record

    @property
    def target(self) -> str | None:
        """The id of the version that a hide or unhide is about; None for puts and deletes."""
        return self._record.get("target")

    @property
    def targets(self) -> tuple[str, ...]:
        """The ids of the versions that a hide, unhide or erase is about."""
        one = self.target
        return tuple(self._record.get("targets", ())) if one is None else (one,)

    @property
    def is_erased(self) -> bool:
        """Whether its value and vectors were erased; `erasure` tells when and why."""
        return self.erasure is not None

    @property
    def is_tombstone(self) -> bool:
        """Whether this version deletes its key."""
        return bool(self._record["op"] == "delete")

    @property
    def namespace(self) -> str:
        """The namespace of the key."""
        return str(self._record["namespace"])

    @property
    def key(self) -> str:
        """The key this version belongs to."""
        return str(self._record["key"])

    @property
    def value(self) -> Value:
        """The JSON value, a fresh copy; None for a tombstone or annotation.

        Raises:
            ErasedError: it was erased.
        """
        raw = self.raw
        return None if raw is None else decode(raw)

    @property
    def raw(self) -> bytes | None:
        """The canonical bytes of the value; None for a tombstone or annotation.

        Raises:
            ErasedError: it was erased.
        """
        check_kept(self)
        return self._body

    @property
    def distinction(self) -> str | None:
        """The id of the value in hex: equal values have equal distinctions."""
        return self._record.get("distinction")

    @property
    def time(self) -> datetime:
        """When it was written (transaction time, UTC)."""
        return moment(self._record["time"])

    @property
    def tx_time(self) -> int:
        """When it was written, in microseconds since 1970."""
        return int(self._record["time"])

    @property
    def valid_from(self) -> datetime:
        """When it begins to be true, inclusive."""
        return moment(self._record.get("valid_from", self._record["time"]))

    @property
    def valid_to(self) -> datetime | None:
        """When it stops being true, exclusive; None is never."""
        until = self._record.get("valid_to")
        return None if until is None else moment(until)

    @property
    def expires_at(self) -> datetime | None:
        """From when on it counts as absent; None is never."""
        until = self._record.get("expires_at")
        return None if until is None else moment(until)

    @property
    def previous(self) -> str | None:
        """The id of the version of this key that came before."""
        return self._record.get("previous")

    @property
    def parents(self) -> tuple[str, ...]:
        """Ids of the versions this one grew from: `previous`, or several after a merge."""
        merged = self._record.get("parents")
        if merged:
            return tuple(merged)
        return () if self.previous is None else (self.previous,)

    @property
    def causes(self) -> tuple[Cause, ...]:
        """Typed references to earlier versions, in the order they were given."""
        return tuple(Cause(kind, ref) for kind, ref in self._record.get("causes", ()))

    @property
    def vectors(self) -> Mapping[str, Mapping[str, Any]]:
        """Per model: `{"id": hex, "dimensions": int, "metric": str}`."""
        return {name: dict(vector) for name, vector in self._record.get("vectors", {}).items()}

    @property
    def author(self) -> str | None:
        """Who wrote it."""
        return self._record.get("author")

    @property
    def message(self) -> str | None:
        """Why, in the writer's words."""
        return self._record.get("message")

    @property
    def run(self) -> str | None:
        """The run it was written in."""
        return self._record.get("run")

    @property
    def clock(self) -> Mapping[str, int]:
        """The vector clock: how many entries of this key each node had written."""
        return dict(self._record["clock"])

    def record(self) -> dict[str, Any]:
        """The record the id is the hash of, as a fresh dict."""
        fresh: dict[str, Any] = decode(canonical_bytes(self._record))
        return fresh

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return (
            f"<Version {self.id[:12]} {self.operation} {self.namespace!r}/{self.key!r} "
            f"seq={self.seq} {self.time.isoformat()}>"
        )


def check_kept(version: Version) -> None:
    """Make sure that the value of a version is still there to be read.

    Raises:
        ErasedError: it was erased.
    """
    gone = version.erasure
    if gone is not None:
        raise ErasedError(version.namespace, version.key, version.id, gone.time, gone.message)


@dataclass(frozen=True, slots=True)
class Commit:
    """An atomic run of versions, one link of the chained log.

    `number` counts commits from 0 and is the leaf index in the Merkle log; `author`,
    `message` and `run` are those of the first version.
    """

    number: int
    first_seq: int
    seq: int
    tx_time: int
    root: str
    author: str | None = None
    message: str | None = None
    run: str | None = None

    @property
    def time(self) -> datetime:
        """When it was written (UTC)."""
        return moment(self.tx_time)

    @property
    def size(self) -> int:
        """How many versions it holds."""
        return self.seq - self.first_seq + 1


@dataclass(frozen=True, slots=True)
class TreeHead:
    """The Merkle root over the first `size` commits, in hex."""

    size: int
    root: str


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """Evidence that a version is in the log: its record, its commit, and two paths.

    `commit_path` leads from the version to the tree of its commit, `log_path` from the
    commit's chained root to the tree head of `tree_size` commits. All hashes in hex.
    """

    record: Mapping[str, Any]
    index: int
    commit: Mapping[str, int]
    commit_path: tuple[str, ...]
    previous_root: str
    number: int
    tree_size: int
    log_path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """Evidence that the log of `old_size` commits is a prefix of that of `new_size`."""

    old_size: int
    new_size: int
    path: tuple[str, ...]


def interval_of(version: Version) -> tuple[int, int]:
    """When a version is true: microseconds, half-open; `FOREVER` where it has no end."""
    ends = version.valid_to
    return microseconds(version.valid_from), FOREVER if ends is None else microseconds(ends)


def without(interval: tuple[int, int], other: tuple[int, int]) -> list[tuple[int, int]]:
    """What is left of a half-open interval outside of another, in order.

    >>> without((0, 10), (4, 6))
    [(0, 4), (6, 10)]
    """
    (start, stop), (low, high) = interval, other
    parts = ((start, min(stop, low)), (max(start, high), stop))
    return [part for part in parts if part[0] < part[1]] if low < high else [interval]


class Covers(NamedTuple):
    """What decides when an entry answers: its place in the log and its two clocks."""

    seq: int
    tx_time: int
    valid_from: int
    valid_to: int
    expires_at: int


def marks_of(record: Mapping[str, Any]) -> set[tuple[int, str]]:
    """What a version does to others: HIDE, UNHIDE, ERASE or SUPERSEDE, and the target's id."""
    found = {(SUPERSEDE, ref) for kind, ref in record.get("causes", ()) if kind == "supersedes"}
    if "target" in record:
        found.add((OPERATIONS.index(record["op"]), record["target"]))
    found.update((ERASE, ref) for ref in record.get("targets", ()))
    return found


def version_id(record: bytes) -> DistinctionId:
    """Name a version by its canonical record."""
    return distinction_id("version", record)


def commit_header(first_seq: int, last_seq: int, tx_time: int, tree: bytes) -> bytes:
    """The canonical bytes of a commit; `tree` is the Merkle root of its version ids."""
    return known_bytes({"first": first_seq, "last": last_seq, "time": tx_time, "tree": tree.hex()})


def chained_root(previous: bytes, header: bytes) -> DistinctionId:
    """Chain a commit to all that came before it."""
    return synthesis(previous, distinction_id("commit", header))


def verify_inclusion(proof: InclusionProof, head: TreeHead) -> bool:
    """Whether `proof` shows that its record is in the log that `head` stands for.

    Needs nothing but its arguments: an auditor who kept a tree head can run it anywhere.
    """
    try:
        identity = version_id(canonical_bytes(dict(proof.record)))
        first, last, when = (int(proof.commit[name]) for name in ("first", "last", "time"))
        siblings = [bytes.fromhex(sibling) for sibling in proof.commit_path]
        tree = root_from_inclusion(proof.index, last - first + 1, identity, siblings)
        if tree is None or proof.tree_size != head.size:
            return False
        header = commit_header(first, last, when, tree)
        root = chained_root(bytes.fromhex(proof.previous_root), header)
        siblings = [bytes.fromhex(sibling) for sibling in proof.log_path]
        found = root_from_inclusion(proof.number, proof.tree_size, root, siblings)
    except (InvalidDataError, KeyError, ValueError):
        return False  # a malformed proof proves nothing
    return found == bytes.fromhex(head.root)


def verify_consistency(proof: ConsistencyProof, old: TreeHead, new: TreeHead) -> bool:
    """Whether `proof` shows that the log of `new` begins with the log of `old`."""
    if (proof.old_size, proof.new_size) != (old.size, new.size):
        return False
    try:
        path = [bytes.fromhex(item) for item in proof.path]
        roots = bytes.fromhex(old.root), bytes.fromhex(new.root)
    except ValueError:
        return False
    return consistent(old.size, new.size, *roots, path)


def commit_tree(ids: Sequence[bytes]) -> bytes:
    """The Merkle root over the version ids of one commit."""
    return tree_hash(ids)
