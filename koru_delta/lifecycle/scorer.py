"""How much keys matter: uses turned into features, foretellings kept and learned from."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from koru_delta.causal import Cut
from koru_delta.lifecycle.holdings import Held, Ids
from koru_delta.lifecycle.importance import FEATURES, RECENT, Floats, Importance, facts, lasting
from koru_delta.lifecycle.sidefile import Sample, UsageFile
from koru_delta.lifecycle.tracker import HORIZON
from koru_delta.lifecycle.uses import Uses, numbers_of
from koru_delta.log import CausalLog
from koru_delta.storage.pace import gently, rest

_SAMPLES: Final = 64  # foretellings kept by one check
_MOST_SAMPLES: Final = 20_000
_MODEL: Final = "importance"
_AT_ONCE: Final = 1 << 13  # keys whose features are copied together
_DEMOTED: Final = 0.1  # of its importance is left to what was consolidated


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Keys with what is known of them and how much they matter: now, and these days."""

    held: Held
    features: Floats
    scores: Floats
    lasting: Floats


class Scorer:
    """Scores keys by their uses, and learns how to. Safe to share by threads."""

    def __init__(
        self, log: CausalLog, file: UsageFile | None, demoted: Callable[[Cut], Ids] | None
    ) -> None:
        """`demoted` tells which keys were consolidated."""
        self.uses = Uses(file, log)
        self._log = log
        self._file = file
        self._demoted = demoted
        self.begin()
        log.engine.after_fork.append(self.begin)

    def begin(self) -> None:
        """Start with nothing known, as a forked child does."""
        self._lock = threading.Lock()
        self._moved: tuple[Ids, Ids] = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._read = 0  # until when moves were read

    def model(self) -> Importance:
        """What was learned until now."""
        return Importance.from_bytes(None if self._file is None else self._file.model(_MODEL))

    def scored(self, held: Held, model: Importance, now: Cut) -> Scored:
        """Each key with its score, in [0, 1]."""
        usage, rows = self.uses.of(held.ids)
        awaited = self.uses.awaited(held.ids, usage, rows, now.clock)
        rest()
        features = np.zeros((len(held.ids), len(FEATURES)))
        for _, some in held.by_namespace():
            features[some] = facts(
                held.written[some], held.cited[some], usage, rows[some], awaited[some], now.clock
            )
            rest()
        kind = model.kind
        parts = [features[start : start + _AT_ONCE] for start in range(0, len(features), _AT_ONCE)]
        these_days = [model.score(lasting(part), kind) for part in gently(parts)]
        both = model.score(features, kind), np.concatenate([np.zeros(0), *these_days])
        if self._demoted is not None and held.hidden.any():
            demoted = np.isin(held.ids, self._demoted(now))
            for scores in both:
                scores[demoted] *= _DEMOTED
        return Scored(held, features, *both)

    def learn(self, now: Cut) -> tuple[Importance, int]:
        """Hold foretellings to what came true, and learn from them: how many there were."""
        model, file = self.model(), self._file
        if file is None:
            return model, 0
        settled = file.settled(now.clock - HORIZON)
        if settled:
            model.learn(
                np.array([each.features for each in settled]),
                np.array([each.used for each in settled], dtype=np.float64),
            )
            file.keep_model(_MODEL, model.to_bytes())
        return model, len(settled)

    def foretell(self, scored: Scored, now: Cut) -> None:
        """Keep what is known of some keys, until it is known what became of them.

        Half of them are chosen among those that were written or used in the last day. What
        they are chosen by is among the features, so it does not lead astray.
        """
        file, features = self._file, scored.features
        if file is None or not len(features):
            return
        chance = np.random.default_rng(now.clock % 2**63)
        chosen: set[int] = set()
        for rows in (np.arange(len(features)), np.flatnonzero(features[:, 0] > RECENT)):
            chosen.update(
                chance.choice(rows, min(_SAMPLES // 2, len(rows)), replace=False).tolist()
            )
        rows = np.array(sorted(chosen), dtype=np.int64)
        file.add_samples(
            [
                Sample(place, now.clock, features[row])
                for place, row in zip(scored.held.places(rows), rows.tolist(), strict=True)
            ],
            most=_MOST_SAMPLES,
        )

    def moved(self, ids: Ids, since: int, now: int) -> Ids:
        """When each of these keys was moved to another tier, if that was since a time; else 0."""
        if self._file is None:
            return np.zeros(len(ids), np.int64)
        with self._lock:
            if now < self._read:  # the clock was set back
                self._moved, self._read = (ids[:0], ids[:0]), 0
            found = self._file.moved(max(since, self._read))
            numbers = numbers_of(self._log, ((name, key) for name, key, _ in found))
            fresh = [
                (numbers[name, key], at)
                for name, key, at in gently(found)
                if (name, key) in numbers
            ]  # fmt: skip
            some = np.array(fresh, dtype=np.int64).reshape(-1, 2)
            known, times = (np.concatenate(each) for each in zip(self._moved, some.T, strict=True))
            order = np.lexsort((times, known))
            known, times = known[order], times[order]
            last = np.append(known[1:] != known[:-1], np.ones(min(len(known), 1), dtype=bool))
            last &= times >= since
            self._moved, self._read = (known[last], times[last]), now
            known, times = self._moved
        if not len(known):
            return np.zeros(len(ids), np.int64)
        rows = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        return np.where(known[rows] == ids, times[rows], 0)

    def numbers(self, places: Iterable[tuple[str, str]]) -> Ids:
        """The numbers of those of these keys that there ever were."""
        found = numbers_of(self._log, places)
        return np.fromiter(found.values(), np.int64, len(found))
