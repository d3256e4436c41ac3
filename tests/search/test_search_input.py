"""Whatever a search is asked with, it answers as documented or raises a typed error."""

from __future__ import annotations

import base64
import math
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import koru_delta
from koru_delta import CausalFilter, Database, errors
from koru_delta.testing import FixedClock, HashEmbedder

TEXTS = {
    "a": "rain in the north", "b": "sun in the south", "c": "rain and fog",
    "d": "東京の雨", "e": "ملح البحر rain", "f": "Ёлка café 🌧 rain",
}  # fmt: skip


@pytest.fixture
def db(clock: FixedClock) -> Any:
    with koru_delta.open(embedder=HashEmbedder(16), clock=clock) as database:
        for key, text in TEXTS.items():
            database.embed("n", key, text, {"text": text, "doc": key in "ab"})
        yield database


def keys(found: Any) -> list[str]:
    return [hit.key for hit in found]


@pytest.mark.parametrize("mode", ["text", "vector"])
def test_a_million_characters_are_answered_or_refused_as_too_many(db: Database, mode: Any) -> None:
    assert keys(db.search("n", "rain " * 200_000, mode=mode, k=1)) != []
    assert isinstance(db.search("n", "x" * 1_000_000, mode=mode), koru_delta.Matches)
    assert isinstance(db.search("n", "🌧雨" * 100_000, mode=mode), koru_delta.Matches)
    assert isinstance(db.search("n", '"' * 1_000_000, mode=mode), koru_delta.Matches)
    assert isinstance(db.search("n", '+"-*' * 250_000, mode=mode), koru_delta.Matches)
    many = " ".join(f"w{n}" for n in range(150_000))
    if mode == "vector":
        assert len(db.search("n", many, mode=mode)) == len(TEXTS)
    else:
        with pytest.raises(errors.QueryError, match="distinct terms"):
            db.search("n", many, mode=mode)


@pytest.mark.parametrize("text", ["", " ", "\n\t ", "\u00a0"])
@pytest.mark.parametrize("mode", ["text", "vector", "hybrid"])
def test_blank_text_finds_nothing_unless_a_vector_is_given(
    db: Database, mode: Any, text: str
) -> None:
    assert db.search("n", text, mode=mode) == []
    assert db.search("n", text, mode=mode).cursor is None
    with_vector = db.search("n", text, mode=mode, vector=[1.0] * 16)
    assert len(with_vector) == (0 if mode == "text" else len(TEXTS))
    assert db.count("n", text=text) == 0


@pytest.mark.parametrize("text", ["...", "-", "+", "-rain", '""', '+""', "*", "\u200b", "!?", "\0"])
def test_text_without_a_word_to_look_for_finds_nothing_by_words(db: Database, text: str) -> None:
    assert db.search("n", text, mode="text") == []
    assert db.count("n", text=text) == 0
    others = 0 if text == "-rain" else len(TEXTS)  # what the other leg finds
    assert len(db.search("n", text)) == others


@pytest.mark.parametrize(
    ("text", "found"),
    [("雨", ["d"]), ("東京", ["d"]), ("البحر", ["e"]), ("CAFÉ", ["f"]), ("cafe\u0301", ["f"]),
     ("ёлка", ["f"]), ("🌧", ["f"]), ("rain 雨 البحر", ["d", "e", "a", "c", "f"])],
)  # fmt: skip
def test_scripts_may_be_mixed(db: Database, text: str, found: list[str]) -> None:
    assert sorted(keys(db.search("n", text, mode="text"))) == sorted(found)


def test_a_broken_surrogate_is_a_typed_error_or_no_word(db: Database) -> None:
    for text in ("rain \ud800", "\udfff", "\ud83c rain \udf27", '"\ud800"', "\ud800*"):
        by_words = db.search("n", text, mode="text")
        assert set(keys(by_words)) == ({"a", "c", "e", "f"} if "rain" in text else set())
        for mode in ("vector", "hybrid"):
            try:
                db.search("n", text, mode=mode)  # type: ignore[arg-type]
            except errors.KoruDeltaError:
                continue
    with pytest.raises(errors.InvalidDataError):
        db.put("n", "x", {"text": "\ud800"})
    with pytest.raises(errors.KoruDeltaError):
        db.configure_text("n", fields=["\ud800"])


