"""Queries unlike all rows, and rows close together, are answered as well as was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import koru_delta
from koru_delta import Database
from koru_delta.search import codes, graphs, nearest
from koru_delta.search.frame import RECALLS
from koru_delta.search.kept import Lists
from koru_delta.search.plan import Costs, Situation, Way, choose, places_of

ROWS, DIMENSIONS, QUERIES = 33_000, 64, 40  # so many rows that codes first make a shortlist


def flat(chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows near a surface of few dimensions, and queries from anywhere."""
    bent = chance.standard_normal((12, DIMENSIONS))
    rows = np.tanh(chance.standard_normal((ROWS, 12)) @ bent)
    return rows, rows.mean(axis=0) + rows.std() * chance.standard_normal((QUERIES, DIMENSIONS))


def ticked(chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of zeros and ones, of which none is near another, and queries like them."""
    return tuple(
        (chance.random((count, DIMENSIONS)) < 0.3).astype(np.float64) for count in (ROWS, QUERIES)
    )


def crowded(chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of which one in twenty lies close to the first, as all queries do."""
    spread = np.arange(1, 25)[:, None] ** -0.7 * chance.standard_normal((24, DIMENSIONS))
    rows, queries = (
        chance.standard_normal((count, 24)) @ spread
        + 0.05 * chance.standard_normal((count, DIMENSIONS))
        for count in (ROWS, QUERIES)
    )
    rows[1::20] = rows[0] + 0.1 * rows[1::20]
    return rows, rows[0] + 0.1 * queries


def found_of_best(db: Database, queries: np.ndarray, k: int, **options: Any) -> tuple[float, float]:
    """Recall of single searches, and of a batch; by scores, as rows may be equally near."""
    together = db.similar_many("v", queries, k=k, **options)
    found = np.zeros(2)
    for query, one in zip(queries, together, strict=True):
        least = db.similar("v", query, k=k, exact=True, **options)[-1].score
        for n, answer in enumerate((db.similar("v", query, k=k, **options), one)):
            assert len(answer) == k
            found[n] += sum(match.score >= least for match in answer)
    alone, batch = found / (k * len(queries))
    return float(alone), float(batch)


@pytest.fixture
def mostly_codes(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Codes are asked wherever there are some that hold the recall, and no graph."""

    def by_codes(it: Situation, costs: Costs) -> Way:
        return "codes" if it.codes is not None and it.coded else choose(it, costs)

    monkeypatch.setattr(nearest, "choose", by_codes)
    monkeypatch.setattr(graphs, "GRAPH_ROWS", 10**9)
    return monkeypatch


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("made", [flat, ticked, crowded])
def test_what_codes_alone_would_miss_is_found(mostly_codes, made, metric):
    measured = codes._needs

    def too_few(made: Any, *about: Any) -> tuple[int, ...]:
        """As if the few rows searched for in the trial of codes had been easy to find."""
        return (12,) * len(RECALLS) if made.name == "turbo4" else measured(made, *about)

    mostly_codes.setattr(codes, "_needs", too_few)
    rows, queries = made(np.random.default_rng(50))
    with koru_delta.open() as db:
        items = [(f"k{n}", row, {"near": n % 20 == 1}) for n, row in enumerate(rows)]
        [*_, then] = db.embed_many("v", items, metric=metric)
        db.build_index()
        db.delete("v", "k0")
        for k in (1, 10):
            for options in ({}, {"as_of": then}, {"filter": {"near": True}}):
                alone, batch = found_of_best(db, queries, k, **options)
                assert min(alone, batch) >= 0.95, (k, options, alone, batch)


@pytest.mark.parametrize("kind", ["turbo4", "signs"])
def test_questions_unlike_the_rows_find_the_most_that_can_be_asked_of_codes(mostly_codes, kind):
    if kind == "signs":
        mostly_codes.setattr(codes, "best_kind", lambda: kind)
    elif codes.best_kind() != kind:
        pytest.skip("turbovec is not installed")
    rows, queries = flat(np.random.default_rng(52))
    with koru_delta.open() as db:
        db.embed_many("v", [(f"k{n}", row) for n, row in enumerate(rows)])
        db.build_index()
        assert min(found_of_best(db, queries, 10, recall=0.99)) >= 0.99


def test_where_no_list_is_long_enough_codes_are_asked_no_more(mostly_codes):
    if codes.best_kind() != "turbo4":
        pytest.skip("turbovec is not installed, which tells by how much")
    mostly_codes.setattr(
        nearest, "choose", lambda it, _: "codes" if it.coded and it.fruitless < 0.4 else "scan"
    )
    mostly_codes.setattr(codes, "_needs", lambda *_about: (12,) * len(RECALLS))
    rows, queries = flat(np.random.default_rng(53))
    with koru_delta.open() as db:
        db.embed_many("v", [(f"k{n}", row) for n, row in enumerate(rows)])
        db.build_index()
        [space] = db._vectors.opened()
        for _ in range(3):  # so unlike the rows that even long lists do not tell
            plans = [db.similar("v", query).plan for query in queries]
        assert set(plans) == {"scan"}
        lists = space._lists[10, 0.95, False]
        assert 0.4 <= lists.tries.in_vain < 0.5


def test_where_lists_are_often_too_short_longer_ones_are_asked_for_at_once():
    lists = Lists()
    changes = []
    for n in range(500):
        lists.note(short=n >= 100 and n % 2 == 0)
        changes.append(lists.end(found=True))
    assert (changes[:100].count(True), changes.count(True)) == (0, 3)
    assert lists.longer == 4


def test_codes_that_are_asked_in_vain_are_worth_less():
    it = Situation(
        visible=40_000, stored=40_000, span=40_000, dimensions=384, codes="turbo4",
        coded=40_000, uncoded=0, bounded=40_000, effort=None, unfed=0,
    )  # fmt: skip
    ways = [choose(it._replace(fruitless=share), Costs()) for share in (0, 0.3, 0.6, 0.9)]
    assert ways == ["codes", "codes", "codes", "bounds"]


@pytest.mark.parametrize(
    ("listed", "way"), [(36, "codes"), (412, "codes"), (1_012, "bounds"), (4_012, "bounds")]
)
def test_long_lists_are_dear_to_keep_in_order(listed, way):
    it = Situation(
        visible=40_000, stored=40_000, span=40_000, dimensions=384, codes="turbo4",
        coded=40_000, uncoded=0, bounded=40_000, effort=None, unfed=0,
        listed=listed, places=places_of(listed, 40_000),
    )  # fmt: skip
    assert choose(it, Costs()) == way


def test_places_in_a_list_are_those_that_rows_take_and_leave():
    """Beside a list that is kept in order by hand."""
    chance = np.random.default_rng(54)
    count, rows = 50, 3_000
    kept: list[float] = []
    moved = 0
    for score in chance.random(rows).tolist():
        if len(kept) < count or score > kept[0]:
            moved += 1
            kept = sorted([*kept, score])[-count:]
    assert places_of(count, rows) == pytest.approx(moved * count, rel=0.1)
    assert places_of(0, rows) == 0
    assert places_of(10, 5) == places_of(5, 5) == 25


def lengths_of_decades(chance: np.random.Generator, count: int, decades: float) -> np.ndarray:
    drawn = chance.standard_normal((count, DIMENSIONS))
    return (drawn * 10 ** chance.uniform(-decades, decades, (count, 1))).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "decades", "ways"),
    [
        ("turbo4", 8, {"codes"}),
        ("turbo4", 12, {"codes"}),
        ("turbo4", 18, {"scan"}),  # given none
        ("signs", 8, {"scan"}),  # a trial tells that these are of no use here
        ("signs", 18, {"scan"}),
    ],
)
def test_lengths_of_any_decades_are_told_apart_or_given_no_codes(monkeypatch, kind, decades, ways):
    def by_codes(it: Situation, costs: Costs) -> Way:
        return "codes" if it.codes is not None and it.coded else "scan"

    if codes.best_kind() != kind:
        if kind == "turbo4":
            pytest.skip("turbovec is not installed")
        monkeypatch.setattr(codes, "best_kind", lambda: kind)
    monkeypatch.setattr(nearest, "choose", by_codes)
    monkeypatch.setattr(graphs, "GRAPH_ROWS", 10**9)
    chance = np.random.default_rng(51)
    rows, queries = (lengths_of_decades(chance, count, decades) for count in (20_000, 60))
    with koru_delta.open() as db:
        items = [(f"k{n}", row, {"n": n}) for n, row in enumerate(rows)]
        [*_, then] = db.embed_many("v", items, metric="dot")
        db.build_index()
        db.delete("v", "k0")
        plans = {db.similar("v", query, as_of=then).plan for query in queries}
        assert (
            ways <= plans <= ways | {"scan"}
        )  # where one of the best stands late, all are looked at
        for options in ({}, {"as_of": then}):
            alone, batch = found_of_best(db, queries, 10, **options)
            assert min(alone, batch) >= 0.98, (options, alone, batch)
