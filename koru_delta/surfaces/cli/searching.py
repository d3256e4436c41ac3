"""Commands that search, and tell why, and how an answer changed."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Annotated, Any, Final, NamedTuple

import typer
from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text

from koru_delta import CausalFilter, Database, Match, Matches, RetrievalDiff, embedders
from koru_delta.embedders import TextEmbedder
from koru_delta.errors import MissingExtraError, ModelMismatchError, QueryError
from koru_delta.ingest import chunks_of, commits_of, origin, runs_of
from koru_delta.surfaces import moments, reasons, show
from koru_delta.surfaces.cli.app import app
from koru_delta.surfaces.cli.frame import filter_of, hint, local_model, note, opened
from koru_delta.surfaces.cli.options import AsOf, Db, Json, Model, Namespace, ValidAt

_PANEL: Final = "Search"
_MODES: Final = ("hybrid", "text", "vector")
_VERSION_ID: Final = re.compile(r"[0-9a-f]{8,64}")
_OF_A_CHUNK: Final = ("text", "metadata")  # its fields; what else is asked is in the metadata
_SHOWN_LINES: Final = 8
_DIFF_LINES: Final = 12

Moment = int | str | datetime | None
Mode = Annotated[
    str,
    typer.Option(
        metavar="|".join(_MODES), help="By words and meaning, by words (BM25), or by vectors."
    ),
]
Question = Annotated[
    str,
    typer.Argument(help='What to look for: a question, or words, "a phrase", pre*, +must, -not.'),
]
FilterJson = Annotated[
    str | None,
    typer.Option(metavar="JSON", help="""Such as '{"path": {"$prefix": "docs/"}}'."""),
]
Most = Annotated[int, typer.Option("-k", min=0, help="At most so many hits.")]


class Searched(NamedTuple):
    """What a namespace means in a search: of an ingested one, its chunks."""

    place: str
    base: str | None  # the namespace of the documents, where it was ingested

    @classmethod
    def of(cls, database: Database, namespace: str) -> Searched:
        """What `namespace` means in a database."""
        base = moments.base_of(namespace)
        ingested = bool(database.list_keys(runs_of(base), limit=1))
        return cls(chunks_of(base), base) if ingested else cls(namespace, None)

    def path(self, path: str | None) -> str | None:
        """A field as people name it, as a path into the values."""
        if path is None or self.base is None or path.split(".")[0] in _OF_A_CHUNK:
            return path
        return f"metadata.{path}"

    def where(self, filter: Any) -> Any:
        """A filter as people write it, as one of the values: its fields are read as by `path`.

        What is not well formed is left as it is, for the search to complain of.
        """
        if self.base is None or not isinstance(filter, dict):
            return filter
        parts: list[dict[str, Any]] = []
        for name, asked in filter.items():
            if not name.startswith("$"):
                parts.append({f"{self.path(name)}": asked})
            elif isinstance(asked, list):
                parts.append({name: [self.where(each) for each in asked]})
            else:
                parts.append({name: self.where(asked)})
        return parts[0] if len(parts) == 1 else {"$and": parts} if parts else filter

    def named(self, key: str) -> str:
        """What to call a key."""
        return show.one_line(key if self.base is None else key.rpartition("#")[0] or key)


@app.command(rich_help_panel=_PANEL)
def search(
    ctx: typer.Context,
    namespace: Namespace,
    text: Question,
    k: Most = 5,
    mode: Mode = "hybrid",
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell why each hit stands where it stands.")
    ] = False,
    filter: FilterJson = None,
    group_by: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="Only the best hit of each value, such as path."),
    ] = None,
    author: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Written by them; repeat it.")
    ] = None,
    run: Annotated[
        list[str] | None, typer.Option(metavar="RUN", help="Written in this run; repeat it.")
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="MOMENT", help="Written here after that.")
    ] = None,
    before: Annotated[
        str | None, typer.Option(metavar="MOMENT", help="Written here before that.")
    ] = None,
    derived_from: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE",
            help="What came of a key (or NAMESPACE:KEY), a version or an ingested commit.",
        ),
    ] = None,
    superseded: Annotated[
        bool, typer.Option("--superseded", help="Also what something else supersedes.")
    ] = False,
    threshold: Annotated[float | None, typer.Option(help="Only hits that score so much.")] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="""No operators: +, -, " and * are just text.""")
    ] = False,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every row.")] = False,
    recall: Annotated[
        float, typer.Option(metavar="SHARE", help="Of the true best hits, to find on average.")
    ] = 0.95,
    model: Model = None,
    cursor: Annotated[
        str | None, typer.Option(help="The next page: the cursor of the one before (--json).")
    ] = None,
    as_of: AsOf = None,
    valid_at: ValidAt = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Find what answers a text best, now or at any moment, and tell why.

    An ingested namespace is searched by its chunks; each hit tells path, lines and commit.
    """
    _check_mode(mode)
    mode, embedder = _ways(mode)
    where = None if filter is None else filter_of(filter)
    with opened(ctx, db, embedder=embedder) as database:
        known, true = moments.as_of(as_of), moments.valid_at(database, namespace, valid_at)
        space = Searched.of(database, namespace)
        where = space.where(where)
        options: dict[str, Any] = {
            "k": k, "mode": mode, "filter": where, "as_of": known, "valid_at": true,
            "threshold": threshold, "exact": exact, "recall": recall, "syntax": not plain,
            "group_by": space.path(group_by), "cursor": cursor, "explain": explain,
            "causal": CausalFilter(
                after=moments.as_of(after), before=moments.as_of(before),
                author=author or None, run=run or None,
                derived_from=[_anchor(database, space, each) for each in derived_from or ()]
                or None,
                exclude_superseded=not superseded,
            ),
        }  # fmt: skip
        found = _found(database, space.place, text, model, options)
        hits = [_hit(database, space.base, match, known, true, explain=explain) for match in found]
        if mode != "text" and space.base is not None and _without_vectors(database, space.base):
            note(
                f"{show.clean(space.base)} was ingested without vectors, so it is searched by "
                "words alone; to have them, ingest into another namespace (-n) without --no-embed"
            )
        if not hits:
            hint(database, namespace, known, true)
            if k:
                note(_why_nothing(database, namespace, space.place, known, mode))
    if as_json:
        show.print_json(
            {
                "namespace": namespace,
                "text": text,
                "mode": mode,
                "as_of": as_of,
                "valid_at": valid_at,
                "plan": found.plan,
                "approximate": found.approximate,
                "considered": found.considered,
                "hits": hits,
                "cursor": found.cursor,
            }
        )
        return
    out = show.console()
    if not hits:
        note("nothing found")
    for number, (hit, match) in enumerate(zip(hits, found, strict=True), 1):
        _print_hit(out, number, hit, match if explain else None)
    if hits:
        how = "approximate" if found.approximate else "exact"
        more = "" if explain else "; --explain tells why"
        note(f"{how}, by {found.plan}, out of {found.considered:,}{more}")


@app.command("retrieval-diff", rich_help_panel=_PANEL)
def retrieval_diff(
    ctx: typer.Context,
    namespace: Namespace,
    text: Question,
    earlier: Annotated[str, typer.Option("--from", metavar="MOMENT", help="The earlier moment.")],
    later: Annotated[
        str | None, typer.Option("--to", metavar="MOMENT", help="The later one; else now.")
    ] = None,
    valid: Annotated[
        bool,
        typer.Option(
            "--valid",
            help="Compare what was true at two times, not what was known (two ingested "
            "commits always are).",
        ),
    ] = False,
    k: Most = 5,
    mode: Mode = "hybrid",
    filter: FilterJson = None,
    model: Model = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Tell how the answer to a question changed between two moments, and why.

    Every cause is tried: the question is asked again with the cause undone.
    """  # fmt: skip
    _check_mode(mode)
    mode, embedder = _ways(mode)
    where = None if filter is None else filter_of(filter)
    with opened(ctx, db, embedder=embedder) as database:
        valid = valid or _is_commit(database, namespace, earlier)
        t1, t2 = (_asked_moment(database, namespace, each, valid=valid)
                  for each in (earlier, later))  # fmt: skip
        space = Searched.of(database, namespace)
        where = space.where(where)
        options: dict[str, Any] = {
            "k": k,
            "mode": mode,
            "filter": where,
            "axis": "valid_at" if valid else "as_of",
        }
        try:
            changed = database.retrieval_diff(space.place, text, t1, t2, model=model, **options)
        except ModelMismatchError as error:
            if model is not None or len(error.known) != 1:
                raise
            options["model"] = _of_another(error)
            changed = database.retrieval_diff(space.place, text, t1, t2, **options)
        if not changed.before and not valid:
            moment = moments.as_of(earlier)
            hint(database, namespace, moment, None, option="--valid")
    if as_json:
        show.print_json(changed.to_dict())
        return
    _print_changes(changed, space, valid=valid)


