"""Which keys belong in which tier: a pure function of importance, sizes and budgets.

The same arguments give the same plan. A plan that was carried out, asked for again at the same
moment, is empty. What lies in a tier already is preferred there, and what was just moved stays
for a while: scores that waver move nothing to and fro.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import groupby
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from koru_delta.causal import FOREVER
from koru_delta.lifecycle.usage import HOUR, Place
from koru_delta.storage.pace import gently

Rows = npt.NDArray[np.int64]

AT_ONCE: Final = 1_000  # keys in one move, so that a move is short


class Tier(IntEnum):
    """Where bytes live, from near and dear to far and cheap. Answers are equal in all four."""

    HOT = 0
    WARM = 1
    COLD = 2
    DEEP = 3

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Settings:
    """How reluctant a plan is."""

    hysteresis: float = 0.15  # by so much the importance of what lies there counts more
    stay: int = HOUR // 6  # microseconds that a key stays where it was moved to
    stay_far: int = 24 * HOUR  # the same of what goes to files, or comes back to be warm


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes that hot, warm and cold keys may take; None is no limit. Deep has none."""

    hot: int | None = None
    warm: int | None = None
    cold: int | None = None

    def of(self, tier: Tier) -> int | None:
        """That of one tier."""
        return (self.hot, self.warm, self.cold, None)[tier]

    def is_limit(self) -> bool:
        """Whether there is any."""
        return (self.hot, self.warm, self.cold) != (None, None, None)


@dataclass(frozen=True, slots=True, eq=False)
class Stock:
    """What there is to plan: a row a key, in any order."""

    ids: Rows  # a number of its own for each key: of equals the one with the lower comes first
    spaces: Rows  # of each the place of its namespace in `names`
    names: Sequence[str]
    places: Callable[[Rows], Sequence[Place]]  # namespace and key of some rows
    tiers: Rows  # where each is
    sizes: Rows  # shape (n, 4): the bytes it takes up in each tier, or would
    scores: npt.NDArray[np.float64]  # importance now, in [0, 1]: what is hot goes by it
    lasting: npt.NDArray[np.float64]  # what of that lasts for days: what is far goes by it
    pinned: npt.NDArray[np.bool_]  # stays hot, whatever else
    moved: Rows  # when it came to its tier; 0 if nobody knows


@dataclass(frozen=True, slots=True, repr=False)
class Move:
    """Keys of one namespace that go from one tier to another, for one reason."""

    namespace: str
    keys: tuple[str, ...]
    source: Tier
    target: Tier
    reason: str
    size_bytes: int  # that they will take up in the target

    def __str__(self) -> str:
        count = "1 key" if len(self.keys) == 1 else f"{len(self.keys):,} keys"
        return f"{count} of {self.namespace!r}: {self.source} to {self.target}, {self.reason}"

    def __repr__(self) -> str:
        return f"<Move {self}>"


@dataclass(frozen=True, slots=True)
class Load:
    """What a tier holds, and may hold."""

    keys: int
    size_bytes: int
    budget_bytes: int | None


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """Moves, downward ones first, and what each tier holds before and after them.

    `str()` of it tells each with its reason.

    A tier is over its budget afterwards only where what is pinned does not fit.
    """

    moves: tuple[Move, ...] = ()
    before: Mapping[Tier, Load] = field(default_factory=dict)
    after: Mapping[Tier, Load] = field(default_factory=dict)

    @property
    def keys(self) -> int:
        """How many keys move."""
        return sum(len(move.keys) for move in self.moves)

    def __repr__(self) -> str:
        return f"<Plan: {self.keys:,} keys in {len(self.moves):,} moves>"

    def __str__(self) -> str:
        return "\n".join(map(str, self.moves)) or "nothing moves"

    def to_json(self) -> dict[str, Any]:
        """The same as plain data, keys counted."""
        return {
            "keys": self.keys,
            "moves": [
                {
                    "namespace": move.namespace, "keys": len(move.keys),
                    "from": str(move.source), "to": str(move.target),
                    "reason": move.reason, "bytes": move.size_bytes,
                }
                for move in self.moves
            ],
            "before": _loads_json(self.before), "after": _loads_json(self.after),
        }  # fmt: skip


