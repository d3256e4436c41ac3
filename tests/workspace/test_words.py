"""Without an embedder memories are found by the words they share, whatever form those have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import koru_delta
from koru_delta import AgentMemory, Database
from koru_delta.search.text import analysis
from koru_delta.testing import FixedClock
from koru_delta.workspace import shelf


@pytest.fixture
def plain(clock: FixedClock) -> Iterator[Database]:
    with koru_delta.open(clock=clock) as database:
        yield database


@pytest.fixture
def memory(plain: Database) -> AgentMemory:
    return plain.workspace("agent").ai_context()


def texts(found: list[koru_delta.Memory]) -> list[str]:
    return [each.text for each in found]


@pytest.mark.parametrize(
    ("kept", "asked"),
    [
        ("Ann deployed the service.", "Who deploys services?"),
        ("She is studying French.", "studies"),
        ("The bug was fixed.", "bugs"),
        ("Always serialize timestamps in UTC.", "timestamp serialization"),
    ],
)
def test_words_are_found_in_every_form(memory: AgentMemory, kept: str, asked: str) -> None:
    memory.remember_episodes([kept, "The weather was fine.", "Bob likes tea."])
    [found] = memory.recall(asked)
    assert found.text == kept
    assert found.relevance is not None
    assert found.relevance > 0.2
    assert texts(memory.recall(asked, min_relevance=0.2)) == [kept]
    assert len(memory.forget(asked, min_relevance=0.2)) == 1


def test_another_language_may_be_said_before_or_after(plain: Database, memory: AgentMemory) -> None:
    plain.configure_text("agent/memory", fields=["text", "tags"], stemmer="german")
    memory.remember_episode("Anna mag Katzen.")
    assert texts(memory.recall("Katze")) == ["Anna mag Katzen."]
    then = plain.as_of(None).seq
    plain.configure_text("agent/memory", fields=["text", "tags"])
    assert memory.recall("Katze") == []
    assert texts(memory.recall("Katze", as_of=then)) == ["Anna mag Katzen."]
    memory.remember_episode("Anna hat Katzen.")
    assert memory.recall("Katze") == []  # what was said is not said anew


def test_memories_that_were_made_before_are_found_as_they_were(
    plain: Database, memory: AgentMemory
) -> None:
    plain.configure_text("agent/memory", fields=["text", "tags"])
    memory.remember_episode("Ann deployed the service.")
    assert memory.recall("deploys") == []
    assert texts(memory.recall("deployed")) == ["Ann deployed the service."]


def test_where_no_stemmer_is_installed_words_are_whole(
    memory: AgentMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: str | None = None) -> analysis.Analyzer:
        raise koru_delta.errors.MissingExtraError("stemming", "text")

    shelf.stemmer.cache_clear()
    monkeypatch.setattr(shelf, "Analyzer", missing)
    memory.remember_episode("Ann deployed the service.")
    shelf.stemmer.cache_clear()
    assert memory.recall("deploys") == []
    assert texts(memory.recall("deployed")) == ["Ann deployed the service."]
