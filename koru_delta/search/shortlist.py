"""How long a list of rows by codes should have been, to hold the best by exact scores.

What is not on a list was left out for a score with an error, and of many rows the library
turbovec first makes a shortlist by signs alone, with an error that no score tells. Both errors
are known numbers: where they are large beside what the scores differ by, as for queries unlike
all rows or within a tight cluster, a longer list is needed.
"""

from __future__ import annotations

import functools
import math
from typing import Final

from koru_delta.values import Vector

CLOSELY: Final = 32_768  # fewer rows than this, and turbovec makes no shortlist
_SHORTLIST_FEW: Final = 20  # rows on its shortlist, for each that is asked for
_SHORTLIST_MANY: Final = 16  # the same
_SHORTLIST_MANY_FROM: Final = 64  # if so many are asked for
_SHORTLIST_LEAST: Final = 256
SIGN_ERROR: Final = math.sqrt(1 - 2 / math.pi)  # of a normal deviate told by its sign
CODE_ERROR: Final = math.sqrt(0.0095)  # and by the best four bits (Max, 1960)
_MARGINS: Final = ((0.95, 2.0), (0.98, 2.25), (1.0, 2.5))  # in errors, by the recall asked
_LEAST_APART: Final = 0.02  # of what scores differ by, where they do not


def by_recall(table: tuple[tuple[float, float], ...], recall: float) -> float:
    """The value for the least recall in a table that is not below `recall`."""
    return next(value for most, value in table if recall <= most)


def times_too_short(
    scores: Vector,
    k: int,
    recall: float,
    *,
    asked: int,
    share: float,
    rows: int,
    passing: int,
    unit: float,
) -> int:
    """How many times as many should have been asked for: 1 if it was enough, 0 if these are all.

    Scores of rows are taken to be distributed normally, by how far the `k`-th and the last of
    those given are apart.

    Args:
        scores: Of those of `asked` that pass the mask, highest first.
        recall: The share of the `k` best that is sought.
        share: Of the shortlist, those that pass: of all `rows` so many are `passing`.
        unit: By how much scores of rows as long as these differ, in any one direction.
    """
    given = len(scores)
    if given >= passing:
        return 0
    if given <= k:
        return 1
    margin = by_recall(_MARGINS, recall)
    apart = max(float(scores[k - 1]) - float(scores[-1]), _LEAST_APART * unit)
    high = _deviate(k, passing)
    seeming = apart / (high - _deviate(given, passing))
    spread = math.sqrt(max(seeming**2 - (CODE_ERROR * unit) ** 2, (_LEAST_APART * unit) ** 2))
    short = _listed(spread, high, CODE_ERROR * unit, margin, passing) / given
    each = _SHORTLIST_FEW if asked < _SHORTLIST_MANY_FROM else _SHORTLIST_MANY
    listed = share * max(each * asked, _SHORTLIST_LEAST)
    if rows >= CLOSELY and listed < passing:
        wanted = _listed(spread, high, SIGN_ERROR * unit, margin, passing)
        short = max(short, wanted / listed * each / _SHORTLIST_MANY)
    return math.ceil(short) if short > 1 else 1


@functools.lru_cache(4096)
def _deviate(rank: int, of: int) -> float:
    """How many deviations above the mean the `rank`-th highest of so many normal numbers is.

    To half a thousandth: Abramowitz and Stegun, 1964, 26.2.23.
    """
    share = (rank - 0.5) / of
    t = math.sqrt(-2 * math.log(min(share, 1 - share)))
    above = 2.515517 + t * (0.802853 + t * 0.010328)
    below = 1 + t * (1.432788 + t * (0.189269 + t * 0.001308))
    return (t - above / below) * (1 if share < 0.5 else -1)


def _listed(spread: float, high: float, error: float, margin: float, of: int) -> float:
    """How long a list by scores with an error must be, to hold what has a high score without.

    Args:
        spread: The deviation of scores.
        high: The score that should be `margin` errors above the last of the list, in deviations.
        of: The rows there are.
    """
    last = (spread * high - margin * error) / math.hypot(spread, error)
    return of * math.erfc(last / math.sqrt(2)) / 2
