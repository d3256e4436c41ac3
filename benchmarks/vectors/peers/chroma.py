"""Chroma: a persistent client, a collection with its graph, documents out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import chromadb
from chromadb.api.client import SharedSystemClient
from chromadb.config import Settings

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

_BATCH = 5000  # the most one add takes is 5,461


class Subject(Store):
    name = "Chroma"
    module = "chromadb"
    package = "chromadb"
    returns = "ids, documents, metadata, distances"
    built_as = "HNSW, its defaults: max_neighbors=16, ef_construction=100"
    durable = "add (its own SQLite log)"

    def fill(self, vectors: Vectors, fields: Sequence[Fields] | None) -> None:
        self._connect()
        self.collection = self.client.create_collection(
            "docs", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
        )
        for start in range(0, len(vectors), _BATCH):
            stop = min(start + _BATCH, len(vectors))
            self._add(
                [str(n) for n in range(start, stop)],
                vectors[start:stop],
                None if fields is None else fields[start:stop],
            )
        # The graph is brought up to date by reading it.
        self.collection.query(query_embeddings=vectors[:1], n_results=K)

    def settings(self) -> list[Setting]:
        return efforts("ef_search", (16, 24, 32, 48, 64, 128, 256, 400), default=100)

    def searcher(self, setting: Setting, where: Where | None = None) -> Search:
        if self.collection.configuration["hnsw"]["ef_search"] != setting.knobs["ef_search"]:
            self.collection.modify(configuration={"hnsw": dict(setting.knobs)})
            self.close()  # a graph in memory keeps the effort it was loaded with
            self.reopen()
        narrowed: Any = None if where is None else {where.field: {"$gte": where.least}}
        query = self.collection.query
        return lambda vector: query(query_embeddings=[vector], n_results=K, where=narrowed)

    def ids(self, found: Any) -> list[int]:
        return [int(number) for number in found["ids"][0]]

    def insert(self, number: int, vector: Vectors, fields: Fields) -> None:
        self._add([str(number)], vector[None], [fields])

    def reopen(self) -> None:
        self._connect()
        self.collection = self.client.get_collection("docs", embedding_function=None)

    def close(self) -> None:
        self.client.close()
        SharedSystemClient.clear_system_cache()

    def _connect(self) -> None:
        self.client = chromadb.PersistentClient(
            str(self.folder / "chroma"), settings=Settings(anonymized_telemetry=False)
        )

    def _add(self, ids: list[str], vectors: Vectors, fields: Sequence[Fields] | None) -> None:
        if fields is None:
            self.collection.add(ids=ids, embeddings=vectors)
            return
        metadata: Any = [
            {name: value for name, value in each.items() if name != "text"} for each in fields
        ]
        documents = [each["text"] for each in fields] if "text" in fields[0] else None
        self.collection.add(ids=ids, embeddings=vectors, metadatas=metadata, documents=documents)
