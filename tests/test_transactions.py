"""Transactions, one promise at a time: all of one or none of it."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import koru_delta
from koru_delta import Database, errors
from koru_delta.testing import FixedClock


def test_a_transaction_is_one_commit_that_reads_its_own_writes(db: Database) -> None:
    db.put("a", "j", 0)
    with db.transaction(author="ada") as tx:
        tx.put("a", "k", 1)
        tx.put("a", "k", 2)
        tx.delete("a", "j")
        assert tx.get("a", "k") == 2
        assert not tx.contains("a", "j")
        assert db.contains("a", "j")
        with pytest.raises(errors.KeyNotFoundError):
            tx.delete("a", "never")
    assert [v.operation for v in tx.versions] == ["put", "put", "delete"]
    assert {v.author for v in tx.versions} == {"ada"}
    assert len(db.commits()) == 2
    assert [v.value for v in db.history("a", "k")] == [1, 2]


def test_a_transaction_sees_its_beginning(db: Database) -> None:
    db.put("a", "k", 1)
    with db.transaction() as tx:
        db.put("a", "k", 2)
        assert tx.get("a", "k") == 1


def test_an_error_in_a_transaction_writes_nothing(db: Database) -> None:
    def fail() -> None:
        with db.transaction() as tx:
            tx.put("a", "k", 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert db.stats()["seq"] == 0

    first = db.put("a", "k", 1)
    db.put("a", "k", 2)

    def lose() -> None:
        with db.transaction() as tx:
            tx.put("a", "other", 1)
            tx.put("a", "k", 3, if_match=first)

    with pytest.raises(errors.ConflictError):
        lose()
    assert not db.contains("a", "other")


def test_a_transaction_takes_many_embeds_and_deletes(db: Database) -> None:
    db.put("a", "gone", 1)
    with db.transaction(message="swap") as tx:
        added = tx.embed_many("a", [("x", [1.0, 0.0], {"n": 1}), ("y", [0.0, 1.0])])
        tx.delete_many("a", ["gone", "never", "gone"])
        assert not tx.contains("a", "gone")
        with pytest.raises(errors.InvalidDataError, match="list of strings"):
            tx.delete_many("a", "gone")

    assert [pending.version for pending in added] == tx.versions[:2]
    assert [(v.operation, v.key) for v in tx.versions] == [
        ("put", "x"), ("put", "y"), ("delete", "gone"),
    ]  # fmt: skip
    assert db.commits()[-1].size == 3
    assert [hit.key for hit in db.similar("a", [1.0, 0.0], k=1)] == ["x"]


def test_a_transaction_is_refused_where_what_it_read_was_written_meanwhile(db: Database) -> None:
    db.put_many([("a", "k/1", 1), ("a", "k/2", 2)])

    def clear(meanwhile: Callable[[], object]) -> None:
        with db.transaction() as tx:
            tx.expect_unchanged("a", prefix="k/")
            tx.delete_many("a", db.list_keys("a", prefix="k/"))
            meanwhile()

    for write in (
        lambda: db.put("a", "k/3", 3),  # one that was not there when it was read
        lambda: db.delete("a", "k/2"),
        lambda: db.erase(("a", "k/1")),
    ):
        before = db.stats()["seq"]
        with pytest.raises(errors.ConflictError, match="read it again") as refused:
            clear(write)
        assert pickle.loads(pickle.dumps(refused.value)).args == refused.value.args
        after = [version for version in db.changes(before) if version.key.startswith("k/")]
        assert len({version.tx_time for version in after}) == 1  # the other's commit alone

    clear(lambda: db.put_many([("a", "j", 1), ("b", "k/1", 1)]))  # others are not its matter
    assert db.list_keys("a") == ["j"]
    late = db.transaction()
    with pytest.raises(errors.ConflictError), late:
        late.expect_unchanged("a", since=db.stats()["seq"] - 1)
    with db.transaction() as tx:
        tx.expect_unchanged("a", since=db.stats()["seq"])
    assert tx.versions == []
    with pytest.raises(errors.TransactionError):
        tx.expect_unchanged("a")


def test_a_transaction_is_refused_where_a_key_that_it_needs_is_gone(
    db: Database, clock: FixedClock
) -> None:
    def follow(meanwhile: Callable[[], object]) -> None:
        db.put_many([("a", "k/1", 1), ("a", "k/2", "x" * 100_000)])
        with db.transaction() as tx:
            tx.expect_present("a", ["k/1", "k/2"])
            tx.put("a", "about", "k")
            meanwhile()

    def expire() -> None:
        db.put("a", "k/1", 1, ttl=5)
        clock.advance(seconds=6)

    for lose in (
        lambda: db.delete("a", "k/2"),
        lambda: db.erase(("a", "k/2")),
        lambda: db.erase(db.version("a", "k/2")),
        expire,
    ):
        with pytest.raises(errors.KeyNotFoundError, match="k/"):
            follow(lose)
        assert not db.contains("a", "about")
    follow(lambda: db.put("a", "k/1", 2))  # another value is one, too
    assert db.get("a", "about") == "k"

    late = db.transaction()
    with pytest.raises(errors.KeyNotFoundError), late:  # noqa: PT012 - it commits when it ends
        late.put("never", "k", 1)
        late.expect_present("never", ["k"])  # before, not after
    assert db.list_keys("never") == []
    with pytest.raises(errors.TransactionError):
        late.expect_present("a", ["k"])


def test_a_transaction_that_erases_gives_the_disk_back(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db") as db:
        db.put("a", "k", {"big": random.Random(1).randbytes(6_000_000).hex()})
        before = db.stats()["log_bytes"]
        with db.transaction() as tx:
            tx.erase(("a", "k"))
        assert db.stats()["log_bytes"] < before / 2


def test_later_writes_may_name_earlier_ones_of_the_transaction(db: Database) -> None:
    with db.transaction() as tx:
        source = tx.put("docs", "d", "text")
        tx.put("chunks", "c", "te", causes=[("derived_from", source)])
    document, chunk = tx.versions
    assert source.version == document
    assert db.ancestors(chunk) == [document]
    assert db.descendants(document) == [chunk]


def test_transactions_do_not_nest_and_end(db: Database) -> None:
    with db.transaction() as tx:
        with pytest.raises(errors.TransactionError), db.transaction():
            pass
        with pytest.raises(errors.TransactionError):
            tx.similar("docs", [1.0])
    with pytest.raises(errors.TransactionError):
        tx.put("a", "k", 1)
    with pytest.raises(errors.TransactionError), tx:
        pass
    with pytest.raises(errors.TransactionError):
        tx.commit()
    with db.transaction():
        pass
    assert db.commits() == []
