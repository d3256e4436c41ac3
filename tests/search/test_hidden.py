"""What is hidden is not found, by no plan and at no moment since; what is superseded likewise.

The truth is a fresh database that the log was replayed into up to the moment asked for,
and what `history` says of each version.
"""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import koru_delta
from koru_delta import Database, Version
from koru_delta.causal import Cut, moment
from koru_delta.search import graph, upkeep
from koru_delta.search.seen import Seen
from koru_delta.testing import FixedClock
from tests.indexing import check_approximate
from tests.search.test_plans import forced
from tests.test_fork import in_child

DAY = timedelta(days=1)
UP = [1.0, 0.0]


def found(db: Database, namespace: str = "n", **moment: Any) -> list[str]:
    hits = db.similar(namespace, UP, k=100, exact=True, **moment)
    assert hits.considered == len(hits)
    return sorted(hit.key for hit in hits)


def seen_of(db: Database, namespace: str = "n") -> Seen:
    """Behind the door: what is superseded can be asked of the rows, and of no verb yet."""
    [space] = db._log.engine.spaces(namespace)
    return db._vectors.open(space).at(db._log.head().seq).seen


def with_superseded(db: Database, namespace: str = "n", **given: Any) -> list[Version]:
    """Of all that is searched when what is superseded is asked for, the versions."""
    cut = db._log.cut(given.get("as_of"))
    at = given.get("valid_at", cut.clock)
    seen = seen_of(db, namespace)
    mask = seen.visible(cut, at, db._log.position, superseded=True)
    if seen.is_now(cut, at, superseded=True):
        assert (mask == seen.alive()).all()
    return db._log.versions(sorted(seen.seq[mask].tolist()))


# One key


def test_a_hidden_version_is_found_before_and_after_and_not_between(db: Database) -> None:
    first = db.embed("n", "a", UP)
    db.embed("n", "b", [0.5, 0.5])
    hidden = db.hide("n", "a")
    shown = db.unhide("n", "a")

    assert found(db, as_of=first) == ["a"]
    assert found(db, as_of=hidden) == ["b"]
    assert found(db, as_of=shown) == found(db) == ["a", "b"]
    [hit, _] = db.similar("n", UP)
    assert (hit.key, hit.version) == ("a", first)
    assert found(db, as_of=hidden, valid_at=first.time) == []
    assert found(db, valid_at=first.time) == ["a"]


def test_hiding_uncovers_nothing_and_a_later_vector_is_found(db: Database) -> None:
    db.embed("n", "a", UP)
    db.embed("n", "a", [0.0, 1.0])
    hidden = db.hide("n", "a")
    assert found(db) == []
    third = db.embed("n", "a", [0.2, 0.8])
    assert [hit.version for hit in db.similar("n", UP)] == [third]
    db.unhide("n", "a", version=hidden.target)  # it is not what the key holds
    assert [hit.version for hit in db.similar("n", UP)] == [third]


def test_what_was_deleted_while_hidden_stays_so_and_may_come_back(db: Database) -> None:
    first = db.embed("n", "a", UP)
    db.hide("n", "a")
    db.delete("n", "a")
    db.unhide("n", "a", version=first)
    assert found(db) == []
    back = db.revert("n", "a", first)
    assert [hit.version for hit in db.similar("n", UP)] == [back]


def test_a_version_that_was_overwritten_is_hidden_where_it_was_true(
    db: Database, clock: FixedClock
) -> None:
    first = db.embed("n", "a", UP)
    clock.advance(seconds=5)
    db.embed("n", "a", [0.0, 1.0])
    hidden = db.hide("n", "a", version=first)
    assert found(db) == ["a"]
    assert found(db, valid_at=first.time) == []
    assert found(db, as_of=hidden.seq - 1, valid_at=first.time) == ["a"]
    shown = db.unhide("n", "a", version=first)
    assert [hit.version for hit in db.similar("n", UP, valid_at=first.time)] == [first]
    assert found(db, as_of=shown, valid_at=first.time) == ["a"]


