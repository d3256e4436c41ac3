"""Real histories as memories: what PEPs were when, and paragraphs that questions are about."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import koru_delta
from koru_delta import AgentMemory, Database, embedders
from tests.real_data import lacking

DATA = Path(os.environ.get("KORU_DATA", "nowhere"))
PEPS = DATA / "peps" / "header-history.jsonl.gz"
XQUAD = DATA / "xquad" / "xquad.en.json.gz"


class Status(NamedTuple):
    since: int
    pep: int
    status: str
    title: str


@pytest.fixture(params=["words", "meaning"])
def db(request: pytest.FixtureRequest) -> Iterator[Database]:
    embedder = None if request.param == "words" else embedders.local()
    with koru_delta.open(embedder=embedder) as database:
        yield database


@pytest.fixture(scope="module")
def statuses() -> list[Status]:
    """Every status and title that a PEP ever had, in order of time."""
    if not PEPS.exists():
        lacking(str(PEPS.relative_to(DATA)))
    with gzip.open(PEPS, "rt") as lines:
        rows: list[dict[str, Any]] = sorted(
            map(json.loads, lines), key=lambda row: row["committed_at"]
        )
    last: dict[int, tuple[str, str]] = {}
    found = []
    for row in rows:
        said = {name.lower(): text for name, text in row["header"].items()}
        what = str(said.get("status", "")).strip(), str(said.get("title", "")).strip()
        if all(what) and last.get(row["pep"]) != what:
            last[row["pep"]] = what
            found.append(Status(row["committed_at"], row["pep"], *what))
    return found


def test_what_a_pep_was_when_is_known_in_whatever_order_it_is_learnt(
    db: Database, statuses: list[Status]
) -> None:
    memory, chance = db.workspace("peps").ai_context(), random.Random(3)
    for each in chance.sample(statuses, len(statuses)):
        memory.remember_fact(
            f"pep-{each.pep}", each.status, text=f"PEP {each.pep} ({each.title}) is {each.status}",
            valid_from=datetime.fromtimestamp(each.since, UTC),
        )  # fmt: skip

    for pep in chance.sample(sorted({each.pep for each in statuses}), 100):
        known = {each.since: each.status for each in statuses if each.pep == pep}
        told = memory.timeline(f"pep-{pep}")
        assert {int(t.valid_from.timestamp()): t.value for t in told} == known
    first = among = 0
    for each in chance.sample(statuses, 150):
        at = each.since + chance.randrange(86_400 * 300)
        held = [one for one in statuses if one.pep == each.pep and one.since <= at][-1]
        question = f"What was the status of the proposal {held.title}?"
        found = [
            (fact.name, fact.value)
            for fact in memory.recall(question, 3, valid_at=datetime.fromtimestamp(at, UTC))
        ]
        first += found[:1] == [(f"pep-{each.pep}", held.status)]
        among += (f"pep-{each.pep}", held.status) in found
        assert memory.context(question, 60).tokens <= 60
    assert first >= 0.92 * 150
    assert among >= 0.98 * 150


def test_a_question_recalls_the_paragraph_it_is_about_as_a_search_finds_it(db: Database) -> None:
    if not XQUAD.exists():
        lacking(str(XQUAD.relative_to(DATA)))
    articles = json.loads(gzip.decompress(XQUAD.read_bytes()))["data"]
    paragraphs = [each for article in articles for each in article["paragraphs"]]
    memory: AgentMemory = db.workspace("reader").ai_context()
    told = memory.remember_episodes([each["context"] for each in paragraphs])
    asked = [
        (question["question"], memory_of)
        for each, memory_of in zip(paragraphs, told, strict=True)
        for question in each["qas"][:2]
    ]
    first = 0
    for question, about in asked:
        found = [each.id for each in memory.recall(question, 5)]
        by_search = memory.workspace.search("memory", question, k=5, syntax=False)
        assert found == [match.key for match in by_search][: len(found)]
        first += found[:1] == [about.id]
    assert first >= 0.9 * len(asked)
