"""Files of text indexes are only ever a cache; writers, readers and processes share a directory."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import koru_delta
from koru_delta import Database
from koru_delta.search import texts
from koru_delta.search.text.analysis import Analyzer
from koru_delta.search.text.postings import Postings
from tests.search.histories import WORDS, Clause, bm25, question, written
from tests.test_fork import in_child

COUNT = 300
ALL = 10_000


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(texts, "SAVE_SLOTS", 50)
    monkeypatch.setattr(texts, "_BODIES_AT_ONCE", 20)
    return monkeypatch


def a_text(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(1, 9)))


def fill(path: Path, seed: int, count: int = COUNT) -> Path:
    chance = random.Random(seed)
    with koru_delta.open(path, durability="relaxed") as db:
        db.put_many([("n", f"k{n:03}", {"text": a_text(chance)}) for n in range(count)])
        assert db.search("n", "rain", mode="text")
        db.put_many([("n", f"k{n:03}", {"text": a_text(chance)}) for n in range(0, count, 3)])
        db.delete_many("n", [f"k{n:03}" for n in range(0, count, 7)])
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("made") / "db", 1)


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Iterator[Path]:
    copy = tmp_path / "db"
    shutil.copytree(made, copy)
    return copy


QUERIES: list[list[Clause]] = [question(random.Random(n)) for n in range(12)]


def check(db: Database, namespace: str = "n") -> None:
    """Searches by words against the formula over what the log says is there."""
    (last,) = db.commits(reverse=True, limit=1)  # others may be writing
    held = {row.key: row.value["text"].split() for row in db.query(namespace, as_of=last)}
    for query in QUERIES:
        expected = bm25(query, held, None)
        found = db.search(namespace, written(query), mode="text", k=ALL, as_of=last)
        assert {hit.key: hit.score for hit in found} == pytest.approx(expected, rel=1e-12)
        assert db.count(namespace, text=written(query), as_of=last) == len(expected)


def files(path: Path) -> list[Path]:
    return sorted((path / "index" / "text").glob("*.kdx"))


def test_the_next_process_goes_on_from_the_file(path: Path, monkeypatch: Any) -> None:
    (file,) = files(path)
    assert file.stat().st_mode & 0o777 == 0o600
    read: list[int] = []
    add = Postings.add

    def counted(self: Postings, documents: Any) -> None:
        documents = list(documents)
        read.append(len(documents))
        add(self, documents)

    monkeypatch.setattr(Postings, "add", counted)
    with koru_delta.open(path) as db:
        check(db)
        assert sum(read) < COUNT // 2  # what the file lacks


Harm = Callable[[Path, Path], None]


def _another(path: Path, file: Path) -> None:
    other = fill(path.parent / "other", 2)
    shutil.copy(files(other)[0], file)


def _of_another_namespace(path: Path, file: Path) -> None:
    other = path.parent / "other"
    with koru_delta.open(other, durability="relaxed") as db:
        db.put_many([("m", f"k{n}", {"text": "rain"}) for n in range(COUNT)])
        db.search("m", "rain", mode="text")
    shutil.copy(files(other)[0], file)


def _longer_log(path: Path, file: Path) -> None:
    """A file of a log that goes on where this one ends."""
    other = path.parent / "other"
    shutil.copytree(path, other)
    with koru_delta.open(other, durability="relaxed") as db:
        db.put_many([("n", f"new{n}", {"text": "rain sun"}) for n in range(COUNT)])
        db.search("n", "rain", mode="text")
    shutil.copy(files(other)[0], file)


HARMS: dict[str, Harm] = {
    "deleted": lambda path, file: file.unlink(),
    "the folder is deleted": lambda path, file: shutil.rmtree(file.parent),
    "emptied": lambda path, file: file.write_bytes(b""),
    "cut short": lambda path, file: os.truncate(file, file.stat().st_size - 1),
    "cut to its head": lambda path, file: os.truncate(file, 100),
    "of noise": lambda path, file: file.write_bytes(os.urandom(9000)),
    "a folder": lambda path, file: (file.unlink(), file.mkdir())[1],
    "of another database": _another,
    "of another namespace": _of_another_namespace,
    "of a longer log": _longer_log,
    "longer": lambda path, file: file.write_bytes(file.read_bytes() + b"\0" * 5000),
}


@pytest.mark.parametrize("harm", HARMS)
def test_whatever_becomes_of_the_file_answers_are_right(path: Path, harm: str) -> None:
    HARMS[harm](path, files(path)[0])
    for _ in range(2):
        with koru_delta.open(path, durability="relaxed") as db:
            check(db)
            db.put("n", "k001", {"text": "rain rain sun"})
            check(db)


def test_a_flipped_bit_anywhere_changes_no_answer(path: Path) -> None:
    chance = random.Random(3)
    (file,) = files(path)
    whole = file.read_bytes()
    for _ in range(40):
        data = bytearray(whole)
        data[chance.choice([chance.randrange(len(data)), chance.randrange(2000)])] ^= 1 << (
            chance.randrange(8)
        )
        file.write_bytes(data)
        with koru_delta.open(path, read_only=True) as db:
            found = db.search("n", "rain run*", mode="text", k=ALL)
            held = {row.key: row.value["text"].split() for row in db.query("n")}
            query = [Clause("", ("rain",)), Clause("", ("run",), prefix=True)]
            assert {hit.key: hit.score for hit in found} == pytest.approx(bm25(query, held, None))


def test_a_file_made_by_other_rules_is_not_taken(path: Path, monkeypatch: Any) -> None:
    begin = Analyzer.__init__

    def other_rules(self: Analyzer, stemmer: str | None = None) -> None:
        begin(self, stemmer)
        self.signature += ":other"

    terms = Analyzer.terms
    monkeypatch.setattr(Analyzer, "__init__", other_rules)
    monkeypatch.setattr(Analyzer, "terms", lambda self, text: terms(self, text.replace("u", "a")))
    with koru_delta.open(path, durability="relaxed") as db:
        assert db.search("n", "san", mode="text")
        assert db.search("n", "sun", mode="text", syntax=False) == []
    monkeypatch.undo()
    with koru_delta.open(path) as db:
        check(db)


def test_a_handle_that_only_reads_takes_the_file_and_writes_none(path: Path) -> None:
    def listed() -> list[tuple[str, int, int]]:
        every = sorted(each for each in path.rglob("*") if each.is_file())
        return [(e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in every
                if not e.name.startswith("log.db")]  # fmt: skip

    with koru_delta.open(path, durability="relaxed") as db:
        db.put_many([("n", f"late{n}", {"text": "rain sun rain"}) for n in range(200)])
    before = listed()
    with koru_delta.open(path, read_only=True) as db:
        check(db)
    assert listed() == before
    shutil.rmtree(path / "index")
    with koru_delta.open(path, read_only=True) as db:
        check(db)
    assert not (path / "index" / "text").exists()


def test_where_no_file_can_be_written_searches_go_on_until_one_can(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = path / "index" / "text"
    shutil.rmtree(folder)
    folder.write_text("in the way")
    with koru_delta.open(path, durability="relaxed") as db:
        check(db)
        db.put_many([("n", f"late{n}", {"text": "rain sun rain"}) for n in range(200)])
        check(db)
        folder.unlink()
    told = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert sum("words of 'n' are not kept" in each for each in told) == 1
    assert len(files(path)) == 1


# Writers that end in the middle


def _until_killed(path: Path, seed: int) -> None:
    chance = random.Random(seed)
    while True:
        with koru_delta.open(path, durability="relaxed") as db:
            for _ in range(3):
                db.put_many([("n", f"k{chance.randrange(COUNT):03}", {"text": a_text(chance)})
                             for _ in range(60)])  # fmt: skip
                db.search("n", "rain", mode="text")


def test_a_writer_that_is_killed_leaves_right_answers(path: Path) -> None:
    chance = random.Random()
    for turn in range(6):
        child = os.fork()
        if child == 0:
            try:
                _until_killed(path, turn)
            except BaseException:  # noqa: BLE001 - nothing may unwind into the parent's frames
                traceback.print_exc()
            finally:
                os._exit(1)
        time.sleep(0.1 + 0.4 * chance.random())
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        with koru_delta.open(path, durability="relaxed") as db:
            check(db)
            db.put_many([("n", f"k{n:03}", {"text": a_text(chance)}) for n in range(120)])
            check(db)
        assert not list((path / "index").rglob(".tmp-*"))


STEPS: dict[str, tuple[Any, str]] = {
    "taking a text apart": (Analyzer, "terms"),
    "adding words": (Postings, "_append"),
    "finding texts": (texts.TextSettings, "text_of"),
    "saving": (texts.TextIndex, "_save"),
    "numbering": (texts.Records, "_number"),
    "laying out rows": (texts.Records, "_slot_of"),
}


@pytest.mark.parametrize("step", STEPS)
def test_an_interrupted_search_leaves_right_answers(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    owner, name = STEPS[step]
    plain = getattr(owner, name)
    chance = random.Random(8)
    with koru_delta.open(path, durability="relaxed") as db:
        check(db)
        for at in (1, 2, 7, 31):
            fresh = [("n", f"new{at} {n}", {"text": a_text(chance)}) for n in range(100)]
            db.put_many([*fresh, ("n", "k002", {"text": f"hail word{at}"})])
            left = [at]

            def interrupted(
                *given: Any, left: list[int] = left, plain: Any = plain, **more: Any
            ) -> Any:
                left[0] -= 1
                if left[0] == 0:
                    raise KeyboardInterrupt
                return plain(*given, **more)

            with monkeypatch.context() as patch:
                patch.setattr(owner, name, interrupted)
                for _ in range(2):
                    try:
                        db.search("n", "rain", mode="text")
                    except KeyboardInterrupt:
                        continue
            db.put("n", f"after{at}", {"text": "rain fog"})
            check(db)
    with koru_delta.open(path, read_only=True) as db:
        check(db)


# Several at once


def test_two_processes_write_and_search_one_directory(path: Path) -> None:
    def other() -> None:
        chance = random.Random(5)
        with koru_delta.open(path, durability="relaxed") as mine:
            for n in range(40):
                mine.put("n", f"other{n:02}", {"text": a_text(chance) + f" own{n}"})
                assert [h.key for h in mine.search("n", f"own{n}", mode="text")] == [f"other{n:02}"]
                if n % 10 == 0:
                    check(mine)

    child = os.fork()
    if child == 0:
        try:
            signal.alarm(60)
            other()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - as above
            traceback.print_exc()
        finally:
            os._exit(1)
    chance = random.Random(6)
    with koru_delta.open(path, durability="relaxed") as db:
        for n in range(40):
            db.put("n", f"mine{n:02}", {"text": a_text(chance) + f" word{n}"})
            assert [h.key for h in db.search("n", f"word{n}", mode="text")] == [f"mine{n:02}"]
        assert os.waitpid(child, 0)[1] == 0
        for n in range(40):
            assert [h.key for h in db.search("n", f"own{n}", mode="text")] == [f"other{n:02}"]
        check(db)


def test_a_forked_child_searches_what_both_have_written(path: Path) -> None:
    with koru_delta.open(path, durability="relaxed") as db:
        check(db)
        db.put("n", "parent", {"text": "rain parent"})

        def child() -> None:
            assert [hit.key for hit in db.search("n", "parent", mode="text")] == ["parent"]
            db.put("n", "child", {"text": "rain child"})
            check(db)

        in_child(child)
        assert [hit.key for hit in db.search("n", "child", mode="text")] == ["child"]
        check(db)


def test_a_fork_while_others_search_leaves_a_child_that_can(path: Path) -> None:
    with koru_delta.open(path, durability="relaxed") as db:
        stop = threading.Event()

        def work() -> None:
            chance = random.Random(1)
            while not stop.is_set():
                db.put("n", "busy", {"text": a_text(chance)})
                db.search("n", "rain", mode="text")

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(4):
                in_child(lambda: check(db))
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)


def test_threads_that_write_and_search_lose_nothing(path: Path) -> None:
    problems: list[str] = []
    until = time.monotonic() + 4

    with koru_delta.open(path, durability="relaxed") as db:
        (first, *_) = db.commits()
        past = db.search("n", "rain", mode="text", as_of=first)

        def work(number: int) -> None:
            chance = random.Random(number)
            n = 0
            try:
                while time.monotonic() < until:
                    n += 1
                    key, word = f"t{number}-{n}", f"only{number}x{n}"
                    db.put("n", key, {"text": f"{a_text(chance)} {word}"})
                    for mode in ("text", "hybrid"):
                        found = [h.key for h in db.search("n", word, mode=mode)]  # type: ignore[arg-type]
                        assert found == [key], (word, found)
                    assert [h.key for h in db.search("n", f"{word}*", mode="text")] == [key]
                    assert db.count("n", {"text": {"$like": f"%{word}"}}) == 1
                    assert db.search("n", "rain", mode="text", as_of=first) == past
            except BaseException:  # noqa: BLE001 - whatever it is, it is reported
                problems.append(traceback.format_exc())

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert not problems, problems[0]
        check(db)
    with koru_delta.open(path, read_only=True) as db:
        check(db)
