"""The graphs of spaces: built of what is alive, fed what is born since, and kept in files.

They are made beside searches, which go on with the graph there was, or without one; see
`upkeep`, which says when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

import numpy as np

from koru_delta.causal import FOREVER
from koru_delta.search import cache, graph
from koru_delta.search.efforts import measured
from koru_delta.search.files import IndexFiles
from koru_delta.search.graph import Efforts, LiveGraph
from koru_delta.search.memory import Memory
from koru_delta.search.nearest import VectorSpace
from koru_delta.search.readings import Graph, Reading
from koru_delta.search.seen import Mask, Numbers

GRAPH_ROWS: Final = 4_000  # alive, from which a graph pays
FEED_ROWS: Final = 128  # born or ended since the graph was fed
BULK_ROWS: Final = 2_000  # given to a graph that nobody asks yet
OVERWRITTEN_PART: Final = 1000  # of a graph one in so many, and no more
_GROWN: Final = 1.5  # so much larger, a graph's efforts are measured again
_CALIBRATED: Final = 512  # queries a graph's efforts are measured by


class Graphs:
    """Makes the graphs of one database's spaces; asked by one thread at a time.

    What is `complete` is made to its end; anything else stops where `check` raises.
    """

    def __init__(self, files: IndexFiles, memory: Memory, check: Callable[[], None]) -> None:
        self._files = files
        self._memory = memory
        self._check = check
        self._too_few: dict[int, int] = {}  # slots when too few of them were alive for a graph
        self._saved: dict[int, tuple[Graph, int]] = {}
        self.unsaved: set[int] = set()  # spaces whose files an erasure has removed
        self.tell: Callable[[int], None] | None = None  # while somebody waits for all of it

    def wants(self, space: VectorSpace) -> bool:
        """Whether there is enough to do for a space."""
        reading = space.reading
        known = reading.graph
        if not self._pays(space, reading):
            return _is_small(reading)
        if known is None:
            return True
        fresh = reading.truth.slots - known.stop + len(reading.revived) + reading.deaths
        return fresh >= FEED_ROWS or (
            known.until != FOREVER and space.log.now().clock >= known.until
        )

    def _pays(self, space: VectorSpace, reading: Reading) -> bool:
        seen_before = self._too_few.get(space.space.space_id, -GRAPH_ROWS // 4)
        return (
            min(reading.seen.live, reading.truth.slots) >= GRAPH_ROWS
            and reading.truth.slots >= seen_before + GRAPH_ROWS // 4
            and self._memory.place(space).graph
            and graph.available()
        )

    # Making

    def build(self, space: VectorSpace, complete: bool) -> None:
        """Make the graph of a space, or feed it if it is behind by much."""
        self._build(space, complete, 1 if complete else FEED_ROWS)

    def feed_rest(self, space: VectorSpace, _complete: bool) -> None:
        """Feed the graph of a space if it is behind at all."""
        self._build(space, complete=False, least=1)

    def _build(self, space: VectorSpace, complete: bool, least: int) -> None:
        reading = space.reading
        if not self._pays(space, reading):
            if _is_small(reading):
                assert reading.graph is not None
                space.drop_graph(reading.graph)  # of a model that was left, for one
            return
        known = reading.graph
        alive, since, until = space.present_slots(reading)
        if known is None or known.live.worn:
            if np.count_nonzero(alive) < GRAPH_ROWS:  # many keys, but few vectors
                self._too_few[space.space.space_id] = reading.truth.slots
                return
            made, efforts = self._made(space, reading, np.flatnonzero(alive), complete)
            fresh = Graph(made, reading.truth.slots, efforts, made.live, since, until)
            space.publish_graph(reading, fresh)
            return
        behind = reading.truth.slots - known.stop + len(reading.revived) + reading.deaths
        if behind >= least or since >= known.until:
            known = replace(known, since=since, until=until)
            if self._feed(space, reading, known, alive, complete):
                self._build(space, complete, least)

    def _made(
        self, space: VectorSpace, reading: Reading, alive: Numbers, complete: bool
    ) -> tuple[LiveGraph, Efforts]:
        """A graph of these slots, and what it takes to find their nearest in it."""
        truth = reading.truth
        made = LiveGraph(space.space.dimensions, space.space.metric)
        slots = np.random.default_rng(1).permutation(alive)
        kept_out, slots = slots[:_CALIBRATED], slots[_CALIBRATED:]
        for start, some in pieces(slots, BULK_ROWS):
            self._check_unless(complete)
            made.feed(some, truth.take(some), chunk=BULK_ROWS)
            if self.tell is not None:
                self.tell(start + len(some))
        efforts = measured(space, truth, made, kept_out, slots)
        made.feed(kept_out, truth.take(kept_out))
        return made, efforts

    def _feed(
        self, space: VectorSpace, reading: Reading, known: Graph, alive: Mask, complete: bool
    ) -> bool:
        """Give a graph what it lacks of the slots alive, and take from it what has died.

        Returns:
            Whether it was changed so often by now that another should take its place.
        """
        truth = reading.truth
        held = known.live.holds(np.arange(truth.slots))
        # First what has died: its neighbours are then linked to what takes its place. Searches
        # that began before it did may be under way, and are to know.
        known.live.gone_by = (reading.seq, known.since)
        known.live.drop(np.flatnonzero(held & ~alive))
        lacking, held = np.flatnonzero(alive & ~held), held & alive
        if known.live.live > known.measured * _GROWN and len(lacking) >= _CALIBRATED // 4:
            kept_out = np.random.default_rng(3).permutation(lacking)[:_CALIBRATED]
            efforts = measured(space, truth, known.live, kept_out, np.flatnonzero(held))
            known = replace(known, efforts=efforts, measured=known.live.live)
        for _, some in pieces(lacking, FEED_ROWS):
            self._check_unless(complete)
            known.live.feed(some, truth.take(some))
        space.publish_graph(reading, replace(known, stop=truth.slots))
        return known.live.worn

    def _check_unless(self, complete: bool) -> None:
        if not complete:
            self._check()

    # Files

    def load(self, space: VectorSpace, _complete: bool) -> None:
        """Take the graph of a space from its file, if it has none yet and there is one."""
        if space.reading.graph is not None or not self._pays(space, space.reading):
            return
        made = self._files.read_graph(space)
        if made is not None:
            space.publish_graph(None, made)
            self._saved[space.space.space_id] = (made, made.live.fed)

    def save(self, space: VectorSpace, complete: bool = False) -> None:
        """Write the graph of a space if much of it is in no file."""
        place, reading = self._files.place(space), space.reading
        known = reading.graph
        if place is None or not self._files.writable or known is None:
            return
        last = self._saved.get(space.space.space_id)
        changed = known.live.fed - (last[1] if last and last[0].live is known.live else 0)
        due = changed >= (1 if complete else max(FEED_ROWS, known.live.live // 4))
        if not due and space.space.space_id not in self.unsaved:
            return
        self.unsaved.discard(space.space.space_id)
        if not self._overwritten(space, reading, known):
            return
        with cache.writing(place) as mine:
            if not mine or space.is_stale:
                return
            self._files.write_graph(space, place, reading, known)
        self._saved[space.space.space_id] = (known, known.live.fed)

    def _overwritten(self, space: VectorSpace, reading: Reading, known: Graph) -> bool:
        """See to it that a graph tells nothing of what was erased; False if that is too much.

        Then it is asked on, and written to no file.
        """
        gone = known.live.forgotten()
        if len(gone) > max(FEED_ROWS, known.live.live // OVERWRITTEN_PART):
            return False
        if len(gone):
            alive, _, _ = space.present_slots(reading)
            others = np.flatnonzero(alive)
            if not len(others):
                return False
            known.live.overwrite(gone, reading.truth.take(np.resize(others, len(gone))))
        return True


def _is_small(reading: Reading) -> bool:
    """Whether there is a graph of so little that it pays no more."""
    return reading.graph is not None and reading.seen.live < GRAPH_ROWS // 2


def is_behind(space: VectorSpace) -> bool:
    """Whether the graph of a space lacks anything."""
    reading = space.reading
    return reading.graph is not None and bool(
        reading.deaths or reading.revived or reading.graph.stop < reading.truth.slots
    )


def pieces(array: Numbers, size: int) -> Iterable[tuple[int, Numbers]]:
    """So many of an array after the other, and where each begins."""
    return ((start, array[start : start + size]) for start in range(0, len(array), size))
