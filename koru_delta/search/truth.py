"""The vectors themselves, by slot: float32, in immutable segments and a growing tail.

A segment holds the vectors of a range of slots and their codes. Its vectors lie in a
mapped file or in memory. What is not in a segment yet is the tail, in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from koru_delta.search.bounds import Int8Bounds
from koru_delta.search.budget import Tier
from koru_delta.search.cache import Mapped
from koru_delta.search.codes import Codes
from koru_delta.search.seen import Mask, Numbers
from koru_delta.values import Vector

Matrix = npt.NDArray[np.float32]
_MANY_VALUES = 1 << 20
_FRUGAL_ROWS = 4096  # rows of a frugal mapping looked at together
_GATHERED = 2048  # rows copied together and multiplied while they are in the cache


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Vectors of the slots `start` to `stop`, exclusive, and their codes if they have any.

    Equal only to itself: another one of the same slots may have been made anew.
    """

    start: int
    stop: int
    held: Matrix | None  # in memory
    mapped: Mapped | None  # or in a file
    codes: Codes | None = None
    bounds: Int8Bounds | None = None  # for exact scans
    unbounded: bool = False  # they cannot be made
    uncoded: bool = False  # nobody has tried to make codes of it
    file: str | None = None  # its name, and the hash of its content
    identity: str | None = None

    @property
    def rows(self) -> int:
        """How many slots it has."""
        return self.stop - self.start

    @property
    def tier(self) -> Tier:
        """Where its vectors and codes are: see `budget.py`."""
        if self.mapped is None or not self.mapped.frugal:
            return "hot"
        return "warm" if self.codes is not None and self.codes.nbytes else "cold"

    @property
    def nbytes(self) -> int:
        """Of what is in memory, or should be: vectors of the hot tier, and all codes."""
        beside = [part.nbytes for part in (self.codes, self.bounds) if part is not None]
        if self.held is not None:
            return self.held.nbytes + sum(beside)
        assert self.mapped is not None
        return (0 if self.mapped.frugal else self.mapped.nbytes) + sum(beside)

    def take(self, rows: Numbers) -> Matrix:
        """Some of its vectors, by rows: a copy of shape (len(rows), dimensions)."""
        if self.held is not None:
            return self.held.take(rows, axis=0)
        assert self.mapped is not None
        found: Matrix = self.mapped.take(rows)
        return found

    def pieces(self, low: int, high: int) -> Iterator[Matrix]:
        """The vectors of its rows `low` to `high`, where they lie, in order."""
        if self.mapped is None or not self.mapped.frugal:
            whole = high - low == self.rows
            yield self.vectors(None if whole else np.arange(low, high))[low:high]
            return
        for start in range(low, high, _FRUGAL_ROWS):
            rows = np.arange(start, min(start + _FRUGAL_ROWS, high))
            yield self.vectors(rows)[start : start + len(rows)]
            self.mapped.release()

    def vectors(self, rows: Numbers | None = None) -> Matrix:
        """All its vectors, of which those asked for (all, if None) have been checked.

        Raises:
            Unusable: the file no longer holds what was written.
        """
        if self.held is not None:
            return self.held
        assert self.mapped is not None
        self.mapped.check(rows)
        found: Matrix = self.mapped.rows
        return found

    def leafed(self) -> Matrix | Leafed:
        """All its vectors, for who goes through them once: not more in memory than needs be."""
        if self.mapped is not None and self.mapped.frugal:
            return Leafed(self, 0, self.rows, self.mapped.rows.shape[1])
        return self.vectors()


