"""Fusing rankings, choosing among them by diversity, and what weights may be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koru_delta import errors
from koru_delta.search.fusion import FUSIONS, LEGS, Leg, alone, checked_weights, diverse, fuse


def _leg(
    name: str, keys: Sequence[str], *, weight: float = 1.0, scores: Sequence[float] = ()
) -> Leg:
    scores = scores or [1.0 / (n + 1) for n in range(len(keys))]
    hits = [(-score, key, n + 1) for n, (key, score) in enumerate(zip(keys, scores, strict=True))]
    return Leg(name, weight, hits, complete=True)


def test_a_rank_earns_its_weight_over_sixty_and_the_rank() -> None:
    found = fuse([_leg("vector", "ab"), _leg("text", "bc", weight=0.5)], 10, "rrf")

    assert [each.key for each in found] == ["b", "a", "c"]
    assert found[0].parts == {"vector": 1 / 62, "text": 0.5 / 61}
    assert found[0].ranks == {"vector": 2, "text": 1}
    assert found[1].score == 1 / 61


def test_scores_are_scaled_to_what_is_in_the_window() -> None:
    found = fuse(
        [_leg("vector", "abc", scores=[0.9, 0.5, 0.1]), _leg("text", "cb", scores=[8.0, 4.0])],
        10,
        "score",
    )

    assert {each.key: each.score for each in found} == {"a": 1.0, "b": pytest.approx(0.5), "c": 1.0}
    assert [each.key for each in found] == ["a", "c", "b"]  # equal scores in key order


def test_equal_scores_of_a_leg_all_earn_its_weight() -> None:
    found = fuse([_leg("vector", "ab", scores=[0.3, 0.3]), _leg("text", "")], 10, "score")

    assert [(each.key, each.score) for each in found] == [("a", 1.0), ("b", 1.0)]


@settings(max_examples=200)
@given(
    st.lists(st.integers(0, 30), unique=True, max_size=30),
    st.lists(st.integers(0, 30), unique=True, max_size=30),
    st.integers(1, 8),
    st.sampled_from(["rrf", "score"]),
)
def test_every_key_is_there_once_and_its_parts_sum_to_its_score(
    first: list[int], second: list[int], window: int, fusion: str
) -> None:
    keys = [[f"{n:02d}" for n in some] for some in (first, second)]

    found = fuse([_leg("vector", keys[0]), _leg("text", keys[1])], window, fusion)  # type: ignore[arg-type]

    assert sorted(each.key for each in found) == sorted({*keys[0], *keys[1]})
    for each in found:
        assert each.score == pytest.approx(sum(each.parts.values()), abs=1e-12)
    shown = {*keys[0][:window], *keys[1][:window]}
    assert {each.key for each in found[: len(shown)]} == shown  # the window comes first


@given(st.lists(st.integers(0, 9), unique=True))
def test_one_leg_alone_keeps_its_order_and_scores(keys: list[int]) -> None:
    leg = _leg("text", [str(n) for n in keys])

    found = alone(leg, 3)

    assert [(-each.score, each.key, each.seq) for each in found] == list(leg.hits)
    assert [each.window for each in found] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3][: len(keys)]


def test_diversity_passes_over_what_is_like_what_was_taken() -> None:
    vectors = np.array([[1, 0], [1, 0.01], [0, 1]], dtype=np.float32)

    assert diverse([1.0, 0.99, 0.5], vectors, 2, 0.5) == [0, 2]
    assert diverse([1.0, 0.99, 0.5], vectors, 2, 1.0) == [0, 1]
    assert diverse([0.1, 0.99, 0.5], vectors, 3, 1.0) == [1, 2, 0]


@given(st.integers(0, 12), st.integers(0, 15), st.floats(0, 1))
def test_diversity_takes_each_place_once(count: int, k: int, balance: float) -> None:
    rng = np.random.default_rng(count)
    vectors = rng.normal(size=(count, 3)).astype(np.float32)

    chosen = diverse(rng.random(count).tolist(), vectors, k, balance)

    assert len(chosen) == len(set(chosen)) == min(k, count)


@pytest.mark.parametrize("cosines", [False, True])
def test_diversity_is_the_naive_greedy_choice(cosines: bool) -> None:
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(40, 5)).astype(np.float32)
    relevance = rng.random(40)
    unit = vectors.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    scaled = (relevance - relevance.min()) / (relevance.max() - relevance.min())
    if cosines:
        scaled = relevance
    expected: list[int] = []
    while len(expected) < 10:
        gains = [
            -np.inf
            if n in expected
            else 0.6 * scaled[n]
            - 0.4 * max((float(unit[n] @ unit[m]) for m in expected), default=0)
            for n in range(40)
        ]
        expected.append(int(np.argmax(gains)))

    assert diverse(relevance.tolist(), vectors, 10, 0.6, cosines=cosines) == expected


@pytest.mark.parametrize(
    "weights",
    [
        {"vector": -1},
        {"vector": float("nan")},
        {"text": float("inf")},
        {"vector": 0, "text": 0},
        {"words": 1},
        {"vector": "1"},
        {"vector": True},
        [1, 1],
    ],
)
def test_weights_that_make_no_sense_are_refused(weights: object) -> None:
    with pytest.raises(errors.QueryError, match=r"weight|leg"):
        checked_weights(weights, LEGS)


def test_weights_are_one_unless_told_otherwise() -> None:
    assert checked_weights(None, LEGS) == {"vector": 1.0, "text": 1.0}
    assert checked_weights({"text": 0.25}, LEGS) == {"vector": 1.0, "text": 0.25}
    assert checked_weights({"text": 0.25}, ("vector",)) == {"vector": 1.0}


def test_scores_go_on_falling_from_window_to_window() -> None:
    keys = [f"{n:02d}" for n in range(20)]
    legs = [_leg("vector", keys[:12], weight=2.0), _leg("text", keys[18:5:-1])]

    for fusion in FUSIONS:
        found = fuse(legs, 4, fusion)

        scores = [each.score for each in found]
        assert scores == sorted(scores, reverse=True)
        assert [each.key for each in found] == [
            each.key for each in sorted(found, key=lambda each: (-each.score, each.key))
        ]
        assert all(
            each.score == pytest.approx(sum(each.parts.values()), abs=1e-12) for each in found
        )
        assert all(each.ranks.keys() == each.scores.keys() <= each.parts.keys() for each in found)
