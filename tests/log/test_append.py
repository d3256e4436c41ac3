"""Many writes in one commit: looked up together, and each chained as if it came alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import koru_delta
from koru_delta import Database, errors
from koru_delta.testing import FixedClock

ODD_KEYS = [
    "a", "b", "it's", '"quoted"', "back\\slash", "tab\there", "\x01", "é", "日本", "\U0001f600",
    "\uffff", "[1]", "null", "k" * 1000,
]  # fmt: skip


@pytest.fixture
def db() -> Iterator[Database]:
    with koru_delta.open(None, clock=FixedClock()) as database:
        yield database


def test_every_version_of_a_batch_follows_the_last_one_of_its_key(db: Database) -> None:
    chance = random.Random(5)
    vectors = np.random.default_rng(5).standard_normal((6, 8)).astype(np.float32)
    last: dict[tuple[str, str], str] = {}
    count: dict[tuple[str, str], int] = {}
    for step in range(40):
        namespace = chance.choice(["n", "m", f"new-{step}"])
        items = [
            (chance.choice(ODD_KEYS), vectors[chance.randrange(6)], {"n": chance.randrange(3)})
            for _ in range(chance.choice([1, 2, 20]))
        ]
        versions = db.embed_many(namespace, items)

        assert [version.key for version in versions] == [key for key, _, _ in items]
        for version, (key, vector, value) in zip(versions, items, strict=True):
            place = (namespace, key)
            count[place] = count.get(place, 0) + 1
            assert version.previous == last.get(place)
            assert version.clock == {"local": count[place]}
            assert version.value == value
            assert db.vectors(version)["default"].tolist() == vector.tolist()
            last[place] = version.id
    assert db.verify().ok
    assert db.stats()["objects"] == 6


def test_a_version_says_when_written_what_it_says_when_read(db: Database) -> None:
    def said(version: koru_delta.Version) -> dict[str, Any]:
        names = [name for name in dir(type(version)) if name[0] != "_" and name != "record"]
        return {name: getattr(version, name) for name in names} | {"record": version.record()}

    cause = db.put("n", "cause", 1)
    written = [
        cause,
        db.embed("n", "k", [1.0, 0.0], {"a": 1}, causes=[cause], author="me", ttl=60),
        *db.embed_many("n", [("k", [0.0, 1.0]), ("other", [0.0, 1.0], None)], message="why"),
        db.put("n", "other", 2, valid_from="2020-01-01T00:00:00Z", valid_to="2021-01-01T00:00:00Z"),
        db.delete("n", "cause"),
    ]
    for version in written:
        assert said(version) == said(db.get_version(version.id))


def test_an_embed_in_a_batch_keeps_the_value_an_earlier_write_of_it_left(db: Database) -> None:
    db.put("n", "k", "before")
    first, second, third = db.embed_many(
        "n", [("k", [1.0, 0.0]), ("k", [0.0, 1.0], "after"), ("k", [1.0, 1.0])]
    )
    assert [each.value for each in (first, second, third)] == ["before", "after", "after"]
    assert db.history("n", "k")[1:] == [first, second, third]


def test_a_vector_with_no_direction_refuses_the_whole_batch(db: Database) -> None:
    items = [(str(n), np.full(4, float(n != 7), dtype=np.float32), n) for n in range(300)]
    with pytest.raises(errors.InvalidDataError, match="zero vector"):
        db.embed_many("n", items)
    assert db.list_namespaces() == []

    assert len(db.embed_many("n", items, metric="dot")) == 300
    assert db.count("n") == 300
    assert db.verify().ok


def test_a_new_namespace_refused_once_is_begun_by_the_next_batch(db: Database) -> None:
    tx = db.transaction()
    with pytest.raises(errors.ConflictError), tx:
        _put_twice(tx)
    db.put_many([("n", "a", 3), ("n", "b", 4), ("n", "a", 5)])
    assert (db.get("n", "a"), db.get("n", "b")) == (5, 4)
    assert db.verify().ok


def _put_twice(tx: koru_delta.Transaction) -> None:
    tx.put("n", "a", 1)
    tx.put("n", "a", 2, if_match=None)
