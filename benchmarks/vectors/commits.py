"""Part `commits`: one document committed again and again among a few others; LanceDB beside."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import koru_delta
from benchmarks.vectors.apart import ApartError
from benchmarks.vectors.bench import DIMENSIONS, Bench, installed
from benchmarks.vectors.measuring import Block, seconds, timed
from benchmarks.vectors.now import PACKAGES
from benchmarks.vectors.peers.base import K
from benchmarks.vectors.peers.koru import NAMESPACE
from benchmarks.vectors.report import Check, Part, Table
from benchmarks.vectors.sets import unpacked

COMMITS, OTHERS, ENDS = 1000, 500, 100
_COLUMNS = (
    ("first_ms", "commit, first, ms"),
    ("last_ms", "commit, last, ms"),
    ("growth_kb", "disk a commit, KB"),
    ("newest_early_us", "newest, after the first commits, us"),
    ("newest_late_us", "newest, at the end, us"),
    ("past_early_us", "as of an early commit, us"),
    ("past_late_us", "as of a late commit, us"),
)


def run(bench: Bench) -> Part:
    commits = 40 if bench.quick else COMMITS
    ends = min(ENDS, commits // 4)
    part = Part(
        "commits",
        f"{commits:,} commits of one document among {OTHERS:,} others, durable, with 2 KB of text",
    )
    data = bench.made_up(OTHERS + commits)
    found: dict[str, dict[str, Any]] = {}
    for subject in bench.among(("koru", "lance")):
        module, package = PACKAGES[subject]
        if not installed(module):
            found[subject] = {"missing": f"not installed: {package}"}
            continue
        try:
            found[subject] = bench.run(
                "commits", f"measure_{subject}", data=data, commits=commits, ends=ends,
                folder=str(bench.place(f"commits-{subject}")), queries=min(bench.counted, 200),
            )  # fmt: skip
        except ApartError as error:
            found[subject] = {"missing": str(error)}
    table = Table(
        f"k = {K}, {data.dimensions} numbers; first and last are {ends} commits",
        ("subject", *(heading for _, heading in _COLUMNS)),
        note="LanceDB: merge_insert on the key, a table version each, no index (the table is "
        "small); the past is a checkout, made ahead of the searches and not in their time.",
    )
    for subject, each in found.items():
        if "missing" in each:
            table.add(subject, each["missing"], *[None] * (len(_COLUMNS) - 1))
        else:
            table.add(each["name"], *(each[name] for name, _ in _COLUMNS))
    part.tables.append(table)
    part.raw = {"measured": found}
    ours = found["koru"]
    if not bench.quick and "missing" not in ours:
        growth = ours["last_ms"] / ours["first_ms"]
        slower = max(ours["newest_late_us"], ours["past_late_us"]) / ours["newest_early_us"]
        besides = ours["growth_kb"] - 4 * data.dimensions / 1000
        part.checks = [
            Check("a commit at the end, by one at the start", growth, "", "<=", 1.25),
            Check("the slowest query at the end, by the first", slower, "", "<=", 1.5),
            Check("disk a commit, besides the vector", besides, "KB", "<=", 8 * 1.024),
        ]
    return part


def measure_koru(
    data: dict[str, Any], folder: str, commits: int, ends: int, queries: int
) -> dict[str, Any]:
    these = unpacked(data)
    vectors, asked = these.vectors(), these.asked()
    part = Block(0, 5, min(5 + queries, len(asked) // 4))
    place = Path(folder, "koru")
    spans: list[float] = []
    seqs: list[int] = []
    found: dict[str, Any] = {"name": "KoruDelta"}
    with koru_delta.open(place) as db:

        def search(at: int | None = None) -> float:
            nonlocal part
            taken, _ = timed(partial(db.similar, NAMESPACE, k=K, as_of=at), asked, part)
            step = part.end - part.start
            part = Block(part.start + step, part.warm + step, part.end + step)
            return taken.median_us

        db.embed_many(
            NAMESPACE, [(f"other-{n}", vectors[n], {"text": text(n)}) for n in range(OTHERS)]
        )
        before = size(place)
        for n in range(commits):
            vector, value = vectors[OTHERS + n], {"text": text(n)}

            def commit(vector: Any = vector, value: Any = value) -> None:
                seqs.append(db.embed(NAMESPACE, "hot", vector, value).seq)

            spans.append(seconds(commit))
            if n + 1 == ends:
                found["newest_early_us"] = search()
        found["newest_late_us"] = search()
        found["past_early_us"] = search(seqs[ends // 2])
        found["past_late_us"] = search(seqs[-ends // 2])
    return found | _spans(spans, ends) | {"growth_kb": (size(place) - before) / commits / 1e3}


def measure_lance(
    data: dict[str, Any], folder: str, commits: int, ends: int, queries: int
) -> dict[str, Any]:
    import lancedb
    import pyarrow as pa

    these = unpacked(data)
    vectors, asked = these.vectors(), these.asked()
    part = Block(0, 5, min(5 + queries, len(asked) // 4))
    place = Path(folder, "lance")
    names = [f"other-{n}" for n in range(OTHERS)]

    def rows(keys: list[str], first: int) -> Any:
        flat = pa.array(vectors[first : first + len(keys)].reshape(-1), pa.float32())
        return pa.table(
            {
                "key": keys,
                "text": [text(first + n) for n in range(len(keys))],
                "vector": pa.FixedSizeListArray.from_arrays(flat, DIMENSIONS),
            }
        )

    table = lancedb.connect(str(place)).create_table("docs", rows(names, 0))
    columns = ["key", "text", "_distance"]

    def search() -> float:
        nonlocal part
        taken, _ = timed(
            lambda query: (
                table.search(query).distance_type("cosine").select(columns).limit(K).to_list()
            ),
            asked,
            part,
        )
        step = part.end - part.start
        part = Block(part.start + step, part.warm + step, part.end + step)
        return taken.median_us

    before = size(place)
    spans: list[float] = []
    versions: list[int] = []
    found: dict[str, Any] = {"name": "LanceDB"}
    for n in range(commits):
        row = rows(["hot"], OTHERS + n)
        merge = table.merge_insert("key").when_matched_update_all().when_not_matched_insert_all()
        spans.append(seconds(partial(merge.execute, row)))
        versions.append(table.version)
        if n + 1 == ends:
            found["newest_early_us"] = search()
    found["newest_late_us"] = search()
    grown = size(place) - before
    for name, at in (("past_early_us", ends // 2), ("past_late_us", -ends // 2)):
        table.checkout(versions[at])
        found[name] = search()
    return found | _spans(spans, ends) | {"growth_kb": grown / commits / 1e3}


def text(n: int) -> str:
    """About 2 KB that differ from commit to commit."""
    return f"revision {n}: " + " ".join(f"word-{n * 7 % 997 + m}" for m in range(220))


def size(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _spans(spans: list[float], ends: int) -> dict[str, float]:
    return {
        "first_ms": median(spans[:ends]) * 1000,
        "last_ms": median(spans[-ends:]) * 1000,
    }
