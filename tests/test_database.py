"""The verbs, one promise at a time; the state machine checks them against a model."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import koru_delta
from koru_delta import Database, TreeHead, Version, errors, verify_consistency, verify_inclusion
from koru_delta.testing import FixedClock, HashEmbedder

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def db(clock: FixedClock) -> Iterator[Database]:
    with koru_delta.open(None, clock=clock, embedder=HashEmbedder()) as database:
        yield database


def keys(found: list[Any]) -> list[str]:
    return [each.key for each in found]


# Values and versions


def test_get_returns_what_put_stored_as_a_fresh_copy(db: Database) -> None:
    db.put("users", "alice", {"name": "Alice", "tags": ["a"], "deep": {"x": [{"y": 1}]}})

    for _ in range(3):  # from SQLite, then twice from memory
        got = db.get("users", "alice")
        assert got == {"name": "Alice", "tags": ["a"], "deep": {"x": [{"y": 1}]}}
        got["name"] = "changed"
        got["tags"].append("changed")
        got["deep"]["x"][0]["y"] = 2

    db.put("users", "bob", {"tags": ["a"], "meta": {"x": 1}})
    for _ in range(3):
        got = db.get("users", "bob")
        assert got == {"tags": ["a"], "meta": {"x": 1}}
        got["tags"].append("changed")
        got["meta"]["x"] = 2


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "", "text", [], [1, [2]], {}, {"": {}}])
def test_every_kind_of_json_is_a_value(db: Database, value: Any) -> None:
    db.put("n", "k", value)
    assert [db.get("n", "k") for _ in range(2)] == [value, value]
    assert type(db.get("n", "k")) is type(value)


def test_null_is_a_value_and_absence_is_not(db: Database) -> None:
    db.put("n", "k", None)
    assert db.contains("n", "k")
    assert not db.contains("n", "other")
    with pytest.raises(KeyError):
        db.get("n", "other")
    assert db.get("n", "other", default=None) is None
    assert db.get("n", "other", 5) == 5


def test_a_version_says_how_it_came_about(db: Database, clock: FixedClock) -> None:
    first = db.put("users", "alice", {"n": 1}, author="ada", message="signed up", run="r1")
    clock.advance(seconds=1)
    second = db.put("users", "alice", {"n": 2}, causes=[first, ("derived_from", first)])

    assert (first.author, first.message, first.run) == ("ada", "signed up", "r1")
    assert (first.operation, first.namespace, first.key, first.seq) == ("put", "users", "alice", 1)
    assert first.time == START
    assert first.valid_from == START
    assert first.valid_to is None
    assert first.previous is None
    assert first.parents == ()
    assert second.previous == first.id
    assert second.parents == (first.id,)
    assert second.causes == (("caused_by", first.id), ("derived_from", first.id))
    assert second.clock == {"local": 2}
    assert (first.value, second.value) == ({"n": 1}, {"n": 2})
    assert db.history("users", "alice") == [first, second]
    assert db.history("users", "alice", reverse=True, limit=1) == [second]
    assert db.get_version(first.id).value == {"n": 1}
    assert db.get_version(first.id[:10]) == first


def test_the_same_calls_give_the_same_hashes(tmp_path: Path) -> None:
    def run(path: Path | None) -> str:
        with koru_delta.open(path, clock=FixedClock(), embedder=HashEmbedder()) as database:
            first = database.put("a", "k", {"x": [1, 2.5, "é"]}, author="ada")
            database.embed("docs", "d", "some text", causes=[first])
            database.put_many([("a", "k", 1), ("a", "l", 2)])
            database.delete("a", "l", valid_from="2026-01-01T00:00:00Z")
            database.tag("done")
            root: str = database.stats()["root"]
            return root

    golden = "9c372bdb5fa3694fb40e12df34c135565f29e62f141bddfc33061ccda9a98f1a"
    assert run(None) == run(tmp_path / "a") == golden


def test_content_is_named_by_content(db: Database) -> None:
    one, two = db.put("a", "k", {"x": 1}), db.put("b", "l", {"x": 1})
    assert one.distinction == two.distinction
    assert one.id != two.id


def test_put_many_is_one_commit_and_all_or_nothing(db: Database) -> None:
    versions = db.put_many([("a", "k", 1), ("b", "l", 2), ("a", "k", 3)])
    assert [v.seq for v in versions] == [1, 2, 3]
    assert len(db.commits()) == 1
    assert db.commits()[0].size == 3
    assert db.get("a", "k") == 3

    with pytest.raises(errors.InvalidDataError):
        db.put_many([("a", "k", 4), ("a", "bad", float("nan"))])
    with pytest.raises(errors.InvalidDataError):
        db.put_many([("a", "k")])  # type: ignore[list-item]
    assert db.get("a", "k") == 3
    assert db.put_many([]) == []
    assert len(db.commits()) == 1


def test_delete_is_a_tombstone_and_a_later_put_goes_on(db: Database, clock: FixedClock) -> None:
    before = db.put("a", "k", 1)
    clock.advance(seconds=5)
    gone = db.delete("a", "k", message="no longer needed")

    with pytest.raises(errors.KeyNotFoundError) as caught:
        db.get("a", "k")
    assert caught.value.deleted_at == START + timedelta(seconds=5)
    assert gone.is_tombstone
    assert gone.value is None
    assert db.get("a", "k", as_of=before) == 1
    with pytest.raises(errors.KeyNotFoundError):
        db.delete("a", "k")
    with pytest.raises(errors.KeyNotFoundError):
        db.delete("a", "never")

    again = db.put("a", "k", 2)
    assert again.previous == gone.id
    assert [v.operation for v in db.history("a", "k")] == ["put", "delete", "put"]


def test_if_match_lets_one_writer_win(db: Database) -> None:
    first = db.put("a", "k", 1, if_match=None)
    with pytest.raises(errors.ConflictError) as caught:
        db.put("a", "k", 2, if_match=None)
    assert caught.value.actual == first.id
    second = db.put("a", "k", 2, if_match=first)
    with pytest.raises(errors.ConflictError):
        db.put("a", "k", 3, if_match=first.id)
    with pytest.raises(errors.ConflictError):
        db.delete("a", "k", if_match=first)
    db.delete("a", "k", if_match=second)
    db.put("a", "k", 4, if_match=None)
    assert db.get("a", "k") == 4


def test_the_present_version_is_what_if_match_compares_with(
    db: Database, clock: FixedClock
) -> None:
    first = db.put("a", "k", 1)
    db.put("a", "k", 9, valid_from=START + timedelta(days=1))
    assert db.version("a", "k") == first
    second = db.put("a", "k", 2, if_match=db.version("a", "k"))
    assert db.version("a", "k", as_of=first) == first
    assert db.as_of(second).version("a", "k") == second
    db.delete("a", "k")
    with pytest.raises(errors.KeyNotFoundError):
        db.version("a", "k")
    with pytest.raises(errors.ConflictError, match="if_match=None"):
        db.put("a", "k", 3, if_match=second)


def test_a_delete_in_valid_time_says_from_when_on_it_is_absent(db: Database) -> None:
    db.put("a", "k", 1, valid_from="2025-01-01T00:00:00Z")
    db.delete("a", "k", valid_from="2025-02-01T00:00:00Z")
    with pytest.raises(errors.KeyNotFoundError) as caught:
        db.get("a", "k")
    assert caught.value.deleted_at == datetime(2025, 2, 1, tzinfo=UTC)


def test_if_match_sees_expiry(db: Database, clock: FixedClock) -> None:
    first = db.put("a", "k", 1, ttl=1)
    clock.advance(seconds=1)
    with pytest.raises(errors.ConflictError):
        db.put("a", "k", 2, if_match=first)
    db.put("a", "k", 2, if_match=None)


# Moments


def test_every_way_of_naming_a_moment(db: Database, clock: FixedClock) -> None:
    first = db.put("a", "k", 1)
    db.tag("one")
    clock.advance(seconds=10)
    between = START + timedelta(seconds=4)
    db.put("a", "k", 2)

    for moment in (
        first, first.id, first.id[:12], first.seq, db.commits()[0], "tag:one", START, between,
        START.isoformat(), "2026-01-01T01:00:02+01:00",
    ):  # fmt: skip
        assert db.get("a", "k", as_of=moment) == 1, moment
        assert db.get_at("a", "k", moment) == 1
        assert db.as_of(moment).get("a", "k") == 1
    assert db.get("a", "k", as_of=START + timedelta(seconds=10)) == 2
    for early in (0, START - timedelta(microseconds=1)):
        with pytest.raises(errors.KeyNotFoundError):
            db.get("a", "k", as_of=early)


@pytest.mark.parametrize(
    ("moment", "error"),
    [
        (datetime(2026, 1, 1), errors.InvalidTimestampError),  # noqa: DTZ001
        ("2026-01-01T00:00:00", errors.InvalidTimestampError),
        ("yesterday", errors.InvalidTimestampError),
        ("", errors.InvalidTimestampError),
        (START + timedelta(days=1), errors.InvalidTimestampError),
        (-1, errors.InvalidTimestampError),
        (99, errors.InvalidTimestampError),
        (True, errors.InvalidTimestampError),
        (1.5, errors.InvalidTimestampError),
        (2, errors.InvalidTimestampError),  # inside a commit
        ("ab" * 32, errors.UnknownVersionError),
        ("tag:none", errors.UnknownVersionError),
    ],
)
def test_what_is_no_moment_is_refused(db: Database, moment: Any, error: type[Exception]) -> None:
    db.put("a", "k", 1)
    db.put_many([("a", "k", 2), ("a", "k", 3)])
    with pytest.raises(error):
        db.get("a", "k", as_of=moment)


def test_a_version_of_another_database_is_no_moment_here(db: Database) -> None:
    with koru_delta.open(None) as other:
        stranger = other.put("x", "y", 1)
        commit = other.commits()[0]
    for moment in (stranger, commit):
        with pytest.raises(errors.UnknownVersionError):
            db.get("x", "y", as_of=moment)


def test_transaction_time_never_runs_backwards(db: Database, clock: FixedClock) -> None:
    first = db.put("a", "k", 1)
    clock.advance(seconds=-3600)
    second = db.put("a", "k", 2)
    assert second.time == first.time + timedelta(microseconds=1)
    assert db.get("a", "k") == 2
    assert db.get("a", "k", as_of=first.time) == 1


def test_valid_time_and_transaction_time_are_two_questions(db: Database, clock: FixedClock) -> None:
    old = db.put("price", "tea", 3, valid_from="2025-01-01T00:00:00Z")
    clock.advance(seconds=60)
    db.put("price", "tea", 4, valid_from="2025-06-01T00:00:00Z", valid_to="2025-07-01T00:00:00Z")

    assert db.get("price", "tea") == 3
    assert db.get("price", "tea", valid_at="2025-06-15T00:00:00Z") == 4
    assert db.get("price", "tea", valid_at="2025-07-01T00:00:00Z") == 3
    assert db.get("price", "tea", valid_at="2025-06-15T00:00:00Z", as_of=old) == 3
    with pytest.raises(errors.KeyNotFoundError):
        db.get("price", "tea", valid_at="2024-12-31T00:00:00Z")

    db.delete("price", "tea", valid_from="2025-06-10T00:00:00Z", valid_to="2025-06-20T00:00:00Z")
    with pytest.raises(errors.KeyNotFoundError):
        db.get("price", "tea", valid_at="2025-06-15T00:00:00Z")
    assert db.get("price", "tea", valid_at="2025-06-25T00:00:00Z") == 4
    assert db.get("price", "tea") == 3


def test_a_plan_for_the_future_becomes_true_by_itself(db: Database, clock: FixedClock) -> None:
    db.put("flag", "beta", False)
    db.put("flag", "beta", True, valid_from=START + timedelta(hours=1))
    assert [db.get("flag", "beta") for _ in range(2)] == [False, False]
    assert db.get("flag", "beta", valid_at=START + timedelta(hours=1)) is True
    clock.advance(seconds=3600)
    assert [db.get("flag", "beta") for _ in range(2)] == [True, True]


def test_an_empty_interval_is_refused(db: Database) -> None:
    with pytest.raises(errors.InvalidTimestampError, match="half-open"):
        db.put("a", "k", 1, valid_from=START, valid_to=START)
    with pytest.raises(errors.InvalidTimestampError):
        db.put("a", "k", 1, valid_to=START - timedelta(1))
    assert db.stats()["seq"] == 0


def test_ttl_is_exact_and_nothing_older_shows_through(db: Database, clock: FixedClock) -> None:
    db.put("s", "k", "old")
    kept = db.put("s", "k", "new", ttl=timedelta(seconds=2))
    assert kept.expires_at == kept.time + timedelta(seconds=2)
    clock.advance(microseconds=2_000_000)  # the put was 1 us after the first
    assert [db.get("s", "k") for _ in range(2)] == ["new", "new"]
    clock.advance(microseconds=1)
    with pytest.raises(errors.KeyNotFoundError):
        db.get("s", "k")
    assert db.list_keys("s") == []
    assert db.count("s") == 0
    assert db.get("s", "k", as_of=kept) == "new"


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), True, "1"])
def test_a_ttl_that_is_none_is_refused(db: Database, ttl: Any) -> None:
    with pytest.raises(errors.InvalidDataError):
        db.put("a", "k", 1, ttl=ttl)


# Transactions


def test_a_transaction_is_one_commit_that_reads_its_own_writes(db: Database) -> None:
    db.put("a", "j", 0)
    with db.transaction(author="ada") as tx:
        tx.put("a", "k", 1)
        tx.put("a", "k", 2)
        tx.delete("a", "j")
        assert tx.get("a", "k") == 2
        assert not tx.contains("a", "j")
        assert db.contains("a", "j")
        with pytest.raises(errors.KeyNotFoundError):
            tx.delete("a", "never")
    assert [v.operation for v in tx.versions] == ["put", "put", "delete"]
    assert {v.author for v in tx.versions} == {"ada"}
    assert len(db.commits()) == 2
    assert [v.value for v in db.history("a", "k")] == [1, 2]


def test_a_transaction_sees_its_beginning(db: Database) -> None:
    db.put("a", "k", 1)
    with db.transaction() as tx:
        db.put("a", "k", 2)
        assert tx.get("a", "k") == 1


def test_an_error_in_a_transaction_writes_nothing(db: Database) -> None:
    def fail() -> None:
        with db.transaction() as tx:
            tx.put("a", "k", 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert db.stats()["seq"] == 0

    first = db.put("a", "k", 1)
    db.put("a", "k", 2)

    def lose() -> None:
        with db.transaction() as tx:
            tx.put("a", "other", 1)
            tx.put("a", "k", 3, if_match=first)

    with pytest.raises(errors.ConflictError):
        lose()
    assert not db.contains("a", "other")


def test_a_transaction_takes_many_embeds_and_deletes(db: Database) -> None:
    db.put("a", "gone", 1)
    with db.transaction(message="swap") as tx:
        added = tx.embed_many("a", [("x", [1.0, 0.0], {"n": 1}), ("y", [0.0, 1.0])])
        tx.delete_many("a", ["gone", "never", "gone"])
        assert not tx.contains("a", "gone")
        with pytest.raises(errors.InvalidDataError, match="list of strings"):
            tx.delete_many("a", "gone")

    assert [pending.version for pending in added] == tx.versions[:2]
    assert [(v.operation, v.key) for v in tx.versions] == [
        ("put", "x"), ("put", "y"), ("delete", "gone"),
    ]  # fmt: skip
    assert db.commits()[-1].size == 3
    assert [hit.key for hit in db.similar("a", [1.0, 0.0], k=1)] == ["x"]


def test_a_transaction_is_refused_where_what_it_read_was_written_meanwhile(db: Database) -> None:
    db.put_many([("a", "k/1", 1), ("a", "k/2", 2)])

    def clear(meanwhile: Callable[[], object]) -> None:
        with db.transaction() as tx:
            tx.expect_unchanged("a", prefix="k/")
            tx.delete_many("a", db.list_keys("a", prefix="k/"))
            meanwhile()

    for write in (
        lambda: db.put("a", "k/3", 3),  # one that was not there when it was read
        lambda: db.delete("a", "k/2"),
        lambda: db.erase(("a", "k/1")),
    ):
        before = db.stats()["seq"]
        with pytest.raises(errors.ConflictError, match="read it again") as refused:
            clear(write)
        assert pickle.loads(pickle.dumps(refused.value)).args == refused.value.args
        after = [version for version in db.changes(before) if version.key.startswith("k/")]
        assert len({version.tx_time for version in after}) == 1  # the other's commit alone

    clear(lambda: db.put_many([("a", "j", 1), ("b", "k/1", 1)]))  # others are not its matter
    assert db.list_keys("a") == ["j"]
    late = db.transaction()
    with pytest.raises(errors.ConflictError), late:
        late.expect_unchanged("a", since=db.stats()["seq"] - 1)
    with db.transaction() as tx:
        tx.expect_unchanged("a", since=db.stats()["seq"])
    assert tx.versions == []
    with pytest.raises(errors.TransactionError):
        tx.expect_unchanged("a")


def test_a_transaction_is_refused_where_a_key_that_it_needs_is_gone(
    db: Database, clock: FixedClock
) -> None:
    def follow(meanwhile: Callable[[], object]) -> None:
        db.put_many([("a", "k/1", 1), ("a", "k/2", "x" * 100_000)])
        with db.transaction() as tx:
            tx.expect_present("a", ["k/1", "k/2"])
            tx.put("a", "about", "k")
            meanwhile()

    def expire() -> None:
        db.put("a", "k/1", 1, ttl=5)
        clock.advance(seconds=6)

    for lose in (
        lambda: db.delete("a", "k/2"),
        lambda: db.erase(("a", "k/2")),
        lambda: db.erase(db.version("a", "k/2")),
        expire,
    ):
        with pytest.raises(errors.KeyNotFoundError, match="k/"):
            follow(lose)
        assert not db.contains("a", "about")
    follow(lambda: db.put("a", "k/1", 2))  # another value is one, too
    assert db.get("a", "about") == "k"

    late = db.transaction()
    with pytest.raises(errors.KeyNotFoundError), late:  # noqa: PT012 - it commits when it ends
        late.put("never", "k", 1)
        late.expect_present("never", ["k"])  # before, not after
    assert db.list_keys("never") == []
    with pytest.raises(errors.TransactionError):
        late.expect_present("a", ["k"])


def test_a_transaction_that_erases_gives_the_disk_back(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db") as db:
        db.put("a", "k", {"big": random.Random(1).randbytes(6_000_000).hex()})
        before = db.stats()["log_bytes"]
        with db.transaction() as tx:
            tx.erase(("a", "k"))
        assert db.stats()["log_bytes"] < before / 2


def test_later_writes_may_name_earlier_ones_of_the_transaction(db: Database) -> None:
    with db.transaction() as tx:
        source = tx.put("docs", "d", "text")
        tx.put("chunks", "c", "te", causes=[("derived_from", source)])
    document, chunk = tx.versions
    assert source.version == document
    assert db.ancestors(chunk) == [document]
    assert db.descendants(document) == [chunk]


def test_transactions_do_not_nest_and_end(db: Database) -> None:
    with db.transaction() as tx:
        with pytest.raises(errors.TransactionError), db.transaction():
            pass
        with pytest.raises(errors.TransactionError):
            tx.similar("docs", [1.0])
    with pytest.raises(errors.TransactionError):
        tx.put("a", "k", 1)
    with pytest.raises(errors.TransactionError), tx:
        pass
    with pytest.raises(errors.TransactionError):
        tx.commit()
    with db.transaction():
        pass
    assert db.commits() == []


# Listing and asking


def test_lists_are_in_key_order_and_of_their_moment(db: Database) -> None:
    for key in ("b", "a", "é", "B", "ab"):
        last = db.put("n", key, key)
    db.delete("n", "a")
    db.put("m", "x", 1)
    assert db.list_keys("n") == ["B", "ab", "b", "é"]
    assert db.list_keys("n", as_of=last) == ["B", "a", "ab", "b", "é"]
    assert db.list_keys("n", prefix="a", as_of=last) == ["a", "ab"]
    assert db.list_keys("n", after="B", limit=2) == ["ab", "b"]
    assert db.list_namespaces() == ["m", "n"]
    assert db.list_namespaces(as_of=last) == ["n"]
    assert db.list_keys("none") == []
    assert db.count("n") == 4


def test_query_filters_sorts_pages_and_projects(db: Database) -> None:
    people = {"a": {"age": 30, "name": "A"}, "b": {"age": 25, "name": "B"}, "c": {"name": "C"},
              "d": {"age": 30, "name": "D"}}  # fmt: skip
    db.put_many([("p", key, value) for key, value in people.items()])

    assert keys(db.query("p")) == ["a", "b", "c", "d"]
    assert keys(db.query("p", {"age": {"$gte": 26}})) == ["a", "d"]
    assert keys(db.query("p", sort="age")) == ["b", "a", "d", "c"]
    assert keys(db.query("p", sort="-age")) == ["a", "d", "b", "c"]
    assert keys(db.query("p", sort=["age", "-name"])) == ["b", "d", "a", "c"]
    assert keys(db.query("p", sort="age", limit=2, offset=1)) == ["a", "d"]
    assert keys(db.query("p", limit=1, offset=2)) == ["c"]
    assert [row.value for row in db.query("p", select=["age"])] == [
        {"age": 30}, {"age": 25}, {}, {"age": 30},
    ]  # fmt: skip
    assert db.query("p", {"name": "B"})[0].version.value == people["b"]
    assert db.count("p", {"age": {"$exists": False}}) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"filter": {"a": {"$nope": 1}}}, {"filter": "text"}, {"limit": -1}, {"offset": -1},
        {"limit": 1.5}, {"sort": 5}, {"sort": [1]}, {"select": "a"},
    ],
)  # fmt: skip
def test_a_query_that_is_none_is_refused(db: Database, arguments: dict[str, Any]) -> None:
    with pytest.raises(errors.QueryError):
        db.query("n", **arguments)


def test_a_view_stands_still(db: Database) -> None:
    db.embed("n", "k", [1.0, 0.0], {"v": 1})
    view = db.as_of(None)
    db.embed("n", "k", [0.0, 1.0], {"v": 2})
    db.put("m", "x", 1)

    assert view.get("n", "k") == {"v": 1}
    assert view.get_many("n", ["k", "x"]) == {"k": {"v": 1}}
    assert view.get_raw("n", "k") == b'{"v":1}'
    assert view.contains("n", "k")
    assert keys(view.query("n")) == ["k"]
    assert view.count("n") == 1
    assert view.list_keys("n") == ["k"]
    assert view.list_namespaces() == ["n"]
    assert len(view.history("n", "k")) == 1
    assert len(view.commits()) == 1
    assert view.similar("n", [1.0, 0.0])[0].score == 1.0
    assert view.seq == 1
    assert not hasattr(view, "put")


def test_a_view_reads_at_its_moment_or_at_an_earlier_one(db: Database) -> None:
    first = db.put("n", "k", 1)
    second = db.put("n", "k", 2)
    db.tag("then", second)
    view = db.as_of("tag:then")
    later = db.put("n", "k", 3)

    assert [view.get("n", "k"), view.get("n", "k", as_of=first)] == [2, 1]
    assert view.as_of(first).history("n", "k") == view.history("n", "k", as_of=first) == [first]
    assert list(view.changes()) == [first, second]
    assert [view.tags(), db.as_of(later).tags()] == [{}, {"then": 2}]
    with pytest.raises(errors.InvalidTimestampError, match="after this view"):
        view.get("n", "k", as_of=later)
    with pytest.raises(errors.InvalidTimestampError, match="after this view"):
        view.as_of(later)


def test_a_view_knows_no_version_written_later(db: Database) -> None:
    first = db.embed("n", "k", [1.0, 0.0], 1)
    view = db.as_of(first)
    later = db.embed("n", "k", [0.0, 1.0], 2)

    assert view.get_version(first.id[:12]) == first
    assert view.vectors(first)["default"].tolist() == [1.0, 0.0]
    for ask in (view.get_version, view.vectors, lambda given: view.diff(first, given)):
        for given in (later, later.id, later.id[:12]):
            with pytest.raises(errors.UnknownVersionError):
                ask(given)


def test_get_many_reads_one_moment(db: Database) -> None:
    db.put_many([("n", "a", 1), ("n", "b", 2)])
    assert db.get_many("n", ["b", "x", "a"]) == {"b": 2, "a": 1}


def test_drop_namespace_is_a_commit_of_deletes(db: Database) -> None:
    last = db.put_many([("n", "a", 1), ("n", "b", 2), ("m", "c", 3)])[-1]
    assert db.drop_namespace("n", message="gone") == 2
    assert db.list_namespaces() == ["m"]
    assert db.get("n", "a", as_of=last) == 1
    assert db.drop_namespace("n") == 0


def test_delete_many_is_one_commit_of_those_that_are_there(db: Database) -> None:
    db.put_many([("n", "a", 1), ("n", "b", 2), ("n", "c", 3)])
    gone = db.delete_many("n", ["c", "never", "a", "c"], message="gone")
    assert [(version.key, version.message) for version in gone] == [("c", "gone"), ("a", "gone")]
    assert db.list_keys("n") == ["b"]
    assert db.delete_many("n", ["a", "never"]) == []
    assert db.delete_many("n", []) == []
    assert len(db.commits()) == 2


def test_tags_name_moments_and_move_only_when_told(db: Database) -> None:
    first = db.put("n", "k", 1)
    db.tag("v1")
    db.put("n", "k", 2)
    with pytest.raises(errors.ConflictError):
        db.tag("v1")
    assert db.get("n", "k", as_of="tag:v1") == 1
    db.tag("v1", move=True)
    assert db.get("n", "k", as_of="tag:v1") == 2
    db.tag("first", first)
    assert db.tags() == {"first": 1, "v1": 3}
    assert db.list_namespaces() == ["n"]


def test_revert_brings_back_value_and_vectors(db: Database) -> None:
    first = db.embed("n", "k", [1.0, 0.0], {"v": 1})
    db.put("n", "k", {"v": 2})
    back = db.revert("n", "k", first)
    assert db.get("n", "k") == {"v": 1}
    assert keys(db.similar("n", [1.0, 0.0])) == ["k"]
    assert back.causes == (("references", first.id),)
    other = db.put("n", "other", 1)
    with pytest.raises(errors.InvalidDataError, match="another key"):
        db.revert("n", "k", other)
    with pytest.raises(errors.ConflictError):
        db.revert("n", "k", first, if_match=first)
    db.revert("n", "k", 0, if_match=back)
    assert not db.contains("n", "k")
    with pytest.raises(errors.KeyNotFoundError):
        db.revert("n", "never", 0)


def test_diff_is_a_json_patch(db: Database) -> None:
    import jsonpatch

    one = db.put("n", "k", {"a": 1, "list": [1, 2]})
    two = db.put("n", "k", {"a": 2, "list": [1, 2, 3], "b": None})
    patch = db.diff(one, two)
    assert jsonpatch.apply_patch(one.value, patch) == two.value
    assert db.diff(one, one.id) == []
    gone = db.delete("n", "k")
    assert db.diff(two, gone) == [{"op": "replace", "path": "", "value": None}]


def test_causes_can_be_walked_both_ways(db: Database) -> None:
    a = db.put("n", "a", 1)
    b = db.put("n", "b", 1, causes=[("derived_from", a)])
    c = db.put("n", "c", 1, causes=[b, ("supersedes", a)])
    d = db.put("n", "d", 1, causes=[("derived_from", c)])

    assert db.ancestors(d) == [c, a, b]
    assert db.ancestors(d, max_hops=1) == [c]
    assert db.ancestors(d, kinds=["derived_from"]) == [c]
    assert db.descendants(a) == [b, c, d]
    assert db.descendants(a, as_of=b) == [b]
    assert db.path(d, a) == [d, c, a]
    assert db.path(d, a, kinds=["derived_from"]) == []
    assert db.path(a, d) == []
    with pytest.raises(errors.UnknownCauseError):
        db.put("n", "e", 1, causes=["ab" * 32])
    with pytest.raises(errors.InvalidDataError):
        db.put("n", "e", 1, causes=[("because", a)])
    with pytest.raises(errors.QueryError):
        db.ancestors(a, kinds=["because"])


def test_changes_are_the_log_in_order(db: Database) -> None:
    first = db.put("n", "a", 1)
    rest = [*db.put_many([("n", "b", 1), ("m", "c", 2)]), db.delete("n", "a")]
    assert list(db.changes()) == [first, *rest]
    assert list(db.changes(first)) == rest
    assert list(db.changes(as_of=first)) == [first]


# Vectors


def test_similar_finds_by_direction_now_and_then(db: Database) -> None:
    db.embed("docs", "rain", [1.0, 0.0])
    then = db.embed("docs", "sun", [0.0, 1.0])
    db.embed("docs", "rain", [0.0, 1.0])

    assert keys(db.similar("docs", [1.0, 0.0], k=1, as_of=then)) == ["rain"]
    assert keys(db.similar_at("docs", [1.0, 0.0], then, top_k=1)) == ["rain"]
    assert [(m.key, m.score) for m in db.similar("docs", [0.0, 2.0])] == [
        ("rain", 1.0), ("sun", 1.0),
    ]  # fmt: skip


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_scores_are_exact_and_ties_are_in_key_order(db: Database, metric: Any) -> None:
    rng = np.random.default_rng(7)
    points = rng.normal(size=(300, 16)).astype(np.float32)
    points[100:110] = points[50]
    db.embed_many(
        "v", [(f"k{i:03}", point, {"i": i}) for i, point in enumerate(points)], metric=metric
    )
    queries = (rng.normal(size=16).astype(np.float32), points[50])
    for query in queries:
        wide, target = points.astype(np.float64), query.astype(np.float64)
        if metric == "cosine":
            truth = wide @ target / np.linalg.norm(wide, axis=1) / np.linalg.norm(target)
        elif metric == "dot":
            truth = wide @ target
        else:
            truth = -np.linalg.norm(wide - target, axis=1)
        found = db.similar("v", query, k=25)
        assert [m.score for m in found] == pytest.approx(sorted(truth, reverse=True)[:25], abs=1e-5)
        assert [(-m.score, m.key) for m in found] == sorted((-m.score, m.key) for m in found)
        assert all(truth[m.value["i"]] == pytest.approx(m.score, abs=1e-5) for m in found)
    assert len({m.score for m in found[:11]}) == 1


def test_a_filter_applies_before_the_best_are_chosen(db: Database) -> None:
    items: list[Any] = [(f"k{i:03}", [1.0, i / 1000], {"tag": "x" if i > 296 else "y"})
                        for i in range(300)]  # fmt: skip
    db.embed_many("docs", items)
    found = db.similar("docs", [1.0, 0.0], k=3, filter={"tag": "x"})
    assert keys(found) == ["k297", "k298", "k299"]
    assert db.similar("docs", [1.0, 0.0], filter={"tag": "z"}) == []
    assert len(db.similar("docs", [1.0, 0.0], k=1000)) == 300
    assert db.similar("docs", [1.0, 0.0], k=0) == []
    assert keys(db.similar("docs", [1.0, 0.0], k=400, threshold=0.99999)) == keys(
        [m for m in db.similar("docs", [1.0, 0.0], k=400) if m.score >= 0.99999]
    )


def test_a_put_drops_vectors_and_an_embed_keeps_the_value(db: Database) -> None:
    db.embed("n", "k", [1.0, 0.0], {"v": 1})
    db.embed("n", "k", [0.0, 1.0])
    assert db.get("n", "k") == {"v": 1}
    assert db.similar("n", [0.0, 1.0])[0].score == 1.0
    db.put("n", "k", {"v": 2})
    assert db.similar("n", [0.0, 1.0]) == []
    db.embed("n", "bare", [1.0, 0.0])
    assert db.get("n", "bare") is None
    db.embed("n", "text", "words to find")
    assert db.get("n", "text") == {"text": "words to find"}


def test_models_stand_side_by_side(db: Database) -> None:
    db.embed("n", "k", [1.0, 0.0], {"v": 1}, model="small")
    small_only = db.embed("n", "l", [0.0, 1.0], {"v": 1}, model="small")
    db.embed("n", "k", [1.0, 0.0, 0.0], model="large")

    assert set(db.history("n", "k")[-1].vectors) == {"small", "large"}
    assert keys(db.similar("n", [1.0, 0.0], model="small")) == ["k", "l"]
    assert keys(db.similar("n", [1.0, 0.0, 0.0], model="large")) == ["k"]
    assert keys(db.similar("n", [1.0, 0.0], as_of=small_only)) == ["k", "l"]
    with pytest.raises(errors.ModelMismatchError):
        db.similar("n", [1.0, 0.0])
    with pytest.raises(errors.ModelMismatchError):
        db.similar("n", [1.0, 0.0], model="other")
    db.embed("n", "k", [1.0, 0.0, 0.0], {"v": 2}, model="large")
    assert set(db.history("n", "k")[-1].vectors) == {"large"}
    assert db.vectors(small_only)["small"].tolist() == [0.0, 1.0]


def test_vectors_are_those_of_a_version_of_this_database(db: Database) -> None:
    first = db.embed("n", "k", [1.0, 0.0])
    second = db.embed("n", "k", [0.0, 1.0])
    for version in (second, second.id, second.id[:12]):
        assert db.vectors(version)["default"].tolist() == [0.0, 1.0]
    with koru_delta.open() as other:
        other.embed("n", "x", [3.0, 4.0])
        with pytest.raises(errors.UnknownVersionError):
            other.vectors(first)


def test_a_model_that_comes_later_is_unknown_before(db: Database) -> None:
    before = db.put("n", "k", 1)
    one = db.embed("n", "k", [1.0, 0.0], model="small")
    db.embed("n", "k", [1.0, 0.0, 0.0], model="large")
    assert db.similar("n", [1.0], as_of=before, model="small") == []
    assert keys(db.similar("n", [1.0, 0.0], as_of=one)) == ["k"]
    with pytest.raises(errors.ModelMismatchError):
        db.similar("n", [1.0, 0.0, 0.0], model="large", as_of=one)


def test_vectors_that_do_not_fit_are_refused_and_leave_nothing(db: Database) -> None:
    db.embed("n", "k", [1.0, 0.0], {"v": 1})
    before = db.stats()["root"]
    for call, error in (
        (lambda: db.embed("n", "l", [1.0]), errors.DimensionMismatchError),
        (lambda: db.embed("n", "l", [0.0, 0.0]), errors.InvalidDataError),
        (lambda: db.embed("n", "l", [1.0, 1.0], metric="dot"), errors.MetricMismatchError),
        (lambda: db.embed("n", "l", [1.0, 1.0], metric="odd"), errors.QueryError),  # type: ignore[arg-type]
        (lambda: db.embed("n", "l", [float("nan"), 1.0]), errors.InvalidDataError),
        (
            lambda: db.embed_many("n", [("l", [1.0, 1.0]), ("m", [1.0])]),
            errors.DimensionMismatchError,
        ),
        (lambda: db.embed_many("n", ["l"]), errors.InvalidDataError),  # type: ignore[list-item]
        (lambda: db.similar("n", [1.0]), errors.DimensionMismatchError),
        (lambda: db.similar("n", [0.0, 0.0]), errors.InvalidDataError),
        (lambda: db.similar("n", [1.0, 0.0], k=-1), errors.QueryError),
        (lambda: db.similar("n", [1.0, 0.0], k=True), errors.QueryError),
        (lambda: db.similar("n", [1.0, 0.0], threshold="x"), errors.QueryError),  # type: ignore[arg-type]
    ):  # fmt: skip
        with pytest.raises(error):
            call()
    assert db.stats()["root"] == before
    assert keys(db.similar("n", [1.0, 0.0])) == ["k"]
    assert db.similar("empty", [1.0, 2.0, 3.0]) == []


def test_text_without_an_embedder_says_what_to_do() -> None:
    with koru_delta.open(None) as bare:
        with pytest.raises(errors.EmbedderError, match="embedder="):
            bare.embed("n", "k", "text")
        with pytest.raises(errors.EmbedderError):
            bare.similar("n", "text")


def test_search_follows_valid_time(db: Database) -> None:
    db.embed("n", "k", [1.0, 0.0], {"v": 1}, valid_from="2025-01-01T00:00:00Z")
    db.embed("n", "k", [0.0, 1.0], {"v": 2}, valid_from="2025-06-01T00:00:00Z")
    assert db.similar("n", [1.0, 0.0])[0].value == {"v": 2}
    then = db.similar("n", [1.0, 0.0], valid_at="2025-03-01T00:00:00Z")
    assert [(m.value, m.score) for m in then] == [({"v": 1}, 1.0)]
    assert db.similar("n", [1.0, 0.0], valid_at="2024-03-01T00:00:00Z") == []


def test_a_plain_key_that_gets_a_valid_time_keeps_its_past(db: Database, clock: FixedClock) -> None:
    first = db.embed("n", "k", [1.0, 0.0], {"v": 1})
    clock.advance(seconds=10)
    db.embed("n", "k", [0.0, 1.0], {"v": 2})
    assert db.similar("n", [1.0, 0.0], valid_at=START)[0].value == {"v": 1}
    clock.advance(seconds=10)
    db.embed("n", "k", [1.0, 1.0], {"v": 3}, valid_from=START + timedelta(seconds=5))
    for second, value in ((0, 1), (4, 1), (5, 3), (15, 3)):
        found = db.similar("n", [1.0, 0.0], valid_at=START + timedelta(seconds=second))
        assert [m.value for m in found] == [{"v": value}], second
    assert db.similar("n", [1.0, 0.0], as_of=first)[0].value == {"v": 1}


def test_search_sees_ttl(db: Database, clock: FixedClock) -> None:
    db.embed("n", "k", [1.0, 0.0], ttl=1)
    assert keys(db.similar("n", [1.0, 0.0])) == ["k"]
    clock.advance(seconds=1)
    assert db.similar("n", [1.0, 0.0]) == []


# Proofs, care, files


def test_a_stranger_can_check_that_a_version_is_in_the_log(db: Database) -> None:
    versions = [db.put("n", f"k{i}", i) for i in range(20)]
    versions += db.put_many([("m", f"k{i}", i) for i in range(5)])
    early = db.tree_head()
    db.put("n", "k", "later")
    head = db.tree_head()

    for version in versions:
        proof = db.prove(version)
        assert verify_inclusion(proof, head)
        assert not verify_inclusion(proof, early)
        assert verify_inclusion(db.prove(version, early), early)
        forged = {**proof.record, "author": "mallory"}
        assert not verify_inclusion(type(proof)(**{**_fields(proof), "record": forged}), head)
    link = db.prove_consistency(early.size)
    assert verify_consistency(link, early, head)
    assert not verify_consistency(link, TreeHead(early.size, "00" * 32), head)
    with pytest.raises(errors.QueryError):
        db.prove_consistency(head.size + 1)


def _fields(proof: Any) -> dict[str, Any]:
    return {name: getattr(proof, name) for name in type(proof).__slots__}


def test_an_exported_log_is_the_same_log(db: Database, tmp_path: Path) -> None:
    first = db.embed("docs", "a", "some text", message="first")
    db.put("big", "k", "x" * 20_000, causes=[first])
    db.put("big", "k", "x" * 20_000 + "y", valid_from="2025-01-01T00:00:00Z", ttl=60)
    half = db.delete("docs", "a")
    file = tmp_path / "log.jsonl"
    assert db.export_log(file, as_of=half) == len(file.read_bytes().splitlines())

    with koru_delta.open(tmp_path / "copy", clock=FixedClock()) as copy:
        assert copy.import_log(file) == 4
        assert copy.stats()["root"] == db.stats()["root"]
        assert copy.get("docs", "a", as_of=first) == {"text": "some text"}
        assert copy.verify().ok
        assert copy.import_log(file) == 0

        db.put("n", "k", 1)
        whole = io.BytesIO()
        db.export_log(whole)
        whole.seek(0)
        assert copy.import_log(whole) == 1
        assert copy.tree_head() == db.tree_head()

        copy.put("n", "k", "my own")
        db.put("n", "k", "theirs")
        db.export_log(file)
        with pytest.raises(errors.DivergedLogError, match="from commit 5 on"):
            copy.import_log(file)
        assert copy.get("n", "k") == "my own"


@pytest.mark.parametrize("damage", ["cut", "value", "record", "root", "order", "text", "empty"])
def test_a_damaged_export_is_refused_whole(db: Database, damage: str) -> None:
    db.put("n", "k", {"v": "needle"})
    db.embed("n", "l", [1.0, 2.0], {"v": 2})
    file = io.BytesIO()
    db.export_log(file)
    lines = file.getvalue().splitlines(keepends=True)
    match damage:
        case "cut":
            lines = lines[:-1]
        case "value":
            lines = [line.replace(b"needle", b"noodle") for line in lines]
        case "record":
            lines = [line.replace(b'"local":1', b'"local":7') for line in lines]
        case "root":
            lines[2] = json.dumps({"commit": 0, "root": "00" * 32}).encode() + b"\n"
        case "order":
            lines = [lines[0], *lines[3:], *lines[1:3]]
        case "text":
            lines[1] = b"not json\n"
        case "empty":
            lines = []
    with koru_delta.open(None) as copy:
        with pytest.raises((errors.InvalidDataError, errors.CorruptionError)):
            copy.import_log(io.BytesIO(b"".join(lines)))
        assert copy.stats()["seq"] == 0
        assert copy.list_namespaces() == []
        copy.put("n", "k", 1)
        assert copy.verify().ok


def test_a_backup_is_a_database_of_its_own(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "a") as mine:
        mine.put("n", "k", 1)
        mine.backup(tmp_path / "b")
        mine.put("n", "k", 2)
        with koru_delta.open(tmp_path / "b") as copy:
            assert copy.get("n", "k") == 1
            assert copy.verify().ok
            assert copy.verify().compared
        with pytest.raises(errors.NotADatabaseError):
            mine.backup(tmp_path / "b")


def test_everything_is_there_after_a_reopen(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path, embedder=HashEmbedder()) as first:
        version = first.embed("docs", "a", "rain in spring")
        first.put("n", "big", "x" * 100_000)
        first.tag("t")
    with koru_delta.open(tmp_path, embedder=HashEmbedder()) as again:
        assert again.get("docs", "a") == {"text": "rain in spring"}
        assert keys(again.similar("docs", "rain")) == ["a"]
        assert again.get("docs", "a", as_of="tag:t") == {"text": "rain in spring"}
        assert again.get_version(version.id) == version
        assert len(again.get("n", "big")) == 100_000
        assert again.verify().ok
    with koru_delta.open(tmp_path, read_only=True) as reader:
        assert reader.contains("docs", "a")
        with pytest.raises(errors.ReadOnlyError):
            reader.put("n", "k", 1)


def test_the_files_are_for_their_owner_only(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "new") as database:
        database.put("n", "k", 1)
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
        for file in (tmp_path / "new").iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


def test_an_in_memory_database_leaves_nothing_behind() -> None:
    database = koru_delta.open()
    folder = database._log.engine.directory
    database.put("n", "k", 1)
    database.close()
    database.close()
    assert not folder.exists()


def test_large_values_that_change_a_little_take_little_room(tmp_path: Path) -> None:
    words = np.random.default_rng(1).integers(0, 10**9, 20_000)
    text = " ".join(map(str, words))
    with koru_delta.open(tmp_path, durability="relaxed") as database:
        for number in range(100):
            database.put("n", "k", {"text": f"{text} {number}"})
        for number in (0, 50, 99):
            assert database.history("n", "k")[number].value == {"text": f"{text} {number}"}
        assert database.verify().ok
    assert (tmp_path / "log.db").stat().st_size < 5 * len(text)


def test_threads_that_put_at_once_share_commits_of_the_disk(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path) as database:

        def write(thread: int) -> None:
            for number in range(50):
                database.put(f"n{thread}", f"k{number}", number)

        threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = database.stats()
        assert stats["seq"] == stats["commits"] == 400
        assert stats["transactions"] <= 0.6 * 400
        assert all(database.count(f"n{n}") == 50 for n in range(8))
        assert database.verify().ok


def test_a_refused_batch_does_not_disturb_those_it_shares_a_commit_with(db: Database) -> None:
    from koru_delta.log.append import Appender

    put = db._intents.put
    good = [put("new", "a", 1, {}), put("new", "b", 2, {})]
    bad = [put("fresh", "c", 3, {}), put("new", "a", 4, {"if_match": None})]
    with db._log.engine.writing(lambda _a, _b: None) as writer:
        appender = Appender(writer, "local", db._log.clock())
        appender.append(good)
        with pytest.raises(errors.ConflictError):
            appender.append(bad)
        appender.append([put("fresh", "d", 5, {})])
    assert db.list_namespaces() == ["fresh", "new"]
    assert db.list_keys("fresh") == ["d"]
    assert db.verify().ok


def test_importing_is_light() -> None:
    code = "import koru_delta, sys; print([m for m in ('pydantic', 'typer', 'rich', 'jsonpatch', " \
           "'langchain_core', 're2', 'wordllama') if m in sys.modules])"  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "[]"


def test_every_public_name_says_what_it_is() -> None:
    for name in koru_delta.__all__:
        thing = getattr(koru_delta, name)
        assert name.startswith("__") or name == "KEEP" or (thing.__doc__ or "").strip(), name


def test_versions_read_well(db: Database) -> None:
    version = db.put("users", "alice", 1)
    assert repr(version).startswith(f"<Version {version.id[:12]} put 'users'/'alice' seq=1")
    assert version == db.get_version(version)
    assert len({version, db.get_version(version)}) == 1
    assert isinstance(version, Version)
    assert version.record()["key"] == "alice"


def test_a_write_that_cannot_be_does_not_fail_those_it_shares_a_commit_with(
    tmp_path: Path,
) -> None:
    failed: list[BaseException] = []
    with koru_delta.open(tmp_path, durability="relaxed") as db:

        def good(thread: int) -> None:
            try:
                for number in range(100):
                    db.put("a", f"{thread}-{number}", number)
            except BaseException as error:  # noqa: BLE001 - told below
                failed.append(error)

        threads = [threading.Thread(target=good, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(100):
            with pytest.raises(errors.InvalidTimestampError):
                db.put("a", "b", 1, valid_to="2000-01-01T00:00:00Z")
        for thread in threads:
            thread.join()
        assert failed == []
        assert db.count("a") == 300


@pytest.mark.parametrize("when", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_outside_the_calendar_is_refused(db: Database, when: str) -> None:
    with pytest.raises(errors.InvalidTimestampError):
        db.put("a", "k", 1, valid_from=when)
    with pytest.raises(errors.InvalidTimestampError):
        db.get("a", "k", valid_at=when)


@pytest.mark.parametrize("now", [1.5, True, -5, 2**62, None, "now"])
def test_a_clock_that_tells_no_time_is_named(now: Any) -> None:
    with (
        koru_delta.open(None, clock=lambda: now) as db,
        pytest.raises(errors.InvalidTimestampError, match="clock"),
    ):
        db.put("a", "k", 1)


def test_one_string_is_no_list_of_keys(db: Database) -> None:
    db.put_many([("n", key, 1) for key in "abc"])
    for call in (db.delete_many, db.get_many):
        with pytest.raises(errors.InvalidDataError, match="list of keys"):
            call("n", "abc")
    assert db.count("n") == 3
    with pytest.raises(errors.QueryError):
        db.similar("n", [1.0], threshold=float("nan"))


async def test_a_task_begun_inside_a_transaction_may_begin_its_own_after_it() -> None:
    import asyncio

    async with await koru_delta.AsyncDatabase.open(None) as db:
        over = asyncio.Event()

        async def later() -> None:
            await over.wait()
            async with db.transaction() as tx:
                await tx.put("a", "later", 1)

        async with db.transaction() as tx:
            task = asyncio.create_task(later())
            await tx.put("a", "first", 1)
        over.set()
        await task
        assert await db.list_keys("a") == ["first", "later"]


@pytest.mark.parametrize("verb", ["put_many", "embed_many"])
def test_what_cannot_be_stored_is_told_of_by_its_key_and_the_first_of_its_faults(
    db: koru_delta.Database, verb: str
) -> None:
    values: dict[str, Any] = {"good": 1, "bad": {"a": [1, {"b": {1, 2}}], "c": object()}}

    put = [("n", key, value) for key, value in values.items()]
    embed = [(key, [1.0, 0.0], value) for key, value in values.items()]

    with pytest.raises(errors.InvalidDataError) as caught:
        _ = db.put_many(put) if verb == "put_many" else db.embed_many("n", embed)

    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert (error.namespace, error.key, error.path) == ("n", "bad", "$.a[1].b")
        assert str(error).endswith("(at $.a[1].b); it is of key 'bad' in namespace 'n'")
    assert db.list_keys("n") == []


def test_a_check_tells_how_far_it_is(db: koru_delta.Database) -> None:
    told: list[tuple[int, int]] = []
    db.put_many([("n", f"k{number}", number) for number in range(1_500)])
    db.put("n", "last", 1)

    assert db.verify(progress=lambda done, total: told.append((done, total))).ok
    assert told == [(1_000, 1_501), (1_500, 1_501), (1_501, 1_501)]
