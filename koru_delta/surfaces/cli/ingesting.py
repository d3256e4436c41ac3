"""Commands that take in files and histories."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from koru_delta.ingest import ChunkingConfig, Run, ingest_files, ingest_git
from koru_delta.ingest.files import read_files
from koru_delta.ingest.git import read_history
from koru_delta.ingest.layout import check_home, document_key
from koru_delta.surfaces import show
from koru_delta.surfaces.cli.app import app
from koru_delta.surfaces.cli.frame import (
    DEFAULT,
    USAGE,
    Bar,
    complain,
    local_model,
    opened,
    path_of,
    writer,
)
from koru_delta.surfaces.cli.options import Author, ChunkSize, Cut, Db, Json, Message

Where = Annotated[str, typer.Option("--namespace", "-n", help="Where to.")]
Include = Annotated[
    list[str] | None, typer.Option(metavar="GLOB", help="Only these, such as '*.md'.")
]
NoEmbed = Annotated[bool, typer.Option("--no-embed", help="Text without vectors.")]


class _Sources(TyperGroup):
    """Says which command takes in a path that was named without one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and Path(args[0]).exists():
            path = shlex.quote(args[0])
            git = f", or its history: kdelta ingest git {path}"
            complain(
                show.clean(
                    f"what kind of source is {args[0]}? its files as they are: kdelta ingest "
                    f"files {path}{git if (Path(args[0]) / '.git').exists() else ''}"
                )
            )
            raise typer.Exit(USAGE)
        return super().resolve_command(ctx, args)


_ingest = typer.Typer(cls=_Sources, no_args_is_help=True)
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
    namespace: Where = "docs",
    include: Include = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete what is gone from the directories.")
    ] = False,
    chunking: Cut = None,
    chunk_size: ChunkSize = None,
    no_embed: NoEmbed = False,
    author: Author = None,
    message: Message = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    r"""Take in text files as they are now; again, only what has changed.

    PDF and HTML are read with the extra documents: pip install 'koru-delta\[documents]'.
    """
    check_home(namespace)
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
    namespace: Where = "docs",
    include: Include = None,
    chunking: Cut = None,
    chunk_size: ChunkSize = None,
    no_embed: NoEmbed = False,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Take in every revision of every text file; again, only new commits.

    What a file held is valid from its commit's time: ask with --valid-at. Merged side
    branches are not followed: their changes arrive with the merge.
    """
    check_home(namespace)
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
    if report.found_nothing:
        out.print("no files were found there: check the path, and --include if you gave it")
    elif report.run is None:
        out.print(f"nothing new for {show.clean(report.namespace)}")
    else:
        commits = f"{show.counted(report.commits, 'commit')}, " if report.source == "git" else ""
        out.print(
            f"{show.clean(report.namespace)}: {commits}"
            f"{show.counted(report.documents, 'version')} of documents "
            f"and {show.counted(report.deleted_documents, 'delete')}, "
            f"{show.counted(report.chunks, 'chunk')} stored, "
            f"{report.unchanged_chunks:,} unchanged, "
            f"{show.counted(report.embedded, 'text')} embedded",
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
        one = len(report.gone) == 1
        named = show.one_line(report.gone[0])
        told = (
            f"{named} is gone since, but still"
            if one
            else f"{len(report.gone):,} files are gone since, such as {named}, but still"
        )
        out.print(
            f"{told} found; --prune deletes {'its document' if one else 'their documents'}",
            soft_wrap=True,
        )
    option = "" if where == DEFAULT else f" --db {where}"
    if report.quarantined:
        path = report.quarantined[0]
        others = len(report.quarantined) - 1
        more = f" and {others:,} more" if others else ""
        command = shlex.join(["kdelta", "quarantine", report.namespace, document_key(path)])
        out.print(
            Text.assemble(
                ("warning: ", "bold yellow"),
                f"{show.one_line(path)}{more} can be found again, though earlier versions are in "
                f"quarantine; if this one is as bad: {show.clean(command)}{option}",
            ),
            soft_wrap=True,
        )
    if report.found_nothing and not report.gone:
        return
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
        "elsewhere": report.elsewhere, "gone": report.gone, "quarantined": report.quarantined,
        "chunks_namespace": report.chunks_namespace,
        "skipped": {path: reason.value for path, reason in report.skipped.items()},
    }  # fmt: skip
