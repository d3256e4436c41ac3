"""`KoruDeltaVectorStore`: what LangChain's suite does not ask."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import InMemoryRecordManager, aindex, index
from langchain_core.stores import InMemoryByteStore

import koru_delta
from koru_delta.causal import moment
from koru_delta.embedders import as_embedder, local
from koru_delta.errors import (
    DatabaseClosedError,
    DimensionMismatchError,
    EmbedderError,
    InvalidDataError,
    MetricMismatchError,
    ModelMismatchError,
    QueryError,
    ReadOnlyError,
)
from koru_delta.testing import FixedClock, HashEmbedder
from koru_delta_langchain import KoruDeltaEmbeddings, KoruDeltaVectorStore
from tests.watched import Watched

NS = "langchain"
ODD_IDS = [
    "",
    " ",
    "a" * 1024,
    "a" * 1025,
    "é" * 513,
    "nul\0inside",
    "\0",
    "id-sha256:",
    "id-sha256:" + "0" * 64,
    "$id",
    "a.b/c\\d\n",
    "日本語 🙂",
    "e\u0301",
    "\u00e9",
]


class Words(Embeddings):
    """Vectors by hashing words; counts what it was asked."""

    def __init__(self) -> None:
        self.embed = HashEmbedder()
        self.calls: list[list[str]] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls.append(list(texts))
        return self.embed(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        return self.embed([text])[0].tolist()


class Table(Embeddings):
    """The vectors it was given, by text."""

    def __init__(self, vectors: dict[str, list[float]]) -> None:
        self.vectors = vectors

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.vectors[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.vectors[text]


@pytest.fixture
def words() -> Words:
    return Words()


@pytest.fixture
def store(db: koru_delta.Database, words: Words) -> KoruDeltaVectorStore:
    return KoruDeltaVectorStore(words, database=db)


def texts_of(documents: list[Document]) -> list[str]:
    return [document.page_content for document in documents]


def ids_of(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


# What is stored


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"id": "mine", "text": "mine", "metadata": {"metadata": 1}, "_id": 0, "score": 2},
        {"": "", "a.b": {"c.d": [1, 1.0, -0.0, True, None, 1e300, -(2**63)]}, "$gt": "🙂"},
        {"deep": [[[{"x": [{}]}]]]},
    ],
)
def test_metadata_comes_back_exactly(store: KoruDeltaVectorStore, metadata: dict[str, Any]) -> None:
    store.add_texts(["rain"], [metadata], ids=["a"])

    for found in (*store.get_by_ids(["a"]), *store.similarity_search("rain")):
        assert found == Document(page_content="rain", metadata=metadata, id="a")
        assert json.dumps(found.metadata, sort_keys=True) == json.dumps(metadata, sort_keys=True)


def test_the_callers_metadata_is_left_alone(store: KoruDeltaVectorStore) -> None:
    document = Document(page_content="rain", metadata={"a": [1]})
    store.add_documents([document])
    store.similarity_search("rain")[0].metadata["a"].append(2)

    assert document == Document(page_content="rain", metadata={"a": [1]})
    assert store.similarity_search("rain")[0].metadata == {"a": [1]}


@pytest.mark.parametrize(
    ("bad", "path"),
    [
        ({"when": datetime(2026, 1, 1, tzinfo=UTC)}, "$.metadata.when"),
        ({"tags": ["a", {"b"}]}, "$.metadata.tags[1]"),
        ({"x": {"y": math.nan}}, "$.metadata.x.y"),
        ({1: 2}, "$.metadata"),
        ({"x": np.float32(1)}, "$.metadata.x"),
        ({"x": "\ud800"}, "$.metadata.x"),
    ],
)
def test_a_batch_with_metadata_that_is_no_json_is_refused_whole(
    store: KoruDeltaVectorStore, bad: dict[str, Any], path: str
) -> None:
    with pytest.raises(InvalidDataError) as caught:
        store.add_texts(["rain", "sun", "snow"], [{}, bad, {}])

    assert caught.value.path == path
    assert store.database.commits() == []
    assert store.similarity_search("rain") == []


def test_ids_of_any_string_are_kept(store: KoruDeltaVectorStore) -> None:
    assert store.add_texts([f"text {n}" for n in range(len(ODD_IDS))], ids=ODD_IDS) == ODD_IDS

    assert ids_of(store.get_by_ids(ODD_IDS)) == ODD_IDS
    assert sorted(ids_of(store.similarity_search("text", k=99))) == sorted(ODD_IDS)
    assert texts_of(store.get_by_ids(ODD_IDS[::-1])) == [
        f"text {n}" for n in reversed(range(len(ODD_IDS)))
    ]
    store.delete(ODD_IDS[::2])
    assert ids_of(store.get_by_ids(ODD_IDS)) == ODD_IDS[1::2]


def test_an_id_that_looks_like_the_key_of_another_is_another(store: KoruDeltaVectorStore) -> None:
    store.add_texts(["nul"], ids=["\0"])
    (key,) = store.database.list_keys(NS)
    store.add_texts(["impostor"], ids=[key])

    assert texts_of(store.get_by_ids(["\0", key])) == ["nul", "impostor"]
    store.delete([key])
    assert texts_of(store.get_by_ids(["\0", key])) == ["nul"]


def test_a_lone_surrogate_is_no_id_to_store_and_finds_nothing(store: KoruDeltaVectorStore) -> None:
    with pytest.raises(InvalidDataError, match="surrogate"):
        store.add_texts(["rain", "sun"], ids=["a", "\ud800"])

    assert store.get_by_ids(["a", "\ud800"]) == []
    assert store.delete(["\ud800"]) is True


def test_documents_without_an_id_get_one_each(store: KoruDeltaVectorStore) -> None:
    documents = [Document(page_content="a", id=""), Document(page_content="b")]
    first, second = store.add_documents(documents)
    assert first == ""
    assert len(second) == 36
    assert store.add_documents(documents, ids=["x", "y"]) == ["x", "y"]
    assert store.add_documents(documents[:1], ids=None) == [""]
    assert ids_of(KoruDeltaVectorStore.from_documents(documents[:1], Words()).get_by_ids([""]))


def test_the_last_of_equal_ids_wins_and_a_batch_is_one_commit(
    store: KoruDeltaVectorStore, words: Words
) -> None:
    assert store.add_texts(["old", "other", "new"], ids=["a", "b", "a"]) == ["a", "b", "a"]

    assert texts_of(store.get_by_ids(["a", "b"])) == ["new", "other"]
    assert len(store.database.commits()) == 1
    assert len(store.database.history(NS, "a")) == 1
    assert [len(call) for call in words.calls] == [2]
    assert store.add_texts([]) == []
    assert len(store.database.commits()) == 1
    assert len(words.calls) == 1


def test_an_upsert_is_a_new_version_and_the_old_one_stays(
    store: KoruDeltaVectorStore, clock: FixedClock
) -> None:
    store.add_texts(["the river is low"], [{"year": 1}], ids=["r"], author="ada", message="dry")
    before = moment(clock.now)
    clock.advance(seconds=10)
    store.add_texts(["flood in the town"], [{"year": 2}], ids=["r"])

    first, second = store.database.history(NS, "r")
    assert (first.author, first.message) == ("ada", "dry")
    assert texts_of(store.similarity_search("river")) == ["flood in the town"]
    for ref in (first, first.id, first.seq, before, before.isoformat()):
        (found,) = store.similarity_search("river", as_of=ref)
        assert found == Document(page_content="the river is low", metadata={"year": 1}, id="r")
        assert texts_of(store.get_by_ids(["r"], as_of=ref)) == ["the river is low"]
    assert store.similarity_search("river", as_of=second, filter={"year": 1}) == []
    assert len(store.similarity_search("river", as_of=first, filter={"year": 1})) == 1


def test_what_was_true_then_is_found_by_valid_at(
    store: KoruDeltaVectorStore, clock: FixedClock
) -> None:
    year = timedelta(days=365)
    then = moment(clock.now) - 3 * year
    store.add_texts(["old address"], ids=["a"], valid_from=then, valid_to=then + year)
    store.add_texts(["new address"], ids=["a"], valid_from=then + year)

    assert texts_of(store.similarity_search("address")) == ["new address"]
    assert texts_of(store.similarity_search("address", valid_at=then)) == ["old address"]
    assert texts_of(store.get_by_ids(["a"], valid_at=then)) == ["old address"]
    assert texts_of(store.max_marginal_relevance_search("address", valid_at=then)) == [
        "old address"
    ]


def test_a_document_with_a_ttl_goes_by_itself(
    store: KoruDeltaVectorStore, clock: FixedClock
) -> None:
    store.add_texts(["soon gone"], ttl=60)
    assert len(store.similarity_search("gone")) == 1
    clock.advance(seconds=60)
    assert store.similarity_search("gone") == []


def test_text_and_metadata_may_come_from_generators(store: KoruDeltaVectorStore) -> None:
    ids = store.add_texts(
        (str(n) for n in range(3)), ({"n": n} for n in range(3)), ids=(str(n) for n in range(3))
    )
    assert ids == ["0", "1", "2"]
    assert [found.metadata["n"] for found in store.get_by_ids(ids)] == [0, 1, 2]
    more = store.add_documents(Document(page_content=str(n)) for n in range(2))
    assert len(store.get_by_ids(more)) == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.add_texts(["a", "b"], [{}]),
        lambda store: store.add_texts(["a", "b"], ids=["1"]),
        lambda store: store.add_texts("ab"),
        lambda store: store.add_texts(["a"], ids="1"),
        lambda store: store.add_texts([b"a"]),
        lambda store: store.add_texts(["a"], [None]),
        lambda store: store.add_texts(["a"], ids=[1]),
        lambda store: store.get_by_ids("ab"),
        lambda store: store.get_by_ids([1]),
        lambda store: store.delete("ab"),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused(store: KoruDeltaVectorStore, call: Any) -> None:
    with pytest.raises(InvalidDataError):
        call(store)
    assert store.database.commits() == []


def test_an_embedding_that_returns_too_few_vectors_is_refused(db: koru_delta.Database) -> None:
    class Short(Words):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return super().embed_documents(texts)[1:]

    with pytest.raises(EmbedderError, match="given 2 texts and returned 1 vector"):
        KoruDeltaVectorStore(Short(), database=db).add_texts(["a", "b"])
    assert db.commits() == []


def test_what_the_embedding_raises_is_raised_as_it_is(db: koru_delta.Database) -> None:
    class Tired(Words):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            raise TimeoutError("come back later")

    with pytest.raises(TimeoutError, match="come back later"):
        KoruDeltaVectorStore(Tired(), database=db).add_texts(["a"])


def test_vectors_that_cannot_be_are_refused_by_name(db: koru_delta.Database) -> None:
    table = Table({"zero": [0.0, 0.0], "nan": [math.nan, 1.0], "ok": [1.0, 0.0], "3": [1, 2, 3]})
    store = KoruDeltaVectorStore(table, database=db)
    for text in ("zero", "nan"):
        with pytest.raises(InvalidDataError):
            store.add_texts([text])
    assert db.commits() == []
    store.add_texts(["ok"])
    with pytest.raises(DimensionMismatchError):
        store.add_texts(["3"])
    with pytest.raises(DimensionMismatchError):
        store.similarity_search("3")
    for search in (store.similarity_search, store.max_marginal_relevance_search):
        with pytest.raises(InvalidDataError, match="zero vector"):
            search("zero")


def test_a_value_that_is_no_document_is_named(store: KoruDeltaVectorStore) -> None:
    store.database.embed(NS, "stray", store.embeddings.embed_query("rain"), {"no": "text"})
    with pytest.raises(InvalidDataError, match="'stray' in namespace 'langchain' is no document"):
        store.similarity_search("rain")


def test_documents_put_by_the_database_itself_are_found(store: KoruDeltaVectorStore) -> None:
    store.database.embed(NS, "by-hand", "rain", {"text": "rain", "metadata": {"a": 1}})
    store.database.embed(NS, "text-only", "rain")

    assert store.similarity_search("rain") == [
        Document(page_content="rain", metadata={"a": 1}, id="by-hand"),
        Document(page_content="rain", id="text-only"),
    ]
    assert len(store.get_by_ids(["by-hand", "text-only"])) == 2


# Deleting


def test_get_by_ids_gives_those_that_are_there_in_the_order_asked_for(
    store: KoruDeltaVectorStore,
) -> None:
    store.add_texts(["a", "b", "c"], ids=["1", "2", "3"])
    assert ids_of(store.get_by_ids(["3", "9", "1", "3"])) == ["3", "1"]
    assert store.get_by_ids([]) == []


def test_delete_is_one_commit_and_the_past_stays(store: KoruDeltaVectorStore) -> None:
    store.add_texts(["a", "b", "c"], ids=["1", "2", "3"])
    then = store.database.commits()[-1]

    assert store.delete(["1", "nobody", "3", "1"], message="tidy up") is True
    assert len(store.database.commits()) == 2
    assert store.database.history(NS, "1")[-1].message == "tidy up"
    assert ids_of(store.similarity_search("a", k=9)) == ["2"]
    assert len(store.similarity_search("a", k=9, as_of=then)) == 3
    assert store.delete([]) is True
    assert store.delete(["nobody"]) is True
    assert len(store.database.commits()) == 2
    assert store.delete() is True
    assert store.similarity_search("a") == []
    assert len(store.get_by_ids(["1", "2", "3"], as_of=then)) == 3


def test_delete_by_filter(store: KoruDeltaVectorStore) -> None:
    store.add_texts(
        [f"text {n}" for n in range(10)],
        [{"n": n, "a.b": 1} for n in range(10)],
        ids=map(str, range(10)),
    )
    store.delete(filter={"n": {"$gte": 8}})
    assert store.database.list_keys(NS) == list("01234567")
    store.delete(["0", "1", "nobody"], filter={"$or": [{"n": {"$lt": 1}}, {"n": 5}]})
    assert store.database.list_keys(NS) == list("1234567")
    store.delete(filter={("a.b",): 2})
    assert len(store.database.list_keys(NS)) == 7
    assert len(store.database.commits()) == 3
    with pytest.raises(QueryError):
        store.delete(filter={"n": {"$bad": 1}})
    with pytest.raises(TypeError):
        store.delete(["1"], filters={"n": 1})


# Searching


def test_a_filter_applies_before_the_best_are_chosen(store: KoruDeltaVectorStore) -> None:
    store.add_texts(
        ["rain"] * 997 + ["sun", "sun and wind", "snow"],
        [{"rare": n >= 997, "n": n} for n in range(1000)],
    )
    for search in (store.similarity_search, store.max_marginal_relevance_search):
        found = search("rain", k=3, filter={"rare": True})
        assert sorted(texts_of(found)) == ["snow", "sun", "sun and wind"]


FILTERS: list[tuple[dict[Any, Any], str]] = [
    ({}, "abc"),
    ({"kind": "x"}, "ab"),
    ({"kind": {"$ne": "x"}}, "c"),
    ({"n": {"$gt": 1, "$lte": 3}}, "bc"),
    ({"n": {"$in": [1, 3]}}, "ac"),
    ({"n": {"$nin": [1, 3]}}, "b"),
    ({"$and": [{"kind": "x"}, {"n": 2}]}, "b"),
    ({"$or": [{"n": 1}, {"where.city": "Rome"}]}, "ab"),
    ({"$not": {"kind": "x"}}, "c"),
    ({"n": {"$not": {"$gte": 2}}}, "a"),
    ({"where.city": {"$exists": True}}, "b"),
    ({"where": {"city": "Rome"}}, "b"),
    ({("dotted.key",): 1}, "c"),
    ({"dotted.key": 1}, ""),
    ({"": {"n": 1, "kind": "x"}}, "a"),
    ({"tags": {"$elem": {"n": 2}}}, "c"),
    ({"metadata.n": 1}, ""),
    ({"text": "a"}, ""),
    ({"id": "a"}, ""),
]


@pytest.mark.parametrize(("filter", "expected"), FILTERS)
def test_filters_speak_of_the_metadata(
    store: KoruDeltaVectorStore, filter: dict[Any, Any], expected: str
) -> None:
    metadatas: list[dict[str, Any]] = [
        {"n": 1, "kind": "x"},
        {"n": 2, "kind": "x", "where": {"city": "Rome"}},
        {"n": 3.0, "dotted.key": 1, "tags": [{"n": 2}]},
    ]
    store.add_texts(["a", "b", "c"], metadatas, ids=["a", "b", "c"])

    assert sorted(ids_of(store.similarity_search("a", filter=filter))) == list(expected)
    store.delete(filter=filter)
    assert store.database.list_keys(NS) == sorted(set("abc") - set(expected))


@pytest.mark.parametrize(
    "options",
    [
        {"filter": lambda document: True},
        {"filter": "kind = 'x'"},
        {"filter": {"n": {"$near": 1}}},
        {"k": -1},
        {"k": 2.5},
        {"score_threshold": "high"},
    ],
)
async def test_what_is_not_well_formed_raises_query_error(
    store: KoruDeltaVectorStore, options: dict[str, Any]
) -> None:
    store.add_texts(["a"])
    with pytest.raises(QueryError):
        store.similarity_search("a", **options)
    with pytest.raises(QueryError):
        store.max_marginal_relevance_search("a", **{"fetch_k": 1, **options})
    with pytest.raises(QueryError):
        await store.asimilarity_search("a", **options)


@pytest.mark.parametrize("lambda_mult", [-0.1, 1.1, math.nan])
def test_lambda_is_from_0_to_1(store: KoruDeltaVectorStore, lambda_mult: float) -> None:
    with pytest.raises(QueryError, match="lambda_mult"):
        store.max_marginal_relevance_search("a", lambda_mult=lambda_mult)


def test_an_unknown_argument_is_not_passed_over(store: KoruDeltaVectorStore) -> None:
    store.add_texts(["a"])
    with pytest.raises(TypeError, match="filters"):
        store.similarity_search("a", filters={"n": 1})
    with pytest.raises(TypeError, match="metdata"):
        store.add_texts(["a"], metdata=[{}])


def test_scores_are_similarities_and_the_threshold_is_one(store: KoruDeltaVectorStore) -> None:
    store.add_texts(["rain and wind", "rain", "desert"], ids=["a", "b", "c"])
    scored = store.similarity_search_with_score("rain", k=3)

    assert [document.id for document, _ in scored] == ["b", "a", "c"]
    assert [score for _, score in scored] == pytest.approx([1.0, 3**-0.5, 0.0], abs=1e-6)
    vector = store.embeddings.embed_query("rain")
    assert store.similarity_search_with_score_by_vector(vector, k=3) == scored
    assert ids_of(store.similarity_search_by_vector(vector, k=2)) == ["b", "a"]
    assert ids_of(store.similarity_search("rain", score_threshold=0.5)) == ["b", "a"]
    assert ids_of(store.max_marginal_relevance_search("rain", score_threshold=0.9)) == ["b"]
    relevant = store.similarity_search_with_relevance_scores("rain", k=3, score_threshold=0.5)
    assert [document.id for document, _ in relevant] == ["b", "a", "c"]


METRICS: list[tuple[Any, list[float], list[float]]] = [
    ("cosine", [1.0, 0.0, -1.0], [1.0, 0.5, 0.0]),
    ("dot", [2000.0, 0.0, -2000.0], [1.0, 0.5, 0.0]),
    ("l2", [-999.0, -math.sqrt(1000001.0), -1001.0], [1 / 1000, 1 / 1001, 1 / 1002]),
]


@pytest.mark.parametrize(("metric", "scores", "relevance"), METRICS)
async def test_relevance_is_in_0_to_1_for_every_metric(
    db: koru_delta.Database, metric: Any, scores: list[float], relevance: list[float]
) -> None:
    table = Table({"q": [1000.0, 0.0], "near": [2.0, 0.0], "aside": [0.0, 1.0], "far": [-2.0, 0.0]})
    if metric == "l2":
        table.vectors |= {"near": [1.0, 0.0], "far": [-1.0, 0.0]}
    store = KoruDeltaVectorStore(table, database=db, metric=metric)
    store.add_texts(["near", "aside", "far"])

    found = {
        document.page_content: score
        for document, score in store.similarity_search_with_score("q", k=3)
    }
    assert [found[text] for text in ("near", "aside", "far")] == pytest.approx(scores)
    relevant = store.similarity_search_with_relevance_scores("q", k=3)
    assert relevant == await store.asimilarity_search_with_relevance_scores("q", k=3)
    assert texts_of([document for document, _ in relevant]) == ["near", "aside", "far"]
    assert [score for _, score in relevant] == pytest.approx(relevance, rel=1e-3, abs=1e-12)
    assert all(0 <= score <= 1 for _, score in relevant)


def test_a_store_of_another_metric_is_refused(db: koru_delta.Database, words: Words) -> None:
    KoruDeltaVectorStore(words, database=db, metric="dot").add_texts(["rain"])
    store = KoruDeltaVectorStore(words, database=db)
    for call in (store.add_texts, store.similarity_search, store.max_marginal_relevance_search):
        with pytest.raises(MetricMismatchError):
            call(["rain"] if call == store.add_texts else "rain")
    with pytest.raises(QueryError, match="unknown metric"):
        KoruDeltaVectorStore(words, database=db, metric="manhattan")


# What embeds, and under which name


async def laters(texts: list[str]) -> list[list[float]]:
    await asyncio.sleep(0)
    return HashEmbedder()(texts).tolist()


@pytest.mark.parametrize(
    "embedder", [as_embedder(HashEmbedder()), as_embedder(laters), HashEmbedder(), laters, local()]
)
async def test_any_embedder_serves_a_store(embedder: Any) -> None:
    store = KoruDeltaVectorStore(embedder)
    texts = ["rain on the roof", "sun in the garden"]
    assert store.add_texts(texts[:1], ids=["a"]) == ["a"]
    assert await store.aadd_texts(texts[1:], ids=["b"]) == ["b"]
    assert ids_of(store.similarity_search("rain roof", k=1)) == ["a"]
    assert ids_of(await store.asimilarity_search("sun garden", k=1)) == ["b"]
    assert ids_of(store.max_marginal_relevance_search("rain roof", k=1)) == ["a"]
    assert ids_of(await store.amax_marginal_relevance_search("rain roof", k=1)) == ["a"]
    assert ids_of(await store.as_retriever(search_kwargs={"k": 1}).ainvoke("sun garden")) == ["b"]
    assert ids_of((await KoruDeltaVectorStore.afrom_texts(texts, embedder)).get_by_ids([])) == []
    store.close()


async def test_embeddings_are_langchains_whatever_was_given() -> None:
    plain = local()
    shown = KoruDeltaVectorStore(plain).embeddings
    assert isinstance(shown, Embeddings)
    documents, query = shown.embed_documents(["rain"]), shown.embed_query("rain")
    assert [type(row) for row in documents] == [list]
    assert documents == [query] == plain.embed_documents(["rain"]).tolist()
    assert await shown.aembed_documents(["rain"]) == documents
    assert await shown.aembed_query("rain") == query

    again = KoruDeltaVectorStore(shown)  # it is the same embedder, by the same name
    again.add_texts(["rain"], ids=["a"])
    assert list(again.database.version(NS, "a").vectors) == [plain.name]
    words = Words()
    assert KoruDeltaVectorStore(words).embeddings is words


def test_embeddings_that_return_arrays_are_taken(db: koru_delta.Database) -> None:
    class Arrays(Embeddings):
        embed = HashEmbedder()

        def embed_documents(self, texts: list[str]) -> Any:
            return self.embed(texts)

        def embed_query(self, text: str) -> Any:
            return self.embed([text])[0]

    store = KoruDeltaVectorStore(Arrays(), database=db)
    store.add_texts(["rain", "sun"], ids=["a", "b"])
    assert ids_of(store.similarity_search("sun", k=1)) == ["b"]
    assert ids_of(store.max_marginal_relevance_search("sun", k=2)) == ["b", "a"]


def test_a_database_with_an_embedder_needs_no_other(db: koru_delta.Database) -> None:
    store = KoruDeltaVectorStore(database=db)
    store.add_texts(["rain", "sun"], ids=["a", "b"])
    assert ids_of(store.similarity_search("sun", k=1)) == ["b"]
    documents = [Document(page_content="snow", id="c")]
    KoruDeltaVectorStore.from_texts(["hail"], database=db, namespace="2", ids=["d"])
    KoruDeltaVectorStore.from_documents(documents, database=db, namespace="2")
    assert [match.key for match in db.similar("2", "snow", k=1)] == ["c"]


@pytest.mark.parametrize(
    ("embedding", "complaint"),
    [
        (None, "a store needs an embedding"),
        ("text-embedding-3", "str cannot embed text"),
        (local, "call it"),
        (Words, "Words is a class"),
    ],
)
def test_what_cannot_embed_is_refused_before_anything_is_opened(
    tmp_path: Path, embedding: Any, complaint: str
) -> None:
    with pytest.raises(EmbedderError, match=complaint):
        KoruDeltaVectorStore(embedding, path=tmp_path / "db")
    assert not (tmp_path / "db").exists()
    with koru_delta.open() as bare, pytest.raises(EmbedderError, match=complaint):
        KoruDeltaVectorStore(embedding, database=bare)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("similarity_search", ("rain",)),
        ("similarity_search_with_score", ("rain",)),
        ("similarity_search_by_vector", ([1.0] * 64,)),
        ("similarity_search_with_score_by_vector", ([1.0] * 64,)),
        ("max_marginal_relevance_search", ("rain",)),
        ("max_marginal_relevance_search_by_vector", ([1.0] * 64,)),
        ("add_texts", (["rain"],)),
        ("add_documents", ([],)),
        ("delete", (["a"],)),
        ("from_texts", (["rain"], Words())),
        ("from_documents", ([], Words())),
    ],
)
async def test_a_keyword_nobody_takes_is_told_by_the_method_called(
    store: KoruDeltaVectorStore, method: str, arguments: tuple[Any, ...]
) -> None:
    with pytest.raises(TypeError, match=rf"^{method}\(\) got an unexpected .* 'fliter'"):
        getattr(store, method)(*arguments, fliter={})
    with pytest.raises(TypeError, match=rf"^a{method}\(\) got an unexpected .* 'fliter'"):
        await getattr(store, f"a{method}")(*arguments, fliter={})
    assert store.database.commits() == []


def test_a_store_is_shown_in_a_line(store: KoruDeltaVectorStore) -> None:
    assert repr(store) == "<KoruDeltaVectorStore 'langchain' of <Database 'in memory'>>"
    store.add_texts(["rain"])
    then = store.as_of(None)
    assert repr(then) == "<KoruDeltaVectorStore 'langchain' at 1 of <Database 'in memory'>>"


def test_a_named_embedder_files_where_the_database_looks_for_text() -> None:
    embedder = as_embedder(HashEmbedder())
    with koru_delta.open(embedder=embedder) as db:
        store = KoruDeltaVectorStore(embedder, database=db)
        assert store.similarity_search("rain") == []
        store.add_texts(["rain on the roof"], ids=["a"])
        db.embed(NS, "b", "sun in the garden")
        assert [list(db.version(NS, key).vectors) for key in "ab"] == [[embedder.name]] * 2
        assert sorted(match.key for match in db.similar(NS, "rain")) == ["a", "b"]
        assert sorted(ids_of(store.similarity_search("rain"))) == ["a", "b"]
        assert ids_of(store.max_marginal_relevance_search("rain", k=1)) == ["a"]


def test_langchains_own_embeddings_keep_the_model_default(store: KoruDeltaVectorStore) -> None:
    store.add_texts(["rain"], ids=["a"])
    assert list(store.database.version(NS, "a").vectors) == ["default"]


@pytest.mark.parametrize("query", [None, 3, ["rain"]])
def test_a_query_is_text(store: KoruDeltaVectorStore, query: Any) -> None:
    store.add_texts(["rain"])
    for ask in (store.similarity_search, store.max_marginal_relevance_search):
        with pytest.raises(QueryError, match=f"a query is text, not {type(query).__name__}"):
            ask(query)
    with pytest.raises(QueryError, match="a query is text"):
        asyncio.run(store.asimilarity_search(query))


class Named(Embeddings):
    """Embeddings of LangChain that say what their model is called."""

    def __init__(self, model: str) -> None:
        self.model = model

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[float(number) for number in vector] for vector in HashEmbedder()(texts)]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("kind", ["embeddings", "embedder"])
def test_documents_of_another_model_are_not_asked_nor_added_to(
    db: koru_delta.Database, kind: str, cached: bool
) -> None:
    def store_of(called: str, **more: Any) -> KoruDeltaVectorStore:
        embedding: Any = Named(called)
        if kind == "embedder":
            embedding = as_embedder(HashEmbedder(), name=called)
        if cached:
            if kind == "embedder":
                embedding = KoruDeltaEmbeddings(embedding)
            embedding = CacheBackedEmbeddings.from_bytes_store(
                embedding, InMemoryByteStore(), key_encoder="sha256"
            )
        return KoruDeltaVectorStore(embedding, database=db, **more)

    one, two = store_of("one"), store_of("two")
    one.add_texts(["rain"], ids=["old"])
    assert list(db.version(NS, "old").vectors) == ["one"]
    before = db.commits()[-1]
    for ask in (
        lambda: two.similarity_search("rain"),
        lambda: two.max_marginal_relevance_search("rain"),
        lambda: two.add_texts(["sun"], ids=["new"]),
    ):
        with pytest.raises(ModelMismatchError, match="'one'"):
            ask()
    assert two.similarity_search("rain", mode="text")
    said = store_of("two", model="one")  # that it is the same
    said.add_texts(["rain again"], ids=["new"])
    assert sorted(ids_of(one.similarity_search("rain"))) == ["new", "old"]
    assert ids_of(one.similarity_search("rain", as_of=before)) == ["old"]

    one.delete(["old", "new"])
    two.add_texts(["sun"], ids=["fresh"])
    assert ids_of(two.max_marginal_relevance_search("sun")) == ["fresh"]
    with pytest.raises(ModelMismatchError):
        two.similarity_search("rain", as_of=before)
    with pytest.raises(ModelMismatchError):
        store_of("one").similarity_search("rain")
    assert ids_of(store_of("one").similarity_search("rain", as_of=before)) == ["old"]


def test_a_store_that_is_open_sees_that_its_documents_went_to_another_model(
    db: koru_delta.Database,
) -> None:
    store = KoruDeltaVectorStore(Named("one"), database=db)
    store.add_texts(["rain"], ids=["a"])
    assert ids_of(store.similarity_search("rain")) == ["a"]
    before = db.commits()[-1]
    db.reembed(NS, "two", HashEmbedder())
    with pytest.raises(ModelMismatchError):
        store.similarity_search("rain")
    with pytest.raises(ModelMismatchError):
        store.add_texts(["sun"], ids=["b"])
    assert db.models(NS) == {"two": 1}
    assert ids_of(store.similarity_search("rain", as_of=before)) == ["a"]


def test_vectors_that_named_no_model_then_are_found_after_they_were_given_one(
    db: koru_delta.Database,
) -> None:
    db.embed(NS, "a", HashEmbedder()(["rain"])[0], {"text": "rain"})
    store = KoruDeltaVectorStore(Named("one"), database=db)
    before = db.commits()[-1]
    db.reembed(NS, "one", HashEmbedder())
    assert db.models(NS) == {"one": 1}
    assert ids_of(store.similarity_search("rain")) == ["a"]
    assert ids_of(store.similarity_search("rain", as_of=before)) == ["a"]
    assert ids_of(store.as_of(before).max_marginal_relevance_search("rain")) == ["a"]


def test_vectors_that_name_no_model_are_taken_for_the_embeddings(db: koru_delta.Database) -> None:
    db.embed(NS, "old", HashEmbedder()(["rain"])[0], {"text": "rain"})
    store = KoruDeltaVectorStore(Named("one"), database=db)
    assert ids_of(store.similarity_search("rain")) == ["old"]
    assert ids_of(store.max_marginal_relevance_search("rain")) == ["old"]
    store.add_texts(["rain again"], ids=["new"])
    assert sorted(ids_of(store.similarity_search("rain"))) == ["new", "old"]


def test_embeddings_that_name_no_model_go_by_the_one_there_is(db: koru_delta.Database) -> None:
    class Unnamed(Named):
        def __init__(self) -> None:
            pass

    db.embed(NS, "old", HashEmbedder()(["rain"])[0], {"text": "rain"}, model="one")
    store = KoruDeltaVectorStore(Unnamed(), database=db)
    assert ids_of(store.similarity_search("rain")) == ["old"]
    store.add_texts(["rain again"], ids=["new"])
    assert list(db.version(NS, "new").vectors) == ["one"]


def test_a_stranger_among_several_models_finds_none_and_files_under_its_name_if_told(
    db: koru_delta.Database,
) -> None:
    vector = HashEmbedder()(["rain"])[0]
    for model in ("one", "two"):
        db.embed(NS, model, vector, {"text": model}, model=model)
    stranger = as_embedder(HashEmbedder(), name="three")
    store = KoruDeltaVectorStore(stranger, database=db)
    with pytest.raises(ModelMismatchError, match="model 'three' was asked"):
        store.similarity_search("rain")
    with pytest.raises(ModelMismatchError, match="model='three' to have both"):
        store.add_texts(["rain"], ids=["new"])
    KoruDeltaVectorStore(stranger, database=db, model="three").add_texts(["rain"], ids=["new"])
    assert ids_of(store.similarity_search("rain")) == ["new"]
    with pytest.raises(ModelMismatchError):  # and not what another model filed by then
        store.as_of(1).similarity_search("rain")


def test_two_models_may_share_a_namespace(db: koru_delta.Database) -> None:
    one = KoruDeltaVectorStore(Table({"a": [1, 0], "q": [1, 0]}), database=db, model="one")
    two = KoruDeltaVectorStore(Table({"b": [1, 0, 0], "q": [1, 0, 0]}), database=db, model="two")
    one.add_texts(["a"], ids=["a"])
    two.add_texts(["b"], ids=["b"])

    assert ids_of(one.similarity_search("q")) == ["a"]
    assert ids_of(two.max_marginal_relevance_search("q")) == ["b"]
    with pytest.raises(ModelMismatchError):
        KoruDeltaVectorStore(one.embeddings, database=db).similarity_search("q")


def naive_mmr(
    query: np.ndarray, vectors: np.ndarray, k: int, fetch_k: int, lambda_mult: float
) -> list[int]:
    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))

    nearest = sorted(range(len(vectors)), key=lambda i: -cosine(query, vectors[i]))[:fetch_k]
    chosen: list[int] = []
    while len(chosen) < min(k, len(nearest)):

        def value(i: int) -> float:
            like_chosen = max((cosine(vectors[i], vectors[j]) for j in chosen), default=0.0)
            return lambda_mult * cosine(query, vectors[i]) - (1 - lambda_mult) * like_chosen

        rest = [i for i in nearest if i not in chosen]
        chosen.append(nearest[0] if not chosen else max(rest, key=value))
    return chosen


@pytest.mark.parametrize("lambda_mult", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize(("k", "fetch_k"), [(4, 20), (5, 5), (10, 2), (3, 1000), (0, 20)])
def test_mmr_equals_a_naive_one(
    db: koru_delta.Database, lambda_mult: float, k: int, fetch_k: int
) -> None:
    random = np.random.default_rng(7)
    vectors = random.normal(size=(60, 8)).astype(np.float32)
    query = random.normal(size=8).astype(np.float32)
    table = Table({str(n): vector.tolist() for n, vector in enumerate(vectors)})
    table.vectors["q"] = query.tolist()
    store = KoruDeltaVectorStore(table, database=db)
    store.add_texts([str(n) for n in range(60)])
    fetched = {"fetch_k": fetch_k, "lambda_mult": lambda_mult}

    expected = naive_mmr(
        query.astype(np.float64), vectors.astype(np.float64), k, max(k, fetch_k), lambda_mult
    )
    found = store.max_marginal_relevance_search("q", k=k, **fetched)
    assert texts_of(found) == [str(n) for n in expected]
    assert found == store.max_marginal_relevance_search_by_vector(
        query.tolist(),
        k=k,
        **fetched,
    )


def test_mmr_of_vectors_without_direction_is_refused(db: koru_delta.Database) -> None:
    table = Table({"zero": [0.0, 0.0], "x": [1.0, 0.0]})
    store = KoruDeltaVectorStore(table, database=db, metric="l2")
    store.add_texts(["x"])
    assert texts_of(store.similarity_search("zero")) == ["x"]
    with pytest.raises(InvalidDataError, match="direction"):
        store.max_marginal_relevance_search("zero")


def test_an_empty_store_finds_nothing(store: KoruDeltaVectorStore) -> None:
    assert store.similarity_search("rain") == []
    assert store.similarity_search_with_relevance_scores("rain") == []
    assert store.max_marginal_relevance_search("rain") == []
    assert store.delete(["a"]) is True
    assert store.delete() is True


def test_search_by_name_reaches_every_kind(store: KoruDeltaVectorStore) -> None:
    store.add_texts(["rain", "sun"], ids=["a", "b"])
    for kind in ("similarity", "mmr"):
        assert ids_of(store.search("rain", kind, k=1)) == ["a"]
    relevant = store.search("rain", "similarity_score_threshold", score_threshold=0.9)
    assert ids_of(relevant) == ["a"]


# Time


def test_a_store_as_of_a_moment_reads_it_and_refuses_writes(
    store: KoruDeltaVectorStore, clock: FixedClock
) -> None:
    store.add_texts(["low water", "high wind"], [{"n": 1}, {"n": 2}], ids=["a", "b"])
    store.database.tag("spring")
    clock.advance(seconds=1)
    store.add_texts(["flood water"], [{"n": 3}], ids=["a"])
    store.delete(["b"])
    past = store.as_of("tag:spring")

    assert ids_of(past.similarity_search("wind")) == ["b", "a"]
    assert texts_of(past.get_by_ids(["a", "b"])) == ["low water", "high wind"]
    assert texts_of(past.similarity_search("water", filter={"n": {"$lt": 3}}, k=1)) == ["low water"]
    assert texts_of(past.max_marginal_relevance_search("water", k=1)) == ["low water"]
    assert past.similarity_search_with_relevance_scores("water")[0][0].id == "a"
    assert texts_of(store.similarity_search("water")) == ["flood water"]
    for write in (
        lambda: past.add_texts(["x"]),
        lambda: past.add_documents([Document(page_content="x")]),
        lambda: past.delete(["a"]),
        lambda: past.delete(filter={"n": 1}),
        past.delete,
    ):
        with pytest.raises(ReadOnlyError, match="shows the moment 2026-01-01T00:00:00"):
            write()
    for again in (lambda: past.similarity_search("water", as_of=1), lambda: past.as_of(1)):
        with pytest.raises(QueryError, match="one moment"):
            again()
    past.close()
    assert len(store.get_by_ids(["a"])) == 1


def test_as_of_now_stands_still(store: KoruDeltaVectorStore) -> None:
    store.add_texts(["rain"])
    now = store.as_of(None)
    store.add_texts(["rain"])
    assert len(now.similarity_search("rain")) == 1


async def test_retrievers_ask_of_the_past(store: KoruDeltaVectorStore) -> None:
    store.add_texts(["rain in spring"], ids=["a"])
    then = store.database.history(NS, "a")[-1]
    store.add_texts(["rain in autumn"], ids=["a"])

    for kind, options in (
        ("similarity", {}),
        ("mmr", {"fetch_k": 3, "lambda_mult": 0.2}),
        ("similarity_score_threshold", {"score_threshold": 0.5}),
    ):
        retriever = store.as_retriever(
            search_type=kind, search_kwargs={"as_of": then, "k": 2, **options}
        )
        assert texts_of(retriever.invoke("rain")) == ["rain in spring"]
        assert texts_of(await retriever.ainvoke("rain")) == ["rain in spring"]
        assert store.as_retriever(search_kwargs={"filter": {"no": 1}}).invoke("rain") == []
    assert retriever.tags == ["KoruDeltaVectorStore", "Words"]
    assert texts_of(store.as_of(then).as_retriever().invoke("rain")) == ["rain in spring"]
    assert texts_of(retriever.invoke("rain", as_of=None)) == ["rain in autumn"]
    retriever.add_documents([Document(page_content="more", id="b")])
    assert len(store.get_by_ids(["b"])) == 1


# LangChain's indexing


def documents(*pairs: tuple[str, str]) -> list[Document]:
    return [Document(page_content=text, metadata={"source": source}) for source, text in pairs]


def run_index(
    store: KoruDeltaVectorStore, manager: InMemoryRecordManager, cleanup: Any, *pairs: Any
) -> tuple[int, int, int, int]:
    result = index(
        documents(*pairs), manager, store,
        cleanup=cleanup, source_id_key="source", key_encoder="sha256", batch_size=2,
    )  # fmt: skip
    return _counts(result)


def _counts(result: Any) -> tuple[int, int, int, int]:
    return tuple(result[f"num_{what}"] for what in ("added", "updated", "skipped", "deleted"))


@pytest.fixture
def manager() -> InMemoryRecordManager:
    manager = InMemoryRecordManager(namespace="docs")
    manager.create_schema()
    return manager


AFTER: list[tuple[Any, int, list[str]]] = [
    (None, 0, ["a1", "a2", "a2 new", "b1", "c1"]),
    ("incremental", 1, ["a1", "a2 new", "b1", "c1"]),
    ("scoped_full", 1, ["a1", "a2 new", "b1", "c1"]),
    ("full", 2, ["a1", "a2 new", "c1"]),
]


@pytest.mark.parametrize(("cleanup", "deleted", "left"), AFTER)
def test_index_keeps_the_store_in_step(
    store: KoruDeltaVectorStore,
    manager: InMemoryRecordManager,
    cleanup: Any,
    deleted: int,
    left: list[str],
) -> None:
    first = [("a", "a1"), ("a", "a2"), ("b", "b1")]
    assert run_index(store, manager, cleanup, *first) == (3, 0, 0, 0)
    assert run_index(store, manager, cleanup, *first) == (0, 0, 3, 0)
    then = store.database.commits()[-1]

    second = [("a", "a1"), ("a", "a2 new"), ("c", "c1")]
    assert run_index(store, manager, cleanup, *second) == (2, 0, 1, deleted)

    assert sorted(texts_of(store.similarity_search("a", k=99))) == left
    assert sorted(texts_of(store.similarity_search("a", k=99, as_of=then))) == ["a1", "a2", "b1"]
    assert all(set(found.metadata) == {"source"} for found in store.similarity_search("a", k=99))


@pytest.mark.parametrize(("cleanup", "deleted", "left"), AFTER)
async def test_aindex_keeps_the_store_in_step(
    store: KoruDeltaVectorStore,
    manager: InMemoryRecordManager,
    cleanup: Any,
    deleted: int,
    left: list[str],
) -> None:
    run = partial(
        aindex, record_manager=manager, vector_store=store,
        cleanup=cleanup, source_id_key="source", key_encoder="sha256", batch_size=2,
    )  # fmt: skip
    await run(documents(("a", "a1"), ("a", "a2"), ("b", "b1")))

    async def later() -> AsyncIterator[Document]:
        for document in documents(("a", "a1"), ("a", "a2 new"), ("c", "c1")):
            yield document

    assert _counts(await run(later())) == (2, 0, 1, deleted)
    assert sorted(texts_of(await store.asimilarity_search("a", k=99))) == left


def test_index_by_force_makes_new_versions(
    store: KoruDeltaVectorStore, manager: InMemoryRecordManager
) -> None:
    for _ in range(2):
        result = index(
            documents(("a", "a1")), manager, store,
            cleanup="full", force_update=True, key_encoder="sha256",
        )  # fmt: skip
    assert _counts(result) == (0, 1, 0, 0)
    (key,) = store.database.list_keys(NS)
    assert len(store.database.history(NS, key)) == 2


# Opening, closing, other processes


def test_from_texts_needs_texts_and_an_embedding_alone() -> None:
    store = KoruDeltaVectorStore.from_texts(["rain", "sun"], Words())
    assert texts_of(store.similarity_search("sun", k=1)) == ["sun"]
    assert store.database.directory is None
    del store
    gc.collect()  # a store nobody closed goes without a warning


async def test_stores_are_made_of_texts_and_of_documents(
    db: koru_delta.Database, words: Words, tmp_path: Path
) -> None:
    given = [Document(page_content="rain", metadata={"n": 1}, id="a")]
    make = KoruDeltaVectorStore
    stores = [
        make.from_texts(["rain"], words, [{"n": 1}], ids=["a"], database=db, namespace="1"),
        make.from_documents(given, words, path=tmp_path / "2", metric="dot", message="first"),
        await make.afrom_texts(["rain"], words, [{"n": 1}], ids=["a"], path=tmp_path / "3"),
        await make.afrom_documents(given, words, database=db, model="m", namespace="4"),
    ]
    for store in stores:
        assert store.similarity_search("rain") == given
        store.close()
        store.close()
    assert sorted(db.list_namespaces()) == ["1", "4"]  # not ours to close
    for store in stores[1:3]:
        with pytest.raises(DatabaseClosedError):
            store.similarity_search("rain")
    with pytest.raises(InvalidDataError, match="not both"):
        make(words, database=db, path=tmp_path)


async def test_a_store_that_cannot_be_filled_is_closed_again(tmp_path: Path) -> None:
    class Broken(Words):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            raise ConnectionError("no network")

    with pytest.raises(ConnectionError):
        KoruDeltaVectorStore.from_texts(["rain"], Broken(), path=tmp_path)
    with pytest.raises(ConnectionError):
        await KoruDeltaVectorStore.afrom_texts(["rain"], Broken(), path=tmp_path)
    with pytest.raises(InvalidDataError):
        KoruDeltaVectorStore.from_texts(["rain", "sun"], Words(), [{}], path=tmp_path)
    held = [db for db in gc.get_objects() if isinstance(db, koru_delta.Database)]
    for db in held:
        if db.directory == tmp_path:
            with pytest.raises(DatabaseClosedError):
                db.commits()


async def test_documents_are_there_after_reopening(tmp_path: Path, words: Words) -> None:
    with KoruDeltaVectorStore(words, path=tmp_path) as store:
        store.add_texts(["rain on the roof"], [{"n": [1]}], ids=["\0"])
        store.add_texts(["snow on the roof"], [{"n": [2]}], ids=["\0"])
    expected = Document(page_content="snow on the roof", metadata={"n": [2]}, id="\0")

    async with KoruDeltaVectorStore(words, path=tmp_path) as store:
        assert await store.asimilarity_search("roof") == [expected]
        assert store.get_by_ids(["\0"]) == [expected]
        assert texts_of(store.similarity_search("roof", as_of=1)) == ["rain on the roof"]
    with koru_delta.open(tmp_path, read_only=True) as db:
        store = KoruDeltaVectorStore(words, database=db)
        assert store.similarity_search("roof") == [expected]
        with pytest.raises(ReadOnlyError):
            store.add_texts(["x"])
    assert len(words.calls) == 2  # nothing was embedded in vain


READER = """
import sys
from tests.langchain.test_vectorstore import KoruDeltaVectorStore, Words

