"""BM25 over arrays equals BM25 by the book, over what is visible and nothing else."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import bm25s
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi

from koru_delta.errors import CorruptionError, QueryError
from koru_delta.search.text.analysis import Word
from koru_delta.search.text.postings import Postings
from koru_delta.search.text.queries import Clause, TextQuery, parse_query

WORDS = ["a", "ab", "abc", "b", "ba", "c", "d"]
documents = st.lists(st.lists(st.sampled_from(WORDS), max_size=8), max_size=12)
clauses = st.builds(
    Clause,
    st.tuples(st.lists(st.sampled_from([*WORDS, "zz"]), min_size=1, max_size=3), st.booleans()).map(
        lambda row: (*(Word(word) for word in row[0][:-1]), Word(row[0][-1], row[1]))
    ),
    st.sampled_from(["should", "should", "must", "not"]),
    st.integers(1, 3),
)
queries = st.lists(clauses, max_size=4).map(lambda some: TextQuery(tuple(some)))


def filled(texts: Sequence[Sequence[str]], sizes: Sequence[int] = ()) -> Postings:
    """Postings of some texts, added so many at a time and then the rest."""
    postings, start = Postings(), 0
    for size in sizes:
        postings.add(texts[start : start + size])
        start += size
    postings.add(texts[start:])
    return postings


def times(clause: Clause, text: Sequence[str]) -> int:
    """How often a clause's words stand in a row in a text."""
    size = len(clause.words)
    return sum(
        all(
            term.startswith(word.term) if word.prefix else term == word.term
            for word, term in zip(clause.words, text[start : start + size], strict=True)
        )
        for start in range(len(text) - size + 1)
    )


def by_the_book(
    texts: Sequence[Sequence[str]], visible: Sequence[bool], query: TextQuery, k1: float, b: float
) -> dict[int, float]:
    """Slots that answer and their scores, one document at a time."""
    shown = [slot for slot, is_shown in enumerate(visible) if is_shown]
    average = sum(len(texts[slot]) for slot in shown) / len(shown) if shown else 0
    scores: dict[int, float] = {}
    for slot in shown:
        have = [bool(times(clause, texts[slot])) for clause in query.clauses]
        occurs = [clause.occur for clause in query.clauses]
        if any(has and occur == "not" for has, occur in zip(have, occurs, strict=True)):
            continue
        if "must" in occurs:
            if not all(has for has, occur in zip(have, occurs, strict=True) if occur == "must"):
                continue
        elif not any(have):
            continue
        scores[slot] = 0.0
        for clause in query.scored:
            tf = times(clause, texts[slot])
            df = sum(times(clause, texts[other]) > 0 for other in shown)
            idf = math.log(1 + (len(shown) - df + 0.5) / (df + 0.5))
            if tf:
                norm = k1 * (1 - b + b * len(texts[slot]) / average)
                scores[slot] += clause.weight * idf * tf / (tf + norm)
    return scores


@given(documents, queries, st.data())
def test_every_query_scores_as_by_the_book_among_the_visible(texts, query, data):
    visible = data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts)))
    sizes = data.draw(st.lists(st.integers(0, 3), max_size=4))
    k1, b = data.draw(st.sampled_from([(1.2, 0.75), (1.5, 0.0), (0.0, 0.5), (0.9, 1.0)]))
    expected = by_the_book(texts, visible, query, k1, b)
    among = filled(texts, sizes).seen().among(np.array(visible, dtype=np.bool_), k1=k1, b=b)

    slots, scores = among.score(query)

    assert slots.tolist() == list(expected)
    assert scores.tolist() == pytest.approx(list(expected.values()), abs=1e-12)
    assert np.flatnonzero(among.matches(query)).tolist() == list(expected)
    assert among.count(query) == len(expected)
    exact = dict(zip(slots.tolist(), scores.tolist(), strict=True))
    for k in range(len(texts) + 2):
        order = sorted(exact, key=lambda slot: (-exact[slot], slot))
        best = [slot for slot in order if k and exact[slot] >= exact[order[:k][-1]]]
        top = among.top(query, k)
        assert top.slots.tolist() == best
        assert top.scores.tolist() == [exact[slot] for slot in best]  # to the last bit
    for slot in range(len(texts)):
        parts = among.explain(query, slot)
        assert bool(parts) == (slot in exact)
        assert math.fsum(part.contribution for part in parts) == pytest.approx(
            exact.get(slot, 0.0), abs=1e-12
        )
        for part, clause in zip(parts, query.scored, strict=False):
            assert (part.label, part.tf) == (clause.label, times(clause, texts[slot]))


@given(documents, queries)
def test_everything_visible_is_the_same_as_a_mask_of_all(texts, query):
    seen = filled(texts).seen()
    every, masked = seen.among(None), seen.among(np.ones(len(texts), dtype=np.bool_))

    for k in (1, 3):
        assert every.top(query, k).slots.tolist() == masked.top(query, k).slots.tolist()
    assert every.score(query).scores.tolist() == masked.score(query).scores.tolist()
    assert every.matches(query).tolist() == masked.matches(query).tolist()


