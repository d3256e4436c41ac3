"""What a check looks at: all there is at first, then what changed and a slice of the rest."""

from __future__ import annotations

import os
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import koru_delta
from koru_delta import Consolidate, Database, errors
from koru_delta.causal import moment
from koru_delta.lifecycle import AllHot, Held, Move, Tier, Tiers, holdings, uses
from koru_delta.storage import presence
from koru_delta.storage.presence import SqlitePresence
from koru_delta.storage.sqlite import SqliteEngine
from koru_delta.testing import FixedClock
from tests.test_fork import in_child

KEYS = ("a", "b", "c")
NAMES = ("n", "m")

keys = st.sampled_from(KEYS)
names = st.sampled_from(NAMES)
seconds = st.none() | st.integers(1, 90)
steps = st.one_of(
    st.tuples(st.just("put"), names, keys, seconds),
    st.tuples(st.just("put_valid"), names, keys, seconds, seconds),
    st.tuples(st.sampled_from(["delete", "hide", "unhide", "cite", "erase"]), names, keys),
    st.tuples(st.just("move"), names, st.sampled_from(list(Tier))),
    st.tuples(st.just("pass"), st.integers(1, 60)),
    st.tuples(st.just("look"), st.booleans()),
)


def told(held: Held) -> dict[tuple[str, str], tuple[Any, ...]]:
    """What is known of each key."""
    columns = (held.seqs, held.written, held.touched, held.hidden, held.cited)
    rows = zip(*(column.tolist() for column in columns), held.sizes[:, 0].tolist(), strict=True)
    return dict(zip(held.places(np.arange(len(held.ids))), rows, strict=True))


