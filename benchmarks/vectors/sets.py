"""The two sets of vectors: real texts, and made-up ones with the low dimension of text.

Both are made once in a run and kept as files in its folder, from which every process maps
them. Queries are no vectors of the set, and there are enough of them that none is asked
twice of one subject.

Real: the bodies of every revision of 70 PEPs cut to windows of three sentences, one sentence
apart, each distinct text once, and the paragraphs of XQuAD; embedded by the local model.
Asked are the questions of XQuAD and single sentences. Made up: topics of very unequal size,
each with a subspace of its own in which its vectors lie, and a little noise.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.peps import data_file, read_revisions
from benchmarks.vectors.peers.base import Fields, K, Vectors
from koru_delta.embedders import local

REAL, REAL_DIMENSIONS, QUERIES = 60_000, 256, 4000
DRAWS = 10_000  # `draw` is even over 0 .. DRAWS - 1
XQUAD = "xquad/xquad.en.json.gz"
_NEIGHBOURS = 100  # that the local intrinsic dimension is estimated from
_TOPICS, _SUBSPACE, _SHARED, _FLATNESS, _NOISE = 200, 64, 64, 16.0, 0.2


@dataclass(frozen=True, slots=True)
class VectorSet:
    """Where a set lies, and what is said of it in every table."""

    folder: Path
    name: str
    rows: int
    dimensions: int
    queries: int
    lid: float  # local intrinsic dimension

    @property
    def title(self) -> str:
        return f"{self.name}, {self.rows:,} x {self.dimensions}, LID {self.lid:.0f}"

    def vectors(self) -> Vectors:
        """The rows, mapped from disk and read once."""
        mapped: Vectors = np.load(self.folder / "vectors.npy", mmap_mode="r")
        return np.ascontiguousarray(mapped[: self.rows])

    def asked(self) -> Vectors:
        """The queries."""
        loaded: Vectors = np.load(self.folder / "queries.npy")
        return loaded[: self.queries]

    def are_questions(self) -> npt.NDArray[np.bool_]:
        """Of the real set: which queries are questions; the others are sentences."""
        loaded: npt.NDArray[np.bool_] = np.load(self.folder / "is-question.npy")
        return loaded

    def numbers(self, field: str) -> npt.NDArray[np.int64]:
        """A whole number for each row: `topic` or `draw`, of real texts also `month`."""
        loaded: npt.NDArray[np.int64] = np.load(self.folder / f"{field}.npy")
        return loaded[: self.rows]

    def texts(self) -> list[str]:
        loaded: list[str] = json.loads((self.folder / "texts.json").read_text())
        return loaded[: self.rows]

    def tenth_best(self) -> npt.NDArray[np.float32]:
        """The score that a hit must reach, for each query: that of the K-th best of all rows."""
        file = self.folder / f"tenth-best-{self.rows}.npy"
        if not file.exists():
            np.save(file, kth_scores(self.vectors(), self.asked()))
        loaded: npt.NDArray[np.float32] = np.load(file)
        return loaded

    def packed(self) -> dict[str, Any]:
        """As JSON, for another process."""
        return {**asdict(self), "folder": str(self.folder)}


def unpacked(given: dict[str, Any]) -> VectorSet:
    """What `packed` made."""
    return VectorSet(**{**given, "folder": Path(given["folder"])})


def made_up(folder: str, rows: int, dimensions: int, of: int, queries: int) -> dict[str, Any]:
    """The first `rows` of a made-up set of `of` rows, packed; run in a process of its own."""
    place = Path(folder, f"made-up-{dimensions}")
    if not (place / "topic.npy").exists():
        place.mkdir(parents=True)
        vectors, topics = _mixture(of + queries, dimensions)
        np.save(place / "vectors.npy", vectors[:of])
        np.save(place / "queries.npy", vectors[of:])
        np.save(place / "draw.npy", np.random.default_rng(2).integers(0, DRAWS, of))
        np.save(place / "topic.npy", topics[:of])
    return _described(place, "made up", rows, dimensions, queries).packed()


def real_texts() -> Path | None:
    """The revisions that chunks are cut from; None where they or XQuAD are missing."""
    file = data_file()
    return file if file is not None and (file.parents[1] / XQUAD).is_file() else None


def real(folder: str, rows: int, queries: int) -> dict[str, Any]:
    """Up to `rows` chunks of real texts, packed; run in a process of its own."""
    place, file = Path(folder, "real"), real_texts()
    assert file is not None
    if not (place / "month.npy").exists():
        place.mkdir(parents=True)
        chunks, asked, is_question = _texts(file, rows, queries)
        model = local(dimensions=REAL_DIMENSIONS)
        np.save(place / "vectors.npy", model.embed_documents([chunk.text for chunk in chunks]))
        np.save(place / "queries.npy", model.embed_documents(asked))
        np.save(place / "is-question.npy", np.array(is_question))
        (place / "texts.json").write_text(json.dumps([chunk.text for chunk in chunks]))
        np.save(place / "draw.npy", np.random.default_rng(3).integers(0, DRAWS, len(chunks)))
        np.save(place / "topic.npy", np.array([chunk.source for chunk in chunks]))
        np.save(place / "month.npy", np.array([chunk.month for chunk in chunks]))
    found = int(np.load(place / "month.npy").shape[0])
    count = int(np.load(place / "queries.npy", mmap_mode="r").shape[0])
    return _described(place, "real", min(rows, found), REAL_DIMENSIONS, count).packed()


def lid(vectors: Vectors, queries: Vectors, neighbours: int = _NEIGHBOURS) -> float:
    """Local intrinsic dimension around the queries: the median of their estimates.

    Equal vectors say nothing about it and are left out.

    Source: the maximum likelihood estimate over distances to the k nearest, Levina & Bickel,
    NIPS 2004, in the form of Amsaleg et al., KDD 2015; here k = 100.
    """
    neighbours = min(neighbours, len(vectors))
    estimates = []
    for query in queries:
        near = np.partition(vectors @ query, -neighbours)[-neighbours:].astype(np.float64)
        distances = np.sqrt(np.maximum(2 - 2 * near, 0))
        distances = distances[distances > 1e-3]
        mean = np.log(distances / distances.max()).mean()
        if mean < 0:
            estimates.append(-1 / mean)
    return float(np.median(estimates))


def kth_scores(vectors: Vectors, queries: Vectors, k: int = K) -> npt.NDArray[np.float32]:
    """The score of each query's `k`-th best row, or of the last where there are fewer."""
    found = np.empty(len(queries), dtype=np.float32)
    k = min(k, len(vectors))
    for start in range(0, len(queries), 250):
        scores = queries[start : start + 250] @ vectors.T
        found[start : start + 250] = np.partition(scores, -k, axis=1)[:, -k]
    return found


