"""Commands that take in files and histories."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from koru_delta.ingest import ChunkingConfig, Run, ingest_files, ingest_git
from koru_delta.ingest.files import read_files
from koru_delta.ingest.git import read_history
from koru_delta.surfaces import show
from koru_delta.surfaces.cli.app import app
from koru_delta.surfaces.cli.frame import DEFAULT, Bar, local_model, opened, path_of, writer
from koru_delta.surfaces.cli.options import Author, ChunkSize, Cut, Db, Json, Message

_ingest = typer.Typer(no_args_is_help=True)
app.add_typer(
    _ingest,
    name="ingest",
    help="Take in text files, or every revision of a git repository.",
    rich_help_panel="Sources",
)


@_ingest.command("files")
def ingest_files_command(
    ctx: typer.Context,
    paths: Annotated[list[Path], typer.Argument(help="Files and directories.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where to.")] = "docs",
    include: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Only these, such as '*.md'.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete what is gone from the directories.")
    ] = False,
    chunking: Cut = None,
    chunk_size: ChunkSize = None,
    no_embed: Annotated[bool, typer.Option("--no-embed", help="Text without vectors.")] = False,
    author: Author = None,
    message: Message = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Take in text files as they are now; again, only what has changed.

    PDF and HTML are read with the extra documents: pip install 'koru-delta[documents]'.
    """
    how = _chunking(chunking, chunk_size)
    embedder = None if no_embed else local_model("pass --no-embed to ingest text alone")
    read_files(paths, include=include or ())  # what is refused makes no database
    with opened(ctx, db, write=True) as database, Bar("files", quiet=as_json) as bar:
        report = ingest_files(
            database, paths, namespace=namespace, include=include or (), embedder=embedder,
            prune=prune, author=author or writer(), message=message, chunking=how,
            progress=bar.update,
        )  # fmt: skip
    _print_report(report, as_json=as_json, where=path_of(ctx, db))


@_ingest.command("git")
def ingest_git_command(
    ctx: typer.Context,
    repo: Annotated[Path, typer.Argument(help="A git repository.")] = Path(),
    rev: Annotated[str, typer.Option(help="Branch, tag or commit whose history it is.")] = "HEAD",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where to.")] = "docs",
    include: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Only these, such as '*.md'.")
    ] = None,
    chunking: Cut = None,
    chunk_size: ChunkSize = None,
    no_embed: Annotated[bool, typer.Option("--no-embed", help="Text without vectors.")] = False,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Take in every revision of every text file; again, only new commits.

    What a file held is valid from its commit's time: ask with --valid-at. Merged side
    branches are not followed: their changes arrive with the merge.
    """
    how = _chunking(chunking, chunk_size)
    embedder = None if no_embed else local_model("pass --no-embed to ingest text alone")
    if not path_of(ctx, db).exists():
        read_history(repo, rev=rev, include=include or ())  # what is refused makes no database
    with opened(ctx, db, write=True) as database, Bar("commits", quiet=as_json) as bar:
        report = ingest_git(
            database, repo, rev=rev, namespace=namespace, include=include or (),
            embedder=embedder, chunking=how, progress=bar.update,
        )  # fmt: skip
    _print_report(report, as_json=as_json, where=path_of(ctx, db))


def _chunking(strategy: str | None, size: int | None) -> ChunkingConfig | None:
    """How to cut, by the name of a strategy and the size of a chunk."""
    if strategy is None and size is None:
        return None
    given: Any = strategy or "content"  # a name that is none is refused
    return ChunkingConfig(given, size=size)


def _print_report(report: Run, *, as_json: bool, where: Path) -> None:
    if as_json:
        show.print_json(report_facts(report))
        return
    out = show.console(stderr=True)
    if report.run is None:
        out.print(f"nothing new for {show.clean(report.namespace)}")
    else:
        commits = f"{report.commits:,} commits, " if report.source == "git" else ""
        out.print(
            f"{show.clean(report.namespace)}: {commits}{report.documents:,} versions of documents "
            f"and {report.deleted_documents:,} deletes, {report.chunks:,} chunks stored, "
            f"{report.unchanged_chunks:,} unchanged, {report.embedded:,} texts embedded",
            soft_wrap=True,
        )
    if report.is_shallow:
        out.print("the clone is shallow: its oldest commit seems to add every file")
    if report.elsewhere:
        told = (
            "1 commit that was"
            if report.elsewhere == 1
            else f"{report.elsewhere:,} commits that were"
        )
        out.print(
            Text.assemble(
                ("note: ", "bold yellow"),
                f"{told} ingested earlier cannot be reached from here: history was rewritten, or "
                "that was another branch. What was ingested still stands, also of files that only "
                "stood there; to tell this history alone, ingest it into another namespace "
                "(-n NAME)",
            ),
            soft_wrap=True,
        )
    reasons: dict[str, list[str]] = {}
    for path, reason in report.skipped.items():
        reasons.setdefault(reason.value, []).append(path)
    for why, paths in sorted(reasons.items()):
        more = ", …" if len(paths) > 3 else ""
        named = ", ".join(show.one_line(path) for path in paths[:3])
        out.print(f"skipped {len(paths):,} ({why}): {named}{more}", soft_wrap=True)
    if report.gone and not report.deleted_documents:
        out.print(
            f"{len(report.gone):,} files are gone since, such as {show.one_line(report.gone[0])}; "
            "--prune deletes their documents",
            soft_wrap=True,
        )
    option = "" if where == DEFAULT else f" --db {where}"
    out.print(f'ask it: kdelta search {report.namespace} "your question"{option}', soft_wrap=True)


def report_facts(report: Run) -> dict[str, Any]:
    """A report of a run as JSON."""
    return {
        "namespace": report.namespace, "source": report.source, "run": report.run,
        "head": report.head, "commits": report.commits, "documents": report.documents,
        "deleted_documents": report.deleted_documents, "chunks": report.chunks,
        "deleted_chunks": report.deleted_chunks, "unchanged_chunks": report.unchanged_chunks,
        "unchanged_documents": report.unchanged_documents,
        "embedded": report.embedded, "is_shallow": report.is_shallow,
        "elsewhere": report.elsewhere, "gone": report.gone,
        "skipped": {path: reason.value for path, reason in report.skipped.items()},
    }  # fmt: skip
