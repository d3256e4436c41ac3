"""Which rows of a space a search chooses from."""

from __future__ import annotations

from typing import Final

import numpy as np

from koru_delta.causal import Cut
from koru_delta.search.causality import Condition
from koru_delta.search.codes import encode
from koru_delta.search.filters import CompiledFilter
from koru_delta.search.kept import Asked, Coded, KeptMask, Lists, Packed, ToCode
from koru_delta.search.readings import Reading
from koru_delta.search.scoring import Scoring
from koru_delta.search.seen import Mask, Seen
from koru_delta.search.truth import Chosen

_MASKS_KEPT: Final = 64
_SLOT_BYTES: Final = 8
_WORTH_CODING: Final = 0.8  # of what takes so much of the time that it takes now
_TO_CODE_MOST: Final = 4  # masks that wait for codes
_LEAST_CODED: Final = 1000  # under a mask, from which codes of just these pay


class Masks(Scoring):
    """Which rows pass, at a moment and under filters; what is made of a mask is kept with it."""

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
        # What is present now has another name than the same moment has once it is past:
        # of what has died since, the graph of now tells nothing.
        name = (
            where, latest, seen.changed if latest else cut.seq, None if goes_along else valid_at,
            None if causal is None else causal.name,
        )  # fmt: skip
        kept = self._masks.get(name)
        self._turn += 1
        if kept is not None and len(kept.mask) == seen.count and kept.low <= cut.clock < kept.high:
            kept.use(self._turn)
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
                latest and goes_along,
                self._turn,
            )
            most = max(1, min(_MASKS_KEPT, self.masks_kept // max(1, seen.count)))
            while len(self._masks) > most:
                del self._masks[min(self._masks, key=lambda name: self._masks[name].used_at)]
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

    def _matching(self, where: CompiledFilter, rows: int) -> Mask:
        with self._columns_lock:
            return where.mask(self._columns, rows)

    def _kept_of(self, visible: Mask | None) -> KeptMask | None:
        """What was made of a mask that is kept."""
        kept = None if visible is None else self._kept.get(id(visible))
        return kept if kept is not None and kept.mask is visible else None

    def _lists_of(self, kept: KeptMask | None, asked: Asked) -> Lists:
        """How long lists are to be of what is under a mask, or of all."""
        known = self._lists if kept is None else kept.lists
        if len(known) > _MASKS_KEPT:
            known.clear()
        return known.setdefault(asked, Lists())

    def _choose_again(self, reading: Reading, kept: KeptMask | None) -> None:
        """Forget the ways that were chosen: what they cost is known better now."""
        if kept is None:
            reading.ways.clear()
        else:
            kept.chosen = None

    def _packed(self, reading: Reading, kept: KeptMask) -> Packed:
        """The vectors under a kept mask, copied together at the first time."""
        known = kept.packed
        if known is None:
            rows = np.flatnonzero(kept.mask)
            slots = rows if reading.seen.aligned else reading.seen.slot[rows]
            known = Packed(rows, slots, reading.truth.take(slots))
            with self._columns_lock:
                kept.packed = known
            self._bound_copies(kept)
        return known

    def _bound_copies(self, latest: KeptMask) -> None:
        """Let go of copies under other masks, if there are too many: of the one unused longest."""
        with self._columns_lock:
            others = [each for each in self._masks.values() if each.copied_bytes]
            others.sort(key=lambda each: each.used_at)
            size = sum(each.copied_bytes for each in others)
            for each in others:
                if size > self.copied_kept and each is not latest:
                    size -= each.copied_bytes
                    each.let_go()

    def _want_codes(self, reading: Reading, kept: KeptMask, mask: Mask) -> None:
        """Have codes made of just what is under a mask that is used often."""
        if len(self.to_code) > _TO_CODE_MOST:
            return  # it will come again
        kept.is_to_be_coded = True
        held = [s.codes for s in reading.truth.segments if s.codes is not None and s.codes.nbytes]
        if kept.count < _LEAST_CODED or not held:
            return
        like = max(held, key=lambda each: each.rows)
        fits = kept.count * (like.nbytes // like.rows + _SLOT_BYTES) <= self.copied_kept // 2
        toil = sum(each.toil(each.rows) for each in held)
        if fits and like.toil(kept.count) < _WORTH_CODING * toil:
            self.to_code.append(ToCode(kept, np.flatnonzero(mask), like.name))
            self.moved()

    def code(self, wanted: ToCode) -> None:
        """Make the codes that are wanted of a mask, if they hold any recall.

        Raises:
            CodesUnavailable, Unusable: they cannot be made.
        """
        kept, slots, kind = wanted
        if self._kept_of(kept.mask) is not kept:
            return
        codes = encode(Chosen(self.reading.truth, slots), self.space.metric, kind=kind)
        if codes is not None:
            kept.coded, kept.lists = Coded(slots, codes), {}
            kept.chosen = None
            self._bound_copies(kept)

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
