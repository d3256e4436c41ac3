"""A fortnight of an agent's life: what it recalls, believes and forgets, day by day.

The same script runs with an embedder and without one, and what is recalled is the same
exactly where words decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import koru_delta
from koru_delta import AgentMemory, Database, Memory, Outcomes
from koru_delta.testing import FixedClock, HashEmbedder

MONDAY = datetime(2026, 3, 2, 9, tzinfo=UTC)


class Life:
    """The agent, and a calendar: `day(1)` is the first Monday, at nine."""

    def __init__(self, db: Database, clock: FixedClock, memory: AgentMemory) -> None:
        self.db, self.clock, self.memory = db, clock, memory
        self.said: dict[str, Memory] = {}

    @staticmethod
    def day(number: int, hour: int = 9) -> datetime:
        return MONDAY + timedelta(days=number - 1, hours=hour - 9)

    def go(self, number: int, hour: int = 9) -> None:
        self.clock.now = int(self.day(number, hour).timestamp() * 1_000_000)


@pytest.fixture(params=["with an embedder", "without one"])
def life(request: pytest.FixtureRequest) -> Iterator[Life]:
    clock = FixedClock()
    embedder = HashEmbedder(512) if request.param == "with an embedder" else None
    with koru_delta.open(clock=clock) as db:
        memory = db.workspace("assistant", embedder=embedder).ai_context()
        found = Life(db, clock, memory)
        live(found)
        yield found


def live(life: Life) -> None:
    memory, said = life.memory, life.said

    life.go(1)  # Monday
    said["hello"] = memory.remember_episode(
        "Ada introduced herself and asked for short answers", session="s1", tags=["style"],
        source="chat",
    )  # fmt: skip
    memory.remember_fact("home-city", "Paris", valid_from="2020-05-01T00:00:00Z", source="chat")
    memory.remember_fact("diet", "vegetarian", source="chat", tags=["food"])
    memory.remember_fact("favourite-editor", "vim", source="chat")

    life.go(2)  # Tuesday
    memory.remember_procedure("deploy", ["run the tests", "push the tag", "watch the graphs"])
    said["friday"] = memory.remember_episode(
        "Ada moved the release to Friday because of the audit", session="s2",
        tags=["release"], source="calendar",
    )  # fmt: skip

    life.go(3)  # Wednesday: she has moved
    memory.remember_fact("home-city", "Rome", source="chat")
    memory.record_outcome("deploy", True)

    life.go(4)  # Thursday: a wrong number, asserted by two
    memory.remember_fact("team-size", 7, source="wiki", supersede=False)
    memory.remember_fact("team-size", 9, source="hr", supersede=False)

    life.go(5)  # Friday: known late, of long ago
    memory.remember_fact("home-city", "Bonn", valid_from="2012-01-01T00:00:00Z", source="cv")
    memory.record_outcome("deploy", False, note="the graphs were not watched")
    said["failed"] = memory.remember_episode(
        "The deploy failed and was rolled back", session="s3", tags=["release", "incident"],
        causes=[said["friday"].version],
    )  # fmt: skip

    life.go(8)  # the second Monday: the procedure is changed
    memory.remember_procedure(
        "deploy", ["run the tests", "push the tag", "watch the graphs for an hour"]
    )
    for _ in range(3):
        memory.record_outcome("deploy", True)
    memory.remember_fact("diet", "vegan", source="chat", tags=["food"])

    life.go(9)  # Tuesday: she asks to forget
    said["secret"] = memory.remember_episode("Ada's badge number is 4711", session="s4")
    life.go(9, 10)
    memory.forget([said["secret"]], message="she asked for it")

    life.go(10)  # Wednesday: for the week only
    said["visit"] = memory.remember_episode(
        "Bob visits the office this week", session="s5", ttl=timedelta(days=2)
    )
    memory.remember_fact("team-size", 8, source="ada")  # settles it

    life.go(14)  # the second Sunday


def ids(found: list[Memory]) -> list[str]:
    return [memory.id for memory in found]


def test_what_is_recalled_in_the_end(life: Life) -> None:
    recall, said = life.memory.recall, life.said

    assert ids(recall("badge number", min_relevance=0.5)) == []
    assert ids(recall("Bob visits the office", min_relevance=0.5)) == []
    assert ids(recall("home city", k=1)) == ["fact:home-city"]
    assert [m.value for m in recall("home city", k=1)] == ["Rome"]
    assert [m.value for m in recall("diet", k=1)] == ["vegan"]
    assert [m.value for m in recall("team size", types="fact", min_relevance=0.9)] == [8]
    assert ids(recall("release", tags="release")) == [said["friday"].id, said["failed"].id]
    assert ids(recall("deploy failed rolled back", k=1)) == [said["failed"].id]
    assert ids(recall("Ada", session="s1")) == [said["hello"].id]
    assert ids(recall("Ada", session="none")) == []
    assert ids(recall("Ada", tags=["release", "incident"], types=["fact"])) == []


def test_a_filter_chooses_before_the_best_are_taken(life: Life) -> None:
    found = life.memory.recall("Ada deploy release", k=1, tags="incident")
    assert ids(found) == [life.said["failed"].id]
    assert found[0].tags == ("release", "incident")


def test_what_has_no_match_is_never_returned(life: Life) -> None:
    assert life.memory.recall("") == []
    assert life.memory.recall("   ") == []
    unknown = life.memory.recall("xylophone quarks")
    assert [m for m in unknown if m.relevance is None or m.relevance <= 0] == []
    if life.memory.workspace.embedder is None:
        assert unknown == []
    assert life.memory.recall("xylophone quarks", min_relevance=0.5) == []


def test_every_memory_says_where_it_comes_from_and_why_it_is_there(life: Life) -> None:
    [found] = life.memory.recall("Friday audit", k=1)

    assert found.id == life.said["friday"].id
    assert (found.type, found.session, found.source) == ("episode", "s2", "calendar")
    assert found.version.time == life.day(2) + timedelta(
        microseconds=found.version.time.microsecond
    )
    assert found.valid_from == found.time
    assert found.explanation is not None
    assert found.explanation.verify(life.db)
    assert found.explanation.score == found.score
    assert found.relevance == 1.0
    [failed] = life.memory.recall("rolled back", k=1)
    assert [v.key for v in life.memory.why(failed)] == [found.id]


# What did you believe on Tuesday?


@pytest.mark.parametrize(
    ("day", "believed"),
    [(1, "Paris"), (2, "Paris"), (3, "Rome"), (5, "Rome"), (13, "Rome")],
)
def test_what_was_believed_of_home_on_a_day(life: Life, day: int, believed: str) -> None:
    found = life.memory.what_did_i_believe("home-city", life.day(day, 12))
    assert found is not None
    assert (found.value, found.source) == (believed, "chat")


def test_before_it_was_told_nothing_was_believed(life: Life) -> None:
    assert life.memory.what_did_i_believe("home-city", life.day(1, 8)) is None
    assert life.memory.what_did_i_believe("unheard-of", life.day(14)) is None


def test_what_was_believed_and_what_was_true_are_two_questions(life: Life) -> None:
    believe = life.memory.what_did_i_believe
    in_2015, in_2022 = "2015-06-01T00:00:00Z", "2022-06-01T00:00:00Z"

    assert believe("home-city", life.day(2), valid_at=in_2015) is None
    bonn = believe("home-city", life.day(6), valid_at=in_2015)
    assert bonn is not None
    assert (bonn.value, bonn.source) == ("Bonn", "cv")
    assert (bonn.valid_from, bonn.valid_to) == (
        datetime(2012, 1, 1, tzinfo=UTC), datetime(2020, 5, 1, tzinfo=UTC),
    )  # fmt: skip
    paris = believe("home-city", life.day(6), valid_at=in_2022)
    assert paris is not None
    assert paris.value == "Paris"
    assert [m.value for m in life.memory.recall("home city", k=1, valid_at=in_2015)] == ["Bonn"]
    assert [m.value for m in life.memory.recall("home city", k=1, valid_at=in_2022)] == ["Paris"]
    recalled = life.memory.recall(
        "home city", types="fact", valid_at=in_2015, as_of=life.day(2), min_relevance=0.5
    )
    assert recalled == []


def test_each_fact_ends_where_the_next_begins(life: Life) -> None:
    told = life.memory.timeline("home-city")
    moved = told[-1].valid_from

    assert [(m.value, m.valid_from, m.valid_to) for m in told] == [
        ("Bonn", datetime(2012, 1, 1, tzinfo=UTC), datetime(2020, 5, 1, tzinfo=UTC)),
        ("Paris", datetime(2020, 5, 1, tzinfo=UTC), moved),
        ("Rome", moved, None),
    ]  # fmt: skip
    assert life.day(3) <= moved < life.day(3) + timedelta(seconds=1)
    on_tuesday = life.memory.timeline("home-city", as_of=life.day(2, 12))
    assert [(m.value, m.valid_to) for m in on_tuesday] == [("Paris", None)]


def test_recall_as_of_a_day_is_what_was_recalled_then(life: Life) -> None:
    recall, said = life.memory.recall, life.said

    assert [m.value for m in recall("diet", k=1, as_of=life.day(7))] == ["vegetarian"]
    assert ids(recall("badge number", k=1, as_of=life.day(9, 9.5))) == [said["secret"].id]  # type: ignore[arg-type]
    assert ids(recall("Bob visits office", k=1, as_of=life.day(11))) == [said["visit"].id]
    assert ids(recall("Ada", as_of=life.day(1, 8))) == []


def test_what_contradicts_is_told_until_it_is_settled(life: Life) -> None:
    found = life.memory.contradictions(as_of=life.day(5))

    assert [(c.name, sorted(m.value for m in c.memories)) for c in found] == [("team-size", [7, 9])]
    [pair] = found
    assert {m.source for m in pair.memories} == {"wiki", "hr"}
    assert (pair.valid_from, pair.valid_to) == (max(m.valid_from for m in pair.memories), None)
    assert life.memory.contradictions() == []
    assert life.memory.contradictions(as_of=life.day(3)) == []
    settled = life.memory.what_did_i_believe("team-size", life.day(14))
    assert settled is not None
    assert settled.value == 8


def test_a_procedure_carries_what_came_of_it(life: Life) -> None:
    [now] = life.memory.recall("deploy", k=1, types="procedure")
    [then] = life.memory.recall("deploy", k=1, types="procedure", as_of=life.day(7))

    assert now.outcomes == Outcomes(3, 0)
    assert then.outcomes == Outcomes(1, 1)
    assert now.value == ["run the tests", "push the tag", "watch the graphs for an hour"]
    assert [v.value["value"][2] for v in life.memory.history("procedure:deploy")] == [
        "watch the graphs", "watch the graphs for an hour",
    ]  # fmt: skip


def test_what_was_forgotten_is_dated_and_can_be_taken_back(life: Life) -> None:
    memory, secret = life.memory, life.said["secret"]
    [forgotten] = memory.forgotten()
    assert forgotten.id == secret.id
    put, hide = memory.history(secret.id)
    assert (hide.operation, hide.message, hide.target) == ("hide", "she asked for it", put.id)
    assert life.day(9, 10) <= hide.time < life.day(9, 11)

    memory.restore([secret])

    assert ids(memory.recall("badge number", k=1)) == [secret.id]
    assert memory.forgotten() == []
    assert ids(memory.recall("badge number", as_of=life.day(10), min_relevance=0.5)) == []


def test_the_context_for_a_prompt_cites_its_sources(life: Life) -> None:
    context = life.memory.context("home city diet", 200, types="fact", min_relevance=0.3)

    assert str(context) == (
        "What is remembered, as of 2026-03-15 09:00 UTC:\n"
        "[1] (fact, since 2026-03-04 09:00 UTC, from chat) home city: Rome\n"
        "[2] (fact, since 2026-03-09 09:00 UTC, from chat) diet: vegan"
    )
    assert {m.name for m in context.memories} == {"home-city", "diet"}
    assert context.tokens <= 200


def test_everything_can_be_listed(life: Life) -> None:
    episodes = life.memory.memories(types="episode")
    assert ids(episodes) == [life.said[name].id for name in ("hello", "friday", "failed")]
    facts: list[Any] = [(m.name, m.value) for m in life.memory.memories(types=["fact"])]
    assert facts == [
        ("diet", "vegan"), ("favourite-editor", "vim"), ("home-city", "Rome"), ("team-size", 8),
    ]  # fmt: skip
    assert ids(life.memory.memories(tags=["food"], limit=1)) == ["fact:diet"]


def test_the_log_of_it_all_verifies(life: Life) -> None:
    assert life.db.verify().ok
