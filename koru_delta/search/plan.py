"""Which way to search: a pure choice by estimated cost, among the ways that keep the promise.

Exact ways always may be taken. The graph holds only what is alive now and is asked only
for that, or for a part of it: then for more, of which enough will pass; codes may be scanned
under any mask. What each costs is a matter of the machine:
`Costs` are settings, measured by `kdelta tune`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import ceil, log, sqrt
from typing import Any, Literal, NamedTuple

from koru_delta.errors import InvalidDataError

Way = Literal["gather", "packed", "scan", "bounds", "graph", "codes"]
_LEAST_SHARE = 1e-6
_REGRET = 1.25  # times what a search costs, that it costs when the graph was asked before it
HIGHEST_APPROXIMATE = 0.99  # recall targets above it are answered exactly


@dataclass(frozen=True, slots=True)
class Costs:
    """Nanoseconds, by the number of float32 values (rows times dimensions) looked at."""

    gather: float = 0.2  # a value of a row copied from its place
    gather_far: float = 0.4  # likewise, of sets too large for the processor's cache
    scan: float = 0.06  # a value of rows that lie together
    scan_far: float = 0.12  # likewise, of sets too large for the cache
    far_bytes: float = 12e6
    packed: float = 0.06  # a value of rows copied together for a mask used before; far: as a scan
    bounds: float = 0.045  # a value looked at as a small integer
    bounds_call: float = 60_000.0
    turbo4: float = 0.008  # a value looked at as a 4-bit code
    turbo4_call: float = 90_000.0
    turbo4_place: float = 0.4  # a place that a row takes or moves up in the list it keeps
    signs: float = 0.02  # a value looked at as a sign, by numpy alone
    signs_call: float = 200_000.0
    graph_call: float = 8_000.0
    graph_step: float = 1_700.0  # for each unit of effort

    @classmethod
    def read(cls, stored: object) -> Costs:
        """Costs from JSON.

        Raises:
            InvalidDataError: not an object of positive numbers by these names.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(stored, dict) or not stored.keys() <= names:
            raise InvalidDataError("tuned costs name something unknown; run: kdelta tune")
        for name, cost in stored.items():
            if isinstance(cost, bool) or not isinstance(cost, (int, float)) or not 0 < cost < 1e12:
                raise InvalidDataError(f"tuned cost {name} is no positive number: {cost!r}")
        return cls(**{name: float(cost) for name, cost in stored.items()})

    def to_json(self) -> dict[str, Any]:
        """As `read` takes it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Situation(NamedTuple):
    """What there is to search, and with what.

    Args:
        visible: Rows that pass the mask.
        stored: Vectors that a scan goes over.
        packable: Whether copies of the visible ones lie together, or may.
        span: Vectors between the first and the last visible one, where they lie in order.
        codes: The kind of codes, if they hold the recall: `coded` of them are looked at, or what
            takes as long, and beside them `uncoded` vectors that have none.
        listed: So many rows codes are asked for, which are then scored exactly.
        places: See `places_of`, of all their lists.
        fruitless: The share of searches that ask codes, and then must be answered otherwise.
        bounded: So many of the stored have bounds for exact scans.
        effort: What the graph needs for the recall, if it is ready and may be asked.
        unfed: Vectors alive that are not in the graph yet.
        in_vain: The share of searches that ask it, and then must be answered otherwise.
    """

    visible: int
    stored: int
    span: int
    dimensions: int
    codes: str | None
    coded: int
    uncoded: int
    bounded: int
    effort: int | None
    unfed: int
    packable: bool = False
    in_vain: float = 0.0
    listed: int = 0
    places: float = 0.0
    fruitless: float = 0.0


def choose(it: Situation, costs: Costs) -> Way:
    """The cheapest way; exact ways win ties."""
    best: Way = "gather"
    values = it.visible * it.dimensions
    # Rows that lie scattered are fetched one by one from where all of them lie.
    scattered = it.stored * it.dimensions * 4 > costs.far_bytes
    least = values * (costs.gather_far if scattered else costs.gather)
    scan = _scan(it.span, it.dimensions, costs)
    if scan < least:
        best, least = "scan", scan
    packed = values * (costs.scan_far if values * 4 > costs.far_bytes else costs.packed)
    if it.packable and packed < least:
        best, least = "packed", packed
    if it.bounded:
        bounds = (
            costs.bounds_call
            + costs.bounds * it.bounded * it.dimensions
            + _scan(it.stored - it.bounded, it.dimensions, costs)
        )
        if bounds < least:
            best, least = "bounds", bounds
    if it.codes is not None and it.coded:
        codes = (
            getattr(costs, f"{it.codes}_call")
            + getattr(costs, it.codes) * it.coded * it.dimensions
            + _scan(it.uncoded, it.dimensions, costs)
            + (costs.gather_far if scattered else costs.gather) * it.listed * it.dimensions
        )
        if it.codes == "turbo4":
            codes += costs.turbo4_place * it.places
        codes += it.fruitless * least
        if codes < least:
            best, least = "codes", codes
    if it.effort is not None:
        graph = (
            costs.graph_call + costs.graph_step * it.effort + _scan(it.unfed, it.dimensions, costs)
        )
        if graph + _REGRET * it.in_vain * least < least:
            best = "graph"
    return best


def asked_of(k: int, share: float) -> int:
    """So many of the nearest that `k` of them nearly always pass a filter that lets a share by.

    Two standard deviations of a binomial more than would do on average.
    """
    share = min(max(share, _LEAST_SHARE), 1.0)
    return ceil((k + 2 * sqrt(k * (1 - share)) + (share < 1)) / share)


def places_of(count: int, rows: int) -> float:
    """How many places rows take or move up in a list that keeps the best `count` in order.

    Of rows that come in any order one in `count / n` is among the best of the first `n`, so
    that `count * (1 + ln(rows / count))` are put in, and each moves `count` others, or half.
    """
    count = min(count, rows)
    return 0.0 if count < 1 else float(count) ** 2 * (1 + log(rows / count))


def _scan(rows: int, dimensions: int, costs: Costs) -> float:
    values = rows * dimensions
    return values * (costs.scan_far if values * 4 > costs.far_bytes else costs.scan)
