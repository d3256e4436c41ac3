from __future__ import annotations

import json
import lzma
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import koru_delta
from koru_delta import Database
from koru_delta.errors import EmbedderError, IngestError, UnknownVersionError
from koru_delta.ingest import (
    Report,
    chunks_of,
    commit_time,
    commits_of,
    ingest_files,
    ingest_git,
    origin,
    runs_of,
    writer,
)
from koru_delta.testing import HashEmbedder
from tests.ingest.history_maker import HistoryMaker, States, moment
from tests.real_data import lacking

SECTIONS = {
    "rain": "# Rain\n\n" + "It rains on the plain, and the plain is wet. " * 6 + "\n",
    "snow": "# Snow\n\n" + "It snows on the hill, and the hill is white. " * 6 + "\n",
    "wind": "# Wind\n\n" + "It blows on the sea, and the sea is rough. " * 6 + "\n",
    "mist": "# Mist\n\n" + "It hides the moor, and the moor is silent. " * 6 + "\n",
}


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
def db() -> Iterator[Database]:
    with koru_delta.open() as database:
        yield database


@pytest.fixture
def maker(tmp_path: Path) -> HistoryMaker:
    return HistoryMaker(tmp_path / "made")


def page(*names: str) -> str:
    return "\n".join(SECTIONS[name] for name in names)


def assert_tells(db: Database, states: dict[str, States], namespace: str = "docs") -> None:
    """Whatever the moment: the documents are git's, and the chunks are the documents'."""
    times = sorted({change[0] for state in states.values() for change in state.changes})
    for at in [t + shift for t in times for shift in (-1e-6, 0, 0.5)] + [times[-1] + 1e6]:
        then = moment(at)
        expected = {path: text for path, s in states.items() if (text := s.at(at)) is not None}
        found = db.query(namespace, valid_at=then)
        assert {row.value["path"]: row.value["text"] for row in found} == expected
        pieces: dict[str, str] = {}
        for row in found:
            text = row.value["text"]
            for key, start, end, first, last in row.value["chunks"]:
                pieces[key] = text[start:end]
                assert first == text.count("\n", 0, start) + 1
                assert last == text.count("\n", 0, end) + 1
        chunks = {
            row.key: row.value["text"] for row in db.query(chunks_of(namespace), valid_at=then)
        }
        assert chunks == pieces


# What a history tells


def test_every_file_can_be_read_as_it_was_at_any_commit(db, maker):
    maker.commit(100, {"a.md": page("rain"), "sub/b.md": page("snow")})
    maker.commit(200, {"a.md": page("rain", "wind")})
    maker.commit(300, {"sub/b.md": None})
    maker.commit(400, {"sub/b.md": page("mist"), "a.md": ""})
    maker.commit(500, {"a.md": None, "c.md": page("snow", "wind")})

    report = ingest_git(db, maker.write(), embedder=None)

    assert_tells(db, maker.states())
    assert (report.commits, report.documents, report.deleted_documents) == (5, 6, 2)
    assert db.get("docs", "a.md", valid_at=moment(250))["text"] == page("rain", "wind")
    assert db.list_keys("docs") == ["c.md", "sub/b.md"]


def test_a_commit_keeps_its_author_message_and_times(db, maker):
    maker.commit(100, {"a.md": "one\n"}, message="Begin\n\nAt length.", author="Zoë")
    repo = maker.write()

    ingest_git(db, repo, embedder=None)

    [version] = db.history("docs", "a.md")
    assert (version.author, version.message) == ("Zoë", "Begin")
    assert version.valid_from == moment(100)
    sha = maker.commits[0].sha
    record = db.get(commits_of("docs"), sha)
    assert record["message"] == "Begin\n\nAt length."
    assert record["committed_at"] == "1970-01-01T00:01:40+00:00"
    assert record["changes"] == [["added", "a.md"]]
    assert commit_time(db, "docs", sha[:7]) == moment(100)
    with pytest.raises(UnknownVersionError):
        commit_time(db, "docs", "beef")


