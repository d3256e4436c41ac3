"""Whether searches find what is right, now and in the past, and how long the whole call takes.

Sets of questions:

- XQuAD: 1,190 questions, each answered by one of 240 paragraphs.
- headings: "title: heading" of PEPs as they are now, answered by the text below that heading
  (which does not hold it), among the 1,400 sections of 70 PEPs. Headings that more than two
  PEPs have are left out.
- the past: sections of 70 PEPs and the statuses of 740, each version known from when it was
  written. Asked is what a section ("title: heading") or a status ("title: status") was at
  a moment when it said something else than it does now; right is the version of that moment
  and no other. Other ways search all versions side by side, and drop what was not true then
  among the best 10 or 50, or halve scores with every year of age, or do nothing about
  it; or search what is there now and read what the hits said then. The gains beside them are
  in points, with the bounds of a paired bootstrap over PEPs (95 %); the lower one has to be
  above 0.

All vectors are of the local model. The chunks of the last part are those of PEP revisions, each
with the name and the date of its revision.
"""

from __future__ import annotations

import bisect
import gzip
import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

import koru_delta
from benchmarks.measure import (
    Row,
    Side,
    SkippedError,
    at_least,
    at_most,
    by_turns,
    quiet,
    ratio_at_least,
    ratio_at_most,
    sized,
)
from benchmarks.peps import Revision, data_file, read_revisions
from benchmarks.synthesis import HEADERS, XQUAD, sections
from koru_delta import Database, Match, Version, embedders
from koru_delta.embedders import TextEmbedder
from koru_delta.errors import KeyNotFoundError, MissingExtraError
from koru_delta.ingest.chunking import chunk_text
from koru_delta.search.columns import Columns
from koru_delta.search.filters import compile_filter
from koru_delta.testing import FixedClock

DEPTH = 50  # hits that are looked through for the right one
BOOTSTRAPS = 2000
HALF_LIFE = timedelta(days=365)
CHUNKS, WORDS, K = 100_000, 8, 10
DEEP = 30  # hits of each leg that a hybrid search for 10 asks for
TEXT_MS, FILTER_MS, HYBRID, PAST = 3, 1, 1.5, 1.5  # targets; the last two are ratios
_FEW = 2  # PEPs that share a heading, at most
_MODES: Mapping[str, dict[str, Any]] = {
    "vector": {"mode": "vector"},
    "text": {"mode": "text"},
    "hybrid (score)": {},
    "hybrid (rrf)": {"fusion": "rrf"},
    "hybrid (score), text twice": {"weights": {"text": 2}},
}

Ranks = npt.NDArray[np.float64]  # of the right answer in each question; infinite where not found


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    right: str
    group: str
    moment: int = 0  # seconds since 1970


def run(folder: Path, scale: float) -> Iterator[Row]:
    peps, root = data_file(), os.environ.get("KORU_DATA")
    if peps is None or root is None or not Path(root, XQUAD).is_file():
        raise SkippedError("KORU_DATA names no folder with XQuAD and the PEPs")
    try:
        embed = embedders.local()
    except MissingExtraError as error:
        raise SkippedError(str(error)) from error
    yield from _found("XQuAD", *_xquad(Path(root, XQUAD)), embed, sized(1190, scale, 60))
    revisions = read_revisions(peps)
    some = set(sorted({each.pep for each in revisions})[: sized(70, scale, 6)])
    revisions = [each for each in revisions if each.pep in some]
    titles = _titles(Path(root, HEADERS))
    yield from _found("headings", *_headings(revisions, titles), embed, sized(600, scale, 60))
    yield from _past(revisions, titles, embed, sized(400, scale, 40))
    yield from _speed(folder, _chunks(revisions, sized(CHUNKS, scale, 1_000)), embed, scale)


# What is found among what is there now


