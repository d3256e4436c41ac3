"""Reading places in tier files: a few blocks taken apart are kept, files are opened anew.

What a place holds never changes, so what is kept is right for ever; but a place may be left, its
file be gone, and what was there be elsewhere: then whoever asks looks again where it is now.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Final

import numpy as np

from koru_delta.errors import CorruptionError
from koru_delta.storage.tierfile import REMEDY, TierFile, parts_of, path_of

_KEPT_BYTES: Final = 24 << 20  # of blocks; the last one is kept however large
_KEPT_FILES: Final = 64  # directories

Facts = tuple[int, bytes]  # of a file its tier and root
LookUp = Callable[[int], Facts | None]  # by its number; None once it is gone


class MissingError(CorruptionError):
    """Bytes are not where they were: moved, erased, or the file is damaged."""


class Shelf:
    """The tier files of a database. Safe to share by threads; a forked child makes its own."""

    def __init__(self, directory: Path) -> None:
        """`directory` is the database's."""
        self._directory = directory
        self._lock = threading.Lock()
        self._files: OrderedDict[int, TierFile] = OrderedDict()
        self._blocks: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._bytes = 0

    def read(self, place: int, look_up: LookUp) -> bytes:
        """The bytes at a place.

        Raises:
            MissingError: the file is not there, perhaps since the place was left meanwhile.
            CorruptionError: it is damaged.
        """
        number, item = parts_of(place)
        file = self.file(number, look_up)
        block = file.block_of(item)
        try:
            whole = self._block(file, block)
        except FileNotFoundError as error:
            self.forget([number])
            raise _missing(file.path) from error
        return file.cut(whole, block, item)

    def size(self, place: int, look_up: LookUp) -> int:
        """How long what lies at a place is."""
        number, item = parts_of(place)
        return self.file(number, look_up).size_of(item)

    def file(self, number: int, look_up: LookUp) -> TierFile:
        """A file by its number.

        Raises:
            MissingError, CorruptionError: as `read`.
        """
        with self._lock:
            found = self._files.get(number)
            if found is not None:
                self._files.move_to_end(number)
                return found
        facts = look_up(number)
        if facts is None:
            raise MissingError(f"tier file {number} of {self._directory} is not known; run: verify")
        path = path_of(self._directory, facts[0], number)
        try:
            found = TierFile(path, facts[0], number, facts[1])
        except FileNotFoundError as error:
            raise _missing(path) from error
        except OSError as error:
            raise CorruptionError(f"{path} cannot be read ({error}); {REMEDY}") from error
        with self._lock:
            self._files[number] = found
            while len(self._files) > _KEPT_FILES:
                self._files.popitem(last=False)
        return found

    def _block(self, file: TierFile, number: int) -> bytes:
        name = (file.number, number)
        with self._lock:
            found = self._blocks.get(name)
            if found is not None:
                self._blocks.move_to_end(name)
                return found
        found = file.block(number)
        with self._lock:
            if name not in self._blocks:
                self._blocks[name] = found
                self._bytes += len(found)
            while self._bytes > _KEPT_BYTES and len(self._blocks) > 1:
                self._bytes -= len(self._blocks.popitem(last=False)[1])
        return found

    def forget(self, numbers: Collection[int] | None = None) -> None:
        """Keep nothing of these files any more, or of any."""
        with self._lock:
            for number in list(self._files) if numbers is None else numbers:
                self._files.pop(number, None)
            for name in [n for n in self._blocks if numbers is None or n[0] in numbers]:
                self._bytes -= len(self._blocks.pop(name))

    def holding(
        self, numbers: Iterable[int], owners: Collection[int], look_up: LookUp
    ) -> list[int]:
        """Those of these files in which anything of these owners lies, used or not.

        A file that is not there holds nothing; one that cannot be read may hold anything.
        """
        wanted = np.fromiter(owners, dtype=np.int64, count=len(owners))
        found = []
        for number in numbers:
            try:
                if np.isin(self.file(number, look_up).owners, wanted).any():
                    found.append(number)
            except MissingError:
                continue
            except CorruptionError:
                found.append(number)
        return found


def _missing(path: Path) -> MissingError:
    return MissingError(f"{path} is missing; {REMEDY}")
