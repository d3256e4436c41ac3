"""Another model for a namespace: present answers move to it, past ones stay, nobody is harmed."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import koru_delta
from koru_delta import AsyncDatabase, Database, errors
from koru_delta.ingest import ingest_git, origin
from koru_delta.ingest.reembed import ROUNDS
from koru_delta.testing import FixedClock, HashEmbedder
from tests.ingest.history_maker import HistoryMaker

PROJECT = Path(__file__).parents[2]
NEW = HashEmbedder(16)
DAY = 86_400_000_000  # microseconds
TEXTS = ["the red gate", "a blue door", "one green fence", "two old walls", "a wide field"]


class Counting:
    """Embeds words, with a note of what it was given; `before` may do something meanwhile."""

    def __init__(self, before: Callable[[list[str]], None] = lambda _: None) -> None:
        self.batches: list[list[str]] = []
        self._before = before

    def __call__(self, texts: list[str]) -> npt.NDArray[np.float32]:
        self.batches.append(list(texts))
        self._before(texts)
        return NEW(texts)

    @property
    def texts(self) -> list[str]:
        return [text for batch in self.batches for text in batch]


@pytest.fixture
def db(clock: FixedClock) -> Iterator[Database]:
    with koru_delta.open(clock=clock, author="me") as database:
        yield database


def fill(db: Database, texts: Sequence[str] = TEXTS) -> None:
    old = HashEmbedder(32)(texts)
    for number, text in enumerate(texts):
        db.embed("docs", f"k{number}", old[number], {"text": text}, model="old")


def vector(text: str) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = NEW([text])[0]
    return found


def models(db: Database, key: str, namespace: str = "docs", **moment: Any) -> set[str]:
    return set(db.version(namespace, key, **moment).vectors)


# What it writes


def test_the_present_is_answered_by_the_new_model_and_the_past_by_the_old(db):
    fill(db)
    then = db.commits()[-1]
    before = db.similar("docs", HashEmbedder(32)(["red gate"])[0], k=2)

    assert db.reembed("docs", "new", NEW) == len(TEXTS)

    assert [hit.key for hit in db.similar("docs", vector("red gate"), k=1)] == ["k0"]
    assert db.similar("docs", vector(TEXTS[1]), k=1)[0].score == pytest.approx(1)
    past = db.similar("docs", HashEmbedder(32)(["red gate"])[0], k=2, as_of=then)
    assert [(hit.key, hit.score) for hit in past] == [(hit.key, hit.score) for hit in before]
    with pytest.raises(errors.DimensionMismatchError):
        db.similar("docs", vector("red gate"), as_of=then)


def test_a_version_keeps_the_value_and_names_the_one_it_comes_from(db):
    fill(db)
    before = db.version("docs", "k1")

    db.reembed("docs", "new", NEW, author="Ada", run="move")

    after = db.version("docs", "k1")
    assert after.value == before.value
    assert set(after.vectors) == {"new"}
    assert [(cause.kind, cause.id) for cause in after.causes] == [("derived_from", before.id)]
    assert (after.author, after.message, after.run) == ("Ada", "embed with new", "move")
    assert db.vectors(after)["new"].tolist() == vector(TEXTS[1]).tolist()


def test_only_present_keys_with_a_vector_are_embedded(db):
    fill(db)
    db.put("docs", "plain", {"text": "no vector"})
    db.delete("docs", "k0")
    db.put("docs", "k1", {"text": "its vector was dropped"})
    embedder = Counting()

    assert db.reembed("docs", "new", embedder) == 3

    assert embedder.texts == TEXTS[2:]
    assert models(db, "plain") == set()
    assert db.reembed("nothing", "new", embedder) == 0


def test_all_the_old_models_go(db):
    fill(db, TEXTS[:1])
    db.embed("docs", "k0", [1.0, 2.0], model="other")
    db.embed("docs", "k0", vector("something else"), model="new")

    assert db.reembed("docs", "new", NEW) == 1

    assert models(db, "k0") == {"new"}
    assert db.vectors(db.version("docs", "k0"))["new"].tolist() == vector(TEXTS[0]).tolist()


def test_the_text_of_a_key_is_its_value_its_text_or_its_json(db):
    for key, value in {
        "a": "a string", "b": {"text": "a text", "n": 1}, "c": {"text": 5, "a": [1]}, "d": 2.5,
    }.items():  # fmt: skip
        db.embed("docs", key, [1.0], value)
    embedder = Counting()

    db.reembed("docs", "new", embedder)

    assert embedder.texts == ["a string", "a text", '{"a":[1],"text":5}', "2.5"]


def test_text_may_be_chosen_by_the_caller(db):
    fill(db)
    embedder = Counting()

    db.reembed("docs", "new", embedder, text=lambda key, value: f"{key}: {value['text']}")

    assert embedder.texts[:2] == ["k0: the red gate", "k1: a blue door"]
    with pytest.raises(errors.InvalidDataError, match="returns a string"):
        db.reembed("docs", "newer", embedder, text=lambda _key, _value: 7)  # type: ignore[arg-type, return-value]


def test_a_key_that_holds_null_is_refused_before_anything_is_written(db):
    fill(db)
    db.embed("docs", "z", [1.0], model="bare")
    end = db.stats()["seq"]
    embedder = Counting()

    with pytest.raises(errors.InvalidDataError, match="'z' in 'docs' holds null"):
        db.reembed("docs", "new", embedder, batch=2)

    assert (embedder.texts, db.stats()["seq"]) == ([], end)
    assert db.reembed("docs", "new", embedder, text=lambda key, _: key) == len(TEXTS) + 1


def test_a_new_model_measures_as_the_others_do(db):
    db.embed("l2", "k", [1.0, 2.0], "text", metric="l2")
    db.embed("two", "k", [1.0, 2.0], "text", metric="l2", model="one")
    db.embed("two", "j", [1.0, 2.0], "text", metric="dot", model="two")

    db.reembed("l2", "new", NEW)
    db.reembed("two", "new", NEW)

    assert db.version("l2", "k").vectors["new"]["metric"] == "l2"
    assert db.version("two", "k").vectors["new"]["metric"] == "cosine"


def test_any_kind_of_embedder_will_do(db):
    async def later(texts: list[str]) -> npt.NDArray[np.float32]:
        return NEW(texts)

    fill(db)

    assert db.reembed("docs", "async", later) == len(TEXTS)
    assert db.reembed("docs", "own", koru_delta.embedders.as_embedder(NEW)) == len(TEXTS)
    assert models(db, "k0") == {"own"}
    assert db.verify().ok


async def test_it_can_be_awaited_and_others_write_meanwhile():
    async with await AsyncDatabase.open() as adb:
        await adb.embed_many("docs", [(f"k{n}", [1.0], text) for n, text in enumerate(TEXTS)])
        seen: list[int] = []
        tell = lambda done, _total: seen.append(done)  # noqa: E731
        assert await adb.reembed("docs", "new", NEW, batch=2, progress=tell) == len(TEXTS)
        assert seen == [2, 4, 5]
        assert (await adb.similar("docs", vector(TEXTS[3]), k=1))[0].key == "k3"


# Batches, progress, going on


def test_each_batch_is_one_commit_and_one_call(db):
    fill(db)
    commits = len(db.commits())
    embedder = Counting()
    told: list[tuple[int, int]] = []

    db.reembed("docs", "new", embedder, batch=2, progress=lambda *so_far: told.append(so_far))

    assert [len(batch) for batch in embedder.batches] == [2, 2, 1]
    assert [commit.size for commit in db.commits()[commits:]] == [2, 2, 1]
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_a_run_that_failed_is_ended_by_the_same_call(db):
    fill(db)

    def refuse(texts: list[str]) -> None:
        if TEXTS[2] in texts:
            raise TimeoutError("no answer")

    with pytest.raises(errors.EmbedderError, match=r"keys 'k2' to 'k3' of 'docs'.*before stays"):
        db.reembed("docs", "new", Counting(refuse), batch=2)
    half = [models(db, f"k{number}") for number in range(5)]
    rest = Counting()

    assert half == [{"new"}, {"new"}, {"old"}, {"old"}, {"old"}]
    assert db.reembed("docs", "new", rest, batch=2) == 3
    assert rest.texts == TEXTS[2:]
    assert db.reembed("docs", "new", rest) == 0
    assert db.verify().ok


def test_a_killed_run_is_ended_by_the_same_call(tmp_path):
    path = tmp_path / "db"
    with koru_delta.open(path) as db:
        fill(db, [f"text {number}" for number in range(200)])
    code = (
        "import sys, time, koru_delta\n"
        "from koru_delta.testing import HashEmbedder\n"
        "def slow(texts):\n"
        "    time.sleep(0.02)\n"
        "    return HashEmbedder(16)(texts)\n"
        "tell = lambda done, total: print(done, flush=True)\n"
        "koru_delta.open(sys.argv[1]).reembed('docs', 'new', slow, batch=10, progress=tell)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    ) as working:  # fmt: skip
        assert working.stdout is not None
        while working.stdout.readline() != "50\n":
            pass
        working.kill()

    with koru_delta.open(path) as db:
        done = [key for key in db.list_keys("docs") if models(db, key) == {"new"}]
        assert 50 <= len(done) < 200
        assert len(done) % 10 == 0
        assert db.reembed("docs", "new", NEW) == 200 - len(done)
        assert db.stats()["versions"] == 400
        assert db.verify().ok


def test_what_is_written_after_it_is_embedded_again_by_the_same_call(db):
    fill(db)
    db.reembed("docs", "new", NEW)
    db.embed("docs", "k1", HashEmbedder(32)(["changed"])[0], "changed", model="old")
    embedder = Counting()

    assert db.reembed("docs", "new", embedder) == 1
    assert embedder.texts == ["changed"]


@pytest.mark.parametrize("batch", [0, -1, 1.5, True])
def test_a_batch_of_nothing_is_refused(db, batch):
    with pytest.raises(errors.InvalidDataError, match="batch"):
        db.reembed("docs", "new", NEW, batch=batch)


def test_a_read_only_handle_refuses_before_it_embeds(tmp_path):
    with koru_delta.open(tmp_path / "db") as db:
        fill(db)
    embedder = Counting()
    with (
        koru_delta.open(tmp_path / "db", read_only=True) as db,
        pytest.raises(errors.ReadOnlyError),
    ):
        db.reembed("docs", "new", embedder)
    assert embedder.texts == []


def test_vectors_that_do_not_fit_the_model_are_refused(db):
    fill(db)
    db.embed("docs", "first", [1.0, 2.0], "two numbers", model="new")

    with pytest.raises(errors.DimensionMismatchError):
        db.reembed("docs", "new", NEW)
    assert models(db, "k0") == {"old"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("keys", "progress", "terminal", "bar"),
    [
        (5, None, True, False), (5, True, True, True), (1100, None, True, True),
        (1100, None, False, False), (1100, False, True, False),
    ],
)  # fmt: skip
def test_a_bar_is_shown_for_many_keys_on_a_terminal(db, monkeypatch, keys, progress, terminal, bar):
    db.embed_many("docs", [(f"k{n}", [1.0], f"text {n}") for n in range(keys)])
    out = Terminal() if terminal else io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", out)

    db.reembed("docs", "new", NEW, progress=progress)

    assert ("embedding" in out.getvalue()) is bar


# Others who write


def test_what_somebody_writes_meanwhile_is_not_overwritten_but_embedded(db):
    fill(db)
    todo = ["write", "delete", "own"]

    def meddle(_texts: list[str]) -> None:
        if todo:
            todo.clear()
            db.embed("docs", "k0", HashEmbedder(32)(["fresh"])[0], {"text": "fresh"}, model="old")
            db.delete("docs", "k1")
            db.put("docs", "k2", {"text": "without a vector"})
            db.embed("docs", "k3", vector("theirs"), {"text": "theirs"}, model="new")

    embedder = Counting(meddle)

    assert db.reembed("docs", "new", embedder) == 2

    assert embedder.batches == [TEXTS, ["fresh"]]
    assert db.get("docs", "k0") == {"text": "fresh"}
    assert db.vectors(db.version("docs", "k0"))["new"].tolist() == vector("fresh").tolist()
    assert not db.contains("docs", "k1")
    assert (db.get("docs", "k2"), models(db, "k2")) == ({"text": "without a vector"}, set())
    assert db.get("docs", "k3") == {"text": "theirs"}
    assert models(db, "k4") == {"new"}


def test_a_key_that_never_rests_is_given_up_and_the_others_are_done(db):
    fill(db)
    number = 0

    def hurry(_texts: list[str]) -> None:
        nonlocal number
        number += 1
        old = HashEmbedder(32)([f"haste {number}"])[0]
        db.embed("docs", "k1", old, {"text": f"haste {number}"}, model="old")

    with pytest.raises(errors.IngestError, match=f"'k1' in 'docs'.*{ROUNDS} times"):
        db.reembed("docs", "new", Counting(hurry))

    assert db.get("docs", "k1") == {"text": f"haste {number}"}
    assert [models(db, f"k{n}") for n in (0, 2, 3, 4)] == [{"new"}] * 4
    assert db.reembed("docs", "new", NEW) == 1


def test_two_at_once_do_the_work_once(db):
    fill(db)
    other: list[int] = []

    def both(_texts: list[str]) -> None:
        if not other:
            other.append(0)
            other[0] = db.reembed("docs", "new", NEW)

    assert db.reembed("docs", "new", Counting(both)) == 0
    assert other == [len(TEXTS)]
    assert len(db.history("docs", "k0")) == 2


# Times


def test_an_end_of_life_stays_where_it_was(db, clock):
    db.embed("docs", "k", [1.0], "mortal", ttl=100, model="old")
    ends = db.version("docs", "k").expires_at
    clock.advance(seconds=40)

    db.reembed("docs", "new", NEW)

    clock.now = int(ends.timestamp()) * 1_000_000 - 1
    assert db.get("docs", "k") == "mortal"
    assert [hit.key for hit in db.similar("docs", vector("mortal"))] == ["k"]
    clock.advance(microseconds=1)
    assert not db.contains("docs", "k")
    assert db.list_keys("docs") == []
    assert not db.similar("docs", vector("mortal"), model="new")
    assert not db.similar("docs", [1.0], model="old")
    clock.advance(seconds=1)
    assert not db.contains("docs", "k", valid_at=ends - timedelta(seconds=1))


def test_a_valid_interval_stays(db, clock):
    starts = datetime(2020, 1, 1, tzinfo=UTC)
    ends = datetime(2030, 1, 1, tzinfo=UTC)
    db.embed("docs", "k", [1.0], "bounded", valid_from=starts, valid_to=ends, model="old")
    db.embed("docs", "j", [1.0], "open", model="old")
    clock.advance(seconds=10)

    db.reembed("docs", "new", NEW)

    version = db.version("docs", "k")
    assert (version.valid_from, version.valid_to) == (starts, ends)
    assert models(db, "k", valid_at="2020-01-01T00:00:00Z") == {"new"}
    assert not db.contains("docs", "k", valid_at=ends)
    free = db.version("docs", "j").record()
    assert "valid_from" not in free
    assert "valid_to" not in free


def test_what_is_planned_and_what_was_told_of_the_past_still_hold(db, clock):
    db.embed("docs", "k", [1.0], "now", valid_from="2020-01-01T00:00:00Z", model="old")
    db.put("docs", "k", "once", valid_from="2021-01-01T00:00:00Z", valid_to="2022-01-01T00:00:00Z")
    db.put("docs", "k", "planned", valid_from="2030-01-01T00:00:00Z")
    years = [f"{year}-06-01T00:00:00Z" for year in (2019, 2020, 2021, 2022, 2026, 2031)]
    before = [db.get("docs", "k", None, valid_at=year) for year in years]

    assert db.reembed("docs", "new", NEW) == 1

    assert [db.get("docs", "k", None, valid_at=year) for year in years] == before
    assert models(db, "k", valid_at=years[3]) == {"new"}
    assert models(db, "k", valid_at=years[1]) == {"old"}  # on the other side of what came between


def live_through(db: Database, clock: FixedClock) -> None:
    """Write a history with valid times, planned, back-dated and mortal values, and deletes."""
    rng, base = random.Random(3), clock.now
    for step in range(300):
        clock.advance(seconds=rng.randrange(1, 1000))
        key = f"k{rng.randrange(12)}"
        options: dict[str, Any] = {}
        if rng.random() < 0.5:
            first = base + rng.randrange(-20, 20) * DAY
            options["valid_from"] = when(first)
            if rng.random() < 0.5:
                options["valid_to"] = when(first + rng.randrange(1, 20) * DAY)
        if rng.random() < 0.15:
            if db.contains("docs", key):
                db.delete("docs", key, **options)
            continue
        if rng.random() < 0.2:
            options["ttl"] = rng.randrange(1, 30) * 86_400.0
        if rng.random() < 0.7:
            db.embed("docs", key, [1.0, 2.0], f"value {step}", model="old", **options)
        else:
            db.put("docs", key, f"value {step}", **options)


def test_no_value_at_any_time_changes_whatever_the_history():
    clocks = FixedClock(), FixedClock()
    base = clocks[0].now
    with koru_delta.open(clock=clocks[0]) as db, koru_delta.open(clock=clocks[1]) as other:
        for one, clock in zip((db, other), clocks, strict=True):
            live_through(one, clock)
        keys = [f"k{number}" for number in range(12)]
        ends = [v.expires_at for v in db.changes() if v.expires_at is not None]
        marks = [when(base + quarter * DAY // 4) for quarter in range(-100, 200)]
        marks += [end + timedelta(microseconds=step) for end in ends for step in (-1, 0)]
        then = db.commits()[-1]
        held = {key for key in db.list_keys("docs") if models(db, key)}

        assert db.reembed("docs", "new", NEW, batch=5) == len(held) > 5

        assert {key for key in db.list_keys("docs") if models(db, key) == {"new"}} == held
        for mark in marks:
            expected = other.get_many("docs", keys, valid_at=mark)
            assert db.get_many("docs", keys, valid_at=mark) == expected
            assert db.get_many("docs", keys, valid_at=mark, as_of=then) == expected
        states = set()
        for days in range(1, 40):  # what is planned comes, what is mortal ends
            for clock in clocks:
                clock.now = base + days * DAY + DAY // 2
            expected = [(row.key, row.value) for row in other.query("docs")]
            assert [(row.key, row.value) for row in db.query("docs")] == expected
            states.add(str(expected))
        assert len(states) > 5
        assert db.verify().ok


def when(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


# Ingested texts


def test_an_ingested_chunk_still_tells_its_commit(tmp_path):
    maker = HistoryMaker(tmp_path / "made")
    maker.commit(100, {"a.md": "It rains on the plain.\n"})
    with koru_delta.open(embedder=HashEmbedder(32)) as db:
        ingest_git(db, maker.write(), embedder=HashEmbedder(32))
        assert db.reembed("docs.chunks", "new", NEW) == 1
        assert db.reembed("docs.chunks", "newer", NEW) == 1

        [match] = db.similar("docs.chunks", vector("rains"), k=1, model="newer")
        assert origin(db, "docs", match.version).commit == maker.commits[0].sha
        names = [cause.kind for cause in match.version.causes]
        assert names == ["derived_from", "derived_from"]  # the version before, and the document
