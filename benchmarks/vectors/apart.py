"""Run a function of this package in a process of its own and return what it found.

BLAS settings, threads and allocators of one subject would slow the next. What a subject
prints goes to a file, of which the end is told when it fails.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
_TOLD_LINES = 20  # of what a process printed that failed
FAST = ("hnswlib", "turbovec", "numkong", "simsimd")  # what the extra `fast` may bring


class ApartError(Exception):
    """A process did not come to an end, or to a good one; the message says why."""


class Blocked(MetaPathFinder):
    """Makes modules look as though they were not installed."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = frozenset(names)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"{fullname} is blocked here", name=fullname)
        return None


def apart(
    module: str,
    function: str,
    given: dict[str, Any],
    *,
    blocked: Sequence[str] = (),
    seconds: float = 300.0,
    one_thread: bool = True,
) -> Any:
    """`function(**given)` of `benchmarks.vectors.<module>`; arguments and result are JSON.

    Args:
        blocked: Modules that cannot be imported there.
        one_thread: Hold BLAS to one thread. What other libraries do is left to them.

    Raises:
        ApartError: it raised, was killed, or took longer than `seconds`.
    """
    with tempfile.TemporaryDirectory(prefix="koru-delta-apart-") as folder:
        order = {"module": module, "function": function, "given": given, "blocked": list(blocked)}
        answer = Path(folder, "answer.json")
        printed = Path(folder, "printed")
        environment = dict(os.environ, RUST_LOG="error", GRPC_VERBOSITY="NONE")
        if one_thread:
            environment |= {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with printed.open("wb") as output:
            try:
                done = subprocess.run(
                    [sys.executable, "-m", "benchmarks.vectors.apart", str(answer)],
                    input=json.dumps(order).encode(), stdout=output, stderr=output,
                    cwd=ROOT, env=environment, timeout=seconds,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise ApartError(f"stopped after {seconds:.0f} s") from None
        lines = printed.read_text(errors="replace").strip().splitlines()
        if not answer.exists():
            raise ApartError(
                _without_paths(lines[-1])[:300] if lines else f"ended with {done.returncode}"
            )
        told = json.loads(answer.read_text())
    if "failed" in told:
        print("\n".join(lines[-_TOLD_LINES:]), file=sys.stderr)
        raise ApartError(_without_paths(told["failed"]))
    return told["found"]


def _without_paths(message: str) -> str:
    """A message as it may be published: of a path only its last part."""
    return re.sub(r"(?:/[^/\s'\"]+)+/", "", message)


def _main(answer: Path) -> None:
    order = json.load(sys.stdin)
    sys.meta_path.insert(0, Blocked(order["blocked"]))
    told: dict[str, Any]
    try:
        module = importlib.import_module(f"benchmarks.vectors.{order['module']}")
        told = {"found": getattr(module, order["function"])(**order["given"])}
    except Exception as error:  # noqa: BLE001 - told to the process that asked
        import traceback

        traceback.print_exc()
        told = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
    answer.write_text(json.dumps(told))
    sys.stdout.flush()
    os._exit(0)  # some subjects' threads hang at the end of a process


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
