"""LangGraph's checkpoints: KoruDelta beside the SQLite saver and the one in memory.

A step writes a small channel and leaves one of 20 kB alone; each saver has its own thread of
so many steps before. On disk, both SQLite and KoruDelta sync every commit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from random import Random
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver

from benchmarks.measure import Row, by_turns, sized
from koru_delta_langchain.langgraph import KoruDeltaSaver

STEPS, LARGE = 200, 20_000


class _Thread:
    """A saver and the thread that is written to it, one step at a time."""

    def __init__(self, saver: BaseCheckpointSaver[Any]) -> None:
        self.saver = saver
        self.config: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
        self.latest = self.config
        self.large = Random(0).randbytes(LARGE // 2).hex()
        self.versions: dict[str, str | int | float] = {}
        self.steps = 0

    def step(self, _: int) -> None:
        """Put a checkpoint with one new channel, then a write of a task."""
        changed = ["small"] if self.steps else ["small", "large"]
        new = {name: self.saver.get_next_version(self.versions.get(name), None) for name in changed}
        self.versions |= new
        checkpoint: Checkpoint = {
            **empty_checkpoint(), "id": f"{self.steps:09}",
            "channel_values": {"small": ["step", self.steps], "large": self.large},
            "channel_versions": dict(self.versions),
        }  # fmt: skip
        self.latest = self.saver.put(
            self.latest, checkpoint, {"source": "loop", "step": self.steps}, new
        )
        self.saver.put_writes(self.latest, [("small", self.steps)], "task")
        self.steps += 1

    def read(self, _: int) -> None:
        """Get the latest checkpoint with its values."""
        found = self.saver.get_tuple(self.config)
        assert found is not None
        assert found.checkpoint["channel_values"]["large"] == self.large


def run(folder: Path, scale: float) -> Iterator[Row]:
    with ExitStack() as opened:
        ours = _Thread(opened.enter_context(KoruDeltaSaver(path=folder / "koru")))
        relaxed = _Thread(opened.enter_context(KoruDeltaSaver()))
        memory = _Thread(InMemorySaver())
        disk = _sqlite(folder, opened)
        sides = [ours, relaxed, memory, *([disk] if disk is not None else [])]
        for _ in range(sized(STEPS, scale, 5)):
            for side in sides:
                side.step(0)
        rounds = sized(100, scale, 3)
        wrote = by_turns([side.step for side in sides], rounds, warm_up=2)
        read = by_turns([side.read for side in sides], rounds, warm_up=2)
        for name, taken in (("step: put and put_writes", wrote), ("get_tuple of the latest", read)):
            figures = [nanoseconds / 1000 for nanoseconds in taken]
            if disk is not None:
                yield Row(
                    f"langgraph, {name}, on disk", figures[0], "us", figures[3], "SqliteSaver"
                )
            else:
                yield Row(f"langgraph, {name}, on disk", figures[0], "us")
            yield Row(
                f"langgraph, {name}, in memory", figures[1], "us", figures[2], "InMemorySaver"
            )
        size = _size(folder / "koru") / 1e6
        if disk is not None:
            yield Row(
                f"langgraph, {ours.steps} steps over {LARGE // 1000} kB", size, "MB",
                _size(folder / "sqlite") / 1e6, "SqliteSaver",
            )  # fmt: skip
        else:
            yield Row(f"langgraph, {ours.steps} steps over {LARGE // 1000} kB", size, "MB")


def _sqlite(folder: Path, opened: ExitStack) -> _Thread | None:
    try:
        from langgraph.checkpoint.sqlite import SqliteSaver
    except ModuleNotFoundError:
        return None
    (folder / "sqlite").mkdir()
    connection = opened.enter_context(
        closing(sqlite3.connect(folder / "sqlite" / "file.db", check_same_thread=False))
    )
    saver = SqliteSaver(connection)
    saver.setup()
    connection.execute("PRAGMA synchronous=FULL")
    return _Thread(saver)


def _size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
