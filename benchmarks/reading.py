"""Reading one key: hot, as of an earlier moment, and through SQLite.

A hot get is by definition a repeated get of a document nobody has changed, so here, and
only here, the same answers are asked for again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

import koru_delta
from benchmarks.documents import document
from benchmarks.measure import Row, at_most, by_turns, ratio_at_most, sized
from koru_delta import Database, Version

HOT, DEEP = 100, 1000  # hot documents; versions of the key with a long past


def run(folder: Path, scale: float) -> Iterator[Row]:
    with koru_delta.open(folder / "reading", durability="relaxed") as db:
        documents = {f"doc-{n}": document(n) for n in range(HOT)}
        db.put_many([("docs", key, value) for key, value in documents.items()])
        yield from _hot(db, documents, sized(400, scale, 3))
        yield from _as_of(db, sized(DEEP, scale, 5))
        yield from _cold(db, sized(5000, scale, 20), sized(3000, scale, 5))


def _hot(db: Database, documents: dict[str, Any], rounds: int) -> Iterator[Row]:
    keys = list(documents) * 10
    bodies = {key: db.get_raw("docs", key) for key in documents}

    def get(_: int) -> None:
        read = db.get
        for key in keys:
            read("docs", key)

    def get_raw(_: int) -> None:
        read = db.get_raw
        for key in keys:
            read("docs", key)

    def look_up(_: int) -> None:
        for key in keys:
            bodies[key]

    def standard(_: int) -> None:
        for key in keys:
            json.loads(bodies[key])

    def fast(_: int) -> None:
        for key in keys:
            orjson.loads(bodies[key])

    size = len(bodies["doc-0"])
    sides = (get, get_raw, look_up, standard, fast)
    ours, raw, plain, loads, orloads = by_turns(sides, rounds, warm_up=5, calls=len(keys))
    yield Row(
        f"hot get, unchanged, {size} bytes in 8 fields", ours, "ns",
        orloads, "orjson.loads", (at_most(1000),),
    )  # fmt: skip
    yield Row("  the same", ours, "ns", loads, "json.loads")
    yield Row(
        "hot get_raw", raw, "ns", plain, "dict look-up", (at_most(250), ratio_at_most(8))
    )  # fmt: skip


def _as_of(db: Database, rounds: int) -> Iterator[Row]:
    """Each question is about another moment, so that none was asked before."""
    single: list[Version] = []
    deep: list[Version] = []
    for n in range(DEEP):
        deep.append(db.put("deep", "key", document(n)))
        single.append(db.put("single", f"key-{n}", document(n)))
    moments = random.Random(1).sample(range(DEEP), rounds)

    def at_one(n: int) -> object:
        return db.get("single", f"key-{moments[n]}", as_of=single[moments[n]].seq)

    def at_many(n: int) -> object:
        return db.get("deep", "key", as_of=deep[moments[n]].seq)

    one, many = by_turns((at_one, at_many), rounds)
    yield Row(
        f"as-of get, {DEEP:,} versions of the key", many / 1000, "us",
        one / 1000, "1 version", (ratio_at_most(2),),
    )  # fmt: skip


def _cold(db: Database, stored: int, rounds: int) -> Iterator[Row]:
    for start in range(0, stored, 1000):
        items = [("cold", f"key-{n}", document(n)) for n in range(start, min(stored, start + 1000))]
        db.put_many(items)
    order = random.Random(2).sample(range(stored), min(rounds, stored))
    first = _first_reads(db, order)
    yield Row(f"cold get, {stored:,} keys, each read once", first / 1000, "us")

    moments = [version.seq for version in db.history("deep", "key")][5:]
    random.Random(3).shuffle(moments)

    def history(n: int) -> object:
        return db.history("deep", "key", as_of=moments[n], limit=5, reverse=True)

    (five,) = by_turns((history,), min(600, rounds), warm_up=2)
    yield Row("history as of a moment, the last 5 of up to 1,000", five / 1000, "us")


def _first_reads(db: Database, order: Sequence[int]) -> float:
    (taken,) = by_turns((lambda n: db.get("cold", f"key-{order[n]}"),), len(order))
    return taken
