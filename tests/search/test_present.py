"""A graph over rows with valid times: of what is true now, and never of another moment."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

import koru_delta
from koru_delta.causal import FOREVER, moment
from koru_delta.search import graph, upkeep
from koru_delta.testing import FixedClock
from tests.indexing import SMALL, check_approximate, lower
from tests.search.test_plans import forced

pytestmark = pytest.mark.skipif(not graph.available(), reason="hnswlib is not installed")
DAY = timedelta(days=1)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    lower(SMALL, monkeypatch.setattr)
    monkeypatch.setattr(upkeep.Upkeep, "nudge", lambda _self, _space: None)
    return monkeypatch


def test_the_graph_follows_what_becomes_true_and_what_ends(small):
    clock = FixedClock()
    start = moment(clock())
    numbers = np.random.default_rng(70)
    vectors = numbers.standard_normal((260, 12)).astype(np.float32)
    with koru_delta.open(None, clock=clock) as db:
        for n in range(200):  # true since long ago
            db.embed("v", f"k{n:03}", vectors[n], n, valid_from=start - (n + 1) * DAY)
        for n in range(200, 230):  # true from tomorrow on
            db.embed("v", f"k{n:03}", vectors[n], n, valid_from=start + DAY)
        for n in range(230, 260):  # true until the day after tomorrow, or alive until then
            end = {"valid_to": start + 2 * DAY} if n % 2 else {"ttl": 2 * DAY.total_seconds()}
            db.embed("v", f"k{n:03}", vectors[n], n, **end)
        then = db.commits()[-1]
        db.build_index()

        def check(known: int, plans: set[str]) -> None:
            for query in vectors[195:260:3]:
                whole = db.similar("v", query, k=300, exact=True)
                assert whole.considered == known
                plan = db.similar("v", query).plan
                assert plan in plans
                check_approximate(db.similar("v", query), whole, 10)
                check_approximate(db.similar_many("v", query[None])[0], whole, 10)
                past = db.similar("v", query, as_of=then)
                check_approximate(past, db.similar("v", query, k=300, as_of=then, exact=True), 10)
                assert past.considered == 230

        with forced(db, "graph"):
            check(230, {"graph"})
            clock.advance(seconds=DAY.total_seconds())
            check(260, {"scan"})  # some are true now that the graph lacks
            db.build_index()
            check(260, {"graph"})
            db.embed("v", "k000", vectors[1] * 2, 0, valid_from=start - 9 * DAY)
            db.delete("v", "k001")
            check(259, {"graph"})
            clock.advance(seconds=DAY.total_seconds() + 1)  # each write is a microsecond later
            check(229, {"graph"})
            db.build_index()
            check(229, {"graph"})
            assert db.stats()["vector_spaces"][0]["in_graph"] == 229


def test_masks_of_rows_with_times_are_kept_until_one_begins_or_ends(small):
    clock = FixedClock()
    start = moment(clock())
    with koru_delta.open(None, clock=clock) as db:
        for n in range(50):
            db.embed("v", f"k{n:02}", [1.0, n], {"n": n % 2}, valid_from=start + n * DAY)
        for day in range(50):
            for _ in range(3):
                clock.advance(seconds=1)
                found = db.similar("v", [1.0, 0.0], k=100, filter={"n": 0})
                assert found.considered == len(found) == day // 2 + 1
                planned = db.similar("v", [1.0, 0.0], k=100, valid_at=start + 49 * DAY)
                assert len(planned) == 50
                early = db.similar("v", [1.0, 0.0], k=100, valid_at=start + 3 * DAY)
                assert len(early) == 4
            clock.advance(seconds=DAY.total_seconds())


def _hide(db: koru_delta.Database, keys: list[str]) -> None:
    db.hide_many([db.version("v", key) for key in keys])


ENDS = {
    "delete": lambda db, keys: db.delete_many("v", keys),
    "hide": _hide,
    "put": lambda db, keys: db.put_many([("v", key, 1) for key in keys]),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("narrow", [True, False])
def test_what_ended_after_a_moment_that_was_searched_while_it_was_now_is_found_there(
    small, end, narrow
):
    """No row is added, so that what was made for the moment fits; the graph of now does not."""
    numbers = np.random.default_rng(73)
    vectors = numbers.standard_normal((300, 12)).astype(np.float32)
    where = {"filter": {"most": True}} if narrow else {}
    with koru_delta.open(None) as db:
        items = [(f"k{n:03}", vector, {"most": n % 10 > 0}) for n, vector in enumerate(vectors)]
        db.embed_many("v", items)
        if not narrow:  # so that what is visible depends on the time
            db.embed("v", "for a day", vectors[0] + 9, {"most": True}, ttl=DAY)
        then = db.commits()[-1]
        db.build_index()
        asked = vectors[: 2 if narrow else 9]
        with forced(db, "graph"):
            before = [db.similar("v", query, exact=True, **where) for query in asked]
            for query in asked:
                assert db.similar("v", query, **where).plan == "graph"
            ENDS[end](db, sorted({match.key for some in before for match in some}))
            db.similar("v", vectors[0], **where)
            db.build_index()  # takes what ended out of the graph
            for query, known in zip(asked, before, strict=True):
                now = {match.key for match in db.similar("v", query, **where)}
                assert not now & {match.key for match in known}
                past = db.similar("v", query, as_of=then, **where)
                assert past.plan != "graph"
                assert [match.key for match in past] == [match.key for match in known]
                [together] = db.similar_many("v", query[None], as_of=then, **where)
                assert past == together == db.as_of(then).similar("v", query, **where)


def test_a_way_that_was_chosen_with_a_graph_is_not_taken_without_one(small):
    """Nothing has been sealed yet, and most of it ends, so that the graph is dropped."""
    numbers = np.random.default_rng(74)
    vectors = numbers.standard_normal((38, 12)).astype(np.float32)
    with koru_delta.open(None) as db:
        db.embed_many("v", [(f"k{n}", vector, {"n": n % 2}) for n, vector in enumerate(vectors)])
        small.setattr(upkeep, "SEAL_LEAST", 1000)
        small.setattr(upkeep, "SEAL_ROWS", 1000)
        then = db.commits()[-1]
        db.build_index()
        with forced(db, "graph"):
            whole = db.similar("v", vectors[0], filter={"n": 0}, k=5, exact=True)
            assert db.similar("v", vectors[0], filter={"n": 0}, k=5).plan == "graph"
            db.delete_many("v", [f"k{n}" for n in range(30)])
            db.similar("v", vectors[0])
            db.build_index()
            assert db.stats()["vector_spaces"][0]["in_graph"] == 0
            for _ in range(3):
                past = db.similar("v", vectors[0], filter={"n": 0}, k=5, as_of=then)
                assert [match.key for match in past] == [match.key for match in whole]


def test_threads_with_readings_of_different_times_do_not_take_each_others_ways(small):
    numbers = np.random.default_rng(76)
    with koru_delta.open(None) as db:
        items = [(f"k{n}", row, {"n": n % 2}) for n, row in enumerate(numbers.normal(size=(90, 9)))]
        db.embed_many("v", items)
        query, where = numbers.normal(size=9), {"n": 0}
        db.similar("v", query, filter=where)
        [space] = db._vectors.opened()
        without = space.reading
        db.build_index()
        with forced(db, "graph"):
            for _ in range(3):
                assert db.similar("v", query, filter=where).plan == "graph"
            [kept] = space._masks.values()
            for reading, ways in ((without, {"scan"}), (space.reading, {"graph"})) * 2:
                ways_of = {space._way(reading, kept.mask, 45, 10, 0.95, FOREVER - 1)[0]}
                assert ways_of == ways


@pytest.mark.parametrize("together", [False, True])
def test_a_search_under_way_notices_that_rows_it_may_see_were_taken_out_of_the_graph(
    small, together
):
    numbers = np.random.default_rng(75)
    vectors = numbers.standard_normal((200, 12)).astype(np.float32)
    with koru_delta.open(None) as db:
        db.embed_many("v", [(f"k{n:03}", vector) for n, vector in enumerate(vectors)])
        then = db.commits()[-1]
        db.build_index()
        whole = db.similar("v", vectors[0], exact=True)

        def meanwhile(real):
            def asked(*args):
                small.setattr(graph.LiveGraph, "nearest", nearest)
                small.setattr(graph.LiveGraph, "nearest_many", nearest_many)
                db.delete_many("v", [match.key for match in whole])
                db.similar("v", vectors[0], exact=True)
                db.build_index()
                return real(*args)

            return asked

        nearest, nearest_many = graph.LiveGraph.nearest, graph.LiveGraph.nearest_many
        small.setattr(graph.LiveGraph, "nearest", meanwhile(nearest))
        small.setattr(graph.LiveGraph, "nearest_many", meanwhile(nearest_many))
        with forced(db, "graph"):
            if together:
                [found] = db.similar_many("v", vectors[:1], as_of=then)
            else:
                found = db.similar("v", vectors[0], as_of=then)
            assert [match.key for match in found] == [match.key for match in whole]