@pytest.mark.parametrize("k", [-1, 1.0, "3", None, True, math.nan])
def test_a_k_that_is_no_count_is_refused(db: Database, k: Any) -> None:
    with pytest.raises(errors.QueryError):
        db.search("n", "rain", k=k)


@pytest.mark.parametrize("mode", ["text", "vector", "hybrid"])
def test_any_k_from_nothing_to_more_than_there_is(db: Database, mode: Any) -> None:
    assert db.search("n", "rain", mode=mode, k=0) == []
    assert db.search("n", "rain", mode=mode, k=0).cursor is None
    every = db.search("n", "rain", mode=mode, k=100)
    for k in (10**6, 2**31, 2**62, 2**63, 10**30):
        assert db.search("n", "rain", mode=mode, k=k) == every
    assert db.search("n", "rain", mode=mode, k=10**30, mmr=0.5, group_by="doc", half_life=9.0)


WRONG: dict[str, dict[str, Any]] = {
    "negative weight": {"weights": {"text": -1}},
    "NaN weight": {"weights": {"text": math.nan}},
    "no weight": {"weights": {"text": 0, "vector": 0}},
    "no weight left": {"weights": {"text": 0}, "mode": "text"},
    "unknown leg": {"weights": {"graph": 1}},
    "weights in a list": {"weights": [1, 2]},
    "mode": {"mode": "fuzzy"},
    "mode is a list": {"mode": ["text"]},
    "fusion": {"fusion": "sum"},
    "fusion is a dict": {"fusion": {}},
    "mmr above": {"mmr": 1.5},
    "mmr NaN": {"mmr": math.nan},
    "mmr text": {"mmr": "0.5"},
    "half_life zero": {"half_life": 0},
    "half_life negative": {"half_life": timedelta(seconds=-1)},
    "half_life endless": {"half_life": math.inf},
    "half_life NaN": {"half_life": math.nan},
    "half_life text": {"half_life": "1 day"},
    "half_life true": {"half_life": True},
    "group_by": {"group_by": 5},
    "threshold NaN": {"threshold": math.nan},
    "threshold text": {"threshold": "0.5"},
    "recall": {"recall": 0},
    "cursor": {"cursor": "garbage"},
    "cursor bytes": {"cursor": b"garbage"},
    "cursor number": {"cursor": 5},
    "filter": {"filter": {"$near": 1}},
    "causal": {"causal": {"after": 1}},
    "vector of two": {"vector": [1.0, 2.0]},
    "vector NaN": {"vector": [math.nan] * 16},
    "vector of zeros": {"vector": [0.0] * 16},
    "vector text": {"vector": "rain"},
    "unknown model": {"model": "other"},
    "model number": {"model": 5},
    "syntax": {"as_of": "yesterday"},
    "cursor with mmr": {"mmr": 0.5, "cursor": "x"},
}


@pytest.mark.parametrize("what", WRONG)
def test_what_makes_no_sense_is_a_typed_error(db: Database, what: str) -> None:
    with pytest.raises(errors.KoruDeltaError):
        db.search("n", "rain", **WRONG[what])
    assert len(db.search("n", "rain")) == len(TEXTS)


@pytest.mark.parametrize("text", [None, 5, b"rain", ["rain"], np.ones(16)])
def test_text_that_is_none_is_a_typed_error(db: Database, text: Any) -> None:
    with pytest.raises(errors.QueryError):
        db.search("n", text)
    if text is not None:
        with pytest.raises(errors.QueryError):
            db.count("n", text=text)


