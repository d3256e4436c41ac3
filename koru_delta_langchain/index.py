"""LangChain's document index: documents to write and to ask, in one object."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.indexing import DeleteResponse, DocumentIndex, UpsertResponse
from pydantic import Field
from typing_extensions import override

import koru_delta
from koru_delta_langchain.ids import key_of
from koru_delta_langchain.vectorstore import KoruDeltaVectorStore


class KoruDeltaDocumentIndex(DocumentIndex):
    """The documents of a vector store as an index that is a retriever too.

    `index(docs, manager, this)` works as with the store itself.

    Attributes:
        store: Where the documents are; its mode is that of the searches here.
        k: How many documents a search finds.
        search_kwargs: More options of every search, as of the store's.
    """

    store: KoruDeltaVectorStore
    k: int = 4
    search_kwargs: dict[str, Any] = Field(default_factory=dict)

    @override
    def upsert(self, items: Sequence[Document], /, **kwargs: Any) -> UpsertResponse:
        """Add documents, or write new versions of those whose ids are there; one commit.

        Raises:
            What `KoruDeltaVectorStore.add_documents` does: nothing fails in part.
        """
        return UpsertResponse(succeeded=self.store.add_documents(items, **kwargs), failed=[])

    @override
    async def aupsert(self, items: Sequence[Document], /, **kwargs: Any) -> UpsertResponse:
        """As `upsert`."""
        added = await self.store.aadd_documents(items, **kwargs)
        return UpsertResponse(succeeded=added, failed=[])

    @override
    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> DeleteResponse:
        """Delete documents, in one commit; those that are not there are no failure.

        Raises:
            InvalidDataError: there are no ids; it is a ValueError.
        """
        if ids is None:
            raise koru_delta.errors.InvalidDataError(
                "name the ids to delete; store.delete() deletes every document"
            )
        deleted = {version.key for version in self.store._remove(ids, **kwargs)}
        gone = [name for name in dict.fromkeys(ids) if key_of(name) in deleted]
        return DeleteResponse(succeeded=gone, num_deleted=len(gone), failed=[], num_failed=0)

    @override
    async def adelete(self, ids: list[str] | None = None, **kwargs: Any) -> DeleteResponse:
        """As `delete`."""
        return await asyncio.to_thread(self.delete, ids, **kwargs)

    @override
    def get(self, ids: Sequence[str], /, **kwargs: Any) -> list[Document]:
        """The documents of those ids that are there; `as_of` and `valid_at` as everywhere."""
        return self.store.get_by_ids(ids, **kwargs)

    @override
    async def aget(self, ids: Sequence[str], /, **kwargs: Any) -> list[Document]:
        """As `get`."""
        return await self.store.aget_by_ids(ids, **kwargs)

    @override
    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return self.store.similarity_search(query, **self._options(kwargs))

    @override
    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return await self.store.asimilarity_search(query, **self._options(kwargs))

    def _options(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"k": self.k, **self.search_kwargs, **given}
