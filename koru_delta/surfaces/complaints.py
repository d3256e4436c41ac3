"""Errors in the words of the command line: options and commands, not arguments and methods."""

from __future__ import annotations

import re
from typing import Final

from koru_delta import KoruDeltaError
from koru_delta.errors import (
    ConflictError,
    DimensionMismatchError,
    KeyNotFoundError,
    ModelMismatchError,
    UnknownVersionError,
)
from koru_delta.ingest import commits_of

_INGESTED: Final = re.compile(r"(?P<several>more than one )?commit .*?(?P<sha>\w+) of '(?P<ns>.*)'")
_TAGS: Final = "$tags"  # where the log keeps them
_WORDS: Final = (
    ("if_match=None", "--if-match none"),
    ("if_match=", "--if-match "),
    ("(version() gives the present one)", "(kdelta get --json tells the present version)"),
    ("use valid_at=", "use --valid-at"),
    (
        "pass a datetime, ISO 8601 text, a version, a commit, a position or 'tag:name'",
        "write a time as in 2026-02-01T12:00:00Z, a version, a position or tag:NAME",
    ),
    ("pass a datetime or ISO 8601 text", "write it as in 2026-02-01T12:00:00Z"),
    ("such as tzinfo=datetime.UTC or a final Z", "such as a final Z"),
)


def told(error: KoruDeltaError, *, moment_asked: bool) -> str:
    """What went wrong and what to do about it.

    Args:
        moment_asked: Whether the command named a moment.
    """
    if isinstance(error, KeyNotFoundError):
        where = f"{error.key!r} in {error.namespace!r}"
        if error.deleted_at is not None:
            return (
                f"{where} was deleted at {error.deleted_at.isoformat()}; ask for a moment before "
                "that with --as-of or --valid-at, or see kdelta log NAMESPACE KEY"
            )
        if moment_asked:
            return f"no key {where} at that moment; kdelta log NAMESPACE KEY tells its moments"
        return f"no key {where}; kdelta keys NAMESPACE lists what there is"
    if isinstance(error, UnknownVersionError):
        return _unknown(error.reference)
    if isinstance(error, ModelMismatchError):
        known = ", ".join(map(repr, error.known))
        asked = "" if error.model is None else f", not of {error.model!r}"
        return (
            f"namespace {error.namespace!r} holds vectors of {known}{asked}; name one of them "
            "with --model (questions are turned into vectors by the local model, so it must "
            "have made them), or search by words with --mode text"
        )
    if isinstance(error, DimensionMismatchError):
        return (
            f"namespace {error.namespace!r} holds vectors of {error.expected} numbers, the local "
            f"model makes {error.got}; search by words with --mode text, or from Python with the "
            f"model that filled it, or if its values are texts, give it vectors of the local "
            f"model: kdelta reembed {error.namespace}"
        )
    if isinstance(error, ConflictError) and error.namespace == _TAGS:
        return f"tag:{error.key} is taken; pass --move to point it elsewhere"
    text = str(error)
    for python, words in _WORDS:
        text = text.replace(python, words)
    return text


def _unknown(reference: str) -> str:
    if (found := _INGESTED.fullmatch(reference)) is not None:
        sha, commits = found["sha"], commits_of(found["ns"])
        if found["several"]:
            return f"more than one commit in {commits!r} starts with {sha}; write more of it"
        return (
            f"commit {sha} was not ingested into {found['ns']!r}: kdelta keys {commits} lists "
            "those that were (of a merged branch only the merge is)"
        )
    return (
        f"{reference} is not in this database; kdelta log lists its commits, "
        "kdelta log NAMESPACE KEY the versions of a key, kdelta tags its tags"
    )
