"""Processes that run jobs on one directory are killed while others write and read: nothing is lost.

`KORU_LONG_SECONDS=600` does so for that long.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import koru_delta
from koru_delta import Database
from tests.worker import ROOT

KEYS = 120
SECONDS = float(os.environ.get("KORU_LONG_SECONDS", "5"))

# Moves everything to and fro, as fast as it can.
JOBS = """
import random, sys
import koru_delta
from koru_delta.lifecycle import Settings

chance = random.Random(int(sys.argv[2]))
db = koru_delta.open(sys.argv[1], durability="relaxed")
db.lifecycle._settings = Settings(stay=0, stay_far=0)
while True:
    hot, warm, cold = (chance.choice([0, 10_000, 10**9]) for _ in range(3))
    db.lifecycle.policy(hot_bytes=hot, warm_bytes=warm, cold_bytes=cold)
    db.lifecycle.run_once("check")
    if chance.random() < 0.3:
        db.lifecycle.run_once("genome")
"""


def value_of(key: int, turn: int) -> Any:
    large = "".join(chr(97 + (key * n + turn) % 23) for n in range(5_000)) if key % 7 == 0 else ""
    return {"key": key, "turn": turn, "text": f"rain {turn} on {key}", "more": large}


def vector_of(key: int, turn: int) -> list[float]:
    return [float(x) for x in np.random.default_rng(1_000 * turn + key).standard_normal(8)]


def jobs(path: Path, number: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", JOBS, str(path), str(number)], cwd=ROOT)


def look(db: Database, turns: list[int], key: int) -> None:
    """Ask of a key what it holds and held."""
    history = db.history("v", f"k{key:03}")
    assert [each.value for each in history] == [
        value_of(key, turn) for turn in range(1, turns[key] + 1)
    ]
    if history:
        assert db.get("v", f"k{key:03}") == value_of(key, turns[key])
        [vector] = db.vectors(history[0]).values()
        assert vector.tolist() == np.float32(vector_of(key, 1)).tolist()


def test_killed_jobs_of_two_processes_beside_a_writer_lose_nothing(tmp_path: Path) -> None:
    chance, path, turns = random.Random(3), tmp_path / "db", [0] * KEYS
    with koru_delta.open(path, durability="relaxed") as db:
        running = [jobs(path, number) for number in range(2)]
        kills, until, kill_at = 0, time.monotonic() + SECONDS, time.monotonic() + 1.5
        try:
            while time.monotonic() < until:
                some = chance.sample(range(KEYS), 4)
                for key in some:
                    turns[key] += 1
                db.embed_many(
                    "v",
                    [(f"k{key:03}", vector_of(key, turns[key]), value_of(key, turns[key]))
                     for key in some],
                )  # fmt: skip
                look(db, turns, chance.randrange(KEYS))
                if time.monotonic() > kill_at:
                    one = running.pop(0)
                    assert one.poll() is None
                    one.send_signal(signal.SIGKILL)
                    one.wait()
                    running.append(jobs(path, chance.randrange(1_000)))
                    kills, kill_at = kills + 1, time.monotonic() + chance.uniform(0.3, 1.5)
        finally:
            for one in running:
                one.kill()
                one.wait()
    assert kills > 1

    with koru_delta.open(path, durability="relaxed") as db:
        for key in range(KEYS):
            look(db, turns, key)
        assert db.verify().ok
        engine = db._log.engine
        assert {file.name for file in path.rglob("*.kdt")} == {
            f"{'cold' if tier == 2 else 'deep'}-{number}.kdt"
            for number, tier, *_ in engine._files()
        }
        budgets = {"hot_bytes": 20_000, "warm_bytes": 10_000, "cold_bytes": 5_000}
        db.lifecycle.policy(**budgets)
        db.lifecycle.run_once("genome")
        db.lifecycle.run_once("check")
        told = db.lifecycle.stats()["tiers"]
        assert all(told[name.removesuffix("_bytes")]["bytes"] <= most
                   for name, most in budgets.items())  # fmt: skip
        assert sum(each["keys"] for each in told.values()) == len(db.list_keys("v"))
        for key in range(KEYS):
            look(db, turns, key)
        assert db.verify().ok
