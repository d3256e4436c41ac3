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
import importlib
import math
from collections.abc import Callable
from typing import Any, Final, Protocol, Self

import numpy as np

from koru_delta.errors import CorruptionError
from koru_delta.search.frame import (
    BLOCK,
    HEAD_BYTES,
    RECALLS,
    TRIED_K,
    CodesUnavailable,
    Frame,
    Mask,
    Matrix,
    Numbers,
    Vectors,
    enough,
    foreign,
    head_of,
    headed,
    unit_of,
)
from koru_delta.search.longs import LONG_BYTES, Far, Longs, Toward
from koru_delta.search.shortlist import CLOSELY, CODE_ERROR, SIGN_ERROR, by_recall, times_too_short
from koru_delta.search.signs import Signs
from koru_delta.values import Vector

_SAMPLE: Final = 1024  # rows the codes are fitted to
_TRIED: Final = 48  # rows searched for at the end, to see how many candidates it takes
_MOST_PASS: Final = 0.6  # of the rows, for a mask to be applied afterwards
_FEW: Final = 1000  # rows, the fewest they are searched for among
_COUNTS: Final = (
    12, 16, 20, 24, 32, 40, 50, 64, 80, 100, 128, 160, 200, 256, 320, 400, 512, 640,
    800, 1024, 1280, 1600, 2048, 2560,
)  # fmt: skip
_COUNTS_OF_ANY: Final = 640  # the more rows there are, the more candidates still pay
_CLOSER: Final = 2.7  # times as long take fewer rows than turbovec makes a shortlist of
_CROWDED: Final = 40  # rows for each that is asked for, or fewer
_SHALLOW: Final = 0.75
_SPARE: Final = ((0.95, 12), (0.98, 16), (1.0, 28))  # by the recall that is asked
_FEWEST_DIMENSIONS: Final = 8
_MOST_DIMENSIONS: Final = 16_352  # and one more for l2 are the most that turbovec takes


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

    def spare(self, recall: float) -> int:
        """How many to ask for beyond twice as many as are sought.

        Queries unlike the rows find worse than these did in the trial.
        """
        ...

    def shallow(self, recall: float) -> float:
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

    def toil(self, rows: int) -> int:
        """So many rows of codes of a great many take as long as all of codes of `rows`."""
        ...

    def candidates(self, k: int, recall: float) -> int | None:
        """How many rows to ask for, to find that share of the best `k`; None: too many to pay.

        It is what it took in a trial when the codes were made: the rows themselves were
        the queries.
        """
        ...

    @property
    def worth(self) -> int:
        """Times as many rows as candidates there should be, for codes to be looked at again."""
        ...

    def nearest(self, query: Vector, count: int, mask: Mask | None) -> Numbers:
        """The rows that seem nearest, of those under `mask` if given, most promising first.

        Returns:
            `count` different row numbers, or as many as there are.

        Raises:
            CodesUnavailable: the library failed, or the query is not finite.
        """
        ...

    def nearest_many(self, queries: Matrix, count: int, mask: Mask | None) -> Numbers:
        """As `nearest`, for each query: shape (queries, `count` or as many as there are)."""
        ...

    def promising(
        self, query: Vector, count: int, mask: Mask | None, k: int, recall: float
    ) -> tuple[Numbers, int]:
        """As `nearest`, among which that share of the `k` best is sought.

        Returns:
            About `count` row numbers, two thirds of it at least; and how many times as many
            should have been asked for, judging by these: 1 if it was enough, 0 if these are all.
        """
        ...

    def promising_many(
        self, queries: Matrix, count: int, mask: Mask | None, k: int, recall: float
    ) -> list[tuple[Numbers, int]]:
        """As `promising`, for each query."""
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


def encode(vectors: Vectors, metric: str, *, kind: str | None = None) -> Codes | None:
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
    return read(
        lambda start, length: bytes(view[start : start + length]), len(view), metric, dimensions,
        rows,
    )  # fmt: skip


def read(
    some: Callable[[int, int], bytes], size: int, metric: str, dimensions: int, rows: int
) -> Codes:
    """As `load`, of `size` bytes of which `some` gives so many from an offset on."""
    body = HEAD_BYTES + 8 * dimensions
    head = head_of(some(0, min(size, body)), metric, dimensions, rows)
    payload = body + LONG_BYTES * head.longs
    if size != payload + head.size:
        raise CorruptionError(f"codes should take {payload + head.size} bytes, here are {size}")
    longs = Longs.read(some(body, payload - body), rows)
    codes = _kind(head.kind).read(lambda: some(payload, head.size), head.frame, longs, rows)
    codes.needs = head.needs
    return codes


def _kind(name: str) -> type[_Turbo] | type[Signs]:
    return _Turbo if name == "turbo4" else Signs


