"""Opening a long log: time to the first get, and memory for what was never read.

Each measurement is a process of its own, so that nothing is open or cached; imports are
not counted. The files are in the operating system's cache: they were just written.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter, perf_counter_ns
from typing import Any

import koru_delta
from benchmarks.documents import document
from benchmarks.measure import Row, SkippedError, at_most, sized

SHORT, GETS = 10_000, 1000
_BATCH = 5000
_CACHE_MB = 16.0  # SQLite's page cache, for each connection


def run(folder: Path, scale: float, versions: int = 1_000_000) -> Iterator[Row]:
    if not Path("/proc/self/statm").exists():
        raise SkippedError("memory is read from /proc, which this system lacks")
    counts = {"short": sized(SHORT, scale, 100), "long": sized(versions, scale, 200)}
    start = perf_counter()
    for name, count in counts.items():
        _build(folder / name, count)
    built = perf_counter() - start
    found: dict[str, list[dict[str, float]]] = {name: [] for name in counts}
    for n in range(sized(9, scale, 1)):
        for name, count in counts.items():
            found[name].append(_child(folder / name, count, n))
    first = {name: median(each["first_ms"] for each in found[name]) for name in counts}
    grown = {name: median(each["grown_mb"] for each in found[name]) for name in counts}
    long, short = f"{counts['long']:,}", f"{counts['short']:,}"
    yield Row(
        f"open to the first get, {long} versions", first["long"], "ms",
        first["short"], f"{short} versions", (at_most(50),),
    )  # fmt: skip
    yield Row(
        f"memory of open and {GETS:,} gets, {long} versions", grown["long"], "MB",
        grown["short"], f"{short} versions", (at_most(grown["short"] + _CACHE_MB),),
    )  # fmt: skip
    yield Row("  put_many while building it, relaxed", sum(counts.values()) / built, "puts/s")


def _build(folder: Path, count: int) -> None:
    """`count` versions of about 0.7 KB, five for each key."""
    keys = max(1, count // 5)
    bodies = [document(n, 490) for n in range(500)]
    with koru_delta.open(folder, durability="relaxed") as db:
        for start in range(0, count, _BATCH):
            db.put_many(
                ("docs", f"key-{n % keys}", {**bodies[n % 500], "id": n})
                for n in range(start, min(count, start + _BATCH))
            )


def _child(folder: Path, count: int, seed: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.opening", str(folder), str(count // 5), str(seed)],
        cwd=Path(__file__).parents[1], capture_output=True, check=True, text=True,
    )  # fmt: skip
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def _measure(folder: str, keys: int, seed: int) -> dict[str, float]:
    rng = random.Random(seed)
    wanted = [f"key-{rng.randrange(max(1, keys))}" for _ in range(GETS)]
    before = _resident_mb()
    start = perf_counter_ns()
    db = koru_delta.open(folder)
    db.get("docs", wanted[0])
    first = perf_counter_ns() - start
    for key in wanted:
        db.get("docs", key)
    grown = _resident_mb() - before
    db.close()
    return {"first_ms": first / 1e6, "grown_mb": grown}


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
