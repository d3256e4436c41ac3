"""LangGraph's own tests, of its published sources, run against KoruDelta's classes.

`python -m tests.upstream.langgraph` takes the source distributions of the installed versions
from the package index, puts `langgraph_conftest.py` of ours in the place of their
conftest, and runs what they hold, in a temporary directory. Nothing of it is kept.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from tests.upstream.langchain_core import PROJECT, fetch

CONFTEST: Final = Path(__file__).with_name("langgraph_conftest.py")
_FAILED: Final = 1  # pytest's exit code
# Each package, and which of its tests: without those of other databases and without those
# that read or write the dictionaries inside of LangGraph's in-memory saver.
SUITES: Final[dict[str, tuple[Sequence[str], Sequence[str]]]] = {
    "langgraph-checkpoint": (
        ("tests/test_memory.py", "tests/test_store.py"),
        (
            "tests/test_memory.py::TestInMemorySaverDeltaChannel",
            "tests/test_memory.py::TestBaseFallbackGetChannelWrites",
            "tests/test_memory.py::TestPreDeltaBlobTerminator",
        ),
    ),
    "langgraph": (
        ("tests",),
        (
            "tests/test_prune_postgres.py",
            "tests/test_delta_channel_benchmark.py",
            "tests/test_channels.py::test_delta_channel_snapshot_version_based",
            "tests/test_delta_channel_update_state.py::test_bulk_update_state_replays_updates_in_the_order_given",
            "tests/test_delta_channel_update_state.py::test_abulk_update_state_replays_updates_in_the_order_given",
        ),
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suites; 0 if all of it passed."""
    parser = argparse.ArgumentParser(description="Run LangGraph's own tests against KoruDelta.")
    parser.add_argument("--keyword", "-k", default="", help="as pytest's -k")
    asked = parser.parse_args(arguments)
    failed = False
    with tempfile.TemporaryDirectory(prefix="koru-langgraph-") as name:
        directory = Path(name)
        for package, (chosen, left_out) in SUITES.items():
            root = fetch(package, directory / package)
            run = directory / f"run-{package}"  # the tests alone: the packages are the installed
            shutil.copytree(root / "tests", run / "tests")
            shutil.copy(CONFTEST, run / "tests" / "conftest.py")
            print(f"{package} {version(package)}:", flush=True)
            failed |= _pytest(run, chosen, left_out, asked.keyword) != 0
    return int(failed)


def _pytest(run: Path, chosen: Sequence[str], left_out: Sequence[str], keyword: str) -> int:
    options = [f"--{'deselect' if '::' in name else 'ignore'}={name}" for name in left_out]
    command = [
        sys.executable, "-m", "pytest", "-q", "--tb=short", "--timeout=300",
        "-o", "asyncio_mode=auto",
        "-o", "asyncio_default_fixture_loop_scope=function",
        *options, *(["-k", keyword] if keyword else []), *chosen,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    code = subprocess.run(command, cwd=run, env=environment, check=False).returncode
    if code == _FAILED:
        # Some race with LangGraph itself: a runner may see that a future is done, and end, before
        # the future's callback has handed its writes to the saver.
        print("what has failed, again:", flush=True)
        again = [*command, "--last-failed", "--last-failed-no-failures=none"]
        code = subprocess.run(again, cwd=run, env=environment, check=False).returncode
    return code


if __name__ == "__main__":
    sys.exit(main())
