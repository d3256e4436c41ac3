"""Commands that erase for good, and that say how much of its past a namespace retains."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

import typer

from koru_delta.surfaces import show
from koru_delta.surfaces.cli.app import app
from koru_delta.surfaces.cli.frame import confirm, note, opened, writer
from koru_delta.surfaces.cli.options import Author, Db, Json, Message, Yes
from koru_delta.surfaces.cli.provenance import KeyOf, Place, reference

_PANEL: Final = "Erasing"
_NAMED: Final = 5  # versions that came from what is erased, in a line
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@app.command(rich_help_panel=_PANEL)
def erase(
    ctx: typer.Context,
    namespace: Place,
    key: KeyOf = None,
    yes: Yes = False,
    author: Author = None,
    message: Message = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Remove a value for good: of a version, or of KEY all it ever held. It cannot be undone.

    What was erased, when, by whom and why stays in the log. A KEY is deleted as well. Summaries
    that were made of it go with it; what else came from it is named.
    """
    ref = reference(namespace, key)
    with opened(ctx, db, write=True, create=False) as database:
        if not yes:
            if isinstance(ref, tuple):
                versions = [v for v in database.history(*ref) if v.operation == "put"]
            else:
                versions = [database.get_version(ref)]
            count = sum(not version.is_erased for version in versions)
            name = show.clean("/".join(ref) if isinstance(ref, tuple) else ref)
            confirm(
                f"this removes the content of {show.counted(count, 'version')} of {name} for good"
            )
        gone = database.erase(ref, author=author or writer(), message=message)
    if as_json:
        show.print_json(
            {
                "erased": list(gone.versions), "bytes": gone.bytes_erased, "clean": gone.is_clean,
                "entries": [entry.id for entry in gone.entries], "derived": list(gone.derived),
            }
        )  # fmt: skip
        return
    told = show.counted(len(gone.versions), "version")
    note(f"erased {told}, {gone.bytes_erased:,} bytes of content")
    if gone.derived:
        told, some = show.counted(len(gone.derived), "version"), gone.derived[:_NAMED]
        more = "" if len(some) == len(gone.derived) else ", ... (--json has all)"
        note(
            f"{told} came from it and may tell of it: {', '.join(each[:12] for each in some)}{more}"
        )
    if not gone.is_clean:
        note("a reader still holds old pages: run kdelta sweep when it is done")


@app.command(rich_help_panel=_PANEL)
def retain(
    ctx: typer.Context,
    namespace: Annotated[str | None, typer.Argument(help="Namespace; without it, list.")] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Erase what is out of use for longer: 90s 30m 12h 7d 4w."
        ),
    ] = None,
    versions: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Keep the last N entries of each key in any case."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="Erase nothing from now on.")
    ] = False,
    yes: Yes = False,
    author: Author = None,
    message: Message = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Say how much of its past a namespace retains, or list what was said.

    What is no longer retained is erased by kdelta sweep, and by every program that has the
    database open. What a key holds now always stays.
    """
    limited = keep is not None or versions is not None
    if namespace is None and (limited or everything):
        raise typer.BadParameter("name a namespace")
    if namespace is not None and limited == everything:
        raise typer.BadParameter("give --keep, --versions or both, or else --everything")
    if namespace is None:
        with opened(ctx, db) as database:
            policies = list(database.retentions().values())
    else:
        span = None if keep is None else _span(keep)
        with opened(ctx, db, write=True, create=False) as database:
            if limited and not yes:
                confirm(f"what {show.clean(namespace)} no longer retains will be erased for good")
            policies = [
                database.retain(
                    namespace, keep=span, versions=versions, author=author or writer(),
                    message=message,
                )
            ]  # fmt: skip
    if as_json:
        show.print_json([show.retention_facts(policy) for policy in policies])
        return
    if not policies:
        note("every namespace retains all of its past")
        return
    rows = [
        (show.one_line(p.namespace), "" if p.keep is None else str(p.keep),
         "" if p.versions is None else f"{p.versions:,}",
         "" if p.is_active else "everything",
         "" if p.horizon is None else show.when(p.horizon))
        for p in policies
    ]  # fmt: skip
    columns = ("namespace", "out of use for", "last entries", "retains", "whole since")
    show.console().print(show.table(columns, rows, right=("last entries",)))


@app.command(rich_help_panel=_PANEL)
def sweep(
    ctx: typer.Context,
    namespace: Annotated[str | None, typer.Argument(help="Only this namespace.")] = None,
    yes: Yes = False,
    author: Author = None,
    message: Message = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Erase now what namespaces no longer retain (kdelta retain), and give disk back."""
    with opened(ctx, db, write=True, create=False) as database:
        if not yes:
            confirm("this erases for good what is no longer retained")
        swept = database.sweep(namespace, author=author or writer(), message=message)
    if as_json:
        show.print_json(
            {
                "versions": swept.versions, "bytes_erased": swept.bytes_erased,
                "bytes_returned": swept.bytes_returned, "namespaces": list(swept.namespaces),
            }
        )  # fmt: skip
        return
    told = show.counted(swept.versions, "version")
    note(
        f"erased {told}, {swept.bytes_erased:,} bytes of content; the file is "
        f"{swept.bytes_returned:,} bytes shorter"
    )


@app.command(rich_help_panel=_PANEL)
def compact(ctx: typer.Context, yes: Yes = False, db: Db = None, as_json: Json = False) -> None:
    """Write the log's file anew without free room; whoever writes waits meanwhile."""
    with opened(ctx, db, write=True, create=False) as database:
        if not yes:
            size = database.stats()["log_bytes"]
            confirm(f"this rewrites {size:,} bytes, and takes as much free disk, twice")
        shorter = database.compact()
    if as_json:
        show.print_json({"bytes_returned": shorter})
    else:
        note(f"the file is {shorter:,} bytes shorter")


def _span(text: str) -> timedelta:
    """A time that passes, such as 12h."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not number.isdecimal():
        raise typer.BadParameter(f"{text!r} is no time that passes; write it as in 90s, 12h or 30d")
    try:
        return timedelta(**{_UNITS[unit]: int(number)})
    except OverflowError:
        raise typer.BadParameter(f"{text!r} is longer than can be counted") from None
