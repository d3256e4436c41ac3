"""What the lifecycle asks of whoever moves bytes between tiers, and who moves none.

Deciding and moving are told apart: `plan` decides, a `Mover` moves. A move is crash-safe,
may be asked for again, keeps no reader waiting and no writer for long, and changes no answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from koru_delta.lifecycle.plan import Move, Tier
from koru_delta.log import CausalLog

_PAGE: Final = 5_000  # keys read at once
_KEY_BYTES: Final = 200  # of a value that is held in memory, beside its own


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Keys of one namespace that are present, where each is, and what it takes up."""

    namespace: str
    keys: Sequence[str]
    tiers: npt.NDArray[np.int64]  # a `Tier` each
    sizes: npt.NDArray[np.int64]  # shape (n, 4): bytes it takes up in each tier, or would
    written: npt.NDArray[np.int64]  # when, in microseconds


@dataclass(frozen=True, slots=True)
class MoveResult:
    """What came of a move: the keys that are in the target now, and the bytes written.

    `keys` may be fewer than asked for, or none, and `note` says why.
    """

    keys: tuple[str, ...]
    bytes_written: int = 0
    note: str = ""


class Mover(Protocol):
    """Where bytes really are."""

    def sizes(self) -> Iterator[Held]:
        """What there is, and where: each namespace once, or in parts; each key once."""
        ...

    def move(self, move: Move) -> MoveResult:
        """Move keys to another tier; those that are there already count as moved.

        Raises:
            StorageError: the disk refused; whatever is there is whole.
        """
        ...


class AllHot:
    """Everything is hot, and stays so: a database without tiers."""

    def __init__(self, log: CausalLog) -> None:
        self._log = log

    def sizes(self) -> Iterator[Held]:
        """Every present key, with the size of its value and vectors."""
        cut = self._log.now()
        for name in self._log.engine.namespaces(cut.seq, cut.clock, cut.clock, hidden=False):
            yield from present(self._log, name)

    def move(self, move: Move) -> MoveResult:
        """Nothing moves."""
        return MoveResult((), note=f"there is no {move.target} tier here: everything stays hot")


def present(log: CausalLog, namespace: str) -> Iterator[Held]:
    """The present keys of a namespace in parts, all hot, with what values and vectors take up."""
    cut = log.now()
    after: str | None = None
    while True:
        found = log.engine.visible_keys(
            namespace, cut.seq, cut.clock, cut.clock, after=after, limit=_PAGE, bodies=False
        )
        if not found:
            return
        after = found[-1][0]
        lie = log.engine.whereabouts([each.seq for _, each in found])
        size = np.array([raw for _, raw in lie], dtype=np.int64)
        yield Held(
            namespace,
            [key for key, _ in found],
            np.full(len(found), Tier.HOT, dtype=np.int64),
            np.repeat(size[:, None] + _KEY_BYTES, len(Tier), axis=1),
            np.array([each.tx_time for _, each in found], dtype=np.int64),
        )


def together(parts: Iterable[Held]) -> list[Held]:
    """The same with each namespace in one part, in order of their names."""
    by_name: dict[str, list[Held]] = {}
    for part in parts:
        by_name.setdefault(part.namespace, []).append(part)
    return [
        Held(
            name,
            [key for part in some for key in part.keys],
            np.concatenate([part.tiers for part in some]),
            np.concatenate([part.sizes for part in some]),
            np.concatenate([part.written for part in some]),
        )
        for name, some in sorted(by_name.items())
    ]
