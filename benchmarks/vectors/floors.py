"""Part `floors`: a few short vectors, where every microsecond of a call is overhead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import koru_delta
from benchmarks.measure import by_turns
from benchmarks.vectors.bench import Bench, installed
from benchmarks.vectors.measuring import recall
from benchmarks.vectors.peers.base import K
from benchmarks.vectors.peers.koru import NAMESPACE
from benchmarks.vectors.report import Part, Table, ratio
from benchmarks.vectors.sets import unpacked

SIZES, DIMENSIONS, BATCH = (1000, 5000), 128, 200


def run(bench: Bench) -> Part:
    part = Part("floors", f"Few rows of {DIMENSIONS} numbers: single and batched")
    table = Table(
        f"k = {K}; hnswlib at ef=64, batches of {BATCH}",
        ("rows", "subject", "single, us", "in a batch, us a query", "recall@10"),
    )
    if not installed("hnswlib"):
        table.note = "hnswlib is not installed, so nothing stands beside."
    for size in bench.some(SIZES):
        rows = size // (5 if bench.quick else 1)
        data = bench.made_up(rows, DIMENSIONS, of=max(SIZES))
        found = bench.run(
            "floors", "measure", data=data, folder=str(bench.place(f"floors-{rows}")),
            rounds=min(bench.counted, 200), batch=20 if bench.quick else BATCH,
            beside=installed("hnswlib"), one_thread=False,
        )  # fmt: skip
        for each in found:
            table.add(
                data.title, each["name"], each["single_us"], each["batch_us"], ratio(each["recall"])
            )
        part.raw[data.title] = found
    part.tables.append(table)
    return part


def measure(
    data: dict[str, Any], folder: str, rounds: int, batch: int, beside: bool
) -> list[dict[str, Any]]:
    """By turns, each query once a subject; run in a process of its own."""
    these = unpacked(data)
    vectors, asked, tenth = these.vectors(), these.asked(), these.tenth_best()
    warm, batches = 5, 5
    names = ["KoruDelta"]
    answers: list[list[list[int]]] = [[], []]
    found = []
    with koru_delta.open(Path(folder, "koru")) as db:
        db.embed_many(NAMESPACE, [(str(n), vector) for n, vector in enumerate(vectors)])
        db.build_index()
        kept: list[Any] = []
        singles = [lambda n: kept.append(db.similar(NAMESPACE, asked[n], k=K))]
        first = rounds + warm

        def part(n: int) -> Any:
            start = first + n * batch % (len(asked) - first - batch)
            return asked[start : start + batch]

        many: list[Any] = [lambda n: db.similar_many(NAMESPACE, part(n), k=K)]
        graph: Any = None
        theirs: list[Any] = []
        if beside:
            import hnswlib

            names.append("hnswlib, raw")
            graph = hnswlib.Index("ip", these.dimensions)
            graph.init_index(len(vectors), M=16, ef_construction=200, random_seed=1)
            graph.add_items(vectors, np.arange(len(vectors)))
            graph.set_ef(64)
            singles.append(lambda n: theirs.append(graph.knn_query(asked[n], k=K, num_threads=1)))
            many.append(lambda n: graph.knn_query(part(n), k=K, num_threads=2))
        one = by_turns(singles, rounds, warm_up=warm)
        together = by_turns(many, batches, warm_up=1)
        answers[0] = [[int(match.key) for match in answer] for answer in kept]
        answers[1] = [[int(number) for number in answer[0][0]] for answer in theirs]
    for n, name in enumerate(names):
        found.append(
            {
                "name": name,
                "single_us": one[n] / 1000,
                "batch_us": together[n] / 1000 / batch,
                "recall": recall(
                    answers[n], vectors, asked[: len(answers[n])], tenth[: len(answers[n])],
                    len(vectors),
                ),
            }
        )  # fmt: skip
    return found
