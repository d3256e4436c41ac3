"""What people should not do, and do: every error says so, and nothing is lost or made up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import index
from langchain_core.messages import HumanMessage
from langchain_core.outputs import Generation

import koru_delta
from koru_delta.errors import EmbedderError, InvalidDataError, KoruDeltaError, QueryError
from koru_delta.testing import HashEmbedder
from koru_delta_langchain import (
    Drift,
    KoruDeltaByteStore,
    KoruDeltaCache,
    KoruDeltaChatMessageHistory,
    KoruDeltaDocumentIndex,
    KoruDeltaRecordManager,
    KoruDeltaSemanticCache,
    KoruDeltaVectorStore,
)

ODD_IDS = [
    "", " ", "a/b", "a\0b", "\n", "é", "e\u0301", "x" * 100_000, "id-sha256:abc", "%2F", "#", "=",
    "..", "\u202e", "😀",
]  # fmt: skip
NOT_LISTS = [None, 5, "abc", 1.5, True, object()]


class Made(Embeddings):
    """Returns what it is told to."""

    def __init__(self, vectors: Callable[[list[str]], Any]) -> None:
        self.vectors = vectors

    def embed_documents(self, texts: list[str]) -> Any:
        return self.vectors(texts)

    def embed_query(self, text: str) -> Any:
        found = self.vectors([text])
        return found[0] if found else None


def nested(depth: int, key: str = "a") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {key: found}
    return found


def circular() -> dict[str, Any]:
    found: dict[str, Any] = {}
    found["itself"] = found
    return found


@pytest.fixture
def store(db: koru_delta.Database) -> KoruDeltaVectorStore:
    return KoruDeltaVectorStore(database=db)


# Opening


def makers(db: koru_delta.Database) -> dict[str, Callable[..., Any]]:
    return {
        "vectors": lambda **more: KoruDeltaVectorStore(HashEmbedder(), **more),
        "bytes": KoruDeltaByteStore,
        "cache": KoruDeltaCache,
        "semantic": lambda **more: KoruDeltaSemanticCache(HashEmbedder(), **more),
        "chats": lambda **more: KoruDeltaChatMessageHistory("s", **more),
    }


@pytest.mark.parametrize("what", ["vectors", "bytes", "cache", "semantic", "chats"])
def test_what_is_no_database_or_no_namespace_is_refused_when_a_store_is_made(
    db: koru_delta.Database, what: str, tmp_path: Path
) -> None:
    make = makers(db)[what]
    for no_database in ("a/path", 5, object(), koru_delta.AsyncDatabase):
        with pytest.raises(InvalidDataError, match="path="):
            make(database=no_database)
    for namespace in (None, 5, "", "a\0b", "$own", "x" * 300, "\ud800"):
        with pytest.raises(InvalidDataError, match="namespace"):
            make(database=db, namespace=namespace)
        with pytest.raises(InvalidDataError, match="namespace"):
            make(path=tmp_path / "db", namespace=namespace)
    koru_delta.open(tmp_path / "db").close()  # which those above had closed again
    assert db.stats()["seq"] == 0


def test_arguments_of_constructors_are_checked(db: koru_delta.Database) -> None:
    for metric in (None, [], "cos", {"a": 1}):
        with pytest.raises(QueryError, match="metric"):
            KoruDeltaVectorStore(database=db, metric=metric)  # type: ignore[arg-type]
    for threshold in (None, "0.9", [], 2, float("nan")):
        with pytest.raises(QueryError, match="threshold"):
            KoruDeltaSemanticCache(database=db, threshold=threshold)  # type: ignore[arg-type]
    for session in (None, 5, True, {"$ne": ""}, ["a"]):
        with pytest.raises(InvalidDataError, match="session_id"):
            KoruDeltaChatMessageHistory(session, database=db)  # type: ignore[arg-type]
    for namespace in (None, 5):
        with pytest.raises(InvalidDataError, match="namespace"):
            KoruDeltaRecordManager(namespace, database=db)  # type: ignore[arg-type]
    with pytest.raises(InvalidDataError, match="KoruDeltaVectorStore"):
        KoruDeltaRecordManager("site", store=db)  # type: ignore[arg-type]
    with pytest.raises(InvalidDataError, match="allowed_objects"):
        KoruDeltaCache(database=db, allowed_objects=None)  # type: ignore[arg-type]


def test_a_session_that_is_a_filter_reads_no_other_session(db: koru_delta.Database) -> None:
    KoruDeltaChatMessageHistory("ada", database=db).add_user_message("a secret")

    with pytest.raises(InvalidDataError):
        KoruDeltaChatMessageHistory({"$ne": ""}, database=db)  # type: ignore[arg-type]
    for session in ('{"$ne": ""}', "$ne", ""):
        assert KoruDeltaChatMessageHistory(session, database=db).messages == []


# Arguments


@pytest.mark.parametrize("given", NOT_LISTS, ids=repr)
def test_what_is_no_list_is_refused_by_name(store: KoruDeltaVectorStore, given: Any) -> None:
    keys = KoruDeltaByteStore(database=store.database)
    records = KoruDeltaRecordManager("site", database=store.database)
    history = KoruDeltaChatMessageHistory("s", database=store.database)
    cache = KoruDeltaCache(database=store.database)
    calls: list[Callable[[], Any]] = [
        lambda: store.add_texts(given),
        lambda: store.add_documents(given),
        lambda: store.get_by_ids(given),
        lambda: keys.mget(given),
        lambda: keys.mset(given),
        lambda: keys.mdelete(given),
        lambda: records.update(given),
        lambda: records.exists(given),
        lambda: records.delete_keys(given),
        lambda: history.add_messages(given),
        lambda: cache.update("prompt", "model", given),
    ]
    if given is not None:
        calls += [
            lambda: store.delete(given),
            lambda: store.add_texts(["a"], given),
            lambda: store.add_texts(["a"], ids=given),
            lambda: records.update(["a", "b", "c"], group_ids=given),
            lambda: records.list_keys(group_ids=given),
        ]
    for call in calls:
        with pytest.raises(InvalidDataError):
            call()
    assert store.database.stats()["seq"] == 0


@pytest.mark.parametrize("given", [None, 5, "abc", {"a": 1}, ["a"], object()], ids=repr)
def test_what_is_in_a_list_is_checked(store: KoruDeltaVectorStore, given: Any) -> None:
    db = store.database
    calls: list[Callable[[], Any]] = [
        lambda: store.add_documents([Document(page_content="fine"), given]),
        lambda: KoruDeltaDocumentIndex(store=store).upsert([given]),
        lambda: KoruDeltaByteStore(database=db).mset([("fine", b"x"), given]),
        lambda: KoruDeltaChatMessageHistory("s", database=db).add_messages([given]),
        lambda: KoruDeltaCache(database=db).update("prompt", "model", [given]),
    ]
    for call in calls:
        with pytest.raises(InvalidDataError):
            call()
    assert db.stats()["seq"] == 0


@pytest.mark.parametrize("mode", ["vector", "hybrid", "text"])
def test_numbers_and_options_of_searches_are_checked(
    store: KoruDeltaVectorStore, mode: Any
) -> None:
    store.add_texts(["rain", "sun"], [{"a": 1}, {"a": 2}])
    for k in (None, -1, True, 1.5, "3", [2]):
        with pytest.raises(QueryError):
            store.similarity_search("rain", k=k, mode=mode)  # type: ignore[arg-type]
        with pytest.raises(QueryError):
            store.max_marginal_relevance_search("rain", k=k, mode=mode)  # type: ignore[arg-type]
    assert store.similarity_search("rain", k=0, mode=mode) == []
    assert len(store.similarity_search("rain sun", k=2**62, mode=mode)) == 2
    for name, values in {
        "fetch_k": (None, "3", 1.5, []),
        "lambda_mult": (None, "1", [], 2, float("nan")),
    }.items():
        for value in values:
            with pytest.raises(QueryError):
                store.max_marginal_relevance_search("rain", mode=mode, **{name: value})
    for group in (5, ["a"], object(), True):
        with pytest.raises(QueryError, match="group_by"):
            store.similarity_search("rain", group_by=group, mode=mode)
    for where in (
        {"$where": "1"}, {"a": {"$regex": "("}}, {"$and": 5}, {"a": {"$gt": []}}, "a = 1", [1], 5,
        nested(1000), nested(1000, "$not"), circular(), {"a": {"$in": "abc"}}, {1: 2},
    ):  # fmt: skip
        with pytest.raises(QueryError):
            store.similarity_search("rain", filter=where, mode=mode)
    for code in ("'; DROP TABLE versions; --", "__import__('os').system('x')", "{{7*7}}", "$a"):
        assert store.similarity_search("rain", filter={"a": code}, mode=mode) == []
        assert store.get_by_ids([code]) == []
    assert len(store.similarity_search("rain sun", mode=mode)) == 2


def test_a_search_without_a_vector_says_so(store: KoruDeltaVectorStore) -> None:
    store.add_texts(["rain"])
    for call in (
        lambda: store.similarity_search_by_vector(None),  # type: ignore[arg-type]
        lambda: store.max_marginal_relevance_search_by_vector(None),  # type: ignore[arg-type]
        lambda: KoruDeltaVectorStore(
            Made(lambda _: []), database=store.database, model="m"
        ).similarity_search("rain", mode="hybrid"),
    ):
        with pytest.raises(QueryError, match="needs a vector"):
            call()


# Data


def test_any_id_is_its_own_everywhere(store: KoruDeltaVectorStore) -> None:
    texts = [f"text {n}" for n in range(len(ODD_IDS))]
    db = store.database
    assert store.add_texts(iter(texts), iter({"n": n} for n in range(15)), ids=iter(ODD_IDS)) == (
        ODD_IDS
    )
    keys = KoruDeltaByteStore(database=db)
    keys.mset((name, name.encode()) for name in ODD_IDS)
    for name in ODD_IDS:
        KoruDeltaChatMessageHistory(name, database=db).add_user_message(name[:5])

    assert [document.id for document in store.get_by_ids(ODD_IDS)] == ODD_IDS
    assert [document.page_content for document in store.get_by_ids(ODD_IDS)] == texts
    assert {document.id for document in store.similarity_search("text", k=99)} == {*ODD_IDS}
    assert keys.mget(ODD_IDS) == [name.encode() for name in ODD_IDS]
    for prefix in [*ODD_IDS, "id-sha256:", "x"]:
        assert sorted(keys.yield_keys(prefix=prefix)) == sorted(
            name for name in ODD_IDS if name.startswith(prefix)
        )
    for name in ODD_IDS:
        (message,) = KoruDeltaChatMessageHistory(name, database=db).messages
        assert message.content == name[:5]
    store.delete(ODD_IDS)
    assert store.similarity_search("text", k=99) == []


@pytest.mark.parametrize(
    "metadata",
    [
        {"$a": 1}, {".": 1}, {"a.b": 1}, {"_id": 1}, {"": None},
        {"id": 1, "text": 2, "metadata": 3, "koru_delta": 4, "session": 5, "group_id": 6},
        {"n": 2**63 - 1}, {"n": -(2**63)}, {"x": 1e308}, {"x": -0.0}, {"x": 1.0},
        {"deep": [[[{"a": [None, True]}]]]},
    ],
    ids=repr,
)  # fmt: skip
def test_metadata_of_any_json_comes_back_and_is_filtered_by(
    store: KoruDeltaVectorStore, metadata: dict[str, Any]
) -> None:
    store.add_texts(["other", "rain"], [{}, metadata], ids=["other", "odd"])

    (found,) = store.get_by_ids(["odd"])
    assert repr(found.metadata) == repr(dict(sorted(metadata.items())))
    for name, value in metadata.items():
        (hit,) = store.similarity_search("rain", k=9, filter={(name,): value})
        assert hit.id == "odd"


@pytest.mark.parametrize(
    "value",
    [
        2**63, float("nan"), float("inf"), b"x", np.float32(1), np.int64(1), {1: 2}, (1, 2), {1},
        object(), "\ud800", nested(300), circular(),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_no_json_is_refused_with_the_whole_batch(
    store: KoruDeltaVectorStore, value: Any
) -> None:
    with pytest.raises(InvalidDataError):
        store.add_texts(["fine", "odd"], [{}, {"a": value}], ids=["fine", "odd"])
    assert store.get_by_ids(["fine", "odd"]) == []


@pytest.mark.parametrize(
    ("vectors", "error"),
    [
        (lambda texts: [[1.0, 2.0]] * (len(texts) - 1), EmbedderError),
        (lambda texts: [[1.0, 2.0]] * (len(texts) + 1), EmbedderError),
        (lambda _: None, EmbedderError),
        (lambda texts: [None for _ in texts], KoruDeltaError),
        (lambda texts: [[] for _ in texts], KoruDeltaError),
        (lambda texts: [["a", "b"] for _ in texts], KoruDeltaError),
        (lambda texts: [[float("nan"), 1.0] for _ in texts], KoruDeltaError),
        (lambda texts: [[1e300, 1.0] for _ in texts], KoruDeltaError),
        (lambda texts: [[0.0, 0.0] for _ in texts], KoruDeltaError),
        (lambda texts: [[[1.0]] for _ in texts], KoruDeltaError),
        (lambda texts: [[1.0] * (n + 1) for n in range(len(texts))], KoruDeltaError),
    ],
)
async def test_an_embedding_that_returns_nonsense_adds_nothing(
    vectors: Callable[[list[str]], Any], error: type[Exception], db: koru_delta.Database
) -> None:
    store = KoruDeltaVectorStore(Made(vectors), database=db)
    with pytest.raises(error):
        store.add_texts(["a", "b"])
    with pytest.raises(error):
        await store.aadd_texts(["a", "b"])
    assert db.list_keys("langchain") == []


# Caches


@pytest.mark.parametrize("prompt", ["[" * 100_000, '[{"kwargs":' * 500, "\ud800", "\0", " "])
async def test_a_cache_takes_any_prompt(prompt: str, db: koru_delta.Database) -> None:
    for cache in (
        KoruDeltaCache(database=db),
        KoruDeltaSemanticCache(HashEmbedder(), database=db),
    ):
        assert cache.lookup(prompt, "model") is None
        cache.update(prompt, "model", [Generation(text="yes")])
        assert cache.lookup(prompt, "model") == [Generation(text="yes")]
        assert await cache.alookup(prompt, "model") == [Generation(text="yes")]
        for no_prompt in (None, 5, ["a"]):
            with pytest.raises(InvalidDataError, match="prompt"):
                cache.lookup(no_prompt, "model")  # type: ignore[arg-type]
            with pytest.raises(InvalidDataError, match="names a model"):
                cache.update("prompt", no_prompt, [])  # type: ignore[arg-type]


def test_an_answer_that_cannot_be_kept_is_logged_and_fails_nobody(
    db: koru_delta.Database, caplog: pytest.LogCaptureFixture
) -> None:
    cache = KoruDeltaCache(database=db)
    for odd in (nested(3000), circular(), float("nan"), object()):
        with caplog.at_level(logging.WARNING):
            cache.update("prompt", "model", [Generation(text="a", generation_info={"a": odd})])
        assert "is not cached" in caplog.text
        assert cache.lookup("prompt", "model") is None
    history = KoruDeltaChatMessageHistory("s", database=db)
    for odd in (nested(3000), circular()):
        with pytest.raises(InvalidDataError):
            history.add_messages([HumanMessage("a", additional_kwargs={"a": odd})])
    assert history.messages == []


def test_a_prompt_that_is_like_nothing_is_cached_by_itself_alone(db: koru_delta.Database) -> None:
    cache = KoruDeltaSemanticCache(Made(lambda texts: [[0.0, 0.0] for _ in texts]), database=db)
    cache.update("rain?", "model", [Generation(text="yes")])

    assert cache.lookup("rain?", "model") == [Generation(text="yes")]
    assert cache.lookup("sun?", "model") is None
    with pytest.raises(EmbedderError, match="no vector"):
        KoruDeltaSemanticCache(Made(lambda _: None), database=db).lookup("wind?", "model")


# Values of others


def test_values_of_another_store_are_refused_by_name(db: koru_delta.Database) -> None:
    db.put_many([("n", "a", 5), ("n", "b", [1]), ("n", "c", {"id": 5, "session": "s"})])
    readings: list[Callable[[], Any]] = [
        lambda: KoruDeltaVectorStore(database=db, namespace="n").get_by_ids(["a"]),
        lambda: KoruDeltaByteStore(database=db, namespace="n").mget(["c"]),
        lambda: KoruDeltaByteStore(database=db, namespace="n").mget(["a"]),
        lambda: KoruDeltaChatMessageHistory("s", database=db, namespace="n").messages,
        lambda: KoruDeltaRecordManager(
            "site", store=KoruDeltaVectorStore(database=db, namespace="n")
        ).verify(),
    ]
    for reading in readings:
        with pytest.raises(InvalidDataError, match="keep other values in another namespace"):
            reading()


# Records


@pytest.fixture
def records(store: KoruDeltaVectorStore) -> KoruDeltaRecordManager:
    return KoruDeltaRecordManager("site", store=store, source_id_key="page")


def test_what_is_deleted_while_it_is_indexed_gets_no_record(
    store: KoruDeltaVectorStore, records: KoruDeltaRecordManager
) -> None:
    page = [Document(page_content="rain", metadata={"page": "today"})]

    class Deleting(KoruDeltaRecordManager):
        def update(self, keys: Any, **more: Any) -> None:
            store.delete(keys)  # somebody else, between the two steps of `index`
            super().update(keys, **more)

    records.__class__ = Deleting
    index(page, records, store, cleanup=None, source_id_key="page", key_encoder="sha256")

    assert records.list_keys() == []
    assert records.verify() == Drift()
    records.update(["never", "was"], group_ids=["a", "b"])
    assert records.list_keys() == []


def test_a_record_waits_for_whoever_deletes_its_document_meanwhile(
    store: KoruDeltaVectorStore, records: KoruDeltaRecordManager
) -> None:
    names = [f"d{n}" for n in range(20)]
    stop = threading.Event()

    def churn() -> Iterator[None]:
        while not stop.is_set():
            store.add_texts(names, [{"page": "p"}] * 20, ids=names)
            store.delete(names)
            yield

    thread = threading.Thread(target=lambda: [*churn()])
    thread.start()
    try:
        for _ in range(60):
            records.update(names, group_ids=["p"] * 20)
    finally:
        stop.set()
        thread.join()
    db = store.database
    for commit in db.commits():
        held = db.list_keys("langchain.records/site", as_of=commit)
        assert db.list_keys("langchain", as_of=commit) == held


def test_a_document_without_its_source_is_recorded_as_it_is(
    store: KoruDeltaVectorStore, records: KoruDeltaRecordManager
) -> None:
    store.add_texts(["rain"], [{"other": "page"}], ids=["a"])
    store.database.embed("langchain", "b", "sun", {"text": "sun", "metadata": {}})

    assert records.verify(mend=True) == Drift(unrecorded=("b",))
    assert records.verify() == Drift()
    assert sorted(records.list_keys()) == ["a", "b"]
    assert records.list_keys(group_ids=["page"]) == []
