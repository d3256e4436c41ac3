"""Text search, now and in the past, beside BM25 libraries and SQLite's FTS5.

The chunks are those of the PEP revisions, newest first. A question is eight words in a row out
of one of them, common words and all; none is asked twice. The libraries work on the same
terms, with the same parameters: what they see is fixed when they index, so that their past is an
index of its own, made of half of the chunks. FTS5 takes texts apart by itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import apsw
import numpy as np

from benchmarks.measure import Row, Side, SkippedError, at_most, by_turns, quiet, sized
from benchmarks.peps import data_file, read_revisions
from koru_delta.ingest.chunking import chunk_text
from koru_delta.search.text.analysis import Analyzer
from koru_delta.search.text.postings import K1, Among, B, Postings
from koru_delta.search.text.queries import parse_query

CHUNKS, WORDS, K = 100_000, 8, 10
LIMIT_MS = 3


def run(folder: Path, scale: float) -> Iterator[Row]:
    file = data_file()
    if file is None:
        raise SkippedError("KORU_DATA names no folder with the PEP revisions")
    try:
        import bm25s
        from rank_bm25 import BM25Okapi
    except ImportError as error:
        raise SkippedError(f"{error.name} is not installed") from error
    count, rounds = sized(CHUNKS, scale, 200), sized(100, scale, 3)
    texts = chunks(file, count)
    analyzer = Analyzer()
    with quiet():
        start = perf_counter()
        terms = [analyzer.terms(text) for text in texts]
        analysed = perf_counter() - start
        start = perf_counter()
        postings = Postings()
        postings.add(terms)
        added = perf_counter() - start
        start = perf_counter()
        peer = bm25s.BM25(method="lucene", k1=K1, b=B)
        peer.index(terms, show_progress=False)
        peer_added = perf_counter() - start
        start = perf_counter()
        naive = BM25Okapi(terms, k1=K1, b=B)
        naive_added = perf_counter() - start
        start = perf_counter()
        table = _full_text(folder / "fts.db", texts)
        table_added = perf_counter() - start
    where = f"{len(texts):,} chunks"
    characters = sum(map(len, texts))
    yield Row(f"terms of {where}", characters / analysed / 1e6, "MB/s")
    yield Row(f"index {where}, of terms", added, "s", peer_added, "bm25s")
    yield Row("  likewise", added, "s", naive_added, "rank_bm25")
    yield Row("  of texts", analysed + added, "s", table_added, "FTS5, committed")
    yield Row("  memory", postings.nbytes / 1e6, "MB", characters / 1e6, "characters")

    seen = postings.seen()
    rng = np.random.default_rng(1)
    half = rng.random(seen.count) < 0.5
    shown = np.flatnonzero(half)
    past_peer = bm25s.BM25(method="lucene", k1=K1, b=B)
    past_peer.index([terms[slot] for slot in shown.tolist()], show_progress=False)
    now, past = seen.among(None), seen.among(half)
    fresh = [rng.random(seen.count) < 0.5 for _ in range(rounds + 3)]
    ask = _questions(terms, (rounds + 3) * 6)
    total = 6
    sides: list[Side] = [
        _ours(now, analyzer, ask[0::total]),
        _theirs(peer, analyzer, ask[1::total]),
        _table(table, ask[2::total]),
        _ours(past, analyzer, ask[3::total]),
        _theirs(past_peer, analyzer, ask[4::total]),
        lambda n: _best(seen.among(fresh[n]), analyzer, ask[5::total][n]),
    ]
    ours, theirs, fts, ours_past, theirs_past, ours_fresh = (
        each / 1e6 for each in by_turns(sides, rounds, warm_up=2)
    )
    slow = _questions(terms, 4, seed=2)
    few = by_turns([lambda n: naive.get_scores(analyzer.terms(slow[n]))], 3)
    what = f"best {K} for {WORDS} words in a row, {where}"
    target = (at_most(LIMIT_MS),)
    yield Row(what, ours, "ms", theirs, "bm25s", target)
    yield Row("  likewise", ours, "ms", few[0] / 1e6, "rank_bm25, scores only")
    yield Row("  likewise", ours, "ms", fts, "FTS5")
    yield Row("  as of when half was there", ours_past, "ms", theirs_past, "bm25s of it", target)
    yield Row("  as of a moment never asked about", ours_fresh, "ms", ours, "now", target)
    common = [" ".join(row) for row in _orders(_commonest(seen.among(None), terms), rounds + 2)]
    worst = by_turns([_ours(now, analyzer, common), _theirs(peer, analyzer, common)], rounds)
    yield Row(f"  the {WORDS} commonest words", worst[0] / 1e6, "ms", worst[1] / 1e6, "bm25s")
    rows = [f'"{" ".join(text.split()[:3])}"' for text in _questions(terms, rounds, seed=3)]
    (phrase,) = by_turns([_ours(now, analyzer, rows)], rounds)
    yield Row("  a phrase of 3 words", phrase / 1e6, "ms")


def chunks(file: Path, count: int) -> list[str]:
    """So many chunks of 350 to 600 characters, from the newest revision on."""
    texts: list[str] = []
    for revision in reversed(read_revisions(file)):
        found = chunk_text(revision.value["text"], max_chars=600, min_chars=350)
        texts.extend(chunk.text for chunk in found)
        if len(texts) >= count:
            break
    return texts[:count]


def _questions(terms: Sequence[Sequence[str]], count: int, seed: int = 1) -> list[str]:
    rng = random.Random(seed)
    long = [each for each in terms if len(each) > WORDS]
    found: dict[str, None] = {}
    for _ in range(count * 20):
        text = rng.choice(long)
        start = rng.randrange(len(text) - WORDS + 1)
        found[" ".join(text[start : start + WORDS])] = None
        if len(found) == count:
            break
    return list(found)


def _commonest(now: Among, terms: Sequence[Sequence[str]]) -> list[str]:
    words = {word for text in terms[:1000] for word in text}
    return sorted(words, key=now.df, reverse=True)[:WORDS]


def _orders(words: list[str], count: int) -> list[list[str]]:
    rng = random.Random(4)
    return [rng.sample(words, len(words)) for _ in range(count)]


def _best(among: Among, analyzer: Analyzer, question: str) -> object:
    return among.top(parse_query(question, analyzer), K)


def _ours(among: Among, analyzer: Analyzer, questions: Sequence[str]) -> Callable[[int], object]:
    return lambda n: _best(among, analyzer, questions[n])


def _theirs(peer: Any, analyzer: Analyzer, questions: Sequence[str]) -> Callable[[int], object]:
    def search(n: int) -> object:
        asked = [analyzer.terms(questions[n])]
        return peer.retrieve(asked, k=K, show_progress=False)

    return search


def _full_text(file: Path, texts: Sequence[str]) -> apsw.Connection:
    connection = apsw.Connection(str(file))
    connection.execute("CREATE VIRTUAL TABLE chunks USING fts5(text, content='')")
    with connection:
        connection.executemany("INSERT INTO chunks(text) VALUES (?)", ((text,) for text in texts))
    return connection


def _table(connection: apsw.Connection, questions: Sequence[str]) -> Callable[[int], object]:
    def search(n: int) -> object:
        asked = " OR ".join(f'"{word}"' for word in questions[n].split())
        return connection.execute(
            "SELECT rowid, rank FROM chunks WHERE chunks MATCH ? ORDER BY rank LIMIT ?",
            (asked, K),
        ).fetchall()

    return search
