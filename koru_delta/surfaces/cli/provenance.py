"""Commands about where something came from, and about what came of it."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Annotated, Final

import typer

from koru_delta.ingest.quarantine import QUARANTINED
from koru_delta.surfaces import moments, show
from koru_delta.surfaces.cli.app import app
from koru_delta.surfaces.cli.frame import confirm, note, opened, writer
from koru_delta.surfaces.cli.options import AsOf, Author, Db, Json, Message, Yes

_PANEL: Final = "Sources"

Place = Annotated[
    str, typer.Argument(metavar="NAMESPACE|VERSION", help="Namespace of KEY; or a version's id.")
]
KeyOf = Annotated[str | None, typer.Argument(metavar="KEY", help="Key.", show_default=False)]


@app.command(rich_help_panel=_PANEL)
def lineage(
    ctx: typer.Context,
    namespace: Place,
    key: KeyOf = None,
    down: Annotated[
        bool, typer.Option("--down", help="What came of it; else what it came from.")
    ] = False,
    max_hops: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="At most so many steps.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, help="Of one version, at most so many steps.")
    ] = 20,
    mermaid: Annotated[
        bool, typer.Option("--mermaid", help="Print a Mermaid flowchart to draw.")
    ] = False,
    as_of: AsOf = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Tell what a version came from: document, commit or file, run. Or what came of it."""
    with opened(ctx, db) as database:
        found = database.lineage(
            reference(namespace, key), "down" if down else "up", max_hops=max_hops,
            as_of=moments.as_of(as_of),
        )  # fmt: skip
        if as_json:
            show.print_json(found.to_dict())
        elif mermaid:
            sys.stdout.write(show.clean(found.to_mermaid()))
        else:
            out = show.console()
            for line in found.lines(limit=limit):
                out.print(show.clean(line), soft_wrap=True)
            if not found.versions:
                note("nothing came of it" if down else "it names nothing that it came from")


@app.command(rich_help_panel=_PANEL)
def quarantine(
    ctx: typer.Context,
    namespace: Place,
    key: KeyOf = None,
    yes: Yes = False,
    author: Author = None,
    message: Message = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Take a version, and all that was derived from it, out of search until kdelta release.

    Of a KEY these are all the versions it has had. kdelta get goes on to find them, and so
    does every search of a moment before.
    """
    ref = reference(namespace, key)
    with opened(ctx, db, write=True, create=False) as database:
        if not yes:
            found = database.lineage(ref, "down", kinds=QUARANTINED)
            puts = [node.version for node in found.nodes if node.version.operation == "put"]
            count = Counter(version.namespace for version in puts)
            told = ", ".join(f"{n:,} of {show.clean(name)}" for name, n in sorted(count.items()))
            confirm(
                f"this takes {show.counted(len(puts), 'version')} out of search: {told or 'none'}"
            )
        held = database.quarantine(ref, author=author or writer(), message=message)
    if as_json:
        show.print_json(show.quarantine_facts(held))
    else:
        every = show.counted(len(held.versions), "version")
        note(
            f"{held.id} keeps {every} out of search, {held.hidden:,} of "
            f"them hidden now; to bring them back: kdelta release {held.id}"
        )


@app.command(rich_help_panel=_PANEL)
def release(
    ctx: typer.Context,
    quarantine: Annotated[str, typer.Argument(help="Its id; kdelta quarantines lists them.")],
    author: Author = None,
    message: Message = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """End a quarantine: what no other one covers is found again."""
    with opened(ctx, db, write=True, create=False) as database:
        held = next((each for each in database.quarantines() if each.id == quarantine), None)
        back = database.release(quarantine, author=author or writer(), message=message)
        covered = set() if held is None else {version.id for version in held.versions}
        others = [each.id for each in database.quarantines()
                  if covered.intersection(version.id for version in each.versions)]  # fmt: skip
    if as_json:
        show.print_json({"quarantine": quarantine, "released": [mark.target for mark in back]})
    else:
        note(
            show.clean(
                f"{quarantine} is released; {show.counted(len(back), 'version')} can be found again"
            )
        )
        if others:
            note(
                f"some of it stays out of search, held by {', '.join(others)} too; to bring that "
                f"back: kdelta release {others[0]}"
            )


@app.command(rich_help_panel=_PANEL)
def quarantines(
    ctx: typer.Context, as_of: AsOf = None, db: Db = None, as_json: Json = False
) -> None:
    """List what is in quarantine."""
    with opened(ctx, db) as database:
        held = database.quarantines(as_of=moments.as_of(as_of))
    if as_json:
        show.print_json([show.quarantine_facts(each) for each in held])
        return
    if not held:
        note("nothing is in quarantine")
        return
    rows = [
        (q.id, show.when(q.time), f"{len(q.versions):,}",
         show.one_line(", ".join(dict.fromkeys(f"{v.namespace}/{v.key}" for v in q.start))),
         q.author or "", show.one_line(q.message or ""))
        for q in held
    ]  # fmt: skip
    columns = ("quarantine", "when", "versions", "of", "author", "message")
    show.console().print(show.table(columns, rows, right=("versions",)))


def reference(namespace: str, key: str | None) -> str | tuple[str, str]:
    """What a PLACE and KEY name: a version, or a key."""
    return namespace if key is None else (namespace, key)
