from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import koru_delta
from koru_delta import Add, Database, Subtract, Toward, Words
from koru_delta.errors import DimensionMismatchError, KeyNotFoundError, NoVectorError, QueryError
from koru_delta.search.synthesis import slerp, walk

NUMBER = st.floats(-1e3, 1e3, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-3)
VECTOR = st.lists(NUMBER, min_size=3, max_size=3).filter(any)


def of(vector: object) -> object:
    return vector


def angle(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * np.arctan2(np.linalg.norm(one - other), np.linalg.norm(one + other)))


def unit(vector: list[float]) -> np.ndarray:
    return np.array(vector) / np.linalg.norm(vector)


@given(VECTOR, VECTOR, st.floats(0, 1))
def test_slerp_goes_a_share_of_the_angle_and_stays_on_the_sphere(start, end, share):
    one, other = unit(start), unit(end)
    whole = angle(one, other)
    if math.pi - whole < 1e-5:
        return
    here = slerp(start, end, share)
    assert np.linalg.norm(here) == pytest.approx(1.0)
    assert angle(one, here) == pytest.approx(share * whole, abs=1e-6)
    assert angle(here, other) == pytest.approx((1 - share) * whole, abs=1e-6)


def test_slerp_begins_and_ends_where_it_should_and_not_at_opposites():
    assert slerp([1, 0], [0, 2], 0).tolist() == pytest.approx([1, 0])
    assert slerp([1, 0], [0, 2], 1).tolist() == pytest.approx([0, 1])
    assert slerp([1, 0], [-1, 0], 0).tolist() == [1, 0]
    assert slerp([1, 0], [-1, 0], 1).tolist() == [-1, 0]
    with pytest.raises(QueryError, match="opposite"):
        slerp([1, 0], [-1, 0], 0.5)
    for share in (-0.1, 1.1, math.nan, True, "0.5"):
        with pytest.raises(QueryError):
            slerp([1, 0], [0, 1], share)  # type: ignore[arg-type]


@given(VECTOR, st.lists(st.tuples(st.sampled_from([Add, Subtract, Toward]), VECTOR), max_size=5))
def test_every_walk_ends_on_a_unit_vector_or_says_that_it_cannot(start, given_steps):
    steps = [kind(vector) for kind, vector in given_steps]
    try:
        here = walk(start, steps, of)
    except QueryError:
        return
    assert np.linalg.norm(here) == pytest.approx(1.0)
    for length in range(len(steps)):  # each step from where the one before ended
        there = walk(start, steps[: length + 1], of)
        before = walk(start, steps[:length], of)
        assert there.tolist() == pytest.approx(walk(before, [steps[length]], of).tolist())


def test_what_leads_to_zero_is_refused():
    for steps in ([Subtract([2.0, 0.0])], [Add([-3.0, 0.0])], [Add([0.0, 0.0])],
                  [Toward([-1.0, 0.0])], [Add([1.0])], [Add([0.0, 1.0], weight=-1)],
                  [Add([0.0, 1.0], weight=math.nan)], ["x"]):  # fmt: skip
        with pytest.raises(QueryError):
            walk([1.0, 0.0], steps, of)  # type: ignore[arg-type]
    with pytest.raises(QueryError):
        walk([0.0, 0.0], [], of)


@pytest.fixture
def royal(db: Database) -> Database:
    for key, vector in {
        "king": [1.0, 1.0, 0.0], "man": [0.0, 1.0, 0.0], "woman": [0.0, 0.0, 1.0],
        "queen": [1.0, 0.0, 1.0], "stone": [-1.0, 0.0, 0.0],
    }.items():  # fmt: skip
        db.embed("w", key, vector, {"royal": key in ("king", "queen")})
    return db


def test_navigation_finds_what_the_steps_lead_to_and_none_of_the_operands(royal):
    found = royal.navigate("w", "king", [Subtract("man"), Add("woman")], k=10)

    assert [hit.key for hit in found] == ["queen", "stone"]
    target = walk([1, 1, 0], [Subtract([0, 1, 0]), Add([0, 0, 1])], of)
    whole = royal.similar("w", target, k=10, exact=True)
    assert list(found) == [hit for hit in whole if hit.key in ("queen", "stone")]


def test_there_are_as_many_hits_as_match_beside_the_operands(royal):
    for k in range(5):
        found = royal.navigate("w", "king", [Toward("stone", 0.2)], k=k)
        assert len(found) == min(k, 3)
        assert found == royal.navigate("w", "king", [Toward("stone", 0.2)], k=10)[:k]
    filtered = royal.navigate("w", "man", [Add("king")], filter={"royal": True})
    assert [hit.key for hit in filtered] == ["queen"]
    above = royal.navigate("w", "man", [Add("king")], threshold=0.0)
    assert [hit.key for hit in above] == ["queen", "woman"]


def test_operands_are_what_they_were_at_that_moment(royal):
    then = royal.version("w", "stone")
    before = royal.navigate("w", "king", [Add("woman")], as_of=then)
    royal.embed("w", "woman", [0.0, -1.0, 0.5])
    royal.delete("w", "king")

    assert royal.navigate("w", "king", [Add("woman")], as_of=then) == before
    assert royal.as_of(then).navigate("w", "king", [Add("woman")]) == before
    with pytest.raises(KeyNotFoundError):
        royal.navigate("w", "king", [Add("woman")])
    with pytest.raises(KeyNotFoundError):
        royal.navigate("w", "man", [Add("nobody")])
    with pytest.raises(KeyNotFoundError):
        royal.navigate("nowhere", "man", [])


def test_a_key_without_a_vector_is_no_operand(royal):
    royal.put("w", "bare", {"royal": False})
    with pytest.raises(NoVectorError, match="'bare' in 'w' has no vector"):
        royal.navigate("w", "bare", [])
    royal.embed("w", "other", [1.0, 0.0], model="flat")
    with pytest.raises(NoVectorError, match="model 'default'"):
        royal.navigate("w", "other", [], model="default")


def test_vectors_and_words_are_operands_too(db):
    db.embed_many("t", [("a", "rain in spring"), ("b", "sun in summer"), ("c", "snow")])
    found = db.navigate("t", Words("rain"), [Add(Words("spring"))], k=1)
    assert [hit.key for hit in found] == ["a"]
    vector = db.vectors(db.version("t", "b")).popitem()[1]
    assert db.navigate("t", vector, [], k=1)[0].key == "b"  # a vector names no key
    assert [hit.key for hit in db.navigate("t", "b", [])] == ["a", "c"]


def test_steps_that_are_none_and_wrong_dimensions_are_refused(royal):
    for steps in ("king", Add("king"), ["king"], [None], 3):
        with pytest.raises(QueryError):
            royal.navigate("w", "man", steps)
    with pytest.raises(QueryError, match="leads to zero"):
        royal.navigate("w", "man", [Subtract("man")])
    with pytest.raises(DimensionMismatchError):
        royal.navigate("w", [1.0, 0.0], [])
    assert koru_delta.Matches() == royal.navigate("empty", [1.0, 0.0], [])
