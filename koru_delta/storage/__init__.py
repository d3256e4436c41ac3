"""Where the log's bytes live: what an engine promises, and SQLite, the default."""

from koru_delta.storage.connections import CACHE_BYTES
from koru_delta.storage.engine import (
    Candidate,
    Engine,
    Entry,
    Head,
    KeyHead,
    Moved,
    NewVersion,
    Shade,
    Space,
    Stored,
    StoredCommit,
    TierSize,
    Writer,
)
from koru_delta.storage.sqlite import ENGINE_FAILURES, SqliteEngine
from koru_delta.storage.tierfile import COLD, DEEP, WARM

__all__ = [
    "CACHE_BYTES",
    "COLD",
    "DEEP",
    "ENGINE_FAILURES",
    "WARM",
    "Candidate",
    "Engine",
    "Entry",
    "Head",
    "KeyHead",
    "Moved",
    "NewVersion",
    "Shade",
    "Space",
    "SqliteEngine",
    "Stored",
    "StoredCommit",
    "TierSize",
    "Writer",
]
