"""Part `memory`: what a live vector takes of a process's own memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import koru_delta
from benchmarks.vectors import stock
from benchmarks.vectors.apart import FAST
from benchmarks.vectors.bench import Bench, installed
from benchmarks.vectors.measuring import memory
from benchmarks.vectors.peers.base import K
from benchmarks.vectors.peers.koru import NAMESPACE
from benchmarks.vectors.report import Check, Part, Table
from benchmarks.vectors.sets import VectorSet, unpacked

STORED, NEWEST = 200_000, 60_000
_MOST = {"everything that is installed": 3600, "codes, no graph": 1900}  # bytes, of 384 numbers
_KINDS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("everything that is installed", "", ()),
    ("codes, no graph", "turbovec", ("hnswlib",)),
    ("numpy alone", "", FAST),
)


def run(bench: Bench) -> Part:
    part = Part("memory", "A process's own memory for each live vector")
    if not Path("/proc/self/smaps").exists():
        part.skipped = "this system has no /proc/self/smaps"
        return part
    sets: list[tuple[VectorSet, Path, int]] = []
    real = bench.real()
    if real is not None:
        sets.append((real, stock.chunks(bench, real)[0], real.rows))
    newest = bench.made_up(bench.sized(NEWEST))
    sets.append((newest, stock.chunks(bench, newest, texts=False)[0], newest.rows))
    made = bench.made_up(bench.sized(STORED))
    sets.append((made, stock.history(bench, made)[0], made.rows // 2))
    table = Table(
        "after opening, build_index and some searches, now and in the past",
        (
            "set", "with", "live vectors", "own, bytes each", "mapped, bytes each",
            "float32 alone, bytes",
        ),
        note="Own: pages of the process that no file of the database lies behind, changed or not, "
        "less what it had before opening; the index was made by another process. Mapped: resident "
        "pages of the database's files, which the system takes back when it needs them and "
        "processes share.",
    )  # fmt: skip
    for data, place, live in sets:
        for name, needed, blocked in bench.some(_KINDS if data is newest else _KINDS[:1]):
            if needed and not installed(needed):
                table.add(data.title, f"{name}: {needed} is not installed", *[None] * 4)
                continue
            own = stock.copied(bench, place, name.replace(" ", "-")) if blocked else place
            bench.run("memory", "prepare", folder=str(own), blocked=blocked)
            found = bench.run(
                "memory", "measure", data=data, folder=str(own), blocked=blocked,
                searches=bench.counted,
            )  # fmt: skip
            table.add(
                data.title, name, f"{live:,}", found["private"] / live, found["mapped"] / live,
                f"{4 * data.dimensions:,}",
            )  # fmt: skip
            part.raw[f"{data.title}, {name}"] = found
            if data is newest and name in _MOST and not bench.quick:
                part.checks.append(
                    Check(f"own memory with {name}, {data.title}, all newest",
                          found["private"] / live, "bytes", "<=", _MOST[name])
                )  # fmt: skip
    part.tables.append(table)
    return part


def prepare(folder: str) -> None:
    """Make and keep the index, so that making it is no part of what is measured."""
    with koru_delta.open(Path(folder, "koru")) as db:
        db.build_index()


def measure(data: dict[str, Any], folder: str, searches: int) -> dict[str, Any]:
    """Open, index, search, look; run in a process of its own."""
    these = unpacked(data)
    asked = these.asked()[: 2 * searches]
    place = Path(folder, "koru")
    asked.sum()
    before = memory(place)
    with koru_delta.open(place) as db:
        db.build_index()
        commits = db.commits()
        middle = commits[len(commits) // 2]
        for n in range(0, len(asked), 2):
            db.similar(NAMESPACE, asked[n], k=K)
            db.similar(NAMESPACE, asked[n + 1], k=K, as_of=middle)
        after = memory(place)
        told = {
            name: value for name, value in db.stats().items() if name != "path" and _plain(value)
        }
    return {
        "private": after.private - before.private,
        "mapped": after.mapped,
        "stats": told,
    }


def _plain(value: object) -> bool:
    return isinstance(value, (int, float, str, list, dict))
