"""`Database.ingest`: records of a program, and the one verb for every source."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import koru_delta
from koru_delta import AsyncDatabase, Database
from koru_delta.errors import (
    EmbedderError,
    IngestError,
    InvalidDataError,
    ReadOnlyError,
    TransactionError,
    ValueTooLargeError,
)
from koru_delta.ingest import Files, Git, Records, Run, chunks_of, ingest_records, runs_of, writer
from koru_delta.ingest.chunking import ChunkingConfig
from koru_delta.testing import FixedClock, HashEmbedder
from tests.ingest.history_maker import HistoryMaker, moment

RAIN = "# Rain\n\n" + "It rains on the plain, and the plain is wet. " * 6 + "\n"
SNOW = "# Snow\n\n" + "It snows on the hill, and the hill is white. " * 6 + "\n"
WIND = "# Wind\n\n" + "It blows on the sea, and the sea is rough. " * 6 + "\n"


class CountingEmbedder:
    """The words embedder, with a note of every text it was given."""

    def __init__(self) -> None:
        self.model_name = "counting"
        self.texts: list[str] = []
        self._words = HashEmbedder(32)

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.texts += texts
        return self._words(texts)


@pytest.fixture
def words() -> CountingEmbedder:
    return CountingEmbedder()


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def db(words: CountingEmbedder, clock: FixedClock) -> Iterator[Database]:
    with koru_delta.open(embedder=words, clock=clock) as database:
        yield database


def texts(db: Database, namespace: str = "notes", **when: Any) -> dict[str, str]:
    """What the chunks say, by key, at a moment."""
    return {row.key: row.value["text"] for row in db.query(chunks_of(namespace), **when)}


# Records


def test_records_come_as_mappings_or_tuples(db: Database) -> None:
    run = db.ingest(
        [
            {"id": "a", "text": "It rains.", "by": "Ada", "tags": ["wet"]},
            ("b", "It snows."),
            ("c", "It blows.", {"by": "Ben", "path": "elsewhere"}),
            ("d", "", None),
        ],
        namespace="notes",
    )

    assert isinstance(run, Run)
    assert (run.run, run.source, run.documents, run.chunks) == ("records-000001", "records", 4, 3)
    found = {row.value["text"]: row.value["metadata"] for row in db.query("notes.chunks")}
    assert found == {
        "It rains.": {"path": "a", "document": "a", "by": "Ada", "tags": ["wet"]},
        "It snows.": {"path": "b", "document": "b"},
        "It blows.": {"path": "elsewhere", "document": "c", "by": "Ben"},
    }
    assert db.get("notes", "c")["metadata"] == {"by": "Ben", "path": "elsewhere"}
    assert db.get("notes", "d")["chunks"] == []
    [hit] = db.similar("notes.chunks", "it snows", k=1, filter={"metadata.document": "b"})
    assert hit.value["text"] == "It snows."


def test_a_changed_record_embeds_only_what_changed(
    db: Database, words: CountingEmbedder, clock: FixedClock
) -> None:
    db.ingest([("a", RAIN + "\n" + SNOW), ("b", WIND)], namespace="notes")
    then, before = clock(), texts(db)
    clock.advance(seconds=1)
    words.texts.clear()

    run = db.ingest([("a", RAIN + "\n" + WIND), ("b", WIND)], namespace="notes")

    assert words.texts == [WIND.strip()]
    assert (run.documents, run.unchanged_documents) == (1, 1)
    assert (run.chunks, run.unchanged_chunks, run.deleted_chunks) == (1, 1, 1)
    assert sorted(texts(db).values()) == sorted([RAIN.strip(), WIND.strip(), WIND.strip()])
    assert texts(db, as_of=koru_delta.causal.moment(then)) == before
    # Known now, true then: an edge `supersedes` would have taken the old chunk from this.
    found = db.similar("notes.chunks", "it snows", k=1, valid_at=koru_delta.causal.moment(then))
    assert found[0].value["text"] == SNOW.strip()


def test_unchanged_records_write_nothing(db: Database, words: CountingEmbedder) -> None:
    records = [("a", RAIN, {"n": 1}), ("b", SNOW)]
    db.ingest(records, namespace="notes")
    before = db.stats()["seq"]
    words.texts.clear()

    run = db.ingest(records, namespace="notes")

    assert (run.run, run.documents, run.unchanged_documents) == (None, 0, 2)
    assert (db.stats()["seq"], words.texts) == (before, [])


def test_new_metadata_is_told_by_every_chunk_and_embeds_nothing(
    db: Database, words: CountingEmbedder
) -> None:
    db.ingest([("a", RAIN + "\n" + SNOW, {"lang": "en", "old": 1})], namespace="notes")
    words.texts.clear()

    run = db.ingest([("a", RAIN + "\n" + SNOW, {"lang": "de"})], namespace="notes")

    assert (words.texts, run.documents, run.chunks, run.unchanged_chunks) == ([], 1, 2, 0)
    for row in db.query("notes.chunks"):
        assert row.value["metadata"] == {"path": "a", "document": "a", "lang": "de"}
    hits = db.similar("notes.chunks", "it snows", filter={"metadata.lang": "de"})
    assert [hit.value["text"] for hit in hits] == [SNOW.strip(), RAIN.strip()]


def test_records_that_are_missing_are_deleted_only_from_a_complete_source(db: Database) -> None:
    long = "x" * 3000
    db.ingest([("a", RAIN), ("b", SNOW), (long, WIND)], namespace="notes")
    db.put("notes", "mine", {"text": "not ingested"})

    partly = db.ingest([("a", RAIN)], namespace="notes")
    kept = db.list_keys("notes")
    whole = db.ingest(Records([("a", RAIN)], complete=True), namespace="notes")

    assert (partly.run, len(kept)) == (None, 4)
    assert (sorted(whole.gone), whole.deleted_documents) == (["b", long], 2)
    assert db.list_keys("notes") == ["a", "mine"]
    assert list(texts(db).values()) == [RAIN.strip()]


def test_the_run_is_recorded_with_its_settings_and_counts(db: Database) -> None:
    run = db.ingest([("a", RAIN)], namespace="notes", run="nightly", author="Ada", message="why")

    [begun, finished] = db.history(runs_of("notes"), "nightly")
    assert run.run == "nightly"
    assert {version.author for version in (begun, finished)} == {"Ada"}
    assert (begun.value["state"], finished.value["state"]) == ("begun", "finished")
    assert {k: finished.value[k] for k in ("source", "model", "documents", "embedded")} == {
        "source": "records", "model": "counting", "documents": 1, "embedded": 1,
    }  # fmt: skip
    assert {v.run for v in db.changes() if v.namespace.startswith("notes")} == {"nightly"}


BAD: list[tuple[str, Any, str]] = [
    ("no id", {"text": "t"}, "record 1 .*no field 'id'"),
    ("no text", {"id": "x"}, "record 1 .*no field 'text'"),
    ("text is None", ("x", None), "NoneType as text"),
    ("text is bytes", ("x", b"t"), "bytes as text"),
    ("id is a number", (7, "t"), "record 1 .*an id that is 7, of type int; an id is text"),
    ("id is empty", ("", "t"), "an id that is empty"),
    ("id with NUL", ("a\0b", "t"), "holds NUL"),
    ("id came before", ("first", "t"), "'first', which came before"),
    ("surrogate in text", ("x", "\ud800"), "lone surrogate"),
    ("surrogate in id", ("\udfff", "t"), "lone surrogate"),
    ("surrogate in metadata", ("x", "t", {"a": "\ud800"}), "cannot be stored"),
    ("NaN in metadata", ("x", "t", {"a": float("nan")}), "cannot be stored"),
    ("metadata is a list", ("x", "t", ["a"]), "list as metadata"),
    ("metadata keys are numbers", ("x", "t", {1: 2}), "cannot be stored"),
    ("a reserved field", ("x", "t", {"document": "y"}), "rename it"),
    ("a string", "x", "a record is"),
    ("one value", ("x",), "a record is"),
    ("a list", ["x", "t"], "a record is"),
]


@pytest.mark.parametrize(("record", "said"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_record_that_is_none_is_refused_by_its_number(
    db: Database, record: Any, said: str
) -> None:
    with pytest.raises(InvalidDataError, match=said) as refused:
        db.ingest([("first", "t"), record], namespace="notes")

    assert "nothing was written" in refused.value.__notes__[0]
    assert db.stats()["seq"] == 0


def test_a_text_too_large_to_store_is_refused(db: Database) -> None:
    with pytest.raises(ValueTooLargeError):
        db.ingest([("a", "x" * (17 * 1024 * 1024))], namespace="notes")


@pytest.mark.parametrize("source", [None, 7, b"abc", {"id": "a", "text": "t"}, object()])
def test_what_is_no_source_is_refused(db: Database, source: Any) -> None:
    with pytest.raises(InvalidDataError, match="iterable"):
        db.ingest(source, namespace="notes")


def test_options_that_do_not_fit_the_source_are_refused(db: Database) -> None:
    with pytest.raises(InvalidDataError, match="include"):
        db.ingest([("a", "t")], namespace="notes", include=["*.md"])
    with pytest.raises(InvalidDataError, match="iterable"):
        db.ingest(Records("a"), namespace="notes")  # type: ignore[arg-type]

    async def later() -> Any:
        yield ("a", "t")

    with pytest.raises(InvalidDataError, match="asynchronous"):
        db.ingest(later(), namespace="notes")


def test_an_id_longer_than_a_key_is_kept_by_its_hash(db: Database) -> None:
    names = ["é" * 2000 + end for end in "ab"]
    db.ingest([(names[0], RAIN), (names[1], SNOW)], namespace="notes")

    run = db.ingest([(names[0], RAIN), (names[1], WIND)], namespace="notes")

    assert (run.documents, run.unchanged_documents) == (1, 1)
    assert {row.value["path"]: row.value["text"] for row in db.query("notes")} == {
        names[0]: RAIN, names[1]: WIND,
    }  # fmt: skip


def test_what_was_flushed_before_an_error_stays_and_the_next_call_goes_on(
    db: Database, words: CountingEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_FLUSH_ENTRIES", 6)

    def broken(count: int) -> Iterator[tuple[str, str]]:
        for number in range(count):
            yield f"r{number}", f"text {number}"
        raise OSError("the line is dead")

    with pytest.raises(OSError, match="the line is dead") as error:
        db.ingest(broken(8), namespace="notes")

    assert "the 6 records before stay" in error.value.__notes__[0]
    assert db.list_keys("notes") == [f"r{number}" for number in range(6)]
    assert len(texts(db)) == 6
    assert db.get(runs_of("notes"), "records-000001")["state"] == "begun"
    words.texts.clear()
    run = db.ingest([(f"r{n}", f"text {n}") for n in range(9)], namespace="notes")
    assert words.texts == ["text 6", "text 7", "text 8"]
    assert (run.run, run.documents, run.unchanged_documents) == ("records-000002", 3, 6)


def test_a_generator_that_never_holds_all_is_told_of_as_it_goes(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_FLUSH_ENTRIES", 4)
    told: list[tuple[int, int | None]] = []

    def note(done: int, total: int | None) -> None:
        told.append((done, total))

    db.ingest(((f"r{n}", f"text {n}") for n in range(5)), namespace="a", progress=note)
    db.ingest([(f"r{n}", f"text {n}") for n in range(5)], namespace="b", progress=note)

    assert told == [(2, None), (4, None), (5, 5), (2, 5), (4, 5), (5, 5)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("records", "progress", "terminal", "bar"),
    [
        (5, None, True, False), (5, True, True, True), (2100, None, True, True),
        (2100, None, False, False), (2100, False, True, False),
    ],
)  # fmt: skip
def test_a_bar_is_shown_for_long_work_on_a_terminal(
    db: Database, monkeypatch: pytest.MonkeyPatch, records: int, progress: bool | None,
    terminal: bool, bar: bool,
) -> None:  # fmt: skip
    out = Terminal() if terminal else io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", out)

    many = ((f"r{number}", "t") for number in range(records))
    db.ingest(many, namespace="notes", embedder=None, progress=progress)

    assert ("records" in out.getvalue()) is bar


# Chunking


def test_chunks_of_markdown_tell_their_headings(db: Database, words: CountingEmbedder) -> None:
    guide = "# Guide\n\nBe brief.\n\n## Setup\n\nRun it twice.\n"
    chunking = ChunkingConfig("markdown", size=200, min_size=0)
    db.ingest([("g", guide, {"lang": "en"})], namespace="notes", chunking=chunking)
    words.texts.clear()

    run = db.ingest(
        [("g", guide.replace("Guide", "Manual"), {"lang": "en"})], namespace="notes",
        chunking=chunking,
    )  # fmt: skip

    told = {row.value["text"]: row.value["metadata"] for row in db.query("notes.chunks")}
    assert told == {
        "# Manual\n\nBe brief.": {
            "path": "g", "document": "g", "lang": "en", "headings": ["Manual"],
        },
        "## Setup\n\nRun it twice.": {
            "path": "g", "document": "g", "lang": "en", "headings": ["Manual", "Setup"],
        },
    }  # fmt: skip
    # The second chunk says the same under another heading: written anew, not embedded.
    assert words.texts == ["# Manual\n\nBe brief."]
    assert (run.chunks, run.deleted_chunks, run.unchanged_chunks) == (2, 1, 0)
    [hit] = db.similar("notes.chunks", "run", filter={"metadata.headings": {"$contains": "Setup"}})
    assert hit.value["text"] == "## Setup\n\nRun it twice."


def test_headings_of_a_history_are_those_of_their_time(
    db: Database, words: CountingEmbedder, tmp_path: Path
) -> None:
    maker = HistoryMaker(tmp_path / "made")
    maker.commit(100, {"a.md": "# Old\n\nFirst.\n\n## Sub\n\nSecond.\n"})
    maker.commit(200, {"a.md": "# New\n\nFirst.\n\n## Sub\n\nSecond.\n"})

    db.ingest(Git(maker.write()), namespace="docs", chunking=ChunkingConfig("markdown", min_size=0))

    for at, name in ((150, "Old"), (250, "New")):
        told = {
            row.value["text"]: row.value["metadata"]["headings"]
            for row in db.query("docs.chunks", valid_at=moment(at))
        }
        assert told == {
            f"# {name}\n\nFirst.": [name], "## Sub\n\nSecond.": [name, "Sub"],
        }  # fmt: skip
    assert sorted(words.texts) == ["# New\n\nFirst.", "# Old\n\nFirst.", "## Sub\n\nSecond."]


def test_how_a_namespace_is_cut_is_recorded_and_kept_to(db: Database) -> None:
    sentences = ChunkingConfig("sentence", size=100)
    db.ingest([("a", RAIN)], namespace="notes", chunking=sentences)
    db.ingest([("a", RAIN)], namespace="plain")

    record = db.get("notes.runs", "records-000001")
    assert record["chunking"] == {
        "strategy": "sentence", "size": 100, "unit": "characters", "overlap": 0,
    }  # fmt: skip
    assert all(len(text) <= 100 for text in texts(db).values())
    same = ChunkingConfig("sentence", size=100, unit="characters")
    assert db.ingest([("a", RAIN)], namespace="notes", chunking=same).run is None
    assert db.ingest([("a", RAIN)], namespace="notes").run is None
    for other in (ChunkingConfig("sentence", size=101), ChunkingConfig("recursive")):
        with pytest.raises(IngestError, match="leave chunking out"):
            db.ingest([("b", RAIN)], namespace="notes", chunking=other)
    # What is done by default has a name, too.
    content = ChunkingConfig("content")
    assert db.ingest([("a", RAIN)], namespace="plain", chunking=content).run is None
    with pytest.raises(InvalidDataError, match="ChunkingConfig"):
        db.ingest([("a", RAIN)], namespace="x", chunking="markdown")  # type: ignore[arg-type]


def test_chunks_of_code_tell_their_definition(db: Database, tmp_path: Path) -> None:
    pytest.importorskip("tree_sitter")
    (tmp_path / "a.py").write_text(
        "class Stack:\n    def push(self, item):\n        self.items.append(item)\n\n\n"
        "def main():\n    print('hello')\n"
    )
    chunking = ChunkingConfig("code", size=120, min_size=0, language="python")

    db.ingest(tmp_path, namespace="code", chunking=chunking)

    told = [row.value["metadata"] for row in db.query("code.chunks")]
    assert "main" in {place.get("definition") for place in told}


# The one verb


def test_a_path_is_files_and_a_history_is_asked_for(db: Database, tmp_path: Path) -> None:
    maker = HistoryMaker(tmp_path / "made")
    maker.commit(100, {"a.md": RAIN})
    maker.commit(200, {"a.md": RAIN + "\n" + SNOW})
    repo = maker.write()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.md").write_text(RAIN)
    (folder / "b.txt").write_text(SNOW)

    files = db.ingest(folder, namespace="files", include=["*.md"])
    same = db.ingest(str(folder), namespace="files", include=["*.md"])
    single = db.ingest(folder / "b.txt", namespace="single")
    history = db.ingest(Git(repo, rev="HEAD"), namespace="history", author="Ada")
    (folder / "a.md").unlink()
    pruned = db.ingest(Files([folder], prune=True), namespace="files", include=["*.md"])

    assert [run.source for run in (files, single, history)] == ["files", "files", "git"]
    assert (files.documents, same.run, same.unchanged_documents) == (1, None, 1)
    assert db.list_keys("single") == ["b.txt"]
    assert (history.commits, history.documents) == (2, 2)
    assert db.history("history", "a.md")[0].author == maker.commits[0].author
    assert db.history(runs_of("history"), "git-000001")[0].author == "Ada"
    assert (pruned.gone, db.list_keys("files")) == (["a.md"], [])


def test_a_namespace_is_filled_in_one_way(db: Database, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(RAIN)
    db.ingest([("a", RAIN)], namespace="notes")

    with pytest.raises(IngestError, match=r"source records.*files"):
        db.ingest(tmp_path, namespace="notes")
    with pytest.raises(IngestError, match=r"model counting.*unset"):
        db.ingest([("b", RAIN)], namespace="notes", embedder=None)


def test_what_cannot_be_written_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    def never() -> Iterator[tuple[str, str]]:
        raise AssertionError("it was read")
        yield "a", "b"

    with koru_delta.open(tmp_path / "db") as db:
        db.put("a", "b", 1)
        with pytest.raises(EmbedderError, match="embedder=None"):
            db.ingest(never(), namespace="notes")
    with (
        koru_delta.open(tmp_path / "db", read_only=True) as db,
        pytest.raises(ReadOnlyError),
    ):
        db.ingest(never(), namespace="notes", embedder=None)


def test_a_run_does_not_hide_in_a_transaction(db: Database) -> None:
    with db.transaction() as tx:
        tx.put("a", "b", 1)
        with pytest.raises(TransactionError):
            db.ingest([("a", RAIN)], namespace="notes")
    assert db.list_namespaces() == ["a"]


async def test_an_event_loop_can_ingest(words: CountingEmbedder) -> None:
    async with await AsyncDatabase.open(embedder=words) as adb:
        run = await adb.ingest([("a", RAIN)], namespace="notes")
        await adb.put("n", "k", 1)
        [hit] = await adb.similar("notes.chunks", "it rains")

        assert (run.documents, hit.value["text"]) == (1, RAIN.strip())


_texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from("abc"), st.tuples(_texts, st.integers(0, 2)), max_size=3),
        max_size=5,
    ),
    st.booleans(),
)
def test_whatever_comes_the_chunks_are_those_of_the_documents(
    states: list[dict[str, tuple[str, int]]], complete: bool
) -> None:
    expected: dict[str, tuple[str, int]] = {}
    with koru_delta.open(embedder=HashEmbedder(16)) as db:
        for state in states:
            expected = state if complete else expected | state
            records = [(key, text, {"n": n}) for key, (text, n) in state.items()]
            db.ingest(Records(records, complete=complete), namespace="notes")
            found = {row.key: row.value for row in db.query("notes")}
            assert {
                key: (value["text"], value["metadata"]["n"]) for key, value in found.items()
            } == expected
            chunks = {
                name: (value["text"][start:end], value["metadata"]["n"])
                for value in found.values() for name, start, end, *_ in value["chunks"]
            }  # fmt: skip
            told = {
                row.key: (row.value["text"], row.value["metadata"]["n"])
                for row in db.query("notes.chunks")
            }
            assert told == chunks
            assert all(row.version.vectors for row in db.query("notes.chunks"))


# Several at once, and killed ones

WORKER = """
import sys, time
import koru_delta
from koru_delta.ingest import writer
from koru_delta.testing import HashEmbedder

