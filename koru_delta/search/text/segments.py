"""Documents as arrays: by term, for scoring, and in order of reading, for phrases.

A segment holds consecutive slots and never changes. Two neighbours merge into one of the
same form, so that a writer keeps few of them and a reader keeps those it has.

Phrases are looked up in the terms as they were read, 2 or 4 bytes each: half of what
positions in every posting take, merging them is appending, and no text is asked for again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from koru_delta.errors import CorruptionError

Ints = npt.NDArray[np.integer[Any]]
Slots = npt.NDArray[np.int32]
Found = tuple[Slots, Ints]  # ascending slots, and how often each has what was looked for

ARRAYS = ("terms", "ends", "slots", "counts", "lengths", "read")
_SCAN = 4  # times dearer is reading a term out of place than in a row


@dataclass(frozen=True, eq=False)
class Segment:
    """Documents of slots `start` on."""

    start: int
    terms: npt.NDArray[np.int32]  # ids that occur, ascending
    ends: npt.NDArray[np.int64]  # of each, where its postings end
    slots: Slots  # postings, by term and then slot
    counts: Ints  # how often the slot has the term
    lengths: Ints  # terms of each document
    read: Ints  # ids of all documents' terms in order of reading

    @property
    def stop(self) -> int:
        """The slot after the last one."""
        return self.start + len(self.lengths)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(int(getattr(self, name).nbytes) for name in ARRAYS)

    @cached_property
    def bounds(self) -> npt.NDArray[np.int64]:
        """Where each document begins in `read`, and where the last ends."""
        bounds = np.zeros(len(self.lengths) + 1, dtype=np.int64)
        np.cumsum(self.lengths, out=bounds[1:])
        return bounds

    def word(self, term: int) -> Found:
        """The documents that have a term."""
        place = int(np.searchsorted(self.terms, term))
        if place == len(self.terms) or self.terms[place] != term:
            return self.slots[:0], self.counts[:0]
        begin, end = int(self.ends[place - 1]) if place else 0, int(self.ends[place])
        return self.slots[begin:end], self.counts[begin:end]

    def any_of(self, terms: Sequence[int]) -> Found:
        """The documents that have at least one of some distinct terms."""
        found = [self.word(term) for term in self._known(terms)]
        if len(found) < 2:
            return found[0] if found else (self.slots[:0], self.counts[:0])
        slots = np.concatenate([slots for slots, _ in found])
        counts = np.concatenate([counts for _, counts in found])
        times = np.bincount(slots - self.start, counts, len(self.lengths)).astype(np.int64)
        held = np.flatnonzero(times)
        return (held + self.start).astype(np.int32), times[held]

    def in_a_row(self, row: Sequence[Sequence[int]], among: npt.NDArray[np.bool_] | None) -> Found:
        """The documents with terms in a row: one of the first choices, one of the second, ...

        Args:
            among: Documents to look at, by slot of all segments; None is all.
        """
        nothing = self.slots[:0], self.counts[:0]
        row = [self._known(choices) for choices in row]
        candidates: Slots | None = None
        rarest, fewest = 0, len(self.read) + 1
        for place, choices in enumerate(row):
            slots, counts = self.any_of(choices)
            times = int(counts.sum())
            if times < fewest:
                rarest, fewest = place, times
            candidates = (
                slots if candidates is None
                else np.intersect1d(candidates, slots, assume_unique=True)
            )  # fmt: skip
            if not len(candidates):
                return nothing
        assert candidates is not None
        if among is not None:
            candidates = candidates[among[candidates]]
        places = self._places(row[rarest], candidates - self.start) - rarest
        places = places[(places >= 0) & (places + len(row) <= len(self.read))]
        for step, choices in enumerate(row):
            if step != rarest:
                places = places[self._is_one_of(places + step, choices)]
        documents = np.searchsorted(self.bounds, places, side="right") - 1
        whole = places + len(row) <= self.bounds[documents + 1]
        held, times_each = np.unique(documents[whole], return_counts=True)
        if among is not None and len(held):
            kept = among[held + self.start]
            held, times_each = held[kept], times_each[kept]
        return (held + self.start).astype(np.int32), times_each

    def _known(self, terms: Sequence[int]) -> Sequence[int]:
        if len(terms) < 16:
            return terms
        return [int(term) for term in np.intersect1d(terms, self.terms)]

    def _places(self, terms: Sequence[int], documents: Ints) -> npt.NDArray[np.int64]:
        """Where in `read` some documents have one of some terms."""
        sizes = self.lengths[documents].astype(np.int64)
        total = int(sizes.sum())
        if total * _SCAN > len(self.read):
            return np.flatnonzero(self._is_one_of(slice(None), terms))
        before = np.cumsum(sizes) - sizes
        places = np.repeat(self.bounds[documents] - before, sizes) + np.arange(total)
        return places[self._is_one_of(places, terms)]

    def _is_one_of(
        self, places: npt.NDArray[np.int64] | slice, terms: Sequence[int]
    ) -> npt.NDArray[np.bool_]:
        read = self.read[places]
        if len(terms) == 1:
            same: npt.NDArray[np.bool_] = read == terms[0]
            return same
        return np.isin(read, np.array(terms, dtype=np.int64))


def segment_of(start: int, lengths: npt.NDArray[np.int64], read: Ints) -> Segment:
    """Postings of documents whose terms stand in `read` one document after the other."""
    documents = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
    width = max(1, len(lengths))
    keys = read.astype(np.int64) * width + documents
    keys.sort()
    firsts = np.flatnonzero(np.diff(keys, prepend=-1))
    counts = np.diff(firsts, append=len(keys))
    terms, documents = np.divmod(keys[firsts], width)
    begins = np.flatnonzero(np.diff(terms, prepend=-1))
    return Segment(
        start,
        terms[begins].astype(np.int32),
        np.append(begins[1:], len(terms)).astype(np.int64) if len(begins) else begins,
        (documents + start).astype(np.int32),
        _narrow(counts),
        _narrow(lengths),
        _narrow(read),
    )


def merged(segments: Sequence[Segment]) -> Segment:
    """One segment in place of neighbours."""
    if len(segments) == 1:
        return segments[0]
    every = np.unique(np.concatenate([segment.terms for segment in segments]))
    sizes = np.zeros(len(every), dtype=np.int64)
    parts: list[tuple[Segment, npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    for segment in segments:
        places = np.searchsorted(every, segment.terms)
        each = np.diff(segment.ends, prepend=0)
        parts.append((segment, places, each))
        sizes[places] += each
    ends = np.cumsum(sizes)
    free = ends - sizes  # of each term, where its next postings go
    total = int(ends[-1]) if len(ends) else 0
    slots = np.empty(total, dtype=np.int32)
    counts = np.empty(total, dtype=np.result_type(*(segment.counts for segment in segments)))
    for segment, places, each in parts:
        shift = np.repeat(free[places] - (segment.ends - each), each)
        targets = shift + np.arange(len(segment.slots))
        slots[targets], counts[targets] = segment.slots, segment.counts
        free[places] += each
    return Segment(
        segments[0].start, every.astype(np.int32), ends, slots, counts,
        np.concatenate([segment.lengths for segment in segments]),
        np.concatenate([segment.read for segment in segments]),
    )  # fmt: skip


def restored(arrays: Mapping[str, npt.NDArray[Any]]) -> Segment:
    """The segment whose arrays these are, from slot 0.

    Raises:
        CorruptionError: they do not fit together.
    """
    segment = Segment(0, *(arrays[name] for name in ARRAYS))
    postings = int(segment.ends[-1]) if len(segment.ends) else 0
    fits = (
        len(segment.terms) == len(segment.ends)
        and postings == len(segment.slots) == len(segment.counts)
        and segment.lengths.sum(dtype=np.int64) == len(segment.read)
    )
    if not fits:
        raise CorruptionError("the arrays of a text index do not fit together; make it anew")
    return segment


def joined(found: Iterable[Found]) -> Found:
    """What was found in consecutive segments, as one."""
    parts = [part for part in found if len(part[0])]
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64)
    return (
        np.concatenate([slots for slots, _ in parts]),
        np.concatenate([counts for _, counts in parts]),
    )


def _narrow(numbers: Ints) -> Ints:
    """The same numbers, none negative, in the smallest type that has room for them."""
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))
