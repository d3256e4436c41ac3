"""`kdelta`: the database on the command line.

Exit codes: 0 fine, 1 an error, 2 a mistake in the command, 3 not found, 4 a conflict.
Answers go to standard output, everything else to standard error.
"""

from __future__ import annotations

import getpass
import io
import json
import math
import os
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.panel import Panel
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
from typer.core import TyperGroup

import koru_delta
from koru_delta import Database, KoruDeltaError, Match, embedders, prefixed
from koru_delta.embedders import TextEmbedder
from koru_delta.errors import (
    ConflictError,
    ErasedError,
    InvalidTimestampError,
    KeyNotFoundError,
    MissingExtraError,
    ModelMismatchError,
    NotADatabaseError,
    QueryError,
    StorageError,
    UnknownVersionError,
)
from koru_delta.ingest import (
    ChunkingConfig,
    Run,
    chunks_of,
    commit_time,
    ingest_files,
    ingest_git,
    origin,
    runs_of,
)
from koru_delta.ingest.files import read_files
from koru_delta.ingest.git import read_history
from koru_delta.ingest.quarantine import QUARANTINED
from koru_delta.surfaces import complaints, moments, show

_DEFAULT: Final = Path(".kdelta")
_MOMENT_ASKED: Final = "koru_delta.moment_asked"
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_OK, _ERROR, _USAGE, _NOT_FOUND, _CONFLICT, _INTERRUPTED = 0, 1, 2, 3, 4, 130


