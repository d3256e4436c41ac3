"""What is awaited never waits for storage on the event loop's thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from llama_index.core import Document, MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import ChatMessage
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

from koru_delta_llamaindex import (
    KoruDeltaAsyncChatStore,
    KoruDeltaChatStore,
    KoruDeltaDocumentStore,
    KoruDeltaIndexStore,
    KoruDeltaKVStore,
    KoruDeltaMemoryBlock,
    KoruDeltaVectorStore,
    storage_context,
)
from tests.watched import Watched


@pytest.fixture
def watched() -> Iterator[Watched]:
    database = Watched()
    yield database
    database.close()


def node(name: str) -> TextNode:
    return TextNode(id_=name, text=f"rain {name}", embedding=[1.0, 0.5])


async def test_storage_never_runs_on_the_loop_s_thread(watched: Watched) -> None:
    store, kv = KoruDeltaVectorStore(watched), KoruDeltaKVStore(watched)
    docs, indexes = KoruDeltaDocumentStore(kvstore=kv), KoruDeltaIndexStore(kvstore=kv)
    chat, queue = KoruDeltaChatStore(watched), KoruDeltaAsyncChatStore(watched)
    block = KoruDeltaMemoryBlock(store=store, embed_model=MockEmbedding(2))
    watched.seen.clear()

    await store.async_add([node("a"), node("b")])
    for mode in (mode for mode in VectorStoreQueryMode if mode.value[:2] not in ("sv", "lo", "li")):
        await store.aquery(
            VectorStoreQuery(query_embedding=[1.0, 0.0], query_str="rain", mode=mode),
            include_embeddings=True,
        )
    await store.aget_nodes(include_embeddings=True)
    await store.aas_of(2)
    await store.adelete("doc")
    await store.adelete_nodes(["a"])
    await store.aclear()
    await kv.aput("a", {})
    await kv.aput_all([("b", {})])
    await kv.aget("a")
    await kv.aget_all()
    await kv.adelete("a")
    await docs.async_add_documents([Document(id_="doc", text="x")])
    await docs.aget_document("doc")
    await docs.aget_nodes(["doc"])
    await docs.adocument_exists("doc")
    await docs.aset_document_hash("doc", "hash")
    await docs.aset_document_hashes({"doc": "hash"})
    await docs.aget_document_hash("doc")
    await docs.aget_all_document_hashes()
    await docs.aget_all_ref_doc_info()
    await docs.adelete_document("doc")
    await docs.adelete_ref_doc("doc", raise_error=False)
    await indexes.async_index_structs()
    await indexes.adelete_index_struct("no")
    await chat.aset_messages("ada", [ChatMessage("hi")])
    await chat.async_add_message("ada", ChatMessage("you"))
    await chat.aget_messages("ada")
    await chat.adelete_last_message("ada")
    await chat.adelete_messages("ada")
    await chat.aget_keys()
    await queue.add_message("ada", ChatMessage("hi"))
    await queue.get_messages("ada")
    await queue.count_messages("ada")
    await queue.archive_oldest_messages("ada", 1)
    await queue.set_messages("ada", [])
    await queue.get_keys()
    await block.aput([ChatMessage("rain")], session_id="s")
    await block.aget([ChatMessage("rain")], session_id="s")

    loop = threading.get_ident()
    assert {name for name, _ in watched.seen} >= {"embed_many", "as_of", "put_many", "similar"}
    assert [name for name, thread in watched.seen if thread == loop] == []


async def test_retrievers_and_pipelines_stay_off_the_loop_s_thread(watched: Watched) -> None:
    context: StorageContext = storage_context(watched)
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(), MockEmbedding(4)],
        vector_store=context.vector_store, docstore=context.docstore,
    )  # fmt: skip
    index = VectorStoreIndex([], storage_context=context, embed_model=MockEmbedding(4))
    watched.seen.clear()

    for text in ("rain", "sun"):
        await pipeline.arun(documents=[Document(id_="sky", text=text)])
    found = await index.as_retriever().aretrieve("weather")

    assert [each.node.get_content() for each in found] == ["sun"]
    loop = threading.get_ident()
    assert [name for name, thread in watched.seen if thread == loop] == []


async def test_a_heartbeat_goes_on_while_a_hundred_queries_are_awaited(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng(1)
    with KoruDeltaVectorStore() as store:
        vectors = rng.standard_normal((2_000, 64))
        await store.async_add(
            [
                TextNode(id_=str(place), text=f"text {place}", embedding=vector.tolist())
                for place, vector in enumerate(vectors)
            ]
        )
        pauses: list[float] = []
        done = asyncio.Event()

        async def heartbeat() -> None:
            while not done.is_set():
                before = time.perf_counter()
                await asyncio.sleep(0.001)
                pauses.append(time.perf_counter() - before - 0.001)

        beating = asyncio.create_task(heartbeat())
        answers = await asyncio.gather(
            *(
                store.aquery(VectorStoreQuery(query_embedding=vector.tolist(), similarity_top_k=10))
                for vector in vectors[:100]
            )
        )
        done.set()
        await beating

    with capsys.disabled():
        print(f" [longest pause {1000 * max(pauses):.1f} ms, {len(pauses)} beats]", end="")
    assert [(answer.ids or [])[0] for answer in answers] == [str(place) for place in range(100)]
    assert len(pauses) > 1  # a loop that is blocked beats once


async def test_cancelling_does_not_undo_a_write_that_has_begun(watched: Watched) -> None:
    kv = KoruDeltaKVStore(watched)
    writing = asyncio.create_task(kv.aput("a", {"n": 1}))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await kv.aput("b", {})

    assert kv.get("b") == {}


def test_one_store_serves_several_loops(watched: Watched) -> None:
    store = KoruDeltaVectorStore(watched)
    for name in ("a", "b"):
        asyncio.run(store.async_add([node(name)]))
    found: list[Any] = []

    def work() -> None:
        found.append(asyncio.run(store.aget_nodes()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [[each.node_id for each in nodes] for nodes in found] == [["a", "b"]]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_waits_in_threads_of_its_own(tmp_path: Any) -> None:
    os = pytest.importorskip("os")
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    with KoruDeltaKVStoreAt(tmp_path / "db") as kv:
        asyncio.run(kv.aput("parent", {}))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                asyncio.run(kv.aput("child", {}))
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert asyncio.run(kv.aget_all()) == {"parent": {}, "child": {}}


class KoruDeltaKVStoreAt(KoruDeltaKVStore):
    def __init__(self, path: Any) -> None:
        super().__init__(path=path)

    def __enter__(self) -> KoruDeltaKVStoreAt:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