def test_namespaces_without_vectors_embedder_or_one_model(db: Database) -> None:
    db.put("words", "k", "rain")
    assert keys(db.search("words", "rain")) == ["k"]
    assert db.search("nothing", "rain") == []
    db.embed("n", "x", [1.0, 2.0], {"text": "rain"}, model="two")
    with pytest.raises(errors.DimensionMismatchError):
        db.search("n", "rain", vector=[1.0, 2.0], model="hash-words-16")
    with pytest.raises(errors.ModelMismatchError):
        db.search("n", "rain", vector=[1.0, 2.0])
    assert "x" in keys(db.search("n", "rain", vector=[1.0, 2.0], model="two"))
    assert "x" in keys(db.search("n", "rain", mode="text"))
    with koru_delta.open() as bare:
        bare.put("words", "k", "rain")
        assert keys(bare.search("words", "rain")) == ["k"]
        bare.embed("v", "k", [1.0, 2.0], {"text": "rain"})
        assert keys(bare.search("v", "rain", mode="text")) == ["k"]
        assert keys(bare.search("v", "rain", weights={"vector": 0})) == ["k"]
        with pytest.raises(errors.KoruDeltaError):
            bare.search("v", "rain")


@pytest.mark.parametrize(
    "causal",
    [
        lambda: CausalFilter(derived_from="ab" * 32),
        lambda: CausalFilter(ancestors_of=("n", "nobody")),
        lambda: CausalFilter(related_to=["ab" * 32]),
        lambda: CausalFilter(descendants_of="12345678"),
        lambda: CausalFilter(after="tag:never"),
        lambda: CausalFilter(before=10**9),
    ],
)
def test_an_anchor_that_is_not_there_is_an_error_in_every_verb(
    db: Database, causal: Callable[[], CausalFilter]
) -> None:
    asked = causal()
    for ask in (
        lambda: db.search("n", "rain", causal=asked),
        lambda: db.search("n", "rain", mode="text", causal=asked),
        lambda: db.similar("n", "rain", causal=asked),
        lambda: db.query("n", causal=asked),
        lambda: db.count("n", causal=asked),
        lambda: db.count("n", text="rain", causal=asked),
        lambda: db.retrieval_diff("n", "rain", 1, causal=asked),
    ):
        with pytest.raises(errors.KoruDeltaError):
            ask()


def test_a_difference_is_of_a_question_and_from_a_moment(db: Any) -> None:
    db.put("n", "a", {"text": "rain"})
    with pytest.raises(errors.QueryError, match="t1 is the earlier moment"):
        db.retrieval_diff("n", "rain", None)
    with pytest.raises(errors.InvalidDataError, match="a vector holds numbers"):
        db.retrieval_diff("n", None, 1)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"fields": "text"}, errors.QueryError),
        ({"fields": [5]}, errors.QueryError),
        ({"fields": {"text": 1}}, errors.QueryError),
        ({"stemmer": "klingon"}, errors.InvalidDataError),
        ({"stemmer": 5}, errors.KoruDeltaError),
    ],
)
def test_settings_of_text_that_make_no_sense_are_refused(
    db: Database, given: dict[str, Any], error: type[Exception]
) -> None:
    before = db.stats()["seq"]
    with pytest.raises(error):
        db.configure_text("n", **given)
    assert db.stats()["seq"] == before


# Cursors


def test_pages_are_of_one_moment_whatever_is_written_between(db: Database) -> None:
    for mode in ("text", "vector", "hybrid"):
        whole = keys(db.search("n", "rain fog", mode=mode, k=9, exact=True))  # type: ignore[arg-type]
        first = db.search("n", "rain fog", mode=mode, k=2, exact=True)  # type: ignore[arg-type]
        db.embed("n", f"new {mode}", "rain fog rain")
        db.put("n", "z", "rain fog")
        found, cursor = keys(first), first.cursor
        while cursor is not None:
            page = db.search("n", "rain fog", mode=mode, k=1, exact=True, cursor=cursor)  # type: ignore[arg-type]
            found, cursor = found + keys(page), page.cursor
        assert found == whole
        db.delete_many("n", ["z", f"new {mode}"])


