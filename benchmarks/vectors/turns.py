"""Those whose calls take microseconds, in one process and by turns: for part `now`.

A machine that is shared slows down and speeds up; here whatever it does befalls all alike.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import by_turns
from benchmarks.vectors.measuring import recall
from benchmarks.vectors.peers.base import Peer, Setting
from benchmarks.vectors.sets import fields_of, unpacked

QUICK = ("koru", "hnsw", "usearch", "faiss_langchain")
_EFFORTS = (16, 20, 24, 32, 48, 64, 96)
_TARGETS = (0.9, 0.95)
_STRETCH = 25  # calls before it is the next one's turn


def measure(peers: list[str], data: dict[str, Any], counted: int, folder: str) -> dict[str, Any]:
    """A short curve of each; run in a process of its own, where `koru` was filled before.

    A setting's queries are the same for all subjects, and no subject is asked one twice.
    """
    these = unpacked(data)
    vectors, queries, tenth = these.vectors(), these.asked(), these.tenth_best()
    fields = fields_of(these, texts=False)
    subjects: list[Peer] = []
    for peer in peers:
        module = importlib.import_module(f"benchmarks.vectors.peers.{peer}")
        subject = module.Subject(Path(folder) / peer, these.dimensions)
        if peer == "koru":
            subject.reopen()
            subject.settle()
        else:
            subject.fill(vectors, fields)
        subjects.append(subject)
    sides: list[Callable[[int], object]] = []
    points: list[dict[str, Any]] = []
    answers: list[list[Any]] = []
    for which, subject in enumerate(subjects):
        for place, setting in enumerate(_settings(peers[which])):
            answers.append([])
            sides.append(_side(subject, setting, queries, place * counted, answers[-1]))
            points.append({"peer": peers[which], "label": setting.label, "place": place})
    warm_up = min(_STRETCH, counted // 4)
    times = by_turns(sides, counted - warm_up, warm_up=warm_up, stretch=_STRETCH)
    found: dict[str, Any] = {subject.name: [] for subject in subjects}
    for point, nanoseconds, given in zip(points, times, answers, strict=True):
        subject = subjects[peers.index(point["peer"])]
        part = slice(point["place"] * counted, point["place"] * counted + len(given))
        found[subject.name].append(
            {
                "label": point["label"],
                "us": nanoseconds / 1000,
                "recall": recall(
                    [subject.ids(answer) for answer in given],
                    vectors, queries[part], tenth[part], len(vectors),
                ),
            }
        )  # fmt: skip
    for subject in subjects:
        subject.close()
    return found


def _settings(peer: str) -> list[Setting]:
    if peer == "koru":
        return [Setting(f"recall={target}", {"recall": target}) for target in _TARGETS]
    knob, more = {
        "hnsw": ("ef", {}),
        "usearch": ("expansion_search", {}),
        "faiss_langchain": ("ef", {"kind": "graph"}),
    }[peer]
    return [Setting(f"{knob}={effort}", {knob: effort, **more}) for effort in _EFFORTS]


def _side(
    subject: Peer, setting: Setting, queries: Any, start: int, kept: list[Any]
) -> Callable[[int], object]:
    search: list[Any] = []

    def call(n: int) -> None:
        if n % _STRETCH == 0:  # others of the same subject set its knob meanwhile
            search[:] = [subject.searcher(setting)]
        kept.append(search[0](queries[start + n]))

    return call
