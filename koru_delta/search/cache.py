"""Files under `index/`: readings of the log kept for the next process, never believed blindly.

A cache file is written to a temporary name, synced and renamed, and never changed again.
It begins with a description (JSON) and a hash for each block of its sections, both under
the hash in its first bytes. Blocks are hashed by XXH3, at the speed of memory: a first
search looks at all of them, and they are to be safe from accidents. (Whoever can write here
on purpose can write any hash.) Small sections are checked when they are read. Large ones are
mapped, shared by all processes, and each block is checked when it is first looked at; if
the file changes on disk while it is mapped, every block is checked again. Whatever does
not match raises `Unusable`: the caller reads the log instead.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from blake3 import blake3
from xxhash import xxh3_128_digest

_MAGIC: Final = b"KDINDEX2"
_PAGE: Final = 4096
_BLOCK_BYTES: Final = 256 * 1024
_DIGEST: Final = 16
_HEAD: Final = 8 + 32 + 8  # magic, hash of the description, its length
_LARGEST_DESCRIPTION: Final = 64 * 1024 * 1024
_TEMPORARY: Final = ".tmp-"


class Parts(NamedTuple):
    """Rows of float32 that are never all in memory: `read` gives them some at a time, in order."""

    shape: tuple[int, int]
    read: Callable[[], Iterator[npt.NDArray[np.float32]]]


Section = npt.NDArray[Any] | Parts | bytes


class Unusable(Exception):  # noqa: N818 - a state of a file, which its reader deals with
    """A cache file is missing, damaged or of something else; the log has all it held."""


def write(path: Path, about: Mapping[str, Any], sections: Mapping[str, Section]) -> bytes:
    """Write a cache file in one step; returns the hash that names its whole content.

    Args:
        about: What it is of; kept as JSON.
        sections: Arrays (any dtype, kept with their shape) or bytes, by name. Parts are read
            twice.
    """
    described: dict[str, Any] = {}
    digests: list[bytes] = []
    offset = 0
    for name, section in sections.items():
        length = 0
        for block in _blocks(section):
            digests.append(xxh3_128_digest(block))
            length += len(block)
        described[name] = [offset, length, _kind(section)]
        offset += -(-length // _PAGE) * _PAGE
    text = json.dumps({"about": dict(about), "sections": described}).encode()
    description = len(text).to_bytes(8, "little") + text + b"".join(digests)
    name_of_all = blake3(description).digest()
    head = _MAGIC + name_of_all + len(description).to_bytes(8, "little") + description
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(head)
        for section in sections.values():
            file.write(b"\0" * (-file.tell() % _PAGE))
            file.writelines(_chunks(section))
    return name_of_all


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file to write; synced and put in the place of `path` if all goes well."""
    temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{path.name}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.close(descriptor)
        yield temporary
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sweep(folder: Path) -> None:
    """Remove what killed writers left behind; call with the folder's lock held."""
    for file in folder.glob(f"{_TEMPORARY}*"):
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Whether this process alone may write the caches in `folder` now; waits only if told to."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            # Not by closing alone: a child forked meanwhile has it open for as long as it lives.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def hash_of(path: Path) -> str:
    """The BLAKE3 hash of a file, in hex.

    Raises:
        Unusable: it cannot be read.
    """
    hasher = blake3()  # on this thread: its pool of others does not survive a fork
    try:
        if path.stat().st_size:
            hasher.update_mmap(path)
    except OSError as error:
        raise Unusable(f"{path.name}: {error}") from error
    return hasher.hexdigest()


