"""From a chunk back to the lines, document and commit it came from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from koru_delta.causal import Version
from koru_delta.errors import UnknownVersionError
from koru_delta.ingest.layout import commits_of
from koru_delta.ingest.writer import Store
from koru_delta.values import Value

_END_OF_TIME = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_SHA = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a chunk stands at a moment, and the commit that brought it in.

    Characters are half-open, lines count from 1 and are inclusive; None if the document
    that stands at that moment has no such chunk. `commit` is None for plain files.
    """

    path: str
    start: int | None
    end: int | None
    first_line: int | None
    last_line: int | None
    commit: str | None
    author: str | None
    email: str | None
    message: str | None
    committed_at: datetime | None


def origin(
    db: Store,
    namespace: str,
    chunk: Version,
    *,
    as_of: Any = None,
    valid_at: datetime | str | None = None,
) -> Origin:
    r"""Trace a chunk that was found with `as_of` and `valid_at` in a namespace's chunks.

    Args:
        namespace: The documents' (`docs`, not `docs.chunks`).

    >>> import koru_delta, pathlib, tempfile
    >>> from koru_delta.ingest import ingest_files
    >>> from koru_delta.testing import HashEmbedder
    >>> words = HashEmbedder()
    >>> db = koru_delta.open(embedder=words)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "a.md").write_text("# Rain\n\nIt rains.\n")
    ...     _ = ingest_files(db, [folder], embedder=words)
    >>> [match] = db.similar("docs.chunks", "rains", k=1)
    >>> found = origin(db, "docs", match.version)
    >>> found.path, found.first_line, found.last_line
    ('a.md', 1, 3)
    >>> db.close()
    """
    about = chunk.value["metadata"]
    document: Value = db.get(namespace, about["document"], None, as_of=as_of, valid_at=valid_at)
    layout = document.get("chunks", []) if isinstance(document, dict) else []
    start, end, first_line, last_line = next(
        (row[1:5] for row in layout if row[0] == chunk.key), [None] * 4
    )
    source = next(
        (
            version.value
            for version in db.ancestors(chunk, kinds=["derived_from"], max_hops=2)
            if version.namespace == commits_of(namespace)
        ),
        None,
    )
    if source is None:
        source = {"sha": None, "author": chunk.author, "email": None, "message": chunk.message}
    committed_at = source.get("committed_at")
    return Origin(
        path=about["path"],
        start=start,
        end=end,
        first_line=first_line,
        last_line=last_line,
        commit=source["sha"],
        author=source["author"],
        email=source["email"],
        message=source["message"],
        committed_at=None if committed_at is None else datetime.fromisoformat(committed_at),
    )


def commit_time(db: Store, namespace: str, sha: str) -> datetime:
    """The moment from which an ingested commit holds, for `valid_at=`.

    Args:
        sha: Its hash, or the beginning of it that no other has (4 digits or more).

    Raises:
        UnknownVersionError: no such commit was ingested, or more than one.
    """
    commits = commits_of(namespace)
    found = (
        db.list_keys(commits, prefix=sha, limit=2, valid_at=_END_OF_TIME)
        if _SHA.fullmatch(sha)
        else []
    )
    if len(found) != 1:
        several = "more than one commit starting with " if found else "commit "
        raise UnknownVersionError(f"{several}{sha} of {namespace!r}")
    committed_at: str = db.get(commits, found[0], valid_at=_END_OF_TIME)["committed_at"]
    return datetime.fromisoformat(committed_at)
