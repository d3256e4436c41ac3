"""Parts for tests of code that uses KoruDelta: a clock you own, an embedder that repeats."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
from blake3 import blake3

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FixedClock:
    """A clock that stands still until told to move.

    >>> clock = FixedClock(1_000_000)
    >>> clock.advance(seconds=1.5); clock()
    2500000
    >>> FixedClock(datetime(2026, 3, 2, 9, tzinfo=UTC))
    <FixedClock at 2026-03-02T09:00:00+00:00>
    """

    def __init__(self, start: int | datetime = 1_767_225_600_000_000) -> None:
        """Start at a time with a zone, or at microseconds since 1970, UTC; by default with 2026."""
        if isinstance(start, datetime):
            start = (start - _EPOCH) // timedelta(microseconds=1)
        self.now = start

    def __repr__(self) -> str:
        return f"<FixedClock at {(_EPOCH + timedelta(microseconds=self.now)).isoformat()}>"

    def __call__(self) -> int:
        """The time, in microseconds since 1970, UTC."""
        return self.now

    def advance(
        self, by: timedelta = timedelta(0), *, seconds: float = 0, microseconds: int = 0
    ) -> None:
        """Move on; a negative amount sets the clock back."""
        self.now += round(seconds * 1_000_000) + microseconds + by // timedelta(microseconds=1)


class HashEmbedder:
    """Embed text by hashing its words: no model, the same vectors on every machine.

    Texts that share words point in similar directions, which is all that tests need.
    """

    def __init__(self, dimensions: int = 64) -> None:
        self.dimensions = dimensions
        self.model_name = f"hash-words-{dimensions}"

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed `texts` as an array of shape (len(texts), dimensions), rows of length 1."""
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in re.findall(r"\w+", text.casefold()) or [""]:
                digest = blake3(word.encode()).digest()
                sign = 1.0 if digest[4] & 1 else -1.0
                row[int.from_bytes(digest[:4], "little") % self.dimensions] += sign
            if not row.any():
                row[0] = 1.0
            row /= np.linalg.norm(row)
        return rows
