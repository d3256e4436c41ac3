"""Where the bytes of keys really are: near ones in the log, far ones in tier files.

Hot and warm keys lie in the log; a hot one is also kept decoded in memory once it was read.
Of a cold or deep key every version and vector lies in files (`storage/mover.py`). Bringing a key
near brings what it holds now; its past stays where it is.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from koru_delta.errors import CorruptionError
from koru_delta.lifecycle.holdings import Held, Holdings
from koru_delta.lifecycle.mover import MoveResult, held
from koru_delta.lifecycle.plan import Move, Tier
from koru_delta.lifecycle.sidefile import UsageFile
from koru_delta.lifecycle.uses import numbers_of
from koru_delta.log import CausalLog
from koru_delta.storage import COLD, DEEP, WARM

_KEY_BYTES: Final = 200  # of a value that is held in memory, beside its own
_PLACE_BYTES: Final = 8  # what the log keeps of one that lies far
_GUESS: Final = {Tier.COLD: 0.45, Tier.DEEP: 0.4}  # of what is far, until some of it is
_READ_BYTES: Final = 256 << 20  # of bodies, held to their hashes in one round
_TURN: Final = "genome"  # in the side file: the last one that was
_SPARE: Final = 1.08  # so much more is counted on than a tier's files take up now
_MUCH_LESS: Final = 0.8  # of what is counted on: only then is it counted on anew
_LIES: Final = {Tier.HOT: WARM, Tier.WARM: WARM, Tier.COLD: COLD, Tier.DEEP: DEEP}
_TIERS: Final = np.array([Tier.HOT, Tier.HOT, Tier.COLD, Tier.DEEP])  # by where something lies


@dataclass(frozen=True, slots=True)
class Kept:
    """What care of the tier files did: versions of the past moved, bytes written, what is wrong."""

    moved: int
    bytes_written: int
    problems: tuple[str, ...]


class Tiers:
    """Moves keys between the log and tier files; a `Mover`."""

    def __init__(self, log: CausalLog, file: UsageFile | None = None) -> None:
        """`file` tells what other processes moved."""
        self._log = log
        self._file = file
        self._looked = 0
        self._ratios = dict(_GUESS)
        self.holdings = Holdings(log)

    def look(self, namespaces: Collection[str] | None = None) -> Held:
        """Present keys: where value and vectors of each are, and what they take up there."""
        ratios = self._counted_on()
        if self._file is not None:
            looked, self._looked = self._looked, self._log.now().clock
            moved = self._file.moved(looked) if looked else []
            found = numbers_of(self._log, [(name, key) for name, key, _ in moved])
            self.holdings.again(found.values())
        names, rows = self.holdings.rows(namespaces)
        tiers = _TIERS[rows["lies"]]
        tiers[rows["cool"] & (tiers == Tier.HOT)] = Tier.WARM
        return held(self._log, names, rows, tiers, _sizes(rows["raw"], ratios))

    def move(self, move: Move) -> MoveResult:
        """Move keys to another tier; those that are there already count as moved.

        What cannot be read stays where it is, and keeps back nothing else.

        Raises:
            StorageError: the disk refused; whatever is there is whole.
        """
        engine, target = self._log.engine, move.target
        ids = engine.key_ids_of(move.namespace, move.keys)
        cut = self._log.now()
        found = engine.presence(cut.seq, cut.clock, list(ids.values()), since=cut.seq)
        present = {each.key_id: each.seq for each in found if each.seq is not None}
        far = target >= Tier.COLD
        seqs = engine.places_of_keys(list(ids.values())) if far else list(present.values())
        damaged: dict[int, str] = {}
        try:
            try:
                done = engine.move(seqs, _LIES[target])
            except CorruptionError:
                damaged = engine.unreadable(seqs)
                done = engine.move([seq for seq in seqs if seq not in damaged], _LIES[target])
        finally:
            self.holdings.again(ids.values())
        self.holdings.cool(ids.values(), target is Tier.WARM)
        if target is not Tier.HOT:
            self._log.cool(move.namespace, move.keys)
        lie = engine.whereabouts(list(present.values()))
        there = {
            number for number, (tier, _) in zip(present, lie, strict=True) if tier == _LIES[target]
        }
        kept = tuple(key for key in move.keys if ids.get(key) in there)
        left = len(move.keys) - len(kept)
        why = next(iter(damaged.values()), "they hold nothing now, or were written meanwhile")
        note = f"{left:,} keys were left: {why}" if left else ""
        return MoveResult(kept, done.bytes_written, note, done.longest_seconds)

    def genome(self) -> Kept:
        """The job "genome": make missing ones, tidy files, and hold deep files to their genomes.

        Of more files than can be read in a moment some are looked at, in turn.
        """
        engine = self._log.engine
        done = engine.tidy_tiers()
        return Kept(done.items, done.bytes_written, tuple(engine.tier_problems(self._next_files())))

    def _next_files(self) -> list[int]:
        known = None if self._file is None else self._file.model(_TURN)
        last = int(known) if known is not None and known.isdigit() else 0
        files = self._log.engine.tier_files()
        chosen: list[int] = []
        size = 0
        for number, raw in sorted(files, key=lambda each: (each[0] <= last, each[0])):
            if chosen and size + raw > _READ_BYTES:
                break
            chosen.append(number)
            size += raw
        if self._file is not None and chosen:
            self._file.keep_model(_TURN, str(chosen[-1]).encode())
        return chosen

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