def test_back_dated_writes_take_away_from_what_is_hidden(db: Database, clock: FixedClock) -> None:
    start = moment(clock())
    plan = db.embed("n", "a", UP, valid_from=start - 10 * DAY, valid_to=start + 10 * DAY)
    db.hide("n", "a")
    other = db.embed("n", "a", [0.0, 1.0], valid_from=start - 2 * DAY, valid_to=start + 2 * DAY)
    assert [hit.version for hit in db.similar("n", UP)] == [other]
    assert found(db, valid_at=start - 5 * DAY) == []
    db.unhide("n", "a", version=plan)
    assert [hit.version for hit in db.similar("n", UP)] == [other]
    for day in (-5, 5):
        hits = db.similar("n", UP, valid_at=start + day * DAY)
        assert [hit.version for hit in hits] == [plan]
    assert found(db, valid_at=start + 11 * DAY) == []


def test_the_end_of_life_goes_on_while_hidden(db: Database, clock: FixedClock) -> None:
    version = db.embed("n", "a", UP, ttl=100)
    db.embed("n", "b", UP)
    db.hide("n", "a")
    clock.advance(seconds=50)
    db.unhide("n", "a")
    assert found(db) == ["a", "b"]
    clock.advance(seconds=51)
    assert found(db) == ["b"]
    assert found(db, as_of=version) == ["a"]


def test_keys_of_one_vector_are_hidden_one_by_one(db: Database) -> None:
    db.embed_many("n", [(f"k{number}", UP) for number in range(100)])
    db.hide_many([db.version("n", f"k{number}") for number in range(90)])
    assert len(found(db)) == 10
    db.unhide("n", "k7")
    assert len(found(db)) == 11
    assert len(db.similar("n", UP, k=100, filter={"x": {"$exists": False}})) == 11


def test_each_model_of_a_version_is_hidden(db: Database) -> None:
    db.embed("n", "a", UP, model="one")
    db.embed("n", "a", [1.0, 0.0, 0.0], model="two")
    db.embed("n", "b", [1.0, 0.0, 0.0], model="two")
    db.hide("n", "a")
    assert db.similar("n", UP, model="one") == []
    assert [hit.key for hit in db.similar("n", [1.0, 0, 0], model="two")] == ["b"]
    assert [hit.key for hit in db.similar("n", [1.0, 0, 0])] == ["b"]  # the one that is visible


# Superseded


def test_what_is_superseded_is_out_of_search_alone_from_then_on(db: Database) -> None:
    old = db.embed("n", "old", UP, {"x": 1})
    new = db.put("other", "new", {"x": 2}, causes=[("supersedes", old)])

    assert found(db, as_of=old) == ["old"]
    assert found(db) == found(db, as_of=new) == []
    assert db.get("n", "old") == {"x": 1}
    assert [row.key for row in db.query("n")] == ["old"]
    assert db.count("n") == 1
    assert with_superseded(db) == with_superseded(db, as_of=old) == [old]
    db.hide("other", "new")
    db.delete("other", "new")
    assert found(db) == []
    again = db.embed("n", "old", UP)
    assert [hit.version for hit in db.similar("n", UP)] == [again]
    assert with_superseded(db) == [again]


def test_a_version_that_supersedes_the_one_before_it_leaves_one_of_them(db: Database) -> None:
    first = db.embed("n", "a", UP)
    second = db.embed("n", "a", [0.5, 0.5], causes=[("supersedes", first)])
    assert [hit.version for hit in db.similar("n", UP)] == [second]
    assert with_superseded(db) == [second]
    assert with_superseded(db, as_of=first) == [first]
    with db.transaction() as tx:
        made = tx.embed("n", "a", [0.1, 0.9])
        tx.embed("n", "b", UP, causes=[("supersedes", made)])
    assert found(db) == ["b"]
    assert with_superseded(db) == tx.versions