def _described(place: Path, name: str, rows: int, dimensions: int, queries: int) -> VectorSet:
    known = place / f"lid-{rows}.json"
    if not known.exists():
        unmeasured = VectorSet(place, name, rows, dimensions, queries, 0.0)
        known.write_text(json.dumps(lid(unmeasured.vectors(), unmeasured.asked()[-300:])))
    return VectorSet(place, name, rows, dimensions, queries, json.loads(known.read_text()))


def _mixture(count: int, dimensions: int) -> tuple[Vectors, npt.NDArray[np.int64]]:
    rng = np.random.default_rng(1)
    subspace, shared = min(_SUBSPACE, dimensions), min(_SHARED, dimensions)
    fading = 1 / np.sqrt(1 + np.arange(subspace) / _FLATNESS)
    fading /= np.linalg.norm(fading)
    centres = rng.standard_normal((_TOPICS, shared)) / np.sqrt(1 + np.arange(shared) / _FLATNESS)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    centres = centres @ _orthonormal(rng, dimensions, shared).T
    shares = 1 / (np.arange(_TOPICS) + 4.0)
    topics = rng.choice(_TOPICS, count, p=shares / shares.sum())
    vectors = rng.standard_normal((count, dimensions), dtype=np.float32)
    vectors *= np.float32(_NOISE / np.sqrt(dimensions))
    for topic in range(_TOPICS):
        own = np.flatnonzero(topics == topic)
        within = rng.standard_normal((len(own), subspace)) * fading
        vectors[own] += centres[topic] + within @ _orthonormal(rng, dimensions, subspace).T
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors, topics


def _orthonormal(
    rng: np.random.Generator, dimensions: int, columns: int
) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = np.linalg.qr(rng.standard_normal((dimensions, columns)))[0]
    return found


@dataclass(frozen=True, slots=True)
class _Chunk:
    text: str
    source: int  # which PEP; 0 is XQuAD
    month: int  # months since the year 2000 when it was first written


def _texts(file: Path, rows: int, queries: int) -> tuple[list[_Chunk], list[str], list[bool]]:
    """Distinct chunks in an order of no meaning, what is asked, and whether it is a question."""
    paragraphs, questions = _xquad(file.parents[1] / XQUAD)
    chunks = {text: _Chunk(text, 0, 12 * 20) for text in paragraphs}
    sentences: dict[str, None] = {}
    for revision in read_revisions(file):
        when = datetime.fromtimestamp(revision.committed_at, UTC)
        source = int(revision.pep.removeprefix("pep-"))
        for window, single in _windows(revision.value["text"]):
            if window not in chunks:
                chunks[window] = _Chunk(window, source, 12 * (when.year - 2000) + when.month - 1)
            sentences.setdefault(single)
        if rows < REAL and len(chunks) > rows:
            break
    rng = random.Random(4)
    listed = list(chunks.values())
    rng.shuffle(listed)
    singles = [text for text in sentences if len(text) >= 20 and text not in chunks]
    rng.shuffle(singles)
    asked = [*questions, *singles[: max(0, queries - len(questions))]][:queries]
    rng.shuffle(asked)
    known = set(questions)
    return listed[:rows], asked, [text in known for text in asked]


def _xquad(file: Path) -> tuple[list[str], list[str]]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        data: Sequence[dict[str, Any]] = json.load(lines)["data"]
    paragraphs = [paragraph for article in data for paragraph in article["paragraphs"]]
    questions = [each["question"] for paragraph in paragraphs for each in paragraph["qas"]]
    return [paragraph["context"] for paragraph in paragraphs], list(dict.fromkeys(questions))


def _windows(text: str) -> Iterator[tuple[str, str]]:
    """Every three sentences that follow one another, with the first of them."""
    _header, _, body = text.partition("\n\n")
    sentences = [
        sentence
        for paragraph in re.split(r"\n\s*\n", body)
        for sentence in re.split(r"(?<=[.!?:;])\s+", " ".join(paragraph.split()))
        if sentence
    ]
    for n in range(max(1, len(sentences) - 2)):
        window = " ".join(sentences[n : n + 3])
        if len(window) >= 40:
            yield window, sentences[n]


def fields_of(which: VectorSet, *, texts: bool) -> list[Fields]:
    """What is stored with each vector."""
    names = ["topic", "draw", *(["month"] if texts else [])]
    columns = [which.numbers(name).tolist() for name in names]
    rows: list[Fields] = [
        dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)
    ]
    if texts:
        for row, text in zip(rows, which.texts(), strict=True):
            row["text"] = text
    return rows
