"""Text from directories and git histories, chunked, traced and valid from its time."""

from koru_delta.ingest.chunking import Chunk, ChunkingConfig, chunk_document
from koru_delta.ingest.folders import ingest_files
from koru_delta.ingest.history import ingest_git
from koru_delta.ingest.layout import chunks_of, commits_of, runs_of
from koru_delta.ingest.lineage import Origin, commit_time, origin
from koru_delta.ingest.writer import Report

__all__ = [
    "Chunk",
    "ChunkingConfig",
    "Origin",
    "Report",
    "chunk_document",
    "chunks_of",
    "commit_time",
    "commits_of",
    "ingest_files",
    "ingest_git",
    "origin",
    "runs_of",
]
