"""What each way of searching costs on this machine, measured by taking it.

Every figure comes from medians of several runs of what a search itself would call, on vectors
of a space if it has enough of them, else on made-up ones that lie about as real ones do.
What cannot be measured here, for want of a library say, keeps its default.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Final

import numpy as np

from koru_delta.search import codes, graph
from koru_delta.search.bounds import Int8Bounds
from koru_delta.search.cache import Unusable
from koru_delta.search.codes import Codes
from koru_delta.search.frame import CodesUnavailable
from koru_delta.search.graph import GraphUnavailable, LiveGraph
from koru_delta.search.nearest import VectorSpace
from koru_delta.search.plan import Costs, Situation, choose, places_of
from koru_delta.search.truth import Matrix, Truth
from koru_delta.values import Vector

Tell = Callable[[int, int], None]

ENOUGH_ROWS: Final = 4096  # vectors of a space, from which its own are measured
_DIMENSIONS: Final = 256  # of made-up vectors
_CODED_ROWS: Final = (2048, 16_384)
_KINDS: Final = ("signs", "turbo4")
_LISTED: Final = (64, 1024)  # rows that codes are asked for
_FED_ROWS: Final = 4000
_GATHERED_ROWS: Final = 2000
_EFFORTS: Final = (16, 32, 64, 128)
_K: Final = 10
_RECALL: Final = 0.95
_SECONDS: Final = 0.12  # for each figure
_FEWEST_RUNS, _MOST_RUNS = 5, 200
_BLOCKS: Final = 3  # of runs, for each figure
_TRIES: Final = 8  # to find that more takes longer
_MOST_BYTES: Final = 128e6  # of vectors made to be scanned
_COLD_BYTES: Final = 48_000_000  # more than a processor's cache holds


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was measured, on what, and what it changes."""

    costs: Costs
    measured: tuple[str, ...]  # the other costs are defaults
    namespace: str | None  # whose vectors were measured; None: made-up ones
    model: str | None
    dimensions: int
    rows: int
    seconds: float
    effort: int  # of the graph in the examples

    def to_json(self) -> dict[str, Any]:
        """Everything, with the defaults and the plans of some examples beside it."""
        return {
            "costs": self.costs.to_json(), "defaults": Costs().to_json(),
            "measured": list(self.measured), "namespace": self.namespace, "model": self.model,
            "dimensions": self.dimensions, "rows": self.rows, "seconds": round(self.seconds, 3),
            "plans": [
                {"situation": name, "default": choose(it, Costs()), "tuned": choose(it, self.costs)}
                for name, it in _examples(self.dimensions, self.effort)
            ],
        }  # fmt: skip


def tune(spaces: Sequence[VectorSpace], tell: Tell = lambda _done, _total: None) -> Tuned:
    """Measure on that of `spaces` with most alive if it has enough rows, else on made-up vectors.

    Args:
        tell: Called with `(done, total)` steps.
    """
    began = time.perf_counter()
    space = max(
        spaces, key=lambda each: (each.reading.seen.live, each.reading.truth.slots), default=None
    )
    if space is not None and space.reading.truth.slots < ENOUGH_ROWS:
        space = None
    if space is not None:
        sample = _sampled(space)
        metric = space.space.metric
        known = space.reading.graph
        coded = [each.codes for each in space.reading.truth.segments if each.codes is not None]
    else:
        sample, metric, known = made_up(max(_CODED_ROWS), _DIMENSIONS), "cosine", None
        coded = []
    found: dict[str, float] = {}
    steps: list[Callable[[], dict[str, float]]] = [partial(_scans, sample)]
    for kind in _KINDS:
        ready = [each for each in coded if each.name == kind]
        largest = max(ready, key=lambda each: each.rows, default=None)
        steps.append(partial(_codes, sample, metric, kind, largest))
    steps.append(partial(_bounds, sample, metric))
    steps.append(partial(_graph, sample, metric, None if known is None else known.live))
    for number, step in enumerate(steps):
        tell(number, len(steps))
        found |= step()
    tell(len(steps), len(steps))
    names = {field.name for field in fields(Costs)}
    usable = {name: cost for name, cost in found.items() if name in names and 0 < cost < 1e12}
    efforts = {} if known is None else known.efforts.few
    return Tuned(
        costs=replace(Costs(), **usable),
        measured=tuple(field.name for field in fields(Costs) if field.name in usable),
        namespace=None if space is None else space.space.namespace,
        model=None if space is None else space.space.model,
        dimensions=sample.shape[1],
        rows=len(sample) if space is None else space.reading.truth.slots,
        seconds=time.perf_counter() - began,
        effort=min((e for r, e in efforts.items() if r >= _RECALL), default=40),
    )


