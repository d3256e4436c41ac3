"""Finding the nearest vectors in a space: candidates by a plan, then exact scores.

Candidates come by the cheapest way that keeps its promise (`plan.py`). They are scored
again in float64, each from its own vector alone, so that a score depends on two vectors
and nothing else and a search can be repeated exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from koru_delta.causal import Cut
from koru_delta.errors import DimensionMismatchError, InvalidDataError
from koru_delta.search.cache import Unusable
from koru_delta.search.candidates import (
    NARROWED,
    Candidates,
    has_lost,
    late_from,
    list_of,
    own_codes,
    span_of,
    unfed_of,
)
from koru_delta.search.causality import Condition
from koru_delta.search.codes import Codes
from koru_delta.search.filters import CompiledFilter
from koru_delta.search.frame import CodesUnavailable
from koru_delta.search.graph import GraphUnavailable
from koru_delta.search.kept import ChosenWays
from koru_delta.search.plan import (
    HIGHEST_APPROXIMATE,
    Situation,
    Way,
    asked_of,
    choose,
    places_of,
)
from koru_delta.search.readings import Reading
from koru_delta.search.records import Swap
from koru_delta.search.scoring import Hit, Target
from koru_delta.search.seen import Mask, Numbers
from koru_delta.search.truth import Matrix, Truth

_NOWHERE: Final = (
    "a zero vector points nowhere, and cosine cannot rank by it; ask with another, or keep the "
    'vectors under metric="dot" or "l2"'
)
_PACKED_MOST: Final = 24_000_000  # bytes of vectors under one mask
_UNFED_MOST: Final = 16_384  # more than these beside the graph, and codes are quicker
_BATCH_VALUES: Final = 32 * 1024 * 1024  # scores of a batch held at once


class Found(NamedTuple):
    """The answer to one search, best first.

    `way` is how it was found; `approximate` whether something may be missing from it;
    `considered` how many rows it was chosen from: those that passed every filter.
    """

    hits: list[Hit]
    way: str
    approximate: bool
    considered: int


class VectorSpace(Candidates):
    """The vectors of one model in one namespace, to be searched. Safe to share by threads."""

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
        doubted = way == "graph" or not graph
        if way == "graph":
            hits = self._by_graph(reading, target, k, effort, visible, cut.clock)
            if hits is not None and len(hits) >= min(k, count):
                return Found(_above(hits, threshold), way, approximate=True, considered=count)
            # It is busy, too many of it have died, or it is not to be trusted here.
            way, _ = self._way(reading, visible, count, k, recall, cut.clock, graph=False)
        if way == "codes":
            kept = self._kept_of(visible)
            lists = self._lists_of(kept, (k, recall, doubted))
            hits = self._by_codes(reading, target, k, visible, recall, lists)
            found = hits is not None and len(hits) >= min(k, count)
            if lists.end(found=found):
                self._choose_again(reading, kept)
            if hits is not None and found:
                return Found(_above(hits, threshold), way, approximate=True, considered=count)
            way, _ = self._way(reading, visible, count, k, 1.0, cut.clock, graph=False)
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
        chosen: ChosenWays | None = None
        if kept is not None and kept.uses > 1 and not present and graph:
            chosen = kept.chosen
            if (
                chosen is None
                or chosen.segments is not truth.segments
                or chosen.graph is not reading.graph
            ):
                chosen = kept.chosen = ChosenWays(truth.segments, reading.graph, {})
            known_way = chosen.ways.get((k, recall))
            if known_way is not None:
                return known_way
        first, end = span_of(reading, visible)
        kinds: set[str] = set()
        coded, uncoded, unfed, effort = 0, 0, 0, None
        bounded, listed, places = 0, 0, 0.0
        lists = self._lists_of(kept, (k, recall, not graph))
        longer = lists.longer
        if count > k and not reading.tiny:
            bounded = sum(segment.rows for segment in truth.segments if segment.bounds is not None)
        if recall <= HIGHEST_APPROXIMATE and count > 2 * k and not reading.tiny:
            own = own_codes(kept, k, recall)
            uncoded = truth.slots if own is None else 0
            if own is not None:
                wanted = list_of(own.codes, k, recall, longer)
                if wanted is not None:
                    kinds, coded = {own.codes.name}, own.codes.toil(own.codes.rows)
                    listed, places = wanted, places_of(wanted, own.codes.rows)
            else:
                for segment in truth.segments:
                    wanted = list_of(segment.codes, k, recall, longer)
                    if wanted is not None:
                        assert segment.codes is not None
                        kinds.add(segment.codes.name)
                        passing = max(1, segment.rows * count // truth.slots)
                        listed += min(wanted, passing)
                        places += places_of(wanted, passing)
                        coded += segment.codes.toil(segment.rows)
                        uncoded -= segment.rows
            known = reading.graph
            if (
                graph and known is not None and known.since <= clock < known.until
                and (present or (kept is not None and kept.among_present))
            ):  # fmt: skip
                unfed = unfed_of(reading)
                if unfed <= _UNFED_MOST and present:
                    effort = known.efforts.of(recall, k)
                elif unfed <= _UNFED_MOST:
                    asked = asked_of(k, count / max(1, known.live.live))
                    effort = known.efforts.of(max(recall, NARROWED), asked)
        way = choose(
            Situation(
                visible=count, stored=truth.slots, span=end - first,
                dimensions=self.space.dimensions, codes=min(kinds, default=None), coded=coded,
                uncoded=uncoded, bounded=bounded, effort=effort, unfed=unfed,
                packable=kept is not None and kept.uses >= kept.copied_from and not reading.tiny
                and count * self.space.dimensions * 4 <= min(_PACKED_MOST, self.copied_kept),
                in_vain=0.0 if kept is None else kept.tries.in_vain, listed=listed, places=places,
                fruitless=lists.tries.in_vain,
            ),
            self._costs(),
        )  # fmt: skip
        if visible is None and graph:
            reading.ways[k, recall] = (way, effort or 0)
        elif chosen is not None:
            chosen.ways[k, recall] = (way, effort or 0)
        return way, effort or 0

    def choose_again(self) -> None:
        """Forget which ways were chosen: what they cost is known better now."""
        for kept in (None, *self._masks.values()):
            self._choose_again(self.reading, kept)

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
        doubted: list[Numbers] = []
        if way == "graph":
            found = self._many_by_graph(reading, queries, targets, k, effort, visible, cut.clock)
        elif way == "codes":
            found, doubted = self._many_by_codes(reading, queries, targets, k, visible, recall)
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
        narrow = self._narrowing(visible) is not None and graph is not None
        lacking = graph is not None and unfed_of(reading) > 0
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
            unusual = (
                graph is not None
                and length > 0
                and not narrow
                and self._unusual(graph, target, hits)
            )
            if length and doubted and len(doubted[n]):  # by itself, it is asked for more
                late = set(seen.seq.take(doubted[n]).tolist())
                unusual = any(seq in late for _, _, seq in hits)
            if not length or unusual:
                answers.append(
                    self._search(
                        reading, target, k, cut, valid_at, where, causal, threshold, recall,
                        graph=way != "graph" or (not unusual and not narrow),
                    )
                )  # fmt: skip
            else:
                answers.append(
                    Found(_above(hits, threshold), way, way in ("graph", "codes"), count)
                )
        return answers

    def _many_by_graph(
        self,
        reading: Reading,
        queries: Matrix,
        targets: Sequence[Target],
        k: int,
        effort: int,
        visible: Mask | None,
        clock: int,
    ) -> list[Numbers | None]:
        graph = reading.graph
        assert graph is not None
        none: list[Numbers | None] = [None] * len(queries)
        [asked, *_] = self._asks(reading, graph, k, visible)
        try:
            slots = graph.live.nearest_many(queries, asked, max(effort, asked))
        except GraphUnavailable:
            self.drop_graph(graph)
            return none
        if slots is None or has_lost(graph, reading, clock):
            return none
        found = [self._alive_of(reading, some, k, asked, visible) for some in slots]
        narrow = self._narrowing(visible)
        if narrow is not None:
            found = [
                None if self._astray(reading, graph, target, some) else rows
                for rows, some, target in zip(found, slots, targets, strict=True)
            ]
            narrow.note(len(found), sum(rows is None for rows in found))
        return found

    def _many_by_codes(
        self,
        reading: Reading,
        queries: Matrix,
        targets: Sequence[Target],
        k: int,
        visible: Mask | None,
        recall: float,
    ) -> tuple[list[Numbers | None], list[Numbers]]:
        """Rows that seem near to each query, and which of them are in doubt; None if codes fail."""
        seen, truth = reading.seen, reading.truth
        kept = self._kept_of(visible)
        own = own_codes(kept, k, recall)
        longer = self._lists_of(kept, (k, recall, False)).longer
        if own is not None:
            wanted = list_of(own.codes, k, recall, longer)
            if wanted is None:
                return [None] * len(queries), []
            try:
                lists = own.codes.promising_many(queries, wanted, None, k, recall)
            except CodesUnavailable:
                return [None] * len(queries), []
            return (
                [seen.rows_of(own.slots[some], visible) for some, _ in lists],
                [
                    seen.rows_of(own.slots[_doubted(some, short, own.codes, k, recall)], visible)
                    for some, short in lists
                ],
            )
        mask = self._slot_mask(reading, visible)
        parts: list[list[Numbers]] = [[] for _ in queries]
        lates: list[list[Numbers]] = [[np.empty(0, dtype=np.int64)] for _ in queries]
        for segment, part in truth.under(mask):
            wanted = list_of(segment.codes, k, recall, longer)
            if segment.codes is None or wanted is None:
                self._many_near(truth, targets, segment.start, segment.stop, k, mask, parts)
                continue
            try:
                lists = segment.codes.promising_many(queries, wanted, part, k, recall)
            except CodesUnavailable:
                return [None] * len(queries), []
            for (some, short), mine, late in zip(lists, parts, lates, strict=True):
                mine.append(segment.start + some)
                late.append(segment.start + _doubted(some, short, segment.codes, k, recall))
        if truth.sealed < truth.slots:
            self._many_near(truth, targets, truth.sealed, truth.slots, k, mask, parts)
        return (
            [seen.rows_of(np.concatenate(mine), visible) for mine in parts],
            [seen.rows_of(np.concatenate(mine), visible) for mine in lates],
        )

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
        """Add to each query's part what may be its best of the slots `start` to `stop`."""
        part = None if mask is None else mask[start:stop]
        slots = np.arange(start, stop) if part is None else start + np.flatnonzero(part)
        together = max(1, _BATCH_VALUES // (stop - start))
        for first in range(0, len(targets), together):
            some = targets[first : first + together]
            with np.errstate(over="ignore", invalid="ignore"):
                products = truth.products(np.stack([t.vector for t in some]), start, stop)
                if part is not None:
                    products = products[:, part]
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
        span = span_of(reading, visible)
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


def _doubted(some: Numbers, short: int, codes: Codes, k: int, recall: float) -> Numbers:
    """What stands late of rows that codes gave; all, if too few were asked for."""
    if short > 1:
        return some
    return some[late_from(len(some), codes.shallow(recall), k) :] if short else some[:0]


def _above(hits: list[Hit], threshold: float | None) -> list[Hit]:
    """Those whose score is at least the threshold."""
    return hits if threshold is None else [hit for hit in hits if -hit[0] >= threshold]