def test_a_chunk_leads_to_its_document_and_commit(db, maker):
    embedder = CountingEmbedder()
    maker.commit(100, {"a.md": page("rain")}, author="Ada")
    maker.commit(200, {"a.md": page("snow", "rain")}, author="Ben", message="Add snow")
    ingest_git(db, maker.write(), embedder=embedder)
    vector = embedder(["it snows on the hill"])[0]

    [match] = db.similar("docs.chunks", vector, k=1)
    then = db.similar("docs.chunks", vector, k=1, valid_at=moment(150))
    found = origin(db, "docs", match.version)

    assert match.value["text"] == SECTIONS["snow"].strip()
    assert [hit.value["text"] for hit in then] == [SECTIONS["rain"].strip()]
    assert (found.path, found.first_line, found.last_line) == ("a.md", 1, 3)
    assert (found.author, found.message, found.commit) == ("Ben", "Add snow", maker.commits[1].sha)
    # The chunk that was there before has moved down; its own commit is still the first.
    rain = origin(db, "docs", then[0].version)
    assert (rain.first_line, rain.commit) == (5, maker.commits[0].sha)
    assert origin(db, "docs", then[0].version, valid_at=moment(150)).first_line == 1
    ancestors = db.ancestors(match.version, kinds=["derived_from"])
    assert [version.namespace for version in ancestors] == ["docs", "docs.commits"]


@pytest.mark.parametrize("seed", range(12))
def test_a_history_with_odd_clocks_is_read_by_time_then_by_order(db, maker, seed):
    random_history(maker, random.Random(seed))

    ingest_git(db, maker.write(), embedder=None)

    assert_tells(db, maker.states())


@pytest.mark.parametrize("seed", range(12))
def test_commits_that_arrive_late_change_only_their_own_time(db, maker, seed):
    chance = random.Random(1000 + seed)
    random_history(maker, chance)
    repo = maker.write()
    stops = sorted(chance.sample(range(len(maker.commits)), 2))

    for stop in stops:
        ingest_git(db, repo, rev=maker.commits[stop].sha, embedder=None)
        assert_tells(db, maker.states(maker.chain(stop)))
    ingest_git(db, repo, embedder=None)

    assert_tells(db, maker.states())
    assert db.verify().ok


def test_another_branch_is_woven_in_by_time(db, maker):
    maker.commit(100, {"a.md": page("rain"), "b.md": page("mist")})
    maker.commit(200, {"a.md": page("rain", "snow")})
    one = maker.commit(400, {"a.md": page("snow"), "b.md": None})
    maker.commit(150, {"a.md": page("rain", "wind")}, onto=0)
    maker.commit(300, {"a.md": None, "b.md": page("wind")})
    two = maker.commit(350, {"a.md": page("mist")})
    repo = maker.write()

    ingest_git(db, repo, rev=f"c{one}", embedder=None)
    ingest_git(db, repo, rev=f"c{two}", embedder=None)

    assert_tells(db, maker.states(sorted({*maker.chain(one), *maker.chain(two)})))


@pytest.mark.parametrize("first", ["long", "short"])
def test_of_two_commits_in_one_second_the_later_in_order_wins(db, maker, first):
    maker.commit(100, {"a.md": page("rain")})
    maker.commit(150, {"b.md": page("mist")})
    long = maker.commit(200, {"a.md": page("snow")})
    short = maker.commit(200, {"a.md": page("rain", "wind")}, onto=0)
    repo = maker.write()
    order = [long, short] if first == "long" else [short, long]

    for tip in order:
        ingest_git(db, repo, rev=f"c{tip}", embedder=None)

    assert_tells(db, maker.states(sorted({*maker.chain(long), *maker.chain(short)})))
    assert db.get("docs", "a.md")["text"] == page("snow")


def test_a_rename_is_followed(db, maker):
    embedder = CountingEmbedder()
    maker.commit(100, {"old.md": page("rain", "snow")})
    maker.commit(200, {"old.md": None, "new.md": page("rain", "snow")})

    ingest_git(db, maker.write(), embedder=embedder)

    assert_tells(db, maker.states())
    assert len(embedder.texts) == 2
    [old, gone] = db.history("docs", "old.md")
    [new] = db.history("docs", "new.md")
    assert gone.is_tombstone
    assert ("references", old.id) in new.causes
    assert new.value["previous_path"] == "old.md"


