"""Moments as people type them: a date, a position, a version, a tag, a git commit."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from koru_delta import Database, Version
from koru_delta.errors import InvalidTimestampError, KeyNotFoundError
from koru_delta.ingest import commit_time, commits_of

_POSITION: Final = re.compile(r"\d{1,7}")
_SHA: Final = re.compile(r"[0-9a-f]{4,64}")
END_OF_TIME: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_MOMENT: Final = re.compile(r"tag:.+|[0-9a-f]+|\d.*")
_DATE: Final = re.compile(r"\d{4}-\d")


def time(text: str) -> datetime:
    """A time as it was typed; without a zone it is local time.

    Raises:
        InvalidTimestampError: not a time.
    """
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidTimestampError(
            repr(text), "not a time; write it as in 2026-02-01 or 2026-02-01T12:00:00Z"
        ) from error
    return parsed.astimezone() if parsed.tzinfo is None else parsed


def is_sha(text: str) -> bool:
    """Whether it may be (the beginning of) a git commit's hash."""
    return _SHA.fullmatch(text) is not None and _POSITION.fullmatch(text) is None


def as_of(text: str | None) -> int | str | datetime | None:
    """What was typed as `--as-of`; a time without a zone is local time.

    Raises:
        InvalidTimestampError: no kind of moment.
    """
    if text is None:
        return None
    if _MOMENT.fullmatch(text) is None:
        raise InvalidTimestampError(
            repr(text),
            "not a moment; write a time as in 2026-02-01T12:00:00Z, a version, a position or "
            "tag:NAME",
        )
    if _POSITION.fullmatch(text):
        return int(text)
    return time(text) if _DATE.match(text) else text


def valid_at(db: Database, namespace: str, text: str | None) -> datetime | None:
    """What was typed as `--valid-at`: a time, or an ingested git commit.

    Raises:
        InvalidTimestampError: neither.
        UnknownVersionError: the commit was not ingested into this namespace.
    """
    if text is None:
        return None
    if _DATE.match(text):
        return time(text)
    if _SHA.fullmatch(text):
        return commit_time(db, base_of(namespace), text)
    raise InvalidTimestampError(
        repr(text), "neither a time, as in 2026-02-01T12:00:00Z, nor an ingested git commit"
    )


def beginning(db: Database, namespace: str) -> datetime | None:
    """When the history that was ingested into a namespace begins; None if there is none."""
    first = db.query(
        commits_of(namespace), sort=["committed_at"], limit=1, select=["committed_at"],
        valid_at=END_OF_TIME,
    )  # fmt: skip
    return datetime.fromisoformat(first[0].value["committed_at"]) if first else None


def base_of(namespace: str) -> str:
    """The namespace of the documents, given it or that of their chunks or commits."""
    for ending in (".chunks", ".commits", ".runs"):
        namespace = namespace.removesuffix(ending)
    return namespace


def version_at(
    db: Database,
    namespace: str,
    key: str,
    *,
    known_at: int | str | datetime | Version | None = None,
    true_at: datetime | None = None,
) -> Version:
    """The version of a key that answers at a moment.

    Raises:
        KeyNotFoundError: absent or deleted there.
    """
    view = db.as_of(known_at)
    db.get_raw(namespace, key, as_of=known_at, valid_at=true_at)  # absent and expired: raises
    at = true_at or view.time
    for version in view.history(namespace, key, reverse=True):
        if version.valid_from <= at and (version.valid_to is None or at < version.valid_to):
            return version
    raise KeyNotFoundError(namespace, key)


def version_named(db: Database, namespace: str, key: str, text: str) -> Version:
    """The version of a key that goes by a version id, a git commit or a moment."""
    if re.fullmatch(r"[0-9a-f]{8,64}", text):
        for version in db.history(namespace, key):
            if version.id.startswith(text):
                return version
    if is_sha(text):
        moment = commit_time(db, base_of(namespace), text)
        return version_at(db, namespace, key, true_at=moment)
    return version_at(db, namespace, key, known_at=as_of(text))
