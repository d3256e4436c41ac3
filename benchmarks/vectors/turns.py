"""Those whose calls take microseconds, in one process and by turns: for part `now`.

A machine that is shared slows down and speeds up; here whatever it does befalls all alike.
"""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from benchmarks.measure import quiet
from benchmarks.vectors.measuring import recall, seconds, times
from benchmarks.vectors.peers.base import K, Peer, Setting, Vectors
from benchmarks.vectors.sets import fields_of, unpacked

QUICK = ("koru", "hnsw", "usearch", "faiss_langchain")
_EFFORTS = (16, 20, 24, 32, 48, 64, 96)
_TARGETS = (0.9, 0.95)
_TURNS, _WARM = 3, 15  # calls that begin a turn and do not count: caches hold another's things


def measure(peers: list[str], data: dict[str, Any], counted: int, folder: str) -> dict[str, Any]:
    """What each is, and a curve of it; run in a process of its own, where `koru` was filled.

    A setting's queries are the same for all subjects, and no subject is asked one twice.
    """
    these = unpacked(data)
    vectors, queries, tenth = these.vectors(), these.asked(), these.tenth_best()
    fields = fields_of(these, texts=False)
    subjects: list[Peer] = []
    filled: list[float] = []
    for peer in peers:
        module = importlib.import_module(f"benchmarks.vectors.peers.{peer}")
        subject = module.Subject(Path(folder) / peer, these.dimensions)
        if peer == "koru":
            subject.reopen()
            filled.append(seconds(subject.settle))
        else:
            filled.append(seconds(partial(subject.fill, vectors, fields)))
        subjects.append(subject)
    sides = [
        _Side(subject, setting, place * counted)
        for peer, subject in zip(peers, subjects, strict=True)
        for place, setting in enumerate(_settings(peer, subject))
    ]
    with quiet():
        for turn in range(_TURNS):
            for side in sides if turn % 2 else reversed(sides):
                side.take(queries, turn * counted // _TURNS, (turn + 1) * counted // _TURNS)
    found: dict[str, Any] = {
        peer: {
            "name": subject.name, "returns": subject.returns, "built_as": subject.built_as,
            "fill_s": fill, "rows": len(vectors), "k": K, "settings": [],
        }
        for peer, subject, fill in zip(peers, subjects, filled, strict=True)
    }  # fmt: skip
    names = {subject.name: peer for peer, subject in zip(peers, subjects, strict=True)}
    for side in sides:
        part = slice(side.start, side.start + counted)
        told = times(side.taken)
        found[names[side.subject.name]]["settings"].append(
            {
                "label": side.setting.label,
                "default": side.setting.default,
                "us": told.median_us,
                "us_90": told.ninetieth_us,
                "counted": told.counted,
                "recall": recall(
                    [side.subject.ids(answer) for answer in side.answers],
                    vectors, queries[part], tenth[part], len(vectors),
                ),
            }
        )  # fmt: skip
    for subject in subjects:
        subject.close()
    return found


class _Side:
    """A subject with one setting, and the queries from `start` on."""

    def __init__(self, subject: Peer, setting: Setting, start: int) -> None:
        self.subject = subject
        self.setting = setting
        self.start = start
        self.taken: list[int] = []
        self.answers: list[Any] = []

    def take(self, queries: Vectors, first: int, end: int) -> None:
        """Ask these of its queries, of which the first few are not counted."""
        search = self.subject.searcher(self.setting)
        for n in range(first, end):
            query = queries[self.start + n]
            begin = perf_counter_ns()
            answer = search(query)
            after = perf_counter_ns()
            self.answers.append(answer)
            if n - first >= min(_WARM, (end - first) // 2):
                self.taken.append(after - begin)


def _settings(peer: str, subject: Peer) -> list[Setting]:
    """Its defaults, and efforts between little and much."""
    if peer == "koru":
        return [Setting(f"recall={target}", {"recall": target}) for target in _TARGETS]
    knob, more = {
        "hnsw": ("ef", {}),
        "usearch": ("expansion_search", {}),
        "faiss_langchain": ("ef", {"kind": "graph"}),
    }[peer]
    usual = [setting for setting in subject.settings() if setting.default]
    tried = [Setting(f"{knob}={effort}", {knob: effort, **more}) for effort in _EFFORTS]
    return usual + [each for each in tried if each.knobs not in [one.knobs for one in usual]]
