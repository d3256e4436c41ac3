"""How a run cuts its texts, and what its record tells of that."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from koru_delta.ingest.chunking import ChunkingConfig, chunk_document, chunk_text
from koru_delta.ingest.chunking.config import checked
from koru_delta.ingest.settings import Settings
from koru_delta.ingest.writer import Cutter
from koru_delta.values import Value

_MAX_CHARS: Final = 1200
_MIN_CHARS: Final = 200
_MINDING_LEAST: Final = ("markdown", "code", "content")


def cut_as(
    source: str,
    chunking: ChunkingConfig | None,
    *,
    include: tuple[str, ...] = (),
    max_chars: int | None,
    min_chars: int | None,
    max_bytes: int,
    model: str | None,
    earlier: Mapping[str, Value] | None,
) -> tuple[Settings, Cutter]:
    """The settings of a run, and what makes its chunks.

    Where nothing is said of that, it is as in `earlier`, the record of a run before, else by
    content. What amounts to the same is recorded the same, so that a namespace may be filled by
    `chunking=ChunkingConfig("content")` here and by leaving it out there.

    Raises:
        InvalidDataError: `chunking` is no `ChunkingConfig`.
        MissingExtraError: it needs a package that is not installed.
    """
    if chunking is not None:
        chunking = checked(chunking)
    if (chunking, max_chars, min_chars) == (None, None, None) and earlier is not None:
        chunking = _recorded(earlier)
    max_chars = _MAX_CHARS if max_chars is None else max_chars
    min_chars = _MIN_CHARS if min_chars is None else min_chars
    settings = Settings(source, include, max_chars, min_chars, max_bytes, model)
    if chunking is None:
        return settings, partial(chunk_text, max_chars=max_chars, min_chars=min_chars)
    if chunking.strategy == "content" and chunking.measure == "characters":
        most, least = chunking.most, chunking.least
        settings = settings._replace(max_chars=most, min_chars=least)
        return settings, partial(chunk_text, max_chars=most, min_chars=least)
    settings = settings._replace(max_chars=None, min_chars=None, chunking=_told(chunking))
    cut = partial(chunk_document, config=chunking)
    cut("-")  # what is missing is told now, not after the first file
    return settings, cut


def _recorded(earlier: Mapping[str, Value]) -> ChunkingConfig:
    told = earlier.get("chunking")
    if told is None:
        return ChunkingConfig(
            "content", size=earlier["max_chars"], min_size=earlier["min_chars"]
        )  # fmt: skip
    return ChunkingConfig(**told)


def _told(chunking: ChunkingConfig) -> Value:
    told: dict[str, Value] = {
        "strategy": chunking.strategy, "size": chunking.most, "unit": chunking.measure,
        "overlap": chunking.overlap,
    }  # fmt: skip
    if chunking.strategy in _MINDING_LEAST:
        told["min_size"] = chunking.least
    if chunking.measure == "tokens":
        told["encoding"] = chunking.encoding
    if chunking.language is not None:
        told["language"] = chunking.language
    return told
