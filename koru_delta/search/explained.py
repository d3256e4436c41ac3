"""Why hits were found: explanations made when somebody asks for them.

A search at a cut never changes, so its hits can be explained later as well as at once:
the legs are asked again, and once more without each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np

from koru_delta.causal import Cut, Version
from koru_delta.log import CausalLog
from koru_delta.search.fusion import Candidate
from koru_delta.search.hybrid import Asked, Ranked, rank
from koru_delta.search.nearest import Hit, Target, VectorSpace
from koru_delta.search.synthesis.explanation import Explanation, Part, Term, scaled_part
from koru_delta.search.synthesis.relations import Edge
from koru_delta.search.texts import TextIndex

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


def of_search(
    asked: Asked,
    found: Ranked,
    log: CausalLog,
    texts: TextIndex | None,
    space: VectorSpace | None,
    target: Target | None,
) -> Why:
    """Why a search found its hits."""
    return partial(_search, asked, found, log, texts, space, target)


def _search(
    asked: Asked,
    found: Ranked,
    log: CausalLog,
    texts: TextIndex | None,
    space: VectorSpace | None,
    target: Target | None,
) -> list[Explanation]:
    versions = log.versions([each.seq for each in found.candidates])
    terms = _terms(asked, found.candidates, texts)
    without: dict[str, dict[str, int]] = {}
    if len(asked.weights) > 1:
        for name in asked.weights:
            others = {leg: weight for leg, weight in asked.weights.items() if leg != name}
            again = rank(
                replace(asked, weights=others, k=max(asked.k, _LOOKED_AT), recall=1.0, cursor=None),
                log, texts, space, target,
            )  # fmt: skip
            without[name] = {each.key: place for place, each in enumerate(again.candidates, 1)}
    aged: dict[str, int] = {}
    if asked.half_life is not None:
        again = rank(
            replace(asked, half_life=None, k=max(asked.k, _LOOKED_AT), recall=1.0, cursor=None),
            log, texts, space, target,
        )  # fmt: skip
        aged = {each.key: place for place, each in enumerate(again.candidates, 1)}
    if len(asked.weights) > 1:
        formula = asked.fusion
    elif "text" in asked.weights:
        formula = "bm25"
    else:
        formula = "cosine" if space is None else _FORMULAS[space.space.metric]
    explained = []
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
                    terms[place - first] if name == "text" else (),
                )
            )
        if asked.half_life is not None and each.decay != 1.0:
            before = each.score / each.decay
            parts.append(
                scaled_part("age", before, each.decay, rank_without=aged.get(each.key))
            )
        model = None if space is None else space.space.model
        explained.append(
            _explained(version, asked.cut, each.score, place, formula, tuple(parts), model)
        )
    return explained


def _terms(
    asked: Asked, candidates: Sequence[Candidate], texts: TextIndex | None
) -> list[tuple[Term, ...]]:
    if texts is None or "text" not in asked.weights or not asked.text.strip():
        return [()] * len(candidates)
    query = texts.parse(asked.text, syntax=asked.syntax)
    reading, among = texts.at(asked.cut, asked.valid_at, where=asked.where, causal=asked.causal)
    seqs = np.array([each.seq for each in candidates], dtype=np.int64)
    slots = reading.slots_at(seqs).tolist()
    return [
        tuple(
            Term(each.label, each.tf, each.df, each.idf, each.contribution)
            for each in among.explain(query, slot)
            if each.tf
        )
        for slot in slots
    ]


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
