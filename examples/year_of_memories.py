"""A year of an agent's memories: what is used stays near, the rest becomes cheap, nothing is lost.

A clock of our own runs through the days, `run_due` does the lifecycle's jobs as it moves. A ledger,
plain lists, is kept beside the database; at the end both are asked about now and about then.

Run it with: python examples/year_of_memories.py (a small year; --per-day 1000 --at-work 30 is
a large one). It prints a table and, with matplotlib, writes year_of_memories.png.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import koru_delta
from koru_delta import Database, Version
from koru_delta.lifecycle import Held, Move, Mover, MoveResult, Tier
from koru_delta.testing import FixedClock

NAMESPACE = "memories"
DIMENSIONS, TOPICS = 32, 24
HOURS = (8, 13, 20)  # an agent's working day: a session at each
HOUR = 3_600 * 1_000_000
# What each tier may hold, of what the year would take up in memory, about.
SHARES = {Tier.HOT: 0.07, Tier.WARM: 0.13, Tier.COLD: 0.13}
MEMORY_BYTES = 560
VERBS = ("asked", "told", "sent", "fixed", "saw", "moved", "read", "wrote", "found", "lost")
THINGS = ("invoice", "server", "ticket", "cake", "train", "letter", "garden", "budget", "photo")


class Scale(NamedTuple):
    """How long, and how much."""

    days: int = 365
    at_work: int = 4  # days of each thirty; the others nothing happens
    per_day: int = 24  # events: memories that are written, changed or deleted
    reads: int = 2  # for each event
    seed: int = 7

    @property
    def work_days(self) -> list[int]:
        return [day for day in range(self.days) if day % 30 < self.at_work]

    @property
    def events(self) -> int:
        return len(self.work_days) * self.per_day


# The ledger


class Noted(NamedTuple):
    """An answer of the database at the time, to be compared with what it says of then later."""

    seq: int
    text: str
    found: list[tuple[str, float]]


class Ledger:
    """What was written, in plain lists: what the database is held to."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.seqs: list[int] = []
        self.values: list[Any] = []  # None: it was deleted
        self.vectors: list[npt.NDArray[np.float32]] = []
        self.rows: dict[int, list[int]] = {}  # of each memory
        self.ends: list[int] = []  # of commits of several
        self.answers: list[Noted] = []

    def note(
        self, number: int, version: Version, value: Any, vector: npt.NDArray[np.float32]
    ) -> None:
        self.rows.setdefault(number, []).append(len(self.seqs))
        self.numbers.append(number)
        self.seqs.append(version.seq)
        self.values.append(value)
        self.vectors.append(vector)

    def is_there(self, number: int) -> bool:
        return number in self.rows and self.values[self.rows[number][-1]] is not None

    def present(self, seq: int) -> list[int]:
        """The row of each memory that was there after that entry of the log, by its number."""
        until = int(np.searchsorted(self.seqs, seq, "right"))
        last = {number: row for row, number in enumerate(self.numbers[:until])}
        return [last[number] for number in sorted(last) if self.values[last[number]] is not None]


# The life


@dataclass
class Day:
    """What a day came to: reads by what they were for and by tier, and the tiers at its end."""

    number: int
    reads: Counter[tuple[str, Tier]] = field(default_factory=Counter)
    sizes: tuple[int, ...] = ()  # of the tiers, in bytes