def test_files_that_are_no_text_are_reported_and_absent(db, maker):
    maker.commit(100, {"a.md": "text\n", "b.bin": b"\0\1"})
    maker.commit(200, {"a.md": b"\0 no longer"})
    maker.commit(300, {"b.bin": "text now\n"})

    report = ingest_git(db, maker.write(), embedder=None)

    assert_tells(db, maker.states())
    assert {path: reason.name for path, reason in report.skipped.items()} == {"a.md": "BINARY"}


def test_a_path_longer_than_a_key_is_kept_by_its_hash(db, maker):
    paths = ["/".join(["é" * 100] * 6) + f"/{name}.md" for name in ("one", "two")]
    maker.commit(100, {paths[0]: page("rain"), paths[1]: page("rain")})
    maker.commit(200, {paths[0]: page("rain", "snow"), paths[1]: None})

    ingest_git(db, maker.write(), embedder=None)

    assert_tells(db, maker.states())


def test_include_takes_only_what_matches(db, maker):
    maker.commit(100, {"a.md": "a\n", "b.py": "b\n"})
    repo = maker.write()

    ingest_git(db, repo, include=["*.md"], embedder=None)

    assert db.list_keys("docs") == ["a.md"]
    with pytest.raises(IngestError, match=r"include \*\.md.*unset"):
        ingest_git(db, repo, embedder=None)


# What is stored once


def test_an_unchanged_chunk_is_neither_stored_nor_embedded_again(db, maker):
    embedder = CountingEmbedder()
    maker.commit(100, {"a.md": page("rain", "snow", "wind")})
    maker.commit(200, {"a.md": page("rain", "mist", "wind")})
    maker.commit(300, {"a.md": page("mist", "wind")})

    report = ingest_git(db, maker.write(), embedder=embedder)

    assert sorted(embedder.texts) == sorted(text.strip() for text in SECTIONS.values())
    assert (report.chunks, report.deleted_chunks, report.unchanged_chunks) == (4, 2, 4)
    history = [
        version
        for key in {
            key for t in (100, 200) for key in db.list_keys("docs.chunks", valid_at=moment(t))
        }
        for version in db.history("docs.chunks", key)
    ]
    assert sorted(version.operation for version in history) == ["delete"] * 2 + ["put"] * 4


def test_a_chunk_that_comes_back_keeps_its_vector(db, maker):
    maker.commit(100, {"a.md": page("rain", "snow")})
    first = maker.commit(200, {"a.md": page("rain")})
    maker.commit(300, {"a.md": page("rain", "snow")})
    maker.commit(400, {"b.md": page("rain", "snow"), "a.md": None})
    repo = maker.write()
    ingest_git(db, repo, rev=f"c{first}", embedder=CountingEmbedder())
    again = CountingEmbedder()

    ingest_git(db, repo, embedder=again)

    assert again.texts == []
    assert_tells(db, maker.states())
    snow = HashEmbedder(32)([SECTIONS["snow"].strip()])[0]
    for at in (100, 300, 400):
        [match] = db.similar("docs.chunks", snow, k=1, valid_at=moment(at))
        assert match.value["text"] == SECTIONS["snow"].strip()
        assert match.score == pytest.approx(1, abs=1e-6)


def test_equal_sections_of_a_file_are_chunks_of_their_own(db, maker):
    maker.commit(100, {"a.md": page("rain", "snow", "rain")})
    maker.commit(200, {"a.md": page("rain", "snow")})

    ingest_git(db, maker.write(), embedder=None)

    assert_tells(db, maker.states())
    keys = db.list_keys("docs.chunks", valid_at=moment(100))
    assert sorted(key[-2:] for key in keys) == [".0", ".0", ".1"]


