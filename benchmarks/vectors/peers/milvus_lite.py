"""Milvus Lite through pymilvus: gRPC to a server that it starts itself, rows out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymilvus import DataType, MilvusClient

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

_BATCH = 5000


class Subject(Store):
    name = "Milvus Lite"
    module = "milvus_lite"
    package = "pymilvus[milvus-lite]"
    returns = "entities: id, distance, fields"
    built_as = "HNSW M=16, efConstruction=200"
    durable = "insert"

    def fill(self, vectors: Vectors, fields: Sequence[Fields] | None) -> None:
        self._connect()
        sample = fields[0] if fields else {}
        schema = MilvusClient.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self.dimensions)
        for name, value in sample.items():
            if isinstance(value, str):
                schema.add_field(name, DataType.VARCHAR, max_length=65_535)
            else:
                schema.add_field(name, DataType.INT64)
        self.names = list(sample)
        self.client.create_collection("docs", schema=schema)
        for start in range(0, len(vectors), _BATCH):
            rows = [
                {"id": n, "vector": vectors[n], **(fields[n] if fields else {})}
                for n in range(start, min(start + _BATCH, len(vectors)))
            ]
            self.client.insert("docs", rows)
        self.client.flush("docs")
        params = self.client.prepare_index_params()
        params.add_index(
            "vector",
            index_type="HNSW",
            metric_type="COSINE",
            params={"M": 16, "efConstruction": 200},
        )
        self.client.create_index("docs", params)
        self.client.load_collection("docs")

    def settings(self) -> list[Setting]:
        return efforts("ef", (16, 32, 48, 128, 256), default=64)  # few: each call is slow

    def searcher(self, setting: Setting, where: Where | None = None) -> Search:
        given: dict[str, Any] = {"metric_type": "COSINE"}
        if not setting.default:
            given["params"] = dict(setting.knobs)
        narrowed = "" if where is None else f"{where.field} >= {where.least}"
        search, names = self.client.search, self.names
        return lambda vector: search(
            "docs",
            data=[vector],
            limit=K,
            filter=narrowed,
            output_fields=names,
            search_params=given,
            anns_field="vector",
        )

    def ids(self, found: Any) -> list[int]:
        return [int(hit["id"]) for hit in found[0]]

    def insert(self, number: int, vector: Vectors, fields: Fields) -> None:
        self.client.insert("docs", [{"id": number, "vector": vector, **fields}])

    def reopen(self) -> None:
        self._connect()
        self.client.load_collection("docs")
        described = self.client.describe_collection("docs")
        self.names = [
            field["name"] for field in described["fields"] if field["name"] not in ("id", "vector")
        ]

    def close(self) -> None:
        self.client.close()

    def _connect(self) -> None:
        self.client = MilvusClient(str(self.folder / "milvus.db"))
