"""What every subject can do, ours too: take vectors in, and make a search to be timed.

A subject is filled once, up to the end of its own indexing. `searcher` prepares whatever a
knob needs, so that what is timed is one call with one query.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

K = 10
Vectors: TypeAlias = npt.NDArray[np.float32]
Fields: TypeAlias = dict[str, Any]  # whole numbers, and the text where there is one
Search: TypeAlias = Callable[[Vectors], Any]


class Setting(NamedTuple):
    """A point on a subject's curve; `knobs` are its own names."""

    label: str
    knobs: dict[str, Any]
    default: bool = False


class Where(NamedTuple):
    """A filter every subject has: a whole number that is at least so much."""

    field: str
    least: int


class Peer(ABC):
    """One subject in a folder of its own; vectors have the numbers 0, 1, 2, ... as ids."""

    name: ClassVar[str]
    module: ClassVar[str]  # what must import
    package: ClassVar[str]  # what is installed
    returns: ClassVar[str]  # what the timed call gives back
    built_as: ClassVar[str]  # the index, with what was chosen for it
    durable: ClassVar[str] = ""  # what makes a single insert durable

    def __init__(self, folder: Path, dimensions: int) -> None:
        self.folder = folder
        self.dimensions = dimensions

    @abstractmethod
    def fill(self, vectors: Vectors, fields: Sequence[Fields] | None) -> None:
        """Take everything in and index it to the end."""

    @abstractmethod
    def settings(self) -> list[Setting]:
        """The default first, then more and more effort."""

    @abstractmethod
    def searcher(self, setting: Setting, where: Where | None = None) -> Search:
        """A function from a query to whatever the subject returns for the best `K`."""

    @abstractmethod
    def ids(self, found: Any) -> list[int]:
        """The ids in what a search returned."""

    def reader(self, search: Search) -> Search | None:
        """The same search with every hit's key and value read, where the call puts that off."""
        del search
        return None

    def settle(self) -> None:
        """After `reopen`: wait for whatever it goes on doing in the background."""
        return

    def close(self) -> None:
        """Let go of files and threads."""
        return


class Store(Peer):
    """A subject that keeps documents on disk, filters, and takes single inserts."""

    @abstractmethod
    def insert(self, number: int, vector: Vectors, fields: Fields) -> None:
        """Add one, as durably as the subject can."""

    @abstractmethod
    def reopen(self) -> None:
        """Open what another process filled; nothing is read ahead of need."""


def efforts(knob: str, values: Sequence[int], default: int) -> list[Setting]:
    """Settings of one number: the subject's own default, then `values` as they come."""
    return [
        Setting(f"{knob}={default} (default)", {knob: default}, default=True),
        *(Setting(f"{knob}={value}", {knob: value}) for value in values),
    ]
