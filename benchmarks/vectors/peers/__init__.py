"""Every subject by its module: ours first, then the floor, then the peers."""

from __future__ import annotations

NAMES = (
    "koru",
    "hnsw",
    "usearch",
    "faiss_langchain",
    "zvec",
    "qdrant_edge",
    "chroma",
    "lance",
    "milvus_lite",
    "sqlite_vec",
)
STORES = ("koru", "zvec", "qdrant_edge", "chroma", "lance", "sqlite_vec")
