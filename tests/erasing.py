"""Kill processes that erase, sweep and compact; what they said is gone is in no file.

    python -m tests.erasing --kills 120 [--seed N]

Each round forks one or two processes into the same directory. They write texts and vectors
with a word of their own in each, search, make indexes, erase some, sweep, compact, and tell
over a pipe what they have erased once that has returned. Then they are killed, wherever they
are. Whoever opens the directory next must find it whole, with none of these words in any file,
and its indexes must answer what the log holds.
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
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import koru_delta
from koru_delta.search import texts
from tests.indexing import SMALL, lower

DIMENSIONS = 16
LONGEST_LIFE_SECONDS = 0.5
KILLS_PER_DIRECTORY = 20


@dataclass
class Campaign:
    """What has been done and what has gone wrong."""

    kills: int = 0
    erased: int = 0
    problems: list[str] = field(default_factory=list)


def campaign(kills: int, *, seed: int) -> Campaign:
    """Kill `kills` processes; the result's `problems` are empty if all went well."""
    lower(SMALL)
    texts.SAVE_SLOTS = 8  # type: ignore[misc]
    chance, done = random.Random(seed), Campaign()
    while done.kills < kills and not done.problems:
        folder = Path(tempfile.mkdtemp(prefix="koru-erasing-"))
        try:
            path, gone = folder / "db", set[str]()
            with koru_delta.open(path, durability="relaxed") as db:
                db.retain("swept", versions=1)
            until = min(kills, done.kills + KILLS_PER_DIRECTORY)
            while done.kills < until and not done.problems:
                _round(path, chance, done, gone)
                _check(path, chance, done, gone)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return done


def _round(path: Path, chance: random.Random, done: Campaign, gone: set[str]) -> None:
    ends: dict[int, tuple[int, float]] = {}  # by reading end: the process, and when it dies
    said: dict[int, bytes] = {}
    for _ in range(chance.choice([1, 2, 2])):
        reading, writing = os.pipe()
        seed = chance.random()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _work_until_killed(path, writing, seed)
        os.close(writing)
        life = LONGEST_LIFE_SECONDS * chance.random() ** chance.choice([1, 3])
        ends[reading], said[reading] = (child, time.monotonic() + life), b""
    alive = dict(ends)
    while alive:
        wait = max(0.0, min(end for _, end in alive.values()) - time.monotonic())
        for pipe in select.select(list(alive), [], [], wait)[0]:
            said[pipe] += os.read(pipe, 1 << 16)
        for pipe, (child, end) in list(alive.items()):
            if time.monotonic() >= end:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                del alive[pipe]
                done.kills += 1
    for pipe, lines in said.items():
        while more := os.read(pipe, 1 << 16):
            lines += more
        os.close(pipe)
        for line in lines.decode().splitlines(keepends=True):
            if line.startswith("!"):
                done.problems.append(f"a process failed: {line}")
            elif line.endswith("\n"):
                gone.update(json.loads(line))
    done.erased += len(gone)


def _check(path: Path, chance: random.Random, done: Campaign, gone: set[str]) -> None:
    try:
        with koru_delta.open(path, durability="relaxed") as db:
            done.problems += [f"verify: {problem}" for problem in db.verify().problems]
            if not db.erase(db.put("last", "k", done.kills)).is_clean:
                done.problems.append(f"after kill {done.kills}: not clean")
            data = b"".join(file.read_bytes() for file in path.rglob("*") if file.is_file())
            data = data.lower()  # the words of a text index are
            left = [word for word in gone if word.encode() in data]
            if left:
                done.problems.append(f"after kill {done.kills}: {len(left)} words are left: {left}")
            if chance.random() < 0.3:
                db.build_index()
            held = {row.key: row.value["text"] for row in db.query("v")}
            hits = db.similar("v", [1.0] * DIMENSIONS, k=len(held) + 1, exact=True)
            if {hit.key for hit in hits} != held.keys():
                done.problems.append(f"after kill {done.kills}: {len(hits)} of {len(held)} vectors")
            for word in ("word1", "word2"):
                found = {h.key for h in db.search("v", word, mode="text", k=len(held) + 1)}
                if found != {key for key, text in held.items() if word in text.split()}:
                    done.problems.append(f"after kill {done.kills}: {word} finds {sorted(found)}")
    except koru_delta.KoruDeltaError as error:
        done.problems.append(f"after kill {done.kills}: {type(error).__name__}: {error}")


def _work_until_killed(path: Path, pipe: int, seed: float) -> None:
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        chance = random.Random(seed)
        mine, number = f"secret{os.getpid()}x{time.monotonic_ns()}", 0
        while True:
            with koru_delta.open(path, durability="relaxed") as db:
                held: dict[tuple[str, str], list[str]] = {}
                for _ in range(chance.randrange(1, 40)):
                    number += 1
                    _step(db, chance, f"{mine}n{number}q", held, pipe)
    except BaseException:  # noqa: BLE001 - nothing may unwind into the parent's frames
        os.write(pipe, b"!" + repr(traceback.format_exc()).encode()[-2000:] + b"\n")
        time.sleep(60)
    finally:
        os._exit(1)


def _step(
    db: koru_delta.Database,
    chance: random.Random,
    word: str,
    held: dict[tuple[str, str], list[str]],
    pipe: int,
) -> None:
    kind = chance.random()
    vector = [chance.random() for _ in range(DIMENSIONS)]
    if kind < 0.45:
        filler = "z" * chance.choice([10, 300, 3_000])
        value = {"text": f"{word} word{chance.randrange(4)} {filler}"}
        place = (chance.choice(["v", "v", "n"]), f"{os.getpid()}.{chance.randrange(11)}")
        if place[0] == "v":
            db.embed(*place, vector, value)
        else:
            db.put(*place, value)
            db.put("swept", f"k{chance.randrange(4)}", value["text"][-20:])
        held.setdefault(place, []).append(word)
    elif kind < 0.6 and held:
        places = chance.sample(sorted(held), min(len(held), chance.choice([1, 1, 3])))
        db.erase(places)
        words = [each for place in places for each in held.pop(place)]
        os.write(pipe, json.dumps(words).encode() + b"\n")
    elif kind < 0.7:
        db.sweep()
    elif kind < 0.74:
        db.compact()
    elif kind < 0.82:
        db.build_index("v")
    else:
        db.similar("v", vector, k=5)
        db.search(chance.choice("vn"), "word1", mode="text")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=120)
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if given.seed is None else given.seed
    started = time.monotonic()
    done = campaign(given.kills, seed=seed)
    for problem in done.problems:
        print(f"PROBLEM: {problem}")
    print(
        f"{done.kills} kills in {time.monotonic() - started:.0f} s, seed {seed}: {done.erased:,} "
        f"times an erased word was looked for in every file, {len(done.problems)} problems"
    )
    return 1 if done.problems else 0


if __name__ == "__main__":
    sys.exit(main())