class _Commands(TyperGroup):
    """Turns errors into a line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read has seen enough. The flush at exit must not complain again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(_OK) from None
        except KeyboardInterrupt:
            _complain("interrupted; what was written stays, the same command goes on from there")
            raise typer.Exit(_INTERRUPTED) from None
        except KoruDeltaError as error:
            asked = bool(ctx.meta.get(_MOMENT_ASKED))
            _complain(show.clean(complaints.told(error, moment_asked=asked)))
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
_ingest = typer.Typer(no_args_is_help=True)
app.add_typer(
    _ingest, name="ingest", help="Take in text files, or every revision of a git repository."
)

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
Message = Annotated[str | None, typer.Option("--message", "-m", help="Why.")]
IfMatch = Annotated[
    str | None,
    typer.Option(metavar="VERSION", help="Only if this is the present version; 'none': if absent."),
]
ValidFrom = Annotated[str | None, typer.Option(metavar="TIME", help="True from then on.")]
ValidTo = Annotated[str | None, typer.Option(metavar="TIME", help="True until then.")]
Place = Annotated[
    str, typer.Argument(metavar="NAMESPACE|VERSION", help="Namespace of KEY; or a version's id.")
]
KeyOf = Annotated[str | None, typer.Argument(metavar="[KEY]", help="Key.", show_default=False)]
Cut = Annotated[
    str | None,
    typer.Option(
        "--chunking",
        metavar="STRATEGY",
        show_default=False,
        help="recursive, sentence, markdown, token or content; else content.",
    ),
]
Searched = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Only the vectors of this one.")
]


Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]


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
        sys.exit(_ERROR)


def _version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"kdelta {koru_delta.__version__}\n")
        raise typer.Exit(_OK)


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


# Writing


@app.command()
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
    options = _write_options(if_match, valid_from, valid_to, author, message)
    if ttl is not None:
        options["ttl"] = ttl
    decoded = given if text else _value(given)
    if not _path(ctx, db).exists():
        with koru_delta.open() as trial:  # what is refused makes no database
            trial.put(namespace, key, decoded, **options)
    with _open(ctx, db, write=True) as database:
        version = database.put(namespace, key, decoded, **options)
    _wrote(version, as_json=as_json)


@app.command()
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
    options = _write_options(if_match, valid_from, valid_to, author, message)
    with _open(ctx, db, write=True, create=False) as database:
        version = database.delete(namespace, key, **options)
    _wrote(version, as_json=as_json)


# Reading


@app.command()
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
    with _open(ctx, db) as database:
        known, true = moments.as_of(as_of), moments.valid_at(database, namespace, valid_at)
        try:
            value = database.get(namespace, key, as_of=known, valid_at=true)
        except KeyNotFoundError:
            _hint(database, namespace, known, true, key=key)
            raise
        if as_json:
            version = moments.version_at(database, namespace, key, known_at=known, true_at=true)
            show.print_json(show.version_facts(version) | {"value": value})
            return
    show.print_value(value)


@app.command()
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
    with _open(ctx, db) as database:
        known, true = _moment(database, namespace, moment, valid=valid)
        if key is None:
            keys = database.list_keys(namespace, as_of=known, valid_at=true)
            _print_keys(keys, as_json=as_json)
            return
        try:
            version = moments.version_at(database, namespace, key, known_at=known, true_at=true)
        except KeyNotFoundError:
            _hint(database, namespace, known, true, key=key, option="--valid")
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


@app.command()
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
    with _open(ctx, db) as database:
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


@app.command()
def log(
    ctx: typer.Context,
    namespace: Annotated[str | None, typer.Argument(help="Namespace.")] = None,
    key: Annotated[str | None, typer.Argument(help="Key.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="At most so many.")] = 20,
    all_entries: Annotated[
        bool, typer.Option("--all", help="Also when versions of the key were hidden and unhidden.")
    ] = False,
    as_of: AsOf = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """List commits, or the versions of a key, newest first."""
    if namespace is not None and key is None:
        raise typer.BadParameter("a namespace alone has no log: name a key, too, or neither")
    with _open(ctx, db) as database:
        known = moments.as_of(as_of)
        if namespace is not None and key is not None:
            versions = database.history(
                namespace, key, as_of=known, reverse=True, limit=limit,
                include_annotations=all_entries,
            )  # fmt: skip
            if not versions:
                raise KeyNotFoundError(namespace, key)
            if as_json:
                show.print_json([show.version_facts(version) for version in versions])
                return
            columns = ("version", "valid from", "what", "author", "message")
            rows: list[tuple[object, ...]] = [
                (v.id[:12], show.when(v.valid_from),
                 " ".join([v.operation, *(each[:12] for each in v.targets[:3])])
                 + (f" and {len(v.targets) - 3:,} more" if len(v.targets) > 3 else "")
                 + (" (erased)" if v.is_erased else ""),
                 v.author or "",
                 show.one_line(v.message or ""))
                for v in versions
            ]  # fmt: skip
            show.console().print(show.table(columns, rows))
            return
        commits = database.commits(as_of=known, reverse=True, limit=limit)
    if as_json:
        show.print_json([show.commit_facts(commit) for commit in commits])
        return
    columns = ("position", "when", "versions", "author", "message")
    rows = [
        (c.seq, show.when(c.time), f"{c.size:,}", c.author or "", show.one_line(c.message or ""))
        for c in commits
    ]
    show.console().print(show.table(columns, rows, right=("position", "versions")))


@app.command()
def tag(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name; --as-of tag:NAME means this moment then.")],
    moment: Annotated[
        str | None, typer.Argument(help="A time, version or position; else now.")
    ] = None,
    move: Annotated[bool, typer.Option("--move", help="Point a taken name elsewhere.")] = False,
    author: Author = None,
    message: Message = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Give a moment a name."""
    with _open(ctx, db, write=True, create=False) as database:
        database.tag(
            name, moments.as_of(moment), move=move, author=author or _author(), message=message
        )
        place = database.tags()[name]
    if as_json:
        show.print_json({name: place})
    else:
        _note(show.clean(f"tag:{name} is position {place}"))


@app.command()
def tags(ctx: typer.Context, db: Db = None, as_json: Json = False) -> None:
    """List the names of moments."""
    with _open(ctx, db) as database:
        named = database.tags()
    if as_json:
        show.print_json(named)
    else:
        rows = [(name, f"{place:,}") for name, place in named.items()]
        show.console().print(show.table(("tag", "position"), rows, right=("position",)))


