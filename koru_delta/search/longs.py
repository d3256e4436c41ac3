"""Rows much longer than most, of which codes say too little: the error goes with the length."""

from __future__ import annotations

import math
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from koru_delta.errors import CorruptionError
from koru_delta.values import Vector

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]

LONG_BYTES: Final = 16  # in a file, for each long row
REACHED: Final = 95  # in 100 rows
_LONG: Final = 1.5  # times as long as these, and a row is told of
_FAR_MARGIN: Final = 1.5  # errors of a long row's code, by which it may seem too low
_FAR_MOST: Final = 2048  # long rows looked at beside a list
_LIKELY: Final = 8.0  # deviations of a product from none


class Longs(NamedTuple):
    """Rows much longer than most, longest first: the error of their codes is as much larger.

    One that is among the best for its length alone may seem to be far from it. A score is a
    number times what is known of a row beside its direction, and a product with the rest.
    """

    rows: Numbers
    lengths: Vector  # of what is encoded
    known: Vector
    rests: Vector  # lengths of the rest

    @classmethod
    def among(cls, lengths: Vector, known: Vector, rests: Vector) -> Self:
        """Of all rows."""
        usual = lengths[lengths <= 8 * np.median(lengths)]
        rows = np.flatnonzero(lengths > _LONG * np.percentile(usual, REACHED))
        rows = rows[np.argsort(-lengths[rows], kind="stable")]
        return cls(rows, lengths[rows], known[rows], rests[rows])

    @classmethod
    def read(cls, data: bytes, rows: int) -> Self:
        """From what `dump` gave.

        Raises:
            CorruptionError: not that.
        """
        count = len(data) // LONG_BYTES
        longs = np.frombuffer(data, "<u4", count).astype(np.int64)
        lengths, known, rests = np.frombuffer(data, "<f4", 3 * count, 4 * count).reshape(3, count)
        falls = (np.diff(lengths) <= 0).all() and np.isfinite(lengths).all()
        if not falls or longs.max(initial=0) >= max(rows, 1):
            raise CorruptionError("codes tell of long rows that are not there")
        narrow = np.float32
        return cls(longs, lengths.astype(narrow), known.astype(narrow), rests.astype(narrow))

    def dump(self) -> bytes:
        """As it is in a file: `LONG_BYTES` a row."""
        numbers = (self.lengths, self.known, self.rests)
        return self.rows.astype("<u4").tobytes() + np.stack(numbers).astype("<f4").tobytes()

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(part.nbytes for part in self)

    def beyond(self, seen: Toward, scores: Vector, k: int, mask: Mask | None) -> Far:
        """Those that may be among the `k` best whatever their codes say, of those under a mask.

        Args:
            scores: That codes gave, highest first.
        """
        if len(scores) < k:
            return Far(self.rows[:0], 0.0)
        last = float(scores[k - 1])
        least = (last - float(scores[-1])) / (_FAR_MARGIN * seen.error)
        stop = len(self.rows) - int(np.searchsorted(self.lengths[::-1], least))
        # And not those that are as far as they seem for what is known of them.
        far = seen.known * self.known[:stop] + seen.most * self.rests[:stop] >= last
        if mask is not None:
            far &= mask[self.rows[:stop]]
        places = np.flatnonzero(far)
        typical = float(self.lengths[places[len(places) // 2]]) if len(places) else 0.0
        return Far(self.rows[places], typical)


class Far(NamedTuple):
    """Rows so long that codes say too little of them, and how long a typical one is."""

    rows: Numbers
    typical: float

    @property
    def are_many(self) -> bool:
        """Whether they are no exceptions: too many to be looked at beside a list."""
        return len(self.rows) > _FAR_MOST

    def before(self, rows: Numbers) -> Numbers:
        """A list that codes gave, after those that are not on it."""
        if not len(self.rows) or self.are_many:
            return rows
        return np.concatenate([self.rows[~np.isin(self.rows, rows)], rows])


class Toward(NamedTuple):
    """How rows are seen from a query.

    `error` is what scores are wrong by, for rows of length one; `known` what a score has of what
    is known of a row; `most` what it may have, at most and likely, of the length of the rest.
    """

    error: float
    known: float
    most: float

    @classmethod
    def of(cls, error: float, known: float, rest: float, dimensions: int) -> Self:
        """From a query with a part of length `rest` that is multiplied with the rest of rows."""
        return cls(error, known, rest * min(1.0, _LIKELY / math.sqrt(dimensions)))
