"""Which rows are visible at a moment: an immutable view of them, as of one position.

It is good for every cut up to that position; how rows come about is in `rows.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from koru_delta.causal import FOREVER, Cut
from koru_delta.search.ghosts import SeenGhosts

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]
END: Final = -1  # of a chain of rows
PLAIN_ROW: Final = 1  # in the column `plain`; others have valid times of their own
ALWAYS: Final = -(2**63)  # before every time
_LONG_CHAIN = 64  # rows that share one vector, followed one by one


@dataclass(slots=True, eq=False)  # never changed; `frozen` would make each write dearer
class Seen:
    """The rows as they stood at one position: columns of int64, one number a row.

    `born` inclusive and `died` exclusive are log positions; `valid_from` inclusive,
    `valid_to` exclusive and `expires` exclusive are microseconds. A version's own position
    is `seq`. Columns of times are there only once some row has a valid time or an end of life.
    """

    count: int
    live: int  # rows that nothing has ended
    changed: int  # the last position at which a row was born or died
    aligned: bool  # row i has slot i
    timed: bool
    rectangles: bool  # whether some rows are not plain
    clocked: bool  # whether some row that nothing has ended comes or goes by the clock
    born: Numbers
    died: Numbers
    slot: Numbers
    key: Numbers
    times: Mapping[str, Numbers]
    first: Numbers | None  # of each slot, its newest row; None where aligned
    next: Numbers | None  # of each row, the one before it with the same slot
    ghosts: SeenGhosts | None = None  # of what is superseded, if anything was

    @property
    def seq(self) -> Numbers:
        """The position of the version each row belongs to."""
        return self.times["seq"] if self.timed else self.born

    def is_now(self, cut: Cut, valid_at: int, *, superseded: bool = False) -> bool:
        """Whether exactly the rows that nothing has ended are visible."""
        if self.clocked or cut.seq < self.changed or valid_at < cut.clock:
            return False
        return not superseded or self.ghosts is None

    def visible(
        self,
        cut: Cut,
        valid_at: int,
        position: Callable[[int], int],
        *,
        superseded: bool = False,
    ) -> Mask:
        """Which rows are what their key holds at a cut and valid time, and not hidden there.

        With `superseded` also a row each of what is superseded there, else that is left out.
        The mask is the caller's own.
        """
        mask = self._shown(cut, valid_at, position)
        if superseded and self.ghosts is not None:
            mask[self.ghosts.rows_at(cut, valid_at)] = True
        return mask

    def _shown(self, cut: Cut, valid_at: int, position: Callable[[int], int]) -> Mask:
        born, died = self.born, self.died
        if self.timed and self.is_now(cut, valid_at):
            return self.alive()
        if not self.timed and valid_at >= cut.clock:
            mask: Mask = died > min(cut.seq, self.changed)
            if len(born) and born[-1] > cut.seq:  # in order, as long as nothing is timed
                mask[int(np.searchsorted(born, cut.seq, side="right")) :] = False
            return mask
        plain_seq = cut.seq if valid_at >= cut.clock else min(cut.seq, position(valid_at))
        if not self.timed:
            return (born <= plain_seq) & (plain_seq < died)
        seq: int | Numbers = (
            cut.seq
            if plain_seq == cut.seq
            else np.where(self.times["plain"] == PLAIN_ROW, plain_seq, cut.seq)
        )
        mask = (born <= seq) & (seq < died) & (cut.clock < self.times["expires"])
        if self.rectangles:
            mask &= (self.times["valid_from"] <= valid_at) & (valid_at < self.times["valid_to"])
        return mask

    def steady(self, cut: Cut, valid_at: int, *, superseded: bool = False) -> tuple[int, int]:
        """From when to when, exclusive, a clock may go on and the same rows are visible.

        With `valid_at` before the clock it stands still, else it goes along.
        """
        if not self.timed:
            return ALWAYS, FOREVER
        names = ("valid_from", "valid_to", "expires") if valid_at >= cut.clock else ("expires",)
        columns = [self.times[name] for name in names]
        if superseded and self.ghosts is not None:
            columns += [getattr(self.ghosts, name) for name in names]
        times = np.concatenate(columns)
        past = times <= cut.clock
        low = int(times[past].max(initial=ALWAYS))
        return low, int(times[~past].min(initial=FOREVER))

    def beginning(self, clock: int) -> int:
        """When a row that is not true yet at a clock will be."""
        if not self.timed:
            return FOREVER
        begins = self.times["valid_from"]
        return int(begins[begins > clock].min(initial=FOREVER))

    def alive(self, rows: Numbers | slice | None = None) -> Mask:
        """Of some rows, or of all, those that nothing had ended at this view's position."""
        died = self.died if rows is None else self.died[rows]
        found: Mask = died > self.changed  # later ends may stand there already
        return found

    def rows_of(self, slots: Numbers, visible: Mask | None) -> Numbers:
        """The visible rows of some distinct slots; with None those that nothing has ended."""
        if self.first is None or self.next is None:
            kept = self.alive(slots) if visible is None else visible[slots]
            return slots[kept]
        rows = self.first[slots]
        found: list[Numbers] = []
        for _ in range(_LONG_CHAIN):
            rows = rows[rows != END]
            if not len(rows):
                return np.concatenate(found) if found else rows
            known = rows[rows < self.count]  # newer ones are not part of this view
            found.append(known[self.alive(known) if visible is None else visible[known]])
            rows = self.next[rows]
        flagged = np.zeros(len(self.first), dtype=np.bool_)
        flagged[slots] = True
        every = np.flatnonzero(self.alive() if visible is None else visible)
        return every[flagged[self.slot[every]]]

    def slots_of(self, visible: Mask, slots: int) -> Mask:
        """Which of the first `slots` slots have a visible row."""
        if self.aligned:
            return visible
        mask = np.zeros(slots, dtype=np.bool_)
        mask[self.slot[visible]] = True
        return mask
