"""What every command does: finds its database, speaks to people, says who writes."""

from __future__ import annotations

import getpass
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

import koru_delta
from koru_delta import Database, embedders
from koru_delta.embedders import TextEmbedder
from koru_delta.errors import MissingExtraError, NotADatabaseError, QueryError
from koru_delta.ingest import runs_of
from koru_delta.surfaces import moments, show

DEFAULT: Final = Path(".kdelta")
MOMENT_ASKED: Final = "koru_delta.moment_asked"
OK, ERROR, USAGE, NOT_FOUND, CONFLICT, INTERRUPTED = 0, 1, 2, 3, 4, 130


def path_of(ctx: typer.Context, db: Path | None) -> Path:
    """Where the database is: `--db` of the command, of the program, or the default."""
    found = db or ctx.find_root().obj or DEFAULT
    assert isinstance(found, Path)
    return found


def opened(
    ctx: typer.Context,
    db: Path | None,
    *,
    write: bool = False,
    create: bool = True,
    embedder: TextEmbedder | None = None,
) -> Database:
    """The database a command is about, open.

    Raises:
        NotADatabaseError: it is not there, and the command is none that makes one.
    """
    path = path_of(ctx, db)
    moment = (
        ctx.params.get(name) for name in ("as_of", "valid_at", "moment", "old", "new", "earlier")
    )
    ctx.meta[MOMENT_ASKED] = any(moment)
    if not (write and create) and not path.exists():
        raise NotADatabaseError(
            f"there is no database at {path}; name one with --db or KORU_DELTA_DB, "
            "or make one with kdelta put or kdelta ingest"
        )
    return koru_delta.open(path, read_only=not write, embedder=embedder)


def complain(message: str) -> None:
    """Say what went wrong."""
    show.console(stderr=True).print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)


def note(message: str) -> None:
    """Say something beside the answer."""
    show.console(stderr=True).print(Text(message, "dim"), soft_wrap=True)


def confirm(what: str) -> None:
    """Ask whether to go on; without a yes that is the end."""
    note(what)
    if not typer.confirm("go on?", err=True):
        complain("nothing was done; --yes answers for you")
        raise typer.Exit(ERROR)


def writer() -> str | None:
    """Who writes, where nobody was named."""
    named = os.environ.get("KORU_DELTA_AUTHOR")
    if named:
        return named
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user id without a name
        return None


def local_model(why: str) -> TextEmbedder:
    """The local model; where it is not installed, the command ends."""
    try:
        return embedders.local()
    except MissingExtraError as error:
        complain(f"{show.clean(error)} ({why})")
        raise typer.Exit(ERROR) from None


def filter_of(text: str) -> Any:
    """A filter as it was typed.

    Raises:
        QueryError: it is not JSON.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise QueryError(
            f"""--filter is not JSON ({error}); write it as '{{"path": "README.md"}}'"""
        ) from error


def write_options(
    if_match: str | None,
    valid_from: str | None,
    valid_to: str | None,
    author: str | None,
    message: str | None,
) -> dict[str, Any]:
    """Arguments of a write, from its options."""
    options: dict[str, Any] = {"author": author or writer(), "message": message}
    if if_match is not None:
        options["if_match"] = None if if_match == "none" else if_match
    for name, given in (("valid_from", valid_from), ("valid_to", valid_to)):
        if given is not None:
            options[name] = moments.time(given)
    return options


def hint(
    database: Database,
    namespace: str,
    known: int | str | datetime | None,
    true: datetime | None,
    *,
    key: str | None = None,
    option: str = "--valid-at",
) -> None:
    """Say why an ingested history has no answer at a moment, if that may be a mix-up."""
    base = moments.base_of(namespace)
    if not database.list_keys(runs_of(base), limit=1):
        return
    there = (
        bool(database.list_keys(base, limit=1))
        if key is None
        else database.contains(namespace, key)
    )
    if known is not None and true is None and there:
        note(f"this was stored later; for what was true then, did you mean {option}?")
    first = moments.beginning(database, base)
    if true is not None and first is not None and true < first:
        note(f"the history in {show.clean(base)} begins at {show.when(first)}")


class _Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", style="dim")


class Bar:
    """A progress bar on standard error, where that is a terminal."""

    def __init__(self, what: str, *, quiet: bool) -> None:
        out = show.console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(),
            MofNCompleteColumn(), _Rate(), TimeRemainingColumn(), console=out, transient=True,
            disable=quiet or not out.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task(what, total=None)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, done: int, total: int | None, *, what: str | None = None) -> None:
        """Show how far it is, and with what."""
        # What comes after the last step has no bar to show.
        self._progress.update(
            self._task, completed=done, total=total, visible=done != total, description=what
        )
