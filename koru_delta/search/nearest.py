"""Finding the nearest vectors in a space: candidates by a plan, then exact scores.

Candidates come by the cheapest way that keeps its promise (`plan.py`). They are scored
again in float64, each from its own vector alone, so that a score depends on two vectors
and nothing else and a search can be repeated exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from koru_delta.causal import Cut
from koru_delta.errors import DimensionMismatchError, InvalidDataError
from koru_delta.search.cache import Unusable
from koru_delta.search.causality import Condition
from koru_delta.search.codes import CodesUnavailable
from koru_delta.search.filters import CompiledFilter
from koru_delta.search.graph import GraphUnavailable
from koru_delta.search.plan import HIGHEST_APPROXIMATE, Situation, Way, choose
from koru_delta.search.readings import (
    TINY,
    Graph,
    KeptMask,
    Packed,
    Reading,
    Scores,
    SpaceReadings,
)
from koru_delta.search.records import Swap
from koru_delta.search.rows import Mask, Numbers, Seen
from koru_delta.search.truth import Matrix, Segment, Truth
from koru_delta.values import Vector

_NOWHERE: Final = (
    "a zero vector points nowhere, and cosine cannot rank by it; ask with another, or keep the "
    'vectors under metric="dot" or "l2"'
)
_FLOAT32_STEP = 2.0**-24  # relative error of one float32 operation
_FLOAT32_SMALL = 2.0**-126  # below it, float32 loses digits or becomes zero
_FLOAT64_STEP = 2.0**-52
_ROWS_AT_ONCE = 8192
_PAIRS_AT_ONCE = 512
_MASKS_KEPT: Final = 64
_MASKS_KEPT_BYTES: Final = 32 * 1024 * 1024
_PACKED_MOST: Final = 12_000_000  # bytes of vectors under one mask, that fit into a cache
_PACKED_BYTES: Final = 48_000_000  # and under all of them
_UNFED_MOST: Final = 16_384  # more than these beside the graph, and codes are quicker
_BY_CODES: Final = (0.99, 0.98)  # recall of codes, whatever less is asked: it costs little
_FEW_UNFED: Final = 16  # beside the graph, so few that all are scored exactly
_COMPARED: Final = 64  # candidates, so few that all are scored exactly
_WIDENED: Final = (1, 4, 16)
_WORTH: Final = 8  # times as many rows as candidates, for codes to be looked at again
_SMALL: Final = 4096  # rows of a segment, of which any number is quickly looked at
_SPARE_FOR_DEAD: Final = (6, 64)  # asked of the graph for those that died since it was fed
_ROUNDED: Final = 1e-12  # relative, of float64
_BATCH_VALUES: Final = 32 * 1024 * 1024  # scores of a batch held at once


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


class Found(NamedTuple):
    """The answer to one search, best first.

    `way` is how it was found; `approximate` whether something may be missing from it;
    `considered` how many rows it was chosen from: those that passed every filter.
    """

    hits: list[Hit]
    way: str
    approximate: bool
    considered: int


class VectorSpace(SpaceReadings):
    """The vectors of one model in one namespace, to be searched. Safe to share by threads."""

    # Everything

    def everything(self, cut: Cut, valid_at: int) -> tuple[list[str], Numbers, Matrix]:
        """All that is visible, by key: keys, positions of versions, and a copy of the vectors."""
        while True:
            reading = self.at(cut.seq)
            try:
                seen = reading.seen
                rows = np.flatnonzero(seen.visible(cut, valid_at, self.log.position))
                names = self.names(seen.key[rows].tolist())
                order = sorted(range(len(rows)), key=names.__getitem__)
                rows = rows[np.array(order, dtype=np.int64)]
                keys = [names[place] for place in order]
                return keys, seen.seq[rows], reading.truth.take(seen.slot[rows])
            except Unusable:
                self.heal()

    # Searching

    def search(
        self,
        target: Target,
        k: int,
        cut: Cut,
        valid_at: int,
        *,
        where: CompiledFilter | None = None,
        causal: Condition | None = None,
        threshold: float | None = None,
        recall: float = 1.0,
        swap: Swap | None = None,
    ) -> Found:
        """The `k` best visible keys by exact score, ties by key and then version id.

        Args:
            recall: The share of the true best `k` to find; above .99 all of them.
            swap: Keys to be taken as they were at another moment; found by comparing all.

        Raises:
            DimensionMismatchError: the query is not as long as the space's vectors.
            InvalidDataError: a zero query under cosine.
        """
        if len(target.vector) != self.space.dimensions:
            raise DimensionMismatchError(
                self.space.namespace, self.space.dimensions, len(target.vector)
            )
        if self.space.metric == "cosine" and not target.square:
            raise InvalidDataError(_NOWHERE)
        while True:
            reading = self.at(cut.seq)
            try:
                if swap is not None:
                    return self._swapped(reading, target, k, cut, valid_at, where, causal, swap)
                return self._search(
                    reading, target, k, cut, valid_at, where, causal, threshold, recall
                )
            except Unusable:
                self.heal()

    def search_many(
        self,
        queries: Matrix,
        k: int,
        cut: Cut,
        valid_at: int,
        *,
        where: CompiledFilter | None = None,
        causal: Condition | None = None,
        threshold: float | None = None,
        recall: float = 1.0,
    ) -> list[Found]:
        """As `search` for each row of `queries`, with the work shared out over the cores."""
        if queries.shape[1] != self.space.dimensions:
            raise DimensionMismatchError(
                self.space.namespace, self.space.dimensions, queries.shape[1]
            )
        if self.space.metric == "cosine" and not queries.any(axis=1).all():
            raise InvalidDataError(_NOWHERE)
        while True:
            reading = self.at(cut.seq)
            try:
                return self._search_many(
                    reading, queries, k, cut, valid_at, where, causal, threshold, recall
                )
            except Unusable:
                self.heal()

    def _search(
        self,
        reading: Reading,
        target: Target,
        k: int,
        cut: Cut,
        valid_at: int,
        where: CompiledFilter | None,
        causal: Condition | None,
        threshold: float | None,
        recall: float,
        *,
        graph: bool = True,
    ) -> Found:
        visible, count = self._visible(reading, cut, valid_at, where, causal)
        if not count or not k:
            return Found([], "none", approximate=False, considered=count)
        way, effort = self._way(reading, visible, count, k, recall, cut.clock, graph=graph)
        if way == "graph":
            hits = self._by_graph(reading, target, k, effort, visible)
            if hits is not None and len(hits) >= min(k, count):
                return Found(_above(hits, threshold), way, approximate=True, considered=count)
            # It is busy, too many of it have died, or it is not to be trusted here.
            way, _ = self._way(reading, visible, count, k, recall, cut.clock, graph=False)
        if way == "codes":
            hits = self._by_codes(reading, target, k, visible, recall)
            if hits is not None and len(hits) >= min(k, count):
                return Found(_above(hits, threshold), way, approximate=True, considered=count)
            way = "scan"
        rows: Numbers | None = None
        if way == "bounds":
            rows = self._by_bounds(reading, target, k, visible)
            if rows is None:
                way = "scan"
        if way == "packed":
            rows = self._by_packed(reading, target, k, visible)
        if way in ("scan", "gather"):
            rows = self._by_scan(reading, target, k, visible, gather=way == "gather")
        assert rows is not None
        hits = _above(self._hits(reading, target, rows, k), threshold)
        return Found(hits, way, approximate=False, considered=count)

    def _swapped(
        self,
        reading: Reading,
        target: Target,
        k: int,
        cut: Cut,
        valid_at: int,
        where: CompiledFilter | None,
        causal: Condition | None,
        swap: Swap,
    ) -> Found:
        seen = reading.seen
        now = self._passing(seen, cut, valid_at, where, causal)
        then = self._passing(seen, swap.cut, swap.valid_at, where, swap.causal)
        mask = np.where(np.isin(seen.key, swap.keys), then, now)
        count = int(np.count_nonzero(mask))
        if not count or not k:
            return Found([], "none", approximate=False, considered=count)
        rows = self._by_scan(reading, target, k, mask, gather=False)
        hits = self._hits(reading, target, rows, k)
        return Found(hits, "scan", approximate=False, considered=count)

    def _visible(
        self,
        reading: Reading,
        cut: Cut,
        valid_at: int,
        where: CompiledFilter | None,
        causal: Condition | None,
    ) -> tuple[Mask | None, int]:
        """The rows to choose from, None for all that nothing has ended, and how many."""
        seen = reading.seen
        superseded = causal is not None and not causal.exclude_superseded
        if causal is not None and not causal.narrows and (not superseded or seen.ghosts is None):
            causal = None
        now = seen.is_now(cut, valid_at)
        if now and where is None and causal is None:
            return None, seen.live
        goes_along = valid_at >= cut.clock
        if valid_at > cut.clock and seen.timed:  # of what is planned
            mask = self._passing(seen, cut, valid_at, where, causal)
            return mask, int(np.count_nonzero(mask))
        latest = cut.seq >= seen.changed
        name = (
            where, seen.changed if latest else cut.seq, None if goes_along else valid_at,
            None if causal is None else causal.name,
        )  # fmt: skip
        kept = self._masks.get(name)
        if kept is not None and len(kept.mask) == seen.count and kept.low <= cut.clock < kept.high:
            kept.uses += 1
            return kept.mask, kept.count
        mask = self._passing(seen, cut, valid_at, where, causal)
        mask.flags.writeable = False
        count = int(np.count_nonzero(mask))
        with self._columns_lock:
            self._masks.pop(name, None)
            self._masks[name] = KeptMask(
                mask,
                count,
                *seen.steady(cut, valid_at, superseded=superseded),
                latest and goes_along and where is None and causal is None,
            )
            most = max(1, min(_MASKS_KEPT, _MASKS_KEPT_BYTES // max(1, seen.count)))
            while len(self._masks) > most:
                self._masks.popitem(last=False)
            self._kept = {id(kept.mask): kept for kept in self._masks.values()}
        return mask, count

    def _passing(
        self,
        seen: Seen,
        cut: Cut,
        valid_at: int,
        where: CompiledFilter | None,
        causal: Condition | None,
    ) -> Mask:
        """The rows that are visible and pass both filters."""
        superseded = causal is not None and not causal.exclude_superseded
        mask = seen.visible(cut, valid_at, self.log.position, superseded=superseded)
        if where is not None:
            mask &= self._matching(where, seen.count)
        return mask if causal is None else causal.mask(seen.seq, mask)

    def _kept_of(self, visible: Mask | None) -> KeptMask | None:
        """What was made of a mask that is kept."""
        kept = None if visible is None else self._kept.get(id(visible))
        return kept if kept is not None and kept.mask is visible else None

    def _packed(self, reading: Reading, kept: KeptMask) -> Packed:
        """The vectors under a kept mask, copied together at the first time."""
        known = kept.packed
        if known is None:
            rows = np.flatnonzero(kept.mask)
            slots = rows if reading.seen.aligned else reading.seen.slot[rows]
            packed = Packed(rows, slots, reading.truth.take(slots))
            with self._columns_lock:
                kept.packed = packed
                others = [each for each in self._masks.values() if each.packed is not None]
                size = sum(each.packed.vectors.nbytes for each in others if each.packed)
                for each in others:  # the oldest first
                    if size > _PACKED_BYTES and each is not kept and each.packed is not None:
                        size -= each.packed.vectors.nbytes
                        each.packed = None
            return packed
        return known

    def _matching(self, where: CompiledFilter, rows: int) -> Mask:
        with self._columns_lock:
            return where.mask(self._columns, rows)

    def _way(
        self,
        reading: Reading,
        visible: Mask | None,
        count: int,
        k: int,
        recall: float,
        clock: int,
        *,
        graph: bool = True,
    ) -> tuple[Way, int]:
        """How to search the `count` rows that are visible, and the effort if by the graph."""
        if visible is None and graph:
            known_way = reading.ways.get((k, recall))
            if known_way is not None:
                return known_way
        truth = reading.truth
        kept = self._kept_of(visible)
        present = visible is None or (kept is not None and kept.present)
        if kept is not None and kept.uses > 1 and not present:
            if kept.chosen_for is truth.segments:
                chosen = kept.ways.get((k, recall))
                if chosen is not None:
                    return chosen, 0
            else:
                kept.chosen_for, kept.ways = truth.segments, {}
        first, end = _span(reading, visible)
        kinds: set[str] = set()
        coded, unfed, effort = 0, 0, None
        bounded = 0
        if count > k and not reading.tiny:
            bounded = sum(segment.rows for segment in truth.segments if segment.bounds is not None)
        if recall <= HIGHEST_APPROXIMATE and count > 2 * k and not reading.tiny:
            for segment in truth.segments:
                if segment.codes is not None and _candidates(segment, k, recall) is not None:
                    kinds.add(segment.codes.name)
                    coded += segment.rows
            known = reading.graph
            if graph and present and known is not None and known.since <= clock < known.until:
                unfed = _unfed(reading)
                if unfed <= _UNFED_MOST:
                    effort = self._effort(known, recall, k)
        way = choose(
            Situation(
                visible=count, stored=truth.slots, span=end - first,
                dimensions=self.space.dimensions, codes=min(kinds, default=None), coded=coded,
                bounded=bounded, effort=effort, unfed=unfed,
                packable=kept is not None and kept.uses > 0 and not reading.tiny
                and count * self.space.dimensions * 4 <= _PACKED_MOST,
            ),
            self._costs(),
        )  # fmt: skip
        if visible is None and graph:
            reading.ways[k, recall] = (way, effort or 0)
        elif kept is not None and not present and kept.chosen_for is truth.segments:
            kept.ways[k, recall] = way
        return way, effort or 0

    # Candidates

    @staticmethod
    def _effort(graph: Graph, recall: float, k: int) -> int | None:
        for target, effort in sorted(graph.efforts.items()):
            if target >= recall:
                return effort * max(k, 10) // 10
        return None

    def _by_graph(
        self, reading: Reading, target: Target, k: int, effort: int, visible: Mask | None
    ) -> list[Hit] | None:
        """The best that the graph leads to; None if it is busy or not to be trusted here."""
        graph = reading.graph
        assert graph is not None
        dead = self._dead(reading, graph, visible)
        for spare in _SPARE_FOR_DEAD:
            asked = k + min(dead, spare)
            try:
                slots = graph.live.nearest(target.vector, asked, max(effort, asked))
            except GraphUnavailable:
                self.drop_graph(graph)
                return None
            if slots is None:
                return None
            rows = self._alive_of(reading, slots, k, asked, visible)
            if rows is not None:
                unfed = _unfed(reading)
                if 0 < unfed <= _FEW_UNFED:
                    rows = self._with_few(reading, rows, visible)
                hits = self._hits(reading, target, rows, k)
                if unfed > _FEW_UNFED:
                    with np.errstate(over="ignore", invalid="ignore"):
                        products = reading.truth.products(
                            target.vector, graph.stop, reading.truth.slots
                        )
                    hits = self._with_unfed(reading, target, products, hits, k, visible)
                return None if self._unusual(graph, target, hits) else hits
        return None

    def _dead(self, reading: Reading, graph: Graph, visible: Mask | None) -> int:
        """About how many that the graph holds are not visible any more."""
        kept = self._kept_of(visible)
        return max(reading.deaths, 0 if kept is None else graph.live.live - kept.count)

    def _alive_of(
        self, reading: Reading, slots: Numbers, k: int, asked: int, visible: Mask | None
    ) -> Numbers | None:
        """Rows visible of slots that the graph gave; None if too many died, and it has more."""
        seen = reading.seen
        enough = len(slots) < asked
        if self.reading is not reading:  # the graph may have been fed what this reading lacks
            slots = slots[slots < reading.truth.slots]
        level = visible is None and seen.aligned and not reading.deaths
        rows = slots if level else seen.rows_of(slots, visible)
        return rows if enough or len(rows) >= k else None

    def _with_few(self, reading: Reading, rows: Numbers, visible: Mask | None) -> Numbers:
        """Rows that the graph gave, and those of the few vectors that it does not hold yet."""
        graph, seen = reading.graph, reading.seen
        assert graph is not None
        known = rows.tolist()
        more = sorted({*range(graph.stop, reading.truth.slots), *reading.revived})
        if visible is not None or not seen.aligned or reading.deaths:
            more = seen.rows_of(np.array(more, dtype=np.int64), visible).tolist()
        # Some may have been fed in this moment, and be among the rows already.
        return np.array(list(dict.fromkeys(known + more)), dtype=np.int64)

    def _with_unfed(
        self,
        reading: Reading,
        target: Target,
        products: Matrix,
        hits: list[Hit],
        k: int,
        visible: Mask | None,
    ) -> list[Hit]:
        """The best of what the graph gave and of what it does not hold yet.

        Args:
            products: Of the query with the slots after the graph's end.
        """
        graph, seen, truth = reading.graph, reading.seen, reading.truth
        assert graph is not None
        level = visible is None and seen.aligned and not reading.deaths
        fresh = np.arange(graph.stop, truth.slots)
        with np.errstate(over="ignore", invalid="ignore"):
            known = self._estimates(truth, products, slice(graph.stop, truth.slots), target)
        if known is not None and len(hits) >= k:
            scores, errors = known
            fresh = fresh[scores + errors >= self._estimate_of(target, -hits[-1][0])]
        if reading.revived:
            fresh = np.union1d(fresh, np.array(reading.revived, dtype=np.int64))
        if not len(fresh):
            return hits
        rows = fresh if level else seen.rows_of(fresh, visible)
        # Some may have been fed in this moment, and be among the hits already.
        return sorted({*hits, *self._hits(reading, target, rows, k)})[:k]

    def _estimate_of(self, target: Target, score: float) -> float:
        """What an estimate is, at least, of whatever has this score."""
        if self.space.metric == "cosine":
            exact = score * sqrt(target.square)
        else:
            exact = target.square - score * score if self.space.metric == "l2" else score
        larger = max(abs(exact), target.square if self.space.metric == "l2" else 0.0)
        return exact - _ROUNDED * larger

    def _unusual(self, graph: Graph, target: Target, hits: list[Hit]) -> bool:
        """Whether a graph found so little that its efforts, measured by others, do not hold.

        A query unlike all that is stored, as questions can be, needs far more effort.
        """
        floors = graph.floors
        if not floors or not hits:
            return False
        rank = min(len(hits), len(floors)) - 1
        floor = floors[rank]
        if self.space.metric == "dot":
            floor *= sqrt(target.square)
        return -hits[rank][0] < floor

    def _by_codes(
        self, reading: Reading, target: Target, k: int, visible: Mask | None, recall: float
    ) -> list[Hit] | None:
        """The best of those that seem near by their codes; None if a library fails.

        More are asked for as long as some of the best were among the last that codes gave.
        """
        truth, query = reading.truth, target.vector
        mask = self._slot_mask(reading, visible)
        slots, scores = np.empty(0, dtype=np.int64), np.empty(0)
        for widened in _WIDENED:
            found: list[Numbers] = []
            doubts: list[Mask] = []  # of each found, whether it stands late
            for segment in truth.segments:
                part = None if mask is None else mask[segment.start : segment.stop]
                if part is not None and not part.any():
                    continue
                wanted = _candidates(segment, k, recall)
                if segment.codes is None or wanted is None:
                    found.append(
                        self._possible_of(truth, target, k, segment.start, segment.stop, part)
                    )
                    doubts.append(np.zeros(len(found[-1]), dtype=np.bool_))
                    continue
                if widened > 1 and wanted * widened * _WORTH > segment.rows > _SMALL:
                    return None  # so many that a scan is quicker
                try:
                    some = segment.codes.nearest(query, wanted * widened, part)
                except CodesUnavailable:
                    return None
                found.append(segment.start + some)
                doubts.append(np.arange(len(some)) >= len(some) * segment.codes.shallow)
            if truth.sealed < truth.slots:
                part = None if mask is None else mask[truth.sealed :]
                found.append(self._possible_of(truth, target, k, truth.sealed, truth.slots, part))
                doubts.append(np.zeros(len(found[-1]), dtype=np.bool_))
            slots = np.concatenate(found) if len(found) != 1 else found[0]
            doubt = np.concatenate(doubts) if len(doubts) != 1 else doubts[0]
            slots, scores, doubt = self._contenders(truth, target, k, slots, doubt)
            best = slice(None) if len(slots) <= k else np.argpartition(scores, -k)[-k:]
            if not doubt[best].any():
                break
        return self._hits_of(reading, slots, scores, k, visible)

    def _contenders(
        self, truth: Truth, target: Target, k: int, slots: Numbers, doubt: Mask
    ) -> tuple[Numbers, Scores, Mask]:
        """Those slots that may be among the `k` best of them, and their exact scores."""
        if len(slots) > max(k, _COMPARED):
            with np.errstate(over="ignore", invalid="ignore"):
                near = truth.gathered(target.vector, slots)
                best = self._possible(truth, near, slots, target, k)
            if best is not None:
                slots, doubt = slots[best], doubt[best]
        return slots, self.exact(truth, target, slots), doubt

    def _slot_mask(self, reading: Reading, visible: Mask | None) -> Mask | None:
        seen, slots = reading.seen, reading.truth.slots
        if visible is None:
            if seen.live == seen.count and seen.aligned:
                return None
            if reading.alive is None:
                reading.alive = seen.slots_of(seen.alive(), slots)
            return reading.alive
        kept = self._kept_of(visible)
        if seen.aligned or kept is None:
            return seen.slots_of(visible, slots)
        if kept.slots is None or len(kept.slots) != slots:
            kept.slots = seen.slots_of(visible, slots)
        return kept.slots

    def _by_scan(
        self,
        reading: Reading,
        target: Target,
        k: int,
        visible: Mask | None,
        *,
        gather: bool,
    ) -> Numbers:
        """Visible rows that may be among the best `k`, by float32 and its error bound.

        Where float32 overflows there is no bound, and all visible rows are candidates.
        """
        seen, truth = reading.seen, reading.truth
        rows: Numbers | None = None
        if visible is not None:
            rows = np.flatnonzero(visible)
        elif seen.live != seen.count:
            rows = np.flatnonzero(seen.alive())
        count = seen.count if rows is None else len(rows)
        best: Numbers | None = None
        if count > k and not reading.tiny:
            slots = seen.slot if rows is None else seen.slot[rows]
            with np.errstate(over="ignore", invalid="ignore"):
                if gather:
                    near = truth.gathered(target.vector, slots)
                else:
                    first, end = _span(reading, visible)
                    near = truth.products(target.vector, first, end)
                    if not seen.aligned or len(slots) != len(near):
                        near = near[slots - first if first else slots]
                whole = rows is None and seen.aligned
                best = self._possible(truth, near, slice(None) if whole else slots, target, k)
        if best is None:
            best = np.arange(count)
        return best if rows is None else rows[best]

    def _by_packed(
        self, reading: Reading, target: Target, k: int, visible: Mask | None
    ) -> Numbers | None:
        """As `_by_scan`, over copies of just the visible vectors."""
        kept = self._kept_of(visible)
        if kept is None:  # it has just been let go
            return self._by_scan(reading, target, k, visible, gather=True)
        packed = self._packed(reading, kept)
        if len(packed.rows) <= k:
            return packed.rows
        with np.errstate(over="ignore", invalid="ignore"):
            near: Matrix = np.vecdot(packed.vectors, target.vector)
            best = self._possible(reading.truth, near, packed.slots, target, k)
        return packed.rows if best is None else packed.rows[best]

    def _by_bounds(
        self, reading: Reading, target: Target, k: int, visible: Mask | None
    ) -> Numbers | None:
        """As `_by_scan`, over small integers where there are bounds for them."""
        truth = reading.truth
        mask = self._slot_mask(reading, visible)
        found = []
        for segment in truth.segments:
            part = None if mask is None else mask[segment.start : segment.stop]
            if part is not None and not part.any():
                continue
            if segment.bounds is None:
                found.append(self._possible_of(truth, target, k, segment.start, segment.stop, part))
                continue
            try:
                found.append(segment.start + segment.bounds.contenders(target.vector, k, part))
            except CodesUnavailable:
                return None
        if truth.sealed < truth.slots:
            part = None if mask is None else mask[truth.sealed :]
            found.append(self._possible_of(truth, target, k, truth.sealed, truth.slots, part))
        return reading.seen.rows_of(np.concatenate(found), visible)

    def _possible_of(
        self, truth: Truth, target: Target, k: int, start: int, stop: int, mask: Mask | None
    ) -> Numbers:
        """Slots from `start` to `stop` that may be among the `k` best of these."""
        slots = np.arange(start, stop)
        with np.errstate(over="ignore", invalid="ignore"):
            near = truth.products(target.vector, start, stop)
            if mask is not None:
                slots, near = slots[mask], near[mask]
            best = self._possible(truth, near, slots, target, k) if len(slots) > k else None
        return slots if best is None else slots[best]

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
        return np.flatnonzero(scores + errors >= _kth_best(scores - errors, k))

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

    # Batches

    def _search_many(
        self,
        reading: Reading,
        queries: Matrix,
        k: int,
        cut: Cut,
        valid_at: int,
        where: CompiledFilter | None,
        causal: Condition | None,
        threshold: float | None,
        recall: float,
    ) -> list[Found]:
        visible, count = self._visible(reading, cut, valid_at, where, causal)
        if not count or not k:
            return [Found([], "none", approximate=False, considered=count) for _ in queries]
        targets = [Target.of(query) for query in queries]
        way, effort = self._way(reading, visible, count, k, recall, cut.clock)
        found: list[Numbers | None] = [None] * len(queries)
        if way == "graph":
            found = self._many_by_graph(reading, queries, k, effort, visible)
        elif way == "codes":
            found = self._many_by_codes(reading, queries, targets, k, visible, recall)
        elif way in ("scan", "bounds", "packed") and not reading.tiny and count > k:
            found = self._many_by_scan(reading, queries, targets, k, visible, pack=way == "packed")
        wanted = min(k, count)
        lengths = [0 if rows is None or len(rows) < wanted else len(rows) for rows in found]
        seen, ends = reading.seen, np.cumsum(lengths)
        answered = [rows for rows, length in zip(found, lengths, strict=True) if rows is not None
                    and length]  # fmt: skip
        every = np.concatenate(answered) if answered else np.empty(0, dtype=np.int64)
        which = np.repeat(np.arange(len(queries)), lengths)
        exact = self._exact_pairs(reading.truth, targets, which, seen.slot[every])
        key_ids, seqs = seen.key[every], seen.seq[every]
        answers = []
        graph = reading.graph if way == "graph" else None
        lacking = graph is not None and _unfed(reading) > 0
        products = np.empty((0, 0), dtype=np.float32)
        together = len(queries)
        if graph is not None and lacking:
            together = max(1, _BATCH_VALUES // max(1, reading.truth.slots - graph.stop))
        for n, (target, end, length) in enumerate(
            zip(targets, ends.tolist(), lengths, strict=True)
        ):
            mine = slice(end - length, end)
            hits = self._ordered(exact[mine], key_ids[mine], seqs[mine], k)
            if graph is not None and lacking:
                if n % together == 0:
                    some, stop = queries[n : n + together], reading.truth.slots
                    with np.errstate(over="ignore", invalid="ignore"):
                        products = reading.truth.products(some, graph.stop, stop)
                if length:
                    hits = self._with_unfed(
                        reading, target, products[n % together], hits, k, visible
                    )
            unusual = graph is not None and length > 0 and self._unusual(graph, target, hits)
            if not length or unusual:
                answers.append(
                    self._search(
                        reading, target, k, cut, valid_at, where, causal, threshold, recall,
                        graph=not unusual,
                    )
                )  # fmt: skip
            else:
                answers.append(
                    Found(_above(hits, threshold), way, way in ("graph", "codes"), count)
                )
        return answers

    def _many_by_graph(
        self, reading: Reading, queries: Matrix, k: int, effort: int, visible: Mask | None
    ) -> list[Numbers | None]:
        graph = reading.graph
        assert graph is not None
        none: list[Numbers | None] = [None] * len(queries)
        asked = k + min(self._dead(reading, graph, visible), _SPARE_FOR_DEAD[0])
        try:
            slots = graph.live.nearest_many(queries, asked, max(effort, asked))
        except GraphUnavailable:
            self.drop_graph(graph)
            return none
        if slots is None:
            return none
        return [self._alive_of(reading, some, k, asked, visible) for some in slots]

    def _many_by_codes(
        self,
        reading: Reading,
        queries: Matrix,
        targets: Sequence[Target],
        k: int,
        visible: Mask | None,
        recall: float,
    ) -> list[Numbers | None]:
        seen, truth = reading.seen, reading.truth
        mask = self._slot_mask(reading, visible)
        parts: list[list[Numbers]] = [[] for _ in queries]
        for segment in truth.segments:
            part = None if mask is None else mask[segment.start : segment.stop]
            if part is not None and not part.any():
                continue
            wanted = _candidates(segment, k, recall)
            if segment.codes is None or wanted is None:
                self._many_near(truth, targets, segment.start, segment.stop, k, part, parts)
                continue
            try:
                rows = segment.codes.nearest_many(queries, wanted, part)
            except CodesUnavailable:
                return [None] * len(queries)
            for some, mine in zip(rows, parts, strict=True):
                mine.append(segment.start + some)
        if truth.sealed < truth.slots:
            part = None if mask is None else mask[truth.sealed :]
            self._many_near(truth, targets, truth.sealed, truth.slots, k, part, parts)
        return [seen.rows_of(np.concatenate(mine), visible) for mine in parts]

    def _many_near(
        self,
        truth: Truth,
        targets: Sequence[Target],
        start: int,
        stop: int,
        k: int,
        mask: Mask | None,
        parts: list[list[Numbers]],
    ) -> None:
        """Add to each query's part what may be its best among the slots `start` to `stop`."""
        slots = np.arange(start, stop) if mask is None else start + np.flatnonzero(mask)
        together = max(1, _BATCH_VALUES // (stop - start))
        for first in range(0, len(targets), together):
            some = targets[first : first + together]
            with np.errstate(over="ignore", invalid="ignore"):
                products = truth.products(np.stack([t.vector for t in some]), start, stop)
                if mask is not None:
                    products = products[:, mask]
                for near, target, mine in zip(
                    products, some, parts[first : first + together], strict=True
                ):
                    best = None
                    if len(slots) > k:
                        best = self._possible(truth, near, slots, target, k)
                    mine.append(slots if best is None else slots[best])

    def _many_by_scan(
        self,
        reading: Reading,
        queries: Matrix,
        targets: Sequence[Target],
        k: int,
        visible: Mask | None,
        *,
        pack: bool,
    ) -> list[Numbers | None]:
        seen, truth = reading.seen, reading.truth
        span = _span(reading, visible)
        kept = self._kept_of(visible)
        packed = self._packed(reading, kept) if kept is not None and pack else None
        rows: Numbers | None = None
        if visible is not None:
            rows = np.flatnonzero(visible)
        elif seen.live != seen.count:
            rows = np.flatnonzero(seen.alive())
        slots = seen.slot if rows is None else seen.slot[rows]
        found: list[Numbers | None] = []
        together = max(1, _BATCH_VALUES // max(1, span[1] - span[0]))
        for first in range(0, len(queries), together):
            some = queries[first : first + together]
            with np.errstate(over="ignore", invalid="ignore"):
                if packed is not None:
                    near = some @ packed.vectors.T
                else:
                    near = truth.products(some, *span)
                    if not seen.aligned or len(slots) != near.shape[1]:
                        near = near[:, slots - span[0]]
                whole = slice(None) if rows is None and seen.aligned else slots
                for target, scores in zip(targets[first : first + together], near, strict=True):
                    best = self._possible(truth, scores, whole, target, k)
                    found.append(best if best is None or rows is None else rows[best])
        return found

    # Scoring

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

    def _hits_of(
        self, reading: Reading, slots: Numbers, scores: Scores, k: int, visible: Mask | None
    ) -> list[Hit]:
        """The `k` best visible rows of some slots, each of which has one, by their scores."""
        seen = reading.seen
        if len(slots) > k:
            kept = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
            slots, scores = slots[kept], scores[kept]
        rows = seen.rows_of(slots, visible)
        if not seen.aligned:  # a vector may have several rows
            order = np.argsort(slots)
            scores = scores[order][np.searchsorted(slots[order], seen.slot[rows])]
        return self._ordered(scores, seen.key[rows], seen.seq[rows], k)

    def _hits(self, reading: Reading, target: Target, rows: Numbers, k: int) -> list[Hit]:
        """The `k` best of some rows by their exact scores."""
        seen = reading.seen
        slots = rows if seen.aligned else seen.slot[rows]
        exact = self.exact(reading.truth, target, slots)
        return self._ordered(exact, seen.key.take(rows), seen.seq.take(rows), k)

    def _ordered(self, exact: Scores, key_ids: Numbers, seqs: Numbers, k: int) -> list[Hit]:
        """Best first; equal scores by key, which each appears once at a moment."""
        if len(exact) > k:
            kept = exact >= np.partition(exact, len(exact) - k)[len(exact) - k]
            exact, key_ids, seqs = exact[kept], key_ids[kept], seqs[kept]
        names = self.names(key_ids.tolist())
        hits = list(zip((-exact).tolist(), names, seqs.tolist(), strict=True))
        hits.sort()
        return hits[:k]


def _above(hits: list[Hit], threshold: float | None) -> list[Hit]:
    """Those whose score is at least the threshold."""
    return hits if threshold is None else [hit for hit in hits if -hit[0] >= threshold]


def _unfed(reading: Reading) -> int:
    """How many vectors its graph may not hold yet."""
    assert reading.graph is not None
    return reading.truth.slots - reading.graph.stop + len(reading.revived)


def _span(reading: Reading, visible: Mask | None) -> tuple[int, int]:
    """Slots between which everything visible lies, the second exclusive."""
    if visible is None or not reading.seen.aligned:
        return 0, reading.truth.slots
    return int(visible.argmax()), len(visible) - int(visible[::-1].argmax())


def _candidates(segment: Segment, k: int, recall: float) -> int | None:
    """How many rows to take from its codes; None: they do not hold the recall, or are missing."""
    if segment.codes is None:
        return None
    for wished in _BY_CODES:
        wanted = segment.codes.candidates(k, max(recall, wished))
        if wanted is not None:
            return max(wanted, 2 * k + segment.codes.spare)
    return None


def _kth_best(scores: npt.NDArray[np.floating[Any]], k: int) -> float:
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
    kth = _kth_best(near, k)
    floor = np.nextafter(np.float32(kth - 2 * error), np.float32(-np.inf))
    return np.flatnonzero(near >= floor)
