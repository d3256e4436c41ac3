"""What the lifecycle asks of whoever moves bytes between tiers, and who moves none.

Deciding and moving are told apart: `plan` decides, a `Mover` moves. A move is crash-safe,
may be asked for again, keeps no reader waiting and no writer for long, and changes no answer.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from koru_delta.lifecycle.holdings import Held, Holdings
from koru_delta.lifecycle.plan import Move, Tier
from koru_delta.log import CausalLog

_KEY_BYTES: Final = 200  # of a value that is held in memory, beside its own


@dataclass(frozen=True, slots=True)
class MoveResult:
    """What came of a move: the keys that are in the target now, and the bytes written.

    `keys` may be fewer than asked for, or none, and `note` says why. `longest_seconds` is how long
    one transaction of it kept writers waiting at most.
    """

    keys: tuple[str, ...]
    bytes_written: int = 0
    note: str = ""
    longest_seconds: float = 0.0


class Mover(Protocol):
    """Where bytes really are."""

    def look(self, namespaces: Collection[str] | None = None) -> Held:
        """What there is in these namespaces, or in all, and where."""
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
        self._holdings = Holdings(log)

    def look(self, namespaces: Collection[str] | None = None) -> Held:
        """Every present key, with the size of its value and vectors."""
        names, rows = self._holdings.rows(namespaces)
        sizes = np.repeat(rows["raw"][:, None] + _KEY_BYTES, len(Tier), axis=1)
        return held(self._log, names, rows, np.zeros(len(rows), np.int64), sizes)

    def move(self, move: Move) -> MoveResult:
        """Nothing moves."""
        return MoveResult((), note=f"there is no {move.target} tier here: everything stays hot")


def held(
    log: CausalLog,
    names: Collection[str],
    rows: npt.NDArray[Any],
    tiers: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
) -> Held:
    """What is known of keys, with where they are and what they take up."""
    return Held(
        log, tuple(names), rows["id"].copy(), rows["space"].astype(np.int64),
        rows["seq"].copy(), tiers, sizes, rows["written"].copy(), rows["touched"].copy(),
        rows["hidden"].copy(), rows["cited"].astype(np.int64),
    )  # fmt: skip