def made_up(rows: int, dimensions: int) -> Matrix:
    """Vectors that vary along few directions and a little along all, as those of texts do."""
    chance = np.random.default_rng(7)
    directions = chance.standard_normal((24, dimensions)) / 5
    found = chance.standard_normal((rows, 24)) @ directions
    found += 0.3 * chance.standard_normal((rows, dimensions))
    return found.astype(np.float32)


# What is measured


def _sampled(space: VectorSpace) -> Matrix:
    """Vectors spread evenly over the space."""
    slots = space.reading.truth.slots
    chosen = np.linspace(0, slots - 1, min(slots, max(_CODED_ROWS))).astype(np.int64)
    while True:
        try:
            found: Matrix = space.reading.truth.take(chosen)
            return found
        except Unusable:
            space.heal()


def _scans(sample: Matrix) -> dict[str, float]:
    """Rows compared one after the other: those that lie together, near and far, and others."""
    dimensions = sample.shape[1]
    limit = Costs().far_bytes
    rows = max(_GATHERED_ROWS, int(min(4 * limit, _MOST_BYTES) / (4 * dimensions)))
    truth = Truth(
        dimensions, (), np.resize(sample, (rows, dimensions)), np.ones(rows),
        np.ones(rows, dtype=np.float32),
    )  # fmt: skip
    near_rows = max(1, int(limit / 4 / (4 * dimensions)))
    chance = np.random.default_rng(7)
    some = np.sort(chance.choice(rows, min(_GATHERED_ROWS, near_rows), replace=False))
    many = np.sort(chance.choice(rows, rows // 2, replace=False))
    queries = sample[: _FEWEST_RUNS * 3]
    ways: tuple[tuple[str, int, Callable[[Vector], object]], ...] = (
        ("scan", near_rows, lambda query: truth.products(query, 0, near_rows)),
        ("scan_far", rows, lambda query: truth.products(query, 0, rows)),
        ("gather", len(some), lambda query: truth.gathered(query, some)),
        ("gather_far", len(many), lambda query: truth.gathered(query, many)),
    )
    found = {name: _median(call, queries) / (count * dimensions) for name, count, call in ways}
    return found | {"packed": found["scan"]}


def _codes(sample: Matrix, metric: str, kind: str, largest: Codes | None) -> dict[str, float]:
    """A call and a value of codes, from how long few rows take and many.

    Args:
        largest: Codes there are already; of many rows where there are.
    """
    calls, values, found = [], [], {}
    try:
        for rows in _CODED_ROWS:
            made = largest if rows == max(_CODED_ROWS) else None
            if made is None or made.rows < len(sample[:rows]):
                made = codes.encode(sample[:rows], metric, kind=kind)
            if made is None:
                return {}
            count = made.candidates(_K, _RECALL) or 4 * _K
            calls.append(partial(_asked, made.nearest, count, None))
            values.append(made.toil(made.rows) * sample.shape[1])
            if kind == "turbo4" and rows == max(_CODED_ROWS):
                lists = [partial(_asked, made.nearest, count, None) for count in _LISTED]
                places = [places_of(count, made.rows) for count in _LISTED]
                found = _timed(places, lists, sample[:50], "turbo4_place", "")
        return found | _timed(values, calls, sample[:50], kind, f"{kind}_call")
    except CodesUnavailable:
        return {}


def _bounds(sample: Matrix, metric: str) -> dict[str, float]:
    """A call and a value of bounds for exact scans."""
    if not Int8Bounds.available():
        return {}
    calls, values = [], []
    try:
        for rows in _CODED_ROWS:
            made = Int8Bounds.made(sample[:rows], metric)
            if made is None:
                return {}
            calls.append(partial(_asked, made.contenders, _K, None))
            values.append(len(sample[:rows]) * sample.shape[1])
        return _timed(values, calls, sample[:50], "bounds", "bounds_call")
    except CodesUnavailable:
        return {}


def _graph(sample: Matrix, metric: str, live: LiveGraph | None) -> dict[str, float]:
    """A call and a step of the graph, from how long several efforts take."""
    if not graph.available():
        return {}
    small = live is None
    try:
        if live is None:
            live = LiveGraph(sample.shape[1], metric)
            some = sample[:_FED_ROWS]
            live.feed(np.arange(len(some)), some, chunk=len(some))
        calls = [partial(_asked, live.nearest, _K, effort) for effort in _EFFORTS]
        found = _timed(_EFFORTS, calls, sample[:200], "graph_step", "graph_call")
        if small:
            # It lies in the processor's cache, where a graph that pays does not: its steps
            # are those of one that comes from memory.
            found |= _timed(_EFFORTS, calls, sample[:200], "graph_step", "", cold=True)
    except GraphUnavailable:
        return {}
    return found


# How


def _asked(nearest: Callable[..., object], second: object, third: object, query: Vector) -> object:
    return nearest(query, second, third)


def _median(call: Callable[[Vector], object], queries: Matrix, *, cold: bool = False) -> float:
    """How many nanoseconds a call takes, with one query after the other.

    It is the least of some medians: whatever else goes on only adds to a call.

    Args:
        cold: Put other things into the processor's cache before each.
    """
    call(queries[0])
    other = np.zeros(_COLD_BYTES if cold else 0, dtype=np.uint8)
    medians: list[float] = []
    for _ in range(_BLOCKS):
        taken: list[int] = []
        ends = time.perf_counter() + _SECONDS / _BLOCKS
        while len(taken) < _FEWEST_RUNS or (time.perf_counter() < ends and len(taken) < _MOST_RUNS):
            query = queries[len(taken) % len(queries)]
            other += 1
            start = time.perf_counter_ns()
            call(query)
            taken.append(time.perf_counter_ns() - start)
        medians.append(float(np.median(taken)))
    return min(medians)


def _timed(
    sizes: Sequence[float],
    calls: Sequence[Callable[[Vector], object]],
    queries: Matrix,
    each: str,
    once: str,
    *,
    cold: bool = False,
) -> dict[str, float]:
    """What one more costs, and what is paid for none, by calls of several sizes."""
    for _ in range(_TRIES):
        found = _line(sizes, [_median(call, queries, cold=cold) for call in calls], each, once)
        if found:  # else something beside us took the time
            return found
    return {}


def _line(sizes: Sequence[float], times: Sequence[float], each: str, once: str) -> dict[str, float]:
    """The line through times: what one more costs, and what is paid for none."""
    if len(set(sizes)) < 2:
        return {}
    slope, start = np.polyfit(np.asarray(sizes, dtype=np.float64), np.asarray(times), 1)
    if slope <= 0:
        return {}
    # No call is for nothing, whatever the line says.
    return {each: float(slope), once: max(float(start), 0.05 * min(times))}


def _examples(dimensions: int, effort: int) -> Iterator[tuple[str, Situation]]:
    """Situations in which costs decide."""
    kind = codes.best_kind()
    for name, visible, stored, is_now in (
        ("all of 2,000 rows, now", 2_000, 2_000, True),
        ("all of 20,000 rows, now", 20_000, 20_000, True),
        ("all of 200,000 rows, now", 200_000, 200_000, True),
        ("100 of 20,000 rows", 100, 20_000, False),
        ("1,000 of 200,000 rows", 1_000, 200_000, False),
        ("5,000 of 200,000 rows", 5_000, 200_000, False),
        ("half of 200,000 rows", 100_000, 200_000, False),
    ):
        in_graph = is_now and visible > _FED_ROWS and graph.available()
        yield (
            name,
            Situation(
                visible=visible, stored=stored, span=stored, dimensions=dimensions,
                codes=kind, coded=stored if stored > _FED_ROWS else 0, uncoded=0, bounded=0,
                effort=effort if in_graph else None, unfed=0,
            ),
        )  # fmt: skip
