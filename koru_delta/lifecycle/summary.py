"""What several texts say, in sentences taken from them. No I/O here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from math import log, sqrt
from typing import Final

Cut = Callable[[str], Sequence[str]]  # a text into its sentences, or into its terms

_MATTERS: Final = 0.7  # being central; the rest is saying what was not yet said
_LONGEST: Final = 400  # characters of a sentence


def extract(texts: Sequence[str], most: int, *, sentences: Cut, terms: Cut) -> str:
    """The up to `most` sentences that tell most of texts, a line each, in their order.

    A sentence counts by its cosine to the centroid of all sentences, by words of which rare ones
    weigh more, less what those taken before it have said.

    Source: centroids, Radev, Jing, Stys & Tam 2004; the choice, Carbonell & Goldstein 1998.
    """
    told = list(dict.fromkeys(_tidy(each) for text in texts for each in sentences(text)))
    counts = [Counter(terms(each)) for each in told]
    if any(counts):
        told = [each for each, count in zip(told, counts, strict=True) if count]
        counts = [count for count in counts if count]
    frequency = Counter(term for count in counts for term in count)
    rows = [
        _unit({term: n * log(1 + len(told) / frequency[term]) for term, n in count.items()})
        for count in counts
    ]
    total: dict[str, float] = {}
    for row in rows:
        for term, weight in row.items():
            total[term] = total.get(term, 0.0) + weight
    middle = _unit(total)
    central = [_cosine(row, middle) for row in rows]
    common = [0.0] * len(rows)  # the most that a sentence has in common with one taken
    taken: list[int] = []
    left = list(range(len(rows)))
    while left and len(taken) < most:
        best = max(
            left,
            key=lambda row: (
                round(_MATTERS * central[row] - (1 - _MATTERS) * common[row], 9), -row
            ),
        )  # fmt: skip
        left.remove(best)
        taken.append(best)
        for other in left:
            common[other] = max(common[other], _cosine(rows[other], rows[best]))
    return "\n".join(told[row] for row in sorted(taken))


def _tidy(sentence: str) -> str:
    """On one line, and not longer than anybody reads."""
    words = " ".join(sentence.split())
    if len(words) <= _LONGEST:
        return words
    start = words[: _LONGEST - 1]
    return f"{start.rpartition(' ')[0] or start}…"


def _unit(row: dict[str, float]) -> dict[str, float]:
    length = sqrt(sum(weight * weight for weight in row.values()))
    return {term: weight / length for term, weight in row.items()} if length else {}


def _cosine(one: dict[str, float], other: dict[str, float]) -> float:
    if len(one) > len(other):
        one, other = other, one
    return sum(weight * other.get(term, 0.0) for term, weight in one.items())
