"""Write the states of documents and their chunks, so that any moment can be asked for.

A change says what a path holds from a moment on, until the next change that is
already known. Only what differs from the state that stands there is written; the
chunks that show at any moment are those of the document that shows then. Writes
are gathered, what must be embedded is embedded in batches, and each flush is one
commit of the log.

What a change replaces ends by a delete (of a chunk that is gone, `derived_from` the new
version of its document) or by the next version of the same key, both of them with valid
times. No `supersedes` edge is drawn: that would take its target out of search whatever
the valid time asked for, and what was true before the change still was.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from koru_delta.causal import FOREVER, Version, microseconds, moment
from koru_delta.embedders import TextEmbedder
from koru_delta.errors import ConflictError, IngestError
from koru_delta.ingest.chunking import Chunk
from koru_delta.ingest.layout import (
    check_home,
    chunk_keys,
    chunks_of,
    commits_of,
    document_key,
    first_occurrence,
    runs_of,
    text_hash,
)
from koru_delta.ingest.run import Run
from koru_delta.ingest.settings import Settings, check_settings
from koru_delta.ingest.store import Store
from koru_delta.log import Pending
from koru_delta.transaction import Transaction
from koru_delta.values import Value, Vector, canonical_bytes, distinction_id

Cutter = Callable[[str], Sequence[Chunk]]
Place = dict[str, Value]  # where a chunk stands in its document, besides lines

ALWAYS: Final = FOREVER - 1  # a valid time after every change
_FLUSH_ENTRIES: Final = 2000
_FLUSH_CHARS: Final = 8_000_000
_TEXTS_PER_CALL: Final = 512
_STATES_KEPT: Final = 20_000
_VECTOR_BYTES_KEPT: Final = 128 * 1024 * 1024
_COUNTS: Final = (
    "commits", "documents", "deleted_documents", "unchanged_documents",
    "chunks", "deleted_chunks", "unchanged_chunks", "embedded",
)  # fmt: skip


class Moment(NamedTuple):
    """When a change holds, who made it and why; `starts` None is the moment of writing."""

    starts: int | None
    ends: int
    author: str | None
    message: str | None


class Entry:
    """A write that is planned; it can be the cause of later ones, also when committed."""

    __slots__ = ("causes", "key", "made", "namespace", "options", "text", "value", "version_id")

    def __init__(
        self, namespace: str, key: str, value: Value | None, causes: Sequence[Cause], **options: Any
    ) -> None:
        self.namespace, self.key, self.value = namespace, key, value
        self.causes, self.options = causes, options
        self.text: bytes | None = None  # names the vector it carries
        self.made: Pending | None = None
        self.version_id: str | None = None


Cause = tuple[str, Entry]


class _State(NamedTuple):
    """What a document holds until a moment (exclusive); absent if `entry` is None.

    `is_plain`: it stands by no valid time of its own, so it is what `if_match` compares with.
    """

    until: int
    text: bytes
    metadata: bytes
    chunks: dict[str, Place]
    entry: Entry | None
    is_plain: bool = False


class Writer:
    """Gathers the changes of one run and writes them; `flush` ends what belongs together.

    Nothing of an unflushed change is in the database, all of a flushed one is.
    """

    def __init__(
        self,
        db: Store,
        namespace: str,
        settings: Settings,
        embedder: TextEmbedder | None,
        report: Run,
        *,
        cut: Cutter,
        run: str | None = None,
        facts: dict[str, Value] | None = None,
        author: str | None = None,
        message: str | None = None,
    ) -> None:
        """Begin a run.

        Args:
            cut: Makes the chunks of a text; `settings` tell how.
            facts: What the run record tells besides the settings.
            author, message: Who began the run, and why.

        Raises:
            IngestError: earlier runs filled the namespace in another way.
            InvalidDataError: the namespace is named as those that ingest makes.
        """
        check_home(namespace)
        self._db, self._namespace, self._settings = db, namespace, settings
        self._embedder, self._report, self._cut = embedder, report, cut
        self._said: dict[str, Any] = {"author": author, "message": message}
        self._chunks, self._runs = chunks_of(namespace), runs_of(namespace)
        earlier = db.list_keys(self._runs)
        if earlier:
            check_settings(namespace, db.get(self._runs, earlier[-1]), settings)
        self._stored_paths: dict[str, str] = {}  # by key, of the documents of this run
        self._number = len(earlier) + 1
        self._run = run
        self._facts = facts or {}
        self._entries: list[Entry] = []
        self._chars = 0
        self._states: OrderedDict[str, _State] = OrderedDict()
        self._vectors: OrderedDict[bytes, Vector] = OrderedDict()
        self._vector_bytes = 0
        self._wanted: dict[bytes, str | Vector] = {}
        self._may_be_stored = bool(earlier)  # vectors that are not in `_vectors`

    def commit(self, sha: str, value: Value, when: Moment) -> Entry:
        """Plan the record of a commit of the source, which must not be there yet."""
        entry = Entry(
            commits_of(self._namespace), sha, value, (), if_match=None, **self._options(when)
        )
        self._entries.append(entry)
        self._report.commits += 1
        return entry

    def version(self, path: str, at: int) -> Entry | None:
        """The document at `path` as it stands at a valid time; None if absent."""
        return self._state(document_key(path), at).entry

    def change(
        self,
        path: str,
        text: str | None,
        when: Moment,
        *,
        facts: dict[str, Value] | None = None,
        metadata: dict[str, Value] | None = None,
        pages: Sequence[int] = (),
        cause: Entry | None = None,
        previous: tuple[str, Entry] | None = None,
    ) -> None:
        """Plan that `path` holds `text` (None: is absent) from `when` on.

        Args:
            facts: More fields of the document's value, and of what its chunks tell.
            metadata: What the document says of itself; another is a change like one of
                the text.
            pages: The character at which each page begins.
            cause: The commit it is derived from.
            previous: The path it had before, and the version it had there.
        """
        key = document_key(path)
        report = self._report
        stands = self._state(key, ALWAYS if when.starts is None else when.starts)
        named = told = b""
        chunks: Sequence[Chunk] = ()
        if text is None:
            if stands.entry is None:
                return
        else:
            named, told = text_hash(text), _metadata_hash(metadata)
            if stands.entry is not None and (stands.text, stands.metadata) == (named, told):
                report.unchanged_documents += 1
                return
            chunks = self._cut(text)
        keys = chunk_keys(key, chunks)
        places = [_place(chunk, pages) for chunk in chunks]
        held = dict(zip(keys, places, strict=True))
        # A chunk is as it was if it says the same and tells the same of where it stands.
        kept = {
            name for name, place in held.items()
            if stands.chunks.get(name) == place and stands.metadata == told
        }  # fmt: skip
        options = self._options(when)
        causes = [] if cause is None else [("derived_from", cause)]
        value: dict[str, Value] | None = None
        if text is not None:
            layout = [
                [name, c.start, c.end, c.first_line, c.last_line, *([place] if place else [])]
                for (name, place), c in zip(held.items(), chunks, strict=True)
            ]
            value = {"text": text, "path": path, **(facts or {}), "chunks": layout}
            if metadata:
                value["metadata"] = metadata
            if pages:
                value["pages"] = list(pages)
            if previous is not None:
                value["previous_path"] = previous[0]
                causes.append(("references", previous[1]))
            self._chars += len(text)
            self._stored_paths[key] = path
        guard: dict[str, Any] = {}
        if when.starts is None and stands.is_plain:
            # Another run may have written it since; git's runs meet at their commits.
            guard["if_match"] = None if stands.entry is None else stands.entry.version_id
        document = Entry(self._namespace, key, value, causes, **options, **guard)
        self._entries.append(document)
        about: dict[str, Value] = {"path": path, **(facts or {})}
        if when.author is not None:
            about["author"] = when.author
        for (name, place), chunk in zip(held.items(), chunks, strict=True):
            if name not in kept:
                tells = {**about, **place, **(metadata or {}), "document": key}
                self._add_chunk(name, chunk.text, tells, document, options, previous)
        gone = stands.chunks.keys() - held.keys()
        for name in sorted(gone):
            self._entries.append(
                Entry(self._chunks, name, None, [("derived_from", document)], **options)
            )
        report.documents += text is not None
        report.deleted_documents += text is None
        report.deleted_chunks += len(gone)
        report.chunks += len(held) - len(kept)
        report.unchanged_chunks += len(kept)
        standing = document if text is not None else None
        self._states[key] = _State(when.ends, named, told, held, standing)
        self._states.move_to_end(key)

    @property
    def is_full(self) -> bool:
        """Whether enough is gathered for a flush to be worth while."""
        return len(self._entries) >= _FLUSH_ENTRIES or self._chars >= _FLUSH_CHARS

    def flush(self) -> None:
        """Write what was gathered, in one commit of the log.

        Raises:
            EmbedderError: a text could not be embedded; nothing of it was written.
            IngestError: another run writes into the same namespace.
        """
        if not self._entries:
            return
        vectors = self._embed()
        if self._report.run is None:
            self._entries.insert(0, self._run_record())
        try:
            with self._db.transaction(run=self._report.run) as tx:
                for entry in self._entries:
                    self._write(tx, entry, vectors)
        except ConflictError as error:
            raise IngestError(
                f"another run is writing into {self._namespace!r}; nothing is lost, "
                "run this again when that one has ended"
            ) from error
        for entry in self._entries:
            assert entry.made is not None
            assert entry.made.version is not None
            entry.version_id = entry.made.version.id
            entry.made = entry.value = None
            entry.causes = ()
        self._entries = []
        self._chars = 0
        while len(self._states) > _STATES_KEPT:
            self._states.popitem(last=False)

    def finish(self) -> None:
        """Flush, and note in the run's record what it did."""
        self.flush()
        run = self._report.run
        if run is None:
            return
        with self._db.transaction(run=run) as tx:
            tx.put(self._runs, run, self._run_value("finished"), **self._said)
        held = {
            version.key for each in self._db.quarantines() for version in each.versions
            if version.namespace == self._namespace
        }  # fmt: skip
        self._report.quarantined = [
            path for key, path in self._stored_paths.items() if key in held
        ]  # fmt: skip

    # The state that stands

    def _state(self, key: str, at: int) -> _State:
        known = self._states.get(key)
        if known is not None and at < known.until:
            return known
        state = self._stored(key, at)
        if known is None or at >= known.until:
            self._states[key] = state
        return state

    def _stored(self, key: str, at: int) -> _State:
        # The last few versions nearly always hold the answer; the rest is read if not.
        versions: list[Version] = []
        for limit in (2, None):
            versions = self._db.history(self._namespace, key, reverse=True, limit=limit)
            for version in versions:
                ends = FOREVER if version.valid_to is None else microseconds(version.valid_to)
                if microseconds(version.valid_from) <= at < ends:
                    # Another change may begin before `ends`: true for this moment only.
                    plain = version is versions[0] and _is_plain(version)
                    return _state_of(version, at + 1)._replace(is_plain=plain)
            if limit is None or len(versions) < limit:
                break
        return _absent(at + 1)._replace(is_plain=not versions)

    # Chunks and their vectors

    def _add_chunk(
        self,
        name: str,
        text: str,
        about: dict[str, Value],
        cause: Entry,
        options: dict[str, Any],
        previous: tuple[str, Entry] | None,
    ) -> None:
        value = {"text": text, "metadata": about}
        entry = Entry(self._chunks, name, value, [("derived_from", cause)], **options)
        self._entries.append(entry)
        self._chars += len(text)
        if self._embedder is None:
            return
        entry.text = named = text_hash(text)
        if named in self._wanted:
            return
        vector = self._vectors.get(named)
        if vector is None and self._may_be_stored:
            names = [name]
            if previous is not None:
                names.append(first_occurrence(document_key(previous[0]), text))
            vector = self._stored_vector(names, text)
        self._wanted[named] = text if vector is None else vector

    def _stored_vector(self, names: Sequence[str], text: str) -> Vector | None:
        assert self._embedder is not None
        for name in names:
            for version in self._db.history(self._chunks, name, reverse=True):
                if version.is_erased or self._embedder.name not in version.vectors:
                    continue
                if version.value["text"] == text:
                    return self._db.vectors(version)[self._embedder.name]
        return None

    def _embed(self) -> dict[bytes, Vector]:
        vectors: dict[bytes, Vector] = {}
        missing: list[tuple[bytes, str]] = []
        for named, found in self._wanted.items():
            if isinstance(found, str):
                missing.append((named, found))
            else:
                vectors[named] = found
        for start in range(0, len(missing), _TEXTS_PER_CALL):
            batch = missing[start : start + _TEXTS_PER_CALL]
            assert self._embedder is not None
            rows = self._embedder.embed_documents([text for _, text in batch])
            vectors.update((named, row) for (named, _), row in zip(batch, rows, strict=True))
            self._report.embedded += len(batch)
        self._wanted.clear()
        for named, vector in vectors.items():
            if named not in self._vectors:
                self._vector_bytes += vector.nbytes
            self._vectors[named] = vector.copy()  # a row would keep its whole batch
            self._vectors.move_to_end(named)
        while self._vector_bytes > _VECTOR_BYTES_KEPT:
            _, oldest = self._vectors.popitem(last=False)
            self._vector_bytes -= oldest.nbytes
            self._may_be_stored = True
        return vectors

    # Writing

    def _options(self, when: Moment) -> dict[str, Any]:
        options: dict[str, Any] = {"author": when.author, "message": when.message}
        if when.starts is not None:
            options["valid_from"] = moment(when.starts)
        if when.ends != FOREVER:
            options["valid_to"] = moment(when.ends)
        return options

    def _write(self, tx: Transaction, entry: Entry, vectors: dict[bytes, Vector]) -> None:
        causes = [(kind, cause.made or cause.version_id) for kind, cause in entry.causes]
        options = {**entry.options, "causes": causes}
        if entry.value is None:
            entry.made = tx.delete(entry.namespace, entry.key, **options)
        elif entry.text is None:
            entry.made = tx.put(entry.namespace, entry.key, entry.value, **options)
        else:
            assert self._embedder is not None
            entry.made = tx.embed(
                entry.namespace, entry.key, vectors[entry.text], entry.value,
                model=self._embedder.name, **options,
            )  # fmt: skip

    def _run_record(self) -> Entry:
        value = self._run_value("begun")
        if self._run is not None:
            self._report.run = self._run
            return Entry(self._runs, self._run, value, (), **self._said)
        self._report.run = named = f"{self._settings.source}-{self._number:06d}"
        return Entry(self._runs, named, value, (), if_match=None, **self._said)

    def _run_value(self, state: str) -> Value:
        value: dict[str, Value] = {"state": state, **self._settings._asdict(), **self._facts}
        value["include"] = list(self._settings.include)
        if state == "finished":
            value |= {name: getattr(self._report, name) for name in _COUNTS}
            reasons = Counter(reason.value for reason in self._report.skipped.values())
            value["skipped"] = dict(reasons)
        return value


