"""Threads and processes search and write at once: no error, nothing lost, nothing unseen.

    python -m tests.searching --seconds 60 [--seed N]

Three processes share a directory, one with eight threads, two with two that close and open
it now and then. Each thread writes keys of its own: what its n-th write does follows from
n, so that every other thread can tell what must be there once n was noted in shared
memory. Indexes are made beside it all, at sizes so low that they are made all the time.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import koru_delta
from tests.indexing import check_approximate, check_exact, lower

DIMENSIONS, KEYS, BEGIN = 16, 40, 700
THREADS = (8, 2, 2)  # of each process
BUSY = {
    "SEAL_ROWS": 150, "SEGMENT_ROWS": 4000, "GRAPH_ROWS": 300, "FEED_ROWS": 20, "BULK_ROWS": 200,
    "SAVE_ENTRIES": 150, "PAUSE_SECONDS": 0.0,
}  # fmt: skip
# By these, codes cost about as much as a graph, and whatever is exact far more.
COSTS = {
    "gather": 1e3, "gather_far": 1e3, "packed": 1e3, "scan": 1e3, "scan_far": 1e3, "turbo4": 0.02,
    "turbo4_call": 1.0, "signs_call": 1.0, "graph_call": 1.0, "graph_step": 10.0,
}  # fmt: skip
MISSED_MOST = 0.02  # of the approximate searches by a vector that is there


@dataclass
class Outcome:
    """What came of a run."""

    writes: int
    searches: int
    missed: int  # by approximate searches
    by_graph: int
    by_codes: int
    problems: list[str]


class _Board:
    """Numbers that processes share: of each thread its writes, searches, misses, and by what."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, (5 * sum(THREADS) + 1) * 8)
        self._cells = memoryview(self._map).cast("Q")

    def get(self, thread: int, what: int = 0) -> int:
        return self._cells[1 + 5 * thread + what]

    def put(self, thread: int, number: int, what: int = 0) -> None:
        self._cells[1 + 5 * thread + what] = number

    def sum(self, what: int) -> int:
        return sum(self.get(thread, what) for thread in range(sum(THREADS)))

    @property
    def over(self) -> bool:
        return bool(self._cells[0])

    def end(self) -> None:
        self._cells[0] = 1


@functools.lru_cache(maxsize=20_000)
def _vector(thread: int, number: int) -> np.ndarray:
    return np.random.default_rng([thread, number]).standard_normal(DIMENSIONS, dtype=np.float32)


def _write_of(thread: int, number: int) -> dict[str, np.ndarray | None]:
    """What the `number`-th write of a thread does: vectors by key, None to delete it."""
    key = f"t{thread}-{number * 7 % KEYS:02}"
    kind = number % 9
    if kind == 4:
        return {key: None}
    if kind == 5:  # back again, with a vector that was there
        return {key: _vector(thread, number % 50)}
    if kind == 6:
        return {
            f"t{thread}-{(number + n) % KEYS:02}": _vector(thread, number + n) for n in range(9)
        }
    if kind == 7:  # a value without a vector
        return {f"{key}": np.empty(0, dtype=np.float32)}
    return {key: _vector(thread, number)}


def _held(thread: int, writes: int) -> dict[str, np.ndarray]:
    """What a thread's keys hold after so many writes."""
    held: dict[str, np.ndarray] = {}
    for number in range(1, writes + 1):
        _apply(held, _write_of(thread, number))
    return held


def _apply(held: dict[str, np.ndarray], write: dict[str, np.ndarray | None]) -> None:
    for key, vector in write.items():
        if vector is None or not len(vector):
            held.pop(key, None)
        else:
            held[key] = vector