class CacheFile:
    """A cache file that has been opened and whose description holds."""

    def __init__(self, path: Path) -> None:
        """Open `path`.

        Raises:
            Unusable: it is missing, not one of ours, cut short, or its description is damaged.
        """
        try:
            # Without waiting, if it is a pipe: then it is empty, and no file of ours.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise Unusable(f"{path.name}: {error}") from error
        self._descriptor = descriptor
        self.close = weakref.finalize(self, os.close, descriptor)  # what is mapped stays mapped
        self.name = path.name
        self.stamp = self._stamped()
        size = self.stamp[0]
        head = self.read(0, _HEAD)
        length = int.from_bytes(head[40:48], "little")
        if head[:8] != _MAGIC or length > min(size, _LARGEST_DESCRIPTION):
            raise Unusable(f"{path.name} is no cache file of this format")
        description = self.read(_HEAD, length)
        self.identity = blake3(description).digest()
        if self.identity != head[8:40]:
            raise Unusable(f"{path.name}: its description is damaged")
        text_length = int.from_bytes(description[:8], "little")
        known = json.loads(description[8 : 8 + text_length])
        self.about: dict[str, Any] = known["about"]
        self._sections: dict[str, Any] = known["sections"]
        self._digests = description[8 + text_length :]
        self._start = -(-(_HEAD + length) // _PAGE) * _PAGE
        end = max((s[0] + s[1] for s in self._sections.values()), default=0)
        if self._sections and size < self._start + end:
            raise Unusable(f"{path.name} is cut short")

    def __contains__(self, name: str) -> bool:
        return name in self._sections

    def names(self) -> list[str]:
        """The names of its sections."""
        return list(self._sections)

    def data(self, name: str) -> bytes:
        """A section of bytes, checked."""
        offset, length, _ = self._sections[name]
        data = self.read(self._start + offset, length)
        first = self._first_digest(name)
        for number, start in enumerate(range(0, length, _BLOCK_BYTES), first):
            if xxh3_128_digest(data[start : start + _BLOCK_BYTES]) != self._digest(number):
                raise Unusable(f"{self.name}: section {name} is damaged")
        return data

    def array(self, name: str) -> npt.NDArray[Any]:
        """A section that is an array, checked, in memory of its own that may be written."""
        dtype, shape = self._sections[name][2]
        return np.frombuffer(bytearray(self.data(name)), dtype=dtype).reshape(shape)

    def mapped(self, name: str) -> Mapped:
        """A section that is an array, mapped and checked as it is looked at."""
        offset, length, (dtype, shape) = self._sections[name]
        return Mapped(self, self._start + offset, length, dtype, shape, self._first_digest(name))

    def stored(self, name: str) -> Stored:
        """A section of bytes, read in parts and checked as it is looked at."""
        offset, length, _ = self._sections[name]
        return Stored(self, self._start + offset, length, self._first_digest(name))

    def watch(self, doubt: Callable[[], None]) -> None:
        """Call `doubt` if the file was written to since the last time this was asked.

        Raises:
            Unusable: it is not as long as it was.
        """
        stamp = self._stamped()
        if stamp == self.stamp:
            return
        if stamp[0] != self.stamp[0]:
            raise Unusable(f"{self.name} is no longer as long as it was")
        doubt()  # first: no other thread may find the new stamp and what was sure before
        self.stamp = stamp

    def _stamped(self) -> tuple[int, int, int]:
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the file, not checked.

        Raises:
            Unusable: there are none.
        """
        try:
            data = os.pread(self._descriptor, length, offset)
            while len(data) < length:
                more = os.pread(self._descriptor, length - len(data), offset + len(data))
                if not more:
                    raise Unusable(f"{self.name} is cut short")
                data += more
        except OSError as error:
            raise Unusable(f"{self.name}: {error}") from error
        return data

    def _first_digest(self, name: str) -> int:
        before = 0
        for other, (_, length, _) in self._sections.items():
            if other == name:
                return before
            before += -(-length // _BLOCK_BYTES)
        raise KeyError(name)

    def _digest(self, number: int) -> bytes:
        return self._digests[number * _DIGEST : (number + 1) * _DIGEST]


class _Checked:
    """A section whose blocks are checked when they are first looked at."""

    def __init__(self, file: CacheFile, start: int, length: int, digest: int) -> None:
        self._file = file
        self._descriptor = file._descriptor
        self._start = start
        self._digest = digest
        self._blocks = -(-length // _BLOCK_BYTES)
        self._unchecked: npt.NDArray[np.bool_] | None = np.ones(self._blocks, dtype=np.bool_)
        self.nbytes = length

    def _watch(self) -> None:
        """Doubt what was sure if the file was written to since."""
        now = os.fstat(self._descriptor)
        if (now.st_size, now.st_mtime_ns, now.st_ctime_ns) != self._file.stamp:
            self._file.watch(self._doubt)

    def _check(self, unchecked: npt.NDArray[np.bool_], blocks: npt.NDArray[np.int64]) -> None:
        """Make sure of some blocks that are in doubt."""
        for block in blocks.tolist():
            if xxh3_128_digest(self._block(block)) != self._file._digest(self._digest + block):
                raise Unusable(f"{self._file.name}: block {block} is damaged")
        unchecked[blocks] = False
        if len(blocks) and not unchecked.any() and self._unchecked is unchecked:
            self._unchecked = None

    def _block(self, number: int) -> bytes | memoryview:
        start = number * _BLOCK_BYTES
        length = min(_BLOCK_BYTES, self.nbytes - start)
        return self._file.read(self._start + start, length)

    def _doubt(self) -> None:
        self._unchecked = np.ones(self._blocks, dtype=np.bool_)


class Stored(_Checked):
    """Bytes in a file, of which only what is asked for is in memory."""

    def read(self, offset: int, length: int) -> bytes:
        """Some of them, from an offset on.

        Raises:
            Unusable: they are not as they were written.
        """
        self._watch()
        unchecked = self._unchecked
        if unchecked is not None and length:
            blocks = np.arange(offset // _BLOCK_BYTES, (offset + length - 1) // _BLOCK_BYTES + 1)
            self._check(unchecked, blocks[unchecked[blocks]])
        return self._file.read(self._start + offset, length)


class Mapped(_Checked):
    """Rows of numbers in a mapped file. Look at `rows` only after `check`."""

    def __init__(
        self, file: CacheFile, start: int, length: int, dtype: str, shape: list[int], digest: int
    ) -> None:
        """Map `length` bytes from `start` on, which begins a page."""
        super().__init__(file, start, length, digest)
        self._row_bytes = max(1, length // max(1, shape[0]))
        page = mmap.ALLOCATIONGRANULARITY
        begin = start // page * page
        self._map = mmap.mmap(
            file._descriptor, start - begin + length, offset=begin, access=mmap.ACCESS_READ
        )
        self._bytes = memoryview(self._map)[start - begin :]
        self.rows: npt.NDArray[Any] = np.frombuffer(self._bytes, dtype=dtype).reshape(shape)
        self.frugal = False  # whether what was looked at is let go of again

    def check(self, rows: npt.NDArray[np.int64] | None = None) -> None:
        """Make sure that these rows (all, if None) are as they were written.

        Raises:
            Unusable: they are not.
        """
        self._watch()
        unchecked = self._unchecked
        if unchecked is None:
            return
        if rows is None:
            wanted = np.flatnonzero(unchecked)
        else:
            first = rows * self._row_bytes // _BLOCK_BYTES
            last = ((rows + 1) * self._row_bytes - 1) // _BLOCK_BYTES
            wanted = np.unique(np.concatenate([first, last]))
            wanted = wanted[unchecked[wanted]]
        self._check(unchecked, wanted)

    def take(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """A copy of some rows, checked.

        A frugal one reads them: to look at one would map up to two megabytes around it.

        Raises:
            Unusable: they are not as they were written.
        """
        self.check(rows)
        if not self.frugal:
            return self.rows.take(rows, axis=0)
        size, start = self._row_bytes, self._start
        data = b"".join([
            self._file.read(start + row * size, size) for row in rows.tolist()
        ])  # fmt: skip
        return np.frombuffer(data, self.rows.dtype).reshape(len(rows), *self.rows.shape[1:])

    def release(self) -> None:
        """Let go of the memory behind what was looked at; the file has it all."""
        self._map.madvise(mmap.MADV_DONTNEED)

    def _block(self, number: int) -> bytes | memoryview:
        if self.frugal:
            return super()._block(number)
        return self._bytes[number * _BLOCK_BYTES : (number + 1) * _BLOCK_BYTES]


def _kind(section: Section) -> list[Any] | None:
    """The numbers and shape of an array."""
    if isinstance(section, bytes):
        return None
    dtype = np.dtype(np.float32) if isinstance(section, Parts) else section.dtype
    return [dtype.newbyteorder("<").str, list(section.shape)]


def _chunks(section: Section) -> Iterator[memoryview | bytes]:
    """Its bytes, in order."""
    if isinstance(section, bytes):
        yield section
        return
    for array in section.read() if isinstance(section, Parts) else (section,):
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        if little.size:
            yield little.data.cast("B")


def _blocks(section: Section) -> Iterator[memoryview | bytes]:
    """Its bytes cut into blocks, of which the last may be shorter."""
    rest = b""
    for chunk in _chunks(section):
        data = memoryview(rest + bytes(chunk) if rest else chunk)
        whole = len(data) // _BLOCK_BYTES * _BLOCK_BYTES
        for start in range(0, whole, _BLOCK_BYTES):
            yield data[start : start + _BLOCK_BYTES]
        rest = bytes(data[whole:])
    if rest:
        yield rest
