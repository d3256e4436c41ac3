"""Make the vectors of a namespace anew with another model, while it is read and written.

Each key gets a new version of the same value that carries the new model's vector alone
and is `derived_from` the version before; so what is asked of the past is answered by the
model of that time. A batch is one commit. What somebody writes meanwhile stands: only a
version that is still the present one is followed by its own re-embedding. What is hidden
stays hidden: its new version is hidden with it; what is superseded keeps its model, since
search leaves it out and its new version would not be superseded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from koru_delta.causal import FOREVER, PUT, Cut, Version
from koru_delta.embedders import Embedder, TextEmbedder, as_embedder
from koru_delta.errors import (
    ConflictError,
    EmbedderError,
    IngestError,
    InvalidDataError,
    ReadOnlyError,
)
from koru_delta.intents import CauseLike, Intents, WriteOptions
from koru_delta.log import Pending, Write
from koru_delta.log.writes import NewVector
from koru_delta.progress import Progress, shown
from koru_delta.storage import Stored
from koru_delta.values import (
    MAX_NAMESPACE_BYTES,
    Value,
    Vector,
    as_vector,
    check_key,
    check_name,
    decode,
    distinction_id,
    vector_bytes,
)

TextOf = Callable[[str, Value], str]

ROUNDS: Final = 10  # that a batch is read again because somebody else wrote into it
_PAGE_KEYS: Final = 4096
_NULL: Final = distinction_id("json", b"null").hex()


class _Present(NamedTuple):
    """What a key holds now, and where in valid time nothing written later covers it."""

    version: Version
    valid_from: int | None  # None: from when it is written
    valid_to: int | None
    expires_at: int | None
    hidden: bool


def reembed(
    intents: Intents,
    namespace: str,
    model: str,
    embedder: Embedder,
    *,
    text: TextOf | None,
    batch: int,
    progress: Progress,
    options: WriteOptions,
) -> int:
    """Write new vector versions as `Database.reembed` says; returns how many."""
    check_key(namespace, "-")
    check_name("model", model, MAX_NAMESPACE_BYTES)
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise InvalidDataError(f"batch is a number of keys from 1 on, not {batch!r}")
    if intents.log.engine.read_only:
        raise ReadOnlyError(f"{intents.log.engine.directory} was opened with read_only=True")
    work = _Work(intents, namespace, as_embedder(embedder, name=model), text, options)
    keys = work.pending()
    written = done = 0
    with shown(progress, "embedding", len(keys)) as tell:
        for start in range(0, len(keys), batch):
            some = keys[start : start + batch]
            written += work.renew(some)
            done += len(some)
            tell(done, len(keys))
    return written


class _Work:
    """One call of `reembed`."""

    def __init__(
        self,
        intents: Intents,
        namespace: str,
        embedder: TextEmbedder,
        text: TextOf | None,
        options: WriteOptions,
    ) -> None:
        self._intents, self._log, self._namespace = intents, intents.log, namespace
        self._embedder, self._text = embedder, text
        self._options = options
        self._metric = self._metric_of_others()

    def pending(self) -> list[str]:
        """The present keys that have a vector, and not just one of this model.

        Raises:
            InvalidDataError: a key holds null, so that there is no text to embed.
        """
        cut = self._log.now()
        found: list[str] = []
        after: str | None = None
        while True:
            page = self._log.engine.visible_keys(
                self._namespace, cut.seq, cut.clock, cut.clock,
                after=after, limit=_PAGE_KEYS, bodies=False,
            )  # fmt: skip
            for key, entry in page:
                record = decode(entry.record)
                shade = self._log.engine.shade
                if self._lacks(record) and not shade(entry.seq, cut.seq).superseded:
                    self._check_not_null(key, record.get("distinction"))
                    found.append(key)
            if len(page) < _PAGE_KEYS:
                return found
            after = page[-1][0]

    def renew(self, keys: Sequence[str]) -> int:
        """Embed and write these keys, in one commit if nobody interferes; returns how many.

        Raises:
            IngestError: one of them is written by others faster than it can be embedded.
        """
        written = 0
        vectors: dict[str, Vector] = {}  # by the id of the version they are made of
        waiting: list[str] = list(keys)
        conflict: ConflictError | None = None
        for _ in range(ROUNDS + 1):
            present = self._present(waiting)
            ready = [found for found in present if found.version.id in vectors]
            if ready:
                try:
                    self._log.commit(
                        [write for found in ready for write in self._writes(found, vectors)]
                    )
                except ConflictError as error:
                    conflict = error
                    continue  # nothing of it was written; look again who has changed
                written += len(ready)
            missing = [found.version for found in present if found.version.id not in vectors]
            if not missing:
                return written
            waiting = [version.key for version in missing]
            vectors.update(zip((v.id for v in missing), self._embedded(missing), strict=True))
        raise IngestError(
            f"{waiting[0]!r} in {self._namespace!r} was written again each time its text had been "
            f"embedded, {ROUNDS} times over; what was embedded before it stays: run this again "
            "when whoever writes it rests"
        ) from conflict

    # Reading

    def _lacks(self, record: dict[str, Any]) -> bool:
        vectors = record.get("vectors") or {}
        return bool(vectors) and vectors.keys() != {self._embedder.name}

    def _present(self, keys: Sequence[str]) -> list[_Present]:
        """What is still to be embedded of these keys, as it stands now."""
        cut = self._log.now()
        found = []
        for key in keys:
            entry = self._log.engine.visible(self._namespace, key, cut.seq, cut.clock)
            if entry is None or entry.operation != PUT or cut.clock >= entry.expires_at:
                continue
            [version] = self._log.loaded([entry], [key])
            record = version.record()
            if not self._lacks(record):
                continue
            shade = self._log.engine.shade(entry.seq, cut.seq)
            if shade.superseded:
                continue
            starts = record.get("valid_from")
            ends = entry.valid_to
            if not entry.latest:
                starts, ends = self._uncovered(key, entry, cut, starts)
            expires_at = None
            if entry.expires_at != FOREVER:
                # The ttl is counted anew, from the commit, which is some moments on; this
                # ends it at the same microsecond as before.
                expires_at = entry.expires_at
                ends = min(ends, expires_at)
            until = None if ends == FOREVER else ends
            found.append(_Present(version, starts, until, expires_at, shade.hidden))
        return found

    def _uncovered(
        self, key: str, entry: Stored, cut: Cut, starts: int | None
    ) -> tuple[int | None, int]:
        """The valid interval around now that no later version of the key has taken.

        It may be planned to change, or have been told of its past later; the new version
        must not lie over that.
        """
        ends = entry.valid_to
        for later in self._log.engine.key_versions(
            self._namespace, key, cut.seq, reverse=True, limit=None
        ):
            if later.seq <= entry.seq:
                break
            if later.valid_from > cut.clock:
                ends = min(ends, later.valid_from)
            elif starts is not None:
                starts = max(starts, later.valid_to)
        return starts, ends

    def _metric_of_others(self) -> str | None:
        """How a model that is new here measures: as all the others do, if they agree."""
        spaces = self._log.engine.spaces(self._namespace)
        if any(space.model == self._embedder.name for space in spaces):
            return None  # as it does already
        metrics = {space.metric for space in spaces}
        return metrics.pop() if len(metrics) == 1 else None

    # Embedding

    def _check_not_null(self, key: str, distinction: str | None) -> None:
        if self._text is None and distinction == _NULL:
            raise InvalidDataError(
                f"{key!r} in {self._namespace!r} holds null, and no text to embed; pass "
                "text=, a function of the key and the value"
            )

    def _embedded(self, versions: Sequence[Version]) -> list[Vector]:
        texts = [self._text_of(version) for version in versions]
        try:
            rows = self._embedder.embed_documents(texts)
        except EmbedderError as error:
            raise EmbedderError(
                f"{error} (the texts are those of the keys {versions[0].key!r} to "
                f"{versions[-1].key!r} of {self._namespace!r}; what was embedded before stays)"
            ) from error
        return [as_vector(row) for row in rows]

    def _text_of(self, version: Version) -> str:
        value = version.value
        if self._text is not None:
            made: object = self._text(version.key, value)
            if not isinstance(made, str):
                raise InvalidDataError(
                    f"text= gave {type(made).__name__} for {version.key!r}; it returns a string"
                )
            return made
        self._check_not_null(version.key, version.distinction)
        if isinstance(value, dict) and isinstance(value.get("text"), str):
            value = value["text"]
        return value if isinstance(value, str) else (version.raw or b"").decode()

    # Writing

    def _writes(self, found: _Present, vectors: dict[str, Vector]) -> list[Write]:
        """The new version of a key, hidden as the one before it was."""
        write = self._write(found, vectors)
        if not found.hidden:
            return [write]
        write.made = Pending()
        key = found.version.namespace, found.version.key
        marks = self._log.history(*key, self._log.now(), reverse=True, limit=None, annotations=True)
        # For the same reasons, so that whoever ends these finds it, too.
        reasons = next((m.causes for m in marks if m.target == found.version.id), ())
        said: WriteOptions = {**self._said(), "causes": list(reasons)}
        return [write, self._intents.hide(*key, write.made, said)]

    def _said(self) -> WriteOptions:
        mine = self._options
        return {
            "author": mine.get("author"), "message": mine.get("message"), "run": mine.get("run"),
        }  # fmt: skip

    def _write(self, found: _Present, vectors: dict[str, Vector]) -> Write:
        version = found.version
        options: WriteOptions = {
            **self._options, "if_match": version, "causes": self._causes(version),
        }  # fmt: skip
        write = self._intents.put(version.namespace, version.key, version.value, options)
        data = vector_bytes(vectors[version.id])
        identity = distinction_id("vec", data)
        write.vectors = (NewVector(self._embedder.name, self._metric, identity, data),)
        write.carried = {}  # none of the vectors before it
        write.valid_from, write.valid_to = found.valid_from, found.valid_to
        if found.expires_at is not None:
            write.ttl = max(1, found.expires_at - self._log.now().clock)
        return write

    def _causes(self, version: Version) -> list[CauseLike]:
        """The version itself, and where its value came from: that is still true of it."""
        causes: list[CauseLike] = [("derived_from", version)]
        for cause in version.causes:
            source = self._log.version(cause.id)
            if (source.namespace, source.key) != (version.namespace, version.key):
                causes.append((cause.kind, source))
        return causes
