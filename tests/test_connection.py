"""What adapters of frameworks share: the database they stand on, keys of ids, relevance."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import koru_delta
from koru_delta import Database, errors
from koru_delta.adapters import (
    HASHED,
    RELEVANCE,
    Connection,
    check_options,
    key_of,
    of_bm25,
    retain_by_default,
)


def is_open(database: Database) -> bool:
    try:
        database.list_keys("n")
    except errors.DatabaseClosedError:
        return False
    return True


def test_who_opened_a_database_closes_it_and_nobody_else(db: Database, tmp_path: Path) -> None:
    for ours in (Connection(), Connection(path=tmp_path / "db")):
        ours.shared().close()
        ours.past(0).close()
        assert is_open(ours.database)
        ours.close()
        ours.close()
        assert not is_open(ours.database)
    Connection(db).close()
    assert is_open(db)


@pytest.mark.parametrize("given", [{"path": "p"}, {"database": "p"}, {"database": koru_delta}])
def test_what_is_no_database_is_refused(db: Database, given: Any) -> None:
    with pytest.raises(errors.InvalidDataError, match="path"):
        Connection(**{"database": db, **given})


def test_a_connection_to_a_moment_reads_it_and_no_other_and_is_not_written(db: Database) -> None:
    then = db.put("n", "a", 1)
    db.put("n", "b", 2)
    now = Connection(db)

    for past in (now.past(then), Connection(db, as_of=then), now.past(then).shared()):
        assert past.at().list_keys("n") == past.reader().list_keys("n") == ["a"]
        for refused in (past.at, past.reader, past.past):
            with pytest.raises(errors.QueryError, match="one moment already"):
                refused(then)
        with pytest.raises(errors.ReadOnlyError, match="shows the moment"):
            past.check_writable()
    assert now.reader() is db
    assert now.reader(then).list_keys("n") == ["a"]
    now.check_writable()


def test_a_moment_that_is_none_leaves_nothing_open(tmp_path: Path) -> None:
    with pytest.raises(errors.UnknownVersionError):
        Connection(path=tmp_path / "db", as_of="0" * 64)
    with koru_delta.open(tmp_path / "db") as db:
        db.put("n", "a", 1)
    db = koru_delta.open(tmp_path / "db", read_only=True)
    with db, pytest.raises(errors.ReadOnlyError, match="opened read-only"):
        Connection(db).check_writable()


def test_a_connection_tells_what_opens_it_elsewhere(db: Database, tmp_path: Path) -> None:
    ours = Connection(path=tmp_path / "db")
    then = ours.database.put("n", "a", 1)
    ours.database.put("n", "b", 2)
    options: Any = ours.past(then).reopening()
    ours.close()

    again = Connection(**options)

    assert again.at().list_keys("n") == ["a"]
    again.close()
    with pytest.raises(errors.NotPicklableError):
        Connection(db).reopening()


@given(st.lists(st.text() | st.sampled_from(["", "\0", "x" * 1025, HASHED]), unique=True))
def test_each_id_has_a_key_of_its_own_that_can_be_one(names: list[str]) -> None:
    keys = [key_of(name) for name in names]

    assert len(set(keys)) == len(names)
    with koru_delta.open() as db:
        db.put_many([("n", key, name) for key, name in zip(keys, names, strict=True)])
        assert db.get_many("n", keys) == dict(zip(keys, names, strict=True))
    assert [key for key, name in zip(keys, names, strict=True) if key != name] == [
        key for key in keys if key.startswith(HASHED)
    ]


def test_relevance_is_in_0_1_and_rises_with_the_score() -> None:
    scores = {"cosine": [-1.0, 0.0, 1.0000001], "dot": [-1e9, -1.0, 0.0, 2.0], "l2": [-9.0, 0.0]}

    for metric, rising in scores.items():
        found = [RELEVANCE[metric](score) for score in rising]
        assert found == sorted(found)
        assert all(0 <= each <= 1 for each in found)
    assert RELEVANCE.keys() == scores.keys()
    assert (of_bm25(0.0), of_bm25(1.0)) == (0.0, 0.5)


def test_an_option_that_a_method_does_not_take_is_named_with_those_it_does() -> None:
    check_options("query", ["as_of"], ("as_of", "filter"))
    with pytest.raises(TypeError, match=r"query\(\) got .* 'asof'; .* as_of, filter"):
        check_options("query", ["asof"], ("as_of", "filter"))


def test_what_somebody_has_said_of_retention_holds(db: Database) -> None:
    retain_by_default(db, "a", None)
    assert db.retentions() == {}
    retain_by_default(db, "a", timedelta(0))
    retain_by_default(db, "a", timedelta(days=1))
    assert db.retentions()["a"].keep == timedelta(0)
