"""LlamaIndex's vector store over ours, the core's own calls, and two other stores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

from llama_index.core.schema import BaseNode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQuery

import koru_delta
from benchmarks.documents import unit_vectors
from benchmarks.measure import Row, Side, at_most, by_turns, ratio_at_most, sized
from koru_delta_llamaindex import KoruDeltaVectorStore

STORED, ADDED, DIMENSIONS, K = 20_000, 10_000, 384, 4
SLACK_US = 50
QUERIES = 100
AT_ONCE = 5000  # as many as Chroma takes


def run(folder: Path, scale: float) -> Iterator[Row]:
    stored, added = sized(STORED, scale, 100), sized(ADDED, scale, 50)
    rounds = sized(200, scale, 5)
    vectors = unit_vectors(stored, DIMENSIONS, seed=1).tolist()
    questions = unit_vectors(2 * rounds + QUERIES + 40, DIMENSIONS, seed=2).tolist()
    nodes = [
        TextNode(
            id_=f"node-{n}",
            text=f"This is what node number {n} says. " * 4,
            metadata={"page": n % 97, "source": f"file-{n % 13}"},
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"file-{n % 13}")},
            embedding=vectors[n],
        )
        for n in range(stored)
    ]
    yield from _adding(folder, nodes[:added], max(3, rounds // 60))
    with KoruDeltaVectorStore(koru_delta.open(folder / "found", durability="relaxed")) as store:
        store.add(nodes)
        store.database.build_index(store.namespace)
        yield from _querying(folder, store, nodes, questions, rounds)
        yield _pause(store, questions[-QUERIES:])
        store.database.close()


def _adding(folder: Path, nodes: Sequence[BaseNode], rounds: int) -> Iterator[Row]:
    # What the store makes of nodes, to be written by the core as it is.
    with KoruDeltaVectorStore() as store:
        store.add(nodes)
        values = {row.key: row.value for row in store.database.query(store.namespace)}
        namespace = store.namespace
    items = [(node.node_id, node.get_embedding(), values[node.node_id]) for node in nodes]
    opened: list[koru_delta.Database] = []
    waiting: dict[str, koru_delta.Database] = {}

    def before(n: int) -> None:
        for kind in ("core", "ours"):
            if kind not in waiting:
                place = folder / f"added-{len(opened)}"
                waiting[kind] = koru_delta.open(place, durability="relaxed")
                opened.append(waiting[kind])

    def core(n: int) -> object:
        return waiting.pop("core").embed_many(namespace, items, metric="cosine")

    def ours(n: int) -> object:
        return KoruDeltaVectorStore(waiting.pop("ours")).add(nodes)

    core_ns, ours_ns = by_turns([core, ours], rounds, warm_up=1, before=before)
    for database in opened:
        database.close()
    yield Row(
        f"LlamaIndex: add {len(nodes):,} x {DIMENSIONS}", ours_ns / 1e9, "s",
        core_ns / 1e9, "core's embed_many", (ratio_at_most(1.3),),
    )  # fmt: skip
    for name, peer in _peers(folder / "peers-adding"):
        begin = perf_counter()
        _fill(peer, nodes)
        yield Row("  the same", ours_ns / 1e9, "s", perf_counter() - begin, name)


def _querying(
    folder: Path,
    store: KoruDeltaVectorStore,
    nodes: Sequence[BaseNode],
    questions: list[list[float]],
    rounds: int,
) -> Iterator[Row]:
    db = store.database

    def core(n: int) -> object:
        found = db.similar(store.namespace, questions[2 * n], k=K)
        return [(hit.value, hit.score) for hit in found]

    def asked(target: BasePydanticVectorStore, offset: int) -> Side:
        return lambda n: target.query(
            VectorStoreQuery(query_embedding=questions[2 * n + offset], similarity_top_k=K)
        )

    core_ns, ours_ns = by_turns([core, asked(store, 1)], rounds, warm_up=5)
    core_us, ours_us = core_ns / 1e3, ours_ns / 1e3
    yield Row(
        f"LlamaIndex: query, k={K}, {len(nodes):,} x {DIMENSIONS}", ours_us, "us", core_us,
        "core's similar, values read", (at_most(1.3 * core_us + SLACK_US),),
    )  # fmt: skip
    for name, peer in _peers(folder / "peers-querying"):
        _fill(peer, nodes)
        (peer_ns,) = by_turns([asked(peer, 0)], max(5, rounds // 20), warm_up=2)
        yield Row("  the same", ours_us, "us", peer_ns / 1e3, name)


def _pause(store: KoruDeltaVectorStore, questions: list[list[float]]) -> Row:
    """How long a loop was held up at most while queries ran side by side."""

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
            *(
                store.aquery(VectorStoreQuery(query_embedding=each, similarity_top_k=K))
                for each in questions
            )
        )
        task.cancel()
        return max(pauses)

    asyncio.run(measured())  # starts the threads
    return Row(
        f"LlamaIndex: longest pause of the loop, {len(questions)} async queries",
        asyncio.run(measured()) * 1e3, "ms", targets=(at_most(20),),
    )  # fmt: skip


def _fill(store: BasePydanticVectorStore, nodes: Sequence[BaseNode]) -> None:
    for start in range(0, len(nodes), AT_ONCE):
        store.add(nodes[start : start + AT_ONCE])


def _peers(folder: Path) -> Iterator[tuple[str, BasePydanticVectorStore]]:
    """Other stores of LlamaIndex that are installed, empty."""
    makers: dict[str, Callable[[], BasePydanticVectorStore]] = {
        "SimpleVectorStore": SimpleVectorStore
    }
    if _is_there("chromadb") and _is_there("llama_index.vector_stores.chroma"):
        makers["its Chroma store"] = lambda: _chroma(folder)
    for name, make in makers.items():
        yield name, make()


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # what it lies in is missing
        return False


def _chroma(folder: Path) -> Any:
    import chromadb
    from llama_index.vector_stores.chroma import ChromaVectorStore

    client = chromadb.PersistentClient(str(folder / "chroma"))
    collection = client.create_collection("nodes", metadata={"hnsw:space": "cosine"})
    return ChromaVectorStore(chroma_collection=collection)
