"""A run says what it did, what it left, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import koru_delta
from koru_delta import ChunkingConfig, Database
from koru_delta.errors import IngestError, InvalidDataError
from koru_delta.ingest import Files, Records, Run

TEXT = "# Leave\n\nEveryone has 25 days of leave.\n"


@pytest.fixture
def db() -> Iterator[Database]:
    with koru_delta.open() as database:
        yield database


def read_in(db: Database, source: Any, **options: Any) -> Run:
    return db.ingest(source, namespace="kb", embedder=None, **options)


@pytest.mark.parametrize("ending", ["chunks", "commits", "runs"])
def test_what_ingest_makes_is_refused_as_a_place_for_documents(db, ending):
    with pytest.raises(InvalidDataError, match=r"into 'kb', and search 'kb\.chunks'"):
        db.ingest([("a", TEXT)], namespace=f"kb.{ending}", embedder=None)

    assert db.list_namespaces() == []


def test_a_run_names_what_to_search_and_tells_what_it_did(db):
    run = read_in(db, [("leave", TEXT)])

    assert run.chunks_namespace == "kb.chunks"
    assert db.search(run.chunks_namespace, "leave", mode="text")
    assert str(run).splitlines() == [
        "kb: 1 document stored, 0 deleted, 0 unchanged; 1 chunk stored, 0 embedded "
        "(run records-000001)",
        'search it: db.search("kb.chunks", "your question")',
    ]
    assert str(read_in(db, [("leave", TEXT)])).splitlines()[0] == "kb: nothing new"


def test_a_run_tells_what_was_skipped_and_what_is_gone_but_still_found(db, tmp_path):
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text(TEXT)
    read_in(db, tmp_path)
    (tmp_path / "b.md").unlink()
    (tmp_path / "c.bin").write_bytes(b"\0")

    told = str(read_in(db, tmp_path)).splitlines()

    assert told[1:3] == [
        "skipped 1 (binary: it holds a NUL byte): c.bin",
        "gone, but still stored and found: b.md; to delete what is gone, ingest "
        "koru_delta.ingest.Files(paths, prune=True)",
    ]
    assert "gone" not in str(read_in(db, Files(tmp_path, prune=True)))
    assert [hit.value["metadata"]["path"] for hit in
            db.search("kb.chunks", "leave", mode="text")] == ["a.md"]  # fmt: skip


def test_an_empty_directory_is_not_told_as_nothing_new(db, tmp_path):
    assert str(read_in(db, tmp_path)) == "kb: no files were found"
    assert str(read_in(db, [])) == "kb: no records were found"


def test_a_run_tells_of_what_came_back_from_a_quarantine(db):
    read_in(db, [("leave", TEXT), ("travel", "By train.")])
    held = db.quarantine(("kb", "leave"))
    assert read_in(db, [("leave", TEXT)]).quarantined == []

    run = read_in(db, [("leave", TEXT + "And more.\n"), ("travel", "By ferry.")])

    assert run.quarantined == ["leave"]
    assert "db.quarantine(('kb', 'leave'))" in str(run)
    db.release(held)
    assert read_in(db, [("leave", TEXT)]).quarantined == []


@pytest.mark.parametrize(
    "chunking",
    [
        ChunkingConfig("markdown", size=300),
        ChunkingConfig("recursive", overlap=20),
        ChunkingConfig("content", size=600, min_size=50),
    ],
)
def test_a_later_run_cuts_as_the_first_did_unless_it_is_told(db, chunking):
    read_in(db, [("leave", TEXT * 20)], chunking=chunking)
    read_in(db, [("travel", TEXT * 20)])

    texts = {
        document: [
            each.value["text"]
            for each in db.query("kb.chunks", {"metadata.document": document}, sort="text")
        ]
        for document in ("leave", "travel")
    }
    assert texts["leave"] == texts["travel"]
    with pytest.raises(IngestError) as refused:
        read_in(db, [("sun", TEXT)], chunking=ChunkingConfig("sentence", size=100))
    told = str(refused.value)
    assert f"was filled with chunking=ChunkingConfig('{chunking.strategy}'" in told
    assert "this run has ChunkingConfig('sentence', overlap=0, size=100" in told
    assert "leave chunking out" in told


def test_what_was_cut_by_content_is_told_in_those_words(db):
    read_in(db, [("leave", TEXT)])

    with pytest.raises(IngestError, match=r"ChunkingConfig\('content', min_size=200, size=1200\)"):
        read_in(db, [("leave", TEXT)], chunking=ChunkingConfig("markdown"))


def test_another_kind_of_source_is_refused_as_before(db, tmp_path: Path):
    read_in(db, Records([("leave", TEXT)]), chunking=ChunkingConfig("markdown"))

    with pytest.raises(IngestError, match="filled with source records, this run has files"):
        read_in(db, tmp_path)
