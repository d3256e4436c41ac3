"""Kill a writing process at random moments, again and again; nothing acknowledged is lost.

    python -m tests.crash --kills 300 [--seed N] [--keep]

Each round forks one or two writers into the same directory. Their threads put, put
batches, commit transactions, embed, erase and move between tiers, and tell every write over
a pipe once it has returned. Then they are killed, wherever they are: opening, committing,
closing. The database is opened again, and must hold every acknowledged write, every batch
whole or not at all, and verify. Then the next round writes on. A new directory is begun
every ten kills, with the other durability.

Each write is marked with a run of its own and says in its message how many entries it
has, so a half batch shows wherever it is.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import koru_delta
from koru_delta.storage import COLD, DEEP, WARM

ROUNDS_PER_DIRECTORY = 10
LONGEST_LIFE_SECONDS = 0.12


@dataclass
class Campaign:
    """What has been done and what has gone wrong."""

    kills: int = 0
    acknowledged: int = 0
    entries: int = 0
    unacknowledged: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass
class _Directory:
    path: Path
    durability: str
    runs: dict[str, int] = field(default_factory=dict)  # acknowledged: run -> entries
    seen: int = 0
    found: Counter[str] = field(default_factory=Counter)
    sizes: dict[str, int] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)


def campaign(kills: int, *, seed: int, say: Callable[[str], None], keep: bool = False) -> Campaign:
    """Kill `kills` writers; the result's `problems` are empty if all went well."""
    chance = random.Random(seed)
    done = Campaign()
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="koru-crash-"))
    number = 0
    try:
        while done.kills < kills:
            number += 1
            where = _Directory(folder / str(number), ("full", "relaxed")[number % 2])
            for _ in range(ROUNDS_PER_DIRECTORY):
                if done.kills < kills and not done.problems:
                    _round(where, chance, done, kills)
            if done.problems:
                say(f"the directory is {where.path}")
                keep = True
                break
            rate = done.kills / (time.monotonic() - started)
            say(
                f"{done.kills}/{kills} kills, {rate:.1f}/s; {done.acknowledged:,} writes "
                f"acknowledged, {done.entries:,} entries checked, {len(done.problems)} problems"
            )
            if not keep:
                shutil.rmtree(where.path, ignore_errors=True)
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    return done


def _round(where: _Directory, chance: random.Random, done: Campaign, kills: int) -> None:
    writers = min(chance.choice([1, 1, 2]), kills - done.kills)
    pipes: dict[int, int] = {}  # reading end -> process
    for _ in range(writers):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _write_until_killed(where, writing, chance.random())
        os.close(writing)
        pipes[reading] = child
    told = {pipe: bytearray() for pipe in pipes}
    now = time.monotonic()
    # As often in the first moments, while files are made and opened, as later.
    lives = {
        pipe: now + LONGEST_LIFE_SECONDS * chance.random() ** chance.choice([1, 3])
        for pipe in pipes
    }
    alive = dict(lives)
    while alive:
        wait = max(0.0, min(alive.values()) - time.monotonic())
        for pipe in select.select(list(alive), [], [], wait)[0]:
            told[pipe] += os.read(pipe, 1 << 16)
        for pipe, until in list(alive.items()):
            if time.monotonic() >= until:
                os.kill(pipes[pipe], signal.SIGKILL)
                _, status = os.waitpid(pipes[pipe], 0)
                if status != signal.SIGKILL:
                    done.problems.append(f"a writer ended by itself, with status {status}")
                del alive[pipe]
                done.kills += 1
    for pipe, lines in told.items():
        while more := os.read(pipe, 1 << 16):
            lines += more
        os.close(pipe)
        for line in lines.decode().splitlines(keepends=True):
            if line.startswith("!"):
                done.problems.append(f"a writer failed: {line}")
            elif line.endswith("\n"):
                run, count = json.loads(line)
                where.runs[run] = count
                done.acknowledged += count > 0
    _check(where, done)


def _check(where: _Directory, done: Campaign) -> None:
    try:
        with koru_delta.open(where.path, durability=where.durability) as db:  # type: ignore[arg-type]
            for version in db.changes(where.seen):
                where.seen = version.seq
                run = version.run or ""
                where.found[run] += 1
                where.sizes[run] = int(version.message or 0)
                if where.times.setdefault(run, version.tx_time) != version.tx_time:
                    done.problems.append(f"{run} is spread over several commits")
                done.entries += 1
            for run, count in where.found.items():
                if count != where.sizes[run]:
                    done.problems.append(f"half a batch: {count} of {where.sizes[run]} of {run}")
            for run, count in where.runs.items():
                if where.found[run] != count:
                    done.problems.append(f"lost: {run}, of {count} entries, was acknowledged")
            report = db.verify()
            done.problems += [f"verify: {problem}" for problem in report.problems]
            if where.runs and not report.compared:  # the very first may not have come to it
                done.problems.append("verify could not compare the end of the log")
            # It goes on: the next write is there, for search too.
            run = f"check{done.kills}"
            db.embed("vectors", "last", [1.0, float(done.kills)], run=run, message="1")
            hits = db.similar("vectors", [1.0, float(done.kills)], k=1000)
            assert "last" in [hit.key for hit in hits]
            where.runs[run] = 1
    except (koru_delta.KoruDeltaError, AssertionError) as error:
        done.problems.append(f"after kill {done.kills}: {type(error).__name__}: {error}")