def run(seconds: float, *, seed: int) -> Outcome:
    """Let them at one directory for a time; the problems are empty if all went well."""
    lower(BUSY)
    folder = Path(tempfile.mkdtemp(prefix="koru-searching-"))
    path = folder / "db"
    board = _Board()
    try:
        numbers = np.random.default_rng(seed)
        begin = numbers.standard_normal((BEGIN, DIMENSIONS), dtype=np.float32)
        with koru_delta.open(path, durability="relaxed") as db:
            items = [(f"begin{n:03}", vector, {"by": -1}) for n, vector in enumerate(begin)]
            db.embed_many("v", items)
            db.build_index()
        (path / "index" / "costs.json").write_text(json.dumps(COSTS))
        works = []
        for process, threads in enumerate(THREADS):
            first = sum(THREADS[:process])
            mine = range(first, first + threads)
            works.append(_start(functools.partial(_process, path, board, mine, seed)))
        time.sleep(seconds)
        board.end()
        problems = [problem for each in works for problem in _finish(*each)]
        problems += _loss(path, board)
        return Outcome(*(board.sum(what) for what in range(5)), problems)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _process(path: Path, board: _Board, mine: range, seed: int) -> None:
    problems: list[str] = []
    # Nothing that runs beside may fail silently.
    threading.excepthook = lambda given: problems.append(
        "".join(traceback.format_exception(given.exc_type, given.exc_value, given.exc_traceback))
    )
    told = logging.Handler(logging.WARNING)
    told.emit = lambda record: problems.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("koru_delta").addHandler(told)
    stays = len(mine) > 2
    while not board.over and not problems:
        until = time.monotonic() + (1e9 if stays else 1.5)
        with koru_delta.open(path, durability="relaxed") as db:
            threads = [
                threading.Thread(target=_work, args=(db, board, number, seed, until, problems))
                for number in mine
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    if problems:
        raise AssertionError("\n".join(problems[:3]))


def _work(
    db: koru_delta.Database, board: _Board, me: int, seed: int, until: float, problems: list[str]
) -> None:
    worker = _Worker(db, board, me, random.Random(f"{seed}/{me}/{board.get(me)}"))
    while not board.over and not problems and time.monotonic() < until:
        worker.write()
        chance = worker.chance.random()
        worker.own(exact=chance < 0.5)
        worker.other()
        if chance < 0.3:
            worker.filtered()
        if 0.2 < chance < 0.4:
            worker.past()
        if chance > 0.97 and me % 4 == 0:
            db.build_index()
        board.put(me, board.get(me, 1) + 4, 1)


class _Worker:
    def __init__(
        self, db: koru_delta.Database, board: _Board, me: int, chance: random.Random
    ) -> None:
        self.db, self.board, self.me, self.chance = db, board, me, chance
        self.writes = board.get(me)
        self.held = _held(me, self.writes)
        self.kept: list[tuple[koru_delta.Version, np.ndarray, list[tuple[str, float]]]] = []

    def write(self) -> None:
        number = self.writes + 1
        write = _write_of(self.me, number)
        value = {"by": self.me, "n": number}
        (key, vector), *more = write.items()
        if more:
            self.db.embed_many("v", [(k, v, value) for k, v in write.items()])
        elif vector is None:
            self.db.delete_many("v", [key])
        elif not len(vector):
            self.db.put("v", key, value)
        else:
            self.db.embed("v", key, vector, value)
        _apply(self.held, write)
        self.writes = number
        self.board.put(self.me, number)

    def own(self, *, exact: bool) -> None:
        """What this thread has just written, or at any time before."""
        if not self.held:
            return
        for key in (*_write_of(self.me, self.writes), self.chance.choice(sorted(self.held))):
            if key in self.held:
                self._find(self.me, key, self.held[key], exact=exact)

    def other(self) -> None:
        """What another thread, in another process perhaps, has noted that it wrote."""
        thread = self.chance.randrange(sum(THREADS))
        noted = self.board.get(thread)
        if not noted or thread == self.me:
            return
        for key, vector in _write_of(thread, noted).items():
            if vector is None:
                found = self.db.similar("v", np.ones(DIMENSIONS), k=10**6)
                missing = key not in {match.key for match in found}
            elif not len(vector):
                continue
            else:
                missing = self._missing(key, vector, self.db.similar("v", vector, k=3, exact=True))
            if (vector is None) == missing:
                continue
            later = range(noted + 1, self.board.get(thread) + 2)
            if not any(key in _write_of(thread, number) for number in later):
                raise AssertionError(f"write {noted} of thread {thread} is not seen: {key}")

    def _find(self, thread: int, key: str, vector: np.ndarray, *, exact: bool) -> None:
        found = self.db.similar("v", vector, k=3, exact=exact, recall=0.98)
        assert len(found) == len({match.key for match in found}) == 3
        pairs = [(match.key, match.score) for match in found]
        assert pairs == sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
        missing = self._missing(key, vector, found)
        if not found.approximate:
            assert not missing, f"{key} of thread {thread} is not found by {found.plan}"
        else:
            way = 3 if found.plan == "graph" else 4
            self.board.put(self.me, self.board.get(self.me, 2) + missing, 2)
            self.board.put(self.me, self.board.get(self.me, way) + 1, way)

    @staticmethod
    def _missing(key: str, vector: np.ndarray, found: koru_delta.Matches) -> bool:
        """Not among the best, which may be several keys with this vector."""
        return (key, 1.0) not in [(match.key, match.score) for match in found] and not (
            len(found) == 3 and found[-1].score == 1.0
        )

    def filtered(self) -> None:
        """All keys of this thread, and no others: nobody else writes them."""
        if not self.held:
            return
        query, where = _vector(self.me, self.chance.randrange(50)), {"by": self.me}
        whole = self.db.similar("v", query, k=10**6, filter=where, exact=True)
        assert {match.key for match in whole} == self.held.keys()
        wide = query.astype(np.float64)
        for match in whole:
            vector = self.held[match.key].astype(np.float64)
            score = float(vector @ wide / np.linalg.norm(vector) / np.linalg.norm(wide))
            assert abs(match.score - score) < 1e-9
        check_approximate(self.db.similar("v", query, k=5, filter=where), whole, 5)
        for found in self.db.similar_many("v", [query, query], k=7, filter=where):
            check_approximate(found, whole, 7)

    def past(self) -> None:
        """What was found as of a moment is found there again."""
        if self.kept:
            version, query, before = self.chance.choice(self.kept)
            found = self.db.similar("v", query, k=5, as_of=version, exact=True)
            assert [(match.key, match.score) for match in found] == before
            assert len(self.db.similar("v", query, k=5, as_of=version)) == len(before)
        if len(self.kept) < 5:
            version = self.db.put("other", str(self.me), 1)
            query = _vector(self.me, self.chance.randrange(50))
            found = self.db.similar("v", query, k=5, as_of=version, exact=True)
            before = [(match.key, match.score) for match in found]
            self.kept.append((version, query, before))


def _loss(path: Path, board: _Board) -> list[str]:
    """What is missing or too much in the end."""
    problems = []
    with koru_delta.open(path, durability="relaxed") as db:
        found = check_exact(db, "v", "cosine", np.ones(DIMENSIONS, dtype=np.float32))
        keys = {match.key for match in found}
        wanted = {f"begin{n:03}" for n in range(BEGIN)}
        for thread in range(sum(THREADS)):
            held = _held(thread, board.get(thread))
            wanted |= held.keys()
            for key, vector in held.items():
                (stored,) = db.vectors(db.version("v", key)).values()
                if not (stored == vector).all():
                    problems.append(f"{key} holds another vector than was written last")
        if keys != wanted:
            problems.append(f"lost: {wanted - keys}, too much: {keys - wanted}")
        for query in np.eye(DIMENSIONS, dtype=np.float32)[:4]:
            whole = db.similar("v", query, k=10**6, exact=True)
            check_approximate(db.similar("v", query, k=10), whole, 10)
        problems += list(db.verify().problems)
    missed, tried = board.sum(2), board.sum(3) + board.sum(4)
    if missed > MISSED_MOST * tried + 2:
        problems.append(f"{missed} of {tried} approximate searches missed a vector that is there")
    return problems


def _start(work: Callable[[], Any]) -> tuple[int, int]:
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return process, reading
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        work()
    except BaseException:  # noqa: BLE001 - the parent reports it
        os.write(writing, traceback.format_exc().encode()[-4000:])
    finally:
        os._exit(0)


def _finish(process: int, pipe: int) -> list[str]:
    with os.fdopen(pipe, "rb") as lines:
        said = lines.read().decode()
    _, status = os.waitpid(process, 0)
    return [said] if said else [f"a process ended with {status:#x}"] if status else []


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if given.seed is None else given.seed
    outcome = run(given.seconds, seed=seed)
    for problem in outcome.problems:
        print(f"PROBLEM: {problem}")
    print(
        f"{sum(THREADS)} threads of {len(THREADS)} processes for {given.seconds:g} s, seed {seed}: "
        f"{outcome.writes:,} writes, {outcome.searches:,} searches; {outcome.missed} of "
        f"{outcome.by_graph:,} by graph and {outcome.by_codes:,} by codes missed a vector that is "
        f"there, {len(outcome.problems)} problems"
    )
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
