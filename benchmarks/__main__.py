"""Measure, print, and keep: `python -m benchmarks [NAME...] [--json FILE]`.

Several subjects run one after the other, each in a process of its own: what one leaves
behind in a process can slow the next (after `put`, numpy's product was seen to take four
times as long, and every ratio against it looked better than it was). What is compared
stays together in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import apsw
import numpy as np
from rich.console import Console
from rich.table import Table

import koru_delta
from benchmarks import (
    adapters,
    chunking,
    ingesting,
    lifecycle,
    opening,
    reading,
    remembering,
    retrieval,
    searching,
    storing,
    synthesis,
    text,
    tiers,
    writing,
)
from benchmarks.measure import Row, SkippedError, Target

Subject = Callable[[Path, float], Iterator[Row]]
SUBJECTS: dict[str, Subject] = {
    "get": reading.run,
    "put": writing.run,
    "open": opening.run,
    "search": searching.run,
    "text": text.run,
    "retrieval": retrieval.run,
    "chunk": chunking.run,
    "ingest": ingesting.run,
    "storage": storing.run,
    "synthesis": synthesis.run,
    "memory": remembering.run,
    "tiers": tiers.run,
    "lifecycle": lifecycle.run,
    "adapters": adapters.run,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure and print.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SUBJECTS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--scale", type=float, default=1.0, help="of counts and rounds (1)")
    parser.add_argument("--versions", type=int, default=1_000_000, help="for `open` (1000000)")
    parser.add_argument("--no-header", action="store_true", help="only the tables")
    given = parser.parse_args(arguments)
    unknown = set(given.names) - SUBJECTS.keys()
    if unknown:
        parser.error(f"no subject {min(unknown)!r}; there are {', '.join(SUBJECTS)}")
    subjects: dict[str, Subject] = {
        **SUBJECTS,
        "open": partial(opening.run, versions=given.versions),
    }
    names = given.names or list(subjects)
    console = Console(width=None if Console().is_terminal else 132)
    facts = machine()
    if not given.no_header:
        console.print(" · ".join(f"{name} {value}" for name, value in facts.items()))
        console.print(
            "Medians of interleaved rounds. On a machine shared with other work they move by "
            "10 to 30 %; ratios, taken in one run, move less."
        )
    kept: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        if len(names) == 1:
            kept[name] = measure(name, subjects[name], given.scale, console)
        else:
            kept[name] = measure_apart(name, given.scale, given.versions)
    if given.json is not None:
        given.json.write_text(json.dumps({"machine": facts, "figures": kept}, indent=2) + "\n")


def measure_apart(name: str, scale: float, versions: int) -> list[dict[str, Any]]:
    """Run one subject in a process of its own, which prints its table."""
    with tempfile.TemporaryDirectory(prefix="koru-delta-bench-") as folder:
        file = Path(folder, "figures.json")
        subprocess.run(
            [
                sys.executable, "-m", "benchmarks", name, "--no-header", "--json", str(file),
                "--scale", str(scale), "--versions", str(versions),
            ],
            cwd=Path(__file__).parents[1],
            check=True,
        )  # fmt: skip
        rows: list[dict[str, Any]] = json.loads(file.read_text())["figures"][name]
        return rows


def measure(name: str, subject: Subject, scale: float, console: Console) -> list[dict[str, Any]]:
    """Run one subject in a folder of its own and print its table."""
    folder = Path(tempfile.mkdtemp(prefix="koru-delta-bench-"))
    table = Table(title=name, title_justify="left", title_style="bold")
    for heading in ("what", "ours", "peer", "ratio", "target", ""):
        table.add_column(heading, justify="left" if heading in ("what", "") else "right")
    rows: list[dict[str, Any]] = []
    start = perf_counter()
    try:
        for row in subject(folder, scale):
            rows.append({**asdict(row), "ratio": row.ratio, "met": row.met})
            table.add_row(*_cells(row))
    except SkippedError as error:
        console.print(f"{name}: skipped, {error}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    table.caption = f"{perf_counter() - start:.0f} s"
    if rows:
        console.print(table)
    return rows


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "koru_delta": koru_delta.__version__,
        "Python": platform.python_version(),
        "SQLite": apsw.sqlite_lib_version(),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def _cells(row: Row) -> tuple[str, ...]:
    peer = "" if row.peer is None else f"{_number(row.peer)} {row.unit} {row.against}"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}x"
    target = " or ".join(_target(each, row.unit) for each in row.targets)
    verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[row.met]
    return row.what, f"{_number(row.ours)} {row.unit}", peer, ratio, target, verdict


def _target(target: Target, unit: str) -> str:
    limit = f"{target.limit:g}x" if target.of == "ratio" else f"{_number(target.limit)} {unit}"
    return f"{target.sign} {limit}"


def _number(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


if __name__ == "__main__":
    main()
