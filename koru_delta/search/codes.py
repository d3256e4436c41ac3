"""Small lossy codes of many vectors, from which the most promising rows are found quickly.

Codes are of one immutable segment. A search looks at all of them, or at those under a
mask, and gives the numbers of the rows that seem nearest; the caller scores these again
from the vectors themselves. Two kinds: "turbo4" needs the library turbovec, and "signs"
numpy alone. Whatever the metric, both see the rows as offsets from their centre, which
changes no order and leaves less to encode. Codes may be searched by many threads at once.

Sources: "turbo4" is TurboQuant, Zandieh et al., 2025 (arXiv 2504.19874); "signs" are the
sign bits of random projections, Charikar, STOC 2002, orthogonal as in Ji et al., NIPS 2012.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import math
import struct
from collections.abc import Callable
from typing import Any, Final, Protocol, Self

import numpy as np
import numpy.typing as npt

from koru_delta.errors import CorruptionError
from koru_delta.search.frame import (
    BLOCK,
    FAR,
    CodesUnavailable,
    Doubles,
    Frame,
    foreign,
    hiding,
    lengths_of,
    unit_of,
)
from koru_delta.values import Vector

Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Matrix = npt.NDArray[np.float32]
_Words = npt.NDArray[np.uint64]

_METRICS: Final = ("cosine", "dot", "l2")
_KINDS: Final = ("turbo4", "signs")
_MAGIC: Final = b"KDCODES\x01"
_HEADER: Final = struct.Struct("<8sBBIQidd5IQ")
_RECALLS: Final = (0.8, 0.9, 0.95, 0.98, 0.99)
_SAMPLE: Final = 1024  # rows the codes are fitted to
_TRIED: Final = 48  # rows searched for at the end, to see how many candidates it takes
_TRIED_K: Final = 10
_MOST_PASS: Final = 0.6  # of the rows, for a mask to be applied afterwards
_FEW: Final = 1000  # rows, the fewest they are searched for among
_COUNTS: Final = (
    12, 16, 20, 24, 32, 40, 50, 64, 80, 100, 128, 160, 200, 256, 320, 400, 512, 640,
    800, 1024, 1280, 1600, 2048, 2560,
)  # fmt: skip
_COUNTS_OF_ANY: Final = 640  # the more rows there are, the more candidates still pay
_LARGEST: Final = float(np.finfo(np.float32).max)
_FEWEST_DIMENSIONS: Final = 8
_MOST_DIMENSIONS: Final = 16_352  # and one more for l2 are the most that turbovec takes
_MOST_BITS: Final = 2048


class Codes(Protocol):
    """Codes of the rows of one segment."""

    @property
    def name(self) -> str:
        """The kind: "turbo4" or "signs"."""
        ...

    @property
    def rows(self) -> int:
        """How many there are."""
        ...

    @property
    def spare(self) -> int:
        """How many to ask for beyond twice as many as are sought."""
        ...

    @property
    def shallow(self) -> float:
        """Where among those given the last of the best may stand, as a share of their number.

        If it stands later, others may have been missed, and more should be asked for.
        """
        ...

    @property
    def needs(self) -> tuple[int, ...]:
        """How many rows it took in a trial to find a share of the best, by share."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes held in memory: of arrays, and what a library would write to a file."""
        ...

    def candidates(self, k: int, recall: float) -> int | None:
        """How many rows to ask for, to find that share of the best `k`; None: too many to pay.

        It is what it took in a trial when the codes were made: the rows themselves were
        the queries.
        """
        ...

    def nearest(self, query: Vector, count: int, mask: Mask | None) -> Numbers:
        """The rows that seem nearest, of those under `mask` if given, most promising first.

        Returns:
            About `count` different row numbers, two thirds of it at least, or as many as
            there are.

        Raises:
            CodesUnavailable: the library failed, or the query is not finite.
        """
        ...

    def nearest_many(self, queries: Matrix, count: int, mask: Mask | None) -> Numbers:
        """As `nearest`, for each query: shape (queries, `count` or as many as there are)."""
        ...

    def dump(self) -> bytes:
        """The codes as `load` takes them."""
        ...


@functools.cache
def _turbovec() -> Any:
    """The library, or None."""
    try:
        return importlib.import_module("turbovec")
    except (ImportError, OSError):
        return None


