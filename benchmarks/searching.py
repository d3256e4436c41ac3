"""Exact vector search, now and in the past, beside one matrix-vector product.

No query is asked twice. The peer works on the same float32 rows with the same numpy; it
knows no keys, versions or visibility, and does not sort what it finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import koru_delta
from benchmarks.documents import unit_vectors
from benchmarks.measure import Row, Side, by_turns, ratio_at_most, sized
from koru_delta import Database, Version

ROWS, DIMENSIONS, K = 20_000, 384, 10
SHARES = (95, 90, 50, 25, 10)  # percent of the stored rows that a past moment sees


def run(folder: Path, scale: float) -> Iterator[Row]:
    stored, rounds = sized(ROWS // 20, scale, 10) * 20, sized(60, scale, 3)
    vectors = unit_vectors(stored, DIMENSIONS, seed=1)
    queries = unit_vectors((rounds + 3) * (len(SHARES) + 3), DIMENSIONS, seed=2)
    step = stored // 20
    with (
        koru_delta.open(folder / "searching", durability="relaxed") as db,
        koru_delta.open(folder / "rewritten", durability="relaxed") as rewritten,
    ):
        moments: dict[int, Version] = {}
        for start in range(0, stored, step):
            batch = [(f"key-{n}", vectors[n], {"n": n}) for n in range(start, start + step)]
            moments[(start + step) * 100 // stored] = db.embed_many("docs", batch)[-1]
        for start in range(0, stored, step):  # every key twice: half of what is stored is past
            rewritten.embed_many(
                "docs",
                [
                    (f"key-{n % (stored // 2)}", vectors[n], {"n": n})
                    for n in range(start, start + step)
                ],
            )
        sides: list[Side] = [_product(vectors, queries[0::8]), _now(db, queries[1::8])]
        sides += [_past(db, queries[2 + n :: 8], moments[share]) for n, share in enumerate(SHARES)]
        sides.append(_now(rewritten, queries[7::8]))
        for side in sides:
            side(-1)  # reads the log; the queries of this round are asked no more
        product, now, *past, half = (each / 1e6 for each in by_turns(sides, rounds, warm_up=2))
    where = f"{stored:,} x {DIMENSIONS}"
    yield Row(
        f"similar, k={K}, {where}", now, "ms",
        product, "numpy product + argpartition", (ratio_at_most(1.3),),
    )  # fmt: skip
    for share, taken in zip(SHARES, past, strict=True):
        limit = 1.5 if share >= 90 else 1.3
        yield Row(
            f"  as of when {share} % was there", taken, "ms", now, "now", (ratio_at_most(limit),)
        )
    yield Row(
        "  now, every key rewritten once", half, "ms", now, "none rewritten", (ratio_at_most(1.3),)
    )


def _product(vectors: np.ndarray[Any, Any], queries: np.ndarray[Any, Any]) -> Side:
    def search(n: int) -> object:
        scores = vectors @ queries[n]
        best = np.argpartition(scores, -K)[-K:]
        return best, scores[best]

    return search


def _now(db: Database, queries: np.ndarray[Any, Any]) -> Callable[[int], object]:
    return lambda n: db.similar("docs", queries[n], k=K)


def _past(db: Database, queries: np.ndarray[Any, Any], moment: Version) -> Callable[[int], object]:
    return lambda n: db.similar("docs", queries[n], k=K, as_of=moment)