@app.command()
def diff(
    ctx: typer.Context,
    namespace: Namespace,
    key: Key,
    old: Annotated[
        str | None,
        typer.Argument(help="A version, moment or ingested git commit; else the last but one."),
    ] = None,
    new: Annotated[str | None, typer.Argument(help="The same; else the newest version.")] = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Show what changed between two versions of a key; --json prints a JSON Patch."""
    with _open(ctx, db) as database:
        history = database.history(namespace, key)
        if not history:
            raise KeyNotFoundError(namespace, key)
        if old is None and len(history) < 2:
            _complain(f"{show.clean(repr(key))} has one version, and no earlier version to compare")
            raise typer.Exit(_NOT_FOUND)
        before = (
            history[-2] if old is None else moments.version_named(database, namespace, key, old)
        )
        after = history[-1] if new is None else moments.version_named(database, namespace, key, new)
        patch = database.diff(before, after)
    if as_json:
        show.print_json(patch)
        return
    out = show.console()
    names = [f"{key}  {show.when(v.valid_from)}  {v.id[:12]}" for v in (before, after)]
    texts = [show.text_of(before.value), show.text_of(after.value)]
    for place, version in enumerate((before, after)):
        if version.is_tombstone and texts[1 - place] is not None:
            texts[place] = ""  # what is deleted says nothing
            names[place] += "  (deleted)"
    if texts[0] is not None and texts[1] is not None:
        lines = show.unified(texts[0], texts[1], names[0], names[1])
        if lines:
            out.print(show.diff_text(lines), soft_wrap=True)
        # What tells of the text itself is not shown again, nor is what ingest derives from it.
        patch = [op for op in patch if not str(op["path"]).startswith(("/text", "/chunks"))]
        patch = [op for op in patch if op["path"]]
    for op in patch:
        shown = json.dumps(op, ensure_ascii=False)
        out.print(Text(show.clean(shown)), soft_wrap=True)


@app.command()
def search(
    ctx: typer.Context,
    namespace: Namespace,
    text: Annotated[str, typer.Argument(help="What to look for, in words.")],
    k: Annotated[int, typer.Option("-k", min=0, help="At most so many hits.")] = 5,
    filter: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="""Such as '{"path": {"$prefix": "docs/"}}'."""),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Only hits that score so much.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every row.")] = False,
    recall: Annotated[
        float, typer.Option(metavar="SHARE", help="Of the true best hits, to find on average.")
    ] = 0.95,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The vectors to search; else the local model's, or the only ones."
        ),
    ] = None,
    as_of: AsOf = None,
    valid_at: ValidAt = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Find what is most like a text, now or at any moment, with the local model.

    An ingested namespace is searched by its chunks; each hit tells path, lines and commit.
    """
    embedder = _local("search needs it to turn the question into a vector")
    where = None if filter is None else _filter(filter)
    with _open(ctx, db, embedder=embedder) as database:
        known, true = moments.as_of(as_of), moments.valid_at(database, namespace, valid_at)
        base = moments.base_of(namespace)
        ingested = bool(database.list_keys(runs_of(base), limit=1))
        if ingested and where is not None:
            where = prefixed(where, "metadata")
        options: dict[str, Any] = {
            "k": k, "filter": where, "as_of": known, "valid_at": true, "threshold": threshold,
            "exact": exact, "recall": recall,
        }  # fmt: skip
        place = chunks_of(base) if ingested else namespace
        try:
            found = database.similar(place, text, model=model or embedder.name, **options)
            if not found and model is None:  # it may have been embedded anew, which this says
                found = database.similar(place, text, **options)
        except ModelMismatchError as error:
            if model is not None or len(error.known) != 1:
                raise
            found = database.similar(place, text, model=error.known[0], **options)
            _note(
                f"these are vectors of {show.clean(error.known[0])}, and the question became one "
                "by the local model; they only agree if that is the same model"
            )
        hits = [_hit(database, base if ingested else None, match, known, true) for match in found]
        if ingested and not hits and _without_vectors(database, base):
            _note(
                f"{show.clean(base)} was ingested without vectors; to search it, ingest into "
                "another namespace (-n) without --no-embed"
            )
        elif not hits:
            _hint(database, namespace, known, true)
            if not ingested and k:
                _note(_why_nothing(database, namespace, place, known))
    if as_json:
        show.print_json(
            {
                "namespace": namespace,
                "text": text,
                "as_of": as_of,
                "valid_at": valid_at,
                "plan": found.plan,
                "approximate": found.approximate,
                "considered": found.considered,
                "hits": hits,
            }
        )
        return
    out = show.console()
    if not hits:
        _note("nothing found")
    for number, hit in enumerate(hits, 1):
        _print_hit(out, number, hit)
    if hits:
        how = "approximate" if found.approximate else "exact"
        _note(f"{how}, by {found.plan}, out of {found.considered:,}")


# Taking in


@_ingest.command("files")
def ingest_files_command(
    ctx: typer.Context,
    paths: Annotated[list[Path], typer.Argument(help="Files and directories.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where to.")] = "docs",
    include: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Only these, such as '*.md'.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete what is gone from the directories.")
    ] = False,
    chunking: Cut = None,
    no_embed: Annotated[bool, typer.Option("--no-embed", help="Text without vectors.")] = False,
    author: Author = None,
    message: Message = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Take in text files as they are now; again, only what has changed.

    PDF and HTML are read with the extra documents: pip install 'koru-delta[documents]'.
    """
    how = _chunking(chunking)
    embedder = None if no_embed else _local("pass --no-embed to ingest text alone")
    read_files(paths, include=include or ())  # what is refused makes no database
    with _open(ctx, db, write=True) as database, _Bar("files", quiet=as_json) as bar:
        report = ingest_files(
            database, paths, namespace=namespace, include=include or (), embedder=embedder,
            prune=prune, author=author or _author(), message=message, chunking=how,
            progress=bar.update,
        )  # fmt: skip
    _print_report(report, as_json=as_json, where=_path(ctx, db))


@_ingest.command("git")
def ingest_git_command(
    ctx: typer.Context,
    repo: Annotated[Path, typer.Argument(help="A git repository.")] = Path(),
    rev: Annotated[str, typer.Option(help="Branch, tag or commit whose history it is.")] = "HEAD",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where to.")] = "docs",
    include: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Only these, such as '*.md'.")
    ] = None,
    chunking: Cut = None,
    no_embed: Annotated[bool, typer.Option("--no-embed", help="Text without vectors.")] = False,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Take in every revision of every text file; again, only new commits.

    What a file held is valid from its commit's time: ask with --valid-at. Merged side
    branches are not followed: their changes arrive with the merge.
    """
    how = _chunking(chunking)
    embedder = None if no_embed else _local("pass --no-embed to ingest text alone")
    if not _path(ctx, db).exists():
        read_history(repo, rev=rev, include=include or ())  # what is refused makes no database
    with _open(ctx, db, write=True) as database, _Bar("commits", quiet=as_json) as bar:
        report = ingest_git(
            database, repo, rev=rev, namespace=namespace, include=include or (),
            embedder=embedder, chunking=how, progress=bar.update,
        )  # fmt: skip
    _print_report(report, as_json=as_json, where=_path(ctx, db))


# Where it came from, and what came of it


@app.command()
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
    with _open(ctx, db) as database:
        found = database.lineage(
            _reference(namespace, key), "down" if down else "up", max_hops=max_hops,
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
                _note("nothing came of it" if down else "it names nothing that it came from")


@app.command()
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
    ref = _reference(namespace, key)
    with _open(ctx, db, write=True, create=False) as database:
        if not yes:
            found = database.lineage(ref, "down", kinds=QUARANTINED)
            puts = [node.version for node in found.nodes if node.version.operation == "put"]
            count = Counter(version.namespace for version in puts)
            told = ", ".join(f"{n:,} of {show.clean(name)}" for name, n in sorted(count.items()))
            _confirm(f"this takes {_versions(len(puts))} out of search: {told or 'none'}")
        held = database.quarantine(ref, author=author or _author(), message=message)
    if as_json:
        show.print_json(show.quarantine_facts(held))
    else:
        _note(
            f"{held.id} keeps {_versions(len(held.versions))} out of search, {held.hidden:,} of "
            f"them hidden now; to bring them back: kdelta release {held.id}"
        )


@app.command()
def release(
    ctx: typer.Context,
    quarantine: Annotated[str, typer.Argument(help="Its id; kdelta quarantines lists them.")],
    author: Author = None,
    message: Message = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """End a quarantine: what no other one covers is found again."""
    with _open(ctx, db, write=True, create=False) as database:
        back = database.release(quarantine, author=author or _author(), message=message)
    if as_json:
        show.print_json({"quarantine": quarantine, "released": [mark.target for mark in back]})
    else:
        _note(show.clean(f"{quarantine} is released; {_versions(len(back))} can be found again"))


@app.command()
def quarantines(
    ctx: typer.Context, as_of: AsOf = None, db: Db = None, as_json: Json = False
) -> None:
    """List what is in quarantine."""
    with _open(ctx, db) as database:
        held = database.quarantines(as_of=moments.as_of(as_of))
    if as_json:
        show.print_json([show.quarantine_facts(each) for each in held])
        return
    rows = [
        (q.id, show.when(q.time), f"{len(q.versions):,}",
         show.one_line(", ".join(dict.fromkeys(f"{v.namespace}/{v.key}" for v in q.start))),
         q.author or "", show.one_line(q.message or ""))
        for q in held
    ]  # fmt: skip
    columns = ("quarantine", "when", "versions", "of", "author", "message")
    show.console().print(show.table(columns, rows, right=("versions",)))


# Erasing


@app.command()
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

    What was erased, when, by whom and why stays in the log. A KEY is deleted as well.
    """
    ref = _reference(namespace, key)
    with _open(ctx, db, write=True, create=False) as database:
        if not yes:
            if isinstance(ref, tuple):
                versions = [v for v in database.history(*ref) if v.operation == "put"]
            else:
                versions = [database.get_version(ref)]
            count = sum(not version.is_erased for version in versions)
            name = show.clean("/".join(ref) if isinstance(ref, tuple) else ref)
            _confirm(f"this removes the content of {_versions(count)} of {name} for good")
        gone = database.erase(ref, author=author or _author(), message=message)
    if as_json:
        show.print_json(
            {
                "erased": list(gone.versions), "bytes": gone.bytes_erased, "clean": gone.is_clean,
                "entries": [entry.id for entry in gone.entries],
            }
        )  # fmt: skip
        return
    _note(f"erased {_versions(len(gone.versions))}, {gone.bytes_erased:,} bytes of content")
    if not gone.is_clean:
        _note("a reader still holds old pages: run kdelta sweep when it is done")


@app.command()
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
        with _open(ctx, db) as database:
            policies = list(database.retentions().values())
    else:
        span = None if keep is None else _span(keep)
        with _open(ctx, db, write=True, create=False) as database:
            if limited and not yes:
                _confirm(f"what {show.clean(namespace)} no longer retains will be erased for good")
            policies = [
                database.retain(
                    namespace, keep=span, versions=versions, author=author or _author(),
                    message=message,
                )
            ]  # fmt: skip
    if as_json:
        show.print_json([show.retention_facts(policy) for policy in policies])
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


@app.command()
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
    with _open(ctx, db, write=True, create=False) as database:
        if not yes:
            _confirm("this erases for good what is no longer retained")
        swept = database.sweep(namespace, author=author or _author(), message=message)
    if as_json:
        show.print_json(
            {
                "versions": swept.versions, "bytes_erased": swept.bytes_erased,
                "bytes_returned": swept.bytes_returned, "namespaces": list(swept.namespaces),
            }
        )  # fmt: skip
        return
    _note(
        f"erased {_versions(swept.versions)}, {swept.bytes_erased:,} bytes of content; the file is "
        f"{swept.bytes_returned:,} bytes shorter"
    )


@app.command()
def compact(ctx: typer.Context, yes: Yes = False, db: Db = None, as_json: Json = False) -> None:
    """Write the log's file anew without free room; whoever writes waits meanwhile."""
    with _open(ctx, db, write=True, create=False) as database:
        if not yes:
            size = database.stats()["log_bytes"]
            _confirm(f"this rewrites {size:,} bytes, and takes as much free disk, twice")
        shorter = database.compact()
    if as_json:
        show.print_json({"bytes_returned": shorter})
    else:
        _note(f"the file is {shorter:,} bytes shorter")


# Care


@app.command()
def stats(ctx: typer.Context, db: Db = None, as_json: Json = False) -> None:
    """Count what is in the database, and what search holds in memory or maps from files."""
    with _open(ctx, db) as database:
        counted = database.stats(spaces=True)
    if as_json:
        show.print_json(counted)
        return
    rows = [
        (name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
        for name, value in counted.items()
        if name != "vector_spaces"
    ]
    out = show.console()
    out.print(show.table(("what", "how much"), rows))
    for space in counted["vector_spaces"]:
        show.print_space(out, space)


@app.command()
def index(
    ctx: typer.Context,
    namespace: Searched = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Make now, and keep in files, what search otherwise makes in the background."""
    with _open(ctx, db, write=True, create=False) as database:
        names = [namespace] if namespace is not None else database.list_namespaces()
        with _Bar("namespaces", quiet=as_json) as bar:
            for number, name in enumerate(names):
                bar.update(number, len(names), what=show.one_line(name))
                database.build_index(name)
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
        told = f"{space['namespace']} ({space['model']}): {space['vectors']:,} vectors"
        out.print(show.clean(f"{told}, {show.space_parts(space)}"), soft_wrap=True)


@app.command()
def tune(
    ctx: typer.Context,
    namespace: Searched = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Measure what ways of searching cost on this machine; searches here choose by that.

    It takes a few seconds, best while nothing else runs.
    """
    with (
        _open(ctx, db, write=True, create=False) as database,
        _Bar("measuring", quiet=as_json) as bar,
    ):
        found = database.tune(namespace, progress=bar.update)
    if as_json:
        show.print_json(found)
    else:
        _print_tuned(found)


@app.command()
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
    embedder = _local("the new vectors are its")
    with (
        _open(ctx, db, write=True, create=False) as database,
        _Bar("texts", quiet=as_json) as bar,
    ):
        base = moments.base_of(namespace)
        ingested = bool(database.list_keys(runs_of(base), limit=1))
        place = chunks_of(base) if ingested else namespace
        written = database.reembed(
            place, embedder.name, embedder, progress=bar.update, author=author or _author(),
            message=message,
        )  # fmt: skip
    if as_json:
        show.print_json({"namespace": place, "model": embedder.name, "written": written})
    else:
        _note(show.clean(f"{written:,} keys of {place} were given vectors of {embedder.name}"))


@app.command()
def verify(ctx: typer.Context, db: Db = None, as_json: Json = False) -> None:
    """Check every byte that matters against its hash; exit code 1 if any differs."""
    with _open(ctx, db) as database:
        report = database.verify()
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
        counted = f"{report.versions:,} versions in {report.commits:,} commits"
        if report.erased:
            counted += f"; the content of {report.erased:,} was erased, and their records match"
        out.print(f"{'every hash matches' if report.ok else 'DAMAGED'}: {counted}")
        if not report.compared:
            out.print("the note of the log's end is missing, so an end cut off would not show")
    if not report.ok:
        raise typer.Exit(_ERROR)


@app.command()
def backup(
    ctx: typer.Context,
    target: Annotated[Path, typer.Argument(help="A directory that does not exist yet.")],
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Copy the database, as of one moment, to a new directory."""
    with _open(ctx, db) as database:
        database.backup(target)
    if as_json:
        show.print_json({"backup": str(target)})
    else:
        show.console(stderr=True).print(
            f"copied to {target}; check it: kdelta verify --db {target}"
        )


@app.command("export")
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
    with _open(ctx, db) as database:
        out = sys.stdout.buffer if target == "-" else target
        lines = database.export_log(out, as_of=moments.as_of(as_of))
    if as_json:
        show.print_json({"file": target, "lines": lines})
    elif target != "-":
        show.console(stderr=True).print(f"{lines:,} lines in {target}")


@app.command("import")
def import_command(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(help="An exported log; - is standard input.")],
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Take up an exported log, checking every hash; all of it or nothing."""
    path = _path(ctx, db)
    given = sys.stdin.buffer if source == "-" else source
    if path.exists():
        with _open(ctx, db, write=True) as database:
            commits = database.import_log(given)
            root = database.stats()["root"]
    else:
        commits, root = _import_anew(path, given)
    if as_json:
        show.print_json({"commits": commits, "root": root})
    else:
        show.console(stderr=True).print(f"{commits:,} new commits; the log now ends at {root[:16]}")


@app.command()
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

    embedder = _local("the demo asks its questions with it")
    root = ctx.find_root()
    source = root.get_parameter_source("db")
    named = source is not None and source.name == "COMMANDLINE"
    chosen = db or (root.obj if named else None)  # not the one KORU_DELTA_DB names
    with _Bar("commits", quiet=as_json) as bar:
        facts = demonstration.run(
            embedder, repo=repo, questions=ask or (), then=then, include=include or (),
            sample=sample, db=chosen, progress=bar.update,
        )  # fmt: skip
    if as_json:
        show.print_json(facts)
    else:
        demonstration.render(facts, show.console())


# Parts of the above


def _path(ctx: typer.Context, db: Path | None) -> Path:
    found = db or ctx.find_root().obj or _DEFAULT
    assert isinstance(found, Path)
    return found


def _open(
    ctx: typer.Context,
    db: Path | None,
    *,
    write: bool = False,
    create: bool = True,
    embedder: TextEmbedder | None = None,
) -> Database:
    path = _path(ctx, db)
    moment = (ctx.params.get(name) for name in ("as_of", "valid_at", "moment", "old", "new"))
    ctx.meta[_MOMENT_ASKED] = any(moment)
    if not (write and create) and not path.exists():
        raise NotADatabaseError(
            f"there is no database at {path}; name one with --db or KORU_DELTA_DB, "
            "or make one with kdelta put or kdelta ingest"
        )
    return koru_delta.open(path, read_only=not write, embedder=embedder)


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


def _complain(message: str) -> None:
    show.console(stderr=True).print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)


def _chunking(strategy: str | None) -> ChunkingConfig | None:
    """How to cut, by the name of a strategy."""
    given: Any = strategy  # a name that is none is refused
    return None if strategy is None else ChunkingConfig(given)


def _reference(namespace: str, key: str | None) -> str | tuple[str, str]:
    return namespace if key is None else (namespace, key)


def _versions(count: int) -> str:
    return "1 version" if count == 1 else f"{count:,} versions"


def _note(message: str) -> None:
    show.console(stderr=True).print(Text(message, "dim"), soft_wrap=True)


def _confirm(what: str) -> None:
    """Ask whether to go on; without a yes that is the end."""
    _note(what)
    if not typer.confirm("go on?", err=True):
        _complain("nothing was done; --yes answers for you")
        raise typer.Exit(_ERROR)


def _span(text: str) -> timedelta:
    """A time that passes, such as 12h."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not number.isdecimal():
        raise typer.BadParameter(f"{text!r} is no time that passes; write it as in 90s, 12h or 30d")
    try:
        return timedelta(**{_UNITS[unit]: int(number)})
    except OverflowError:
        raise typer.BadParameter(f"{text!r} is longer than can be counted") from None


def _exit_code(error: KoruDeltaError) -> int:
    if isinstance(error, (KeyNotFoundError, UnknownVersionError, ErasedError)):
        return _NOT_FOUND
    if isinstance(error, ConflictError):
        return _CONFLICT
    if isinstance(error, (QueryError, InvalidTimestampError)):
        return _USAGE
    return _ERROR


def _author() -> str | None:
    named = os.environ.get("KORU_DELTA_AUTHOR")
    if named:
        return named
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user id without a name
        return None


def _local(why: str) -> TextEmbedder:
    try:
        return embedders.local()
    except MissingExtraError as error:
        _complain(f"{show.clean(error)} ({why})")
        raise typer.Exit(_ERROR) from None


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


def _filter(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise QueryError(
            f"""--filter is not JSON ({error}); write it as '{{"path": "README.md"}}'"""
        ) from error


def _write_options(
    if_match: str | None,
    valid_from: str | None,
    valid_to: str | None,
    author: str | None,
    message: str | None,
) -> dict[str, Any]:
    options: dict[str, Any] = {"author": author or _author(), "message": message}
    if if_match is not None:
        options["if_match"] = None if if_match == "none" else if_match
    for name, given in (("valid_from", valid_from), ("valid_to", valid_to)):
        if given is not None:
            options[name] = moments.time(given)
    return options


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


def _hint(
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
        _note(f"this was stored later; for what was true then, did you mean {option}?")
    first = moments.beginning(database, base)
    if true is not None and first is not None and true < first:
        _note(f"the history in {show.clean(base)} begins at {show.when(first)}")


def _why_nothing(
    database: Database, namespace: str, place: str, known: int | str | datetime | None
) -> str:
    """What a namespace has, where nothing in it was found."""
    if namespace not in database.list_namespaces(as_of=known):
        return (
            f"nothing is in {show.clean(namespace)} at that moment; kdelta stats tells what "
            "there is, kdelta keys NAMESPACE what is in it"
        )
    if not any(space["namespace"] == place for space in database.stats()["vector_spaces"]):
        return (
            f"what is in {show.clean(namespace)} has no vectors to search by; "
            "Database.embed and kdelta ingest give some"
        )
    return "no vector there at that moment passes the filter and the threshold"


def _without_vectors(database: Database, namespace: str) -> bool:
    runs = database.query(runs_of(namespace), limit=1, select=["model"])
    return bool(runs) and runs[0].value.get("model") is None


def _hit(
    database: Database,
    ingested: str | None,
    match: Match,
    known: int | str | datetime | None,
    true: datetime | None,
) -> dict[str, Any]:
    hit: dict[str, Any] = {
        "key": match.key, "score": round(match.score, 6), "version": match.version.id,
        "valid_from": match.version.valid_from.isoformat(), "author": match.version.author,
        "value": match.value,
    }  # fmt: skip
    if ingested is not None:
        place = origin(database, ingested, match.version, as_of=known, valid_at=true)
        hit |= {
            "path": place.path, "first_line": place.first_line, "last_line": place.last_line,
            "start": place.start, "end": place.end, "commit": place.commit,
            "author": place.author, "message": place.message,
        }  # fmt: skip
    return hit


def _print_hit(out: Any, number: int, hit: dict[str, Any]) -> None:
    place = hit["key"]
    if "path" in hit:
        place = hit["path"]
        if hit["first_line"] is not None:
            place += f":{hit['first_line']}-{hit['last_line']}"
    told = [(hit.get("commit") or hit["version"])[:10], hit["author"], hit["valid_from"][:10]]
    told.append(show.one_line(hit.get("message") or "", 40))
    title = f"{number}. {show.clean(place)}  {hit['score']:.3f}"
    text = show.text_of(hit["value"])
    body = json.dumps(hit["value"], ensure_ascii=False) if text is None else text
    lines = show.clean(body).strip("\n").splitlines()
    shown = "\n".join(lines[:8]) + ("\n…" if len(lines) > 8 else "")
    out.print(
        Panel(
            Text(shown), title=Text(title), title_align="left", border_style="dim",
            subtitle=Text(show.clean("  ".join(t for t in told if t))), subtitle_align="left",
        )
    )  # fmt: skip


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
    _note(f"measured in {found['seconds']:.1f} s on {on}, of {found['dimensions']:,} numbers")


def _nanoseconds(cost: float) -> str:
    return f"{cost:,.0f}" if cost >= 100 else f"{cost:.3g}"


def _print_report(report: Run, *, as_json: bool, where: Path) -> None:
    if as_json:
        show.print_json(report_facts(report))
        return
    out = show.console(stderr=True)
    if report.run is None:
        out.print(f"nothing new for {show.clean(report.namespace)}")
    else:
        commits = f"{report.commits:,} commits, " if report.source == "git" else ""
        out.print(
            f"{show.clean(report.namespace)}: {commits}{report.documents:,} versions of documents "
            f"and {report.deleted_documents:,} deletes, {report.chunks:,} chunks stored, "
            f"{report.unchanged_chunks:,} unchanged, {report.embedded:,} texts embedded",
            soft_wrap=True,
        )
    if report.is_shallow:
        out.print("the clone is shallow: its oldest commit seems to add every file")
    if report.elsewhere:
        told = (
            "1 commit that was"
            if report.elsewhere == 1
            else f"{report.elsewhere:,} commits that were"
        )
        out.print(
            Text.assemble(
                ("note: ", "bold yellow"),
                f"{told} ingested earlier cannot be reached from here: history was rewritten, or "
                "that was another branch. What was ingested still stands, also of files that only "
                "stood there; to tell this history alone, ingest it into another namespace "
                "(-n NAME)",
            ),
            soft_wrap=True,
        )
    reasons: dict[str, list[str]] = {}
    for path, reason in report.skipped.items():
        reasons.setdefault(reason.value, []).append(path)
    for why, paths in sorted(reasons.items()):
        more = ", …" if len(paths) > 3 else ""
        named = ", ".join(show.one_line(path) for path in paths[:3])
        out.print(f"skipped {len(paths):,} ({why}): {named}{more}", soft_wrap=True)
    if report.gone and not report.deleted_documents:
        out.print(
            f"{len(report.gone):,} files are gone since, such as {show.one_line(report.gone[0])}; "
            "--prune deletes their documents",
            soft_wrap=True,
        )
    option = "" if where == _DEFAULT else f" --db {where}"
    out.print(f'ask it: kdelta search {report.namespace} "your question"{option}', soft_wrap=True)


def report_facts(report: Run) -> dict[str, Any]:
    """A report of a run as JSON."""
    return {
        "namespace": report.namespace, "source": report.source, "run": report.run,
        "head": report.head, "commits": report.commits, "documents": report.documents,
        "deleted_documents": report.deleted_documents, "chunks": report.chunks,
        "deleted_chunks": report.deleted_chunks, "unchanged_chunks": report.unchanged_chunks,
        "unchanged_documents": report.unchanged_documents,
        "embedded": report.embedded, "is_shallow": report.is_shallow,
        "elsewhere": report.elsewhere, "gone": report.gone,
        "skipped": {path: reason.value for path, reason in report.skipped.items()},
    }  # fmt: skip


class _Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", style="dim")


class _Bar:
    """A progress bar on standard error, where that is a terminal."""

    def __init__(self, what: str, *, quiet: bool) -> None:
        out = show.console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(),
            MofNCompleteColumn(), _Rate(), TimeRemainingColumn(), console=out, transient=True,
            disable=quiet or not out.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task(what, total=None)

    def __enter__(self) -> _Bar:
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
