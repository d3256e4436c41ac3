"""`query` and `count` answer alike by columns and by looking at every value."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import koru_delta
from koru_delta import Database
from koru_delta.causal import moment
from koru_delta.errors import KoruDeltaError
from koru_delta.search.records import Records
from koru_delta.testing import FixedClock
from tests.model import Model
from tests.search.histories import KEYS, UNIT, Step, Told, codes, history, opened

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, 1.0, -2, 0.5, -0.0, 2**53, 2**53 + 1, 2.0**53, 2**63 - 1, -(2**63),
    1e300, "", "a", "A", "é", "e\u0301", "1", "z z", [], [1], [1.0], [True], {}, {"x": 1},
    {"x": [1]},
)  # fmt: skip
SORTS: tuple[Any, ...] = (
    None, "f", "-f", ["-f", "n"], ["n", "-f"], "f.x", "-f.x", "", "-", ["doc", "-n", "f"], "none",
)  # fmt: skip


def values(chance: random.Random) -> Any:
    """One field that holds anything, now and then nothing."""
    value = {"n": chance.randint(0, 2), "doc": chance.choice("ab")}
    if chance.random() < 0.85:
        value["f"] = chance.choice(ODD)
    return chance.choice([value, value, value, value, chance.choice(ODD)])


def conditions(chance: random.Random, depth: int = 0) -> dict[str, Any]:
    odd = chance.choice(ODD)
    path = chance.choice(["f", "f", "f", "n", "f.x", "", "none"])
    some: list[dict[str, Any]] = [
        {path: {"$eq": odd}}, {path: {"$ne": odd}},
        {path: {"$in": chance.choices(ODD, k=3)}}, {path: {"$nin": chance.choices(ODD, k=3)}},
        {path: {"$exists": chance.random() < 0.5}},
        {path: {"$prefix": chance.choice(["", "a", "é", "z"])}},
        {path: {"$contains": chance.choice([1, True, "x", "1"])}},
        {path: {"$like": chance.choice(["%", "_", "a%", "%z"])}},
        {path: {"$regex": chance.choice(["a", "^.$", "[0-9]"])}},
    ]  # fmt: skip
    bound = chance.choice([0, 1, 0.5, 2**53, "a", "é", 2.0**53])
    some += [{path: {operator: bound}} for operator in ("$gt", "$gte", "$lt", "$lte")]
    if depth < 2:
        parts = [conditions(chance, depth + 1) for _ in range(2)]
        some += [{"$and": parts}, {"$or": parts}, {"$not": parts[0]}, {**parts[0], **parts[1]}]
    return chance.choice(some)


@contextmanager
def by(columns: bool) -> Iterator[None]:
    """Every question is answered one way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Records, "pays", lambda _self, _paths: columns)
        yield


def odd_steps(steps: list[Step], chance: random.Random) -> list[Step]:
    """The same, but with values of every type."""
    return [
        ("put", {**given, "value": values(chance)}) if verb == "put" else (verb, given)
        for verb, given in steps
    ]


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(codes, st.binary(min_size=8, max_size=8))
def test_columns_and_values_give_the_same_rows(numbers: bytes, number: bytes) -> None:
    chance = random.Random(number)
    clock = FixedClock()
    with opened(clock) as db:
        told = Told(db, clock)
        told.tell(odd_steps(history(numbers), chance))
        for turn in range(8):
            if turn == 4:
                told.tell(odd_steps(history(numbers[: len(numbers) // 3]), chance))
            at: dict[str, Any] = {}
            if chance.random() < 0.5:
                at["as_of"] = told.ref(told.cut(chance))
            if chance.random() < 0.5:
                at["valid_at"] = moment(clock.now + chance.randint(-30 * UNIT, 30 * UNIT))
            filter = chance.choice([None, conditions(chance), conditions(chance)])
            sort = chance.choice(SORTS)
            page = {"limit": chance.choice([None, None, 0, 2]), "offset": chance.choice([0, 0, 1])}

            def asked(filter: Any = filter, **more: Any) -> list[tuple[str, str, Any]]:
                rows = db.query("a", filter, **more)
                return [(row.key, row.version.id, row.value) for row in rows]

            found, counts = [], []
            for columns in (False, True):
                with by(columns):
                    found.append(asked(sort=sort, select=["f"], **page, **at))
                    counts.append(db.count("a", filter, **at))
            assert found[0] == found[1], (filter, sort, page, at)
            whole = asked(**at)
            assert counts == [len(whole)] * 2
            if filter is None:
                assert [(key, version) for key, version, _ in whole] == shown(told.model, told, at)


def shown(model: Model, told: Told, at: dict[str, Any]) -> list[tuple[str, str]]:
    """What the naive model says `query` sees."""
    cut = model.now(told.clock.now)
    if "as_of" in at:
        ref = at["as_of"]
        if isinstance(ref, int):
            (cut,) = [commit for commit in model.commits if commit.seq == ref]
        else:
            cut = model.at_time(micro(ref))
    valid = micro(at["valid_at"]) if "valid_at" in at else cut.clock
    return [(key, entry.id) for key, entry in model.shown("a", cut, valid).items()]


def micro(time: Any) -> int:
    return int((time - moment(0)) / timedelta(microseconds=1))


def test_a_question_goes_over_to_columns_and_its_answer_stays(db: Database) -> None:
    db.put_many([("n", f"k{n}", {"n": n % 7}) for n in range(200)])
    expected = [f"k{n}" for n in range(200) if n % 7 > 4]
    ways = []
    for turn in range(6):
        found = [row.key for row in db.query("n", {"n": {"$gt": 4}}, sort=["n"])]
        assert sorted(found) == sorted(expected)
        ways.append(db._texts.records("n").reading.slots > 0)
        if turn == 3:
            db.put("n", "late", {"n": 6})
            expected.append("late")
    assert ways[0] is False
    assert ways[-1] is True


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize(
    "given",
    [
        {"limit": -1}, {"limit": 1.0}, {"limit": 2**63}, {"offset": -1}, {"offset": None},
        {"sort": 5}, {"sort": [5]}, {"select": "f"}, {"select": [1]}, {"filter": {"$near": 1}},
        {"filter": []}, {"as_of": "never"},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_both_ways(
    db: Database, given: dict[str, Any], columns: bool
) -> None:
    db.put_many([("n", key, {"n": 1}) for key in KEYS])
    with by(columns), pytest.raises(KoruDeltaError):
        koru_delta.Database.query(db, "n", **{"filter": {"n": 1}, "sort": "n", **given})
