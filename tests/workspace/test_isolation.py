"""Whatever is done in one workspace, another one answers as if it were alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import koru_delta
from koru_delta import AgentMemory, Database, Workspace, errors
from koru_delta.testing import FixedClock, HashEmbedder

WORDS = ("rain", "sun", "Rome")
NAMES = ("a", "b")

_word = st.sampled_from(WORDS)
_step = st.one_of(
    st.tuples(st.just("store"), st.sampled_from(["n", "m"]), st.sampled_from("kl"), _word),
    st.tuples(st.just("delete"), st.sampled_from(["n", "m"]), st.sampled_from("kl"), _word),
    st.tuples(st.just("episode"), st.sampled_from(["s1", "s2"]), st.just(""), _word),
    st.tuples(st.just("fact"), st.sampled_from(["f", "g"]), st.just(""), _word),
    st.tuples(st.just("apart"), st.sampled_from(["f", "g"]), st.sampled_from("xy"), _word),
    st.tuples(st.just("procedure"), st.just("p"), st.just(""), _word),
    st.tuples(st.just("outcome"), st.just("p"), st.just(""), _word),
    st.tuples(st.just("forget"), st.just(""), st.just(""), _word),
    st.tuples(st.just("limit"), st.just(""), st.just(""), _word),
    st.tuples(st.just("drop"), st.just(""), st.just(""), _word),
)


def act(space: Workspace, step: tuple[str, str, str, str]) -> None:
    verb, first, second, word = step
    memory = space.ai_context()
    try:
        match verb:
            case "store":
                space.store(first, second, {"text": word})
            case "delete":
                space.delete(first, second)
            case "episode":
                memory.remember_episode(word, session=first)
            case "fact":
                memory.remember_fact(first, word)
            case "apart":
                memory.remember_fact(first, word, source=second, supersede=False)
            case "procedure":
                memory.remember_procedure(first, word)
            case "outcome":
                memory.record_outcome(first, word == "rain")
            case "forget":
                memory.forget(word)
            case "limit":
                space.configure(max_items=8)
            case _:
                space.drop()
    except (errors.KeyNotFoundError, errors.QuotaExceededError):
        pass  # the same alone: the pictures tell


def picture(space: Workspace) -> dict[str, Any]:
    """All that can be seen in a workspace, without times and ids: those differ."""
    memory: AgentMemory = space.ai_context()
    return {
        "namespaces": space.list_namespaces(),
        "keys": {
            name: [
                key if name in ("n", "m") else key.split(":")[0].split("T")[0]
                for key in space.list_keys(name)
            ]
            for name in space.list_namespaces()
        },
        "export": [(r["namespace"], r["value"], r["hidden"]) for r in space.export()
                   if not r["namespace"].endswith(".outcomes")],
        "found": {
            word: sorted(str(hit.value) for hit in space.search("n", word)) for word in WORDS
        },
        "rows": [(row.key, row.value) for row in space.query("n")],
        "recalled": {
            word: sorted((m.text, round(m.relevance or 0, 6), m.outcomes and m.outcomes.trials)
                         for m in memory.recall(word, 50))
            for word in WORDS
        },
        "facts": {key: [m.value for m in memory.timeline(key)] for key in "fg"},
        "contradictions": [(c.name, [m.value for m in c.memories])
                           for c in memory.contradictions()],
        "forgotten": [m.text for m in memory.forgotten()],
        "usage": {what: space.stats()[what] for what in ("items", "bytes", "max_items")},
    }  # fmt: skip


@settings(deadline=None, max_examples=30)
@given(
    steps=st.lists(st.tuples(st.sampled_from(NAMES), _step), max_size=14), embedded=st.booleans()
)
def test_another_workspace_answers_as_if_it_were_alone(
    steps: list[tuple[str, tuple[str, str, str, str]]], embedded: bool
) -> None:
    def opened() -> Database:
        return koru_delta.open(clock=FixedClock(), embedder=HashEmbedder() if embedded else None)

    with opened() as shared:
        for name, step in steps:
            act(shared.workspace(name), step)
        for name in NAMES:
            with opened() as alone:
                for owner, step in steps:
                    if owner == name:
                        act(alone.workspace(name), step)
                assert picture(shared.workspace(name)) == picture(alone.workspace(name))
        assert shared.verify().ok


@settings(deadline=None, max_examples=30)
@given(name=st.text(min_size=1, max_size=8), namespace=st.text(min_size=1, max_size=8))
def test_no_pair_of_names_meets_another(name: str, namespace: str) -> None:
    with koru_delta.open() as db:
        try:
            space = db.workspace(name)
            space.store(namespace, "k", "mine")
        except errors.InvalidDataError:
            return
        for other in (name[:-1], name + "x", name + ".n", name.upper() + "!"):
            try:
                found = db.workspace(other)
            except errors.InvalidDataError:
                continue
            if other != name:
                assert found.list_namespaces() == []
                assert found.get(namespace, "k", None) is None
        assert space.list_namespaces() == [namespace]


def test_nothing_is_taken_back_in_another_workspace(db: Database) -> None:
    one, other = (db.workspace(name).ai_context() for name in ("one", "other"))
    one.remember_fact("home", "Oslo")
    told = [other.remember_fact("home", "Rome"), other.remember_episode("Ann is ill")]
    forgotten = other.forget(told)
    with pytest.raises(errors.KoruDeltaError):
        one.restore(forgotten)
    one.restore(other.forget([]))
    assert other.memories() == []
    alike = other.forget([other.remember_fact("home", "Bonn")])  # of the same id
    one.restore(alike)
    assert other.memories() == []
    for reach in (one.get, one.why, lambda id: one.used([id]), lambda id: one.erase([id])):
        with pytest.raises(errors.KoruDeltaError):
            reach(told[1].id)  # type: ignore[operator]


def test_what_is_no_memory_beside_memories_is_left_alone(db: Database) -> None:
    space = db.workspace("one")
    memory = space.ai_context()
    told = memory.remember_episode("It rained")
    space.store("memory", "number", 5)
    space.store("memory", "other", {"text": "It rained, too"})
    db.put("one/memory", "fact:x", {"type": "fact"})
    db.hide("one/memory", "number")
    assert memory.memories() == [told]
    assert [each.id for each in memory.recall("rained")] == [told.id]
    assert memory.forgotten() == []
    assert [each.id for each in memory.context("rained").memories] == [told.id]
    assert memory.timeline("x") == memory.contradictions() == []
    with pytest.raises(errors.InvalidDataError, match="'other' in 'one/memory' holds no memory"):
        memory.get("other")
