"""Which model's vectors a text is compared with."""

from __future__ import annotations

import numpy as np
import pytest

import koru_delta
from koru_delta.errors import ModelMismatchError
from koru_delta.testing import HashEmbedder


def test_text_is_never_compared_with_the_vectors_of_a_model_that_took_over(
    db: koru_delta.Database,
) -> None:
    before = db.embed("notes", "tea", "green tea is hot")
    embedder = HashEmbedder()
    db.reembed("notes", "turned", lambda texts: [-np.asarray(v) for v in embedder(list(texts))])

    with pytest.raises(ModelMismatchError, match=r"turned.*under that name \(embedders.as_embed"):
        db.similar("notes", "green tea")

    assert [hit.key for hit in db.similar("notes", "green tea", as_of=before)] == ["tea"]
    assert [hit.key for hit in db.similar("notes", "green tea", model="turned")] == ["tea"]


def test_a_namespace_whose_vectors_are_all_gone_answers_nothing(db: koru_delta.Database) -> None:
    db.embed("notes", "tea", "green tea is hot")
    db.delete("notes", "tea")

    assert db.similar("notes", "green tea") == []
