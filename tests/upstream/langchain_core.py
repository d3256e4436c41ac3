"""langchain-core's own indexing and record-manager tests, run against our classes.

`python -m tests.upstream.langchain_core` takes the source distribution of the version that is
installed from the package index, and runs its tests unmodified in a directory of their own,
with `langchain_core_conftest.py` of ours beside them: first with records and store apart,
then with both of one piece. Nothing of theirs is kept.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

TESTS = (
    "test_indexing.py",
    "test_in_memory_record_manager.py",
    "test_in_memory_indexer.py",
    "test_hashed_document.py",
)
CONFTEST = Path(__file__).with_name("langchain_core_conftest.py")
PROJECT = Path(__file__).resolve().parents[2]


def fetch(package: str, into: Path) -> Path:
    """Unpack the source distribution of a package as it is installed; returns its directory."""
    wanted = f"{package}=={version(package)}"
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--no-binary", package, "--dest", str(into), wanted],
        check=True,
    )  # fmt: skip
    (archive,) = into.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    (root,) = (path for path in into.iterdir() if path.is_dir())
    return root


def run(tests: Path, *, together: bool) -> int:
    """Run the tests in a directory of their own; returns pytest's exit code."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECT),
        "KORU_UPSTREAM_TOGETHER": "1" if together else "",
    }
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name in TESTS:
            shutil.copy(tests / name, place / name)
        shutil.copy(CONFTEST, place / "conftest.py")
        (place / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
        print("records and store", "of one piece:" if together else "apart:", flush=True)
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *sys.argv[1:]],
            cwd=place, env=environment,
        ).returncode  # fmt: skip


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        root = fetch("langchain-core", Path(folder))
        tests = root / "tests" / "unit_tests" / "indexing"
        return max(run(tests, together=together) for together in (False, True))


if __name__ == "__main__":
    sys.exit(main())
