"""Vectors under a budget of memory: what it costs, what it saves, what it still finds.

Made-up vectors with the low dimension of text. Memory is that of a process of its own, above
what it takes with the database open and nothing searched yet. Times are by turns in one
process, of two copies of the database.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import koru_delta
from benchmarks.measure import Row, Target, at_least, at_most, by_turns, ratio_at_most, sized
from benchmarks.vectors.sets import VectorSet, made_up, unpacked

_ROWS, _DIMENSIONS = 200_000, 384
_BUDGET = 64 * 2**20
_COLD = 24 * 2**20
_BATCH = 10_000


def run(folder: Path, scale: float) -> Iterator[Row]:
    rows = sized(_ROWS, scale, 2_000)
    queries = sized(600, scale, 24)
    these = unpacked(made_up(str(folder), rows, _DIMENSIONS, rows, queries))
    whole, near = folder / "whole", folder / "near"
    vectors = these.vectors()
    with koru_delta.open(whole, durability="relaxed") as db:
        for start in range(0, rows, _BATCH):
            some = range(start, min(rows, start + _BATCH))
            db.embed_many("v", [(str(n), vectors[n]) for n in some])
        db.build_index()
    shutil.copytree(whole, near)
    budgets = [max(1, int(budget * rows / _ROWS)) for budget in (_BUDGET, _COLD)]
    what = f"{rows:,} x {_DIMENSIONS} under {{}} MiB"
    for budget in budgets:
        name = what.format(round(budget / 2**20, 1))
        with koru_delta.open(whole) as all_hot, koru_delta.open(near, vector_memory=budget) as db:
            for each in (all_hot, db):
                each.similar("v", these.asked()[0])
                each.build_index()
            yield from _searched(these, all_hot, db, name, warm=budget == budgets[0])
            [space] = db.stats(spaces=True)["vector_spaces"]
        held = {"hot": _DIMENSIONS * 4.0, "warm": space["per_row"]["codes"], "cold": 0.0}
        tiers = [(tier, count) for tier, count in space["tiers"].items() if count]
        for tier, count in tiers:
            if held[tier]:
                yield Row(f"{name}: memory of a {tier} vector ({count:,})", held[tier], "bytes")
        memory = _memory(near, these, budget)
        limits = (at_most(1.25 * budget / 2**20),) if scale == 1 else ()
        yield Row(f"{name}: memory above idle", memory, "MiB", targets=limits)
    name = f"{rows:,} x {_DIMENSIONS}, no budget"
    yield Row(f"{name}: memory above idle", _memory(whole, these, None), "MiB")


def _searched(
    these: VectorSet,
    all_hot: koru_delta.Database,
    db: koru_delta.Database,
    name: str,
    *,
    warm: bool,
) -> Iterator[Row]:
    asked, tenth = these.asked(), these.tenth_best()
    found: list[koru_delta.Matches] = []
    ours, theirs = by_turns(
        [
            lambda n: found.append(db.similar("v", asked[n])),
            lambda n: all_hot.similar("v", asked[n]),
        ],
        rounds=len(asked) - 8,
        warm_up=8,
        stretch=8,
    )
    recall = np.mean([
        sum(match.score >= least - 1e-6 for match in matches) / 10
        for matches, least in zip(found, tenth, strict=True)
    ])  # fmt: skip
    limits: tuple[Target, ...] = (at_least(0.99),) if warm else ()
    yield Row(f"{name}: recall@10", float(recall), "", targets=limits)
    limits = (ratio_at_most(3),) if warm else ()
    yield Row(f"{name}: search", ours / 1e6, "ms", theirs / 1e6, "all of it hot", limits)


def _memory(place: Path, these: VectorSet, budget: int | None) -> float:
    """MiB that a new process takes when it has searched a while."""
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.tiers", str(place), str(these.folder), str(budget or 0)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(told.stdout)


def _resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def _held(db: koru_delta.Database, query: object) -> tuple[object, ...]:
    db.similar("v", query)  # type: ignore[arg-type]
    [space] = db.stats(spaces=True)["vector_spaces"]
    return space["bytes"], space["tiers"], space["in_graph"]


def _measured(place: Path, folder: Path, budget: int) -> None:
    asked = np.load(folder / "queries.npy")
    # What every process that searches loads once, and is no memory of this database.
    with koru_delta.open(None) as small:
        small.embed_many("v", [(str(n), row) for n, row in enumerate(asked[:600])])
        small.build_index()
        small.similar("v", asked[0])
    with koru_delta.open(place, vector_memory=budget or None) as db:
        idle = _resident()
        before = None
        while (now := _held(db, asked[0])) != before:  # what is made beside searches is ready
            before = now
            time.sleep(2)
        for query in asked[:300]:
            db.similar("v", query)
        print((_resident() - idle) / 1024)


if __name__ == "__main__":
    _measured(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
