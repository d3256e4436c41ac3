"""Part `reopen`: a new process; how long to the first answer, and to full speed."""

from __future__ import annotations

import shutil
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any

import koru_delta
from benchmarks.vectors import stock
from benchmarks.vectors.bench import Bench
from benchmarks.vectors.peers.base import K
from benchmarks.vectors.peers.koru import NAMESPACE
from benchmarks.vectors.report import Check, Part, Table
from benchmarks.vectors.sets import VectorSet, unpacked

STORED = 200_000
_STEADY, _WINDOW, _SLACK = 100, 10, 1.25


def run(bench: Bench) -> Part:
    part = Part("reopen", "Opened in a new process; imports are done before the clock starts")
    places: list[tuple[VectorSet, Path, str]] = []
    real = bench.real()
    if real is None:
        part.skipped = "the real chunks, for KORU_DATA names no folder with them"
    else:
        places.append((real, stock.chunks(bench, real)[0], "all newest, with text"))
    made = bench.made_up(bench.sized(STORED))
    places.append((made, stock.history(bench, made)[0], "half of them past"))
    table = Table(
        "first answer is open, one search, and its hits read",
        (
            "set", "index files", "open, ms", "first answer, ms", "its plan",
            "full speed after, s", "steady search, us", "its plan",
        ),
        note=f"At full speed the median of {_WINDOW} searches in a row is within "
        f"{_SLACK - 1:.0%} of the last {_STEADY}; searches follow each other without a pause.",
    )  # fmt: skip
    for data, place, what in places:
        without = stock.copied(bench, place, "without-index")
        shutil.rmtree(without / "koru" / "index", ignore_errors=True)
        for name, folder in (("there", place), ("removed", without)):
            found = bench.run(
                "reopen", "measure", data=data, folder=str(folder),
                most_seconds=1.0 if bench.quick else 25.0,
            )  # fmt: skip
            table.add(
                f"{data.title}, {what}", name, found["open_ms"], found["first_ms"],
                found["first_plan"], found["full_s"], found["steady_us"], found["steady_plan"],
            )  # fmt: skip
            part.raw[f"{data.title}, index {name}"] = found
            if bench.quick:
                continue
            label = f"{data.title}, {what}"
            if name == "there":
                most = 40 if data.rows <= 60_000 else 100
                part.checks += [
                    Check(f"first answer, {label}", found["first_ms"], "ms", "<=", most),
                    Check(f"full speed, {label}", found["full_s"], "s", "<=", 3),
                ]
            else:
                part.checks.append(
                    Check(f"full speed without files, {label}", found["full_s"], "s", "<=", 15)
                )
    part.tables.append(table)
    return part


def measure(data: dict[str, Any], folder: str, most_seconds: float) -> dict[str, Any]:
    """Search on and on from a cold start; run in a process of its own."""
    these = unpacked(data)
    asked = these.asked()
    begin = perf_counter_ns()
    db = koru_delta.open(Path(folder, "koru"))
    opened = perf_counter_ns()
    answer = db.similar(NAMESPACE, asked[0], k=K)
    _ = [(match.key, match.value) for match in answer]
    first = perf_counter_ns()
    ended, taken = [], []
    last = answer
    for query in asked[1:]:
        start = perf_counter_ns()
        last = db.similar(NAMESPACE, query, k=K)
        end = perf_counter_ns()
        ended.append(end)
        taken.append(end - start)
        if end - begin > most_seconds * 1e9:
            break
    steady = median(taken[-_STEADY:])
    full = next(
        (
            n
            for n in range(len(taken) - _WINDOW + 1)
            if median(taken[n : n + _WINDOW]) <= _SLACK * steady
        ),
        len(taken) - 1,
    )
    db.close()
    return {
        "open_ms": (opened - begin) / 1e6,
        "first_ms": (first - begin) / 1e6,
        "first_plan": answer.plan,
        "full_s": (ended[full] - begin) / 1e9,
        "steady_us": steady / 1000,
        "steady_plan": last.plan,
        "searches": len(taken),
    }
