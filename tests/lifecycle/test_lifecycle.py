"""`db.lifecycle`: it plans by use, asks a mover to move, and says what it did."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import koru_delta
from koru_delta import Database, errors
from koru_delta.lifecycle import AllHot, Held, Lifecycle, Move, MoveResult, Runner, Tier, Tracker
from koru_delta.testing import FixedClock, HashEmbedder

SIZES = (100, 50, 20, 10)  # bytes of a key in each tier


class Shelves:
    """A mover that notes where keys are, and nothing else."""

    def __init__(self, db: Database) -> None:
        self._log = db._log
        self.tiers: dict[tuple[str, str], Tier] = {}
        self.moves: list[Move] = []
        self.refuse = False

    def look(self, namespaces: Collection[str] | None = None) -> Held:
        held = AllHot(self._log).look(namespaces)
        places = held.places(np.arange(len(held.ids)))
        return replace(
            held,
            tiers=np.array([self.tiers.get(place, Tier.HOT) for place in places], dtype=np.int64),
            sizes=np.tile(np.array(SIZES, dtype=np.int64), (len(places), 1)),
        )

    def move(self, move: Move) -> MoveResult:
        self.moves.append(move)
        if self.refuse:
            return MoveResult((), note="not now")
        for key in move.keys:
            self.tiers[move.namespace, key] = move.target
        return MoveResult(move.keys, move.size_bytes)

    def keys(self, tier: Tier) -> list[str]:
        return sorted(key for (_, key), where in self.tiers.items() if where is tier)


@pytest.fixture
def shelves(db: Database) -> Shelves:
    found = Shelves(db)
    db.lifecycle.mover = found
    return found


def test_a_check_keeps_what_is_used_near_and_budgets_held(
    db: Database, shelves: Shelves, clock: FixedClock
) -> None:
    db.put_many([("docs", f"key-{number}", number) for number in range(10)])
    clock.advance(seconds=86_400)
    for number in (3, 7):
        db.get("docs", f"key-{number}")
    db.lifecycle.pin("docs", "key-9")
    db.lifecycle.policy(hot_bytes=300, warm_bytes=100, cold_bytes=40)

    planned = db.lifecycle.plan()
    assert shelves.moves == []
    checked = db.lifecycle.run_once("check")

    assert checked.plan == planned
    assert checked.moved == 7
    assert {key for _, key in shelves.tiers}.isdisjoint({"key-3", "key-7", "key-9"})
    assert [len(shelves.keys(tier)) for tier in (Tier.WARM, Tier.COLD, Tier.DEEP)] == [2, 2, 3]
    assert db.lifecycle.stats()["tiers"] == {
        "hot": {"keys": 3, "bytes": 300, "budget_bytes": 300},
        "warm": {"keys": 2, "bytes": 100, "budget_bytes": 100},
        "cold": {"keys": 2, "bytes": 40, "budget_bytes": 40},
        "deep": {"keys": 3, "bytes": 30, "budget_bytes": None},
    }
    assert db.lifecycle.run_once("check").plan.moves == ()


def test_what_comes_into_use_comes_up_and_another_makes_room(
    db: Database, shelves: Shelves, clock: FixedClock
) -> None:
    db.put_many([("docs", f"key-{number}", number) for number in range(4)])
    db.lifecycle.policy("docs", hot_bytes=200)
    db.get("docs", "key-0")
    db.get("docs", "key-1")
    db.lifecycle.run_once("check")
    assert shelves.keys(Tier.WARM) == ["key-2", "key-3"]

    clock.advance(seconds=3_600)
    for _ in range(5):
        db.used(("docs", "key-3"))
    db.get("docs", "key-1", as_of=db.stats()["seq"])
    checked = db.lifecycle.run_once("check")

    assert [(move.keys, move.target) for move in checked.plan.moves] == [
        (("key-0",), Tier.WARM), (("key-3",), Tier.HOT),
    ]  # fmt: skip
    assert shelves.keys(Tier.WARM) == ["key-0", "key-2"]


def test_what_a_mover_does_not_move_is_asked_of_it_again(
    db: Database, shelves: Shelves, clock: FixedClock
) -> None:
    db.put("docs", "key", 1)
    db.lifecycle.policy(hot_bytes=0)
    shelves.refuse = True
    refused = db.lifecycle.run_once("check")
    shelves.refuse = False
    moved = db.lifecycle.plan(dry_run=False)

    assert refused.results == (MoveResult((), note="not now"),)
    assert (refused.moved, moved.keys) == (0, 1)
    assert shelves.keys(Tier.WARM) == ["key"]


def test_a_mover_that_moves_nothing_says_so(db: Database) -> None:
    db.put("docs", "key", "x" * 100)

    moved = AllHot(db._log).move(Move("docs", ("key",), Tier.HOT, Tier.COLD, "no room", 1))

    assert moved == MoveResult((), note="there is no cold tier here: everything stays hot")
    assert db.lifecycle.stats()["tiers"]["hot"]["keys"] == 1


def test_without_a_budget_nothing_is_planned(db: Database) -> None:
    db.put("docs", "key", 1)

    assert db.lifecycle.plan().moves == ()
    assert str(db.lifecycle.plan()) == "nothing moves"
    assert db.lifecycle.run_once("check").results == ()


def test_a_namespace_larger_than_a_page_is_scored_as_one(db: Database) -> None:
    db.put_many([("docs", f"key-{number:05}", number) for number in range(5_500)])

    assert len(db.lifecycle.importance("docs")) == 5_500


def test_what_is_used_and_what_others_come_from_is_more_important(
    db: Database, clock: FixedClock
) -> None:
    source = db.put("docs", "source", 1)
    db.put("docs", "helped", 2)
    db.put("docs", "left", 3)
    db.put("docs", "summary", 4, causes=[("derived_from", source)])
    db.used(("docs", "helped"))
    clock.advance(seconds=3_600)

    found = db.lifecycle.importance("docs")

    assert sorted(found, key=lambda key: -found[key])[:2] == ["helped", "source"]
    assert found["left"] == pytest.approx(found["summary"], rel=1e-6)


def test_both_scores_are_learned_reported_and_kept(tmp_path: Path) -> None:
    clock = FixedClock()
    path = tmp_path / "db"
    for day in range(2):
        with koru_delta.open(path, clock=clock, durability="relaxed") as db:
            if not day:
                db.put_many([("docs", f"key-{number:02}", number) for number in range(40)])
            for _ in range(40):
                clock.advance(seconds=900)
                for number in range(5):
                    db.used(("docs", f"key-{number:02}"))
                db.lifecycle.run_once("check")
            told = db.lifecycle.stats()["importance"]

    assert told["learned_from"] > 500
    assert told["taken"] == "learned"
    for score in ("heuristic", "learned"):
        assert set(told[score]) == {"log_loss", "auc", "brier", "calibration"}
        assert sum(each["count"] for each in told[score]["calibration"]) > 500
    assert told["learned"]["auc"] > 0.95
    assert told["learned"]["brier"] < 0.05


def test_answers_are_the_same_whatever_was_moved(tmp_path: Path) -> None:
    clock = FixedClock()
    with koru_delta.open(clock=clock, embedder=HashEmbedder()) as db:
        db.lifecycle.mover = Shelves(db)
        for number in range(30):
            db.embed("docs", f"key-{number:02}", f"the text of number {number}")
        asked = [
            lambda: db.search("docs", "number 7").load(),
            lambda: db.similar("docs", "text of 12", exact=True).load(),
            lambda: db.query("docs", {"text": {"$contains": "9"}}),
            lambda: db.get_many("docs", db.list_keys("docs")),
        ]
        before = [ask() for ask in asked]
        db.lifecycle.policy(hot_bytes=500, warm_bytes=300, cold_bytes=100)
        assert db.lifecycle.run_once("check").moved > 10
        assert [ask() for ask in asked] == before


def test_closing_ends_a_check_between_two_moves(clock: FixedClock) -> None:
    with koru_delta.open(clock=clock) as db:
        db.put_many([(name, "key", 1) for name in "abc"])
        runner = Runner(clock)
        lifecycle = Lifecycle(db._log, Tracker(None, clock), runner)
        shelves = Shelves(db)

        class Closing(Shelves):
            def move(self, move: Move) -> MoveResult:
                runner.is_stopping = True
                return shelves.move(move)

        lifecycle.mover = Closing(db)
        lifecycle.policy(hot_bytes=0)
        lifecycle.check()

    assert [move.namespace for move in shelves.moves] == ["a"]


def test_a_closed_database_says_so(tmp_path: Path) -> None:
    db = koru_delta.open(tmp_path / "db", durability="relaxed")
    lifecycle = db.lifecycle
    db.close()

    for call in (
        lifecycle.stats, lifecycle.plan, lifecycle.policies, lifecycle.pins, lifecycle.check,
        lambda: lifecycle.policy("n", hot_bytes=1), lambda: lifecycle.pin("n", "k"),
        lambda: lifecycle.unpin("n", "k"), lambda: lifecycle.run_once("check"),
        lambda: lifecycle.importance("n"), lambda: db.used(("n", "k")),
    ):  # fmt: skip
        with pytest.raises(errors.DatabaseClosedError):
            call()


def test_what_the_lifecycle_plans_and_does_is_short_to_read(
    db: Database, shelves: Shelves, clock: FixedClock
) -> None:
    db.put_many([("docs", f"key-{number}", number) for number in range(10)])
    db.lifecycle.policy(hot_bytes=500)

    plan = db.lifecycle.plan()
    done = db.lifecycle.run_once("check")
    assert repr(db.lifecycle).startswith("<Lifecycle of ")
    assert repr(plan) == f"<Plan: {plan.keys} keys in {len(plan.moves)} moves>"
    assert [repr(move) for move in plan.moves] == [f"<Move {move}>" for move in plan.moves]
    assert repr(done) == f"<Checked: 0 hidden, {plan.keys} moved>"
    assert plan.keys == 5
