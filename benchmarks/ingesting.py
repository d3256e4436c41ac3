"""Ingest of a git history apart from embedding: reading git, chunking, storing, lineage."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

import koru_delta
from benchmarks.histories import made_up, of_peps, write_repository
from benchmarks.measure import Row, SkippedError, at_least, quiet, sized
from benchmarks.peps import data_file, read_revisions
from koru_delta.ingest import Report, ingest_git


def run(folder: Path, scale: float) -> Iterator[Row]:
    if shutil.which("git") is None:
        raise SkippedError("there is no git here")
    commits, rounds = sized(1500, scale, 10), sized(3, scale, 1)
    repository = write_repository(folder / "made-up", made_up(commits))
    yield from _rows(folder, f"{commits:,} made-up commits", repository, rounds)
    file = data_file()
    if file is not None:
        revisions = read_revisions(file)
        revisions = revisions[: sized(len(revisions), scale, 10)]
        repository = write_repository(folder / "peps", of_peps(revisions))
        yield from _rows(folder, f"{len(revisions):,} PEP revisions", repository, min(rounds, 2))


def _rows(folder: Path, name: str, repository: Path, rounds: int) -> Iterator[Row]:
    """Every round fills a database of its own; the second run of each finds nothing new."""
    first: list[float] = []
    again: list[float] = []
    report = Report("docs", "git")
    for n in range(rounds):
        with koru_delta.open(folder / f"{repository.name}-{n}") as db, quiet():
            start = perf_counter()
            report = ingest_git(db, repository, embedder=None)
            first.append(perf_counter() - start)
            start = perf_counter()
            ingest_git(db, repository, embedder=None)
            again.append(perf_counter() - start)
    stored = report.chunks
    yield Row(
        f"ingest_git, {name}: {stored:,} chunk versions", stored / median(first),
        "chunk versions/s", targets=(at_least(2000),),
    )  # fmt: skip
    seen = stored + report.unchanged_chunks
    yield Row(f"  chunks looked at ({seen:,}, the unchanged too)", seen / median(first), "chunks/s")
    yield Row("  all of it", median(first), "s")
    yield Row("  running it again, nothing new", median(again) * 1000, "ms")