def _state_of(version: Version, until: int) -> _State:
    if version.is_tombstone:
        return _absent(until)
    value: Value = None if version.is_erased else version.value
    entry = Entry(version.namespace, version.key, None, ())
    entry.version_id = version.id
    text = value.get("text") if isinstance(value, dict) else None
    if not isinstance(text, str):  # somebody else's; the first change replaces it
        return _State(until, b"", b"", {}, entry)
    chunks = {row[0]: row[5] if len(row) > 5 else {} for row in value.get("chunks", [])}
    told = _metadata_hash(value.get("metadata"))
    return _State(until, text_hash(text), told, chunks, entry)


def _is_plain(version: Version) -> bool:
    return (
        version.valid_from == version.time
        and version.valid_to is None
        and version.expires_at is None
    )


def _absent(until: int) -> _State:
    return _State(until, b"", b"", {}, None)


def _metadata_hash(metadata: dict[str, Value] | None) -> bytes:
    return distinction_id("json", canonical_bytes(metadata)) if metadata else b""


def _place(chunk: Chunk, pages: Sequence[int]) -> Place:
    """What is worth telling of where a chunk stands: it is found and filtered by that."""
    place: Place = {}
    if pages:
        place["page"] = bisect_right(pages, chunk.start)
        place["last_page"] = bisect_right(pages, chunk.end - 1)
    if chunk.headings:
        place["headings"] = list(chunk.headings)
    if chunk.name is not None:
        place["definition"] = chunk.name
    if chunk.kind is not None:
        place["kind"] = chunk.kind
    return place
