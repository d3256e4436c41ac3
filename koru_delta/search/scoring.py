"""Scores of vectors: quick ones with a bound on their error, and exact ones.

Exact scores are in float64, each from its own vector alone, so that a score depends on two
vectors and nothing else and a search can be repeated exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from koru_delta.search.readings import TINY, Reading, Scores, SpaceReadings
from koru_delta.search.seen import Mask, Numbers
from koru_delta.search.truth import Matrix, Truth
from koru_delta.values import Vector

_FLOAT32_STEP = 2.0**-24  # relative error of one float32 operation
_FLOAT32_SMALL = 2.0**-126  # below it, float32 loses digits or becomes zero
_FLOAT64_STEP = 2.0**-52
_ROWS_AT_ONCE = 8192
_PAIRS_AT_ONCE = 512
_ROUNDED: Final = 1e-12  # relative, of float64
_BY_HAND: Final = 32  # rows
_ALL_POSSIBLE: Final = 64  # so few rows that it is quicker not to choose from them

Hit = tuple[float, str, int]  # minus the score, key, position of the version: best is least


class Target(NamedTuple):
    """A query made ready: its numbers, the same in float64, and the square of its length."""

    vector: Vector
    wide: Scores
    square: float

    @classmethod
    def of(cls, vector: Vector) -> Target:
        """From a vector; one that is not finite has no finite square."""
        wide = vector.astype(np.float64)
        return cls(vector, wide, float(np.add.reduce(wide * wide)))


class Scoring(SpaceReadings):
    """Scores of the vectors of a space: estimates with their errors, and exact ones."""

    # Estimates

    def near(self, truth: Truth, query: Vector | Matrix, start: int, stop: int) -> Matrix:
        """Float32 scores (for l2, in the same order) of the slots `start` to `stop`.

        Of one query, or a row for each of several.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            return self._ranked(truth, truth.products(query, start, stop), slice(start, stop))

    def _ranked(self, truth: Truth, products: Matrix, slots: Numbers | slice) -> Matrix:
        """Scores, or for l2 what is in their order, from products with these slots."""
        if self.space.metric == "cosine":
            return products * truth.scales[slots]
        if self.space.metric == "l2":
            return (2 * products - truth.squares[slots]).astype(np.float32)
        return products

    def _estimates(
        self, truth: Truth, products: Matrix, slots: Numbers | slice, target: Target
    ) -> tuple[Any, Any] | None:
        """What is in the order of the scores of these slots, and how wrong it may be.

        None where float32 does not reach.
        """
        size = self.space.dimensions
        length = sqrt(target.square)
        if self.space.metric == "cosine":
            near = products * truth.scales[slots]
            if not np.isfinite(near.sum()):
                return None
            # Only the rows are of length one here; no scale is above one over TINY.
            return near, (size + 8) * (_FLOAT32_STEP * length + _FLOAT32_SMALL / TINY)
        squares = truth.squares[slots]
        lengths = np.sqrt(squares)
        scores = products.astype(np.float64)
        errors = size * (_FLOAT32_STEP * length * lengths + _FLOAT32_SMALL)
        if self.space.metric == "l2":
            # -|x - q|^2 without its constant |q|^2: the same order as minus the distance.
            scores = 2 * scores - squares
            errors = 2 * errors + size * _FLOAT64_STEP * (length + lengths) ** 2
        return (scores, errors) if np.isfinite(scores).all() else None

    def _estimate_of(self, target: Target, score: float) -> float:
        """What an estimate is, at least, of whatever has this score."""
        if self.space.metric == "cosine":
            exact = score * sqrt(target.square)
        else:
            exact = target.square - score * score if self.space.metric == "l2" else score
        larger = max(abs(exact), target.square if self.space.metric == "l2" else 0.0)
        return exact - _ROUNDED * larger

    def _possible(
        self, truth: Truth, products: Matrix, slots: Numbers | slice, target: Target, k: int
    ) -> Numbers | None:
        """Places that may be among the `k` best by products in float32; None if any may be."""
        known = self._estimates(truth, products, slots, target)
        if known is None:
            return None
        scores, errors = known
        if isinstance(errors, float):
            return _within(scores, k, errors)
        return np.flatnonzero(scores + errors >= kth_best(scores - errors, k))

    def _possible_of(
        self, truth: Truth, target: Target, k: int, start: int, stop: int, mask: Mask | None
    ) -> Numbers:
        """Slots from `start` to `stop`, under a mask of all, that may be the `k` best of these."""
        part = None if mask is None else mask[start:stop]
        slots = np.arange(start, stop) if part is None else start + np.flatnonzero(part)
        if len(slots) <= max(k, _ALL_POSSIBLE):
            return slots
        with np.errstate(over="ignore", invalid="ignore"):
            near = truth.products(target.vector, start, stop)
            if part is not None:
                near = near[part]
            best = self._possible(truth, near, slots, target, k)
        return slots if best is None else slots[best]

    # Exact scores

    def exact(self, truth: Truth, target: Target, slots: Numbers) -> Scores:
        """Scores in float64, each from its own row alone, whatever stands beside it."""
        if len(slots) <= _ROWS_AT_ONCE:
            return self._scores(truth, target.wide, target.square, slots)
        return np.concatenate([
            self._scores(truth, target.wide, target.square, slots[start : start + _ROWS_AT_ONCE])
            for start in range(0, len(slots), _ROWS_AT_ONCE)
        ])  # fmt: skip

    def _exact_pairs(
        self, truth: Truth, targets: Sequence[Target], which: Numbers, slots: Numbers
    ) -> Scores:
        """As `exact` for pairs: of query number `which[i]` and the vector of `slots[i]`."""
        wide = np.stack([target.wide for target in targets])
        squares = np.array([target.square for target in targets])
        scores = np.empty(len(slots), dtype=np.float64)
        for start in range(0, len(slots), _PAIRS_AT_ONCE):
            some = slice(start, start + _PAIRS_AT_ONCE)
            mine = which[some]
            scores[some] = self._scores(truth, wide[mine], squares[mine], slots[some])
        return scores

    def _scores(
        self, truth: Truth, targets: Scores, squares: float | Scores, slots: Numbers
    ) -> Scores:
        """Scores of slots, by one target or by one for each, of these squares of lengths."""
        wide = truth.take(slots).astype(np.float64)
        if self.space.metric == "l2":
            wide -= targets
            wide *= wide
            distances: Scores = np.sqrt(np.add.reduce(wide, axis=1))
            return np.negative(distances, out=distances)
        wide *= targets
        scores: Scores = np.add.reduce(wide, axis=1)
        if self.space.metric == "cosine":  # a vector finds itself with exactly 1
            scores /= np.sqrt(truth.squares[slots] * squares)
            np.minimum(scores, 1.0, out=scores)
            np.maximum(scores, -1.0, out=scores)
        return scores

    def _least(self, truth: Truth, target: Target, slots: Numbers) -> list[float]:
        """Minus the exact scores of some slots, to the last bit as `exact` has them."""
        if len(slots) > _BY_HAND or self.space.metric != "cosine":
            found: list[float] = np.negative(self.exact(truth, target, slots)).tolist()
            return found
        # Of so few, Python is through before numpy has begun.
        wide = truth.take(slots).astype(np.float64)
        wide *= target.wide
        products, squares = np.add.reduce(wide, axis=1).tolist(), truth.squares.take(slots).tolist()
        square = target.square
        least = [
            -product / sqrt(its_square * square)
            for product, its_square in zip(products, squares, strict=True)
        ]
        if least and (min(least) < -1.0 or max(least) > 1.0):
            least = [max(-1.0, min(1.0, each)) for each in least]
        return least

    def _hits(self, reading: Reading, target: Target, rows: Numbers, k: int) -> list[Hit]:
        """The `k` best of some rows by their exact scores."""
        seen, truth = reading.seen, reading.truth
        slots = rows if seen.aligned else seen.slot[rows]
        if len(slots) > _BY_HAND:
            exact = self.exact(truth, target, slots)
            return self._ordered(exact, seen.key.take(rows), seen.seq.take(rows), k)
        least = self._least(truth, target, slots)
        names = self.names(seen.key.take(rows).tolist())
        hits = list(zip(least, names, seen.seq.take(rows).tolist(), strict=True))
        hits.sort()
        return hits[:k]

    def _hits_of(
        self,
        reading: Reading,
        slots: Numbers,
        least: list[float],
        order: list[int],
        k: int,
        visible: Mask | None,
    ) -> list[Hit]:
        """The `k` best visible rows of some slots, each of which has one.

        Args:
            least: Minus their exact scores.
            order: Their places, best first.
        """
        seen, end = reading.seen, min(k, len(order))
        while 0 < end < len(order) and least[order[end]] == least[order[end - 1]]:
            end += 1
        chosen = slots.take(order[:end])
        its = [least[place] for place in order[:end]]
        rows = chosen
        if not seen.aligned:  # a vector may have several rows
            rows = seen.rows_of(chosen, visible)
            of_slot = dict(zip(chosen.tolist(), its, strict=True))
            its = [of_slot[slot] for slot in seen.slot.take(rows).tolist()]
        names = self.names(seen.key.take(rows).tolist())
        hits = list(zip(its, names, seen.seq.take(rows).tolist(), strict=True))
        hits.sort()
        return hits[:k]

    def _ordered(self, exact: Scores, key_ids: Numbers, seqs: Numbers, k: int) -> list[Hit]:
        """Best first; equal scores by key, which each appears once at a moment."""
        if len(exact) > k:
            kept = exact >= np.partition(exact, len(exact) - k)[len(exact) - k]
            exact, key_ids, seqs = exact[kept], key_ids[kept], seqs[kept]
        names = self.names(key_ids.tolist())
        hits = list(zip((-exact).tolist(), names, seqs.tolist(), strict=True))
        hits.sort()
        return hits[:k]


def kth_best(scores: npt.NDArray[np.floating[Any]], k: int) -> float:
    """The `k`-th largest of at least `k` numbers.

    The `k`-th largest of the maxima of blocks is no greater, and quickly found; only what
    reaches it needs to be put in order.
    """
    blocks = 32 * k
    if len(scores) >= 16 * blocks:
        width = len(scores) // blocks
        tops = scores[: blocks * width].reshape(width, blocks).max(axis=0)
        scores = scores[scores >= np.partition(tops, blocks - k)[blocks - k]]
    return float(np.partition(scores, len(scores) - k)[len(scores) - k])


def _within(near: npt.NDArray[np.float32], k: int, error: float) -> Numbers:
    """Rows at most two errors below the `k`-th best, where every score is a number."""
    kth = kth_best(near, k)
    floor = np.nextafter(np.float32(kth - 2 * error), np.float32(-np.inf))
    return np.flatnonzero(near >= floor)
