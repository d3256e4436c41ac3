"""LangChain's vector store over ours, the core's own calls, and three other stores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

import koru_delta
from benchmarks.documents import unit_vectors
from benchmarks.measure import Row, Side, at_most, by_turns, ratio_at_most, sized
from koru_delta_langchain import KoruDeltaVectorStore

STORED, ADDED, DIMENSIONS, K = 20_000, 10_000, 384, 4
SLACK_US = 50
SEARCHES = 100


class NoOp(Embeddings):
    """Gives vectors that were made before: a text is the number of its row."""

    def __init__(self, rows: list[list[float]]) -> None:
        self.rows = rows

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.rows[int(text)] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.rows[int(text)]

    async def aembed_query(self, text: str) -> list[float]:
        return self.rows[int(text)]


def run(folder: Path, scale: float) -> Iterator[Row]:
    stored, added = sized(STORED, scale, 100), sized(ADDED, scale, 50)
    rounds = sized(200, scale, 5)
    rows = unit_vectors(stored + 3 * rounds + 400, DIMENSIONS, seed=1).tolist()
    embedding = NoOp(rows)
    texts = [str(n) for n in range(stored)]
    metadatas = [{"page": n % 97, "source": f"file-{n % 13}"} for n in range(stored)]
    yield from _adding(folder, embedding, texts[:added], metadatas[:added], max(3, rounds // 60))
    with koru_delta.open(folder / "found", durability="relaxed") as db:
        store = KoruDeltaVectorStore(embedding, database=db)
        store.add_texts(texts, metadatas, ids=texts)
        db.build_index("langchain")
        yield from _searching(folder, store, texts, metadatas, rounds)
        yield _pause(store, stored)


def _adding(
    folder: Path, embedding: NoOp, texts: list[str], metadatas: list[Any], rounds: int
) -> Iterator[Row]:
    documents = [
        Document(page_content=text, metadata=metadata, id=text)
        for text, metadata in zip(texts, metadatas, strict=True)
    ]
    opened: list[koru_delta.Database] = []

    def fresh(n: int) -> koru_delta.Database:
        opened.append(koru_delta.open(folder / f"added-{len(opened)}", durability="relaxed"))
        return opened[-1]

    made: dict[str, list[koru_delta.Database]] = {"core": [], "ours": []}

    def core(n: int) -> object:
        items = [
            (text, embedding.rows[int(text)], {"id": text, "text": text, "metadata": metadata})
            for text, metadata in zip(texts, metadatas, strict=True)
        ]
        return made["core"].pop().embed_many("langchain", items, model="default")

    def ours(n: int) -> object:
        store = KoruDeltaVectorStore(embedding, database=made["ours"].pop())
        return store.add_documents(documents)

    def before(n: int) -> None:
        for kind in made.values():
            kind.clear()
            kind.append(fresh(n))

    core_ns, ours_ns = by_turns([core, ours], rounds, warm_up=1, before=before)
    for database in opened:
        database.close()
    yield Row(
        f"LangChain: add {len(texts):,} x {DIMENSIONS}", ours_ns / 1e9, "s",
        core_ns / 1e9, "core's embed_many", (ratio_at_most(1.3),),
    )  # fmt: skip
    for name, peer in _peers(folder / "peers-adding", embedding):
        begin = perf_counter()
        peer.add_documents(documents)
        yield Row("  the same", ours_ns / 1e9, "s", perf_counter() - begin, name)


def _searching(
    folder: Path,
    store: KoruDeltaVectorStore,
    texts: list[str],
    metadatas: list[Any],
    rounds: int,
) -> Iterator[Row]:
    db, embedding = store.database, store.embeddings
    assert isinstance(embedding, NoOp)
    first = len(texts)

    def core(n: int) -> object:
        query = embedding.rows[first + 2 * n]
        return [(hit.value, hit.score) for hit in db.similar("langchain", query, k=K)]

    def asked(target: VectorStore, offset: int) -> Side:
        return lambda n: target.similarity_search(str(first + offset + 2 * n), k=K)

    core_ns, ours_ns = by_turns([core, asked(store, 1)], rounds, warm_up=5)
    core_us, ours_us = core_ns / 1e3, ours_ns / 1e3
    where = f"{len(texts):,} x {DIMENSIONS}"
    yield Row(
        f"LangChain: similarity_search, k={K}, {where}", ours_us, "us", core_us,
        "core's similar, values read", (at_most(1.3 * core_us + SLACK_US),),
    )  # fmt: skip
    for name, peer in _peers(folder / "peers-searching", embedding):
        for start in range(0, len(texts), 5000):  # as many as Chroma takes at once
            stop = start + 5000
            peer.add_texts(texts[start:stop], metadatas[start:stop], ids=texts[start:stop])
        (peer_ns,) = by_turns([asked(peer, 0)], max(5, rounds // 10), warm_up=2)
        yield Row("  the same", ours_us, "us", peer_ns / 1e3, name)


def _pause(store: KoruDeltaVectorStore, stored: int) -> Row:
    """How long a loop was held up at most while searches ran side by side."""

    async def beat(pauses: list[float]) -> None:
        while True:
            before = perf_counter()
            await asyncio.sleep(0.001)
            pauses.append(perf_counter() - before - 0.001)

    async def measured() -> float:
        pauses = [0.0]
        task = asyncio.create_task(beat(pauses))
        await asyncio.sleep(0.02)
        await asyncio.gather(
            *(store.asimilarity_search(str(stored + n), k=K) for n in range(SEARCHES))
        )
        task.cancel()
        return max(pauses)

    asyncio.run(measured())  # starts the threads
    return Row(
        f"LangChain: longest pause of the loop, {SEARCHES} async searches",
        asyncio.run(measured()) * 1e3, "ms", targets=(at_most(20),),
    )  # fmt: skip


def _peers(folder: Path, embedding: NoOp) -> Iterator[tuple[str, VectorStore]]:
    """Other stores of LangChain that are installed, empty."""
    makers: dict[str, Callable[[], VectorStore]] = {
        "InMemoryVectorStore": lambda: InMemoryVectorStore(embedding)
    }
    if find_spec("faiss") is not None and find_spec("langchain_community") is not None:
        makers["FAISS"] = lambda: _faiss(embedding)
    if find_spec("langchain_chroma") is not None:
        makers["langchain-chroma"] = lambda: _chroma(folder, embedding)
    for name, make in makers.items():
        yield name, make()


def _faiss(embedding: NoOp) -> VectorStore:
    import faiss

    from benchmarks.faiss_in_langchain import FAISS, InMemoryDocstore

    return FAISS(embedding, faiss.IndexFlatIP(DIMENSIONS), InMemoryDocstore(), {})


def _chroma(folder: Path, embedding: NoOp) -> VectorStore:
    from langchain_chroma import Chroma

    return _Chroma(Chroma(embedding_function=embedding, persist_directory=str(folder / "chroma")))


class _Chroma(VectorStore):
    """Chroma, given no more at once than it takes."""

    def __init__(self, inner: VectorStore) -> None:
        self.inner = inner

    def add_documents(self, documents: list[Document], **options: Any) -> list[str]:
        made: list[str] = []
        for start in range(0, len(documents), 5000):
            made += self.inner.add_documents(documents[start : start + 5000], **options)
        return made

    def add_texts(self, texts: Any, metadatas: Any = None, **options: Any) -> list[str]:
        return self.inner.add_texts(texts, metadatas, **options)

    def similarity_search(self, query: str, k: int = 4, **options: Any) -> list[Document]:
        return self.inner.similarity_search(query, k, **options)

    @classmethod
    def from_texts(cls, *_arguments: Any, **_options: Any) -> Any:
        raise NotImplementedError
