"""Plans hold budgets and pins, are repeatable, and move nothing to and fro."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koru_delta.lifecycle import Budget, Plan, Settings, Stock, Tier
from koru_delta.lifecycle.plan import plan

NOW = 1_767_225_600_000_000
MINUTE = 60_000_000
DAY = 24 * 60 * MINUTE
UNITS = st.integers(1, 100)


def stock_of(rows: list[dict[str, Any]]) -> Stock:
    places = [row["place"] for row in rows]
    return Stock(
        np.array([sorted(places).index(place) for place in places], dtype=np.int64),
        np.array(["abn".index(namespace) for namespace, _ in places], dtype=np.int64),
        "abn",
        lambda some: [places[row] for row in some.tolist()],
        np.array([row["tier"] for row in rows], dtype=np.int64),
        np.array([row["sizes"] for row in rows], dtype=np.int64).reshape(len(rows), 4),
        np.array([row["score"] for row in rows], dtype=np.float64),
        np.array([row.get("lasting", row["score"]) for row in rows], dtype=np.float64),
        np.array([row["pinned"] for row in rows], dtype=bool),
        np.array([row["moved"] for row in rows], dtype=np.int64),
    )


@st.composite
def stocks(draw: st.DrawFn) -> Stock:
    places = draw(
        st.lists(
            st.tuples(st.sampled_from("ab"), st.text("xyz", min_size=1, max_size=3)),
            unique=True, max_size=25,
        )
    )  # fmt: skip
    rows = [
        {
            "place": place,
            "tier": draw(st.integers(0, 3)),
            "sizes": draw(st.lists(UNITS, min_size=4, max_size=4)),
            "score": draw(st.floats(0, 1)),
            "lasting": draw(st.floats(0, 1)),
            "pinned": draw(st.booleans()) and draw(st.booleans()),
            "moved": NOW - draw(st.sampled_from([NOW, 2 * DAY, 60 * MINUTE, MINUTE])),
        }
        for place in places
    ]
    return stock_of(rows)


LIMITS = st.none() | st.integers(0, 600)
BUDGETS = st.builds(Budget, LIMITS, LIMITS, LIMITS)
BY_NAME = st.dictionaries(st.sampled_from("ab"), BUDGETS)


def places_of(stock: Stock) -> list[tuple[str, str]]:
    return list(stock.places(np.arange(len(stock.ids))))


def carried_out(stock: Stock, planned: Plan, now: int) -> Stock:
    """The same keys where the plan wants them."""
    where = {place: row for row, place in enumerate(places_of(stock))}
    tiers, moved = stock.tiers.copy(), stock.moved.copy()
    for move in planned.moves:
        for key in move.keys:
            row = where[move.namespace, key]
            assert tiers[row] == move.source != move.target
            tiers[row], moved[row] = move.target, now
    return replace(stock, tiers=tiers, moved=moved)


@given(stocks(), BUDGETS, BY_NAME)
def test_every_budget_holds_but_for_what_is_pinned(
    stock: Stock, total: Budget, budgets: dict[str, Budget]
) -> None:
    after = carried_out(stock, plan(stock, total, NOW, budgets=budgets), NOW)

    names = np.array([namespace for namespace, _ in places_of(after)], dtype=object)
    for tier in (Tier.HOT, Tier.WARM, Tier.COLD):
        for limit, mine in [
            (total.of(tier), np.ones(len(names), dtype=bool)),
            *((budget.of(tier), names == name) for name, budget in budgets.items()),
        ]:
            there = (after.tiers == tier) & mine
            held = int(after.sizes[there, tier].sum())
            pinned = int(after.sizes[there & after.pinned, tier].sum())
            assert limit is None or held <= max(limit, pinned)


@given(stocks(), BUDGETS, BY_NAME)
def test_what_is_pinned_is_hot(stock: Stock, total: Budget, budgets: dict[str, Budget]) -> None:
    after = carried_out(stock, plan(stock, total, NOW, budgets=budgets), NOW)

    assert (after.tiers[after.pinned] == Tier.HOT).all()


@given(stocks(), BUDGETS, BY_NAME)
def test_a_plan_that_was_carried_out_is_empty_when_asked_for_again(
    stock: Stock, total: Budget, budgets: dict[str, Budget]
) -> None:
    after = carried_out(stock, plan(stock, total, NOW, budgets=budgets), NOW)

    assert plan(after, total, NOW, budgets=budgets).moves == ()


@given(stocks(), BUDGETS, BY_NAME)
def test_with_the_same_scores_a_key_moves_at_most_thrice_and_never_back_and_forth(
    stock: Stock, total: Budget, budgets: dict[str, Budget]
) -> None:
    """Once at once; when what had to stay need stay no more; and from warm to hot, once near."""
    now = NOW
    for _ in range(3):
        stock = carried_out(stock, plan(stock, total, now, budgets=budgets), now)
        now += DAY

    assert plan(stock, total, now, budgets=budgets).moves == ()


@given(stocks(), BUDGETS, BY_NAME, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_no_plan(
    stock: Stock, total: Budget, budgets: dict[str, Budget], chance: Any
) -> None:
    order = np.arange(len(stock.ids))
    chance.shuffle(order)
    shuffled = Stock(
        stock.ids[order], stock.spaces[order], stock.names,
        lambda rows: stock.places(order[rows]), stock.tiers[order], stock.sizes[order],
        stock.scores[order], stock.lasting[order], stock.pinned[order], stock.moved[order],
    )  # fmt: skip

    assert plan(shuffled, total, NOW, budgets=budgets) == plan(stock, total, NOW, budgets=budgets)


@given(st.lists(st.floats(0.9, 1.1), min_size=20, max_size=20), st.integers(0, 20))
def test_scores_that_waver_less_than_the_hysteresis_move_nothing(
    waver: list[float], room: int
) -> None:
    scores = 0.5 * np.ones(20)
    stock = Stock(
        np.arange(20), np.zeros(20, dtype=np.int64), ["n"],
        lambda some: [("n", f"{number:02}") for number in some.tolist()],
        np.where(np.arange(20) < room, Tier.HOT, Tier.WARM),
        np.full((20, 4), 10), scores * waver, scores, np.zeros(20, dtype=bool),
        np.zeros(20, dtype=np.int64),
    )  # fmt: skip

    assert plan(stock, Budget(hot=room * 10), NOW, settings=Settings(hysteresis=0.25)).moves == ()


def rows(*scores: float, tier: Tier = Tier.HOT, moved: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "place": ("n", f"key-{number}"), "tier": tier, "sizes": [10] * 4, "score": score,
            "pinned": False, "moved": moved,
        }
        for number, score in enumerate(scores)
    ]  # fmt: skip


def test_the_least_important_go_down_as_far_as_they_must_and_the_plan_says_why() -> None:
    planned = plan(stock_of(rows(0.9, 0.1, 0.5, 0.3)), Budget(20, 10, 0), NOW)

    assert [(move.keys, move.source, move.target) for move in planned.moves] == [
        (("key-3",), Tier.HOT, Tier.WARM),
        (("key-1",), Tier.HOT, Tier.DEEP),
    ]
    assert str(planned) == (
        "1 key of 'n': hot to warm, importance 0.30, and what matters more takes up the 20 bytes "
        "for hot\n"
        "1 key of 'n': hot to deep, importance 0.10, and what matters more takes up the 20 bytes "
        "for hot"
    )
    assert [(load.keys, load.size_bytes) for load in planned.before.values()] == [
        (4, 40), (0, 0), (0, 0), (0, 0),
    ]  # fmt: skip
    assert [(load.keys, load.size_bytes) for load in planned.after.values()] == [
        (2, 20), (1, 10), (0, 0), (1, 10),
    ]  # fmt: skip


def test_what_was_just_moved_stays_although_something_else_matters_more() -> None:
    stock = stock_of([*rows(0.1, moved=NOW - MINUTE), *rows(0, 0.9, tier=Tier.WARM)[1:]])

    now = plan(stock, Budget(hot=10), NOW)
    later = plan(stock, Budget(hot=10), NOW + 10 * MINUTE)

    assert now.moves == ()
    assert [(move.keys, move.target) for move in later.moves] == [
        (("key-0",), Tier.WARM), (("key-1",), Tier.HOT),
    ]  # fmt: skip


def test_what_just_went_down_does_not_come_up_at_once_although_there_is_room() -> None:
    stock = stock_of(rows(0.9, tier=Tier.WARM, moved=NOW - MINUTE))

    now = plan(stock, Budget(hot=10), NOW)
    later = plan(stock, Budget(hot=10), NOW + 10 * MINUTE)

    assert now.moves == ()
    assert [move.target for move in later.moves] == [Tier.HOT]


def test_what_matters_at_this_hour_alone_moves_nothing_out_of_files_nor_into_them() -> None:
    stock = stock_of(
        [
            {**rows(0.9)[0], "lasting": 0.15, "place": ("n", "a"), "tier": Tier.COLD},
            {**rows(0.1)[0], "lasting": 0.4, "place": ("n", "b"), "tier": Tier.WARM},
            {**rows(0.2)[0], "lasting": 0.4, "place": ("n", "c"), "tier": Tier.WARM},
        ]
    )

    planned = plan(stock, Budget(hot=10, warm=10), NOW)

    assert [(move.keys, move.target) for move in planned.moves] == [(("c",), Tier.HOT)]


def test_what_went_to_a_file_or_came_back_stays_for_a_day() -> None:
    went = stock_of([*rows(0.5, tier=Tier.COLD, moved=NOW), *rows(0, 0.1, tier=Tier.WARM)[1:]])
    came = stock_of([*rows(0.1, tier=Tier.WARM, moved=NOW), *rows(0, 0.5, tier=Tier.COLD)[1:]])

    for stock in (went, came):
        soon, later = (plan(stock, Budget(0, 10, 10), NOW + hours * 60 * MINUTE)
                       for hours in (23, 24))  # fmt: skip

        assert soon.moves == ()
        assert sorted(move.target for move in later.moves) == [Tier.WARM, Tier.COLD]


def test_a_namespace_has_a_budget_within_that_of_all() -> None:
    stock = stock_of(rows(0.9, 0.8, 0.7))

    planned = plan(stock, Budget(hot=30), NOW, budgets={"n": Budget(hot=10)})

    assert [(move.keys, move.target) for move in planned.moves] == [(("key-1", "key-2"), Tier.WARM)]
    assert "the 10 bytes for hot" in planned.moves[0].reason


def test_many_keys_go_in_several_moves() -> None:
    planned = plan(stock_of(rows(*[0.5] * 2_500)), Budget(hot=0), NOW)

    assert [len(move.keys) for move in planned.moves] == [1000, 1000, 500]
    assert planned.keys == 2_500


def test_without_any_budget_everything_comes_up() -> None:
    planned = plan(stock_of(rows(0.0, 0.5, tier=Tier.COLD)), Budget(), NOW)

    assert [(move.keys, move.target) for move in planned.moves] == [(("key-0", "key-1"), Tier.HOT)]


@pytest.mark.parametrize("count", [0, 1])
def test_little_is_planned_as_well(count: int) -> None:
    assert plan(stock_of(rows(*[0.5] * count)), Budget(), NOW).moves == ()
