"""Qdrant Edge: a shard in the process, with a graph, payload indexes and a log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qdrant_edge as qdrant

from benchmarks.vectors.peers.base import Fields, K, Search, Setting, Store, Vectors, Where

_BATCH = 1000


class Subject(Store):
    name = "Qdrant Edge"
    module = "qdrant_edge"
    package = "qdrant-edge-py"
    returns = "points: id, score, payload"
    built_as = "HNSW, its defaults: m=16, ef_construct=100; integer payload indexes; optimized"
    durable = "update + flush"

    def fill(self, vectors: Vectors, fields: Sequence[Fields] | None) -> None:
        # Ahead of the default of 10,000 KB, so that the smaller sets get their graph too.
        optimizers = qdrant.EdgeOptimizersConfig(indexing_threshold=1000)
        config = qdrant.EdgeConfig(
            vectors=qdrant.EdgeVectorParams(self.dimensions, qdrant.Distance.Cosine),
            optimizers=optimizers,
        )
        folder = self.folder / "qdrant"
        folder.mkdir(parents=True, exist_ok=True)
        self.shard = qdrant.EdgeShard.create(str(folder), config)
        for name, value in (fields[0] if fields else {}).items():
            if isinstance(value, int):
                self.shard.update(
                    qdrant.UpdateOperation.create_field_index(
                        name, qdrant.PayloadSchemaType.Integer
                    )
                )
        for start in range(0, len(vectors), _BATCH):
            self._upsert(
                [
                    qdrant.Point(n, vectors[n].tolist(), fields[n] if fields else None)
                    for n in range(start, min(start + _BATCH, len(vectors)))
                ]
            )
        self.shard.optimize()
        self.shard.flush()

    def settings(self) -> list[Setting]:
        efforts = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 400)
        return [
            Setting("hnsw_ef left out (default)", {}, default=True),
            *(Setting(f"hnsw_ef={ef}", {"hnsw_ef": ef}) for ef in efforts),
        ]

    def searcher(self, setting: Setting, where: Where | None = None) -> Search:
        params = qdrant.SearchParams(**setting.knobs) if setting.knobs else None
        narrowed = None
        if where is not None:
            at_least = qdrant.RangeFloat(gte=float(where.least))
            narrowed = qdrant.Filter(must=[qdrant.FieldCondition(where.field, range=at_least)])
        query = self.shard.query
        return lambda vector: query(
            qdrant.QueryRequest(
                K,
                query=qdrant.Query.Nearest(vector.tolist()),
                params=params,
                filter=narrowed,
                with_payload=True,
            )
        )

    def ids(self, found: Any) -> list[int]:
        return [int(point.id) for point in found]

    def insert(self, number: int, vector: Vectors, fields: Fields) -> None:
        self._upsert([qdrant.Point(number, vector.tolist(), fields)])
        self.shard.flush()

    def reopen(self) -> None:
        self.shard = qdrant.EdgeShard.load(str(self.folder / "qdrant"))

    def close(self) -> None:
        self.shard.close()

    def _upsert(self, points: list[Any]) -> None:
        self.shard.update(qdrant.UpdateOperation.upsert_points(points))
