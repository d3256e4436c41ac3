"""A year of an agent's life: every tier fills, budgets hold, nothing is lost.

A small year is in the gate; KORU_LONG=1 works on all its days, of KORU_YEAR_EVENTS (100) each.
`make year` has a thousand, and prints what it took.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from statistics import median

import pytest
from rich.console import Console

from examples.year_of_memories import NAMESPACE, Scale, Year, hit_rate, key_of, table
from koru_delta.lifecycle import Consolidate, Tier

SMALL = Scale(at_work=3)
LONG = Scale(at_work=30, per_day=int(os.environ.get("KORU_YEAR_EVENTS", "100")))


class Timed(Year):
    """A year that tells what its jobs took."""

    def __init__(self, folder: Path, scale: Scale) -> None:
        super().__init__(folder, scale)
        self.begun = time.monotonic()
        self.rounds: list[float] = []  # seconds
        self.wal_bytes = 0

    def run_due(self) -> None:
        begun = time.monotonic()
        super().run_due()
        self.rounds.append(time.monotonic() - begun)
        self.wal_bytes = max(self.wal_bytes, (self.folder / "log.db-wal").stat().st_size)

    def print_figures(self) -> None:
        seconds = time.monotonic() - self.begun
        print(
            f"\n{len(self.ledger.seqs):,} events of {len(self.ledger.rows):,} memories in "
            f"{seconds:,.0f} s, {sum(self.rounds):,.0f} s of them jobs, {self.checks:,} checks"
            f"\nlongest round of jobs {max(self.rounds):.2f} s, median {median(self.rounds):.2f} s"
            f"\nlongest transaction of a move {1_000 * self.watched.longest_seconds:.1f} ms, "
            f"write-ahead log up to {self.wal_bytes / 1e6:.1f} MB"
        )
        for (source, target), count in sorted(self.watched.moved.items()):
            print(f"moved from {source} to {target}: {count:,}")
        Console(width=80).print(table(self))


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Year]:
    scale = LONG if os.environ.get("KORU_LONG") else SMALL
    lived = Timed(tmp_path_factory.mktemp("year") / "db", scale)
    lived.live()
    if scale is LONG:
        lived.print_figures()
    yield lived
    lived.db.close()


def test_every_tier_holds_something_and_budgets_held_at_every_check(year: Year) -> None:
    assert year.checks >= 3 * len(year.days)
    assert year.over == []
    told = year.db.lifecycle.stats()["tiers"]
    for tier in Tier:
        assert told[str(tier)]["keys"] > 0
        budget = year.budgets.get(tier)
        assert told[str(tier)]["budget_bytes"] == budget
        assert budget is None or told[str(tier)]["bytes"] <= budget
    assert sum(each["keys"] for each in told.values()) == len(year.db.list_keys(NAMESPACE))
    assert year.db.lifecycle.run_once("check").moved == 0  # all that was due is done


def test_jobs_ran_by_the_clock_and_learned(year: Year) -> None:
    told = year.db.lifecycle.stats()

    assert told["importance"]["learned_from"] > 1_000
    assert {"check", "genome"} <= {name for name, job in told["jobs"].items() if job["last"]}
    assert len(list(year.folder.rglob("*.kdt"))) < 40 + len(year.ledger.seqs) // 2_000
    assert year.db.lifecycle.run_once("genome").problems == ()


def test_what_is_read_is_nearer_than_what_is_not(year: Year) -> None:
    keys = {tier: year.tiers[str(tier)]["keys"] for tier in Tier}
    later = year.days[len(year.days) // 2 :]  # when not all fits near any more
    near = (keys[Tier.HOT] + keys[Tier.WARM]) / sum(keys.values())

    assert near < 0.4
    assert hit_rate(later, "recent", near=Tier.WARM) > 2 * near
    assert hit_rate(later, "recent") > hit_rate(later, "of old")
    assert any(source > target for source, target in year.watched.moved)  # and what is comes up


def test_nothing_is_lost_and_nothing_is_when_it_is_opened_again(year: Year) -> None:
    assert list(year.lost()) == []

    year.db.close()
    year.db = year.open()

    assert list(year.lost(moments=3)) == []


def test_summaries_of_old_sessions_change_no_past_and_are_taken_back(year: Year) -> None:
    db = year.db
    before = db.list_keys(NAMESPACE)
    wish = Consolidate(by=["session"], older_than=timedelta(days=150), below=1.1)
    db.lifecycle.policy(NAMESPACE, consolidate=wish)

    made = db.lifecycle.run_once("consolidate")
    db.lifecycle.run_once("check")

    assert len(made) > 10
    assert list(year.lost(moments=4)) == []
    told = db.lifecycle.stats()["tiers"]
    assert all(told[str(tier)]["bytes"] <= budget for tier, budget in year.budgets.items())
    db.lifecycle.undo(made)
    assert db.list_keys(NAMESPACE) == before
    assert list(year.lost(moments=4)) == []


def test_the_ledger_tells_what_was_changed_behind_its_back(tmp_path: Path) -> None:
    with_change = Year(tmp_path / "db", Scale(days=3)).live()
    key = key_of(with_change.ledger.numbers[-1])
    with_change.db.put(NAMESPACE, key, "changed")

    lost = list(with_change.lost())

    assert f"the history of {key}" in lost
    assert any(each.startswith("a value of") for each in lost)
    assert not any("search" in each for each in lost)  # the past is what it was
    with_change.db.close()
