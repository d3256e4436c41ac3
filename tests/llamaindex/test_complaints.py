"""What users of other stores of LlamaIndex complain of, asked of ours.

The numbers are issues and pull requests of run-llama/llama_index, but where another is named.
"""

from __future__ import annotations

import asyncio
import pickle
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.llms import ChatMessage, MessageRole
from llama_index.core.memory import Memory, VectorMemory
from llama_index.core.node_parser import HierarchicalNodeParser, SentenceSplitter, get_leaf_nodes
from llama_index.core.retrievers import AutoMergingRetriever
from llama_index.core.schema import (
    BaseNode,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    SimpleVectorStore,
    VectorStoreQuery,
)
from llama_index.core.vector_stores.types import VectorStoreQueryMode as Mode

import koru_delta
from koru_delta.testing import HashEmbedder
from koru_delta_llamaindex import (
    KoruDeltaAsyncChatStore,
    KoruDeltaChatStore,
    KoruDeltaDocumentStore,
    KoruDeltaEmbedding,
    KoruDeltaVectorStore,
    storage_context,
)


@pytest.fixture
def store(db: koru_delta.Database) -> KoruDeltaVectorStore:
    return KoruDeltaVectorStore(db)


@pytest.fixture
def docs(db: koru_delta.Database) -> KoruDeltaDocumentStore:
    return KoruDeltaDocumentStore(db)


def hashed() -> KoruDeltaEmbedding:
    return KoruDeltaEmbedding(HashEmbedder())


def node(name: str, text: str = "rain", **fields: Any) -> TextNode:
    return TextNode(id_=name, text=text, **{"embedding": [1.0, 0.0], **fields})


def of(name: str) -> dict[NodeRelationship, Any]:
    return {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=name)}


def names(nodes: list[BaseNode]) -> list[str]:
    return [each.node_id for each in nodes]


# Pipelines and document stores


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("cut", [False, True])
def test_documents_that_left_the_source_are_deleted_though_others_say_the_same(
    awaited: bool, cut: bool
) -> None:
    """#22706, #23002."""
    context = storage_context()
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(), MockEmbedding(2)] if cut else [MockEmbedding(2)],
        docstore=context.docstore, vector_store=context.vector_store, disable_cache=True,
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
    )  # fmt: skip

    def run(*names: str) -> None:
        documents = [Document(text="all rights reserved", id_=name) for name in names]
        if awaited:
            asyncio.run(pipeline.arun(documents=documents))
        else:
            pipeline.run(documents=documents)

    run("a", "b", "c")
    run("b")

    assert list(context.docstore.docs) == ["b"]
    kept = context.vector_store.get_nodes()
    assert [each.ref_doc_id or each.node_id for each in kept] == ["b"]
    context.vector_store.close()


async def test_the_hash_of_a_document_is_found_whichever_others_have_it(
    docs: KoruDeltaDocumentStore,
) -> None:
    """#22706; what is new is told from what is known by `in`."""
    docs.set_document_hashes({"a": "1", "b": "1", "c": "2"})

    found = docs.get_all_document_hashes()

    assert sorted(found.values()) == ["a", "b", "c"]
    assert {"1", "2"} <= found.keys()
    assert found == await docs.aget_all_document_hashes()


def test_deleting_a_document_writes_none_of_the_nodes_that_go_with_it(
    docs: KoruDeltaDocumentStore,
) -> None:
    """#19354: with a list of nodes written anew for each, time and disk went by the square."""
    docs.add_documents([node(f"n{n}", relationships=of("d")) for n in range(50)])
    listed = "llamaindex/kv/docstore/ref_doc_info"
    before = len(docs.database.history(listed, "d"))

    docs.delete_ref_doc("d")

    assert docs.docs == docs.get_all_ref_doc_info() == docs.get_all_document_hashes() == {}
    assert len(docs.database.history(listed, "d")) == before + 1


def test_deleting_a_document_does_what_the_framework_s_own_store_does(
    docs: KoruDeltaDocumentStore,
) -> None:
    """One of its nodes has come of another document since, one is deleted already."""
    theirs = SimpleDocumentStore()
    for each in (docs, theirs):
        each.add_documents([Document(text="whole", id_="d")])
        each.add_documents([node(name, relationships=of("d")) for name in "abc"])
        each.add_documents([node(name, relationships=of("e")) for name in "bx"])
        each.delete_document("c")
        each.delete_ref_doc("d")
        with pytest.raises(ValueError, match="ref_doc_id d not found"):
            each.delete_ref_doc("d")
        each.delete_ref_doc("d", raise_error=False)

    assert list(docs.docs) == list(theirs.docs) == ["x"]
    assert docs.get_all_ref_doc_info() == theirs.get_all_ref_doc_info()
    assert docs.get_all_document_hashes() == theirs.get_all_document_hashes()