def some_texts(count: int, seed: int, words: int = 500) -> list[list[str]]:
    """Texts whose words are as unequally common as those of people."""
    numbers = np.random.default_rng(seed).zipf(1.3, size=(count, 60)) % words
    sizes = np.random.default_rng(seed + 1).integers(1, 60, size=count)
    return [
        [f"w{n}" for n in row[:size]] for row, size in zip(numbers.tolist(), sizes, strict=True)
    ]


@pytest.mark.parametrize("share", [1.0, 0.5, 0.05])
@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (1.5, 0.4)])
def test_scores_and_order_equal_those_of_bm25s_and_rank_bm25(share, k1, b):
    texts = some_texts(1500, seed=3)
    visible = np.random.default_rng(4).random(len(texts)) < share
    shown = [texts[slot] for slot in np.flatnonzero(visible)]
    among = filled(texts, (100, 1, 1, 700)).seen().among(visible, k1=k1, b=b)
    peer = bm25s.BM25(method="lucene", k1=k1, b=b)
    peer.index(shown, show_progress=False)
    other = _Okapi(shown, k1=k1, b=b)
    rng = random.Random(5)
    for _ in range(25):
        asked = rng.choices(rng.choice(shown), k=8)
        query = parse_query(" ".join(asked), syntax=False)

        slots, scores = among.score(query)

        own = np.zeros(len(texts))
        own[slots] = scores
        own = own[visible]
        theirs = peer.get_scores(asked)
        assert own == pytest.approx(theirs, abs=1e-4)
        assert own == pytest.approx(other.get_scores(asked) / (k1 + 1), abs=1e-9)
        top = among.top(query, 10)
        place = np.cumsum(visible) - 1  # of a slot among the visible
        for rivals in (theirs, other.get_scores(asked) / (k1 + 1)):
            best = np.sort(rivals)[::-1][: len(top.slots)]
            assert rivals[place[top.slots]] == pytest.approx(best, abs=1e-4)


class _Okapi(BM25Okapi):
    """rank_bm25 with the idf of Lucene."""

    def _calc_idf(self, nd):
        for word, df in nd.items():
            self.idf[word] = math.log(1 + (self.corpus_size - df + 0.5) / (df + 0.5))


@pytest.mark.parametrize("share", [1.0, 0.5, 0.05])
def test_the_best_are_the_best_of_all_where_words_are_common_and_rare(share):
    texts = some_texts(3000, seed=6, words=3000)
    visible = None if share == 1 else np.random.default_rng(7).random(len(texts)) < share
    among = filled(texts, (1000, 500)).seen().among(visible)
    rng = random.Random(8)
    for _ in range(150):
        words = rng.choices(rng.choice(texts), k=rng.randint(1, 9))
        words[0] = rng.choice(["", "+", "-"]) + words[0]
        query = parse_query(" ".join(words))
        slots, scores = among.score(query)
        for k in (1, 10, 100):
            least = np.sort(scores)[-k] if len(scores) >= k else 0.0
            order = np.argsort(-scores, kind="stable")
            order = order[scores[order] >= least]

            top = among.top(query, k)

            assert top.slots.tolist() == slots[order].tolist()
            assert top.scores.tolist() == scores[order].tolist()


@given(documents, st.lists(st.integers(0, 3), max_size=6), queries, documents)
def test_what_is_dumped_is_restored_and_goes_on(texts, sizes, query, more):
    postings = filled(texts, sizes)
    arrays = postings.dump()
    for array in arrays.values():
        array.flags.writeable = False
    restored = Postings.restore(arrays)

    assert arrays.keys() == restored.dump().keys() == filled(texts).dump().keys()
    for other in (restored, filled(texts)):
        for name, array in other.dump().items():
            assert array.dtype == arrays[name].dtype
            assert array.tolist() == arrays[name].tolist()
    assert restored.count == postings.count == len(texts)
    postings.add(more)
    restored.add(more)
    assert [restored.seen().terms_of(n) for n in range(restored.count)] == [*texts, *more]
    for each in (postings, restored):
        expected = filled([*texts, *more]).seen().among(None).score(query)
        found = each.seen().among(None).score(query)
        assert found.slots.tolist() == expected.slots.tolist()
        assert found.scores.tolist() == expected.scores.tolist()


def test_arrays_that_do_not_fit_together_are_refused():
    arrays = filled([["a", "b"], ["b"]]).dump()

    for name in ("slots", "read", "lengths", "ends", "spelled_ends", "spelled"):
        with pytest.raises(CorruptionError):
            Postings.restore({**arrays, name: arrays[name][:-1]})


