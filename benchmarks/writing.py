"""Putting documents of 1 KB, beside the same rows written by hand.

The hand-written peer knows its rows beforehand: it hashes nothing, looks nothing up, and
tells no other process. It is what the file system and SQLite cost.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any

import apsw

import koru_delta
from benchmarks.documents import document
from benchmarks.measure import (
    Row,
    Side,
    at_most,
    by_turns,
    quiet,
    ratio_at_least,
    ratio_at_most,
    sized,
)
from koru_delta import Database

BATCH, THREADS = 1000, 8
STRETCH = 25  # puts in a row, as an application makes them
_PRAGMAS = (
    "trusted_schema = OFF",
    "cell_size_check = ON",
    "mmap_size = 0",
    "journal_mode = WAL",
    "secure_delete = ON",
    "cache_size = -16000",
    "fullfsync = ON",
    "checkpoint_fullfsync = ON",
)
Prepared = tuple[str, tuple[Any, ...]]


def run(folder: Path, scale: float) -> Iterator[Row]:
    (
        single,
        relaxed,
    ) = sized(1000, scale, 5), sized(3000, scale, 5)
    recipe = Recipe(folder / "recipe", max(single, relaxed))
    full = koru_delta.open(folder / "full")
    loose = koru_delta.open(folder / "relaxed", durability="relaxed")
    with full, loose:
        for db in (full, loose):  # as `_lengthen_wal` does for the peers
            db.put("filler", "key", [random.Random(1).random() for _ in range(600_000)])
        yield from _single(full, recipe, folder, single)
        yield from _relaxed(loose, recipe, folder, relaxed)
        yield from _batches(full, sized(8, scale, 1))
        yield from _threads(full, sized(6, scale, 1), sized(400, scale, 16))


class Recipe:
    """What a put writes: the schema, and the rows of every put, read from a real database."""

    def __init__(self, folder: Path, puts: int) -> None:
        self.fresh: Any = None
        with koru_delta.open(folder, durability="relaxed") as db:
            for n in range(puts):
                db.put("docs", f"key-{n}", document(n))
        source = apsw.Connection(str(folder / "log.db"), flags=apsw.SQLITE_OPEN_READWRITE)
        self.schema = [
            sql for (sql,) in source.execute("SELECT sql FROM sqlite_schema WHERE sql NOT NULL")
        ]
        self.first = list(source.execute("SELECT * FROM namespaces"))
        tables = ("keys", "versions", "commits")
        rows = [list(source.execute(f"SELECT * FROM {table} ORDER BY 1")) for table in tables]
        source.close()
        inserts = [
            f"INSERT INTO {table} VALUES({','.join('?' * len(found[0]))})"
            for table, found in zip(tables, rows, strict=True)
        ]
        self.puts: list[list[Prepared]] = [
            list(zip(inserts, each, strict=True)) for each in zip(*rows, strict=True)
        ]
        assert len(self.puts) == puts

    def prepare(self, n: int) -> None:
        """Make document `n`, and touch its rows: neither side begins with cold memory."""
        self.fresh = document(n)
        hash(tuple(row for _, row in self.puts[n]))

    def by_hand(self, file: Path, synchronous: str) -> Side:
        """A side that writes the rows of put `n` in one transaction of its own."""
        con = _connect(file, synchronous)
        for sql in self.schema:
            con.execute(sql)
        con.executemany("INSERT INTO namespaces VALUES(?,?)", self.first)
        _lengthen_wal(con)

        def put(n: int) -> None:
            execute = con.execute
            execute("BEGIN IMMEDIATE")
            for sql, row in self.puts[n]:
                execute(sql, row)
            execute("COMMIT")

        return put

    def bare(self, file: Path, synchronous: str) -> Side:
        """A side that inserts a key and a body into a table without any index."""
        con = _connect(file, synchronous)
        con.execute("CREATE TABLE bare(seq INTEGER PRIMARY KEY, key TEXT, body BLOB) STRICT")
        _lengthen_wal(con)
        rows = [(n, f"key-{n}", put[1][1][-1]) for n, put in enumerate(self.puts)]
        return lambda n: con.execute("INSERT INTO bare VALUES(?,?,?)", rows[n])


def _connect(file: Path, synchronous: str) -> apsw.Connection:
    con = apsw.Connection(str(file))
    for pragma in (*_PRAGMAS, f"synchronous = {synchronous}"):
        con.execute(f"PRAGMA {pragma}").fetchall()
    return con


def _lengthen_wal(con: apsw.Connection) -> None:
    """Write once what fills the WAL, so that from now on it is overwritten, not extended."""
    con.execute("CREATE TABLE filler(body BLOB) STRICT")
    con.execute("INSERT INTO filler VALUES(zeroblob(6000000))")


def _single(db: Database, recipe: Recipe, folder: Path, puts: int) -> Iterator[Row]:
    sides = (
        lambda n: db.put("docs", f"key-{n}", recipe.fresh),
        recipe.by_hand(folder / "by-hand.db", "FULL"),
        recipe.bare(folder / "bare.db", "FULL"),
    )
    ours, hand, bare = (each / 1000 for each in _in_stretches(recipe, sides, puts))
    size = len(db.get_raw("docs", "key-1"))
    yield Row(
        f"durable put, {size} bytes", ours, "us",
        hand, "same rows by hand, FULL", (ratio_at_most(1.3),),
    )  # fmt: skip
    yield Row("  the same", ours, "us", bare, "one-table insert, FULL", (ratio_at_most(2),))
    again = sized(puts, 0.3, 5)
    repeated = (
        lambda n: db.put("docs", f"key-{n}", {**recipe.fresh, "id": -n}),
        lambda n: db.put("docs", f"again-{n}", recipe.fresh),
    )
    over, new = (each / 1000 for each in _in_stretches(recipe, repeated, again))
    yield Row("durable put over an earlier value", over, "us", new, "put of a new key")


def _in_stretches(recipe: Recipe, sides: Sequence[Side], puts: int) -> list[float]:
    return by_turns(sides, puts - 3, warm_up=3, stretch=STRETCH, before=recipe.prepare)


def _relaxed(db: Database, recipe: Recipe, folder: Path, puts: int) -> Iterator[Row]:
    sides = (
        lambda n: db.put("docs", f"key-{n}", recipe.fresh),
        recipe.by_hand(folder / "by-hand-relaxed.db", "NORMAL"),
    )
    ours, hand = (each / 1000 for each in _in_stretches(recipe, sides, puts))
    yield Row('put, durability="relaxed"', ours, "us", hand, "same rows, NORMAL", (at_most(60),))


def _batches(db: Database, rounds: int) -> Iterator[Row]:
    """Every batch and every single put writes keys and values of its own."""
    singles = 100
    items = [document(n) for n in range(BATCH)]

    def many(n: int) -> None:
        db.put_many([(f"many-{n}", f"key-{i}", value) for i, value in enumerate(items)])

    def alone(n: int) -> None:
        for i in range(singles):
            db.put(f"alone-{n}", f"key-{i}", items[i])

    batch, single = by_turns((many, alone), rounds, warm_up=1)
    yield Row(
        f"put_many of {BATCH:,}, durable", BATCH * 1e9 / batch, "puts/s",
        singles * 1e9 / single, "single puts", (ratio_at_least(8),),
    )  # fmt: skip


def _threads(db: Database, rounds: int, puts: int) -> Iterator[Row]:
    items = [document(n) for n in range(puts)]
    alone: list[int] = []
    together: list[int] = []
    commits: list[float] = []
    with quiet():
        for n in range(rounds + 1):
            for threads, taken in ((1, alone), (THREADS, together)):
                before = db.stats()["transactions"]
                time = _race(_putters(db, f"race-{threads}-{n}", items, threads))
                if n:  # the first round warms up
                    taken.append(time)
                    if threads > 1:
                        commits.append((db.stats()["transactions"] - before) / puts)
    yield Row(
        f"durable puts by {THREADS} threads at once", puts * 1e9 / median(together), "puts/s",
        puts * 1e9 / median(alone), "one thread", (ratio_at_least(1.4),),
    )  # fmt: skip
    yield Row("  SQLite commits a put", median(commits), "", targets=(at_most(0.6),))


def _putters(
    db: Database, namespace: str, items: Sequence[Any], threads: int
) -> list[Callable[[], None]]:
    def putter(first: int) -> Callable[[], None]:
        def run() -> None:
            for n in range(first, len(items), threads):
                db.put(namespace, f"key-{n}", items[n])

        return run

    return [putter(first) for first in range(threads)]


def _race(runs: Sequence[Callable[[], None]]) -> int:
    """Nanoseconds until all of them, each in a thread of its own, have ended."""
    ready = threading.Barrier(len(runs) + 1)

    def start(run: Callable[[], None]) -> None:
        ready.wait()
        run()

    threads = [threading.Thread(target=start, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    ready.wait()
    begin = perf_counter_ns()
    for thread in threads:
        thread.join()
    return perf_counter_ns() - begin