def _xquad(file: Path) -> tuple[dict[str, str], list[Question]]:
    texts: dict[str, str] = {}
    asked: list[Question] = []
    for article in json.loads(gzip.decompress(file.read_bytes()))["data"]:
        for paragraph in article["paragraphs"]:
            key = f"{len(texts):03}"
            texts[key] = paragraph["context"]
            asked += [Question(qa["question"], key, article["title"]) for qa in paragraph["qas"]]
    return texts, asked


def _headings(
    revisions: Sequence[Revision], titles: Mapping[str, list[tuple[int, str]]]
) -> tuple[dict[str, str], list[Question]]:
    newest = {each.pep: each.value["text"] for each in revisions}
    texts = {
        f"{pep}#{heading}": body for pep, text in newest.items() for heading, body in sections(text)
    }
    had = Counter(key.split("#", 1)[1].casefold() for key in texts)
    asked = []
    for key in texts:
        pep, heading = key.split("#", 1)
        if had[heading.casefold()] <= _FEW:
            asked.append(Question(f"{titles[pep][-1][1]}: {heading}", key, pep))
    return texts, asked


def _found(
    name: str, texts: Mapping[str, str], asked: list[Question], embed: TextEmbedder, most: int
) -> Iterator[Row]:
    """How often each way of searching finds the right text."""
    random.Random(1).shuffle(asked)
    asked = asked[:most]
    with koru_delta.open(embedder=embed) as db:
        db.embed_many("texts", [(key, text, {"text": text}) for key, text in texts.items()])

        def ranks(**how: Any) -> Ranks:
            return np.array([
                _rank(db.search("texts", each.text, k=DEPTH, syntax=False, **how), each.right)
                for each in asked
            ])  # fmt: skip

        found = {mode: ranks(**how) for mode, how in _MODES.items()}
    figures = {
        "recall@1": lambda ranks: 100 * np.mean(ranks <= 1),
        "recall@5": lambda ranks: 100 * np.mean(ranks <= 5),
        "MRR": lambda ranks: 100 * np.mean(1 / ranks),
    }
    for label, figure in figures.items():
        legs = {leg: float(figure(found[leg])) for leg in ("vector", "text")}
        better = max(legs, key=legs.__getitem__)
        yield Row(f"{name}, {label}: vector", legs["vector"], "%")
        yield Row("  text", legs["text"], "%")
        for mode in list(_MODES)[2:]:
            yield Row(
                f"  {mode}", float(figure(found[mode])), "%", legs[better], better,
                (ratio_at_least(1),) if mode == "hybrid (score)" else (),
            )  # fmt: skip


def _rank(matches: Sequence[Match], right: str) -> float:
    for place, match in enumerate(matches, 1):
        if match.key == right:
            return place
    return np.inf


# What is found of the past


@dataclass(frozen=True, slots=True)
class _Said:
    """What a key said from a moment (in seconds) on; None is nothing."""

    key: str
    since: int
    text: str | None


def _titles(file: Path) -> dict[str, list[tuple[int, str]]]:
    """By PEP when it got which title, oldest first."""
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for row in _headers(file):
        title = row["header"].get("Title")
        if title:
            found[f"pep-{row['pep']}"].append((row["committed_at"], title))
    return found


def _title(titles: Mapping[str, list[tuple[int, str]]], pep: str, moment: int) -> str:
    """The title of a PEP at a moment."""
    known = titles[pep]
    place = bisect.bisect_right(known, moment, key=lambda each: each[0])
    return known[max(0, place - 1)][1]


def _headers(file: Path) -> list[dict[str, Any]]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return sorted(rows, key=lambda row: row["committed_at"])


