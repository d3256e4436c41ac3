"""Where something came from and what came of it: lines, documents, commits, files, runs.

`origin` answers for one chunk, `trace` for anything in the log: it walks the causes that
versions declare, and from a document on to the record of the run that wrote it. That last
step is no cause; the run is named in the version itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, Literal, NamedTuple

from koru_delta.causal import CAUSE_KINDS, Cut, Version
from koru_delta.errors import InvalidDataError, QueryError, UnknownVersionError
from koru_delta.ingest.layout import chunks_of, commits_of, runs_of
from koru_delta.ingest.run import Run
from koru_delta.ingest.store import Store
from koru_delta.log import CausalLog
from koru_delta.log.causes import Walk
from koru_delta.search.answers import Match
from koru_delta.values import Value, check_key

Direction = Literal["up", "down"]
Reference = Version | Match | Run | str | tuple[str, str]

WRITTEN_IN: Final = "written_in"  # the step from a document to the record of its run
_RUNS: Final = ".runs"
_END_OF_TIME: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_SHA: Final = re.compile(r"[0-9a-f]{4,64}")
_SHOWN: Final = 20  # of what came of one version, in the text for people
_LINE: Final = 60  # characters


class Node(NamedTuple):
    """A version in a lineage, and how many steps it is from where that begins."""

    version: Version
    hops: int


class Edge(NamedTuple):
    """A step: the version `effect` names `cause` as a cause of this kind.

    Kinds are those of causes, and `"written_in"` from a document to its run's record.
    """

    effect: str
    kind: str
    cause: str


@dataclass(frozen=True)
class Lineage:
    """What something came from (`"up"`), or what came of it (`"down"`).

    `nodes` begin with what was asked about, at 0 hops; then nearest first, in log order.
    Printed, it is a tree for people; `to_mermaid` draws it, `to_dict` is JSON.
    """

    direction: Direction
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    @property
    def start(self) -> tuple[Version, ...]:
        """What was asked about: one version, or all those of a key."""
        return tuple(node.version for node in self.nodes if not node.hops)

    @property
    def versions(self) -> tuple[Version, ...]:
        """What was found, without what was asked about."""
        return tuple(node.version for node in self.nodes if node.hops)

    @property
    def sources(self) -> tuple[Version, ...]:
        """Those that came from nothing else in this lineage."""
        effects = {edge.effect for edge in self.edges}
        return tuple(node.version for node in self.nodes if node.version.id not in effects)

    @property
    def leaves(self) -> tuple[Version, ...]:
        """Those of which nothing came in this lineage."""
        causes = {edge.cause for edge in self.edges}
        return tuple(node.version for node in self.nodes if node.version.id not in causes)

    def __len__(self) -> int:
        return len(self.versions)

    def __bool__(self) -> bool:
        return True  # one that found nothing is an answer, too

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self, *, limit: int = _SHOWN) -> Iterator[str]:
        """The tree, line by line; of one version at most `limit` steps are shown."""
        told: set[str] = set()
        for version in self.start:
            yield from self._lines(version, told, limit)

    def to_dict(self) -> dict[str, Any]:
        """The lineage as JSON: versions by id, without their values."""
        return {
            "direction": self.direction,
            "start": [version.id for version in self.start],
            "nodes": [
                {
                    "id": version.id, "hops": hops, "namespace": version.namespace,
                    "key": version.key, "operation": version.operation, "seq": version.seq,
                    "time": version.time.isoformat(), "author": version.author,
                    "message": version.message, "run": version.run, "label": label(version),
                }
                for version, hops in self.nodes
            ],
            "edges": [edge._asdict() for edge in self.edges],
        }  # fmt: skip

    def to_mermaid(self) -> str:
        """The lineage as a Mermaid flowchart; arrows lead from a cause to what came of it."""
        names = {node.version.id: f"v{number}" for number, node in enumerate(self.nodes)}
        lines = ["flowchart LR" if self.direction == "down" else "flowchart RL"]
        for version, _ in self.nodes:
            shown = label(version).translate(_FOR_MERMAID)
            lines.append(f'    {names[version.id]}["{shown}"]')
        for edge in self.edges:
            lines.append(f"    {names[edge.cause]} -->|{edge.kind}| {names[edge.effect]}")
        return "\n".join(lines) + "\n"

    @cached_property
    def _steps(self) -> Mapping[str, list[tuple[str, Version]]]:
        """From a version on, in the direction of the lineage: kind, and the next one."""
        by_id = {node.version.id: node.version for node in self.nodes}
        steps: dict[str, list[tuple[str, Version]]] = {}
        for edge in self.edges:
            here, there = edge.effect, edge.cause
            if self.direction == "down":
                here, there = there, here
            steps.setdefault(here, []).append((edge.kind, by_id[there]))
        return steps

    def _lines(self, start: Version, told: set[str], limit: int) -> Iterator[str]:
        # A stack, not recursion: a chain of causes may be long.
        waiting: list[tuple[str, str, str, Version | None]] = [("", "", "", start)]
        while waiting:
            before, indent, kind, version = waiting.pop()
            if version is None:
                yield before + kind
                continue
            steps = self._steps.get(version.id, [])
            again = version.id in told and bool(steps)
            told.add(version.id)
            yield f"{before}{kind}{label(version)}{' (as above)' if again else ''}"
            if again:
                continue
            shown = steps[:limit]
            rows: list[tuple[str, Version | None]] = [(f"{k}: ", v) for k, v in shown]
            if len(steps) > limit:
                rows.append((f"and {len(steps) - limit:,} more", None))
            for place, (told_kind, there) in reversed(list(enumerate(rows))):
                is_last = place == len(rows) - 1
                branch, below = ("└─ ", "   ") if is_last else ("├─ ", "│  ")
                waiting.append((indent + branch, indent + below, told_kind, there))


_FOR_MERMAID: Final = {ord(c): f"#{ord(c)};" for c in '"#<>&[]{}|\\`'}


def label(version: Version) -> str:
    """One line for people: where it is kept, when and by whom it was written, what it says."""
    operation = "" if version.operation == "put" else f" {version.operation}"
    parts = [f"{_line(version.namespace)}/{_line(version.key)}{operation}"]
    value = None if version.is_erased else version.value
    if isinstance(value, dict):
        place = value.get("metadata")
        if isinstance(place, dict) and isinstance(place.get("page"), int):
            parts.append(f"page {place['page']}")
        if version.namespace.endswith(_RUNS) and isinstance(value.get("source"), str):
            parts.append(f"a run over {_line(value['source'])}")
        elif isinstance(text := value.get("text"), str) and "chunks" not in value:
            parts.append(f"“{_line(text)}”")
    if version.author is not None:
        parts.append(f"by {_line(version.author)}")
    if version.message is not None:
        parts.append(f"({_line(version.message)})")
    parts.append(f"{version.time:%Y-%m-%d %H:%M:%SZ}")
    return ", ".join(parts)


def _line(text: str) -> str:
    flat = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * _LINE]).split())
    return flat if len(flat) <= _LINE else flat[: _LINE - 1].rstrip() + "…"


def starts(log: CausalLog, ref: Reference, cut: Cut, *, down: bool) -> list[Version]:
    """The versions that are meant by a reference.

    A `(namespace, key)` is the present version upwards, and downwards every put of the key:
    a chunk that an edit left alone came from an earlier version of its document. A `Run`
    is its record.

    Raises:
        UnknownVersionError, KeyNotFoundError: there is none at that moment.
        InvalidDataError: it is no reference.
    """
    if isinstance(ref, Match):
        ref = ref.version
    if isinstance(ref, Run):
        if ref.run is None:
            raise InvalidDataError("that run found nothing new, so it has left no record")
        ref = runs_of(ref.namespace), ref.run
    if isinstance(ref, (Version, str)):
        found = log.version(ref)
        if found.seq > cut.seq:
            raise UnknownVersionError(f"version {found.id} as of {cut.seq}")
        return [found]
    if not isinstance(ref, tuple) or len(ref) != 2:
        raise InvalidDataError(
            f"a version, its id, a match, a run or (namespace, key) is wanted, not {ref!r}"
        )
    check_key(*ref)
    if not down:
        return [log.version_at(*ref, cut, cut.clock)]
    puts = [
        version for version in log.history(*ref, cut, reverse=False, limit=None)
        if not version.is_tombstone
    ]  # fmt: skip
    return puts or [log.version_at(*ref, cut, cut.clock)]  # raises


def trace(
    log: CausalLog,
    ref: Reference,
    direction: Direction,
    *,
    kinds: Sequence[str] | None,
    max_hops: int | None,
    cut: Cut,
) -> Lineage:
    """Walk as `Database.lineage` says."""
    if direction not in ("up", "down"):
        raise QueryError(f"direction is 'up' or 'down', not {direction!r}")
    allowed = _kinds(kinds)
    hops = 0
    start = starts(log, ref, cut, down=direction == "down")
    nodes = {version.id: Node(version, 0) for version in start}
    edges: dict[Edge, None] = {}
    ring = [node.version for node in nodes.values()]
    runs = Runs(log, cut)
    while ring and (max_hops is None or hops < max_hops):
        hops += 1
        fresh: dict[str, Version] = {}
        for edge, _, there in around(log, runs, ring, cut, up=direction == "up"):
            if edge.kind in allowed:
                edges[edge] = None
                if there.id not in nodes:
                    fresh[there.id] = there
        ring = sorted(fresh.values(), key=lambda version: version.seq)
        nodes |= {version.id: Node(version, hops) for version in ring}
    return Lineage(direction, tuple(nodes.values()), tuple(edges))


def around(
    log: CausalLog, runs: Runs, ring: Sequence[Version], cut: Cut, *, up: bool
) -> Iterator[tuple[Edge, Version, Version]]:
    """The steps from some versions to what they came from (`up`), or to what came of them.

    Each with where it begins and where it leads.
    """
    places = [version.seq for version in ring]
    near = next(Walk(log.engine, cut.seq).rings(places, "up" if up else "down", 1), [])
    here = {version.id: version for version in ring}
    there = {version.id: version for version in log.versions(near)}
    for effect in ring if up else there.values():
        for named in effect.causes:
            cause = (there if up else here).get(named.id)
            if cause is not None:
                begin, end = (effect, cause) if up else (cause, effect)
                yield Edge(effect.id, named.kind, cause.id), begin, end
    for version in ring:
        if up:
            record = runs.record_of(version)
            if record is not None:
                yield Edge(version.id, WRITTEN_IN, record.id), version, record
        else:
            for document in runs.written_in(version):
                yield Edge(document.id, WRITTEN_IN, version.id), version, document


class Runs:
    """The way between documents and the records of the runs that wrote them."""

    def __init__(self, log: CausalLog, cut: Cut) -> None:
        self._log, self._cut = log, cut
        self._records: dict[tuple[str, str], list[Version]] = {}

    def record_of(self, document: Version) -> Version | None:
        """The record of the run a document was written in; None of anything else."""
        if document.run is None or document.is_tombstone:
            return None
        begun = [
            record for record in self._of(runs_of(document.namespace), document.run)
            if record.seq < document.seq and _state(record) == "begun"
        ]  # fmt: skip
        return begun[-1] if begun else None

    def written_in(self, record: Version) -> Iterator[Version]:
        """The documents a run wrote, if this is its record as it began."""
        if not record.namespace.endswith(_RUNS) or _state(record) != "begun":
            return
        namespace, run = record.namespace.removesuffix(_RUNS), record.key
        later = [each for each in self._of(record.namespace, run) if each.seq > record.seq]
        until = later[0].seq if later else self._cut.seq
        for version in self._log.changes(Cut(record.seq, 0), Cut(until, 0)):
            if (version.namespace, version.run) == (namespace, run) and version.operation == "put":
                yield version

    def _of(self, namespace: str, run: str) -> list[Version]:
        known = self._records.get((namespace, run))
        if known is None:
            known = self._log.history(namespace, run, self._cut, reverse=False, limit=None)
            self._records[namespace, run] = known
        return known


def _state(record: Version) -> Value:
    value = None if record.is_erased else record.value
    return value.get("state") if isinstance(value, dict) else None


def _kinds(kinds: Sequence[str] | None) -> frozenset[str]:
    every = frozenset([*CAUSE_KINDS, WRITTEN_IN])
    if kinds is None:
        return every
    named = frozenset([kinds] if isinstance(kinds, str) else kinds)
    if not named <= every:
        raise QueryError(
            f"unknown kind of cause {sorted(named - every)[0]!r}; "
            f"the kinds are {', '.join([*CAUSE_KINDS, WRITTEN_IN])}"
        )
    return named


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a chunk stands at a moment, and the commit that brought it in.

    Characters are half-open, lines count from 1 and are inclusive; None if the document
    that stands at that moment has no such chunk. `commit` is None for plain files.
    """

    path: str
    start: int | None
    end: int | None
    first_line: int | None
    last_line: int | None
    commit: str | None
    author: str | None
    email: str | None
    message: str | None
    committed_at: datetime | None


