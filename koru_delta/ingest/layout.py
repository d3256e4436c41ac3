"""Where ingested documents, chunks, commits and runs are kept, and how they are named.

For a namespace `docs`:

- `docs`: a document under its path or id, `{"text", "path", "chunks", ...}`; with `metadata`
  (what a record said of itself, `format` and `title` of a PDF or HTML file) and `pages`
  (the character each page begins at) where there are any. `chunks` is the layout of that
  state: `[chunk key, start, end, first line, last line, place]` in order, characters
  half-open, lines from 1 and inclusive. `place` is left out where there is nothing to tell;
  else `page` and `last_page`, `headings`, `definition` and its `kind`.
- `docs.chunks`: `{"text", "metadata": {"path", "document", "commit", "author", ...}}` with
  its vector, the shape the adapters read; the metadata is that of the change which brought
  the chunk, its place and the metadata of its document. The key is made of the path, the
  hash of the text and which occurrence it is, so a chunk that an edit left alone is still
  the same version; where only its place or metadata changed, there is a new one with the
  same vector.
- `docs.commits`: a commit of the source under its full hash.
- `docs.runs`: what each run was asked to do and did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from blake3 import blake3

from koru_delta.errors import InvalidDataError
from koru_delta.ingest.chunking import Chunk

_LONGEST_PATH: Final = 960  # bytes; leaves room for a chunk's suffix in a key of 1,024
_KEPT_OF_LONG_PATH: Final = 920
_KEPT_BESIDE: Final = (".chunks", ".commits", ".runs")


def chunks_of(namespace: str) -> str:
    """The namespace of a namespace's chunks."""
    return f"{namespace}.chunks"


def commits_of(namespace: str) -> str:
    """The namespace of the commits a namespace was made from."""
    return f"{namespace}.commits"


def runs_of(namespace: str) -> str:
    """The namespace of the runs that filled a namespace."""
    return f"{namespace}.runs"


def check_home(namespace: str) -> None:
    """Refuse to keep documents where another namespace's chunks, commits or runs are kept.

    Raises:
        InvalidDataError: the name ends as theirs do; the message says which to give.
    """
    for ending in _KEPT_BESIDE:
        if namespace.endswith(ending):
            home = namespace.removesuffix(ending)
            told = f"; ingest into {home!r}" if home else ""
            raise InvalidDataError(
                f"namespace {namespace!r} cannot hold documents: names ending in {ending} are "
                f"made by ingest itself{told}, and search {chunks_of(home or 'name')!r}"
            )


def document_key(path: str) -> str:
    """The key of a document: its path, or the beginning and hash of a very long one.

    >>> document_key("docs/guide.md")
    'docs/guide.md'
    """
    data = path.encode()
    if len(data) <= _LONGEST_PATH:
        return path
    # Longer than any path that is kept whole, so no path is the name of another.
    return f"{data[:_KEPT_OF_LONG_PATH].decode(errors='ignore')}~{blake3(data).hexdigest()}"


def text_hash(text: str) -> bytes:
    """16 bytes that name a chunk's text."""
    return blake3(text.encode()).digest(16)


def chunk_keys(document: str, chunks: Iterable[Chunk]) -> list[str]:
    """The keys of a document's chunks, in order: equal texts are told apart by a count."""
    seen: Counter[str] = Counter()
    keys = []
    for chunk in chunks:
        name = text_hash(chunk.text).hex()[:16]
        keys.append(f"{document}#{name}.{seen[name]}")
        seen[name] += 1
    return keys


def first_occurrence(document: str, text: str) -> str:
    """The key the first chunk with this text has in a document."""
    return f"{document}#{text_hash(text).hex()[:16]}.0"