def test_hidden_and_superseded_are_two_things(db: Database) -> None:
    old = db.embed("n", "old", UP)
    db.hide("n", "old")
    new = db.embed("n", "new", UP, causes=[("supersedes", old), ("derived_from", old)])
    assert with_superseded(db) == [new]
    db.unhide("n", "old")
    assert found(db) == ["new"]
    assert with_superseded(db) == [old, new]
    db.hide("n", "old")
    assert with_superseded(db) == [new]
    db.delete("n", "old")
    db.unhide("n", "old", version=old)
    assert with_superseded(db) == [new]


def test_a_write_that_does_not_cover_what_is_superseded_leaves_the_rest_of_it(
    db: Database, clock: FixedClock
) -> None:
    start = clock()
    old = db.embed("n", "old", UP)
    db.put("other", "new", 1, causes=[("supersedes", old)])
    db.delete("n", "old", valid_from=moment(start + 10**9))
    assert with_superseded(db) == [old]
    assert with_superseded(db, valid_at=start + 10**9 - 1) == [old]
    assert with_superseded(db, valid_at=start + 10**9) == []
    clock.now = start + 10**9
    assert with_superseded(db) == []


def test_rows_say_until_when_they_hold(db: Database, clock: FixedClock) -> None:
    old = db.embed("n", "old", UP, ttl=100)
    db.put("other", "new", 1, causes=[("supersedes", old)])
    cut = db._log.cut()
    seen = seen_of(db)
    assert seen.steady(cut, cut.clock, superseded=True)[1] == old.tx_time + 100_000_000
    assert seen.is_now(cut, cut.clock)
    assert not seen.is_now(cut, cut.clock, superseded=True)


# Many rows


class Told:
    """A random history, with what must be found after each step."""

    def __init__(self, db: Database, clock: FixedClock, seed: int) -> None:
        self.db, self.clock, self.chance = db, clock, random.Random(seed)
        self.vectors = np.random.default_rng(seed).standard_normal((400, 8)).astype(np.float32)
        self.cuts: list[int] = []

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.step()
            self.clock.advance(seconds=1)
            self.cuts.append(self.db.stats()["seq"])

    def step(self) -> None:
        db, chance = self.db, self.chance
        key, vector = f"k{chance.randrange(60):02}", self.vectors[chance.randrange(400)]
        versions = [v for v in db.changes() if v.operation == "put"]
        kind = chance.randrange(9)
        start = moment(self.clock())
        if kind < 3 or not versions:
            items = [(f"k{chance.randrange(60):02}", self.vectors[chance.randrange(400)])
                     for _ in range(chance.choice([1, 30]))]  # fmt: skip
            db.embed_many("v", items)
        elif kind == 3:
            db.embed("v", key, vector, valid_from=start - timedelta(seconds=chance.randrange(30)))
        elif kind == 4:
            db.embed("v", key, vector, ttl=chance.randrange(1, 20))
        elif kind == 5:
            db.delete_many("v", [key])
        elif kind == 6:
            named = chance.sample(versions, min(4, len(versions)))
            db.embed("v", key, vector, causes=[("supersedes", version) for version in named])
        elif kind == 7:
            db.hide_many(chance.sample(versions, min(8, len(versions))))
        else:
            db.unhide_many(chance.sample(versions, min(8, len(versions))))


Answer = list[tuple[str, float, str]]


def answer(db: Database, query: np.ndarray, **given: Any) -> Answer:
    hits = db.similar("v", query, k=100, exact=True, **given)
    return [(hit.key, hit.score, hit.version.id) for hit in hits]


def replayed(db: Database, cut: int, clock: FixedClock) -> Database:
    lines = io.BytesIO()
    db.export_log(lines, as_of=cut)
    lines.seek(0)
    fresh = koru_delta.open(clock=clock)
    fresh.import_log(lines)
    return fresh


