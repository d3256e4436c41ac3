"""The verbs, one promise at a time; the state machine checks them against a model."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import koru_delta
from koru_delta import Database, errors
from koru_delta.testing import FixedClock, HashEmbedder

START = datetime(2026, 1, 1, tzinfo=UTC)


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


@pytest.mark.parametrize(
    ("moment", "advice"),
    [
        ("1795835096", "write a time as in 2026-"),
        ("2026-01-01", "no time zone; write it as in 2026-"),
        (datetime(2026, 1, 1), "no time zone; give it one, such as tzinfo="),  # noqa: DTZ001
        ("release", "pass 'tag:release'"),
    ],
)
def test_what_is_nearly_a_moment_is_told_how_to_be_one(
    db: Database, moment: Any, advice: str
) -> None:
    db.put("a", "k", 1)
    db.tag("release")
    with pytest.raises(errors.InvalidTimestampError) as caught:
        db.get("a", "k", as_of=moment)
    assert advice in str(caught.value)


def test_seconds_and_microseconds_for_a_moment_are_told_from_positions(db: Database) -> None:
    version = db.put("a", "k", 1)
    for moment in (version.tx_time, int(version.time.timestamp())):
        with pytest.raises(errors.InvalidTimestampError, match="a time is a datetime or text"):
            db.get("a", "k", as_of=moment)
    with pytest.raises(errors.InvalidTimestampError, match=r"from 0 to 1$"):
        db.get("a", "k", as_of=2)


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
