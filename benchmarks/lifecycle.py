"""What tracking uses costs, and which score keeps near what is used next.

Made-up traces of uses are replayed against one planner with one budget: only the score by which
it ranks differs. Every score sees the uses up to a check and no later one; a use is a hit if its
key was hot then. The first third of each trace is for warming up. The learned score learns
from nothing else than what became of its own foretellings on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import koru_delta
from benchmarks.documents import document, unit_vectors
from benchmarks.measure import Row, at_most, by_turns, ratio_at_most, sized
from koru_delta.causal import system_clock
from koru_delta.lifecycle import Budget, Importance, Settings, Stock, Tier, Tracker, UsageFile
from koru_delta.lifecycle.importance import Report, facts, heuristic
from koru_delta.lifecycle.plan import targets
from koru_delta.lifecycle.sidefile import Sample
from koru_delta.lifecycle.tracker import HORIZON
from koru_delta.lifecycle.usage import HOUR, Usage
from koru_delta.lifecycle.uses import awaited
from koru_delta.testing import FixedClock

Floats = npt.NDArray[np.float64]

KEYS, DAYS, SHARE = 500, 5, 0.1  # how many keys, for how long; of their bytes that fit
USES_A_DAY = 4_000
CHECK_MINUTES = 15
_SAMPLES = 64
HOT_ROWS, DIMENSIONS = 20_000, 384


class Use(NamedTuple):
    """A key, by its number, at a time in microseconds."""

    time: int
    key: int


class Outcome(NamedTuple):
    """What a score kept hot of what was used, and how well the two scores foretold."""

    hit_rate: float
    reports: dict[Any, Report]


def run(folder: Path, scale: float) -> Iterator[Row]:
    yield from _costs(folder, scale)
    days, keys = sized(DAYS, scale, 1), sized(KEYS, scale, 40)
    sums: dict[str, list[float]] = {}
    for name, make in TRACES.items():
        uses = make(np.random.default_rng(7), keys, days)
        outcomes = replay(uses, keys, days)
        for score, outcome in outcomes.items():
            sums.setdefault(score, []).append(outcome.hit_rate)
        yield from _rates(name, {score: each.hit_rate for score, each in outcomes.items()})
        for kind, report in outcomes["learned"].reports.items():
            yield Row(f"  {kind}, log-loss of foretellings ({name})", report.log_loss, "nats")
            yield Row(f"  {kind}, AUC ({name})", max(report.auc, 1e-9), "")
            yield Row(f"  {kind}, Brier ({name})", max(report.brier, 1e-9), "")
    means = {score: sum(rates) / len(rates) for score, rates in sums.items()}
    yield from _rates("mean of all traces", means)


def _rates(name: str, rates: dict[str, float]) -> Iterator[Row]:
    """Every score, the best first."""
    best = max(rates, key=lambda score: (rates[score], score))
    for score in sorted(rates, key=lambda score: (-rates[score], score)):
        told = f"hot hits, {name}: {score}"
        told += " (default)" if score == DEFAULT else ""
        told += ", the winner" if score == best else ""
        yield Row(told, max(rates[score], 1e-9) * 100, "%", max(rates["LRU"], 1e-9) * 100, "LRU")


# Traces


def zipf(chance: np.random.Generator, keys: int, days: int) -> list[Use]:
    """Few keys are used much, and always the same."""
    weights = 1.0 / np.arange(1, keys + 1) ** 0.9
    order = chance.permutation(keys)
    chosen = order[chance.choice(keys, USES_A_DAY * days, p=weights / weights.sum())]
    times = chance.integers(0, days * 24 * HOUR, len(chosen))
    return _in_order(times, chosen)


def bursts(chance: np.random.Generator, keys: int, days: int) -> list[Use]:
    """Some keys are worked with for hours and then left, beside a little of everything."""
    times, chosen = [], []
    for _ in range(days * 16):
        start = chance.integers(0, days * 24 * HOUR)
        topic = chance.choice(keys, max(2, keys // 50), replace=False)
        count = USES_A_DAY // 20
        times.append(start + chance.integers(0, chance.integers(1, 7) * HOUR, count))
        chosen.append(chance.choice(topic, count))
    few = zipf(chance, keys, days)[::5]
    times.append(np.array([use.time for use in few]))
    chosen.append(np.array([use.key for use in few]))
    return _in_order(np.concatenate(times), np.concatenate(chosen))


def daily(chance: np.random.Generator, keys: int, days: int) -> list[Use]:
    """Every key has its time of day, and once a night all are read in turn."""
    hours = chance.integers(0, 24, keys)
    weights = 1.0 / np.arange(1, keys + 1) ** 0.5
    chosen = chance.choice(keys, USES_A_DAY * days * 3 // 4, p=weights / weights.sum())
    day = chance.integers(0, days, len(chosen))
    hour = (hours[chosen] + chance.normal(0, 0.7, len(chosen))) % 24
    times = ((day * 24 + hour) * HOUR).astype(np.int64)
    nightly = np.arange(days).repeat(keys) * 24 * HOUR + np.tile(
        np.arange(keys) * (HOUR // keys), days
    )
    return _in_order(
        np.concatenate([times, nightly]), np.concatenate([chosen, np.tile(np.arange(keys), days)])
    )


def _in_order(times: npt.NDArray[Any], keys: npt.NDArray[Any]) -> list[Use]:
    order = np.argsort(times, kind="stable")
    return [
        Use(time, key)
        for time, key in zip(times[order].tolist(), keys[order].tolist(), strict=True)
    ]


TRACES: dict[str, Callable[[np.random.Generator, int, int], list[Use]]] = {
    "Zipf": zipf,
    "bursts": bursts,
    "daily cycles": daily,
}
SCORES = ("heuristic", "learned", "LRU", "LFU")
DEFAULT = "learned"  # once its log-loss is better than the heuristic's


# Replaying


def replay(uses: Sequence[Use], keys: int, days: int) -> dict[str, Outcome]:
    """Plan every few minutes by each score, and see how many uses find their key hot."""
    names = [f"key-{number:05}" for number in range(keys)]
    clock = FixedClock()
    start, step = clock.now, CHECK_MINUTES * 60_000_000
    file = UsageFile(None)
    tracker = Tracker(file, clock)
    tracker.on_notes = lambda waiting: None  # it is told to add up at each check
    model = Importance()
    sizes = np.random.default_rng(1).lognormal(7.0, 0.8, keys).astype(np.int64) + 200
    budget = Budget(hot=int(sizes.sum() * SHARE))
    written = np.full(keys, start, dtype=np.int64)
    stocks = {score: _stock(names, sizes) for score in SCORES}
    hits = dict.fromkeys(SCORES, 0)
    counts, last = np.zeros(keys), np.full(keys, -1)
    chance = np.random.default_rng(2)
    uses_of: dict[int, Usage] = {}
    numbers = {name: number for number, name in enumerate(names)}
    counted = place = seen = 0
    for check in range(1, days * 24 * 60 // CHECK_MINUTES + 1):
        until = check * step
        while place < len(uses) and uses[place].time < until:
            time, key = uses[place]
            clock.now = start + time
            tracker.got("n", names[key])
            counts[key] += 1
            last[key] = time
            if time > days * 8 * HOUR:
                counted += 1
                for score, stock in stocks.items():
                    hits[score] += int(stock.tiers[key]) == Tier.HOT
            place += 1
        clock.now = now = start + until
        tracker.flush()
        seen, some, found = file.changed(seen, USES_A_DAY * days)
        for row, (_, name) in enumerate(some):
            uses_of[numbers[name]] = found.rows(np.array([row]))
        known = np.array(sorted(uses_of), dtype=np.int64)
        used = Usage.together([Usage.of([]), *(uses_of[key] for key in known.tolist())])
        places = np.full(keys, -1)
        places[known] = np.arange(len(known))
        follow = [
            (numbers[first], numbers[after], times)
            for _, first, after, times in file.followers(now - 7 * HOUR, now)
        ]
        first, after = (np.array([each[n] for each in follow], dtype=np.int64) for n in (0, 1))
        times = np.array([each[2] for each in follow])
        expected = awaited(np.arange(keys), places, used, first, after, times, now)
        features = facts(written, np.zeros(keys), used, places, expected, now)
        settled = file.settled(now - HORIZON)
        if settled:
            model.learn(
                np.array([each.features for each in settled]),
                np.array([each.used for each in settled], dtype=np.float64),
            )
        some = chance.choice(keys, min(_SAMPLES, keys), replace=False)
        file.add_samples(
            [Sample(("n", names[row]), now, features[row]) for row in some], most=20_000
        )
        scores: dict[str, Floats] = {
            "heuristic": heuristic(features),
            "learned": model.learned.chance(features),
            "LRU": np.where(last < 0, 0.0, 1.0 / (1.0 + (until - last) / 60e6)),
            "LFU": counts / max(1.0, counts.max()),
        }
        for score, stock in stocks.items():
            stock.scores[:] = scores[score]
            wanted = targets(stock, budget, now, budgets={}, settings=Settings())
            stock.moved[wanted != stock.tiers] = now
            stock.tiers[:] = wanted
    file.close()
    reports = model.reports()
    return {score: Outcome(hits[score] / max(counted, 1), reports) for score in SCORES}


def _stock(names: Sequence[str], sizes: npt.NDArray[np.int64]) -> Stock:
    """Everything warm, not yet scored."""
    return Stock(
        np.arange(len(names)),
        np.zeros(len(names), dtype=np.int64),
        ["n"],
        lambda rows: [("n", names[row]) for row in rows],
        np.full(len(names), Tier.WARM, dtype=np.int64),
        np.repeat(sizes[:, None], len(Tier), axis=1),
        np.zeros(len(names)),
        np.zeros(len(names)),
        np.zeros(len(names), dtype=bool),
        np.zeros(len(names), dtype=np.int64),
    )


# Costs


def _costs(folder: Path, scale: float) -> Iterator[Row]:
    rows = sized(HOT_ROWS, scale, 50)
    with (
        koru_delta.open(folder / "tracked", durability="relaxed") as tracked,
        koru_delta.open(folder / "plain", durability="relaxed", track=False) as plain,
    ):
        items = [("docs", f"doc-{n}", document(n)) for n in range(100)]
        vectors = unit_vectors(rows, DIMENSIONS, seed=1)
        for db in (tracked, plain):
            db.put_many(items)
        tracked.embed_many("vectors", [(f"key-{n}", vector, n) for n, vector in enumerate(vectors)])
        keys = [key for _, key, _ in items] * 10

        def get(db: koru_delta.Database) -> Callable[[int], None]:
            def read(_: int) -> None:
                each = db.get
                for key in keys:
                    each("docs", key)

            return read

        on, off = by_turns(
            (get(tracked), get(plain)), sized(400, scale, 3), warm_up=5, calls=len(keys)
        )
        yield Row("hot get, uses tracked", on, "ns", off, "track=False")
        yield Row("  more by", max(on - off, 0.1), "ns", targets=(at_most(150),))
        rounds = sized(600, scale, 3)
        queries = unit_vectors(2 * rounds + 20, DIMENSIONS, seed=2)
        tracked.build_index("vectors")
        tracker = tracked._tracker

        def search(n: int) -> None:
            tracked.similar("vectors", queries[2 * n], k=10)

        def search_untracked(n: int) -> None:
            tracker.is_on = False  # behind the door: two databases differ by more than this
            tracked.similar("vectors", queries[2 * n + 1], k=10)
            tracker.is_on = True

        on, off = by_turns((search, search_untracked), rounds, warm_up=5)
        yield Row(
            f"similar, {rows:,} rows, k=10, uses tracked", on / 1000, "us",
            off / 1000, "not tracked", (ratio_at_most(1.03),),
        )  # fmt: skip
        hits = tracked.similar("vectors", queries[-1], k=10)
        noting, adding = (Tracker(UsageFile(None), system_clock) for _ in range(2))
        noting.on_notes = adding.on_notes = lambda waiting: None

        def note(_: int) -> None:
            for _ in range(100):
                noting.found("vectors", hits)

        def add_up(_: int) -> None:
            for _ in range(100):
                adding.found("vectors", hits)
            adding.gather()

        noted, added = by_turns((note, add_up), sized(200, scale, 3), warm_up=2, calls=100)
        yield Row("noting an answer of 10 hits", noted / 1000, "us", targets=(at_most(2),))
        yield Row("  and adding it up, in the background", max(added - noted, 1) / 1000, "us")
