"""What is made of a mask of rows that searches come back to: a filter, or a moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from koru_delta.search.codes import Codes
from koru_delta.search.plan import Way
from koru_delta.search.seen import Mask, Numbers
from koru_delta.search.truth import Matrix, Segment

_TRIES: Final = 8  # of a way, which tell how often it is taken in vain
_TOO_SHORT: Final = 0.3  # share of lists too short, at which longer ones are asked for at once
_LISTS: Final = 32  # which tell how often that is, at least
_LONGEST: Final = 4  # times as long
_UNTIL_COPIED_AGAIN: Final = 64  # uses, after others needed the room
_SHIFTED: Final = 0.05  # share in vain that has changed so much changes what is cheapest
# How many are sought, with which recall, and whether a graph was asked before, in vain: then it
# is a query unlike what is stored, mostly.
Asked = tuple[int, float, bool]


class Packed(NamedTuple):
    """Copies of the vectors under a mask, side by side: `rows` are theirs, `slots` too."""

    rows: Numbers
    slots: Numbers
    vectors: Matrix

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        numbers = self.rows.nbytes + (0 if self.slots is self.rows else self.slots.nbytes)
        return numbers + self.vectors.nbytes


class Coded(NamedTuple):
    """Codes of just the vectors under a mask: of the slots `slots`, in their order."""

    slots: Numbers
    codes: Codes

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.slots.nbytes + self.codes.nbytes


@dataclass(slots=True, eq=False)
class Tries:
    """How often a way was taken, and in vain: another had to answer in the end."""

    asked: int = 0
    failed: int = 0
    chosen_at: float = 0.0  # the share in vain that ways were chosen with

    @property
    def in_vain(self) -> float:
        """The share of searches for which it is asked in vain: less while few were."""
        return self.failed / (self.asked + _TRIES)

    def note(self, asked: int, failed: int) -> bool:
        """Count some; True if ways should be chosen anew."""
        self.asked += asked
        self.failed += failed
        moved = abs(self.in_vain - self.chosen_at) > _SHIFTED
        if moved:
            self.chosen_at = self.in_vain
        return moved


@dataclass(slots=True, eq=False)
class Lists:
    """How long the lists are that codes are asked for, by how often they were too short."""

    longer: int = 1  # times as many as usual
    listed: int = 0  # how often that was asked for
    short: int = 0  # and how often it was too few
    chosen_for: int = 1  # how long they were when ways were chosen
    tries: Tries = field(default_factory=Tries)  # of codes

    def note(self, *, short: bool) -> None:
        """Count a list, and whether a longer one was needed."""
        self.listed += 1
        self.short += short
        if self.short > _TOO_SHORT * max(self.listed, _LISTS) and self.longer < _LONGEST:
            self.longer += 1
            self.listed = self.short = 0

    def end(self, *, found: bool) -> bool:
        """Count a search by codes; True if by what is known now ways should be chosen anew."""
        moved = self.tries.note(1, not found)
        changed, self.chosen_for = self.chosen_for != self.longer, self.longer
        return moved or changed


class ChosenWays(NamedTuple):
    """Ways that were chosen for a mask, by how many are sought: with these segments and graph.

    Threads may hold older ones than others do, so that all of it is read, and left, at once.
    """

    segments: tuple[Segment, ...]
    graph: object
    ways: dict[tuple[int, float], tuple[Way, int]]


@dataclass(slots=True, eq=False)
class KeptMask:
    """Which rows pass a filter or are visible at a moment, and what was made of it since."""

    mask: Mask  # never changed
    count: int  # of those that pass
    low: int  # clocks at which it holds, from this one on
    high: int  # and up to this one, exclusive
    present: bool  # whether it is all that is visible now
    among_present: bool  # or a part of it
    used_at: int = 0  # in the order of uses of all
    uses: int = 0
    copied_from: int = 1  # so many uses on, the vectors under it may be copied together
    slots: Mask | None = None  # which vectors have such a row
    packed: Packed | None = None
    coded: Coded | None = None
    is_to_be_coded: bool = False  # or was once
    lists: dict[Asked, Lists] = field(default_factory=dict)
    # Of a graph for a part of what is visible now: in vain if too few pass, or it is not to be
    # trusted.
    tries: Tries = field(default_factory=Tries)
    chosen: ChosenWays | None = None

    def use(self, turn: int) -> None:
        """Count a use. Once copies may be made, ways are chosen anew."""
        self.uses, self.used_at = self.uses + 1, turn
        if self.uses == self.copied_from:
            self.chosen = None

    def note(self, asked: int, failed: int) -> None:
        """Count what a graph was asked, and what in vain: ways may be chosen anew then."""
        if self.tries.note(asked, failed):
            self.chosen = None

    @property
    def copied_bytes(self) -> int:
        """Bytes of what was copied of the vectors under it, and made of them."""
        return sum(each.nbytes for each in (self.packed, self.coded) if each is not None)

    def let_go(self) -> None:
        """Keep no copies, nor make any soon: where masks take turns they would never stay."""
        self.packed = self.coded = None
        self.copied_from = self.uses + _UNTIL_COPIED_AGAIN
        self.chosen = None


class ToCode(NamedTuple):
    """A mask that is used often, of whose slots codes of this kind are wanted."""

    kept: KeptMask
    slots: Numbers
    kind: str
