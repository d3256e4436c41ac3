"""Part `texts`: real chunks with their text; loading, single inserts, filters, a new process."""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from benchmarks.vectors import stock
from benchmarks.vectors.apart import ApartError
from benchmarks.vectors.bench import Bench, installed
from benchmarks.vectors.measuring import blocks, recall, seconds, timed, times
from benchmarks.vectors.now import PACKAGES, WANTED
from benchmarks.vectors.past import threshold
from benchmarks.vectors.peers import STORES
from benchmarks.vectors.peers.base import Where
from benchmarks.vectors.report import Check, Curve, Part, Table, ratio
from benchmarks.vectors.sets import fields_of, kth_scores, unpacked

PASSING = (61.0, 9.7, 0.95)  # percent of the chunks
_INSERTS = 50
_SECONDS = 300.0
_COMPARED: tuple[tuple[str, str, str, Literal["<=", ">="]], ...] = (
    ("loaded and indexed", "docs_a_second", "docs/s", ">="),
    ("durable insert", "insert_ms", "ms", "<="),
    ("new process to first answer", "first_ms", "ms", "<="),
)


def run(bench: Bench) -> Part:
    part = Part("texts", "Real chunks with their text")
    data = bench.real()
    if data is None:
        part.skipped = "KORU_DATA names no folder with the texts"
        return part
    found: dict[str, dict[str, Any]] = {}
    for peer in bench.among(STORES):
        if not installed(PACKAGES[peer][0]):
            found[peer] = {"missing": f"not installed: {PACKAGES[peer][1]}"}
            continue
        place = bench.place(f"texts/{peer}")
        given: dict[str, Any] = {"peer": peer, "folder": str(place), "data": data}
        try:
            filled: dict[str, float] = {}
            if peer == "koru":
                place, filled = stock.chunks(bench, data)
                given["folder"] = str(place)
            found[peer] = bench.run(
                "texts", "measure", **given, filled=filled.get("fill_s"), warm=bench.warm,
                counted=bench.counted, inserts=sized(bench), seconds=_SECONDS,
            )  # fmt: skip
            opened = [
                bench.run("texts", "first_answer", **given, nth=n)
                for n in range(1 if bench.quick else 3)
            ]
            found[peer] |= opened[
                int(np.argsort([each["first_ms"] for each in opened])[len(opened) // 2])
            ]
        except ApartError as error:
            found[peer] = {"missing": str(error)}
    part.tables = _tables(data.title, found)
    part.checks = _checks(data.title, found)
    for each in found.values():
        points = [(point["recall"], point["us"]) for point in each.get("settings", ())]
        part.curves.append(Curve(data.title, str(each.get("name", "")), points))
    part.raw[data.title] = found
    return part


def sized(bench: Bench) -> int:
    """Single inserts to time."""
    return 5 if bench.quick else _INSERTS


def measure(
    peer: str,
    data: dict[str, Any],
    folder: str,
    filled: float | None,
    warm: int,
    counted: int,
    inserts: int,
) -> dict[str, Any]:
    """Fill, search, filter, insert; run in a process of its own.

    Args:
        filled: Seconds another process took to fill the folder; None fills it here.
    """
    these = unpacked(data)
    vectors, queries, tenth = these.vectors(), these.asked(), these.tenth_best()
    months = these.numbers("month")
    subject = importlib.import_module(f"benchmarks.vectors.peers.{peer}").Subject(
        Path(folder), these.dimensions
    )
    fields = fields_of(these, texts=True)
    if filled is None:
        filled = seconds(lambda: subject.fill(vectors, fields))
    else:
        subject.reopen()
        subject.settle()
    unused = blocks(len(queries), warm, counted)
    settings = [s for s in subject.settings() if not (peer == "lance" and "PQ" in s.label)]
    best: dict[str, Any] = {}
    curve: list[dict[str, Any]] = []
    questions = these.are_questions()
    everything = np.ones(len(questions), dtype=np.bool_)
    for setting in settings:
        search = subject.searcher(setting)
        block = next(unused)
        taken, answers = timed(search, queries, block)
        those = block.asked(answers)
        numbers = [subject.ids(answer) for answer in answers]

        def share_of(
            kind: npt.NDArray[np.bool_], numbers: Any = numbers, those: Any = those
        ) -> float:
            chosen = np.flatnonzero(kind[those])
            return recall(
                [numbers[n] for n in chosen], vectors,
                queries[those][chosen], tenth[those][chosen], len(vectors),
            )  # fmt: skip

        share = share_of(everything)
        point = {
            "label": setting.label,
            "recall": share,
            "of_questions": share_of(questions),
            "of_sentences": share_of(~questions),
            "us": taken.median_us,
        }
        if peer == "koru":
            point["label"] += f", {answers[-1].plan}"
        curve.append(point)
        if share >= WANTED and (not best or taken.median_us < best["us"]):
            best = {"setting": setting, "recall": share, "us": taken.median_us}
            if (reading := subject.reader(search)) is not None:
                best["read_us"] = timed(reading, queries, next(unused))[0].median_us
        if share >= 0.99 and not setting.default:
            break
    if not best:
        raise RuntimeError(f"no setting reaches recall {WANTED}")
    filters = []
    for passing in PASSING:
        least = threshold(months, passing)
        visible = np.flatnonzero(months >= least)
        for setting in settings[settings.index(best["setting"]) :]:
            search = subject.searcher(setting, Where("month", least))
            block = next(unused)
            taken, answers = timed(search, queries, block)
            asked = queries[block.asked(answers)]
            case = {
                "passing": 100 * len(visible) / len(vectors),
                "setting": setting.label,
                "recall": recall(
                    [subject.ids(answer) for answer in answers],
                    vectors, asked, kth_scores(vectors[visible], asked), len(visible),
                ),
                "us": taken.median_us,
            }  # fmt: skip
            if case["recall"] >= WANTED:
                break
        if (reading := subject.reader(search)) is not None:
            case["read_us"] = timed(reading, queries, next(unused))[0].median_us
        filters.append(case)
    spans = []
    for n in range(inserts):
        row = {**fields[n], "text": fields[n]["text"] + "."}
        spans.append(
            round(seconds(partial(subject.insert, len(vectors) + n, queries[n], row)) * 1e9)
        )
    subject.close()
    return {
        "name": subject.name,
        "durable": subject.durable,
        "returns": subject.returns,
        "fill_s": filled,
        "docs_a_second": len(vectors) / filled,
        "insert_ms": times(spans).median_us / 1000,
        "filters": filters,
        **best,
        "setting": best["setting"].label,
        "settings": curve,
        "disk_mb": sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file()) / 1e6,
    }


def first_answer(peer: str, data: dict[str, Any], folder: str, nth: int) -> dict[str, float]:
    """Open what is there and ask once; imports are done before the clock starts."""
    these = unpacked(data)
    query = these.asked()[-1 - nth]
    subject = importlib.import_module(f"benchmarks.vectors.peers.{peer}").Subject(
        Path(folder), these.dimensions
    )

    setting = next(each for each in subject.settings() if peer != "lance" or "SQ" in each.label)

    def ask() -> None:
        subject.reopen()
        search = subject.searcher(setting)
        (subject.reader(search) or search)(query)

    return {"first_ms": seconds(ask) * 1000}


def _tables(title: str, found: dict[str, dict[str, Any]]) -> list[Table]:
    written = Table(
        f"Stores of documents, writing and opening: {title}",
        (
            "subject", "loaded and indexed, docs/s", "durable insert, ms", "made durable by",
            "new process to first answer, ms", "disk, MB",
        ),
        note="Imports come before the clock of the new process; its first answer has the text "
        "read.",
    )  # fmt: skip
    searched = Table(
        f"Stores of documents, searching: {title}",
        (
            "subject", "setting", "unfiltered, us (recall)",
            *(f"passing {passing} %, us (recall)" for passing in PASSING),
        ),
        note="Settings are the quickest that reach recall@10 of 0.95 unfiltered; under a filter, "
        "which asks for chunks first written from a month on, the next that does, if that does "
        "not. Calls return the text; where a call puts that off, `read` has it.",
    )  # fmt: skip
    for name, each in found.items():
        if "missing" in each:
            written.add(name.replace("_", "-"), each["missing"], *[None] * 4)
            searched.add(name.replace("_", "-"), each["missing"], *[None] * 4)
            continue
        written.add(
            each["name"], each["docs_a_second"], each["insert_ms"], each["durable"],
            each["first_ms"], each["disk_mb"],
        )  # fmt: skip
        calls = [_call(case, each["setting"]) for case in each["filters"]]
        searched.add(each["name"], each["setting"], _call(each, each["setting"]), *calls)
    tried = Table(
        f"Every setting tried unfiltered: {title}",
        (
            "subject", "setting", "recall@10", "of XQuAD questions", "of PEP sentences", "call, us",
        ),
    )  # fmt: skip
    for each in found.values():
        for point in each.get("settings", ()):
            tried.add(
                each["name"], point["label"], ratio(point["recall"]),
                ratio(point["of_questions"]), ratio(point["of_sentences"]), point["us"],
            )  # fmt: skip
    return [written, searched, tried]


def _call(case: dict[str, Any], usual: str) -> str:
    read = f", read {case['read_us']:,.0f}" if "read_us" in case else ""
    other = f", {case['setting']}" if case["setting"] != usual else ""
    return f"{case['us']:,.0f}{read} ({ratio(case['recall'])}{other})"


def _checks(title: str, found: dict[str, dict[str, Any]]) -> list[Check]:
    ours = found["koru"]
    if "missing" in ours:
        return [Check(f"measured at all: {ours['missing']}", 0, "", ">=", 1)]
    checks = [
        Check(f"recall passing {case['passing']:.3g} %, {title}", case["recall"], "", ">=", 0.98)
        for case in ours["filters"]
    ]
    for peer, each in found.items():
        if peer == "koru" or "missing" in each:
            continue
        name = each["name"]
        for what, field, unit, sign in _COMPARED:
            checks.append(Check(what, ours[field], unit, sign, each[field], name))
        for mine, theirs in zip(ours["filters"], each["filters"], strict=True):
            what = f"passing {mine['passing']:.3g} %, read (its recall {theirs['recall']:.3f})"
            checks.append(Check(what, mine["read_us"], "us", "<=", theirs["us"], name))
    return checks
