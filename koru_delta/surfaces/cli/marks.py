"""Commands that take versions out of search and bring them back."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from koru_delta import Version
from koru_delta.ingest import chunks_of
from koru_delta.surfaces import moments, show
from koru_delta.surfaces.cli.app import app
from koru_delta.surfaces.cli.frame import note, opened, writer
from koru_delta.surfaces.cli.options import Author, Db, Json, Key, Message, Namespace

_PANEL: Final = "Sources"

Chosen = Annotated[
    str | None,
    typer.Option("--version", metavar="VERSION", help="This one; else what the key holds now."),
]


@app.command(rich_help_panel=_PANEL)
def hide(
    ctx: typer.Context,
    namespace: Namespace,
    key: Key,
    version: Chosen = None,
    author: Author = None,
    message: Message = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Take a version out of search from now on; reading, and every moment before, stays."""
    with opened(ctx, db, write=True, create=False) as database:
        chosen = _chosen(database.history(namespace, key), version)
        mark = database.hide(
            namespace, key, version=chosen, author=author or writer(), message=message
        )
        base = moments.base_of(namespace)
        has_chunks = base == namespace and chunks_of(base) in database.list_namespaces()
    if as_json:
        show.print_json(show.version_facts(mark))
        return
    place = show.clean(f"{namespace} {key}")
    note(f"search no longer finds it; to bring it back: kdelta unhide {place}")
    if has_chunks:
        note(f"its chunks are still found; to hide them too: kdelta quarantine {place}")


@app.command(rich_help_panel=_PANEL)
def unhide(
    ctx: typer.Context,
    namespace: Namespace,
    key: Key,
    version: Chosen = None,
    author: Author = None,
    message: Message = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Bring a hidden version back into search."""
    with opened(ctx, db, write=True, create=False) as database:
        chosen = _chosen(database.history(namespace, key), version)
        mark = database.unhide(
            namespace, key, version=chosen, author=author or writer(), message=message
        )
    if as_json:
        show.print_json(show.version_facts(mark))
    else:
        note(show.clean(f"search finds it again; kdelta log {namespace} {key} --all tells of both"))


def _chosen(versions: list[Version], text: str | None) -> str | None:
    """The whole id of a version, by the beginning that was typed."""
    if text is None:
        return None
    return next((version.id for version in versions if version.id.startswith(text)), text)
