"""The short form of `python -m tests.searching`."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from koru_delta.search import graph
from tests.worker import ROOT


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_threads_and_processes_that_search_and_write_see_and_lose_what_they_should() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "tests.searching", "--seconds", "5"],
        cwd=ROOT, capture_output=True, text=True, timeout=200,
    )  # fmt: skip

    assert found.returncode == 0, found.stdout + found.stderr
    assert " 0 problems" in found.stdout
    by_graph, by_codes = re.findall(r"([\d,]+) by", found.stdout)
    assert by_codes != "0"
    assert (by_graph != "0") == graph.available()
