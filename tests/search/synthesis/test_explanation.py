from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from koru_delta import Explanation
from koru_delta.errors import QueryError
from koru_delta.search.synthesis import (
    Distinctions,
    Edge,
    Part,
    Term,
    explain_proximity,
    geometric,
    proximity_of,
    rrf_part,
    scaled_part,
)

NOWHERE = "00" * 32
WEIGHTS = {"geometric": 1.0, "semantic": 0.5}


@pytest.fixture
def hit(db) -> Explanation:
    source = db.put("d", "source", 1)
    version = db.put("d", "rain", {"text": "rain"}, causes=[("derived_from", source)])
    terms = [Term("rain", 2, 3, 0.5, 1.25), Term("sun", 1, 9, 0.25, 0.75)]
    parts = (
        rrf_part("vector", 1, 0.9, rank_without=2),
        rrf_part("text", 3, 2.0, weight=0.5, terms=terms, rank_without=1),
        rrf_part("tags", None, None),
    )
    before = sum(part.contribution for part in parts)
    parts = (*parts, scaled_part("age", before, 0.5), Part("mmr", 0.8, 0.1, -0.001))
    return Explanation(
        "d", "rain", version.id, version.seq, before * 0.5 - 0.001, 1, "rrf", parts,
        edges=(Edge("derived_from", version.id, source.id),), causes=(source.id,),
    )  # fmt: skip


def test_an_explanation_that_adds_up_and_resolves_verifies(db, hit):
    assert hit.problems(db) == []
    assert hit.verify(db)
    db.put("d", "rain", 2)
    assert hit.verify(db)  # it is about the version that was found
    assert hit.part("vector").contribution == 1 / 61
    with pytest.raises(QueryError):
        hit.part("none")


def test_an_explanation_that_was_tampered_with_does_not(db, hit):
    vector, text, *rest = hit.parts
    fewer = replace(text, terms=text.terms[:1])
    for wrong, problem in (
        (replace(hit, score=hit.score + 1e-5), "add up"),
        (replace(hit, score=float("nan")), "add up"),
        (replace(hit, parts=hit.parts[1:]), "add up"),
        (replace(hit, parts=(vector, fewer, *rest)), "terms of text"),
        (replace(hit, version=NOWHERE), "not in the log"),
        (replace(hit, version=hit.version[:16]), "not in the log"),
        (replace(hit, key="sun"), "belongs to 'rain'"),
        (replace(hit, causes=(NOWHERE,)), "does not name"),
        (replace(hit, edges=(Edge("caused_by", hit.version, hit.causes[0]),)), "no edge"),
        (replace(hit, seq=hit.seq - 1), "not in the log"),
    ):
        assert any(problem in each for each in wrong.problems(db)), problem
        assert not wrong.verify(db)
    assert not hit.verify(db, as_of=1)  # its cause was there, it was not


def test_an_explanation_can_be_read_by_people_and_machines(hit):
    told = json.loads(json.dumps(hit.to_dict()))
    assert told["parts"][1]["terms"][0]["term"] == "rain"
    assert sum(part["contribution"] for part in told["parts"]) == pytest.approx(told["score"])
    lines = str(hit).splitlines()
    assert lines[0].startswith("#1 rain  0.01")
    assert "+0.0164  vector  0.9000 x 1  its own #1  without it #2" in lines[1]
    assert "rain: +1.2500 (tf 2, df 3, idf 0.500)" in lines[3]
    out = io.StringIO()
    Console(file=out, width=100).print(hit)
    assert "rank without" in out.getvalue()
    assert "derived_from" in str(hit)


@given(
    st.lists(st.tuples(*[st.floats(-1, 1)] * 3).filter(any), min_size=1, max_size=6),
    st.lists(st.lists(st.sampled_from("abc"), max_size=3), min_size=6, max_size=6),
)
def test_ranks_without_a_factor_are_those_of_a_search_without_it(vectors, terms):
    from koru_delta.causal import Version

    keys = [f"k{n}" for n in range(len(vectors))]
    near = geometric([1.0, 0.5, 0.2], np.array(vectors))
    shared = Distinctions(terms[: len(vectors)]).semantic(["a", "b"])
    factors = {"geometric": near, "semantic": shared}
    found = proximity_of(factors, WEIGHTS)
    bare = proximity_of({"geometric": near}).ranks(keys)
    lexical = proximity_of({"semantic": shared}, WEIGHTS).ranks(keys)
    for n, key in enumerate(keys):
        version = Version(1, NOWHERE, {"op": "put", "namespace": "d", "key": key}, b"1")
        told = explain_proximity(found, keys, n, version, 1)
        assert abs(told.residual) <= 1e-6
        assert told.rank == found.ranks(keys)[n]
        assert told.part("semantic").rank_without == bare[n]
        assert told.part("geometric").rank_without == lexical[n]


def test_a_proximity_is_explained_with_the_edges_of_its_version(db):
    source = db.put("d", "a", 1)
    version = db.put("d", "b", 1, causes=[source])
    told = explain_proximity(
        proximity_of({"geometric": [0.5, 0.9]}), ["a", "b"], 1, version, version.seq
    )
    assert told.verify(db)
    assert (told.rank, told.score, told.causes) == (1, 0.9, (source.id,))
    assert told.parts == (Part("geometric", 0.9, 1.0, 0.9, rank=1, rank_without=None),)
