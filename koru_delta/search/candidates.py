"""Candidates: rows that may be among the best, by the graph, by codes, or by looking at all."""

from __future__ import annotations

from math import ceil, sqrt
from typing import Final

import numpy as np

from koru_delta.search.codes import Codes
from koru_delta.search.frame import TRIED_K, CodesUnavailable
from koru_delta.search.graph import GraphUnavailable
from koru_delta.search.kept import Coded, KeptMask, Lists
from koru_delta.search.masks import Masks
from koru_delta.search.plan import asked_of
from koru_delta.search.readings import Graph, Reading
from koru_delta.search.scoring import Hit, Target
from koru_delta.search.seen import Mask, Numbers
from koru_delta.search.truth import Matrix, Truth
from koru_delta.values import Vector

NARROWED: Final = 0.98  # recall of a graph's nearest of which some pass
_BY_CODES: Final = (0.99, 0.98)  # recall of codes, whatever less is asked: it costs little
_FEW_UNFED: Final = 16  # beside the graph, so few that all are scored exactly
_COMPARED: Final = 96  # candidates, so few that all are scored exactly
_WIDENED: Final = 4  # times as many are asked for, where one of the best stands late
_ASKED_MOST: Final = 3  # times that codes are asked
_OFTEN: Final = 500  # uses of a mask, after which codes of its own would have paid
_FEW_STAND: Final = 1  # place further back than their share of ten, of fewer that are sought
_SMALL: Final = 4096  # rows of a segment, of which any number is quickly looked at
_SPARE_FOR_DEAD: Final = (6, 64)  # asked of the graph for those that died since it was fed


