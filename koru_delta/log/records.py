"""What the log keeps of an entry, once it matches its hashes and what it is filed under."""

from __future__ import annotations

from typing import Any

from koru_delta.causal import FOREVER, OPERATIONS, Commit, version_id
from koru_delta.errors import CorruptionError
from koru_delta.storage import Stored, StoredCommit
from koru_delta.values import Value, decode, distinction_id


def identified_record(seq: int, identity: bytes, stored: bytes) -> dict[str, Any]:
    """The record of the entry at `seq`, once it matches its id.

    Raises:
        CorruptionError: it does not.
    """
    if version_id(stored) != identity:
        raise damaged(seq, "does not match its id")
    record: dict[str, Any] = decode(stored)
    return record


def checked_record(entry: Stored) -> dict[str, Any]:
    """The record of an entry, once it matches its id and the facts it is filed under.

    Raises:
        CorruptionError: it does not.
    """
    record = identified_record(entry.seq, entry.version_id, entry.record)
    time = record["time"]
    if (
        entry.tx_time != time
        or entry.operation != OPERATIONS.index(record["op"])
        or entry.valid_from != record.get("valid_from", time)
        or entry.valid_to != record.get("valid_to", FOREVER)
        or entry.expires_at != record.get("expires_at", FOREVER)
    ):
        raise damaged(entry.seq, "is filed under other facts than its record states")
    return record


def checked(entry: Stored, distinction: str | None) -> bytes:
    """The body of a put, once it matches the hash its record names.

    Raises:
        CorruptionError: it does not.
    """
    body = entry.body
    if body is None or distinction_id("json", body).hex() != distinction:
        raise damaged(entry.seq, "holds a value that does not match its hash")
    return body


def damaged(seq: int, problem: str) -> CorruptionError:
    """What to raise where an entry of the log is not as it was written."""
    return CorruptionError(
        f"entry {seq} {problem}; restore a backup, and run kdelta verify to see what else is "
        "damaged"
    )


def as_commit(row: StoredCommit) -> Commit:
    """A commit with what its first version says of it."""
    try:
        record: dict[str, Value] = decode(row.record)
    except ValueError as error:
        raise damaged(row.first_seq, "does not match its id") from error
    return Commit(
        row.number, row.first_seq, row.last_seq, row.tx_time, row.root.hex(),
        record.get("author"), record.get("message"), record.get("run"),
    )  # fmt: skip
