"""Real texts with real history: what is read back is what the file itself says."""

from __future__ import annotations

import bisect
import gzip
import itertools
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

import koru_delta
from benchmarks.peps import FILE, NAMESPACE, Revision, data_file, ingest, read_revisions
from koru_delta.errors import KeyNotFoundError
from tests.real_data import lacking

Timeline = dict[str, list[Revision]]
ABSENT = None


@pytest.fixture(scope="module")
def revisions() -> list[Revision]:
    file = data_file()
    if file is None:
        lacking(str(FILE))
    return read_revisions(file)


@pytest.fixture(scope="module")
def timeline(revisions: list[Revision]) -> Timeline:
    found: Timeline = defaultdict(list)
    for revision in revisions:
        found[revision.pep].append(revision)
    return found


def said(history: Sequence[Revision], when: datetime) -> dict[str, str] | None:
    """What the file answers: the last revision at or before a time."""
    count = bisect.bisect_right(history, when, key=lambda revision: revision.time)
    return history[count - 1].value if count else ABSENT


def answer(db: koru_delta.Database, pep: str, when: datetime) -> Any:
    try:
        return db.get(NAMESPACE, pep, valid_at=when)
    except KeyNotFoundError:
        return ABSENT


def moments(history: Sequence[Revision]) -> list[datetime]:
    """The instants where answers change, and those just before."""
    step = timedelta(microseconds=1)
    return [time for revision in history for time in (revision.time - step, revision.time)]


def pairs(timeline: Timeline, count: int) -> list[tuple[str, datetime]]:
    rng = random.Random(20260101)
    peps = sorted(timeline)
    chosen = []
    for n in range(count):
        pep = rng.choice(peps)
        history = timeline[pep]
        if n % 4 == 0:
            chosen.append((pep, rng.choice(moments(history))))
        else:  # from a year before the first revision to a year after the last
            start, end = history[0].committed_at - 31_536_000, history[-1].committed_at + 31_536_000
            chosen.append((pep, datetime.fromtimestamp(rng.uniform(start, end), UTC)))
    return chosen


def test_two_hundred_random_moments_of_the_peps_answer_as_the_file_does(
    revisions, timeline, tmp_path, capsys
):
    start = perf_counter()
    db = koru_delta.open(tmp_path / "peps", durability="relaxed")
    ingest(db, revisions)
    taken = perf_counter() - start
    asked = pairs(timeline, 200)
    expected = [said(timeline[pep], when) for pep, when in asked]

    assert [answer(db, pep, when) for pep, when in asked] == expected
    db.close()
    with koru_delta.open(tmp_path / "peps") as again:
        assert [answer(again, pep, when) for pep, when in asked] == expected
        assert again.count(NAMESPACE) == len(timeline)
        assert again.verify().ok

    assert sum(value is ABSENT for value in expected) > 5
    with capsys.disabled():
        print(f"\n{len(revisions):,} PEP revisions: {sizes(revisions, tmp_path)}; {taken:.1f} s")


def test_revisions_of_one_second_are_answered_by_the_later_in_the_file(
    revisions, timeline, tmp_path
):
    doubled = [
        (pep, first.time)
        for pep, history in timeline.items()
        for first, second in itertools.pairwise(history)
        if first.committed_at == second.committed_at
    ]
    with koru_delta.open(tmp_path / "peps", durability="relaxed") as db:
        ingest(db, revisions)

        for pep, when in doubled:
            assert answer(db, pep, when) == said(timeline[pep], when)


def test_revisions_put_in_any_order_with_both_ends_answer_as_the_file_does(timeline, tmp_path):
    pep = max(timeline, key=lambda name: len(timeline[name]))
    history = timeline[pep]
    pieces = [
        (revision, None if later is None else later.time)
        for revision, later in zip(history, [*history[1:], None], strict=True)
        if later is None or later.committed_at > revision.committed_at
    ]
    random.Random(7).shuffle(pieces)
    with koru_delta.open(tmp_path / "peps", durability="relaxed") as db:
        for revision, until in pieces:
            db.put(NAMESPACE, pep, revision.value, valid_from=revision.time, valid_to=until)

        for when in moments(history):
            assert answer(db, pep, when) == said(history, when)
        assert db.get(NAMESPACE, pep) == history[-1].value


def sizes(revisions: Sequence[Revision], folder: Path) -> str:
    bodies = [json.dumps(revision.value, ensure_ascii=False).encode() for revision in revisions]
    stored = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    packed = sum(len(gzip.compress(body, 6)) for body in bodies)
    return (
        f"{stored / 1e6:.1f} MB stored, {sum(map(len, bodies)) / 1e6:.1f} MB raw, "
        f"{packed / 1e6:.1f} MB gzip"
    )
