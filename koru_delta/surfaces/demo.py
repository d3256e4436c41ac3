"""The demo: the same questions asked of a repository's history, now and then.

`run` finds the facts, `render` shows them to people.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

import koru_delta
from koru_delta import ChunkingConfig, Database, Filter, HybridSearcher, Match, Version
from koru_delta.embedders import TextEmbedder
from koru_delta.errors import IngestError, UnknownVersionError
from koru_delta.ingest import chunks_of, commits_of, ingest_git, origin
from koru_delta.ingest.git import count_commits, repository_root
from koru_delta.surfaces import reasons, show
from koru_delta.surfaces import sample as sample_history

_NAMESPACE: Final = "docs"
_GENERAL: Final = (
    "Which requirements does the installation have?",
    "Which command runs the test suite?",
    "What was added and fixed in the newest version?",
    "Which versions of Python are supported?",
    "How do I install it?",
    "How can I contribute?",
)
_OWN: Final = (
    "Does a write survive kill -9?",
    "Which command runs the test suite?",
    "How do I install it?",
    "How can I ask what was true at an earlier moment?",
    "What was added in the newest version?",
)
_ASKED: Final = 3  # of these questions
# Similarity of the best hit to its question. On this repository, the sample, click and
# starlette, questions that nothing answers get 0.2 at most, those of the sample 0.4 and more.
_FAIR: Final = 0.2
_CHUNKING: Final = ChunkingConfig("content", size=600)  # an answer is read at a glance
_PROSE: Final = ("*.md", "*.rst", "*.txt", "*.adoc")
_LARGE: Final = 2000  # commits; beyond that only prose is read
_CANDIDATES: Final = 24
_SHOWN_LINES: Final = 10  # of an answer
_COMPARED: Final = 3  # hits then and now
_CHANGES: Final = 4  # of these, told
_DIFF_LINES: Final = 24
_END_OF_TIME: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


class _Point(NamedTuple):
    """A commit of the history."""

    sha: str
    time: datetime
    author: str
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    question: str
    vector: Any  # float32, shape (dimensions,)
    filter: Filter | None
    model: str


class _Answer(NamedTuple):
    """The first hit of a search, and how like the question it is."""

    match: Match
    likeness: float

    @property
    def text(self) -> str:
        """As much of it as is shown."""
        text: str = self.match.value["text"]
        return "\n".join(text.split("\n")[:_SHOWN_LINES]).rstrip()


class _Finder:
    """Finds what answers a question best at a moment, by words and by meaning."""

    def __init__(self, db: Database, embedder: TextEmbedder) -> None:
        self._db = db
        self._search = HybridSearcher(db, chunks_of(_NAMESPACE), model=embedder.name, k=1)
        self._found: dict[tuple[str, datetime], _Answer | None] = {}

    def best(self, asked: _Asked, at: datetime) -> _Answer | None:
        """The first hit at that moment; None if there is nothing yet."""
        place = (asked.question, at)
        if place not in self._found:
            self._found[place] = self._best(asked, at)
        return self._found[place]

    def _best(self, asked: _Asked, at: datetime) -> _Answer | None:
        found = self._search.search(
            asked.question, vector=asked.vector, filter=asked.filter, valid_at=at
        )
        if not found:
            return None
        vector = self._db.vectors(found[0].version)[asked.model]
        return _Answer(found[0], float(vector @ asked.vector))


def run(
    embedder: TextEmbedder,
    *,
    repo: Path | None = None,
    questions: Sequence[str] = (),
    then: str | None = None,
    include: Sequence[str] = (),
    sample: bool = False,
    db: Path | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> dict[str, Any]:
    """Ingest a history, ask the questions at its end and at an earlier commit.

    Args:
        repo: By default the repository around the working directory; the sample
            history if there is none, or only one commit.
        then: The earlier commit; by default one at which the answers differ.
        db: Where to keep the database; by default it goes away.

    Raises:
        IngestError: `repo` is no repository, or git is missing.
        UnknownVersionError: `then` is no commit of the history.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kdelta-demo-")))
        found, reason = (None, None) if sample else _repository(repo)
        place = sample_history.make_sample(folder) if found is None else found
        commits = count_commits(place)
        if not include and commits > _LARGE:
            include = _PROSE
        database = stack.enter_context(koru_delta.open(db or folder / "db", embedder=embedder))
        started = time.perf_counter()
        report = ingest_git(
            database, place, include=include, embedder=embedder, namespace=_NAMESPACE,
            chunking=_CHUNKING, progress=progress,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        points = _points(database)
        if found is None:
            asked = _asked(database, embedder, questions or sample_history.QUESTIONS)
        elif questions:
            asked = _asked(database, embedder, questions)
        else:
            standard = _OWN if (place / "koru_delta" / "causal.py").exists() else _GENERAL
            asked = _asked(database, embedder, standard, prose=True)
        finder = _Finder(database, embedder)
        now = points[-1]
        if not questions:
            asked = _answerable(finder, asked, now)
        earlier = _named(points, then) if then else _earlier(finder, points, asked)
        if not questions:
            asked = _telling(finder, asked, earlier, now)
        answers = [
            _answers(database, finder, each, {"then": earlier, "now": now}) for each in asked
        ]
        path = _shown_path(database, answers, points)
        return {
            "repository": str(repo) if repo is not None else place.name,
            "path": None if found is None else str(place),
            "is_sample": found is None,
            "why_sample": reason,
            "database": None if db is None else str(db),
            "ingested": {
                "commits": report.commits, "documents": report.documents, "chunks": report.chunks,
                "unchanged_chunks": report.unchanged_chunks, "seconds": round(seconds, 3),
                "only": list(include),
            },
            "now": _point_facts(now),
            "then": _point_facts(earlier),
            "questions": answers,
            "history": None if path is None else _history(database, path),
            "diff": None if path is None else _diff(database, path, earlier, now),
        }  # fmt: skip


# Finding


def _repository(repo: Path | None) -> tuple[Path | None, str | None]:
    """The repository to read, or None and why it is the sample."""
    if repo is not None:
        root = repository_root(repo)
        if root is None:
            raise IngestError(f"{repo} is not in a git repository; name the directory of a clone")
        if count_commits(root) == 0:
            raise IngestError(f"{repo} has no commits yet; commit something, or leave --repo out")
        return root, None
    try:
        root = repository_root(Path.cwd())
        if root is None:
            return None, "there is no git repository here"
        if count_commits(root) < 2:
            return None, "this repository has fewer than two commits"
    except IngestError as error:  # nobody asked for this one
        return None, str(error)
    return root, None


def _points(db: Database) -> list[_Point]:
    rows = db.query(
        commits_of(_NAMESPACE), sort=["committed_at", "position"], valid_at=_END_OF_TIME,
        select=["sha", "committed_at", "author", "message"],
    )  # fmt: skip
    return [
        _Point(
            row.value["sha"], datetime.fromisoformat(row.value["committed_at"]),
            row.value["author"], show.one_line(row.value["message"]),
        )
        for row in rows
    ]  # fmt: skip


def _asked(
    db: Database, embedder: TextEmbedder, questions: Sequence[str], *, prose: bool = False
) -> list[_Asked]:
    where: Filter | None = None
    if prose:
        where = {"metadata.path": {"$regex": r"\.(md|rst|txt|adoc)$"}}
        if not db.count(chunks_of(_NAMESPACE), where, valid_at=_END_OF_TIME):
            where = None
    return [
        _Asked(question, embedder.embed_query(question), where, embedder.name)
        for question in questions
    ]


def _named(points: Sequence[_Point], sha: str) -> _Point:
    found = [point for point in points if point.sha.startswith(sha.lower())]
    if len(found) != 1:
        raise UnknownVersionError(f"{'more than one commit' if found else 'commit'} {sha}")
    return found[0]


def _answerable(finder: _Finder, asked: Sequence[_Asked], now: _Point) -> list[_Asked]:
    """The questions with a fair answer; if none has one, that with the best."""
    scores = []
    for each in asked:
        best = finder.best(each, now.time)
        scores.append(-1.0 if best is None else best.likeness)
    fair = [each for each, score in zip(asked, scores, strict=True) if score >= _FAIR]
    return fair or [asked[int(np.argmax(scores))]]


def _telling(finder: _Finder, asked: Sequence[_Asked], then: _Point, now: _Point) -> list[_Asked]:
    """A few of the questions, those first that had another fair answer then."""

    def tells(each: _Asked) -> int:
        before, after = finder.best(each, then.time), finder.best(each, now.time)
        if before is None or after is None or before.likeness < _FAIR:
            return 2
        return int(before.text == after.text)

    chosen = sorted(asked, key=tells)[:_ASKED]
    return [each for each in asked if each in chosen]


def _earlier(finder: _Finder, points: Sequence[_Point], asked: Sequence[_Asked]) -> _Point:
    """The commit, of some, with most fair answers that differ from those of now; the latest such.

    A text that answers several questions counts once.
    """
    past = [point for point in points if point.time < points[-1].time] or list(points)
    steps = np.linspace(0, len(past) - 1, min(_CANDIDATES, len(past))).round().astype(int)
    present = [finder.best(each, points[-1].time) for each in asked]
    scored: list[tuple[int, int, float, int]] = []
    for position in dict.fromkeys(steps.tolist()):
        fair: set[str] = set()
        differing: dict[str, float] = {}
        for each, now in zip(asked, present, strict=True):
            best = finder.best(each, past[position].time)
            if best is None or best.likeness < _FAIR:
                continue
            fair.add(best.text)
            if now is not None and best.text != now.text:
                differing[best.text] = best.likeness
        # To the tenth: a moment is not better for a difference that nobody sees.
        quality = round(sum(differing.values()), 1)
        scored.append((len(differing), len(fair), quality, position))
    return past[max(scored)[3]]


def _answers(
    db: Database, finder: _Finder, asked: _Asked, points: dict[str, _Point]
) -> dict[str, Any]:
    facts: dict[str, Any] = {"question": asked.question}
    for name, point in points.items():
        best = finder.best(asked, point.time)
        facts[name] = None if best is None else _answer(db, best, point.time)
    facts["same"] = facts["then"] is not None and (
        facts["now"] is not None and facts["then"]["text"] == facts["now"]["text"]
    )
    facts["changes"] = [] if facts["same"] else _changes(db, asked, points)
    return facts


def _changes(db: Database, asked: _Asked, points: dict[str, _Point]) -> list[dict[str, Any]]:
    """What entered, left or moved among the first hits from then to now, and why."""
    changed = db.retrieval_diff(
        chunks_of(_NAMESPACE), asked.question, points["then"].time, points["now"].time,
        axis="valid_at", k=_COMPARED, filter=asked.filter, model=asked.model,
    )  # fmt: skip
    facts = []
    for change in sorted(changed, key=lambda change: change.rank_after or change.rank_before or 0):
        hit = change.after or change.before
        assert hit is not None
        facts.append(
            change.to_dict()
            | {
                "path": hit.value["metadata"]["path"],
                "because": reasons.because(change, _path_of, valid=True),
            }
        )
    return facts


def _path_of(key: str) -> str:
    return show.one_line(key.rpartition("#")[0] or key)


def _answer(db: Database, answer: _Answer, at: datetime) -> dict[str, Any]:
    match, text = answer.match, answer.text
    place = origin(db, _NAMESPACE, match.version, valid_at=at)
    start = place.first_line
    assert match.explanation is not None
    return {
        "path": place.path,
        "first_line": start,
        "last_line": None if start is None else start + text.count("\n"),
        "commit": place.commit,
        "author": place.author,
        "date": None if place.committed_at is None else place.committed_at.isoformat(),
        "message": show.one_line(place.message or ""),
        "score": round(match.score, 4),
        "why": match.explanation.to_dict(),
        "key": match.key,
        "text": text,
    }


def _shown_path(
    db: Database, answers: Sequence[dict[str, Any]], points: Sequence[_Point]
) -> str | None:
    """The file to tell the history of: of those that answered, the one with most versions."""
    paths = {
        answer["path"]: None
        for facts in answers
        for answer in (facts["now"], facts["then"])
        if answer is not None
    } or dict.fromkeys(db.list_keys(_NAMESPACE, valid_at=points[-1].time))
    return max(paths, key=lambda path: len(db.history(_NAMESPACE, path)), default=None)


def _by_time(db: Database, path: str) -> list[Version]:
    return sorted(db.history(_NAMESPACE, path), key=lambda v: (v.valid_from, v.seq))


def _history(db: Database, path: str) -> dict[str, Any]:
    versions = []
    before: list[str] = []
    for version in _by_time(db, path):
        after = (show.text_of(version.value) or "").split("\n")
        lines = show.unified("\n".join(before), "\n".join(after), "", "", context=0)[2:]
        commit = next(iter(db.ancestors(version, kinds=["derived_from"], max_hops=1)), None)
        versions.append(
            {
                "version": version.id,
                "commit": None if commit is None else commit.key,
                "date": version.valid_from.isoformat(),
                "operation": version.operation,
                "author": version.author,
                "message": version.message,
                "added": sum(line.startswith("+") for line in lines),
                "removed": sum(line.startswith("-") for line in lines),
            }
        )
        before = after
    return {"path": path, "versions": versions}


def _diff(db: Database, path: str, then: _Point, now: _Point) -> dict[str, Any] | None:
    """What changed in a file from then to now, or with its last change if it was not there."""
    texts = [
        show.text_of(db.get(_NAMESPACE, path, None, valid_at=point.time)) for point in (then, now)
    ]
    names = [then.sha, now.sha]
    if texts[0] is None or texts[1] is None or texts[0] == texts[1]:
        versions = [version for version in _by_time(db, path) if not version.is_tombstone]
        if len(versions) < 2:
            return None
        texts = [show.text_of(version.value) for version in versions[-2:]]
        names = [version.value.get("commit", "") for version in versions[-2:]]
    lines = show.unified(
        texts[0] or "", texts[1] or "", f"{path} at {names[0][:10]}", f"{path} at {names[1][:10]}",
        context=1,
    )  # fmt: skip
    return {"path": path, "from": names[0], "to": names[1], "lines": lines}


def _point_facts(point: _Point) -> dict[str, Any]:
    return {
        "commit": point.sha,
        "date": point.time.isoformat(),
        "author": point.author,
        "message": point.message,
    }


# Showing


def render(facts: dict[str, Any], out: Console) -> None:
    """Show the facts of a demo."""
    out.width = min(out.width, 110)
    out.print()
    out.print(_introduction(facts))
    for number, each in enumerate(facts["questions"], 1):
        out.print()
        out.print(Rule(Text(f"{number}. {show.clean(each['question'])}", "bold"), align="left"))
        out.print(_side_by_side(each, facts))
        if each["changes"]:
            out.print(_changes_table(each["changes"]))
    if facts["history"] is not None:
        out.print()
        path = show.clean(facts["history"]["path"])
        out.print(Rule(Text(f"The history of {path}", "bold"), align="left"))
        out.print(_history_table(facts["history"]["versions"]))
    if facts["diff"] is not None:
        lines = facts["diff"]["lines"]
        out.print(Padding(show.diff_text(lines[:_DIFF_LINES]), (1, 2)))
        if len(lines) > _DIFF_LINES:
            out.print(f"  … and {len(lines) - _DIFF_LINES} more lines", style="dim")
    out.print()
    out.print(Rule(Text("Now you", "bold"), align="left"))
    out.print(_commands(facts), soft_wrap=True)


def _introduction(facts: dict[str, Any]) -> Text:
    ingested = facts["ingested"]
    name = show.clean(facts["repository"])
    text = Text("  ")
    if facts["is_sample"]:
        why = f" ({facts['why_sample']})" if facts["why_sample"] else ""
        text.append(f"A sample history, made with git{why}: {name}.\n  ")
    else:
        only = f" (only {', '.join(ingested['only'])})" if ingested["only"] else ""
        text.append(f"The history of {name}{only}.\n  ")
    if ingested["commits"]:
        text.append(
            f"{ingested['commits']:,} commits became {ingested['documents']:,} versions of "
            f"documents and {ingested['chunks']:,} chunks in {ingested['seconds']:.2f} s;\n  each "
            "is valid from the time of its commit, so every question can be asked of any moment.\n"
        )
    else:
        text.append("Nothing is new since it was ingested.\n")
    for name in ("then", "now"):
        point = facts[name]
        text.append(f"\n  {name:<5}", "bold")
        text.append(f"{_day(point, facts)}  {point['commit'][:10]}  ", "cyan")
        text.append(show.one_line(f"{point['author']}: {point['message']}", 60))
    return text


def _day(point: dict[str, Any], facts: dict[str, Any]) -> str:
    """The day of a moment, to the minute if both were on one day."""
    same = facts["then"]["date"][:10] == facts["now"]["date"][:10]
    return str(point["date"][:16].replace("T", " ") if same else point["date"][:10])


def _side_by_side(each: dict[str, Any], facts: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False, padding=(0, 1))
    if each["same"]:
        since = f"{each['then']['date'][:10]} ({each['then']['commit'][:10]})"
        table.add_column(Text(f"then and now: unchanged since {since}", "bold"))
        table.add_row(_cell(each["now"]))
        return table
    for name in ("then", "now"):
        title = Text(f"{name}, {_day(facts[name], facts)}", "bold")
        table.add_column(title, ratio=1, overflow="fold")
    table.add_row(_cell(each["then"]), _cell(each["now"]))
    return table


def _cell(answer: dict[str, Any] | None) -> Group:
    if answer is None:
        return Group(Text("nothing was there yet", "dim"))
    lines = "" if answer["first_line"] is None else f":{answer['first_line']}-{answer['last_line']}"
    return Group(
        _reflowed(show.clean(answer["text"])),
        Text(""),
        Text(show.clean(answer["path"]) + lines, "cyan"),
        Text(
            f"{(answer['commit'] or '')[:10]}  {(answer['date'] or '')[:10]}  "
            f"{show.clean(answer['author'])}",
            "dim",
        ),
        Text(show.clean(answer["message"]), "dim italic"),
        reasons.why(answer["why"], between="\n"),
    )


def _changes_table(changes: Sequence[dict[str, Any]]) -> Table:
    """The first changes among the best hits, one a line."""
    table = Table(
        box=None, show_header=False, pad_edge=False, padding=(0, 1), title_justify="left",
        title=Text(f" from then to now, among the first {_COMPARED}", "dim"), title_style="",
    )  # fmt: skip
    for style in ("bold", "", "cyan", "dim"):
        table.add_column(style=style, overflow="fold")
    for change in changes[:_CHANGES]:
        sign, colour = reasons.SIGNS[change["kind"]]
        places = f"{change['rank_before'] or '·'}→{change['rank_after'] or '·'}"
        table.add_row(
            Text(f" {sign} {change['kind']}", colour), places, show.clean(change["path"]),
            show.one_line(change["because"], 62),
        )  # fmt: skip
    return table


def _reflowed(text: str) -> Text:
    """Prose without its line ends, so that it fills the column; headings bold, the rest as is."""
    shown = Text()
    flowing = fenced = False
    for line in text.split("\n"):
        fenced ^= line.lstrip().startswith("```")
        plain = bool(line) and (line[0].isalnum() or line[0] in "`\"'([") and not fenced
        plain = plain and not line.startswith("```")
        if shown:
            shown.append(" " if plain and flowing else "\n")
        shown.append(line, "bold" if line.startswith("#") else "")
        flowing = plain
    return shown


def _history_table(versions: Sequence[dict[str, Any]]) -> Table:
    rows = []
    for version in versions[-12:][::-1]:
        changed = Text.assemble(
            (f"+{version['added']}", "green"), " ", (f"-{version['removed']}", "red")
        )
        what = version["message"] or ""
        if version["operation"] == "delete":
            what = f"(deleted) {what}"
        rows.append(
            (version["date"][:10], (version["commit"] or "")[:10], version["author"] or "",
             changed, show.one_line(what, 60))
        )  # fmt: skip
    made = show.table(("valid from", "commit", "author", "lines", "message"), rows)
    if len(versions) > len(rows):
        made.caption = f"the newest {len(rows)} of {len(versions)}"
    return made


def _commands(facts: dict[str, Any]) -> Text:
    """Commands to go on with, to be copied as they are."""
    kdelta, moment = invocation(), facts["then"]["commit"][:10]
    question = next(
        (each["question"] for each in facts["questions"] if not each["same"] and each["then"]),
        facts["questions"][0]["question"],
    )
    kept = facts["database"]
    where = ["--db", kept or "history.koru"]
    search = [*kdelta, "search", _NAMESPACE, question, *where]
    groups: list[tuple[str, list[str]]] = []
    cut = ["--chunk-size", str(_CHUNKING.most)]
    if facts["is_sample"]:
        if kept is None:
            groups.append(
                ("keep this sample", [*kdelta, "demo", "--sample", *where]),
            )
    elif kept is None:
        only = [part for glob in facts["ingested"]["only"] for part in ("--include", glob)]
        path = shown_path(Path(facts["path"]))
        groups.append(
            (
                "keep a database of this history",
                [*kdelta, "ingest", "git", path, *only, *cut, *where],
            )
        )
    groups.append(("ask it, as things are", search))
    groups.append(("as they were", [*search, "--valid-at", moment]))
    groups.append(
        ("another repository: put its directory for PATH", [*kdelta, "demo", "--repo", "PATH"])
    )
    if facts["is_sample"]:
        groups.append(("a database of it", [*kdelta, "ingest", "git", "PATH", "--db", "mine.koru"]))
    text = Text()
    for meaning, command in groups:
        text.append(f"\n  # {show.clean(meaning)}\n", "dim")
        text.append(f"  {show.clean(shlex.join(command))}\n", "bold green")
    return text


def invocation() -> list[str]:
    """The words this program was started with, as they can be typed here again."""
    started = Path(sys.argv[0])
    if started.parts[-2:] == ("koru_delta", "__main__.py"):
        return [shown_path(Path(sys.executable)), "-m", "koru_delta"]
    if not started.is_file() or started.stem != "kdelta":
        return ["kdelta"]  # called by another program
    found = shutil.which("kdelta")
    if found is not None and Path(found).resolve() == started.resolve():
        return ["kdelta"]
    return [shown_path(started)]


def shown_path(path: Path) -> str:
    """A path to type from here: relative if it is here or below."""
    path, here = path.absolute(), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
