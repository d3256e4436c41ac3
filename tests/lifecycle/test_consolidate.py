"""Old events become one summary in one commit, and one call makes them as they were."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import koru_delta
from koru_delta import Consolidate, Consolidation, Database, errors
from koru_delta.lifecycle import Policy, facade, jobs
from koru_delta.lifecycle.grouping import portions
from koru_delta.testing import FixedClock, HashEmbedder
from tests.worker import ROOT

DAY = timedelta(days=1)
SOON = Consolidate(older_than=DAY, at_least=2, below=0.5)
TEXTS = (
    "Ann asked for the quarterly report. She was in a hurry.",
    "The quarterly report lacked the figures of March.",
    "Bob sent the figures of March. Thanks!",
    "Ann was happy with the quarterly report.",
    "Lunch was soup.",
)
SUMMARY = (
    "The quarterly report lacked the figures of March.\nAnn was happy with the quarterly report."
)


def later(clock: FixedClock, days: float = 31) -> None:
    clock.advance(seconds=days * 86_400)


def run(db: Database) -> list[Consolidation]:
    found: list[Consolidation] = db.lifecycle.run_once("consolidate")
    return found


def events(db: Database, session: str = "s1", texts: Sequence[str] = TEXTS) -> list[str]:
    """Put a session of events; their keys."""
    keys = [f"{session}-{number}" for number in range(len(texts))]
    for key, text in zip(keys, texts, strict=True):
        db.embed("log", key, text, {"text": text, "session": session, "tags": [key[-1]]})
    return keys


def shown(db: Database, **moment: Any) -> list[str]:
    return [row.key for row in db.query("log", **moment)]


@pytest.fixture
def plain(clock: FixedClock) -> Iterator[Database]:
    with koru_delta.open(clock=clock) as database:
        yield database


# What is made


def test_a_session_of_old_events_becomes_a_summary_of_all_of_them(
    db: Database, clock: FixedClock
) -> None:
    keys = events(db)
    db.put("log", "other", {"text": "Nothing of this kind.", "session": "s2"})
    db.lifecycle.policy("log", consolidate=Consolidate(sentences=2))
    assert run(db) == []
    later(clock)
    then = db.stats()["seq"]
    held = {key: db.version("log", key) for key in keys}

    [made] = run(db)

    summary = made.summary
    assert (made.namespace, made.keys) == ("log", tuple(keys))
    assert made.sources == tuple(version.id for version in held.values())
    assert summary.causes == tuple(("derived_from", each) for each in made.sources)
    assert summary.value == {
        "text": SUMMARY, "session": "s1", "tags": ["0", "1", "2", "3", "4"], "summary_of": 5
    }  # fmt: skip
    assert summary.message == "summary of 5 items, by sentences taken from them"
    assert summary.valid_from == held["s1-4"].valid_from
    assert db.get("log", made.key) == summary.value
    [vector] = db.vectors(summary).values()
    assert np.array_equal(vector, HashEmbedder()([SUMMARY])[0])

    assert shown(db) == [made.key, "other"]
    assert [match.key for match in db.search("log", "figures in March", mode="text")] == [made.key]
    assert db.similar("log", TEXTS[2], k=1)[0].key == made.key
    assert {key: db.version("log", key) for key in keys} == held
    [_, hidden] = db.history("log", "s1-2", include_annotations=True)
    assert (hidden.target, hidden.message) == (held["s1-2"].id, f"consolidated into {made.key!r}")
    assert db.ancestors(summary) == list(held.values())
    assert db.descendants(held["s1-0"]) == [summary]

    assert shown(db, as_of=then) == ["other", *keys]
    assert db.search("log", "the figures of March", as_of=then)[0].key == "s1-2"
    [commit] = db.commits(after=then)
    assert commit.size == 7
    assert db.lifecycle.consolidations() == db.lifecycle.consolidations("log") == [made]
    assert db.lifecycle.consolidations("other") == []
    assert db.lifecycle.consolidations(as_of=then) == []
    assert run(db) == []
    assert db.verify().ok


def test_undo_brings_all_back_in_one_commit_and_again_does_nothing(
    db: Database, clock: FixedClock
) -> None:
    keys = events(db)
    later(clock)
    before = shown(db), list(db.search("log", "quarterly report")), db.list_keys("log")
    later(clock)
    db.lifecycle.policy("log", consolidate=SOON)
    [made] = run(db)
    between = db.stats()["seq"]

    back = db.lifecycle.undo(made, author="ann", message="not yet")

    assert [version.id for version in back] == list(made.sources)
    assert (shown(db), list(db.search("log", "quarterly report")), db.list_keys("log")) == before
    [commit] = db.commits(after=between)
    assert (commit.size, commit.author, commit.message) == (7, "ann", "not yet")
    assert db.lifecycle.undo(made) == []
    assert db.lifecycle.undo(made.summary) == db.lifecycle.undo([made.summary.id[:12]]) == []
    assert shown(db, as_of=between) == [made.key]
    assert db.lifecycle.consolidations() == []
    assert db.lifecycle.consolidations(as_of=between) == [made]
    with pytest.raises(errors.KeyNotFoundError):
        db.get("log", made.key, valid_at=made.summary.valid_from)

    assert run(db) == []  # they count as new
    later(clock)
    [again] = run(db)
    assert again.keys == tuple(keys)
    assert again.key != made.key
    assert again.summary.value == made.summary.value


def test_several_are_undone_by_ids_in_one_call(db: Database, clock: FixedClock) -> None:
    keys = [*events(db, "a"), *events(db, "b")]
    later(clock)
    db.lifecycle.policy("log", consolidate=SOON)
    one, other = run(db)
    assert (one.keys, other.keys) == (tuple(keys[:5]), tuple(keys[5:]))

    back = db.lifecycle.undo([one.summary.id, other])

    assert [version.key for version in back] == keys == shown(db)


def test_nothing_is_consolidated_unless_it_is_wished(db: Database, clock: FixedClock) -> None:
    keys = events(db)
    later(clock)
    assert run(db) == []
    db.lifecycle.policy("log", consolidate=SOON)
    db.lifecycle.policy("log", consolidate=None)
    assert run(db) == []
    assert shown(db) == keys


# What is taken


def test_only_what_is_old_unimportant_and_lasting_is_taken(db: Database, clock: FixedClock) -> None:
    def put(key: str, value: Any = None, **options: Any) -> None:
        db.put("log", key, value or {"text": key, "session": 1}, **options)

    put("plain-1")
    put("plain-2")
    put("ends", ttl=100 * DAY)
    put("until", valid_to="2030-01-01T00:00:00Z")
    put("no text", {"session": 1})
    put("blank", {"text": " ", "session": 1})
    put("no session", {"text": "alone"})
    put("string", "only text")
    put("hidden")
    db.hide("log", "hidden")
    put("superseded")
    put("pinned")
    db.lifecycle.pin("log", "pinned")
    put("used")
    put("back")
    db.hide("log", "back")
    put("gone")
    db.delete("log", "gone")
    put("erased")
    db.erase(db.version("log", "erased"))
    put("other", {"text": "other", "session": "1"})
    later(clock)
    db.unhide("log", "back")
    put("new", causes=[("supersedes", db.version("log", "superseded"))])
    db.used(("log", "used"))
    db.lifecycle.policy("log", consolidate=SOON)

    [made] = run(db)

    assert made.keys == ("plain-1", "plain-2")
    assert made.summary.value == {"text": "plain-1\nplain-2", "session": 1, "summary_of": 2}


def test_what_is_important_enough_stays(db: Database, clock: FixedClock) -> None:
    events(db)
    later(clock)
    db.used([("log", "s1-0"), ("log", "s1-4")])
    db.lifecycle.policy("log", consolidate=Consolidate(older_than=DAY, at_least=3))
    assert run(db)[0].keys == ("s1-1", "s1-2", "s1-3")
    [made] = db.lifecycle.consolidations()
    db.lifecycle.undo(made)
    later(clock)
    wish = Consolidate(older_than=DAY, at_least=3, below=1.1)
    db.lifecycle.policy("log", consolidate=wish)
    assert run(db)[0].keys == ("s1-0", "s1-1", "s1-2", "s1-3", "s1-4")


def test_fields_make_groups_and_are_those_of_the_summary(
    plain: Database, clock: FixedClock
) -> None:
    for number in range(8):
        value = {
            "say": {"it": f"Number {number}.", "who": "ann"}, "n": number,
            "of": {"user": number % 2, "day": number // 4},
        }  # fmt: skip
        plain.put("log", f"event-{number}", value)
    plain.put("log", "note-1", {"say": {"it": "A note."}, "of": {"user": 0, "day": 0}})
    later(clock)
    wish = Consolidate(
        ["of.user", "of.day"], DAY, at_least=2, keys="event-*", text="say.it", sentences=1
    )
    plain.lifecycle.policy("log", consolidate=wish)

    made = run(plain)

    assert [each.keys for each in made] == [
        ("event-0", "event-2"), ("event-1", "event-3"), ("event-4", "event-6"),
        ("event-5", "event-7"),
    ]  # fmt: skip
    assert [each.summary.value for each in made][1] == {
        "say": {"it": "Number 1."}, "of": {"user": 1, "day": 0}, "summary_of": 2
    }  # fmt: skip
    assert all(each.key.startswith("event-2026") for each in made)
    assert not made[0].summary.vectors


def test_likeness_makes_groups_and_vectors_are_between_those_of_the_sources(
    plain: Database, clock: FixedClock
) -> None:
    places = {"a": [1, 0, 0], "b": [0, 1, 0], "c": [0.8, 0.6, 0], "d": [0, 0.9, 0.1],
              "e": [0, -1, 0]}  # fmt: skip
    for key, vector in places.items():
        clock.advance(seconds=1)
        plain.embed("log", key, vector, f"This is {key}.")
    plain.put("log", "f", "No vector.")
    later(clock)
    plain.lifecycle.policy(
        "log", consolidate=Consolidate([], DAY, at_least=2, alike=0.7, sentences=9)
    )

    one, other = run(plain)

    assert (one.keys, other.keys) == (("a", "c"), ("b", "d"))
    assert one.summary.value == "This is a.\nThis is c."
    [vector] = plain.vectors(one.summary).values()
    assert np.allclose(vector, np.array([1.8, 0.6, 0]) / np.hypot(1.8, 0.6), atol=1e-6)
    assert plain.similar("log", [1, 0, 0], k=1)[0].key == one.key
    assert shown(plain) == sorted([one.key, other.key, "e", "f"])


def test_a_long_session_becomes_several_summaries(plain: Database, clock: FixedClock) -> None:
    plain.put_many([("log", f"{n:03}", {"text": f"Number {n}.", "session": 1}) for n in range(250)])
    later(clock)
    plain.lifecycle.policy("log", consolidate=SOON)
    made = run(plain)
    assert [len(each.keys) for each in made] == [83, 83, 84] == [
        len(part) for part in portions([None] * 250)  # type: ignore[list-item]
    ]  # fmt: skip
    assert [key for each in made for key in each.keys] == [f"{n:03}" for n in range(250)]
    assert [each.summary.value["summary_of"] for each in made] == [83, 83, 84]  # type: ignore[index,call-overload]


def test_what_was_consolidated_is_of_least_importance(db: Database, clock: FixedClock) -> None:
    keys = events(db)
    db.put("log", "other", {"text": "Something else."})
    later(clock)
    db.lifecycle.policy("log", consolidate=SOON)
    [made] = run(db)
    later(clock)
    scores = db.lifecycle.importance("log")
    before = db.lifecycle.undo(made)
    assert len(before) == 5
    restored = db.lifecycle.importance("log")
    for key in keys:
        assert scores[key] <= 0.1 * restored[key] + 0.01


# Summarizers


def test_a_summarizer_is_given_the_texts_and_makes_the_summary(
    db: Database, clock: FixedClock
) -> None:
    events(db)
    later(clock)
    given_texts = []

    def shorten(texts: Sequence[str]) -> str:
        given_texts.append(list(texts))
        return f"{len(texts)} things about a report."

    wished = db.lifecycle.policy("log", consolidate=SOON, summarizer=shorten)
    assert wished.consolidate is not None
    assert wished.consolidate.summarizer == "shorten"
    [made] = run(db)
    assert given_texts == [list(TEXTS)]
    assert db.get("log", made.key)["text"] == "5 things about a report."  # type: ignore[index,call-overload]
    assert made.summary.message == "summary of 5 items, by shorten"


def test_a_process_without_the_summarizer_leaves_the_namespace_alone(tmp_path: Path) -> None:
    clock = FixedClock()

    def shorten(texts: Sequence[str]) -> str:
        return "short"

    with koru_delta.open(tmp_path / "db", clock=clock, durability="relaxed") as db:
        db.put_many([("log", key, {"text": key, "session": 1}) for key in "abc"])
        db.lifecycle.policy("log", consolidate=SOON, summarizer=shorten)
    later(clock)
    with koru_delta.open(tmp_path / "db", clock=clock, durability="relaxed") as db:
        assert run(db) == []
        said = db.stats()["seq"]
        db.lifecycle.policy("log", summarizer=shorten)
        assert db.stats()["seq"] == said
        [made] = run(db)
        assert made.summary.value == {"session": 1, "text": "short", "summary_of": 3}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (ValueError("no model"), "summarizer 'Model' failed: ValueError: no model"),
        (None, "was given 5 texts and returned None"),
        (" ", "was given 5 texts and returned ' '"),
    ],
)
def test_a_summarizer_that_fails_is_told_of_and_the_rest_is_done(
    db: Database, clock: FixedClock, answer: object, message: str
) -> None:
    class Model:
        def __call__(self, texts: Sequence[str]) -> str:
            if isinstance(answer, Exception):
                raise answer
            return answer  # type: ignore[return-value]

    keys = events(db)
    db.put_many([("zoo", key, {"text": key, "session": 1}) for key in "abc"])
    later(clock)
    db.lifecycle.policy("log", consolidate=SOON, summarizer=Model())
    db.lifecycle.policy("zoo", consolidate=SOON)
    with pytest.raises(errors.SummarizerError, match=message):
        run(db)
    assert shown(db) == keys
    assert [each.namespace for each in db.lifecycle.consolidations()] == ["zoo"]


def test_closing_waits_for_the_summary_at_hand_and_not_for_all(
    db: Database, clock: FixedClock
) -> None:
    events(db, "a")
    keys = events(db, "b")
    later(clock)

    def slow(texts: Sequence[str]) -> str:
        db._runner.is_stopping = True
        return "short"

    db.lifecycle.policy("log", consolidate=SOON, summarizer=slow)
    [made] = run(db)
    assert shown(db) == [made.key, *keys]


# Others at the same time


def test_a_source_that_is_written_meanwhile_is_left_out(db: Database, clock: FixedClock) -> None:
    events(db)
    later(clock)
    meanwhile = [lambda: db.put("log", "s1-1", {"text": "Changed.", "session": "s1"}),
                 lambda: db.hide("log", "s1-3", message="forgotten")]  # fmt: skip

    def slow(texts: Sequence[str]) -> str:
        if meanwhile:
            meanwhile.pop(0)()
        return " ".join(texts)

    db.lifecycle.policy("log", consolidate=SOON, summarizer=slow)
    [made] = run(db)
    assert made.keys == ("s1-0", "s1-2", "s1-4")
    assert made.summary.value["text"] == " ".join((TEXTS[0], TEXTS[2], TEXTS[4]))  # type: ignore[index,call-overload]
    assert shown(db) == sorted([made.key, "s1-1"])


def test_of_two_processes_one_consolidates(tmp_path: Path) -> None:
    clock = FixedClock()
    with (
        koru_delta.open(tmp_path / "db", clock=clock, durability="relaxed") as one,
        koru_delta.open(tmp_path / "db", clock=clock, durability="relaxed") as other,
    ):
        one.put_many([("log", key, {"text": key, "session": 1}) for key in "abc"])
        theirs: list[Consolidation] = []

        def slow(texts: Sequence[str]) -> str:
            if not theirs:
                theirs.extend(run(other))
            return "slow"

        def quick(texts: Sequence[str]) -> str:
            return "quick"

        quick.__name__ = "slow"
        one.lifecycle.policy("log", consolidate=SOON, summarizer=slow)
        other.lifecycle.policy("log", summarizer=quick)
        later(clock)  # while their threads sleep
        assert run(one) == []
        assert [each.summary.value["text"] for each in theirs] == ["quick"]  # type: ignore[index,call-overload]
        assert one.lifecycle.consolidations() == theirs
        clock.advance(seconds=2 * 3_600)
        assert "consolidate" in other.lifecycle.run_due()
        assert "consolidate" not in one.lifecycle.run_due()


_WORK = """
import sys
import koru_delta
from koru_delta.testing import FixedClock

