"""How two versions are related: six types, each with a criterion that can be checked again.

| type          | `source` ... `target`      | it holds when                                    |
|---------------|----------------------------|--------------------------------------------------|
| proximity     | is near                    | both have a vector of one model, and their       |
|               |                            | cosine is at least `PROXIMITY_COSINE`            |
| composition   | is a part of               | it was `derived_from` a version of the target's  |
|               |                            | key, and its text stands in the target's text,   |
|               |                            | or the target's "chunks" name its key            |
| abstraction   | sums up                    | it was `derived_from` the target and other keys, |
|               |                            | `SOURCES_LEAST` or more, is no part of the       |
|               |                            | target, and where all have vectors its cosine to |
|               |                            | their centroid is at least `COVER_COSINE`        |
| instantiation | is an instance of          | the target is an abstraction of it               |
| sequence      | comes right before         | it is the version of the key before; or the      |
|               |                            | entry of the run before, in that namespace; or   |
|               |                            | the chunk before, in one document                |
| causation     | brought about              | the target names it as a cause, `caused_by`      |
|               |                            | (declared) or `derived_from` (a receipt)         |

Causation is never inferred: where no edge is in the log, there is none. A part's text is
that of `text_of`. A chunk's place is "document" and "index" of its value (or of the
value's "metadata"), or the "chunks" of the document it was derived from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np

from koru_delta.causal import Cut, Version, When
from koru_delta.errors import KeyNotFoundError, QueryError, UnknownVersionError
from koru_delta.log.moments import AsOf
from koru_delta.search.synthesis.layers import text_of
from koru_delta.search.synthesis.proximity import MOST_HOPS, unit
from koru_delta.search.synthesis.store import Store
from koru_delta.values import Value

RelationKind = Literal[
    "proximity", "composition", "abstraction", "instantiation", "sequence", "causation"
]
KINDS: Final[tuple[str, ...]] = (
    "proximity", "composition", "abstraction", "instantiation", "sequence", "causation",
)  # fmt: skip
PROXIMITY_COSINE: Final = 0.5
COVER_COSINE: Final = 0.5
SOURCES_LEAST: Final = 2
CAUSAL_EDGES: Final = ("caused_by", "derived_from")
RUN_WINDOW: Final = 512  # entries of the log looked at for the neighbour in a run
_SAME: Final = 1e-6  # by which a cosine may differ when it is computed again


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """A version, and the key it belongs to."""

    namespace: str
    key: str
    id: str

    @classmethod
    def of(cls, version: Version) -> Node:
        """The node of a version."""
        return cls(version.namespace, version.key, version.id)


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """A cause in the log: the version `effect` names the version `cause`, as `kind`."""

    kind: str
    effect: str
    cause: str

    def verify(self, db: Store, seq: int) -> bool:
        """Whether both versions are in the log up to a position, and the edge with them."""
        effect, cause = resolve(db, self.effect, seq), resolve(db, self.cause, seq)
        return (
            effect is not None
            and cause is not None
            and any((each.kind, each.id) == (self.kind, cause.id) for each in effect.causes)
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a relation rests on; everything in it can be read from the log again.

    `order` tells by what a sequence is one: "version", "run" or "document" (then
    `document` is the version whose layout or name orders the chunks, where there is one).
    """

    edges: tuple[Edge, ...] = ()
    model: str | None = None
    cosine: float | None = None
    order: Literal["version", "run", "document"] | None = None
    document: str | None = None


@dataclass(frozen=True, slots=True)
class Relation:
    """`source` is related to `target` as `kind` says; `strength` lies in [0, 1]."""

    kind: RelationKind
    source: Node
    target: Node
    strength: float
    evidence: Evidence

    def verify(self, db: Store, as_of: AsOf = None) -> bool:
        """As `verify(relation, db, as_of)`."""
        return verify(self, db, as_of)

    def to_dict(self) -> dict[str, Any]:
        """The relation as JSON."""
        evidence = self.evidence
        return {
            "kind": self.kind,
            "source": _node(self.source),
            "target": _node(self.target),
            "strength": self.strength,
            "evidence": {
                "edges": [[edge.kind, edge.effect, edge.cause] for edge in evidence.edges],
                "model": evidence.model, "cosine": evidence.cosine,
                "order": evidence.order, "document": evidence.document,
            },
        }  # fmt: skip

    def __str__(self) -> str:
        return (
            f"{self.source.key} {_SAYS[self.kind]} {self.target.key} "
            f"({self.kind}, {self.strength:.3f})"
        )


