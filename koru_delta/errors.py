"""Every error KoruDelta raises, in one tree.

Each sits under `KoruDeltaError` and, where it helps callers, under the built-in
they already catch. The message says what happened and what to do; the facts are
attributes, and every error survives pickling.

    KoruDeltaError
    ├── KeyNotFoundError          (KeyError)      nothing under that key at that moment
    │   ├── NoVectorError                         the key has no vector of that model then
    │   └── UnknownMemoryError                    an agent has no such memory then
    ├── ErasedError               (LookupError)   the value asked for was erased
    ├── UnknownVersionError       (LookupError)   no version, commit or tag of that name
    ├── UnknownCauseError         (LookupError)   a cause or parent is not in the log
    ├── AnnotationError           (ValueError)    a version cannot be hidden or erased, or is
    ├── ImmutableEventError       (TypeError)     an event is written once
    ├── IsolationError            (PermissionError) something of another workspace
    ├── QuotaExceededError        (RuntimeError)  a workspace holds as much as it may
    ├── ConflictError                             `if_match` or a tag lost a race
    │   ├── ChangedSinceError                     what a transaction had read was written since
    │   └── DivergedLogError                      an imported log does not continue this one
    ├── InvalidDataError          (ValueError)    a value, key or argument cannot be stored
    │   └── ValueTooLargeError
    ├── InvalidTimestampError     (ValueError)    a time is naive, unreadable or ahead
    ├── QueryError                (ValueError)    a filter, sort or search is not well formed
    ├── DimensionMismatchError    (ValueError)    a vector of another length
    ├── ModelMismatchError        (ValueError)    a model is unknown here, or must be named
    ├── MetricMismatchError       (ValueError)    the space already measures otherwise
    ├── EmbedderError             (ValueError)    text was given and cannot be embedded
    ├── SummarizerError           (ValueError)    a summarizer failed, or is not known here
    ├── TransactionError          (RuntimeError)  nested, finished, or used for a search
    ├── DatabaseClosedError       (ValueError)    the handle was closed
    ├── ReadOnlyError             (PermissionError)
    ├── DatabaseLockedError       (TimeoutError)  another writer holds the lock
    ├── StorageError              (OSError)       the file system refused
    │   └── StorageFullError                      no room left
    ├── NotADatabaseError         (ValueError)    the directory holds something else
    ├── UnsupportedFormatError    (ValueError)    written by a newer KoruDelta
    ├── CorruptionError           (RuntimeError)  bytes do not match their hash
    ├── NotPicklableError         (TypeError)     a handle cannot cross processes
    ├── IngestError               (RuntimeError)  a source could not be read
    └── MissingExtraError         (ImportError)   an optional part is not installed
"""

from __future__ import annotations

import errno
from datetime import datetime


class KoruDeltaError(Exception):
    """What every error of KoruDelta is."""


class KeyNotFoundError(KoruDeltaError, KeyError):
    """Nothing is stored under the key at the moment asked for."""

    def __init__(self, namespace: str, key: str, deleted_at: datetime | None = None) -> None:
        super().__init__(namespace, key, deleted_at)
        self.namespace, self.key, self.deleted_at = namespace, key, deleted_at

    def __str__(self) -> str:
        if self.deleted_at is not None:
            return (
                f"{self.key!r} in {self.namespace!r} was deleted at {self.deleted_at.isoformat()}; "
                "ask for a moment before that (as_of=, valid_at=), or see history()"
            )
        return f"no key {self.key!r} in {self.namespace!r} at that moment"


class NoVectorError(KeyNotFoundError):
    """The key is there, but without a vector of the model (any, for None) at that moment."""

    def __init__(self, namespace: str, key: str, model: str | None) -> None:
        super().__init__(namespace, key)
        self.args = (namespace, key, model)
        self.model = model

    def __str__(self) -> str:
        which = "no vector" if self.model is None else f"no vector of model {self.model!r}"
        return (
            f"{self.key!r} in {self.namespace!r} has {which} at that moment; embed it, or name "
            "a model it has"
        )


class UnknownMemoryError(KeyNotFoundError):
    """An agent has no memory of that id, or had none at the moment asked for."""

    def __str__(self) -> str:
        return (
            f"there is no memory {self.key!r} in {self.namespace!r} at that moment; recall() and "
            "memories() give ids, such as 'fact:home-city' for the fact 'home-city'"
        )


