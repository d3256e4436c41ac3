"""`KoruDeltaRecordManager`: records and documents of one piece."""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.indexing import aindex, index

import koru_delta
from koru_delta.errors import InvalidDataError, ReadOnlyError
from koru_delta.testing import FixedClock, HashEmbedder
from koru_delta_langchain import (
    Drift,
    KoruDeltaDocumentIndex,
    KoruDeltaRecordManager,
    KoruDeltaVectorStore,
)

RECORDS = "langchain.records/site"


def documents(*pairs: tuple[str, str]) -> list[Document]:
    return [Document(page_content=text, metadata={"page": page}) for page, text in pairs]


@pytest.fixture
def store(db: koru_delta.Database) -> KoruDeltaVectorStore:
    return KoruDeltaVectorStore(database=db)


@pytest.fixture
def manager(store: KoruDeltaVectorStore) -> KoruDeltaRecordManager:
    return KoruDeltaRecordManager("site", store=store, source_id_key="page")


def run(manager: Any, store: Any, cleanup: Any, *pairs: tuple[str, str]) -> tuple[int, ...]:
    done = index(
        documents(*pairs), manager, store, cleanup=cleanup, source_id_key="page",
        key_encoder="sha256", batch_size=2,
    )  # fmt: skip
    return tuple(done[f"num_{what}"] for what in ("added", "updated", "skipped", "deleted"))


def agree_at_every_commit(db: koru_delta.Database) -> bool:
    """Whether no moment there ever was has a document without its record, or the reverse."""
    return all(
        db.list_keys("langchain", as_of=commit) == db.list_keys(RECORDS, as_of=commit)
        for commit in db.commits()
    )


@pytest.mark.parametrize("cleanup", [None, "incremental", "scoped_full", "full"])
def test_no_moment_has_a_document_without_its_record(
    store: KoruDeltaVectorStore, manager: KoruDeltaRecordManager, cleanup: Any, clock: FixedClock
) -> None:
    assert run(manager, store, cleanup, ("a", "a1"), ("a", "a2"), ("b", "b1")) == (3, 0, 0, 0)
    clock.advance(seconds=1)
    assert run(manager, store, cleanup, ("a", "a1"), ("a", "a2"), ("b", "b1")) == (0, 0, 3, 0)
    clock.advance(seconds=1)
    run(manager, store, cleanup, ("a", "a1"), ("a", "a3"), ("c", "c1"))

    assert agree_at_every_commit(store.database)
    assert not manager.verify()
    texts = {d.page_content for d in store.similarity_search("a", k=9)}
    assert texts >= {"a1", "a3", "c1"}
    assert ("a2" in texts) == (cleanup is None)
    assert ("b1" in texts) == (cleanup != "full")


async def test_aindex_and_a_document_index_are_of_one_piece_too(
    store: KoruDeltaVectorStore, manager: KoruDeltaRecordManager, clock: FixedClock
) -> None:
    target = KoruDeltaDocumentIndex(store=store)
    write = partial(
        aindex, record_manager=manager, vector_store=target, cleanup="full", key_encoder="sha256"
    )
    assert (await write(documents(("a", "a1"), ("b", "b1"))))["num_added"] == 2
    clock.advance(seconds=1)
    assert (await write(documents(("a", "a1"))))["num_deleted"] == 1
    assert agree_at_every_commit(store.database)
    assert not await manager.averify()


def test_adding_with_the_source_known_is_one_commit_a_batch(
    store: KoruDeltaVectorStore, manager: KoruDeltaRecordManager
) -> None:
    run(manager, store, "incremental", ("a", "a1"), ("a", "a2"), ("b", "b1"))
    assert len(store.database.commits()) == 2
    records = store.database.query(RECORDS, select=["id", "group_id"])
    assert sorted((row.value["id"], row.value["group_id"]) for row in records) == sorted(
        (document.id, document.metadata["page"]) for document in store.similarity_search("a", k=9)
    )


def test_the_message_of_a_write_is_that_of_its_records(
    store: KoruDeltaVectorStore, manager: KoruDeltaRecordManager
) -> None:
    store.add_texts(["rain"], [{"page": "a"}], ids=["x"], author="ada", message="why", run="r")
    store.delete(["x"], message="gone")
    for namespace in ("langchain", RECORDS):
        put, deleted = store.database.history(namespace, "x")
        assert (put.author, put.message, put.run) == ("ada", "why", "r")
        assert deleted.message == "gone"
    assert [commit.size for commit in store.database.commits()] == [2, 2]


def test_a_batch_that_fails_writes_neither(
    store: KoruDeltaVectorStore, manager: KoruDeltaRecordManager
) -> None:
    with pytest.raises(InvalidDataError):
        store.add_texts(["rain", "sun"], [{"page": "a"}, {"page": object()}], ids=["x", "y"])
    with pytest.raises(InvalidDataError, match="'x' has no source"):  # which was promised
        store.add_texts(["rain"], ids=["x"])
    assert store.database.commits() == []


