"""Explanations of searches: sums, ids, and what would have been without a leg.

More texts than the window of a fusion holds, so that legs end within it and beyond it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import koru_delta
from koru_delta import CausalFilter, Database, errors
from koru_delta.testing import FixedClock, HashEmbedder

WORDS = ("rain", "sun", "wind", "fog", "hail", "snow", "storm", "mist", "frost", "cloud")
COUNT = 230


def fill(db: Database, clock: FixedClock) -> None:
    """Texts on few words, written over a while, some of them hidden, superseded or gone."""
    chance = random.Random(5)
    for n in range(COUNT):
        clock.advance(seconds=chance.choice([1, 60, 900]))
        text = " ".join(chance.choices(WORDS, k=chance.randint(2, 12)))
        value = {"text": text, "doc": f"d{n % 23}", "n": n}
        named = [("supersedes", db.version("n", f"k{n - 9:03}"))] if n % 31 == 30 else []
        db.embed("n", f"k{n:03}", text, value, causes=named)
    for n in range(0, COUNT, 17):
        db.hide("n", f"k{n:03}")
    db.delete_many("n", [f"k{n:03}" for n in range(3, COUNT, 29)])


@pytest.fixture(scope="module")
def filled() -> Iterator[Database]:
    clock = FixedClock()
    with koru_delta.open(embedder=HashEmbedder(16), clock=clock) as db:
        fill(db, clock)
        yield db


SEARCHES: dict[str, dict[str, Any]] = {
    "hybrid": {},
    "scores": {"fusion": "score"},
    "weighted": {"weights": {"vector": 0.2, "text": 1.5}},
    "text": {"mode": "text"},
    "vector": {"mode": "vector"},
    "filtered": {"filter": {"n": {"$gte": 60}}, "k": 5},
    "aged": {"half_life": 900.0},
    "aged text": {"half_life": 9000.0, "mode": "text"},
    "diverse": {"mmr": 0.5},
    "grouped": {"group_by": "doc", "k": 12},
    "all at once": {
        "group_by": "doc", "half_life": 4000.0, "filter": {"n": {"$lt": 200}},
        "causal": CausalFilter(min_versions=1), "k": 7,
    },
    "deep": {"k": 120},
    "above": {"threshold": 0.02},
}  # fmt: skip


def ask(db: Database, text: str, given: dict[str, Any], **changes: Any) -> koru_delta.Matches:
    return db.search("n", text, **{"exact": True, **given, **changes})


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("text", ["rain in the fog", '+storm hail "snow sun"', "fro*"])
def test_an_explanation_adds_up_and_names_only_what_is_there(
    filled: Database, name: str, text: str
) -> None:
    for hit in ask(filled, text, SEARCHES[name], explain=True):
        found = filled.explain(hit)
        assert found.problems(filled) == []
        assert found.score == hit.score
        assert found.score == pytest.approx(sum(p.contribution for p in found.parts), abs=1e-6)
        assert (found.key, found.version) == (hit.key, hit.version.id)


@pytest.mark.parametrize("name", SEARCHES)
def test_the_rank_without_a_leg_is_the_rank_of_a_search_without_it(
    filled: Database, name: str
) -> None:
    given = SEARCHES[name]
    text = "rain in the fog, or a storm"
    hits = ask(filled, text, given)
    for leg in ("vector", "text") if given.get("mode", "hybrid") == "hybrid" else ():
        weights = {"vector": 1.0, "text": 1.0, **given.get("weights", {}), leg: 0}
        without = [hit.key for hit in ask(filled, text, given, weights=weights)]
        for hit in hits:
            told = filled.explain(hit).part(leg).rank_without
            place = without.index(hit.key) + 1 if hit.key in without else None
            if place is not None or (told is not None and told <= len(without)):
                assert told == place, (leg, hit.key)
    if "half_life" in given:
        without = [hit.key for hit in ask(filled, text, given, half_life=None)]
        for place, key in enumerate(without, 1):
            parts = {p.name: p for hit in hits if hit.key == key
                     for p in filled.explain(hit).parts}  # fmt: skip
            assert "age" not in parts or parts["age"].rank_without == place


@pytest.mark.parametrize("name", SEARCHES)
def test_ranks_go_on_over_pages(filled: Database, name: str) -> None:
    given = {name: what for name, what in SEARCHES[name].items() if name != "mmr"}
    first = ask(filled, "rain fog", given, k=4)
    assert [filled.explain(hit).rank for hit in first] == [1, 2, 3, 4]
    second = ask(filled, "rain fog", given, k=4, cursor=first.cursor)
    assert [filled.explain(hit).rank for hit in second] == [5, 6, 7, 8]
    for hit in second:
        assert filled.explain(hit).problems(filled) == []


@pytest.mark.parametrize("name", SEARCHES)
def test_an_explanation_made_later_is_the_one_made_at_once(clock: FixedClock, name: str) -> None:
    with koru_delta.open(embedder=HashEmbedder(16), clock=clock) as db:
        fill(db, clock)
        text = "rain in the fog"
        then = db.embed("n", "late", "rain fog rain", {"text": "rain fog rain", "n": 300})
        at_once = [db.explain(hit).to_dict() for hit in ask(db, text, SEARCHES[name], explain=True)]
        now = ask(db, text, SEARCHES[name])
        past = ask(db, text, SEARCHES[name], as_of=then)
        clock.advance(seconds=5)
        db.embed("n", "later", "rain fog fog rain", {"text": "rain fog fog rain"})
        db.delete("n", "late")
        db.configure_text("n", fields=["other"])
        for hit in now[:3]:
            if db.contains("n", hit.key):
                db.put("n", hit.key, {"text": "nothing of the kind"})
        assert [db.explain(hit).to_dict() for hit in now] == at_once
        assert [db.explain(hit).to_dict() for hit in past] == at_once


def test_after_closing_an_explanation_is_there_or_a_typed_error(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db", embedder=HashEmbedder(16)) as db:
        db.embed("n", "k", "rain in the fog")
        [explained] = db.search("n", "rain", explain=True)
        [never] = db.search("n", "rain")
        [similar] = db.similar("n", "rain")
    assert explained.explanation is not None
    assert explained.explanation.key == "k"
    for hit in (never, similar):
        assert hit.value == {"text": "rain in the fog"}
        with pytest.raises(errors.DatabaseClosedError):
            _ = hit.explanation