class ErasedError(KoruDeltaError, LookupError):
    """What was asked for was erased: a version's value and vectors, or a whole past.

    `key` and `version` are those of what was erased, `erased_at` is when and `reason` why, if
    anybody said. Where a search, query or list asks for a moment behind the window that a
    namespace retains, `key` and `version` are None and `horizon` is where the window begins.
    """

    def __init__(
        self,
        namespace: str,
        key: str | None = None,
        version: str | None = None,
        erased_at: datetime | None = None,
        reason: str | None = None,
        horizon: datetime | None = None,
    ) -> None:
        super().__init__(namespace, key, version, erased_at, reason, horizon)
        self.namespace, self.key, self.version = namespace, key, version
        self.erased_at, self.reason, self.horizon = erased_at, reason, horizon

    def __str__(self) -> str:
        if self.horizon is not None:
            return (
                f"{self.namespace!r} retains nothing but records from before "
                f"{self.horizon.isoformat()}; ask for that moment or a later one"
            )
        when = "" if self.erased_at is None else f" at {self.erased_at.isoformat()}"
        why = "" if self.reason is None else f" ({self.reason})"
        what = "" if self.version is None else f" of version {self.version[:12]}"
        return (
            f"the value{what} of {self.key!r} in {self.namespace!r} was erased{when}{why}; "
            "its record is kept, its content is not"
        )


class UnknownVersionError(KoruDeltaError, LookupError):
    """No version, commit or tag goes by that name in this database."""

    def __init__(self, reference: str) -> None:
        super().__init__(reference)
        self.reference = reference

    def __str__(self) -> str:
        return f"{self.reference} is not in this database; history() and commits() list what is"


class UnknownCauseError(KoruDeltaError, LookupError):
    """A cause or parent names a version the log does not hold."""

    def __init__(self, reference: str) -> None:
        super().__init__(reference)
        self.reference = reference

    def __str__(self) -> str:
        return (
            f"cause {self.reference} is not in this database; write the cause first, "
            "or import the log that holds it"
        )


class AnnotationError(KoruDeltaError, ValueError):
    """A version cannot be hidden, unhidden or erased: it is so already, or is no put."""

    def __init__(self, version: str, problem: str) -> None:
        super().__init__(version, problem)
        self.version, self.problem = version, problem

    def __str__(self) -> str:
        return f"version {self.version[:12]} {self.problem}"


class ImmutableEventError(KoruDeltaError, TypeError):
    """An event was to be changed or deleted: its pattern has it written once."""

    def __init__(self, namespace: str, key: str) -> None:
        super().__init__(namespace, key)
        self.namespace, self.key = namespace, key

    def __str__(self) -> str:
        return (
            f"{self.key!r} in {self.namespace!r} is an event, which is written once; store what "
            "came after it under a key of its own, with the event as a cause, or hide it"
        )


class IsolationError(KoruDeltaError, PermissionError):
    """A workspace was given something that is not of it."""

    def __init__(self, workspace: str, reference: str) -> None:
        super().__init__(workspace, reference)
        self.workspace, self.reference = workspace, reference

    def __str__(self) -> str:
        return (
            f"{self.reference} is not of workspace {self.workspace!r}, and nothing crosses its "
            "border; store a copy in it, and name that"
        )


class QuotaExceededError(KoruDeltaError, RuntimeError):
    """A workspace would hold more than its quota: `what` is "items" or "bytes"."""

    def __init__(self, workspace: str, what: str, limit: int, wanted: int) -> None:
        super().__init__(workspace, what, limit, wanted)
        self.workspace, self.what, self.limit, self.wanted = workspace, what, limit, wanted

    def __str__(self) -> str:
        return (
            f"workspace {self.workspace!r} may hold {self.limit:,} {self.what}, this would make "
            f"it {self.wanted:,}; nothing was written: delete or expire() what is not needed "
            f"(what is hidden counts), or raise it with configure(max_{self.what}=)"
        )


