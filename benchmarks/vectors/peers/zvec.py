"""zvec: an embedded collection with a graph, filters and documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import zvec

from benchmarks.vectors.peers.base import (
    Fields,
    K,
    Search,
    Setting,
    Store,
    Vectors,
    Where,
    efforts,
)

_BATCH = 1000  # the most one insert takes is 1,024


class Subject(Store):
    name = "zvec"
    module = "zvec"
    package = "zvec"
    returns = "documents: id, score, fields"
    built_as = "HNSW, its defaults: m=50, ef_construction=500; optimized"
    durable = "insert + flush"

    def fill(self, vectors: Vectors, fields: Sequence[Fields] | None) -> None:
        sample = fields[0] if fields else {}
        schema = zvec.CollectionSchema(
            "docs",
            fields=[
                zvec.FieldSchema(name, zvec.DataType.STRING)
                if isinstance(value, str)
                else zvec.FieldSchema(
                    name, zvec.DataType.INT64, index_param=zvec.InvertIndexParam()
                )
                for name, value in sample.items()
            ],
            vectors=[
                zvec.VectorSchema(
                    "vector",
                    zvec.DataType.VECTOR_FP32,
                    self.dimensions,
                    index_param=zvec.HnswIndexParam(metric_type=zvec.MetricType.COSINE),
                )
            ],
        )
        self.collection = zvec.create_and_open(str(self.folder / "zvec"), schema)
        for start in range(0, len(vectors), _BATCH):
            some = [
                zvec.Doc(str(n), vectors={"vector": vectors[n]}, fields=fields[n] if fields else {})
                for n in range(start, min(start + _BATCH, len(vectors)))
            ]
            for status in self.collection.insert(some):
                if not status.ok():
                    raise RuntimeError(status.message())
        self.collection.optimize()
        self.collection.flush()

    def settings(self) -> list[Setting]:
        return efforts("ef", (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 400), default=300)

    def searcher(self, setting: Setting, where: Where | None = None) -> Search:
        param = zvec.HnswQueryParam(ef=setting.knobs["ef"])
        narrowed = None if where is None else f"{where.field} >= {where.least}"
        query = self.collection.query
        return lambda vector: query(
            zvec.Query("vector", vector=vector, param=param), topk=K, filter=narrowed
        )

    def ids(self, found: Any) -> list[int]:
        return [int(document.id) for document in found]

    def insert(self, number: int, vector: Vectors, fields: Fields) -> None:
        status = self.collection.insert(
            zvec.Doc(str(number), vectors={"vector": vector}, fields=fields)
        )
        if not status.ok():
            raise RuntimeError(status.message())
        self.collection.flush()

    def reopen(self) -> None:
        self.collection = zvec.open(str(self.folder / "zvec"))

    def close(self) -> None:
        self.collection.close()
