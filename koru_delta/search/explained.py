"""Why hits were found: explanations made when somebody asks for them.

A search at a cut never changes, so its hits can be explained later as well as at once:
the legs are asked again, and once more without each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from koru_delta.causal import Cut, Version
from koru_delta.log import CausalLog
from koru_delta.search.fusion import Candidate
from koru_delta.search.hybrid import Asked, Question, Ranked, TextLeg
from koru_delta.search.nearest import VectorSpace
from koru_delta.search.scoring import Hit
from koru_delta.search.synthesis.explanation import Explanation, Part, Term, scaled_part
from koru_delta.search.synthesis.relations import Edge

Why = Callable[[], list[Explanation]]
_FORMULAS: Final = {"cosine": "cosine", "dot": "dot", "l2": "l2"}
_LOOKED_AT: Final = 1000  # hits of a search without a leg, among which a place is looked for


def of_similar(log: CausalLog, space: VectorSpace, cut: Cut, hits: Sequence[Hit]) -> Why:
    """Why a search by vector alone found its hits."""

    def made() -> list[Explanation]:
        versions = log.versions([seq for _, _, seq in hits])
        formula = _FORMULAS[space.space.metric]
        return [
            _explained(
                version, cut, -least, place, formula, (Part("vector", -least, 1.0, -least, place),),
                space.space.model,
            )
            for place, ((least, _, _), version) in enumerate(zip(hits, versions, strict=True), 1)
        ]  # fmt: skip

    return made


def explained(question: Question, found: Ranked, log: CausalLog) -> list[Explanation]:
    """Why a search found its hits."""
    asked, space = question.asked, question.space
    versions = log.versions([each.seq for each in found.candidates])
    terms = _terms(asked, found.candidates, question.texts)
    # Of what is chosen for its difference, more would be other ones.
    k = asked.k if asked.balance is not None else max(asked.k, _LOOKED_AT)

    def places(**changes: Any) -> dict[str, int]:
        again = question.ranked(log, k=k, recall=1.0, cursor=None, **changes)
        return {each.key: place for place, each in enumerate(again.candidates, 1)}

    without: dict[str, dict[str, int]] = {}
    if len(asked.weights) > 1:
        for name in asked.weights:
            others = {leg: weight for leg, weight in asked.weights.items() if leg != name}
            without[name] = places(weights=others)
    aged = {} if asked.half_life is None else places(half_life=None)
    formula: str
    if len(asked.weights) > 1:
        formula = asked.fusion
    elif "text" in asked.weights:
        formula = "bm25"
    else:
        formula = "cosine" if space is None else _FORMULAS[space.space.metric]
    made = []
    first = 1 if asked.cursor is None else 1 + len(asked.cursor.marks)
    for place, (each, version) in enumerate(zip(found.candidates, versions, strict=True), first):
        parts = []
        for name, weight in asked.weights.items():
            parts.append(
                Part(
                    name,
                    each.scores.get(name),
                    weight if len(asked.weights) > 1 else 1.0,
                    each.parts.get(name, 0.0) / each.decay,
                    each.ranks.get(name),
                    without.get(name, {}).get(each.key),
                    terms[place - first] if name == "text" and name in each.ranks else (),
                )
            )
        if asked.half_life is not None and each.decay != 1.0:
            before = each.score / each.decay
            parts.append(scaled_part("age", before, each.decay, rank_without=aged.get(each.key)))
        model = None if space is None else space.space.model
        made.append(_explained(version, asked.cut, each.score, place, formula, tuple(parts), model))
    return made


def _terms(
    asked: Asked, candidates: Sequence[Candidate], texts: TextLeg | None
) -> list[tuple[Term, ...]]:
    if texts is None or "text" not in asked.weights or not asked.text.strip():
        return [()] * len(candidates)
    return [
        tuple(Term(*each) for each in earned if each.tf)
        for earned in texts.explain(
            asked.text, [each.seq for each in candidates], asked.cut, asked.valid_at,
            where=asked.where, causal=asked.causal, syntax=asked.syntax,
        )
    ]  # fmt: skip


def _explained(
    version: Version,
    cut: Cut,
    score: float,
    place: int,
    formula: str,
    parts: tuple[Part, ...],
    model: str | None,
) -> Explanation:
    return Explanation(
        version.namespace, version.key, version.id, cut.seq, score, place, formula, parts,
        edges=tuple(Edge(cause.kind, version.id, cause.id) for cause in version.causes),
        causes=tuple(cause.id for cause in version.causes),
        model=model,
    )  # fmt: skip