def best_kind() -> str:
    """The best kind of codes that can be made here."""
    return "signs" if _turbovec() is None else "turbo4"


def encode(vectors: Matrix, metric: str, *, kind: str | None = None) -> Codes | None:
    """Codes of `vectors`, shape (rows, dimensions), of the best kind unless one is named.

    Returns:
        None where codes are of no use: too few dimensions, or too many, or rows too alike.

    Raises:
        CodesUnavailable: the library is not installed, or failed.
    """
    kind = kind or best_kind()
    rows, dimensions = vectors.shape
    if rows < 2 or not _FEWEST_DIMENSIONS <= dimensions <= _MOST_DIMENSIONS:
        return None
    frame = Frame.around(vectors, metric)
    if frame is None:
        return None
    codes = _kind(kind).made(vectors, frame)
    with np.errstate(over="ignore", invalid="ignore"):  # rows at the ends of float32 are lost
        codes.needs = _needs(codes, vectors, frame)
    return codes if any(codes.needs) else None


def load(data: bytes | memoryview, metric: str, dimensions: int, rows: int) -> Codes:
    """Codes from what `dump` gave.

    Raises:
        CorruptionError: not that, or of other vectors than these.
        CodesUnavailable: of another format, or of a kind whose library is not installed or
            does not take it.
    """
    view = memoryview(data)
    if len(view) < _HEADER.size or bytes(view[:7]) != _MAGIC[:7]:
        raise CorruptionError("these are no codes of vectors, or their beginning is missing")
    magic, kind, known_metric, *about = _HEADER.unpack_from(view)
    if magic != _MAGIC or kind >= len(_KINDS):
        raise CodesUnavailable("the codes are of another format")
    known_dimensions, known_rows, exponent, weight, middle, *needs, size = about
    if (known_metric, known_dimensions, known_rows) != (_METRICS.index(metric), dimensions, rows):
        raise CorruptionError("these are codes of other vectors")
    body = _HEADER.size + 8 * dimensions
    if len(view) != body + size:
        raise CorruptionError(f"codes should take {body + size} bytes, here are {len(view)}")
    centre = np.frombuffer(view, np.float64, dimensions, _HEADER.size).astype(np.float64)
    sound = (np.abs(centre) <= _LARGEST).all() and abs(exponent) < 300
    if not (sound and 0 < weight < 1e3 and abs(middle) < 1e3):
        raise CorruptionError("codes have a centre that no vectors have")
    frame = Frame(metric, centre, exponent, weight, middle)
    codes = _kind(_KINDS[kind]).read(view[body:], frame, rows)
    codes.needs = tuple(needs)
    return codes


def _kind(name: str) -> type[_Turbo] | type[_Signs]:
    return _Turbo if name == "turbo4" else _Signs


def _dumped(frame: Frame, kind: str, rows: int, needs: tuple[int, ...], payload: bytes) -> bytes:
    header = _HEADER.pack(
        _MAGIC, _KINDS.index(kind), _METRICS.index(frame.metric), len(frame.centre), rows,
        frame.exponent, frame.weight, frame.middle, *needs, len(payload),
    )  # fmt: skip
    return b"".join((header, frame.centre.astype("<f8").tobytes(), payload))


