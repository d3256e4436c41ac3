"""Commands that serve other programs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import koru_delta
from koru_delta.errors import EmbedderError
from koru_delta.surfaces import show
from koru_delta.surfaces.cli.app import app
from koru_delta.surfaces.cli.frame import local_model, note, path_of, writer
from koru_delta.surfaces.cli.options import Author


class _Embedder(StrEnum):
    LOCAL = "local"
    NONE = "none"


@app.command(rich_help_panel="Agents")
def mcp(
    ctx: typer.Context,
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIRECTORY",
            help="The database (KORU_DELTA_DB, else .kdelta); made if need be.",
            show_default=False,
        ),
    ] = None,
    workspace: Annotated[
        str, typer.Option("--workspace", "-w", help="Whose memory: each has its own.")
    ] = "agent",
    embedder: Annotated[
        _Embedder, typer.Option(help="Find by meaning too (local), or by words alone (none).")
    ] = _Embedder.LOCAL,
    author: Author = None,
) -> None:  # fmt: skip
    r"""Give a model a memory: serve remember, recall, as_of, forget, why and history over MCP.

    A client starts it and speaks to it over standard input and output. Several may serve one
    directory at once. Needs the extra mcp: pip install 'koru-delta\[mcp]'.
    """
    from koru_delta.surfaces.mcp import serve
    from koru_delta.surfaces.tools import Tools

    model = (
        local_model("pass --embedder none to find by words alone") if embedder == "local" else None
    )
    place = path_of(ctx, path)
    with koru_delta.open(place) as database:
        space = database.workspace(workspace, embedder=model)
        if space.embedder is None and space.settings.embedder is not None:
            raise EmbedderError(
                f"workspace {workspace!r} is filled by {space.settings.embedder!r}; serve it with "
                "that (--embedder local, if it is the local one), or another --workspace"
            )
        note(show.clean(f"serving workspace {workspace} of {place} over MCP"))
        serve(Tools(database, space.ai_context(), author=author or writer()))