def test_a_cursor_that_was_changed_or_is_of_something_else_is_refused(db: Database) -> None:
    cursor = db.search("n", "rain", k=2).cursor
    assert cursor is not None
    assert len(db.search("n", "rain", k=2, cursor=cursor)) == 2
    for changed in (
        {"text": "sun"}, {"mode": "text"}, {"filter": {"doc": True}}, {"group_by": "doc"},
        {"weights": {"text": 2}}, {"half_life": 5.0}, {"namespace": "m"}, {"syntax": False},
        {"causal": CausalFilter(author="ada")}, {"vector": [1.0] * 16},
    ):  # fmt: skip
        asked: dict[str, Any] = {"namespace": "n", "text": "rain", "k": 2, **changed}
        with pytest.raises(errors.QueryError, match="cursor"):
            db.search(**asked, cursor=cursor)
    deep = base64.urlsafe_b64encode(b"0" * 12 + b"[" * 100_000 + b"\n").decode()
    large = base64.urlsafe_b64encode(b"0" * 12 + b"[1," + b"9" * 100_000 + b"]\n").decode()
    for other in (cursor[:-1], cursor[:-8], cursor + "A", cursor + "!", f" {cursor}", deep, large,
                  cursor.swapcase(), "", "\ud800", "é" * 40):  # fmt: skip
        with pytest.raises(errors.QueryError, match="cursor"):
            db.search("n", "rain", k=2, cursor=other)
    for place in range(0, len(cursor), 3):
        letter = "A" if cursor[place] != "A" else "B"
        with pytest.raises(errors.QueryError, match="cursor"):
            db.search("n", "rain", k=2, cursor=cursor[:place] + letter + cursor[place + 1 :])


def test_a_cursor_of_another_database_is_refused_and_a_replica_takes_it(
    db: Database, clock: FixedClock, tmp_path: Path
) -> None:
    cursor = db.search("n", "rain", k=2, exact=True).cursor
    following = db.search("n", "rain", k=2, cursor=cursor)
    with koru_delta.open(embedder=HashEmbedder(16), clock=clock) as other:
        for key, text in TEXTS.items():
            other.embed("n", key, text + "!", {"text": text, "doc": True})
        with pytest.raises(errors.QueryError, match="cursor"):
            other.search("n", "rain", k=2, cursor=cursor)
    with koru_delta.open(embedder=HashEmbedder(16), clock=clock) as empty:
        with pytest.raises(errors.QueryError, match="cursor"):
            empty.search("n", "rain", k=2, cursor=cursor)
        db.export_log(tmp_path / "log")
        empty.import_log(tmp_path / "log")
        assert empty.search("n", "rain", k=2, cursor=cursor) == following


def test_a_cursor_goes_on_in_another_process(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db", embedder=HashEmbedder(16)) as db:
        named = [db.embed("n", key, text, {"text": text}) for key, text in TEXTS.items()]
        db.put("n", "z", "rain", causes=named)
        asked = "CausalFilter(author=None, ancestors_of=[('n', 'z'), ('n', 'a'), ('n', 'b')])"
        causal = eval(asked)  # noqa: S307 - the text above
        page = db.search("n", "rain", k=2, exact=True, causal=causal)
        following = keys(db.search("n", "rain", k=2, causal=causal, cursor=page.cursor))
    code = (
        "import koru_delta, sys\nfrom koru_delta import CausalFilter\n"
        "from koru_delta.testing import HashEmbedder\n"
        "db = koru_delta.open(sys.argv[1], embedder=HashEmbedder(16))\n"
        f"found = db.search('n', 'rain', k=2, causal={asked}, cursor=sys.argv[2])\n"
        "print([hit.key for hit in found])"
    )
    for hashing in ("1", "2", "3"):
        said = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "db"), str(page.cursor)],
            env={**os.environ, "PYTHONHASHSEED": hashing}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert said.stdout == f"{following}\n", said.stderr


def test_mmr_gives_no_cursor(db: Database) -> None:
    assert db.search("n", "rain", k=2, mmr=0.5).cursor is None


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80), st.text(max_size=30))
def test_no_text_is_taken_for_a_cursor_by_chance(data: bytes, text: str) -> None:
    with koru_delta.open() as db:
        for cursor in (base64.urlsafe_b64encode(data).decode(), text):
            with pytest.raises(errors.QueryError, match="cursor"):
                db.search("n", "rain", mode="text", cursor=cursor)