def test_running_again_adds_only_what_is_new(db, maker):
    embedder = CountingEmbedder()
    maker.commit(100, {"a.md": page("rain")})
    first = maker.commit(200, {"a.md": page("rain", "snow")})
    maker.commit(300, {"b.md": page("wind")})
    repo = maker.write()
    ingest_git(db, repo, rev=f"c{first}", embedder=embedder)
    before = db.stats()["seq"]

    nothing = ingest_git(db, repo, rev=f"c{first}", embedder=embedder)

    assert db.stats()["seq"] == before
    assert (nothing.run, nothing.commits) == (None, 0)
    assert ingest_git(db, repo, embedder=embedder).commits == 1
    assert len(embedder.texts) == 3
    assert db.list_keys(runs_of("docs")) == ["git-000001", "git-000002"]
    assert db.get(runs_of("docs"), "git-000002")["state"] == "finished"


# What is refused


def test_a_namespace_holds_one_history_ingested_one_way(db, maker, tmp_path):
    maker.commit(100, {"a.md": "one\n"})
    other = HistoryMaker(tmp_path / "other")
    other.commit(50, {"z.md": "other\n"})
    ingest_git(db, maker.write(), embedder=None)

    with pytest.raises(IngestError, match="another repository"):
        ingest_git(db, other.write(), embedder=None)
    with pytest.raises(IngestError, match="model"):
        ingest_git(db, maker.path / "repo", embedder=CountingEmbedder())
    with pytest.raises(IngestError, match="source git"):
        ingest_files(db, [maker.path], embedder=None)


def test_without_an_embedder_the_way_out_is_told(maker, tmp_path):
    maker.commit(100, {"a.md": "one\n"})
    repo = maker.write()
    with koru_delta.open(tmp_path / "db") as db:
        with pytest.raises(EmbedderError, match="embedder=None"):
            ingest_git(db, repo)
        assert db.stats()["seq"] == 0


def test_a_store_that_shows_its_embedder_is_asked_for_it(maker):
    class Store(Database):
        embedder = koru_delta.embedders.as_embedder(HashEmbedder(32))

    maker.commit(100, {"a.md": page("rain")})
    with Store() as db:
        assert ingest_git(db, maker.write()).embedded == 1


def test_an_embedder_that_fails_leaves_nothing_half_done(db, maker):
    maker.commit(100, {"a.md": page("rain")})

    def broken(texts: list[str]) -> list[list[float]]:
        raise OSError("no network")

    with pytest.raises(EmbedderError):
        ingest_git(db, maker.write(), embedder=broken)
    assert db.stats()["seq"] == 0


def test_two_runs_at_once_do_not_write_a_commit_twice(db, maker, monkeypatch):
    monkeypatch.setattr(writer, "_FLUSH_ENTRIES", 1)
    for number in range(4):
        maker.commit(100 + number, {"a.md": f"{number}\n"})
    repo = maker.write()
    others: list[Report] = []

    def meanwhile(done: int, total: int | None) -> None:
        if done == 1 and not others:
            others.append(ingest_git(db, repo, embedder=None))

    with pytest.raises(IngestError, match="another run"):
        ingest_git(db, repo, embedder=None, progress=meanwhile)
    assert others[0].commits == 3
    assert_tells(db, maker.states())
    assert len(db.history("docs", "a.md")) == 4


# Interrupted

INGEST = """
import sys, time
import koru_delta
from koru_delta.ingest import ingest_git, writer
from koru_delta.testing import HashEmbedder

writer._FLUSH_ENTRIES = 30
words = HashEmbedder(32)
def slow(texts):
    time.sleep(0.02)
    return words(texts)
with koru_delta.open(sys.argv[1]) as db:
    ingest_git(db, sys.argv[2], embedder=koru_delta.embedders.as_embedder(slow, name="words"))
"""


