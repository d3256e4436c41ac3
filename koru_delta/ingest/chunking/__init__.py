"""Texts cut into chunks: by structure, by size, or so that an edit changes few of them."""

from koru_delta.ingest.chunking.chunk import Chunk
from koru_delta.ingest.chunking.config import ChunkingConfig
from koru_delta.ingest.chunking.content import chunk_text
from koru_delta.ingest.chunking.document import chunk_document

__all__ = ["Chunk", "ChunkingConfig", "chunk_document", "chunk_text"]
