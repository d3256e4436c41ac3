"""The short form of `python -m tests.crash`, which a longer campaign runs by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_killed_writer_loses_nothing_it_acknowledged() -> None:
    # In a process of its own: the writers are forks, and should inherit nothing from here.
    found = subprocess.run(
        [sys.executable, "-m", "tests.crash", "--kills", "20"],
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True, text=True, timeout=250,
    )  # fmt: skip

    assert found.returncode == 0, found.stdout + found.stderr
    assert "20 kills" in found.stdout
    assert " 0 lost, 0 half batches" in found.stdout
