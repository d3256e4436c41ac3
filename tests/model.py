"""The naive model: a list of entries, and the definition of "visible" read aloud.

Everything is a walk over the list. Nothing here is clever, shared with the database or
meant to be quick; where the two disagree, this is what was promised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

FOREVER = math.inf
Numbers = tuple[float, ...]


class Absent(Exception):  # noqa: N818 - what a write is refused with
    """There is nothing under the key."""


class Conflict(Exception):  # noqa: N818
    """`if_match` names another version."""


class Refused(Exception):  # noqa: N818
    """A version is hidden (or not) already, or cannot be."""


class Gone(Exception):  # noqa: N818
    """What is to be kept or brought back was erased."""


class EmptyInterval(Exception):  # noqa: N818
    """`valid_to` is not later than `valid_from`."""


class Moment(NamedTuple):
    """A cut: entries up to `seq`, the clock at `clock`."""

    seq: int
    clock: int


ANY = object()
KEEP = object()


@dataclass
class Intent:
    """What a write asks for. `value` KEEP leaves the value as it stands.

    `target` and `supersedes` are ids; a hide or unhide with no target is of what is there.
    An erase is of `targets`, or where that is None of all the key ever held.
    """

    operation: str
    namespace: str
    key: str
    value: Any = None
    vectors: Mapping[str, Numbers] = field(default_factory=dict)
    carried: Mapping[str, Numbers] | None = None
    if_match: Any = ANY
    valid_from: int | None = None
    valid_to: int | None = None
    ttl: int | None = None
    missing_ok: bool = False
    target: str | None = None
    supersedes: tuple[str, ...] = ()
    targets: tuple[str, ...] | None = None
    of_erased: bool = False


@dataclass
class Entry:
    """One version, with its two times written out."""

    seq: int
    operation: str
    namespace: str
    key: str
    value: Any
    vectors: Mapping[str, Numbers]
    tx_time: int
    valid_from: int
    valid_to: float
    expires_at: float
    id: str = ""
    target: Entry | None = None
    supersedes: tuple[str, ...] = ()
    targets: tuple[Entry, ...] = ()
    erased: int = 0  # the place of what erased it

    @property
    def annotates(self) -> bool:
        return self.operation in ("hide", "unhide", "erase")


class Model:
    """The log as a list, and every read as a walk over it."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.commits: list[Moment] = []
        self.tags: dict[str, Moment] = {}

    # Writing

    def commit(self, now: int, intents: Sequence[Intent]) -> list[Entry]:
        """Append all intents as one commit, or raise and append none."""
        tx_time = max(now, self.commits[-1].clock + 1) if self.commits else max(now, 1)
        kept = len(self.entries)
        try:
            for intent in intents:
                self._append(intent, tx_time)
        except BaseException:
            del self.entries[kept:]
            for entry in self.entries:
                entry.erased = entry.erased if entry.erased <= kept else 0
            raise
        made = self.entries[kept:]
        if made:
            self.commits.append(Moment(made[-1].seq, tx_time))
        return made

    def _append(self, intent: Intent, tx_time: int) -> None:
        moment = Moment(len(self.entries), tx_time)
        present = self.answer(intent.namespace, intent.key, moment, tx_time)
        if intent.if_match is not ANY and intent.if_match != (present.id if present else None):
            raise Conflict
        starts = tx_time if intent.valid_from is None else intent.valid_from
        ends = FOREVER if intent.valid_to is None else intent.valid_to
        if intent.of_erased:
            raise Gone
        if intent.operation in ("hide", "unhide"):
            self._annotate(intent, tx_time, present)
            return
        if intent.operation == "erase":
            self._erase(intent, tx_time)
            return
        value, vectors = intent.value, dict(intent.vectors)
        if intent.operation == "delete":
            explicit = intent.valid_from is not None or intent.valid_to is not None
            if explicit:
                written = any(
                    (e.namespace, e.key) == (intent.namespace, intent.key) for e in self.entries
                )
                if not written:
                    raise Absent
            elif present is None:
                if intent.missing_ok:
                    return
                raise Absent
        elif intent.vectors:
            if intent.value is KEEP:
                if present is not None and present.erased:
                    raise Gone
                value = None if present is None else present.value
            if present is not None and not present.erased and same(value, present.value):
                vectors = {**present.vectors, **vectors}
        if intent.carried is not None:
            vectors = dict(intent.carried)
        if ends <= starts:
            raise EmptyInterval
        self.entries.append(
            Entry(
                len(self.entries) + 1, intent.operation, intent.namespace, intent.key, value,
                vectors, tx_time, starts, ends,
                FOREVER if intent.ttl is None else tx_time + intent.ttl,
                supersedes=intent.supersedes,
            )
        )  # fmt: skip

    def _annotate(self, intent: Intent, tx_time: int, present: Entry | None) -> None:
        target = present
        if intent.target is not None:
            target = next(entry for entry in self.entries if entry.id == intent.target)
            place = (target.operation, target.namespace, target.key)
            if place != ("put", intent.namespace, intent.key):
                raise Refused
        if target is None:
            raise Absent
        if self.hidden(target, Moment(len(self.entries), tx_time)) == (intent.operation == "hide"):
            if intent.missing_ok:
                return
            raise Refused
        self.entries.append(
            Entry(
                len(self.entries) + 1, intent.operation, intent.namespace, intent.key, None, {},
                tx_time, tx_time, FOREVER, FOREVER, target=target,
            )
        )  # fmt: skip

    def _erase(self, intent: Intent, tx_time: int) -> None:
        place = (intent.namespace, intent.key)
        mine = [entry for entry in self.entries if (entry.namespace, entry.key) == place]
        if intent.targets is None and not mine:
            raise Absent
        named = [e for e in self.entries if intent.targets is not None and e.id in intent.targets]
        if any(e.operation != "put" or e not in mine for e in named):
            raise Refused
        if intent.targets is None:
            named = [entry for entry in mine if entry.operation == "put"]
        targets = [entry for entry in named if not entry.erased]
        if not targets:
            return
        seq = len(self.entries) + 1
        self.entries.append(
            Entry(
                seq, "erase", *place, None, {}, tx_time, tx_time, FOREVER, FOREVER,
                targets=tuple(targets),
            )
        )  # fmt: skip
        for entry in targets:
            entry.erased = seq

    def transaction(self, now: int, intents: Sequence[Intent]) -> tuple[list[Entry], list[Any]]:
        """One commit, and what `tx.get` said of each written key after each write."""
        begin = self.now(now)
        scratch = Model()
        scratch.entries = list(self.entries)
        saw: list[Any] = []
        for intent in intents:
            plain = intent.valid_from is None and intent.valid_to is None
            here = Moment(len(scratch.entries), begin.clock)
            found = scratch.answer(intent.namespace, intent.key, here, begin.clock)
            needs = intent.operation != "put" and plain and intent.target is None
            if needs and found is None:
                raise Absent
            with suppress(EmptyInterval, Absent, Refused, Gone):  # refused by the commit, if at all
                scratch._append(replace(intent, if_match=ANY), begin.clock)
            here = Moment(len(scratch.entries), begin.clock)
            found = scratch.answer(intent.namespace, intent.key, here, begin.clock)
            saw.append(None if found is None else "gone" if found.erased else [found.value])
        return self.commit(now, intents), saw

    # Moments

    def now(self, clock: int) -> Moment:
        if not self.commits:
            return Moment(0, clock)
        return Moment(self.commits[-1].seq, max(clock, self.commits[-1].clock))

    def at_time(self, time: int) -> Moment:
        """The greatest seq with tx_time <= time; the clock is the time itself."""
        return Moment(max((c.seq for c in self.commits if c.clock <= time), default=0), time)

    # Reading

    def answer(self, namespace: str, key: str, cut: Moment, valid_at: int) -> Entry | None:
        """DESIGN 2: the put or delete of greatest seq up to the cut that holds valid_at."""
        for entry in reversed(self.entries):
            if entry.seq > cut.seq or (entry.namespace, entry.key) != (namespace, key):
                continue
            if entry.annotates:
                continue
            if entry.valid_from <= valid_at < entry.valid_to:
                gone = entry.operation == "delete" or cut.clock >= entry.expires_at
                return None if gone else entry
        return None

    def present(self, namespace: str, cut: Moment, valid_at: int) -> dict[str, Entry]:
        """What each present key holds, in key order."""
        names = sorted({e.key for e in self.entries if e.namespace == namespace})
        found = {key: self.answer(namespace, key, cut, valid_at) for key in names}
        return {key: entry for key, entry in found.items() if entry is not None}

    def hidden(self, entry: Entry, cut: Moment) -> bool:
        """Whether the last that was said of a version up to a cut hides it."""
        said = [e.operation for e in self.entries if e.seq <= cut.seq and e.target is entry]
        return bool(said) and said[-1] == "hide"

    def superseded(self, entry: Entry, cut: Moment) -> bool:
        return any(entry.id in e.supersedes for e in self.entries if e.seq <= cut.seq)

    def shown(self, namespace: str, cut: Moment, valid_at: int) -> dict[str, Entry]:
        """What `query` sees."""
        found = self.present(namespace, cut, valid_at)
        return {
            key: entry for key, entry in found.items()
            if not entry.erased and not self.hidden(entry, cut)
        }  # fmt: skip

    def searched(
        self, namespace: str, cut: Moment, valid_at: int, *, superseded: bool = False
    ) -> dict[str, Entry]:
        """What search sees."""
        found = self.shown(namespace, cut, valid_at)
        return {
            key: entry for key, entry in found.items()
            if superseded or not self.superseded(entry, cut)
        }  # fmt: skip

    def namespaces(self, cut: Moment, valid_at: int) -> list[str]:
        names = sorted({e.namespace for e in self.entries if not e.namespace.startswith("$")})
        return [name for name in names if self.present(name, cut, valid_at)]

    def history(self, namespace: str, key: str, cut: Moment) -> list[Entry]:
        """With annotations."""
        return [
            e for e in self.entries if (e.namespace, e.key) == (namespace, key) and e.seq <= cut.seq
        ]

    def similar(
        self,
        namespace: str,
        model: str,
        query: Numbers,
        cut: Moment,
        valid_at: int,
        score: Callable[[Numbers, Numbers], float],
        passes: Callable[[Any], bool] = lambda value: True,
    ) -> dict[str, tuple[float, Entry]]:
        """Every key that has a vector and passes, with its score."""
        return {
            key: (score(entry.vectors[model], query), entry)
            for key, entry in self.searched(namespace, cut, valid_at).items()
            if model in entry.vectors and passes(entry.value)
        }

    def models(self, namespace: str, cut: Moment, valid_at: int) -> set[str]:
        """The models of the vectors that are visible."""
        found = self.searched(namespace, cut, valid_at).values()
        return {model for entry in found for model in entry.vectors}


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: `1`, `1.0` and `true` are three different things."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def cosine(one: Numbers, other: Numbers) -> float:
    return dot(one, other) / math.sqrt(dot(one, one) * dot(other, other))


def dot(one: Numbers, other: Numbers) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


def l2(one: Numbers, other: Numbers) -> float:
    return -math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(one, other, strict=True)))


SCORES = {"cosine": cosine, "dot": dot, "l2": l2}
