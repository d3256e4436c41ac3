"""Checking the log against its own hashes, and proving parts of it to others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from koru_delta.causal import (
    FOREVER,
    GENESIS,
    OPERATIONS,
    PUT,
    ConsistencyProof,
    InclusionProof,
    TreeHead,
    Version,
    chained_root,
    commit_header,
    commit_tree,
    marks_of,
    version_id,
)
from koru_delta.errors import CorruptionError, QueryError
from koru_delta.log.log import CausalLog
from koru_delta.merkle import consistency_path, inclusion_path, subtree, tree_hash
from koru_delta.storage import Stored, StoredCommit
from koru_delta.values import canonical_bytes, decode, distinction_id

_BATCH = 1000


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a check of every byte found. `ok` when there are no `problems`.

    `compared` tells whether the end of the log could be held against the note kept
    outside it; without that note a log cut short at a commit looks whole. `erased` are the
    versions whose values are gone because an entry says so: no problem, but nothing that
    could be checked either.
    """

    versions: int
    commits: int
    compared: bool
    problems: tuple[str, ...] = field(default=())
    erased: int = 0

    @property
    def ok(self) -> bool:
        """Whether everything matched."""
        return not self.problems


class Audit:
    """One pass over a log up to the moment it was made."""

    def __init__(self, log: CausalLog, tell: Callable[[int, int], None] | None = None) -> None:
        """`tell` is called with `(done, total)` entries."""
        self._tell = tell
        self._log = log
        self._engine = log.engine
        self._noted = log.engine.acknowledged()  # before the end is asked for: others may write
        self._until = log.head().seq
        self._versions = 0
        self._commits = 0
        self._rows = {"vectors": 0, "edges": 0, "marks": 0}
        self._last: dict[tuple[str, str], str] = {}
        self._lacking: dict[str, tuple[int, int]] = {}  # erased: its place, and that of the erase
        self._erasing: dict[str, int] = {}  # of each target the place of what erases it
        self._root: bytes = GENESIS
        self._seq = 0
        self._time = -(2**63)

    def run(self) -> VerifyReport:
        """Check every entry, commit, object and index row."""
        problems = [
            *self._engine.problems(), *self._entries(), *self._erasures(), *self._readings()
        ]  # fmt: skip
        noted = self._noted
        if noted is not None and noted[0] > self._until:
            problems.append(f"the log ends at {self._until}, {noted[0]} was acknowledged")
        return VerifyReport(
            self._versions,
            self._commits,
            noted is not None,
            tuple(dict.fromkeys(problems)),
            len(self._lacking),
        )

    def _entries(self) -> Iterator[str]:
        after = -(2**63)
        while self._seq < self._until:
            commits = self._engine.commits(after=after, until=FOREVER, reverse=False, limit=_BATCH)
            if not commits:
                yield f"entries after {self._seq} belong to no commit"
                return
            for commit in commits:
                if self._seq >= self._until:
                    return
                yield from self._commit(commit)
            after = commits[-1].tx_time

    def _commit(self, commit: StoredCommit) -> Iterator[str]:
        name = f"commit {commit.number}"
        if commit.number != self._commits or commit.first_seq != self._seq + 1:
            yield f"{name} does not follow the one before it"
        ids: list[bytes] = []
        position = commit.first_seq - 1
        while position < commit.last_seq:
            rows, lost = self._scanned(position, commit.last_seq)
            if not rows:
                yield f"{name} lacks entries after {position}"
                break
            yield from lost.values()
            for namespace, key, stored in rows:
                ids.append(version_id(stored.record))
                yield from self._entry(namespace, key, stored, commit, lost=stored.seq in lost)
            position = rows[-1][2].seq
            if self._tell is not None:
                self._tell(position, self._until)
        header = commit_header(commit.first_seq, commit.last_seq, commit.tx_time, commit_tree(ids))
        if chained_root(self._root, header) != commit.root:
            yield f"{name} does not match its root"
        if commit.tx_time <= self._time:
            yield f"{name} is not later than the one before it"
        self._root, self._time, self._seq = commit.root, commit.tx_time, commit.last_seq
        self._commits += 1

    def _scanned(
        self, after: int, until: int
    ) -> tuple[list[tuple[str, str, Stored]], dict[int, str]]:
        """The next entries, and of those whose values cannot be read why, by their places."""
        try:
            return self._engine.scan(after, until, _BATCH), {}
        except CorruptionError:
            rows = self._engine.scan(after, until, _BATCH, bodies=False)
        found, lost = [], {}
        for namespace, key, stored in rows:
            try:
                [body] = self._engine.bodies([stored.seq])
            except CorruptionError as error:
                body, lost[stored.seq] = None, str(error)
            found.append((namespace, key, stored._replace(body=body)))
        return found, lost

    def _entry(
        self, namespace: str, key: str, stored: Stored, commit: StoredCommit, *, lost: bool
    ) -> Iterator[str]:
        self._versions += 1
        name = f"entry {stored.seq}"
        record: dict[str, Any] = {}
        try:
            record = decode(stored.record)
            same = canonical_bytes(record) == stored.record
        except ValueError:
            same = False
        if not same or version_id(stored.record) != stored.version_id:
            yield f"{name} does not match its id {stored.version_id.hex()[:16]}"
            return
        if record["time"] != commit.tx_time:
            yield f"{name} lies in a commit of another time"
        time = record["time"]
        kept = (namespace, key, stored.operation, stored.tx_time, stored.valid_from,
                stored.valid_to, stored.expires_at)  # fmt: skip
        said = (record["namespace"], record["key"], OPERATIONS.index(record["op"]), time,
                record.get("valid_from", time), record.get("valid_to", FOREVER),
                record.get("expires_at", FOREVER))  # fmt: skip
        if kept != said:
            yield f"{name} is filed under other facts than its record states"
        if record.get("previous") != self._last.get((namespace, key)):
            yield f"{name} does not follow the version of its key before it"
        self._last[namespace, key] = stored.version_id.hex()
        if self._engine.seq_of(stored.version_id) != stored.seq:
            yield f"{name} cannot be found by its id"
        wanted = record.get("distinction")
        body = None if stored.body is None else distinction_id("json", stored.body).hex()
        if stored.erased:
            self._lacking[stored.version_id.hex()] = (stored.seq, stored.erased)
            if stored.body is not None or stored.operation != PUT:
                yield f"{name} is filed as erased, and is not"
        elif body != wanted and not lost:
            yield f"the value of {name} does not match its hash"
        yield from self._carried(name, stored, record)

    def _carried(self, name: str, stored: Stored, record: dict[str, Any]) -> Iterator[str]:
        said = {
            (model, v["metric"], v["dimensions"], v["id"])
            for model, v in record.get("vectors", {}).items()
        }
        if said or self._rows["vectors"] >= 0:
            try:
                rows = self._engine.vectors_at(stored.seq) if said else []
            except CorruptionError as error:
                yield str(error)
                self._rows["vectors"] += len(said)
                said, rows = set(), []
            if stored.erased:
                if rows:
                    yield f"the vectors of {name} are there, though it was erased"
                self._rows["vectors"] += len(said)
                said, rows = set(), []
            kept = {(m, metric, size, identity.hex()) for m, metric, size, identity, _ in rows}
            if kept != said:
                yield f"the vectors of {name} are not those its record names"
            self._rows["vectors"] += len(rows)
        for cause in {cause for _, cause in record.get("causes", ())}:
            self._rows["edges"] += 1
            if stored.seq not in self._engine.effects(bytes.fromhex(cause), stored.seq):
                yield f"{name} cannot be found by its cause {cause[:16]}"
        marks = marks_of(record)
        for target in record.get("targets", ()):
            self._erasing.setdefault(target, stored.seq)
        if marks:
            self._rows["marks"] += len(marks)
            if {(kind, ref.hex()) for kind, ref in self._engine.marks_at(stored.seq)} != marks:
                yield f"{name} is not filed as what it does to other versions"

    def _erasures(self) -> Iterator[str]:
        """What is erased and what says so."""
        for identity, (seq, by) in self._lacking.items():
            said = self._erasing.get(identity)
            if said is None and by > self._until:
                continue  # it is said in what was written meanwhile
            if said != by:
                yield f"the value of entry {seq} is gone, and entry {by} does not say so"
        for identity, by in self._erasing.items():
            if identity not in self._lacking:
                yield f"entry {by} erased {identity[:16]}, whose value is still there"

    def _readings(self) -> Iterator[str]:
        """Index rows nobody's record accounts for."""
        if self._log.head().seq != self._until:
            return  # others write; a later run compares the counts
        tables: tuple[Literal["vectors", "edges", "marks"], ...] = ("vectors", "edges", "marks")
        for table in tables:
            found = self._engine.rows_of(table)
            if found != self._rows[table]:
                yield f"{found} rows of {table}, the log accounts for {self._rows[table]}"
        keys = self._engine.rows_of("keys")
        if keys != len(self._last):
            yield f"{keys} keys are filed, the log accounts for {len(self._last)}"


