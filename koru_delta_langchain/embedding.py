"""Embeddings of LangChain and embedders of KoruDelta, each as the other."""

from __future__ import annotations

import asyncio
from typing import TypeAlias, cast

from langchain_core.embeddings import Embeddings

import koru_delta
from koru_delta import Database

Embedder: TypeAlias = koru_delta.embedders.Embedder
VectorLike: TypeAlias = koru_delta.embedders.VectorLike
AnyEmbedding: TypeAlias = Embeddings | koru_delta.embedders.TextEmbedder


class TextEmbeddings(Embeddings):
    """A `TextEmbedder` as LangChain expects its embeddings: vectors are lists."""

    def __init__(self, embedder: koru_delta.embedders.TextEmbedder) -> None:
        self.embedder = embedder

    def __repr__(self) -> str:
        return f"TextEmbeddings({self.embedder!r})"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """As `TextEmbedder.embed_documents`."""
        return cast("list[list[float]]", self.embedder.embed_documents(texts).tolist())

    def embed_query(self, text: str) -> list[float]:
        """As `TextEmbedder.embed_query`."""
        return cast("list[float]", self.embedder.embed_query(text).tolist())

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """As `embed_documents`, in a worker thread."""
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """As `embed_query`, in a worker thread."""
        return await asyncio.to_thread(self.embed_query, text)


def embedding_of(given: Embeddings | Embedder | None, database: Database | None) -> AnyEmbedding:
    """What is to embed: what was given, or else the database's own embedder.

    Raises:
        EmbedderError: it cannot embed, or there is none.
    """
    if isinstance(given, TextEmbeddings):
        return given.embedder
    if isinstance(given, Embeddings):
        return given
    if given is not None:
        return koru_delta.embedders.as_embedder(given)
    if database is None or database.embedder is None:
        raise koru_delta.errors.EmbedderError(
            "a store needs an embedding: pass one, as koru_delta.embedders.local(), which needs "
            "no network, or a database opened with embedder="
        )
    return database.embedder
