"""Which documents answer a text query best, among those visible: BM25 over arrays.

A document is a slot, numbered from 0 in the order of adding. One thread adds; `seen()` hands
out an immutable view that others go on reading. What is visible is a mask over slots, and
all statistics are those of the visible documents, so that a past search ranks as it
would have then.

    score(d) = sum over clauses of  weight * idf * tf / (tf + k1 * (1 - b + b * |d| / average))
    idf      = ln(1 + (N - df + 0.5) / (df + 0.5))

Source: BM25, Robertson & Zaragoza, "The Probabilistic Relevance Framework", 2009, with the idf of
Lucene, which is never negative, and without the constant factor k1 + 1, which changes no
order. A word said twice weighs twice. A prefix counts as one term that stands
wherever a term begins with it, a phrase likewise: `tf` is how often it occurs in a document,
`df` in how many visible ones. Documents without any term count too, with length 0.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from koru_delta.errors import CorruptionError, QueryError
from koru_delta.search.text.analysis import Word
from koru_delta.search.text.queries import Clause, TextQuery
from koru_delta.search.text.segments import (
    ARRAYS,
    Found,
    Ints,
    Segment,
    joined,
    merged,
    restored,
    segment_of,
)

Mask = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]

K1, B = 1.2, 0.75

_TOGETHER = 1_000_000  # terms that become a segment at once
_GROWTH = 2  # a segment is more than so many times as large as the next one, or they merge
_UNSORTED = 1_000  # new terms looked through one by one before all are sorted anew
_DENSE = 6  # a look-up in a list costs as much as laying so many of its entries out
_ROUNDING = 1e-9  # of the highest possible score: more than sums in another order differ by


class Ranked(NamedTuple):
    """Slots and their scores: ascending slots from `score`, best first from `top`."""

    slots: npt.NDArray[np.int64]
    scores: Scores


class Contribution(NamedTuple):
    """What a clause earns a document; `tf` and `contribution` are 0 where it lacks it."""

    label: str
    tf: int
    df: int
    idf: float
    contribution: float


class Postings:
    """Documents being added.

    >>> postings = Postings()
    >>> postings.add([["rain", "in", "spain"], ["sun"]])
    >>> query = TextQuery((Clause((Word("sun"),)),))
    >>> postings.seen().among(None).top(query, 1).slots.tolist()
    [1]
    """

    def __init__(self) -> None:
        self._vocabulary = _Vocabulary()
        self._segments: tuple[Segment, ...] = ()

    def add(self, documents: Iterable[Sequence[str]]) -> None:
        """Append documents, each as the terms of its text in order; they get the next slots."""
        numbers = self._vocabulary
        read, lengths = array("i"), array("q")
        for terms in documents:
            read.extend(map(numbers.__getitem__, terms))
            lengths.append(len(terms))
            if len(read) >= _TOGETHER:
                self._append(read, lengths)
                read, lengths = array("i"), array("q")
        if lengths:
            self._append(read, lengths)

    def without(self, documents: npt.NDArray[np.int64]) -> Postings:
        """What it would be if some of the documents had never been added."""
        rest = Postings()
        if not self._segments:
            return rest
        whole = merged(self._segments)
        kept = np.ones(len(whole.lengths), dtype=np.bool_)
        kept[documents] = False
        lengths = whole.lengths[kept].astype(np.int64)
        if not len(lengths):
            return rest
        read = whole.read[np.repeat(kept, whole.lengths)]
        numbers, firsts = np.unique(read, return_index=True)
        numbers = numbers[np.argsort(firsts)]  # in the order they come in now
        again = np.zeros(len(self._vocabulary.terms), dtype=np.intc)
        again[numbers] = [rest._vocabulary[self._vocabulary.terms[n]] for n in numbers.tolist()]
        rest._segments = (segment_of(0, lengths, again[read]),)
        return rest

    def seen(self) -> Seen:
        """What has been added so far."""
        return Seen(self._segments, self._vocabulary)

    @property
    def count(self) -> int:
        """Documents added."""
        return self._segments[-1].stop if self._segments else 0

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays and, about, of the terms."""
        return sum(segment.nbytes for segment in self._segments) + self._vocabulary.nbytes

    def dump(self) -> dict[str, npt.NDArray[Any]]:
        """Everything as arrays, by name; equal for equal documents however they were added."""
        if not self._segments:
            self._append(array("i"), array("q"))
        self._segments = (merged(self._segments),)
        (segment,) = self._segments
        arrays = {name: getattr(segment, name) for name in ARRAYS}
        spelled = [term.encode("utf-8", "surrogatepass") for term in self._vocabulary]
        arrays["spelled"] = np.frombuffer(b"".join(spelled), dtype=np.uint8)
        arrays["spelled_ends"] = np.cumsum([len(term) for term in spelled], dtype=np.int64)
        return arrays

    @classmethod
    def restore(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Postings:
        """Go on from what `dump` gave; the arrays may be mapped from a file, nothing writes there.

        Raises:
            CorruptionError: the arrays do not fit together.
        """
        postings = cls()
        spelled, start = arrays["spelled"].tobytes(), 0
        numbers = postings._vocabulary
        for end in arrays["spelled_ends"].tolist():
            numbers[spelled[start:end].decode("utf-8", "surrogatepass")]
            start = end
        segment = restored(arrays)
        if (
            len(numbers) != len(arrays["spelled_ends"])
            or start != len(spelled)
            or (len(segment.terms) and segment.terms[-1] >= len(numbers))
        ):
            raise CorruptionError("the terms of a text index do not fit it; make it anew")
        if len(segment.lengths):
            postings._segments = (segment,)
        return postings

    def _append(self, read: array[int], lengths: array[int]) -> None:
        fresh = segment_of(
            self.count,
            np.frombuffer(lengths, dtype=np.int64),
            np.frombuffer(read, dtype=np.intc),
        )
        last = [fresh]
        size = len(fresh.read)
        rest = len(self._segments)
        while rest and len(self._segments[rest - 1].read) <= _GROWTH * size:
            rest -= 1
            last.insert(0, self._segments[rest])
            size += len(self._segments[rest].read)
        self._segments = (*self._segments[:rest], merged(last))


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The documents as they stood at one moment."""

    segments: tuple[Segment, ...]
    vocabulary: _Vocabulary

    @property
    def count(self) -> int:
        """How many there are: slots 0 to `count - 1`."""
        return self.segments[-1].stop if self.segments else 0

    def among(self, visible: Mask | None, *, k1: float = K1, b: float = B) -> Among:
        """Ask among the visible documents; good for any number of queries, and threads.

        What is counted for one query is kept for the next, so keep this for a moment that
        is asked about again.

        Args:
            visible: One truth value a slot, not changed afterwards; None is every slot.

        Raises:
            QueryError: the mask is not as long as there are slots, k1 is negative or b is
                not in [0, 1].
        """
        return Among(self, visible, k1, b)

    def terms_of(self, slot: int) -> list[str]:
        """The terms of a document in their order.

        Raises:
            IndexError: there is no such slot.
        """
        for segment in self.segments:
            if segment.start <= slot < segment.stop:
                begin, end = segment.bounds[slot - segment.start : slot - segment.start + 2]
                return [self.vocabulary.terms[n] for n in segment.read[begin:end].tolist()]
        raise IndexError(f"slot {slot} of {self.count}")

    def find(self, words: Sequence[Word], among: Mask | None = None) -> Found:
        """The slots that have words in a row, and how often.

        Args:
            among: Slots a phrase is looked for in; words and prefixes come from all.
        """
        choices = [self.vocabulary.numbers_of(word) for word in words]
        if not all(choices):
            return joined(())
        if len(choices) > 1:
            return joined(segment.in_a_row(choices, among) for segment in self.segments)
        if len(choices[0]) > 1:
            return joined(segment.any_of(choices[0]) for segment in self.segments)
        return joined(segment.word(choices[0][0]) for segment in self.segments)

    def lengths(self) -> Ints:
        """Terms of each document."""
        if len(self.segments) == 1:
            return self.segments[0].lengths
        return np.concatenate(
            [np.empty(0, dtype=np.uint8), *(segment.lengths for segment in self.segments)]
        )


class Among:
    """The visible documents and their statistics; see `Seen.among`."""

    def __init__(self, seen: Seen, visible: Mask | None, k1: float, b: float) -> None:
        if visible is not None and (visible.dtype != np.bool_ or visible.shape != (seen.count,)):
            raise QueryError(f"visible must be {seen.count} truth values, one for each slot")
        if not (0 <= k1 < math.inf and 0 <= b <= 1):
            raise QueryError(f"k1={k1} must not be negative, b={b} must be in [0, 1]")
        self._seen = seen
        self._visible = visible
        lengths = seen.lengths()
        if visible is None:
            self.documents, total = seen.count, int(lengths.sum(dtype=np.int64))
        else:
            self.documents = int(np.count_nonzero(visible))
            # Selecting first takes ten times as long.
            total = int(np.multiply(lengths, visible).sum(dtype=np.int64))
        self.average_length = total / self.documents if self.documents else 0.0
        self._degenerate = k1 * (1 - b) == 0
        self._norms = lengths * (k1 * b / self.average_length if total else 0.0)
        self._norms += k1 * (1 - b)
        self._known_df: dict[str, int] = {}

    # Statistics

    def df(self, term: str) -> int:
        """How many visible documents have a term."""
        return self._clause(Clause((Word(term),))).df

    def idf(self, df: int) -> float:
        """How much something says that so many visible documents have."""
        return math.log(1 + (self.documents - df + 0.5) / (df + 0.5))

    # Which ones answer

    def matches(self, query: TextQuery) -> Mask:
        """One truth value a slot: whether it is visible and answers."""
        clauses = self._clauses(query)
        must = [clause for clause in clauses if clause.occur == "must"]
        allowed = self._allowed(query, clauses)
        if must or allowed is None:
            return self._nothing() if allowed is None else allowed
        mask = self._nothing()
        for clause in clauses:
            mask[clause.slots] = True
        return mask & allowed

    def bounds(self, query: TextQuery) -> Mask | None:
        """Which visible documents have every `must` and no `not`; None where it has neither."""
        must, without = query.of("must"), query.of("not")
        if not must and not without:
            return None
        mask = ~self._nothing() if self._visible is None else self._visible.copy()
        for clause in must:
            has = self._nothing()
            has[self._seen.find(clause.words, self._visible)[0]] = True
            mask &= has
        for clause in without:
            mask[self._seen.find(clause.words, self._visible)[0]] = False
        return mask

    def count(self, query: TextQuery) -> int:
        """How many visible documents answer."""
        if len(query.clauses) == 1 and query.clauses[0].occur != "not":
            return self._clause(query.clauses[0]).df
        return int(np.count_nonzero(self.matches(query)))

    # How well

    def score(self, query: TextQuery) -> Ranked:
        """Every visible document that answers, in slot order, with its score."""
        slots = np.flatnonzero(self.matches(query))
        return Ranked(slots, self._exact(slots, self._clauses(query)))

    def top(self, query: TextQuery, k: int) -> Ranked:
        """The `k` best of `score`, best first, and all that score as much as the last of them.

        Scores are the same to the last bit. Equal ones come in slot order; where the
        caller orders ties otherwise, all who might be among the `k` are here.
        """
        clauses = self._clauses(query)
        slots = self._candidates(query, clauses, max(0, k))
        scores = self._exact(slots, clauses)
        if len(slots) > k > 0:
            kept = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
            slots, scores = slots[kept], scores[kept]
        order = np.argsort(-scores, kind="stable")
        return Ranked(slots[order], scores[order])

    def explain(self, query: TextQuery, slot: int) -> list[Contribution]:
        """What each scored clause earns a document, in the query's order: they sum to its score.

        Empty where the document is not visible or does not answer.
        """
        here = np.array([slot], dtype=np.int64)
        if not 0 <= slot < self._seen.count or not self.matches(query)[slot]:
            return []
        return [
            Contribution(
                clause.label, int(clause.counts_at(here, self._seen.count)[0]), clause.df,
                clause.idf, float(self._exact(here, [clause])[0]),
            )
            for clause in self._clauses(query)
        ]  # fmt: skip

    # Inside

    def _nothing(self) -> Mask:
        return np.zeros(self._seen.count, dtype=np.bool_)

    def _clauses(self, query: TextQuery) -> list[_Clause]:
        return [self._clause(clause) for clause in query.scored]

    def _clause(self, clause: Clause) -> _Clause:
        slots, counts = self._seen.find(clause.words, self._visible)
        word, *more = clause.words
        df = None if more or word.prefix else self._known_df.get(word.term)
        if df is None:
            df = len(slots)
            if self._visible is not None:
                df = int(np.count_nonzero(self._visible.take(slots)))
            if not (more or word.prefix):
                self._known_df[word.term] = df
        idf = self.idf(df)
        return _Clause(clause.label, clause.occur, slots, counts, df, idf, clause.weight * idf)

    def _allowed(self, query: TextQuery, clauses: Sequence[_Clause]) -> Mask | None:
        """Which slots are visible and obey all `must` and `not`; None where none can answer."""
        if not any(clause.df for clause in clauses):
            return None
        allowed = self._visible
        for clause in clauses:
            if clause.occur == "must":
                mask = self._nothing()
                mask[clause.slots] = True
                allowed = mask if allowed is None else allowed & mask
        without = [clause.words for clause in query.of("not")]
        if without or allowed is None:
            allowed = ~self._nothing() if allowed is None else allowed.copy()
            for words in without:
                allowed[self._seen.find(words, self._visible)[0]] = False
        return allowed

    def _candidates(
        self, query: TextQuery, clauses: Sequence[_Clause], k: int
    ) -> npt.NDArray[np.int64]:
        """Slots that answer, the `k` best and their equals among them.

        A clause earns at most its weight times idf. So, rarest clause first: once the k-th
        best sum is above what the rest can earn together, no new slot need be looked at; and one
        that cannot reach that sum is dropped before the common clauses are asked.
        """
        allowed = self._allowed(query, clauses)
        if allowed is None or k == 0:
            return np.empty(0, dtype=np.int64)
        order = sorted(clauses, key=lambda clause: clause.weighted_idf, reverse=True)
        rest = sum(clause.weighted_idf for clause in order)
        slack = rest * _ROUNDING
        slots = np.empty(0, dtype=np.int64)
        sums = np.empty(0)
        done = 0
        if any(clause.occur == "must" for clause in clauses):
            slots = np.flatnonzero(allowed)
            sums = np.zeros(len(slots))
        else:
            everything = self._visible is None and not query.of("not")
            slots, sums, done, rest = self._opened(order, None if everything else allowed, k)
        for clause in order[done:]:
            if len(slots) > k:
                least = np.partition(sums, len(sums) - k)[len(sums) - k] - rest - slack
                kept = sums >= least
                slots, sums = slots[kept], sums[kept]
            counts = clause.counts_at(slots, self._seen.count)
            sums = sums + self._earned(clause, slots, counts)
            rest -= clause.weighted_idf
        if len(slots) > k:
            kept = sums >= np.partition(sums, len(sums) - k)[len(sums) - k] - slack
            slots = slots[kept]
        return np.sort(slots)

    def _opened(
        self, order: Sequence[_Clause], allowed: Mask | None, k: int
    ) -> tuple[npt.NDArray[np.int64], Scores, int, float]:
        """Slots of the first clauses and their sums, how many clauses, what the rest can earn."""
        total = np.zeros(self._seen.count)
        opened: list[npt.NDArray[np.int64]] = []
        rest = sum(clause.weighted_idf for clause in order)
        slack = rest * _ROUNDING
        reached = 0.0  # what a sum can be by now
        found = 0
        done = 0
        for clause in order:
            slots = clause.slots.astype(np.int64)
            counts = clause.counts
            if allowed is not None:
                kept = allowed.take(slots)
                slots, counts = slots.compress(kept), counts.compress(kept)
            before = total.take(slots)
            total[slots] = before + self._earned(clause, slots, counts)
            opened.append(slots[before == 0])
            found += len(opened[-1])
            done += 1
            rest = max(0.0, rest - clause.weighted_idf)
            reached += clause.weighted_idf
            if found >= k and reached > rest + slack:
                every = np.concatenate(opened)
                opened = [every]
                sums = total.take(every)
                if np.count_nonzero(sums > rest + slack) >= k:
                    return every, sums, done, rest
        every = np.concatenate(opened)
        return every, total.take(every), done, rest

    def _earned(self, clause: _Clause, slots: npt.NDArray[np.int64], counts: Ints) -> Scores:
        """What a clause earns slots that have it so often; the same bits for every plan."""
        tf = counts.astype(np.float64)
        below = self._norms.take(slots)
        below += tf
        if self._degenerate:
            below[below == 0] = 1.0  # a clause that is not there earns 0, not 0 / 0
        tf /= below
        tf *= clause.weighted_idf
        return tf

    def _exact(self, slots: npt.NDArray[np.int64], clauses: Sequence[_Clause]) -> Scores:
        """Scores of distinct ascending slots, added up in the query's order."""
        scores = np.zeros(len(slots))
        if len(slots):
            for clause in clauses:
                counts = clause.counts_at(slots, self._seen.count)
                scores += self._earned(clause, slots, counts)
        return scores


@dataclass(frozen=True, slots=True, eq=False)
class _Clause:
    """A scored clause with what was found for it."""

    label: str
    occur: str
    slots: npt.NDArray[np.int32]
    counts: Ints
    df: int
    idf: float
    weighted_idf: float

    def counts_at(self, slots: npt.NDArray[np.int64], size: int) -> Ints:
        """How often some slots have it."""
        if not len(self.slots):
            return np.zeros(len(slots), dtype=np.uint8)
        if len(slots) * _DENSE > len(self.slots):
            laid_out = np.zeros(size, dtype=self.counts.dtype)
            laid_out[self.slots] = self.counts
            return laid_out.take(slots)
        places = np.searchsorted(self.slots, slots.astype(np.int32))
        np.minimum(places, len(self.slots) - 1, out=places)
        return np.where(self.slots[places] == slots, self.counts[places], 0)


class _Vocabulary(dict[str, int]):
    """Numbers of terms in the order they first came; a term asked for by [] gets the next."""

    def __init__(self) -> None:
        super().__init__()
        self.terms: list[str] = []
        self.nbytes = 0
        self._sorted: tuple[list[str], int] = ([], 0)  # the first so many terms, sorted

    def __missing__(self, term: str) -> int:
        number = len(self)
        # A reader that finds a number must find its term; one that has no number yet, because
        # the writer was interrupted, gives way.
        if number < len(self.terms):
            self.terms[number] = term
        else:
            self.terms.append(term)
        self.nbytes += len(term) + 150
        self[term] = number
        return number

    def numbers_of(self, word: Word) -> list[int]:
        """The terms a word stands for."""
        if not word.prefix:
            number = self.get(word.term)
            return [] if number is None else [number]
        ordered, covered = self._sorted
        known = len(self)
        if known - covered > _UNSORTED:
            ordered, covered = self._sorted = sorted(self.terms[:known]), known
        begin = bisect_left(ordered, word.term)
        numbers: list[int] = []
        for place in range(begin, len(ordered)):
            if not ordered[place].startswith(word.term):
                break
            numbers.append(self[ordered[place]])
        for number in range(covered, known):
            if self.terms[number].startswith(word.term):
                numbers.append(number)
        return numbers
