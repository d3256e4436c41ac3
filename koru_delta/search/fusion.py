"""Rankings made into one: reciprocal ranks or scores, diversity, groups. Arrays in, lists out.

A ranking is a list of hits `(minus the score, key, position of the version)`, best first,
as every search here gives it. Fusing looks at `window` hits of each; what lies beyond is
fused by itself and comes after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from koru_delta.errors import QueryError
from koru_delta.search.nearest import Hit

Fusion = Literal["rrf", "score"]
Mode = Literal["hybrid", "vector", "text"]
FUSIONS: Final = ("rrf", "score")
MODES: Final = ("hybrid", "vector", "text")
LEGS: Final = ("vector", "text")
DAMPING: Final = 60  # of reciprocal ranks


@dataclass(frozen=True, slots=True)
class Leg:
    """One ranking of a search: its name, its weight, its hits, and whether these are all."""

    name: str
    weight: float
    hits: Sequence[Hit]
    complete: bool


@dataclass(slots=True)
class Candidate:
    """A hit of at least one leg. `parts` are what each leg adds; they sum to `score`."""

    key: str
    seq: int
    score: float
    parts: dict[str, float]
    ranks: dict[str, int]  # in each leg that has it, from 1
    scores: dict[str, float]  # likewise, as the leg gave it
    window: int = 0  # of the ranking, the first being 0; all of one come before the next
    decay: float = 1.0  # what its age left of the score, in (0, 1]


def fuse(legs: Sequence[Leg], window: int, fusion: Fusion) -> list[Candidate]:
    """The hits of some legs in one order: best first, equal scores in key order.

    With "rrf" a hit at rank r (the first is 1) earns weight / (60 + r) from a leg
    (reciprocal rank fusion: Cormack, Clarke & Buettcher, SIGIR 2009). With "score" it earns
    weight times its score, scaled so that the leg's best is 1 and its worst in the window
    0 (where all are equal, 1). What a leg does not have earns nothing from it.

    Beyond the first window there is one as large, and each that follows is twice as large. What a
    window adds comes after what is in those before it.
    """
    found: list[Candidate] = []
    given: set[str] = set()
    depth = max((len(leg.hits) for leg in legs), default=0)
    start, stop, number = 0, window, 0
    while start < depth:
        some: dict[str, Candidate] = {}
        for leg in legs:
            hits = leg.hits[start:stop]
            for place, (earned, (least, key, seq)) in enumerate(
                zip(_earned(leg, hits, start, fusion), hits, strict=True), start + 1
            ):
                if key in given:
                    continue
                candidate = some.get(key)
                if candidate is None:
                    candidate = some[key] = Candidate(key, seq, 0.0, {}, {}, {}, number)
                candidate.parts[leg.name] = earned
                candidate.ranks[leg.name] = place
                candidate.scores[leg.name] = -least
        for candidate in some.values():
            candidate.score = sum(candidate.parts.values())
        found += sorted(some.values(), key=lambda each: (-each.score, each.key))
        given |= some.keys()
        start, stop, number = stop, 2 * stop, number + 1
    return found


def whole_windows(wanted: int, window: int) -> int:
    """The least depth from `wanted` on at which a window ends.

    >>> [whole_windows(wanted, 50) for wanted in (0, 50, 51, 101)]
    [50, 50, 100, 200]
    """
    while window < wanted:
        window *= 2
    return window


def _earned(leg: Leg, hits: Sequence[Hit], start: int, fusion: Fusion) -> list[float]:
    if fusion == "rrf":
        return [leg.weight / (DAMPING + start + rank) for rank in range(1, len(hits) + 1)]
    if not hits:
        return []
    best, worst = -hits[0][0], -hits[-1][0]
    spread = best - worst
    if not spread > 0 or not isfinite(spread):
        return [leg.weight] * len(hits)
    return [leg.weight * (-least - worst) / spread for least, _, _ in hits]


def alone(leg: Leg, window: int) -> list[Candidate]:
    """The hits of one leg, with its own scores; windows are those of `fuse`."""
    name = leg.name
    return [
        Candidate(key, seq, -least, {name: -least}, {name: place + 1}, {name: -least},
                  (place // window).bit_length())
        for place, (least, key, seq) in enumerate(leg.hits)
    ]  # fmt: skip


def diverse(
    relevance: Sequence[float],
    vectors: npt.NDArray[np.float32],
    k: int,
    balance: float,
) -> list[int]:
    """Up to `k` places of candidates, in the order that maximal marginal relevance takes them.

    Each step takes the candidate with the greatest `balance * relevance - (1 - balance) *
    (greatest cosine to what was taken)`; equal ones in the order given. Relevance is scaled
    to [0, 1] first. Source: Carbonell & Goldstein, SIGIR 1998.

    Args:
        vectors: Shape (candidates, dimensions); a row of zeros is like nothing else.
        balance: 1 ranks by relevance alone, 0 by difference alone.
    """
    count = len(relevance)
    if not count:
        return []
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1)
    np.divide(wide, lengths[:, None], out=wide, where=lengths[:, None] > 0)
    wanted = np.asarray(relevance, dtype=np.float64)
    spread = wanted.max() - wanted.min()
    wanted = (wanted - wanted.min()) / spread if spread > 0 else np.ones(count)
    nearest = np.full(count, -np.inf)
    left = np.ones(count, dtype=np.bool_)
    chosen: list[int] = []
    while len(chosen) < min(k, count):
        gain = balance * wanted
        if chosen:
            gain = gain - (1 - balance) * nearest
        gain[~left] = -np.inf
        best = int(np.argmax(gain))  # the first of equal ones
        chosen.append(best)
        left[best] = False
        np.maximum(nearest, wide @ wide[best], out=nearest)
    return chosen


def checked_weights(weights: object, legs: Sequence[str]) -> dict[str, float]:
    """The weight of each leg: 1 unless told otherwise.

    Raises:
        QueryError: an unknown leg, a weight that is negative or no number, or none above 0.
    """
    found = dict.fromkeys(legs, 1.0)
    if weights is None:
        return found
    if not isinstance(weights, Mapping):
        raise QueryError(
            f"weights are by leg, such as {{'vector': 1, 'text': 0.5}}, not {weights!r}"
        )
    for name, weight in weights.items():
        if name not in LEGS:
            raise QueryError(f"there is no leg {name!r}; weights are for {', '.join(LEGS)}")
        if (
            isinstance(weight, bool)
            or not isinstance(weight, (int, float, np.integer, np.floating))
            or not isfinite(weight)
            or weight < 0
        ):
            raise QueryError(f"the weight of {name} is a number from 0 on, not {weight!r}")
        if name in found:
            found[name] = float(weight)
    if not any(found.values()):
        raise QueryError("all weights are 0: nothing is left to rank by; give one leg more")
    return found
