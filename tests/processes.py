"""Several processes on one directory: nothing lost, nothing stale, no error.

    python -m tests.processes --seconds 30 [--writers 2] [--readers 2] [--durability full]

Each writer counts up in keys of its own, and in one key that all of them count up with
`if_match`. When a write has returned, the writer notes the number in shared memory. A
reader looks there first and then asks the database: what it gets may be newer than what
was noted, never older. Readers ask the same key again and again, which is answered from
memory, and list, query, count and search in between.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import koru_delta
from koru_delta.errors import ConflictError

_ERRORS_SHOWN = 2000
Durability = Literal["full", "relaxed"]


@dataclass
class Outcome:
    """What came of a run."""

    writes: int
    reads: int
    problems: list[str]


class _Board:
    """Numbers that processes share: one cell each, written by one process each."""

    def __init__(self, cells: int) -> None:
        self._map = mmap.mmap(-1, cells * 8)
        self.cells = memoryview(self._map).cast("Q")


def run(
    seconds: float, *, writers: int = 2, readers: int = 2, durability: Durability = "full"
) -> Outcome:
    """Let processes at one directory for a time; the problems are empty if all went well."""
    folder = Path(tempfile.mkdtemp(prefix="koru-processes-"))
    path = folder / "db"
    # The writers' own numbers, how often each has counted up the shared key, reads, go.
    board = _Board(2 * writers + readers + 1)
    works: list[Callable[[], None]] = []
    for number in range(writers):
        works.append(lambda number=number: _write(path, durability, board, number, writers))  # type: ignore[misc]
    for number in range(readers):
        works.append(lambda number=number: _read(path, board, number, writers))  # type: ignore[misc]
    try:
        with koru_delta.open(path, durability=durability) as db:
            db.put("shared", "sum", 0)
            for number in range(writers):
                _count(db, number, 0)
        processes = [_start(work) for work in works]
        board.cells[-1] = 1
        time.sleep(seconds)
        board.cells[-1] = 2
        problems = [problem for each in processes for problem in _finish(*each)]
        with koru_delta.open(path, durability=durability) as db:
            problems += _loss(db, board, writers)
        written = sum(board.cells[: 2 * writers])
        return Outcome(written, sum(board.cells[2 * writers : -1]), problems)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _count(db: koru_delta.Database, number: int, count: int) -> None:
    """One commit that puts `count` everywhere a reader looks."""
    with db.transaction() as tx:
        tx.put("own", f"w{number}", {"count": count})
        tx.put("own", f"list{number}", [count])
        tx.embed("vectors", f"w{number}", [float(number + 1), float(count)], {"count": count})


def _write(path: Path, durability: Durability, board: _Board, number: int, writers: int) -> None:
    with koru_delta.open(path, durability=durability) as db:
        count = added = 0
        while board.cells[-1] < 2:
            count += 1
            _count(db, number, count)
            board.cells[number] = count
            if db.get("own", f"w{number}") != {"count": count}:
                raise AssertionError(f"writer {number} does not see its own {count}")
            if count % 4 == 0:
                seen = db.history("shared", "sum", reverse=True, limit=1)[0]
                try:
                    db.put("shared", "sum", seen.value + 1, if_match=seen)
                except ConflictError:
                    continue  # the other was quicker
                added += 1
                board.cells[writers + number] = added


def _read(path: Path, board: _Board, number: int, writers: int) -> None:
    chance = random.Random(number)
    reads = 0
    with koru_delta.open(path, read_only=bool(number % 2)) as db:
        while board.cells[-1] < 2:
            reads += 1
            for writer in range(writers):
                for _ in range(chance.randint(1, 30)):
                    noted = board.cells[writer]
                    found = db.get("own", f"w{writer}")["count"]
                    _fresh("get", noted, found)
                    noted = board.cells[writer]
                    _fresh("get of a list", noted, db.get("own", f"list{writer}")[0])
                noted = board.cells[writer]
                rows = db.query("own", {"count": {"$gte": noted}})
                if f"w{writer}" not in [row.key for row in rows]:
                    raise AssertionError(f"query does not find {noted} of writer {writer}")
                noted = board.cells[writer]
                hits = db.similar("vectors", [float(writer + 1), float(noted)], k=writers)
                found = next(hit for hit in hits if hit.key == f"w{writer}").value["count"]
                _fresh("similar", noted, found)
                noted = board.cells[writer]
                at = db.get("own", f"w{writer}", as_of=db.history("own", f"w{writer}")[-1])
                _fresh("history", noted, at["count"])
            noted = sum(board.cells[writers : 2 * writers])
            _fresh("the shared sum", noted, db.get("shared", "sum"))
            if len(db.list_keys("own")) != 2 * writers or db.count("own") != 2 * writers:
                raise AssertionError(f"keys are missing: {db.list_keys('own')}")
            board.cells[2 * writers + number] = reads


def _fresh(what: str, noted: int, found: int) -> None:
    if found < noted:
        raise AssertionError(f"stale {what}: {found}, when {noted} was acknowledged")


def _loss(db: koru_delta.Database, board: _Board, writers: int) -> list[str]:
    """What is missing in the end: every number of every writer, once and in order."""
    problems = []
    for number in range(writers):
        values = [version.value["count"] for version in db.history("own", f"w{number}")]
        if values != list(range(board.cells[number] + 1)):
            problems.append(
                f"writer {number} wrote {board.cells[number]}, the log has {len(values) - 1}"
            )
    added = sum(board.cells[writers : 2 * writers])
    if db.get("shared", "sum") != added or len(db.history("shared", "sum")) != added + 1:
        problems.append(f"the shared sum is {db.get('shared', 'sum')}, {added} were added")
    return problems + list(db.verify().problems)


def _start(work: Callable[[], None]) -> tuple[int, int]:
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return process, reading
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        work()
    except BaseException:  # noqa: BLE001 - the parent reports it
        os.write(writing, traceback.format_exc().encode()[-_ERRORS_SHOWN:])
    finally:
        os._exit(0)


def _finish(process: int, pipe: int) -> list[str]:
    with os.fdopen(pipe, "rb") as lines:
        said = lines.read().decode()
    _, status = os.waitpid(process, 0)
    return [said] if said else [f"a process ended with {status:#x}"] if status else []


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--writers", type=int, default=2)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--durability", choices=["full", "relaxed"], default="full")
    given = parser.parse_args()
    outcome = run(
        given.seconds, writers=given.writers, readers=given.readers, durability=given.durability
    )
    for problem in outcome.problems:
        print(f"PROBLEM: {problem}")
    print(
        f"{given.writers} writers and {given.readers} readers for {given.seconds:g} s: "
        f"{outcome.writes:,} writes, {outcome.reads:,} rounds of reading, "
        f"{len(outcome.problems)} problems"
    )
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
