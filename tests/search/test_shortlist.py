"""Lists by scores with an error: how long they must be is told from the list at hand."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from koru_delta.search import shortlist
from koru_delta.search.shortlist import times_too_short

K, ASKED, RECALL = 10, 40, 0.95


def held(chance: np.random.Generator, rows: int, spread: float) -> tuple[float, float, float]:
    """Of the best by true scores: the share on the list, on one as long as told; and the times."""
    error = math.sqrt(0.0095)  # in units of which the scores' deviation is `spread`
    found = np.zeros(3)
    for _ in range(30):
        true = spread * chance.standard_normal(rows)
        seeming = true + error * chance.standard_normal(rows)
        order = np.argsort(-seeming)
        best = np.argpartition(-true, K)[:K]
        times = times_too_short(
            seeming[order[:ASKED]], K, RECALL, asked=ASKED, share=1.0, rows=rows, passing=rows,
            unit=1.0,
        )  # fmt: skip
        longer = order[: ASKED * times]
        found += [np.isin(best, order[:ASKED]).mean(), np.isin(best, longer).mean(), times]
    on_it, on_longer, times = (found / 30).tolist()
    return on_it, on_longer, times


def test_a_list_of_scores_that_differ_by_much_is_long_enough():
    on_it, _, times = held(np.random.default_rng(1), 20_000, 1.0)

    assert on_it == 1.0
    assert times == 1


@pytest.mark.parametrize("spread", [0.08, 0.12, 0.2, 0.3])
def test_one_of_scores_that_differ_by_little_is_told_to_be_longer_and_then_holds_the_best(spread):
    on_it, on_longer, times = held(np.random.default_rng(2), 20_000, spread)

    assert on_it < RECALL <= on_longer
    assert 1 < times < 300  # and not: all of them


def test_of_many_rows_the_shortlist_by_signs_counts_too():
    scores = np.linspace(1.0, 0.7, ASKED, dtype=np.float32)

    def times(rows: int) -> int:
        return times_too_short(
            scores, K, RECALL, asked=ASKED, share=1.0, rows=rows, passing=rows, unit=0.6
        )

    assert times(shortlist.CLOSELY - 1) == 1
    assert times(shortlist.CLOSELY) > 1


def test_a_list_of_all_that_pass_is_never_too_short():
    scores = np.zeros(ASKED, dtype=np.float32)

    assert times_too_short(
        scores, K, RECALL, asked=ASKED, share=0.5, rows=50_000, passing=ASKED, unit=1.0
    ) == 0  # fmt: skip


def test_equal_scores_ask_for_more():
    scores = np.zeros(ASKED, dtype=np.float32)

    assert times_too_short(
        scores, K, RECALL, asked=ASKED, share=1.0, rows=50_000, passing=50_000, unit=1.0
    ) > 10  # fmt: skip


@pytest.mark.parametrize("of", [2, 100, 33_000, 10_000_000])
def test_ranks_among_normal_numbers_are_those_of_the_distribution(of):
    for rank in {1, 2, of // 3 + 1, of // 2 + 1, of}:
        exact = -NormalDist().inv_cdf((rank - 0.5) / of)
        assert shortlist._deviate(rank, of) == pytest.approx(exact, abs=5e-4)
