"""Workspaces: what is stored inside, by which rules, and what never crosses the border."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import koru_delta
from koru_delta import CausalFilter, Database, Outcomes, Workspace, embedders, errors
from koru_delta.embedders import as_embedder
from koru_delta.testing import FixedClock, HashEmbedder

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 86_400


@pytest.fixture
def plain(clock: FixedClock) -> Iterator[Database]:
    with koru_delta.open(clock=clock) as database:
        yield database


@pytest.fixture
def space(db: Database) -> Workspace:
    return db.workspace("agent-42")


def keys(found: Any) -> list[str]:
    return [each.key for each in found]


# Storing and finding


def test_what_is_stored_is_found_inside_and_named_in_the_database(
    db: Database, space: Workspace
) -> None:
    version = space.store("notes", "rain", {"text": "rain in spring", "n": 1}, author="ada")

    assert version.namespace == "agent-42/notes"
    assert space.get("notes", "rain") == {"text": "rain in spring", "n": 1}
    assert space.get("notes", "none", None) is None
    assert space.version("notes", "rain") == space.get_version(version.id) == version
    assert space.history("notes", "rain") == [version]
    assert keys(space.search("notes", "spring")) == ["rain"]
    assert keys(space.query("notes", {"n": 1})) == space.list_keys("notes") == ["rain"]
    assert space.count("notes") == space.count("notes", text="spring") == 1
    assert space.list_namespaces() == ["notes"]
    assert db.get("agent-42/notes", "rain") == {"text": "rain in spring", "n": 1}
    assert list(version.vectors) == ["hash-words-64"]


def test_opening_writes_nothing_and_the_first_thing_stored_makes_it(db: Database) -> None:
    space = db.workspace("new")
    assert space.stats()["items"] == 0
    assert space.search("n", "x") == []
    assert space.list_namespaces() == []
    assert db.stats()["seq"] == 0
    space.store("n", "k", 1)
    assert db.list_namespaces() == ["new/n"]


def test_many_are_stored_in_one_commit_or_none(db: Database, space: Workspace) -> None:
    space.store("n", "first", "makes it")
    before = len(db.commits())
    assert keys(space.store_many("n", [("a", "one"), ("b", {"x": 1}), ("a", "two")])) == [
        "a", "b", "a",
    ]  # fmt: skip
    assert len(db.commits()) == before + 1
    with pytest.raises(errors.InvalidDataError):
        space.store_many("n", [("c", 1), ("d", {1})])  # type: ignore[list-item]
    assert space.list_keys("n") == ["a", "b", "first"]


def test_what_is_added_gets_a_key_of_its_own_in_the_order_of_time(
    space: Workspace, clock: FixedClock
) -> None:
    first = [space.add("n", {"x": 1}) for _ in range(3)]
    clock.advance(seconds=1)
    later = space.add("n", {"x": 1})

    assert len({version.key for version in first} | {later.key}) == 4
    assert later.key > max(version.key for version in first)
    assert later.key.startswith("20260101T000001.")


def test_the_past_of_a_workspace_can_be_asked(space: Workspace, clock: FixedClock) -> None:
    first = space.store("n", "k", {"text": "rain"}, ttl=5)
    clock.advance(seconds=1)
    space.store("n", "k", {"text": "sun"})
    space.delete("n", "k")

    assert space.get("n", "k", None) is None
    assert space.get("n", "k", as_of=first) == {"text": "rain"}
    assert keys(space.search("n", "rain", as_of=first)) == ["k"]
    assert space.list_namespaces(as_of=first) == ["n"]
    assert space.stats()["items"] == 0


def test_it_ends_and_lives_on_as_in_the_database(space: Workspace, clock: FixedClock) -> None:
    space.store("n", "k", {"text": "rain"})
    space.expire("n", "k", ttl=10)
    space.touch("n", "k", ttl=None)
    clock.advance(seconds=100)
    assert space.get("n", "k") == {"text": "rain"}
    space.expire("n", "k", at=START + timedelta(days=1))
    clock.advance(seconds=DAY)
    assert space.list_keys("n") == []


# The border


def test_search_and_query_see_one_workspace_only(db: Database) -> None:
    one, other = db.workspace("one"), db.workspace("other")
    one.store("n", "a", "rain in spring")
    other.store("n", "b", "rain in autumn")
    db.embed("n", "c", "rain in summer")

    assert keys(one.search("n", "rain")) == keys(one.query("n")) == one.list_keys("n") == ["a"]
    assert keys(other.search("n", "rain")) == ["b"]
    assert one.list_namespaces() == ["n"]


def test_causes_do_not_cross(db: Database) -> None:
    one, other = db.workspace("one"), db.workspace("other")
    mine, theirs, outside = one.store("n", "a", 1), other.store("n", "b", 2), db.put("n", "c", 3)

    assert one.store("n", "d", 4, causes=[mine, ("derived_from", mine.id)]).causes == (
        ("caused_by", mine.id), ("derived_from", mine.id),
    )  # fmt: skip
    for foreign in (theirs, theirs.id, outside, ("references", theirs)):
        with pytest.raises(errors.IsolationError, match="not of workspace 'one'"):
            one.store("n", "e", 5, causes=[foreign])
        target: Any = foreign[1] if isinstance(foreign, tuple) else foreign
        with pytest.raises(errors.IsolationError):
            one.get_version(target)
        with pytest.raises(errors.IsolationError):
            one.search("n", "x", causal=CausalFilter(derived_from=target))
        with pytest.raises(errors.IsolationError):
            one.ancestors(target)
    assert one.list_keys("n") == ["a", "d"]
    for wrong in (mine, "ab", [5], [("derived_from", 5)]):
        with pytest.raises((errors.InvalidDataError, errors.UnknownVersionError)):
            one.store("n", "e", 5, causes=wrong)  # type: ignore[arg-type]


def test_anchors_of_a_filter_are_named_as_inside(db: Database) -> None:
    space = db.workspace("one")
    source = space.store("src", "s", "source")
    space.store("n", "a", "rain", causes=[("derived_from", source)])
    space.store("n", "b", "rain")

    for anchor in (source, source.id, ("src", "s"), [("src", "s")]):
        only = CausalFilter(derived_from=anchor)
        assert keys(space.search("n", "rain", causal=only)) == ["a"]
        assert keys(space.query("n", causal=only)) == ["a"]
    with pytest.raises(errors.KeyNotFoundError):
        space.search("n", "rain", causal=CausalFilter(derived_from=("n2", "s")))


def test_what_was_linked_from_outside_is_not_walked_into(db: Database) -> None:
    one = db.workspace("one")
    secret = db.put("secret", "s", "hidden")
    mine = db.put("one/n", "k", 1, causes=[secret])
    child = one.store("n", "child", 2, causes=[mine])
    assert one.ancestors(child) == [mine]


@pytest.mark.parametrize("name", ["", "a/b", "/", "$x", "x" * 161, 5, None, "a\0b", "\ud800"])
def test_names_that_cannot_be_are_refused(db: Database, name: Any) -> None:
    with pytest.raises(errors.InvalidDataError):
        db.workspace(name)


@pytest.mark.parametrize("namespace", ["", "$usage", "x" * 250, 5, None, "a\0b"])
def test_namespaces_that_cannot_be_are_refused(space: Workspace, namespace: Any) -> None:
    for call in (
        lambda: space.store(namespace, "k", 1), lambda: space.get(namespace, "k"),
        lambda: space.search(namespace, "x"), lambda: space.query(namespace),
        lambda: space.pattern(namespace, "event"), lambda: space.delete(namespace, "k"),
        lambda: space.history(namespace, "k"), lambda: space.list_keys(namespace),
    ):  # fmt: skip
        with pytest.raises(errors.InvalidDataError):
            call()


# Embedders


def test_a_workspace_has_an_embedder_of_its_own(plain: Database) -> None:
    small, large = (embedders.as_embedder(HashEmbedder(size), name=f"h{size}") for size in (16, 32))
    one = plain.workspace("one", embedder=small)
    two = plain.workspace("two", embedder=large)
    three = plain.workspace("three")
    for space in (one, two, three):
        space.store("n", "k", "rain in spring")

    assert [list(space.version("n", "k").vectors) for space in (one, two, three)] == [
        ["h16"], ["h32"], [],
    ]  # fmt: skip
    assert [keys(space.search("n", "rain")) for space in (one, two, three)] == [["k"]] * 3
    assert [space.settings.embedder for space in (one, two, three)] == ["h16", "h32", None]


def test_another_embedder_than_the_one_that_filled_it_is_refused(plain: Database) -> None:
    plain.workspace("w", embedder=HashEmbedder(16)).store("n", "k", {"text": "rain"})

    with pytest.raises(errors.ModelMismatchError, match="hash-words-16"):
        plain.workspace("w", embedder=HashEmbedder(32))
    without = plain.workspace("w")
    assert keys(without.search("n", "rain")) == ["k"]  # by words
    with pytest.raises(errors.EmbedderError, match="filled by 'hash-words-16'"):
        without.store("n", "l", {"text": "sun"})
    with pytest.raises(errors.EmbedderError):
        without.search("n", "rain", mode="vector")
    without.store("n", "number", 5)  # nothing to embed


def test_reembed_gives_it_another_embedder(plain: Database, clock: FixedClock) -> None:
    space = plain.workspace("w", embedder=HashEmbedder(16))
    then = space.store("n", "k", {"text": "rain"})
    space.store("n", "number", 5)
    clock.advance(seconds=1)

    assert space.reembed(HashEmbedder(32)) == 1

    assert list(space.version("n", "k").vectors) == ["hash-words-32"]
    assert keys(space.search("n", "rain", mode="vector")) == ["k"]
    assert keys(space.search("n", "rain", as_of=then)) == ["k"]
    assert plain.workspace("w", embedder=HashEmbedder(32)).settings.embedder == "hash-words-32"


def test_who_still_has_the_embedder_of_before_writes_nothing_by_it(plain: Database) -> None:
    stale, space = (plain.workspace("w", embedder=HashEmbedder(16)) for _ in range(2))
    space.store("n", "k", {"text": "rain"})
    space.reembed(HashEmbedder(32))

    with pytest.raises(
        errors.ModelMismatchError, match=r"workspace 'w' is filled by 'hash-words-32'.*reembed"
    ):
        stale.store("n", "l", {"text": "sun"})
    stale.store("n", "number", 5)
    assert keys(stale.search("n", "rain")) == ["k"]  # by words
    assert space.list_keys("n") == ["k", "number"]


@pytest.mark.parametrize("failing", [lambda _: 1 / 0, lambda texts: [[float("nan")]] * len(texts)])
def test_an_embedder_that_fails_fills_nothing(plain: Database, failing: Any) -> None:
    broken = plain.workspace("w", embedder=as_embedder(failing, name="broken"))
    with pytest.raises(errors.EmbedderError, match="broken"):
        broken.store("n", "k", {"text": "rain"})
    assert broken.settings.embedder is None
    space = plain.workspace("w", embedder=HashEmbedder(16))  # another may take its place
    space.store("n", "k", {"text": "rain"})
    assert keys(space.search("n", "rain", mode="vector")) == ["k"]


def test_text_names_what_is_embedded(space: Workspace) -> None:
    space.store("n", "a", {"x": 1}, text="rain in spring")
    assert keys(space.search("n", "rain in spring", mode="vector", threshold=0.9)) == ["a"]
    with pytest.raises(errors.InvalidDataError):
        space.store("n", "b", {"x": 1}, text=5)  # type: ignore[arg-type]


# Settings


def test_settings_are_in_the_log_and_there_after_a_reopen(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db") as db:
        space = db.workspace("w")
        space.pattern("log", "event")
        said = space.configure(max_items=3, keep=timedelta(days=1), author="ada", message="small")
        seq = db.stats()["seq"]
        assert space.configure(max_items=3) == said
        assert db.stats()["seq"] == seq
        db.export_log(tmp_path / "log.jsonl")
    with koru_delta.open(tmp_path / "other") as db:
        db.import_log(tmp_path / "log.jsonl")
        space = db.workspace("w")
        assert space.settings == said
        assert (said.max_items, said.max_bytes, said.keep) == (3, None, timedelta(days=1))
        assert space.configure(keep=None).keep is None
        assert "$workspaces" not in db.list_namespaces()


@pytest.mark.parametrize(
    "wrong",
    [{"max_items": -1}, {"max_items": True}, {"max_bytes": 1.5}, {"max_bytes": "1"},
     {"keep": 5}, {"keep": timedelta(-1)}, {"versions": 0}, {"versions": "2"}],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(space: Workspace, wrong: Any) -> None:
    with pytest.raises(errors.InvalidDataError):
        space.configure(**wrong)
    assert space.settings == koru_delta.workspace.Settings()


def test_every_namespace_retains_as_the_workspace_says(db: Database, space: Workspace) -> None:
    space.store("a", "k", 1)
    space.configure(keep=timedelta(0), versions=1)
    space.store("b", "k", 1)
    space.store("b", "k", 2)
    db.put("elsewhere", "k", 1)
    assert set(db.retentions()) == {"agent-42/a", "agent-42/b"}
    assert {policy.versions for policy in db.retentions().values()} == {1}

    assert db.sweep().versions == 1
    assert space.get("b", "k") == 2
    db.workspace("agent-42").configure(keep=None, versions=None)
    assert not any(policy.is_active for policy in db.retentions().values())


# Quota


def test_a_quota_of_items_refuses_what_is_too_much_and_says_what_to_do(
    db: Database, space: Workspace
) -> None:
    space.store("n", "a", 1)
    space.configure(max_items=2)
    space.store("m", "b", 1)
    space.store("n", "a", 2)  # no new one
    seq = db.stats()["seq"]

    with pytest.raises(errors.QuotaExceededError, match=r"delete or expire.*configure") as caught:
        space.store("n", "c", 1)
    assert db.stats()["seq"] == seq
    error = caught.value
    assert (error.workspace, error.what, error.limit, error.wanted) == ("agent-42", "items", 2, 3)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    with pytest.raises(errors.QuotaExceededError):
        space.store_many("n", [("a", 3), ("d", 1)])
    assert space.get("n", "a") == 2

    space.delete("m", "b")
    space.store("n", "c", 1)
    space.configure(max_items=None)
    space.store("n", "d", 1)
    assert space.stats()["items"] == 3


def test_a_quota_of_bytes_counts_values(space: Workspace) -> None:
    space.configure(max_bytes=10)
    space.store("n", "a", "12345678")  # ten with the quotes
    with pytest.raises(errors.QuotaExceededError, match="10 bytes"):
        space.store("n", "b", 1)
    space.store("n", "a", "123456")
    space.store("n", "b", 12)
    assert space.stats()["bytes"] == 10


def test_what_has_expired_or_was_written_around_it_is_counted_when_it_matters(
    db: Database, space: Workspace, clock: FixedClock
) -> None:
    space.configure(max_items=2)
    space.store("n", "a", 1, ttl=10)
    space.store("n", "b", 1)
    with pytest.raises(errors.QuotaExceededError):
        space.store("n", "c", 1)
    clock.advance(seconds=11)
    space.store("n", "c", 1)
    db.delete("agent-42/n", "b")
    space.store("n", "d", 1)
    assert space.list_keys("n") == ["c", "d"]


def test_a_quota_that_is_passed_already_lets_things_become_less(space: Workspace) -> None:
    space.store_many("n", [(f"k{n}", "long" * n) for n in range(5)])
    space.configure(max_items=2, max_bytes=5)
    space.store("n", "k4", "")
    space.delete("n", "k3")
    with pytest.raises(errors.QuotaExceededError):
        space.store("n", "k4", "x")


# Patterns


def test_an_event_is_written_once(db: Database, space: Workspace, clock: FixedClock) -> None:
    space.pattern("log", "event", prefix="e:")
    space.store("log", "e:1", {"what": "began"})
    space.store("log", "free", 1)
    space.store("log", "free", 2)

    for wrong in (
        lambda: space.store("log", "e:1", {"what": "began"}),
        lambda: space.store_many("log", [("e:2", 1), ("e:2", 2)]),
        lambda: space.delete("log", "e:1"),
    ):
        with pytest.raises(errors.ImmutableEventError, match="written once"):
            wrong()
    assert space.list_keys("log") == ["e:1", "free"]
    assert space.get("log", "e:1") == {"what": "began"}

    db.workspace("agent-42").store("log", "e:3", 1, ttl=1)
    clock.advance(seconds=2)
    with pytest.raises(errors.ImmutableEventError):
        space.store("log", "e:3", 2)  # it is gone, and was there


def test_a_reference_ends_what_it_contradicts(space: Workspace, clock: FixedClock) -> None:
    space.pattern("facts", "reference")
    space.store("facts", "city", "Paris", valid_from="2020-01-01T00:00:00Z")
    space.store("facts", "city", "Rome", valid_from="2025-01-01T00:00:00Z")
    space.store("facts", "city", "Bonn", valid_from="2010-01-01T00:00:00Z")  # known last

    def at(when: str) -> Any:
        return space.get("facts", "city", None, valid_at=when)

    assert [at(f"{year}-06-01T00:00:00Z") for year in (2009, 2010, 2019, 2020, 2024, 2025)] == [
        None, "Bonn", "Bonn", "Paris", "Paris", "Rome",
    ]  # fmt: skip
    assert space.get("facts", "city") == "Rome"
    assert space.history("facts", "city")[-1].valid_to == datetime(2020, 1, 1, tzinfo=UTC)


def test_a_pattern_is_for_good(space: Workspace) -> None:
    space.pattern("n", "event", prefix="e:")
    space.pattern("n", "event", prefix="e:")
    space.pattern("n", "reference")
    with pytest.raises(errors.InvalidDataError, match="for good"):
        space.pattern("n", "reference", prefix="e:")
    with pytest.raises(errors.InvalidDataError, match="event, reference, procedure"):
        space.pattern("n", "set")  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidDataError):
        space.pattern("n", "event", prefix=5)  # type: ignore[arg-type]
    assert space.settings.pattern("n", "e:1") == "event"  # the longest prefix decides
    assert space.settings.pattern("n", "f") == "reference"
    assert space.settings.pattern("m", "e:1") is None


def test_a_procedure_is_rated_by_the_outcomes_of_its_content(
    space: Workspace, clock: FixedClock
) -> None:
    space.pattern("how", "procedure")
    first = space.store("how", "deploy", {"steps": ["push"]})
    assert space.outcomes("how", "deploy") == Outcomes(0, 0)
    for success in (True, True, False):
        clock.advance(seconds=1)
        space.outcome("how", "deploy", success, note="on friday")
    told = space.outcome("how", "deploy", True)
    assert told == space.outcomes("how", "deploy") == Outcomes(3, 1)
    assert told.score == pytest.approx(0.3006, abs=1e-4)
    assert space.outcomes("how", "deploy", as_of=first) == Outcomes(0, 0)

    clock.advance(seconds=1)
    space.store("how", "deploy", {"steps": ["test", "push"]})
    assert space.outcomes("how", "deploy") == Outcomes(0, 0)
    space.store("how", "deploy", {"steps": ["push"]})
    assert space.outcomes("how", "deploy") == Outcomes(3, 1)  # the same content has its own
    with pytest.raises(errors.ImmutableEventError):
        space.delete("how.outcomes", space.list_keys("how.outcomes")[0])


def test_outcomes_are_of_procedures(space: Workspace) -> None:
    space.store("n", "k", 1)
    with pytest.raises(errors.InvalidDataError, match="no procedure"):
        space.outcome("n", "k", True)
    space.pattern("n", "procedure")
    with pytest.raises(errors.InvalidDataError):
        space.outcome("n", "k", 1)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidDataError):
        space.outcome("n", "k", True, note=5)  # type: ignore[arg-type]
    with pytest.raises(errors.KeyNotFoundError):
        space.outcome("n", "none", True)


@pytest.mark.parametrize(
    ("successes", "failures", "score"),
    # R: prop.test(x, n, correct = FALSE)$conf.int[1]
    [(0, 0, 0.0), (1, 0, 0.20654), (0, 1, 0.0), (3, 0, 0.43850), (30, 0, 0.88649),
     (5, 5, 0.23659), (90, 10, 0.82563)],
)  # fmt: skip
def test_the_score_is_wilsons_lower_bound(successes: int, failures: int, score: float) -> None:
    assert Outcomes(successes, failures).score == pytest.approx(score, abs=1e-5)


# Taking out


def test_everything_can_be_exported_as_json(space: Workspace, clock: FixedClock) -> None:
    first = space.store("a", "k", {"x": 1}, author="ada", valid_from="2025-01-01T00:00:00Z")
    clock.advance(seconds=1)
    second = space.store("a", "k", {"x": 2}, causes=[first], ttl=60)
    space.store("b", "l", None)

    records = [json.loads(json.dumps(record)) for record in space.export()]
    assert [(r["namespace"], r["key"], r["value"]) for r in records] == [
        ("a", "k", {"x": 2}), ("b", "l", None),
    ]  # fmt: skip
    assert records[0] == {
        "namespace": "a", "key": "k", "operation": "put", "value": {"x": 2},
        "version": second.id, "time": second.time.isoformat(),
        "valid_from": second.valid_from.isoformat(), "valid_to": None,
        "expires_at": (second.time + timedelta(seconds=60)).isoformat(), "hidden": False,
        "erased": False, "author": None, "message": None, "run": None,
        "causes": [["caused_by", first.id]],
    }  # fmt: skip
    assert [r["value"] for r in space.export(history=True)] == [{"x": 1}, {"x": 2}, None]
    assert [r["value"] for r in space.export(as_of=first)] == [{"x": 1}]


def test_dropping_leaves_the_past_and_nothing_else(db: Database, clock: FixedClock) -> None:
    one, other = db.workspace("one"), db.workspace("other")
    one.pattern("facts", "reference")
    one.store("facts", "old", "x", valid_from="2020-01-01T00:00:00Z",
              valid_to="2021-01-01T00:00:00Z")  # fmt: skip
    then = one.store("n", "k", "rain")
    one.configure(max_items=10)
    one.store("n", "l", "rain")
    other.store("n", "k", "rain")
    clock.advance(seconds=1)

    assert one.drop(author="ada", message="left") == 2

    assert one.list_namespaces() == []
    assert one.search("n", "rain") == []
    assert one.get("facts", "old", None, valid_at="2020-06-01T00:00:00Z") is None
    assert one.settings == koru_delta.workspace.Settings()
    assert keys(one.search("n", "rain", as_of=then)) == ["k"]
    assert keys(other.search("n", "rain")) == ["k"]
    assert one.drop() == 0
    one.store("facts", "old", "anew")
    assert one.get("facts", "old") == "anew"


def test_dropping_can_erase_for_good(db: Database) -> None:
    one = db.workspace("one")
    then = one.store("n", "k", "rain")
    one.delete("n", "k")
    last = one.store("n", "l", "sun")

    one.drop(erase=True)

    for version in (then, last):
        with pytest.raises(errors.ErasedError):
            _ = db.get_version(version.id).value
    assert one.list_namespaces() == []
    assert db.verify().ok


def test_stats_tell_what_there_is(space: Workspace) -> None:
    space.pattern("log", "event")
    space.configure(max_items=5, keep=timedelta(days=1))
    space.store("n", "k", "abc")
    assert space.stats() == {
        "name": "agent-42", "items": 1, "bytes": 5, "namespaces": {"n": 1},
        "embedder": "hash-words-64", "max_items": 5, "max_bytes": None,
        "keep": timedelta(days=1), "versions": None,
        "patterns": [{"namespace": "log", "prefix": "", "pattern": "event"}],
    }  # fmt: skip


def test_a_read_only_handle_reads_a_workspace(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db") as db:
        db.workspace("w").store("n", "k", "rain")
    with koru_delta.open(tmp_path / "db", read_only=True) as db:
        space = db.workspace("w")
        assert keys(space.search("n", "rain")) == ["k"]
        for write in (
            lambda: space.store("n", "l", 1), lambda: space.configure(max_items=1),
            lambda: space.delete("n", "k"), lambda: space.pattern("n", "event"), space.drop,
        ):  # fmt: skip
            with pytest.raises(errors.ReadOnlyError):
                write()


def test_workspaces_are_listed_as_of_any_moment(db: Database) -> None:
    db.workspace("bob").store("notes", "a", 1)
    db.workspace("ada").configure(max_items=9)
    db.workspace("only opened")
    db.put("no/workspace", "a", 1)
    then = db.commits()[-1]
    db.workspace("bob").drop()

    assert db.list_workspaces() == ["ada"]
    assert db.list_workspaces(as_of=then) == db.as_of(then).list_workspaces() == ["ada", "bob"]
    assert db.list_workspaces(as_of=0) == []
