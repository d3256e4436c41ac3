"""Every revision of 70 Python Enhancement Proposals: a real history, and its own oracle."""

from __future__ import annotations

import json
import lzma
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from koru_delta import Database

FILE = "peps/full-text-revisions.jsonl.xz"
NAMESPACE = "peps"


class Revision(NamedTuple):
    """What a PEP said from a moment on."""

    pep: str
    committed_at: int  # seconds since 1970
    value: dict[str, str]

    @property
    def time(self) -> datetime:
        return datetime.fromtimestamp(self.committed_at, UTC)


def data_file() -> Path | None:
    """The revisions, where `KORU_DATA` says; None where it says nothing or they are missing."""
    folder = os.environ.get("KORU_DATA")
    found = Path(folder, FILE) if folder else None
    return found if found is not None and found.is_file() else None


def read_revisions(file: Path) -> list[Revision]:
    """In the order of their time; those of one second in the order of the file."""
    with lzma.open(file, "rt", encoding="utf-8") as lines:
        rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    revisions = [
        Revision(
            f"pep-{row['pep']}", row["committed_at"],
            {"text": row["text"], "status": row["status"], "commit": row["commit"]},
        )
        for row in rows
    ]  # fmt: skip
    return sorted(revisions, key=lambda revision: revision.committed_at)


def ingest(db: Database, revisions: Sequence[Revision], *, together: int = 200) -> None:
    """Put every revision, valid from its time; so many to a commit."""
    for some in batches(revisions, together):
        with db.transaction(message="PEP revisions") as tx:
            for revision in some:
                tx.put(NAMESPACE, revision.pep, revision.value, valid_from=revision.time)


def batches(revisions: Sequence[Revision], together: int) -> Iterator[Sequence[Revision]]:
    return (revisions[n : n + together] for n in range(0, len(revisions), together))