@pytest.mark.parametrize("embedding", [KoruDeltaEmbedding, hashed])
def test_an_empty_page_does_not_make_a_pipeline_fail(embedding: Any) -> None:
    """#358, #821, #9180."""
    context = storage_context()
    pipeline = IngestionPipeline(transformations=[embedding()], vector_store=context.vector_store)

    pipeline.run(documents=[Document(text="rain", id_="1"), Document(text="", id_="2")])
    asyncio.run(pipeline.arun(documents=[Document(text="", id_="3")]))

    assert names(context.vector_store.get_nodes()) == ["1", "2", "3"]
    context.vector_store.close()


def test_the_local_model_is_not_sent_to_the_workers_of_a_pipeline() -> None:
    """#21300 and others of `num_workers`: what is sent is every transformation."""
    embedding = KoruDeltaEmbedding()

    sent = pickle.dumps(embedding)

    assert len(sent) < 2_000
    again = pickle.loads(sent)
    assert again.model_name == embedding.model_name
    assert again.get_text_embedding("rain") == embedding.get_text_embedding("rain")


def test_refreshing_a_long_document_leaves_no_old_chunk_behind() -> None:
    """#8832, #9172, #14057."""
    context = storage_context()
    index = VectorStoreIndex.from_documents(
        [], storage_context=context, embed_model=hashed(),
        transformations=[SentenceSplitter(chunk_size=60, chunk_overlap=0)],
    )  # fmt: skip
    long = " ".join(f"Sentence {n} is here." for n in range(100))

    def refreshed(text: str) -> tuple[list[bool], str]:
        done = index.refresh_ref_docs([Document(text=text, id_="long")])
        chunks = context.vector_store.get_nodes()
        chunks.sort(key=lambda each: each.start_char_idx)
        return done, " ".join(each.text for each in chunks)

    assert refreshed(long) == ([True], long)
    assert refreshed(long) == ([False], long)
    assert refreshed(f"{long} More.") == ([True], f"{long} More.")
    assert refreshed("Short.") == ([True], "Short.")
    context.vector_store.close()


def test_what_came_of_a_document_is_told_where_nodes_are_kept_in_the_document_store() -> None:
    """#12201, #13860."""
    context = storage_context()
    index = VectorStoreIndex.from_documents(
        [Document(text="rain", id_="d")], storage_context=context, embed_model=hashed(),
        store_nodes_override=True,
    )  # fmt: skip

    assert list(index.ref_doc_info) == ["d"]
    assert index.ref_doc_info["d"].node_ids == names(context.vector_store.get_nodes())
    index.delete_ref_doc("d", delete_from_docstore=True)
    assert index.ref_doc_info == context.docstore.docs == {}
    assert context.vector_store.get_nodes() == []
    context.vector_store.close()


def test_parents_are_merged_from_a_document_store_that_was_reopened(tmp_path: Path) -> None:
    """docling#1955: parents and children were lost on the way."""
    context = storage_context(tmp_path / "db")
    book = Document(text=" ".join(f"Sentence {n} is about rain." for n in range(60)), id_="book")
    nodes = HierarchicalNodeParser.from_defaults([512, 128]).get_nodes_from_documents([book])
    leaves = get_leaf_nodes(nodes)
    context.docstore.add_documents(nodes)
    VectorStoreIndex(leaves, storage_context=context, embed_model=hashed())
    context.vector_store.close()

    again = storage_context(tmp_path / "db")
    index = VectorStoreIndex.from_vector_store(again.vector_store, embed_model=hashed())
    retriever = AutoMergingRetriever(index.as_retriever(similarity_top_k=len(leaves)), again)
    merged = retriever.retrieve("rain")

    parents = [each for each in nodes if each not in leaves]
    assert len(leaves) > len(parents) > 0
    assert sorted(names([each.node for each in merged])) == sorted(names(parents))
    assert all(each in parents for each in again.docstore.get_nodes(names(parents)))
    again.vector_store.close()


# Metadata, filters, queries