writer._FLUSH_ENTRIES = 20
words = HashEmbedder(32)
def slow(texts):
    time.sleep(0.02)
    return words(texts)
with koru_delta.open(sys.argv[1], embedder=koru_delta.embedders.as_embedder(slow, name="w")) as db:
    records = ((f"r{n:03}", f"text {n} " * 20, {"n": n}) for n in range(int(sys.argv[2])))
    try:
        db.ingest(records, namespace="notes")
    except koru_delta.errors.IngestError as error:
        sys.exit(f"refused: {error}")
"""


def whole(db: Database) -> int:
    """How many records are in; fails if one is there without its chunks and vectors."""
    documents = {row.key: row.value for row in db.query("notes")}
    chunks = {row.key: row for row in db.query("notes.chunks")}
    assert {row[0] for value in documents.values() for row in value["chunks"]} == set(chunks)
    assert all(row.version.vectors for row in chunks.values())
    return len(documents)


def test_a_killed_run_leaves_whole_batches_and_the_next_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(tmp_path / "db"), "300"]
    root = Path(__file__).parents[2]
    counts = []
    for _ in range(3):
        worker = subprocess.Popen(command, cwd=root)
        while worker.poll() is None and not (tmp_path / "db" / "log.db").exists():
            time.sleep(0.01)
        time.sleep(0.15)
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        with koru_delta.open(tmp_path / "db") as db:
            counts.append(whole(db))
    assert counts == sorted(counts)
    assert subprocess.run(command, cwd=root, timeout=120).returncode == 0

    with koru_delta.open(tmp_path / "db") as db:
        assert whole(db) == 300
        assert db.verify().ok


def test_two_processes_at_one_namespace_refuse_or_finish_and_nothing_is_twice(
    tmp_path: Path,
) -> None:
    koru_delta.open(tmp_path / "db").close()
    command = [sys.executable, "-c", WORKER, str(tmp_path / "db"), "200"]
    root = Path(__file__).parents[2]
    workers = [
        subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [worker.communicate(timeout=120)[1] for worker in workers]

    codes = [worker.returncode for worker in workers]
    assert 0 in codes
    for code, text in zip(codes, said, strict=True):
        assert code == 0 or "another run is writing into 'notes'" in text
    with koru_delta.open(tmp_path / "db") as db:
        assert whole(db) == 200
        assert all(len(db.history("notes", key)) == 1 for key in db.list_keys("notes"))


def test_ingest_records_is_the_same_without_a_facade(db: Database) -> None:
    run = ingest_records(db, [("a", RAIN)], namespace="notes")
    assert db.ingest([("a", RAIN)], namespace="notes").run is None
    assert run.embedded == 1
