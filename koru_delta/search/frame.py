"""How the rows of a segment are seen by what encodes them: as offsets from their centre.

And what codes begin with in a file, which says so.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from koru_delta.errors import CorruptionError
from koru_delta.search.longs import REACHED, Longs
from koru_delta.values import Vector

Mask = npt.NDArray[np.bool_]
Matrix = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

BLOCK: Final = 2048  # rows encoded together: some megabytes
FAR: Final = 2.0**20  # rows further from the centre, in typical distances, are drawn in
FAR_WITHOUT_SQUARES: Final = 2.0**40  # but for l2, for which squares of squares must be numbers
RECALLS: Final = (0.8, 0.9, 0.95, 0.98, 0.99)
TRIED_K: Final = 10
HEAD_BYTES: Final = 82  # and eight for each dimension
_METRICS: Final = ("cosine", "dot", "l2")
_KINDS: Final = ("turbo4", "signs")
_MAGIC: Final = b"KDCODES\x03"
_HEADER: Final = struct.Struct("<8sBBIQiddd5IIQ")
_LARGEST: Final = float(np.finfo(np.float32).max)
_LEAST_WEIGHT: Final = 2.0**-20
_DRAWN_IN_MOST: Final = 0.001  # of the rows
_ROUNDED: Final = 2.0**-40  # nearer to the centre than this, for its length, is being there


class Vectors(Protocol):
    """Vectors that are gone through some at a time: an array, or what stands for one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, dimensions)."""
        ...

    def __getitem__(self, some: slice | Numbers, /) -> Matrix:
        """Some of them, by rows."""
        ...


class CodesUnavailable(Exception):  # noqa: N818 - a state, not a mistake of the caller
    """The library is not there, or failed: make the codes anew, or search without them."""


@dataclass(frozen=True, slots=True)
class Frame:
    """How rows are seen: as inner products with offsets from a centre.

    Nearest is highest `query . offset`, and for l2 minus half the square of the offset's
    length beside it. Offsets are in units of `2 ** exponent`, so that a typical one has a
    length between a half and one.
    """

    metric: str
    centre: Doubles  # for cosine, of unit vectors
    exponent: int
    weight: float  # of the half squares among the coordinates, or along the centre
    middle: float  # for l2: a typical half square
    reach: float  # how long what stands for a row is, with its weight: 95 in 100 are shorter

    @classmethod
    def around(cls, vectors: Vectors, metric: str) -> Self | None:
        """A frame that suits `vectors`; None if they are all equal, or too many are far out."""
        rows, dimensions = vectors.shape
        lengths = np.empty(rows)
        # Few that are far out must not move the centre away from all the others.
        for start, block in blocks_of(vectors):
            lengths[start : start + len(block)] = lengths_of(block)
        limit = np.inf if metric == "cosine" else 8 * float(np.median(lengths))
        centre, counted = np.zeros(dimensions), 0
        for start, block in blocks_of(vectors):
            some = lengths[start : start + len(block)]
            if metric == "cosine":
                block /= np.maximum(some, 1e-300)[:, None]
            near = some <= limit
            centre += block.sum(axis=0) if near.all() else block[near].sum(axis=0)
            counted += int(np.count_nonzero(near))
        frame = cls(metric, centre / counted, 0, 1.0, 0.0, 1.0)
        along, direction = np.empty(rows), unit_of(frame.centre)
        for start, block in blocks_of(vectors):
            offsets = frame.seen(block)
            lengths[start : start + len(block)] = lengths_of(offsets)
            along[start : start + len(block)] = offsets @ direction
        away = float(np.linalg.norm(frame.centre))
        apart = lengths[lengths > _ROUNDED * away]
        if not len(apart):
            return None
        typical = float(np.median(apart))
        exponent = int(np.frexp(typical)[1])
        usual = lengths <= 8 * typical
        # What is drawn in seems nearer than it is: among few of them that is seen, and mended.
        drawn_in = int(np.count_nonzero(np.ldexp(lengths, -exponent) > far_for(metric)))
        if drawn_in > _DRAWN_IN_MOST * rows:
            return None
        # The error of a code goes with the length of what is encoded times that of the
        # query: for l2 (1 + s^2 / w^2) * (1 + w^2), least at w^2 = s, the spread of half
        # squares. Else a query goes far along the direction of the centre, where the offsets
        # differ least: it goes that way by w as far, and they go farther.
        scaled = np.ldexp(lengths[usual], -exponent)
        if metric == "l2":
            half = np.square(scaled) / 2
            weight, middle = float(np.sqrt(np.std(half))), float(np.mean(half))
            weight = max(weight, _LEAST_WEIGHT)
            beside = (half - middle) / weight
        else:
            spread, middle = float(np.std(along[usual])), 0.0
            weight = float(np.sqrt(spread / max(np.hypot(spread, away), 1e-300)))
            weight = max(weight, _LEAST_WEIGHT)
            beside = np.ldexp(along[usual], -exponent) * np.sqrt(max(1 / weight**2 - 1, 0.0))
        reach = float(np.percentile(np.hypot(scaled, beside), REACHED))
        return cls(metric, frame.centre, exponent, weight, middle, reach)

    def offsets(self, vectors: Matrix) -> Doubles:
        """Shape (rows, dimensions)."""
        found = self.seen(vectors.astype(np.float64))
        lengths, far = lengths_of(found), far_for(self.metric)
        if lengths.max(initial=0.0) > far:
            found *= np.minimum(1.0, far / np.maximum(lengths, 1.0))[:, None]
        return found

    def query(self, query: Vector) -> Doubles:
        """What an offset is multiplied with, of any length but for l2."""
        found = query.astype(np.float64)
        if not np.isfinite(found).all():
            raise CodesUnavailable("the query holds something that is no finite number")
        if self.metric == "l2":
            return np.ldexp(found - self.centre, -self.exponent)
        return found / max(float(np.linalg.norm(found)), 1e-300)

    def seen(self, block: Doubles) -> Doubles:
        """The offsets of a block, in its place."""
        if self.metric == "cosine":
            block /= np.maximum(lengths_of(block), 1e-300)[:, None]
        block -= self.centre
        return np.ldexp(block, -self.exponent, out=block)


class Head(NamedTuple):
    """What codes begin with in a file: all but the codes, of which it tells the size."""

    kind: str
    frame: Frame
    needs: tuple[int, ...]  # see `Codes`
    longs: int  # how many long rows are told of after the centre
    size: int


def head_of(data: bytes | memoryview, metric: str, dimensions: int, rows: int) -> Head:
    """What is said by the first `HEAD_BYTES` and eight for each dimension, or more.

    Raises:
        CorruptionError: they are of no codes, or of other vectors than these.
        CodesUnavailable: of another format.
    """
    view = memoryview(data)
    if len(view) < _HEADER.size or bytes(view[:7]) != _MAGIC[:7]:
        raise CorruptionError("these are no codes of vectors, or their beginning is missing")
    magic, kind, known_metric, *about = _HEADER.unpack_from(view)
    if magic != _MAGIC or kind >= len(_KINDS):
        raise CodesUnavailable("the codes are of another format")
    known_dimensions, known_rows, exponent, weight, middle, reach, *needs, longs, size = about
    if (known_metric, known_dimensions, known_rows) != (_METRICS.index(metric), dimensions, rows):
        raise CorruptionError("these are codes of other vectors")
    if len(view) < HEAD_BYTES + 8 * dimensions:
        raise CorruptionError("these are no codes of vectors, or their beginning is missing")
    centre = np.frombuffer(view, np.float64, dimensions, HEAD_BYTES).astype(np.float64)
    sound = (np.abs(centre) <= _LARGEST).all() and abs(exponent) < 300
    if not (sound and 0 < weight < 1e3 and abs(middle) < 1e3 and 0 < reach < 1e12):
        raise CorruptionError("codes have a centre that no vectors have")
    if longs > rows:
        raise CorruptionError("codes tell of more long rows than there are rows")
    frame = Frame(metric, centre, exponent, weight, middle, reach)
    return Head(_KINDS[kind], frame, tuple(needs), longs, size)


def headed(
    frame: Frame, kind: str, rows: int, needs: tuple[int, ...], longs: Longs, payload: bytes
) -> bytes:
    """Codes as they are in a file, with their head."""
    header = _HEADER.pack(
        _MAGIC, _KINDS.index(kind), _METRICS.index(frame.metric), len(frame.centre), rows,
        frame.exponent, frame.weight, frame.middle, frame.reach, *needs, len(longs.rows),
        len(payload),
    )  # fmt: skip
    return b"".join((header, frame.centre.astype("<f8").tobytes(), longs.dump(), payload))


def enough(needs: tuple[int, ...], k: int, recall: float) -> int | None:
    """See `Codes.candidates`."""
    for reached, count in zip(RECALLS, needs, strict=True):
        if reached >= recall and count:
            return max(count, -(-count * k // TRIED_K))
    return None


class foreign:  # noqa: N801 - a context, read as a verb's object
    """Turn what a library raises inside into `CodesUnavailable`, which says `what`."""

    __slots__ = ("what",)

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        # A panic of Rust is no exception of the usual kind.
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise CodesUnavailable(f"{self.what}: {error}") from error


def hiding(mask: Mask) -> Vector:
    """What to add to scores, so that those of rows outside the mask are lowest."""
    return np.where(mask, np.float32(0), np.float32(-np.inf))


def blocks_of(vectors: Vectors) -> Iterator[tuple[int, Doubles]]:
    """Where each block begins, and its rows in float64."""
    for start in range(0, vectors.shape[0], BLOCK):
        yield start, vectors[start : start + BLOCK].astype(np.float64)


def far_for(metric: str) -> float:
    """How far from the centre codes tell rows apart, in typical distances."""
    return FAR if metric == "l2" else FAR_WITHOUT_SQUARES


def lengths_of(rows: Doubles) -> Doubles:
    """The length of each row."""
    found: Doubles = np.sqrt(np.vecdot(rows, rows))
    return found


def unit_of(vector: Doubles) -> Doubles:
    """The direction of a vector; one of no length stays as it is."""
    return vector / max(float(np.linalg.norm(vector)), 1e-300)
