"""What people should not do, and do: every error says so, and nothing is lost or made up."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)

import koru_delta
from koru_delta.errors import DatabaseClosedError, InvalidDataError, KoruDeltaError, QueryError
from koru_delta_llamaindex import (
    KoruDeltaAsyncChatStore,
    KoruDeltaChatStore,
    KoruDeltaDocumentStore,
    KoruDeltaEmbedding,
    KoruDeltaIndexStore,
    KoruDeltaKVStore,
    KoruDeltaMemoryBlock,
    KoruDeltaVectorStore,
)
from koru_delta_llamaindex.keys import order_of, plain

ODD_IDS = [
    "", " ", "a/b", "a\0b", "\n", "é", "e\u0301", "x" * 100_000, "id-sha256:abc", "%2F", "a.b",
    "$a", "..", "\u202e", "😀",
]  # fmt: skip
MODES = ["default", "mmr", "hybrid", "semantic_hybrid", "text_search", "sparse"]


def node(name: str = "a", text: str = "rain", **more: Any) -> TextNode:
    return TextNode(id_=name, text=text, **{"embedding": [1.0, 2.0], **more})


def asked(**more: Any) -> VectorStoreQuery:
    given: dict[str, Any] = {"query_embedding": [1.0, 2.0], "query_str": "rain", **more}
    return VectorStoreQuery(**given)


def circular() -> dict[str, Any]:
    found: dict[str, Any] = {}
    found["itself"] = found
    return found


def shared(depth: int) -> dict[str, Any]:
    """A value that takes no room until it is written: each level holds the one below twice."""
    found: dict[str, Any] = {"z": 1, "a": 2}
    for _ in range(depth):
        found = {"b": found, "a": found}
    return found


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {"a": found}
    return found


@pytest.fixture
def store(db: koru_delta.Database) -> KoruDeltaVectorStore:
    return KoruDeltaVectorStore(db)


# Arguments


def test_what_is_no_database_or_store_is_refused_when_a_store_is_made() -> None:
    make: Any
    for make in (
        KoruDeltaVectorStore, KoruDeltaKVStore, KoruDeltaDocumentStore, KoruDeltaIndexStore,
        KoruDeltaChatStore, KoruDeltaAsyncChatStore,
    ):  # fmt: skip
        for given in ("a/path", 5, object(), koru_delta.AsyncDatabase):
            with pytest.raises(InvalidDataError, match="path="):
                make(given)
    for make in (KoruDeltaDocumentStore, KoruDeltaIndexStore):
        for given in ("a/path", SimpleKVStore(), 5):
            with pytest.raises(InvalidDataError, match="KoruDeltaKVStore"):
                make(kvstore=given)
    for metric in (None, [], {}, "cos"):
        with pytest.raises(QueryError, match="metric"):
            KoruDeltaVectorStore(metric=metric)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [None, 5, "abc", ["a"], [None], [{"a": 1}], object()], ids=repr)
async def test_what_is_no_list_of_the_right_things_is_refused(
    db: koru_delta.Database, given: Any
) -> None:
    store, values, documents = (
        KoruDeltaVectorStore(db),
        KoruDeltaKVStore(db),
        KoruDeltaDocumentStore(db),
    )
    chats, loop_chats = KoruDeltaChatStore(db), KoruDeltaAsyncChatStore(db)
    no_number = 1.5 if given in (5, None) else given
    calls: list[Callable[[], Any]] = [
        lambda: store.add(given),
        lambda: values.put_all(given),
        lambda: documents.add_documents(given),
        lambda: chats.set_messages("k", given),
        lambda: chats.add_message("k", given),
        lambda: chats.delete_message("k", no_number),  # type: ignore[arg-type]
    ]  # fmt: skip
    if given is not None and given != ["a"]:
        calls += [lambda: store.get_nodes(given), lambda: store.delete_nodes(given)]
    for call in calls:
        with pytest.raises(InvalidDataError):
            call()
    for waiting in (
        store.async_add(given), loop_chats.add_messages("k", given),
        loop_chats.delete_oldest_messages("k", no_number),
        loop_chats.delete_message("k", no_number),
        loop_chats.get_messages("k", limit=no_number),
        loop_chats.get_messages("k", status=given or "gone"),
        loop_chats.add_message("k", ChatMessage("x"), given),
    ):  # fmt: skip
        with pytest.raises(InvalidDataError):
            await waiting
    assert db.stats()["seq"] == 0


@pytest.mark.parametrize("mode", MODES)
def test_queries_are_checked(store: KoruDeltaVectorStore, mode: Any) -> None:
    store.add([node("a", "rain"), node("b", "sun", embedding=[2.0, 1.0])])
    for query in (None, 5, "rain", {"query_str": "rain"}):
        with pytest.raises(QueryError, match="VectorStoreQuery"):
            store.query(query)  # type: ignore[arg-type]
    for k in (None, -1, True, 1.5, "3", [2]):
        with pytest.raises(QueryError):
            store.query(asked(mode=mode, similarity_top_k=k))
    for k, found in ((0, 0), (2**62, 1 if mode in ("text_search", "sparse") else 2)):
        assert len(store.query(asked(mode=mode, similarity_top_k=k)).nodes or ()) == found
    for name in ("doc_ids", "node_ids", "output_fields"):
        for value in (5, "abc", [5], [None], object()):
            with pytest.raises(InvalidDataError, match=name):
                store.query(asked(mode=mode, **{name: value}))
    for where in (5, "a", {"a": 1}, [MetadataFilter(key="a", value=1)]):
        with pytest.raises(QueryError):
            store.query(asked(mode=mode, filters=where))
        with pytest.raises(QueryError):
            store.query(asked(mode=mode), filter=where if where != {"a": 1} else {"$where": 1})
    if mode == "mmr":
        for name in ("mmr_prefetch_k", "mmr_prefetch_factor"):
            for number in ("3", [], float("nan"), float("inf"), object()):
                with pytest.raises(QueryError, match=name):
                    store.query(asked(mode=mode), **{name: number})
    with pytest.raises(QueryError, match="query mode"):
        store.query(asked(mode=["default"]))


def test_filters_are_checked(store: KoruDeltaVectorStore) -> None:
    store.add([node(metadata={"a": 1})])
    deep = MetadataFilters(filters=[])
    for _ in range(1500):
        deep = MetadataFilters.model_construct(filters=[deep], condition=FilterCondition.AND)
    leaf = MetadataFilter(key="a", value=1)
    broken: list[MetadataFilters] = [
        deep,
        MetadataFilters.model_construct(filters=5),
        MetadataFilters.model_construct(filters=[5]),
        MetadataFilters.model_construct(filters=[leaf], condition="xor"),
        MetadataFilters.model_construct(filters=[leaf], condition=5),
        *(
            MetadataFilters(filters=[MetadataFilter.model_construct(**{**dict(leaf), **more})])
            for more in (
                {"key": None}, {"key": 5}, {"key": ["a"]}, {"operator": None},
                {"operator": "$where"}, {"operator": ["=="]},
                {"operator": FilterOperator.IN, "value": "abc"},
                {"operator": FilterOperator.GT, "value": [1]},
                {"operator": FilterOperator.TEXT_MATCH, "value": 5},
            )
        ),
    ]  # fmt: skip
    for where in broken:
        for call in (
            lambda where=where: store.query(asked(filters=where)),
            lambda where=where: store.get_nodes(filters=where),
            lambda where=where: store.delete_nodes(filters=where),
        ):
            with pytest.raises(QueryError):
                call()
    assert len(store.get_nodes()) == 1  # nothing was deleted by a filter that is none
    for code in ("'; DROP TABLE versions; --", "__import__('os').system('x')", "(?i).*", "$ne"):
        for operator in (FilterOperator.EQ, FilterOperator.TEXT_MATCH_INSENSITIVE):
            one = MetadataFilter(key=code, operator=operator, value=code)
            assert store.get_nodes(filters=MetadataFilters(filters=[one])) == []


# Data


def test_any_id_is_its_own_everywhere(db: koru_delta.Database) -> None:
    store, values, chats = KoruDeltaVectorStore(db), KoruDeltaKVStore(db), KoruDeltaChatStore(db)
    for name in ODD_IDS:
        source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=name)}
        store.add([node(name, metadata={name: name}, relationships=source)])
        values.put(name, {name: name}, name)
        chats.add_message(name, ChatMessage(name[:9]))

    assert [each.node_id for each in store.get_nodes(ODD_IDS)] == ODD_IDS
    for name in ODD_IDS:
        one = MetadataFilters(filters=[MetadataFilter(key=name, value=name)])
        assert [each.node_id for each in store.get_nodes(filters=one)] == [name]
        assert values.get_all(name) == {name: {name: name}}
        assert [message.content for message in chats.get_messages(name)] == [name[:9]]
    assert sorted(chats.get_keys()) == sorted(ODD_IDS)
    for name in ODD_IDS:
        store.delete(name)
        assert values.delete(name, name)
    assert store.get_nodes() == []


@pytest.mark.parametrize(
    "metadata",
    [
        {"$a": 1}, {".": 1}, {"a.b": 1}, {"_id": 1}, {"": 2},
        {"z": 1, "id": 2, "text": 3, "node": 4, "order": 5, "ref_doc_id": "x", "metadata": {}},
        {"n": 2**63 - 1}, {"n": -(2**63)}, {"x": 1e308}, {"x": -0.0}, {"x": 1.0},
        {"deep": [[[{"b": [None, True], "a": {}}]]]},
    ],
    ids=repr,
)  # fmt: skip
def test_metadata_of_any_json_comes_back_in_its_order(
    store: KoruDeltaVectorStore, metadata: dict[str, Any]
) -> None:
    documents = KoruDeltaDocumentStore(store.database)
    store.add([node(metadata=metadata)])
    documents.add_documents([node(metadata=metadata)])

    (found,) = store.get_nodes(["a"])
    assert repr(found.metadata) == repr(metadata)
    kept = documents.get_document("a")
    assert kept is not None
    assert repr(kept.metadata) == repr(metadata)


@pytest.mark.parametrize(
    "value",
    [2**63, float("nan"), float("inf"), np.float32(1), object(), "\ud800", nested(300), circular()],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_no_json_is_refused_and_never_changed(db: koru_delta.Database, value: Any) -> None:
    store, values, chats = KoruDeltaVectorStore(db), KoruDeltaKVStore(db), KoruDeltaChatStore(db)
    for call in (
        lambda: store.add([node("fine"), node("odd", metadata={"a": value})]),
        lambda: values.put_all([("fine", {}), ("odd", {"a": value})]),
        lambda: KoruDeltaDocumentStore(db).add_documents([node(metadata={"a": value})]),
        lambda: chats.add_message("k", ChatMessage("x", additional_kwargs={"a": value})),
    ):
        with pytest.raises(InvalidDataError):
            call()
    assert store.get_nodes() == []
    assert values.get_all() == {}
    assert chats.get_messages("k") == []


def test_a_shared_part_is_looked_at_once(db: koru_delta.Database) -> None:
    order = order_of(shared(60))
    assert order is not None
    assert order[0] == ["b", "a"]
    assert plain(shared(60))["a"]["b"]["a"].keys() == {"a", "b"}
    values = KoruDeltaKVStore(db)
    values.put("twelve", shared(12))
    found = values.get("twelve")
    assert found == shared(12)
    assert found is not None
    assert list(found) == ["b", "a"]


@pytest.mark.parametrize(
    "embedding",
    [[], [float("nan"), 1.0], [1e300, 1.0], [0.0, 0.0], [1.0], [1.0, 2.0, 3.0], [1.0] * 100_000],
    ids=lambda embedding: repr(embedding)[:20],
)
def test_an_embedding_that_cannot_be_is_refused_with_the_whole_batch(
    store: KoruDeltaVectorStore, embedding: list[float]
) -> None:
    store.add([node("first")])
    with pytest.raises(KoruDeltaError):
        store.add([node("fine"), node("odd", embedding=embedding)])
    with pytest.raises(KoruDeltaError):
        store.query(asked(query_embedding=embedding))
    assert [each.node_id for each in store.get_nodes()] == ["first"]


# Values of others


def test_values_of_another_store_are_refused_by_name(db: koru_delta.Database) -> None:
    no_node = {"id": "a", "text": "t", "metadata": {}, "node": {}}
    db.put_many([("n/m", "a", 5), ("n/m", "b", {"x": 1}), ("v", "a", no_node)])
    values = KoruDeltaKVStore(db, namespace="n")
    for reading in (
        lambda: values.get("a", "m"),
        lambda: values.get("b", "m"),
        lambda: values.get_all("m"),
        lambda: KoruDeltaVectorStore(db, namespace="v").get_nodes(),
        lambda: KoruDeltaVectorStore(db, namespace="n/m").get_nodes(["b"]),
    ):
        with pytest.raises(InvalidDataError):
            reading()


async def test_a_memory_over_documents_recalls_them_without_a_role(
    store: KoruDeltaVectorStore,
) -> None:
    store.add([node()])
    embedding = KoruDeltaEmbedding(lambda texts: [[1.0, 2.0] for _ in texts])
    block = KoruDeltaMemoryBlock(store=store, embed_model=embedding)

    assert await block.aget([ChatMessage("rain")]) == "document: rain"


# Closing and forking under way


def test_what_is_closed_while_others_use_it_says_so(tmp_path: Path) -> None:
    store = KoruDeltaVectorStore(path=tmp_path / "db")
    chats = KoruDeltaAsyncChatStore(path=tmp_path / "db")
    wrong: list[BaseException] = []
    busy = threading.Barrier(3)

    async def work() -> None:
        for turn in range(100_000):
            await store.async_add([node(str(turn))])
            await chats.add_message("k", ChatMessage(str(turn)))
            await store.aget_nodes([str(turn)])
            if turn == 3:
                busy.wait()

    def run() -> None:
        try:
            asyncio.run(work())
        except DatabaseClosedError:
            pass
        except BaseException as error:  # noqa: BLE001 - the test reports it
            wrong.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    busy.wait()
    store.close()
    chats.close()
    for thread in threads:
        thread.join()
    assert wrong == []
    with koru_delta.open(tmp_path / "db") as db:
        assert db.verify().ok


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_goes_on_with_the_stores_of_its_parent(tmp_path: Path) -> None:
    store = KoruDeltaVectorStore(path=tmp_path / "db")
    asyncio.run(store.async_add([node("parent")]))  # so that there are threads to lose
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(store.async_add([node("child")]))
            os._exit(0 if len(asyncio.run(store.aget_nodes())) == 2 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert {each.node_id for each in asyncio.run(store.aget_nodes())} == {"parent", "child"}
    store.close()
