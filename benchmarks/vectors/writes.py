"""Part `writes`: single and many, durable; and the searches that come right after."""

from __future__ import annotations

import importlib
from pathlib import Path
from statistics import median
from time import perf_counter_ns, sleep
from typing import Any

import koru_delta
from benchmarks.measure import by_turns
from benchmarks.vectors.bench import Bench, installed
from benchmarks.vectors.measuring import seconds
from benchmarks.vectors.peers.base import K
from benchmarks.vectors.peers.koru import NAMESPACE
from benchmarks.vectors.report import Check, Part, Table
from benchmarks.vectors.sets import fields_of, unpacked

MANY, AMONG, SINGLES = 100_000, 20_000, 200


def run(bench: Bench) -> Part:
    many, among = bench.sized(MANY), bench.sized(AMONG)
    part = Part("writes", "Writes, and searches right after them")
    data = bench.made_up(many)
    found = bench.run(
        "writes", "measure", data=data, among=among, singles=10 if bench.quick else SINGLES,
        folder=str(bench.place("writes")),
    )  # fmt: skip
    table = Table(f"durability full, {data.dimensions} numbers", ("what", "measured", "beside"))
    table.add("put of one small value", f"{found['put_ms']:.3f} ms", "")
    times = found["embed_ms"] / found["put_ms"]
    table.add(
        "embed of one, with the same value", f"{found['embed_ms']:.3f} ms", f"{times:.2f} x put"
    )
    table.add(f"steady search among {among:,}", f"{found['steady_us']:.0f} us", "")
    later = found["after_us"] / found["steady_us"]
    elsewhere = found["elsewhere_us"] / found["steady_us"]
    table.add(
        "search right after a put elsewhere", f"{found['elsewhere_us']:.0f} us",
        f"{elsewhere:.2f} x steady: what waiting for the disk does to a processor's cache",
    )  # fmt: skip
    if "raw_us" in found:
        raw = found["raw_elsewhere_us"] / found["raw_us"]
        table.add(
            "hnswlib, raw, right after a put elsewhere", f"{found['raw_elsewhere_us']:.0f} us",
            f"{raw:.2f} x its {found['raw_us']:.0f} us steady",
        )  # fmt: skip
    table.add("search right after a write", f"{found['after_us']:.0f} us", f"{later:.2f} x steady")
    table.add(
        f"embed_many of {many:,} in one commit", f"{many / found['many_s']:,.0f} rows/s",
        f"{found['many_s']:.2f} s",
    )  # fmt: skip
    table.add("first search right after it", f"{found['first_ms']:.1f} ms", found["first_plan"])
    table.add("second", f"{found['second_ms']:.2f} ms", found["second_plan"])
    table.add("build_index after that", f"{found['index_s']:.2f} s", "")
    part.tables.append(table)
    part.raw = {"measured": found}
    if not bench.quick:
        part.checks = [
            Check("embed of one, by put", times, "", "<=", 1.5),
            Check("search right after a write, by the steady one", later, "", "<=", 1.5),
            Check("embed_many", many / found["many_s"], "rows/s", ">=", 20_000),
        ]
    return part


def measure(data: dict[str, Any], among: int, singles: int, folder: str) -> dict[str, Any]:
    """Singles among some, then many at once; run in a process of its own."""
    these = unpacked(data)
    vectors, asked = these.vectors(), these.asked()
    fields = fields_of(these, texts=False)
    found: dict[str, Any] = {}
    with koru_delta.open(Path(folder, "singles")) as db:
        db.embed_many(NAMESPACE, [(str(n), vectors[n], fields[n]) for n in range(among)])
        db.build_index()
        put, embed = by_turns(
            (
                lambda n: db.put("plain", str(n), fields[n % among]),
                lambda n: db.embed(NAMESPACE, f"one-{n}", asked[-1 - n], fields[n % among]),
            ),
            singles,
            warm_up=5,
        )
        found |= {"put_ms": put / 1e6, "embed_ms": embed / 1e6}
        raw = importlib.import_module("hnswlib") if installed("hnswlib") else None
        found |= _after_writes(db, asked, fields, singles, raw and _raw(raw, vectors[:among]))
    with koru_delta.open(Path(folder, "many")) as db:
        rows = [(str(n), vectors[n], fields[n]) for n in range(len(vectors))]
        found["many_s"] = seconds(lambda: db.embed_many(NAMESPACE, rows))
        for n, name in enumerate(("first", "second")):
            begin = perf_counter_ns()
            answer = db.similar(NAMESPACE, asked[3 * n + 2], k=K)
            found[f"{name}_ms"] = (perf_counter_ns() - begin) / 1e6
            found[f"{name}_plan"] = answer.plan
        found["index_s"] = seconds(db.build_index)
    return found


def _raw(library: Any, vectors: Any) -> Any:
    """The floor: a graph alone."""
    index = library.Index(space="cosine", dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors), M=16, ef_construction=200)
    index.add_items(vectors)
    index.set_ef(20)
    index.set_num_threads(1)
    return index


def _after_writes(db: Any, asked: Any, fields: Any, singles: int, raw: Any) -> dict[str, float]:
    """Searches after nothing, after a write elsewhere and after one here, by turns.

    And of a graph alone, if there is one: what the wait for a disk does to any search.
    """
    taken: dict[str, list[int]] = {"steady": [], "elsewhere": [], "after": []}
    if raw is not None:
        taken |= {"raw": [], "raw_elsewhere": []}
    stretch = max(5, singles // 8)
    for start in range(0, singles, stretch):
        for place, (name, times) in enumerate(taken.items()):
            sleep(0.4)  # for what goes on in the background
            for n in range(start, min(singles, start + stretch)):
                if name.endswith("elsewhere"):
                    db.put("plain", f"two-{n}", fields[n])
                elif name == "after":
                    db.embed(NAMESPACE, f"two-{n}", asked[-1 - singles - n], fields[n])
                query = asked[5 * n + place]
                begin = perf_counter_ns()
                if name.startswith("raw"):
                    raw.knn_query(query, K)
                else:
                    db.similar(NAMESPACE, query, k=K)
                times.append(perf_counter_ns() - begin)
    return {f"{name}_us": median(times) / 1000 for name, times in taken.items()}
