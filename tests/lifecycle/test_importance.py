"""The two scores: what they are, how they are held to what came true, which one is taken."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koru_delta.lifecycle import Importance, Report
from koru_delta.lifecycle.importance import FEATURES, Logistic, auc, facts, heuristic
from koru_delta.lifecycle.usage import HOUR, Usage
from koru_delta.lifecycle.uses import awaited

NOW = 1_767_225_600_000_000
WIDTH = len(FEATURES)


def row(*, last: int, got: float = 0.0, used: float = 0.0, hour: int = 0) -> Usage:
    hours = [0.0] * 24
    hours[hour] = got + used
    return Usage(
        np.array([last - HOUR]), np.array([last]), np.array([[got, 0.0, 0.0, used]]),
        np.array([got + used]), np.zeros(1), np.zeros(1), np.array([hours], dtype=np.float32),
    )  # fmt: skip


def test_the_heuristic_weighs_recency_frequency_feedback_and_centrality() -> None:
    used = Usage.together([row(last=NOW, used=1.0), row(last=NOW - HOUR // 4, got=3.0)])
    written = np.full(4, NOW - HOUR // 4 * 3)
    cited = np.array([0, 0, 5, 0])

    features = facts(written, cited, used, np.array([0, 1, -1, -1]), np.zeros(4), NOW)

    p99 = np.percentile(np.log1p(features_of_uses := np.array([1.0, 3.0])), 99)
    frequency = np.minimum(np.log1p(features_of_uses) / p99, 1.0)
    assert heuristic(features) == pytest.approx(
        [
            0.45 + 0.25 * frequency[0] + 0.2 * 0.5,
            0.45 * 0.5 + 0.25 * frequency[1],
            0.45 * 0.25 + 0.1,
            0.45 * 0.25,
        ],
        rel=1e-3,
    )


@given(
    st.lists(
        st.tuples(st.integers(0, 10**9), st.floats(0, 1e6), st.floats(0, 1e3)),
        min_size=1, max_size=20,
    )
)  # fmt: skip
def test_every_score_lies_between_0_and_1(uses: list[tuple[int, float, float]]) -> None:
    used = Usage.together(
        [row(last=NOW - age * 1_000, got=got, used=helped) for age, got, helped in uses]
    )
    size = len(uses) + 1  # the last one was never used
    rows = np.append(np.arange(size - 1), -1)
    cited = np.append(3, np.zeros(size - 1, dtype=np.int64))
    ids, first = np.arange(size), np.zeros(size, dtype=np.int64)
    follow = awaited(ids, rows, used, first, ids, np.ones(size), NOW)

    features = facts(np.full(size, NOW), cited, used, rows, follow, NOW)

    for found in (features, heuristic(features), Importance().score(features, "learned")):
        assert np.isfinite(found).all()
        assert ((found >= 0) & (found <= 1)).all()


def test_of_two_that_nobody_used_for_long_the_younger_matters_more() -> None:
    day = 24 * HOUR
    written = np.array([NOW - days * day for days in (400, 60, 2)])

    nothing = np.zeros(3, dtype=np.int64)
    found = heuristic(facts(written, nothing, Usage.of([]), nothing - 1, np.zeros(3), NOW))

    assert found[0] < found[1] < found[2]


def test_what_follows_a_key_that_was_just_used_is_awaited() -> None:
    used = Usage.together([row(last=NOW, got=1.0)])
    before, after, other = 11, 12, 15

    found = awaited(
        np.array([before, after, other]), np.array([0, -1, -1]), used,
        np.array([before]), np.array([after]), np.array([9.0]), NOW,
    )  # fmt: skip

    assert found.tolist() == pytest.approx([0.0, 0.9, 0.0])


def made_up(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Uses that depend on the hour of the day, which the heuristic knows nothing of."""
    chance = np.random.default_rng(seed)
    features = chance.random((count, WIDTH))
    odds = 8.0 * (features[:, FEATURES.index("this hour")] - 0.6)
    return features, (chance.random(count) < 1 / (1 + np.exp(-odds))).astype(np.float64)


