"""A file of a tier: bodies and vectors that lie far, compressed together, never changed again.

It is written whole under another name, synced and renamed; to drop something from it, it is
written anew under another number. Every byte of it is under a hash: each block's stands in the
directory, the directory's in the header, the header's (the root) in the log's row of the file.
FORMAT.md tells of the layout.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import zstandard
from blake3 import blake3

from koru_delta.errors import CorruptionError
from koru_delta.storage.pace import gently
from koru_delta.storage.place import replacing

WARM, COLD, DEEP = 1, 2, 3  # warm is the log itself; the others are files
NAMES: Final = {WARM: "warm", COLD: "cold", DEEP: "deep"}
FOLDER: Final = "tiers"
MAX_ITEMS: Final = 1 << 16  # in a file; also what a place has room for
ITEM_BITS: Final = 24
_MAGIC: Final = b"KDTIER01"
_HEADER: Final = struct.Struct("<8sIIQQ32s")  # magic, tier, number; the directory's place, size, id
_COUNTS: Final = struct.Struct("<II")
_BLOCK: Final = np.dtype(
    [("offset", "<u8"), ("size", "<u4"), ("raw", "<u4"), ("first", "<u4"), ("floats", "<u4"),
     ("hash", "V16")]
)  # fmt: skip
_ITEM: Final = np.dtype([("owner", "<i8"), ("entry", "<i8"), ("size", "<u4")])


class Item(NamedTuple):
    """What is kept: an entry's body by the entry's place, or an object by its negative number.

    `entry` is the place of one that held it. Items of one `group` are alike and stand together.
    """

    owner: int
    entry: int
    group: tuple[int, int]
    floats: bool  # a vector
    data: bytes


class Made(NamedTuple):
    """A file that was written: how large it is and would be, its root, how many items."""

    size: int
    raw: int
    root: bytes
    items: int


class _Way(NamedTuple):
    """How a tier is compressed. A block ends after `target` bytes, or `most` of one group."""

    target: int
    most: int
    level: int
    window: int


# A read takes a block apart, so blocks are small; the past of one key compresses best together.
_WAYS: Final = {
    COLD: _Way(128 << 10, 2 << 20, 9, 21),
    DEEP: _Way(1 << 20, 8 << 20, 19, 24),
}


def place_of(number: int, item: int) -> int:
    """What the log calls an item of a file: an object number below zero."""
    return -(number << ITEM_BITS | item)


def parts_of(place: int) -> tuple[int, int]:
    """The file's number and the item's, of a place."""
    return -place >> ITEM_BITS, -place & ((1 << ITEM_BITS) - 1)


def path_of(directory: Path, tier: int, number: int) -> Path:
    """Where a file of a database lies."""
    if tier == COLD:
        return directory / FOLDER / f"cold-{number}.kdt"
    return directory / FOLDER / "deep" / f"deep-{number}.kdt"


def write(path: Path, tier: int, number: int, items: Iterable[Item]) -> Made:
    """Write a file, whole and synced, or nothing; items come in order of their groups.

    Raises:
        OSError: the file system refused.
    """
    way, offset, raw = _WAYS[tier], _HEADER.size, 0
    packer = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(
            way.level, window_log=way.window, enable_ldm=tier == DEEP
        )
    )
    blocks: list[tuple[int, int, int, int, int, bytes]] = []
    known: list[tuple[int, int, int]] = []
    with replacing(path) as file:
        file.write(bytes(_HEADER.size))
        for block in _cut(items, way):
            whole = b"".join(item.data for item in block)
            floats = len(block[0].data) if block[0].floats else 0
            packed = packer.compress(_planes(whole) if floats else whole)
            file.write(packed)
            blocks.append((offset, len(packed), len(whole), len(known), floats, _hash(packed)))
            known += [(item.owner, item.entry, len(item.data)) for item in gently(block)]
            offset, raw = offset + len(packed), raw + len(whole)
        directory = zstandard.ZstdCompressor(level=9).compress(
            _COUNTS.pack(len(blocks), len(known))
            + np.array(blocks, dtype=_BLOCK).tobytes()
            + np.array(known, dtype=_ITEM).tobytes()
        )
        file.write(directory)
        header = _HEADER.pack(
            _MAGIC, tier, number, offset, len(directory), blake3(directory).digest()
        )
        file.seek(0)
        file.write(header)
    return Made(offset + len(directory), raw, blake3(header).digest(), len(known))


class TierFile:
    """The header and directory of a file, checked; each block is checked when it is read."""

    def __init__(self, path: Path, tier: int, number: int, root: bytes) -> None:
        """Read them.

        Raises:
            FileNotFoundError: there is no such file.
            CorruptionError: it is not the file that was written.
        """
        self.path, self.tier, self.number = path, tier, number
        with path.open("rb", buffering=0) as file:
            header = file.read(_HEADER.size)
            if blake3(header).digest() != root:
                raise self._damaged("its header is not what was written")
            _, _, _, offset, size, identity = _HEADER.unpack(header)
            directory = os.pread(file.fileno(), size, offset)
            if len(directory) != size:
                raise self._damaged("it is cut short")
            if blake3(directory).digest() != identity:
                raise self._damaged("its directory does not match its hash")
        whole = zstandard.ZstdDecompressor().decompress(directory)
        counts = _COUNTS.unpack_from(whole)
        self._blocks: npt.NDArray[Any] = np.frombuffer(whole, _BLOCK, counts[0], _COUNTS.size)
        self._items: npt.NDArray[Any] = np.frombuffer(
            whole, _ITEM, counts[1], _COUNTS.size + counts[0] * _BLOCK.itemsize
        )
        self._firsts = np.append(self._blocks["first"], counts[1])
        self._ends = np.cumsum(self._items["size"], dtype=np.int64)
        self.size = offset + size

    @property
    def owners(self) -> npt.NDArray[np.int64]:
        """Of each item whose it was when the file was written."""
        owners: npt.NDArray[np.int64] = self._items["owner"]
        return owners

    @property
    def entries(self) -> npt.NDArray[np.int64]:
        """Of each item the place of an entry that held it."""
        entries: npt.NDArray[np.int64] = self._items["entry"]
        return entries

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Of each item how long it is."""
        return self._items["size"].astype(np.int64)

    def size_of(self, item: int) -> int:
        """How long one item is.

        Raises:
            CorruptionError: there is no such item.
        """
        if not item < len(self._items):
            raise self._damaged(f"it has no item {item}")
        return int(self._items["size"][item])

    @property
    def hashes(self) -> list[str]:
        """Of each block, in hex."""
        return [bytes(each).hex() for each in self._blocks["hash"]]

    def is_floats(self, item: int) -> bool:
        """Whether an item is a vector."""
        return bool(self._blocks["floats"][self.block_of(item)])

    def block_of(self, item: int) -> int:
        """The number of the block an item is in.

        Raises:
            CorruptionError: there is no such item.
        """
        if not item < len(self._items):
            raise self._damaged(f"it has no item {item}")
        return int(np.searchsorted(self._firsts, item, side="right")) - 1

    def blocks_of_all(self) -> tuple[list[int], list[bool]]:
        """Of each item the number of its block, and whether it is a vector."""
        blocks = np.repeat(np.arange(len(self._blocks)), np.diff(self._firsts))
        return blocks.tolist(), (self._blocks["floats"][blocks] != 0).tolist()

    def items_of(self, block: int) -> range:
        """The numbers of the items in a block."""
        return range(int(self._firsts[block]), int(self._firsts[block + 1]))

    def __len__(self) -> int:
        return len(self._blocks)

    def block(self, number: int) -> bytes:
        """All of a block, taken apart.

        Raises:
            FileNotFoundError, CorruptionError: as ever.
        """
        offset, size, raw, _, floats, identity = self._blocks[number]
        with self.path.open("rb", buffering=0) as file:
            packed = os.pread(file.fileno(), int(size), int(offset))
        if _hash(packed) != bytes(identity):
            raise self._damaged(f"block {number} does not match its hash")
        try:
            whole: bytes = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompress(
                packed, max_output_size=max(int(raw), 1)
            )
        except zstandard.ZstdError as error:
            raise self._damaged(f"block {number} cannot be decompressed ({error})") from error
        return _planes(whole, back=True) if floats else whole

    def cut(self, block: bytes, number: int, item: int) -> bytes:
        """One item out of its block."""
        first = int(self._firsts[number])
        start = int(self._ends[first - 1]) if first else 0
        end = int(self._ends[item]) - start
        return block[end - int(self._items["size"][item]) : end]

    def _damaged(self, what: str) -> CorruptionError:
        return CorruptionError(f"{self.path} is damaged: {what}; {REMEDY}")


REMEDY: Final = (
    "put that one file back from a backup (it never changes), or restore the whole backup; "
    "`verify` tells what is lost"
)


def _cut(items: Iterable[Item], way: _Way) -> Iterator[list[Item]]:
    """Items in blocks; vectors only beside vectors as long."""
    block: list[Item] = []
    size = 0
    for item in items:
        if block:
            last = block[-1]
            same = item.group == last.group
            unlike = item.floats != last.floats or (
                item.floats and len(item.data) != len(last.data)
            )
            limit = way.most if same and not item.floats else way.target
            if unlike or size + len(item.data) > limit or (not same and size >= way.target):
                yield block
                block, size = [], 0
        block.append(item)
        size += len(item.data)
    if block:
        yield block


def _planes(data: bytes, *, back: bool = False) -> bytes:
    """Float32 with all first bytes first, then all second ones: alike next to alike."""
    shape = (4, -1) if back else (-1, 4)
    return np.frombuffer(data, np.uint8).reshape(shape).T.tobytes()


def _hash(data: bytes) -> bytes:
    return blake3(data).digest(16)
