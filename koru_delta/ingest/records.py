"""Ingest records that a program hands over: an id, a text, and what is told of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from typing import Any, Final, NamedTuple

from koru_delta.causal import FOREVER
from koru_delta.errors import InvalidDataError, ValueTooLargeError
from koru_delta.ingest.chunking import ChunkingConfig
from koru_delta.ingest.cutting import cut_as
from koru_delta.ingest.files import DEFAULT_MAX_BYTES
from koru_delta.ingest.layout import document_key
from koru_delta.ingest.run import Run
from koru_delta.ingest.settings import settings_of
from koru_delta.ingest.store import EmbedderChoice, Store, chosen_embedder
from koru_delta.ingest.writer import Moment, Writer
from koru_delta.progress import Progress, shown
from koru_delta.values import MAX_VALUE_BYTES, Value, canonical_bytes, decode

Record = Mapping[str, Value] | tuple[str, str] | tuple[str, str, Mapping[str, Value] | None]

_LARGEST_TEXT: Final = MAX_VALUE_BYTES // 4  # bytes; its document holds the layout as well


class _Read(NamedTuple):
    identity: str
    text: str
    metadata: dict[str, Value]


def ingest_records(
    db: Store,
    records: Iterable[Record],
    *,
    namespace: str = "docs",
    complete: bool = False,
    embedder: EmbedderChoice = "own",
    author: str | None = None,
    message: str | None = None,
    chunking: ChunkingConfig | None = None,
    max_chars: int | None = None,
    min_chars: int | None = None,
    run: str | None = None,
    progress: Progress = None,
) -> Run:
    r"""Ingest records; what they hold is true from now on.

    A record is a mapping with `id` and `text`, whose other fields are its metadata, or a
    tuple `(id, text)` or `(id, text, metadata)`. The id is the document's key. A record
    whose text and metadata are unchanged writes nothing; where only the metadata changed,
    the chunks are written anew with the vectors they had. Metadata is kept in the
    document's field `metadata` and in that of its chunks, where `document` is the key.

    Args:
        records: Read once, in order, and never held as a whole.
        complete: Whether these are all there are: documents of the namespace that are not
            among them are deleted (an empty iterable deletes all). Else they stand.
        embedder, chunking, max_chars, min_chars, run, progress: As `ingest_files`.

    Raises:
        InvalidDataError: a record is none, its id came before, or it cannot be stored;
            the message tells which. Whatever is raised, also by the iterable itself, what
            was written before in batches stays, as a note on the error tells; the same
            call again goes on from there.
        IngestError, EmbedderError: as `ingest_files`.

    >>> import koru_delta
    >>> with koru_delta.open() as db:
    ...     run = ingest_records(db, [("a", "It rains.", {"by": "Ada"})], embedder=None)
    ...     run.documents, db.query("docs.chunks")[0].value["metadata"]["by"]
    (1, 'Ada')
    """
    _check_source(records)
    report = Run(namespace, "records")
    text_embedder = chosen_embedder(db, embedder)
    settings, cut = cut_as(
        "records", chunking, max_chars=max_chars, min_chars=min_chars, max_bytes=DEFAULT_MAX_BYTES,
        model=None if text_embedder is None else text_embedder.name,
        earlier=settings_of(db, namespace),
    )  # fmt: skip
    writer = Writer(
        db, namespace, settings, text_embedder, report, cut=cut, run=run, author=author,
        message=message,
    )  # fmt: skip
    when = Moment(None, FOREVER, author, message)
    total = len(records) if isinstance(records, Sized) else None
    found: set[str] = set()
    written = 0
    with shown(progress, "records", total) as tell:
        try:
            for number, record in enumerate(records):
                read = _read(number, record)
                key = document_key(read.identity)
                if key in found:
                    raise _refused(number, f"has the id {read.identity[:80]!r}, which came before")
                found.add(key)
                writer.change(read.identity, read.text, when, metadata=read.metadata)
                if writer.is_full:
                    writer.flush()
                    written = number + 1
                    tell(written, total)
        except BaseException as error:
            stays = f"the {written:,} records before stay" if written else "nothing was written"
            error.add_note(f"ingest into {namespace!r} ended early: {stays}, the others are not in")
            raise
        if complete:
            report.gone = _gone(db, namespace, found)
            for identity in report.gone:
                writer.change(identity, None, when)
        writer.finish()
        tell(len(found), len(found))
    return report


def _gone(db: Store, namespace: str, found: set[str]) -> list[str]:
    """Ids of the records that are stored and were not found."""
    gone = []
    for key in db.list_keys(namespace):
        if key not in found:
            value: Any = db.get(namespace, key, None)
            if isinstance(value, dict) and "chunks" in value and isinstance(value.get("path"), str):
                gone.append(value["path"])
    return gone


def _check_source(records: object) -> None:
    if hasattr(records, "__aiter__"):
        raise InvalidDataError(
            "records is an asynchronous iterable; gather it into a list, or batch by batch"
        )
    if isinstance(records, (str, bytes, Mapping)) or not isinstance(records, Iterable):
        raise InvalidDataError(
            f"records is an iterable of them, not {type(records).__name__}; pass a list"
        )


def _read(number: int, record: object) -> _Read:
    given: Any = record
    if isinstance(given, Mapping):
        for name in ("id", "text"):
            if name not in given:
                raise _refused(number, f"has no field {name!r}")
        identity, text = given["id"], given["text"]
        metadata = {name: given[name] for name in given if name not in ("id", "text")}
    elif isinstance(given, tuple) and len(given) in (2, 3):
        identity, text = given[:2]
        metadata = given[2] if len(given) == 3 and given[2] is not None else {}
        if not isinstance(metadata, Mapping):
            raise _refused(number, f"has {type(metadata).__name__} as metadata, not a mapping")
    else:
        raise _refused(
            number,
            f"is {type(record).__name__}; a record is a mapping with id and text, (id, text) or "
            "(id, text, metadata)",
        )
    if type(identity) is not str or not identity or "\0" in identity:
        if isinstance(identity, str):
            shown = "holds NUL" if identity else "is empty"
        else:
            shown = f"is {identity!r}, of type {type(identity).__name__}"
        raise _refused(number, f"has an id that {shown}; an id is text that is not empty")
    if type(text) is not str:
        raise _refused(number, f"({identity[:80]!r}) has {type(text).__name__} as text")
    if "document" in metadata:
        raise _refused(
            number, f"({identity[:80]!r}) has the field 'document', which names a chunk's "
            "document; rename it",
        )  # fmt: skip
    try:
        size = len(text.encode())
        identity.encode()
        kept = decode(canonical_bytes(dict(metadata)))
    except UnicodeEncodeError as error:
        where = f"{identity[:80]!r}".encode("ascii", "backslashreplace").decode()
        raise _refused(number, f"({where}) holds a lone surrogate, which is no text") from error
    except InvalidDataError as error:
        raise _refused(number, f"({identity[:80]!r}) cannot be stored: {error}") from error
    if size > _LARGEST_TEXT:
        raise ValueTooLargeError(size, _LARGEST_TEXT)
    return _Read(identity, text, kept)


def _refused(number: int, why: str) -> InvalidDataError:
    return InvalidDataError(f"record {number} (counted from 0) {why}")
