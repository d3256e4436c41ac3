"""Every example runs, and its assertions hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_runs(example: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()


def test_retrieval_in_time_needs_no_data(tmp_path: Path) -> None:
    [example] = [path for path in EXAMPLES if path.stem == "rag_in_time"]
    without = {name: value for name, value in os.environ.items() if name != "KORU_DATA"}

    done = subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        cwd=tmp_path, capture_output=True, text=True, env=without,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "A handbook" in done.stdout
