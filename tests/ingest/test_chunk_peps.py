from __future__ import annotations

from collections import defaultdict

import pytest

from benchmarks.chunking import cut_by, embedded_anew, fixed_windows
from benchmarks.peps import data_file, read_revisions
from koru_delta.ingest.chunking import ChunkingConfig
from tests.ingest.test_chunk_tokens import check_tokens
from tests.ingest.texts import checked
from tests.real_data import lacking


@pytest.fixture(scope="module")
def histories() -> dict[str, list[str]]:
    file = data_file()
    if file is None:
        lacking("the PEP revisions")
    texts: dict[str, list[str]] = defaultdict(list)
    for revision in read_revisions(file):
        texts[revision.pep].append(revision.value["text"])
    return texts


@pytest.mark.parametrize("unit", ["characters", "tokens"])
def test_edits_embed_at_most_a_third_of_what_fixed_windows_do(histories, unit):
    some = sorted(histories)[:: 5 if unit == "characters" else 25]
    content = cut_by(ChunkingConfig("content", unit=unit))

    ours = sum(embedded_anew(histories[pep], content) for pep in some)
    fixed = sum(embedded_anew(histories[pep], fixed_windows(1200)) for pep in some)

    assert 0 < ours <= fixed / 3


@pytest.mark.parametrize("strategy", ["recursive", "sentence", "markdown", "content", "token"])
def test_real_texts_keep_the_promises_in_either_unit(histories, strategy):
    for pep in sorted(histories)[::10]:
        text = histories[pep][-1]
        overlap = 0 if strategy == "content" else 40
        if strategy != "token":
            checked(text, ChunkingConfig(strategy, overlap=overlap))
        config = ChunkingConfig(strategy, unit="tokens", size=200, overlap=overlap)
        check_tokens(text, config, checked(text, config))
