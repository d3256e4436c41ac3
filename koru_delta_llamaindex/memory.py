"""A memory block for LlamaIndex agents that recalls what was said, as of any moment."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import ChatMessage, TextBlock
from llama_index.core.bridge.pydantic import Field
from llama_index.core.memory import BaseMemoryBlock
from llama_index.core.schema import TextNode
from llama_index.core.settings import Settings
from llama_index.core.vector_stores.types import (
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from koru_delta import AsOf
from koru_delta_llamaindex.vectorstore import KoruDeltaVectorStore


class KoruDeltaMemoryBlock(BaseMemoryBlock[str]):
    """What was said before and fits what is being said, by words and by meaning.

    A message that leaves the short-term memory is one node of `store`, with its `role` and
    `session_id` as metadata. `await memory.aget(..., as_of=then)` recalls what was known then;
    `as_of=` of the block does so every time.
    """

    name: str = Field(default="RecalledMessages", description="What the block is called.")
    store: KoruDeltaVectorStore = Field(description="Where messages are kept.", exclude=True)
    embed_model: BaseEmbedding = Field(
        default_factory=lambda: Settings.embed_model,
        description="What turns messages into vectors; that of the settings by default.",
    )
    mode: VectorStoreQueryMode = Field(
        default=VectorStoreQueryMode.HYBRID, description="How messages are looked for."
    )
    similarity_top_k: int = Field(default=4, description="At most so many are recalled.")
    similarity_cutoff: float | None = Field(
        default=None,
        description="Recall only what is at least as relevant, in [0, 1]; where words and meaning "
        "are fused, that is beside the best of what there is.",
    )
    retrieval_context_window: int = Field(default=5, description="By so many of the last messages.")
    across_sessions: bool = Field(
        default=False, description="Recall what was said in other sessions too."
    )
    as_of: Any = Field(default=None, description="Recall what was known then.")

    async def _aget(
        self,
        messages: list[ChatMessage] | None = None,
        session_id: str | None = None,
        as_of: AsOf = None,
        **block_kwargs: Any,
    ) -> str:
        """The messages found, best first, with who said them; empty where there are none."""
        recent = (messages or [])[-self.retrieval_context_window :]
        asked = " ".join(filter(None, map(_text, recent)))
        if not asked:
            return ""
        filters = None
        if session_id is not None and not self.across_sessions:
            filters = MetadataFilters(filters=[MetadataFilter(key="session_id", value=session_id)])
        query = VectorStoreQuery(
            query_str=asked,
            query_embedding=await self.embed_model.aget_query_embedding(asked),
            similarity_top_k=self.similarity_top_k,
            mode=self.mode,
            filters=filters,
        )
        found = await self.store.aquery(query, as_of=self.as_of if as_of is None else as_of)
        return "\n".join(
            f"{node.metadata.get('role', 'document')}: {node.get_content()}"
            for node, score in zip(found.nodes or (), found.similarities or (), strict=True)
            if self.similarity_cutoff is None or score >= self.similarity_cutoff
        )

    async def _aput(self, messages: list[ChatMessage]) -> None:
        """Keep messages, in one commit; those without a text are left out."""
        nodes = []
        for message in messages:
            # The framework puts it there on the way, for blocks to take.
            session = message.additional_kwargs.pop("session_id", None)
            text = _text(message)
            if text:
                metadata = {"role": message.role.value, "session_id": session}
                nodes.append(TextNode(text=text, metadata=metadata))
        if not nodes:
            return
        texts = [node.text for node in nodes]
        vectors = await self.embed_model.aget_text_embedding_batch(texts)
        for node, vector in zip(nodes, vectors, strict=True):
            node.embedding = vector
        await self.store.async_add(nodes)


def _text(message: ChatMessage) -> str:
    return " ".join(block.text for block in message.blocks if isinstance(block, TextBlock))