_SAYS: Final = {
    "proximity": "is near", "composition": "is a part of", "abstraction": "sums up",
    "instantiation": "is an instance of", "sequence": "comes right before",
    "causation": "brought about",
}  # fmt: skip


def check_kinds(types: Iterable[str] | None) -> tuple[str, ...]:
    """The types of relation asked for, all of them for None.

    Raises:
        QueryError: one is no type.
    """
    if types is None:
        return KINDS
    given = (types,) if isinstance(types, str) else tuple(types)
    for kind in given:
        if kind not in KINDS:
            raise QueryError(f"unknown type of relation {kind!r}; there are {', '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in given)


def related(
    db: Store,
    namespace: str,
    key: str,
    cut: Cut,
    valid_at: When | None,
    *,
    types: Iterable[str] | None = None,
    k: int = 10,
    model: str | None = None,
) -> list[Relation]:
    """At most `k` relations of each type of what a key holds at a moment.

    In the order of the types, the strongest first, then by keys and ids.

    Raises:
        KeyNotFoundError: the key is absent at that moment.
        QueryError: an unknown type.
    """
    wanted = check_kinds(types)
    here = _Here(db, db.version(namespace, key, as_of=cut, valid_at=valid_at), cut, valid_at, model)
    found: list[Relation] = []
    for kind in wanted:
        some = here.find(kind, k)
        some.sort(key=lambda relation: (-relation.strength, relation.source, relation.target))
        found += some[:k]
    return found


def verify(relation: Relation, db: Store, as_of: AsOf = None) -> bool:
    """Whether a relation holds by what the log said at a moment: its criterion anew.

    False too where an id, edge, cosine or strength is another than the log's, or was not
    in it yet. Raises what `Database.as_of` raises for a moment that is none.
    """
    seq = db.as_of(as_of).seq
    source, target = resolve(db, relation.source.id, seq), resolve(db, relation.target.id, seq)
    if source is None or target is None:
        return False
    if (Node.of(source), Node.of(target)) != (relation.source, relation.target):
        return False
    evidence = relation.evidence
    if not all(edge.verify(db, seq) for edge in evidence.edges):
        return False
    strength = _strength(relation, source, target, db, seq)
    return strength is not None and abs(strength - relation.strength) <= _SAME


def hops(
    db: Store,
    anchors: Sequence[Version | str | tuple[str, str]],
    cut: Cut,
    *,
    valid_at: When | None = None,
    kinds: Sequence[str] | None = None,
    max_hops: int = MOST_HOPS,
) -> dict[str, int]:
    """How many typed edges lie between anchors and the versions near them, either way.

    Args:
        anchors: Versions, their ids, or `(namespace, key)` for what the key holds then.

    Returns:
        By version id, at most `max_hops`; anchors are at 0.

    Raises:
        UnknownVersionError, KeyNotFoundError: an anchor does not exist at that moment.
        QueryError: there is no anchor.
    """
    if isinstance(anchors, (str, Version)) or not len(anchors):
        raise QueryError("anchors is a list with at least one version or (namespace, key)")
    ring: list[Version] = []
    for anchor in anchors:
        if isinstance(anchor, tuple):
            ring.append(db.version(*anchor, as_of=cut, valid_at=valid_at))
            continue
        version = db.get_version(anchor)
        if version.seq > cut.seq:
            raise UnknownVersionError(f"version {version.id} (at that moment)")
        ring.append(version)
    found = {version.id: 0 for version in ring}
    for distance in range(1, max_hops + 1):
        fresh: dict[str, Version] = {}
        for here in ring:
            for there in (
                *db.ancestors(here, kinds=kinds, max_hops=1, as_of=cut),
                *db.descendants(here, kinds=kinds, max_hops=1, as_of=cut),
            ):
                if there.id not in found:
                    found[there.id] = distance
                    fresh[there.id] = there
        ring = list(fresh.values())
    return found


class _Here:
    """One version at one moment, and what is around it."""

    def __init__(
        self, db: Store, version: Version, cut: Cut, valid_at: When | None, model: str | None
    ) -> None:
        self.db, self.version, self.cut = db, version, cut
        self.valid_at, self.model = valid_at, model

    def find(self, kind: str, k: int) -> list[Relation]:
        if kind == "proximity":
            return self._near(k)
        if kind == "composition":
            return self._parts() + self._wholes()
        if kind == "abstraction":
            return self._covers("abstraction", [self.version], self._effects_of_one)
        if kind == "instantiation":
            return self._instance_of()
        if kind == "sequence":
            return self._by_version() + self._by_run() + self._by_document()
        return self._causes()

    def _near(self, k: int) -> list[Relation]:
        mine = self.db.vectors(self.version)
        model = self.model
        if model is None:
            if len(mine) != 1:
                if not mine:
                    return []
                raise QueryError(
                    f"{self.version.key!r} has vectors of {', '.join(sorted(mine))}; name one "
                    "with model="
                )
            (model,) = mine
        if model not in mine or not mine[model].any():
            return []
        found = []
        for match in self.db.similar(
            self.version.namespace, mine[model], k=k + 1, as_of=self.cut,
            valid_at=self.valid_at, model=model, exact=True,
        ):  # fmt: skip
            if match.key == self.version.key:
                continue
            cosine = _cosine(self.db, self.version, match.version, model)
            if cosine is not None and cosine >= PROXIMITY_COSINE:
                evidence = Evidence(model=model, cosine=cosine)
                found.append(self._relation("proximity", self.version, match.version, cosine,
                                            evidence))  # fmt: skip
        return found

    # Parts and wholes

    def _wholes(self) -> list[Relation]:
        found = []
        for edge, whole in self._derived_from():
            now = self._now(whole) or whole
            share = _share(self.version, now)
            if share is not None:
                found.append(self._relation("composition", self.version, now, share,
                                            Evidence(edges=(edge,))))  # fmt: skip
        return found

    def _parts(self) -> list[Relation]:
        found = []
        for edge, part in self._derived_parts(self.version):
            share = _share(part, self.version)
            if share is not None:
                found.append(self._relation("composition", part, self.version, share,
                                            Evidence(edges=(edge,))))  # fmt: skip
        return found

    def _derived_from(self) -> list[tuple[Edge, Version]]:
        versions = self.db.ancestors(
            self.version, kinds=["derived_from"], max_hops=1, as_of=self.cut
        )
        return [(Edge("derived_from", self.version.id, each.id), each) for each in versions]

    def _derived_parts(self, whole: Version) -> list[tuple[Edge, Version]]:
        """What stands at the moment and was derived from any version of a whole's key."""
        found: dict[str, tuple[Edge, Version]] = {}
        for past in self.db.history(whole.namespace, whole.key, as_of=self.cut):
            for each in self.db.descendants(
                past, kinds=["derived_from"], max_hops=1, as_of=self.cut
            ):
                if not each.is_tombstone and (each.namespace, each.key) != (
                    whole.namespace, whole.key,
                ):  # fmt: skip
                    found[each.id] = (Edge("derived_from", each.id, past.id), each)
        return [(edge, part) for edge, part in found.values() if self._stands(part)]

    # Abstractions

    def _effects_of_one(self, version: Version) -> list[Version]:
        return self.db.ancestors(version, kinds=["derived_from"], max_hops=1, as_of=self.cut)

    def _covers(self, kind: Any, abstracts: Sequence[Version], sources_of: Any) -> list[Relation]:
        found = []
        for abstract in abstracts:
            sources = sources_of(abstract)
            cover = _cover(self.db, abstract, sources)
            if cover is None:
                continue
            edges = tuple(Edge("derived_from", abstract.id, each.id) for each in sources)
            for source in sources:
                if _share(abstract, source) is not None:
                    continue
                one, other = abstract, source
                if kind == "instantiation":
                    if source.id != self.version.id:
                        continue
                    one, other = source, abstract
                evidence = Evidence(edges=edges, model=cover[1], cosine=cover[2])
                found.append(self._relation(kind, one, other, cover[0], evidence))
        return found

    def _instance_of(self) -> list[Relation]:
        effects = self.db.descendants(
            self.version, kinds=["derived_from"], max_hops=1, as_of=self.cut
        )
        abstracts = [each for each in effects if not each.is_tombstone and self._stands(each)]
        return self._covers("instantiation", abstracts, self._effects_of_one)

    # Sequences

    def _by_version(self) -> list[Relation]:
        versions = self.db.history(self.version.namespace, self.version.key, as_of=self.cut)
        found = []
        for before, after in pairwise(versions):
            if self.version.id in (before.id, after.id) and after.previous == before.id:
                found.append(self._relation("sequence", before, after, 1.0,
                                            Evidence(order="version")))  # fmt: skip
        return found

    def _by_run(self) -> list[Relation]:
        version = self.version
        if version.run is None:
            return []
        around = []
        before = _run_neighbour(self.db, version, self.cut.seq, forward=False)
        after = _run_neighbour(self.db, version, self.cut.seq, forward=True)
        if before is not None:
            around.append((before, version))
        if after is not None:
            around.append((version, after))
        return [
            self._relation("sequence", one, other, 1.0, Evidence(order="run"))
            for one, other in around
        ]

    def _by_document(self) -> list[Relation]:
        version = self.version
        found: dict[tuple[str, str], Relation] = {}
        for _, whole in self._derived_from():
            document = self._now(whole)
            if document is None:
                continue
            layout = _layout(value_of(document))
            for place, name in enumerate(layout):
                if name != version.key:
                    continue
                for beside in (place - 1, place + 1):
                    if 0 <= beside < len(layout) and layout[beside] != version.key:
                        other = self._held(version.namespace, layout[beside])
                        if other is not None:
                            self._follow(found, other, beside < place, document.id)
        stands = _place(value_of(version))
        if stands is not None and not found:
            name, index, prefix = stands
            for beside in (index - 1, index + 1):
                for other in self._at(name, beside, prefix):
                    self._follow(found, other, beside < index, None)
        return list(found.values())

    def _follow(
        self,
        found: dict[tuple[str, str], Relation],
        other: Version,
        is_before: bool,
        document: str | None,
    ) -> None:
        one, two = (other, self.version) if is_before else (self.version, other)
        evidence = Evidence(order="document", document=document)
        found[one.id, two.id] = self._relation("sequence", one, two, 1.0, evidence)

    def _at(self, document: str, index: int, prefix: str) -> list[Version]:
        if index < 0:
            return []
        rows = self.db.query(
            self.version.namespace, {f"{prefix}document": document, f"{prefix}index": index},
            limit=2, as_of=self.cut, valid_at=self.valid_at,
        )  # fmt: skip
        return [row.version for row in rows]

    # Causes

    def _causes(self) -> list[Relation]:
        found = []
        version = self.version
        for kind in CAUSAL_EDGES:
            for cause in self.db.ancestors(version, kinds=[kind], max_hops=1, as_of=self.cut):
                found.append((kind, cause, version))
            for effect in self.db.descendants(version, kinds=[kind], max_hops=1, as_of=self.cut):
                found.append((kind, version, effect))
        relations: dict[tuple[str, str], Relation] = {}
        for kind, cause, effect in found:  # declared ones come first
            evidence = Evidence(edges=(Edge(kind, effect.id, cause.id),))
            relations.setdefault(
                (cause.id, effect.id),
                self._relation("causation", cause, effect, 1.0, evidence),
            )
        return list(relations.values())

    # Reading

    def _relation(
        self, kind: Any, source: Version, target: Version, strength: float, evidence: Evidence
    ) -> Relation:
        return Relation(kind, Node.of(source), Node.of(target), strength, evidence)

    def _held(self, namespace: str, key: str) -> Version | None:
        try:
            return self.db.version(namespace, key, as_of=self.cut, valid_at=self.valid_at)
        except KeyNotFoundError:
            return None

    def _now(self, version: Version) -> Version | None:
        """What the version's key holds at the moment."""
        return self._held(version.namespace, version.key)

    def _stands(self, version: Version) -> bool:
        now = self._now(version)
        return now is not None and now.id == version.id


# The criteria, for `related` and `verify` alike


def _strength(
    relation: Relation, source: Version, target: Version, db: Store, seq: int
) -> float | None:
    """How strong a relation is by what the log says; None if it does not hold."""
    kind, evidence = relation.kind, relation.evidence
    edges = evidence.edges
    if kind == "proximity":
        if evidence.model is None or evidence.cosine is None:
            return None
        cosine = _cosine(db, source, target, evidence.model)
        if cosine is None or cosine < PROXIMITY_COSINE or abs(cosine - evidence.cosine) > _SAME:
            return None
        return cosine
    if kind == "composition":
        if len(edges) != 1 or (edges[0].kind, edges[0].effect) != ("derived_from", source.id):
            return None
        past = resolve(db, edges[0].cause, seq)
        if past is None or (past.namespace, past.key) != (target.namespace, target.key):
            return None
        return _share(source, target)
    if kind in ("abstraction", "instantiation"):
        abstract, instance = (source, target) if kind == "abstraction" else (target, source)
        # All it was made of: the centroid is of every source, not of some.
        named = {cause.id for cause in abstract.causes if cause.kind == "derived_from"}
        known = {id for id in named if resolve(db, id, seq) is not None}
        if {edge.cause for edge in edges} != known or instance.id not in known:
            return None
        if {(edge.kind, edge.effect) for edge in edges} != {("derived_from", abstract.id)}:
            return None
        if _share(abstract, instance) is not None:
            return None
        cover = _cover(db, abstract, sorted(map(db.get_version, known), key=lambda v: v.seq))
        if cover is None or cover[1] != evidence.model:
            return None
        if cover[2] is not None and abs(cover[2] - (evidence.cosine or 0.0)) > _SAME:
            return None
        return cover[0]
    if kind == "sequence":
        return 1.0 if _follows(evidence, source, target, db, seq) else None
    if kind == "causation":
        (edge, *more) = edges or (None,)
        if edge is None or more or edge.kind not in CAUSAL_EDGES:
            return None
        return 1.0 if (edge.effect, edge.cause) == (target.id, source.id) else None
    return None


def _follows(evidence: Evidence, source: Version, target: Version, db: Store, seq: int) -> bool:
    if evidence.order != "document" and evidence.document is not None:
        return False
    if evidence.order == "version":
        same = (source.namespace, source.key) == (target.namespace, target.key)
        return same and target.previous == source.id
    if evidence.order == "run":
        if source.run is None or source.run != target.run:
            return False
        found = _run_neighbour(db, source, seq, forward=True)
        return found is not None and found.id == target.id
    if evidence.order == "document":
        if source.namespace != target.namespace:
            return False
        if evidence.document is not None:
            document = resolve(db, evidence.document, seq)
            if document is None:
                return False
            layout = _layout(value_of(document))
            return (source.key, target.key) in pairwise(layout)
        one, other = _place(value_of(source)), _place(value_of(target))
        if one is None or other is None:
            return False
        return (one[0], one[1] + 1, one[2]) == other
    return False


def _run_neighbour(db: Store, version: Version, seq: int, *, forward: bool) -> Version | None:
    """The put of the same run and namespace next to a version, within `RUN_WINDOW` entries."""
    if forward:
        first, last = version.seq, min(version.seq + RUN_WINDOW, seq)
    else:
        first, last = max(0, version.seq - 1 - RUN_WINDOW), version.seq - 1
    found = None
    for each in db.changes(Cut(first, 0), as_of=Cut(last, 0)):
        if each.run == version.run and each.namespace == version.namespace and (
            not each.is_tombstone
        ):  # fmt: skip
            found = each
            if forward:
                break
    return found


def _share(part: Version, whole: Version) -> float | None:
    """How much of a whole's text a part is, in (0, 1]; None if it is no part of it."""
    if (part.namespace, part.key) == (whole.namespace, whole.key):
        return None
    if not isinstance(value_of(whole), (str, dict)):
        return None
    text, all_text = _own_text(value_of(part)), _own_text(value_of(whole))
    if part.key not in _layout(value_of(whole)) and (not text or text not in all_text):
        return None
    return min(1.0, len(text) / len(all_text)) if text and all_text else 1.0


def value_of(version: Version) -> Value:
    """What a version holds; None where that was erased, and so is evidence of nothing."""
    return None if version.is_erased else version.value


def _own_text(value: Value) -> str:
    if isinstance(value, dict) and not any(isinstance(value.get(n), str) for n in _TEXT_FIELDS):
        return ""  # strings picked from everywhere are no text that others are parts of
    return text_of(value)


_TEXT_FIELDS = ("text", "content")


def _layout(value: Value) -> list[str]:
    """The keys of a document's chunks, in order."""
    rows = value.get("chunks") if isinstance(value, dict) else None
    if not isinstance(rows, list):
        return []
    names = [row[0] if isinstance(row, list) and row else row for row in rows]
    return [name for name in names if isinstance(name, str)]


def _place(value: Value) -> tuple[str, int, str] | None:
    """The document a chunk names, its index there, and where in the value both stand."""
    if not isinstance(value, dict):
        return None
    for prefix, fields in (("", value), ("metadata.", value.get("metadata"))):
        if isinstance(fields, dict):
            document, index = fields.get("document"), fields.get("index")
            if isinstance(document, str) and type(index) is int:
                return document, index, prefix
    return None


def _cover(
    db: Store, abstract: Version, sources: Sequence[Version]
) -> tuple[float, str | None, float | None] | None:
    """How well a version sums up its sources: strength, model and cosine to their centroid."""
    others = {(each.namespace, each.key) for each in sources}
    others.discard((abstract.namespace, abstract.key))
    if len(others) < SOURCES_LEAST:
        return None
    mine = db.vectors(abstract)
    theirs = [db.vectors(each) for each in sources]
    for model in sorted(mine):
        if all(model in each for each in theirs):
            vectors = [mine[model], *(each[model] for each in theirs)]
            if not all(vector.any() for vector in vectors):
                continue
            centroid = np.mean([unit(vector) for vector in vectors[1:]], axis=0)
            if not float(np.abs(centroid).max()) > _SAME:
                return None  # they point everywhere, which nothing sums up
            cosine = _bounded(float(unit(vectors[0]) @ unit(centroid)))
            return None if cosine < COVER_COSINE else (cosine, model, cosine)
    return 1.0, None, None


def _cosine(db: Store, one: Version, other: Version, model: str) -> float | None:
    mine, theirs = db.vectors(one).get(model), db.vectors(other).get(model)
    if mine is None or theirs is None or not mine.any() or not theirs.any():
        return None
    return _bounded(float(unit(mine) @ unit(theirs)))


def _bounded(cosine: float) -> float:
    return min(1.0, max(-1.0, cosine))


def resolve(db: Store, id: str, seq: int) -> Version | None:
    """The version of that whole id, if the log holds it up to a position."""
    try:
        version = db.get_version(id)
    except UnknownVersionError:
        return None
    return version if version.seq <= seq and version.id == id else None


def _node(node: Node) -> dict[str, str]:
    return {"namespace": node.namespace, "key": node.key, "id": node.id}