def test_a_view_answers_alike_whatever_is_added_meanwhile():
    texts = some_texts(4000, seed=9, words=800)
    postings = filled(texts[:1000])
    seen = postings.seen()
    queries = [parse_query(text) for text in ("w1 w7 w300", '"w1 w2"', "w1*", "+w3 -w5 w40")]
    expected = [seen.among(None).score(query) for query in queries]
    done = threading.Event()

    def read() -> int:
        rounds = 0
        while not done.is_set() or not rounds:
            for query, (slots, scores) in zip(queries, expected, strict=True):
                found = seen.among(None).score(query)
                assert found.slots.tolist() == slots.tolist()
                assert found.scores.tolist() == scores.tolist()
                newest = postings.seen()
                assert newest.among(None).top(query, 5).slots.max(initial=0) < newest.count
            rounds += 1
        return rounds

    with ThreadPoolExecutor(2) as threads:
        readers = [threads.submit(read) for _ in range(2)]
        for start in range(1000, 4000, 7):
            postings.add(texts[start : start + 7])
        done.set()
        assert all(reader.result() for reader in readers)
    assert seen.count == 1000
    assert postings.seen().count == 4000
    whole = filled(texts).seen().among(None)
    for query in queries:
        assert postings.seen().among(None).score(query).scores.tolist() == (
            whole.score(query).scores.tolist()
        )


def test_many_documents_in_one_go_and_one_by_one_are_the_same(monkeypatch):
    monkeypatch.setattr("koru_delta.search.text.postings._TOGETHER", 100)
    texts = some_texts(300, seed=10)
    one_by_one = Postings()
    for text in texts:
        one_by_one.add([text])

    expected, found = filled(texts).dump(), one_by_one.dump()

    assert {name: array.tolist() for name, array in found.items()} == {
        name: array.tolist() for name, array in expected.items()
    }


def test_new_terms_are_found_by_prefix_before_and_after_sorting(monkeypatch):
    monkeypatch.setattr("koru_delta.search.text.postings._UNSORTED", 3)
    postings = Postings()
    for n in range(20):
        postings.add([[f"term{n}", f"other{n}"]])
        found = postings.seen().among(None).score(parse_query("term*"))
        assert found.slots.tolist() == list(range(n + 1))


def test_a_document_of_very_many_terms_keeps_its_counts():
    postings = filled([["a"] * 70_000 + ["b"], ["b", "a"], []])
    among = postings.seen().among(None)

    assert [part.tf for part in among.explain(parse_query("a b"), 0)] == [70_000, 1]
    assert among.count(parse_query('"a b"')) == 1
    assert among.count(parse_query('"b a"')) == 1  # rows do not go on into the next document


def test_nothing_is_found_where_there_is_nothing():
    empty = Postings().seen().among(None)

    assert empty.top(parse_query("a"), 3).slots.tolist() == []
    assert empty.matches(parse_query("a -b")).tolist() == []
    assert empty.explain(parse_query("a"), 0) == []
    among = filled([["a"], ["b"]]).seen().among(np.zeros(2, dtype=np.bool_))
    assert among.score(parse_query("a b*")).slots.tolist() == []
    assert among.df("a") == 0


def test_only_exclusions_find_nothing():
    among = filled([["a"], ["b"]]).seen().among(None)

    assert among.top(parse_query("-a"), 3).slots.tolist() == []
    assert among.count(parse_query("-a")) == 0


def test_statistics_are_those_of_the_visible():
    seen = filled([["a", "b"], ["a"], ["c"]]).seen()
    among = seen.among(np.array([True, False, True]))

    assert (among.documents, among.average_length) == (2, 1.5)
    assert (among.df("a"), among.df("zz")) == (1, 0)
    assert seen.among(None).df("a") == 2


@pytest.mark.parametrize(
    "mask", [np.ones(1, dtype=np.bool_), np.ones(2, dtype=np.int8), np.ones((2, 1), dtype=np.bool_)]
)
def test_a_mask_that_does_not_fit_is_refused(mask):
    with pytest.raises(QueryError, match="2 truth values"):
        filled([["a"], ["b"]]).seen().among(mask)


@pytest.mark.parametrize(("k1", "b"), [(-1, 0.5), (1, 1.5), (math.nan, 0.5), (math.inf, 0.5)])
def test_parameters_out_of_range_are_refused(k1, b):
    with pytest.raises(QueryError, match="must not be negative"):
        Postings().seen().among(None, k1=k1, b=b)


def test_a_word_whose_reading_was_interrupted_has_no_number_and_takes_none_away() -> None:
    postings = Postings()
    postings.add([["rain"]])
    words = postings._vocabulary
    words.terms.append("hail")  # as KeyboardInterrupt leaves it, before it has a number

    postings.add([["sun", "sunny"], ["fog"]])

    assert [postings.seen().terms_of(slot) for slot in range(3)] == [
        ["rain"], ["sun", "sunny"], ["fog"],
    ]  # fmt: skip
    assert postings.seen().find((Word("su", prefix=True),))[0].tolist() == [1]
    again = Postings.restore(postings.dump())
    assert [again.seen().terms_of(slot) for slot in range(3)] == [
        ["rain"], ["sun", "sunny"], ["fog"],
    ]  # fmt: skip
