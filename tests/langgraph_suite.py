"""LangGraph's own tests, of its published sources, run against KoruDelta's classes.

`python -m tests.langgraph_suite` takes the source distributions of the installed versions
from the package index, puts `langgraph/published_conftest.py` in the place of their
conftest, and runs what they hold, in a temporary directory. Nothing of it is kept.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
CONFTEST: Final = HERE / "langgraph" / "published_conftest.py"
NEEDED: Final = ("pytest-mock", "pycryptodome")  # what their tests need and ours do not
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
    """Run the suites; what pytest says last is what it came to."""
    parser = argparse.ArgumentParser(description="Run LangGraph's own tests against KoruDelta.")
    parser.add_argument("--keyword", "-k", default="", help="as pytest's -k")
    asked = parser.parse_args(arguments)
    failed = False
    with tempfile.TemporaryDirectory(prefix="koru-langgraph-") as name:
        directory = Path(name)
        extra = directory / "extra"
        _pip("install", "--target", str(extra), "--no-deps", *NEEDED)
        for package, (chosen, left_out) in SUITES.items():
            wanted = f"{package}=={version(package)}"
            _pip("download", "--no-deps", "--no-binary", package, "-d", name, wanted)
            (archive,) = directory.glob(f"{package.replace('-', '_')}-{version(package)}.tar.gz")
            place = directory / package
            with tarfile.open(archive) as sources:
                sources.extractall(place, filter="data")
            (tests,) = place.glob("*/tests")
            run = directory / f"run-{package}"  # the tests alone: the packages are the installed
            shutil.copytree(tests, run / "tests")
            shutil.copy(CONFTEST, run / "tests" / "conftest.py")
            print(f"== {wanted}", flush=True)
            failed |= _pytest(run, extra, chosen, left_out, asked.keyword) != 0
    return int(failed)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*command, *arguments], check=True)


def _pytest(
    run: Path, extra: Path, chosen: Sequence[str], left_out: Sequence[str], keyword: str
) -> int:
    options = [f"--{'deselect' if '::' in name else 'ignore'}={name}" for name in left_out]
    paths = [str(HERE.parent), str(extra), os.environ.get("PYTHONPATH", "")]
    command = [
        sys.executable, "-m", "pytest", "-q", "--tb=short", "--timeout=300",
        "-p", "no:cacheprovider", "-o", "asyncio_mode=auto",
        "-o", "asyncio_default_fixture_loop_scope=function",
        *options, *(["-k", keyword] if keyword else []), *chosen,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.run(command, cwd=run, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
