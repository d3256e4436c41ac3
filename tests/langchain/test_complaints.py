"""What users of other stores complained of in public trackers, asked of ours.

Each test is one complaint, by the thread it was made in; the promise is its name.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from langchain_classic.chains.query_constructor.schema import AttributeInfo
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.retrievers import ParentDocumentRetriever
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import index
from langchain_core.language_models import FakeListLLM
from langchain_core.language_models.fake_chat_models import (
    FakeListChatModel,
    FakeMessagesListChatModel,
    GenericFakeChatModel,
)
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_text_splitters import CharacterTextSplitter
from pydantic import BaseModel

import koru_delta
from koru_delta.errors import InvalidDataError
from koru_delta.testing import FixedClock, HashEmbedder
from koru_delta_langchain import (
    KoruDeltaByteStore,
    KoruDeltaCache,
    KoruDeltaChatMessageHistory,
    KoruDeltaEmbeddings,
    KoruDeltaRecordManager,
    KoruDeltaSemanticCache,
    KoruDeltaTranslator,
    KoruDeltaVectorStore,
    self_query_retriever,
)

RECORDS = "langchain.records/site"


class Compass(Embeddings):
    """Texts that say a vector, as "1 0"; those that say none are no texts to it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        self.asked.append(text)
        if not text.strip():
            raise ValueError("input is invalid")  # as a model behind an API says it
        return [float(number) for number in text.split()]


@pytest.fixture
def compass(db: koru_delta.Database) -> KoruDeltaVectorStore:
    return KoruDeltaVectorStore(Compass(), database=db)


@pytest.fixture
def store(db: koru_delta.Database) -> KoruDeltaVectorStore:
    return KoruDeltaVectorStore(database=db)


