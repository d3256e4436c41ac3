"""The directory a database lives in: whether it may, and what becomes of it."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from koru_delta.errors import NotADatabaseError, ReadOnlyError, StorageError

_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "afs", "ceph", "glusterfs"}
_OURS = {"log.db", "log.db-wal", "log.db-shm", "lock", "generation", "index", "tiers"}


def check_directory(path: Path, *, read_only: bool) -> None:
    """Make the directory, or refuse one that is somebody else's or on a network.

    Raises:
        NotADatabaseError: a file, a directory with other things in it, or nothing to read.
        StorageError, ReadOnlyError: it cannot be made, looked into or trusted.
    """
    try:
        facts = path.stat()
    except FileNotFoundError:
        facts = None
    except (OSError, ValueError) as error:  # too long, a NUL in it, no right to look
        raise StorageError(f"cannot open {str(path)[:80]!r}: {error}") from error
    if facts is not None and not stat.S_ISDIR(facts.st_mode):
        raise NotADatabaseError(f"{path} is a file; a KoruDelta database is a directory")
    if facts is None:
        if read_only:
            raise NotADatabaseError(f"{path} does not exist; nothing to open read-only")
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make {path}: {error}") from error
    try:
        found = {item.name for item in path.iterdir() if not item.name.startswith(".generation.")}
    except PermissionError as error:
        raise ReadOnlyError(f"cannot look into {path}: {error}") from error
    if found and "log.db" not in found and not found <= _OURS:
        strangers = ", ".join(sorted(found - _OURS)[:3])
        raise NotADatabaseError(
            f"{path} already holds other files ({strangers}); choose an empty or new directory"
        )
    kind = _file_system(path)
    if kind in _NETWORK:
        raise StorageError(
            f"{path} is on a network file system ({kind}), where locks cannot be trusted; "
            "use a local disk"
        )


def _file_system(path: Path) -> str:
    """The type of the file system under `path`, where Linux tells; else empty."""
    mounts = Path("/proc/self/mounts")
    if sys.platform != "linux" or not mounts.exists():
        return ""
    best, kind = "", ""
    for line in mounts.read_text(errors="replace").splitlines():
        _device, point, found, *_rest = line.split(" ")
        point = point.replace("\\040", " ")
        inside = str(path) == point or str(path).startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, found
    return kind


def sync_directory(path: Path) -> None:
    """Sync the names in a directory to disk."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return  # a parent we may not read; the file system keeps its own entries
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which is synced and takes the place of `path` once all is in it."""
    fresh = path.with_name(f".{path.name}.tmp")
    try:
        with fresh.open("wb") as file:
            fresh.chmod(0o600)
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        sync_directory(path.parent)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def remove_directory(directory: Path, owner: int) -> None:
    """Remove a temporary database, in the process that made it only."""
    if os.getpid() == owner:
        shutil.rmtree(directory, ignore_errors=True)
