"""Codes of one sign bit of each of many projections, and the length of each row.

Held in memory, or left in a file and read for each search, some rows at a time.

Sources: sign bits of random projections, Charikar, STOC 2002; orthogonal ones as in Ji et al.,
NIPS 2012.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from koru_delta.errors import CorruptionError
from koru_delta.search.frame import (
    BLOCK,
    HEAD_BYTES,
    RECALLS,
    CodesUnavailable,
    Doubles,
    Frame,
    Mask,
    Matrix,
    Numbers,
    Vectors,
    enough,
    far_for,
    head_of,
    headed,
    hiding,
    lengths_of,
    unit_of,
)
from koru_delta.search.longs import LONG_BYTES, Longs, Toward
from koru_delta.search.shortlist import by_recall
from koru_delta.values import Vector

_Words = npt.NDArray[np.uint64]

PIECE: Final = 16_384  # rows looked at together: they stay in the processor's cache
_QUERIES: Final = 8  # likewise, whose scores of all rows are held at once
_MOST_BITS: Final = 2048
_SPARE: Final = 28
_SHALLOW: Final = ((0.98, 0.35), (1.0, 0.2))  # by the recall that is asked


class _Asked(NamedTuple):
    """A query as the signs see it."""

    words: _Words
    cosines: Vector  # by how many bits differ, times the length of what the bits are of
    share: np.float32  # of what is known better


class Signs:
    """The sign bits of projections, and the length of each row. See `Codes`."""

    name: Final = "signs"
    nested: Final = True  # asked for few, it gives the first of those when asked for many
    worth: Final = 8

    def __init__(
        self, words: _Words, lengths: Vector, aside: Vector, frame: Frame, longs: Longs
    ) -> None:
        self._words = words  # shape (bits / 64, rows): a word of all rows lies together
        self._lengths = lengths
        self._aside = aside  # of each offset, what is known better than by its bits
        self._begin(frame, longs, words.shape[1])
        self.nbytes = words.nbytes + lengths.nbytes + aside.nbytes + frame.centre.nbytes
        self.nbytes += longs.nbytes

    def _begin(self, frame: Frame, longs: Longs, rows: int) -> None:
        self._frame = frame
        self._longs = longs
        # Of an angle told by so many coins, in parts of half a turn.
        self._error = math.pi / 2 / math.sqrt(_bits(len(frame.centre)))
        self._direction = unit_of(frame.centre)
        self.rows = rows
        self.needs: tuple[int, ...] = (0,) * len(RECALLS)

    @classmethod
    def made(cls, vectors: Vectors, frame: Frame) -> Self:
        """Codes of `vectors`."""
        rows, dimensions = vectors.shape
        projections = _projections(dimensions)
        words = np.empty((len(projections) // 64, rows), dtype=np.uint64)
        lengths = np.empty(rows, dtype=np.float32)
        aside = np.empty(rows, dtype=np.float32)
        direction = unit_of(frame.centre)
        for start in range(0, rows, BLOCK):
            part = slice(start, min(start + BLOCK, rows))
            offsets = frame.offsets(vectors[part])
            words[:, part] = _packed(offsets.astype(np.float32) @ projections.T).T
            lengths[part] = lengths_of(offsets)
            if frame.metric == "l2":
                aside[part] = -np.vecdot(offsets, offsets) / 2
            else:
                aside[part] = offsets @ direction
        return cls(words, lengths, aside, frame, Longs.among(lengths, aside, lengths))

    @classmethod
    def read(cls, take: Callable[[], bytes], frame: Frame, longs: Longs, rows: int) -> Self:
        """Codes from what `dump` gave for them."""
        data = take()
        count = _bits(len(frame.centre)) // 64
        _check_size(len(data), count, rows)
        words = np.frombuffer(data, "<u8", rows * count).astype(np.uint64, copy=False)
        words = words.reshape(count, rows)
        lengths, aside = np.frombuffer(data, "<f4", 2 * rows, 8 * rows * count).reshape(2, rows)
        _check_lengths(lengths, aside, frame.metric)
        narrow = np.float32
        return cls(
            words, lengths.astype(narrow, copy=False), aside.astype(narrow, copy=False), frame,
            longs,
        )  # fmt: skip

    def dump(self) -> bytes:
        """See `Codes`."""
        payload = b"".join((
            self._words.astype("<u8").tobytes(),
            self._lengths.astype("<f4").tobytes(),
            self._aside.astype("<f4").tobytes(),
        ))  # fmt: skip
        return headed(self._frame, self.name, self.rows, self.needs, self._longs, payload)

    def shallow(self, recall: float) -> float:
        """See `Codes`."""
        return by_recall(_SHALLOW, recall)

    def spare(self, _recall: float) -> int:
        """See `Codes`."""
        return _SPARE

    def toil(self, rows: int) -> int:
        """See `Codes`."""
        return rows

    def candidates(self, k: int, recall: float) -> int | None:
        """See `Codes`."""
        return enough(self.needs, k, recall)

    def nearest(self, query: Vector, count: int, mask: Mask | None) -> Numbers:
        """See `Codes`."""
        found: Numbers = self.nearest_many(query[None], count, mask)[0]
        return found

    def nearest_many(self, queries: Matrix, count: int, mask: Mask | None) -> Numbers:
        """See `Codes`."""
        return self._found(queries, count, mask)[1]

    def _found(self, queries: Matrix, count: int, mask: Mask | None) -> tuple[Matrix, Numbers]:
        """Scores and rows, by query."""
        rows, chosen = self._passing(mask), None
        if mask is not None and rows < self.rows // 3:
            chosen, mask = np.flatnonzero(mask), None
        found = np.empty((len(queries), min(count, rows)), dtype=np.int64)
        best = np.empty(found.shape, dtype=np.float32)
        for first in range(0, len(queries) if rows else 0, _QUERIES):
            some = slice(first, first + _QUERIES)
            near = self._near([self._asked(query) for query in queries[some]], chosen)
            if mask is not None:
                near += hiding(mask)
            for place, high, scores in zip(found[some], best[some], near, strict=True):
                place[:] = _highest(scores, found.shape[1])
                scores.take(place, out=high)
        return best, found if chosen is None else chosen[found]

    def promising(
        self, query: Vector, count: int, mask: Mask | None, k: int, recall: float
    ) -> tuple[Numbers, int]:
        """See `Codes`."""
        return self.promising_many(query[None], count, mask, k, recall)[0]

    def promising_many(
        self, queries: Matrix, count: int, mask: Mask | None, k: int, _recall: float
    ) -> list[tuple[Numbers, int]]:
        """See `Codes`."""
        scores, rows = self._found(queries, count, mask)
        # What it gives first it found nearest: the order tells how sure that is.
        short = int(count < self._passing(mask))
        if not short or not len(self._longs.rows):
            return [(some, short) for some in rows]
        found = []
        for query, its, some in zip(queries, scores, rows, strict=True):
            far = self._longs.beyond(self._seen_by(query), its, k, mask)
            found.append((far.before(some), short))
        return found

    def _passing(self, mask: Mask | None) -> int:
        return self.rows if mask is None else int(np.count_nonzero(mask))

    def _seen_by(self, query: Vector) -> Toward:
        asked = self._asked(query)
        rest = float(asked.cosines[0])
        return Toward.of(rest * self._error, float(asked.share), rest, len(query))

    def _asked(self, query: Vector) -> _Asked:
        seen = self._frame.query(query)
        share = 1.0
        if self._frame.metric != "l2":
            share = float(seen @ self._direction)
            seen -= share * self._direction
        length = float(np.linalg.norm(seen))
        larger = max(length, abs(share)) or 1.0
        projections = _projections(len(seen))
        # Not by BLAS, which would share it out over cores and wait for them.
        toward = np.vecdot(projections, (seen / (length or 1.0)).astype(np.float32))
        # Vectors at an angle differ in that share of the signs of random projections.
        bits = len(projections)
        cosines = np.cos(np.arange(bits + 1) * (np.pi / bits)) * (length / larger)
        return _Asked(
            _packed(toward[None])[0], cosines.astype(np.float32), np.float32(share / larger)
        )

    def _near(self, asked: Sequence[_Asked], chosen: Numbers | None) -> Matrix:
        """An estimate, for each query, of how near each row is, or each of those chosen."""
        near = np.empty((len(asked), self.rows if chosen is None else len(chosen)), np.float32)
        for start in range(0, self.rows, PIECE):
            stop = min(start + PIECE, self.rows)
            at, end, mine = start, stop, None
            if chosen is not None:
                at, end = np.searchsorted(chosen, (start, stop)).tolist()
                mine = chosen[at:end] - start
            if at == end:
                continue
            words, lengths, aside = self._piece(start, stop)
            if mine is not None:
                words = [word.take(mine) for word in words]
                lengths, aside = lengths.take(mine), aside.take(mine)
            for one, scores in zip(asked, near, strict=True):
                _estimate(one, words, lengths, aside, scores[at:end])
        return near

    def _piece(self, start: int, stop: int) -> tuple[Sequence[_Words], Vector, Vector]:
        """The words, lengths and what is beside them of some rows."""
        some = slice(start, stop)
        return list(self._words[:, some]), self._lengths[some], self._aside[some]


class Shelved(Signs):
    """Codes that stay in a file: of what a search reads, some rows at a time are in memory."""

    def __init__(
        self, read: Callable[[int, int], bytes], size: int, metric: str, dimensions: int, rows: int
    ) -> None:
        """Codes that `dump` gave, of `size` bytes; `read` gives some from an offset on.

        It raises `CodesUnavailable`, now or later; after that no search asks for more.

        Raises:
            CorruptionError, CodesUnavailable: as `load`.
        """
        head = head_of(read(0, HEAD_BYTES + 8 * dimensions), metric, dimensions, rows)
        if head.kind != self.name:
            raise CodesUnavailable(f"the codes are of the kind {head.kind}")
        first = HEAD_BYTES + 8 * dimensions
        self._begin(head.frame, Longs.read(read(first, LONG_BYTES * head.longs), rows), rows)
        self._body = first + LONG_BYTES * head.longs
        self._count = _bits(dimensions) // 64
        if size != self._body + head.size:
            raise CorruptionError(f"codes should take {self._body + head.size} bytes, not {size}")
        _check_size(head.size, self._count, rows)
        self._read = read
        for start, stop in self._pieces():
            _check_lengths(
                self._beside(0, start, stop), self._beside(1, start, stop), self._frame.metric
            )
        self.needs = head.needs
        self.nbytes = 0
        self.is_bad = False  # the file is gone, or not what it was

    def dump(self) -> bytes:
        """See `Codes`."""
        return self._some(0, self._body + self.rows * (8 * self._count + 8))

    def _pieces(self) -> Iterator[tuple[int, int]]:
        return ((start, min(start + PIECE, self.rows)) for start in range(0, self.rows, PIECE))

    def _piece(self, start: int, stop: int) -> tuple[Sequence[_Words], Vector, Vector]:
        words = [
            np.frombuffer(
                self._some(self._body + 8 * (number * self.rows + start), 8 * (stop - start)), "<u8"
            )
            for number in range(self._count)
        ]
        return words, self._beside(0, start, stop), self._beside(1, start, stop)

    def _beside(self, which: int, start: int, stop: int) -> Vector:
        """The lengths of some rows, or what is beside them."""
        first = self._body + self.rows * (8 * self._count + 4 * which)
        data = self._some(first + 4 * start, 4 * (stop - start))
        return np.frombuffer(data, "<f4").astype(np.float32, copy=False)

    def _some(self, offset: int, length: int) -> bytes:
        try:
            return self._read(offset, length)
        except CodesUnavailable:
            self.is_bad, self.needs = True, (0,) * len(RECALLS)
            raise


def _estimate(
    asked: _Asked, words: Sequence[_Words], lengths: Vector, aside: Vector, out: Vector
) -> None:
    """How near rows with these words, lengths and what is beside them seem to be."""
    rows = len(lengths)
    differing = np.zeros(rows, dtype=np.uint16)
    few = np.empty(rows, dtype=np.uint8)
    one = np.empty(rows, dtype=np.uint8)
    differ = np.empty(rows, dtype=np.uint64)
    for first in range(0, len(words), 3):  # up to 192 bits fit into a byte
        few[:] = 0
        some = slice(first, first + 3)
        for word, ours in zip(words[some], asked.words[some], strict=True):
            np.bitwise_xor(word, ours, out=differ)
            np.bitwise_count(differ, out=one)
            few += one
        differing += few
    asked.cosines.take(differing, mode="clip", out=out)
    out *= lengths
    out += aside * asked.share


def _check_size(size: int, count: int, rows: int) -> None:
    if size != rows * (8 * count + 8):
        raise CorruptionError("codes are not as long as they should be")


def _check_lengths(lengths: Vector, aside: Vector, metric: str) -> None:
    far = far_for(metric)
    beside = far**2 if metric == "l2" else far
    if not ((np.abs(lengths) <= 2 * far).all() and (np.abs(aside) <= 2 * beside).all()):
        raise CorruptionError("codes have a length that no vectors have")


@functools.lru_cache(maxsize=8)
def _projections(dimensions: int) -> Matrix:
    """Directions to take signs along, shape (bits, dimensions): orthogonal as far as may be.

    The same everywhere and always: the coin tosses are of a hash.
    """
    bits = _bits(dimensions)
    parts: list[Doubles] = []
    for first in range(0, bits, dimensions):
        wide = min(dimensions, bits - first)
        tosses = hashlib.shake_256(b"koru-delta signs %d %d" % (dimensions, first))
        coins = np.frombuffer(tosses.digest(-(-dimensions * wide // 8)), np.uint8)
        signs = np.unpackbits(coins)[: dimensions * wide].reshape(dimensions, wide) * 2.0 - 1.0
        square, upper = np.linalg.qr(signs)
        parts.append((square * np.where(np.diagonal(upper) < 0, -1.0, 1.0)).T)
    return np.concatenate(parts).astype(np.float32)


def _bits(dimensions: int) -> int:
    return min(_MOST_BITS, max(256, -(-2 * dimensions // 64) * 64))


def _packed(projected: Matrix) -> _Words:
    """Their signs as bits, shape (rows, bits / 64)."""
    return np.packbits(projected > 0, axis=1).view("<u8").astype(np.uint64, copy=False)


def _highest(scores: Vector, count: int) -> Numbers:
    """The places of the `count` highest, highest first."""
    if count < len(scores):
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        found = np.flatnonzero(scores >= least)
    else:
        found = np.arange(len(scores))
    return found[np.argsort(-scores[found], kind="stable")[:count]]
