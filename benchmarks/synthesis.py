"""Which factors of proximity earn a weight: what each adds to the cosine alone, and loses.

Sets, each a list of questions with the candidates that may be found and the right one:

- xquad: 1,190 questions, 240 paragraphs. In its sessions the reader has just read another
  paragraph of the same article, in its strays one of any other; it is no candidate then.
- peps: "title: heading" asked at moments of the past, of headings that no more than two PEPs
  had then; candidates are the sections of 70 PEPs as they stood then, headings included. In
  its sessions the reader has just read another section of that PEP.
- peps common: the same of headings that many have, such as "Rationale".
- peps ever: the questions of `peps` over every section that ever stood, as if nothing knew
  of time. Words cannot tell versions apart: what goes by words has nothing to win there.

A factor passes when the lower bound of its gain in recall@1 is above 0 on two sets that
carry its signal (paired bootstrap over articles or PEPs, 2,000 times, 95 %), when it loses
no more than 0.5 points where they do not, and takes no more than 20 % more time than a
search in the same candidates without it.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

import koru_delta
from benchmarks.measure import Row, SkippedError, at_least, by_turns, ratio_at_most, sized
from benchmarks.peps import data_file, read_revisions
from koru_delta import embedders
from koru_delta.errors import MissingExtraError
from koru_delta.search.synthesis import (
    Distinctions,
    causal,
    compositional,
    proximity_of,
    temporal,
)
from koru_delta.search.synthesis.layers import words

XQUAD, HEADERS = "xquad/xquad.en.json.gz", "peps/header-history.jsonl.gz"
WEIGHTS = {"semantic": 1.0, "causal": 0.25, "compositional": 0.5, "temporal": 0.1}  # cosine: 1
CARRIES = {
    "semantic": ("xquad", "peps"),
    "causal": ("xquad session", "peps session"),
    "compositional": ("xquad session", "peps session"),
    "temporal": ("peps", "peps ever"),
}
CARRIES_NOT = {
    "semantic": ("peps common", "peps ever"),
    "causal": ("xquad stray", "peps stray"),
    "compositional": ("xquad stray", "peps stray"),
    "temporal": (),
}
MOMENTS, ASKED_AT_ONCE = 40, 14
BOOTSTRAPS, MOST_LOST, MOST_TIME = 2000, 0.5, 1.2
HALF_LIFE = 365 * 86_400.0

Floats = npt.NDArray[np.float64]
Question = tuple[str, int, str, int, float]  # text, right candidate, group, read before, moment


@dataclass
class Pool:
    """Candidates: unit vectors, distinctions, parents (documents), times they began."""

    vectors: npt.NDArray[np.float32]
    distinctions: Distinctions
    parents: npt.NDArray[np.int64]
    times: Floats


@dataclass
class Set:
    name: str
    questions: list[tuple[Pool, Question]] = field(default_factory=list)


def run(folder: Path, scale: float) -> Iterator[Row]:
    del folder
    sets = load(scale)
    embed = embedders.local()
    base = {name: _right(each, None, embed) for name, each in sets.items()}
    for factor, weight in WEIGHTS.items():
        rows = []
        for name in (*CARRIES[factor], *CARRIES_NOT[factor]):
            after = _right(sets[name], factor, embed)
            rows.append(_gain(sets[name], factor, base[name], after, name in CARRIES[factor]))
        for name in CARRIES[factor]:  # of so few candidates that most of it is overhead
            taken = _times(sets[name], factor, embed, sized(200, scale, 20))
            rows.append(Row(
                f"  {name}: time with it, of {len(sets[name].questions[-1][0].times):,}",
                taken[1] / 1e3, "us", taken[0] / 1e3, "without",
                (ratio_at_most(MOST_TIME),),
            ))  # fmt: skip
        passes = all(row.met for row in rows)
        if factor == "semantic":
            taken = _times(sets["peps ever"], factor, embed, sized(60, scale, 10))
            many = len(sets["peps ever"].questions[-1][0].times)
            rows.append(
                Row(f"  time with it, of {many:,}", taken[1] / 1e3, "us", taken[0] / 1e3, "without")
            )
        yield Row(f"{factor} {'passes' if passes else 'fails'}", weight, "of weight 1")
        yield from rows


def load(scale: float) -> dict[str, Set]:
    """Every set.

    Raises:
        SkippedError: the texts or the local model are not there.
    """
    root, peps = os.environ.get("KORU_DATA"), data_file()
    if root is None or peps is None or not (Path(root) / XQUAD).is_file():
        raise SkippedError("KORU_DATA names no folder with XQuAD and the PEPs")
    try:
        embed = embedders.local()
    except MissingExtraError as error:
        raise SkippedError(str(error)) from error
    sets = _xquad(Path(root) / XQUAD, embed, sized(1190, scale, 200))
    return sets | _peps(peps, Path(root) / HEADERS, embed, scale)


def _xquad(file: Path, embed: embedders.TextEmbedder, most: int) -> dict[str, Set]:
    data = json.loads(gzip.decompress(file.read_bytes()))["data"]
    texts: list[str] = []
    parents: list[int] = []
    asked: list[tuple[str, int, int]] = []
    for number, article in enumerate(data):
        for paragraph in article["paragraphs"]:
            asked += [(each["question"], len(texts), number) for each in paragraph["qas"]]
            texts.append(paragraph["context"])
            parents.append(number)
    pool = _pool(texts, embed, parents, [0.0] * len(texts))
    rng = random.Random(1)
    rng.shuffle(asked)
    sets = {name: Set(name) for name in ("xquad", "xquad session", "xquad stray")}
    for text, right, number in asked[:most]:
        _ask(sets, pool, (text, right, str(number), -1, 0.0), rng)
    return sets


def _peps(file: Path, headers: Path, embed: embedders.TextEmbedder, scale: float) -> dict[str, Set]:
    titles: dict[str, list[tuple[int, str]]] = {}
    with gzip.open(headers, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            title = row["header"].get("Title")
            if title:
                titles.setdefault(f"pep-{row['pep']}", []).append((row["committed_at"], title))
    revisions = read_revisions(file)
    some = set(sorted({each.pep for each in revisions})[: sized(70, scale, 12)])
    revisions = [each for each in revisions if each.pep in some]
    numbers: dict[str, int] = {}
    ever: dict[tuple[str, str, str], int] = {}  # PEP, heading, text -> candidate
    began: list[float] = []
    states: list[tuple[int, str, dict[str, int]]] = []
    for revision in revisions:
        numbers.setdefault(revision.pep, len(numbers))
        state = {}
        for heading, body in sections(revision.value["text"]):
            text = f"{heading}\n\n{body}"
            place = ever.setdefault((revision.pep, heading, text), len(began))
            if place == len(began):
                began.append(float(revision.committed_at))
            state[heading] = place
        states.append((revision.committed_at, revision.pep, state))
    texts = [text for _, _, text in ever]
    parents = [numbers[pep] for pep, _, _ in ever]
    whole = _pool(texts, embed, parents, began)
    terms = [words(text) for text in texts]
    rng = random.Random(2)
    names = ("peps", "peps session", "peps stray", "peps common", "peps ever")
    sets = {name: Set(name) for name in names}
    first, last = revisions[len(revisions) // 10].committed_at, revisions[-1].committed_at
    for moment in sorted(rng.randint(first, last) for _ in range(sized(MOMENTS, scale, 10))):
        then: dict[str, dict[str, int]] = {}
        for committed_at, pep, state in states:
            if committed_at <= moment and state:
                then[pep] = state
        rows = [place for state in then.values() for place in state.values()]
        places = {place: n for n, place in enumerate(rows)}
        pool = Pool(
            whole.vectors[rows], Distinctions([terms[place] for place in rows]),
            whole.parents[rows], whole.times[rows],
        )  # fmt: skip
        had = Counter(heading.casefold() for state in then.values() for heading in state)
        for pep in rng.sample(sorted(then), min(ASKED_AT_ONCE, len(then))):
            title = [each for when, each in titles.get(pep, ()) if when <= moment]
            for is_common in (False, True):
                headings = [h for h in sorted(then[pep]) if (had[h.casefold()] > 2) == is_common]
                if not headings:
                    continue
                heading = rng.choice(headings)
                text = f"{title[-1] if title else pep}: {heading}"
                right = then[pep][heading]
                question = (text, places[right], pep, -1, float(moment))
                if is_common:
                    sets["peps common"].questions.append((pool, question))
                    continue
                _ask(sets, pool, question, rng)
                sets["peps ever"].questions.append((whole, (text, right, pep, -1, float(moment))))
    return sets


def _ask(sets: dict[str, Set], pool: Pool, question: Question, rng: random.Random) -> None:
    """Ask it plainly, after reading beside the right place, and after reading elsewhere."""
    text, right, group, _, moment = question
    name = next(iter(sets))
    sets[name].questions.append((pool, question))
    beside = np.flatnonzero(pool.parents == pool.parents[right])
    beside = beside[beside != right]
    elsewhere = np.flatnonzero(pool.parents != pool.parents[right])
    for kind, places in (("session", beside), ("stray", elsewhere)):
        if len(places):
            read = int(places[rng.randrange(len(places))])
            sets[f"{name} {kind}"].questions.append((pool, (text, right, group, read, moment)))


def sections(text: str) -> Iterator[tuple[str, str]]:
    """Headings of a PEP and the text below each, the first of equal headings only.

    Underlined headings, or lines at the margin above indented text, as older PEPs have them.
    """
    lines = text.splitlines()
    marks = []
    for n, line in enumerate(lines[:-1]):
        below = lines[n + 1]
        if line.strip() and re.fullmatch(r"([=~^\"'-])\1{2,}\s*", below):
            marks.append((n, n + 2))
    if len(marks) < 2:
        marks = [
            (n, n + 1)
            for n, line in enumerate(lines[:-2])
            if re.match(r"[A-Z]\S", line) and not lines[n + 1].strip()
            and lines[n + 2].startswith("  ") and len(line) < 70
        ]  # fmt: skip
    seen = set()
    ends = [start for start, _ in marks[1:]] + [len(lines)]
    for (n, start), end in zip(marks, ends, strict=bool(marks)):
        heading, body = lines[n].strip(), "\n".join(lines[start:end]).strip()
        if len(body) >= 80 and heading not in seen:
            seen.add(heading)
            yield heading, body


def _pool(
    texts: Sequence[str], embed: embedders.TextEmbedder, parents: Sequence[int],
    times: Sequence[float],
) -> Pool:  # fmt: skip
    return Pool(
        embed.embed_documents(texts), Distinctions([words(text) for text in texts]),
        np.array(parents), np.array(times),
    )  # fmt: skip


def _scores(
    pool: Pool, question: Question, factor: str | None, embed: embedders.TextEmbedder
) -> Floats:
    """Proximity of each candidate, by the cosine and at most one factor beside it."""
    query = embed.embed_query(question[0])
    near = np.clip(pool.vectors @ query, 0.0, 1.0).astype(np.float64)
    scores = near if factor is None else _weighed(pool, question, factor, near, query)
    if question[3] >= 0:  # what was just read is not sought
        scores[question[3]] = -1.0
    return scores


def _weighed(
    pool: Pool, question: Question, factor: str, near: Floats, query: npt.NDArray[np.float32]
) -> Floats:
    text, _, _, read, moment = question
    values: Floats
    if factor == "semantic":
        values = pool.distinctions.semantic(words(text))
    elif factor == "causal":  # from chunk to document to chunk
        hops = np.where(pool.parents == pool.parents[read], 2.0, np.inf)
        values = causal(hops)
    elif factor == "compositional":
        values = compositional(query, pool.vectors[read : read + 1], pool.vectors)
    else:
        values = temporal(pool.times, moment, HALF_LIFE)
    weights = {"geometric": 1.0, factor: WEIGHTS[factor]}
    return proximity_of({"geometric": near, factor: values}, weights).scores


def _right(each: Set, factor: str | None, embed: embedders.TextEmbedder) -> Floats:
    """For each question 1 if the best candidate is the right one, else 0."""
    return np.array([
        float(int(np.argmax(_scores(pool, question, factor, embed))) == question[1])
        for pool, question in each.questions
    ])  # fmt: skip


def _gain(each: Set, factor: str, before: Floats, after: Floats, carries: bool) -> Row:
    """The gain in points of recall@1, with its bounds over resampled groups of questions."""
    groups = np.unique([question[2] for _, question in each.questions], return_inverse=True)[1]
    count = int(groups.max()) + 1
    sums = np.bincount(groups, weights=after - before, minlength=count)
    sizes = np.bincount(groups, minlength=count)
    drawn = np.random.default_rng(3).integers(count, size=(BOOTSTRAPS, count))
    gains = 100 * sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(gains, [2.5, 97.5])
    was, is_now = 100 * float(before.mean()), 100 * float(after.mean())
    # The limit is what it must reach for the lower bound to be above zero.
    limit = is_now - float(low) + 1e-9 if carries else was - MOST_LOST
    return Row(
        f"  {each.name}: gain {is_now - was:+.1f} [{low:+.1f}, {high:+.1f}]",
        is_now, "% at 1", was, "cosine alone", (at_least(limit),),
    )  # fmt: skip


def _times(
    each: Set, factor: str, embed: embedders.TextEmbedder, rounds: int
) -> tuple[float, float]:
    """Nanoseconds of an exact search for text, and of one that goes by the factor too.

    The factor is told the cosines, as it would be inside a search, which then takes the best
    by their sum in place of the best by cosine, once.
    """
    pool, (_, _, _, read, moment) = each.questions[-1]
    mine = [question for other, question in each.questions if other is pool]
    queries = [embed.embed_query(question[0]) for question in mine]
    near = [np.clip(pool.vectors @ query, 0.0, 1.0).astype(np.float64) for query in queries]
    with koru_delta.open(embedder=embed) as db:
        db.embed_many("t", [(f"k{n:06}", vector) for n, vector in enumerate(pool.vectors)],
                      model=embed.name)  # fmt: skip

        def without(n: int) -> object:
            return db.similar("t", mine[n % len(mine)][0], k=10, exact=True)

        def with_it(n: int) -> object:
            n %= len(mine)
            found = without(n)
            question = (mine[n][0], 0, "", read, moment)
            return found, _weighed(pool, question, factor, near[n], queries[n])

        first, other = by_turns([without, with_it], rounds, warm_up=5)
    return first, other
