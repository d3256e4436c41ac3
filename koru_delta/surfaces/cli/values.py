"""Commands that write and read values."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Annotated, Final

import typer
from rich.text import Text

import koru_delta
from koru_delta import Database
from koru_delta.errors import KeyNotFoundError, UnknownVersionError
from koru_delta.ingest import commit_time
from koru_delta.surfaces import moments, show
from koru_delta.surfaces.cli.app import app
from koru_delta.surfaces.cli.frame import hint, opened, path_of, write_options
from koru_delta.surfaces.cli.options import (
    AsOf,
    Author,
    Db,
    IfMatch,
    Json,
    Key,
    Message,
    Namespace,
    ValidAt,
    ValidFrom,
    ValidTo,
)

_PANEL: Final = "Values"


@app.command(rich_help_panel=_PANEL)
def put(
    ctx: typer.Context,
    namespace: Namespace,
    key: Key,
    value: Annotated[str, typer.Argument(help="JSON, or else text; - reads standard input.")],
    text: Annotated[bool, typer.Option("--text", help="Text, even if it reads as JSON.")] = False,
    if_match: IfMatch = None,
    ttl: Annotated[float | None, typer.Option(metavar="SECONDS", help="Absent after that.")] = None,
    valid_from: ValidFrom = None,
    valid_to: ValidTo = None,
    author: Author = None,
    message: Message = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Store a value under a key, as a new version.

    VALUE is taken as JSON if it parses ('{"a": 1}', 42, true, '"quoted"'), else as text; what
    begins with { or [ and does not parse is refused.
    """
    given = sys.stdin.read() if value == "-" else value
    options = write_options(if_match, valid_from, valid_to, author, message)
    if ttl is not None:
        options["ttl"] = ttl
    decoded = given if text else _value(given)
    if not path_of(ctx, db).exists():
        with koru_delta.open() as trial:  # what is refused makes no database
            trial.put(namespace, key, decoded, **options)
    with opened(ctx, db, write=True) as database:
        version = database.put(namespace, key, decoded, **options)
    _wrote(version, as_json=as_json)


@app.command(rich_help_panel=_PANEL)
def delete(
    ctx: typer.Context,
    namespace: Namespace,
    key: Key,
    if_match: IfMatch = None,
    valid_from: ValidFrom = None,
    valid_to: ValidTo = None,
    author: Author = None,
    message: Message = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Mark a key as deleted; its past stays readable."""
    options = write_options(if_match, valid_from, valid_to, author, message)
    with opened(ctx, db, write=True, create=False) as database:
        version = database.delete(namespace, key, **options)
    _wrote(version, as_json=as_json)


@app.command(rich_help_panel=_PANEL)
def get(
    ctx: typer.Context,
    namespace: Namespace,
    key: Key,
    as_of: AsOf = None,
    valid_at: ValidAt = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Print the value of a key; --json tells its version, too."""
    with opened(ctx, db) as database:
        known, true = moments.as_of(as_of), moments.valid_at(database, namespace, valid_at)
        try:
            value = database.get(namespace, key, as_of=known, valid_at=true)
        except KeyNotFoundError:
            hint(database, namespace, known, true, key=key)
            raise
        if as_json:
            version = moments.version_at(database, namespace, key, known_at=known, true_at=true)
            show.print_json(show.version_facts(version) | {"value": value})
            return
    show.print_value(value)


@app.command(rich_help_panel=_PANEL)
def at(
    ctx: typer.Context,
    moment: Annotated[
        str,
        typer.Argument(help="A time, version, position, tag:NAME or ingested git commit."),
    ],
    namespace: Namespace,
    key: Annotated[str | None, typer.Argument(help="Key; without it, every key.")] = None,
    valid: Annotated[
        bool, typer.Option("--valid", help="Read MOMENT as a time at which it was true.")
    ] = False,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Show a key as it was known at a moment, with who wrote it, when and why.

    A git commit that was ingested into NAMESPACE means what was true when it was made.
    """
    with opened(ctx, db) as database:
        known, true = _moment(database, namespace, moment, valid=valid)
        if key is None:
            keys = database.list_keys(namespace, as_of=known, valid_at=true)
            _print_keys(keys, as_json=as_json)
            return
        try:
            version = moments.version_at(database, namespace, key, known_at=known, true_at=true)
        except KeyNotFoundError:
            hint(database, namespace, known, true, key=key, option="--valid")
            raise
    if as_json:
        show.print_json(show.version_facts(version, value=True))
        return
    out = show.console(stderr=True)
    told = [f"valid from {show.when(version.valid_from)}", version.author, version.message]
    head = f"version {version.id[:12]}  " + "  ".join(show.one_line(t) for t in told if t)
    out.print(Text(head, style="dim"))
    text = show.text_of(version.value)
    show.print_value(version.value if text is None else text)


@app.command(rich_help_panel=_PANEL)
def keys(
    ctx: typer.Context,
    namespace: Annotated[
        str | None, typer.Argument(help="Namespace; without it, the namespaces are listed.")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Only keys that start with this.")] = "",
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=0, help="At most so many.")
    ] = None,
    as_of: AsOf = None,
    valid_at: ValidAt = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """List the keys of a namespace, or the namespaces."""
    with opened(ctx, db) as database:
        known = moments.as_of(as_of)
        if namespace is not None:
            true = moments.valid_at(database, namespace, valid_at)
            found = database.list_keys(
                namespace, prefix=prefix, limit=limit, as_of=known, valid_at=true
            )
            _print_keys(found, as_json=as_json)
            return
        true = moments.valid_at(database, "", valid_at)
        names = database.list_namespaces(as_of=known, valid_at=true)
        counts = {name: database.count(name, as_of=known, valid_at=true) for name in names}
    if as_json:
        show.print_json(counts)
    else:
        rows = [(name, f"{count:,}") for name, count in counts.items()]
        show.console().print(show.table(("namespace", "keys"), rows, right=("keys",)))


def _value(text: str) -> object:
    def refuse(constant: str) -> object:
        raise ValueError(constant)  # NaN and its like are text

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        if text.lstrip()[:1] in ("{", "["):
            raise typer.BadParameter(
                f"VALUE begins like JSON and is not ({error}); mend it, or store it as text with "
                "--text"
            ) from error
        return text


def _wrote(version: koru_delta.Version, *, as_json: bool) -> None:
    if as_json:
        show.print_json(show.version_facts(version))
        return
    what = "deleted" if version.is_tombstone else "stored"
    told = f"{what} {version.namespace}/{version.key} as version {version.id[:12]}"
    show.console(stderr=True).print(show.clean(told), soft_wrap=True)


def _print_keys(keys: list[str], *, as_json: bool) -> None:
    if as_json:
        show.print_json(keys)
        return
    for key in keys:
        sys.stdout.write(show.clean(key).replace("\n", "␊") + "\n")


def _moment(
    database: Database, namespace: str, text: str, *, valid: bool
) -> tuple[int | str | datetime | None, datetime | None]:
    """What is known and what is true, for a moment that may be either."""
    if valid:
        return None, moments.valid_at(database, namespace, text)
    if moments.is_sha(text):
        try:
            return None, commit_time(database, moments.base_of(namespace), text)
        except UnknownVersionError:
            pass  # then it is a version
    return moments.as_of(text), None