def test_a_message_kept_by_a_vector_memory_is_found(store: KoruDeltaVectorStore) -> None:
    """Its messages are metadata, their roles enumerated strings."""
    memory = VectorMemory.from_defaults(vector_store=store, embed_model=hashed())
    said = ChatMessage(role=MessageRole.USER, content="I like tea")

    memory.put(said)

    assert [each.content for each in memory.get("tea")] == ["I like tea"]
    [kept] = store.get_nodes()
    assert kept.metadata["sub_dicts"][0]["role"] == MessageRole.USER
    assert type(kept.metadata["sub_dicts"][0]["role"]) is str


class Kind(Enum):
    PAGE = 1


def test_what_cannot_be_stored_is_named_by_its_node_and_its_path_in_the_metadata(
    store: KoruDeltaVectorStore,
) -> None:
    good = [node(f"good-{n}") for n in range(3)]
    whole = Document(text="rain", id_="d", metadata={"ok": 1, "kind": {"of": Kind.PAGE}})
    bad = SentenceSplitter().get_nodes_from_documents([whole])
    bad[0].id_, bad[0].embedding = "bad", [1.0, 0.0]

    with pytest.raises(koru_delta.errors.InvalidDataError) as caught:
        store.add([*good, *bad])

    error = pickle.loads(pickle.dumps(caught.value))
    assert error.path == "$.metadata.kind.of"
    assert (error.namespace, error.key) == (store.namespace, "bad")
    assert str(error) == str(caught.value)
    assert str(error).endswith("; it is of key 'bad' in namespace 'llamaindex/vectors'")
    assert store.get_nodes() == []


def test_a_node_without_a_source_is_its_own_document(store: KoruDeltaVectorStore) -> None:
    store.add([node("d"), node("part", relationships=of("d")), node("other"),
               node("moved", relationships=of("e")), node("e", relationships=of("f"))])  # fmt: skip

    store.delete("d")
    store.delete("e")

    assert names(store.get_nodes()) == ["e", "other"]


def test_booleans_are_filtered_as_such(store: KoruDeltaVectorStore) -> None:
    """#16310: the framework's filter takes none, unless it is made unchecked."""
    store.add([node("yes", metadata={"ok": True}), node("no", metadata={"ok": False}),
               node("one", metadata={"ok": 1})])  # fmt: skip
    unchecked = MetadataFilter.model_construct(key="ok", value=True, operator=FilterOperator.EQ)
    asked = VectorStoreQuery(query_embedding=[1.0, 0.0], similarity_top_k=9)

    assert store.query(asked, filter={"ok": True}).ids == ["yes"]
    assert names(store.get_nodes(filters=MetadataFilters(filters=[unchecked]))) == ["yes"]


def test_nested_filters_are_one_condition(store: KoruDeltaVectorStore) -> None:
    """#9182, #12772, #16310, #17857, #20424."""
    rows = [("1", 6, "x"), ("2", 6, "y"), ("3", 4, "x"), ("4", 7, "z")]
    store.add([node(name, metadata={"a": a, "b": b}) for name, a, b in rows])
    either = MetadataFilters(
        filters=[
            MetadataFilter(key="b", value="x"),
            MetadataFilter(key="b", operator=FilterOperator.IN, value=["z"]),
        ],
        condition=FilterCondition.OR,
    )
    over = MetadataFilter(key="a", operator=FilterOperator.GT, value=5)

    found = store.get_nodes(filters=MetadataFilters(filters=[over, either]))

    assert names(found) == ["1", "4"]


@pytest.mark.parametrize(
    "asked", ["dog cat", "dog,cat", "dog, cat!", '"dog" & (cat) | :*', "dog' -cat", "{dog}: <cat>"]
)
@pytest.mark.parametrize("mode", ["text_search", "sparse", "hybrid"])
def test_punctuation_in_a_question_changes_no_answer(
    store: KoruDeltaVectorStore, asked: str, mode: str
) -> None:
    """#19621, #19637, #19783; lancedb#1617."""
    store.add([node("1", "a dog, a cat"), node("2", "a cow", embedding=[0.0, 1.0])])

    def answer(words: str) -> Any:
        found = store.query(
            VectorStoreQuery(query_str=words, query_embedding=[1.0, 0.0], mode=Mode(mode))
        )
        return found.ids, found.similarities

    assert answer(asked) == answer("dog cat")
    assert answer(asked)[0][0] == "1"


