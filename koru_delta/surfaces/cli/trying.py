"""The command that shows what all this is for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from koru_delta.surfaces import show
from koru_delta.surfaces.cli.app import app
from koru_delta.surfaces.cli.frame import Bar, local_model
from koru_delta.surfaces.cli.options import Db, Json


@app.command(rich_help_panel="Begin")
def demo(
    ctx: typer.Context,
    repo: Annotated[
        Path | None,
        typer.Option(help="A git repository; else the one around here, else a sample."),
    ] = None,
    ask: Annotated[
        list[str] | None, typer.Option(metavar="QUESTION", help="Your own question; repeat it.")
    ] = None,
    then: Annotated[
        str | None, typer.Option(metavar="COMMIT", help="The earlier moment; else one is chosen.")
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Only these files, such as '*.md'.")
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Use the sample history.")] = False,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Ask a repository the same questions now and then, and see where the answers are from.

    Its database is made anew and goes away, unless --db names one.
    """
    from koru_delta.surfaces import demo as demonstration

    embedder = local_model("the demo asks its questions with it")
    root = ctx.find_root()
    source = root.get_parameter_source("db")
    named = source is not None and source.name == "COMMANDLINE"
    chosen = db or (root.obj if named else None)  # not the one KORU_DELTA_DB names
    with Bar("commits", quiet=as_json) as bar:
        facts = demonstration.run(
            embedder, repo=repo, questions=ask or (), then=then, include=include or (),
            sample=sample, db=chosen, progress=bar.update,
        )  # fmt: skip
    if as_json:
        show.print_json(facts)
    else:
        demonstration.render(facts, show.console())
