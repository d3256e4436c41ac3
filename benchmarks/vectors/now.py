"""Part `now`: the newest state, unfiltered; ours, the floor, and every peer."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from benchmarks.vectors import turns
from benchmarks.vectors.apart import ApartError
from benchmarks.vectors.bench import Bench, installed
from benchmarks.vectors.measuring import blocks, recall, seconds, timed
from benchmarks.vectors.peers import NAMES
from benchmarks.vectors.peers.base import K
from benchmarks.vectors.report import Check, Curve, Part, Table, ratio
from benchmarks.vectors.sets import VectorSet, fields_of, unpacked

SIZES = (20_000, 100_000)
WANTED = 0.95
_ENOUGH = 0.99  # no more effort is tried beyond it
_SECONDS = 400.0
_FAR_BEHIND = 20  # times our time: whoever takes it among few is not filled with many
# What must import, and what brings it: told without importing any of it.
PACKAGES = {
    "koru": ("koru_delta", "koru-delta"),
    "hnsw": ("hnswlib", "hnswlib"),
    "usearch": ("usearch", "usearch"),
    "faiss_langchain": ("faiss", "faiss-cpu and langchain-community"),
    "zvec": ("zvec", "zvec"),
    "qdrant_edge": ("qdrant_edge", "qdrant-edge-py"),
    "chroma": ("chromadb", "chromadb"),
    "lance": ("lancedb", "lancedb"),
    "milvus_lite": ("pymilvus", "pymilvus[milvus-lite]"),
    "sqlite_vec": ("sqlite_vec", "sqlite-vec"),
}


def run(bench: Bench) -> Part:
    part = Part("now", "The newest state, unfiltered, k = 10")
    behind: dict[str, float] = {}  # by peer: times ours, among the few before
    for size in bench.some(SIZES):
        data = bench.made_up(bench.sized(size))
        found: dict[str, dict[str, Any]] = {}
        for peer in bench.among(NAMES):
            if peer in turns.QUICK and peer != "koru":
                continue  # measured below
            if not installed(PACKAGES[peer][0]):
                found[peer] = {"missing": f"not installed: {PACKAGES[peer][1]}"}
                continue
            if behind.get(peer, 0) > _FAR_BEHIND:
                found[peer] = {"missing": f"left out: {behind[peer]:.0f} x ours among fewer"}
                continue
            try:
                found[peer] = bench.run(
                    "now", "measure", peer=peer, data=data, warm=bench.warm,
                    counted=bench.counted, seconds=_SECONDS,
                    folder=str(bench.place(f"now-{data.rows}/{peer}")),
                )  # fmt: skip
            except ApartError as error:
                found[peer] = {"missing": str(error)}
        together = _together(bench, data, found)
        found = {peer: found[peer] for peer in NAMES if peer in found}
        reached = {peer: reaching(each.get("settings", [])) for peer, each in found.items()}
        ours = reached["koru"]
        if ours is not None:
            behind = {peer: good["us"] / ours["us"] for peer, good in reached.items() if good}
        part.tables += [
            _table(data.title, found), _turns(data.title, together), _settings(data.title, found)
        ]  # fmt: skip
        part.checks += _checks(data.title, found, together)
        part.raw[data.title] = found
        part.raw[f"{data.title}, by turns"] = together
        for each in found.values():
            if "settings" in each:
                points = [(point["recall"], point["us"]) for point in each["settings"]]
                part.curves.append(Curve(data.title, each["name"], points))
    return part


def measure(
    peer: str, data: dict[str, Any], warm: int, counted: int, folder: str
) -> dict[str, Any]:
    """One subject from empty to its whole curve; run in a process of its own."""
    these = unpacked(data)
    vectors, queries, tenth = these.vectors(), these.asked(), these.tenth_best()
    subject = importlib.import_module(f"benchmarks.vectors.peers.{peer}").Subject(
        Path(folder), these.dimensions
    )
    fields = fields_of(these, texts=False)
    filled = seconds(lambda: subject.fill(vectors, fields))
    unused = blocks(len(queries), warm, counted)
    settings = []
    enough: set[str] = set()  # kinds of index that have shown all that is asked of them
    for setting in subject.settings():
        kind = str(setting.knobs.get("index", setting.knobs.get("exact", "")))
        if kind in enough and peer != "koru":  # ours has few, and their plans differ
            continue
        search = subject.searcher(setting)
        block = next(unused)
        taken, answers = timed(search, queries, block)
        share = recall(
            [subject.ids(answer) for answer in answers],
            vectors, queries[block.asked(answers)], tenth[block.asked(answers)], len(vectors),
        )  # fmt: skip
        point = {
            "label": setting.label, "default": setting.default, "recall": share,
            "us": taken.median_us, "us_90": taken.ninetieth_us, "counted": taken.counted,
        }  # fmt: skip
        if peer == "koru":
            point["plan"] = answers[-1].plan
        reading = subject.reader(search)
        if reading is not None:
            point["read_us"] = timed(reading, queries, next(unused))[0].median_us
        settings.append(point)
        if share >= _ENOUGH and not setting.default:
            enough.add(kind)
    subject.close()
    return {
        "name": subject.name,
        "returns": subject.returns,
        "built_as": subject.built_as,
        "fill_s": filled,
        "rows": len(vectors),
        "k": K,
        "settings": settings,
    }


def reaching(settings: list[dict[str, Any]], wanted: float = WANTED) -> dict[str, Any] | None:
    """The quickest setting that has the recall."""
    good = [point for point in settings if point["recall"] >= wanted]
    return min(good, key=lambda point: float(point["us"])) if good else None


def at_recall(settings: list[dict[str, Any]], wanted: float) -> float:
    """Microseconds at a recall: between the two settings around it, along a straight line.

    Below the curve it is its cheapest point, above it the dearest.
    """
    points = sorted((point["recall"], point["us"]) for point in settings)
    below = [point for point in points if point[0] <= wanted]
    above = [point for point in points if point[0] >= wanted]
    if not below or not above:
        return float((above or below[-1:])[0][1])
    (low, cheap), (high, dear) = below[-1], above[0]
    share = 0.0 if high == low else (wanted - low) / (high - low)
    return float(cheap + share * (dear - cheap))


def _table(title: str, found: dict[str, dict[str, Any]]) -> Table:
    table = Table(
        f"Peers at recall@10 of {WANTED} and at their defaults: {title}",
        (
            "subject", "setting", "recall@10", "call, us", "and every hit read, us",
            "default recall", "default call, us", "filled, s", "call returns",
        ),
        note="Filled is all of it, to the end of indexing. A call that puts off reading is "
        "measured with it too; the others have read what they return. Who takes more than "
        f"{_FAR_BEHIND} times as long as KoruDelta among the fewer is not filled with the many.",
    )  # fmt: skip
    for name, each in found.items():
        if "missing" in each:
            table.add(name.replace("_", "-"), each["missing"], *[None] * 7)
            continue
        good = reaching(each["settings"])
        usual = next(point for point in each["settings"] if point["default"])
        table.add(
            each["name"],
            "does not reach it" if good is None else good["label"],
            ratio(good["recall"] if good else None),
            good["us"] if good else None,
            good.get("read_us") if good else None,
            ratio(usual["recall"]),
            usual["us"],
            each["fill_s"],
            each["returns"],
        )
    return table


def _settings(title: str, found: dict[str, dict[str, Any]]) -> Table:
    table = Table(
        f"Every setting tried: {title}",
        ("subject", "setting", "recall@10", "call, us", "90th percentile, us", "queries"),
        note=" ".join(
            f"{each['name']}: {each['built_as']}." for each in found.values() if "built_as" in each
        ),
    )
    for each in found.values():
        for point in each.get("settings", ()):
            label = point["label"] + (f", {point['plan']}" if "plan" in point else "")
            table.add(
                each["name"],
                label,
                ratio(point["recall"]),
                point["us"],
                point["us_90"],
                str(point["counted"]),
            )
    return table


def _together(
    bench: Bench, data: VectorSet, found: dict[str, dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Ours and those that are as quick, in one process and by turns; notes them in `found`."""
    peers = []
    for peer in bench.among(turns.QUICK):
        if installed(PACKAGES[peer][0]):
            peers.append(peer)
        elif peer not in found:
            found[peer] = {"missing": f"not installed: {PACKAGES[peer][1]}"}
    told: dict[str, dict[str, Any]] = bench.run(
        "turns", "measure", peers=peers, data=data, counted=bench.counted,
        folder=str(bench.place(f"now-{data.rows}")), seconds=_SECONDS,
    )  # fmt: skip
    found.update({peer: each for peer, each in told.items() if peer != "koru"})
    return {each["name"]: each["settings"] for each in told.values()}


