"""Which keys are used, noted beside reads and searches for next to nothing.

A read that comes from memory is noted once in a while and counts for all between, and so is
an answer where there are very many a second; every other use is noted by itself. What is noted
is a tuple in a list; adding up is for a thread that has nothing else to do. Losing it all
changes no answer.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import count, cycle
from math import ceil
from time import monotonic
from typing import Any, Final, Literal, Protocol, get_args, runtime_checkable

from koru_delta.causal import Clock, Version
from koru_delta.errors import InvalidDataError, StorageError
from koru_delta.lifecycle.sidefile import UsageFile
from koru_delta.lifecycle.usage import GET, HIT, HOUR, KINDS, Place, Trace
from koru_delta.log import CausalLog
from koru_delta.storage.pace import rest
from koru_delta.values import check_key

Feedback = Literal["used", "recall"]

SAMPLED: Final = 16  # reads from memory, of which one is noted
ANSWERS_A_SECOND: Final = 100  # of more than so many searches some are noted, and count for all
HORIZON: Final = HOUR  # in which a use is foretold
_PATTERN: Final = 4099  # a prime: no loop over keys keeps step with it
_AT_ONCE: Final = 2_048
_RARELY: Final = 128  # of so many answers at least one is noted
_TELLING: Final = 1_024  # answers, from which their rate is known
_MOST_NOTES: Final = 16_384  # that wait; later ones are not kept
_MOST_TRACES: Final = 10_000
_MOST_HITS: Final = 50  # noted of one answer
_NEXT: Final = 600 * 1_000_000  # a use later than this follows nothing
_log = logging.getLogger("koru_delta")

Note = tuple[int, int, str, Sequence[str], int]  # kind, times, namespace, keys, time


@runtime_checkable
class Found(Protocol):
    """A hit of a search, as far as feedback needs it."""

    @property
    def version(self) -> Version:
        """The version that was found."""
        ...


Usable = Version | str | Found | Place


class Tracker:
    """Notes uses, and adds them to a `UsageFile` when told to. Safe to share by threads.

    `sample()` is true for one call in `SAMPLED`, by chance that repeats after some thousands:
    who reads from memory asks it first.
    """

    def __init__(self, file: UsageFile | None, clock: Clock, *, is_on: bool = True) -> None:
        """Without a file, or not `is_on`, nothing is tracked, at nearly no cost."""
        self.file = file
        self.is_on = is_on and file is not None
        # Called at the first note, and when many wait, with how many: to have them added up.
        self.on_notes: Callable[[int], object] | None = None
        self._clock = clock
        self._nobody_knows = count(1)
        pattern = _pattern(SAMPLED) if self.is_on else (0,)
        self.sample: Callable[[], int] = cycle(pattern).__next__
        self.begin()

    def begin(self) -> None:
        """Start with nothing noted, as a forked child does: the parent has it."""
        self._adding = threading.Lock()
        self._notes: list[Note] = []
        self._enough = 1  # the first one tells whoever adds up that there will be more
        self._traces: dict[Place, Trace] = {}
        self._followers: dict[Place, dict[str, float]] = {}
        self._pairs = 0  # of a key and what followed it
        self._last: dict[str, tuple[str, int]] = {}  # by namespace: the key used last, and when
        self.noted = self.dropped = 0
        self._answers, self._since = 0, monotonic()  # found since then
        self._stand_for(1)

    def close(self) -> None:
        """Write what was noted, and let go of the file."""
        self.flush()
        if self.file is not None:
            self.file.close()

    def uses(self) -> int:
        """Another number after a use that was noted: somebody uses the database.

        Where none are, nobody can tell: always another one.
        """
        if not self.is_on:
            return next(self._nobody_knows)
        return self.noted + self.dropped + len(self._notes)

    # Noting

    def got_often(self, namespace: str, key: str) -> None:
        """Note a read from memory that was sampled: it stands for all between."""
        self.got(namespace, key, SAMPLED)

    def got(self, namespace: str, key: str, times: int = 1) -> None:
        """Note a read of a key."""
        if self.is_on:
            notes = self._notes
            notes.append((GET, times, namespace, (key,), self._clock()))
            if len(notes) >= self._enough:
                self._many()

    def got_many(self, namespace: str, keys: Collection[str]) -> None:
        """Note a read of many keys at once."""
        if self.is_on and keys:
            self._note(GET, namespace, tuple(keys))

    def found(self, namespace: str, hits: Sequence[Any]) -> None:
        """Note the answer of a search: things with a `key`, best first."""
        if self.is_on and hits and self._is_noted():
            keys = [hit.key for hit in hits[:_MOST_HITS]]
            self._note(HIT, namespace, keys, self._stands_for)

    def feedback(
        self, log: CausalLog, what: Usable | Iterable[Usable], kind: Feedback = "used"
    ) -> int:
        """Note that these helped ("used") or were handed to somebody ("recall"); how many.

        Raises:
            InvalidDataError: one of them is nothing that could be used.
            UnknownVersionError: there is no such version.
        """
        if kind not in get_args(Feedback):
            raise InvalidDataError(f"feedback is 'used' or 'recall', not {kind!r}")
        log.head()  # raises if the database is closed
        places = [_place(log, each) for each in _each(what)]
        if self.is_on:
            for namespace, key in places:
                self._note(KINDS.index(kind), namespace, (key,))
        return len(places)

    def _stand_for(self, answers: int) -> None:
        """Note one of so many answers from now on."""
        self._stands_for = answers
        self._is_noted: Callable[[], int] = cycle(_pattern(answers)).__next__

    def _note(self, kind: int, namespace: str, keys: Sequence[str], times: int = 1) -> None:
        notes = self._notes
        notes.append((kind, times, namespace, keys, self._clock()))
        if len(notes) >= self._enough:
            self._many()

    def _many(self) -> None:
        """There is something to add up: in the background if there is one."""
        waiting = len(self._notes)
        self._enough = min(waiting - waiting % _AT_ONCE + _AT_ONCE, _MOST_NOTES)
        if self.on_notes is not None:
            self.on_notes(waiting)
        elif len(self._notes) >= _AT_ONCE:
            self.gather()
        if len(self._notes) >= _MOST_NOTES:  # whoever was to add them up is late
            self.dropped += len(self._notes)
            self._notes = []

    # Adding up

    def gather(self) -> None:
        """Add up what was noted."""
        with self._adding:
            self._gather()

    def flush(self) -> bool:
        """Add what was noted to the file; False if it cannot be written just now."""
        with self._adding:
            self._gather()
            return self._write()

    def _gather(self) -> None:
        notes, self._notes = self._notes, []
        self._enough = _AT_ONCE
        self.noted += len(notes)
        traces = self._traces
        for kind, times, namespace, keys, time in notes:
            rest()
            hour = time // HOUR % 24
            for key in keys:
                place = (namespace, key)
                trace = traces.get(place)
                if trace is None:
                    trace = traces[place] = Trace(time)
                trace.add(kind, times, time, hour)
            self._answers += times if kind == HIT else 0
            if times == 1:  # of samples, nobody knows what lay between
                self._follow(namespace, keys[0], time)
        if len(traces) > _MOST_TRACES or self._pairs > _MOST_TRACES:
            self._write()
        self._keep_pace()

    def _keep_pace(self) -> None:
        """Note fewer answers where there are many a second, and more where there are few."""
        now = monotonic()
        rate = self._answers / max(now - self._since, 1e-9)
        wished = max(1, min(ceil(rate / ANSWERS_A_SECOND), _RARELY))
        if wished < self._stands_for or self._answers >= _TELLING:
            self._answers, self._since = 0, now
            if wished != self._stands_for:
                self._stand_for(wished)

    def _follow(self, namespace: str, key: str, time: int) -> None:
        before = self._last.get(namespace)
        if len(self._last) > _MOST_TRACES:
            self._last.clear()
        self._last[namespace] = (key, time)
        if before is not None and before[0] != key and 0 <= time - before[1] <= _NEXT:
            follows = self._followers.setdefault((namespace, before[0]), {})
            self._pairs += key not in follows
            follows[key] = follows.get(key, 0.0) + 1.0

    def _write(self) -> bool:
        if self.file is None or not self._traces:
            return True
        try:
            self.file.add(self._traces, self._followers, self._clock(), horizon=HORIZON)
        except StorageError as error:
            _log.info("uses are kept in memory for now: %s", error)
            latest = sorted(self._traces.items(), key=lambda item: item[1].last)
            kept = dict(latest[-_MOST_TRACES // 2 :])
            self.dropped += len(latest) - len(kept)
            self._traces = kept
        self._followers, self._pairs = {}, 0
        return not self._traces


def _pattern(one_in: int) -> list[int]:
    """Ones among zeros, one in so many, so that they keep step with no loop."""
    chosen = random.Random(7).sample(range(_PATTERN), round(_PATTERN / one_in))
    pattern = [0] * _PATTERN
    for place in chosen:
        pattern[place] = 1
    return pattern


def _each(what: Usable | Iterable[Usable]) -> Iterable[Usable]:
    one = isinstance(what, (Version, str, Found))
    if one or (isinstance(what, tuple) and len(what) == 2 and isinstance(what[0], str)):
        return (what,)  # type: ignore[return-value]
    if not isinstance(what, Iterable):
        raise InvalidDataError(
            f"what was used is a hit, a version, (namespace, key) or a list of them, "
            f"not {type(what).__name__}"
        )
    return what


def _place(log: CausalLog, what: Usable) -> Place:
    if isinstance(what, tuple):
        namespace, key = what
        check_key(namespace, key)
        return namespace, key
    if isinstance(what, str):
        what = log.version(what)
    elif not isinstance(what, Version):
        if not isinstance(what, Found):
            raise InvalidDataError(
                f"what was used is a hit, a version, (namespace, key) or a list of them, "
                f"not {type(what).__name__}"
            )
        what = what.version
    return what.namespace, what.key
