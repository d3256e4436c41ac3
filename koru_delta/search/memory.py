"""The memory of one process for vectors: what is held, and what is to be held within a budget."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np

from koru_delta.search import graph
from koru_delta.search.budget import Need, Place, allot, page_bytes, scan_bytes
from koru_delta.search.nearest import VectorSpace
from koru_delta.search.pages import trim

_NEAR: Final = Place({}, graph=True)  # where memory is not limited
_log = logging.getLogger("koru_delta")


class Memory:
    """Shares out a budget among the spaces of a database."""

    def __init__(
        self, opened: Callable[[], Iterable[VectorSpace]], budget: int | None, *, in_files: bool
    ) -> None:
        """`in_files`: whether there are files that have what is let go of."""
        self._opened = opened
        self._budget = budget
        self._in_files = in_files
        self._places: dict[int, Place] = {}  # by space, as the budget was last shared out
        self._told = False  # that it is too little

    @property
    def is_limited(self) -> bool:
        """Whether there is a budget."""
        return self._budget is not None

    def place(self, space: VectorSpace) -> Place:
        """Where the segments of a space are to be."""
        return self._places.get(space.space.space_id, _NEAR)

    def share_out(self) -> None:
        """Decide what of all spaces is kept in memory, if that is limited."""
        if self._budget is None:
            return
        fixed, needs, live = page_bytes(self._budget), [], {}
        for space in self._opened():
            reading = space.reading
            alive = reading.seen.slots_of(reading.seen.alive(), reading.truth.slots)
            # Without the library there is no graph to leave room for.
            held = int(np.count_nonzero(alive)) if graph.available() else 0
            live[space.space.space_id] = held
            fixed += space.fixed_bytes + space.kept_bytes
            for segment in reading.truth.segments:
                share = np.count_nonzero(alive[segment.start : segment.stop]) / segment.rows
                needs.append(
                    Need(
                        space.space.space_id, segment.start, segment.stop,
                        space.space.dimensions, round(float(share), 1),
                    )
                )  # fmt: skip
        places = allot(self._budget, fixed, needs, live)
        cold = _longest_cold(needs, places)
        self._places = (
            allot(self._budget, fixed + scan_bytes(cold), needs, live) if cold else places
        )
        least = self._least()
        if 0 < self._budget < least and not self._told:
            self._told = True
            _log.warning(
                "vector_memory is %d bytes, but what is known of the vectors takes %d with all of "
                "them in files; give so much, or 0 for as little as can be",
                self._budget, least,
            )  # fmt: skip

    def statistics(self) -> dict[str, int | None]:
        """Bytes: the budget, what is held, and the least that can be held of these vectors.

        As accounted for, not as the system sees it.
        """
        held, cold = page_bytes(self._budget), 0
        for space in self._opened():
            known = space.reading.graph
            held += space.fixed_bytes + space.kept_bytes
            held += 0 if known is None else known.live.nbytes
            for segment in space.reading.truth.segments:
                held += segment.nbytes
                cold = max(cold, segment.rows if segment.tier == "cold" else 0)
        return {
            "budget_bytes": self._budget,
            "held_bytes": held + scan_bytes(cold),
            "least_bytes": self._least(),
        }

    def _least(self) -> int:
        least, longest = page_bytes(0), 0
        for space in self._opened():
            least += space.fixed_bytes
            for segment in space.reading.truth.segments:
                if self._in_files:
                    longest = max(longest, segment.rows)
                else:
                    least += segment.nbytes
        return least + scan_bytes(longest)

    def give_back(self) -> None:
        """Return to the system what the allocator keeps of memory that was let go of."""
        trim()


def _longest_cold(needs: Iterable[Need], places: dict[int, Place]) -> int:
    cold = (n for n in needs if places[n.space].tiers[n.start] == "cold")
    return max((need.stop - need.start for need in cold), default=0)
