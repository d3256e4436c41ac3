"""The short form of `python -m tests.erasing`; with KORU_LONG_SECONDS a longer one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_what_a_killed_process_has_erased_is_in_no_file_of_the_next() -> None:
    kills = "1000" if float(os.environ.get("KORU_LONG_SECONDS", "0")) else "30"
    # In a process of its own: the killed ones are forks, and should inherit nothing from here.
    found = subprocess.run(
        [sys.executable, "-m", "tests.erasing", "--kills", kills],
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True, text=True, timeout=3_000,
    )  # fmt: skip

    assert found.returncode == 0, found.stdout + found.stderr
    assert " 0 problems" in found.stdout
