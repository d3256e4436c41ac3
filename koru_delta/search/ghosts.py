"""Rows of superseded versions: what search leaves out by default, and can be asked for.

A ghost says that what a row stands for is still there, superseded, from one log position to
another and over one interval of valid time. It names a row of the same version (one that
has ended), so that a mask over rows can take it in. As rows do, ghosts only ever get `died`
written in place, so a view handed out stays good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from koru_delta.causal import FOREVER, Cut

Numbers = npt.NDArray[np.int64]
_NAMES: Final = ("row", "born", "died", "valid_from", "valid_to", "expires")


@dataclass(frozen=True, slots=True, eq=False)
class SeenGhosts:
    """The ghosts as they stood at one position: columns of int64, as those of `Seen`.

    `row` is a row of the version that each stands for.
    """

    row: Numbers
    born: Numbers
    died: Numbers
    valid_from: Numbers
    valid_to: Numbers
    expires: Numbers

    def rows_at(self, cut: Cut, valid_at: int) -> Numbers:
        """The rows whose versions are there at a cut and valid time, though superseded."""
        there = (self.born <= cut.seq) & (cut.seq < self.died)
        there &= (self.valid_from <= valid_at) & (valid_at < self.valid_to)
        there &= cut.clock < self.expires
        return self.row[there]


class Ghosts:
    """Ghosts being added, in columns grown by doubling."""

    def __init__(self) -> None:
        self._count = 0
        self._columns = {name: np.empty(0, dtype=np.int64) for name in _NAMES}

    def add(self, row: int, born: int, interval: tuple[int, int], expires: int) -> int:
        """Begin one; its number, to end it by."""
        number, columns = self._count, self._columns
        if number == len(columns["row"]):
            for name, column in columns.items():
                columns[name] = np.empty(max(16, 2 * number), dtype=np.int64)
                columns[name][:number] = column
        for name, value in zip(_NAMES, (row, born, FOREVER, *interval, expires), strict=True):
            columns[name][number] = value
        self._count += 1
        return number

    def end(self, number: int, died: int) -> None:
        """End one at a position."""
        self._columns["died"][number] = died

    def erase(self, rows: npt.NDArray[np.bool_]) -> None:
        """Let those of some rows, a mask, never have been; no view of them was handed out."""
        gone = rows[self._columns["row"][: self._count]]
        self._columns["died"][: self._count][gone] = 0

    def seen(self) -> SeenGhosts | None:
        """What there is so far."""
        if not self._count:
            return None
        return SeenGhosts(*(self._columns[name][: self._count] for name in _NAMES))

    @property
    def nbytes(self) -> int:
        """Bytes of the columns."""
        return sum(column.nbytes for column in self._columns.values())

    def dump(self) -> Numbers:
        """Everything as one array, of shape (columns * ghosts,)."""
        return np.concatenate([self._columns[name][: self._count] for name in _NAMES])

    def restore(self, array: Numbers) -> None:
        """Go on from what `dump` gave."""
        self._count = len(array) // len(_NAMES)
        columns: Mapping[str, Numbers] = dict(
            zip(_NAMES, array.reshape(len(_NAMES), self._count), strict=True)
        )
        self._columns = {name: column.copy() for name, column in columns.items()}
