"""Commands about the past: the log, its moments and their names, what changed."""

from __future__ import annotations

import json
from typing import Annotated, Final

import typer
from rich.text import Text

from koru_delta.errors import KeyNotFoundError
from koru_delta.surfaces import moments, show
from koru_delta.surfaces.cli.app import app
from koru_delta.surfaces.cli.frame import NOT_FOUND, complain, note, opened, writer
from koru_delta.surfaces.cli.options import AsOf, Author, Db, Json, Key, Message, Namespace

_PANEL: Final = "History"


@app.command(rich_help_panel=_PANEL)
def log(
    ctx: typer.Context,
    namespace: Annotated[str | None, typer.Argument(help="Namespace.")] = None,
    key: Annotated[str | None, typer.Argument(help="Key.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="At most so many.")] = 20,
    all_entries: Annotated[
        bool, typer.Option("--all", help="Also when versions of the key were hidden and unhidden.")
    ] = False,
    as_of: AsOf = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """List commits, or the versions of a key, newest first."""
    if namespace is not None and key is None:
        raise typer.BadParameter("a namespace alone has no log: name a key, too, or neither")
    with opened(ctx, db) as database:
        known = moments.as_of(as_of)
        if namespace is not None and key is not None:
            versions = database.history(
                namespace, key, as_of=known, reverse=True, limit=limit,
                include_annotations=all_entries,
            )  # fmt: skip
            if not versions:
                raise KeyNotFoundError(namespace, key)
            if as_json:
                show.print_json([show.version_facts(version) for version in versions])
                return
            times = [version.valid_from for version in versions]
            # Out of the order in which they were written, both times tell it.
            both = times != sorted(times, reverse=True)
            columns = ("version", *(["when"] if both else []), "valid from", "what", "author",
                       "message")  # fmt: skip
            rows: list[tuple[object, ...]] = [
                (v.id[:12], *([show.when(v.time)] if both else []), show.when(v.valid_from),
                 " ".join([v.operation, *(each[:12] for each in v.targets[:3])])
                 + (f" and {len(v.targets) - 3:,} more" if len(v.targets) > 3 else "")
                 + (" (erased)" if v.is_erased else ""),
                 v.author or "",
                 show.one_line(v.message or ""))
                for v in versions
            ]  # fmt: skip
            show.console().print(show.table(columns, rows))
            return
        commits = database.commits(as_of=known, reverse=True, limit=limit)
    if as_json:
        show.print_json([show.commit_facts(commit) for commit in commits])
        return
    columns = ("position", "when", "versions", "author", "message")
    rows = [
        (c.seq, show.when(c.time), f"{c.size:,}", c.author or "", show.one_line(c.message or ""))
        for c in commits
    ]
    show.console().print(show.table(columns, rows, right=("position", "versions")))


@app.command(rich_help_panel=_PANEL)
def tag(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name; --as-of tag:NAME means this moment then.")],
    moment: Annotated[
        str | None, typer.Argument(help="A time, version or position; else now.")
    ] = None,
    move: Annotated[bool, typer.Option("--move", help="Point a taken name elsewhere.")] = False,
    author: Author = None,
    message: Message = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Give a moment a name."""
    with opened(ctx, db, write=True, create=False) as database:
        database.tag(
            name, moments.as_of(moment), move=move, author=author or writer(), message=message
        )
        place = database.tags()[name]
    if as_json:
        show.print_json({name: place})
    else:
        note(show.clean(f"tag:{name} is position {place}"))


@app.command(rich_help_panel=_PANEL)
def tags(ctx: typer.Context, db: Db = None, as_json: Json = False) -> None:
    """List the names of moments."""
    with opened(ctx, db) as database:
        named = database.tags()
    if as_json:
        show.print_json(named)
    elif not named:
        note("no moment has a name; kdelta tag NAME gives one")
    else:
        rows = [(name, f"{place:,}") for name, place in named.items()]
        show.console().print(show.table(("tag", "position"), rows, right=("position",)))


@app.command(rich_help_panel=_PANEL)
def diff(
    ctx: typer.Context,
    namespace: Namespace,
    key: Key,
    old: Annotated[
        str | None,
        typer.Argument(help="A version, moment or ingested git commit; else the last but one."),
    ] = None,
    new: Annotated[str | None, typer.Argument(help="The same; else the newest version.")] = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Show what changed between two versions of a key; --json prints a JSON Patch."""
    with opened(ctx, db) as database:
        history = database.history(namespace, key)
        if not history:
            raise KeyNotFoundError(namespace, key)
        if old is None and len(history) < 2:
            complain(f"{show.clean(repr(key))} has one version, and no earlier version to compare")
            raise typer.Exit(NOT_FOUND)
        before = (
            history[-2] if old is None else moments.version_named(database, namespace, key, old)
        )
        after = history[-1] if new is None else moments.version_named(database, namespace, key, new)
        patch = database.diff(before, after)
    if as_json:
        show.print_json(patch)
        return
    out = show.console()
    names = [f"{key}  {show.when(v.valid_from)}  {v.id[:12]}" for v in (before, after)]
    texts = [show.text_of(before.value), show.text_of(after.value)]
    for place, version in enumerate((before, after)):
        if version.is_tombstone and texts[1 - place] is not None:
            texts[place] = ""  # what is deleted says nothing
            names[place] += "  (deleted)"
    if texts[0] is not None and texts[1] is not None:
        lines = show.unified(texts[0], texts[1], names[0], names[1])
        if lines:
            out.print(show.diff_text(lines), soft_wrap=True)
        # What tells of the text itself is not shown again, nor is what ingest derives from it.
        patch = [op for op in patch if not str(op["path"]).startswith(("/text", "/chunks"))]
        patch = [op for op in patch if op["path"]]
    for op in patch:
        shown = json.dumps(op, ensure_ascii=False)
        out.print(Text(show.clean(shown)), soft_wrap=True)