class _Turbo:
    """Four bits a dimension, by the library turbovec."""

    name: Final = "turbo4"
    nested: Final = False  # asked for few, it looks less closely than when asked for many
    worth: Final = 200

    def __init__(self, index: Any, frame: Frame, longs: Longs, rows: int, size: int) -> None:
        self._index = index
        self._frame = frame
        self._longs = longs
        self._direction = unit_of(frame.centre)
        self._stretch = (frame.weight - 1) * self._direction
        self.rows = rows
        self.nbytes = size + frame.centre.nbytes + longs.nbytes
        self.needs: tuple[int, ...] = (0,) * len(RECALLS)

    @classmethod
    def made(cls, vectors: Vectors, frame: Frame) -> Self:
        """Codes of `vectors`."""
        library, width, rows = _library(), cls._width(frame), vectors.shape[0]
        failed = "turbovec could not make codes"  # and not: the vectors could not be read
        with foreign(failed):
            index = library.TurboQuantIndex(width, 4)
        if rows >= _SAMPLE // 4:
            chosen = np.random.default_rng(1).choice(rows, min(_SAMPLE, rows), replace=False)
            items = cls._items(vectors[np.sort(chosen)], frame, width)
            with foreign(failed):
                index.calibrate(items)
        beside = frame.metric == "l2"
        lengths, known = np.empty((2, rows), dtype=np.float32)
        for start in range(0, rows, BLOCK):
            items = cls._items(vectors[start : start + BLOCK], frame, width)
            lengths[start : start + BLOCK] = np.sqrt(np.vecdot(items, items))
            known[start : start + BLOCK] = items[:, len(frame.centre)] if beside else 0
            with foreign(failed):
                index.add(items)
        with foreign(failed):
            # What is read back has no room to grow, which may be half of it.
            data = [index.to_bytes()]
        del index
        rests = np.sqrt(np.maximum(np.square(lengths) - np.square(known), 0))
        return cls.read(data.pop, frame, Longs.among(lengths, known, rests), rows)

    @classmethod
    def read(cls, take: Callable[[], bytes], frame: Frame, longs: Longs, rows: int) -> Self:
        """Codes from what `dump` gave for them, which is let go of as soon as it was read."""
        library = _library()
        data = take()
        size = len(data)
        with foreign("turbovec does not take these codes"):
            index = library.TurboQuantIndex.from_bytes(data)
            del data
            shape = (index.dim, index.bit_width, len(index))
        if shape != (cls._width(frame), 4, rows):
            raise CorruptionError("these are codes of other vectors")
        with foreign("turbovec does not take these codes"):
            index.prepare()
            # The library puts codes in the order that it scans them in when first searched.
            index.search(np.ones((1, index.dim), dtype=np.float32), 1)
        return cls(index, frame, longs, rows, size)

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
        asked = np.zeros((len(queries), self._index.dim), dtype=np.float32)
        for query, its in zip(queries, asked, strict=True):
            self._ask(query, its)
        return asked

    def _ask(self, query: Vector, asked: Vector) -> None:
        frame, dimensions, weight = self._frame, len(query), self._frame.weight
        seen = query.astype(np.float64)
        square = float(seen.dot(seen))
        if not math.isfinite(square):
            raise CodesUnavailable("the query holds something that is no finite number")
        if frame.metric == "l2":
            seen = np.ldexp(seen - frame.centre, -frame.exponent)
            square = float(seen.dot(seen)) + weight * weight
        else:
            along = float(seen.dot(self._direction))
            square += (weight * weight - 1) * along * along
            seen += along * self._stretch
        length = math.sqrt(max(square, 1e-300))
        np.divide(seen, length, out=asked[:dimensions])
        if frame.metric == "l2":
            asked[dimensions] = weight / length

    def shallow(self, _recall: float) -> float:
        """See `Codes`."""
        return _SHALLOW

    def spare(self, recall: float) -> int:
        """See `Codes`."""
        # It puts all that it keeps in order as it goes, so that each more is dear.
        return int(by_recall(_SPARE, recall))

    def toil(self, rows: int) -> int:
        """See `Codes`."""
        return rows if rows >= CLOSELY else int(rows * _CLOSER)

    def candidates(self, k: int, recall: float) -> int | None:
        """See `Codes`."""
        return enough(self.needs, k, recall)

    def nearest(self, query: Vector, count: int, mask: Mask | None) -> Numbers:
        """See `Codes`."""
        rows: Numbers = self._found(self._asked(query[None]), count, mask)[1][0]
        return rows

    def nearest_many(self, queries: Matrix, count: int, mask: Mask | None) -> Numbers:
        """See `Codes`."""
        return self._found(self._asked(queries), count, mask)[1]

    def promising(
        self, query: Vector, count: int, mask: Mask | None, k: int, recall: float
    ) -> tuple[Numbers, int]:
        """See `Codes`."""
        asked, passing = self._asked(query[None]), self.rows
        if mask is not None and len(mask) == self.rows:
            # The library looks at rows under a mask one by one, and without one in step and
            # on all cores: where most pass, it is quicker to let go of the others later. And
            # asked for more, it looks more closely, so that fewer need to pass.
            passing = int(np.count_nonzero(mask))
            share = passing / self.rows
            if share >= _MOST_PASS:
                fewer = -(-count * 2 // 3)
                enough = int((fewer + 2.5 * math.sqrt(fewer)) / share) + 1
                scores, rows = self._found(asked, enough, None)
                pass_it = mask[rows[0]]
                some = rows[0][pass_it]
                if len(some) >= fewer:
                    its = scores[0][pass_it]
                    short, far = self._judged(
                        asked[0], its, k, recall, enough, share, passing, mask
                    )
                    return far.before(some[:count]), short
        scores, rows = self._found(asked, count, mask)
        short, far = self._judged(asked[0], scores[0], k, recall, count, 1.0, passing, mask)
        return far.before(rows[0]), short

    def promising_many(
        self, queries: Matrix, count: int, mask: Mask | None, k: int, recall: float
    ) -> list[tuple[Numbers, int]]:
        """See `Codes`."""
        asked = self._asked(queries)
        scores, rows = self._found(asked, count, mask)
        passing = self.rows if mask is None else int(np.count_nonzero(mask))
        found = []
        for one, its, some in zip(asked, scores, rows, strict=True):
            short, far = self._judged(one, its, k, recall, count, 1.0, passing, mask)
            found.append((far.before(some), short))
        return found

    def _found(self, asked: Matrix, count: int, mask: Mask | None) -> tuple[Matrix, Numbers]:
        """Scores and rows, by query."""
        if mask is not None and not mask.flags.c_contiguous:
            mask = np.ascontiguousarray(mask)
        with foreign("turbovec could not search"):
            if len(asked) > 1 and self._is_crowded(count, mask):
                every = [self._index.search(one[None], count, mask=mask) for one in asked]
                return np.concatenate([s for s, _ in every]), np.concatenate([r for _, r in every])
            found: tuple[Matrix, Numbers] = self._index.search(asked, count, mask=mask)
        return found

    def _is_crowded(self, count: int, mask: Mask | None) -> bool:
        """Whether most rows come on a shortlist, which takes the library long for a batch.

        Of 40,000 rows with 1,500 asked for, 300 ms for each query; one at a time, 6.
        """
        if self.rows < CLOSELY:
            return False
        return (self.rows if mask is None else int(np.count_nonzero(mask))) < _CROWDED * count

    def _judged(
        self,
        asked: Vector,
        scores: Vector,
        k: int,
        recall: float,
        count: int,
        share: float,
        passing: int,
        mask: Mask | None,
    ) -> tuple[int, Far]:
        """How many times too short a list is, and what may be missing from one of any length."""
        length, far = self._frame.reach, Far(self._longs.rows[:0], 0.0)
        if len(self._longs.rows) and len(scores) < passing:
            far = self._longs.beyond(self._seen_by(asked), scores, k, mask)
            if far.are_many:
                length = max(length, far.typical)
        short = times_too_short(
            scores, k, recall, asked=count, share=share, rows=self.rows, passing=passing,
            unit=length / math.sqrt(self._index.dim),
        )  # fmt: skip
        return short, far

    def _seen_by(self, asked: Vector) -> Toward:
        dimensions = len(self._frame.centre)
        error = CODE_ERROR if self.rows < CLOSELY else SIGN_ERROR
        known = float(asked[dimensions]) if self._frame.metric == "l2" else 0.0
        rest = math.sqrt(max(0.0, 1 - known * known))
        return Toward.of(error / math.sqrt(self._index.dim), known, rest, dimensions)

    def dump(self) -> bytes:
        """See `Codes`."""
        with foreign("turbovec could not write"):
            data: bytes = self._index.to_bytes()
        return headed(self._frame, self.name, self.rows, self.needs, self._longs, data)


def _library() -> Any:
    library = _turbovec()
    if library is None:
        raise CodesUnavailable("turbovec is not installed")
    return library


def _needs(codes: _Turbo | Signs, vectors: Vectors, frame: Frame) -> tuple[int, ...]:
    """For each of `RECALLS`, how many candidates hold that share of the ten best; 0: too many.

    Rows are the queries, and are sought among all others and again among few of them,
    where the best are less near than any rows of the whole.
    """
    rows = vectors.shape[0]
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
    needs = [0] * len(RECALLS)
    for mask in (others, others & (chance.random(rows) < max(1 / 16, _FEW / rows))):
        visible = int(np.count_nonzero(mask))
        best = min(TRIED_K, visible)
        least = np.array([
            np.partition(np.where(mask, scores, np.float32(-np.inf)), rows - best)[rows - best]
            for scores in exact
        ])  # fmt: skip
        reached = 0
        all_found = codes.nearest_many(queries, counts[-1], mask) if codes.nested else None
        for count in counts:
            if all_found is None:
                found = codes.nearest_many(queries, count, mask)
            else:
                found = all_found[:, :count]
            near = np.take_along_axis(exact, found, axis=1) >= least[:, None]
            hits = np.count_nonzero(near & mask[found])
            recall = min(1.0, hits / (best * len(tried)))
            # So few trials tell it only roughly: half the misses are left in reserve.
            while reached < len(RECALLS) and recall >= (1 + RECALLS[reached]) / 2:
                needs[reached] = max(needs[reached], count)
                reached += 1
            if reached == len(RECALLS):
                break
        needs[reached:] = [counts[-1] + 1] * (len(RECALLS) - reached)
    return tuple(count if count <= counts[-1] else 0 for count in needs)
