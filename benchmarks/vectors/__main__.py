"""Measure, print, keep, draw: `python -m benchmarks.vectors [PART...] [--json F] [--plot F]`."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.vectors.apart import ApartError
from benchmarks.vectors.bench import Bench
from benchmarks.vectors.measuring import pace
from benchmarks.vectors.peers import NAMES
from benchmarks.vectors.report import Part, document, draw, show

PARTS = (
    "now",
    "past",
    "texts",
    "commits",
    "churn",
    "writes",
    "reopen",
    "memory",
    "many",
    "floors",
)
_PACKAGES = (
    "numpy", "hnswlib", "turbovec", "numkong", "simsimd", "usearch", "faiss-cpu",
    "langchain-community", "zvec", "qdrant-edge-py", "chromadb", "lancedb", "milvus-lite",
    "sqlite-vec",
)  # fmt: skip
_FAILED = "it could not be measured"
_NEEDED = 15  # GB free, for all parts at full scale


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.vectors", description="Measure search by vector."
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw recall against latency")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="write the tables as Markdown")
    parser.add_argument("--quick", action="store_true", help="tiny sets: only that it runs")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of rows (1)")
    parser.add_argument(
        "--beside", nargs="+", choices=NAMES, default=NAMES, metavar="PEER",
        help=f"only these beside ours, of {', '.join(NAMES[1:])}",
    )  # fmt: skip
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="keep sets and databases here")
    given = parser.parse_args(arguments)
    unknown = set(given.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part {min(unknown)!r}; there are {', '.join(PARTS)}")
    roomy = given.work or Path(tempfile.gettempdir())
    roomy.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(roomy).free / 1e9, _NEEDED * given.scale
    if free < needed and not given.quick and not given.parts:
        parser.error(
            f"databases take {needed:.0f} GB, and {roomy} has {free:.0f}: make room, "
            "pass --work a folder with more, or --scale a smaller number"
        )
    console = Console(width=None if Console().is_terminal else 160)
    facts = machine()
    console.print(" · ".join(f"{name} {value}" for name, value in facts.items()))
    if given.quick:
        console.print("A smoke test: none of these figures says anything about speed.")
    folder = given.work or Path(tempfile.mkdtemp(prefix="koru-delta-vectors-"))
    begin = perf_counter()
    try:
        bench = Bench(folder, given.scale, given.quick, tuple(given.beside))
        parts = [measure(name, bench, console) for name in given.parts or PARTS]
    finally:
        if given.work is None:
            shutil.rmtree(folder, ignore_errors=True)
    checks = [check for part in parts for check in part.checks]
    targets = [check for check in checks if not check.peer]
    ahead = [check for check in checks if check.peer]
    met = sum(check.met for check in targets)
    console.print(f"\n{met} of {len(targets)} targets met, {len(targets) - met} MISSED")
    console.print(f"ahead of peers in {sum(each.met for each in ahead)} of {len(ahead)} figures")
    console.print(f"{perf_counter() - begin:.0f} s in all")
    write(parts, facts, given.json, given.plot, given.docs, console)
    failed = [part.name for part in parts if part.title == _FAILED]
    if failed:
        raise SystemExit(f"not measured: {', '.join(failed)}")


def measure(name: str, bench: Bench, console: Console) -> Part:
    """Run one part and print it; a part that fails is told of and does not end the others."""
    begin, before = perf_counter(), pace()
    try:
        part: Part = importlib.import_module(f"benchmarks.vectors.{name}").run(bench)
    except (ApartError, OSError) as error:
        part = Part(name, _FAILED, skipped=str(error))
    part.pace = f"{before} before; {pace()} after"
    show(part, console)
    console.print(f"  {name}: {perf_counter() - begin:.0f} s")
    return part


def write(
    parts: Sequence[Part],
    facts: dict[str, str],
    figures: Path | None,
    plot: Path | None,
    docs: Path | None,
    console: Console,
) -> None:
    """The files that were asked for."""
    for file in (figures, plot, docs):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
    curves = [curve for part in parts for curve in part.curves]
    if plot is not None and not curves:
        console.print("no plot: only the part `now` has curves")
        plot = None
    if plot is not None:
        try:
            draw(curves, plot)
        except ImportError:
            console.print("no plot: matplotlib is not installed")
            plot = None
    if figures is not None:
        told: dict[str, Any] = {part.name: part.as_json() for part in parts}
        figures.write_text(json.dumps({"machine": facts, "parts": told}, indent=2) + "\n")
    if docs is not None:
        beside = None if plot is None else os.path.relpath(plot, docs.parent)
        names = tuple(part.name for part in parts)
        command = "make bench-vectors"
        if names != PARTS:
            command = f"python -m benchmarks.vectors {' '.join(names)}"
        docs.write_text(document(parts, facts, beside, command))


def machine() -> dict[str, str]:
    """What the figures were measured on; what is missing is named too."""
    found = {
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "vector instructions": _instructions(),
    }
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def _instructions() -> str:
    """Those that numpy found: what of AVX-512 there is makes codes several times as quick."""
    known: Any = np.show_config(mode="dicts")
    there: dict[str, list[str]] = known.get("SIMD Extensions", {})
    return " ".join(there.get("found", there.get("baseline", []))) or "unknown"


if __name__ == "__main__":
    main()
