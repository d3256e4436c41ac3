"""An agent's old episodes become one; what it knows and how it does things stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import koru_delta
from koru_delta import AgentMemory, AsyncDatabase, Consolidate, Database, Memory, errors
from koru_delta.testing import FixedClock, HashEmbedder

DAY = timedelta(days=1)
TALK = (
    "Ann wants the garden watered on Mondays.",
    "Ann asked when the garden was watered last.",
    "The hose in the garden leaks.",
    "Ann bought a new hose for the garden.",
    "We talked about soup.",
)


def later(clock: FixedClock, days: float = 40) -> None:
    clock.advance(seconds=days * 86_400)


def lived(memory: AgentMemory, clock: FixedClock) -> list[Memory]:
    """A conversation, and what was learnt in it; the episodes."""
    made = []
    for number, text in enumerate(TALK):
        clock.advance(seconds=60)
        made.append(memory.remember_episode(text, session="monday", tags=["garden", f"n{number}"]))
    memory.remember_episode("The hose was paid for.", session="tuesday")
    memory.remember_episode("Nobody said when.")
    for city in ("Oslo", "Rome"):
        memory.remember_fact("home", city, session="monday")
    memory.remember_fact("pet", "cat", session="monday", source="ann", supersede=False)
    for _ in range(6):
        memory.remember_procedure("water", ["open the tap", "wait"], session="monday")
    memory.record_outcome("water", True)
    return made


@pytest.fixture(params=["words", "meaning"])
def memory(request: pytest.FixtureRequest, clock: FixedClock) -> Iterator[AgentMemory]:
    own = HashEmbedder(32) if request.param == "meaning" else None
    with koru_delta.open(clock=clock) as db:
        yield db.workspace("agent", embedder=own).ai_context()


def test_old_episodes_of_a_session_are_recalled_as_one(
    memory: AgentMemory, clock: FixedClock
) -> None:
    db = memory.workspace.inside.db
    episodes = lived(memory, clock)
    others = [each for each in memory.memories() if each not in episodes]
    memory.consolidate()
    assert db.lifecycle.run_once("consolidate") == []
    later(clock)

    [made] = db.lifecycle.run_once("consolidate")

    assert made.keys == tuple(each.id for each in episodes)
    summary = memory.get(made.key)
    assert (summary.type, summary.session, summary.tags) == (
        "episode", "monday", ("garden", "n0", "n1", "n2", "n3", "n4")
    )  # fmt: skip
    assert summary.text == "\n".join(TALK)
    assert summary.valid_from == episodes[-1].valid_from
    assert bool(db.vectors(summary.version)) is (memory.workspace.embedder is not None)
    assert memory.memories() == sorted([summary, *others], key=lambda each: each.id)
    found = memory.recall("a new hose for the garden")
    assert (found[0].id, found[0].type) == (summary.id, "episode")
    assert {each.id for each in found}.isdisjoint(made.keys)
    assert [each.id for each in memory.recall("hose", tags="n3", types="episode")] == [summary.id]
    assert memory.why(summary) == [each.version for each in episodes]
    assert memory.get(episodes[0].id) == episodes[0]
    assert memory.forgotten() == []
    assert memory.recall("hose leaks", as_of=episodes[4].version)[0].id == episodes[2].id

    db.lifecycle.undo(summary.version)
    assert memory.memories() == sorted([*episodes, *others], key=lambda each: each.id)
    assert memory.forgotten() == []
    assert memory.recall("a new hose for the garden")[0].id == episodes[3].id
    with pytest.raises(errors.KeyNotFoundError):
        memory.get(summary.id)


def test_facts_and_procedures_are_never_consolidated_whatever_is_wished(
    memory: AgentMemory, clock: FixedClock
) -> None:
    db = memory.workspace.inside.db
    episodes = lived(memory, clock)
    for number in range(6):
        memory.remember_fact(f"fact {number}", number, session="monday")
    facts = memory.memories(types=["fact", "procedure"])
    later(clock)
    wish = Consolidate(older_than=DAY, at_least=2, below=9)
    for namespace in ("agent/memory", "agent/memory.claims", "agent/memory.outcomes"):
        db.lifecycle.policy(namespace, consolidate=wish)

    [made] = db.lifecycle.run_once("consolidate")

    assert made.keys == tuple(each.id for each in episodes)
    assert memory.memories(types=["fact", "procedure"]) == facts


def test_what_is_forgotten_stays_so(memory: AgentMemory, clock: FixedClock) -> None:
    db = memory.workspace.inside.db
    episodes = lived(memory, clock)
    memory.forget(episodes[:1])
    later(clock)
    memory.consolidate(at_least=4)
    [made] = db.lifecycle.run_once("consolidate")
    assert made.keys == tuple(each.id for each in episodes[1:])
    assert memory.forgotten() == episodes[:1]
    memory.forget([made.key])
    assert [each.id for each in memory.forgotten()] == [episodes[0].id, made.key]
    assert memory.recall("hose", session="monday", types="episode") == []
    db.lifecycle.undo(made)
    assert memory.forgotten() == episodes[:1]
    assert memory.memories(session="monday", types="episode") == episodes[1:]


def test_a_wish_is_said_in_one_line_and_lifted_in_one(
    memory: AgentMemory, clock: FixedClock
) -> None:
    db = memory.workspace.inside.db
    wished = memory.consolidate(7 * DAY, at_least=3, below=0.5, alike=0.1)
    assert wished.namespace == "agent/memory"
    assert wished.consolidate == Consolidate(
        ("session",), 7 * DAY, 3, 0.5, alike=0.1, keys="episode:*"
    )
    assert memory.consolidate(None).consolidate is None
    lived(memory, clock)
    later(clock)
    assert db.lifecycle.run_once("consolidate") == []

    def told(texts: Sequence[str]) -> str:
        return f"{len(texts)} things of the garden"

    memory.consolidate(summarizer=told)
    [made] = db.lifecycle.run_once("consolidate")
    assert memory.get(made.key).text == "5 things of the garden"


def test_a_summary_counts_in_the_quota(memory: AgentMemory, clock: FixedClock) -> None:
    db = memory.workspace.inside.db
    lived(memory, clock)
    held = memory.workspace.stats()["items"]
    memory.workspace.configure(max_items=held + 2)
    later(clock)
    memory.consolidate()
    db.lifecycle.run_once("consolidate")
    assert memory.workspace.stats()["items"] == held + 1
    memory.remember_episode("One more.")
    with pytest.raises(errors.QuotaExceededError):
        memory.remember_episode("One too many.")
    assert memory.workspace.stats()["items"] == held + 2


def test_workspaces_do_not_mix(db: Database, clock: FixedClock) -> None:
    one, other = (db.workspace(name).ai_context() for name in ("one", "other"))
    lived(one, clock)
    kept = lived(other, clock)
    one.consolidate()
    later(clock)
    [made] = db.lifecycle.run_once("consolidate")
    assert made.namespace == "one/memory"
    assert other.memories(session="monday", types="episode") == kept


async def test_the_wish_can_be_awaited(tmp_path: Path) -> None:
    clock = FixedClock(int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000)
    async with await AsyncDatabase.open(tmp_path / "db", clock=clock) as db:
        memory = (await db.workspace("agent")).ai_context()
        wished = await memory.consolidate(DAY)
        assert wished.consolidate == Consolidate(older_than=DAY, keys="episode:*")


def test_a_summary_does_not_tell_of_what_is_forgotten(
    memory: AgentMemory, clock: FixedClock
) -> None:
    db = memory.workspace.inside.db
    episodes = lived(memory, clock)
    memory.consolidate(below=9)
    later(clock)
    [made] = db.lifecycle.run_once("consolidate")

    forgotten = memory.forget([episodes[2]], message="asked to")

    assert memory.memories(session="monday", types="episode") == [*episodes[:2], *episodes[3:]]
    assert not any("leaks" in found.text for found in memory.recall("the hose leaks", 50))
    assert memory.forgotten() == [episodes[2]]
    assert memory.recall("hose leaks", as_of=made.summary)[0].id == made.key  # then it did
    assert [each.id for each in memory.restore(forgotten)] == [episodes[2].id]
    assert memory.memories(session="monday", types="episode") == episodes

    later(clock)
    [made] = db.lifecycle.run_once("consolidate")
    memory.forget([episodes[2]], mode="ttl", ttl=60)
    assert memory.recall("the hose leaks")[0].id == episodes[2].id
    clock.advance(seconds=61)
    assert not any("leaks" in found.text for found in memory.recall("the hose leaks", 50))


def test_what_is_erased_is_in_no_summary_and_what_came_from_it_is_named(
    memory: AgentMemory, clock: FixedClock
) -> None:
    db = memory.workspace.inside.db
    episodes = lived(memory, clock)
    fact = memory.remember_fact("hose", "leaks", causes=[("derived_from", episodes[2].version)])
    memory.consolidate()
    later(clock)
    [made] = db.lifecycle.run_once("consolidate")

    gone = memory.erase([episodes[2]], message="asked to")

    assert set(gone.versions) == {episodes[2].version.id, made.summary.id}
    assert gone.derived == (fact.version.id,)
    assert gone.is_clean
    assert memory.memories(session="monday", types="episode") == [*episodes[:2], *episodes[3:]]
    for as_of in (None, made.summary, episodes[4].version):
        found = memory.recall("the hose in the garden leaks", 50, as_of=as_of, types="episode")
        assert not any("leaks" in each.text for each in found)
    with pytest.raises(errors.ErasedError, match="asked to"):
        memory.get(episodes[2].id, as_of=made.summary)
