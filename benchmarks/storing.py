"""What a real history of texts takes on disk, and how long it takes to put there."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import koru_delta
from benchmarks.histories import of_peps, run_git, write_repository
from benchmarks.measure import Row, SkippedError, at_most, by_turns, sized
from benchmarks.peps import NAMESPACE, Revision, data_file, ingest, read_revisions
from koru_delta.storage import COLD, DEEP, WARM


def run(folder: Path, scale: float) -> Iterator[Row]:
    file = data_file()
    if file is None:
        raise SkippedError("KORU_DATA names no folder with peps/full-text-revisions.jsonl.xz")
    revisions = read_revisions(file)
    revisions = revisions[: sized(len(revisions), scale, 20)]
    bodies = [json.dumps(revision.value, ensure_ascii=False).encode() for revision in revisions]
    raw = sum(map(len, bodies)) / 1e6
    start = perf_counter()
    with koru_delta.open(folder / "storing") as db:
        ingest(db, revisions)
        taken = perf_counter() - start
        ours = _size(folder / "storing")
        read = _read(db, revisions, sized(2000, scale, 10))
        shutil.copytree(folder / "storing", folder / "moving")
    closed = _size(folder / "storing")
    name = f"{len(revisions):,} PEP revisions"
    each = sum(len(gzip.compress(body, 6)) for body in bodies) / 1e6
    whole = len(gzip.compress(b"\n".join(bodies), 6)) / 1e6
    yield Row(f"{name} on disk, open", ours, "MB", raw, "raw JSON")
    yield Row("  closed", closed, "MB", raw, "raw JSON")
    yield Row("  closed", closed, "MB", each, "gzip -6 of each")
    yield Row("  closed", closed, "MB", whole, "gzip -6 of all in one")
    if shutil.which("git") is not None:
        loose, packed = _git(folder / "git", revisions)
        yield Row("  closed", closed, "MB", loose, "git, as fast-import leaves it")
        yield Row("  closed", closed, "MB", packed, "git repack -adf")
    yield Row("  ingest, durable, 200 to a commit", len(revisions) / taken, "revisions/s")
    yield Row("  ingest, all of them", taken, "s")
    yield Row("  get(valid_at=) at a random time", read / 1000, "us")
    yield from _moved(folder / "moving", revisions, sized(1000, scale, 10))


def _moved(folder: Path, revisions: Sequence[Revision], rounds: int) -> Iterator[Row]:
    """The same with all bodies in the files of a tier, and what writers notice of a move."""
    versions = len(revisions)
    with koru_delta.open(folder) as db:
        db.compact()
        engine = db._log.engine
        before = db.stats()["log_bytes"] / versions
        alone, _ = _longest_put(db, partial(sleep, 1.0))
        yield Row("  a version in the log", before, "bytes")
        for tier, name in ((COLD, "cold"), (DEEP, "deep"), (WARM, "back in the log")):
            seqs = [version.seq for version in db.changes() if version.namespace == NAMESPACE]
            start = perf_counter()
            longest, moved = _longest_put(db, partial(engine.move, seqs, tier))
            taken = perf_counter() - start
            if tier != WARM:
                left = db.stats()["log_bytes"] / versions
                each = engine.tier_sizes()[tier].size_bytes / versions
                yield Row(f"  a {name} version, with record", each + left, "bytes",
                          before, "in the log")  # fmt: skip
                yield Row("    without its record", each, "bytes")
                read = _read(db, revisions, rounds)
                yield Row("    a random get(valid_at=)", read / 1e6, "ms")
            yield Row(f"  moved: {name}", versions / taken, "versions/s")
            yield Row("    longest transaction of it", 1000 * moved.longest_seconds, "ms",
                      targets=(at_most(20.0),))  # fmt: skip
            yield Row("    longest put meanwhile", 1000 * longest, "ms",
                      1000 * alone, "with no move, in 1 s")  # fmt: skip


def _longest_put(db: koru_delta.Database, work: Callable[[], Any]) -> tuple[float, Any]:
    """How long the longest of many durable puts takes while something is done."""
    stop, longest = threading.Event(), [0.0]

    def put() -> None:
        for number in count():
            start = perf_counter()
            db.put("busy", f"k{number % 10}", {"n": number})
            longest[0] = max(longest[0], perf_counter() - start)
            if stop.wait(0.002):
                return

    thread = threading.Thread(target=put)
    thread.start()
    try:
        done = work()
    finally:
        stop.set()
        thread.join()
    return longest[0], done


def _read(db: koru_delta.Database, revisions: Sequence[Revision], rounds: int) -> float:
    rng = random.Random(3)
    asked = [rng.choice(revisions) for _ in range(rounds)]
    (taken,) = by_turns(
        (lambda n: db.get(NAMESPACE, asked[n].pep, valid_at=asked[n].time),), rounds
    )
    return taken


def _size(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def _git(folder: Path, revisions: Sequence[Revision]) -> tuple[float, float]:
    """MB of git's objects for the same texts, a commit for each, before and after a repack."""
    write_repository(folder, of_peps(revisions))
    loose = _size(folder / "objects")
    run_git(folder, "repack", "-adfq", "--window=50", "--depth=50")
    return loose, _size(folder / "objects")
