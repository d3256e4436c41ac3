"""LangChain's own suites for every kind of store, as they are, on disk and in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from langchain_core.caches import BaseCache
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import DocumentIndex
from langchain_core.retrievers import BaseRetriever
from langchain_core.stores import BaseStore
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import (
    AsyncCacheTestSuite,
    BaseStoreAsyncTests,
    BaseStoreSyncTests,
    RetrieversIntegrationTests,
    SyncCacheTestSuite,
    VectorStoreIntegrationTests,
)
from langchain_tests.integration_tests.indexer import (
    AsyncDocumentIndexTestSuite,
    DocumentIndexerTestSuite,
)

from koru_delta_langchain import (
    KoruDeltaByteStore,
    KoruDeltaCache,
    KoruDeltaDocumentIndex,
    KoruDeltaRetriever,
    KoruDeltaSemanticCache,
    KoruDeltaVectorStore,
)


class TestVectorStoreOnDisk(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Generator[VectorStore, None, None]:
        with KoruDeltaVectorStore(self.get_embeddings(), path=tmp_path / "db") as store:
            yield store


class TestVectorStoreInMemory(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self) -> Generator[VectorStore, None, None]:
        with KoruDeltaVectorStore(self.get_embeddings()) as store:
            yield store


class TestHybridVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self) -> Generator[VectorStore, None, None]:
        with KoruDeltaVectorStore(self.get_embeddings(), mode="hybrid") as store:
            yield store


class TestByteStore(BaseStoreSyncTests[bytes]):
    @pytest.fixture
    def kv_store(self, tmp_path: Path) -> Generator[BaseStore[str, bytes], None, None]:
        with KoruDeltaByteStore(path=tmp_path / "db") as store:
            yield store

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"rain", b"\x00\xff", b""


class TestByteStoreAsync(BaseStoreAsyncTests[bytes]):
    @pytest.fixture
    async def kv_store(self, tmp_path: Path) -> AsyncGenerator[BaseStore[str, bytes], None]:
        async with KoruDeltaByteStore(path=tmp_path / "db") as store:
            yield store

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"rain", b"\x00\xff", b""


class TestCache(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self, tmp_path: Path) -> Generator[BaseCache, None, None]:
        with KoruDeltaCache(path=tmp_path / "db") as cache:
            yield cache


class TestCacheAsync(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self, tmp_path: Path) -> AsyncGenerator[BaseCache, None]:
        async with KoruDeltaCache(path=tmp_path / "db") as cache:
            yield cache


class TestSemanticCache(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self) -> Generator[BaseCache, None, None]:
        with KoruDeltaSemanticCache() as cache:
            yield cache


class TestSemanticCacheAsync(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self) -> AsyncGenerator[BaseCache, None]:
        async with KoruDeltaSemanticCache() as cache:
            yield cache


class _Retriever(RetrieversIntegrationTests):
    """Of a store with some documents, by whatever kind of search."""

    options: ClassVar[dict[str, Any]] = {}

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return KoruDeltaRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        store = KoruDeltaVectorStore(DeterministicFakeEmbedding(size=8))
        store.add_texts([f"rain on day {day}" for day in range(9)])
        return {"vectorstore": store, **self.options}

    @property
    def retriever_query_example(self) -> str:
        return "rain"


class TestRetriever(_Retriever):
    pass


class TestMmrRetriever(_Retriever):
    options: ClassVar = {"search_type": "mmr"}


class TestHybridRetriever(_Retriever):
    options: ClassVar = {"search_type": "hybrid", "search_kwargs": {"include_provenance": True}}


class TestTextRetriever(_Retriever):
    options: ClassVar = {"search_type": "text"}


class TestAsOfRetriever(_Retriever):
    options: ClassVar = {"search_type": "as_of", "search_kwargs": {"as_of": 9}}


class TestTimeDecayedRetriever(_Retriever):
    options: ClassVar = {"search_type": "time_decayed", "search_kwargs": {"half_life": 3600}}


class TestExplainedRetriever(_Retriever):
    options: ClassVar = {"search_type": "explained"}


class TestDocumentIndex(DocumentIndexerTestSuite):
    @pytest.fixture
    def index(self) -> Generator[DocumentIndex, None, None]:
        with KoruDeltaVectorStore(DeterministicFakeEmbedding(size=8)) as store:
            yield KoruDeltaDocumentIndex(store=store)


class TestDocumentIndexAsync(AsyncDocumentIndexTestSuite):
    @pytest.fixture
    async def index(self) -> AsyncGenerator[DocumentIndex, None]:
        async with KoruDeltaVectorStore(DeterministicFakeEmbedding(size=8)) as store:
            yield KoruDeltaDocumentIndex(store=store)


class TestDocumentIndexAsRetriever(RetrieversIntegrationTests):
    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return KoruDeltaDocumentIndex

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        store = KoruDeltaVectorStore(DeterministicFakeEmbedding(size=8), mode="hybrid")
        store.add_documents([Document(page_content=f"rain on day {day}") for day in range(9)])
        return {"store": store}

    @property
    def retriever_query_example(self) -> str:
        return "rain"
