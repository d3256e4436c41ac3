"""Rankings made into one: reciprocal ranks or scores, diversity, groups. Arrays in, lists out.

A ranking is a list of hits `(minus the score, key, position of the version)`, best first,
as every search here gives it. Fusing looks at `window` hits of each; what lies beyond is
fused by itself and comes after.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from koru_delta.errors import QueryError
from koru_delta.search.scoring import Hit

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


class Earned(NamedTuple):
    """What one leg adds to a candidate; rank 0 where the leg does not have it."""

    leg: str
    part: float
    rank: int  # from 1
    score: float  # as the leg gave it


@dataclass(slots=True)
class Candidate:
    """A hit of at least one leg."""

    key: str
    seq: int
    score: float  # the sum of what the legs add, times `decay`
    earned: list[Earned]
    window: int = 0  # of the ranking, the first being 0; all of one come before the next
    decay: float = 1.0  # what its age left of the score, in (0, 1]

    @property
    def parts(self) -> dict[str, float]:
        """What each leg adds; they sum to `score`."""
        return {each.leg: each.part * self.decay for each in self.earned}

    @property
    def ranks(self) -> dict[str, int]:
        """The rank in each leg that has it, from 1."""
        return {each.leg: each.rank for each in self.earned if each.rank}

    @property
    def scores(self) -> dict[str, float]:
        """Likewise the score, as the leg gave it."""
        return {each.leg: each.score for each in self.earned if each.rank}


def fuse(legs: Sequence[Leg], window: int, fusion: Fusion) -> list[Candidate]:
    """The hits of some legs in one order: best first, equal scores in key order.

    With "rrf" a hit at rank r (the first is 1) earns weight / (60 + r) from a leg
    (reciprocal rank fusion: Cormack, Clarke & Buettcher, SIGIR 2009). With "score" it earns
    weight times its score, scaled so that the leg's best is 1 and its worst in the window
    0 (where all are equal, 1). What a leg does not have earns nothing from it. In each window
    after the first, every leg takes off once more the most it gives, so that scores go on
    falling.
    """
    found: list[Candidate] = []
    given: set[str] = set()
    depth = max((len(leg.hits) for leg in legs), default=0)
    most = 1.0 if fusion == "score" else 1 / (DAMPING + 1)
    for step, start in enumerate(range(0, depth, window)):
        below = step * most
        some: dict[str, Candidate] = {}
        for leg in legs:
            hits = leg.hits[start : start + window]
            parts = _earned(leg, hits, start, fusion)
            for rank, (part, (least, key, seq)) in enumerate(
                zip(parts, hits, strict=True), start + 1
            ):
                if key in given:
                    continue
                earned = Earned(leg.name, part - below * leg.weight, rank, -least)
                candidate = some.get(key)
                if candidate is None:
                    some[key] = Candidate(key, seq, earned.part, [earned], step)
                else:
                    candidate.score += earned.part
                    candidate.earned.append(earned)
        if below:
            _take_off(legs, some.values(), below)
        found += sorted(some.values(), key=lambda each: (-each.score, each.key))
        given |= some.keys()
    return found


def whole_windows(wanted: int, window: int) -> int:
    """The least depth from `wanted` on at which a window ends.

    >>> [whole_windows(wanted, 50) for wanted in (0, 50, 51, 101)]
    [50, 50, 100, 150]
    """
    return max(1, -(-wanted // window)) * window


def _take_off(legs: Sequence[Leg], candidates: Iterable[Candidate], below: float) -> None:
    """Let legs that lack a candidate take off what they take off those they have."""
    for each in candidates:
        has = {earned.leg for earned in each.earned}
        for leg in legs:
            if leg.name not in has:
                each.earned.append(Earned(leg.name, -below * leg.weight, 0, 0.0))
                each.score -= below * leg.weight


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
    return [
        Candidate(key, seq, -least, [Earned(leg.name, -least, rank, -least)], (rank - 1) // window)
        for rank, (least, key, seq) in enumerate(leg.hits, 1)
    ]


def diverse(
    relevance: Sequence[float],
    vectors: npt.NDArray[np.float32],
    k: int,
    balance: float,
    *,
    cosines: bool = False,
) -> list[int]:
    """Up to `k` places of candidates, in the order that maximal marginal relevance takes them.

    Each step takes the candidate with the greatest `balance * relevance - (1 - balance) *
    (greatest cosine to what was taken)`; equal ones in the order given. Relevance is scaled
    to [0, 1] first, unless it is `cosines`, which are measured alike. Source: Carbonell &
    Goldstein, SIGIR 1998.

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
    if not cosines:
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
