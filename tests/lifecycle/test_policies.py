"""Wishes are kept in the log; what is idle is hidden, says why, and can be brought back."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import koru_delta
from koru_delta import AsyncDatabase, Consolidate, Database, Workspace, errors
from koru_delta.lifecycle import Budget, Lifecycle, Policy
from koru_delta.testing import FixedClock

DAY = timedelta(days=1)


def check(db: Database) -> list[str]:
    """Do the job "check"; the keys it hid."""
    return [version.key for version in db.lifecycle.run_once("check").hidden]


def shown(db: Database, namespace: str = "chat") -> list[str]:
    return [row.key for row in db.query(namespace)]


def test_a_policy_keeps_what_a_later_wish_leaves_out(db: Database) -> None:
    db.lifecycle.policy("chat", hot_bytes=1_000, ttl=30 * DAY)
    db.lifecycle.policy("chat", keys="session-*", ttl=DAY)
    wished = db.lifecycle.policy("chat", warm_bytes=50)

    expected = Policy("chat", Budget(1_000, 50), {"*": 30 * DAY, "session-*": DAY})
    assert wished == expected == db.lifecycle.policy("chat")
    assert db.lifecycle.policies() == {"chat": expected}

    db.lifecycle.policy("chat", ttl=None, hot_bytes=None)
    assert db.lifecycle.policy("chat") == Policy("chat", Budget(None, 50), {"session-*": DAY})
    assert db.lifecycle.policy("other") == Policy("other")
    assert db.lifecycle.policy(cold_bytes=9) == Policy(None, Budget(cold=9))


def joined(texts: Sequence[str]) -> str:
    return " ".join(texts)


def test_a_policy_reads_as_what_is_wished(db: Database) -> None:
    db.lifecycle.policy(hot_bytes=64_000, cold_bytes=0)
    db.lifecycle.policy("chat", keys="session-*", ttl=1.5 * DAY)
    wish = Consolidate(("session", "who"), DAY, 3, alike=0.8)
    wished = db.lifecycle.policy("chat", consolidate=wish, summarizer=joined)

    assert str(wished) == (
        "'chat': keys 'session-*' idle for 1.5 days are hidden; of '*', 3 or more of one session "
        "and who, alike by 0.8, 1 day old and of importance below 0.3, become a summary made by "
        "joined"
    )
    assert str(db.lifecycle.policy()) == (
        "the whole database: at most 64,000 bytes of hot keys; at most 0 bytes of cold keys"
    )
    assert str(db.lifecycle.policy("other")) == "'other': nothing is wished"


def test_what_may_be_left_out_is_shown_as_what_that_means() -> None:
    shown = str(inspect.signature(Lifecycle.policy))
    assert "ttl: 'timedelta | None' = <as it stands>" in shown
    for each in (Lifecycle, Workspace, Database, AsyncDatabase):
        for name, verb in inspect.getmembers(each, callable):
            if not name.startswith("_"):
                assert " object at 0x" not in str(inspect.signature(verb)), name


def test_wishes_can_be_asked_for_as_of_a_moment(db: Database, clock: FixedClock) -> None:
    db.lifecycle.policy("chat", hot_bytes=1, author="ann", message="try it")
    db.lifecycle.pin("chat", "a", author="bob")
    then = db.stats()["seq"]
    clock.advance(seconds=60)
    db.lifecycle.policy("chat", hot_bytes=2)
    db.lifecycle.pin("chat", "b")
    assert db.lifecycle.unpin("chat", "a") is True
    assert db.lifecycle.unpin("chat", "a") is False

    assert db.lifecycle.policies(as_of=then) == {"chat": Policy("chat", Budget(hot=1))}
    assert db.lifecycle.pins(as_of=then) == [("chat", "a")]
    assert db.lifecycle.policies() == {"chat": Policy("chat", Budget(hot=2))}
    assert db.lifecycle.pins() == [("chat", "b")]
    first = next(iter(db.changes()))
    assert (first.namespace, first.author, first.message) == ("$lifecycle", "ann", "try it")


def test_the_same_wish_twice_is_one_entry(db: Database) -> None:
    for _ in range(2):
        db.lifecycle.policy("chat", hot_bytes=1)
        db.lifecycle.pin("chat", "a")

    assert db.stats()["seq"] == 2


def test_wishes_go_along_with_an_exported_log(db: Database, tmp_path: Path) -> None:
    db.lifecycle.policy("chat", keys="s*", ttl=DAY)
    db.lifecycle.pin("chat", "a")
    db.export_log(tmp_path / "log.jsonl")

    with koru_delta.open() as copy:
        copy.import_log(tmp_path / "log.jsonl")
        assert copy.lifecycle.policies() == db.lifecycle.policies()
        assert copy.lifecycle.pins() == [("chat", "a")]


@pytest.mark.parametrize(
    ("namespace", "wish"),
    [
        (None, {"ttl": DAY}),
        ("chat", {"ttl": timedelta(0)}),
        ("chat", {"ttl": 60}),
        ("chat", {"ttl": DAY, "keys": ""}),
        ("chat", {"hot_bytes": -1}),
        ("chat", {"warm_bytes": 1.5}),
        ("$chat", {"hot_bytes": 1}),
        ("", {"hot_bytes": 1}),
    ],
)
def test_wishes_that_make_no_sense_are_refused(
    db: Database, namespace: str | None, wish: dict[str, Any]
) -> None:
    with pytest.raises(errors.InvalidDataError):
        db.lifecycle.policy(namespace, **wish)
    assert db.stats()["seq"] == 0


def test_what_is_idle_is_hidden_and_every_moment_before_still_finds_it(
    db: Database, clock: FixedClock
) -> None:
    for key in ("session-1", "session-2", "rule-1"):
        db.put("chat", key, {"text": key})
    before = db.stats()["seq"]
    db.lifecycle.policy("chat", keys="session-*", ttl=DAY)
    clock.advance(seconds=86_399)
    assert check(db) == []
    clock.advance(seconds=1, microseconds=1)

    assert check(db) == ["session-1", "session-2"]
    assert shown(db) == ["rule-1"]
    assert [row.key for row in db.query("chat", as_of=before)] == [
        "rule-1", "session-1", "session-2",
    ]  # fmt: skip
    assert db.get("chat", "session-1") == {"text": "session-1"}
    said = db.history("chat", "session-1", include_annotations=True)[-1].message
    assert said == (
        "idle since 2026-01-01T00:00:00+00:00: keys like 'session-*' are hidden after 1 day"
    )
    assert check(db) == []


def test_what_was_written_used_or_brought_back_is_not_idle(db: Database, clock: FixedClock) -> None:
    for key in ("left", "read", "used", "written", "brought back"):
        db.put("chat", key, {"text": key})
    db.lifecycle.policy("chat", ttl=2 * DAY)
    clock.advance(seconds=86_400)
    db.get("chat", "read")
    db.used(("chat", "used"))
    db.put("chat", "written", {"text": "again"})
    db.hide("chat", "brought back")
    db.unhide("chat", "brought back")
    clock.advance(seconds=86_401)

    assert check(db) == ["left"]
    db.unhide("chat", "left")
    clock.advance(seconds=86_401)
    assert check(db) == ["brought back", "read", "used", "written"]
    assert shown(db) == ["left"]
    clock.advance(seconds=86_400)
    assert check(db) == ["left"]


def test_what_is_pinned_is_never_hidden(db: Database, clock: FixedClock) -> None:
    db.put("chat", "a", 1)
    db.put("chat", "b", 2)
    db.lifecycle.pin("chat", "a")
    db.lifecycle.policy("chat", ttl=DAY)
    clock.advance(seconds=10 * 86_400)

    assert check(db) == ["b"]
    db.lifecycle.unpin("chat", "a")
    assert check(db) == ["a"]


def test_of_several_patterns_the_shortest_time_counts(db: Database, clock: FixedClock) -> None:
    for key in ("session-1", "session-[2]", "Session-3"):
        db.put("chat", key, 1)
    db.lifecycle.policy("chat", ttl=10 * DAY)
    db.lifecycle.policy("chat", keys="session-[[12]*", ttl=DAY)
    clock.advance(seconds=2 * 86_400)
    assert check(db) == ["session-1", "session-[2]"]
    clock.advance(seconds=10 * 86_400)
    assert check(db) == ["Session-3"]


def test_many_idle_keys_are_hidden_in_commits_that_keep_no_writer_waiting(
    db: Database, clock: FixedClock
) -> None:
    db.put_many([("chat", f"key-{number:05}", number) for number in range(2_600)])
    db.lifecycle.policy("chat", ttl=DAY)
    clock.advance(seconds=2 * 86_400)
    commits = len(db.commits())

    assert len(check(db)) == 2_600
    assert len(db.commits()) == commits + 26
    assert shown(db) == []
