"""hnswlib alone, the floor: a graph in memory, numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hnswlib
import numpy as np

from benchmarks.vectors.peers.base import Fields, K, Peer, Search, Setting, Vectors, Where, efforts


class Subject(Peer):
    name = "hnswlib, raw"
    module = "hnswlib"
    package = "hnswlib"
    returns = "numbers and distances"
    built_as = "M=16, ef_construction=200"

    def fill(self, vectors: Vectors, fields: Sequence[Fields] | None) -> None:
        del fields
        self.index = hnswlib.Index("ip", self.dimensions)  # the vectors have length 1
        self.index.init_index(len(vectors), M=16, ef_construction=200, random_seed=1)
        self.index.add_items(vectors, np.arange(len(vectors)))

    def settings(self) -> list[Setting]:
        return efforts("ef", (12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 400, 600), default=10)

    def searcher(self, setting: Setting, where: Where | None = None) -> Search:
        assert where is None
        self.index.set_ef(setting.knobs["ef"])
        query = self.index.knn_query
        return lambda vector: query(vector, k=K, num_threads=1)

    def ids(self, found: Any) -> list[int]:
        return [int(number) for number in found[0][0]]
