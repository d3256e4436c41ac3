"""Where the log's bytes live: what an engine promises, and SQLite, the default."""

from koru_delta.storage.engine import (
    Candidate,
    Engine,
    Entry,
    Head,
    KeyHead,
    NewVersion,
    Shade,
    Space,
    Stored,
    StoredCommit,
    Writer,
)
from koru_delta.storage.sqlite import ENGINE_FAILURES, SqliteEngine

__all__ = [
    "ENGINE_FAILURES",
    "Candidate",
    "Engine",
    "Entry",
    "Head",
    "KeyHead",
    "NewVersion",
    "Shade",
    "Space",
    "SqliteEngine",
    "Stored",
    "StoredCommit",
    "Writer",
]
