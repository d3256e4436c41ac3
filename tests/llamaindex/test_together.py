"""Indexes, pipelines, contexts, caches and memories over one directory, offline."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import (
    Document,
    MockEmbedding,
    StorageContext,
    SummaryIndex,
    VectorStoreIndex,
    load_index_from_storage,
)
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.llms import ChatMessage, MockLLM
from llama_index.core.memory import Memory
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import IndexNode, TextNode
from llama_index.core.vector_stores.types import (
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)

import koru_delta
from koru_delta.testing import FixedClock, HashEmbedder
from koru_delta_llamaindex import (
    KoruDeltaAsyncChatStore,
    KoruDeltaMemoryBlock,
    KoruDeltaVectorStore,
    ingestion_cache,
    storage_context,
)


class Hashed(BaseEmbedding):
    """The deterministic embedder, as LlamaIndex expects one; counts the texts it is given."""

    texts: int = 0

    def _get_text_embedding(self, text: str) -> list[float]:
        self.texts += 1
        vector: list[float] = HashEmbedder()([text])[0].tolist()
        return vector

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def text(name: str, about: str) -> Document:
    return Document(id_=name, text=about, metadata={"name": name})


def contents(found: Any) -> list[str]:
    return [each.node.get_content() for each in found]


def test_an_index_is_there_after_reopening_with_all_it_stood_on(tmp_path: Path) -> None:
    context = storage_context(tmp_path / "db")
    index = VectorStoreIndex.from_documents(
        [text("rain", "rain falls on hills"), text("sun", "the sun shines")],
        storage_context=context, embed_model=Hashed(),
    )  # fmt: skip
    summary = SummaryIndex.from_documents([text("moon", "a moon")], storage_context=context)
    index.insert(text("wind", "wind blows over hills"))
    index.delete_ref_doc("sun", delete_from_docstore=True)
    context.persist(str(tmp_path / "unused"))
    ids = index.index_id, summary.index_id
    wanted = contents(index.as_retriever().retrieve("rain on hills"))
    context.vector_store.close()

    again = storage_context(tmp_path / "db")
    found = load_index_from_storage(again, index_id=ids[0], embed_model=Hashed())
    listed = load_index_from_storage(again, index_id=ids[1])

    assert contents(found.as_retriever().retrieve("rain on hills")) == wanted
    assert wanted == ["rain falls on hills", "wind blows over hills"]
    assert contents(listed.as_retriever().retrieve("anything")) == ["a moon"]
    assert not list((tmp_path / "unused").glob("*vector_store*"))
    again.vector_store.close()


@pytest.mark.parametrize(
    "mode", ["default", "sparse", "text_search", "hybrid", "semantic_hybrid", "mmr"]
)
def test_a_retriever_takes_every_mode_with_filters_and_moments(mode: str) -> None:
    context = storage_context()
    index = VectorStoreIndex.from_documents(
        [text("rain", "rain falls"), text("sun", "sun and rain")],
        storage_context=context, embed_model=Hashed(),
    )  # fmt: skip
    then = context.vector_store.client.commits()[-1]
    index.insert(text("rain", "rain again"))
    filters = MetadataFilters(filters=[MetadataFilter(key="name", value="sun")])

    def ask(**options: Any) -> list[str]:
        retriever = index.as_retriever(vector_store_query_mode=mode, similarity_top_k=5, **options)
        return sorted(contents(retriever.retrieve("rain")))

    assert ask() == ["rain again", "rain falls", "sun and rain"]
    assert ask(filters=filters) == ask(doc_ids=["sun"]) == ["sun and rain"]
    assert ask(vector_store_kwargs={"as_of": then}) == ["rain falls", "sun and rain"]
    context.vector_store.close()


def test_a_query_engine_answers_offline() -> None:
    context = storage_context()
    index = VectorStoreIndex.from_documents(
        [text("rain", "rain falls")], storage_context=context, embed_model=Hashed()
    )
    answer = index.as_query_engine(llm=MockLLM()).query("what falls?")

    assert contents(answer.source_nodes) == ["rain falls"]
    assert "rain falls" in str(answer)
    context.vector_store.close()


def test_nodes_that_stand_for_others_are_retrieved_as_they_were_given() -> None:
    context = storage_context()
    nodes = [IndexNode(text="a summary of rain", index_id="rain", obj=TextNode(text="all of it"))]
    index = VectorStoreIndex(nodes, storage_context=context, embed_model=Hashed())

    assert contents(index.as_retriever().retrieve("rain")) == ["all of it"]
    context.vector_store.close()


@pytest.mark.parametrize("cached", [False, True])
def test_an_upsert_replaces_a_document_and_leaves_the_old_one_readable(
    clock: FixedClock, cached: bool
) -> None:
    with koru_delta.open(clock=clock) as db:
        context, embed = storage_context(db), Hashed()
        pipeline = IngestionPipeline(
            transformations=[SentenceSplitter(chunk_size=20, chunk_overlap=0), embed],
            vector_store=context.vector_store, docstore=context.docstore,
            cache=ingestion_cache(db) if cached else None, disable_cache=not cached,
        )  # fmt: skip
        long = " ".join(f"Sentence number {n} of the first edition." for n in range(8))
        pipeline.run(documents=[text("book", long), text("film", "a film")])
        first, counted = db.as_of(None).seq, embed.texts
        before = {node.node_id: node for node in context.vector_store.get_nodes()}

        clock.advance(seconds=1)
        pipeline.run(documents=[text("book", long), text("film", "a film")])
        assert embed.texts == counted
        assert cached or db.as_of(None).seq == first  # that of no text at all is cached too
        pipeline.run(documents=[text("book", "The second edition."), text("film", "a film")])
        now = context.vector_store.get_nodes()

        assert sorted(node.get_content() for node in now) == ["The second edition.", "a film"]
        assert context.docstore.get_document("book").get_content() == "The second edition."
        then = storage_context(db, as_of=first)
        assert {node.node_id: node for node in then.vector_store.get_nodes()} == before
        assert then.docstore.get_document("book").get_content() == long
        found = context.vector_store.query(
            VectorStoreQuery(
                query_embedding=embed.get_query_embedding("sentence of the first edition"),
                similarity_top_k=20, doc_ids=["book"],
            ),
            as_of=first,
        )  # fmt: skip
        assert len(found.nodes or ()) == len(before) - 1
        assert db.verify().ok


def test_what_left_the_source_is_deleted_where_that_is_asked_for() -> None:
    context = storage_context()
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(), Hashed()], vector_store=context.vector_store,
        docstore=context.docstore, docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
    )  # fmt: skip
    pipeline.run(documents=[text("a", "one"), text("b", "two")])
    pipeline.run(documents=[text("b", "two")])

    assert [node.get_content() for node in context.vector_store.get_nodes()] == ["two"]
    assert list(context.docstore.docs) == ["b"]
    context.vector_store.close()


def test_a_cache_spares_the_work_in_the_next_process_too(tmp_path: Path) -> None:
    counts = []
    for _ in range(2):
        cache, embed = ingestion_cache(tmp_path / "db"), Hashed()
        pipeline = IngestionPipeline(transformations=[SentenceSplitter(), embed], cache=cache)
        nodes = pipeline.run(documents=[text("a", "one"), text("b", "two")])
        counts.append(embed.texts)
        assert [node.get_content() for node in nodes] == ["one", "two"]
        assert [len(node.embedding or ()) for node in nodes] == [64, 64]
        cache.cache.close()
    assert counts == [2, 0]

    cache = ingestion_cache(tmp_path / "db")
    cache.clear()
    assert cache.cache.get_all(cache.collection) == {}
    cache.cache.close()


def test_what_a_cache_has_forgotten_is_given_back(clock: FixedClock) -> None:
    with koru_delta.open(clock=clock) as db:
        cache = ingestion_cache(db, ttl=60)
        kept = ingestion_cache(db, prefix="kept", ttl=60, keep=None)
        for each in (cache, kept):
            each.put("key", [TextNode(text="one")])
        written = db.as_of(None).seq
        clock.advance(seconds=61)
        swept = db.sweep()

        assert cache.get("key") is kept.get("key") is None
        assert swept.versions == 1
        with pytest.raises(koru_delta.errors.ErasedError):
            cache.cache.as_of(written).get("key", cache.collection)
        assert kept.cache.as_of(written).get("key", kept.collection) is not None


def test_a_cache_can_be_sent_to_the_processes_of_a_pipeline(tmp_path: Path) -> None:
    cache = ingestion_cache(tmp_path / "db")
    cache.put("key", [TextNode(id_="a", text="one", embedding=[1.0])])
    sent = pickle.loads(pickle.dumps(cache))
    sent.put("other", [])

    assert sent.get("key") == cache.get("key")
    assert cache.get("other") == []
    sent.cache.close()
    cache.cache.close()


def test_all_stores_are_in_one_database_and_apart_by_prefix() -> None:
    with koru_delta.open() as db:
        for prefix in ("mine", "yours"):
            context = storage_context(db, prefix=prefix)
            VectorStoreIndex.from_documents(
                [text(prefix, prefix)], storage_context=context, embed_model=MockEmbedding(2),
                store_nodes_override=True,
            )  # fmt: skip
        mine = storage_context(db, prefix="mine")

        assert [node.get_content() for node in mine.vector_store.get_nodes()] == ["mine"]
        assert [node.get_content() for node in mine.docstore.docs.values()] == ["mine"]
        assert len(mine.index_store.index_structs()) == 1
        assert isinstance(mine.vector_stores["image"], KoruDeltaVectorStore)
        assert {name.split("/")[0] for name in db.list_namespaces()} == {"mine", "yours"}


def test_a_context_of_a_moment_is_read_only_and_closes_what_it_opened(tmp_path: Path) -> None:
    context: StorageContext = storage_context(tmp_path / "db")
    context.docstore.add_documents([text("a", "old")])
    then = context.vector_store.client.commits()[-1].time
    context.docstore.add_documents([text("a", "new")])
    context.vector_store.close()

    past = storage_context(tmp_path / "db", as_of=then)
    assert past.docstore.get_document("a").get_content() == "old"
    with pytest.raises(koru_delta.errors.ReadOnlyError):
        past.index_store.delete_index_struct("x")
    past.vector_store.close()
    with pytest.raises(koru_delta.errors.DatabaseClosedError):
        past.docstore.get_document("a")
    with pytest.raises(koru_delta.errors.UnknownVersionError):
        storage_context(tmp_path / "db", as_of="f" * 64)


async def test_a_memory_recalls_what_was_said_as_of_any_moment(db: koru_delta.Database) -> None:
    store = KoruDeltaVectorStore(db, namespace="llamaindex/memory")
    block = KoruDeltaMemoryBlock(store=store, embed_model=Hashed(), similarity_top_k=1)
    memory = Memory.from_defaults(
        session_id="ada", chat_store=KoruDeltaAsyncChatStore(db), memory_blocks=[block],
        token_limit=12, token_flush_size=4, chat_history_token_ratio=0.7, tokenizer_fn=str.split,
    )  # fmt: skip
    await memory.aput_messages([ChatMessage("my cat is called Tom"), ChatMessage("oh really now")])
    await memory.aput(ChatMessage("and then we went for a long walk"))
    then = db.commits()[-1]
    await block.aput([ChatMessage("my cat is called Kim now")], session_id="ada")
    await block.aput([ChatMessage("my cat is called Max")], session_id="bob")

    asked = [ChatMessage("my cat is called")]
    assert await block.aget(asked, session_id="ada", as_of=then) == "user: my cat is called Tom"
    assert "Max" in await block.aget(asked, session_id="bob")
    assert await block.aget(asked, session_id="carol") == ""
    assert await block.aget([], session_id="ada") == ""
    told = await memory.aget(input="what is my cat called?", as_of=then)
    assert "my cat is called Tom" in str(told[0].content)
    everywhere = KoruDeltaMemoryBlock(
        store=store, embed_model=Hashed(), across_sessions=True, similarity_top_k=9, as_of=then
    )
    assert (await everywhere.aget(asked, session_id="carol")).splitlines()[0].endswith("Tom")
    cut = KoruDeltaMemoryBlock(store=store, embed_model=Hashed(), similarity_cutoff=1.1)
    assert await cut.aget(asked, session_id="ada") == ""
    message = ChatMessage("kept as it was")
    await block.aput([message], session_id="ada")
    assert message.additional_kwargs == {}
