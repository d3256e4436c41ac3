"""How keys are used, added up.

Counts fade: a use counts half after a week, and in what was used lately after an hour. What
two processes gathered is added, in any order, to the same sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log2
from typing import Any, Final

import numpy as np
import numpy.typing as npt

KINDS: Final = ("get", "hit", "recall", "used")
GET, HIT, RECALL, USED = range(4)
HOUR: Final = 3_600_000_000  # in microseconds, as all times here
HALF_LIFE: Final = 7 * 24 * HOUR  # of a use, in the counts
LATELY: Final = HOUR  # the same, in what was used lately
_ONE_VISIT: Final = 1_000_000  # uses closer together are no second visit
_NO_TIME: Final = 60_000_000  # in which nothing fades by more than a hundredth
_LONGEST: Final = 1_000.0  # half-lives, beyond which a float cannot tell

Place = tuple[str, str]  # namespace and key
Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]


class Trace:
    """The uses of one key since the last flush.

    Weights grow with time since `first` instead of shrinking towards the last: so a use is
    an addition or two, and nothing that was counted is touched again.
    """

    __slots__ = ("counts", "first", "gap_log", "gaps", "hours", "last", "lately")

    def __init__(self, time: int) -> None:
        self.first = self.last = time
        self.counts = [0.0, 0.0, 0.0, 0.0]
        self.lately = self.gaps = self.gap_log = 0.0
        self.hours = [0.0] * 24

    def add(self, kind: int, times: float, time: int, hour: int) -> None:
        """Count a use that stands for `times` of them, in an hour of the day."""
        since = time - self.first
        weight = lately = times
        if since > _NO_TIME:
            weight, lately = times * _grown(since, HALF_LIFE), times * _grown(since, LATELY)
        self.counts[kind] += weight
        self.lately += lately
        self.hours[hour] += weight
        gap = time - self.last
        if gap > 0:
            self.last = time
            if gap > _ONE_VISIT:
                self.gaps += weight / times
                self.gap_log += weight / times * log2(gap / 1e6)

    def row(self) -> Row:
        """The same as of the last use."""
        fade = faded(self.last - self.first)
        return Row(
            self.first,
            self.last,
            [weight * fade for weight in self.counts],
            self.lately * faded(self.last - self.first, LATELY),
            self.gaps * fade,
            self.gap_log * fade,
            [weight * fade for weight in self.hours],
        )


@dataclass(slots=True)
class Row:
    """The uses of one key; counts are as of the last of them."""

    first: int
    last: int
    counts: list[float]
    lately: float
    gaps: float
    gap_log: float
    hours: list[float]

    def plus(self, other: Row) -> Row:
        """Both together; neither has to come first."""
        early, late = (self, other) if self.first <= other.first else (other, self)
        last = max(early.last, late.last)
        a, b = faded(last - early.last), faded(last - late.last)
        gaps = early.gaps * a + late.gaps * b
        gap_log = early.gap_log * a + late.gap_log * b
        between = late.first - early.last
        if between > _ONE_VISIT:  # else they ran side by side
            seen = faded(last - late.first)
            gaps, gap_log = gaps + seen, gap_log + seen * log2(between / 1e6)
        return Row(
            early.first,
            last,
            [x * a + y * b for x, y in zip(early.counts, late.counts, strict=True)],
            early.lately * faded(last - early.last, LATELY)
            + late.lately * faded(last - late.last, LATELY),
            gaps,
            gap_log,
            [x * a + y * b for x, y in zip(early.hours, late.hours, strict=True)],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Usage:
    """The uses of keys in columns, a row a key, counts as of `last`."""

    first: Times
    last: Times
    counts: Floats  # shape (n, 4), in the order of KINDS
    lately: Floats
    gaps: Floats
    gap_log: Floats
    hours: npt.NDArray[np.float32]  # shape (n, 24), hours of UTC

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Usage:
        """Columns of rows."""
        size = len(rows)
        return cls(
            np.array([row.first for row in rows], dtype=np.int64),
            np.array([row.last for row in rows], dtype=np.int64),
            np.array([row.counts for row in rows], dtype=np.float64).reshape(size, 4),
            np.array([row.lately for row in rows], dtype=np.float64),
            np.array([row.gaps for row in rows], dtype=np.float64),
            np.array([row.gap_log for row in rows], dtype=np.float64),
            np.array([row.hours for row in rows], dtype=np.float32).reshape(size, 24),
        )

    def rows(self, chosen: npt.NDArray[np.int64]) -> Usage:
        """Some of the rows."""
        return self._each(lambda column: column[chosen])

    def put(self, rows: npt.NDArray[np.int64], other: Usage) -> None:
        """Put the rows of another in place of some of these."""
        for name in self.__slots__:
            getattr(self, name)[rows] = getattr(other, name)

    def and_room(self, count: int) -> Usage:
        """The same with so many rows more, all zero."""

        def longer(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return np.concatenate([column, np.zeros((count, *column.shape[1:]), column.dtype)])

        return self._each(longer)

    def _each(self, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Usage:
        return Usage(*(change(getattr(self, name)) for name in self.__slots__))


def _grown(since: int, half_life: int) -> float:
    """How much more a use counts than one `since` microseconds before."""
    return float(2.0 ** min(since / half_life, _LONGEST))


def faded(age: int, half_life: int = HALF_LIFE) -> float:
    """What is left of a use after `age` microseconds."""
    return float(0.5 ** min(max(age, 0) / half_life, _LONGEST))
