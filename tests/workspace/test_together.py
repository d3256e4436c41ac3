"""Threads and processes that share one workspace: nothing lost, no rule broken."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import koru_delta
from koru_delta import AsyncDatabase, errors
from koru_delta.testing import FixedClock, HashEmbedder
from tests.worker import ROOT

_WORK = """
import sys
from datetime import UTC, datetime
import koru_delta
from koru_delta import errors

path, number = sys.argv[1], int(sys.argv[2])
with koru_delta.open(path, durability="relaxed") as db:
    space = db.workspace("shared")
    memory = space.ai_context()
    print("ready", flush=True)
    sys.stdin.readline()
    for n in range(12):
        memory.remember_fact("f", [number, n], valid_from=datetime(2000 + 2 * n + number, 1, 1,
                                                                   tzinfo=UTC))
        memory.remember_episode("the same words")
        memory.remember_fact("opinion", number, source=str(number), supersede=False)
    try:
        space.store("events", "only-one", number)
        won = 1
    except errors.ImmutableEventError:
        won = 0
    stored = refused = 0
    for n in range(20):
        try:
            space.store("limited", f"{number}-{n}", n)
            stored += 1
        except errors.QuotaExceededError:
            refused += 1
    print(stored, refused, won, flush=True)
"""


def test_two_processes_share_a_workspace(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with koru_delta.open(path, durability="relaxed") as db:
        space = db.workspace("shared")
        space.pattern("events", "event")
        space.ai_context().remember_fact("f", "first", valid_from="1990-01-01T00:00:00Z")
        # The fact, 24 episodes, two opinions and where they are, the event; and 20 of 40.
        space.configure(max_items=1 + 24 + 2 + 2 + 1 + 20)
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", _WORK, str(path), str(number)], cwd=ROOT, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
            for number in (0, 1)
        ]  # fmt: skip
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        told = []
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        for worker in workers:
            out, err = worker.communicate(timeout=200)
            assert worker.returncode == 0, err
            told.append([int(word) for word in out.split()])

        memory = space.ai_context()
        line = memory.timeline("f")
        assert [m.valid_from.year for m in line] == [1990, *range(2000, 2024)]
        assert [m.value for m in line[1:]] == [[n % 2, n // 2] for n in range(24)]
        for before, after in pairwise(line):
            assert before.valid_to == after.valid_from
        assert len(memory.memories(types="episode")) == 24
        assert [sorted(m.value for m in c.memories) for c in memory.contradictions()] == [[0, 1]]
        stats = space.stats()
        assert stats["items"] == stats["max_items"] == 50
        assert sum(each[0] for each in told) == 20
        assert sum(each[2] for each in told) == 1
        assert [each[0] + each[1] for each in told] == [20, 20]
        assert db.verify().ok


def test_threads_agree_on_an_event_and_on_the_last_place(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db", durability="relaxed") as db:
        space = db.workspace("w")
        space.pattern("events", "event")
        space.configure(max_items=10)
        told: list[str] = []

        def work(number: int) -> None:
            for n in range(4):
                try:
                    space.store("n", f"{number}-{n}", 1)
                    told.append("stored")
                except errors.QuotaExceededError:
                    told.append("refused")
                try:
                    space.store("events", "k", number)
                    told.append("event")
                except errors.QuotaExceededError:
                    told.append("full")
                except errors.ImmutableEventError:
                    told.append("late")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert space.stats()["items"] == 10
        assert told.count("stored") + told.count("event") == 10
        assert len(space.history("events", "k")) == told.count("event") == 1


async def test_everything_can_be_awaited(tmp_path: Path) -> None:
    clock = FixedClock()
    async with await AsyncDatabase.open(
        tmp_path / "db", durability="relaxed", clock=clock, embedder=HashEmbedder()
    ) as adb:
        space = await adb.workspace("w")
        assert (space.name, space.workspace.name) == ("w", "w")
        memory = space.ai_context()
        await space.pattern("events", "event")
        await space.configure(max_items=100)
        version = await space.store("n", "k", "rain")
        await space.store_many("n", [("l", "sun")])
        await space.add("n", 1)
        assert await space.get("n", "k") == "rain"
        assert [hit.key for hit in await space.search("n", "rain", k=1)] == ["k"]
        assert await space.version("n", "k") == version
        assert await space.list_namespaces() == ["n"]
        assert len(await space.export()) == 3
        told = await memory.remember_episode("Ada called", session="s")
        await memory.remember_fact("city", "Rome", valid_from="2020-01-01T00:00:00Z")
        await memory.remember_procedure("p", "do it")
        assert (await memory.record_outcome("p", True)).trials == 1
        assert [m.id for m in await memory.recall("Ada", session="s", explain=True)] == [told.id]
        assert "Rome" in str(await memory.context("city"))
        believed = await memory.what_did_i_believe("city", datetime.fromtimestamp(
            clock.now / 1_000_000, UTC), valid_at="2021-01-01T00:00:00Z")  # fmt: skip
        assert believed is None  # at the instant before it was told
        gone = await memory.forget([told])
        assert [m.id for m in await memory.forgotten()] == [told.id]
        assert [m.id for m in await memory.restore(gone)] == [told.id]
        assert await memory.contradictions() == []
        assert await memory.used([told]) == 1
        assert len(await memory.history(told.id)) == 3
        assert (await space.stats())["items"] == 7
        assert await space.drop() == 7


def _parameters(verb: Any) -> list[tuple[str, Any, Any]]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(verb).parameters.values()][1:]


def test_both_forms_have_the_same_verbs() -> None:
    for plain, awaited, own in (
        (koru_delta.Workspace, koru_delta.AsyncWorkspace, {"inside", "settings", "embedder"}),
        (koru_delta.AgentMemory, koru_delta.AsyncAgentMemory, set()),
    ):
        shows: dict[str, Any] = {"workspace": 1, "memory": 1}
        public = {name for name in dir(plain) if not name.startswith("_")} - own
        also = {name for name in dir(awaited) if not name.startswith("_")}
        assert public - shows.keys() == also - shows.keys()
        for name in public - shows.keys() - {"name"}:
            assert _parameters(getattr(plain, name)) == _parameters(getattr(awaited, name)), name
