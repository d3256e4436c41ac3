"""Ingest the text files of directories as they are now; again, only what has changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from koru_delta.causal import FOREVER, moment
from koru_delta.errors import IngestError
from koru_delta.ingest.chunking import ChunkingConfig
from koru_delta.ingest.cutting import cut_as
from koru_delta.ingest.files import (
    DEFAULT_MAX_BYTES,
    PathFilter,
    Skipped,
    SourceFile,
    read_files,
)
from koru_delta.ingest.run import Run
from koru_delta.ingest.settings import settings_of
from koru_delta.ingest.store import EmbedderChoice, Store, chosen_embedder
from koru_delta.ingest.writer import Moment, Writer
from koru_delta.progress import Progress, shown
from koru_delta.values import Value


def ingest_files(
    db: Store,
    paths: str | Path | Sequence[str | Path],
    *,
    include: Sequence[str] = (),
    namespace: str = "docs",
    embedder: EmbedderChoice = "own",
    prune: bool = False,
    author: str | None = None,
    message: str | None = None,
    chunking: ChunkingConfig | None = None,
    max_chars: int | None = None,
    min_chars: int | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
    run: str | None = None,
    progress: Progress | None = None,
) -> Run:
    """Ingest the text files at and below `paths`; what they hold is true from now on.

    A document's key is its path below the directory that was named. A file whose text
    is unchanged writes nothing. PDF and HTML files are read with the extra `documents`
    (see `koru_delta.ingest.documents`); their chunks tell `format`, `title` and `page`.

    Args:
        include: Glob patterns, see `koru_delta.ingest.files.PathFilter`.
        embedder: Makes the chunks' vectors, in batches: by default the store's own; None
            stores text alone.
        prune: Delete the documents whose file is gone from a directory in `paths`
            (matching `include`); they are reported either way.
        chunking: How to cut; None is as the runs before did, in the first by content, into
            `min_chars` (200) to `max_chars` (1,200), see `koru_delta.ingest.chunking.chunk_text`.
        max_bytes: Larger files are skipped (a PDF's text counts, not its pictures); what
            was ingested of them stays.
        run: Names the run; by default it is numbered.
        progress: Called with the files done; the number to do is not known. True shows a
            bar on standard error, False nothing, None a bar on a terminal for long work.

    Raises:
        IngestError: a path cannot be read, two directories hold the same path, the
            namespace was filled in another way, or another run writes into it.
        EmbedderError: there is no embedder, or it failed.
        MissingExtraError: a PDF or HTML file was named itself, and cannot be read here.
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    report = Run(namespace, "files")
    text_embedder = chosen_embedder(db, embedder)
    # Unlike a history, files may be read with other patterns each time.
    settings, cut = cut_as(
        "files", chunking, max_chars=max_chars, min_chars=min_chars, max_bytes=max_bytes,
        model=None if text_embedder is None else text_embedder.name,
        earlier=settings_of(db, namespace),
    )  # fmt: skip
    writer = Writer(
        db, namespace, settings, text_embedder, report, cut=cut, run=run, author=author,
        message=message,
    )  # fmt: skip
    when = Moment(None, FOREVER, author, message)
    roots = _roots(paths)
    if db.directory is not None and any(_is_within(root, db.directory) for root in roots):
        raise IngestError(f"{db.directory} is the database itself; name what to ingest")
    found: dict[str, str] = {}
    with shown(progress, "files") as tell:
        for root in roots:
            home = root if root.is_dir() else root.parent
            for item in read_files([root], include=include, max_bytes=max_bytes):
                if isinstance(item, Skipped):
                    report.skipped[item.path] = item.reason
                    found.setdefault(item.path, os.fspath(home))
                    continue
                other = found.setdefault(item.path, os.fspath(home))
                if other != os.fspath(home):
                    raise IngestError(
                        f"{item.path!r} is found in both {other} and {home}; ingest the "
                        "directory above them, or each into a namespace of its own"
                    )
                writer.change(
                    item.path, item.text, when, facts=_facts(item, home),
                    metadata=_metadata(item), pages=() if item.document is None
                    else item.document.pages,
                )  # fmt: skip
                if writer.is_full:
                    writer.flush()
                    tell(len(found), None)
        directories = {os.fspath(root) for root in roots if root.is_dir()}
        report.gone = _gone(db, namespace, directories, found, PathFilter(include))
        if prune:
            for path in report.gone:
                writer.change(path, None, when)
        writer.finish()
        tell(len(found), len(found))
    return report


def _roots(paths: Sequence[str | Path]) -> list[Path]:
    roots: dict[Path, None] = {}
    for path in paths:
        try:
            roots[Path(path).resolve(strict=True)] = None
        except (OSError, ValueError, RuntimeError) as error:
            raise IngestError(f"{path} cannot be read ({error}); check the path") from error
    return list(roots)


def _is_within(path: Path, directory: Path) -> bool:
    return path.is_relative_to(directory.resolve())


def _facts(item: SourceFile, home: Path) -> dict[str, Value]:
    facts: dict[str, Value] = {"root": os.fsencode(home).decode("utf-8", "backslashreplace")}
    with suppress(OverflowError):  # no time of this era
        facts["modified_at"] = moment(item.modified_at).isoformat()
    return facts


def _metadata(item: SourceFile) -> dict[str, Value] | None:
    if item.document is None:
        return None
    title = item.document.title
    return {"format": item.document.kind} | ({} if title is None else {"title": title})


def _gone(
    db: Store, namespace: str, directories: set[str], found: dict[str, str], wanted: PathFilter
) -> list[str]:
    """Documents of these directories that were not found in them any more."""
    gone = []
    for key in db.list_keys(namespace):
        if key in found:
            continue
        value: Any = db.get(namespace, key, None)
        if not isinstance(value, dict) or value.get("root") not in directories:
            continue
        path = value.get("path")
        if isinstance(path, str) and path not in found and wanted.matches(path):
            gone.append(path)
    return gone
