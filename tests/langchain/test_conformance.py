"""LangChain's own suite for vector stores, as it is, on disk and in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import VectorStoreIntegrationTests

from koru_delta_langchain import KoruDeltaVectorStore


class TestOnDisk(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[VectorStore]:
        with KoruDeltaVectorStore(self.get_embeddings(), path=tmp_path / "db") as store:
            yield store


class TestInMemory(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self) -> Iterator[VectorStore]:
        with KoruDeltaVectorStore(self.get_embeddings()) as store:
            yield store
