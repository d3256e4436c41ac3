"""What an agent forgets, or has erased: hidden and back, or gone for good."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

import koru_delta
from koru_delta import AgentMemory, Database, errors
from koru_delta.testing import FixedClock
from tests.workspace.test_memory import ids, meaning, memory, plain

__all__ = ["meaning", "memory", "plain"]


# Forgetting


def test_forgetting_by_a_query_takes_what_is_about_it_and_no_more(meaning: AgentMemory) -> None:
    meaning.remember_episodes(["Ada's birthday is in May", "the birthday cake was good",
                               "the office is closed in May"])  # fmt: skip

    gone = meaning.forget("Ada birthday", message="private")

    assert [m.text for m in gone.memories] == ["Ada's birthday is in May"]
    assert (gone.mode, gone.until, len(gone)) == ("hide", None, 1)
    assert meaning.history(gone.memories[0].id)[-1].message == "private"
    assert ids(meaning.restore(gone)) == ids(list(gone.memories))
    assert meaning.restore(gone) == meaning.restore([gone.memories[0].id])  # again is no error


def test_an_embedder_to_which_all_is_alike_forgets_no_more(plain: Database) -> None:
    def alike(given: list[str]) -> list[list[float]]:
        return [[1.0, 0.01 * len(text)] for text in given]

    memory = plain.workspace("agent", embedder=alike).ai_context()
    memory.remember_episodes(["Ada likes tea", "Bob swims", "It rained"])
    assert len(memory.recall("Ada tea")) == 3
    assert [m.text for m in memory.forget("Ada tea").memories] == ["Ada likes tea"]


def test_what_is_no_longer_retained_is_left_out(plain: Database, clock: FixedClock) -> None:
    memory = plain.workspace("agent").ai_context()
    memory.workspace.configure(keep=timedelta(days=1))
    first = memory.remember_fact("home", "Rome")
    for city in ("Oslo", "Bonn"):
        clock.advance(seconds=3 * 86_400)
        memory.remember_fact("home", city)
    memory.remember_fact("home", "Paris", source="bob", supersede=False)
    plain.sweep()
    assert [told.value for told in memory.timeline("home")] == ["Oslo", "Bonn", "Paris"]
    assert [each.name for each in memory.contradictions()] == ["home"]
    assert memory.what_did_i_believe("home", first.version) is None
    with pytest.raises(errors.ErasedError):
        memory.recall("home", as_of=first.version)
    assert len(memory.forget(["fact:home"], mode="ttl", ttl=60)) == 1
    assert memory.recall("home Bonn", types="fact") != []


def test_forgetting_words_that_are_in_everything_forgets_nothing(memory: AgentMemory) -> None:
    memory.remember_episodes(["the cat", "the dog", "the bird"])
    assert len(memory.forget("the visit of Bob at the office")) == 0


def test_a_fact_is_forgotten_at_every_valid_time_and_comes_back_whole(
    memory: AgentMemory, clock: FixedClock
) -> None:
    memory.remember_fact("city", "Rome", valid_from="2010-01-01T00:00:00Z")
    memory.remember_fact("city", "Oslo", valid_from="2020-01-01T00:00:00Z")
    before = memory.timeline("city")
    clock.advance(seconds=1)

    gone = memory.forget(["fact:city"])

    assert memory.timeline("city") == []
    assert memory.recall("city", valid_at="2015-01-01T00:00:00Z") == []
    assert memory.what_did_i_believe("city", gone.time) is None
    believed = memory.what_did_i_believe("city", before[0].version)
    assert believed is not None
    assert believed.value == "Rome"
    clock.advance(seconds=1)
    memory.remember_fact("city", "Bonn")
    assert [m.value for m in memory.timeline("city")] == ["Bonn"]
    memory.restore(gone)
    assert [m.value for m in memory.timeline("city")] == ["Rome", "Oslo", "Bonn"]


def test_forgetting_by_a_ttl_is_exact_at_every_valid_time(
    meaning: AgentMemory, clock: FixedClock
) -> None:
    meaning.remember_fact("city", "Rome", valid_from="2010-01-01T00:00:00Z")
    meaning.remember_fact("city", "Oslo", valid_from="2020-01-01T00:00:00Z")
    meaning.remember_episode("city trip to Rome")
    line = [(m.value, m.valid_from, m.valid_to) for m in meaning.timeline("city")]
    clock.advance(seconds=1)

    gone = meaning.forget("city", mode="ttl", ttl=timedelta(hours=1), min_relevance=0.1)

    assert len(gone) == 2
    assert gone.until == gone.time + timedelta(hours=1)
    clock.now = int(gone.until.timestamp()) * 1_000_000 + gone.until.microsecond - 1
    assert [(m.value, m.valid_from, m.valid_to) for m in meaning.timeline("city")] == line
    assert len(meaning.recall("city")) == 2
    clock.advance(microseconds=1)
    assert meaning.timeline("city") == meaning.recall("city") == []
    assert meaning.recall("city", valid_at="2015-01-01T00:00:00Z") == []
    assert len(meaning.recall("city", as_of=gone.time)) == 2

    meaning.restore(gone)
    assert [(m.value, m.valid_from, m.valid_to) for m in meaning.timeline("city")] == line
    assert len(meaning.recall("city trip")) == 2
    assert meaning.memories()[0].expires_at is None


def test_a_ttl_of_its_own_is_not_lifted_by_restore(memory: AgentMemory, clock: FixedClock) -> None:
    told = memory.remember_episode("for an hour", ttl=3600)
    memory.forget([told])
    [back] = memory.restore([told])
    assert back.expires_at == told.expires_at
    clock.advance(seconds=3601)
    assert memory.recall("hour") == []


def test_forgetting_later_never_makes_a_memory_live_longer(
    memory: AgentMemory, clock: FixedClock
) -> None:
    told = memory.remember_episode("for an hour", ttl=3600)
    assert memory.forget([told], mode="ttl", ttl=86_400).until is None
    assert memory.get(told.id) == told
    gone = memory.forget([told], mode="ttl", ttl=60)
    assert memory.get(told.id).expires_at == gone.until
    assert gone.until is not None
    assert gone.until < told.expires_at if told.expires_at else False

    clock.advance(seconds=61)
    assert memory.recall("hour") == []
    [back] = memory.restore(gone)
    assert back.expires_at == told.expires_at  # its own end, exactly
    assert ids(memory.recall("hour")) == [told.id]
    clock.advance(seconds=3600)
    memory.forget([told], mode="ttl", ttl=60)
    memory.restore([told])
    assert memory.recall("hour") == []
    assert len({told, back, told}) == 2


def test_what_was_true_only_once_can_be_forgotten(memory: AgentMemory) -> None:
    told = memory.remember_fact(
        "office", "Bonn", valid_from="2012-01-01T00:00:00Z", valid_to="2020-01-01T00:00:00Z"
    )
    with pytest.raises(errors.KeyNotFoundError):
        memory.get(told.id)
    gone = memory.forget([told.id])
    assert ids(list(gone.memories)) == [told.id]
    assert memory.timeline("office") == []
    assert ids(memory.restore([told.id])) == [told.id]
    assert [m.value for m in memory.timeline("office")] == ["Bonn"]


def test_a_memory_is_exported_and_reopened_with_its_workspace(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db") as db:
        memory = db.workspace("w").ai_context()
        told = memory.remember_fact("city", "Rome", source="chat")
        memory.remember_episode("rain")
        assert len(json.dumps(list(db.workspace("w").export()))) > 100
    with koru_delta.open(tmp_path / "db", read_only=True) as db:
        memory = db.workspace("w").ai_context()
        assert memory.recall("city")[0].version == told.version
        with pytest.raises(errors.ReadOnlyError):
            memory.remember_episode("x")
        with pytest.raises(errors.ReadOnlyError):
            memory.forget([told])
    with pytest.raises(errors.DatabaseClosedError):
        memory.recall("city")


# Erasing


def test_a_memory_is_erased_with_all_it_ever_was(memory: AgentMemory, clock: FixedClock) -> None:
    memory.remember_fact("home", "Rome", valid_from="2020-01-01T00:00:00Z")
    memory.remember_fact("home", "Oslo")
    memory.remember_fact("team", 7, source="a", supersede=False)
    memory.remember_fact("team", 8, source="b", supersede=False)
    memory.remember_procedure("deploy", "push")
    outcome = memory.record_outcome("deploy", False, note="Ann was ill")
    db = memory.workspace.inside.db
    then = db.as_of(None).seq
    clock.advance(seconds=60)

    gone = memory.erase(["fact:home", "procedure:deploy"], author="Ann")

    assert (len(gone.versions), gone.derived, outcome.trials) == (4, (), 1)
    assert memory.timeline("home") == []
    assert memory.what_did_i_believe("home", then) is None
    for as_of in (None, then):
        assert memory.recall("home", valid_at="2021-01-01T00:00:00Z", as_of=as_of) == []
        assert memory.recall("deploy push", as_of=as_of) == []
    assert not any("Ann was ill" in str(each) for each in memory.workspace.export(history=True))
    assert [each.name for each in memory.contradictions()] == ["team"]
    assert memory.remember_fact("home", "Bonn").value == "Bonn"
    assert [told.value for told in memory.timeline("home")] == ["Bonn"]
    assert memory.erase(["procedure:deploy"]).versions == ()  # what is erased stays so
    for wrong, error in (
        (["fact:nothing"], errors.KeyNotFoundError), ("fact:home", errors.InvalidDataError),
        (5, errors.InvalidDataError),
    ):  # fmt: skip
        with pytest.raises(error):
            memory.erase(wrong)  # type: ignore[arg-type]
    assert db.verify().ok