class Candidates(Masks):
    """Ways to the rows that may be among the best, each as good as its promise."""

    # By the graph

    def _narrowing(self, visible: Mask | None) -> KeptMask | None:
        """What was made of a mask that lets by a part of what is visible now."""
        kept = self._kept_of(visible)
        return kept if kept is not None and kept.among_present and not kept.present else None

    def _by_graph(
        self,
        reading: Reading,
        target: Target,
        k: int,
        effort: int,
        visible: Mask | None,
        clock: int,
    ) -> list[Hit] | None:
        """The best that the graph leads to; None if it is busy or not to be trusted here."""
        graph = reading.graph
        assert graph is not None
        narrow = None if visible is None else self._narrowing(visible)
        for asked in self._asks(reading, graph, k, visible):
            try:
                slots = graph.live.nearest(target.vector, asked, max(effort, asked))
            except GraphUnavailable:
                self.drop_graph(graph)
                return None
            if slots is None or has_lost(graph, reading, clock):
                return None
            if narrow is not None and self._astray(reading, graph, target, slots):
                break
            rows = self._alive_of(reading, slots, k, asked, visible)
            if rows is not None:
                unfed = unfed_of(reading)
                if 0 < unfed <= _FEW_UNFED:
                    rows = self._with_few(reading, rows, visible)
                hits = self._hits(reading, target, rows, k)
                if unfed > _FEW_UNFED:
                    with np.errstate(over="ignore", invalid="ignore"):
                        products = reading.truth.products(
                            target.vector, graph.stop, reading.truth.slots
                        )
                    hits = self._with_unfed(reading, target, products, hits, k, visible)
                if narrow is not None:
                    narrow.note(1, 0)
                elif self._unusual(graph, target, hits):
                    return None
                return hits
        if narrow is not None:
            narrow.note(1, 1)
        return None

    def _asks(
        self, reading: Reading, graph: Graph, k: int, visible: Mask | None
    ) -> tuple[int, ...]:
        """How many to ask the graph for, and how many if too few of these are visible."""
        if visible is None and not reading.deaths:
            return (k,)
        kept = self._kept_of(visible)
        if kept is not None and not kept.present:
            return (asked_of(k, kept.count / max(1, graph.live.live)),)
        dead = max(reading.deaths, 0 if kept is None else graph.live.live - kept.count)
        return tuple(k + min(dead, spare) for spare in _SPARE_FOR_DEAD)

    def _astray(self, reading: Reading, graph: Graph, target: Target, slots: Numbers) -> bool:
        """As `_unusual`, by what the graph gave before any of it was left out."""
        known = slots[slots < reading.truth.slots][: len(graph.efforts.floors)]
        if not len(known):
            return False
        [score] = self.exact(reading.truth, target, known[-1:]).tolist()
        return self._unusual(graph, target, [(-score, "", 0)] * len(known))

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

    def _unusual(self, graph: Graph, target: Target, hits: list[Hit]) -> bool:
        """Whether a graph found so little that its efforts, measured by others, do not hold.

        A query unlike all that is stored, as questions can be, needs far more effort.
        """
        floors = graph.efforts.floors
        if not floors or not hits:
            return False
        rank = min(len(hits), len(floors)) - 1
        floor = floors[rank]
        if self.space.metric == "dot":
            floor *= sqrt(target.square)
        return -hits[rank][0] < floor

    # By codes

    def _by_codes(
        self,
        reading: Reading,
        target: Target,
        k: int,
        visible: Mask | None,
        recall: float,
        lists: Lists,
    ) -> list[Hit] | None:
        """The best of those that seem near by their codes; None if these do not tell.

        More are asked for as long as some of the best were among the last that codes gave.
        """
        truth, widened = reading.truth, lists.longer
        for nth in range(_ASKED_MOST):
            found = self._promising(reading, target, k, visible, recall, widened)
            if found is None:
                return None
            slots, late, short = found
            best = None
            if len(slots) > max(k, _COMPARED):
                best = self._contenders(truth, target, k, slots)
                slots = slots if best is None else slots[best]
            least = self._least(truth, target, slots)
            order = sorted(range(len(least)), key=least.__getitem__)
            top = order[:k] if best is None else best.take(order[:k]).tolist()
            if any(place in some for some in late for place in top):
                short = max(short, _WIDENED)
            if not nth:
                lists.note(short=short > 1)
            if short <= 1:
                return self._hits_of(reading, slots, least, order, k, visible)
            widened *= short
        return None

    def _promising(
        self,
        reading: Reading,
        target: Target,
        k: int,
        visible: Mask | None,
        recall: float,
        widened: int,
    ) -> tuple[Numbers, list[range], int] | None:
        """Slots that seem near by codes, or have none; which stand late; how wider to ask.

        None where codes fail, or so many are asked for that a scan is quicker.
        """
        truth, query = reading.truth, target.vector
        kept = self._kept_of(visible)
        own = own_codes(kept, k, recall)
        if own is not None:
            near = _asked(own.codes, query, k, recall, widened, None)
            if near is None:
                return None
            some, short = near
            return (
                own.slots[some],
                [_late(0, len(some), own.codes, k, recall)] if short else [],
                short,
            )
        mask = self._slot_mask(reading, visible)
        if kept is not None and kept.uses >= _OFTEN and not kept.is_to_be_coded:
            assert mask is not None
            self._want_codes(reading, kept, mask)
        found: list[Numbers] = []
        late: list[range] = []
        count, short = 0, 0
        for segment, part in truth.under(mask):
            if segment.codes is None or candidates_of(segment.codes, k, recall) is None:
                found.append(self._possible_of(truth, target, k, segment.start, segment.stop, mask))
            else:
                near = _asked(segment.codes, query, k, recall, widened, part)
                if near is None:
                    return None
                some, shorter = near
                short = max(short, shorter)
                found.append(segment.start + some if segment.start else some)
                if shorter:
                    late.append(_late(count, len(some), segment.codes, k, recall))
            count += len(found[-1])
        if truth.sealed < truth.slots:
            found.append(self._possible_of(truth, target, k, truth.sealed, truth.slots, mask))
        return (found[0] if len(found) == 1 else np.concatenate(found)), late, short

    def _contenders(self, truth: Truth, target: Target, k: int, slots: Numbers) -> Numbers | None:
        """The places of those slots that may be among the `k` best of them; None is all."""
        with np.errstate(over="ignore", invalid="ignore"):
            near = truth.gathered(target.vector, slots)
            return self._possible(truth, near, slots, target, k)

    # By all that is visible

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
                    first, end = span_of(reading, visible)
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
        for segment, part in truth.under(mask):
            if segment.bounds is None:
                found.append(self._possible_of(truth, target, k, segment.start, segment.stop, mask))
                continue
            try:
                found.append(segment.start + segment.bounds.contenders(target.vector, k, part))
            except CodesUnavailable:
                return None
        if truth.sealed < truth.slots:
            found.append(self._possible_of(truth, target, k, truth.sealed, truth.slots, mask))
        return reading.seen.rows_of(np.concatenate(found), visible)