def test_a_killed_run_leaves_whole_commits_and_the_next_goes_on(maker, tmp_path):
    chance = random.Random(7)
    for number in range(60):
        names = chance.sample(sorted(SECTIONS), chance.randint(1, 4))
        maker.commit(
            100 + 10 * number, {f"{chance.choice('abc')}.md": f"{number}\n" + page(*names)}
        )
    repo = maker.write()
    command = [sys.executable, "-c", INGEST, str(tmp_path / "db"), str(repo)]
    worker = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    kills = 0
    while worker.poll() is None:
        if (tmp_path / "db" / "log.db").exists():
            time.sleep(0.05)
            os.kill(worker.pid, signal.SIGKILL)
            worker.wait()
            kills += 1
            with koru_delta.open(tmp_path / "db") as db:
                done = db.list_keys(commits_of("docs"))
                shas = {made.sha: number for number, made in enumerate(maker.commits)}
                numbers = sorted(shas[sha] for sha in done)
                assert numbers == list(range(len(numbers)))
                if numbers:
                    assert_tells(db, maker.states(numbers))
                if kills >= 4:
                    break
            worker = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        time.sleep(0.005)
    finished = subprocess.run(command, cwd=Path(__file__).parents[2], timeout=120)

    assert finished.returncode == 0
    assert kills >= 1
    with koru_delta.open(tmp_path / "db") as db, koru_delta.open() as whole:
        words = koru_delta.embedders.as_embedder(HashEmbedder(32), name="words")
        ingest_git(whole, repo, embedder=words)
        assert_tells(db, maker.states())
        assert db.verify().ok
        for made in maker.commits:
            for namespace in ("docs", "docs.chunks"):
                found, expected = (
                    [(row.key, row.value, row.version.author, set(row.version.vectors))
                     for row in each.query(namespace, valid_at=moment(made.time))]
                    for each in (db, whole)
                )  # fmt: skip
                assert found == expected


# Files


def test_files_are_ingested_once_until_they_change(db, tmp_path):
    embedder = CountingEmbedder()
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "a.md").write_text(page("rain", "snow"))
    (folder / "b.md").write_text(page("wind"))
    (folder / "c.bin").write_bytes(b"\0")

    first = ingest_files(db, [folder], embedder=embedder, author="Ada")
    before = db.stats()["seq"]
    second = ingest_files(db, [folder], embedder=embedder, author="Ada")

    assert (first.documents, first.chunks, second.run) == (2, 3, None)
    assert list(first.skipped) == ["c.bin"]
    assert db.stats()["seq"] == before
    (folder / "a.md").write_text(page("rain", "mist"))
    third = ingest_files(db, [folder], embedder=embedder)
    assert (third.documents, third.chunks, third.unchanged_chunks) == (1, 1, 1)
    assert len(embedder.texts) == 4
    [old, new] = db.history("docs", "a.md")
    assert old.author == "Ada"
    assert db.get("docs", "a.md", as_of=old)["text"] == page("rain", "snow")
    assert db.get("docs", "a.md")["text"] == new.value["text"] == page("rain", "mist")


def test_a_file_that_is_gone_is_reported_and_deleted_only_when_asked(db, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / f"{folder.name}.md").write_text("text\n")
    (one / "gone.md").write_text(page("rain"))
    ingest_files(db, [one], embedder=None)
    ingest_files(db, [two], embedder=None)
    (one / "gone.md").unlink()

    told = ingest_files(db, [one], embedder=None)
    elsewhere = ingest_files(db, [two], embedder=None, prune=True)
    kept = db.list_keys("docs")
    pruned = ingest_files(db, [one], embedder=None, prune=True)

    assert (told.gone, told.run, elsewhere.gone) == (["gone.md"], None, [])
    assert kept == ["gone.md", "one.md", "two.md"]
    assert (pruned.gone, pruned.deleted_documents) == (["gone.md"], 1)
    assert db.list_keys("docs") == ["one.md", "two.md"]
    assert all("gone.md" not in key for key in db.list_keys("docs.chunks"))