@dataclass(slots=True, eq=False)  # never changed, as `Seen`
class Truth:
    """All vectors at one moment. `squares` are of their lengths, `scales` one over them."""

    dimensions: int
    segments: tuple[Segment, ...]
    tail: Matrix
    squares: npt.NDArray[np.float64]
    scales: npt.NDArray[np.float32]  # for cosine only, else empty

    @property
    def sealed(self) -> int:
        """The first slot of the tail."""
        return self.segments[-1].stop if self.segments else 0

    @property
    def slots(self) -> int:
        """How many there are."""
        return len(self.squares)

    def take(self, slots: Numbers) -> Matrix:
        """The vectors of some slots: a copy of shape (len(slots), dimensions)."""
        if not self.segments:
            return self.tail.take(slots, axis=0)
        first = self.segments[0]
        if first.stop == len(self.squares) or (len(slots) and int(slots.max()) < first.stop):
            # all in one
            return first.take(slots) if first.mapped is None else first.mapped.take(slots)
        found = np.empty((len(slots), self.dimensions), dtype=np.float32)
        for segment in self.segments:
            inside = np.flatnonzero((slots >= segment.start) & (slots < segment.stop))
            if len(inside):
                found[inside] = segment.take(slots[inside] - segment.start)
        inside = np.flatnonzero(slots >= self.sealed)
        if len(inside):
            found[inside] = self.tail[slots[inside] - self.sealed]
        return found

    def under(self, mask: Mask | None) -> Iterator[tuple[Segment, Mask | None]]:
        """The segments with something under a mask of slots, and what of the mask is theirs."""
        for segment in self.segments:
            part = None if mask is None else mask[segment.start : segment.stop]
            if part is None or part.any():
                yield segment, part

    def pieces(self, start: int, stop: int) -> Iterator[Matrix]:
        """The vectors of the slots `start` to `stop`, where they lie, in order."""
        for segment in self.segments:
            low, high = max(start, segment.start), min(stop, segment.stop)
            if low < high:
                yield from segment.pieces(low - segment.start, high - segment.start)
        low = max(start, self.sealed)
        if low < stop:
            yield self.tail[low - self.sealed : stop - self.sealed]

    def products(self, query: Vector | Matrix, start: int, stop: int) -> Matrix:
        """Inner products with the slots `start` to `stop`: shape (..., stop - start)."""
        found = [_products(piece, query) for piece in self.pieces(start, stop)]
        if len(found) == 1:
            return found[0]
        if not found:
            return np.empty((*query.shape[:-1], 0), dtype=np.float32)
        return np.concatenate(found, axis=-1)

    def gathered(self, query: Vector, slots: Numbers) -> Matrix:
        """Inner products with some slots, shape (len(slots),)."""
        found = np.empty(len(slots), dtype=np.float32)
        for start in range(0, len(slots), _GATHERED):
            some = slots[start : start + _GATHERED]
            np.vecdot(self.take(some), query, out=found[start : start + _GATHERED])
        return found


class Leafed:
    """Vectors as if they were all in memory, of which what is asked for is read."""

    def __init__(self, source: Segment | Truth, start: int, stop: int, dimensions: int) -> None:
        """Of the rows or slots `start` to `stop`."""
        self._source, self._start, self._stop = source, start, stop
        self.shape = (stop - start, dimensions)

    def __getitem__(self, some: slice | Numbers, /) -> Matrix:
        """Some of them, by rows: a copy; slices go by single steps."""
        if not isinstance(some, slice):
            return self._source.take(self._start + some)
        start, stop, _ = some.indices(self.shape[0])
        found = np.empty((stop - start, self.shape[1]), dtype=np.float32)
        at = 0
        for piece in self._source.pieces(self._start + start, self._start + stop):
            found[at : at + len(piece)] = piece
            at += len(piece)
        return found

    def pieces(self) -> Iterator[Matrix]:
        """All of them, where they lie, in order."""
        return self._source.pieces(self._start, self._stop)


class Chosen:
    """The vectors of some slots, as if they lay side by side."""

    def __init__(self, truth: Truth, slots: Numbers) -> None:
        self._truth, self._slots = truth, slots
        self.shape = (len(slots), truth.dimensions)

    def __getitem__(self, some: slice | Numbers, /) -> Matrix:
        """Some of them, by their places: a copy."""
        return self._truth.take(self._slots[some])


def _products(piece: Matrix, query: Vector | Matrix) -> Matrix:
    # A BLAS shares its work out over cores and waits for them, which takes longer than the
    # work when they sleep or are busy; it pays only for many queries over many vectors.
    if query.ndim == 2 and piece.size >= _MANY_VALUES:
        return query @ piece.T
    found: Matrix = np.vecdot(piece, query if query.ndim == 1 else query[:, None, :])
    return found
