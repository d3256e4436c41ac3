"""Walking the causes of versions: up to what they came from, down to what came of them.

A walk goes ring by ring, each in a few statements however many versions it holds, and
names them by their positions. An edge is known from the position of its effect on, so a
walk at a cut goes the way it went then. Causes come earlier than their effects: there are
no cycles, and where ways meet again nothing is walked twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final, Literal

from koru_delta.causal import CAUSE_KINDS
from koru_delta.log.records import identified_record
from koru_delta.storage import SqliteEngine

Direction = Literal["up", "down", "both"]
ALL_KINDS: Final = frozenset(CAUSE_KINDS)


class Walk:
    """The causes of some kinds, as they were known at a position of the log."""

    def __init__(self, engine: SqliteEngine, until: int, kinds: frozenset[str] = ALL_KINDS) -> None:
        self._engine = engine
        self._until = until
        self._kinds = kinds
        self._ids: dict[int, bytes] = {}  # by position, read once
        self._places: dict[bytes, int] = {}  # and back
        self._causes: dict[int, tuple[bytes, ...]] = {}  # those of the kinds, in their order

    def rings(
        self, starts: Collection[int], direction: Direction, max_hops: int | None = None
    ) -> Iterator[list[int]]:
        """The positions one hop away from `starts`, then two, and on; each ring in log order.

        Each position once, at its shortest distance. A start is there only if another leads
        to it, and not in both directions, where any way leads back.
        """
        ring = sorted(set(starts))
        beginning, seen = frozenset(ring), set(ring)
        again: set[int] = set()
        hops = 0
        while ring and (max_hops is None or hops < max_hops):
            near: set[int] = set()
            if direction != "down":
                near.update(*self.causes(ring).values())
            if direction != "up":
                near |= self._effects(ring)
            fresh = near - seen
            met = set() if direction == "both" else (near & beginning) - again
            again |= met
            seen |= fresh
            if fresh or met:
                yield sorted(fresh | met)
            ring = sorted(fresh)
            hops += 1

    def reached(
        self, starts: Collection[int], direction: Direction, max_hops: int | None = None
    ) -> list[int]:
        """All that `rings` gives, in log order."""
        return sorted(seq for ring in self.rings(starts, direction, max_hops) for seq in ring)

    def following(self, after: int, starts: Collection[int], reached: Collection[int]) -> list[int]:
        """What a walk down without end reaches besides, given what it `reached` up to `after`.

        `starts` may be more than there were then. In log order.
        """
        seqs = range(after + 1, self._until + 1)
        from_here = {*starts, *reached}
        found: list[int] = []
        for seq, causes in self.causes(seqs).items():  # causes come first
            if not from_here.isdisjoint(causes):
                from_here.add(seq)
                found.append(seq)
        return found

    def path(self, effect: int, cause: int) -> list[int]:
        """A shortest way up from one to the other, both included; [] if there is none.

        Among several, the one whose first step was named first as a cause, and so on.
        """
        came: dict[int, int | None] = {effect: None}
        ring = [effect]
        while ring and cause not in came:
            fresh: list[int] = []
            for here, parents in self.causes(ring).items():
                for parent in parents:
                    if parent >= cause and parent not in came:  # what is earlier leads past it
                        came[parent] = here
                        fresh.append(parent)
            ring = fresh
        way: list[int] = []
        step = cause if cause in came else None
        while step is not None:
            way.append(step)
            step = came[step]
        return way[::-1]

    def causes(self, seqs: Sequence[int]) -> dict[int, list[int]]:
        """For each of these positions those of its causes, in the order they were named."""
        self._read(seqs)
        named = {seq: self._causes[seq] for seq in seqs}
        missing = {each for causes in named.values() for each in causes} - self._places.keys()
        self._places.update(self._engine.places_of(list(missing)))
        places, until = self._places, self._until
        return {
            seq: [places[each] for each in causes if places.get(each, until + 1) <= until]
            for seq, causes in named.items()
        }

    def _effects(self, seqs: Sequence[int]) -> set[int]:
        """The positions of what names one of these as a cause."""
        self._read(seqs)
        ids = {self._ids[seq] for seq in seqs}
        candidates = self._engine.effects_many(list(ids), self._until)
        self._read(candidates)
        # The table of edges knows the beginnings of ids and no kinds; the record decides.
        return {seq for seq in candidates if not ids.isdisjoint(self._causes[seq])}

    def _read(self, seqs: Sequence[int]) -> None:
        known, kinds = self._causes, self._kinds
        missing = [seq for seq in seqs if seq not in known]
        for seq, identity, stored in self._engine.records_at(missing):
            given = identified_record(seq, identity, stored).get("causes", ())
            named = [bytes.fromhex(ref) for kind, ref in given if kind in kinds]
            known[seq] = tuple(named if len(named) < 2 else dict.fromkeys(named))
            self._ids[seq] = identity
            self._places[identity] = seq
