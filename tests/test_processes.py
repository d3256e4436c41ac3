"""The short form of `python -m tests.processes`, and what else several processes share."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import koru_delta
from tests.worker import ROOT, Worker


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_two_writers_and_two_readers_lose_nothing_and_see_nothing_stale(durability: str) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "tests.processes", "--seconds", "4", "--durability", durability],
        cwd=ROOT, capture_output=True, text=True, timeout=200,
    )  # fmt: skip

    assert found.returncode == 0, found.stdout + found.stderr
    assert " 0 problems" in found.stdout


def test_a_write_of_another_process_is_seen_by_the_next_read(tmp_path: Path) -> None:
    worker = Worker()
    try:
        with koru_delta.open(tmp_path / "db", durability="relaxed") as db:
            worker.ask(do="open", path=str(tmp_path / "db"), now=db.stats()["seq"])
            for number in range(200):
                given = {"namespace": "n", "key": "k", "value": {"at": number}}
                made = worker.ask(do="write", verb="put", given=given)
                assert made[0][0][0] == 2 * number + 1
                for _ in range(3):  # the first asks the file, the others memory
                    assert db.get("n", "k") == {"at": number}
                db.put("n", "k", number)
                assert worker.ask(do="get", namespace="n", key="k") == [number]
            assert worker.ask(do="close") is None
            assert db.verify().ok
    finally:
        worker.close()


def test_processes_that_open_a_new_directory_at_once_make_one_database(tmp_path: Path) -> None:
    opening = (
        "import sys, time, koru_delta\n"
        "while time.time() < float(sys.argv[2]): pass\n"
        "with koru_delta.open(sys.argv[1], durability='relaxed') as db:\n"
        "    db.put('n', sys.argv[3], 1)\n"
    )
    for turn in range(3):
        at = str(time.time() + 2)
        path = str(tmp_path / str(turn))
        made = [
            subprocess.Popen(
                [sys.executable, "-c", opening, path, at, str(n)],
                cwd=ROOT, stderr=subprocess.PIPE, text=True,
            )
            for n in range(4)
        ]  # fmt: skip
        assert [process.communicate(timeout=120)[1] for process in made] == [""] * 4
        with koru_delta.open(path) as db:
            assert db.list_keys("n") == ["0", "1", "2", "3"]
            assert db.verify().ok
