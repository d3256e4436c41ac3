"""Why a hit stands where it stands: parts that add up to its score, and what they rest on.

A plain record. Whoever ranks fills it with `Part`s, each already in units of the score; what
takes away (a penalty for repeating other hits, age) is a part below zero. `verify` holds it
to its own sums and to the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from koru_delta.causal import Version
from koru_delta.errors import QueryError
from koru_delta.log.moments import AsOf
from koru_delta.search.synthesis.proximity import Proximity, ranks
from koru_delta.search.synthesis.relations import Edge, resolve
from koru_delta.search.synthesis.store import Store

if TYPE_CHECKING:
    from rich.table import Table

TOLERANCE: Final = 1e-6
FORMULAS: Final[Mapping[str, str]] = {
    "cosine": "score = cosine",
    "bm25": "score = sum of the terms",
    "rrf": "score = sum of weight / (damping + rank)",
    "score": "score = sum of weight * normalised score",
    "proximity": "score = sum of weight * factor / sum of weights",
}


@dataclass(frozen=True, slots=True)
class Term:
    """One term of the query in the text of a hit; `contribution` is to its leg's raw score.

    `tf` is how often the hit has it, `df` how many visible documents do.
    """

    term: str
    tf: int
    df: int
    idf: float
    contribution: float


@dataclass(frozen=True, slots=True)
class Part:
    """What one factor or leg did for a hit.

    `raw` is its own measure (a cosine, a BM25 score, a share), `rank` the hit's place by it
    alone (from 1; None: not found by it). `contribution` is what it adds to the score, and
    `rank_without` the hit's place had the search been run without it (None: not found).
    """

    name: str
    raw: float | None
    weight: float
    contribution: float
    rank: int | None = None
    rank_without: int | None = None
    terms: tuple[Term, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The part as JSON."""
        return {
            "name": self.name, "raw": self.raw, "weight": self.weight,
            "contribution": self.contribution, "rank": self.rank,
            "rank_without": self.rank_without,
            "terms": [
                {"term": each.term, "tf": each.tf, "df": each.df, "idf": each.idf,
                 "contribution": each.contribution}
                for each in self.terms
            ],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one hit has its score and rank, as of position `seq` of the log.

    `version` is the id of the hit's version, `causes` ids of what it names as causes, `edges`
    those causes with their kinds and whatever else the ranking went by. `formula` is one of
    `FORMULAS`, or a text of its own.
    """

    namespace: str
    key: str
    version: str
    seq: int
    score: float
    rank: int
    formula: str
    parts: tuple[Part, ...]
    edges: tuple[Edge, ...] = ()
    causes: tuple[str, ...] = ()
    model: str | None = None

    @property
    def residual(self) -> float:
        """The score less the sum of the parts: nothing but rounding."""
        return self.score - sum(part.contribution for part in self.parts)

    def part(self, name: str) -> Part:
        """The part of that name.

        Raises:
            QueryError: there is none.
        """
        for part in self.parts:
            if part.name == name:
                return part
        names = ", ".join(part.name for part in self.parts)
        raise QueryError(f"no part {name!r} in this explanation; there are {names}")

    def problems(self, db: Store, as_of: AsOf = None) -> list[str]:
        """What does not hold: sums, ids that do not resolve at the moment, edges; [] if all do.

        Args:
            as_of: By default the moment of the search.
        """
        found = []
        if not isfinite(self.score) or not abs(self.residual) <= TOLERANCE:
            found.append(f"the parts add up to {self.score - self.residual:g}, not {self.score:g}")
        for part in self.parts:
            terms = sum(term.contribution for term in part.terms)
            if part.terms and (part.raw is None or not abs(terms - part.raw) <= TOLERANCE):
                found.append(f"the terms of {part.name} add up to {terms:g}, not {part.raw}")
        seq = self.seq if as_of is None else db.as_of(as_of).seq
        version = resolve(db, self.version, seq)
        if version is None:
            found.append(f"version {self.version} is not in the log at {seq}")
        elif (version.namespace, version.key) != (self.namespace, self.key):
            found.append(f"version {self.version} belongs to {version.key!r}, not {self.key!r}")
        named = {cause.id for cause in version.causes} if version is not None else set()
        for cause in self.causes:
            if cause not in named:
                found.append(f"the version does not name {cause} as a cause")
            elif resolve(db, cause, seq) is None:
                found.append(f"cause {cause} is not in the log at {seq}")
        for edge in self.edges:
            if not edge.verify(db, seq):
                found.append(f"no edge {edge.kind} from {edge.effect} to {edge.cause} at {seq}")
        return found

    def verify(self, db: Store, as_of: AsOf = None) -> bool:
        """Whether there are no `problems`."""
        return not self.problems(db, as_of)

    def to_dict(self) -> dict[str, Any]:
        """The explanation as JSON."""
        return {
            "namespace": self.namespace, "key": self.key, "version": self.version,
            "seq": self.seq, "score": self.score, "rank": self.rank, "formula": self.formula,
            "model": self.model, "parts": [part.to_dict() for part in self.parts],
            "edges": [[edge.kind, edge.effect, edge.cause] for edge in self.edges],
            "causes": list(self.causes),
        }  # fmt: skip

    def __str__(self) -> str:
        says = FORMULAS.get(self.formula, self.formula)
        lines = [
            f"#{self.rank} {self.key}  {self.score:.4f}  "
            f"(version {self.version[:12]} at {self.seq}; {says})"
        ]
        for part in self.parts:
            lines.append("  " + "  ".join(_cells(part)))
            lines += [
                f"      {each.term}: {each.contribution:+.4f} "
                f"(tf {each.tf}, df {each.df}, idf {each.idf:.3f})"
                for each in part.terms
            ]
        for edge in self.edges:
            lines.append(f"  {edge.effect[:12]} {edge.kind} {edge.cause[:12]}")
        return "\n".join(lines)

    def __rich__(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(f"#{self.rank} {self.key}  {self.score:.4f}"))
        for heading in ("part", "adds", "weight", "raw", "rank", "rank without"):
            table.add_column(heading, justify="left" if heading == "part" else "right")
        for part in self.parts:
            raw = "" if part.raw is None else f"{part.raw:.4f}"
            table.add_row(
                Text(part.name), f"{part.contribution:+.4f}", f"{part.weight:g}", raw,
                _rank(part.rank), _rank(part.rank_without),
            )  # fmt: skip
            for each in part.terms:
                table.add_row(
                    Text(f"  {each.term}"), "", f"idf {each.idf:.3f}",
                    f"{each.contribution:+.4f}", f"tf {each.tf}", f"df {each.df}",
                )  # fmt: skip
        return table


def explain_proximity(
    found: Proximity, keys: Sequence[str], hit: int, version: Version, seq: int
) -> Explanation:
    """Explain one of the candidates that `proximity_of` scored.

    `rank_without` is its place when all candidates are scored again without the factor;
    None for the only factor there is.

    Args:
        hit: The candidate's place in `keys`.
    """
    parts = []
    for name, contribution in found.contributions.items():
        others = len(found.weights) > 1
        raw = float(found.factors[name][hit])
        parts.append(
            Part(
                name, None if raw != raw else raw, found.weights[name],  # noqa: PLR0124 - NaN
                float(contribution[hit]),
                rank=int(ranks(contribution, keys)[hit]),
                rank_without=int(found.without(name).ranks(keys)[hit]) if others else None,
            )
        )  # fmt: skip
    return Explanation(
        version.namespace, keys[hit], version.id, seq, float(found.scores[hit]),
        int(found.ranks(keys)[hit]), "proximity", tuple(parts),
        edges=tuple(Edge(cause.kind, version.id, cause.id) for cause in version.causes),
        causes=tuple(cause.id for cause in version.causes),
    )  # fmt: skip


def rrf_part(
    name: str,
    rank: int | None,
    raw: float | None,
    *,
    weight: float = 1.0,
    damping: int = 60,
    rank_without: int | None = None,
    terms: Sequence[Term] = (),
) -> Part:
    """What a leg adds under reciprocal rank fusion: `weight / (damping + rank)`, or nothing."""
    adds = 0.0 if rank is None else weight / (damping + rank)
    return Part(name, raw, weight, adds, rank, rank_without, tuple(terms))


def scaled_part(
    name: str, before: float, factor: float, *, raw: float | None = None,
    rank_without: int | None = None,
) -> Part:  # fmt: skip
    """What multiplying a score by a factor (of age, say) does to it, as something added."""
    return Part(name, raw, factor, before * (factor - 1.0), rank_without=rank_without)


def _cells(part: Part) -> list[str]:
    cells = [f"{part.contribution:+.4f}", part.name]
    if part.raw is not None:
        cells.append(f"{part.raw:.4f} x {part.weight:g}")
    if part.rank is not None:
        cells.append(f"its own #{part.rank}")
    if part.rank_without is not None:
        cells.append(f"without it #{part.rank_without}")
    return cells


def _rank(rank: int | None) -> str:
    return "" if rank is None else str(rank)