def _statements(
    revisions: Sequence[Revision], titles: Mapping[str, list[tuple[int, str]]], headers: Path
) -> list[_Said]:
    """Everything that was ever said, in the order of its time; each text says whose it is."""
    said: list[_Said] = []
    known: dict[str, dict[str, str]] = defaultdict(dict)
    for revision in revisions:
        title = _title(titles, revision.pep, revision.committed_at)
        now = {
            f"{revision.pep}#{heading}": f"{title}\n{heading}\n\n{body}"
            for heading, body in sections(revision.value["text"])
        }
        before = known[revision.pep]
        changed = {key: text for key, text in now.items() if before.get(key) != text}
        said += [_Said(key, revision.committed_at, text) for key, text in changed.items()]
        said += [_Said(key, revision.committed_at, None) for key in before.keys() - now.keys()]
        known[revision.pep] = now
    statuses: dict[str, str] = {}
    for row in _headers(headers):
        title, status = row["header"].get("Title"), row["header"].get("Status")
        key = f"pep-{row['pep']}"
        text = f"{title}\n\nStatus: {status}"
        if title and status and statuses.get(key) != text:
            statuses[key] = text
            said.append(_Said(key, row["committed_at"], text))
    return sorted(said, key=lambda each: (each.since, each.key))


def _past(
    revisions: Sequence[Revision],
    titles: Mapping[str, list[tuple[int, str]]],
    embed: TextEmbedder,
    most: int,
) -> Iterator[Row]:
    said = _statements(revisions, titles, Path(os.environ["KORU_DATA"], HEADERS))
    lives: dict[str, list[_Said]] = defaultdict(list)
    for each in said:
        lives[each.key].append(each)
    asked = _about_the_past(lives, titles, most)
    clock = FixedClock(0)
    with koru_delta.open(embedder=embed, clock=clock) as db:
        _tell(db, clock, said)
        clock.now = (said[-1].since + 1) * 1_000_000
        ways = _ways(db, lives)
        found = {
            name: np.array([way(each) for each in asked]) for name, way in ways.items()
        }  # fmt: skip
    ours = found.pop(_BEFORE)
    groups = [each.group for each in asked]
    for k in (1, 5):
        share = 100 * float(np.mean(ours <= k))
        yield Row(f"the past, {len(asked)} questions, {len(said):,} versions", share, f"% at {k}")
        for name, theirs in found.items():
            low, high = _bounds(ours <= k, theirs <= k, groups)
            other = 100 * float(np.mean(theirs <= k))
            yield Row(
                f"  {name}: {share - other:+.1f} [{low:+.1f}, {high:+.1f}]",
                share, f"% at {k}", other, "that",
                # The limit is what ours must reach for the lower bound to be above zero.
                () if name.startswith("as of") else (at_least(share - low + 1e-9),),
            )  # fmt: skip


_BEFORE = "as of then, hybrid"


