"""Which rows are scanned or gathered changes what a search costs, never its answer."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import koru_delta

DIMENSIONS, K = 8, 5


def score(metric: str, query: np.ndarray, vector: np.ndarray) -> float:
    one, other = query.astype(np.float64), vector.astype(np.float64)
    if metric == "l2":
        return -float(np.sqrt(((other - one) ** 2).sum()))
    if metric == "dot":
        return float((one * other).sum())
    return float((one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("repeats", [False, True], ids=["each vector once", "vectors repeat"])
def test_a_search_of_any_moment_is_that_of_scoring_what_was_there(metric, repeats):
    rng, numbers = random.Random(metric), np.random.default_rng(5)
    known = [numbers.integers(-3, 4, DIMENSIONS).astype(np.float32) + 0.5 for _ in range(6)]
    held: dict[str, np.ndarray] = {}
    moments: list[tuple[koru_delta.Version, dict[str, np.ndarray]]] = []
    with koru_delta.open() as db:
        for n in range(160):
            key = f"key-{n}" if n < 60 else f"key-{rng.randrange(100)}"
            if n > 20 and key in held and rng.random() < 0.3:
                version = db.delete("docs", key)
                del held[key]
            else:
                fresh = numbers.standard_normal(DIMENSIONS).astype(np.float32)
                vector = rng.choice(known) if repeats else fresh
                version = db.embed("docs", key, vector, {"n": n}, metric=metric)
                held[key] = vector
            moments.append((version, dict(held)))
            if n % 20 == 0:
                db.similar("docs", np.ones(DIMENSIONS))  # reads the log piece by piece

        for version, then in moments:
            query = numbers.standard_normal(DIMENSIONS).astype(np.float32)
            found = db.similar("docs", query, k=K, as_of=version)
            scores = {key: score(metric, query, vector) for key, vector in then.items()}
            best = sorted(then, key=lambda key: (-round(scores[key], 9), key))[:K]
            assert [match.key for match in found] == best
            assert [match.score for match in found] == pytest.approx(
                [scores[key] for key in best], abs=1e-6
            )


def _first(db: koru_delta.Database, query: list[float], k: int = 1) -> list[str]:
    return [match.key for match in db.similar("v", query, k=k)]


@pytest.mark.parametrize(
    ("metric", "vectors", "query", "best"),
    [
        ("dot", [[3e38, 3e38, -3e38, -3e38], [1, 2, 3, 4]], [1e38] * 4, "k1"),
        ("l2", [[1e20, 1], [2e20, 1], [1, 1]], [1e19, 1e19], "k2"),
        ("dot", [[0.4, 0.4], [0.6, 0], [0.1, 0.1], [0.49, 0.49]], [1e-45, 1e-45], "k3"),
        ("cosine", [[1e-40, 0], [0, 1e-40], [1e38, 1e38]], [0, 3e-39], "k1"),
        ("cosine", [[3e38, 3e38], [3e38, 0]], [3e38, 3e38], "k0"),
    ],
)
def test_numbers_at_the_ends_of_float32_are_ranked_as_they_are(
    metric: Any, vectors: list[list[float]], query: list[float], best: str
) -> None:
    with koru_delta.open(None) as db:
        db.embed_many("v", [(f"k{i}", v) for i, v in enumerate(vectors)], metric=metric)
        assert _first(db, query) == [best]
        assert len(_first(db, query, k=10)) == len(vectors)


def test_an_answer_does_not_depend_on_what_was_deleted() -> None:
    with koru_delta.open(None) as db:
        items = [(f"{i:03}", [float(i + 1)]) for i in range(6)]
        db.embed_many("v", items, metric="l2")
        before = _first(db, [1e17], k=3)
        db.embed("v", "long", [1e18])
        db.delete("v", "long")
        assert _first(db, [1e17], k=3) == before == ["000", "001", "002"]


def test_a_vector_finds_itself_with_exactly_one() -> None:
    points = np.random.default_rng(3).normal(size=(200, 37)).astype(np.float32)
    with koru_delta.open(None) as db:
        db.embed_many("v", [(f"k{i:03}", point) for i, point in enumerate(points)])
        for i, point in enumerate(points):
            assert [m.key for m in db.similar("v", point, threshold=1.0)] == [f"k{i:03}"]
            assert db.similar("v", point * 2, k=1)[0].score == 1.0


@pytest.mark.parametrize("size", [10, 159, 5_119, 5_120, 5_121, 20_003])
@pytest.mark.parametrize("k", [1, 2, 10])
def test_the_kth_best_is_that_of_a_sort(size: int, k: int) -> None:
    from koru_delta.search.scoring import kth_best

    rng = np.random.default_rng(size + k)
    for scores in (
        rng.normal(size=size).astype(np.float32),
        rng.integers(0, 3, size=size).astype(np.float64),
        np.sort(rng.normal(size=size)),
        np.zeros(size, dtype=np.float32),
    ):
        assert kth_best(scores, k) == np.sort(scores)[-k]
