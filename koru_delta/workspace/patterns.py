"""The rules of the three patterns, as functions of what was written. No I/O here.

An *event* is written once. A *reference* has one value at each time: what is said anew takes
over from when it is true, up to the next change that is known of, in whatever order changes
become known. A *procedure* has versions, and outcomes of trying them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from typing import Final, NamedTuple

from koru_delta.causal import FOREVER, Version, interval_of, without

_CONFIDENCE: Final = 1.959963984540054  # standard deviations: 95 % of a normal distribution


class Span(NamedTuple):
    """A version, and a part of its valid time that nothing written later took over."""

    valid_from: int  # microseconds, inclusive
    valid_to: int  # exclusive
    version: Version


def timeline(latest_first: Iterable[Version]) -> list[Span]:
    """What is true when, by the puts and deletes of a key and what was said of them.

    What is hidden or erased has no span, nor has a delete; but they do take over from what was
    said before them, as in every read.

    Args:
        latest_first: `history(reverse=True, include_annotations=True)`.
    """
    return sorted(
        span for span, hidden in _parts(latest_first)
        if not (hidden or span.version.is_tombstone or span.version.is_erased)
    )  # fmt: skip


def until(latest_first: Iterable[Version], starts: int) -> int | None:
    """When what is true from `starts` on changes next, by what is known; None is never."""
    known = [span.valid_from for span, hidden in _parts(latest_first) if not hidden]
    return min((time for time in known if time > starts), default=None)


def _parts(latest_first: Iterable[Version]) -> list[tuple[Span, bool]]:
    """Which version holds which times, and whether it is hidden."""
    left = [(-FOREVER, FOREVER)]
    parts: list[tuple[Span, bool]] = []
    hidden: dict[str, bool] = {}
    for version in latest_first:
        if version.is_annotation:
            for target in version.targets:
                hidden.setdefault(target, version.operation != "unhide")
            continue
        starts, ends = interval_of(version)
        for low, high in left:
            if max(low, starts) < min(high, ends):
                span = Span(max(low, starts), min(high, ends), version)
                parts.append((span, hidden.get(version.id, False)))
        left = [part for each in left for part in without(each, (starts, ends))]
    return parts


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What came of trying a procedure."""

    successes: int = 0
    failures: int = 0

    @property
    def trials(self) -> int:
        """How often it was tried."""
        return self.successes + self.failures

    @property
    def score(self) -> float:
        """How reliable it is at least, in [0, 1]: 0 for what was never tried.

        The lower bound of Wilson's 95 % interval for the rate of success: three out of
        three is less than thirty out of thirty. Source: E. B. Wilson, JASA 22 (1927).

        >>> [round(Outcomes(n, 0).score, 3) for n in (0, 3, 30)]
        [0.0, 0.439, 0.886]
        """
        trials = self.trials
        if not trials:
            return 0.0
        rate, square = self.successes / trials, _CONFIDENCE**2
        middle = rate + square / (2 * trials)
        half = _CONFIDENCE * sqrt(rate * (1 - rate) / trials + square / (4 * trials**2))
        return max(0.0, (middle - half) / (1 + square / trials))