def _print_changes(changed: RetrievalDiff, space: Searched, *, valid: bool) -> None:
    out = show.console()
    texts = {match.key: show.text_of(match.value) for match in (*changed.before, *changed.after)}

    def title(key: str) -> str:
        return f"{space.named(key)}\n{show.gist(texts.get(key) or '', 38)}".rstrip()

    if not changed.changes:
        note(
            f"the same {show.counted(len(changed.after), 'hit')} in the same order at both moments"
            if changed.after else "nothing was found at either moment"
        )  # fmt: skip
        return
    out.print(reasons.changes_table(changed, space.named, title, valid=valid))
    for change in changed:
        lines = change.text_diff.splitlines()[2:]  # without the two names
        if lines:
            out.print(Text(f"  {space.named(change.key)}", "bold"))
            shown = Text("\n").join([show.diff_text(lines[:_DIFF_LINES])])
            out.print(Text("  ") + shown, soft_wrap=True)
            if len(lines) > _DIFF_LINES:
                out.print(Text(f"  … {len(lines) - _DIFF_LINES} more lines", "dim"))
    same = len(changed.unchanged)
    sure = sum(change.verified for change in changed)
    note(
        f"of {show.counted(len(changed.after), 'hit')} {same:,} unchanged; of "
        f"{show.counted(len(changed), 'change')} {sure:,} undone by undoing what is named"
    )