@pytest.mark.parametrize("asked", ["", "'", "AND OR NOT", "what's"])
def test_a_question_of_no_word_that_there_is_finds_nothing_by_words(
    store: KoruDeltaVectorStore, asked: str
) -> None:
    store.add([node("1", "a dog, a cat")])

    found = store.query(VectorStoreQuery(query_str=asked, mode=Mode.TEXT_SEARCH))

    assert found.ids == []


async def test_an_alpha_of_0_is_words_alone_awaited_too(store: KoruDeltaVectorStore) -> None:
    """#22642: 0 was taken for none given."""
    store.add([node("words", "rain", embedding=[0.0, 1.0]), node("near", "sun")])
    asked = VectorStoreQuery(
        query_str="rain", query_embedding=[1.0, 0.0], alpha=0, mode=Mode.HYBRID
    )

    assert store.query(asked).ids == ["words"]
    assert (await store.aquery(asked)).ids == ["words"]


def test_marginal_relevance_is_less_for_what_is_like_any_that_was_taken(
    store: KoruDeltaVectorStore,
) -> None:
    """#22684: only the last one taken counted; #22126, #22967: 0, and that of the query."""
    vectors = {"a": [0.90, 0.44, 0, 0], "a again": [0.88, 0.47, 0, 0],
               "b": [0.70, 0, 0.71, 0], "c": [0.65, 0, 0, 0.76]}  # fmt: skip
    store.add([node(name, embedding=vector) for name, vector in vectors.items()])

    def chosen(k: int, **options: Any) -> list[str]:
        asked = VectorStoreQuery(
            query_embedding=[1.0, 0, 0, 0], similarity_top_k=k, mode=Mode.MMR, **options
        )
        return list(store.query(asked).ids or ())

    assert chosen(3) == ["a", "b", "c"]
    assert chosen(2, mmr_threshold=1.0) == ["a", "a again"]
    assert chosen(2, mmr_threshold=0.0) == ["a", "c"]


def test_the_framework_s_store_chooses_the_first_two_likewise(
    store: KoruDeltaVectorStore,
) -> None:
    theirs = SimpleVectorStore()
    vectors = np.random.default_rng(1).normal(size=(16, 4)).tolist()
    nodes = [node(f"n{n}", embedding=vector) for n, vector in enumerate(vectors[:8])]
    for each in (store, theirs):
        each.add(nodes)
    for threshold in (0.3, 0.5, 0.8):
        for asked in vectors[8:]:
            query = VectorStoreQuery(query_embedding=asked, similarity_top_k=2, mode=Mode.MMR)
            ours = store.query(query, mmr_threshold=threshold)
            assert ours.ids == theirs.query(query, mmr_threshold=threshold).ids


# Chats


class ToolCall(BaseModel):
    id: str
    arguments: dict[str, Any]


def test_the_tool_calls_of_a_message_are_kept(db: koru_delta.Database) -> None:
    """#10349, #12313, #12394, #16410."""
    call = ToolCall(id="1", arguments={"b": 1, "a": [None]})
    said = ChatMessage(role=MessageRole.ASSISTANT, additional_kwargs={"tool_calls": [call]})
    answer = ChatMessage("4", role=MessageRole.TOOL, additional_kwargs={"tool_call_id": "1"})
    chats = KoruDeltaChatStore(db)

    chats.set_messages("ada", [said, answer])

    first, second = chats.get_messages("ada")
    assert first.additional_kwargs == {"tool_calls": [call.model_dump()]}
    assert second == answer


async def test_a_history_that_cannot_be_replaced_is_left_as_it_was(db: koru_delta.Database) -> None:
    """#23183: the old one was deleted before the new one failed."""
    chats = KoruDeltaAsyncChatStore(db)
    said = [ChatMessage("hello"), ChatMessage("again")]
    await chats.add_messages("ada", said)
    await chats.archive_oldest_messages("ada", 1)

    bad = ChatMessage("worse", additional_kwargs={"n": object()})
    with pytest.raises(koru_delta.errors.InvalidDataError):
        await chats.set_messages("ada", [ChatMessage("new"), bad])

    assert await chats.get_messages("ada", status=None) == said
    assert await chats.get_messages("ada") == said[1:]


async def test_no_messages_are_no_error(db: koru_delta.Database) -> None:
    """#23185."""
    chats = KoruDeltaAsyncChatStore(db)
    memory = Memory(session_id="ada", sql_store=chats, token_limit=1000)

    await memory.aput_messages([])
    await memory.aput(ChatMessage("hello"))
    await memory.aput_messages([])

    assert [each.content for each in await memory.aget()] == ["hello"]
    assert len(db.commits()) == 1
