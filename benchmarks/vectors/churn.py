"""Part `churn`: one key rewritten thousands of times; what is found around it, now and then."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import koru_delta
from benchmarks.vectors.bench import Bench
from benchmarks.vectors.measuring import Block, recall, timed
from benchmarks.vectors.peers.base import K, Vectors
from benchmarks.vectors.peers.koru import NAMESPACE
from benchmarks.vectors.report import Check, Part, Table, ratio
from benchmarks.vectors.sets import kth_scores, unpacked

OTHERS, REWRITES = 20_000, 5_000
MOMENTS = (1.0, 0.9, 0.5, 0.1)  # shares of the rewrites that had been made
_AROUND = 0.25  # length of the step from the hot place, which has length 1
_BATCH = 250


def run(bench: Bench) -> Part:
    rewrites = bench.sized(REWRITES)
    data = bench.made_up(bench.sized(OTHERS))
    part = Part("churn", f"One key rewritten {rewrites:,} times among {data.rows:,} others")
    found = bench.run(
        "churn", "measure", data=data, rewrites=rewrites,
        folder=str(bench.place("churn")), queries=bench.counted,
    )  # fmt: skip
    table = Table(
        f"{data.title}; queries around the rewritten key",
        ("moment", "plan", "recall@10", "the key itself found", "median, us"),
        note="The rewrites are all near one place, and so are the queries; of the rewritten key "
        "one version is alive at any moment.",
    )
    for case in found["cases"]:
        table.add(
            case["moment"], ", ".join(case["plans"]), ratio(case["recall"]),
            ratio(case["itself"]), case["us"],
        )  # fmt: skip
        part.checks.append(
            Check(f"recall around it, {case['moment']}", case["recall"], "", ">=", 0.99)
        )
    part.tables.append(table)
    part.raw = {"measured": found}
    return part


def measure(data: dict[str, Any], folder: str, rewrites: int, queries: int) -> dict[str, Any]:
    """Write it all, then ask around the key; run in a process of its own."""
    these = unpacked(data)
    others = these.vectors()
    hot = others[0]
    versions, asked = _near(hot, rewrites, seed=6), _near(hot, (queries + 10) * 4, seed=7)
    seqs = []
    cases = []
    with koru_delta.open(Path(folder, "koru"), durability="relaxed") as db:
        db.embed_many(NAMESPACE, [(str(n + 1), vector) for n, vector in enumerate(others)])
        for start in range(0, rewrites, _BATCH):
            with db.transaction() as tx:
                for vector in versions[start : start + _BATCH]:
                    tx.embed(NAMESPACE, "0", vector)
            seqs.append(tx.versions[-1].seq)
            db.similar(NAMESPACE, asked[0], k=K)  # reads what was written, as a user's would
        db.build_index()
        for n, share in enumerate(MOMENTS):
            done = max(0, round(share * len(seqs)) - 1)
            alive = min((done + 1) * _BATCH, rewrites) - 1
            at = None if share == 1.0 else seqs[done]
            visible = np.concatenate([versions[alive : alive + 1], others])  # row is the key
            start = n * (queries + 10)
            block = Block(start, start + 10, start + 10 + queries)
            taken, answers = timed(partial(db.similar, NAMESPACE, k=K, as_of=at), asked, block)
            now = asked[block.asked(answers)]
            numbers = [[int(match.key) for match in answer] for answer in answers]
            least = kth_scores(visible, now)
            expected = [
                bool(visible[0] @ query >= score) for query, score in zip(now, least, strict=True)
            ]
            seen = [0 in row for row, wanted in zip(numbers, expected, strict=True) if wanted]
            cases.append(
                {
                    "moment": "now" if at is None else f"after {share:.0%} of the rewrites",
                    "plans": sorted({answer.plan for answer in answers}),
                    "recall": recall(numbers, visible, now, least, len(visible)),
                    "itself": sum(seen) / len(seen) if seen else 1.0,
                    "us": taken.median_us,
                }
            )
    return {"cases": cases}


def _near(place: Vectors, count: int, seed: int) -> Vectors:
    steps = np.random.default_rng(seed).standard_normal((count, len(place)))
    steps *= _AROUND / np.linalg.norm(steps, axis=1, keepdims=True)
    moved: Vectors = (place + steps).astype(np.float32)
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    return moved
