"""A filter or moment that comes again is answered from what was made of it, as before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import numpy as np
import pytest

import koru_delta
from koru_delta import Database, Version
from koru_delta.search import candidates, codes, masks, readings
from koru_delta.search import kept as keeping
from koru_delta.search.plan import Costs, Situation, choose
from tests.indexing import SMALL, check_approximate, check_exact, lower
from tests.search.test_plans import METRICS, choose_again, forced, rows_of


@contextmanager
def numbered(vectors: np.ndarray, numbers: int, metric: Any = "cosine") -> Iterator[Database]:
    """A database with these vectors, indexed: row `i` is `k<i>`, with number `i % numbers`."""
    with koru_delta.open() as db:
        items = [(f"k{n:03}", vector, {"n": n % numbers}) for n, vector in enumerate(vectors)]
        db.embed_many("v", items, metric=metric)
        db.build_index()
        yield db


def check_has_gone(db: Database, query: np.ndarray, then: Version) -> None:
    """A filter passes `k000` no longer, however often it is asked, and did `then`."""
    for _ in range(3):
        keys = {hit.key for hit in db.similar("v", query, filter={"n": 0}, k=100)}
        assert "k000" not in keys
        past = db.similar("v", query, filter={"n": 0}, k=1, as_of=then)
        assert past[0].key == "k000"


@pytest.mark.parametrize("metric", METRICS)
def test_a_filter_that_comes_again_is_answered_from_copies_as_before(small, metric):
    small.setattr(readings, "_COPIED_BYTES", 2 * 100 * (16 * 4 + 8))  # room for two filters
    small.setattr(keeping, "_UNTIL_COPIED_AGAIN", 1)
    numbers = np.random.default_rng(40)
    vectors = rows_of(numbers, 300, 16)
    with numbered(vectors, 3, metric) as db:
        then = db.version("v", "k299")
        with forced(db, "packed"):
            for query in rows_of(numbers, 4, 16):
                for n in (0, 1, 2):
                    options = {"filter": {"n": n}, "k": 7}
                    first = db.similar("v", query, **options)
                    again = db.similar("v", query, **options)
                    [together] = db.similar_many("v", query[None], **options)
                    found = (again.plan, again.approximate, again.considered)
                    assert found == ("packed", False, 100)
                    whole = check_exact(db, "v", metric, query)
                    best = [match for match in whole if int(match.key[1:]) % 3 == n][:7]
                    assert first == again == together == best
            [space] = db._vectors.opened()
            held = [kept for kept in space._masks.values() if kept.packed is not None]
            assert len(held) == 2
            db.embed("v", "k000", vectors[0], {"n": 1})
            check_has_gone(db, vectors[0], then)


def test_filters_that_take_turns_do_not_push_out_each_others_copies_all_the_time(small):
    small.setattr(readings, "_COPIED_BYTES", 2 * 100 * (16 * 4 + 8))  # room for two filters
    numbers = np.random.default_rng(44)
    made = []
    copy = masks.Masks._packed

    def noted(self, reading, mask):
        if mask.packed is None:
            made.append(mask.uses)
        return copy(self, reading, mask)

    small.setattr(masks.Masks, "_packed", noted)
    turns = 2 * keeping._UNTIL_COPIED_AGAIN
    with numbered(rows_of(numbers, 300, 16), 3) as db, forced(db, "packed"):
        for query in rows_of(numbers, turns, 16):
            for n in (0, 1, 2):
                found = db.similar("v", query, filter={"n": n}, k=7)
                exact = db.similar("v", query, filter={"n": n}, k=7, exact=True)
                assert found == exact
    assert len(set(made)) > 1, "no filter was let in again"
    assert len(made) < turns / 8


def test_the_filter_that_was_not_asked_for_longest_is_let_go_of(small):
    small.setattr(masks, "_MASKS_KEPT", 3)
    numbers = np.random.default_rng(45)
    with numbered(rows_of(numbers, 300, 16), 10) as db:
        for n in (0, 1, 0, 2, 0, 3, 0, 4, 0):
            db.similar("v", numbers.standard_normal(16), filter={"n": n})
        [space] = db._vectors.opened()
        assert sorted(kept.uses for kept in space._masks.values()) == [0, 0, 4]


@pytest.mark.parametrize(
    ("visible", "stored", "way"),
    [
        (2_000, 200_000, "packed"),
        (10_000, 200_000, "packed"),  # more than fits a cache, yet less than all the codes
        (20_000, 200_000, "codes"),
        (10_000, 40_000, "codes"),
        (3_000, 40_000, "packed"),
    ],
)
def test_copies_are_gone_over_where_that_is_less_than_all_codes(visible, stored, way):
    it = Situation(
        visible=visible, stored=stored, span=stored, dimensions=384, codes="turbo4",
        coded=stored, uncoded=0, bounded=0, effort=None, unfed=0, packable=True,
    )  # fmt: skip
    assert choose(it, Costs()) == way


def test_scattered_rows_cost_what_it_takes_to_fetch_them_from_all_that_is_stored():
    """Seven thousand that lie together fit a cache; from over 200,000 they come from memory."""
    it = Situation(
        visible=7_000, stored=200_000, span=200_000, dimensions=384, codes="turbo4",
        coded=200_000, uncoded=0, bounded=0, effort=None, unfed=0,
    )  # fmt: skip
    assert choose(it, Costs()) == "codes"
    assert choose(it._replace(visible=4_000), Costs()) == "gather"


@pytest.mark.parametrize("metric", METRICS)
def test_a_filter_that_comes_again_has_codes_of_its_own_until_what_it_passes_changes(small, metric):
    numbers = np.random.default_rng(41)
    vectors = rows_of(numbers, 300, 16)
    with numbered(vectors, 3, metric) as db:
        then = db.version("v", "k299")
        [space] = db._vectors.opened()

        def check(n: int, **moment: Any) -> None:
            for query in rows_of(numbers, 4, 16):
                options = {"filter": {"n": n}, "k": 7, **moment}
                found = db.similar("v", query, **options)
                [together] = db.similar_many("v", query[None], **options)
                exact = db.similar("v", query, exact=True, **options | {"k": 300})
                assert (found.plan, found.approximate) == ("codes", True)
                check_approximate(found, exact, 7)
                check_approximate(together, exact, 7)

        with forced(db, "codes"):
            check(0)
            check(0)
            db.build_index()
            choose_again(db)
            [kept] = [kept for kept in space._masks.values() if kept.coded is not None]
            assert kept.coded.slots.tolist() == list(range(0, 300, 3))
            check(0)
            check(1)
            db.embed("v", "k000", vectors[0], {"n": 1})
            check(0)
            check(1)
            check_has_gone(db, vectors[0], then)
            db.build_index()
            choose_again(db)
            check(0)
            check(0, as_of=then)
            assert {len(kept.coded.slots) for kept in space._masks.values() if kept.coded} == {
                99, 100, 101,
            }  # fmt: skip


def test_codes_of_a_filters_own_are_made_beside_searches(monkeypatch):
    lower(SMALL, monkeypatch.setattr)
    numbers = np.random.default_rng(43)
    with numbered(rows_of(numbers, 200, 16), 2) as db:
        [space] = db._vectors.opened()
        with forced(db, "codes"):
            ends = monotonic() + 60
            while not any(kept.coded for kept in list(space._masks.values())):
                db.similar("v", numbers.standard_normal(16), filter={"n": 1})
                assert monotonic() < ends, "no codes were made"


@pytest.mark.parametrize("failure", [codes.CodesUnavailable("no more of them"), None])
def test_codes_of_a_filters_own_that_fail_or_hold_no_recall_are_done_without(small, failure):
    numbers = np.random.default_rng(42)
    with numbered(rows_of(numbers, 200, 16), 2) as db:
        with forced(db, "codes"):
            for query in rows_of(numbers, 3, 16):
                db.similar("v", query, filter={"n": 1})
            [space] = db._vectors.opened()
            assert len(space.to_code) == 1

            def fail(*_args: Any, **_options: Any) -> None:
                if failure is not None:
                    raise failure

            with small.context() as failing:
                failing.setattr(masks, "encode", fail)
                db.build_index()
            assert not any(kept.coded for kept in space._masks.values())
            choose_again(db)
            for query in rows_of(numbers, 3, 16):
                found = db.similar("v", query, filter={"n": 1})
                assert found.plan == "codes"
                exact = db.similar("v", query, filter={"n": 1}, k=200, exact=True)
                check_approximate(found, exact, 10)
        db.embed_many("v", [(f"x{n}", row) for n, row in enumerate(rows_of(numbers, 50, 16))])
        db.build_index()  # all else is made as before
        assert db.stats()["vector_spaces"][0]["in_tail"] == 0


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_codes_that_cannot_tell_what_is_near_are_asked_for_more(monkeypatch, metric, own):
    """A few rows lie so close together that codes, good enough for most, give any of them."""
    monkeypatch.setattr(candidates, "_OFTEN", 8)
    numbers = np.random.default_rng(46)
    vectors = numbers.standard_normal((6000, 64))
    vectors[::50] = vectors[0] + numbers.standard_normal((120, 64)) * 0.1
    queries = vectors[0] + numbers.standard_normal((60, 64)) * 0.1
    with numbered(vectors, 2, metric) as db, forced(db, "codes"):
        if own:
            for query in queries[:10]:
                db.similar("v", query, filter={"n": 0})
            db.build_index()
        [space] = db._vectors.opened()
        assert any(kept.coded for kept in space._masks.values()) is own
        choose_again(db)
        for k in (1, 10):
            found, alone = 0, 0
            together = db.similar_many("v", queries, k=k, filter={"n": 0})
            for query, one in zip(queries, together, strict=True):
                exact = db.similar("v", query, k=k, filter={"n": 0}, exact=True)
                best = {match.key for match in exact}
                found += len(best & {match.key for match in one})
                by_itself = db.similar("v", query, k=k, filter={"n": 0})
                alone += len(best & {match.key for match in by_itself})
            assert min(found, alone) >= 0.95 * 60 * k, (k, found, alone)


def test_more_filters_than_can_wait_for_codes_have_some_later(small):
    numbers = np.random.default_rng(45)
    with numbered(rows_of(numbers, 200, 16), 9) as db:
        [space] = db._vectors.opened()
        with forced(db, "codes"):
            for _ in range(3):
                for n in range(9):
                    for query in rows_of(numbers, 3, 16):
                        db.similar("v", query, filter={"n": n})
                db.build_index()
            assert sum(kept.coded is not None for kept in space._masks.values()) == 9


def test_codes_of_a_filters_own_are_asked_for_no_more_recall_than_they_hold(small):
    encode = codes.encode

    def poorly(vectors, metric, **_options: Any):
        found = encode(vectors, metric, kind="signs")
        found.needs = (20, 20, 20, 20, 0)  # never .99
        return found

    small.setattr(codes, "encode", poorly)
    small.setattr(masks, "encode", poorly)
    numbers = np.random.default_rng(44)
    with numbered(rows_of(numbers, 200, 16), 2) as db, forced(db, "codes"):
        for query in rows_of(numbers, 3, 16):
            db.similar("v", query, filter={"n": 1})
        db.build_index()
        [space] = db._vectors.opened()
        assert any(kept.coded for kept in space._masks.values())
        for recall, plan in ((0.98, "codes"), (0.99, "scan")):
            choose_again(db)
            for query in rows_of(numbers, 3, 16):
                options = {"filter": {"n": 1}, "recall": recall}
                exact = db.similar("v", query, filter={"n": 1}, k=200, exact=True)
                [together] = db.similar_many("v", query[None], **options)
                for found in (db.similar("v", query, **options), together):
                    assert found.plan == plan
                    check_approximate(found, exact, 10)