def test_two_directories_cannot_claim_one_path(db, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.md").write_text(name)

    with pytest.raises(IngestError, match=r"a\.md"):
        ingest_files(db, [tmp_path / "one", tmp_path / "two"], embedder=None)
    with pytest.raises(IngestError, match="cannot be read"):
        ingest_files(db, [tmp_path / "nowhere"], embedder=None)
    assert db.list_keys("docs") == []


def test_a_database_never_ingests_itself(tmp_path):
    (tmp_path / "a.md").write_text("text\n")
    with koru_delta.open(tmp_path / "sub" / ".kdelta") as db:
        report = ingest_files(db, [tmp_path], embedder=None)

        assert db.list_keys("docs") == ["a.md"]
        assert report.skipped == {}
        for path in (tmp_path / "sub" / ".kdelta", tmp_path / "sub" / ".kdelta" / "log.db"):
            with pytest.raises(IngestError, match="the database itself"):
                ingest_files(db, [path], embedder=None)


# Real texts


def test_real_revisions_are_read_back_at_any_time(db, maker):
    folder = os.environ.get("KORU_DATA")
    if folder is None:
        lacking("the PEP revisions")
    with lzma.open(Path(folder, "peps", "full-text-revisions.jsonl.xz"), "rt") as lines:
        revisions = [json.loads(line) for line in lines]
    chance = random.Random(3)
    chosen = set(chance.sample(sorted({revision["pep"] for revision in revisions}), 8))
    revisions = [revision for revision in revisions if revision["pep"] in chosen]
    for revision in sorted(revisions, key=lambda r: r["committed_at"]):
        maker.commit(revision["committed_at"], {f"pep-{revision['pep']}.rst": revision["text"]})
    states = maker.states()

    report = ingest_git(db, maker.write(), embedder=None)

    assert report.commits == len(revisions)
    times = [revision["committed_at"] for revision in revisions]
    for _ in range(200):
        path = chance.choice(sorted(states))
        at = chance.choice([chance.choice(times), chance.randint(min(times), max(times))])
        found = db.get("docs", path, None, valid_at=moment(at))
        assert (None if found is None else found["text"]) == states[path].at(at)


def random_history(maker: HistoryMaker, chance: random.Random) -> None:
    """Edits, deletes and renames by people whose clocks stand, stop and run backward."""
    paths = ["a.md", "b.md", "sub/c.md", "sub/d.md"]
    maker.commit(chance.randint(1, 30), {path: page("rain", "snow") for path in paths[:2]})
    for number in range(18):
        tree = maker.commits[-1].tree
        changes: dict[str, str | bytes | None] = {}
        for path in chance.sample(paths, chance.randint(1, 2)):
            kind = chance.random()
            names = chance.choices(sorted(SECTIONS), k=chance.randint(1, 4))
            if path in tree and kind < 0.25:
                changes[path] = None
            elif path in tree and kind < 0.4:
                free = [other for other in paths if other not in tree and other not in changes]
                if free:
                    changes[path], changes[free[0]] = None, tree[path]
            elif kind < 0.5:
                changes[path] = bytes([0, number])
            else:
                changes.setdefault(path, page(*names) + ("" if kind < 0.8 else f"\n{number}\n"))
        maker.commit(chance.randint(1, 30), changes)


# Histories that part


def test_commits_that_left_the_history_are_counted_and_still_stand(db, maker):
    maker.commit(100, {"a.md": "one\n"})
    maker.commit(200, {"secret.md": "hush\n"})
    maker.commit(300, {"a.md": "two\n"}, onto=0)
    repo = maker.write()
    ingest_git(db, repo, rev="c1", embedder=None)

    rewritten = ingest_git(db, repo, rev="c2", embedder=None)
    again = ingest_git(db, repo, rev="c2", embedder=None)

    assert (rewritten.elsewhere, rewritten.commits) == (1, 1)
    assert (again.elsewhere, again.run) == (1, None)
    assert db.get("docs", "secret.md")["text"] == "hush\n"


def test_an_earlier_part_of_the_history_leaves_nothing_elsewhere(db, maker):
    for number in range(4):
        maker.commit(100 * number, {"a.md": f"{number}\n"})
    repo = maker.write()
    ingest_git(db, repo, embedder=None)

    assert ingest_git(db, repo, rev="c1", embedder=None).elsewhere == 0
    assert ingest_git(db, repo, embedder=None).elsewhere == 0


def test_what_a_shallow_clone_lacks_is_not_elsewhere(db, maker, tmp_path):
    for number in range(4):
        maker.commit(100 * number, {"a.md": f"{number}\n"})
    repo = maker.write()
    shallow = tmp_path / "shallow"
    ingest_git(db, repo, embedder=None)
    subprocess.run(
        ["git", "clone", "-q", "--depth=2", repo.as_uri(), str(shallow)],
        check=True, capture_output=True,
    )  # fmt: skip

    report = ingest_git(db, shallow, embedder=None)

    assert (report.is_shallow, report.elsewhere) == (True, 0)
