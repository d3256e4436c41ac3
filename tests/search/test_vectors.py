"""Which rows are scanned or gathered changes what a search costs, never its answer."""

from __future__ import annotations

import random

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
