"""FAISS as LangChain has it: an index, a docstore in memory, documents out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from benchmarks.faiss_in_langchain import FAISS, InMemoryDocstore
from benchmarks.vectors.peers.base import Fields, K, Peer, Search, Setting, Vectors, Where


class Subject(Peer):
    name = "FAISS in LangChain"
    module = "langchain_community.vectorstores"
    package = "faiss-cpu langchain-community"
    returns = "documents: text, metadata"
    built_as = "flat (what from_documents makes); and HNSW M=32, efConstruction=40"

    def fill(self, vectors: Vectors, fields: Sequence[Fields] | None) -> None:
        flat = faiss.IndexFlatL2(self.dimensions)
        graph = faiss.IndexHNSWFlat(self.dimensions, 32)
        count = len(vectors)
        texts = [str(field.get("text", "")) for field in fields] if fields else [""] * count
        documents = {
            str(n): Document(texts[n], id=str(n), metadata={**(fields[n] if fields else {})})
            for n in range(count)
        }
        whole = np.ascontiguousarray(vectors)
        names = {n: str(n) for n in range(count)}
        self.stores: dict[str, FAISS] = {}
        for kind, index in (("flat", flat), ("graph", graph)):
            index.add(whole)
            self.stores[kind] = FAISS(_Unused(), index, InMemoryDocstore(dict(documents)), names)
        self.graph = graph

    def settings(self) -> list[Setting]:
        efforts = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 400)
        return [
            Setting("flat (default)", {"kind": "flat"}, default=True),
            *(Setting(f"HNSW efSearch={ef}", {"kind": "graph", "ef": ef}) for ef in efforts),
        ]

    def searcher(self, setting: Setting, where: Where | None = None) -> Search:
        assert where is None
        if "ef" in setting.knobs:
            self.graph.hnsw.efSearch = setting.knobs["ef"]
        search = self.stores[setting.knobs["kind"]].similarity_search_by_vector
        return lambda vector: search(vector, k=K)

    def ids(self, found: Any) -> list[int]:
        return [int(document.id) for document in found]


class _Unused(Embeddings):
    """Searches here are by vector."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise NotImplementedError

    def embed_query(self, text: str) -> list[float]:
        raise NotImplementedError