def test_what_goes_behind_the_stores_back_is_indexed_again(
    store: KoruDeltaVectorStore, manager: KoruDeltaRecordManager, clock: FixedClock
) -> None:
    run(manager, store, "full", ("a", "a1"))
    (key,) = store.database.list_keys("langchain")
    store.database.delete("langchain", key)
    assert manager.exists([key]) == [False]
    clock.advance(seconds=1)
    assert run(manager, store, "full", ("a", "a1")) == (1, 0, 0, 0)
    store.add_texts(["soon gone"], [{"page": "t"}], ids=["t"], ttl=5)
    assert manager.exists(["t", key, "never"]) == [True, True, False]
    clock.advance(seconds=6)
    assert manager.exists(["t", key]) == [False, True]


def test_verify_finds_and_mends_drift(
    store: KoruDeltaVectorStore, manager: KoruDeltaRecordManager, clock: FixedClock
) -> None:
    db = store.database
    run(manager, store, "full", ("a", "a1"), ("b", "b1"))
    kept, gone = sorted(db.list_keys("langchain"))
    db.delete("langchain", gone)
    db.embed("langchain", "odd", "by hand", {"text": "by hand", "metadata": {"page": "h"}})
    db.put(RECORDS, kept, {**db.get(RECORDS, kept), "group_id": None})

    found = manager.verify()
    assert found == Drift(unrecorded=("odd",), missing=(gone,), ungrouped=(kept,))
    assert manager.verify() == found
    assert manager.verify(mend=True) == found
    assert manager.verify() == Drift()
    assert db.get(RECORDS, "odd")["group_id"] == "h"
    assert db.get(RECORDS, kept)["group_id"] in {"a", "b"}
    assert len(store.get_by_ids([kept, "odd"])) == 2  # no document is lost to mending
    clock.advance(seconds=1)
    run(manager, store, "full", ("a", "a1"), ("b", "b1"))
    assert "odd" not in db.list_keys("langchain")


def test_deleting_records_deletes_their_documents(
    store: KoruDeltaVectorStore, manager: KoruDeltaRecordManager
) -> None:
    run(manager, store, "full", ("a", "a1"), ("b", "b1"))
    manager.delete_keys(manager.list_keys(group_ids=["a"]))
    assert [d.page_content for d in store.similarity_search("x", k=9)] == ["b1"]
    assert not manager.verify()


def test_a_store_keeps_the_records_of_one_manager(
    store: KoruDeltaVectorStore, manager: KoruDeltaRecordManager
) -> None:
    with pytest.raises(InvalidDataError, match="'site'"):
        KoruDeltaRecordManager("other", store=store)
    with pytest.raises(InvalidDataError, match="leave database and path out"):
        KoruDeltaRecordManager("other", store=store, database=store.database)
    with pytest.raises(InvalidDataError, match="of no store"):
        KoruDeltaRecordManager("other", database=store.database).verify()


def test_records_are_read_as_of_a_moment_and_any_id_is_one(
    store: KoruDeltaVectorStore, manager: KoruDeltaRecordManager
) -> None:
    alone = KoruDeltaRecordManager("alone", database=store.database)
    odd = ["", "a" * 2000, "\0", "日本語", "id-sha256:x"]
    alone.update(odd, group_ids=["g", None, "g", "h", "h"])
    then = store.database.commits()[-1]
    alone.delete_keys(["\0", "unknown"])

    assert sorted(alone.list_keys()) == sorted(set(odd) - {"\0"})
    past = alone.as_of(then)
    assert sorted(past.list_keys()) == sorted(odd)
    assert sorted(past.list_keys(group_ids=["g"])) == ["", "\0"]
    assert past.exists(["\0", "no"]) == [True, False]
    assert alone.exists(["\0", ""]) == [False, True]
    assert len(alone.list_keys(limit=2)) == 2
    with pytest.raises(ReadOnlyError):
        past.update(["x"])
    with pytest.raises(ValueError, match="Length of keys"):
        alone.update(["x"], group_ids=["a", "b"])
    with pytest.raises(ValueError, match="in the past"):
        alone.update(["x"], time_at_least=alone.get_time() + 1)


WRITER = """
import sys
from tests.langchain.test_records import *

with koru_delta.open(sys.argv[1], embedder=HashEmbedder()) as db:
    store = KoruDeltaVectorStore(database=db)
    manager = KoruDeltaRecordManager("site", store=store, source_id_key="page")
    for turn in range(10_000):
        run(manager, store, "full", *((f"p{n}", f"text {turn} {n}") for n in range(6)))
        print(turn, flush=True)
"""


def test_a_killed_index_leaves_no_drift(tmp_path: Path) -> None:
    for turns in (1, 3, 2):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE,
            cwd=Path(__file__).resolve().parents[2],
        ) as writer:  # fmt: skip
            assert writer.stdout is not None
            for _ in range(turns):
                assert writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
        with koru_delta.open(tmp_path, embedder=HashEmbedder()) as db:
            assert agree_at_every_commit(db)
