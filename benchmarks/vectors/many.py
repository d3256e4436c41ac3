"""Part `many`: hundreds of queries at once, beside one after the other."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any

import numpy as np

import koru_delta
from benchmarks.vectors import stock
from benchmarks.vectors.bench import Bench
from benchmarks.vectors.measuring import Block, recall, timed
from benchmarks.vectors.peers.base import K
from benchmarks.vectors.peers.koru import NAMESPACE
from benchmarks.vectors.report import Check, Part, Table, ratio
from benchmarks.vectors.sets import kth_scores, unpacked

STORED = (40_000, 200_000)
QUERIES = 500
_SINGLES, _WARM, _BATCHES = 60, 30, 3


def run(bench: Bench) -> Part:
    queries = 20 if bench.quick else QUERIES
    part = Part("many", f"similar_many of {queries} queries, two threads, beside single calls")
    for stored in bench.some(STORED):
        data = bench.made_up(bench.sized(stored))
        place, told = stock.history(bench, data)
        found = bench.run(
            "many", "measure", data=data, folder=str(place), queries=queries,
            moment=told["moments"]["25"], warm=bench.warm, one_thread=False,
        )  # fmt: skip
        table = Table(
            f"{data.title}; {told['stored']:,} versions stored, half of them past",
            ("case", "plan", "single, us", "in the batch, us a query", "ratio", "recall@10"),
        )
        for case in found:
            share = case["batch_us"] / case["single_us"]
            table.add(
                case["case"], case["plan"], case["single_us"], case["batch_us"], f"{share:.2f}",
                ratio(case["recall"]),
            )  # fmt: skip
            if not bench.quick:
                part.checks.append(
                    Check(f"a query of a batch, by a single one: {case['case']}, {data.title}",
                          share, "", "<=", 0.7)
                )  # fmt: skip
        part.tables.append(table)
        part.raw[data.title] = found
    return part


def measure(
    data: dict[str, Any], folder: str, queries: int, moment: int, warm: int
) -> list[dict[str, Any]]:
    """Singles, then as many others at once; run in a process of its own."""
    these = unpacked(data)
    vectors, asked = these.vectors(), these.asked()
    past = stock.History(these.rows - these.rows % 4)
    keys = past.keys
    cases = []
    with koru_delta.open(Path(folder, "koru")) as db:
        db.build_index()
        options: tuple[tuple[str, dict[str, Any], int], ...] = (
            ("now", {}, past.stored),
            ("as of 25 % alive", {"as_of": moment}, past.moment(25)),
        )
        for n, (name, given, written) in enumerate(options):
            alive = past.alive(written)
            row_of = {int(keys[row]): int(row) for row in alive}
            at = n * (warm + _WARM + _BATCHES * (_SINGLES + queries))
            for query in asked[at : at + warm]:
                db.similar(NAMESPACE, query, k=K, **given)
            at += warm
            db.similar_many(NAMESPACE, asked[at : at + _WARM], k=K, **given)
            at += _WARM
            spent: list[float] = []
            taken: list[float] = []
            found: list[Any] = []
            parts = []
            for _ in range(_BATCHES):  # by turns
                times, answers = timed(
                    partial(db.similar, NAMESPACE, k=K, **given), asked,
                    Block(at, at, at + _SINGLES),
                )  # fmt: skip
                taken.append(times.median_us)
                at += _SINGLES
                parts.append(asked[at : at + queries])
                begin = perf_counter_ns()
                found += db.similar_many(NAMESPACE, parts[-1], k=K, **given)
                spent.append((perf_counter_ns() - begin) / 1000 / queries)
                at += queries
            batch = np.concatenate(parts)
            numbers = [[row_of[int(match.key)] for match in answer] for answer in found]
            cases.append(
                {
                    "case": name,
                    "plan": f"{answers[-1].plan}; in the batch {found[-1].plan}",
                    "single_us": median(taken),
                    "batch_us": median(spent),
                    "recall": recall(
                        numbers, vectors, batch, kth_scores(vectors[alive], batch), len(alive)
                    ),
                }
            )
    return cases
