"""Cutting texts into chunks: every strategy, by characters and by tokens, and after edits.

The texts are PEP revisions where `KORU_DATA` has them, else made up; code is this package's.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from blake3 import blake3

from benchmarks.measure import Row, Side, at_least, by_turns, ratio_at_least, ratio_at_most, sized
from benchmarks.peps import data_file, read_revisions
from koru_delta import ChunkingConfig, chunk_document
from koru_delta.ingest.chunking.config import ENCODINGS
from koru_delta.ingest.chunking.tokens import encoding_named

if TYPE_CHECKING:
    from tiktoken import Encoding

_MEGABYTES = 8


def run(folder: Path, scale: float) -> Iterator[Row]:
    texts, name = _texts(scale)
    rounds = sized(7, scale, 1)
    yield from _by_characters(texts, name, rounds)
    yield from _code(rounds)
    yield from _by_tokens(texts, rounds)
    yield from _after_edits(scale)


def _texts(scale: float) -> tuple[list[str], str]:
    limit = sized(_MEGABYTES * 1_000_000, scale, 100_000)
    file = data_file()
    if file is None:
        return _made_up(limit), "made-up prose"
    # Spread over all of them: neighbours differ little.
    revisions = [revision.value["text"] for revision in read_revisions(file)]
    random.Random(4).shuffle(revisions)
    texts: list[str] = []
    while limit > 0 and revisions:
        texts.append(revisions.pop())
        limit -= len(texts[-1])
    return texts, "PEPs"


def _made_up(characters: int) -> list[str]:
    rng = random.Random(4)
    words = ["".join(rng.choices("etaoinshrdlucmf", k=rng.randint(1, 9))) for _ in range(3000)]
    texts: list[str] = []
    while characters > 0:
        paragraphs = [
            " ".join(rng.choices(words, k=rng.randint(20, 120))).capitalize() + "."
            for _ in range(40)
        ]
        texts.append("\n\n".join(paragraphs))
        characters -= len(texts[-1])
    return texts


def _by_characters(texts: Sequence[str], name: str, rounds: int) -> Iterator[Row]:
    configs = [
        ChunkingConfig("recursive"),
        ChunkingConfig("recursive", overlap=200),
        ChunkingConfig("recursive", size=300),
        ChunkingConfig("sentence"),
        ChunkingConfig("markdown"),
        ChunkingConfig("content"),
    ]
    sides = [_cutting(texts, config) for config in configs]
    taken = by_turns(sides, rounds, warm_up=1)
    yield Row(f"{name}, {_megabytes(texts):.1f} MB by characters", len(texts), "texts")
    for config, nanoseconds in zip(configs, taken, strict=True):
        targets = (at_least(40),) if config == ChunkingConfig() else ()
        yield Row(_named(config), _speed(texts, nanoseconds), "MB/s", targets=targets)


def _code(rounds: int) -> Iterator[Row]:
    files = sorted(Path(__file__).parents[1].glob("koru_delta/**/*.py"))
    texts = [file.read_text(encoding="utf-8") for file in files]
    config = ChunkingConfig("code", language="python")
    (taken,) = by_turns([_cutting(texts, config)], rounds, warm_up=1)
    yield Row("  code, this package's Python", _speed(texts, taken), "MB/s")


def _by_tokens(texts: Sequence[str], rounds: int) -> Iterator[Row]:
    for name in ENCODINGS:
        encoding = encoding_named(name)
        configs = [
            ChunkingConfig(strategy, unit="tokens", encoding=name)
            for strategy in ("token", "recursive", "sentence", "markdown", "content")
        ]
        some = texts[: max(1, len(texts) // 4)]

        sides = [_encoding(some, encoding), *(_cutting(some, config) for config in configs)]
        taken = by_turns(sides, rounds, warm_up=1)
        yield Row(f"by tokens of {name}, {_megabytes(some):.1f} MB", len(some), "texts")
        for config, nanoseconds in zip(configs, taken[1:], strict=True):
            targets = (ratio_at_least(0.6),) if config.strategy in ("token", "recursive") else ()
            yield Row(
                _named(config), _speed(some, nanoseconds), "MB/s", _speed(some, taken[0]),
                "tiktoken", targets,
            )  # fmt: skip


def _after_edits(scale: float) -> Iterator[Row]:
    """Characters that must be embedded anew, over all revisions of each PEP in turn."""
    file = data_file()
    if file is None:
        return
    revisions = read_revisions(file)
    by_pep: dict[str, list[str]] = defaultdict(list)
    for revision in revisions:
        by_pep[revision.pep].append(revision.value["text"])
    peps = sorted(by_pep)[: sized(len(by_pep), scale, 3)]
    histories = [by_pep[pep] for pep in peps]
    content = ChunkingConfig("content")
    average = round(
        median(
            len(chunk.text) for texts in histories for chunk in chunk_document(texts[-1], content)
        )
    )
    count = sum(len(texts) - 1 for texts in histories)
    ours = sum(embedded_anew(texts, cut_by(content)) for texts in histories)
    for size in (1200, average):
        fixed = sum(embedded_anew(texts, fixed_windows(size)) for texts in histories)
        yield Row(
            f"embedded anew, {count:,} edits of {len(peps)} PEPs, content-defined",
            ours / 1000, "k characters", fixed / 1000, f"windows of {size:,}",
            (ratio_at_most(1 / 3),),
        )  # fmt: skip


def embedded_anew(texts: Sequence[str], cut: Callable[[str], list[str]]) -> int:
    """Characters of chunks that the revision before did not have, over all but the first."""
    total = 0
    before: frozenset[bytes] | None = None
    for text in texts:
        chunks = {blake3(chunk.encode()).digest(): len(chunk) for chunk in cut(text)}
        if before is not None:
            total += sum(length for name, length in chunks.items() if name not in before)
        before = frozenset(chunks)
    return total


def fixed_windows(size: int) -> Callable[[str], list[str]]:
    return lambda text: [text[at : at + size] for at in range(0, len(text), size)]


def cut_by(config: ChunkingConfig) -> Callable[[str], list[str]]:
    return lambda text: [chunk.text for chunk in chunk_document(text, config)]


def _cutting(texts: Sequence[str], config: ChunkingConfig) -> Side:
    def side(_: int) -> None:
        for text in texts:
            chunk_document(text, config)

    return side


def _encoding(texts: Sequence[str], encoding: Encoding) -> Side:
    def side(_: int) -> None:
        for text in texts:
            encoding.encode_ordinary(text)

    return side


def _megabytes(texts: Sequence[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6


def _speed(texts: Sequence[str], nanoseconds: float) -> float:
    return _megabytes(texts) / (nanoseconds / 1e9)


def _named(config: ChunkingConfig) -> str:
    overlap = f", overlap {config.overlap}" if config.overlap else ""
    return f"  {config.strategy}, size {config.most:,}{overlap}"
