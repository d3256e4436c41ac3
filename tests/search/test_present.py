"""A graph over rows with valid times: of what is true now, and never of another moment."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

import koru_delta
from koru_delta.causal import moment
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
