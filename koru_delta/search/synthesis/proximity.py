"""How near candidates are to a query: a weighted mean of factors, each in [0, 1].

    P = sum(w_i * f_i) / sum(w_i)   over the factors that are available

- geometric: `max(0, cosine)` of query and candidate.
- semantic: the share of the query's distinctions (terms, tags, entities), weighted by
  their inverse document frequency, that the candidate has too.
- causal: `0.5 ** hops` to the nearest anchor, over typed edges of the log; 0 beyond 4.
- temporal: `0.5 ** (|dt| / half_life)`.
- compositional: `max(0, cosine)` with the query composed with its context.

Everything here is arithmetic over arrays of shape (candidates,); nothing reads a log. A
factor weighs something by default only once `python -m benchmarks synthesis` let it pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, log
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from koru_delta.errors import QueryError

Scores = npt.NDArray[np.float64]
FactorName = Literal["geometric", "semantic", "causal", "temporal", "compositional"]

FACTORS: Final[tuple[str, ...]] = (
    "geometric", "semantic", "causal", "temporal", "compositional",
)  # fmt: skip
DEFAULT_WEIGHTS: Final[Mapping[str, float]] = MappingProxyType(
    {"geometric": 1.0, "semantic": 0.0, "causal": 0.0, "temporal": 0.0, "compositional": 0.0}
)
MOST_HOPS: Final = 4
_SMALL, _LARGE = 1e-280, 1e280  # squares of lengths between these are exact enough
_SLACK = 1e-9  # by which rounding may carry a factor out of [0, 1]


@dataclass(frozen=True, slots=True, eq=False)
class Proximity:
    """Scores of candidates, and what each factor contributed. Arrays of shape (candidates,).

    `factors` are raw, NaN where a candidate lacks one; `contributions` are 0 there, and
    add up to `scores`. `weights` are those that were used.
    """

    scores: Scores
    factors: Mapping[str, Scores]
    weights: Mapping[str, float]
    contributions: Mapping[str, Scores]

    def without(self, name: str) -> Proximity:
        """The same candidates scored as if one factor were not there.

        Raises:
            QueryError: no such factor, or no other one has a weight.
        """
        if name not in self.factors:
            raise QueryError(f"no factor {name!r} was used; there are {', '.join(self.factors)}")
        rest = {other: values for other, values in self.factors.items() if other != name}
        return proximity_of(rest, {**dict.fromkeys(FACTORS, 0.0), **self.weights, name: 0.0})

    def ranks(self, keys: Sequence[str]) -> npt.NDArray[np.int64]:
        """The rank of each candidate, the best is 1; equal scores by key."""
        return ranks(self.scores, keys)


def proximity_of(
    factors: Mapping[str, npt.ArrayLike | None], weights: Mapping[str, float] | None = None
) -> Proximity:
    """Weigh factors into one score for each candidate.

    Args:
        factors: By name, shape (candidates,), in [0, 1]. None: not available; NaN: not
            available for that candidate, whose other factors are weighed alone.
        weights: By name, finite and not negative; what is left out is as in
            `DEFAULT_WEIGHTS`. Weights of factors that are not available count for nothing.

    Raises:
        QueryError: an unknown factor, a weight that is no such number, no weight above zero
            on what is available, or a factor outside of [0, 1] or of another length.

    >>> found = proximity_of({"geometric": [0.75, 0.5], "semantic": [0, 1]},
    ...                      {"geometric": 3, "semantic": 1})
    >>> found.scores.tolist()
    [0.5625, 0.625]
    """
    used = check_weights(weights)
    given: dict[str, Scores] = {}
    everywhere = set()
    for name, values in factors.items():
        if values is not None:
            given[name], whole = _checked(name, values)
            if whole:
                everywhere.add(name)
    if len({len(values) for values in given.values()}) > 1:
        lengths = ", ".join(f"{name} has {len(values)}" for name, values in given.items())
        raise QueryError(f"factors are of the same candidates, but {lengths}")
    given = {name: given[name] for name in FACTORS if name in given}
    kept = {name: used[name] for name in given if used[name] > 0}
    if not kept:
        raise QueryError(
            "no factor that is available has a weight above zero; "
            f"available are: {', '.join(given) or 'none'}"
        )
    count = len(next(iter(given.values())))
    contributions: dict[str, Scores]
    if everywhere.issuperset(kept):
        largest = max(kept.values())  # so that weights of any size neither overflow nor vanish
        total = sum(weight / largest for weight in kept.values())
        contributions = {
            name: given[name] * (weight / largest / total) for name, weight in kept.items()
        }
    else:
        contributions = _contributions(given, kept, count)
    scores = np.zeros(count)
    for part in contributions.values():
        scores += part
    return Proximity(scores, given, kept, contributions)


def _contributions(
    given: Mapping[str, Scores], weights: Mapping[str, float], count: int
) -> dict[str, Scores]:
    """Of each factor, where some candidates lack some."""
    known = {name: ~np.isnan(given[name]) for name in weights}
    largest = np.zeros(count)
    for name, weight in weights.items():
        np.maximum(largest, weight, out=largest, where=known[name])
    shares = {
        name: np.divide(weight, largest, out=np.zeros(count), where=known[name])
        for name, weight in weights.items()
    }
    whole = np.maximum(sum(shares.values()), 1.0)  # 1 only where nothing is known
    return {
        name: np.where(known[name], given[name], 0.0) * (share / whole)
        for name, share in shares.items()
    }


def check_weights(weights: Mapping[str, float] | None) -> dict[str, float]:
    """A weight for every factor, those left out as in `DEFAULT_WEIGHTS`.

    Raises:
        QueryError: an unknown factor; a weight that is negative, NaN, infinite or no number;
            or all of them zero.
    """
    found = dict(DEFAULT_WEIGHTS)
    for name, weight in ({} if weights is None else weights).items():
        if name not in found:
            raise QueryError(f"unknown factor {name!r}; the factors are {', '.join(FACTORS)}")
        number: Any = weight
        if (
            isinstance(number, (bool, np.bool_))
            or not isinstance(number, (int, float, np.integer, np.floating))
            or not isfinite(number)
            or number < 0
        ):
            raise QueryError(f"the weight of {name} is a number from 0 on, not {weight!r}")
        found[name] = float(number)
    if not any(found.values()):
        raise QueryError("all weights are zero, so nothing would be near; give one a weight")
    return found


def ranks(scores: Scores, keys: Sequence[str]) -> npt.NDArray[np.int64]:
    """The rank of each score, the best is 1; equal scores by key."""
    order = sorted(range(len(keys)), key=lambda n: (-scores[n], keys[n]))
    found = np.empty(len(keys), dtype=np.int64)
    found[order] = np.arange(1, len(keys) + 1)
    return found


# The factors


def geometric(query: npt.ArrayLike, vectors: npt.ArrayLike) -> Scores:
    """`max(0, cosine)` of a query (dimensions,) with vectors (candidates, dimensions).

    NaN for a candidate that is a zero vector: it points nowhere.

    Raises:
        QueryError: a zero query, numbers that are not finite, or other dimensions.
    """
    rows = _matrix(vectors)
    wide = unit(query)
    if rows.shape[1] != len(wide):
        raise QueryError(f"the query has {len(wide)} numbers, the candidates {rows.shape[1]}")
    with np.errstate(over="ignore", under="ignore"):
        squares = np.vecdot(rows, rows)
    if len(rows) and not (squares.min() > _SMALL and squares.max() < _LARGE):
        # Lengths that float64 cannot square; and zero vectors.
        scales = np.abs(rows).max(axis=1)
        rows = rows / np.where(scales > 0, scales, 1.0)[:, None]
        squares = np.vecdot(rows, rows)
    found = np.full(len(rows), np.nan)
    np.divide(np.vecdot(rows, wide), np.sqrt(squares), out=found, where=squares > 0)
    return np.clip(found, 0.0, 1.0, out=found)


def compositional(query: npt.ArrayLike, context: npt.ArrayLike, vectors: npt.ArrayLike) -> Scores:
    """`max(0, cosine)` with `compose(query, context)`; context is (some, dimensions)."""
    return geometric(compose(query, context), vectors)


def compose(query: npt.ArrayLike, context: npt.ArrayLike) -> Scores:
    """The direction halfway between a query and its context: `unit(unit(q) + unit(mean))`.

    The mean is of the context's unit vectors, so each counts the same.

    Raises:
        QueryError: no context, a zero vector, or query and context cancel each other.
    """
    rows = _matrix(context)
    if not len(rows):
        raise QueryError("there is no context to compose the query with")
    mean = unit(np.mean([unit(row) for row in rows], axis=0))
    return unit(unit(query) + mean)


def causal(hops: npt.ArrayLike) -> Scores:
    """`0.5 ** hops` of distances (candidates,) to the nearest anchor; beyond 4 hops it is 0.

    Raises:
        QueryError: a distance that is negative or NaN.
    """
    distances = np.asarray(hops, dtype=np.float64)
    if distances.ndim != 1 or not (distances >= 0).all():
        raise QueryError("hops is a list of distances, each from 0 on (infinite: no path)")
    return np.where(distances <= MOST_HOPS, 0.5**distances, 0.0)


def temporal(times: npt.ArrayLike, at: float, half_life: float) -> Scores:
    """`0.5 ** (|time - at| / half_life)`, all three in one unit of time.

    Raises:
        QueryError: the half life is not above zero, or something is not finite.
    """
    if not isfinite(half_life) or half_life <= 0:
        raise QueryError(f"half_life is a length of time above zero, not {half_life!r}")
    moments = np.asarray(times, dtype=np.float64)
    if moments.ndim != 1 or not np.isfinite(moments).all() or not isfinite(at):
        raise QueryError("times is a list of moments, and so is `at` one; all are finite")
    found: Scores = 0.5 ** (np.abs(moments - at) / half_life)
    return found


class Distinctions:
    """Which distinctions (terms, tags, entities) candidates have, to be overlapped with.

    Built once for a set of candidates, asked by many queries: a query adds up one array
    for each of its distinctions.
    """

    def __init__(
        self, candidates: Sequence[Iterable[str]], idf: Callable[[str], float] | None = None
    ) -> None:
        """Take up the distinctions of each candidate.

        Args:
            idf: The weight of a distinction, not negative. By default
                `log(1 + (n - df + 0.5) / (df + 0.5))` over these candidates, as in BM25.
        """
        self._count = len(candidates)
        numbers: dict[str, int] = {}
        rows: list[int] = []
        terms: list[int] = []
        for row, found in enumerate(candidates):
            for term in dict.fromkeys(found):
                rows.append(row)
                terms.append(numbers.setdefault(term, len(numbers)))
        named = np.array(terms, dtype=np.int64)
        order = np.argsort(named, kind="stable")
        self._numbers = numbers
        self._rows = np.array(rows, dtype=np.int64)[order]
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(named, minlength=len(numbers)))])
        self._given = idf
        self._weights = np.array([self.idf(term) for term in numbers], dtype=np.float64)
        self._sizes = np.bincount(
            self._rows, weights=self._weights[named[order]], minlength=self._count
        )

    def __len__(self) -> int:
        return self._count

    def df(self, term: str) -> int:
        """How many candidates have a distinction."""
        number = self._numbers.get(term)
        return 0 if number is None else int(self._starts[number + 1] - self._starts[number])

    def idf(self, term: str) -> float:
        """The weight of a distinction, also of one that nobody has.

        Raises:
            QueryError: the callable gave something negative or not finite.
        """
        if self._given is None:
            df = self.df(term)
            return log(1 + (self._count - df + 0.5) / (df + 0.5))
        weight = float(self._given(term))
        if not isfinite(weight) or weight < 0:
            raise QueryError(f"the idf of {term!r} is a number from 0 on, not {weight!r}")
        return weight

    def semantic(
        self, query: Collection[str], *, measure: Literal["containment", "jaccard"] = "containment"
    ) -> Scores:
        """How much of the query's distinctions each candidate has, shape (candidates,).

        Args:
            measure: "containment" is `sum idf(shared) / sum idf(query)`, whatever else a
                candidate has; "jaccard" is `sum idf(shared) / sum idf(either)`, for
                candidates about as long as the query. What nobody has counts in the query.

        All zero for a query without distinctions (or with none that weighs anything).
        """
        if measure not in ("containment", "jaccard"):
            raise QueryError(f"measure is 'containment' or 'jaccard', not {measure!r}")
        shared = np.zeros(self._count)
        whole = 0.0
        for term in dict.fromkeys(query):
            number = self._numbers.get(term)
            if number is None:
                whole += self.idf(term)
                continue
            weight = float(self._weights[number])
            whole += weight
            shared[self._rows[self._starts[number] : self._starts[number + 1]]] += weight
        if whole <= 0:
            return shared
        most: float | Scores = whole
        if measure == "jaccard":
            most = np.maximum(whole + self._sizes - shared, whole)
        shared /= most
        return np.minimum(shared, 1.0, out=shared)


# Vectors


def unit(vector: npt.ArrayLike) -> Scores:
    """A vector's direction in float64.

    Raises:
        QueryError: it is zero, not finite, or no vector of numbers.
    """
    try:
        wide = np.asarray(vector, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise QueryError(f"not a vector of numbers: {error}") from error
    if wide.ndim != 1 or not wide.size or not np.isfinite(wide).all():
        raise QueryError("a direction is a vector of finite numbers")
    largest = float(np.abs(wide).max())
    if not largest:
        raise QueryError("a zero vector points nowhere")
    wide = wide / largest
    found: Scores = wide / np.sqrt(np.add.reduce(wide * wide))
    return found


def _matrix(vectors: npt.ArrayLike) -> Scores:
    try:
        rows = np.asarray(vectors, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise QueryError(f"not vectors of one length: {error}") from error
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise QueryError("vectors have the shape (candidates, dimensions) and finite numbers")
    return rows


def _checked(name: str, values: npt.ArrayLike) -> tuple[Scores, bool]:
    """A factor as an array, and whether every candidate has it."""
    if name not in FACTORS:
        raise QueryError(f"unknown factor {name!r}; the factors are {', '.join(FACTORS)}")
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise QueryError(f"factor {name} is not a list of numbers: {error}") from error
    if found.ndim != 1:
        raise QueryError(f"factor {name} is one number for each candidate, not {found.ndim}-d")
    low, high = float(found.min(initial=0.0)), float(found.max(initial=0.0))
    if low >= 0 and high <= 1:
        return found, True
    known = found[~np.isnan(found)]
    low, high = float(known.min(initial=0.0)), float(known.max(initial=0.0))
    if low < -_SLACK or high > 1 + _SLACK:
        raise QueryError(f"factor {name} lies in [0, 1], and has {low if low < 0 else high:g}")
    return np.clip(found, 0.0, 1.0), len(known) == len(found)
