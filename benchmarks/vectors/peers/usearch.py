"""usearch: a graph in memory, keys are numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from usearch.index import Index

from benchmarks.vectors.peers.base import Fields, K, Peer, Search, Setting, Vectors, Where, efforts


class Subject(Peer):
    name = "usearch"
    module = "usearch"
    package = "usearch"
    returns = "numbers and distances"
    built_as = "its defaults: connectivity 16, expansion_add 128, its choice of number type"

    def fill(self, vectors: Vectors, fields: Sequence[Fields] | None) -> None:
        del fields
        self.index: Any = Index(ndim=self.dimensions, metric="cos")
        self.default = int(self.index.expansion_search)
        self.index.add(np.arange(len(vectors)), np.ascontiguousarray(vectors))

    def settings(self) -> list[Setting]:
        return efforts(
            "expansion_search",
            (16, 24, 32, 48, 64, 96, 128, 192, 256, 400, 600),
            default=self.default,
        )

    def searcher(self, setting: Setting, where: Where | None = None) -> Search:
        assert where is None
        self.index.expansion_search = setting.knobs["expansion_search"]
        search = self.index.search
        return lambda vector: search(vector, K, threads=1)

    def ids(self, found: Any) -> list[int]:
        return [int(number) for number in found.keys]
