"""Pages of a search: together they are one search, however large each of them is.

More texts than the window of a fusion holds; see `test_explained`.
"""

from __future__ import annotations

from typing import Any

import pytest

import koru_delta
from koru_delta import CausalFilter, Database
from koru_delta.errors import QueryError
from koru_delta.testing import FixedClock
from tests.search.test_explained import filled

__all__ = ["filled"]

Hits = list[tuple[str, float]]
TEXT = "rain in the fog, or a storm"
SEARCHES: dict[str, dict[str, Any]] = {
    "text": {"mode": "text"},
    "vector": {"mode": "vector"},
    "hybrid": {},
    "scores": {"fusion": "score"},
    "weighted": {"weights": {"vector": 0.2, "text": 1.5}},
    "aged": {"half_life": 900.0},
    "aged text": {"half_life": 5000.0, "mode": "text"},
    "grouped": {"group_by": "doc"},
    "grouped text": {"group_by": "doc", "mode": "text"},
    "above": {"threshold": 0.012},
    "scores above": {"threshold": 0.3, "fusion": "score"},
    "aged and above": {"threshold": 0.3, "half_life": 9000.0, "mode": "text"},
    "filtered": {"filter": {"n": {"$gte": 60}}, "causal": CausalFilter(exclude_superseded=False)},
    "all at once": {"group_by": "doc", "half_life": 9000.0, "threshold": 0.001},
}


def read(db: Database, given: dict[str, Any], first: int, more: int) -> tuple[Hits, list[int]]:
    """All pages, the first of one size and those after it of another."""
    page = db.search("n", TEXT, k=first, exact=True, **given)
    found = [(hit.key, hit.score) for hit in page]
    sizes = [len(page)]
    while page.cursor is not None:
        page = db.search("n", TEXT, k=more, cursor=page.cursor, **given)
        found += [(hit.key, hit.score) for hit in page]
        sizes.append(len(page))
    return found, sizes


@pytest.mark.parametrize("name", SEARCHES)
def test_pages_of_any_size_are_the_same_hits_in_the_same_order(filled: Database, name: str) -> None:
    given = SEARCHES[name]
    expected, _ = read(filled, given, 7, 1000)
    assert len(expected) >= 5
    assert len({key for key, _ in expected}) == len(expected)
    for more in (3, 7, 40, 90):
        found, sizes = read(filled, given, 7, more)
        assert found == expected
        assert all(size == more for size in sizes[1:-1])


@pytest.mark.parametrize("name", ["text", "vector", "grouped text", "filtered"])
def test_pages_of_one_leg_are_one_search_with_a_great_k(filled: Database, name: str) -> None:
    given = {"mode": "text", **SEARCHES[name]}
    whole = filled.search("n", TEXT, k=1000, exact=True, **given)
    assert read(filled, given, 7, 11)[0] == [(hit.key, hit.score) for hit in whole]
    assert whole.cursor is None


@pytest.mark.parametrize("name", SEARCHES)
def test_every_score_reaches_the_threshold_best_first(filled: Database, name: str) -> None:
    given = SEARCHES[name]
    found = filled.search("n", TEXT, k=5, exact=True, **given)
    scores = [hit.score for hit in found]
    assert scores == sorted(scores, reverse=True)
    assert all(score >= given.get("threshold", -1) for score in scores)


def test_what_reaches_a_threshold_is_found_however_old_others_are(filled: Database) -> None:
    """An age that leaves nothing of the first does not end a search before the fresh ones."""
    given: dict[str, Any] = {"mode": "text", "half_life": 20_000.0}
    aged = filled.search("n", TEXT, k=1000, exact=True, **given)
    threshold = sorted(hit.score for hit in aged)[-12]
    enough = {hit.key for hit in aged if hit.score >= threshold}
    found = filled.search("n", TEXT, k=12, exact=True, threshold=threshold, **given)
    assert {hit.key for hit in found} == enough


def test_a_page_of_another_moment_than_the_first_is_refused(clock: FixedClock) -> None:
    with koru_delta.open(clock=clock) as db:
        for key in "abcd":
            then = db.put("n", key, "rain")
            clock.advance(seconds=1)
        page = db.search("n", "rain", mode="text", k=1, as_of=then)
        first = db.search("n", "rain", mode="text", k=1)
        clock.advance(seconds=1)
        db.put("n", "e", "rain")

        def more(**options: object) -> list[str]:
            found = db.search("n", "rain", mode="text", k=9, cursor=page.cursor, **options)
            return [hit.key for hit in found]

        assert more() == more(as_of=then) == ["b", "c", "d"]
        assert more(as_of=then, valid_at=then.time) == ["b", "c", "d"]
        again = db.as_of(then).search("n", "rain", mode="text", k=9, cursor=page.cursor)
        assert [hit.key for hit in again] == ["b", "c", "d"]
        for other in ({"as_of": then.seq - 1}, {"valid_at": "1999-01-01T00:00:00Z"}):
            with pytest.raises(QueryError, match="another"):
                more(**other)
        with pytest.raises(QueryError, match="another moment"):
            db.search("n", "rain", mode="text", k=1, cursor=first.cursor, as_of=1)
