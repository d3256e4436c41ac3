"""Part `many`: hundreds of queries at once, beside one after the other."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any

import koru_delta
from benchmarks.vectors import stock
from benchmarks.vectors.bench import Bench
from benchmarks.vectors.measuring import Block, recall, timed
from benchmarks.vectors.peers.base import K
from benchmarks.vectors.peers.koru import NAMESPACE
from benchmarks.vectors.report import Part, Table, ratio
from benchmarks.vectors.sets import kth_scores, unpacked

STORED = (40_000, 200_000)
QUERIES = 500
_SINGLES, _WARM, _BATCHES = 100, 50, 3


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
            table.add(
                case["case"], case["plan"], case["single_us"], case["batch_us"],
                f"{case['batch_us'] / case['single_us']:.2f}",
                ratio(case["recall"]),
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
            start = n * (warm + _SINGLES + _WARM + _BATCHES * queries)
            block = Block(start, start + warm, start + warm + _SINGLES)
            taken, answers = timed(partial(db.similar, NAMESPACE, k=K, **given), asked, block)
            at = block.end + _WARM
            db.similar_many(NAMESPACE, asked[block.end : at], k=K, **given)
            spent: list[float] = []
            found: list[Any] = []
            for _ in range(_BATCHES):
                begin = perf_counter_ns()
                found += db.similar_many(NAMESPACE, asked[at : at + queries], k=K, **given)
                spent.append((perf_counter_ns() - begin) / 1000 / queries)
                at += queries
            batch = asked[at - _BATCHES * queries : at]
            numbers = [[row_of[int(match.key)] for match in answer] for answer in found]
            cases.append(
                {
                    "case": name,
                    "plan": f"{answers[-1].plan}; in the batch {found[-1].plan}",
                    "single_us": taken.median_us,
                    "batch_us": median(spent),
                    "recall": recall(
                        numbers, vectors, batch, kth_scores(vectors[alive], batch), len(alive)
                    ),
                }
            )
    return cases
