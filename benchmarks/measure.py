"""Timing by turns: every side of a comparison runs in each round, in one process.

A figure is the median over the rounds, after a warm-up, with the garbage collector off.
What is compared takes turns, and who goes first does too, so that a machine that slows
down for a while slows both.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from time import perf_counter_ns
from typing import Literal, NamedTuple

Side = Callable[[int], object]


class SkippedError(Exception):
    """A subject cannot be measured here; the message says why."""


class Target(NamedTuple):
    """A limit on a row's own figure, or on its ratio to the peer's."""

    of: Literal["ours", "ratio"]
    sign: Literal["<=", ">="]
    limit: float

    def holds(self, row: Row) -> bool:
        found = row.ours if self.of == "ours" else row.ratio
        if found is None:
            return False
        return found <= self.limit if self.sign == "<=" else found >= self.limit


def at_most(limit: float) -> Target:
    return Target("ours", "<=", limit)


def at_least(limit: float) -> Target:
    return Target("ours", ">=", limit)


def ratio_at_most(limit: float) -> Target:
    return Target("ratio", "<=", limit)


def ratio_at_least(limit: float) -> Target:
    return Target("ratio", ">=", limit)


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `targets` are alternatives: any one of them is enough; none is context."""

    what: str
    ours: float
    unit: str
    peer: float | None = None
    against: str = ""
    targets: tuple[Target, ...] = ()

    @property
    def ratio(self) -> float | None:
        return self.ours / self.peer if self.peer else None

    @property
    def met(self) -> bool | None:
        return any(target.holds(self) for target in self.targets) if self.targets else None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the garbage collector out of a measurement."""
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def by_turns(
    sides: Sequence[Side],
    rounds: int,
    *,
    warm_up: int = 0,
    calls: int = 1,
    stretch: int = 1,
    before: Side | None = None,
) -> list[float]:
    """Median nanoseconds a call of each side, in the order given.

    Round `n` calls every side with `n`, so that a side can do something new each time;
    rounds below `warm_up` are not counted.

    Args:
        calls: How many calls a side makes, if it loops.
        stretch: Rounds a side does in a row before it is the next one's turn.
        before: Called with `n` ahead of each call, outside the measurement.
    """
    taken: list[list[int]] = [[] for _ in sides]
    total = warm_up + rounds
    with quiet():
        for turn, start in enumerate(range(0, total, stretch)):
            order = range(len(sides)) if turn % 2 else reversed(range(len(sides)))
            for which in order:
                for n in range(start, min(total, start + stretch)):
                    if before is not None:
                        before(n)
                    begin = perf_counter_ns()
                    sides[which](n)
                    end = perf_counter_ns()
                    if n >= warm_up:
                        taken[which].append(end - begin)
    return [median(times) / calls for times in taken]


def sized(full: int, scale: float, least: int) -> int:
    """A count for this run: `full` at scale 1, and never below `least`."""
    return max(least, round(full * scale))
