"""Documents as they are stored, `{"id": ..., "text": ..., "metadata": {...}}`, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from uuid import uuid4

from langchain_core.documents import Document

import koru_delta
from koru_delta import Match, Version
from koru_delta_langchain.ids import foreign, key_of, listed

PROVENANCE: Final = "koru_delta"
"""The one key of a document's metadata that is ours, and only there when it was asked for."""

Row: TypeAlias = tuple[Any, Any, Any]  # text, metadata and id as they were given
Rows: TypeAlias = Callable[[], Iterable[Row]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Checked documents: each id as it was given, and values by key, once each.

    `texts` are those to embed, in the order of values. A blank text, as of an empty page, says
    nothing that a vector could: its document is kept without one.
    """

    ids: list[str]
    texts: list[str]
    values: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, rows: Rows) -> Batch:
        """Check documents; the last of equal ids wins, a missing one is made up.

        Raises:
            InvalidDataError: a text is no string, or its metadata no dict.
        """
        ids: list[str] = []
        values: dict[str, dict[str, Any]] = {}
        for place, (text, metadata, given) in enumerate(rows()):
            name = str(uuid4()) if given is None else given
            if not isinstance(text, str) or not isinstance(metadata, dict):
                raise koru_delta.errors.InvalidDataError(
                    f"document {place} (the first is 0) is {type(text).__name__} with metadata "
                    f"{type(metadata).__name__}; a text is a string, its metadata a dict"
                )
            ids.append(name)
            values[key_of(name)] = {"id": name, "text": text, "metadata": metadata}
        texts = [value["text"] for value in values.values() if not is_blank(value)]
        return cls(ids, texts, values)


def is_blank(value: Mapping[str, Any]) -> bool:
    """Whether a document's text says nothing."""
    return not value["text"].strip()


def of_texts(
    texts: Iterable[str],
    metadatas: Iterable[dict[str, Any]] | None,
    ids: Iterable[str | None] | None,
) -> Iterable[Row]:
    """Rows of texts, their metadata and ids."""
    given = listed("texts", texts)
    size = len(given)
    return zip(
        given,
        _as_many("metadatas", metadatas, size) or [{} for _ in given],
        _as_many("ids", ids, size) or [None] * size,
        strict=True,
    )


def of_documents(documents: Iterable[Document], ids: Iterable[str | None] | None) -> Iterable[Row]:
    """Rows of documents; `ids`, where given, go before their own."""
    given = listed("documents", documents, of=Document)
    names = _as_many("ids", ids, len(given)) or [document.id for document in given]
    return [
        (document.page_content, document.metadata, name)
        for document, name in zip(given, names, strict=True)
    ]


def document_of(namespace: str, key: str, value: Any) -> Document:
    """The document that a value is.

    Raises:
        InvalidDataError: the value is none.
    """
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        metadata, name = value.get("metadata", {}), value.get("id", key)
        if isinstance(metadata, dict) and isinstance(name, str):
            return Document(page_content=value["text"], metadata=metadata, id=name)
    raise foreign(namespace, key, 'document, which is {"text": ..., "metadata": {...}}')


def annotate(document: Document, match: Match, *, provenance: bool, explain: bool) -> None:
    """Say in the metadata, under `PROVENANCE`, what was found, how it came about, and why.

    It takes the place of whatever the document has under that key.
    """
    told = provenance_of(match.version) if provenance else {}
    if explain:
        found = match.explanation
        told["explanation"] = None if found is None else found.to_dict()
    document.metadata[PROVENANCE] = told


def provenance_of(version: Version) -> dict[str, Any]:
    """Where a version comes from, as JSON: ids in hex, times in ISO 8601."""
    ends = version.valid_to
    return {
        "version": version.id,
        "namespace": version.namespace,
        "key": version.key,
        "time": version.time.isoformat(),
        "valid_from": version.valid_from.isoformat(),
        "valid_to": None if ends is None else ends.isoformat(),
        "author": version.author,
        "message": version.message,
        "run": version.run,
        "causes": [[cause.kind, cause.id] for cause in version.causes],
    }


def _as_many(what: str, given: Iterable[Any] | None, size: int) -> list[Any]:
    """As many as there are texts, or none at all."""
    found = [] if given is None else listed(what, given)
    if found and len(found) != size:
        raise koru_delta.errors.InvalidDataError(
            f"{len(found):,} {what} were given for {size:,} texts"
        )
    return found
