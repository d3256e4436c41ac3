"""What a run found and wrote, for programs and for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from koru_delta.ingest.layout import chunks_of, document_key
from koru_delta.ingest.reasons import SkipReason

_NAMED: Final = 3  # paths, in the text for people


@dataclass(slots=True)
class Run:
    """What a run found and wrote; counts of 0 and `run` None when there was nothing new.

    `run` names it and is its key in the namespace `runs_of(namespace)`. `documents` and
    `chunks` count versions stored, `unchanged_documents` those found as they stand,
    `unchanged_chunks` those of changed documents that were there already, `embedded` the
    texts given to the embedder. `skipped` tells why a path (its newest state) was left
    out; `gone` are files of an ingested directory that are no longer in it (they are stored
    and found as before, unless the run was to prune), and records that are not in a complete
    source any more. `quarantined` are documents that this run stored and of which earlier
    versions stand in quarantine: the new ones are found, until they are quarantined too.
    `is_shallow`: the clone lacks older commits. `elsewhere` counts commits ingested earlier
    that are not in the history asked for now (nor follow it): it was rewritten, or they are
    on another branch. What they said still stands. Printed, it is told for people.
    """

    namespace: str
    source: str
    run: str | None = None
    head: str | None = None
    commits: int = 0
    documents: int = 0
    deleted_documents: int = 0
    chunks: int = 0
    deleted_chunks: int = 0
    unchanged_chunks: int = 0
    embedded: int = 0
    is_shallow: bool = False
    elsewhere: int = 0
    skipped: dict[str, SkipReason] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    unchanged_documents: int = 0
    quarantined: list[str] = field(default_factory=list)

    @property
    def chunks_namespace(self) -> str:
        """The namespace to search: that of the chunks."""
        return chunks_of(self.namespace)

    @property
    def found_nothing(self) -> bool:
        """Whether there was no file or record at all."""
        return self.source != "git" and not (
            self.documents or self.unchanged_documents or self.skipped
        )

    def __str__(self) -> str:
        """What it did, what was left out and what to do about it, for people."""
        what = {"git": "commits", "files": "files"}.get(self.source, "records")
        if self.run is not None:
            commits = f"{_count(self.commits, 'commit')}, " if self.source == "git" else ""
            lines = [
                f"{self.namespace}: {commits}{_count(self.documents, 'document')} stored, "
                f"{self.deleted_documents:,} deleted, {self.unchanged_documents:,} unchanged; "
                f"{_count(self.chunks, 'chunk')} stored, {self.embedded:,} embedded "
                f"(run {self.run})"
            ]
        elif self.found_nothing:
            lines = [f"{self.namespace}: no {what} were found"]
        else:
            lines = [f"{self.namespace}: nothing new"]
        reasons: dict[str, list[str]] = {}
        for path, reason in self.skipped.items():
            reasons.setdefault(reason.value, []).append(path)
        for why, paths in sorted(reasons.items()):
            lines.append(f"skipped {len(paths):,} ({why}): {_some(paths)}")
        if self.gone and not self.deleted_documents:
            lines.append(
                f"gone, but still stored and found: {_some(self.gone)}; to delete what is gone, "
                "ingest koru_delta.ingest.Files(paths, prune=True)"
            )
        if self.quarantined:
            lines.append(
                f"found again, though earlier versions are in quarantine: "
                f"{_some(self.quarantined)}; for each that is as bad: "
                f"db.quarantine(({self.namespace!r}, {document_key(self.quarantined[0])!r}))"
            )
        if not self.found_nothing:
            lines.append(f'search it: db.search("{self.chunks_namespace}", "your question")')
        return "\n".join(lines)


Report = Run  # its earlier name


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (
        f" and {len(names) - _NAMED:,} more" * (len(names) > _NAMED)
    )