class ConflictError(KoruDeltaError):
    """Somebody else wrote the key first: `if_match` named another version."""

    def __init__(self, namespace: str, key: str, expected: str | None, actual: str | None) -> None:
        super().__init__(namespace, key, expected, actual)
        self.namespace, self.key, self.expected, self.actual = namespace, key, expected, actual

    def __str__(self) -> str:
        if self.actual is None:
            return (
                f"{self.key!r} in {self.namespace!r} is absent now (deleted, expired or never "
                f"written), not at {self.expected}; to write where nothing is, pass if_match=None"
            )
        return (
            f"{self.key!r} in {self.namespace!r} is at {self.actual}, not "
            f"{'absent' if self.expected is None else 'at ' + self.expected}; "
            "read it again (version() gives the present one) and decide anew"
        )


class ChangedSinceError(ConflictError):
    """Somebody wrote a key that a transaction expected to be unchanged."""

    def __init__(self, namespace: str, key: str, since: int, seq: int) -> None:
        super().__init__(namespace, key, None, None)
        self.args = (namespace, key, since, seq)
        self.since, self.seq = since, seq

    def __str__(self) -> str:
        return (
            f"{self.key!r} in {self.namespace!r} was written at {self.seq}, after {self.since}, "
            "since when it was to be unchanged; read it again and decide anew"
        )


class DivergedLogError(ConflictError):
    """An imported log and this one both have entries, and they differ."""

    def __init__(self, commit: int, expected: str, actual: str | None) -> None:
        super().__init__("log", f"commit {commit}", expected, actual)
        self.args = (commit, expected, actual)
        self.commit = commit

    def __str__(self) -> str:
        return (
            f"this database has entries of its own from commit {self.commit} on; import into "
            "an empty one, or one that the exported log continues"
        )


class InvalidDataError(KoruDeltaError, ValueError):
    """Something cannot be stored; `path` leads to the culprit (`$` is the whole).

    `namespace` and `key` are those of the value, where it is known which one of many it is.
    """

    namespace: str | None = None
    key: str | None = None

    def __init__(self, problem: str, path: str = "$") -> None:
        super().__init__(problem, path)
        self.problem, self.path = problem, path

    def __str__(self) -> str:
        told = self.problem if self.path == "$" else f"{self.problem} (at {self.path})"
        if self.key is None:
            return told
        return f"{told}; it is of key {self.key!r} in namespace {self.namespace!r}"