@pytest.mark.parametrize("seed", range(3))
def test_every_answer_is_that_of_a_database_told_only_so_much(
    tmp_path: Path, small: pytest.MonkeyPatch, seed: int
) -> None:
    clock = FixedClock()
    path = tmp_path / "db"
    with koru_delta.open(path, clock=clock, durability="relaxed") as db:
        told = Told(db, clock, seed)
        query = told.vectors[0]
        for turn in range(6):
            told.steps(8)
            answer(db, query)  # read so far
            if turn % 2:
                db.build_index()
    with (
        koru_delta.open(path, clock=clock, durability="relaxed") as db,
        koru_delta.open(path, clock=clock, durability="relaxed") as other,
    ):
        assert db.stats(spaces=True)["vector_spaces"][0]["segments"] > 0
        told.db = db
        before = answer(other, query)
        assert before == answer(db, query)
        told.steps(8)  # rows that came from files go on
        assert answer(other, query) == answer(db, query)
        db.build_index()
        for cut in told.chance.sample(told.cuts, 12) + told.cuts[-1:]:
            with replayed(db, cut, clock) as fresh:
                for given in ({}, {"valid_at": moment(clock() - 20_000_000)}):
                    expected = answer(fresh, query, as_of=cut, **given)
                    assert answer(db, query, as_of=cut, **given) == expected
                    assert answer(other, query, as_of=cut, **given) == expected
            for each in (db, other):
                check_approximate(
                    each.similar("v", query, as_of=cut, k=5),
                    each.similar("v", query, as_of=cut, k=100, exact=True), 5,
                )  # fmt: skip
        assert db.verify().ok


@pytest.mark.parametrize(
    "way",
    [
        pytest.param("graph", marks=pytest.mark.skipif(not graph.available(), reason="no hnswlib")),
        "codes",
        "scan",
    ],
)
def test_no_plan_finds_what_is_hidden_among_thousands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(upkeep.Upkeep, "nudge", lambda _self, _space: None)
    monkeypatch.setattr(koru_delta.search.nearest.VectorSpace, "_unusual", lambda *_: False)
    vectors = np.random.default_rng(8).standard_normal((6000, 24)).astype(np.float32)
    with koru_delta.open(tmp_path / "db", durability="relaxed") as db:
        versions = db.embed_many("v", [(f"k{n:04}", vector) for n, vector in enumerate(vectors)])
        db.build_index()
        chance = random.Random(4)
        hidden = set(chance.sample(range(6000), 900))
        gone = set(chance.sample(sorted(set(range(6000)) - hidden), 300))

        def check(absent: set[int], plans: Sequence[str] = (way, "scan"), **given: Any) -> None:
            ways = set()
            for number in [*chance.sample(sorted(hidden | gone), 12), 0, 1]:
                query = vectors[number] * 2
                whole = db.similar("v", query, k=6000, exact=True, **given)
                assert whole.considered == 6000 - len(absent)
                some = db.similar("v", query, **given)
                ways.add(some.plan)
                check_approximate(some, whole, 10)
                check_approximate(db.similar_many("v", query[None], **given)[0], whole, 10)
                keys = {hit.key for hit in some}
                assert keys.isdisjoint(f"k{n:04}" for n in absent)
                assert (some[0].key == f"k{number:04}") == (number not in absent)
            assert ways <= set(plans)  # one that is left with too few goes on to a scan
            assert way in ways or given

        def both(absent: set[int]) -> None:
            check(absent)
            db.build_index()
            check(absent)

        with forced(db, way):
            check(set())
            db.hide_many([versions[n] for n in hidden])
            both(hidden)
            db.put("w", "new", 1, causes=[("supersedes", versions[n]) for n in gone])
            both(hidden | gone)
            back = set(chance.sample(sorted(hidden), 400))
            db.unhide_many([versions[n] for n in back])
            both((hidden - back) | gone)
            as_of = {"as_of": versions[-1]}
            check(set(), ["codes", "scan", "gather", "packed", "bounds"], **as_of)
        db.unhide_many([versions[n] for n in hidden])
        assert db.similar("v", vectors[0], k=6000, exact=True).considered == 6000 - len(gone)


