"""Keys, documents, index structures: as the framework's own stores, at any moment."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llama_index.core.data_structs import IndexDict, IndexList
from llama_index.core.schema import Document, MediaResource, NodeRelationship, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.storage.kvstore import SimpleKVStore

import koru_delta
from koru_delta.testing import FixedClock
from koru_delta_llamaindex import (
    KoruDeltaAsyncChatStore,
    KoruDeltaChatStore,
    KoruDeltaDocumentStore,
    KoruDeltaIndexStore,
    KoruDeltaKVStore,
    KoruDeltaVectorStore,
)


@pytest.fixture
def kv(db: koru_delta.Database) -> KoruDeltaKVStore:
    return KoruDeltaKVStore(db)


@pytest.fixture
def docs(db: koru_delta.Database) -> KoruDeltaDocumentStore:
    return KoruDeltaDocumentStore(db)


# Keys

NAMES = st.one_of(st.sampled_from(["a", "b", "", "\0", "x" * 3000, "id-sha256:a"]), st.text())
VALUES: Any = st.dictionaries(
    st.text(max_size=3),
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
        max_leaves=5,
    ),
    max_size=3,
)
STEPS = st.one_of(
    st.tuples(st.just("put"), NAMES, VALUES),
    st.tuples(st.just("put_all"), st.lists(st.tuples(NAMES, VALUES), max_size=4)),
    st.tuples(st.just("delete"), NAMES),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=st.lists(st.tuples(NAMES, STEPS), max_size=8))
def test_it_does_what_the_framework_s_own_store_does_at_every_moment(
    kv: KoruDeltaKVStore, steps: list[tuple[str, Any]]
) -> None:
    for collection in {collection for collection, _ in steps}:
        for key in kv.get_all(collection):
            kv.delete(key, collection)
    theirs = SimpleKVStore()
    moments: list[tuple[int, dict[str, Any]]] = []
    for collection, (verb, *arguments) in steps:
        more = {"batch_size": 1} if verb == "put_all" else {}
        got = getattr(kv, verb)(*arguments, collection=collection, **more)
        assert got == getattr(theirs, verb)(*arguments, collection=collection, **more)
        state = {name: theirs.get_all(name) for name, _ in steps}
        moments.append((kv.database.as_of(None).seq, copy.deepcopy(state)))

    for seq, state in moments:
        past = kv.as_of(seq)
        for collection, values in state.items():
            assert repr(past.get_all(collection)) == repr(
                {key: values[key] for key in past.get_all(collection)}
            )
            assert past.get_all(collection).keys() == values.keys()
            for key, value in values.items():
                assert past.get(key, collection) == value


def test_a_batch_is_one_commit_whatever_its_size_and_the_last_of_a_key_wins(
    kv: KoruDeltaKVStore,
) -> None:
    kv.put_all([("a", {"n": 1}), ("b", {}), ("a", {"n": 2})], batch_size=1)

    assert len(kv.database.commits()) == 1
    assert kv.get_all() == {"a": {"n": 2}, "b": {}}
    with pytest.raises(koru_delta.errors.InvalidDataError, match="bad"):
        kv.put_all([("c", {}), ("d", {"bad": {1, 2}})])
    assert kv.get("c") is None


def test_what_is_got_is_the_caller_s_own(kv: KoruDeltaKVStore) -> None:
    given = {"list": [1]}
    kv.put("a", given)
    given["list"].append(2)
    (kv.get("a") or {})["list"].append(3)

    assert kv.get("a") == {"list": [1]}


def test_a_value_is_gone_when_its_time_has_come(db: koru_delta.Database, clock: FixedClock) -> None:
    cache = KoruDeltaKVStore(db, ttl=60)
    cache.put("a", {"n": 1})
    clock.advance(seconds=61)

    assert cache.get("a") is None
    assert cache.get_all() == {}
    assert not cache.delete("a")


def test_what_is_done_together_is_one_commit_or_none(kv: KoruDeltaKVStore) -> None:
    def work(fail: bool) -> None:
        kv.put("a", {"n": 1})
        assert kv.get("a") == {"n": 1}
        kv.put("b", {"n": 2}, "other")
        assert kv.get_all("other") == {"b": {"n": 2}}
        assert kv.delete("a")
        assert not kv.delete("a")
        assert kv.get("a") is None
        if fail:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        kv.atomically(work, True)
    assert kv.database.commits() == []
    kv.atomically(work, False)
    assert len(kv.database.commits()) == 1
    assert (kv.get_all(), kv.get_all("other")) == ({}, {"b": {"n": 2}})


def test_two_who_add_to_one_value_lose_nothing(kv: KoruDeltaKVStore) -> None:
    def count() -> None:
        found = kv.get("count") or {"n": 0}
        kv.put("count", {"n": found["n"] + 1})

    def work() -> None:
        for _ in range(25):
            kv.atomically(count)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert kv.get("count") == {"n": 100}


async def test_writes_that_are_awaited_together_keep_their_order(kv: KoruDeltaKVStore) -> None:
    await asyncio.gather(*(kv.aput("a", {"n": n}) for n in range(50)))

    assert await kv.aget("a") == {"n": 49}
    past = [version.value for version in kv.database.history("llamaindex/kv/data", "a")]
    assert past == [{"value": {"n": n}} for n in range(50)]
    large = [(str(n), {"n": n}) for n in range(3000)]
    await asyncio.gather(kv.aput_all([("a", {"slow": 1}), *large]), kv.aput("a", {"n": 49}))
    assert await kv.aget("a") == {"n": 49}
    assert await asyncio.gather(*(kv.adelete(key) for key, _ in large[:3])) == [True] * 3
    kv.atomically(lambda: [kv.delete(key) for key, _ in large[3:]])
    await kv.aput_all([("b", {}), ("c", {})])
    assert await kv.aget_all() == {"a": {"n": 49}, "b": {}, "c": {}}
    assert await kv.adelete("b")
    assert not await kv.adelete("b")


def test_a_store_of_keys_reopens_when_unpickled_and_shares_when_copied(tmp_path: Path) -> None:
    kv = KoruDeltaKVStore(path=tmp_path / "db", namespace="mine")
    kv.put("a", {"n": 1})
    past = kv.as_of(kv.database.commits()[-1])
    for other in (pickle.loads(pickle.dumps(kv)), copy.copy(kv), copy.deepcopy(kv)):
        other.put("a", {"n": 2})
        assert kv.get("a") == {"n": 2}
        other.close()
    old = pickle.loads(pickle.dumps(past))
    assert old.get("a") == past.get("a") == {"n": 1}
    with pytest.raises(koru_delta.errors.ReadOnlyError):
        old.put("a", {})
    old.close()
    kv.close()
    with pytest.raises(koru_delta.errors.NotPicklableError), _closing(KoruDeltaKVStore()) as memory:
        pickle.dumps(memory)


class _closing:  # noqa: N801 - as contextlib names it
    def __init__(self, store: Any) -> None:
        self.store = store

    def __enter__(self) -> Any:
        return self.store

    def __exit__(self, *_error: object) -> None:
        self.store.close()


# Documents


def chunk(name: str, source: Document, text: str = "") -> TextNode:
    related = {NodeRelationship.SOURCE: source.as_related_node_info()}
    return TextNode(id_=name, text=text or name, relationships=related)


def state(store: SimpleDocumentStore | KoruDeltaDocumentStore) -> Any:
    """Everything a document store tells, in an order of its own."""
    infos = store.get_all_ref_doc_info() or {}
    return (
        dict(sorted(store.docs.items())),
        {name: (info.node_ids, info.metadata) for name, info in sorted(infos.items())},
        dict(sorted(store.get_all_document_hashes().items())),
    )


def test_it_keeps_documents_as_the_framework_s_own_store_does(
    docs: KoruDeltaDocumentStore,
) -> None:
    theirs = SimpleDocumentStore()
    book = Document(id_="book", text="a book", metadata={"z": 1, "a": 2})
    film = Document(id_="film", text="a film")
    steps: list[tuple[str, Any]] = [
        ("add_documents", ([book, film],)),
        ("add_documents", ([chunk("one", book), chunk("two", book), chunk("three", film)],)),
        ("add_documents", ([chunk("four", book)],)),
        ("add_documents", ([chunk("one", book, "changed")],)),
        ("set_document_hash", ("book", "hash")),
        ("set_document_hashes", ({"film": "other", "new": "more"},)),
        ("delete_document", ("two",)),
        ("delete_document", ("three",)),  # the last of its document
        ("delete_ref_doc", ("book",)),
    ]
    for verb, arguments in steps:
        getattr(docs, verb)(*arguments)
        getattr(theirs, verb)(*arguments)
        assert state(docs) == state(theirs), verb
    for verb in ("delete_document", "delete_ref_doc", "get_document", "get_node"):
        with pytest.raises(ValueError, match=r"gone"):
            getattr(docs, verb)("gone")
    docs.add_documents([Document(id_="twice")])
    with pytest.raises(ValueError, match="exists"):
        docs.add_documents([Document(id_="twice")], allow_update=False)


def test_one_call_is_one_commit(docs: KoruDeltaDocumentStore) -> None:
    book = Document(id_="book", text="a book")
    docs.add_documents([book, *(chunk(str(n), book) for n in range(10))])
    assert len(docs.database.commits()) == 1
    docs.delete_document("3")
    assert len(docs.database.commits()) == 2
    docs.delete_ref_doc("book")
    assert len(docs.database.commits()) == 3
    assert state(docs)[1] == {}


def test_media_and_the_order_of_metadata_come_back(docs: KoruDeltaDocumentStore) -> None:
    given = Document(
        image_resource=MediaResource(data=b"\x00raw", mimetype="image/png"),
        text_resource=MediaResource(text="a picture", url="https://example.org/"),  # type: ignore[arg-type]
        metadata={"b": 1, "a": {"d": 1, "c": 2}},
        embedding=[0.1, 0.2],
    )
    docs.add_documents([given])

    got = docs.get_document(given.node_id)

    assert got == given
    assert got is not None
    assert got.hash == given.hash


def test_old_versions_of_a_document_stay_readable(docs: KoruDeltaDocumentStore) -> None:
    docs.add_documents([Document(id_="a", text="old")])
    then = docs.database.commits()[-1]
    docs.add_documents([Document(id_="a", text="new"), Document(id_="b", text="more")])
    docs.delete_document("a")

    past = docs.as_of(then)
    assert [each.get_content() for each in past.docs.values()] == ["old"]
    assert list(docs.docs) == ["b"]
    with pytest.raises(koru_delta.errors.ReadOnlyError):
        past.add_documents([])


def test_threads_that_add_to_one_document_lose_none_of_its_nodes(
    docs: KoruDeltaDocumentStore,
) -> None:
    book = Document(id_="book", text="a book")

    def work(number: int) -> None:
        own = KoruDeltaDocumentStore(docs.database)
        for n in range(10):
            own.add_documents([chunk(f"{number}-{n}", book)])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    info = docs.get_ref_doc_info("book")
    assert info is not None
    assert (
        sorted(info.node_ids)
        == sorted(docs.docs)
        == sorted(f"{number}-{n}" for number in range(4) for n in range(10))
    )


async def test_what_is_awaited_does_the_same(
    docs: KoruDeltaDocumentStore, db: koru_delta.Database
) -> None:
    other = KoruDeltaDocumentStore(db, namespace="other")
    book = Document(id_="book", text="a book")
    nodes = [book, chunk("one", book), chunk("two", book)]
    docs.add_documents(nodes)
    await other.async_add_documents(nodes)
    assert state(docs) == state(other)
    assert await other.aget_nodes(["two", "one"]) == [nodes[2], nodes[1]]
    assert await other.aget_nodes(["no"], raise_error=False) == []
    assert await other.aget_document("no", raise_error=False) is None
    docs.delete_document("one")
    await other.adelete_document("one")
    assert state(docs) == state(other)
    docs.delete_ref_doc("book")
    await other.adelete_ref_doc("book")
    assert state(docs) == state(other) == ({}, {}, {})


# Index structures


async def test_index_structures_come_back_and_stay_readable(db: koru_delta.Database) -> None:
    store = KoruDeltaIndexStore(db)
    one = IndexDict(index_id="one", summary="s", nodes_dict={"b": "x", "a": "y"})
    store.add_index_struct(one)
    then = db.commits()[-1]
    await store.async_add_index_struct(IndexList(index_id="two", nodes=["n"]))

    assert store.get_index_struct("one") == one
    assert await store.aget_index_struct("one") == one
    assert [each.index_id for each in store.index_structs()] == ["one", "two"]
    assert store.as_of(then).get_index_struct() == one
    store.delete_index_struct("one")
    await store.adelete_index_struct("two")
    assert await store.async_index_structs() == []
    assert store.get_index_struct("one") is None


# What every store can do


@pytest.mark.parametrize(
    "kind",
    [
        KoruDeltaAsyncChatStore, KoruDeltaChatStore, KoruDeltaDocumentStore, KoruDeltaIndexStore,
        KoruDeltaKVStore, KoruDeltaVectorStore,
    ],
)  # fmt: skip
async def test_every_store_closes_what_it_opened_shows_the_past_is_copied_and_sent(
    kind: Any, tmp_path: Path
) -> None:
    with kind(path=tmp_path / "db", namespace="mine") as store:
        store.database.put("n", "a", 1)
        copied, deep, past = copy.copy(store), copy.deepcopy(store), await store.aas_of(1)
        for each in (copied, deep, past):
            assert type(each) is kind
            assert each.database is store.database
            each.close()
        assert repr(store) == f"<{kind.__name__} 'mine' of {store.database!r}>"
        assert repr(past) == f"<{kind.__name__} 'mine' at 1 of {store.database!r}>"
        with pytest.raises(koru_delta.errors.QueryError, match="one moment already"):
            past.as_of(1)
        sent, sent_past = pickle.dumps(store), pickle.dumps(past)
    with pytest.raises(koru_delta.errors.DatabaseClosedError):
        store.database.get("n", "a")

    async with pickle.loads(sent) as again:
        assert again.database.get("n", "a") == 1
        assert repr(again).startswith(f"<{kind.__name__} 'mine' of")
    with pickle.loads(sent_past) as again:
        assert repr(again).startswith(f"<{kind.__name__} 'mine' at 1 of")