def has_lost(graph: Graph, reading: Reading, clock: int) -> bool:
    """Whether a graph may have dropped what is visible to a search: ask it after the graph.

    A search goes on with the reading that it began with, while rows end and another thread
    takes them out.
    """
    seq, since = graph.live.gone_by
    return reading.seq < seq or clock < since


def unfed_of(reading: Reading) -> int:
    """How many vectors its graph may not hold yet."""
    assert reading.graph is not None
    return reading.truth.slots - reading.graph.stop + len(reading.revived)


def span_of(reading: Reading, visible: Mask | None) -> tuple[int, int]:
    """Slots between which everything visible lies, the second exclusive."""
    if visible is None or not reading.seen.aligned:
        return 0, reading.truth.slots
    return int(visible.argmax()), len(visible) - int(visible[::-1].argmax())


def candidates_of(codes: Codes | None, k: int, recall: float) -> int | None:
    """How many rows to take from codes; None: they do not hold the recall, or are missing."""
    if codes is None:
        return None
    for wished in _BY_CODES:
        wanted = codes.candidates(k, max(recall, wished))
        if wanted is not None:
            return max(wanted, 2 * k + codes.spare(recall))
    return None


def list_of(codes: Codes | None, k: int, recall: float, longer: int) -> int | None:
    """As `candidates_of`, so many times as long; None also where that does not pay any more."""
    wanted = candidates_of(codes, k, recall)
    if wanted is None or codes is None:
        return None
    pays = longer == 1 or codes.rows <= _SMALL or wanted * longer * codes.worth <= codes.rows
    return wanted * longer if pays else None


def own_codes(kept: KeptMask | None, k: int, recall: float) -> Coded | None:
    """Codes of just what is under a mask, if there are any that hold the recall."""
    own = None if kept is None else kept.coded  # which others may let go of
    return own if own is not None and candidates_of(own.codes, k, recall) is not None else None


def _asked(
    codes: Codes,
    query: Vector,
    k: int,
    recall: float,
    widened: int,
    mask: Mask | None,
) -> tuple[Numbers, int] | None:
    """See `Codes.promising`; None if codes fail, or do not pay."""
    wanted = list_of(codes, k, recall, widened)
    if wanted is None:
        return None
    try:
        return codes.promising(query, wanted, mask, k, recall)
    except CodesUnavailable:
        return None


def late_from(count: int, shallow: float, k: int) -> int:
    """The first place among `count` that codes gave at which the `k` best should not stand.

    Less than ten stand nearer to the front, unless codes tell what is near from nothing.
    """
    return ceil(count * shallow * min(1.0, (k + _FEW_STAND) / (TRIED_K + _FEW_STAND)))


def _late(start: int, count: int, codes: Codes, k: int, recall: float) -> range:
    """Which places stand late, of `count` rows that codes gave and that come from `start` on."""
    return range(start + late_from(count, codes.shallow(recall), k), start + count)