def plan(
    stock: Stock,
    total: Budget,
    now: int,
    *,
    budgets: Mapping[str, Budget] | None = None,
    settings: Settings | None = None,
) -> Plan:
    """Say what is to move so that every budget holds and the most important is nearest.

    From the hottest tier down, each takes the best that fit: first what is pinned, then what
    came there just now, then by importance over the square root of its size; what
    lies there already counts more. The rest is left to the next tier. Who is used at this hour
    is hot at this hour; to files and back goes nothing for that.

    Args:
        total: Of all namespaces together.
        budgets: Of single namespaces, within that.
    """
    chosen = settings or Settings()
    wanted = targets(stock, total, now, budgets=budgets or {}, settings=chosen)
    return Plan(
        tuple(_moves(stock, wanted, total, budgets or {})),
        _loads(stock, stock.tiers, total),
        _loads(stock, wanted, total),
    )


def targets(
    stock: Stock, total: Budget, now: int, *, budgets: Mapping[str, Budget], settings: Settings
) -> npt.NDArray[np.int64]:
    """The tier of each row, by the rules of `plan`."""
    size = len(stock.ids)
    wanted = np.full(size, Tier.DEEP, dtype=np.int64)
    since = np.where((stock.moved > 0) & (now >= stock.moved), now - stock.moved, FOREVER)
    since[stock.pinned] = FOREVER
    groups = _groups(stock, budgets)
    free = np.ones(size, dtype=bool)
    for tier in gently((Tier.HOT, Tier.WARM, Tier.COLD)):
        comes_up = stock.tiers > tier
        staying = since < (settings.stay if tier is Tier.HOT else settings.stay_far)
        there = np.flatnonzero(free & ~(comes_up & staying))
        worth = (stock.scores if tier is Tier.HOT else stock.lasting)[there]
        far = stock.tiers[there] >= Tier.COLD  # and comes up only if it matters in both ways
        worth = np.where(far, np.minimum(worth, stock.lasting[there]), worth)
        worth *= np.where(comes_up[there], 1.0, 1.0 + settings.hysteresis)
        worth /= np.sqrt(np.maximum(stock.sizes[there, tier], 1))
        first = np.where(stock.pinned[there], 0, np.where(staying[there] & ~comes_up[there], 1, 2))
        there = there[np.lexsort((stock.ids[there], comes_up[there], -worth, first))]
        sizes = stock.sizes[:, tier]
        rooms = [_Room(None, total.of(tier))]
        rooms += [_Room(mask, budgets[name].of(tier)) for name, mask in groups.items()]
        certain = there[stock.pinned[there]] if tier is Tier.HOT else there[:0]
        for room in rooms:
            room.take(certain, sizes)
        taken = np.concatenate([certain, _fitting(there[len(certain) :], sizes, rooms)])
        wanted[taken] = tier
        free[taken] = False
    return wanted


class _Room:
    """What is left of a budget, for all rows or for those of a mask."""

    def __init__(self, mask: npt.NDArray[np.bool_] | None, limit: int | None) -> None:
        self._mask = mask
        self._left = limit

    def counted(self, rows: Rows, sizes: Rows) -> Rows:
        """What each row takes of it."""
        found: Rows = sizes[rows]
        return found if self._mask is None else np.where(self._mask[rows], found, 0)

    def take(self, rows: Rows, sizes: Rows) -> None:
        """Take what these rows need, whether it is there or not."""
        if self._left is not None:
            self._left -= int(self.counted(rows, sizes).sum())

    def fits(self, rows: Rows, sizes: Rows) -> npt.NDArray[np.bool_]:
        """Which of the rows fits, by itself."""
        if self._left is None:
            return np.ones(len(rows), dtype=bool)
        found = self.counted(rows, sizes)
        return np.asarray((found <= self._left) | (found == 0), dtype=bool)

    def until(self, rows: Rows, sizes: Rows) -> int:
        """How many of the rows fit together, from the first on."""
        if self._left is None:
            return len(rows)
        found = self.counted(rows, sizes)
        over = np.flatnonzero((np.cumsum(found) > self._left) & (found > 0))
        return int(over[0]) if len(over) else len(rows)