# Parts of the above


def _check_mode(mode: str) -> None:
    if mode not in _MODES:
        raise QueryError(f"--mode is {', '.join(_MODES)}, not {mode!r}")


def _ways(mode: str) -> tuple[str, TextEmbedder | None]:
    """The mode, and the model it takes; without the model, words alone."""
    if mode == "text":
        return mode, None
    if mode == "vector":
        return mode, local_model("--mode vector needs it; --mode text does not")
    try:
        return mode, embedders.local()
    except MissingExtraError as error:
        note(f"searched by words alone: {show.clean(error)}")
        return "text", None


def _found(
    database: Database, place: str, text: str, model: str | None, options: dict[str, Any]
) -> Matches:
    try:
        return database.search(place, text, model=model, **options)
    except ModelMismatchError as error:
        if model is not None or len(error.known) != 1:
            raise
        return database.search(place, text, model=_of_another(error), **options)


def _of_another(error: ModelMismatchError) -> str:
    """The one model a namespace has, with a word of warning."""
    [known] = error.known
    note(
        f"these are vectors of {show.clean(known)}, and the question became one "
        "by the local model; they only agree if that is the same model"
    )
    return known


def _anchor(database: Database, space: Searched, source: str) -> str | tuple[str, str]:
    """What `--derived-from` names: a key, a commit, or a version."""
    home = space.base or space.place
    if database.history(home, source, limit=1):
        return home, source
    if space.base is not None and moments.is_sha(source):
        commits = database.list_keys(
            commits_of(space.base), prefix=source, limit=2, valid_at=moments.END_OF_TIME
        )
        if len(commits) == 1:
            return commits_of(space.base), commits[0]
    if _VERSION_ID.fullmatch(source):
        return source
    named, colon, key = source.partition(":")
    if colon and key and named in database.list_namespaces():
        return named, key
    return home, source  # the search says that it is not there


def _is_commit(database: Database, namespace: str, text: str) -> bool:
    commits = commits_of(moments.base_of(namespace))
    return moments.is_sha(text) and bool(
        database.list_keys(commits, prefix=text, limit=1, valid_at=moments.END_OF_TIME)
    )


def _asked_moment(database: Database, namespace: str, text: str | None, *, valid: bool) -> Moment:
    if text is None:
        return None
    return moments.valid_at(database, namespace, text) if valid else moments.as_of(text)


def _why_nothing(database: Database, namespace: str, place: str, known: Moment, mode: str) -> str:
    """What a namespace has, where nothing in it was found."""
    if namespace not in database.list_namespaces(as_of=known):
        return (
            f"nothing is in {show.clean(namespace)} at that moment; kdelta stats tells what "
            "there is, kdelta keys NAMESPACE what is in it"
        )
    if mode == "vector" and not any(
        space["namespace"] == place for space in database.stats()["vector_spaces"]
    ):
        return (
            f"what is in {show.clean(namespace)} has no vectors to search by; --mode text asks "
            "for words, Database.embed and kdelta ingest give vectors"
        )
    return "nothing there at that moment has these words or passes the filters and the threshold"


def _without_vectors(database: Database, namespace: str) -> bool:
    runs = database.query(runs_of(namespace), limit=1, select=["model"])
    return bool(runs) and runs[0].value.get("model") is None


def _hit(
    database: Database,
    ingested: str | None,
    match: Match,
    known: Moment,
    true: datetime | None,
    *,
    explain: bool,
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
    explanation = match.explanation if explain else None
    if explanation is not None:
        hit["explanation"] = explanation.to_dict()
    return hit


def _print_hit(out: Console, number: int, hit: dict[str, Any], why: Match | None) -> None:
    place = hit["key"]
    if "path" in hit:
        place = hit["path"]
        if hit["first_line"] is not None:
            place += f":{hit['first_line']}-{hit['last_line']}"
    told = [(hit.get("commit") or hit["version"])[:10], hit["author"], hit["valid_from"][:10]]
    told.append(show.one_line(hit.get("message") or "", 40))
    score = f"{hit['score']:.3f}" if abs(hit["score"]) >= 0.1 else f"{hit['score']:.4f}"
    title = f"{number}. {show.clean(place)}  {score}"
    text = show.text_of(hit["value"])
    body = json.dumps(hit["value"], ensure_ascii=False) if text is None else text
    lines = show.clean(body).strip("\n").splitlines()
    cut = len(lines) > _SHOWN_LINES
    shown = Text("\n".join(lines[:_SHOWN_LINES]) + ("\n…" if cut else ""))
    explanation = None if why is None else why.explanation
    inside = shown if explanation is None else Group(
        shown, Text(), reasons.why(explanation.to_dict()), reasons.why_table(explanation)
    )  # fmt: skip
    out.print(
        Panel(
            inside, title=Text(title), title_align="left", border_style="dim",
            subtitle=Text(show.clean("  ".join(t for t in told if t))), subtitle_align="left",
        )
    )  # fmt: skip
