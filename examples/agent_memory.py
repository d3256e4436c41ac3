"""An agent that remembers: what happened, what is true, what works; and what it forgets.

Run it with: python examples/agent_memory.py
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import koru_delta
from koru_delta.errors import QuotaExceededError
from koru_delta.testing import FixedClock, HashEmbedder

MONDAY = datetime(2026, 3, 2, 9, tzinfo=UTC)
# A real agent takes a real model (koru_delta.embedders.local() needs no network), or none:
# then memories are found by their words alone.
EMBEDDER = HashEmbedder(256)


def main() -> None:
    clock = FixedClock(MONDAY)
    with (
        tempfile.TemporaryDirectory() as folder,
        koru_delta.open(Path(folder) / "agents", clock=clock) as db,
    ):
        space = db.workspace("assistant", embedder=EMBEDDER)
        memory = space.ai_context()

        print("Monday: the agent meets Ada.")
        met = memory.remember_episode(
            "Ada asked for short answers in the mornings", session="s1", tags=["style"],
            source="chat",
        )  # fmt: skip
        memory.remember_fact(
            "home-city", "Paris", valid_from="2020-05-01T00:00:00Z", causes=[met.version]
        )
        memory.remember_procedure("deploy", ["run the tests", "push the tag"])

        clock.advance(timedelta(days=1))
        print("Tuesday: a deploy fails, and she moves.")
        print(f"  {memory.record_outcome('deploy', False, note='nobody watched the graphs')}")
        memory.remember_procedure("deploy", ["run the tests", "push the tag", "watch the graphs"])
        for _ in range(3):
            memory.record_outcome("deploy", True)
        memory.remember_fact("home-city", "Rome")

        clock.advance(timedelta(days=1))
        print("Wednesday: it learns late where she lived before, and what two people say.")
        memory.remember_fact("home-city", "Bonn", valid_from="2012-01-01T00:00:00Z", source="cv")
        memory.remember_fact("team-size", 7, source="wiki", supersede=False)
        memory.remember_fact("team-size", 9, source="hr", supersede=False)

        print("\nWhere did she live, by what is known today?")
        for told in memory.timeline("home-city"):
            print(f"  {told.value:6} {told.citation}")
        assert [told.value for told in memory.timeline("home-city")] == ["Bonn", "Paris", "Rome"]

        print("\nWhat did you believe on Monday?")
        believed = memory.what_did_i_believe("home-city", MONDAY + timedelta(hours=1))
        assert believed is not None
        print(f"  {believed.text}, from {[v.value['text'] for v in memory.why(believed)]}")
        assert believed.value == "Paris"

        [pair] = memory.contradictions()
        print(f"\nThey disagree: {pair}")

        print("\nFor the prompt, in 80 tokens:")
        context = memory.context("how do we deploy to the home city", budget_tokens=80)
        print(str(context))
        assert context.tokens <= 80
        memory.used(context.memories)

        [found] = memory.recall("short answers", k=1)
        print(f"\nFound with relevance {found.relevance:.2f}, because:")
        print(found.explanation)
        assert found.id == met.id

        clock.advance(seconds=3600)
        forgotten = memory.forget("short answers mornings", message="she changed her mind")
        assert [gone.id for gone in forgotten.memories] == [met.id]
        assert memory.recall("short answers", min_relevance=0.5) == []
        then = MONDAY + timedelta(hours=1)
        assert [m.id for m in memory.recall("short answers", k=1, as_of=then)] == [met.id]
        memory.restore(forgotten)
        print("\nForgotten, still there on Monday, and remembered again.")

        other = db.workspace("another-agent").ai_context()
        assert other.recall("home city") == []
        space.configure(max_items=space.stats()["items"])
        try:
            memory.remember_episode("one too many")
        except QuotaExceededError as error:
            print(f"\n{error}")


if __name__ == "__main__":
    main()