def _turns(title: str, together: dict[str, list[dict[str, Any]]]) -> Table:
    table = Table(
        f"By turns in one process: {title}",
        ("subject", "setting", "recall@10", "call, us"),
        note="Each is built as in the table above. What is compared below is from here, where "
        "it can be: at another hour, or in another process, the same call may take half as "
        "long or twice.",
    )
    for name, points in together.items():
        for point in points:
            table.add(name, point["label"], ratio(point["recall"]), point["us"])
    return table


def _checks(
    title: str, found: dict[str, dict[str, Any]], together: dict[str, list[dict[str, Any]]]
) -> list[Check]:
    ours = reaching(found["koru"].get("settings", []))
    by_turns = reaching(together.get("KoruDelta", []))
    if ours is None or by_turns is None:
        return [Check(f"recall@10, {title}", 0.0, "", ">=", WANTED)]
    label, us = by_turns["label"], by_turns["us"]
    checks = [Check(f"recall@10 of {label}, {title}", by_turns["recall"], "", ">=", WANTED)]
    for peer, each in found.items():
        if peer == "koru" or "settings" not in each:
            continue
        name = each["name"]
        if peer == "hnsw":
            theirs = at_recall(together[name], by_turns["recall"])
            checks.append(
                Check(
                    f"call, 1.5 x {name} at {by_turns['recall']:.3f} ({theirs:.0f} us) + 15, "
                    f"{title}", us, "us", "<=", 1.5 * theirs + 15,
                )
            )  # fmt: skip
            continue
        beside = name in together
        good = reaching(together[name] if beside else each["settings"])
        if good is not None:
            mine = us if beside else ours["us"]
            checks.append(Check(f"call at {WANTED}, {title}", mine, "us", "<=", good["us"], name))
    return checks
