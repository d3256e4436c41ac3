"""Ingest a git history: every revision of every text file, valid from its committer time.

Interrupted, a run leaves whole commits, and the next one goes on. Commits that
arrive later than younger ones (another branch, a clock set back) are put in
between: what a path holds after the next change that is known stays as it was.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, cast

from koru_delta.causal import FOREVER, microseconds, moment
from koru_delta.errors import IngestError
from koru_delta.ingest.chunking import ChunkingConfig
from koru_delta.ingest.cutting import cut_as
from koru_delta.ingest.files import DEFAULT_MAX_BYTES
from koru_delta.ingest.git import BlobReader, Commit, CommitRef, History, read_history
from koru_delta.ingest.layout import commits_of
from koru_delta.ingest.reasons import SkipReason
from koru_delta.ingest.run import Run
from koru_delta.ingest.settings import settings_of
from koru_delta.ingest.store import EmbedderChoice, Store, chosen_embedder
from koru_delta.ingest.writer import Entry, Moment, Writer
from koru_delta.progress import Progress, shown
from koru_delta.values import Value

_END_OF_TIME: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def ingest_git(
    db: Store,
    repo: str | Path,
    *,
    rev: str = "HEAD",
    include: Sequence[str] = (),
    namespace: str = "docs",
    embedder: EmbedderChoice = "own",
    author: str | None = None,
    message: str | None = None,
    chunking: ChunkingConfig | None = None,
    max_chars: int | None = None,
    min_chars: int | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
    run: str | None = None,
    progress: Progress | None = None,
) -> Run:
    """Ingest the first-parent history of `rev` into `namespace`; again, only what is new.

    Afterwards `db.get(namespace, path, valid_at=t)["text"]` is the file as it was at `t`,
    and a search in `f"{namespace}.chunks"` with `valid_at=t` finds what stood there then
    (see `koru_delta.ingest.layout` for all that is kept).

    What was ingested stays: after other revs, or when history was rewritten, the namespace
    tells the union of them, the newest change to a path having the last word;
    `Run.elsewhere` counts what is not in the history of `rev`.

    Args:
        include: Glob patterns, see `koru_delta.ingest.files.PathFilter`.
        embedder: Makes the chunks' vectors, in batches: by default the store's own; None
            stores text alone.
        author, message: Who began the run, and why; what the history holds has its own.
        chunking: How to cut; None is as the runs before did, in the first by content, into
            `min_chars` (200) to `max_chars` (1,200), see `koru_delta.ingest.chunking.chunk_text`.
        max_bytes: Larger files are skipped.
        run: Names the run; by default it is numbered.
        progress: Called with the commits done and the commits to do. True shows a bar on
            standard error, False nothing, None a bar on a terminal for long work.

    Raises:
        IngestError: git or the repository fails, the namespace was filled in another
            way or from another history, or another run writes into it.
        EmbedderError: there is no embedder, or it failed.
    """
    report = Run(namespace, "git")
    text_embedder = chosen_embedder(db, embedder)
    known = set(db.list_keys(commits_of(namespace), valid_at=_END_OF_TIME))
    history = read_history(Path(repo), rev=rev, include=include, skip=known)
    report.head, report.is_shallow = history.head, history.is_shallow
    settings, cut = cut_as(
        "git", chunking, include=tuple(include), max_chars=max_chars, min_chars=min_chars,
        max_bytes=max_bytes, model=None if text_embedder is None else text_embedder.name,
        earlier=settings_of(db, namespace),
    )  # fmt: skip
    facts: dict[str, Value] = {
        "repository": history.root.name, "rev": rev, "head": history.head,
    }  # fmt: skip
    writer = Writer(
        db, namespace, settings, text_embedder, report, cut=cut, run=run, facts=facts,
        author=author, message=message,
    )  # fmt: skip
    if known and known.isdisjoint(history.chain):
        raise IngestError(
            f"namespace {namespace!r} holds the history of another repository (or this one was "
            "rewritten from its first commit on); ingest it into a namespace of its own"
        )
    report.elsewhere = _elsewhere(db, namespace, known, history)
    after = _Later(db, namespace, known, history.refs)
    total = len(history)
    reading = cast("Generator[Commit, None, None]", iter(history))  # to be closed when left early
    with (
        shown(progress, "commits", total) as tell,
        BlobReader(history.root, max_bytes=max_bytes) as blobs,
        closing(reading) as commits,
    ):
        tell(0, total)
        for done, commit in enumerate(commits, 1):
            _add(writer, report, after, blobs, commit)
            if writer.is_full:
                writer.flush()
                tell(done, total)
        writer.finish()
        tell(total, total)
    return report


def _elsewhere(db: Store, namespace: str, known: set[str], history: History) -> int:
    """How many known commits are neither before nor after `head`."""
    beside = known.difference(history.chain)
    if not beside:
        return 0
    records = db.get_many(commits_of(namespace), sorted(known), valid_at=_END_OF_TIME)
    parents: dict[str, str | None] = {sha: record["parent"] for sha, record in records.items()}
    older = parents.get(history.chain[0])
    while older in beside:  # a shallow clone lacks them, no more than that
        beside.remove(older)
        older = parents[older]
    left_at = {parents[sha] for sha in beside} - beside
    return 0 if left_at <= {history.head} else len(beside)


class _Later:
    """The changes that are known already and come after one that is still to be written."""

    def __init__(
        self, db: Store, namespace: str, known: set[str], refs: Sequence[CommitRef]
    ) -> None:
        self._changes: dict[str, list[tuple[int, int]]] = {}
        if not known or not refs:
            return
        commits = commits_of(namespace)
        before = moment(refs[0].committed_at - 1)
        late = sorted(known.difference(db.list_keys(commits, valid_at=before)))
        for commit in db.get_many(commits, late, valid_at=_END_OF_TIME).values():
            place = microseconds(commit["committed_at"]), commit["position"]
            for _, *paths in commit["changes"]:
                for path in paths:
                    self._changes.setdefault(path, []).append(place)
        for places in self._changes.values():
            places.sort()

    def next_change(self, path: str, commit: Commit) -> int:
        """When the next known change of `path` after `commit` begins to hold."""
        places = self._changes.get(path, ())
        following = bisect_right(places, (commit.committed_at, commit.position))
        return places[following][0] if following < len(places) else FOREVER


def _add(writer: Writer, report: Run, after: _Later, blobs: BlobReader, commit: Commit) -> None:
    """Plan one commit: its record, then every path it changed, deletes first."""
    subject = commit.message.partition("\n")[0].strip()
    author = commit.author_name or commit.author_email or None
    when = Moment(commit.committed_at, FOREVER, author, subject or None)
    record = writer.commit(commit.sha, _record(commit), when)
    for skipped in commit.skipped:
        report.skipped[skipped.path] = skipped.reason
    outcome: dict[str, str | None] = {}
    came_from: dict[str, tuple[str, Entry]] = {}
    for change in commit.changes:
        if change.old_path is not None:
            outcome[change.old_path] = None
            previous = writer.version(change.old_path, commit.committed_at)
            if previous is not None:
                came_from[change.path] = change.old_path, previous
    for change in commit.changes:
        text = None if change.blob is None else blobs.text(change.blob)
        if isinstance(text, SkipReason):
            report.skipped[change.path] = text
            text = None
        elif text is not None:
            report.skipped.pop(change.path, None)
        outcome[change.path] = text
    for path, text in sorted(outcome.items(), key=lambda item: item[1] is not None):
        ends = after.next_change(path, commit)
        if ends > commit.committed_at:  # else a commit of the same second has the last word
            writer.change(
                path, text, when._replace(ends=ends), facts={"commit": commit.sha},
                cause=record, previous=came_from.get(path),
            )  # fmt: skip


def _record(commit: Commit) -> Value:
    return {
        "sha": commit.sha,
        "parent": commit.parent,
        "author": commit.author_name,
        "email": commit.author_email,
        "message": commit.message,
        "committed_at": moment(commit.committed_at).isoformat(),
        "authored_at": moment(commit.authored_at).isoformat(),
        "position": commit.position,
        "changes": [
            [change.status, change.path, *([change.old_path] if change.old_path else [])]
            for change in commit.changes
        ],
    }
