"""Retrievers of a vector store: every kind of search by its name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Final

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStoreRetriever
from pydantic import model_validator
from typing_extensions import override

import koru_delta

SEARCH_TYPES: Final[Mapping[str, Mapping[str, Any]]] = {
    "hybrid": {"mode": "hybrid"},
    "text": {"mode": "text"},
    "as_of": {},
    "time_decayed": {},
    "explained": {"explain": True, "include_provenance": True},
}
"""The search types that are ours, and the options of `similarity_search` they stand for."""

_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "as_of": ("as_of", "valid_at"),
    "time_decayed": ("half_life",),
}


class KoruDeltaRetriever(VectorStoreRetriever):
    """A retriever over a `KoruDeltaVectorStore`, as its `as_retriever` makes them.

    Search types, besides LangChain's "similarity", "similarity_score_threshold" and "mmr":

    - "hybrid": by meaning and by words; "text": by words;
    - "as_of": what was found then; `search_kwargs` has `as_of`, `valid_at` or both;
    - "time_decayed": the older, the less; `search_kwargs` has `half_life`;
    - "explained": `metadata["koru_delta"]` says why each document was found.

    They only name options: every option of a search goes with every type, in
    `search_kwargs` or in `invoke(query, k=..., as_of=...)`.

    Attributes:
        k: How many documents; None is the search's own default, 4.

    Raises:
        ValueError: an unknown search type, or one whose option is missing.
    """

    allowed_search_types: ClassVar[Collection[str]] = (
        *VectorStoreRetriever.allowed_search_types,
        *SEARCH_TYPES,
    )

    k: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_needed(cls, values: dict[str, Any]) -> Any:
        check_search_type(values.get("search_type", ""), values.get("search_kwargs", {}))
        return values

    @override
    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        options = self._options(kwargs)
        if self.search_type in SEARCH_TYPES:
            return self.vectorstore.search(query, self.search_type, **options)
        return super()._get_relevant_documents(query, run_manager=run_manager, **options)

    @override
    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        options = self._options(kwargs)
        if self.search_type in SEARCH_TYPES:
            return await self.vectorstore.asearch(query, self.search_type, **options)
        return await super()._aget_relevant_documents(query, run_manager=run_manager, **options)

    def _options(self, given: dict[str, Any]) -> dict[str, Any]:
        count = {} if self.k is None else {"k": self.k}
        return {**count, **self.search_kwargs, **given}


def check_search_type(search_type: str, options: Mapping[str, Any]) -> None:
    """Refuse a search type without the option it is named for.

    Raises:
        QueryError: that; it is a ValueError.
    """
    needed = _NEEDED.get(search_type, ())
    if needed and all(options.get(name) is None for name in needed):
        raise koru_delta.errors.QueryError(
            f"the search type {search_type!r} needs {' or '.join(needed)} in search_kwargs"
        )
