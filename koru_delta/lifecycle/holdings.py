"""Every present key in columns, kept up to date by what has changed since.

Who looks again pays for what was written or moved meanwhile, for what changes by itself by now,
and for a slice of the rest, in turn: so what another process did without a word is noticed, too.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from koru_delta.causal import FOREVER, Cut
from koru_delta.errors import DatabaseClosedError
from koru_delta.lifecycle.usage import Place
from koru_delta.log import CausalLog
from koru_delta.storage import WARM
from koru_delta.storage.pace import gently, is_ending, rest

Ids = npt.NDArray[np.int64]  # numbers of keys

_SLICE: Final = 1_000  # keys that are looked at whatever happened
_AT_ONCE: Final = 200  # asked of the log together
_ROW: Final = np.dtype(
    [
        ("id", "i8"), ("seq", "i8"), ("written", "i8"), ("touched", "i8"), ("changes", "i8"),
        ("raw", "i8"), ("cited", "i4"), ("space", "i4"), ("lies", "i1"), ("hidden", "?"),
        ("cool", "?"),
    ]
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Present keys in columns, in order of their numbers: where each is, what it takes up."""

    log: CausalLog
    names: Sequence[str]  # of namespaces
    ids: Ids
    spaces: npt.NDArray[np.int64]  # the place of its namespace in `names`
    seqs: Ids  # the entry that each holds
    tiers: npt.NDArray[np.int64]  # a `Tier` each
    sizes: npt.NDArray[np.int64]  # shape (n, 4): bytes it takes up in each tier, or would
    written: npt.NDArray[np.int64]  # when, in microseconds
    touched: npt.NDArray[np.int64]  # when last something was said of it
    hidden: npt.NDArray[np.bool_]
    cited: npt.NDArray[np.int64]  # how many entries name a version of it as a cause

    def places(self, rows: Sequence[int] | Ids) -> list[Place]:
        """Namespace and key of some rows."""
        keys = self.log.engine.keys_of(self.ids[rows].tolist())
        spaces = self.spaces[rows].tolist()
        return [(self.names[space], key) for space, key in zip(spaces, keys, strict=True)]

    def by_namespace(self) -> Iterator[tuple[str, Ids]]:
        """The rows of each namespace that has any, in order of their names."""
        order = np.argsort(self.spaces, kind="stable")
        borders = np.searchsorted(self.spaces[order], np.arange(len(self.names) + 1))
        found = zip(self.names, borders[:-1].tolist(), borders[1:].tolist(), strict=True)
        for name, low, high in sorted(found):
            if low < high:
                yield name, order[low:high]


