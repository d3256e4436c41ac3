"""Ids of any string, the keys they are stored under, and what else is given, checked."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import Any, Final

import koru_delta

HASHED: Final = koru_delta.adapters.HASHED
key_of: Final = koru_delta.adapters.key_of


def keys_of(names: Iterable[str]) -> list[str]:
    """The keys of ids, in their order."""
    return [key_of(name) for name in listed("ids", names)]


def listed(what: str, given: Iterable[Any], *, of: type | None = None) -> list[Any]:
    """A list of what was given.

    Raises:
        InvalidDataError: it is one string, or nothing to go through, or holds something that is
            not `of` that class.
    """
    if isinstance(given, of or str):  # which may be gone through, for its letters or fields
        raise koru_delta.errors.InvalidDataError(
            f"{what} is a list of {'strings' if of is None else of.__name__}, this is one: put it "
            f"in [], as [{reprlib.repr(given)}]"
        )
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise koru_delta.errors.InvalidDataError(f"{what} is a list, not {type(given).__name__}")
    found = list(given)
    for place, each in enumerate(found):
        if of is not None and not isinstance(each, of):
            raise koru_delta.errors.InvalidDataError(
                f"{what} holds {type(each).__name__} at {place} (the first is 0), not {of.__name__}"
            )
    return found


def pairs_of(what: str, given: Iterable[Any]) -> list[tuple[Any, Any]]:
    """A list of pairs.

    Raises:
        InvalidDataError: it is none.
    """
    found = listed(what, given)
    for each in found:
        if not isinstance(each, (tuple, list)) or len(each) != 2:
            raise koru_delta.errors.InvalidDataError(
                f"{what} is a list of pairs, and {type(each).__name__} is none"
            )
    return found


def text(what: str, given: object) -> str:
    """What was given, if it is a string.

    Raises:
        InvalidDataError: it is none.
    """
    if not isinstance(given, str):
        raise koru_delta.errors.InvalidDataError(f"{what} is a string, not {type(given).__name__}")
    return given


def foreign(namespace: str, key: str, what: str) -> koru_delta.errors.InvalidDataError:
    """The error of a value that something else has written into a namespace."""
    return koru_delta.errors.InvalidDataError(
        f"{key!r} in namespace {namespace!r} is no {what}; keep other values in another namespace"
    )