class Watched:
    """A mover, watched: where each memory is by now, and how many went from where to where."""

    def __init__(self, mover: Mover, most: int) -> None:
        self._mover = mover
        self.tiers = np.full(most, -1, dtype=np.int64)  # -1: it is not there
        self._known = np.full(most + 10_000, -1, dtype=np.int64)
        self.moved: Counter[tuple[Tier, Tier]] = Counter()
        self.longest_seconds = 0.0  # that writers waited for a move

    def look(self, namespaces: Collection[str] | None = None) -> Held:
        held = self._mover.look(namespaces)
        if namespaces is None or NAMESPACE in namespaces:
            self.tiers[:] = -1
            for name, rows in held.by_namespace():
                if name == NAMESPACE:
                    self.tiers[self._numbers(held, rows)] = held.tiers[rows]
        return held

    def _numbers(self, held: Held, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The numbers of memories, by those that the database knows them by."""
        ids = held.ids[rows]
        new = rows[self._known[ids] < 0]
        self._known[held.ids[new]] = [number_of(key) for _, key in held.places(new)]
        return self._known[ids]

    def move(self, move: Move) -> MoveResult:
        result = self._mover.move(move)
        self.moved[move.source, move.target] += len(result.keys)
        self.longest_seconds = max(self.longest_seconds, result.longest_seconds)
        return result


class Year:
    """A database, the ledger beside it, and what the days came to."""

    def __init__(self, folder: Path, scale: Scale) -> None:
        self.folder, self.scale = folder, scale
        self.clock = FixedClock()
        self.ledger = Ledger()
        self.days: list[Day] = []
        self.checks = 0
        self.tiers: dict[str, dict[str, Any]] = {}  # what `stats` told after the last check
        self.over: list[str] = []  # budgets that did not hold after a check
        self._chance = np.random.default_rng(scale.seed)
        topics = self._chance.standard_normal((TOPICS, DIMENSIONS))
        self._topics = topics / np.linalg.norm(topics, axis=1, keepdims=True)
        self._next = 0  # the number of the next memory
        self._usual: dict[int, list[int]] = {}  # what is read daily, by the hour
        self._burst: list[int] = []  # an old story that is worked on
        total = scale.events * MEMORY_BYTES
        self.budgets = {tier: int(total * share) for tier, share in SHARES.items()}
        self.db = self.open()
        self.db.lifecycle.policy(
            hot_bytes=self.budgets[Tier.HOT], warm_bytes=self.budgets[Tier.WARM],
            cold_bytes=self.budgets[Tier.COLD], message="a year has to fit",
        )  # fmt: skip
        self.watched = Watched(self.db.lifecycle.mover, scale.events)
        self.db.lifecycle.mover = self.watched

    def open(self) -> Database:
        return koru_delta.open(self.folder, clock=self.clock, durability="relaxed")

    def live(self, tell: Callable[[int], None] = lambda _: None) -> Year:
        """Live through all days; `tell` is told of each."""
        start = self.clock.now
        for number in self.scale.work_days:
            day = Day(number)
            self.days.append(day)
            for session, hour in enumerate(HOURS):
                late = self._chance.integers(0, 2 * HOUR)
                self.clock.now = start + (24 * number + hour) * HOUR + int(late)
                self.run_due()
                self._session(day, number, session)
            day.sizes = tuple(self.tiers[str(tier)]["bytes"] for tier in Tier)
            tell(number + 1)
        self.clock.advance(seconds=86_400)
        self.run_due()
        return self

    def run_due(self) -> None:
        """Have what is due done, and see where everything is then, and whether budgets hold."""
        if "check" in self.db.lifecycle.run_due():
            self.checks += 1
            self.tiers = self.db.lifecycle.stats()["tiers"]
            for name, told in self.tiers.items():
                if told["budget_bytes"] is not None and told["bytes"] > told["budget_bytes"]:
                    self.over.append(f"{name} held {told}")

    def _session(self, day: Day, number: int, session: int) -> None:
        """An hour or so of writing, reading and searching."""
        per_day = self.scale.per_day
        events = per_day * (session + 1) // len(HOURS) - per_day * session // len(HOURS)
        self._choose(number, session)
        name, step = f"{number:03}-{session}", 1 / max(events, 1)
        left = events
        while left:
            some = min(left, 100)
            left -= some
            self._write(some, name)
            for _ in range(some * self.scale.reads):
                self.clock.advance(seconds=1_800 * step)
                self._read(day, session)
        self._search(day)

    def _choose(self, number: int, session: int) -> None:
        """What is read at this hour all month, and what story is worked on for some days."""
        if self._next and (number % 30 == 0 or session not in self._usual):
            count = max(3, self.scale.per_day // 40)
            self._usual[session] = self._chance.integers(0, self._next, count).tolist()
        if self._next and (number % 5, session) == (0, 0):
            first = int(self._chance.integers(0, self._next))
            last = min(first + max(4, self.scale.per_day // 30), self._next)
            self._burst = list(range(first, last))
        elif number % 5 == 3:
            self._burst = []

    def _write(self, count: int, session: str) -> None:
        """Mostly new memories; some old ones are corrected, and a few are deleted."""
        chance, ledger = self._chance, self.ledger
        numbers = []
        for kind in chance.random(count):
            old = self._recent()
            if kind < 0.01 and old is not None and old not in numbers:
                nothing = np.zeros(DIMENSIONS, dtype=np.float32)
                ledger.note(old, self.db.delete(NAMESPACE, key_of(old)), None, nothing)
            elif kind < 0.06 and old is not None:
                numbers.append(old)
            else:
                numbers.append(self._next)
                self._next += 1
        items = [(number, *self._memory(number, session)) for number in dict.fromkeys(numbers)]
        self.clock.advance(seconds=1)
        versions = self.db.embed_many(
            NAMESPACE, [(key_of(number), vector, value) for number, value, vector in items]
        )
        for (number, value, vector), version in zip(items, versions, strict=True):
            ledger.note(number, version, value, vector)
            if self.watched.tiers[number] != Tier.WARM:
                self.watched.tiers[number] = Tier.HOT  # a new version lies in the log
        if versions:
            ledger.ends.append(versions[-1].seq)

    def _memory(self, number: int, session: str) -> tuple[Any, npt.NDArray[np.float32]]:
        topic = int(self._chance.integers(TOPICS))
        vector = self._topics[topic] + self._chance.standard_normal(DIMENSIONS) * 0.08
        words = [*self._chance.choice(VERBS, 2), *self._chance.choice(THINGS, 5)]
        value = {
            "text": f"Memory {number}: {' '.join(words)}", "topic": topic, "session": session,
            "told": "It was a day like others, and this is all that is to be said of it. " * 3,
        }  # fmt: skip
        return value, (vector / np.linalg.norm(vector)).astype(np.float32)

    def _recent(self) -> int | None:
        """A memory, the newer the likelier: by Zipf's law of how many came after it."""
        number = self._next - int(self._chance.zipf(1.25))
        return number if self.ledger.is_there(number) else None

    def _read(self, day: Day, session: int) -> None:
        chance = self._chance.random()
        kind, number = "recent", self._recent()
        if chance < 0.2 and session in self._usual:
            kind, number = "every day", int(self._chance.choice(self._usual[session]))
        elif chance < 0.35 and self._burst:
            kind, number = "in bursts", int(self._chance.choice(self._burst))
        elif chance < 0.37:
            kind, number = "of old", int(self._chance.integers(self._next))
        if number is not None and self.ledger.is_there(number):
            day.reads[kind, Tier(int(self.watched.tiers[number]))] += 1
            self.db.get(NAMESPACE, key_of(number))

    def _search(self, day: Day) -> None:
        """Ask by meaning and by words; one in some answers is noted in the ledger."""
        vector = self._topics[int(self._chance.integers(TOPICS))].astype(np.float32)
        text = " ".join(self._chance.choice(THINGS, 2))
        for found in (
            self.db.similar(NAMESPACE, vector, k=5),
            self.db.search(NAMESPACE, text, vector=vector, k=5, exact=True),
        ):
            for match in found:
                day.reads["found", Tier(int(self.watched.tiers[number_of(match.key)]))] += 1
            self.db.used(found[0])
        if len(self.days) % 10 == 1:
            words = self.db.search(NAMESPACE, text, mode="text", k=5)
            self.ledger.answers.append(
                Noted(self.ledger.seqs[-1], text, [(each.key, each.score) for each in words])
            )

    # Holding it to the ledger

    def lost(self, moments: int = 12) -> Iterator[str]:
        """Whatever the database says otherwise than the ledger: nothing, it is promised.

        Every value and history, searches at `moments` in the past, what was noted, the hashes.
        """
        db, ledger = self.db, self.ledger
        now = {key_of(ledger.numbers[row]): row for row in ledger.present(ledger.seqs[-1])}
        if sorted(db.list_keys(NAMESPACE, as_of=ledger.ends[-1])) != list(now):
            yield "the keys"
        for start in range(0, len(now), 1_000):
            some = list(now)[start : start + 1_000]
            if db.get_many(NAMESPACE, some) != {key: ledger.values[now[key]] for key in some}:
                yield f"a value of {some[0]} to {some[-1]}"
        for number, rows in ledger.rows.items():
            told = [(each.seq, each.value) for each in db.history(NAMESPACE, key_of(number))]
            if told != [(ledger.seqs[row], ledger.values[row]) for row in rows]:
                yield f"the history of {key_of(number)}"
        for seq in self._moments(moments):
            yield from self._lost_at(seq)
        for noted in ledger.answers:
            found = db.search(NAMESPACE, noted.text, mode="text", k=5, as_of=noted.seq)
            if [(each.key, each.score) for each in found] != noted.found:
                yield f"what {noted.text!r} found at {noted.seq}"
        report = db.verify()
        if not report.ok:
            yield str(report)

    def _moments(self, count: int) -> list[int]:
        """Ends of commits, from the first to the last."""
        ends = self.ledger.ends
        return [ends[place] for place in np.linspace(0, len(ends) - 1, count).astype(int)]

    def _lost_at(self, seq: int) -> Iterator[str]:
        db, ledger = self.db, self.ledger
        rows = ledger.present(seq)
        if not rows:
            return
        vectors = np.array([ledger.vectors[row] for row in rows])
        for query in self._topics[::5].astype(np.float32):
            best = np.argsort(-(vectors @ query), kind="stable")[:10]
            found = db.similar(NAMESPACE, query, k=10, as_of=seq, exact=True)
            truth = [key_of(ledger.numbers[rows[place]]) for place in best]
            if [match.key for match in found] != truth:
                yield f"a search by meaning at {seq}"
            if [match.value for match in found] != [ledger.values[rows[place]] for place in best]:
                yield f"what a search found at {seq}"
        session = ledger.values[rows[len(rows) // 2]]["session"]
        told = {row.key: row.value for row in db.query(NAMESPACE, {"session": session}, as_of=seq)}
        truth_by_key = {
            key_of(ledger.numbers[row]): ledger.values[row]
            for row in rows if ledger.values[row]["session"] == session
        }  # fmt: skip
        if told != truth_by_key:
            yield f"a query at {seq}"


# Showing

KINDS = ("recent", "every day", "in bursts", "of old", "found")


def key_of(number: int) -> str:
    return f"m{number:07}"


def number_of(key: str) -> int:
    return int(key[1:])


def hit_rate(days: Sequence[Day], *kinds: str, near: Tier = Tier.HOT) -> float:
    """The share of reads, of these kinds or all, that found their memory that near."""
    every = Counter[Tier]()
    for day in days:
        for (kind, tier), count in day.reads.items():
            if not kinds or kind in kinds:
                every[tier] += count
    hits = sum(count for tier, count in every.items() if tier <= near)
    return hits / every.total() if every else math.nan


def plot(year: Year) -> Any:
    """Where the memories were over the year, and how near what was read was; a figure."""
    import matplotlib.pyplot as plt

    days = [day.number for day in year.days]
    figure, (above, below) = plt.subplots(2, 1, figsize=(9, 7), sharex=True)
    colours = ("#d1495b", "#edae49", "#66a182", "#2e4057")
    sizes = np.array([day.sizes for day in year.days]).T / 1e6
    above.stackplot(days, sizes, labels=[str(tier) for tier in Tier], colors=colours, alpha=0.85)
    above.set(ylabel="MB", title="Where a year of memories lies")
    above.legend(loc="upper left")
    months = [list(group) for _, group in groupby(year.days, lambda day: day.number // 30)]
    for kind, style in zip(KINDS, ("-", "--", "-.", ":", "-"), strict=True):
        rates = [100 * hit_rate(month, kind, near=Tier.WARM) for month in months]
        below.plot([month[0].number for month in months], rates, style, label=kind)
    below.set(
        xlabel="day", ylabel="% that were hot or warm", ylim=(0, 103),
        title="How near what was read was, month by month",
    )  # fmt: skip
    below.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=len(KINDS))
    figure.tight_layout()
    return figure


def table(year: Year) -> Any:
    """Each tier at the end, for a terminal."""
    from rich.table import Table

    made = Table("tier", "memories", "bytes", "may hold", "of reads")
    shares = [hit_rate(year.days, near=tier) for tier in Tier]
    for tier, share, nearer in zip(Tier, shares, [0.0, *shares], strict=False):
        told, budget = year.tiers[str(tier)], year.budgets.get(tier)
        made.add_row(
            str(tier), f"{told['keys']:,}", f"{told['bytes']:,}",
            "" if budget is None else f"{budget:,}", f"{share - nearer:.1%}",
        )  # fmt: skip
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    from rich.console import Console
    from rich.progress import Progress

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=Scale().days)
    parser.add_argument("--at-work", type=int, default=Scale().at_work, help="days of each 30")
    parser.add_argument("--per-day", type=int, default=Scale().per_day, help="events")
    parser.add_argument("--plot", type=Path, default=Path("year_of_memories.png"))
    chosen = parser.parse_args(arguments)
    scale = Scale(days=chosen.days, at_work=chosen.at_work, per_day=chosen.per_day)
    bar = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with tempfile.TemporaryDirectory() as folder, bar:
        year = Year(Path(folder) / "db", scale)
        task = bar.add_task("Days", total=scale.days)
        year.live(lambda day: bar.update(task, completed=day))
        lost = list(year.lost())
        console = Console(width=80)
        console.print(
            f"{len(year.ledger.seqs):,} events in {scale.days} days, {year.checks:,} checks"
        )
        console.print(table(year))
        for kind in KINDS:
            hot, near = hit_rate(year.days, kind), hit_rate(year.days, kind, near=Tier.WARM)
            console.print(f"read {kind}: {hot:.0%} were hot, {near:.0%} hot or warm")
        assert not year.over, year.over
        assert not lost, lost
        assert all(told["keys"] for told in year.tiers.values())
        console.print("Every value, history and past search is as the ledger has it.")
        year.db.close()
    try:
        plot(year).savefig(chosen.plot)
    except ModuleNotFoundError:
        console.print("There is no plot without matplotlib: pip install matplotlib")
    else:
        console.print(f"Written: {chosen.plot}")


if __name__ == "__main__":
    main()
