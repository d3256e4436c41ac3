"""The program itself: its commands' root, its errors and exit codes."""

from __future__ import annotations

import inspect
import io
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import koru_delta
from koru_delta import KoruDeltaError
from koru_delta.errors import (
    ConflictError,
    ErasedError,
    InvalidTimestampError,
    KeyNotFoundError,
    QueryError,
    UnknownVersionError,
)
from koru_delta.surfaces import complaints, show
from koru_delta.surfaces.cli.frame import (
    CONFLICT,
    ERROR,
    INTERRUPTED,
    MOMENT_ASKED,
    NOT_FOUND,
    OK,
    USAGE,
    complain,
)


def let_help_flow(program: typer.Typer) -> None:
    """Have each paragraph of the commands' help fill the terminal's lines, not the source's."""
    for command in program.registered_commands:
        parts = (inspect.getdoc(command.callback) or "").split("\n\n")
        command.help = "\n\n".join(" ".join(part.split()) for part in parts)
    for group in program.registered_groups:
        if group.typer_instance is not None:
            let_help_flow(group.typer_instance)


class _Commands(TyperGroup):
    """Turns errors into a line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read has seen enough. The flush at exit must not complain again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(OK) from None
        except KeyboardInterrupt:
            complain("interrupted; what was written stays, the same command goes on from there")
            raise typer.Exit(INTERRUPTED) from None
        except KoruDeltaError as error:
            asked = bool(ctx.meta.get(MOMENT_ASKED))
            complain(show.clean(complaints.told(error, moment_asked=asked)))
            raise typer.Exit(_exit_code(error)) from None
        return result


app = typer.Typer(
    name="kdelta",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    help="A database in which every question can be asked of any past moment.",
    epilog="Start with: kdelta demo",
)


def main() -> None:
    """Run `kdelta`; exit code 1 when what it says cannot be written."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us: what is said goes nowhere
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows only ASCII
    try:
        app(prog_name="kdelta")
    except OSError as error:
        sys.stderr.write(f"error: cannot write the answer: {error}\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nor when Python flushes at its end
        sys.exit(ERROR)


def _version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"kdelta {koru_delta.__version__}\n")
        raise typer.Exit(OK)


@app.callback()
def _root(
    ctx: typer.Context,
    db: Annotated[
        Path | None,
        typer.Option(
            "--db", metavar="DIRECTORY", envvar="KORU_DELTA_DB", show_default=".kdelta",
            help="The database.",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
) -> None:  # fmt: skip
    ctx.obj = db


def _exit_code(error: KoruDeltaError) -> int:
    if isinstance(error, (KeyNotFoundError, UnknownVersionError, ErasedError)):
        return NOT_FOUND
    if isinstance(error, ConflictError):
        return CONFLICT
    if isinstance(error, (QueryError, InvalidTimestampError)):
        return USAGE
    return ERROR
