"""The short form of `python -m tests.adapters`, which a longer campaign runs by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_stores_stay_of_one_piece_when_processes_contend_and_are_killed() -> None:
    # In a process of its own: the writers are forks, and should inherit nothing from here.
    found = subprocess.run(
        [sys.executable, "-m", "tests.adapters", "--kills", "12", "--turns", "40"],
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True, text=True, timeout=250,
    )  # fmt: skip

    assert found.returncode == 0, found.stdout + found.stderr
    assert "12 kills" in found.stdout
    assert " 0 problems" in found.stdout
