"""Searches of the vector store beyond LangChain's own: words, both, time, causes, reasons."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

import koru_delta
from koru_delta import CausalFilter
from koru_delta.errors import QueryError
from koru_delta.testing import FixedClock, HashEmbedder
from koru_delta_langchain import KoruDeltaRetriever, KoruDeltaVectorStore


class Words(Embeddings):
    def __init__(self) -> None:
        self.embed = HashEmbedder()
        self.asked: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.embed(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        self.asked.append(text)
        return self.embed([text])[0].tolist()


@pytest.fixture
def words() -> Words:
    return Words()


@pytest.fixture
def store(clock: FixedClock, words: Words) -> Iterator[KoruDeltaVectorStore]:
    with koru_delta.open(clock=clock) as db:
        yield KoruDeltaVectorStore(words, database=db)


def ids(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


def fill(store: KoruDeltaVectorStore) -> None:
    store.add_texts(
        ["error E-4012 in the pump", "the pump is loud", "tea is hot", "E-4012 again and again"],
        [{"kind": "log", "n": 1}, {"kind": "note", "n": 2}, {"kind": "note", "n": 3},
         {"kind": "log", "n": 4}],
        ids=["a", "b", "c", "d"],
    )  # fmt: skip


def test_each_mode_finds_what_the_database_finds(store: KoruDeltaVectorStore, words: Words) -> None:
    fill(store)
    question = "pump E-4012"
    vector = words.embed_query(question)
    for mode in ("hybrid", "text", "vector"):
        found = store.similarity_search_with_score(question, k=3, mode=mode)
        expected = store.database.search(
            "langchain", question, mode=mode, k=3, vector=vector, syntax=False
        )
        assert [(document.id, score) for document, score in found] == [
            (match.key, match.score) for match in expected
        ]


def test_words_alone_embed_nothing(store: KoruDeltaVectorStore, words: Words) -> None:
    fill(store)
    assert set(ids(store.similarity_search("E-4012", mode="text"))) == {"a", "d"}
    assert set(ids(store.max_marginal_relevance_search("E-4012", k=2, mode="text"))) == {"a", "d"}
    assert words.asked == []


def test_the_mode_of_a_store_is_that_of_its_searches(
    store: KoruDeltaVectorStore, words: Words
) -> None:
    fill(store)
    textual = KoruDeltaVectorStore(words, database=store.database, mode="text")
    assert ids(textual.similarity_search("tea", k=4)) == ["c"]
    assert ids(textual.as_retriever().invoke("tea")) == ["c"]
    assert len(textual.similarity_search("tea", k=4, mode="vector")) == 4
    assert len(textual.similarity_search_by_vector(words.embed_query("tea"), k=4)) == 4


def test_a_query_is_taken_as_it_is_unless_syntax_is_asked_for(store: KoruDeltaVectorStore) -> None:
    fill(store)
    assert set(ids(store.similarity_search("pump -loud", mode="text"))) == {"a", "b"}
    assert ids(store.similarity_search("pump -loud", mode="text", syntax=True)) == ["a"]


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.similarity_search("x", mode="psychic"),
        lambda store: KoruDeltaVectorStore(Words(), mode="psychic"),
        lambda store: store.similarity_search("x", mode="hybrid", weights={"luck": 1}),
        lambda store: store.similarity_search("x", half_life=-1),
        lambda store: store.as_retriever(search_type="time_decayed"),
        lambda store: store.as_retriever(search_type="as_of", search_kwargs={"k": 1}),
        lambda store: store.search("x", "time_decayed"),
        lambda store: store.as_retriever(search_type="psychic"),
        lambda store: store.search("x", "psychic"),
    ],
)
def test_what_there_is_not_is_refused(store: KoruDeltaVectorStore, call: Any) -> None:
    fill(store)
    with pytest.raises(ValueError, match=r"mode|leg|half_life|needs|search_type"):
        call(store)


def test_a_vector_has_no_words_to_search_by(store: KoruDeltaVectorStore) -> None:
    with pytest.raises(TypeError, match="mode"):
        store.similarity_search_by_vector([1.0] * 64, mode="hybrid")


@pytest.mark.parametrize("mode", ["vector", "hybrid", "text"])
async def test_filters_come_before_the_best_are_chosen_in_every_mode(
    store: KoruDeltaVectorStore, mode: Any
) -> None:
    store.add_texts([f"rain {n}" for n in range(50)], [{"n": n} for n in range(50)])
    for filter in ({"n": {"$gte": 48}}, {"$or": [{"n": 3}, {"n": 7}]}):
        found = store.similarity_search("rain", k=2, mode=mode, filter=filter)
        assert len(found) == 2
        assert {document.metadata["n"] for document in found} <= {48, 49, 3, 7}
        again = await store.asimilarity_search("rain", k=2, mode=mode, filter=filter)
        assert again == found
        spread = store.max_marginal_relevance_search("rain", k=2, mode=mode, filter=filter)
        assert sorted(map(repr, spread)) == sorted(map(repr, found))


@pytest.mark.parametrize("fusion", ["rrf", "score"])
@pytest.mark.parametrize("weights", [None, {"text": 3}, {"vector": 0.1, "text": 0}])
@pytest.mark.parametrize("mode", ["vector", "hybrid", "text"])
async def test_relevance_is_in_0_to_1_in_every_mode(
    store: KoruDeltaVectorStore, mode: Any, weights: Any, fusion: Any
) -> None:
    fill(store)
    options: dict[str, Any] = {"mode": mode}
    if mode == "hybrid":
        options |= {"weights": weights, "fusion": fusion}
    for question in ("pump E-4012", "tea is hot", "nothing of it"):
        found = store.similarity_search_with_relevance_scores(question, k=4, **options)
        scores = [relevance for _, relevance in found]
        assert all(0 <= score <= 1 for score in scores)
        assert scores == sorted(scores, reverse=True)
        assert found == await store.asimilarity_search_with_relevance_scores(
            question, k=4, **options
        )
    found = store.similarity_search_with_relevance_scores("tea is hot", k=4, mode="hybrid")
    relevances = [relevance for _, relevance in found]
    assert relevances[0] == pytest.approx(1)
    assert all(relevance < 0.99 for relevance in relevances[1:])


def test_hybrid_over_documents_without_vectors_is_a_search_by_words(
    store: KoruDeltaVectorStore,
) -> None:
    store.database.put("langchain", "plain", {"text": "rain", "metadata": {}})
    [(found, relevance)] = store.similarity_search_with_relevance_scores("rain", mode="hybrid")
    assert found.id == "plain"
    assert 0 < relevance < 1
    assert ids(store.max_marginal_relevance_search("rain", mode="hybrid")) == ["plain"]


# Time


def test_the_older_counts_the_less_by_its_half_life(
    store: KoruDeltaVectorStore, clock: FixedClock
) -> None:
    store.add_texts(["rain rain rain"], ids=["old"])
    clock.advance(seconds=10 * 86_400)
    store.add_texts(["rain and sun"], ids=["new"])

    assert ids(store.similarity_search("rain")) == ["old", "new"]
    for half_life in (86_400, timedelta(days=1)):
        assert ids(store.similarity_search("rain", half_life=half_life)) == ["new", "old"]
    decayed = store.as_retriever(
        search_type="time_decayed", search_kwargs={"half_life": 86_400, "k": 1}
    )
    assert ids(decayed.invoke("rain")) == ["new"]
    assert ids(decayed.invoke("rain", half_life=1e9)) == ["old"]


@pytest.mark.parametrize("mode", ["vector", "hybrid", "text"])
def test_every_mode_searches_the_past(store: KoruDeltaVectorStore, mode: Any) -> None:
    fill(store)
    then = store.database.commits()[-1]
    store.delete(["a", "d"])
    store.add_texts(["pump E-4012 E-4012 pump"], ids=["late"])

    now = store.similarity_search("pump E-4012", k=9, mode=mode)
    past = store.similarity_search("pump E-4012", k=9, mode=mode, as_of=then)
    assert "late" in ids(now)
    assert "a" not in ids(now)
    assert "late" not in ids(past)
    assert "a" in ids(past)
    assert store.as_of(then).similarity_search("pump E-4012", k=9, mode=mode) == past
    retriever = store.as_retriever(
        search_type="as_of", search_kwargs={"as_of": then, "mode": mode, "k": 9}
    )
    assert retriever.invoke("pump E-4012") == past


def test_the_best_of_each_group_is_kept(store: KoruDeltaVectorStore) -> None:
    fill(store)
    found = store.similarity_search("E-4012 pump", k=4, group_by="kind")
    assert sorted(document.metadata["kind"] for document in found) == ["log", "note"]


# Causes


def test_a_causal_filter_chooses_by_where_versions_come_from(store: KoruDeltaVectorStore) -> None:
    store.add_texts(["rain one"], ids=["first"], run="monday", author="ada")
    source = store.database.version("langchain", "first")
    store.add_texts(["rain two"], ids=["second"], causes=[("supersedes", source)], run="tuesday")

    assert ids(store.similarity_search("rain")) == ["second"]
    both = CausalFilter(exclude_superseded=False)
    assert ids(store.similarity_search("rain", causal=both)) == ["first", "second"]
    for mode in ("vector", "hybrid", "text"):
        mondays = CausalFilter(run="monday", exclude_superseded=False)
        assert ids(store.similarity_search("rain", causal=mondays, mode=mode)) == ["first"]
        kept = store.max_marginal_relevance_search("rain", causal=mondays, mode=mode)
        assert ids(kept) == ["first"]


# What is told of a hit


async def test_nothing_of_ours_is_in_the_metadata_unasked(store: KoruDeltaVectorStore) -> None:
    fill(store)
    for mode in ("vector", "hybrid", "text"):
        for document in store.similarity_search("pump", mode=mode):
            assert set(document.metadata) == {"kind", "n"}


async def test_provenance_says_which_version_and_how_it_came_about(
    store: KoruDeltaVectorStore,
) -> None:
    [origin] = store.database.put_many([("sources", "page", {"url": "x"})])
    store.add_texts(
        ["rain"], [{"n": 1}], ids=["a"], author="ada", run="nightly", message="import",
        causes=[("derived_from", origin)],
    )  # fmt: skip
    [found] = store.similarity_search("rain", include_provenance=True)
    told = found.metadata.pop("koru_delta")
    version = store.database.get_version(told["version"])

    assert found.metadata == {"n": 1}
    assert (version.namespace, version.key) == ("langchain", "a")
    assert told == {
        "version": version.id, "namespace": "langchain", "key": "a",
        "time": version.time.isoformat(), "valid_from": version.valid_from.isoformat(),
        "valid_to": None, "author": "ada", "message": "import", "run": "nightly",
        "causes": [["derived_from", origin.id]],
    }  # fmt: skip
    json.dumps(told)
    for again in (
        store.similarity_search_by_vector([1.0] * 64, include_provenance=True),
        store.max_marginal_relevance_search("rain", include_provenance=True),
        await store.amax_marginal_relevance_search("rain", mode="hybrid", include_provenance=True),
        await store.asimilarity_search("rain", mode="text", include_provenance=True),
    ):
        assert again[0].metadata["koru_delta"] == told
    assert store.similarity_search("rain") == [
        Document(page_content="rain", metadata={"n": 1}, id="a")
    ]


def test_what_a_document_has_under_our_key_comes_back_unless_provenance_is_asked_for(
    store: KoruDeltaVectorStore,
) -> None:
    store.add_texts(["rain"], [{"koru_delta": "mine"}])
    assert store.similarity_search("rain")[0].metadata == {"koru_delta": "mine"}
    asked = store.similarity_search("rain", include_provenance=True)[0]
    assert set(asked.metadata["koru_delta"]) > {"version", "causes"}


def test_an_explanation_adds_up_to_the_score(store: KoruDeltaVectorStore) -> None:
    fill(store)
    for mode in ("vector", "hybrid", "text"):
        for document, score in store.similarity_search_with_score(
            "pump E-4012", mode=mode, explain=True
        ):
            told = document.metadata["koru_delta"]["explanation"]
            assert sum(part["contribution"] for part in told["parts"]) == pytest.approx(score)
            json.dumps(told)
    [first, *_] = store.as_retriever(search_type="explained").invoke("pump")
    assert set(first.metadata["koru_delta"]) > {"version", "explanation"}


def test_a_retriever_names_its_kinds(store: KoruDeltaVectorStore) -> None:
    fill(store)
    assert ids(store.as_retriever(search_type="text", k=1).invoke("tea")) == ["c"]
    hybrid = store.as_retriever(search_type="hybrid", search_kwargs={"filter": {"kind": "log"}})
    assert isinstance(hybrid, KoruDeltaRetriever)
    assert set(ids(hybrid.invoke("pump"))) == {"a", "d"}
    assert ids(store.search("tea", "text", k=3)) == ["c"]
    with pytest.raises(QueryError, match="needs half_life"):
        store.search("tea", "time_decayed")
