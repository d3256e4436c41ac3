"""How much a graph must look at, to find what share of the nearest: measured, not guessed.

It is measured by vectors that the graph does not hold yet.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from koru_delta.search.graph import FEW, MANY, Efforts, LiveGraph, like_queries
from koru_delta.search.scoring import Scoring, Target
from koru_delta.search.seen import Numbers
from koru_delta.search.truth import Truth

_UNUSUAL: Final = 0.05  # of the queries a graph is measured by find worse than its floors
_TOGETHER: Final = 8_000_000  # products of these with all vectors that are held at once


def measured(
    space: Scoring, truth: Truth, made: LiveGraph, asked: Numbers, fed: Numbers
) -> Efforts:
    """Measure a graph that was given the slots `fed`, by others that it does not hold yet."""
    fed = np.sort(fed)
    queries = like_queries(truth.take(asked), np.random.default_rng(2))
    tops = np.empty((len(queries), min(MANY, len(fed))), dtype=np.int64)
    scores = np.empty((len(queries), FEW))
    together = max(1, _TOGETHER // max(1, truth.slots))
    for start in range(0, len(queries), together):
        some = queries[start : start + together]
        for row, near_all in enumerate(space.near(truth, some, 0, truth.slots), start):
            query, near = queries[row], near_all[fed]
            best = np.argpartition(near, len(near) - tops.shape[1])[-tops.shape[1] :]
            tops[row] = fed[best[np.argsort(-near[best], kind="stable")]]
            exact = space.exact(truth, Target.of(query), tops[row, :FEW])
            scores[row] = np.sort(exact)[::-1]
            if space.space.metric == "dot":
                scores[row] /= np.linalg.norm(query.astype(np.float64)) or 1.0
    floors = np.quantile(scores, _UNUSUAL, axis=0)
    few = made.calibrate(queries, tops[:, :FEW])
    many = made.calibrate(queries, tops, spare=1) if tops.shape[1] == MANY else {}
    return Efforts(few, many, tuple(floors.tolist()))
