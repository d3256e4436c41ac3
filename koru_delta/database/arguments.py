"""Loose arguments of the verbs made strict, in one place for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from math import isfinite
from typing import Any, Final

import numpy as np

from koru_delta.causal import CAUSE_KINDS, Cut, When, microseconds
from koru_delta.errors import InvalidDataError, QueryError
from koru_delta.intents import CauseLike, WriteOptions
from koru_delta.search.fusion import FUSIONS, LEGS, MODES
from koru_delta.values import LeftOut, check_key

RAISE: Final[Any] = LeftOut()  # a `default`: an absent key is an error
ANY: Final[Any] = LeftOut()  # an `if_match`: whatever stands there


def write_options(
    if_match: Any,
    causes: Sequence[CauseLike],
    ttl: float | timedelta | None,
    valid_from: When | None,
    valid_to: When | None,
    author: str | None,
    message: str | None,
    run: str | None,
) -> WriteOptions:
    """What a write says of itself, without what was left out."""
    options: WriteOptions = {}
    if if_match is not ANY:
        options["if_match"] = if_match
    if causes:
        options["causes"] = causes
    if ttl is not None:
        options["ttl"] = ttl
    if valid_from is not None:
        options["valid_from"] = valid_from
    if valid_to is not None:
        options["valid_to"] = valid_to
    if author is not None:
        options["author"] = author
    if message is not None:
        options["message"] = message
    if run is not None:
        options["run"] = run
    return options


def valid_clock(valid_at: When | None, cut: Cut) -> int:
    """A valid time in microseconds; by default that of the cut."""
    return cut.clock if valid_at is None else microseconds(valid_at)


def check_namespace(namespace: str) -> None:
    """Refuse what cannot be a namespace."""
    check_key(namespace, "-")


def key_list(keys: Iterable[str]) -> Iterable[str]:
    """Refuse one string where a list of them belongs: it would be taken letter by letter."""
    if isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):
        raise InvalidDataError(f"keys is a list of keys, not {type(keys).__name__}")
    return keys


def cause_kinds(kinds: Sequence[str] | None) -> frozenset[str]:
    """The kinds of cause asked for, all of them for None."""
    if kinds is None:
        return frozenset(CAUSE_KINDS)
    if not isinstance(kinds, Iterable):
        raise QueryError(f"kinds is a list of kinds of cause, not {kinds!r}")
    named = frozenset([kinds] if isinstance(kinds, str) else kinds)
    if not named <= frozenset(CAUSE_KINDS):
        raise QueryError(
            f"unknown kind of cause {sorted(named - frozenset(CAUSE_KINDS))[0]!r}; "
            f"the kinds are {', '.join(CAUSE_KINDS)}"
        )
    return named


def check_search(k: int, threshold: float | None, recall: float) -> int:
    """`k` as a plain integer, once all three make sense."""
    if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or k < 0:
        raise QueryError(f"k is a whole number from 0 on, not {k!r}")
    if threshold is not None and (
        not _is_number(threshold) or threshold != threshold  # noqa: PLR0124 - NaN
    ):
        raise QueryError(f"threshold is a number, not {threshold!r}")
    if not _is_number(recall) or not 0 < recall <= 1:
        raise QueryError(f"recall is a share in (0, 1], not {recall!r}")
    return int(k)


def check_mode(mode: str, fusion: str, mmr: object, text: object) -> Sequence[str]:
    """The legs of a mode, once all of these make sense."""
    if not isinstance(text, str):
        raise QueryError(f"text is a string, not {type(text).__name__}; vectors go into vector=")
    if mode not in MODES:
        raise QueryError(f"there is no mode {mode!r}; it is one of {', '.join(MODES)}")
    if fusion not in FUSIONS:
        raise QueryError(f"there is no fusion {fusion!r}; it is one of {', '.join(FUSIONS)}")
    if mmr is not None and (not _is_number(mmr) or not 0 <= mmr <= 1):  # type: ignore[operator]
        raise QueryError(f"mmr is a number in [0, 1], not {mmr!r}")
    return LEGS if mode == "hybrid" else (mode,)


def half_life_microseconds(given: float | timedelta | None) -> int | None:
    """A half-life in microseconds, at least 1."""
    if given is None:
        return None
    seconds = given.total_seconds() if isinstance(given, timedelta) else given
    if not _is_number(seconds) or not isfinite(seconds) or seconds <= 0:
        raise QueryError(f"half_life is seconds or a timedelta above 0, not {given!r}")
    return max(1, int(seconds * 1_000_000))


def group_path(name: object) -> tuple[str, ...]:
    """The path that `group_by` names; none for the value itself."""
    if not isinstance(name, str):
        raise QueryError(f"group_by is a dotted path, not {name!r}")
    return tuple(name.split(".")) if name else ()


def _is_number(given: object) -> bool:
    return isinstance(given, (int, float, np.integer, np.floating)) and not isinstance(given, bool)


def memory_budget(given: int | None) -> int | None:
    """`vector_memory`, if it makes sense."""
    if given is not None and (not isinstance(given, int) or isinstance(given, bool) or given < 0):
        raise InvalidDataError(f"vector_memory is a number of bytes, or None, not {given!r}")
    return given