def _write_until_killed(where: _Directory, pipe: int, chance: float) -> None:
    """The child: writes from several threads, closing and opening now and then."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        random.seed(chance)
        mine = f"{os.getpid()}.{time.monotonic_ns()}"
        for turn in range(1_000_000):
            with koru_delta.open(where.path, durability=where.durability) as db:  # type: ignore[arg-type]
                until = time.monotonic() + random.uniform(0.005, 0.06)
                works = [_puts, _batches, _transactions, _embeds, _erases, _moves]
                threads = [
                    threading.Thread(
                        target=_tell, args=(work, db, f"{mine}.{turn}.{work.__name__}", until, pipe)
                    )
                    for work in works
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
    except BaseException:  # noqa: BLE001 - nothing may unwind into the parent's frames
        os.write(pipe, b"!" + repr(traceback.format_exc()).encode()[-2000:] + b"\n")
        time.sleep(60)
    finally:
        os._exit(1)


def _tell(
    work: Callable[[koru_delta.Database, str, int], int],
    db: koru_delta.Database,
    name: str,
    until: float,
    pipe: int,
) -> None:
    """Write until it is time to close; tell each write once it has returned."""
    number = 0
    try:
        while time.monotonic() < until:
            number += 1
            run = f"{name}.{number}"
            count = work(db, run, number)
            os.write(pipe, json.dumps([run, count]).encode() + b"\n")
    except BaseException:  # noqa: BLE001 - the parent reports it
        os.write(pipe, b"!" + repr(traceback.format_exc()).encode()[-2000:] + b"\n")


def _puts(db: koru_delta.Database, run: str, number: int) -> int:
    size = random.choice([10, 10, 10, 6_000, 200_000])
    value = {"run": run, "filler": random.choice("abc") * size}
    db.put("puts", f"k{number % 7}", value, run=run, message="1")
    return 1


def _batches(db: koru_delta.Database, run: str, number: int) -> int:
    count = random.randint(2, 60)
    items = [("batches", f"i{n}", {"run": run, "n": n}) for n in range(count)]
    db.put_many(items, run=run, message=str(count))
    return count


def _transactions(db: koru_delta.Database, run: str, number: int) -> int:
    with db.transaction(run=run, message="4") as tx:
        first = tx.put("tx", "a", {"run": run})
        tx.put("tx", "b", {"run": run}, causes=[first])
        tx.delete("tx", "a")
        tx.embed("vectors", f"t{number % 5}", [1.0, float(number)], {"run": run})
    return 4


def _embeds(db: koru_delta.Database, run: str, number: int) -> int:
    items = [(f"e{n}", [float(number), n + 1.0], {"run": run}) for n in range(3)]
    db.embed_many("vectors", items, run=run, message="3")
    return 3


def _erases(db: koru_delta.Database, run: str, number: int) -> int:
    """Write something; the next time erase it."""
    key = f"{run.rsplit('.', 1)[0]}.{number // 2}"
    if number % 2 == 0 or number == 1:
        size = random.choice([10, 6_000, 100_000])
        db.put("gone", key, {"filler": random.choice("abc") * size}, run=run, message="1")
        return 1
    db.erase(("gone", key), run=run, message="2")
    return 2


def _moves(db: koru_delta.Database, _run: str, _number: int) -> int:
    """Move some of what is there to another tier; it is no entry."""
    last = db.stats()["seq"]
    seqs = random.sample(range(1, last + 1), min(last, random.choice([5, 50, 500])))
    db._log.engine.move(seqs, random.choice([WARM, COLD, DEEP]))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--keep", action="store_true", help="leave the directories behind")
    given = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if given.seed is None else given.seed
    started = time.monotonic()
    done = campaign(
        given.kills, seed=seed, keep=given.keep, say=lambda line: print(line, flush=True)
    )
    for problem in done.problems:
        print(f"PROBLEM: {problem}")
    lost = sum(problem.startswith("lost") for problem in done.problems)
    half = sum(problem.startswith("half") for problem in done.problems)
    seconds = time.monotonic() - started
    print(
        f"{done.kills} kills in {seconds:.0f} s ({done.kills / seconds:.1f}/s), seed {seed}: "
        f"{done.acknowledged:,} acknowledged writes, {lost} lost, {half} half batches, "
        f"{len(done.problems) - lost - half} other problems"
    )
    return 1 if done.problems else 0


if __name__ == "__main__":
    sys.exit(main())
