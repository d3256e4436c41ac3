"""What every part is given: a folder, sizes, the sets, and databases filled once."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.measure import sized
from benchmarks.vectors import sets
from benchmarks.vectors.apart import FAST, apart
from benchmarks.vectors.peers import NAMES
from benchmarks.vectors.sets import VectorSet

T = TypeVar("T")
DIMENSIONS = 384
_MADE = 200_000


@dataclass(frozen=True, slots=True)
class Bench:
    """One run. `quick` is a smoke test: its figures mean nothing. Ours is always measured."""

    folder: Path
    scale: float = 1.0
    quick: bool = False
    subjects: tuple[str, ...] = NAMES  # those to measure, by module

    def sized(self, full: int) -> int:
        """A number of rows for this run."""
        return sized(full, 0.01 if self.quick else self.scale, 200)

    def among(self, names: Sequence[str]) -> list[str]:
        """Those of the subjects that were asked for."""
        return [name for name in names if name == "koru" or name in self.subjects]

    def some(self, every: Sequence[T]) -> Sequence[T]:
        """All of them; the first alone in a smoke test."""
        return every[:1] if self.quick else every

    @property
    def counted(self) -> int:
        """Queries behind a median."""
        return 10 if self.quick else 200

    @property
    def warm(self) -> int:
        return 3 if self.quick else 20

    @property
    def queries(self) -> int:
        return 600 if self.quick else sets.QUERIES

    def made_up(self, rows: int, dimensions: int = DIMENSIONS, *, of: int = _MADE) -> VectorSet:
        """The made-up set cut to `rows`, which are already sized."""
        return sets.unpacked(
            self.run(
                "sets", "made_up", folder=str(self.folder), rows=rows, dimensions=dimensions,
                of=max(rows, self.sized(of)), queries=self.queries,
            )
        )  # fmt: skip

    def real(self) -> VectorSet | None:
        """None where there are no real texts."""
        if sets.real_texts() is None:
            return None
        rows = self.sized(sets.REAL)
        return sets.unpacked(
            self.run("sets", "real", folder=str(self.folder), rows=rows, queries=self.queries)
        )

    def run(self, module: str, function: str, /, **given: Any) -> Any:
        """`apart`, with what every measurement needs; sets are packed."""
        options = {
            name: given.pop(name) for name in ("blocked", "seconds", "one_thread") if name in given
        }
        packed = {
            name: value.packed() if isinstance(value, VectorSet) else value
            for name, value in given.items()
        }
        return apart(module, function, packed, **options)

    def place(self, name: str) -> Path:
        """A folder in the run's own."""
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        return place


def installed(module: str) -> bool:
    """Whether a module is there, without importing all of it."""
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def fast_is_installed() -> bool:
    """Whether some of the extra `fast` is."""
    return any(installed(name) for name in FAST)
