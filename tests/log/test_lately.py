"""What was read lately is kept, and never outlives an erasure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import koru_delta
from koru_delta import Database
from koru_delta.errors import DatabaseClosedError, ErasedError
from koru_delta.log import lately


def filled(place: Path | None = None, rows: int = 20) -> Database:
    db = koru_delta.open(place)
    db.embed_many("v", [(f"k{n:02}", [n + 1.0, 1.0], {"n": n}) for n in range(rows)])
    return db


def test_a_hit_that_was_read_before_is_not_read_from_the_log_again(read):
    with filled() as db:
        first = [(hit.key, hit.value) for hit in db.similar("v", [1.0, 1.0], k=5)]
        db.put("other", "k", 1)  # a write of something else changes nothing of it
        again = [(hit.key, hit.value) for hit in db.similar("v", [1.0, 1.0], k=8)]
        assert again[:5] == first == [(f"k{n:02}", {"n": n}) for n in range(5)]
        assert len(read) == len(set(read)) == 8


def test_what_a_reader_changes_in_a_value_is_not_seen_by_the_next(read):
    with filled() as db:
        db.similar("v", [1.0, 1.0], k=1)[0].value["n"] = "changed"
        assert db.similar("v", [1.0, 1.0], k=1)[0].value == {"n": 0}
        assert len(read) == 1


def test_a_value_that_another_handle_erased_is_not_given_from_memory(tmp_path):
    with filled(tmp_path / "db") as db, koru_delta.open(tmp_path / "db") as other:
        hits = db.similar("v", [1.0, 1.0], k=3)
        assert [hit.value for hit in hits] == [{"n": n} for n in range(3)]
        then = hits[0].version
        other.erase(then.id)
        [found] = db._log.versions([then.seq])
        assert (found.id, found.is_erased) == (then.id, True)
        with pytest.raises(ErasedError):
            _ = found.value
        assert [hit.value for hit in db.similar("v", [1.0, 1.0], k=2)] == [{"n": 1}, {"n": 2}]


def test_a_value_that_is_erased_while_it_is_read_is_not_kept(tmp_path, monkeypatch):
    """By another process, that is: between the reading and the keeping."""
    engine = type(koru_delta.open()._log.engine)
    erased, waiting = engine.erased, []

    def interrupted(self: Any, namespace: str) -> int:
        if waiting and self is db._log.engine:
            other.erase(waiting.pop())
        return int(erased(self, namespace))

    monkeypatch.setattr(engine, "erased", interrupted)
    with filled(tmp_path / "db") as db, koru_delta.open(tmp_path / "db") as other:
        then = other.version("v", "k00")
        waiting.append(then.id)
        db._log.versions([then.seq])
        assert not waiting
        [found] = db._log.versions([then.seq])
        assert (found.id, found.is_erased) == (then.id, True)


def test_nothing_that_is_erased_here_stays_in_memory():
    with filled() as db:
        [hit] = db.similar("v", [1.0, 1.0], k=1).load()
        assert db._log._lately.size_bytes > 0
        db.erase(hit.version)
        assert db._log._lately.size_bytes == 0


def test_no_more_is_kept_than_fits_and_what_is_asked_for_stays(monkeypatch, read):
    monkeypatch.setattr(lately, "MOST_BYTES", 40_000)
    with filled(rows=200) as db:
        log, popular = db._log, 7
        for seq in range(1, 201):
            log.versions([seq])
            log.versions([popular])
            assert log._lately.size_bytes <= 41_000
        assert read.count(popular) == 1
        log.versions([1])
        assert read.count(1) == 2
        assert db.stats()["hot_bytes"] >= log._lately.size_bytes > 20_000


def test_nothing_is_kept_of_what_goes_through_everything(read):
    with filled(rows=100) as db:
        for _ in range(2):
            assert len(db.similar("v", [1.0, 1.0], k=100).load()) == 100
        assert sorted(read) == sorted(2 * list(range(1, 101)))
        assert db._log._lately.size_bytes == 0


def test_a_closed_database_gives_nothing_from_memory(tmp_path):
    db = filled(tmp_path / "db")
    [seq] = {hit.version.seq for hit in db.similar("v", [1.0, 1.0], k=1)}
    db.close()
    with pytest.raises(DatabaseClosedError):
        db._log.versions([seq])
