"""Part `past`: earlier moments and filters, by every plan, on both sets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import koru_delta
from benchmarks.vectors import stock
from benchmarks.vectors.apart import FAST
from benchmarks.vectors.bench import Bench, fast_is_installed
from benchmarks.vectors.measuring import blocks, recall, seconds, timed
from benchmarks.vectors.peers.base import K
from benchmarks.vectors.peers.koru import NAMESPACE
from benchmarks.vectors.report import Check, Part, Table, ratio
from benchmarks.vectors.sets import DRAWS, VectorSet, kth_scores, unpacked

PASSING = (50.0, 10.0, 1.0, 0.1)  # percent of the newest versions
LEAST_RECALL = 0.98  # of moments and filters
WANTED = 0.95  # of the newest state, unfiltered
# Versions stored at scale 1: milliseconds a median may take, with the extra `fast` and without.
LIMITS = {40_000: (0.35, 2.0), 200_000: (1.2, 8.0)}


def run(bench: Bench) -> Part:
    part = Part("past", "Earlier moments and filters, half of what is stored is past, k = 10")
    measured: list[tuple[VectorSet, tuple[float, float] | None]] = [
        (bench.made_up(bench.sized(size)), limits)
        for size, limits in bench.some(list(LIMITS.items()))
    ]
    real = bench.real()
    if real is None:
        part.skipped = "the real set, for KORU_DATA names no folder with its texts"
    else:
        measured.insert(0, (real, None))
    for data, limits in measured:
        place, told = stock.history(bench, data)
        for n, (with_what, blocked) in enumerate((("fast", ()), ("numpy alone", FAST))):
            if with_what == "fast" and not fast_is_installed():
                part.tables.append(
                    Table(f"{data.title}; with fast", ("", "missing"), [("fast", "not installed")])
                )
                continue
            own = stock.copied(bench, place, "numpy-alone") if blocked else place
            given: dict[str, Any] = {
                "data": data, "folder": str(own), "moments": told["moments"],
                "warm": bench.warm, "blocked": blocked,
            }  # fmt: skip
            found = bench.run("past", "measure", **given, counted=bench.counted)
            with _codes_are_cheapest(own):
                codes = bench.run("past", "measure", **given, counted=min(100, bench.counted))
            found["codes"] = codes["cases"]
            title = f"{data.title}; {told['stored']:,} versions stored; {with_what}"
            part.tables.append(_table(title, found))
            part.raw[title] = found
            part.checks += _checks(title, found["cases"], limits and limits[n], topics=not blocked)
    return part


def measure(
    data: dict[str, Any], folder: str, moments: dict[str, int], warm: int, counted: int
) -> dict[str, Any]:
    """Every case beside brute force over the rows it may see; run in a process of its own."""
    these = unpacked(data)
    vectors, queries = these.vectors(), these.asked()
    past = stock.History(these.rows - these.rows % 4)
    unused = blocks(len(queries), warm, counted)
    keys = past.keys
    cases = []
    with koru_delta.open(Path(folder, "koru")) as db:
        indexed = seconds(db.build_index)
        for name, kind, visible, options in _cases(these, past, moments):
            newest = np.full(past.stored // 2, -1)
            newest[keys[visible]] = visible
            block = next(unused)
            taken, answers = timed(
                partial(db.similar, NAMESPACE, k=K, **options),
                queries, block,
            )  # fmt: skip
            asked = queries[block.asked(answers)]
            numbers = [[int(newest[int(match.key)]) for match in answer] for answer in answers]
            plans = Counter(answer.plan for answer in answers)
            hits = [len(answer) for answer in answers]
            cases.append(
                {
                    "case": name,
                    "kind": kind,
                    "visible": len(visible),
                    "plans": dict(plans),
                    "approximate": any(answer.approximate for answer in answers),
                    "considered": float(np.median([answer.considered for answer in answers])),
                    "recall": recall(
                        numbers, vectors, asked, kth_scores(vectors[visible], asked), len(visible)
                    ),
                    "fewest": min(hits),
                    "ms": taken.median_us / 1000,
                    "ms_90": taken.ninetieth_us / 1000,
                }
            )
    return {"cases": cases, "index_s": indexed}


_Case = tuple[str, str, npt.NDArray[np.int64], dict[str, Any]]


def _cases(these: VectorSet, past: stock.History, moments: dict[str, int]) -> list[_Case]:
    """Name, kind, the versions that may be found, and what the search is told."""
    found: list[_Case] = []
    for share in stock.SHARES:
        visible = past.alive(past.moment(share))
        found.append((f"as of {share} % alive", "moment", visible, {"as_of": moments[str(share)]}))
    newest = past.alive(past.stored)
    found.append(("now", "now", newest, {}))
    for field, kind in (("draw", "random"), ("topic", "topic")):
        numbers = these.numbers(field)
        for passing in PASSING:
            least = threshold(numbers[newest], passing)
            visible = newest[numbers[newest] >= least]
            passed = 100 * len(visible) / len(newest)
            found.append(
                (
                    f"filter passing {passed:.3g} %, {kind}",
                    "filter",
                    visible,
                    {"filter": {field: {"$gte": int(least)}}},
                )
            )
    return found


def threshold(numbers: npt.NDArray[np.int64], percent: float) -> int:
    """The least number to ask for, so that about `percent` of the rows pass, and some do."""
    values, counts = np.unique(numbers, return_counts=True)
    passing = np.cumsum(counts[::-1])[::-1] * 100 / len(numbers)
    return int(values[np.argmin(np.abs(np.log(passing / percent)))])


@contextmanager
def _codes_are_cheapest(folder: Path) -> Iterator[None]:
    """Tune the database in `folder` so that it scans codes wherever it may."""
    file = folder / "koru" / "index" / "costs.json"
    file.parent.mkdir(exist_ok=True)
    # Rows are fetched for what is on a list, too: not so dear that lists would be.
    dear = {
        "gather": 1e3, "gather_far": 1e3, "packed": 1e9, "scan": 1e9, "scan_far": 1e9,
        "graph_call": 1e11, "bounds_call": 1e11,
    }  # fmt: skip
    file.write_text(json.dumps(dear))
    try:
        yield
    finally:
        file.unlink()


def _table(title: str, found: dict[str, Any]) -> Table:
    table = Table(
        title,
        (
            "case", "rows it may see", "plan", "recall@10", "median, ms", "90th percentile, ms",
            "told to use codes: plan", "recall@10", "median, ms",
        ),
        note=f"The index was brought up to date in {found['index_s']:.2f} s. A filter asks for a "
        f"number of at least so much: drawn evenly below {DRAWS:,}, or the topic of the vector. "
        "The last three columns are the same database with every other plan made dear.",
    )  # fmt: skip
    for case, codes in zip(found["cases"], found["codes"], strict=True):
        table.add(
            case["case"], f"{case['visible']:,}", _plans(case), ratio(case["recall"]), case["ms"],
            case["ms_90"], _plans(codes), ratio(codes["recall"]), codes["ms"],
        )  # fmt: skip
    return table


def _plans(case: dict[str, Any]) -> str:
    plans: dict[str, int] = case["plans"]
    if len(plans) == 1:
        return next(iter(plans))
    return ", ".join(f"{plan} ({times})" for plan, times in plans.items())


def _checks(
    title: str, cases: list[dict[str, Any]], limit_ms: float | None, *, topics: bool
) -> list[Check]:
    """What is asked of all these; of filters by topic no time, unless `topics`."""
    checks = []
    asked = [case for case in cases if case["kind"] != "now"]
    worst = min(asked, key=lambda case: float(case["recall"]))
    checks.append(
        Check(f"least recall ({worst['case']}), {title}", worst["recall"], "", ">=", LEAST_RECALL)
    )
    (now,) = [case for case in cases if case["kind"] == "now"]
    checks.append(Check(f"recall now, unfiltered, {title}", now["recall"], "", ">=", WANTED))
    short = [case for case in cases if case["fewest"] < min(K, case["visible"])]
    checks.append(Check(f"cases with fewer hits than k, {title}", len(short), "", "<=", 0))
    if limit_ms is not None:
        timed = [case for case in asked if topics or case["kind"] != "topic"]
        slowest = max(timed, key=lambda case: float(case["ms"]))
        checks.append(
            Check(
                f"slowest median ({slowest['case']}), {title}", slowest["ms"], "ms", "<=", limit_ms
            )
        )
    return checks