with koru_delta.open(sys.argv[1], clock=FixedClock(int(sys.argv[2]))) as db:
    print("ready", flush=True)
    sys.stdin.readline()
    made = db.lifecycle.run_once("consolidate")
    print(sum(len(each.keys) for each in made), flush=True)
    for each in made[::2]:
        db.lifecycle.undo(each)
"""


def test_processes_that_race_put_no_source_in_two_summaries(tmp_path: Path) -> None:
    clock = FixedClock()
    with koru_delta.open(tmp_path / "db", clock=clock, durability="relaxed") as db:
        items = [
            ("log", f"{session}-{n}", {"text": f"{n} of {session}.", "session": session})
            for session in range(30) for n in range(4)
        ]  # fmt: skip
        db.put_many(items)
        db.lifecycle.policy("log", consolidate=SOON)
    later(clock)
    with koru_delta.open(tmp_path / "db", clock=clock, durability="relaxed") as db:
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", _WORK, str(tmp_path / "db"), str(clock.now)], cwd=ROOT,
                text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
            for _ in range(2)
        ]  # fmt: skip
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        told = 0
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        for worker in workers:
            out, err = worker.communicate(timeout=200)
            assert worker.returncode == 0, err
            told += int(out)
        assert told == len(items)
        standing = db.lifecycle.consolidations("log")
        taken = [key for each in standing for key in each.keys]
        free = {key for _, key, _ in items} - set(taken)
        assert len(taken) == len(set(taken))
        assert 0 < len(standing) < 30
        assert shown(db) == sorted([*free, *(each.key for each in standing)])
        db.lifecycle.undo(standing)
        assert shown(db) == db.list_keys("log") == sorted(key for _, key, _ in items)
        assert db.verify().ok


def test_the_job_is_done_in_the_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_SHARED_POLL", 10_000)
    monkeypatch.setattr(facade, "CONSOLIDATE_SECONDS", 0.01)
    clock = FixedClock()
    with koru_delta.open(tmp_path / "db", clock=clock, durability="relaxed") as db:
        db.put_many([("log", key, {"text": key, "session": 1}) for key in "abc"])
        later(clock)
        db.lifecycle.policy("log", consolidate=SOON)
        thread = db._runner._thread
        assert thread is not None
        db._runner.ask("consolidate")
        thread.join(0.01)
        while not db.lifecycle.consolidations():
            thread.join(0.01)
        assert shown(db) == [db.lifecycle.consolidations()[0].key]


# Undoing where something was changed


def test_undo_leaves_what_was_changed_meanwhile(db: Database, clock: FixedClock) -> None:
    events(db)
    later(clock)
    db.lifecycle.policy("log", consolidate=SOON)
    [made] = run(db)
    db.put("log", "s1-0", {"text": "Said anew."})
    db.unhide("log", "s1-1")
    db.unhide("log", "s1-2")
    db.hide("log", "s1-2", message="for another reason")
    db.expire("log", "s1-3", ttl=DAY)
    renewed = db.version("log", "s1-3")
    db.put("log", made.key, {"text": "My own words."})

    back = db.lifecycle.undo(made)

    assert [(version.key, version.id) for version in back] == [
        ("s1-0", made.sources[0]), ("s1-3", made.sources[3]), ("s1-3", renewed.id),
        ("s1-4", made.sources[4]),
    ]  # fmt: skip
    assert shown(db) == [made.key, "s1-0", "s1-1", "s1-3", "s1-4"]
    assert db.get("log", "s1-0") == {"text": "Said anew."}
    assert db.get("log", made.key) == {"text": "My own words."}
    assert db.lifecycle.undo(made) == []
    assert db.verify().ok


def test_what_is_in_quarantine_comes_back_when_that_is_released(
    db: Database, clock: FixedClock
) -> None:
    keys = events(db)
    later(clock)
    db.lifecycle.policy("log", consolidate=SOON)
    [made] = run(db)
    quarantine = db.quarantine(db.version("log", "s1-2"), message="wrong")
    assert shown(db) == []

    back = db.lifecycle.undo(made)

    assert [version.key for version in back] == ["s1-0", "s1-1", "s1-3", "s1-4"] == shown(db)
    db.release(quarantine)
    assert shown(db) == db.list_keys("log") == keys
    assert db.verify().ok


def test_undo_deletes_a_summary_that_was_only_given_an_end(db: Database, clock: FixedClock) -> None:
    keys = events(db)
    later(clock)
    db.lifecycle.policy("log", consolidate=SOON)
    [made] = run(db)
    db.expire("log", made.key, ttl=DAY)
    assert len(db.lifecycle.undo(db.version("log", made.key))) == 5
    assert shown(db) == db.list_keys("log") == keys


def test_a_summary_that_is_deleted_or_hidden_can_be_undone(db: Database, clock: FixedClock) -> None:
    keys = [*events(db, "a"), *events(db, "b")]
    later(clock)
    db.lifecycle.policy("log", consolidate=SOON)
    one, other = run(db)
    db.delete("log", one.key)
    db.hide("log", other.key)
    db.lifecycle.undo([one, other])
    assert shown(db) == db.list_keys("log") == keys


def test_what_is_no_consolidation_cannot_be_undone(db: Database, clock: FixedClock) -> None:
    version = db.put("log", "key", {"text": "An event."})
    with pytest.raises(errors.InvalidDataError, match="is no summary that was made by consol"):
        db.lifecycle.undo(version)
    with pytest.raises(errors.UnknownVersionError):
        db.lifecycle.undo("ab" * 32)
    with pytest.raises(errors.InvalidDataError, match=r"is undone is a consolidation.*, not 7"):
        db.lifecycle.undo(7)  # type: ignore[arg-type]


def test_a_read_only_database_shows_consolidations_and_undoes_none(tmp_path: Path) -> None:
    clock = FixedClock()
    with koru_delta.open(tmp_path / "db", clock=clock, durability="relaxed") as db:
        db.put_many([("log", key, {"text": key, "session": 1}) for key in "abc"])
        db.lifecycle.policy("log", consolidate=SOON)
        later(clock)  # while the thread sleeps
        made = run(db)
    with koru_delta.open(tmp_path / "db", clock=clock, read_only=True) as db:
        assert db.lifecycle.consolidations() == made
        for refused in (
            lambda: db.lifecycle.undo(made), lambda: run(db),
            lambda: db.lifecycle.policy("log", consolidate=None),
        ):  # fmt: skip
            with pytest.raises(errors.ReadOnlyError):
                refused()


# Wishes


def test_the_wish_is_kept_in_the_log_beside_others(db: Database, clock: FixedClock) -> None:
    wish = Consolidate(["user", "of.day"], 3 * DAY, 7, 0.5, 0.8, "event-*", "say", 3)
    db.lifecycle.policy("log", ttl=DAY)
    then = db.stats()["seq"]
    assert db.lifecycle.policy("log", consolidate=wish) == Policy(
        "log", idle={"*": DAY}, consolidate=wish
    )
    assert db.lifecycle.policies() == {"log": db.lifecycle.policy("log", ttl=DAY)}
    assert db.lifecycle.policies()["log"].consolidate == wish
    assert db.lifecycle.policies(as_of=then)["log"].consolidate is None
    assert db.lifecycle.policy("log", consolidate=None) == Policy("log", idle={"*": DAY})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "session"}, "by is a list of fields"),
        ({"by": ["a..b"]}, "by names fields by dotted paths, not 'a..b'"),
        ({"by": [3]}, "by names fields by dotted paths, not 3"),
        ({"by": []}, "how alike="),
        ({"text": ""}, "text names fields"),
        ({"older_than": 3}, "older_than is a timedelta"),
        ({"older_than": -DAY}, "older_than is a timedelta"),
        ({"at_least": 1}, "at_least is 2 to 100"),
        ({"at_least": 101}, "at_least is 2 to 100"),
        ({"below": 0}, "below is a number above 0"),
        ({"below": "x"}, "below is a number above 0"),
        ({"alike": 2}, r"alike is a cosine in \[-1, 1\]"),
        ({"sentences": 0}, "sentences is 1 or more"),
        ({"keys": ""}, "keys is a pattern"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.InvalidDataError, match=message):
        Consolidate(**options)


def test_a_wish_at_the_wrong_place_is_refused(db: Database) -> None:
    with pytest.raises(errors.InvalidDataError, match="is of one namespace; name it"):
        db.lifecycle.policy(consolidate=SOON)
    with pytest.raises(errors.InvalidDataError, match=r"consolidate is a Consolidate\(...\)"):
        db.lifecycle.policy("log", consolidate=True)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidDataError, match="belongs to consolidate="):
        db.lifecycle.policy("log", summarizer=" ".join)
    assert db.lifecycle.policies() == {}


# Nothing is lost

_WORDS = ("rain", "sun", "snow", "wind", "report", "figures")
_EVENTS = st.lists(
    st.tuples(
        st.sampled_from("abc"),  # the session
        st.lists(st.sampled_from(_WORDS), min_size=1, max_size=4),
        st.booleans(),  # whether it has a vector
        st.sampled_from(["", "", "", "hide", "again", "delete"]),
    ),
    max_size=14,
)


def _answers(db: Database, moment: int | None = None) -> Any:
    """What the database says of the events at a moment, in every way it can be asked."""
    keys = db.list_keys("log", as_of=moment)
    return (
        {key: db.get("log", key, as_of=moment) for key in keys},
        [(row.key, row.version.id, row.value) for row in db.query("log", as_of=moment)],
        [
            [(match.key, match.version.id, match.score) for match in found]
            for found in (
                db.search("log", "rain figures", k=20, as_of=moment),
                db.search("log", "snow report", k=20, mode="text", as_of=moment),
                db.similar("log", "sun wind", k=20, as_of=moment, exact=True),
            )
        ],
    )


@settings(max_examples=40, deadline=None)
@given(_EVENTS, st.sampled_from([None, 0.5]), st.integers(2, 3))
def test_to_consolidate_and_undo_loses_nothing(
    given_events: list[tuple[str, list[str], bool, str]], alike: float | None, at_least: int
) -> None:
    clock = FixedClock()
    with koru_delta.open(embedder=HashEmbedder(16), clock=clock, track=False) as db:
        db.embed("log", "first", "sun", {"text": "sun"})
        for number, (session, words, has_vector, then) in enumerate(given_events):
            clock.advance(seconds=3_600)
            key, value = f"{number:02}", {"text": " ".join(words), "session": session}
            if has_vector:
                db.embed("log", key, " ".join(words), value)
            else:
                db.put("log", key, value)
            if then == "hide":
                db.hide("log", key)
            elif then == "again":
                db.put("log", key, value)
            elif then == "delete":
                db.delete("log", key)
        later(clock)
        told = {seq: _answers(db, seq) for seq in range(1, db.stats()["seq"] + 1)}
        before = _answers(db)
        db.lifecycle.policy(
            "log", consolidate=Consolidate(older_than=DAY, at_least=at_least, alike=alike)
        )

        made = run(db)

        hidden = [key for each in made for key in each.keys]
        if alike is None:
            groups = [
                tuple(key for key, _, value in before[1] if value.get("session") == session)
                for session in "abc"
            ]
            assert {each.keys for each in made} == {g for g in groups if len(g) >= at_least}
        assert len(hidden) == len(set(hidden))
        assert all(len(each.keys) >= at_least for each in made)
        assert shown(db) == sorted(
            {key for key, _, _ in before[1]} - set(hidden) | {each.key for each in made}
        )
        assert {key: db.get("log", key) for key in before[0]} == before[0]
        assert {seq: _answers(db, seq) for seq in told} == told
        between = db.stats()["seq"]
        during = _answers(db)

        db.lifecycle.undo(made)

        assert _answers(db) == before
        assert {seq: _answers(db, seq) for seq in told} == told
        assert _answers(db, between) == during
        assert db.verify().ok
