"""No async method of any store runs storage on the loop's thread, or holds the loop up."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.messages import HumanMessage
from langchain_core.outputs import Generation

from koru_delta.testing import HashEmbedder
from koru_delta_langchain import (
    KoruDeltaByteStore,
    KoruDeltaCache,
    KoruDeltaChatMessageHistory,
    KoruDeltaDocumentIndex,
    KoruDeltaRecordManager,
    KoruDeltaSemanticCache,
    KoruDeltaVectorStore,
)
from tests.watched import Watched


class OnLoop(Embeddings):
    """Embeds on the loop, as a client of a server does; asked otherwise, it would block."""

    def __init__(self) -> None:
        self.embed = HashEmbedder(8)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise AssertionError("this would block the loop")

    def embed_query(self, text: str) -> list[float]:
        raise AssertionError("this would block the loop")

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.embed(texts).tolist()

    async def aembed_query(self, text: str) -> list[float]:
        return (await self.aembed_documents([text]))[0]


@pytest.fixture
def db() -> Iterator[Watched]:
    with Watched() as database:
        yield database


DOCS = [Document(page_content="rain", id="a")]
CALLS: dict[Any, dict[str, tuple[Any, ...]]] = {
    KoruDeltaByteStore: {
        "amset": ([("a", b"1")],), "amget": (["a"],), "ayield_keys": (), "amdelete": (["a"],),
    },
    KoruDeltaCache: {
        "aupdate": ("p", "m", [Generation(text="x")]), "alookup": ("p", "m"), "aclear": (),
    },
    KoruDeltaSemanticCache: {
        "aupdate": ("p q", "m", [Generation(text="x")]), "alookup": ("p q r", "m"), "aclear": (),
    },
    KoruDeltaChatMessageHistory: {
        "aadd_messages": ([HumanMessage("x")],), "aget_messages": (), "aclear": (),
    },
    KoruDeltaRecordManager: {
        "acreate_schema": (), "aget_time": (), "aupdate": (["a"],), "aexists": (["a"],),
        "alist_keys": (), "adelete_keys": (["a"],), "averify": (),
    },
    KoruDeltaDocumentIndex: {
        "aupsert": (DOCS,), "aget": (["a"],), "ainvoke": ("rain",), "adelete": (["a"],),
    },
}  # fmt: skip
COMMON = {"aas_of", "aclose"}
RUNNABLE = {"abatch", "abatch_as_completed", "astream", "astream_log", "astream_events",
            "atransform", "aget_relevant_documents"}  # fmt: skip


def make(kind: Any, db: Watched) -> Any:
    store = KoruDeltaVectorStore(OnLoop(), database=db)
    return {
        KoruDeltaSemanticCache: lambda: KoruDeltaSemanticCache(OnLoop(), database=db),
        KoruDeltaChatMessageHistory: lambda: KoruDeltaChatMessageHistory("s", database=db),
        KoruDeltaRecordManager: lambda: KoruDeltaRecordManager("s", store=store),
        KoruDeltaDocumentIndex: lambda: KoruDeltaDocumentIndex(store=store),
    }.get(kind, lambda: kind(database=db))()


async def done(call: Any) -> None:
    if inspect.isasyncgen(call):
        _ = [item async for item in call]
    else:
        await call


@pytest.mark.parametrize("kind", CALLS, ids=lambda kind: kind.__name__)
async def test_storage_never_runs_on_the_loops_thread(db: Watched, kind: Any) -> None:
    async_methods = {
        name
        for name, member in inspect.getmembers(kind)
        if name.startswith("a") and (
            inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member)
        )
    }  # fmt: skip
    calls = CALLS[kind]
    assert async_methods - COMMON - RUNNABLE == set(calls)
    store = await asyncio.to_thread(make, kind, db)
    db.seen.clear()
    for name, arguments in calls.items():
        before = len(db.seen)
        await done(getattr(store, name)(*arguments))
        assert len(db.seen) > before or name == "acreate_schema", name
    if hasattr(store, "aas_of"):
        await store.aas_of(None)
        await store.aclose()
    here = threading.get_ident()
    assert [name for name, thread in db.seen if thread == here] == []


async def test_the_loop_goes_on_while_a_hundred_searches_wait(
    capsys: pytest.CaptureFixture[str],
) -> None:
    vectors = np.random.default_rng(0).standard_normal((2000, 64)).astype(np.float32)

    class Fixed(OnLoop):
        async def aembed_query(self, text: str) -> list[float]:
            return vectors[int(text)].tolist()

        async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
            return vectors[[int(text) for text in texts]].tolist()

    async with KoruDeltaVectorStore(Fixed()) as store:
        await store.aadd_texts([str(n) for n in range(len(vectors))])
        await store.asimilarity_search("0")
        pauses: list[float] = []
        beating = asyncio.create_task(heartbeat(pauses))
        await asyncio.sleep(0.01)
        found = await asyncio.gather(
            *(store.asimilarity_search(str(n), k=4, mode="hybrid") for n in range(100))
        )
        beating.cancel()
    assert [documents[0].page_content for documents in found] == [str(n) for n in range(100)]
    assert len(pauses) > 1  # it beat while they ran; how long a pause was is for the eye
    with capsys.disabled():
        print(f"\nlongest pause of the loop: {max(pauses) * 1000:.1f} ms over {len(pauses)} beats")


async def heartbeat(pauses: list[float]) -> None:
    while True:
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        pauses.append(time.perf_counter() - before - 0.001)
