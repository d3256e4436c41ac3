"""Whatever a verb is called with, it answers or says what is wrong in an error of ours."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import koru_delta
from koru_delta import AgentMemory, Database, Workspace, errors
from koru_delta.testing import FixedClock, HashEmbedder

NONSENSE: list[Any] = [
    None, "", "\n", "\ud800", "a\x00b", "x" * 3_000, 0, -1, 10**30, 1.5, float("nan"), True, b"x",
    [], [None], [1], {}, {"a": 1}, object(), len,
    datetime.fromisoformat("2020-01-01"), datetime.min.replace(tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC), timedelta(-1), timedelta.max, ("derived_from", "x"),
]  # fmt: skip
SENSIBLE: dict[str, dict[str, Any]] = {
    "Workspace.pattern": {"namespace": "q", "pattern": "event"},
    "Workspace.store": {"namespace": "n", "key": "k", "value": 1},
    "Workspace.store_many": {"namespace": "n", "items": [("k", 1)]},
    "Workspace.add": {"namespace": "n", "value": 1},
    "Workspace.delete": {"namespace": "n", "key": "k"},
    "Workspace.expire": {"namespace": "n", "key": "k", "ttl": 100},
    "Workspace.touch": {"namespace": "n", "key": "k"},
    "Workspace.outcome": {"namespace": "memory", "key": "procedure:p", "success": True},
    "Workspace.get": {"namespace": "n", "key": "k"},
    "Workspace.version": {"namespace": "n", "key": "k"},
    "Workspace.history": {"namespace": "n", "key": "k"},
    "Workspace.ancestors": {"version": "ab" * 32},
    "Workspace.search": {"namespace": "n", "text": "rain"},
    "Workspace.query": {"namespace": "n"},
    "Workspace.count": {"namespace": "n"},
    "Workspace.list_keys": {"namespace": "n"},
    "Workspace.outcomes": {"namespace": "memory", "key": "procedure:p"},
    "AgentMemory.remember_episode": {"text": "rain"},
    "AgentMemory.remember_episodes": {"episodes": ["rain"]},
    "AgentMemory.remember_fact": {"key": "f", "value": 1, "source": "s"},
    "AgentMemory.remember_procedure": {"name": "p", "steps": "x"},
    "AgentMemory.record_outcome": {"procedure": "p", "success": True},
    "AgentMemory.recall": {"query": "rain"},
    "AgentMemory.context": {"query": "rain"},
    "AgentMemory.get": {"id": "fact:f"},
    "AgentMemory.history": {"id": "fact:f"},
    "AgentMemory.why": {"memory": "fact:f"},
    "AgentMemory.what_did_i_believe": {"key": "f", "at": None},
    "AgentMemory.timeline": {"key": "f"},
    "AgentMemory.forget": {"what": ["fact:f"]},
    "AgentMemory.erase": {"what": []},
    "AgentMemory.restore": {"what": ["fact:f"]},
}
LEFT = {"inside", "workspace", "drop", "reembed"}


@pytest.fixture
def agents(clock: FixedClock) -> Iterator[Database]:
    with koru_delta.open(clock=clock) as database:
        yield database


def verbs() -> Iterator[Any]:
    for kind in (Workspace, AgentMemory):
        for name, verb in inspect.getmembers(kind, inspect.isfunction):
            if not name.startswith("_") and name not in LEFT:
                yield pytest.param(kind, name, verb, id=f"{kind.__name__}.{name}")


@pytest.mark.parametrize(("kind", "name", "verb"), list(verbs()))
def test_nonsense_is_answered_or_refused_by_an_error_of_ours(
    agents: Database, kind: type, name: str, verb: Any
) -> None:
    space = agents.workspace(
        "w", embedder=HashEmbedder(8) if name in ("recall", "search") else None
    )
    memory = space.ai_context()
    space.store("n", "k", {"text": "rain"})
    memory.remember_procedure("p", "x")
    told = memory.remember_fact("f", "rain")
    elsewhere = agents.workspace("other").ai_context().remember_episode("rain")
    on = space if kind is Workspace else memory
    sensible = SENSIBLE.get(f"{kind.__name__}.{name}", {})
    for parameter in list(inspect.signature(verb).parameters)[1:]:
        for nonsense in [*NONSENSE, told, elsewhere, elsewhere.version, elsewhere.id]:
            with suppress(errors.KoruDeltaError):
                answer = getattr(on, name)(**{**sensible, parameter: nonsense})
                if isinstance(answer, Iterator):
                    list(answer)
    assert elsewhere == agents.workspace("other").ai_context().get(elsewhere.id)
    assert agents.verify().ok


def test_a_key_is_never_made_up_where_one_is_asked_for(agents: Database) -> None:
    space = agents.workspace("w")
    for wrong in (
        lambda: space.store("n", None, 1),  # type: ignore[arg-type]
        lambda: space.store_many("n", [(None, 1)]),  # type: ignore[list-item]
        lambda: space.store_many("n", {"k": 1}),  # type: ignore[arg-type]
        lambda: space.store_many("n", 5),  # type: ignore[arg-type]
    ):
        with pytest.raises(errors.InvalidDataError):
            wrong()
    assert space.list_namespaces() == []


def test_a_filter_is_not_passed_over_in_silence_when_memories_are_named(agents: Database) -> None:
    memory = agents.workspace("w").ai_context()
    told = memory.remember_episode("rain", session="monday")
    for options in ({"types": "fact"}, {"tags": "x"}, {"session": "tuesday"}):
        with pytest.raises(errors.InvalidDataError, match="what is named is forgotten whatever"):
            memory.forget([told], **options)
    assert memory.memories() == [told]


def test_before_1970_nothing_was_known_and_that_is_an_answer(agents: Database) -> None:
    memory = agents.workspace("w").ai_context()
    memory.remember_fact("home", "Rome", valid_from="1950-01-01T00:00:00Z")
    then = datetime(1960, 1, 1, tzinfo=UTC)
    assert memory.recall("home", as_of=then) == memory.memories(as_of=then) == []
    assert memory.what_did_i_believe("home", then) is None
    assert [found.value for found in memory.recall("home", valid_at=then)] == ["Rome"]
    agents.erase(("w/memory", "fact:home"))
    assert memory.recall("home", valid_at=then) == []
