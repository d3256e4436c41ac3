"""The arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Db = Annotated[
    Path | None,
    typer.Option(
        "--db", metavar="DIRECTORY", help="The database (KORU_DELTA_DB, else .kdelta).",
        show_default=False,
    ),
]  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Namespace = Annotated[str, typer.Argument(help="Namespace.")]
Key = Annotated[str, typer.Argument(help="Key.")]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of", metavar="MOMENT",
        help="What was known then: a time, version, position or tag:NAME.",
    ),
]  # fmt: skip
ValidAt = Annotated[
    str | None,
    typer.Option(
        "--valid-at", metavar="TIME", help="What was true then: a time, or an ingested git commit."
    ),
]
Author = Annotated[
    str | None,
    typer.Option(help="Who writes (KORU_DELTA_AUTHOR, else the login name).", show_default=False),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]
Message = Annotated[str | None, typer.Option("--message", "-m", help="Why.")]
IfMatch = Annotated[
    str | None,
    typer.Option(metavar="VERSION", help="Only if this is the present version; 'none': if absent."),
]
ValidFrom = Annotated[str | None, typer.Option(metavar="TIME", help="True from then on.")]
ValidTo = Annotated[str | None, typer.Option(metavar="TIME", help="True until then.")]
Cut = Annotated[
    str | None,
    typer.Option(
        "--chunking",
        metavar="STRATEGY",
        show_default=False,
        help="recursive, sentence, markdown, token or content; else content.",
    ),
]
ChunkSize = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        show_default=False,
        help="No chunk is longer: in characters (1,200), of token in tokens (300).",
    ),
]
OnlySpace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Only the vectors of this one.")
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="The vectors to search; else the local model's, or the only ones."
    ),
]
