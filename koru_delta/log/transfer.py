"""The whole log as lines of JSON, and back: the same hashes on both sides.

The first line names the format. Then, for each commit, a line for each vector not yet
written (`object`), a line for each version (its record, and its value if it has one
that was not erased), and a line that closes the commit with its chained root. The last line
counts the commits, so that a file that breaks off is not taken for a whole one.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from pydantic import ValidationError

from koru_delta.causal import (
    GENESIS,
    HIDE,
    OPERATIONS,
    Commit,
    Cut,
    chained_root,
    commit_header,
    commit_tree,
    marks_of,
    version_id,
)
from koru_delta.errors import CorruptionError, DivergedLogError, ErasedError, InvalidDataError
from koru_delta.log.log import OWN, CausalLog
from koru_delta.log.schema import VersionRecord
from koru_delta.log.writes import RETENTION
from koru_delta.storage import Head, NewVersion, Space
from koru_delta.storage.writer import SqliteWriter
from koru_delta.values import (
    MAX_KEY_BYTES,
    MAX_NAMESPACE_BYTES,
    canonical_bytes,
    check_name,
    decode,
    distinction_id,
)

FORMAT_LINE = {"format": "koru-delta-log", "version": 1}
Progress = Callable[[int], None]


def export_lines(log: CausalLog, until: Cut) -> Iterator[bytes]:
    """The log up to a cut, a line at a time, without line ends.

    Raises:
        ErasedError: a value up to the cut was erased after it; what says so would be missing.
    """
    yield canonical_bytes(FORMAT_LINE)
    written: set[bytes] = set()
    position = commits = 0
    for commit in _commits(log, until):
        while position < commit.seq:
            rows = log.engine.scan(position, commit.seq, 1000)
            for _, _, stored in rows:
                record = decode(stored.record)
                if stored.erased > until.seq:
                    version = log.loaded([stored])[0]
                    raise ErasedError(
                        version.namespace, version.key, version.id,
                        None if version.erasure is None else version.erasure.time,
                        "an export must go on to where it says so",
                    )  # fmt: skip
                if record.get("vectors"):
                    for _, _, _, identity, data in log.engine.vectors_at(stored.seq):
                        if identity not in written:
                            written.add(identity)
                            encoded = base64.b64encode(data).decode()
                            yield canonical_bytes({"object": identity.hex(), "f32": encoded})
                line = {"record": record}
                if stored.body is not None:
                    line["value"] = decode(stored.body)
                yield canonical_bytes(line)
            position = rows[-1][2].seq
        yield canonical_bytes({"commit": commit.number, "root": commit.root})
        commits += 1
    yield canonical_bytes({"end": commits})


def _commits(log: CausalLog, until: Cut) -> Iterator[Commit]:
    """Commits in log order, a page at a time."""
    after = Cut(0, 0)
    while page := log.commits(after, until, reverse=False, limit=1000):
        yield from page
        after = Cut(page[-1].seq, page[-1].tx_time)


def import_lines(log: CausalLog, lines: Iterable[bytes], progress: Progress | None = None) -> int:
    """Take up a log that begins as this one does; returns how many commits were new.

    All of it or nothing. Every hash is computed anew and must match.

    Raises:
        InvalidDataError: a line is not what an export writes; the message names it.
        DivergedLogError: this log has entries the other does not begin with.
        CorruptionError: a value, version or commit does not match its hash.
    """
    with log.engine.writing(lambda _before, _after: None) as writer:
        taking = _Import(log, writer)
        for number, line in enumerate(lines, start=1):
            if line.strip():
                taking.line(number, line)
                if progress is not None and number % 1000 == 0:
                    progress(taking.commits)
        taking.end()
        return taking.new_commits


class _Import:
    """Where an import stands."""

    def __init__(self, log: CausalLog, writer: SqliteWriter) -> None:
        self._log = log
        self._writer = writer
        self._mine = writer.head
        self._root: bytes = GENESIS
        self._seq = 0
        self.commits = 0
        self.new_commits = 0
        self._started = self._ended = False
        self._versions: list[tuple[bytes, bytes, dict[str, Any], bytes | None]] = []
        self._objects: dict[str, bytes] = {}
        self._ids: dict[str, int] = {}  # of each version its place
        self._hidden: set[str] = set()
        self._lacking: set[str] = set()  # puts without a value, until an erase says why
        self._erased: set[str] = set()
        self._last: dict[tuple[str, str], str] = {}  # of each key, its last version
        self._time = -(2**63)

    def line(self, number: int, line: bytes) -> None:
        try:
            fact = decode(line)
        except ValueError as error:
            raise InvalidDataError(f"line {number} is not JSON: {error}") from error
        try:
            self._take(number, fact)
        except (KeyError, TypeError, AttributeError, binascii.Error) as error:
            raise InvalidDataError(f"line {number} is not one an export writes") from error

    def end(self) -> None:
        if not self._started:
            raise InvalidDataError("an empty file is no export")
        if not self._ended:
            raise InvalidDataError(
                f"the file breaks off after commit {self.commits}; nothing of it was taken: "
                "export again"
            )
        if self._lacking:
            raise CorruptionError(
                f"the value of version {min(self._lacking)[:16]} is missing, and nothing in the "
                "file says that it was erased"
            )

    def _take(self, number: int, fact: dict[str, Any]) -> None:
        if self._ended:
            raise InvalidDataError(f"line {number} comes after the end")
        if not self._started:
            if fact != FORMAT_LINE:
                raise InvalidDataError("the first line does not say it is a koru-delta-log")
            self._started = True
        elif "object" in fact:
            data = base64.b64decode(fact["f32"], validate=True)
            if distinction_id("vec", data).hex() != fact["object"]:
                raise CorruptionError(f"line {number}: the vector does not match its hash")
            self._objects[fact["object"]] = data
        elif "record" in fact:
            self._version(number, fact)
        elif "commit" in fact:
            self._commit(number, fact)
        elif "end" in fact:
            if fact != {"end": self.commits} or self._versions:
                raise InvalidDataError(f"line {number} ends a log of {fact['end']} commits")
            self._ended = True
        else:
            raise KeyError(number)

    def _version(self, number: int, fact: dict[str, Any]) -> None:
        record = self._checked(number, fact["record"])
        body = canonical_bytes(fact["value"]) if "value" in fact else None
        found = None if body is None else distinction_id("json", body).hex()
        lacking = record["op"] == "put" and body is None
        if found != record.get("distinction") and not lacking:
            raise CorruptionError(f"line {number}: the value does not match its hash")
        encoded = canonical_bytes(record)
        identity = version_id(encoded)
        if lacking:
            self._lacking.add(identity.hex())
        self._versions.append((identity, encoded, record, body))
        self._ids[identity.hex()] = self._seq + len(self._versions)
        self._last[record["namespace"], record["key"]] = identity.hex()

    def _checked(self, number: int, record: dict[str, Any]) -> dict[str, Any]:
        """Refuse a record that no write could have made.

        Raises:
            InvalidDataError: its fields, its names, its time or what it follows are wrong.
        """
        try:
            VersionRecord.model_validate(record)
            check_name("namespace", record["namespace"], MAX_NAMESPACE_BYTES)
            check_name("key", record["key"], MAX_KEY_BYTES)
            if record["namespace"][0] == "$" and record["namespace"] not in OWN:
                raise InvalidDataError(f"namespace {record['namespace']!r} is none of KoruDelta's")
        except (ValidationError, InvalidDataError) as error:
            raise InvalidDataError(f"line {number}: not a record of a version: {error}") from error
        place = (record["namespace"], record["key"])
        if record.get("previous") != self._last.get(place):
            raise InvalidDataError(f"line {number}: it does not follow its key's last version")
        if record["time"] <= self._time or (
            self._versions and record["time"] != self._versions[0][2]["time"]
        ):
            raise InvalidDataError(f"line {number}: its time does not follow that of the log")
        for reference in [
            *(ref for _, ref in record.get("causes", ())),
            *record.get("parents", ()),
        ]:
            if reference not in self._ids:
                raise InvalidDataError(f"line {number}: it names {reference[:16]}, not in the log")
        if "target" in record:
            self._annotate(number, record)
        for target in record.get("targets", ()):
            about = self._place(self._record_of(target)) or ("none", "", "")
            mine = about == ("put", record["namespace"], record["key"])
            swept = record["namespace"] == RETENTION and about[:2] == ("put", record["key"])
            if not (mine or swept) or target in self._erased:
                raise InvalidDataError(f"line {number}: it erases no put of its key")
            self._erased.add(target)
            self._lacking.discard(target)
        return record

    def _annotate(self, number: int, record: dict[str, Any]) -> None:
        """Take note of a hide or unhide; refuse one of what it cannot be about."""
        target = record["target"]
        if self._place(self._record_of(target)) != ("put", record["namespace"], record["key"]):
            raise InvalidDataError(f"line {number}: it is about no put of its key")
        if (target in self._hidden) == (record["op"] == OPERATIONS[HIDE]):
            raise InvalidDataError(f"line {number}: its target is so already")
        (self._hidden.discard if target in self._hidden else self._hidden.add)(target)

    def _record_of(self, identity: str) -> dict[str, Any] | None:
        """The record of a version that came before, in this commit or in one before it."""
        seq = self._ids.get(identity)
        if seq is None:
            return None
        if seq > self._seq:
            return self._versions[seq - self._seq - 1][2]
        stored = self._writer.at(seq)
        return None if stored is None else decode(stored.record)

    @staticmethod
    def _place(record: dict[str, Any] | None) -> tuple[str, ...] | None:
        return None if record is None else (record["op"], record["namespace"], record["key"])

    def _commit(self, number: int, fact: dict[str, Any]) -> None:
        if not self._versions:
            raise KeyError(number)
        first, last = self._seq + 1, self._seq + len(self._versions)
        time = int(self._versions[0][2]["time"])
        tree = commit_tree([identity for identity, *_ in self._versions])
        root = chained_root(self._root, commit_header(first, last, time, tree))
        if root.hex() != fact["root"]:
            raise CorruptionError(f"line {number}: the commit does not match its root")
        if self.commits < self._mine.commits:
            self._compare(time, root)
        else:
            self._append(first, last, time, root)
            self.new_commits += 1
        self._root, self._seq, self.commits, self._time = root, last, self.commits + 1, time
        self._versions.clear()

    def _check_vector(self, space: Space, vector: dict[str, Any]) -> None:
        """Refuse a vector that is not in the file, or not one of its space."""
        data = self._objects.get(vector["id"])
        if (space.dimensions, space.metric) != (vector["dimensions"], vector["metric"]):
            raise InvalidDataError(f"a vector of model {space.model!r} is unlike the others there")
        if data is None or len(data) != 4 * space.dimensions:
            raise InvalidDataError(f"vector {vector['id'][:16]} is missing, or of another length")
        numbers = np.frombuffer(data, dtype="<f4")
        if not np.isfinite(numbers).all() or (space.metric == "cosine" and not numbers.any()):
            raise InvalidDataError(f"vector {vector['id'][:16]} is not one that can be searched")

    def _compare(self, time: int, root: bytes) -> None:
        """Whether the commit is the one this log has in its place."""
        mine = self._log.engine.commit_at(time)
        if mine is None or mine.root != root:
            raise DivergedLogError(self.commits, root.hex(), mine.root.hex() if mine else None)

    def _append(self, first: int, last: int, time: int, root: bytes) -> None:
        for seq, (identity, encoded, record, body) in enumerate(self._versions, start=first):
            vectors: list[tuple[int, bytes, bytes | None]] = []
            for model, vector in record.get("vectors", {}).items():
                space = self._writer.space(record["namespace"], model) or self._writer.add_space(
                    record["namespace"], model, vector["dimensions"], vector["metric"]
                )
                if record["op"] == "put" and body is None and vector["id"] not in self._objects:
                    vectors.append((space.space_id, b"", None))  # erased with the value
                    continue
                self._check_vector(space, vector)
                vectors.append(
                    (space.space_id, bytes.fromhex(vector["id"]), self._objects.get(vector["id"]))
                )
            distinction = record.get("distinction")
            self._writer.append(
                NewVersion(
                    seq, identity, record["namespace"], record["key"],
                    OPERATIONS.index(record["op"]), record["time"],
                    record.get("valid_from"), record.get("valid_to"), record.get("expires_at"),
                    encoded, body, None if distinction is None else bytes.fromhex(distinction),
                    vectors, [bytes.fromhex(ref) for _, ref in record.get("causes", ())],
                    self._marks(record),
                )
            )  # fmt: skip
        self._writer.append_commit(Head(last, self.commits + 1, time, root), first)
        self._writer.flush()

    def _marks(self, record: dict[str, Any]) -> list[tuple[int, int]]:
        """What it does to other versions, as the log files it."""
        said = marks_of(record)
        return [(kind, self._ids[target]) for kind, target in sorted(said)]
