"""Small tier files are put together: every move makes one, and there are never many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import koru_delta
from koru_delta import Database
from koru_delta.lifecycle import Move, Tier
from koru_delta.testing import FixedClock, HashEmbedder

FAR = (Tier.COLD, Tier.DEEP)
MOVES = 12


@pytest.fixture
def kept(tmp_path: Path, clock: FixedClock) -> Iterator[Database]:
    with koru_delta.open(
        tmp_path / "db", clock=clock, embedder=HashEmbedder(32), track=False
    ) as database:
        yield database


def files(db: Database) -> list[Path]:
    return sorted(db._log.engine.directory.rglob("*.kdt"))


def move_one_by_one(db: Database, tier: Tier) -> None:
    for number in range(MOVES):
        key = f"k{number:02}"
        for turn in range(3):
            db.embed("v", key, f"rain {number} {turn}", {"n": turn, "text": "ab" * 3_000 * turn})
        db.lifecycle.mover.move(Move("v", (key,), Tier.HOT, tier, "", 0))


def picture(db: Database) -> list[object]:
    return [
        [(version.id, version.value) for version in db.changes()],
        [[(hit.key, hit.score, hit.value) for hit in db.similar("v", "rain 7", as_of=seq)]
         for seq in range(1, 3 * MOVES + 1)],
    ]  # fmt: skip


@pytest.mark.parametrize("tier", FAR)
def test_many_small_files_become_one_that_holds_the_same(kept: Database, tier: Tier) -> None:
    move_one_by_one(kept, tier)
    before = picture(kept)
    assert len(files(kept)) == MOVES

    assert kept.lifecycle.run_once("genome").problems == ()

    assert len(files(kept)) == 1
    assert picture(kept) == before
    assert kept.verify().ok
    assert kept.lifecycle.run_once("genome").bytes_written == 0


def test_what_is_erased_later_goes_from_the_file_they_became(kept: Database) -> None:
    move_one_by_one(kept, Tier.COLD)
    kept.lifecycle.run_once("genome")
    others = [(v.key, v.value) for v in kept.changes() if v.key != "k03"]
    [file] = files(kept)

    kept.erase(("v", "k03"))

    assert not file.exists()
    assert [(v.key, v.value) for v in kept.changes() if v.key != "k03"] == others
    assert [v.is_erased or v.is_tombstone for v in kept.history("v", "k03")] == [True] * 4
    assert kept.verify().ok


def test_a_damaged_file_is_left_alone_and_the_rest_put_together(kept: Database) -> None:
    move_one_by_one(kept, Tier.COLD)
    hurt = files(kept)[4]
    data = bytearray(hurt.read_bytes())
    data[80] ^= 1
    hurt.write_bytes(data)

    [problem] = kept.lifecycle.run_once("genome").problems

    assert hurt.name in problem
    assert len(files(kept)) == 2
    assert hurt in files(kept)


def test_a_few_small_files_are_not_worth_it(kept: Database) -> None:
    for number in range(4):
        kept.put("v", f"k{number}", number)
        kept.lifecycle.mover.move(Move("v", (f"k{number}",), Tier.HOT, Tier.COLD, "", 0))

    kept.lifecycle.run_once("genome")

    assert len(files(kept)) == 4
