"""Databases of ours that several parts ask: filled once in a run, and what a plain truth says.

A history stores every key twice: first all keys one after the other, then each again in an
order of no meaning, with another vector. So half of what is stored is past. Version `n` is
the `n`-th written; its vector and fields are row `n` of the set.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import koru_delta
from benchmarks.vectors.bench import Bench
from benchmarks.vectors.measuring import seconds
from benchmarks.vectors.peers.koru import NAMESPACE, Subject
from benchmarks.vectors.sets import VectorSet, fields_of, unpacked

SHARES = (50, 25, 10, 1)  # percent of the stored versions that a moment sees
_BATCH = 5000


@dataclass(frozen=True, slots=True)
class History:
    """What was written when; no database takes part."""

    stored: int

    @property
    def keys(self) -> npt.NDArray[np.int64]:
        """The key of each version."""
        half = self.stored // 2
        again = np.random.default_rng(5).permutation(half)
        return np.concatenate([np.arange(half), again])

    def moment(self, share: int) -> int:
        """How many versions were written when `share` percent of all stored were alive."""
        if share == 50:
            return self.stored // 4 * 3  # half of the keys are rewritten
        return self.stored * share // 100

    def alive(self, written: int) -> npt.NDArray[np.int64]:
        """The versions that are the newest of their keys after so many were written."""
        newest = np.full(self.stored // 2, -1)
        newest[self.keys[:written]] = np.arange(written)
        found: npt.NDArray[np.int64] = np.sort(newest[newest >= 0])
        return found


def history(bench: Bench, data: VectorSet) -> tuple[Path, dict[str, Any]]:
    """A database with the whole set written as a `History`, and what filling it gave.

    `moments` has the position of each share's moment, `fill_s` the seconds it took.
    """
    place = bench.place(f"history-{data.name.replace(' ', '-')}-{data.rows}")
    told = place / "told.json"
    if not told.exists():
        found = bench.run("stock", "fill_history", data=data, folder=str(place), seconds=400.0)
        told.write_text(json.dumps(found))
    read: dict[str, Any] = json.loads(told.read_text())
    return place, read


def fill_history(data: dict[str, Any], folder: str) -> dict[str, Any]:
    """Write a `History` and index it; run in a process of its own."""
    these = unpacked(data)
    past = History(these.rows - these.rows % 4)
    vectors, keys = these.vectors(), past.keys
    fields = fields_of(these, texts=False)
    wanted = {past.moment(share): share for share in SHARES}
    cuts = sorted({*range(0, past.stored, _BATCH), *wanted, past.stored})
    moments: dict[str, int] = {}
    with koru_delta.open(Path(folder, "koru"), durability="relaxed") as db:

        def write() -> None:
            for start, stop in pairwise(cuts):
                versions = db.embed_many(
                    NAMESPACE,
                    [(str(keys[n]), vectors[n], fields[n]) for n in range(start, stop)],
                    metric="cosine",
                )
                if stop in wanted:
                    moments[str(wanted[stop])] = versions[-1].seq

        written = seconds(write)
        indexed = seconds(db.build_index)
    return {"moments": moments, "fill_s": written, "index_s": indexed, "stored": past.stored}


def copied(bench: Bench, place: Path, name: str) -> Path:
    """Another copy of a database, to be opened with other libraries: they keep other files."""
    other = bench.place(f"{place.name}-{name}")
    if not (other / "koru").exists():
        shutil.copytree(place / "koru", other / "koru")
    return other


def chunks(bench: Bench, data: VectorSet, *, texts: bool = True) -> tuple[Path, dict[str, float]]:
    """A database with a set, all of it newest; of real chunks with their texts."""
    place = bench.place(f"{'chunks' if texts else 'newest'}-{data.rows}")
    told = place / "told.json"
    if not told.exists():
        found = bench.run("stock", "fill_chunks", data=data, folder=str(place), texts=texts)
        told.write_text(json.dumps(found))
    read: dict[str, float] = json.loads(told.read_text())
    return place, read


def fill_chunks(data: dict[str, Any], folder: str, texts: bool) -> dict[str, float]:
    """Write the chunks and index them; run in a process of its own."""
    these = unpacked(data)
    vectors, fields = these.vectors(), fields_of(these, texts=texts)
    subject = Subject(Path(folder), these.dimensions)
    filled = seconds(lambda: subject.fill(vectors, fields))
    subject.close()
    return {"fill_s": filled}
