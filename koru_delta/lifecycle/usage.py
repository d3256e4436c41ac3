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
    def of(cls, traces: Sequence[Trace]) -> Usage:
        """Columns of what was gathered, as of the last use of each key."""
        first = np.array([trace.first for trace in traces], dtype=np.int64)
        last = np.array([trace.last for trace in traces], dtype=np.int64)
        fade, lately = _faded(last - first), _faded(last - first, LATELY)
        counts = np.array([trace.counts for trace in traces], dtype=np.float64).reshape(-1, 4)
        hours = np.array([trace.hours for trace in traces], dtype=np.float64).reshape(-1, 24)
        return cls(
            first, last, counts * fade[:, None],
            np.array([trace.lately for trace in traces]) * lately,
            np.array([trace.gaps for trace in traces]) * fade,
            np.array([trace.gap_log for trace in traces]) * fade,
            (hours * fade[:, None]).astype(np.float32),
        )  # fmt: skip

    @classmethod
    def together(cls, parts: Sequence[Usage]) -> Usage:
        """The rows of all, in order."""
        return cls(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__)
        )

    def plus(self, other: Usage) -> Usage:
        """Row by row both together; neither has to come first."""
        last = np.maximum(self.last, other.last)
        a, b = _faded(last - self.last), _faded(last - other.last)
        # One visit more where they did not run side by side.
        is_early = self.first <= other.first
        begun = np.where(is_early, other.first, self.first)
        between = begun - np.where(is_early, self.last, other.last)
        seen = np.where(between > _ONE_VISIT, _faded(last - begun), 0.0)
        return Usage(
            np.minimum(self.first, other.first),
            last,
            self.counts * a[:, None] + other.counts * b[:, None],
            self.lately * _faded(last - self.last, LATELY)
            + other.lately * _faded(last - other.last, LATELY),
            self.gaps * a + other.gaps * b + seen,
            self.gap_log * a
            + other.gap_log * b
            + seen * np.log2(np.maximum(between, _ONE_VISIT) / 1e6),
            (self.hours * a[:, None] + other.hours * b[:, None]).astype(np.float32),
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


def _faded(age: Times, half_life: int = HALF_LIFE) -> Floats:
    found: Floats = 0.5 ** np.minimum(np.maximum(age, 0) / half_life, _LONGEST)
    return found
