"""`KoruDeltaByteStore`: bytes exactly, and what LangChain builds on it."""

from __future__ import annotations

import types
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.retrievers import MultiVectorRetriever, ParentDocumentRetriever
from langchain_classic.storage import create_kv_docstore
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_text_splitters import CharacterTextSplitter

import koru_delta
from koru_delta.errors import InvalidDataError, ReadOnlyError
from koru_delta.testing import HashEmbedder
from koru_delta_langchain import KoruDeltaByteStore, KoruDeltaVectorStore

ODD = ["", "\0", "a" * 2000, "id-sha256:", "é" * 600, "a\0b"]


@pytest.fixture
def store(db: koru_delta.Database) -> KoruDeltaByteStore:
    return KoruDeltaByteStore(database=db)


class Counting(Embeddings):
    def __init__(self) -> None:
        self.embed = HashEmbedder()
        self.texts: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.texts += texts
        return self.embed(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


@given(st.binary(max_size=200))
def test_bytes_come_back_exactly(data: bytes) -> None:
    with KoruDeltaByteStore() as store:
        store.mset([("k", data)])
        assert store.mget(["k"]) == [data]


def test_every_byte_and_text_in_every_script_comes_back(store: KoruDeltaByteStore) -> None:
    values = [bytes(range(256)), "日本語 🙂 e\u0301".encode(), b"\xed\xa0\x80", b"", b"\0", b"{}"]
    store.mset([(str(n), value) for n, value in enumerate(values)])
    assert store.mget([str(n) for n in range(len(values))]) == values
    assert store.database.get("langchain.bytes", "1") == {"text": "日本語 🙂 e\u0301"}


def test_what_is_no_bytes_or_no_key_is_refused_whole(store: KoruDeltaByteStore) -> None:
    for pairs in ([("a", b"x"), ("b", "text")], [("a", b"x"), (1, b"x")]):
        with pytest.raises(InvalidDataError):
            store.mset(pairs)  # type: ignore[arg-type]
    assert list(store.yield_keys()) == []


def test_a_batch_is_one_commit_and_the_last_of_equal_keys_wins(store: KoruDeltaByteStore) -> None:
    store.mset([("a", b"1"), ("b", b"2"), ("a", b"3")])
    assert store.mget(["a", "b", "a", "c"]) == [b"3", b"2", b"3", None]
    assert len(store.database.commits()) == 1
    store.mset([])
    store.mdelete([])
    assert len(store.database.commits()) == 1


async def test_keys_are_yielded_as_they_are_taken_from_one_moment(
    store: KoruDeltaByteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koru_delta_langchain.bytestore._PAGE", 3)
    names = [f"k{n:02}" for n in range(10)] + ["other"]
    store.mset([(name, b"") for name in [*names, *ODD]])

    keys = store.yield_keys()
    assert isinstance(keys, types.GeneratorType)
    assert next(keys) == "k00"
    store.mset([("k00x", b"late")])
    assert [*keys] == [*names[1:], *sorted(ODD, key=store_key)]
    assert [*store.yield_keys(prefix="k0")] == ["k00", "k00x", *names[1:10]]
    assert [*store.yield_keys(prefix="a")] == sorted(["a" * 2000, "a\0b"], key=store_key)
    assert [*store.yield_keys(prefix="\0")] == ["\0"]
    assert [*store.yield_keys(prefix="id-sha256:")] == ["id-sha256:"]
    assert [*store.yield_keys(prefix="none")] == []
    for prefix in (None, "k0", "a", "\0", ""):
        taken = [name async for name in store.ayield_keys(prefix=prefix)]
        assert taken == [*store.yield_keys(prefix=prefix)]


def store_key(name: str) -> str:
    from koru_delta_langchain.ids import key_of

    return key_of(name)


async def test_every_moment_can_be_read(store: KoruDeltaByteStore) -> None:
    store.mset([("a", b"1"), ("b", b"2")])
    then = store.database.commits()[-1]
    store.mset([("a", b"new")])
    store.mdelete(["b", "never"])

    assert store.mget(["a", "b"]) == [b"new", None]
    assert store.mget(["a", "b"], as_of=then) == [b"1", b"2"]
    past = store.as_of(then)
    assert past.mget(["a", "b"]) == [b"1", b"2"] == await store.amget(["a", "b"], as_of=then)
    assert [*past.yield_keys()] == ["a", "b"]
    for write in (lambda: past.mset([("c", b"")]), lambda: past.mdelete(["a"])):
        with pytest.raises(ReadOnlyError):
            write()


def test_stores_share_a_database_and_reopen(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path) as db:
        KoruDeltaByteStore(database=db).mset([("a", b"\xff")])
        KoruDeltaByteStore(database=db, namespace="other").mset([("b", b"2")])
    with KoruDeltaByteStore(path=tmp_path) as store:
        assert store.mget(["a", "b"]) == [b"\xff", None]


async def test_it_carries_cached_embeddings(store: KoruDeltaByteStore) -> None:
    model = Counting()
    cached = CacheBackedEmbeddings.from_bytes_store(
        model, store, namespace="words", query_embedding_cache=True, key_encoder="sha256"
    )
    first = cached.embed_documents(["rain", "sun"])
    assert cached.embed_documents(["sun", "rain", "snow"])[:2] == first[::-1]
    assert cached.embed_query("rain") == first[0]
    assert await cached.aembed_documents(["rain"]) == first[:1]
    assert model.texts == ["rain", "sun", "snow"]


async def test_it_carries_parent_documents(
    db: koru_delta.Database, store: KoruDeltaByteStore
) -> None:
    retriever = ParentDocumentRetriever(
        vectorstore=KoruDeltaVectorStore(Counting(), database=db),
        docstore=create_kv_docstore(store),
        child_splitter=CharacterTextSplitter(separator=". ", chunk_size=20, chunk_overlap=0),
    )
    page = Document(page_content="The gate is red. Tea is hot. The pump is loud", metadata={"n": 1})
    retriever.add_documents([page], ids=[str(uuid.UUID(int=1))])
    assert [found.page_content for found in retriever.invoke("tea")] == [page.page_content]
    assert [found.metadata for found in await retriever.ainvoke("pump")] == [{"n": 1}]
    assert len(db.list_keys("langchain")) == 3


def test_it_carries_several_vectors_a_document(
    db: koru_delta.Database, store: KoruDeltaByteStore
) -> None:
    retriever = MultiVectorRetriever(
        vectorstore=KoruDeltaVectorStore(Counting(), database=db), byte_store=store, id_key="of"
    )
    whole = Document(page_content="A long report", metadata={"n": 1})
    retriever.vectorstore.add_texts(["in short", "what it asks"], [{"of": "r"}, {"of": "r"}])
    retriever.docstore.mset([("r", whole)])
    assert retriever.invoke("short") == [whole]