def test_marks_alone_leave_the_present_as_quick_as_it_was(db: Database) -> None:
    """What nothing has ended is what is visible: no mask is made of it."""
    versions = db.embed_many("v", [(f"k{n}", [1.0, float(n)]) for n in range(50)])
    db.hide_many(versions[:5])
    db.put("w", "new", 1, causes=[("supersedes", versions[7])])
    db.unhide("v", "k2")
    seen, cut = seen_of(db, "v"), db._log.cut()
    assert seen.is_now(cut, cut.clock)
    assert seen.live == 45
    assert int(seen.alive().sum()) == int(seen.visible(cut, cut.clock, lambda _t: 0).sum()) == 45
    assert len(db.similar("v", UP, k=100)) == 45
    assert not seen.is_now(Cut(cut.seq - 1, cut.clock), cut.clock)


# Others


def test_another_process_sees_it_at_once(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db") as db, koru_delta.open(tmp_path / "db") as other:
        for turn in range(6):
            db.embed("n", f"k{turn}", UP)
            assert found(other) == found(db)
            in_child(lambda turn=turn: (db.hide("n", f"k{turn}"), None)[1])
            assert found(db) == found(other) == [f"k{n}" for n in range(0, turn, 2)]
            if turn % 2 == 0:
                other.unhide("n", f"k{turn}")
                assert f"k{turn}" in found(db)
                assert found(db) == found(other)


def test_records_of_a_namespace_without_vectors_come_with_their_marks(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db") as db, koru_delta.open(tmp_path / "db") as other:
        first = db.put("n", "a", 1)
        db.embed("m", "x", UP)
        hidden = db.hide("n", "a")
        with db.transaction() as tx:
            tx.delete("n", "a")
            tx.put("m", "y", 2, causes=[("supersedes", first)])
        put = db.put("n", "a", 3, valid_from=moment(first.tx_time), causes=[("supersedes", first)])

        expected = [
            (first.seq, "put", first.seq, None), (hidden.seq, "hide", first.seq, first.seq),
            (tx.versions[0].seq, "delete", None, None),
            (tx.versions[1].seq, "supersede", first.seq, first.seq),
            (put.seq, "put", put.seq, None), (put.seq, "supersede", first.seq, first.seq),
        ]  # fmt: skip
        names = {0: "put", 1: "delete", 2: "hide", 100: "supersede"}
        for after in range(put.seq + 1):
            wanted = [entry for entry in expected if entry[0] > after]
            for each in (db, other):
                entries = each._log.engine.records("n", after)
                told = [(e.seq, names[e.operation], e.vector, e.target) for e in entries]
                assert told == wanted
                assert {e.key_id for e in entries} <= {1}
        whole = db._log.engine.records("n", 0)
        assert other._log.engine.records("n", 0, key_id=1) == whole
        assert db._log.engine.records("none", 0) == []


def test_what_is_hidden_stays_so_when_it_is_embedded_by_another_model(db: Database) -> None:
    old = db.embed("n", "old", UP, {"text": "old"})
    for key in ("a", "b"):
        db.embed("n", key, UP, {"text": key})
    db.put("other", "new", 1, causes=[("supersedes", old)])
    db.hide("n", "a")
    assert db.reembed("n", "new", lambda texts: [[1.0, 0.0, 0.0] for _ in texts]) == 2
    assert [hit.key for hit in db.similar("n", [1.0, 0, 0])] == ["b"]
    assert [row.key for row in db.query("n")] == ["b", "old"]
    db.unhide("n", "a")
    assert [hit.key for hit in db.similar("n", [1.0, 0, 0])] == ["a", "b"]
    assert db.reembed("n", "new", lambda texts: [[1.0, 0.0, 0.0] for _ in texts]) == 0