class ValueTooLargeError(InvalidDataError):
    """A value is over the limit; both are in bytes of canonical JSON."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"value takes {size_bytes:,} bytes, the limit is {limit_bytes:,}; split it, "
            "or store it elsewhere and keep its hash"
        )
        self.args = (size_bytes, limit_bytes)
        self.size_bytes, self.limit_bytes = size_bytes, limit_bytes


class InvalidTimestampError(KoruDeltaError, ValueError):
    """A time is naive, unreadable, or later than the database has got to."""

    def __init__(self, given: str, problem: str) -> None:
        super().__init__(given, problem)
        self.given, self.problem = given, problem

    def __str__(self) -> str:
        return f"{self.given}: {self.problem}"


class QueryError(KoruDeltaError, ValueError):
    """A filter, sort order or search argument is not well formed."""


class DimensionMismatchError(KoruDeltaError, ValueError):
    """A vector is not as long as the others in its namespace.

    `key` is that of the vector, where it is one that was to be stored.
    """

    key: str | None = None

    def __init__(self, namespace: str, expected: int, got: int) -> None:
        super().__init__(namespace, expected, got)
        self.namespace, self.expected, self.got = namespace, expected, got

    def __str__(self) -> str:
        return (
            f"namespace {self.namespace!r} holds vectors of {self.expected} numbers, this "
            f"one has {self.got}; embed it with the model that filled the namespace, or "
            "say of which it is (model=)"
        ) + ("" if self.key is None else f"; it is of key {self.key!r}")


class ModelMismatchError(KoruDeltaError, ValueError):
    """The model is not one the namespace holds, or there are several and none was named.

    `begins` says that a text would have begun it, beside those known.
    """

    def __init__(
        self,
        namespace: str,
        model: str | None,
        known: tuple[str, ...],
        begins: bool = False,
    ) -> None:
        super().__init__(namespace, model, known, begins)
        self.namespace, self.model, self.known, self.begins = namespace, model, known, begins

    def __str__(self) -> str:
        known = ", ".join(map(repr, self.known)) or "no vectors at all"
        if self.namespace.endswith("/*"):
            workspace = self.namespace.removesuffix("/*")
            return (
                f"workspace {workspace!r} is filled by {known}, not by {self.model!r}; open it "
                "with the embedder that filled it, or give it another one with "
                f"workspace({workspace!r}).reembed(...)"
            )
        if self.begins:
            return (
                f"namespace {self.namespace!r} is filled by {known}; text embedded by "
                f"{self.model!r} would be a second model there, and what is searched for as text "
                "would find that alone: open the database with the embedder that made the others, "
                f"reembed the namespace, or pass model={self.model!r} to have both"
            )
        if self.model is None:
            return (
                f"namespace {self.namespace!r} holds {known}, no model was named; pass model= one "
                "of them, or open the database with the embedder that made them"
            )
        return (
            f"namespace {self.namespace!r} holds {known}, model {self.model!r} was asked; open the "
            "database with the embedder that made them, under that name (embedders.as_embedder, "
            "name=), or pass a vector of theirs, and model= one of them"
        )


class MetricMismatchError(KoruDeltaError, ValueError):
    """A namespace and model already measure by another metric, fixed by their first vector."""

    def __init__(self, namespace: str, model: str, expected: str, got: str) -> None:
        super().__init__(namespace, model, expected, got)
        self.namespace, self.model, self.expected, self.got = namespace, model, expected, got

    def __str__(self) -> str:
        return (
            f"namespace {self.namespace!r} measures model {self.model!r} by {self.expected!r}, "
            f"not {self.got!r}; leave metric= out, or use another model name"
        )


class EmbedderError(KoruDeltaError, ValueError):
    """Text was given, and there is no embedder, or it did not return vectors."""


class SummarizerError(KoruDeltaError, ValueError):
    """What is to summarize texts failed, or returned no text; nothing was consolidated by it."""


class TransactionError(KoruDeltaError, RuntimeError):
    """A transaction was nested, used after its end, or asked to search."""


class DatabaseClosedError(KoruDeltaError, ValueError):
    """The handle was closed, or belongs to the process this one was forked from."""

    def __init__(self, reason: str = "the database is closed; open it again") -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class ReadOnlyError(KoruDeltaError, PermissionError):
    """A write was asked of a read-only handle or directory."""


class DatabaseLockedError(KoruDeltaError, TimeoutError):
    """Another process or thread held the write lock for too long."""

    def __init__(self, path: str, waited_seconds: float) -> None:
        super().__init__(path, waited_seconds)
        self.path, self.waited_seconds = path, waited_seconds

    def __str__(self) -> str:
        return (
            f"{self.path} was locked by another writer for {self.waited_seconds:g} s; "
            "nothing was written, try again when it is done"
        )


class StorageError(KoruDeltaError, OSError):
    """The file system refused to read or write; what was acknowledged is safe."""

    @staticmethod
    def because(of: OSError, message: str) -> StorageError:
        """What to raise with this message: `StorageFullError` if it is for want of room."""
        full = isinstance(of, StorageFullError) or of.errno in (errno.ENOSPC, errno.EDQUOT)
        return (StorageFullError if full else StorageError)(message)


class StorageFullError(StorageError):
    """There is no room left on the disk (or a quota is used up); nothing was written."""


class NotADatabaseError(KoruDeltaError, ValueError):
    """The path holds something KoruDelta did not make."""


class UnsupportedFormatError(KoruDeltaError, ValueError):
    """The database was written by a newer KoruDelta."""

    def __init__(self, path: str, found: int, supported: int) -> None:
        super().__init__(path, found, supported)
        self.path, self.found, self.supported = path, found, supported

    def __str__(self) -> str:
        return (
            f"{self.path} has format {self.found}, this KoruDelta reads up to {self.supported}; "
            "upgrade it with: pip install -U koru-delta"
        )


class CorruptionError(KoruDeltaError, RuntimeError):
    """Stored bytes do not match their hash, or acknowledged entries are gone."""


class NotPicklableError(KoruDeltaError, TypeError):
    """A database handle cannot be pickled or copied; reopen by path instead."""


class IngestError(KoruDeltaError, RuntimeError):
    """A source could not be read; what was ingested before stays."""


class MissingExtraError(KoruDeltaError, ImportError):
    """An optional part is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(feature, extra)
        self.feature, self.extra = feature, extra

    def __str__(self) -> str:
        return f"{self.feature} needs an extra: pip install 'koru-delta[{self.extra}]'"
