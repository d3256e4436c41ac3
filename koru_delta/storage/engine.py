"""What a storage engine promises the log.

An engine keeps rows and finds them again; it knows nothing of what they mean. Writes
happen inside `writing()`, one writer at a time over all processes, and are there for
every later read of any process once the block has ended, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol


class Head(NamedTuple):
    """The end of the log: entries, commits, time of the last one, chained root."""

    seq: int
    commits: int
    tx_time: int
    root: bytes


class Stored(NamedTuple):
    """A version as it is kept; `latest` tells whether its key has no later put or delete.

    The body of one that was `erased` is None.
    """

    seq: int
    version_id: bytes
    operation: int
    tx_time: int
    valid_from: int
    valid_to: int
    expires_at: int
    record: bytes
    body: bytes | None
    latest: bool
    erased: int = 0  # the place of the entry that erased it, if one did


class StoredCommit(NamedTuple):
    """A commit as it is kept, with the record of its first version."""

    number: int
    first_seq: int
    last_seq: int
    tx_time: int
    root: bytes
    record: bytes


class KeyHead(NamedTuple):
    """The last entry of a key, which the next one is chained to."""

    key_id: int
    version_id: bytes
    record: bytes
    object_row: int | None


class NewVersion(NamedTuple):
    """A version about to be kept. `None` in a time is the default: from now on, for ever."""

    seq: int
    version_id: bytes
    namespace: str
    key: str
    operation: int
    tx_time: int
    valid_from: int | None
    valid_to: int | None
    expires_at: int | None
    record: bytes
    body: bytes | None
    distinction: bytes | None
    # Space, vector id, float32 bytes; an empty id stands for one that was erased elsewhere.
    vectors: Sequence[tuple[int, bytes, bytes | None]]
    causes: Sequence[bytes]
    marks: Sequence[tuple[int, int]] = ()  # HIDE, UNHIDE, ERASE or SUPERSEDE, place of the target


class Space(NamedTuple):
    """The vectors of one model in one namespace, all of one length and metric."""

    space_id: int
    namespace: str
    model: str
    dimensions: int
    metric: str


class Entry(NamedTuple):
    """A put or delete as an index reads it; `vector` names the row of its vector, if any.

    Or a mark: `operation` is then HIDE, UNHIDE or SUPERSEDE, `seq` the place of the entry that
    makes it, `target` that of the put it is about, and key, `tx_time` and `vector` are those of
    the target. The marks an entry makes come after the entry itself.
    """

    seq: int
    key_id: int
    operation: int
    tx_time: int
    valid_from: int | None
    valid_to: int | None
    expires_at: int | None
    vector: int | None
    target: int | None = None


class Candidate(NamedTuple):
    """A version that retention may erase: what came after it, and when it was out of use.

    `odd` says that its key has explicit valid times, so that this alone does not tell.
    """

    seq: int
    key_id: int
    version_id: bytes
    key: str
    ended: int  # microseconds
    odd: bool


class Facts(NamedTuple):
    """What and whose an entry is, without its record and body."""

    seq: int
    operation: int
    namespace: str
    key: str
    erased: int


class Shade(NamedTuple):
    """What marks have made of a version: out of search and queries, or of search alone."""

    hidden: bool
    superseded: bool


class Moved(NamedTuple):
    """What a move did: bodies and vectors moved, bytes written, and how long writers waited.

    `longest_seconds` is that of one transaction.
    """

    items: int = 0
    bytes_written: int = 0
    longest_seconds: float = 0.0


class TierSize(NamedTuple):
    """What the files of a tier hold: how many, how many bodies and vectors, bytes on disk.

    And the bytes that these bodies and vectors are.
    """

    files: int = 0
    items: int = 0
    size_bytes: int = 0
    raw_bytes: int = 0


class Presence(NamedTuple):
    """A key at a cut: what it holds, and when that was written; None where it holds nothing.

    `touched` is the time of its last entry, marks among them, `changes` when it may hold something
    else although nobody writes, both in microseconds.
    """

    key_id: int
    seq: int | None
    written: int | None
    touched: int
    hidden: bool
    changes: int


class Writer(Protocol):
    """The one open write. Rows of a batch become visible to its reads at `flush`."""

    @property
    def head(self) -> Head: ...
    def key_head(self, namespace: str, key: str) -> KeyHead | None: ...
    def visible(self, namespace: str, key: str, seq: int, valid_at: int) -> Stored | None: ...
    def seq_of(self, version_id: bytes) -> int | None: ...
    def space(self, namespace: str, model: str) -> Space | None: ...
    def ever_put(self, namespace: str, key: str) -> bool: ...
    def at(self, seq: int) -> Stored | None: ...
    def kept(self, namespace: str, key: str) -> list[bytes]: ...
    def facts(self, seq: int) -> Facts | None: ...
    def shade(self, seq: int) -> Shade: ...
    def append(self, version: NewVersion) -> None: ...
    def append_commit(self, commit: Head, first_seq: int) -> None: ...
    def flush(self) -> None: ...


class Engine(Protocol):
    """Durable rows for one log."""

    path: Path | None

    def writing(self, kept: Callable[[int, int], None]) -> AbstractContextManager[Writer]: ...
    def generation(self) -> int: ...
    def head(self) -> Head: ...
    def last_time(self) -> int: ...
    def visible(self, namespace: str, key: str, seq: int, valid_at: int) -> Stored | None: ...
    def visible_keys(
        self,
        namespace: str,
        seq: int,
        valid_at: int,
        clock: int,
        *,
        prefix: str = "",
        after: str | None = None,
        limit: int | None = None,
        bodies: bool = True,
        hidden: bool = True,
        erased: bool = False,
    ) -> list[tuple[str, Stored]]: ...
    def count_visible(self, namespace: str, seq: int, valid_at: int, clock: int) -> int: ...
    def namespaces(self, seq: int, valid_at: int, clock: int, *, hidden: bool) -> list[str]: ...
    def key_versions(
        self,
        namespace: str,
        key: str,
        seq: int,
        *,
        reverse: bool,
        limit: int | None,
        annotations: bool = False,
    ) -> list[Stored]: ...
    def shade(self, seq: int, until: int) -> Shade: ...
    def at(self, seq: int) -> Stored | None: ...
    def at_many(self, seqs: Sequence[int]) -> list[Stored]: ...
    def bodies(self, seqs: Sequence[int]) -> list[bytes | None]: ...
    def seq_of(self, version_id: bytes) -> int | None: ...
    def effects(self, version_id: bytes, seq: int) -> list[int]: ...
    def effects_many(self, version_ids: Sequence[bytes], seq: int) -> list[int]: ...
    def places_of(self, version_ids: Sequence[bytes]) -> dict[bytes, int]: ...
    def records_at(self, seqs: Sequence[int]) -> list[tuple[int, bytes, bytes]]: ...
    def key_places(self, namespace: str, key: str, seq: int) -> list[int]: ...
    def puts(self, namespace: str, after: int, until: int) -> list[tuple[int, int]]: ...
    def presence(
        self, seq: int, clock: int, key_ids: Sequence[int], *, since: int = 0
    ) -> list[Presence]: ...
    def key_ids(self, namespace: str) -> list[int]: ...
    def count_keys(self, namespace: str, most: int) -> int: ...
    def key_ids_of(self, namespace: str, keys: Sequence[str]) -> dict[str, int]: ...
    def keys_like(self, namespace: str, prefix: str, after: int) -> list[tuple[int, str]]: ...
    def places_of_keys(self, key_ids: Sequence[int]) -> list[int]: ...
    def changed_keys(self, after: int, until: int) -> list[tuple[str, int]]: ...
    def citations(self, after: int, until: int) -> list[tuple[int, int]]: ...
    def commit_at(self, tx_time: int) -> StoredCommit | None: ...
    def commits(
        self, *, after: int, until: int, reverse: bool, limit: int | None
    ) -> list[StoredCommit]: ...
    def commit_roots(self, start: int, stop: int) -> list[bytes]: ...
    def spaces(self, namespace: str) -> list[Space]: ...
    def entries(self, space: Space, after: int, *, key_id: int | None = None) -> list[Entry]: ...
    def stored(self, namespace: str) -> int: ...
    def records(self, namespace: str, after: int, *, key_id: int | None = None) -> list[Entry]: ...
    def keys_of(self, key_ids: Sequence[int]) -> list[str]: ...
    def vectors(self, rows: Sequence[int]) -> list[bytes]: ...
    def erased(self, namespace: str) -> int: ...
    def erased_between(self, namespace: str, after: int, until: int) -> list[int]: ...
    def move(self, seqs: Iterable[int], tier: int) -> Moved: ...
    def tier_of(self, seqs: Sequence[int]) -> list[int]: ...
    def whereabouts(self, seqs: Sequence[int]) -> list[tuple[int, int]]: ...
    def unreadable(self, seqs: Sequence[int]) -> dict[int, str]: ...
    def tier_sizes(self) -> dict[int, TierSize]: ...
    def tidy_tiers(self) -> Moved: ...
    def tier_files(self) -> list[tuple[int, int]]: ...
    def tier_problems(self, numbers: Collection[int] | None = None) -> Iterator[str]: ...
    def statistics(self) -> dict[str, Any]: ...
    def problems(self) -> Iterator[str]: ...
    def backup(self, target: Path) -> None: ...
    def close(self) -> None: ...


def chunks(items: Sequence[int], size: int = 500) -> Iterable[Sequence[int]]:
    """Cut a long list of row numbers into pieces one statement can name."""
    return (items[start : start + size] for start in range(0, len(items), size))