def ids(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


# Filters and metadata


def test_conditions_on_two_fields_need_no_operator(compass: KoruDeltaVectorStore) -> None:
    """langchain-ai/langchain#28469."""
    compass.add_texts(
        ["1 0", "1 0", "1 0"],
        [{"page": "a", "n": 1}, {"page": "a", "n": 2}, {"page": "b", "n": 1}],
        ids=["a1", "a2", "b1"],
    )
    both = {"page": "a", "n": 1}
    spelled_out = {"$and": [{"page": {"$eq": "a"}}, {"n": {"$eq": 1}}]}
    assert ids(compass.similarity_search("1 0", filter=both)) == ["a1"]
    assert ids(compass.similarity_search("1 0", filter=spelled_out)) == ["a1"]
    either = {"$or": [{"page": "b"}, {"n": 2}]}  # langchain-ai/langchain#12977
    assert ids(compass.similarity_search("1 0", filter=either)) == ["a2", "b1"]


def test_a_filter_that_few_pass_still_finds_as_many_as_were_asked_for(
    compass: KoruDeltaVectorStore,
) -> None:
    """langchain-ai/langchain#26379, chroma-core/chroma#5367: they filter what was found."""
    compass.add_texts(
        [f"1 {n / 500}" for n in range(500)],
        [{"rare": n >= 490} for n in range(500)],
        ids=[f"{n:03}" for n in range(500)],
    )
    for search_type in ("similarity", "mmr"):
        retriever = compass.as_retriever(
            search_type=search_type, search_kwargs={"k": 3, "filter": {"rare": True}}
        )
        found = retriever.invoke("1 0")
        assert len(found) == 3
        assert all(document.metadata == {"rare": True} for document in found)
    nearest = compass.as_retriever(search_kwargs={"k": 3, "filter": {"rare": True}})
    assert ids(nearest.invoke("1 0")) == ["490", "491", "492"]


async def test_an_option_that_no_search_knows_is_not_passed_over(
    compass: KoruDeltaVectorStore,
) -> None:
    """chroma-core/chroma#1218: `metadata=` for `filter=` found everything."""
    compass.add_texts(["1 0"], [{"path": "a"}])
    retriever = compass.as_retriever()
    with pytest.raises(TypeError, match=r"argument 'where'; it also takes filter"):
        retriever.invoke("1 0", where={"path": "b"})
    with pytest.raises(TypeError, match=r"argument 'where'; it also takes filter"):
        await retriever.ainvoke("1 0", where={"path": "b"})


def test_a_retriever_takes_no_option_that_it_would_pass_over(
    compass: KoruDeltaVectorStore,
) -> None:
    """langchain-ai/langchain#7002: `as_retriever(filter=...)` filtered nothing."""
    for wrong in ({"filter": {"page": 1}}, {"search_typ": "mmr"}):
        with pytest.raises(
            TypeError, match=r"as_retriever\(\) got .*it also takes .*search_kwargs"
        ):
            compass.as_retriever(**wrong)
    retriever = compass.as_retriever(k=2, metadata={"of": "mine"}, tags=["x"])
    assert (retriever.k, retriever.metadata, retriever.tags) == (2, {"of": "mine"}, ["x"])


@pytest.mark.parametrize(
    "metadata",
    [
        {},  # langchain-ai/langchain#1825, #7633
        {"language": None},  # langchain-ai/langchain#8174
        {"links": [{"text": "Git", "url": "#git"}], "none": []},  # langchain-ai/langchain#8556
        {"loc": {"lines": {"from": 1, "to": 9}}},
    ],
)
async def test_metadata_that_loaders_make_is_taken_and_given_back(
    compass: KoruDeltaVectorStore, metadata: dict[str, Any]
) -> None:
    whole = Document(page_content="1 0", metadata=metadata, id="a")
    compass.add_documents([whole])
    assert compass.similarity_search("1 0") == [whole]
    # langchain-ai/langchain-postgres#124: awaited, it was no dict
    assert await compass.asimilarity_search("1 0") == [whole]


# Adding and deleting


def test_a_blank_page_costs_no_other_page(compass: KoruDeltaVectorStore) -> None:
    """run-llama/llama_index#9180, langchain-ai/langchainjs#2190: a scan has empty pages."""
    pages = ["1 0", "", " \n\t", "0 1"]
    names = ["front", "empty", "blank", "back"]
    assert compass.add_texts(pages, [{"n": n} for n in range(4)], ids=names) == names

    embedding: Any = compass.embeddings
    assert embedding.asked == ["1 0", "0 1"]
    assert [found.page_content for found in compass.get_by_ids(names)] == pages
    assert ids(compass.similarity_search("1 0", k=9)) == ["front", "back"]
    assert ids(compass.similarity_search("1 0", k=9, filter={"n": 1})) == []
    assert len(compass.database.commits()) == 1

    compass.add_texts([" "], ids=["front"])  # what was said there is no more
    assert ids(compass.similarity_search("1 0", k=9)) == ["back"]


def test_blank_pages_are_indexed_like_any_other(compass: KoruDeltaVectorStore) -> None:
    manager = KoruDeltaRecordManager("site", store=compass, source_id_key="page")
    pages = [
        Document(page_content=text, metadata={"page": "scan", "n": n})
        for n, text in enumerate(["1 0", "", ""])
    ]

    def run() -> dict[str, int]:
        return dict(
            index(pages, manager, compass, cleanup="incremental", source_id_key="page",
                  key_encoder="sha256")
        )  # fmt: skip

    assert run()["num_added"] == 3
    assert run() == {"num_added": 0, "num_updated": 0, "num_skipped": 3, "num_deleted": 0}
    assert not manager.verify()


async def test_nothing_may_be_added(compass: KoruDeltaVectorStore) -> None:
    """pgvector/pgvector#920, langchain-ai/langchain-weaviate#205."""
    assert compass.add_documents([]) == await compass.aadd_documents([]) == []
    assert compass.add_texts([]) == []
    assert compass.database.commits() == []
    with KoruDeltaVectorStore.from_documents([], Compass()) as empty:
        assert empty.similarity_search("1 0") == []


def test_a_batch_has_no_greatest_size(compass: KoruDeltaVectorStore) -> None:
    """langchain-ai/langchain#18105, chroma-core/chroma#1049: 5,461 at most, or 41,666."""
    names = [str(n) for n in range(45_000)]
    compass.add_texts(["1 0"] * 45_000, ids=names)
    assert len(compass.database.commits()) == 1
    assert len(compass.get_by_ids(names)) == 45_000
    compass.delete(names)
    assert compass.database.count("langchain") == 0


def test_what_is_loaded_again_under_its_id_is_found_once(compass: KoruDeltaVectorStore) -> None:
    """langchain-ai/langchain#22361, chroma-core/chroma#397: every run doubled the answers."""
    pages = [Document(page_content="1 0", id="a"), Document(page_content="1 1", id="b")]
    for _ in range(3):
        compass.add_documents(pages)
    assert ids(compass.similarity_search("1 0", k=9)) == ["a", "b"]
    compass.add_documents([Document(page_content="2 0")], ids=["a"])  # langchain#14038
    assert compass.get_by_ids(["a"])[0].page_content == "2 0"


def test_what_is_deleted_and_retained_no_longer_is_off_the_disk(tmp_path: Path) -> None:
    """chroma-core/chroma#3793, #3882, #5520: text and size stay for ever."""
    noise = random.Random(1)
    words = [f"unspeakable {noise.randbytes(5000).hex()}" for n in range(100)]
    with KoruDeltaVectorStore(KoruDeltaEmbeddings(HashEmbedder()), path=tmp_path / "db") as store:
        db = store.database
        store.add_texts(words, ids=[str(n) for n in range(100)])
        before = _size(tmp_path / "db")
        db.retain(store.namespace, keep=timedelta(0))
        store.delete()
        swept = db.sweep()
        assert swept.versions == 100
        assert db.verify().ok
    assert _size(tmp_path / "db") < before / 2
    assert not [
        path for path in (tmp_path / "db").rglob("*")
        if path.is_file() and b"unspeakable" in path.read_bytes()
    ]  # fmt: skip


def test_searches_and_writes_may_come_from_any_threads(compass: KoruDeltaVectorStore) -> None:
    """FAISS under LangChain keeps an index, a docstore and a map, and locks none."""
    compass.add_texts(["1 0"], ids=["first"])

    def write(n: int) -> list[str]:
        return compass.add_texts([f"1 {n}"], ids=[f"n{n}"])

    def read(n: int) -> bool:
        found = compass.similarity_search(f"1 {n}", k=200)
        return all(document.page_content.startswith("1 ") for document in found)

    with ThreadPoolExecutor(8) as threads:
        works = [threads.submit(call, n) for n in range(1, 60) for call in (write, read)]
    assert all(work.result() for work in works)
    assert len(compass.similarity_search("1 0", k=200)) == 60


# Scores


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_relevance_is_from_0_to_1_and_a_threshold_keeps_the_better(
    db: koru_delta.Database, metric: Any
) -> None:
    """langchain-ai/langchain#12535, #11587: -172, and a threshold that dropped the best."""
    store = KoruDeltaVectorStore(Compass(), database=db, metric=metric)
    store.add_texts(["30 40", "3 4", "-30 -40"], ids=["far", "near", "against"])
    scored = store.similarity_search_with_relevance_scores("3 4", k=3)
    assert all(0 <= relevance <= 1 for _, relevance in scored)
    assert [relevance for _, relevance in scored] == sorted(
        (relevance for _, relevance in scored), reverse=True
    )
    middle = scored[1][1]
    kept = store.similarity_search_with_relevance_scores("3 4", k=3, score_threshold=middle)
    assert kept == scored[:2]
    bare = store.similarity_search_with_score("3 4", k=3)
    assert ids([document for document, _ in bare]) == ids([document for document, _ in scored])
    assert bare[0][1] > bare[2][1]  # langchain-googledrive#13: one direction, everywhere


def test_lambda_counts_and_1_is_all_relevance(compass: KoruDeltaVectorStore) -> None:
    """langchain-ai/langchain#4861: it was passed on misspelt; #39052: the wrong way round."""
    compass.add_texts(["10 0", "10 1", "10 -9"], ids=["same", "twin", "other"])

    def chosen(lambda_mult: float) -> list[str | None]:
        retriever = compass.as_retriever(
            search_type="mmr", search_kwargs={"k": 2, "lambda_mult": lambda_mult}
        )
        return ids(retriever.invoke("1 0"))

    assert chosen(1.0) == ["same", "twin"]
    assert chosen(0.1) == ["same", "other"]


# Indexing


def run_index(manager: Any, store: Any, *documents: Document, **options: Any) -> tuple[int, ...]:
    asked = {"cleanup": "incremental", "source_id_key": "page", "key_encoder": "sha256", **options}
    done = index(list(documents), manager, store, **asked)
    return tuple(done[f"num_{what}"] for what in ("added", "updated", "skipped", "deleted"))


def page(source: str, text: str, **more: Any) -> Document:
    return Document(page_content=text, metadata={"page": source, **more})


@pytest.fixture
def manager(store: KoruDeltaVectorStore) -> KoruDeltaRecordManager:
    return KoruDeltaRecordManager("site", store=store, source_id_key="page")


def test_a_source_of_more_than_a_batch_is_whole_in_the_end(
    store: KoruDeltaVectorStore, manager: KoruDeltaRecordManager, clock: FixedClock
) -> None:
    """langchain-ai/langchain#22135: of 200 parts of one file, 100 came and went."""
    parts = [page("test.txt", f"data {n}") for n in range(200)]
    for _ in range(3):
        run_index(manager, store, *parts)
        clock.advance(seconds=1)
        assert len(store.database.list_keys("langchain")) == 200
        assert not manager.verify()


def test_a_part_that_is_gone_goes_even_where_nothing_else_has_changed(
    store: KoruDeltaVectorStore, manager: KoruDeltaRecordManager, clock: FixedClock
) -> None:
    """langchain-ai/langchain#28447."""
    a, b, c = (page("x", name) for name in "abc")
    assert run_index(manager, store, a, b, c) == (3, 0, 0, 0)
    clock.advance(seconds=1)
    assert run_index(manager, store, a, b) == (0, 0, 2, 1)
    assert sorted(d.page_content for d in store.similarity_search("a", k=9)) == ["a", "b"]


def test_what_has_not_changed_is_skipped_whatever_the_order_of_its_metadata(
    store: KoruDeltaVectorStore, manager: KoruDeltaRecordManager, clock: FixedClock
) -> None:
    """langchain-ai/langchain#21028: some of them were written again every time."""
    assert run_index(manager, store, page("x", "a", n=1, m=[1, {"k": None}])) == (1, 0, 0, 0)
    clock.advance(seconds=1)
    same = Document(page_content="a", metadata={"m": [1, {"k": None}], "n": 1, "page": "x"})
    assert run_index(manager, store, same) == (0, 0, 1, 0)
    assert len(store.database.history("langchain", *store.database.list_keys("langchain"))) == 1


def test_records_of_any_number_are_deleted_at_once_and_bear_one_time(
    db: koru_delta.Database,
) -> None:
    """langchain-ai/langchain#31206: too many variables; #39087: a time for each."""
    alone = KoruDeltaRecordManager("site", database=db)
    names = [f"{n:05}" for n in range(40_000)]
    alone.update(names, group_ids=["one"] * 40_000)
    assert {row.value["updated_at"] for row in db.query(RECORDS)} == {alone.get_time()}
    assert alone.exists(names) == [True] * 40_000
    alone.delete_keys(names)
    assert alone.list_keys() == []


def test_what_the_store_has_lost_is_not_skipped_for_ever(
    store: KoruDeltaVectorStore, manager: KoruDeltaRecordManager, clock: FixedClock
) -> None:
    """langchain-ai/langchain#39937, #40226: 97 % of a corpus gone, and every run a success."""
    parts = [page("x", text) for text in ("a", "b", "c")]
    run_index(manager, store, *parts)
    store.database.delete_many("langchain", store.database.list_keys("langchain"))
    clock.advance(seconds=1)
    assert run_index(manager, store, *parts) == (3, 0, 0, 0)


def test_a_collection_dropped_whole_is_filled_again(
    store: KoruDeltaVectorStore, manager: KoruDeltaRecordManager, clock: FixedClock
) -> None:
    """langchain-ai/langchain-postgres#131: its records stayed, so that all was skipped."""
    parts = [page("x", text) for text in ("a", "b", "c")]
    for drop in (store.delete, lambda: store.database.drop_namespace("langchain")):
        assert run_index(manager, store, *parts) == (3, 0, 0, 0)
        clock.advance(seconds=1)
        drop()
        clock.advance(seconds=1)
    assert run_index(manager, store, *parts, cleanup="full") == (3, 0, 0, 0)
    assert not manager.verify()


def test_a_store_with_records_takes_documents_that_name_no_source(
    store: KoruDeltaVectorStore, manager: KoruDeltaRecordManager, clock: FixedClock
) -> None:
    """Whoever adds a text by hand need not know of `index`."""
    store.add_texts(["by hand", "none"], [{}, {"page": None}], ids=["hand", "none"])
    assert manager.exists(["hand", "none"]) == [True, True]
    assert not manager.verify()
    clock.advance(seconds=1)
    assert run_index(manager, store, page("x", "a")) == (1, 0, 0, 0)
    clock.advance(seconds=1)
    # Sources named otherwise than to the manager are those that `index` names.
    other = Document(page_content="b", metadata={"url": "y"})
    assert run_index(manager, store, other, source_id_key="url") == (1, 0, 0, 0)
    (key,) = manager.list_keys(group_ids=["y"])
    assert store.get_by_ids([key])[0].page_content == "b"
    clock.advance(seconds=1)
    assert run_index(manager, store, page("x", "a"), cleanup="full") == (0, 0, 1, 3)


def test_sources_may_be_numbers(
    store: KoruDeltaVectorStore, manager: KoruDeltaRecordManager, clock: FixedClock
) -> None:
    old, new = (
        Document(page_content=text, metadata={"page": 7}) for text in ("old text", "new text")
    )
    assert run_index(manager, store, old) == (1, 0, 0, 0)
    assert len(store.database.commits()) == 1  # the record was as `index` would have it
    clock.advance(seconds=1)
    assert run_index(manager, store, new) == (1, 0, 0, 1)


# Caches of answers


class Temperature(BaseModel):
    value: int
    city: str
    at: datetime


def test_structured_output_is_cached(db: koru_delta.Database) -> None:
    """langchain-ai/langchain#29003, #27264, langchain-ai/langchain-redis#52."""
    warm = Temperature(value=24, city="Rome", at=datetime.fromisoformat("2026-05-01T00:00:00Z"))
    said = AIMessage(warm.model_dump_json(), additional_kwargs={"parsed": warm, "refusal": None})
    model = FakeMessagesListChatModel(
        responses=[said, AIMessage("asked twice")], cache=KoruDeltaCache(database=db)
    )
    assert model.invoke("how warm is Rome?").additional_kwargs["parsed"] == warm
    again = model.invoke("how warm is Rome?")
    assert again.content == said.content
    # LangChain's own parser of structured output makes the object of a dict.
    assert Temperature(**again.additional_kwargs["parsed"]) == warm
    assert again.additional_kwargs["refusal"] is None
    assert said.additional_kwargs["parsed"] is warm


def test_an_answer_that_cannot_be_read_back_is_asked_for_again(
    db: koru_delta.Database, caplog: pytest.LogCaptureFixture
) -> None:
    """langchain-ai/langchain#22389: an old entry broke every call that hit it."""

    class Mine(AIMessage):
        """A class that a later program no longer allows."""

        @classmethod
        def get_lc_namespace(cls) -> list[str]:
            return ["langchain_core", "mine"]

    cache = KoruDeltaCache(database=db)
    model = FakeListChatModel(responses=["one", "two"], cache=cache)
    model.invoke("rain?")
    (key,) = db.list_keys(cache.namespace)
    value = db.get(cache.namespace, key)
    told = value["answers"].replace('"AIMessage"', '"Mine"')
    db.put(cache.namespace, key, {**value, "answers": told})

    assert model.invoke("rain?").content == "two"
    assert "passed over" in caplog.text
    assert model.invoke("rain?").content == "two"


def test_equal_prompts_at_the_same_time_are_no_error(tmp_path: Path) -> None:
    """langchain-ai/langchain#983, #23904: UNIQUE constraint failed, database is locked."""
    with KoruDeltaCache(path=tmp_path / "db") as one, KoruDeltaCache(path=tmp_path / "db") as two:
        with ThreadPoolExecutor(8) as threads:
            works = [
                threads.submit(cache.update, "rain?", "model", [Generation(text=str(n))])
                for n in range(40) for cache in (one, two)
            ]  # fmt: skip
        for work in works:
            work.result()
        found = one.lookup("rain?", "model")
        assert found == two.lookup("rain?", "model")
        assert found is not None
        assert len(found) == 1


def test_questions_that_share_a_system_prompt_get_each_its_answer(
    db: koru_delta.Database,
) -> None:
    """langchain-ai/langchain-redis#22, langchain-ai/langchain#25161, zilliztech/GPTCache#651."""
    model = FakeListChatModel(
        responses=["2", "a joke", "22"],
        cache=KoruDeltaSemanticCache(HashEmbedder(), database=db, threshold=0.9),
    )
    system = SystemMessage("You are a helpful assistant that answers in a few words. " * 20)

    def ask(question: str) -> object:
        return model.invoke([system, HumanMessage(question)]).content

    questions = ["what is one and one", "tell me a joke", "what is twenty and two"]
    assert [ask(each) for each in questions * 2] == ["2", "a joke", "22"] * 2


def test_a_cached_chat_answer_is_a_chat_answer_tools_and_all(db: koru_delta.Database) -> None:
    """langchain-ai/langchain#7722: caches gave plain generations to chat models."""
    call = {"name": "f", "args": {"x": 1.0, "y": [None, {"lc": 1}]}, "id": "1", "type": "tool_call"}
    answer = ChatGeneration(message=AIMessage("", tool_calls=[call], id="r"))
    cache = KoruDeltaCache(database=db)
    cache.update("p", "m", [answer])
    (found,) = cache.lookup("p", "m") or []
    assert found == answer
    assert type(found) is ChatGeneration


# Conversations


def test_messages_of_one_instant_keep_their_order(
    db: koru_delta.Database, clock: FixedClock
) -> None:
    """langchain-ai/langchain#6829: rows came without an order."""
    handles = [KoruDeltaChatMessageHistory("s", database=db) for _ in range(2)]
    said = [f"m{n}" for n in range(60)]
    for n, text in enumerate(said):
        handles[n % 2].add_user_message(text)
    assert [message.content for message in handles[0].messages] == said


async def test_what_a_model_streams_and_calls_comes_back_as_it_was(
    db: koru_delta.Database,
) -> None:
    """langchain-ai/langchain#34925, #14511: tool calls lost, chunks of no known type."""
    calls = [{"name": "f", "args": {"x": 1}, "id": "1", "type": "tool_call"}]
    said: list[BaseMessage] = [
        HumanMessage("hi", name="ada"),
        AIMessageChunk("part", id="1"),
        AIMessage("", tool_calls=calls, invalid_tool_calls=[]),
        ToolMessage("2", tool_call_id="1", artifact={"rows": [1]}),
    ]
    history = KoruDeltaChatMessageHistory("s", database=db)
    await history.aadd_messages(said)
    found = await history.aget_messages()
    assert found == said
    assert [type(message) for message in found] == [type(message) for message in said]


@pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory is deprecated")
async def test_a_chain_with_a_history_keeps_what_was_awaited_and_streamed(
    db: koru_delta.Database,
) -> None:
    """langchain-ai/langchain#22021, langchain-ai/langchain-postgres#122."""
    model = GenericFakeChatModel(messages=iter([AIMessage("one"), AIMessage("two"),
                                                AIMessage("three")]))  # fmt: skip
    chain = RunnableWithMessageHistory(
        model, lambda session_id: KoruDeltaChatMessageHistory(session_id, database=db)
    )
    config: Any = {"configurable": {"session_id": "s"}}
    await asyncio.to_thread(chain.invoke, [HumanMessage("1")], config)
    await chain.ainvoke([HumanMessage("2")], config)
    async for _ in chain.astream([HumanMessage("3")], config):
        pass
    history = KoruDeltaChatMessageHistory("s", database=db)
    assert [message.content for message in await history.aget_messages()] == [
        "1", "one", "2", "two", "3", "three",
    ]  # fmt: skip


@pytest.mark.parametrize("given", ["hi", ["hi"], HumanMessage("hi"), [("human", "hi")]])
def test_what_is_no_list_of_messages_is_refused_by_name(
    db: koru_delta.Database, given: Any
) -> None:
    history = KoruDeltaChatMessageHistory("s", database=db)
    with pytest.raises(InvalidDataError, match=r"BaseMessage|messages is a list"):
        history.add_messages(given)
    assert history.messages == []


@pytest.mark.parametrize("name", [5, None, b"5"])
def test_a_session_that_is_no_string_is_refused(db: koru_delta.Database, name: Any) -> None:
    with pytest.raises(InvalidDataError, match="session_id is a string"):
        KoruDeltaChatMessageHistory(name, database=db)


# Bytes, and what they carry


def test_texts_themselves_may_be_keys(db: koru_delta.Database) -> None:
    """langchain-ai/langchain#29496: a file is not named "This text is a key"."""
    store = KoruDeltaByteStore(database=db)
    names = ["This text is a key", "このテキスト", "../up", "/", "a\nb", "C:\\", "x" * 5000]
    store.mset([(name, name.encode()) for name in names])
    assert store.mget(names) == [name.encode() for name in names]
    assert set(store.yield_keys()) == set(names)


def test_bytes_written_at_the_same_time_are_never_a_mixture(tmp_path: Path) -> None:
    """langchain-ai/langchainjs#9337: a file of two writers' halves."""
    with KoruDeltaByteStore(path=tmp_path / "db") as store:
        payloads = [bytes([n]) * 20_000 for n in range(40)]
        with ThreadPoolExecutor(8) as threads:
            works = [threads.submit(store.mset, [("k", data)]) for data in payloads]
        for work in works:
            work.result()
        assert store.mget(["k"])[0] in payloads


async def test_the_local_model_is_an_embedding_of_langchains(db: koru_delta.Database) -> None:
    """What wants `Embeddings` calls `json.dumps` on their vectors; arrays it cannot write."""
    embeddings = KoruDeltaEmbeddings(HashEmbedder())
    cached = CacheBackedEmbeddings.from_bytes_store(
        embeddings, KoruDeltaByteStore(database=db), namespace=embeddings.model_name,
        key_encoder="sha256",
    )  # fmt: skip
    first = cached.embed_documents(["rain", "sun"])
    assert await cached.aembed_documents(["sun", "rain"]) == first[::-1]
    assert [await embeddings.aembed_query("rain"), embeddings.embed_query("sun")] == first
    assert isinstance(first[0][0], float)
    with KoruDeltaVectorStore(embeddings) as store:
        store.add_texts(["rain", "sun"], ids=["r", "s"])
        assert ids(store.similarity_search("rain", k=1)) == ["r"]
        assert store.embeddings.embed_query("rain") == first[0]
        assert "hash-words-64" in repr(store.embeddings)
    local = KoruDeltaEmbeddings()
    assert len(local.embed_query("rain")) == 256


def test_a_parent_goes_with_its_children(db: koru_delta.Database) -> None:
    """langchain-ai/langchain#16604, #13909: parents and children of one store."""
    children = KoruDeltaVectorStore(database=db, namespace="children")
    retriever = ParentDocumentRetriever(
        vectorstore=children,
        byte_store=KoruDeltaByteStore(database=db, namespace="parents"),
        child_splitter=CharacterTextSplitter(separator=". ", chunk_size=20, chunk_overlap=0),
    )
    pages = [Document(page_content=text) for text in ("Tea is hot. Tea is green", "The pump hums")]
    retriever.add_documents(pages, ids=["tea", "pump"])
    then = db.commits()[-1]

    children.delete(filter={"doc_id": "tea"})
    retriever.docstore.mdelete(["tea"])

    assert retriever.invoke("is tea hot") == [pages[1]]
    assert len(db.list_keys("children")) == len(db.list_keys("parents")) == 1
    assert len(db.as_of(then).list_keys("children")) == 3


# Questions with conditions

FILMS = [
    Document(page_content="dinosaurs come back", metadata={"year": 1993, "rating": 7.5}, id="j"),
    Document(page_content="a dream in a dream", metadata={"year": 2010, "rating": 8.2}, id="i"),
]
INFO = [
    AttributeInfo(name="year", description="when", type="integer"),
    {"name": "rating", "description": "how good", "type": "float"},
    AttributeInfo(name="name", description="what it is called", type="string"),
]


def self_asked(store: KoruDeltaVectorStore, filter: str, query: str = "a dream") -> Any:
    answer = f'```json\n{{"query": "{query}", "filter": "{filter}"}}\n```'
    store.add_documents(FILMS)
    retriever = self_query_retriever(FakeListLLM(responses=[answer]), store, "films", INFO)
    return ids(retriever.invoke("any question"))


def test_a_composite_condition_and_a_question_find_what_meets_both(
    store: KoruDeltaVectorStore,
) -> None:
    """langchain-ai/langchain#21984: nothing."""
    condition = 'and(gt(\\"year\\", 1990), or(lt(\\"year\\", 2005), gt(\\"rating\\", 8)))'
    assert self_asked(store, condition) == ["i", "j"]


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ('gt(\\"year\\", \\"2000\\")', ["i"]),
        ('eq(\\"year\\", \\"1993\\")', ["j"]),
        ('in(\\"year\\", [\\"1993\\", 2010])', ["i", "j"]),
        ('lte(\\"rating\\", \\"7.50\\")', ["j"]),
        ('eq(\\"year\\", \\"long ago\\")', []),
        ('eq(\\"year\\", \\"inf\\")', []),
        ('eq(\\"name\\", \\"1993\\")', []),
    ],
)
def test_a_number_that_a_model_says_as_text_is_compared_as_a_number(
    store: KoruDeltaVectorStore, condition: str, found: list[str]
) -> None:
    """langchain-ai/langchain#9368: no film of the year "1993"."""
    assert self_asked(store, condition) == found


def test_a_translator_that_knows_of_no_numbers_leaves_text_alone() -> None:
    from langchain_core.structured_query import Comparator, Comparison

    asked = Comparison(comparator=Comparator.EQ, attribute="zip", value="01234")
    assert KoruDeltaTranslator().visit_comparison(asked) == {"zip": {"$eq": "01234"}}


# Imports


def test_a_package_without_langgraph_is_imported_whole_and_helps() -> None:
    """With the extra `langchain` alone, `import *` and `help` asked for what is not there."""
    code = (
        "import sys; sys.modules['langgraph'] = None\n"
        "from koru_delta_langchain import *\n"
        "import koru_delta_langchain, pydoc\n"
        "assert 'KoruDeltaCache' in pydoc.render_doc(koru_delta_langchain)\n"
        "assert 'KoruDeltaSaver' not in koru_delta_langchain.__all__\n"
        "try:\n koru_delta_langchain.KoruDeltaSaver\n"
        "except ImportError as error: print(KoruDeltaVectorStore.__name__, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("KoruDeltaVectorStore KoruDeltaSaver needs an extra")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