with KoruDeltaVectorStore(Words(), path=sys.argv[1]) as store:
    (found,) = store.similarity_search("roof", k=1, filter={"n": 1})
    assert (found.id, found.page_content) == ("é", "rain on the roof"), found
    store.add_texts(["written elsewhere"], ids=["other"])
"""


def test_a_second_process_reads_and_writes_the_same_store(tmp_path: Path, words: Words) -> None:
    with KoruDeltaVectorStore(words, path=tmp_path) as store:
        store.add_texts(["rain on the roof"], [{"n": 1}], ids=["é"])
        subprocess.run(
            [sys.executable, "-c", READER, str(tmp_path)], check=True,
            cwd=Path(__file__).resolve().parents[2],
        )  # fmt: skip
        assert ids_of(store.similarity_search("written", k=1)) == ["other"]


def test_adds_at_the_same_time_all_arrive(store: KoruDeltaVectorStore) -> None:
    def add(n: int) -> list[str]:
        return store.add_texts(
            [f"text {n} {i}" for i in range(5)], ids=[f"{n}-{i}" for i in range(5)]
        )

    with ThreadPoolExecutor(8) as threads:
        ids = [name for added in threads.map(add, range(24)) for name in added]
    assert sorted(ids_of(store.similarity_search("text", k=999))) == sorted(ids)
    assert len(store.database.commits()) == 24


async def test_async_adds_at_the_same_time_all_arrive(store: KoruDeltaVectorStore) -> None:
    added = await asyncio.gather(*(store.aadd_texts([f"text {n}"]) for n in range(50)))
    found = await store.asimilarity_search("text", k=999)
    assert sorted(ids_of(found)) == sorted(name for names in added for name in names)


# The event loop


class AsyncOnly(Embeddings):
    """Embeds on the loop, and cannot be asked to block it."""

    def __init__(self) -> None:
        self.embed = HashEmbedder()
        self.threads: set[int] = set()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise AssertionError("this would block the loop")

    def embed_query(self, text: str) -> list[float]:
        raise AssertionError("this would block the loop")

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        self.threads.add(threading.get_ident())
        return self.embed(texts).tolist()

    async def aembed_query(self, text: str) -> list[float]:
        return (await self.aembed_documents([text]))[0]


@pytest.fixture
def watched() -> Iterator[Watched]:
    with Watched() as db:
        yield db


async def test_storage_never_runs_on_the_loops_thread(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(path: object) -> Watched:
        watched.seen.append(("open", threading.get_ident()))
        return watched

    monkeypatch.setattr(koru_delta.adapters, "open", opened)
    embedding = AsyncOnly()
    vector = embedding.embed(["rain"])[0].tolist()
    document = Document(page_content="rain", id="d")
    make = KoruDeltaVectorStore
    store = await make.afrom_texts(["rain", "sun"], embedding, ids=["a", "b"])
    await make.afrom_documents([document], embedding, namespace="other")
    pulled: set[int] = set()

    def texts() -> Iterator[str]:
        pulled.add(threading.get_ident())
        yield "slow to come"

    async def use(store: KoruDeltaVectorStore) -> None:
        assert len(await store.asimilarity_search("rain", k=2)) == 2
        assert len(await store.asimilarity_search_with_score("rain", k=2)) == 2
        assert len(await store.asimilarity_search_by_vector(vector, k=2)) == 2
        assert len(await store.asimilarity_search_with_score_by_vector(vector, k=2)) == 2
        assert len(await store.asimilarity_search_with_relevance_scores("rain", k=2)) == 2
        assert len(await store.amax_marginal_relevance_search("rain", k=2)) == 2
        assert len(await store.amax_marginal_relevance_search_by_vector(vector, k=2)) == 2
        assert len(await store.aget_by_ids(["a", "b"])) == 2
        for kind in ("similarity", "mmr"):
            assert len(await store.asearch("rain", kind, k=2)) == 2
            assert len(await store.as_retriever(search_type=kind).ainvoke("rain")) >= 2

    await store.aadd_texts(texts())
    await store.aadd_documents([document])
    await use(store)
    await use(await store.aas_of(None))
    assert await store.adelete(["a"])
    assert await store.adelete(filter={"none": 1})
    assert await store.adelete()
    await store.aclose()

    here = threading.get_ident()
    assert {name for name, _ in watched.seen} >= {
        "open", "embed_many", "delete_many", "query", "list_keys", "similar", "vectors",
        "get_many", "as_of", "close",
    }  # fmt: skip
    assert [name for name, thread in watched.seen if thread == here] == []
    assert pulled
    assert here not in pulled
    assert embedding.threads == {here}


def test_every_method_of_the_interface_is_ours_or_passes_to_ours() -> None:
    from langchain_core.vectorstores import VectorStore

    passes_on = {
        "_get_retriever_tags",
        "similarity_search_with_relevance_scores", "asimilarity_search_with_relevance_scores",
        "_euclidean_relevance_score_fn", "_cosine_relevance_score_fn",
        "_max_inner_product_relevance_score_fn",
    }  # fmt: skip
    theirs = {name for name in vars(VectorStore) if not name.startswith("__")} - {"_abc_impl"}
    same = {n for n in theirs if getattr(KoruDeltaVectorStore, n) == getattr(VectorStore, n)}
    assert same == passes_on


def test_without_langchain_the_import_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['langchain_core'] = None\n"
        "try:\n import koru_delta_langchain\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert "pip install 'koru-delta[langchain]'" in done.stdout


def test_an_ingested_history_is_a_store_of_chunks_in_time(tmp_path: Path) -> None:
    from koru_delta.ingest import ingest_git
    from tests.ingest.history_maker import HistoryMaker

    maker = HistoryMaker(tmp_path / "repo")
    maker.commit(100, {"rules.md": "The gate is painted red.\n", "other.md": "Tea is hot.\n"})
    maker.commit(200, {"rules.md": "The gate is painted blue.\n"})
    words = HashEmbedder()
    with koru_delta.open(embedder=words) as db:
        ingest_git(db, maker.write())
        store = KoruDeltaVectorStore(Words(), database=db, namespace="docs.chunks")
        question = "what colour is the gate painted"
        [now] = store.similarity_search(question, k=1)
        [then] = store.similarity_search(question, k=1, valid_at="1970-01-01T00:02:30Z")
        [only] = store.similarity_search(question, k=5, filter={"path": "other.md"})
    assert (now.page_content, then.page_content) == (
        "The gate is painted blue.", "The gate is painted red.",
    )  # fmt: skip
    assert now.metadata["path"] == "rules.md"
    assert now.metadata["commit"] != then.metadata["commit"]
    assert only.metadata["path"] == "other.md"
