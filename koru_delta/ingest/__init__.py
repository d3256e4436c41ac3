"""Text from directories, git histories and records, chunked, traced and valid from its time."""

from koru_delta.ingest.chunking import Chunk, ChunkingConfig, chunk_document
from koru_delta.ingest.folders import ingest_files
from koru_delta.ingest.history import ingest_git
from koru_delta.ingest.layout import chunks_of, commits_of, runs_of
from koru_delta.ingest.lineage import Edge, Lineage, Node, Origin, commit_time, origin
from koru_delta.ingest.quarantine import Quarantine
from koru_delta.ingest.reasons import SkipReason
from koru_delta.ingest.records import ingest_records
from koru_delta.ingest.run import Report, Run
from koru_delta.ingest.sources import Files, Git, Records

__all__ = [
    "Chunk",
    "ChunkingConfig",
    "Edge",
    "Files",
    "Git",
    "Lineage",
    "Node",
    "Origin",
    "Quarantine",
    "Records",
    "Report",
    "Run",
    "SkipReason",
    "chunk_document",
    "chunks_of",
    "commit_time",
    "commits_of",
    "ingest_files",
    "ingest_git",
    "ingest_records",
    "origin",
    "runs_of",
]
