"""Bounds for exact scans: eight bits a dimension, and how wrong they can be."""

from __future__ import annotations

import functools
import importlib
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from koru_delta.search.frame import (
    FAR,
    CodesUnavailable,
    Doubles,
    Frame,
    Mask,
    Matrix,
    blocks_of,
    foreign,
    hiding,
    lengths_of,
)
from koru_delta.values import Vector

Numbers = npt.NDArray[np.int64]


class Int8Bounds:
    """Eight bits a dimension, and how wrong they can be: an exact search that reads a quarter.

    A vector is its code times a scale, and a rest whose length is known. So is a query, and
    by the inequality of Cauchy and Schwarz an inner product differs from that of the codes
    by no more than `|query| |rest| + |rest of the query| |coded|`.
    """

    def __init__(self, frame: Frame, rows: int) -> None:
        self._frame = frame
        self._codes = np.empty((rows, len(frame.centre)), dtype=np.int8)
        self._scales = np.empty(rows, dtype=np.float32)
        self._rests = np.empty(rows, dtype=np.float32)  # lengths, all rounded up
        self._coded = np.empty(rows, dtype=np.float32)
        self._halves = np.zeros((2, 0 if frame.metric == "dot" else rows), dtype=np.float32)
        self.nbytes = sum(
            held.nbytes
            for held in (self._codes, self._scales, self._rests, self._coded, self._halves)
        )

    @staticmethod
    def available() -> bool:
        """Whether a library is installed that multiplies small integers."""
        return _int8_library() is not None

    @classmethod
    def made(cls, vectors: Matrix, metric: str) -> Self | None:
        """Bounds for `vectors`; None where they are all equal or some much further out.

        Raises:
            CodesUnavailable: no library is installed.
        """
        if not cls.available():
            raise CodesUnavailable("neither simsimd nor numkong is installed")
        frame = Frame.around(vectors, metric)
        if frame is None or len(frame.centre) > 2**16:  # sums must fit into 32 bits
            return None
        found = cls(frame, len(vectors))
        moved = _moved(frame)
        unit = 0.0  # that a vector has not quite this length
        if metric == "cosine":
            unit = float(np.ldexp(2.0**-49, -2 * frame.exponent))
        for start, block in blocks_of(vectors):
            part = slice(start, start + len(block))
            offsets = frame.seen(block.copy())
            lengths = lengths_of(offsets)
            if lengths.max() > FAR:
                return None
            scales = (np.abs(offsets).max(axis=1) / 127).astype(np.float32)
            scales = np.maximum(scales, np.finfo(np.float32).tiny)
            codes = np.clip(np.round(offsets / scales[:, None]), -127, 127)
            coded = codes * scales[:, None].astype(np.float64)
            # Centring rounds in float64, and sums below are rounded in float32.
            rounded = 2.0**-50 * (lengths + 2 * moved)
            found._codes[part] = codes
            found._scales[part] = scales
            found._rests[part] = _up(lengths_of(offsets - coded) + rounded + 2.0**-20 * lengths)
            found._coded[part] = _up(lengths_of(coded))
            if metric != "dot":
                half = np.square(lengths) / 2
                found._halves[0, part] = half
                found._halves[1, part] = _up(2.0**-20 * half + lengths * rounded + unit)
        return found

    def contenders(self, query: Vector, k: int, mask: Mask | None) -> Numbers:
        """Rows under `mask` that hold the exact best `k` and all that equal the last of them.

        Raises:
            CodesUnavailable: the library failed, or the query is not finite or too far away.
        """
        seen = self._frame.query(query)
        if self._frame.metric == "cosine":  # of unit vectors: the order of distances is the same
            seen = np.ldexp(seen - self._frame.centre, -self._frame.exponent)
        length = float(np.linalg.norm(seen))
        if length > FAR:
            raise CodesUnavailable("the query is too far away from all vectors")
        scale = float(np.abs(seen).max()) / 127 or 1.0
        codes = np.round(seen / scale)
        rest = float(np.linalg.norm(seen - codes * scale))
        rest += 2.0**-50 * (length + 2 * _moved(self._frame))
        small = codes.astype(np.int8)[None]
        with foreign("the int8 library could not multiply"):
            high = np.asarray(_int8_library().cdist(small, self._codes, "dot"))[0]
        high = high.astype(np.float32)
        high *= self._scales
        high *= np.float32(scale)
        doubt = self._rests * np.float32(length * (1 + 2.0**-20))
        doubt += self._coded * np.float32(rest * (1 + 2.0**-20) + 2.0**-20 * length)
        if len(self._halves[0]):
            high -= self._halves[0]
            doubt += self._halves[1]
        if mask is not None:
            high += hiding(mask)
        low = high - doubt
        high += doubt
        if k >= len(low):
            return np.flatnonzero(high > -np.inf)
        least = np.partition(low, len(low) - k)[len(low) - k]
        return np.flatnonzero((high >= least) & (high > -np.inf))


@functools.cache
def _int8_library() -> Any:
    """A library that multiplies one int8 vector with many at once, or None."""
    for name in ("simsimd", "numkong"):
        try:
            return importlib.import_module(name)
        except (ImportError, OSError):
            continue
    return None


def _moved(frame: Frame) -> float:
    """How far the centre is from the origin, in units of the offsets."""
    return float(np.ldexp(np.linalg.norm(frame.centre), -frame.exponent))


def _up(exact: Doubles) -> Vector:
    """No less than `exact`."""
    return np.nextafter(exact.astype(np.float32), np.float32(np.inf))
