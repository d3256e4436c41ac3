"""Kill processes that remember and forget; no fact is left beside what it ended.

    python -m tests.remembering --kills 24 [--seed N]

Each round forks two processes into the same directory, which say what is true, claim it apart
and forget, until they are killed, wherever they are. Whoever opens the directory next must find
that after each fact that was said no claim stood beside it, and that each ends where the next
begins.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import koru_delta
from koru_delta import AgentMemory

KEYS, SOURCES = "ab", "xyz"


def campaign(kills: int, *, seed: int) -> tuple[int, list[str]]:
    """Kill so many processes; how often they said that they remembered, and what went wrong."""
    chance, told = random.Random(seed), 0
    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="koru-remembering-") as folder:
        path = Path(folder) / "db"
        for _ in range(kills // 2):
            begun = [_begun(path, chance.random()) for _ in range(2)]
            time.sleep(0.1 + 0.3 * chance.random())
            for child, pipe in begun:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                with os.fdopen(pipe, "rb") as said:
                    lines = said.read()
                told += lines.count(b".")
                if lines.strip(b"."):
                    problems.append(lines.decode())
        problems += _wrong(path)
    return told, problems


def _begun(path: Path, seed: float) -> tuple[int, int]:
    """A process that remembers until it is killed: its id, and where it says so."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    try:
        with koru_delta.open(path, durability="relaxed") as db:
            _live(db.workspace("w").ai_context(), random.Random(seed), writing)
    except BaseException:  # noqa: BLE001 - nothing may unwind into the parent's frames
        os.write(writing, traceback.format_exc().replace(".", " ").encode())
        time.sleep(60)
    finally:
        os._exit(1)


def _live(memory: AgentMemory, chance: random.Random, pipe: int) -> None:
    number = 0
    while True:
        number += 1
        key, kind = chance.choice(KEYS), chance.random()
        if kind < 0.4:
            memory.remember_fact(key, number, source=chance.choice(SOURCES), supersede=False)
        elif kind < 0.8:
            memory.remember_fact(key, number)
        elif kind < 0.9:
            year = datetime(chance.randrange(2010, 2026), 1, 1, tzinfo=UTC)
            memory.remember_fact(key, number, valid_from=year)
        else:
            some = memory.memories(limit=3)
            memory.forget([chance.choice(some)] if some else [])
        os.write(pipe, b".")


def _wrong(path: Path) -> list[str]:
    found: list[str] = []
    with koru_delta.open(path, read_only=True) as db:
        found += [f"verify: {problem}" for problem in db.verify().problems]
        memory = db.workspace("w").ai_context()
        ends = {
            seq: each.seq for each in db.commits() for seq in range(each.first_seq, each.seq + 1)
        }
        for version in db.changes():
            if version.operation == "put" and version.key.startswith("fact:"):
                beside = [
                    pair for pair in memory.contradictions(as_of=ends[version.seq])
                    if version.id in (each.version.id for each in pair.memories)
                ]  # fmt: skip
                if beside:
                    found.append(f"{version!r} stands beside {beside}")
        for key in KEYS:
            facts = [each for each in memory.timeline(key) if each.id.startswith("fact:")]
            for earlier, later in pairwise(facts):
                if earlier.valid_to is None or earlier.valid_to > later.valid_from:
                    found.append(f"{earlier} and {later} are true at once")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if given.seed is None else given.seed
    started = time.monotonic()
    told, problems = campaign(given.kills, seed=seed)
    for problem in problems:
        print(f"PROBLEM: {problem}")
    print(
        f"{given.kills} kills in {time.monotonic() - started:.0f} s, seed {seed}: remembered "
        f"{told:,} times, {len(problems)} problems"
    )
    return 1 if problems or not told else 0


if __name__ == "__main__":
    sys.exit(main())
