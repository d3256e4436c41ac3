"""Ids of any string, and the keys they are stored under."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import koru_delta

HASHED: Final = koru_delta.adapters.HASHED
key_of: Final = koru_delta.adapters.key_of


def keys_of(names: Iterable[str]) -> list[str]:
    """The keys of ids, in their order."""
    return [key_of(name) for name in listed("ids", names)]


def listed(what: str, given: Iterable[Any]) -> list[Any]:
    """A list of what was given.

    Raises:
        InvalidDataError: it is one string.
    """
    if isinstance(given, str):
        raise koru_delta.errors.InvalidDataError(
            f"{what} is a list of strings, this is one: put it in []"
        )
    return list(given)