def test_the_learned_score_is_taken_once_it_was_better_on_what_it_had_not_learned_from() -> None:
    importance = Importance()
    assert importance.kind == "heuristic"
    for seed in range(20):
        importance.learn(*made_up(50, seed))

    reports = importance.reports()
    assert importance.kind == "learned"
    assert reports["learned"].log_loss < reports["heuristic"].log_loss
    assert reports["learned"].auc > 0.8 > reports["heuristic"].auc
    assert reports["learned"].brier < reports["heuristic"].brier
    assert sum(count for _, _, count in reports["learned"].calibration) == 1_000
    assert all(abs(a - b) < 0.2 for a, b, n in reports["learned"].calibration if n > 50)
    features, _ = made_up(10, 99)
    assert importance.score(features).tolist() == importance.learned.chance(features).tolist()
    assert importance.score(features, "heuristic").tolist() == heuristic(features).tolist()


def test_where_the_heuristic_says_all_there_is_it_goes_on_being_taken() -> None:
    chance = np.random.default_rng(3)
    importance = Importance()
    for _ in range(8):
        features = chance.random((40, WIDTH))
        happened = (chance.random(40) < heuristic(features) ** 2).astype(np.float64)
        importance.learn(features, happened)

    assert importance.kind == "heuristic"


def test_nothing_is_held_to_what_it_was_taught() -> None:
    importance = Importance()
    importance.learn(*made_up(100, 1))

    assert importance.by_learned == importance.by_scaled == [0.5] * 100


def test_what_was_learned_survives_and_what_is_damaged_is_begun_anew() -> None:
    importance = Importance()
    for seed in range(6):
        importance.learn(*made_up(50, seed))
    kept = importance.to_bytes()

    again = Importance.from_bytes(kept)

    features, _ = made_up(20, 50)
    assert again.to_bytes() == kept
    assert (again.kind, again.seen) == (importance.kind, 300)
    assert again.score(features).tolist() == importance.score(features).tolist()
    for damaged in (b"", b"{}", kept[:-9], kept.replace(b'"often"', b'"other"')):
        assert Importance.from_bytes(damaged).to_bytes() == Importance().to_bytes()


def test_a_regression_learned_bit_by_bit_finds_the_weights() -> None:
    chance = np.random.default_rng(5)
    learned = Logistic(2)
    for _ in range(100):
        features = chance.random((100, 2))
        odds = 4 * features[:, 0] - 3 * features[:, 1] + 0.5
        learned.learn(features, (chance.random(100) < 1 / (1 + np.exp(-odds))).astype(float))

    assert learned.weights == pytest.approx([4.0, -3.0, 0.5], abs=0.35)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5, 0.9]), st.booleans()), min_size=1))
def test_the_area_is_that_of_comparing_every_pair(told: list[tuple[float, bool]]) -> None:
    true = [chance for chance, happened in told if happened]
    false = [chance for chance, happened in told if not happened]
    pairs = [0.5 + 0.5 * np.sign(a - b) for a in true for b in false]

    found = auc(np.array([c for c, _ in told]), np.array([float(h) for _, h in told]))

    assert found == pytest.approx(float(np.mean(pairs)) if pairs else 0.5)


def test_a_report_says_how_chances_came_true() -> None:
    report = Report.of(np.array([0.05, 0.05, 0.85, 0.95]), np.array([0.0, 1.0, 1.0, 1.0]))

    assert report.brier == pytest.approx((0.05**2 + 0.95**2 + 0.15**2 + 0.05**2) / 4)
    assert report.log_loss == pytest.approx(-np.log([0.95, 0.05, 0.85, 0.95]).mean())
    assert report.calibration == ((0.05, 0.5, 2), (0.85, 1.0, 1), (0.95, 1.0, 1))
    assert report.to_json()["calibration"][0] == {"foretold": 0.05, "came_true": 0.5, "count": 2}