def _about_the_past(
    lives: Mapping[str, Sequence[_Said]],
    titles: Mapping[str, list[tuple[int, str]]],
    most: int,
) -> list[Question]:
    """Questions whose answer is no longer what it was; half about statuses, if there are."""
    rng = random.Random(5)
    had = Counter(key.split("#", 1)[1].casefold() for key in lives if "#" in key)
    some: dict[bool, list[Question]] = {True: [], False: []}
    keys = sorted(lives)
    rng.shuffle(keys)
    for key in keys:
        pep, _, heading = key.partition("#")
        life = lives[key]
        past = [
            place for place, each in enumerate(life[:-1])
            if each.text not in (None, life[-1].text) and life[place + 1].since > each.since
        ]  # fmt: skip
        if not past or (heading and had[heading.casefold()] > _FEW):
            continue
        place = rng.choice(past)
        moment = rng.randrange(life[place].since, life[place + 1].since)
        text = f"{_title(titles, pep, moment)}: {heading or 'status'}"
        some[not heading].append(Question(text, _named(life[place]), pep, moment))
    return [question for kind in some.values() for question in kind[: most // 2]]


def _named(said: _Said) -> str:
    """The key of one version, in a namespace that keeps each under its own."""
    return f"{said.key}@{said.since}"


def _tell(db: Database, clock: FixedClock, said: Sequence[_Said]) -> None:
    """Write it as it happened; and every version beside all others, as if time were metadata."""
    at = 0
    while at < len(said):
        since = said[at].since
        end = bisect.bisect_right(said, since, lo=at, key=lambda each: each.since)
        clock.now = since * 1_000_000
        last = {each.key: each for each in said[at:end]}  # of one second, the last word
        texts = [each for each in last.values() if each.text is not None]
        gone = [each.key for each in last.values() if each.text is None]
        if texts:
            db.embed_many("told", [(each.key, each.text, _value(each)) for each in texts])
            db.embed_many("ever", [(_named(each), each.text, _value(each)) for each in texts])
        if gone:
            db.delete_many("told", gone)
        at = end


def _value(said: _Said) -> dict[str, Any]:
    return {"text": said.text, "since": said.since}


def _ways(
    db: Database, lives: Mapping[str, Sequence[_Said]]
) -> dict[str, Callable[[Question], float]]:
    """Ways to answer a question about the past: the place of the right version in each."""

    def before(**how: Any) -> Callable[[Question], float]:
        def way(asked: Question) -> float:
            then = datetime.fromtimestamp(asked.moment, UTC)
            found = db.search("told", asked.text, k=5, as_of=then, syntax=False, **how)
            names = [f"{each.key}@{each.value['since']}" for each in found]  # type: ignore[call-overload,index]
            return _place(names, asked.right)

        return way

    def true_then(name: str, moment: int) -> bool:
        key, _, since = name.rpartition("@")
        life = lives[key]
        place = bisect.bisect_right(life, moment, key=lambda each: each.since) - 1
        return place >= 0 and life[place].since == int(since)

    def after(k: int) -> Callable[[Question], float]:
        def way(asked: Question) -> float:
            found = db.search("ever", asked.text, k=k, syntax=False)
            names = [each.key for each in found if true_then(each.key, asked.moment)]
            return _place(names, asked.right)

        return way

    def then_read(asked: Question) -> float:
        then = datetime.fromtimestamp(asked.moment, UTC)
        names = []
        for each in db.search("told", asked.text, k=5, syntax=False):
            try:
                value: Any = db.get("told", each.key, as_of=then)
            except KeyNotFoundError:
                continue
            names.append(f"{each.key}@{value['since']}")
        return _place(names, asked.right)

    def plain(**how: Any) -> Callable[[Question], float]:
        def way(asked: Question) -> float:
            found = db.search("ever", asked.text, k=5, syntax=False, **how)
            return _place([each.key for each in found], asked.right)

        return way

    return {
        _BEFORE: before(),
        "as of then, vector": before(mode="vector"),
        "as of then, text": before(mode="text"),
        "as of then, rrf": before(fusion="rrf"),
        "as of then, text twice": before(weights={"text": 2}),
        "filter after, of 10": after(10),
        f"filter after, of {DEPTH}": after(DEPTH),
        "best now, then the past": then_read,
        "all versions": plain(),
        "recency decay": plain(half_life=HALF_LIFE),
    }


def _place(names: Sequence[str], right: str) -> float:
    return names.index(right) + 1 if right in names else np.inf


def _bounds(
    ours: npt.NDArray[np.bool_], theirs: npt.NDArray[np.bool_], groups: Sequence[str]
) -> tuple[float, float]:
    """95 % of the differences in points, over resampled groups of questions."""
    numbers = np.unique(groups, return_inverse=True)[1]
    count = int(numbers.max()) + 1
    gained = ours.astype(np.float64) - theirs
    sums = np.bincount(numbers, weights=gained, minlength=count)
    sizes = np.bincount(numbers, minlength=count)
    drawn = np.random.default_rng(3).integers(count, size=(BOOTSTRAPS, count))
    gains = 100 * sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(gains, [2.5, 97.5])
    return float(low), float(high)


# How long it takes


def _chunks(revisions: Sequence[Revision], count: int) -> list[dict[str, Any]]:
    """So many chunks of the newest revisions, with what a filter may ask."""
    found: list[dict[str, Any]] = []
    for revision in reversed(revisions):
        for chunk in chunk_text(revision.value["text"], max_chars=600, min_chars=350):
            found.append({  # unchanged chunks would else be one text, and one vector, many times
                "text": f"{revision.pep} {revision.time:%d %B %Y}: {chunk.text}",
                "pep": revision.pep, "status": revision.value["status"] or "",
                "commit": revision.value["commit"], "since": revision.committed_at,
                "start": chunk.start,
            })  # fmt: skip
        if len(found) >= count:
            break
    return found[:count]


def _speed(
    folder: Path, values: Sequence[dict[str, Any]], embed: TextEmbedder, scale: float
) -> Iterator[Row]:
    rounds, where = sized(100, scale, 3), f"{len(values):,} chunks"
    asked = _eight_words([each["text"] for each in values], (rounds + 3) * 12)
    moments: list[Version] = []
    place = folder / "chunks"
    with koru_delta.open(place, embedder=embed, durability="relaxed") as db:
        vectors = embed.embed_documents([each["text"] for each in values])
        step = max(1, len(values) // 400)
        for start in range(0, len(values), step):
            rows = range(start, min(start + step, len(values)))
            batch = [(f"{n:06}", vectors[n], values[n]) for n in rows]
            moments.append(db.embed_many("chunks", batch, model=embed.name)[-1])
        start_at = perf_counter()
        db.search("chunks", asked[0], mode="text", k=K)
        first = perf_counter() - start_at
        db.search("chunks", asked[0], k=K)
        db.build_index("chunks")
        with quiet():
            yield from _searches(db, asked, moments, rounds, where)
            yield from _filters(db, values, moments, rounds)
    yield Row(f"first search by text of {where}, reading all", first, "s")
    with koru_delta.open(place, embedder=embed, durability="relaxed") as db:
        start_at = perf_counter()
        db.search("chunks", asked[1], mode="text", k=K)
        again = perf_counter() - start_at
        yield Row("  after reopening, from the file", again, "s", first, "reading all")
        for count in (1, 1_000):
            taken = []
            for turn in range(3):
                rows = [
                    ("chunks", f"new-{count}-{turn}-{n}", values[n % len(values)])
                    for n in range(count)
                ]
                db.put_many(rows)
                start_at = perf_counter()
                db.search("chunks", asked[2 + turn], mode="text", k=K)
                taken.append(perf_counter() - start_at)
            yield Row(f"  with {count:,} new to read", 1e3 * sorted(taken)[1], "ms")


def _eight_words(texts: Sequence[str], count: int) -> list[str]:
    rng = random.Random(1)
    found: dict[str, None] = {}
    while len(found) < count:
        words = rng.choice(texts).split()
        start = rng.randrange(max(1, len(words) - WORDS + 1))
        found[" ".join(words[start : start + WORDS])] = None
    return list(found)


def _searches(
    db: Database, asked: Sequence[str], moments: Sequence[Version], rounds: int, where: str
) -> Iterator[Row]:
    past = moments[len(moments) // 2]
    turns = rounds + 3

    def search(part: int, **how: Any) -> Side:
        mine = asked[part * turns : (part + 1) * turns]
        return lambda n: db.search("chunks", mine[n], **{"k": K, "syntax": False, **how})

    def never_asked(part: int, **how: Any) -> Side:
        mine = asked[part * turns : (part + 1) * turns]
        rng = random.Random(part)
        fresh = [moments[n] for n in rng.sample(range(len(moments) // 3, len(moments) - 1),
                                                min(turns, len(moments) // 2))]  # fmt: skip
        return lambda n: db.search(
            "chunks", mine[n], k=K, syntax=False, as_of=fresh[n % len(fresh)], **how
        )

    vector, text, hybrid, then_text, then_hybrid, fresh_text, fresh_hybrid, *deep = by_turns(
        [
            search(0, mode="vector"), search(1, mode="text"), search(2),
            search(3, mode="text", as_of=past), search(4, as_of=past),
            never_asked(5, mode="text"), never_asked(6),
            search(7, mode="vector", k=DEEP), search(8, mode="text", k=DEEP),
        ], rounds, warm_up=3,
    )  # fmt: skip
    ms = 1e-6
    yield Row(f"search by text, {WORDS} words, {where}", text * ms, "ms",
              targets=(at_most(TEXT_MS),))  # fmt: skip
    yield Row("  by vector", vector * ms, "ms")
    yield Row("  hybrid", hybrid * ms, "ms", (vector + text) * ms, "the sum of both",
              (ratio_at_most(HYBRID),))  # fmt: skip
    yield Row(f"  hybrid, beside legs asked for {DEEP}", hybrid * ms, "ms", sum(deep) * ms,
              "the sum of both")  # fmt: skip
    half = "as of when half was there"
    target = (ratio_at_most(PAST),)
    yield Row(f"  by text {half}", then_text * ms, "ms", text * ms, "now", target)
    yield Row(f"  hybrid {half}", then_hybrid * ms, "ms", hybrid * ms, "now", target)
    fresh = "as of a moment never asked about"
    yield Row(f"  by text {fresh}", fresh_text * ms, "ms", text * ms, "now", target)
    yield Row(f"  hybrid {fresh}", fresh_hybrid * ms, "ms", hybrid * ms, "now", target)


def _filters(
    db: Database, values: Sequence[dict[str, Any]], moments: Sequence[Version], rounds: int
) -> Iterator[Row]:
    """Filters that nobody asked before, whose fields were asked before."""
    rng = random.Random(3)
    peps = sorted({each["pep"] for each in values})
    statuses = sorted({each["status"] for each in values})
    past = moments[len(moments) // 2]

    def fresh() -> dict[str, Any]:
        pep = rng.sample(peps, min(5, len(peps)))
        since = rng.choice(values)["since"] + rng.random()
        return {"status": {"$in": rng.sample(statuses, min(3, len(statuses)))},
                "pep": {"$nin": pep}, "since": {"$gt": since}}  # fmt: skip

    def words() -> dict[str, Any]:
        commit, status = rng.choice(values)["commit"], rng.choice(statuses)
        return {"commit": {"$gt": commit[:12]}, "start": {"$lt": rng.random() * 1e5},
                "status": {"$ne": status}}  # fmt: skip

    turns = rounds + 3
    ready: list[list[dict[str, Any]]] = [[fresh() for _ in range(turns)] for _ in range(5)]
    strings = [words() for _ in range(turns)]
    for _ in range(3):  # columns are read once that is cheaper
        db.count("chunks", fresh())
        db.count("chunks", words())
        db.query("chunks", fresh(), limit=K)
    asked = _eight_words([each["text"] for each in values], turns)
    columns = Columns(lambda start, stop: values[start:stop])
    compile_filter(fresh()).mask(columns, len(values))
    mask, count, then, rows, ordered, search = by_turns(
        [
            lambda n: compile_filter(ready[4][n]).mask(columns, len(values)),
            lambda n: db.count("chunks", ready[0][n]),
            lambda n: db.count("chunks", ready[1][n], as_of=past),
            lambda n: db.query("chunks", ready[2][n], limit=K),
            lambda n: db.count("chunks", strings[n]),
            lambda n: db.search("chunks", asked[n], k=K, filter=ready[3][n], syntax=False),
        ], rounds, warm_up=3,
    )  # fmt: skip
    ms, target = 1e-6, (at_most(FILTER_MS),)
    yield Row(f"count by 3 conditions, {len(values):,} rows", count * ms, "ms", targets=target)
    yield Row("  the mask alone", mask * ms, "ms", targets=target)
    yield Row("  as of when half was there", then * ms, "ms", count * ms, "now",
              (ratio_at_most(PAST),))  # fmt: skip
    yield Row("  with one on the order of strings", ordered * ms, "ms", targets=target)
    yield Row(f"  query, limit={K}", rows * ms, "ms", targets=target)
    yield Row("  hybrid search under such a filter", search * ms, "ms")
