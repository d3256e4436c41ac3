"""A filter over what is there now is answered by the graph, where enough of the nearest pass."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import koru_delta
from koru_delta import Database, Matches
from koru_delta.search import graph, nearest
from koru_delta.search.plan import Costs, Situation, asked_of, choose

ROWS, DIMENSIONS, TOPICS = 4_000, 32, 8
QUERIES = 60

pytestmark = pytest.mark.skipif(not graph.available(), reason="hnswlib is not installed")


def rows_near(numbers: np.random.Generator, topics: np.ndarray) -> np.ndarray:
    centres = 3 * np.random.default_rng(1).standard_normal((TOPICS, DIMENSIONS))
    noise = numbers.standard_normal((len(topics), DIMENSIONS))
    return (centres[topics] + noise).astype(np.float32)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every other row is even, and a topic's rows lie together."""
    place = tmp_path_factory.mktemp("narrowed") / "db"
    numbers = np.random.default_rng(2)
    topics = np.arange(ROWS) % TOPICS
    vectors = rows_near(numbers, topics)
    parities = numbers.integers(0, 2, ROWS)
    with koru_delta.open(place, durability="relaxed") as db:
        db.embed_many(
            "v",
            [
                (str(n), vectors[n], {"even": int(parities[n]), "topic": int(topics[n])})
                for n in range(ROWS)
            ],
        )
        db.build_index()
    return place


@pytest.fixture
def db(stored: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Whose searches take the graph wherever they may, and it is not mostly in vain."""
    monkeypatch.setattr(
        nearest,
        "choose",
        lambda it, _costs: "gather" if it.effort is None or it.in_vain > 0.5 else "graph",
    )
    with koru_delta.open(stored) as opened:
        opened.similar("v", np.ones(DIMENSIONS))
        opened.build_index()
        yield opened


def asked(seed: int, count: int = QUERIES) -> np.ndarray:
    numbers = np.random.default_rng(seed)
    return rows_near(numbers, numbers.integers(0, TOPICS, count))


def recall(found: list[Matches], true: list[Matches]) -> float:
    shared = [
        len({hit.key for hit in some} & {hit.key for hit in best}) / len(best)
        for some, best in zip(found, true, strict=True)
    ]
    return float(np.mean(shared))


def mostly_by_graph(answers: list[Matches]) -> bool:
    """Now and then too few of the nearest pass, and another way answers."""
    return [answer.plan for answer in answers].count("graph") > 0.8 * len(answers)


def check_is_promised(found: Matches, true: Matches, wanted: int) -> None:
    """Hits that pass, as many as there are, with exact scores in exact order."""
    assert len(found) == min(10, wanted)
    every = {hit.key: hit.score for hit in true}
    assert all(every[hit.key] == hit.score for hit in found)
    order = [(-hit.score, hit.key) for hit in found]
    assert order == sorted(order)


HALF = {"even": 1}


def test_half_of_what_is_there_is_found_by_the_graph_with_its_recall(db):
    answers = [db.similar("v", query, filter=HALF) for query in asked(3)]
    true = [db.similar("v", query, filter=HALF, exact=True) for query in asked(3)]
    assert mostly_by_graph(answers)
    assert recall(answers, true) >= 0.98
    for query, answer in zip(asked(3), answers, strict=True):
        all_that_pass = db.similar("v", query, filter=HALF, exact=True, k=ROWS)
        check_is_promised(answer, all_that_pass, len(all_that_pass))
        assert answer.considered == len(all_that_pass)


def test_batches_under_a_filter_find_what_one_query_finds(db):
    alone = [db.similar("v", query, filter=HALF) for query in asked(4)]
    together = db.similar_many("v", asked(4), filter=HALF)
    assert [[(hit.key, hit.score) for hit in some] for some in together] == [
        [(hit.key, hit.score) for hit in some] for some in alone
    ]
    assert mostly_by_graph(together)


def test_a_filter_that_keeps_another_topic_is_answered_otherwise_and_the_graph_left_alone(db):
    """None of the nearest pass: a graph would mislead, and is not asked again and again."""
    other = {"topic": 0}
    numbers = np.random.default_rng(5)
    far = rows_near(numbers, np.full(QUERIES, 4))
    answers = [db.similar("v", query, filter=other) for query in far]
    true = [db.similar("v", query, filter=other, exact=True) for query in far]
    hits = [[(hit.key, hit.score) for hit in some] for some in answers]
    assert hits == [[(hit.key, hit.score) for hit in some] for some in true]
    [space] = db._vectors.opened()
    [kept] = [kept for kept in space._masks.values() if kept.tries.failed]
    assert kept.tries.asked < QUERIES / 2


def test_the_more_often_a_graph_is_asked_in_vain_the_less_it_is_worth():
    it = Situation(
        visible=20_000, stored=100_000, span=100_000, dimensions=384, codes="turbo4",
        coded=100_000, uncoded=0, bounded=0, effort=60, unfed=0,
    )  # fmt: skip
    ways = [choose(it._replace(in_vain=share), Costs()) for share in (0, 0.2, 0.4, 0.6, 0.8, 1)]
    assert (ways[0], ways[-1]) == ("graph", "codes")
    assert (
        sorted(ways, reverse=True) == ways
    )  # once it is left, more in vain does not bring it back


def test_a_batch_in_vain_leads_later_searches_elsewhere_too(db):
    numbers = np.random.default_rng(9)
    far = rows_near(numbers, np.full(QUERIES, 4))
    near = rows_near(numbers, np.zeros(1, dtype=np.int64))[0]
    for _ in range(3):  # by then it is a filter that comes again, whose way is kept
        db.similar("v", near, filter={"topic": 0})
    assert db.similar("v", near, filter={"topic": 0}).plan == "graph"
    db.similar_many("v", far, filter={"topic": 0})
    assert db.similar("v", near, filter={"topic": 0}).plan == "gather"


def test_within_its_topic_a_filter_is_answered_by_the_graph(db):
    near = rows_near(np.random.default_rng(6), np.full(QUERIES, 2))
    answers = [db.similar("v", query, filter={"topic": 2}) for query in near]
    true = [db.similar("v", query, filter={"topic": 2}, exact=True) for query in near]
    assert mostly_by_graph(answers)
    assert recall(answers, true) >= 0.98


def test_what_was_written_or_deleted_since_is_seen_through_a_filter(stored, db, tmp_path):
    query = asked(7, 1)[0]
    [best] = db.similar("v", query, filter=HALF, k=1)
    with koru_delta.open(shutil.copytree(stored, tmp_path / "db")) as own:
        own.similar("v", query)
        own.build_index()
        own.embed("v", "new", query, {"even": 1, "topic": 0})
        own.embed("v", "odd", query, {"even": 0, "topic": 0})
        own.delete("v", best.key)
        found = own.similar("v", query, filter=HALF)
        true = own.similar("v", query, filter=HALF, exact=True, k=ROWS)
        assert found.plan == "graph"
        assert found[0].key == "new"
        assert not {"odd", best.key} & {hit.key for hit in found}
        check_is_promised(found, true, len(true))
        assert recall([found], [Matches(true[:10])]) >= 0.9


def test_so_many_are_asked_for_that_enough_pass():
    numbers = np.random.default_rng(8)
    for k, share in ((1, 0.5), (10, 0.5), (10, 0.1), (100, 0.3), (10, 0.9)):
        passing = numbers.binomial(asked_of(k, share), share, 4_000)
        assert np.mean(passing >= k) > 0.95
    assert asked_of(10, 1.0) == 10
