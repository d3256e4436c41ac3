"""Directories that are taken away, and disks without room: a typed error, and nothing lost."""

from __future__ import annotations

import contextlib
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import koru_delta
from koru_delta import Database, errors
from tests.test_fork import in_child

# Directories that are taken away


@pytest.mark.parametrize("what", ["deleted", "moved", "replaced", "only log.db"])
def test_a_directory_taken_away_while_it_is_open_takes_no_write_that_nobody_would_find(
    tmp_path: Path, what: str
) -> None:
    place = tmp_path / "db"
    with koru_delta.open(place) as db:
        db.put("n", "k0", "0" * 500)
        if what == "moved":
            place.rename(tmp_path / "elsewhere")
        elif what == "only log.db":
            (place / "log.db").unlink()
        else:
            shutil.rmtree(place)
        if what == "replaced":
            with koru_delta.open(place) as other:
                other.put("n", "of the other", 1)
        for _ in range(2):
            with pytest.raises(errors.StorageError, match="was deleted, moved or replaced"):
                db.put("n", "k1", "1" * 500)
            with pytest.raises(errors.StorageError, match="open the one that is there now"):
                db.embed_many("v", [("a", [1.0, 2.0])])
        assert db.get("n", "k0") == "0" * 500
        assert not db.contains("n", "k1")
        if what == "moved":
            (tmp_path / "elsewhere").rename(place)
            db.put("n", "k1", "1" * 500)
    if what == "moved":
        with koru_delta.open(place) as db:
            _nothing_lost(db, 2)
    elif what == "replaced":
        with koru_delta.open(place) as db:
            assert db.list_keys("n") == ["of the other"]
            assert db.verify().ok


# Full disks


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 1 MB."""
    path = Path(tempfile.mkdtemp(prefix="koru-small-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], capture_output=True
    )
    if mounted.returncode:
        path.rmdir()
        pytest.skip(f"mounting is not permitted here: {mounted.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", str(path)], check=True)
    path.rmdir()


def _until_full(db: Database) -> int:
    """Write until the disk is full; returns how many writes were acknowledged."""
    for number in range(100_000):
        try:
            db.put("n", f"k{number}", f"{number}" * 500)
        except errors.StorageError:
            return number
    raise AssertionError("the disk never filled up")


def _nothing_lost(db: Database, written: int) -> None:
    assert db.count("n") == written
    for number in range(written):
        assert db.get("n", f"k{number}") == f"{number}" * 500
    assert db.verify().ok


def test_a_full_disk_keeps_what_was_acknowledged(small_disk: Path) -> None:
    with koru_delta.open(small_disk / "db") as db:
        written = _until_full(db)
        assert written > 10
        _nothing_lost(db, written)
        with pytest.raises(errors.StorageError):
            db.put_many([("n", f"more{n}", "x" * 3000) for n in range(300)])
        _nothing_lost(db, written)
        with pytest.raises(errors.KoruDeltaError):
            koru_delta.open(small_disk / "another")
        with pytest.raises(errors.StorageError):
            db.export_log(small_disk / "log.jsonl")
    with koru_delta.open(small_disk / "db") as db:
        _nothing_lost(db, written)
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    with koru_delta.open(small_disk / "db") as db:
        db.put("n", f"k{written}", f"{written}" * 500)
        _nothing_lost(db, written + 1)


@pytest.mark.parametrize("read_only", [True, False])
def test_opening_on_a_disk_without_any_room_says_so(small_disk: Path, read_only: bool) -> None:
    with koru_delta.open(small_disk / "db") as db:
        db.put("n", "k0", "0" * 500)
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while filler.write(b"\0" * 4096):
            pass
    with pytest.raises(errors.StorageFullError, match="free some space and open it again"):
        koru_delta.open(small_disk / "db", read_only=read_only)
    (small_disk / "filler").unlink()
    with koru_delta.open(small_disk / "db", read_only=read_only) as db:
        _nothing_lost(db, 1)


def test_an_index_that_a_full_disk_has_no_room_for_is_used_and_told_of(small_disk: Path) -> None:
    vectors = np.random.default_rng(3).standard_normal((1000, 16)).astype(np.float32)
    with koru_delta.open(small_disk / "db", durability="relaxed") as db:
        db.embed_many("v", [(f"k{n}", vector) for n, vector in enumerate(vectors)])
        right = db.similar("v", vectors[7], exact=True)
        with contextlib.suppress(OSError), (small_disk / "filler").open("wb", 0) as filler:
            while filler.write(b"\0" * 4096):
                pass
        with pytest.raises(errors.StorageFullError, match="'v' is made and in use here, but"):
            db.build_index()
        assert db.similar("v", vectors[7], exact=True) == right
        with pytest.raises(errors.StorageFullError, match=r"costs\.json"):
            db.tune()
        (small_disk / "filler").unlink()
        assert not list(small_disk.rglob("state-*.kdx"))
        db.build_index()
        assert list(small_disk.rglob("state-*.kdx"))
        assert db.similar("v", vectors[7], exact=True) == right


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    def child() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with koru_delta.open(tmp_path / "db") as db:
            db.put("n", "k0", "0" * 500)
            resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
            for number in range(1, 10_000):
                try:
                    db.put("n", f"k{number}", f"{number}" * 500)
                except errors.StorageError:
                    break
            _nothing_lost(db, number)
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )
            db.put("n", f"k{number}", f"{number}" * 500)
            _nothing_lost(db, number + 1)

    in_child(child)


def test_a_database_that_may_not_grow(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db") as db:
        db.put("n", "k0", "0" * 500)
        # Reaches behind the door: there is no public way to fill a disk.
        writer = db._log.engine._writer_connection()
        pages = writer.execute("PRAGMA page_count").get
        writer.execute(f"PRAGMA max_page_count = {pages + 20}").fetchall()
        for number in range(1, 10_000):
            try:
                db.put("n", f"k{number}", f"{number}" * 500)
            except errors.StorageFullError:
                break
        _nothing_lost(db, number)
        writer.execute("PRAGMA max_page_count = 1000000").fetchall()
        db.put("n", f"k{number}", f"{number}" * 500)
        _nothing_lost(db, number + 1)
