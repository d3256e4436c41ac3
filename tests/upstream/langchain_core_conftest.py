"""Puts our classes where langchain-core's tests look for its in-memory ones."""

from __future__ import annotations

import os
from typing import Any

import pytest

import koru_delta
from koru_delta.testing import HashEmbedder
from koru_delta_langchain import (
    KoruDeltaDocumentIndex,
    KoruDeltaRecordManager,
    KoruDeltaVectorStore,
)

TOGETHER = bool(os.environ.get("KORU_UPSTREAM_TOGETHER"))


class Manager(KoruDeltaRecordManager):
    """Made before its store, as those tests do it."""

    last: Manager | None = None

    def __init__(self, namespace: str) -> None:
        super().__init__(namespace, database=koru_delta.open())
        Manager.last = self


class Store(KoruDeltaVectorStore):
    """Shows what it holds as `store`, by id, where those tests look for it."""

    def __init__(self, embedding: Any) -> None:
        manager = Manager.last
        if not TOGETHER or manager is None:
            super().__init__(embedding)
            return
        super().__init__(embedding, database=manager.database)
        self._records, manager._store, Manager.last = manager, self, None

    @property
    def store(self) -> dict[str, Any]:
        rows = self.database.query(self.namespace)
        return {row.value["id"]: row.value for row in rows}


class Index(KoruDeltaDocumentIndex):
    """Takes the option that those tests pass on; ours refuses what it does not know."""

    def __init__(self) -> None:
        super().__init__(store=Store(HashEmbedder()))

    def upsert(self, items: Any, /, *, vector_field: str = "", **kwargs: Any) -> Any:
        return super().upsert(items, **kwargs)

    async def aupsert(self, items: Any, /, *, vector_field: str = "", **kwargs: Any) -> Any:
        return await super().aupsert(items, **kwargs)


def pytest_configure(config: pytest.Config) -> None:
    import langchain_core.indexing
    import langchain_core.indexing.in_memory
    import langchain_core.vectorstores

    places: Any = (langchain_core.indexing, langchain_core.vectorstores)
    places[0].InMemoryRecordManager = Manager
    places[0].in_memory.InMemoryDocumentIndex = Index
    places[1].InMemoryVectorStore = Store
