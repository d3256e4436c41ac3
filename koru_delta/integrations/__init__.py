r"""What integrations ask for by name, each loaded when it is first asked for.

The adapters themselves are modules here: `koru_delta.integrations.langchain` and
`koru_delta.integrations.llamaindex`.

>>> from koru_delta.integrations import CausalFilter, ChunkingConfig, chunk_document
>>> CausalFilter(run="nightly").exclude_superseded
True
>>> [chunk.text for chunk in chunk_document("Rain.\n\nSun.", ChunkingConfig(size=6))]
['Rain.', 'Sun.']
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from koru_delta.ingest.chunking import Chunk, ChunkingConfig, chunk_document
    from koru_delta.search.causality import CausalFilter
    from koru_delta.search.searcher import HybridSearcher

__all__ = ["CausalFilter", "Chunk", "ChunkingConfig", "HybridSearcher", "chunk_document"]

_HOMES: Final = {
    "CausalFilter": "koru_delta.search.causality",
    "Chunk": "koru_delta.ingest.chunking",
    "ChunkingConfig": "koru_delta.ingest.chunking",
    "HybridSearcher": "koru_delta.search.searcher",
    "chunk_document": "koru_delta.ingest.chunking",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