class Holdings:
    """What is known of keys. Safe to share by threads."""

    def __init__(self, log: CausalLog) -> None:
        self._log = log
        self.begin()
        log.engine.after_fork.append(self.begin)

    def begin(self) -> None:
        """Start with nothing known, as a forked child does."""
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._rows: npt.NDArray[Any] = np.zeros(0, _ROW)
        self._spaces: dict[str, int] = {}
        self._seq = self._clock = self._next = 0
        self._again: list[Ids] = []

    def again(self, ids: Collection[int] | Ids) -> None:
        """Look at these anew the next time: they were moved, perhaps."""
        with self._lock:
            self._again.append(np.fromiter(ids, np.int64, len(ids)))

    def cool(self, ids: Collection[int], is_cool: bool) -> None:
        """Note that keys that lie near are not to be held in memory, or are."""
        with self._lock:
            self._rows["cool"][self._found(np.fromiter(ids, np.int64, len(ids)))] = is_cool

    def rows(
        self, namespaces: Collection[str] | None = None
    ) -> tuple[Sequence[str], npt.NDArray[Any]]:
        """Names of namespaces, and what is known by now of keys that are present; a copy.

        Args:
            namespaces: Only of these; None is all but those whose names begin with "$".
        """
        with self._lock:
            cut = self._log.now()
            if namespaces is None:
                namespaces = self._log.engine.namespaces(
                    cut.seq, cut.clock, cut.clock, hidden=False
                )
            try:
                self._refresh(namespaces, cut)
            except BaseException:
                self._forget()  # it knows some of it by now and some of it by then
                raise
            wanted = np.zeros(len(self._spaces) + 1, dtype=bool)
            wanted[[self._spaces[name] for name in namespaces]] = True
            rest()
            there = (self._rows["seq"] > 0) & wanted[self._rows["space"]]
            return list(self._spaces), self._rows[there]

    def _refresh(self, namespaces: Collection[str], cut: Cut) -> None:
        engine = self._log.engine
        if cut.clock < self._clock:  # it was set back: what has begun by now has not
            self._forget()
        fresh = [name for name in namespaces if name not in self._spaces]
        changed: dict[str, list[int]] = {}
        if cut.seq > self._seq and self._spaces:
            for name, number in gently(engine.changed_keys(self._seq, cut.seq)):
                if name in self._spaces:
                    changed.setdefault(name, []).append(number)
        for name, numbers in changed.items():
            self._add(name, np.array(numbers, dtype=np.int64))
        due = self._rows["id"][self._rows["changes"] <= cut.clock]
        turn = self._rows["id"][self._next : self._next + _SLICE]
        self._next = self._next + _SLICE if self._next + _SLICE < len(self._rows) else 0
        touched = [np.array(numbers, dtype=np.int64) for numbers in changed.values()]
        self._ask(np.concatenate([np.zeros(0, np.int64), *touched]), cut, self._seq)
        again, self._again = self._again, []
        self._ask(np.unique(np.concatenate([due, turn, *again])), cut, 0)
        cited = self._seq
        for name in fresh:
            cited = 0
            ids = np.sort(np.fromiter(gently(engine.key_ids(name)), np.int64))
            self._spaces[name] = len(self._spaces)
            rest()
            self._add(name, ids)
            rest()
            self._ask(ids, cut, 0)
        if cut.seq > cited:
            self._count_citations(cited, cut.seq)
        self._seq, self._clock = cut.seq, cut.clock

    def _count_citations(self, after: int, until: int) -> None:
        found = np.array(self._log.engine.citations(after, until), dtype=np.int64).reshape(-1, 2)
        if not after:
            self._rows["cited"] = 0
        known = np.isin(found[:, 0], self._rows["id"])
        rows = self._found(found[known, 0])
        self._rows["cited"][rows] += found[known, 1].astype(np.int32)

    def _add(self, name: str, ids: Ids) -> None:
        """Make room for those that are new."""
        new = ids[~np.isin(ids, self._rows["id"])]
        if len(new):
            rows = np.zeros(len(new), _ROW)
            rows["id"], rows["space"], rows["changes"] = new, self._spaces[name], FOREVER
            rows = np.concatenate([self._rows, rows])
            self._rows = rows[np.argsort(rows["id"], kind="stable")]

    def _found(self, ids: Ids) -> Ids:
        """The rows of those of these keys that there are."""
        if not len(self._rows):
            return np.zeros(0, np.int64)
        rows = np.searchsorted(self._rows["id"], ids)
        rows = np.minimum(rows, len(self._rows) - 1)
        found: Ids = rows[self._rows["id"][rows] == ids]
        return found

    def _ask(self, ids: Ids, cut: Cut, since: int) -> None:
        """Read what these keys hold."""
        engine = self._log.engine
        every = self._rows["id"].copy()  # by itself: numpy would copy it at each look
        ids = every[self._found(ids)]
        for start in gently(range(0, len(ids), _AT_ONCE)):
            if is_ending():
                raise DatabaseClosedError("the database is being closed; look again later")
            found = engine.presence(
                cut.seq, cut.clock, ids[start : start + _AT_ONCE].tolist(), since=since
            )
            lie = engine.whereabouts([each.seq or 0 for each in found])
            told = np.array(
                [
                    (each.key_id, each.seq or 0, each.written or 0, each.touched, each.changes,
                     raw, 0, 0, tier, each.hidden, False)
                    for each, (tier, raw) in zip(found, lie, strict=True)
                ],
                dtype=_ROW,
            )  # fmt: skip
            rows = np.searchsorted(every, told["id"])
            if since:
                before = self._rows["changes"][rows]
                told["changes"] = np.minimum(
                    told["changes"], np.where(before > cut.clock, before, FOREVER)
                )
            told["cool"] = self._rows["cool"][rows] & (told["lies"] == WARM)
            for name in ("seq", "written", "touched", "changes", "raw", "lies", "hidden", "cool"):
                self._rows[name][rows] = told[name]
