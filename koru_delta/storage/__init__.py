"""Where the log's bytes live: what an engine promises, and SQLite, the default."""

from koru_delta.storage.engine import (
    Engine,
    Entry,
    Head,
    KeyHead,
    NewVersion,
    Space,
    Stored,
    StoredCommit,
    Writer,
)
from koru_delta.storage.sqlite import SqliteEngine

__all__ = [
    "Engine",
    "Entry",
    "Head",
    "KeyHead",
    "NewVersion",
    "Space",
    "SqliteEngine",
    "Stored",
    "StoredCommit",
    "Writer",
]
