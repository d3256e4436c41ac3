"""Ids of any string, and the keys they are stored under."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final

import koru_delta

HASHED: Final = "id-sha256:"  # starts the keys of ids that cannot be keys themselves
_MAX_KEY_BYTES: Final = 1024


def key_of(name: object) -> str:
    """The key of an id: itself where it can be one, else its hash; no two ids share a key.

    A lone surrogate cannot be stored, and is refused when it is; its key finds nothing.

    Raises:
        InvalidDataError: it is no string.
    """
    if not isinstance(name, str):
        raise koru_delta.errors.InvalidDataError(f"an id is a string, not {type(name).__name__}")
    data = name.encode(errors="surrogatepass")
    if (
        0 < len(data) <= _MAX_KEY_BYTES
        and b"\0" not in data
        and not name.startswith(HASHED)
        and (name.isascii() or data == name.encode(errors="ignore"))
    ):
        return name
    return HASHED + hashlib.sha256(data).hexdigest()


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