def origin(
    db: Store,
    namespace: str,
    chunk: Version | Match,
    *,
    as_of: Any = None,
    valid_at: datetime | str | None = None,
) -> Origin:
    r"""Trace a chunk that was found with `as_of` and `valid_at` in a namespace's chunks.

    Args:
        namespace: The documents' (`docs`, not `docs.chunks`).
        chunk: A hit of a search there, or its version.

    Raises:
        InvalidDataError: it is no chunk that was ingested into this namespace.

    >>> import koru_delta, pathlib, tempfile
    >>> from koru_delta.ingest import ingest_files
    >>> from koru_delta.testing import HashEmbedder
    >>> words = HashEmbedder()
    >>> db = koru_delta.open(embedder=words)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "a.md").write_text("# Rain\n\nIt rains.\n")
    ...     _ = ingest_files(db, [folder], embedder=words)
    >>> [match] = db.similar("docs.chunks", "rains", k=1)
    >>> found = origin(db, "docs", match)
    >>> found.path, found.first_line, found.last_line
    ('a.md', 1, 3)
    >>> db.close()
    """
    given: object = chunk
    if isinstance(chunk, Match):
        chunk = chunk.version
    if not isinstance(chunk, Version):
        raise InvalidDataError(f"a hit or its version is wanted, not {type(given).__name__}")
    if chunk.namespace != chunks_of(namespace):
        home = chunk.namespace.removesuffix(chunks_of(""))
        what = (
            f"call it with namespace {home!r}" if home != chunk.namespace
            else f"pass a hit of a search in {chunks_of(namespace)!r}"
        )  # fmt: skip
        raise InvalidDataError(
            f"{chunk.key!r} is of {chunk.namespace!r}, and the chunks of {namespace!r} are in "
            f"{chunks_of(namespace)!r}; {what}"
        )
    value: Value = None if chunk.is_tombstone else chunk.value
    about: Value = value.get("metadata") if isinstance(value, dict) else None
    if not isinstance(about, dict) or not isinstance(about.get("document"), str):
        raise InvalidDataError(
            f"{chunk.key!r} of {chunk.namespace!r} is no chunk that was ingested, so nothing "
            "tells where it stands; lineage tells its causes"
        )
    document: Value = db.get(namespace, about["document"], None, as_of=as_of, valid_at=valid_at)
    layout = document.get("chunks", []) if isinstance(document, dict) else []
    start, end, first_line, last_line = next(
        (row[1:5] for row in layout if row[0] == chunk.key), [None] * 4
    )
    source = next(
        (
            version.value
            for version in db.ancestors(chunk, kinds=["derived_from"], max_hops=2)
            if version.namespace == commits_of(namespace)
        ),
        None,
    )
    if source is None:
        source = {"sha": None, "author": chunk.author, "email": None, "message": chunk.message}
    committed_at = source.get("committed_at")
    return Origin(
        path=str(about.get("path", about["document"])),
        start=start,
        end=end,
        first_line=first_line,
        last_line=last_line,
        commit=source["sha"],
        author=source["author"],
        email=source["email"],
        message=source["message"],
        committed_at=None if committed_at is None else datetime.fromisoformat(committed_at),
    )


def commit_time(db: Store, namespace: str, sha: str) -> datetime:
    """The moment from which an ingested commit holds, for `valid_at=`.

    Args:
        sha: Its hash, or the beginning of it that no other has (4 digits or more).

    Raises:
        UnknownVersionError: no such commit was ingested, or more than one.
    """
    commits = commits_of(namespace)
    found = (
        db.list_keys(commits, prefix=sha, limit=2, valid_at=_END_OF_TIME)
        if _SHA.fullmatch(sha)
        else []
    )
    if len(found) != 1:
        several = "more than one commit starting with " if found else "commit "
        raise UnknownVersionError(f"{several}{sha} of {namespace!r}")
    committed_at: str = db.get(commits, found[0], valid_at=_END_OF_TIME)["committed_at"]
    return datetime.fromisoformat(committed_at)
