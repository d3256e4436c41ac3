"""What was just written is read from memory, and never what was not, or is no longer, so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import koru_delta
from koru_delta.errors import ConflictError, InvalidDataError
from koru_delta.storage import recent
from tests.test_fork import in_child

VECTORS = np.random.default_rng(50).standard_normal((600, 8), dtype=np.float32)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What SQLite is asked for entries and vectors."""
    asked: list[str] = []
    rows = koru_delta.storage.SqliteEngine._rows

    def counting(engine: object, sql: str, *rest: object) -> object:
        if "FROM versions v" in sql or "FROM objects" in sql or "FROM keys WHERE" in sql:
            asked.append(sql)
        return rows(engine, sql, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(koru_delta.storage.SqliteEngine, "_rows", counting)
    return asked


def found(db: koru_delta.Database, number: int) -> dict[str, float]:
    return {hit.key: hit.score for hit in db.similar("v", VECTORS[number], k=1000, exact=True)}


def together(db: koru_delta.Database, then: Callable[[Any], object]) -> None:
    """An embed and something else in one commit."""
    with db.transaction() as tx:
        tx.embed("v", "lost", VECTORS[2])
        then(tx)


def test_a_search_after_a_write_of_this_process_asks_sqlite_nothing(tmp_path, counted):
    with koru_delta.open(tmp_path / "db") as db:
        db.embed_many("v", [(f"k{n}", VECTORS[n]) for n in range(100)])
        assert len(found(db, 0)) == 100
        counted.clear()
        for n in range(100, 140):
            db.embed("v", f"k{n}", VECTORS[n])
            assert db.similar("v", VECTORS[n], k=1)[0].key == f"k{n}"
        db.put("w", "elsewhere", 1)
        db.delete("v", "k0")
        assert "k0" not in found(db, 0)
        assert counted == []


def test_a_vector_in_the_place_of_one_that_another_erased_is_not_taken_for_it(tmp_path):
    """Whoever wrote the erased one has it in memory under a number that is free again."""
    with koru_delta.open(tmp_path / "db") as db, koru_delta.open(tmp_path / "db") as other:
        gone = db.embed("v", "k", -VECTORS[0])
        assert found(db, 0)["k"] == pytest.approx(-1)
        other.erase(gone)
        assert found(db, 0) == {}
        other.embed("v", "k", VECTORS[0], "anew")
        for each in (db, other):
            assert found(each, 0)["k"] == pytest.approx(1)
            assert found(each.as_of(gone), 0) == {}


def test_what_others_write_in_between_is_seen_too(tmp_path):
    with koru_delta.open(tmp_path / "db") as ours, koru_delta.open(tmp_path / "db") as theirs:
        keys = set()
        for n in range(60):
            for who, db in (("ours", ours), ("theirs", theirs))[:: 1 if n % 2 else -1]:
                for m in range(n % 3):
                    db.embed("v", f"{who}-{n}-{m}", VECTORS[(7 * n + m) % 600])
                    keys.add(f"{who}-{n}-{m}")
            if n % 5 == 4:
                gone = min(keys)
                theirs.delete("v", gone)
                keys.remove(gone)
            if keys:
                assert found(ours, n).keys() == keys
                if n % 4 == 0:
                    assert found(theirs, n).keys() == keys


def test_more_than_is_kept_is_read_from_the_log(tmp_path):
    most = recent.MOST_ENTRIES
    with koru_delta.open(tmp_path / "db") as db, koru_delta.open(tmp_path / "db") as other:
        db.embed("v", "first", VECTORS[0])
        assert found(db, 0).keys() == {"first"}
        db.embed_many("v", [(f"k{n}", VECTORS[n]) for n in range(1, most + 2)])
        db.embed("v", "last", VECTORS[599])
        assert len(found(db, 0)) == most + 3
        for n in range(most + 10):  # one by one, with no search in between
            db.embed("v", f"k{n + 1}", VECTORS[n + 20])
        assert found(db, 5) == found(other, 5)


def test_long_vectors_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(recent, "_MOST_BYTES", 5 * VECTORS[0].nbytes)
    with koru_delta.open(tmp_path / "db") as db:
        for n in range(0, 40, 4):
            db.embed_many("v", [(f"k{m}", VECTORS[m]) for m in range(n, n + 4)])
            assert len(found(db, n)) == n + 4
            assert len(db._log.engine._recent._vectors) <= 5


def test_a_write_that_failed_leaves_nothing_to_be_found(tmp_path):
    with koru_delta.open(tmp_path / "db") as db:
        kept = db.embed("v", "kept", VECTORS[0])
        db.embed("v", "kept", VECTORS[1])
        assert found(db, 0).keys() == {"kept"}
        with pytest.raises(ConflictError):
            db.put("v", "kept", 1, if_match=kept)
        with pytest.raises(ConflictError):
            together(db, lambda tx: tx.put("v", "kept", 1, if_match=kept))
        with pytest.raises(InvalidDataError):
            db.embed_many("v", [("lost", VECTORS[3]), ("", VECTORS[4])])
        with pytest.raises(ZeroDivisionError):
            together(db, lambda _tx: 1 / 0)
        assert found(db, 0).keys() == {"kept"}
        db.embed("v", "more", VECTORS[5])
        assert found(db, 0).keys() == {"kept", "more"}


def test_each_model_gets_its_own_vectors(tmp_path):
    with koru_delta.open(tmp_path / "db") as db:
        db.embed("v", "a", VECTORS[0], model="one")
        db.embed("v", "a", VECTORS[1, :4], model="two")
        for n in range(2, 9):
            db.embed("v", f"k{n}", VECTORS[n], model="one")
            db.embed("v", f"k{n}", VECTORS[n, :4], model="two")
            [one] = db.similar("v", VECTORS[n], k=1, model="one")
            [two] = db.similar("v", VECTORS[n, :4], k=1, model="two")
            assert (one.key, two.key) == (f"k{n}", f"k{n}")
            db.put("v", f"k{n}", "without its vectors")
            assert f"k{n}" not in {hit.key for hit in db.similar("v", VECTORS[n], model="one")}


def test_a_read_only_handle_follows_its_writer(tmp_path):
    with (
        koru_delta.open(tmp_path / "db") as db,
        koru_delta.open(tmp_path / "db", read_only=True) as reader,
    ):
        for n in range(5):
            db.embed("v", f"k{n}", VECTORS[n])
            assert len(found(reader, 0)) == n + 1


def test_a_forked_child_does_not_trust_what_its_parent_wrote_before(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db") as db:
        db.embed("v", "a", VECTORS[0])
        assert found(db, 0).keys() == {"a"}

        def child() -> None:
            db.embed("v", "b", VECTORS[1])
            assert found(db, 0).keys() == {"a", "b"}

        in_child(child)
        assert found(db, 0).keys() == {"a", "b"}
        db.embed("v", "c", VECTORS[2])
        assert found(db, 0).keys() == {"a", "b", "c"}


def test_the_number_of_what_was_erased_is_not_given_again_by_any_handle(tmp_path):
    def numbers() -> list[int]:
        return [each for (each,) in db._log.engine._rows("SELECT object FROM objects ORDER BY 1")]

    with koru_delta.open(tmp_path / "db") as db:
        first = [db.embed("v", f"k{n}", VECTORS[n]) for n in range(3)]
        before = numbers()
        for gone in first[1:]:
            db.erase(gone)
        with koru_delta.open(tmp_path / "db") as other:
            other.embed("v", "anew", VECTORS[3])
        db.embed("v", "again", VECTORS[4])
        assert numbers()[0] == before[0]
        assert not set(numbers()[1:]) & set(before)
        db.compact()
        with koru_delta.open(tmp_path / "db") as other:
            other.embed("v", "last", VECTORS[5])
        assert len(set(numbers()) - set(before)) == 3
