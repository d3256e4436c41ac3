"""From one meaning to another: steps over unit vectors, each of which ends on one.

    db.navigate("words", "king", [Subtract("man"), Add("woman")])

An operand is a key (its vector at that moment), a vector, or `Words` for the embedder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from koru_delta.errors import QueryError
from koru_delta.search.synthesis.proximity import Scores, unit
from koru_delta.values import VectorLike

_NOTHING: Final = 1e-6  # what is shorter than this, of unit vectors, is rounding
_NEARLY_PARALLEL: Final = 1e-6  # radians


@dataclass(frozen=True, slots=True)
class Words:
    """Text for the embedder, where a plain string would be a key."""

    text: str


Operand: TypeAlias = str | Words | VectorLike


@dataclass(frozen=True, slots=True, eq=False)
class Add:
    """Move by an operand: `unit(here + weight * unit(operand))`."""

    operand: Operand
    weight: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Subtract:
    """Move away from an operand: `unit(here - weight * unit(operand))`."""

    operand: Operand
    weight: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Toward:
    """Turn toward an operand by a share of the angle between, 0 to 1 (`slerp`)."""

    operand: Operand
    share: float = 0.5


Step: TypeAlias = Add | Subtract | Toward


def walk(start: npt.ArrayLike, steps: Sequence[Step], of: Callable[[Operand], Any]) -> Scores:
    """Where steps lead from a start: a unit vector of float64.

    Args:
        of: Gives the vector of an operand.

    Raises:
        QueryError: a step is none, leads to zero, or has a weight or share that is no such
            number; or a vector is zero or has other dimensions.

    >>> walk([1.0, 0.0], [Add([0.0, 2.0])], lambda vector: vector).round(3).tolist()
    [0.707, 0.707]
    """
    here = unit(start)
    for number, step in enumerate(steps, start=1):
        if not isinstance(step, (Add, Subtract, Toward)):
            raise QueryError(f"step {number} is none: use Add, Subtract or Toward, not {step!r}")
        there = unit(of(step.operand))
        if len(there) != len(here):
            raise QueryError(
                f"step {number} has a vector of {len(there)} numbers, the start has {len(here)}"
            )
        if isinstance(step, Toward):
            here = slerp(here, there, step.share)
            continue
        weight: Any = step.weight
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not (
            isfinite(weight) and weight > 0
        ):  # fmt: skip
            raise QueryError(f"the weight of step {number} is a number above 0, not {weight!r}")
        moved = here + there * weight if isinstance(step, Add) else here - there * weight
        if float(np.sqrt(moved @ moved)) < _NOTHING * max(1.0, weight):
            raise QueryError(f"step {number} leads to zero: it takes away all that was there")
        here = unit(moved)
    return here


def slerp(start: npt.ArrayLike, end: npt.ArrayLike, share: float) -> Scores:
    """The direction that lies a share of the angle from `start` to `end`.

    Source: spherical linear interpolation, Shoemake, SIGGRAPH 1985.

    Raises:
        QueryError: the share is not in [0, 1], or the two are opposite (then every way is
            as short).
    """
    given: Any = share
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 <= given <= 1:
        raise QueryError(f"a share of the way lies in [0, 1], not {share!r}")
    one, other = unit(start), unit(end)
    # More exact at small and large angles than the arc cosine.
    apart, along = one - other, one + other
    angle = 2 * np.arctan2(np.sqrt(apart @ apart), np.sqrt(along @ along))
    if np.pi - angle < _NEARLY_PARALLEL:
        if share in (0, 1):
            return other if share else one
        raise QueryError("no way leads toward the opposite direction; go by a third one")
    if angle < _NEARLY_PARALLEL:
        return unit(one + share * (other - one))
    return unit(np.sin((1 - share) * angle) * one + np.sin(share * angle) * other)


def operands(start: Operand, steps: Sequence[Step]) -> list[Operand]:
    """The start and what the steps use, in order.

    Raises:
        QueryError: the steps are not a list of steps.
    """
    if isinstance(steps, (Add, Subtract, Toward)) or not isinstance(steps, Sequence):
        raise QueryError("steps is a list of Add, Subtract and Toward")
    found: list[Operand] = [start]
    for number, step in enumerate(steps, start=1):
        if not isinstance(step, (Add, Subtract, Toward)):
            raise QueryError(f"step {number} is none: use Add, Subtract or Toward, not {step!r}")
        found.append(step.operand)
    return found