def _fitting(rows: Rows, sizes: Rows, rooms: Sequence[_Room]) -> Rows:
    """Of rows in order each that fits, given those before it."""
    chosen = [rows[:0]]
    while len(rows):
        for room in rooms:
            rows = rows[room.fits(rows, sizes)]  # what is too large now will be later
        until = min(room.until(rows, sizes) for room in rooms)
        taken, rows = rows[:until], rows[until:]
        for room in rooms:
            room.take(taken, sizes)
        chosen.append(taken)
    return np.concatenate(chosen)


def _groups(stock: Stock, budgets: Mapping[str, Budget]) -> dict[str, npt.NDArray[np.bool_]]:
    """Which rows belong to each namespace that has a budget of its own."""
    return {
        name: stock.spaces == stock.names.index(name)
        for name, budget in sorted(budgets.items())
        if budget.is_limit() and name in stock.names
    }


def _moves(
    stock: Stock,
    wanted: npt.NDArray[np.int64],
    total: Budget,
    budgets: Mapping[str, Budget],
) -> list[Move]:
    changed = np.flatnonzero(wanted != stock.tiers)
    named = dict(zip(changed.tolist(), stock.places(changed), strict=True))

    def route(row: int) -> tuple[bool, str, int, int, bool]:
        source, target = int(stock.tiers[row]), int(wanted[row])
        return target < source, named[row][0], source, target, bool(stock.pinned[row])

    moves = []
    ways = {row: (route(row), place) for row, place in gently(named.items())}
    ordered = sorted(ways, key=ways.__getitem__)
    for (_, namespace, source, target, pinned), group in groupby(ordered, key=route):
        every = list(group)
        reason = _reason(
            Tier(source), Tier(target), stock.scores[every], pinned,
            [total, budgets.get(namespace, Budget())],
        )  # fmt: skip
        for start in range(0, len(every), AT_ONCE):
            some = every[start : start + AT_ONCE]
            moves.append(
                Move(
                    namespace, tuple(named[row][1] for row in some), Tier(source),
                    Tier(target), reason, int(stock.sizes[some, target].sum()),
                )
            )  # fmt: skip
    return moves


def _reason(
    source: Tier,
    target: Tier,
    scores: npt.NDArray[np.float64],
    pinned: bool,
    budgets: Sequence[Budget],
) -> str:
    if pinned:
        return "since pinned" if target is Tier.HOT else "pinned, and there is no room"
    low, high = f"{scores.min():.2f}", f"{scores.max():.2f}"
    importance = f"importance {low}" if low == high else f"importance {low} to {high}"
    if target < source:
        return f"{importance}, and there is room for it"
    limits = [budget.of(source) for budget in budgets]
    limit = min((each for each in limits if each is not None), default=0)
    return f"{importance}, and what matters more takes up the {limit:,} bytes for {source}"


def _loads(stock: Stock, tiers: npt.NDArray[np.int64], total: Budget) -> dict[Tier, Load]:
    found = {}
    for tier in Tier:
        there = tiers == tier
        found[tier] = Load(int(there.sum()), int(stock.sizes[there, tier].sum()), total.of(tier))
    return found


def _loads_json(loads: Mapping[Tier, Load]) -> dict[str, Any]:
    return {
        str(tier): {
            "keys": load.keys, "bytes": load.size_bytes, "budget_bytes": load.budget_bytes
        }
        for tier, load in loads.items()
    }  # fmt: skip