def tree_head(log: CausalLog) -> TreeHead:
    """The Merkle root over all commits so far."""
    size = log.head().commits
    return TreeHead(size, tree_hash(log.engine.commit_roots(0, size)).hex())


def prove(log: CausalLog, version: Version, head: TreeHead | None) -> InclusionProof:
    """Evidence that `version` is in the log, for whoever holds `head`."""
    size = log.head().commits if head is None else head.size
    commit = log.commit_of(version)
    if commit.number >= size:
        raise QueryError(f"the version is in commit {commit.number}, after a tree of {size}")
    rows = log.engine.scan(commit.first_seq - 1, commit.seq, commit.size)
    ids = [stored.version_id for _, _, stored in rows]
    index = version.seq - commit.first_seq
    roots = log.engine.commit_roots(0, size)
    return InclusionProof(
        record=version.record(),
        index=index,
        commit={"first": commit.first_seq, "last": commit.seq, "time": commit.tx_time},
        commit_path=_hex(inclusion_path(index, len(ids), subtree(ids))),
        previous_root=(roots[commit.number - 1] if commit.number else GENESIS).hex(),
        number=commit.number,
        tree_size=size,
        log_path=_hex(inclusion_path(commit.number, size, subtree(roots))),
    )


def prove_consistency(log: CausalLog, old_size: int, new_size: int | None) -> ConsistencyProof:
    """Evidence that the first `old_size` commits are still the beginning of the log."""
    size = log.head().commits if new_size is None else new_size
    if not 0 <= old_size <= size <= log.head().commits:
        raise QueryError(
            f"the log has {log.head().commits} commits; ask for 0 <= old <= new of them"
        )
    roots = log.engine.commit_roots(0, size)
    return ConsistencyProof(old_size, size, _hex(consistency_path(old_size, size, subtree(roots))))


def _hex(hashes: list[bytes]) -> tuple[str, ...]:
    return tuple(item.hex() for item in hashes)
