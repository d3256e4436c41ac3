"""Where the bytes of keys really are: near ones in the log, far ones in tier files.

Hot and warm keys lie in the log; a hot one is also kept decoded in memory once it was read.
Of a cold or deep key every version and vector lies in files (`storage/mover.py`). Bringing a key
near brings what it holds now; its past stays where it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np
import numpy.typing as npt

from koru_delta.causal import FOREVER
from koru_delta.lifecycle.mover import Held, MoveResult
from koru_delta.lifecycle.plan import Move, Tier
from koru_delta.lifecycle.usage import Place
from koru_delta.log import CausalLog
from koru_delta.storage import COLD, DEEP, WARM, Moved

_PAGE: Final = 5_000  # keys read at once
_KEY_BYTES: Final = 200  # of a value that is held in memory, beside its own
_PLACE_BYTES: Final = 8  # what the log keeps of one that lies far
_GUESS: Final = {Tier.COLD: 0.45, Tier.DEEP: 0.4}  # of what is far, until some of it is
_SPARE: Final = 1.08  # so much more is counted on than a tier's files take up now
_MUCH_LESS: Final = 0.8  # of what is counted on: only then is it counted on anew
_LIES: Final = {Tier.HOT: WARM, Tier.WARM: WARM, Tier.COLD: COLD, Tier.DEEP: DEEP}
_ENTRIES: Final = 8_192  # of the past, moved together


@dataclass(frozen=True, slots=True)
class Kept:
    """What care of the tier files did: versions of the past moved, bytes written, what is wrong."""

    moved: int
    bytes_written: int
    problems: tuple[str, ...]


class Tiers:
    """Moves keys between the log and tier files; a `Mover`."""

    def __init__(self, log: CausalLog) -> None:
        self._log = log
        self._ratios = dict(_GUESS)
        self._warm: set[Place] = set()  # not to be held in memory; as long as this handle is open

    def sizes(self) -> Iterator[Held]:
        """Every present key: where its value and vectors are, and what they take up there."""
        cut, engine = self._log.now(), self._log.engine
        ratios = self._counted_on()
        for name in engine.namespaces(cut.seq, cut.clock, cut.clock, hidden=False):
            after: str | None = None
            while found := engine.visible_keys(
                name, cut.seq, cut.clock, cut.clock, after=after, limit=_PAGE, bodies=False
            ):
                after = found[-1][0]
                keys = [key for key, _ in found]
                lie, raw = zip(*engine.whereabouts([entry.seq for _, entry in found]), strict=True)
                yield Held(
                    name,
                    keys,
                    self._tiers(name, keys, lie),
                    _sizes(np.array(raw, dtype=np.int64), ratios),
                    np.array([entry.tx_time for _, entry in found], dtype=np.int64),
                )

    def move(self, move: Move) -> MoveResult:
        """Move keys to another tier; those that are there already count as moved.

        Raises:
            StorageError: the disk refused; whatever is there is whole.
            CorruptionError: something of them is damaged; it is left where it is.
        """
        engine, target = self._log.engine, move.target
        present = self._present(move.namespace, move.keys)
        if target >= Tier.COLD:
            seqs = [
                seq for key in move.keys for seq in engine.key_places(move.namespace, key, FOREVER)
            ]
        else:
            seqs = list(present.values())
        done = engine.move(seqs, _LIES[target])
        places = {(move.namespace, key) for key in move.keys}
        if target is Tier.HOT:
            self._warm -= places
        else:
            self._warm |= places
            self._log.cool(move.namespace, move.keys)
        lie = [tier for tier, _ in engine.whereabouts(list(present.values()))]
        there = tuple(
            key for key, tier in zip(present, lie, strict=True) if tier == _LIES[target]
        )  # fmt: skip
        left = len(move.keys) - len(there)
        note = "" if not left else f"{left:,} keys hold nothing now, or were written meanwhile"
        return MoveResult(there, done.bytes_written, note)

    def archive(self, namespace: str, older_than: timedelta, tier: Tier = Tier.COLD) -> Moved:
        """Move what keys held before, and no longer for so long, out of the log."""
        engine, done = self._log.engine, Moved()
        until = self._log.now().clock - older_than // timedelta(microseconds=1)
        while seqs := engine.past(namespace, until, _ENTRIES):
            some = engine.move(seqs, _LIES[tier])
            if not some.items:
                break
            done = Moved(
                done.items + some.items, done.bytes_written + some.bytes_written,
                max(done.longest_seconds, some.longest_seconds),
            )  # fmt: skip
        return done

    def genome(self) -> Kept:
        """The job "genome": make missing ones, tidy files, and hold deep files to their genomes."""
        engine = self._log.engine
        done = engine.tidy_tiers()
        return Kept(done.items, done.bytes_written, tuple(engine.tier_problems()))

    def _present(self, namespace: str, keys: Sequence[str]) -> dict[str, int]:
        """The places of what keys hold now; those that hold nothing are left out."""
        cut, engine = self._log.now(), self._log.engine
        found = {}
        for key in keys:
            after = engine.visible_keys(
                namespace, cut.seq, cut.clock, cut.clock, prefix=key, limit=1, bodies=False
            )
            if after and after[0][0] == key:
                found[key] = after[0][1].seq
        return found

    def _tiers(
        self, namespace: str, keys: Sequence[str], lie: Sequence[int]
    ) -> npt.NDArray[np.int64]:
        hot = {WARM: Tier.HOT, COLD: Tier.COLD, DEEP: Tier.DEEP}
        tiers = [hot[tier] for tier in lie]
        if self._warm:
            for number, key in enumerate(keys):
                if tiers[number] is Tier.HOT and (namespace, key) in self._warm:
                    tiers[number] = Tier.WARM
        return np.array(tiers, dtype=np.int64)

    def _counted_on(self) -> dict[Tier, float]:
        """What a byte takes up in the files of each tier: a little more than it does there now.

        How well something compresses is known afterwards. So that a budget still holds then, and
        nothing moves since everything else seems larger or smaller, this seldom changes.
        """
        sizes = self._log.engine.tier_sizes()
        for tier, counted_on in self._ratios.items():
            there = sizes[_LIES[tier]]
            if there.raw_bytes:
                now = there.size_bytes / there.raw_bytes
                if not _MUCH_LESS * counted_on <= now <= counted_on:
                    self._ratios[tier] = now * _SPARE
        return self._ratios


def _sizes(raw: npt.NDArray[np.int64], ratios: dict[Tier, float]) -> npt.NDArray[np.int64]:
    far = [np.ceil(raw * ratios[tier]).astype(np.int64) for tier in (Tier.COLD, Tier.DEEP)]
    return np.stack([raw + _KEY_BYTES, raw + _PLACE_BYTES, *(f + _PLACE_BYTES for f in far)], 1)
