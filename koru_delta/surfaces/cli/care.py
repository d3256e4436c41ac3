"""Commands that count, check, copy and speed up a database."""

from __future__ import annotations

import math
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text

import koru_delta
from koru_delta.errors import StorageError
from koru_delta.ingest import chunks_of, runs_of
from koru_delta.surfaces import moments, show
from koru_delta.surfaces.cli.app import app
from koru_delta.surfaces.cli.frame import ERROR, Bar, local_model, note, opened, path_of, writer
from koru_delta.surfaces.cli.options import AsOf, Author, Db, Json, Message, Namespace, OnlySpace

_PANEL: Final = "Care"


@app.command(rich_help_panel=_PANEL)
def stats(ctx: typer.Context, db: Db = None, as_json: Json = False) -> None:
    """Count what is in the database, and what search holds in memory or maps from files."""
    with opened(ctx, db) as database:
        counted = database.stats(spaces=True)
    if as_json:
        show.print_json(counted)
        return
    rows = [
        (name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
        for name, value in counted.items()
        if not isinstance(value, (dict, list))
    ]
    memory = counted["vector_memory"]
    held, least = (show.size(memory[name]) for name in ("held_bytes", "least_bytes"))
    rows.append(("vector memory", f"{held} (with vector_memory=0: {least})"))
    out = show.console()
    out.print(show.table(("what", "how much"), rows))
    for space in counted["vector_spaces"]:
        show.print_space(out, space)


@app.command(rich_help_panel=_PANEL)
def index(
    ctx: typer.Context,
    namespace: OnlySpace = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Make now, and keep in files, what search otherwise makes in the background."""
    with opened(ctx, db, write=True, create=False) as database:
        names = [namespace] if namespace is not None else database.list_namespaces()
        with Bar("vectors", quiet=as_json) as bar:
            for name in names:
                bar.update(0, None, what=show.one_line(name))
                database.build_index(name, progress=bar.update)
        spaces = [
            space for space in database.stats()["vector_spaces"] if space["namespace"] in names
        ]
    if as_json:
        show.print_json({"spaces": spaces})
        return
    out = show.console(stderr=True)
    if not spaces:
        out.print("there are no vectors to index")
    for space in spaces:
        told = (
            f"{space['namespace']} ({space['model']}): {show.counted(space['vectors'], 'vector')}"
        )
        out.print(show.clean(f"{told}, {show.space_parts(space)}"), soft_wrap=True)


@app.command(rich_help_panel=_PANEL)
def tune(
    ctx: typer.Context,
    namespace: OnlySpace = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Measure what ways of searching cost on this machine; searches here choose by that.

    It takes 5 to 20 seconds, best while nothing else runs.
    """
    with (
        opened(ctx, db, write=True, create=False) as database,
        Bar("measuring", quiet=as_json) as bar,
    ):
        found = database.tune(namespace, progress=bar.update)
    if as_json:
        show.print_json(found)
    else:
        _print_tuned(found)


@app.command(rich_help_panel=_PANEL)
def reembed(
    ctx: typer.Context,
    namespace: Namespace,
    author: Author = None,
    message: Message = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Give every key that has a vector one of the local model; the past keeps those it had.

    What is embedded is the value's text: itself, or its field `text`, else its JSON. Of an
    ingested namespace these are its chunks. Interrupted, the same command goes on.
    """
    embedder = local_model("the new vectors are its")
    with (
        opened(ctx, db, write=True, create=False) as database,
        Bar("texts", quiet=as_json) as bar,
    ):
        base = moments.base_of(namespace)
        ingested = bool(database.list_keys(runs_of(base), limit=1))
        place = chunks_of(base) if ingested else namespace
        written = database.reembed(
            place, embedder.name, embedder, progress=bar.update, author=author or writer(),
            message=message,
        )  # fmt: skip
        empty = not written and place not in database.list_namespaces()
    if as_json:
        show.print_json({"namespace": place, "model": embedder.name, "written": written})
    elif empty:
        note(f"nothing is in {show.clean(place)}; kdelta stats tells what there is")
    else:
        note(
            show.clean(
                f"{show.counted(written, 'key')} of {place} given vectors of {embedder.name}"
            )
        )


@app.command(rich_help_panel=_PANEL)
def verify(ctx: typer.Context, db: Db = None, as_json: Json = False) -> None:
    """Check every byte that matters against its hash; exit code 1 if any differs."""
    with opened(ctx, db) as database, Bar("entries", quiet=as_json) as bar:
        report = database.verify(progress=bar.update)
    if as_json:
        show.print_json(
            {
                "ok": report.ok, "versions": report.versions, "commits": report.commits,
                "compared": report.compared, "problems": list(report.problems),
                "erased": report.erased,
            }
        )  # fmt: skip
    else:
        out = show.console()
        for problem in report.problems:
            out.print(Text(show.clean(problem), style="red"))
        commits = show.counted(report.commits, "commit")
        counted = f"{show.counted(report.versions, 'version')} in {commits}"
        if report.erased:
            counted += f"; the content of {report.erased:,} was erased, and their records match"
        out.print(f"{'every hash matches' if report.ok else 'DAMAGED'}: {counted}")
        if not report.compared:
            out.print("the note of the log's end is missing, so an end cut off would not show")
    if not report.ok:
        raise typer.Exit(ERROR)


@app.command(rich_help_panel=_PANEL)
def backup(
    ctx: typer.Context,
    target: Annotated[Path, typer.Argument(help="A directory that does not exist yet.")],
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Copy the database, as of one moment, to a new directory."""
    with opened(ctx, db) as database:
        database.backup(target)
    if as_json:
        show.print_json({"backup": str(target)})
    else:
        show.console(stderr=True).print(
            f"copied to {target}; check it: kdelta verify --db {target}"
        )


@app.command("export", rich_help_panel=_PANEL)
def export_command(
    ctx: typer.Context,
    target: Annotated[str, typer.Argument(help="A file; - is standard output.")],
    as_of: AsOf = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Write the whole log as JSON lines."""
    if as_json and target == "-":
        raise typer.BadParameter("--json and - both want standard output; name a file")
    with opened(ctx, db) as database:
        out = sys.stdout.buffer if target == "-" else target
        lines = database.export_log(out, as_of=moments.as_of(as_of))
    if as_json:
        show.print_json({"file": target, "lines": lines})
    elif target != "-":
        show.console(stderr=True).print(f"{show.counted(lines, 'line')} in {target}")


@app.command("import", rich_help_panel=_PANEL)
def import_command(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(help="An exported log; - is standard input.")],
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Take up an exported log, checking every hash; all of it or nothing."""
    path = path_of(ctx, db)
    given = sys.stdin.buffer if source == "-" else source
    if path.exists():
        with opened(ctx, db, write=True) as database:
            commits = database.import_log(given)
            root = database.stats()["root"]
    else:
        commits, root = _import_anew(path, given)
    if as_json:
        show.print_json({"commits": commits, "root": root})
    else:
        show.console(stderr=True).print(f"{commits:,} new commits; the log now ends at {root[:16]}")


def _import_anew(path: Path, source: Any) -> tuple[int, str]:
    """Make a database of an exported log, or nothing if it is refused."""
    with ExitStack() as stack:
        file = source
        if isinstance(source, str):
            try:
                file = stack.enter_context(Path(source).open("rb"))
            except OSError as error:
                raise StorageError(f"cannot read {source}: {error}") from error
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            folder = tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent)
        except OSError as error:
            raise StorageError(f"cannot make {path}: {error}") from error
        made = Path(stack.enter_context(folder)) / "database"
        with koru_delta.open(made) as database:
            commits = database.import_log(file)
            root = str(database.stats()["root"])
        try:
            made.rename(path)
        except OSError as error:
            raise StorageError(f"cannot make {path}: {error}") from error
        parent = os.open(path.parent, os.O_RDONLY)
        stack.callback(os.close, parent)
        os.fsync(parent)
    return commits, root


def _print_tuned(found: dict[str, Any]) -> None:
    costs, defaults, measured = found["costs"], found["defaults"], found["measured"]
    rows = [
        (
            name.replace("_", " "),
            _nanoseconds(defaults[name]),
            _nanoseconds(costs[name]) if name in measured else "not measured",
        )
        for name in costs
    ]
    out = show.console()
    columns = ("nanoseconds", "default", "measured")
    out.print(show.table(columns, rows, right=columns[1:]))
    factors = {name: costs[name] / defaults[name] for name in measured}
    far = sorted(factors, key=lambda name: abs(math.log(factors[name])), reverse=True)
    told = [
        f"{name.replace('_', ' ')} is {factors[name]:.2g} times the default"
        for name in far[:3]
        if not 1 / 1.5 < factors[name] < 1.5
    ]
    out.print("; ".join(told) or "all is within half of the defaults", soft_wrap=True)
    changes = [
        (plan["situation"], plan["default"], Text(plan["tuned"], style="bold"))
        if plan["default"] != plan["tuned"]
        else (plan["situation"], plan["default"], plan["tuned"])
        for plan in found["plans"]
    ]
    out.print(show.table(("to search", "by default", "from now on"), changes))
    on = f"{found['rows']:,} made-up vectors"
    if found["namespace"] is not None:
        on = f"{found['rows']:,} vectors of {show.clean(found['namespace'])}"
    note(f"measured in {found['seconds']:.1f} s on {on}, of {found['dimensions']:,} numbers")


def _nanoseconds(cost: float) -> str:
    return f"{cost:,.0f}" if cost >= 100 else f"{cost:.3g}"