def take(db: Database, tiers: Tiers, clock: FixedClock, step: tuple[Any, ...]) -> None:
    verb, *given = step
    try:
        if verb == "put":
            name, key, ttl = given
            db.put(name, key, {"n": db.stats()["seq"]}, ttl=ttl)
        elif verb == "put_valid":
            name, key, starts, lasts = given
            start = moment(clock.now) + timedelta(seconds=starts or 0)
            end = None if lasts is None else start + timedelta(seconds=lasts)
            db.put(name, key, "valid", valid_from=start, valid_to=end)
        elif verb == "cite":
            db.put("m", "z", "cites", causes=[("derived_from", db.version(*given))])
        elif verb == "erase":
            db.erase([db.version(*given)])
        elif verb == "move":
            name, tier = given
            tiers.move(Move(name, tuple(db.list_keys(name)), Tier.HOT, tier, "told to", 0))
        elif verb == "pass":
            clock.advance(seconds=given[0])
        elif verb != "look":
            getattr(db, verb)(*given)
    except koru_delta.errors.KoruDeltaError:
        pass  # there is nothing to delete, hide, cite or erase


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=30))
def test_what_is_known_after_any_changes_is_what_a_first_look_finds(
    history: list[tuple[Any, ...]],
) -> None:
    clock = FixedClock()
    with pytest.MonkeyPatch.context() as patch, koru_delta.open(clock=clock) as db:
        patch.setattr(holdings, "_SLICE", 0)  # it would find what else was overlooked
        tiers = Tiers(db._log)
        for step in [*history, ("look", True)]:
            take(db, tiers, clock, step)
            if step[0] == "look":
                wanted = None if step[1] else ["n"]
                assert told(tiers.look(wanted)) == told(Tiers(db._log).look(wanted))
                lie = tiers.look()
                again = Tiers(db._log).look()
                assert (np.maximum(lie.tiers, 1) == np.maximum(again.tiers, 1)).all()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many keys the log was asked about, each time."""
    found: list[int] = []
    plain = SqlitePresence.presence

    def presence(self: Any, seq: int, clock: int, key_ids: Any, **options: Any) -> Any:
        found.append(len(key_ids))
        return plain(self, seq, clock, key_ids, **options)

    monkeypatch.setattr(SqlitePresence, "presence", presence)
    return found


TEXTS = st.text(st.sampled_from("ab\x01\U0010ffff~%_"), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(st.sets(TEXTS, min_size=1, max_size=12), TEXTS, st.integers(1, 3))
def test_what_is_held_is_the_same_however_few_are_read_at_once(
    keys: set[str], late: str, at_once: int
) -> None:
    clock = FixedClock()
    with koru_delta.open(clock=clock) as db:
        db.put_many([(name, key, key) for key in sorted(keys) for name in ("n", "m")])
        db.delete("m", min(keys))
        engine = db._log.engine
        plain = {
            (prefix, after): engine.keys_like("n", prefix, after)
            for prefix in ("", "a", late) for after in (0, 3)
        }  # fmt: skip
        wanted = told(Tiers(db._log).look())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(presence, "_AT_ONCE", at_once)
            patch.setattr(holdings, "_AT_ONCE", at_once)
            tiers = Tiers(db._log)
            assert told(tiers.look()) == wanted
            assert {asked: engine.keys_like("n", *asked) for asked in plain} == plain
            assert engine.key_ids("n") == [number for number, _ in plain["", 0]]
            assert {key for _, key in plain["", 0]} == keys

            db.put_many([(name, late, 1) for name in ("n", "m", "new")])
            assert told(tiers.look()) == told(Tiers(db._log).look())


def test_keys_that_come_while_they_are_read_are_found_the_next_time(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "_AT_ONCE", 2)
    db.put_many([("n", key, 1) for key in "bcdef"])
    engine = db._log.engine
    pages = engine._keys("n", "", 0)
    first = next(pages)
    db.put_many([("n", key, 1) for key in "ag"])  # before and after what was read

    found = [row for rows in (first, *pages) for row in rows]
    later = engine.keys_like("n", "", max(number for number, _ in found))

    assert [key for _, key in found] == ["b", "c", "d", "e", "f"]
    assert [key for _, key in later] == ["a", "g"]


def test_a_second_check_asks_about_what_changed_and_a_slice(
    clock: FixedClock, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdings, "_SLICE", 50)
    with koru_delta.open(clock=clock) as db:
        db.put_many([("n", f"key-{number:04}", "x" * 50) for number in range(2_000)])
        db.lifecycle.policy(hot_bytes=1_000_000)
        db.lifecycle.run_once("check")
        assert sum(asked) == 2_000
        for number in range(30):
            db.put("n", f"key-{number:04}", number)
        clock.advance(seconds=300)

        asked.clear()
        db.lifecycle.run_once("check")

        assert sum(asked) == 80


def test_closing_does_not_wait_until_all_keys_were_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdings, "_AT_ONCE", 1)
    looking, looked = threading.Event(), []
    plain = SqlitePresence.presence

    def presence(self: Any, *given: Any, **options: Any) -> Any:
        looked.append(given)
        if len(looked) == 3:
            looking.set()
            while not db._runner.is_stopping:
                time.sleep(0.001)
        return plain(self, *given, **options)

    with koru_delta.open(tmp_path / "db", durability="relaxed") as db:
        db.put_many([("n", f"key-{number:02}", "x" * 50) for number in range(20)])
        db.lifecycle.policy(hot_bytes=1_000, warm_bytes=0)
        with monkeypatch.context() as patch:
            patch.setattr(SqlitePresence, "presence", presence)
            db._runner.ask("check")
            assert looking.wait(30)
            db.close()
        assert len(looked) == 3
    with koru_delta.open(tmp_path / "db", durability="relaxed") as db:
        assert db.lifecycle.run_once("check").moved == 17


def test_what_another_process_moved_is_known_at_the_next_check(
    tmp_path: Path, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdings, "_SLICE", 0)
    with (
        koru_delta.open(tmp_path / "db", clock=clock, durability="relaxed") as one,
        koru_delta.open(tmp_path / "db", clock=clock, durability="relaxed") as other,
    ):
        one.put_many([("n", f"key-{number:02}", "x" * 50) for number in range(20)])
        one.lifecycle.run_once("check")
        assert one.lifecycle.stats()["tiers"]["cold"]["keys"] == 0
        clock.advance(seconds=300)
        other.lifecycle.policy("n", hot_bytes=1_000, warm_bytes=0)
        assert other.lifecycle.run_once("check").moved == 17

        assert one.lifecycle.stats()["tiers"] == other.lifecycle.stats()["tiers"]
        assert one.lifecycle.plan().moves == ()


def test_what_nobody_told_of_is_found_in_turn(
    clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdings, "_SLICE", 8)
    with koru_delta.open(clock=clock) as db:
        made = db.put_many([("n", f"key-{number:02}", "x" * 50) for number in range(20)])
        tiers = Tiers(db._log)
        tiers.look()
        db._log.engine.move([version.seq for version in made], 2)

        counts = [int((tiers.look().tiers == Tier.COLD).sum()) for _ in range(3)]

        assert counts == [8, 16, 20]


def test_a_look_that_failed_half_way_is_begun_anew(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdings, "_SLICE", 0)
    tiers = Tiers(db._log)
    db.put_many([(name, f"key-{number}", number) for name in "nm" for number in range(5)])
    tiers.look(["n"])
    db.put_many([("n", f"key-{number}", number) for number in range(3, 8)])
    with monkeypatch.context() as patch:
        asked = iter([1])  # the second time it fails

        def failing(self: Any, seqs: Any) -> Any:
            next(asked)
            return plain(self, seqs)

        plain = SqliteEngine.whereabouts
        patch.setattr(SqliteEngine, "whereabouts", failing)
        with pytest.raises((RuntimeError, StopIteration)):
            tiers.look()

    assert told(tiers.look()) == told(Tiers(db._log).look())


def test_a_clock_that_is_set_back_makes_all_be_looked_at_anew(tmp_path: Path) -> None:
    clock = FixedClock()
    with koru_delta.open(tmp_path / "db", clock=clock, durability="relaxed") as db:
        db.put("n", "now", 1)
        db.put("n", "soon", 2, valid_from=moment(clock.now) + timedelta(hours=1))
        mover = AllHot(db._log)
        clock.advance(seconds=7_200)
        assert len(mover.look().ids) == 2
        clock.advance(seconds=-7_200)

        assert len(mover.look().ids) == len(db.list_keys("n")) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_looks_for_itself(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db", clock=FixedClock(), durability="relaxed") as db:
        db.put("n", "key", 1)
        db.lifecycle.stats()

        def child() -> None:
            db.put("n", "other", 2)
            assert db.lifecycle.stats()["tiers"]["hot"]["keys"] == 2
            db.close()

        in_child(child)
        assert db.lifecycle.stats()["tiers"]["hot"]["keys"] == 2


def test_what_is_used_before_it_is_written_counts_once_it_is(
    db: Database, clock: FixedClock
) -> None:
    db.put("n", "other", 1)
    db.used(("n", "key"))
    clock.advance(seconds=3_600)
    db.lifecycle.importance("n")
    db.put("n", "key", 1)
    db.put("n", "third", 1)

    found = db.lifecycle.importance("n")

    assert found["key"] > found["third"]


def test_uses_are_known_however_few_are_read_at_once_and_although_a_read_failed(
    db: Database, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def known(some: uses.Uses) -> list[tuple[int, list[float]]]:
        usage, rows = some.of(ids)
        return [(int(usage.last[row]), usage.counts[row].tolist()) for row in rows.tolist()]

    keys = [f"key-{number}" for number in range(7)]
    db.put_many([("n", key, 1) for key in keys])
    ids = np.array(sorted(db._log.engine.key_ids("n")))
    file = db._tracker.file
    assert file is not None
    for number, key in enumerate([*keys, *keys[:5:2], "later"]):
        clock.advance(seconds=number)
        db.used(("n", key))
        db._tracker.flush()
    plain, calls = file.changed, iter([True, True])

    def failing(after: int, limit: int) -> Any:
        if next(calls, False):
            return plain(after, limit)
        raise errors.StorageError("the disk is on fire")

    few = uses.Uses(file, db._log)
    with monkeypatch.context() as patch:
        patch.setattr(uses, "_AT_ONCE", 2)
        with monkeypatch.context() as fails:
            fails.setattr(file, "changed", failing)
            with pytest.raises(errors.StorageError):
                few.of(ids)
        found = known(few)
        db.put("n", "later", 1)
        ids = np.array(sorted(db._log.engine.key_ids("n")))
        db.used(("n", "key-3"))
        db._tracker.flush()
        found_later = known(few)

    assert found_later == known(uses.Uses(file, db._log))
    assert found == [*found_later[:3], found[3], *found_later[4:7]]
    assert found_later[7][1] == [0.0, 0.0, 0.0, 1.0]


# Consolidating


def test_what_belongs_to_no_group_is_read_once(
    db: Database, clock: FixedClock, read: list[int]
) -> None:
    db.put_many([("log", f"k{n}", {"text": f"Event {n}.", "session": f"s{n}"}) for n in range(9)])
    wish = Consolidate(older_than=timedelta(days=1), at_least=2, below=1.1)
    db.lifecycle.policy("log", consolidate=wish)
    clock.advance(seconds=2 * 86_400)

    assert db.lifecycle.run_once("consolidate") == []
    assert len(read) == 9
    read.clear()
    assert db.lifecycle.run_once("consolidate") == []
    assert read == []

    db.put("log", "late", {"text": "One more.", "session": "s3"})
    clock.advance(seconds=2 * 86_400)
    [made] = db.lifecycle.run_once("consolidate")
    assert made.keys == ("k3", "late")


def test_events_that_are_unlike_are_looked_at_again_once_there_are_more(
    db: Database, clock: FixedClock, read: list[int]
) -> None:
    for number in range(3):
        vector = [0.0] * 3
        vector[number] = 1.0
        db.embed("log", f"k{number}", vector, {"text": f"Event {number}."})
    wish = Consolidate(by=[], alike=0.9, older_than=timedelta(days=1), at_least=2, below=1.1)
    db.lifecycle.policy("log", consolidate=wish)
    clock.advance(seconds=2 * 86_400)

    assert db.lifecycle.run_once("consolidate") == []
    read.clear()
    assert db.lifecycle.run_once("consolidate") == []
    assert read == []
    db.embed("log", "k3", [1.0, 0.0, 0.0], {"text": "Event 3."})
    clock.advance(seconds=2 * 86_400)

    [made] = db.lifecycle.run_once("consolidate")
    assert made.keys == ("k0", "k3")