class _Turbo:
    """Four bits a dimension, by the library turbovec."""

    name: Final = "turbo4"
    nested: Final = False  # asked for few, it looks less closely than when asked for many
    spare: Final = 16
    shallow: Final = 0.75

    def __init__(self, index: Any, frame: Frame, rows: int, size: int) -> None:
        self._index = index
        self._frame = frame
        self._direction = unit_of(frame.centre)
        self.rows = rows
        self.nbytes = size + frame.centre.nbytes
        self.needs: tuple[int, ...] = (0,) * len(_RECALLS)

    @classmethod
    def made(cls, vectors: Matrix, frame: Frame) -> Self:
        """Codes of `vectors`."""
        library, width, rows = _library(), cls._width(frame), len(vectors)
        with foreign("turbovec could not make codes"):
            index = library.TurboQuantIndex(width, 4)
            if rows >= _SAMPLE // 4:
                chosen = np.random.default_rng(1).choice(rows, min(_SAMPLE, rows), replace=False)
                index.calibrate(cls._items(vectors[np.sort(chosen)], frame, width))
            for start in range(0, rows, BLOCK):
                index.add(cls._items(vectors[start : start + BLOCK], frame, width))
            # What is read back has no room to grow, which may be half of it.
            data: bytes = index.to_bytes()
        del index
        return cls.read(memoryview(data), frame, rows)

    @classmethod
    def read(cls, data: memoryview, frame: Frame, rows: int) -> Self:
        """Codes from what `dump` gave for them."""
        library = _library()
        with foreign("turbovec does not take these codes"):
            index = library.TurboQuantIndex.from_bytes(bytes(data))
            shape = (index.dim, index.bit_width, len(index))
        if shape != (cls._width(frame), 4, rows):
            raise CorruptionError("these are codes of other vectors")
        with foreign("turbovec does not take these codes"):
            index.prepare()
            # The library puts codes in the order that it scans them in when first searched.
            index.search(np.ones((1, index.dim), dtype=np.float32), 1)
        return cls(index, frame, rows, len(data))

    @staticmethod
    def _width(frame: Frame) -> int:
        # It takes multiples of 8, and is several times quicker over multiples of 32.
        return -(-(len(frame.centre) + (frame.metric == "l2")) // 32) * 32

    @staticmethod
    def _items(vectors: Matrix, frame: Frame, width: int) -> Matrix:
        items = np.zeros((len(vectors), width), dtype=np.float32)
        offsets = frame.offsets(vectors)
        if frame.metric == "l2":
            half = np.vecdot(offsets, offsets) / 2
            items[:, len(frame.centre)] = (frame.middle - half) / frame.weight
        else:
            direction = unit_of(frame.centre)
            offsets += ((1 / frame.weight - 1) * (offsets @ direction))[:, None] * direction
        items[:, : len(frame.centre)] = offsets
        return items

    def _asked(self, queries: Matrix) -> Matrix:
        """What the rows' items are multiplied with: of length one, or zero."""
        frame, dimensions, weight = self._frame, queries.shape[1], self._frame.weight
        asked = np.zeros((len(queries), self._index.dim), dtype=np.float32)
        seen = queries.astype(np.float64)
        squares = np.vecdot(seen, seen)
        if not np.isfinite(squares).all():
            raise CodesUnavailable("the query holds something that is no finite number")
        if frame.metric == "l2":
            seen = np.ldexp(seen - frame.centre, -frame.exponent)
            squares = np.vecdot(seen, seen) + weight * weight
        else:
            along = np.vecdot(seen, self._direction)
            squares += (weight * weight - 1) * along * along
            seen += ((weight - 1) * along)[:, None] * self._direction
        lengths = np.sqrt(np.maximum(squares, 1e-300))
        asked[:, :dimensions] = seen / lengths[:, None]
        if frame.metric == "l2":
            asked[:, dimensions] = weight / lengths
        return asked

    def candidates(self, k: int, recall: float) -> int | None:
        """See `Codes`."""
        return _candidates(self.needs, k, recall)

    def nearest(self, query: Vector, count: int, mask: Mask | None) -> Numbers:
        """See `Codes`."""
        if mask is not None and len(mask) == self.rows:
            # The library looks at rows under a mask one by one, and without one in step and
            # on all cores: where most pass, it is quicker to let go of the others later. And
            # asked for more, it looks more closely, so that fewer need to pass.
            share = np.count_nonzero(mask) / len(mask)
            if share >= _MOST_PASS:
                fewer = -(-count * 2 // 3)
                enough = int((fewer + 2.5 * math.sqrt(fewer)) / share) + 1
                some: Numbers = self.nearest_many(query[None], enough, None)[0]
                passing = some[mask[some]]
                if len(passing) >= fewer:
                    return passing[:count]
        found: Numbers = self.nearest_many(query[None], count, mask)[0]
        return found

    def nearest_many(self, queries: Matrix, count: int, mask: Mask | None) -> Numbers:
        """See `Codes`."""
        if mask is not None and not mask.flags.c_contiguous:
            mask = np.ascontiguousarray(mask)
        asked = self._asked(queries)
        with foreign("turbovec could not search"):
            found: Numbers = self._index.search(asked, count, mask=mask)[1]
        return found

    def dump(self) -> bytes:
        """See `Codes`."""
        with foreign("turbovec could not write"):
            data: bytes = self._index.to_bytes()
        return _dumped(self._frame, self.name, self.rows, self.needs, data)


def _library() -> Any:
    library = _turbovec()
    if library is None:
        raise CodesUnavailable("turbovec is not installed")
    return library


class _Signs:
    """The sign bits of projections, and the length of each row."""

    name: Final = "signs"
    nested: Final = True  # asked for few, it gives the first of those when asked for many
    spare: Final = 28
    shallow: Final = 0.35

    def __init__(self, words: _Words, lengths: Vector, aside: Vector, frame: Frame) -> None:
        self._words = words  # shape (bits / 64, rows): a word of all rows lies together
        self._lengths = lengths
        self._aside = aside  # of each offset, what is known better than by its bits
        self._frame = frame
        self._direction = unit_of(frame.centre)
        self.rows = words.shape[1]
        self.nbytes = words.nbytes + lengths.nbytes + aside.nbytes + frame.centre.nbytes
        self.needs: tuple[int, ...] = (0,) * len(_RECALLS)

    @classmethod
    def made(cls, vectors: Matrix, frame: Frame) -> Self:
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
        return cls(words, lengths, aside, frame)

    @classmethod
    def read(cls, data: memoryview, frame: Frame, rows: int) -> Self:
        """Codes from what `dump` gave for them."""
        count = _bits(len(frame.centre)) // 64
        if len(data) != rows * (8 * count + 8):
            raise CorruptionError("codes are not as long as they should be")
        words = np.frombuffer(data, "<u8", rows * count).astype(np.uint64, copy=False)
        words = words.reshape(count, rows)
        lengths, aside = np.frombuffer(data, "<f4", 2 * rows, 8 * rows * count).reshape(2, rows)
        if not ((np.abs(lengths) <= 2 * FAR).all() and (np.abs(aside) <= 2 * FAR**2).all()):
            raise CorruptionError("codes have a length that no vectors have")
        narrow = np.float32
        return cls(
            words, lengths.astype(narrow, copy=False), aside.astype(narrow, copy=False), frame
        )

    def dump(self) -> bytes:
        """See `Codes`."""
        payload = b"".join((
            self._words.astype("<u8").tobytes(),
            self._lengths.astype("<f4").tobytes(),
            self._aside.astype("<f4").tobytes(),
        ))  # fmt: skip
        return _dumped(self._frame, self.name, self.rows, self.needs, payload)

    def candidates(self, k: int, recall: float) -> int | None:
        """See `Codes`."""
        return _candidates(self.needs, k, recall)

    def nearest(self, query: Vector, count: int, mask: Mask | None) -> Numbers:
        """See `Codes`."""
        words, lengths, aside = self._words, self._lengths, self._aside
        chosen: Numbers | None = None
        if mask is not None:
            visible = int(np.count_nonzero(mask))
            count = min(count, visible)
            if not count:
                return np.empty(0, dtype=np.int64)
            if visible < self.rows // 3:
                chosen, mask = np.flatnonzero(mask), None
                words = words.take(chosen, axis=1)
                lengths, aside = lengths[chosen], aside[chosen]
        near = self._near(query, words, lengths, aside)
        if mask is not None:
            near += hiding(mask)
        best = _highest(near, count)
        return best if chosen is None else chosen[best]

    def nearest_many(self, queries: Matrix, count: int, mask: Mask | None) -> Numbers:
        """See `Codes`."""
        most = self.rows if mask is None else int(np.count_nonzero(mask))
        found = np.empty((len(queries), min(count, most)), dtype=np.int64)
        for place, query in zip(found, queries, strict=True):
            place[:] = self.nearest(query, count, mask)
        return found

    def _near(self, query: Vector, words: _Words, lengths: Vector, aside: Vector) -> Vector:
        """An estimate of how near each row is."""
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
        asked = _packed(toward[None])[0]
        differing = np.zeros(words.shape[1], dtype=np.uint16)
        few = np.empty(words.shape[1], dtype=np.uint8)
        one = np.empty(words.shape[1], dtype=np.uint8)
        differ = np.empty(words.shape[1], dtype=np.uint64)
        for first in range(0, len(words), 3):  # up to 192 bits fit into a byte
            few[:] = 0
            for word, ours in zip(words[first : first + 3], asked[first : first + 3], strict=True):
                np.bitwise_xor(word, ours, out=differ)
                np.bitwise_count(differ, out=one)
                few += one
            differing += few
        # Vectors at an angle differ in that share of the signs of random projections.
        bits = 64 * len(words)
        cosines = np.cos(np.arange(bits + 1) * (np.pi / bits)) * (length / larger)
        near: Vector = cosines.astype(np.float32).take(differing, mode="clip")
        near *= lengths
        near += aside * np.float32(share / larger)
        return near


class Shelved:
    """Codes that stay in a file: read for each search, and held no longer than that."""

    nbytes: Final = 0

    def __init__(self, read: Callable[[], Codes]) -> None:
        """`read` gives them, or raises `CodesUnavailable`; it is called once here."""
        self._read = read
        known = read()
        self.name, self.rows = known.name, known.rows
        self.spare, self.shallow = known.spare, known.shallow
        self._needs = known.needs

    @property
    def needs(self) -> tuple[int, ...]:
        """See `Codes`."""
        return self._needs

    def candidates(self, k: int, recall: float) -> int | None:
        """See `Codes`."""
        return _candidates(self._needs, k, recall)

    def nearest(self, query: Vector, count: int, mask: Mask | None) -> Numbers:
        """See `Codes`."""
        return self._read().nearest(query, count, mask)

    def nearest_many(self, queries: Matrix, count: int, mask: Mask | None) -> Numbers:
        """See `Codes`."""
        return self._read().nearest_many(queries, count, mask)

    def dump(self) -> bytes:
        """See `Codes`."""
        return self._read().dump()


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


def _needs(codes: _Turbo | _Signs, vectors: Matrix, frame: Frame) -> tuple[int, ...]:
    """For each of `_RECALLS`, how many candidates hold that share of the ten best; 0: too many.

    Rows are the queries, and are sought among all others and again among few of them,
    where the best are less near than any rows of the whole.
    """
    rows = len(vectors)
    chance = np.random.default_rng(2)
    tried = np.sort(chance.choice(rows, min(_TRIED, rows // 2), replace=False))
    queries = vectors[tried]
    asked = np.stack([frame.query(query) for query in queries]).astype(np.float32)
    exact = np.empty((len(tried), rows), dtype=np.float32)
    for start in range(0, rows, BLOCK):
        offsets = frame.offsets(vectors[start : start + BLOCK])
        part = exact[:, start : start + BLOCK]
        np.matmul(asked, offsets.T.astype(np.float32), out=part)
        if frame.metric == "l2":
            part -= np.vecdot(offsets, offsets) / 2
    counts = [count for count in _COUNTS if count <= max(_COUNTS_OF_ANY, rows // 64)]
    others = np.ones(rows, dtype=np.bool_)
    others[tried] = False
    needs = [0] * len(_RECALLS)
    for mask in (others, others & (chance.random(rows) < max(1 / 16, _FEW / rows))):
        visible = int(np.count_nonzero(mask))
        best = min(_TRIED_K, visible)
        scores = np.where(mask, exact, -np.inf)
        least = np.partition(scores, rows - best, axis=1)[:, rows - best]
        reached = 0
        all_found = codes.nearest_many(queries, counts[-1], mask) if codes.nested else None
        for count in counts:
            if all_found is None:
                found = codes.nearest_many(queries, count, mask)
            else:
                found = all_found[:, :count]
            hits = np.count_nonzero(np.take_along_axis(scores, found, axis=1) >= least[:, None])
            recall = min(1.0, hits / (best * len(tried)))
            # So few trials tell it only roughly: half the misses are left in reserve.
            while reached < len(_RECALLS) and recall >= (1 + _RECALLS[reached]) / 2:
                needs[reached] = max(needs[reached], count)
                reached += 1
            if reached == len(_RECALLS):
                break
        needs[reached:] = [counts[-1] + 1] * (len(_RECALLS) - reached)
    return tuple(count if count <= counts[-1] else 0 for count in needs)


def _candidates(needs: tuple[int, ...], k: int, recall: float) -> int | None:
    for reached, count in zip(_RECALLS, needs, strict=True):
        if reached >= recall and count:
            return max(count, -(-count * k // _TRIED_K))
    return None
