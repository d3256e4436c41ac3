"""What can be ingested, and the one verb that takes it in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koru_delta.errors import InvalidDataError
from koru_delta.ingest.chunking import ChunkingConfig
from koru_delta.ingest.files import DEFAULT_MAX_BYTES
from koru_delta.ingest.folders import ingest_files
from koru_delta.ingest.history import ingest_git
from koru_delta.ingest.records import Record, ingest_records
from koru_delta.ingest.run import Run
from koru_delta.ingest.store import EmbedderChoice, Store
from koru_delta.progress import Progress


@dataclass(frozen=True, slots=True)
class Files:
    """The files at and below paths, as they are now; see `koru_delta.ingest.ingest_files`.

    `prune` deletes the documents whose file is gone from a directory.
    """

    paths: str | Path | Sequence[str | Path]
    prune: bool = False


@dataclass(frozen=True, slots=True)
class Git:
    """Every revision in the first-parent history of `rev`; see `koru_delta.ingest.ingest_git`."""

    repo: str | Path
    rev: str = "HEAD"


@dataclass(frozen=True, slots=True)
class Records:
    """Records of a program; see `koru_delta.ingest.ingest_records`.

    `complete` deletes the documents that are not among them.
    """

    records: Iterable[Record]
    complete: bool = False


Source = Files | Git | Records | str | Path | Iterable[Record]


def ingest(
    db: Store,
    source: Source,
    *,
    namespace: str,
    chunking: ChunkingConfig | None,
    include: Sequence[str],
    embedder: EmbedderChoice,
    max_bytes: int | None,
    author: str | None,
    message: str | None,
    run: str | None,
    progress: Progress,
) -> Run:
    """Take in a source, as `Database.ingest` says."""
    options: dict[str, Any] = {
        "namespace": namespace, "chunking": chunking, "embedder": embedder,
        "author": author, "message": message, "run": run, "progress": progress,
    }  # fmt: skip
    if isinstance(source, (str, Path)):
        source = Files(source)
    if isinstance(source, (Files, Git)):
        options["include"] = include
        options["max_bytes"] = DEFAULT_MAX_BYTES if max_bytes is None else max_bytes
        if isinstance(source, Git):
            return ingest_git(db, source.repo, rev=source.rev, **options)
        return ingest_files(db, source.paths, prune=source.prune, **options)
    if include or max_bytes is not None:
        raise InvalidDataError("include= and max_bytes= choose files; choose the records yourself")
    if not isinstance(source, Records):
        source = Records(source)
    return ingest_records(db, source.records, complete=source.complete, **options)
