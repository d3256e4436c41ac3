from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import koru_delta
from koru_delta import Database, Relation
from koru_delta.errors import KeyNotFoundError, QueryError, UnknownVersionError
from koru_delta.ingest import ingest_files
from koru_delta.search.synthesis import Edge, Node, hops, verify
from koru_delta.testing import FixedClock, HashEmbedder

NOWHERE = "00" * 32


def said(relations: list[Relation]) -> list[tuple[str, str, str]]:
    return [(each.kind, each.source.key, each.target.key) for each in relations]


def check(db: Database, relations: list[Relation], as_of: Any = None) -> None:
    """Each holds, and none of its variations does."""
    for relation in relations:
        assert relation.verify(db, as_of), str(relation)
        assert 0 <= relation.strength <= 1
        for other in tampered(relation):
            assert not verify(other, db, as_of), str(other)
        assert not verify(relation, db, 0)  # nothing was there then


def tampered(relation: Relation) -> list[Relation]:
    evidence = relation.evidence
    made = [
        replace(relation, source=replace(relation.source, id=NOWHERE)),
        replace(relation, target=replace(relation.target, key="other")),
        replace(relation, source=relation.target, target=relation.source),
        replace(relation, strength=relation.strength - 0.01),
    ]
    if relation.kind == "proximity":  # near is near both ways
        del made[2]
        made.append(replace(relation, evidence=replace(evidence, model="other")))
        assert evidence.cosine is not None
        made.append(replace(relation, evidence=replace(evidence, cosine=evidence.cosine - 1e-5)))
    for n, edge in enumerate(evidence.edges):
        for wrong in (
            Edge("references", edge.effect, edge.cause), Edge(edge.kind, edge.cause, edge.effect),
            Edge(edge.kind, edge.effect, NOWHERE),
        ):  # fmt: skip
            edges = (*evidence.edges[:n], wrong, *evidence.edges[n + 1 :])
            made.append(replace(relation, evidence=replace(evidence, edges=edges)))
        fewer = (*evidence.edges[:n], *evidence.edges[n + 1 :])
        made.append(replace(relation, evidence=replace(evidence, edges=fewer)))
    if relation.kind == "sequence":
        orders = {"version", "run", "document"} - {evidence.order}
        made += [replace(relation, evidence=replace(evidence, order=o)) for o in orders]
        if evidence.document is not None:
            made.append(replace(relation, evidence=replace(evidence, document=NOWHERE)))
    return made


def test_near_are_those_whose_cosine_is_high_enough(db):
    db.embed_many("v", [("a", [1.0, 0.0]), ("b", [2.0, 0.1]), ("c", [1.0, 1.0]), ("d", [0.0, 1.0])])
    found = db.related("v", "a", types=["proximity"])

    assert said(found) == [("proximity", "a", "b"), ("proximity", "a", "c")]
    assert [each.strength for each in found] == pytest.approx([2 / math.hypot(2, 0.1), 0.5**0.5])
    check(db, found)
    assert said(db.related("v", "a", k=1)) == [("proximity", "a", "b")]
    assert db.related("v", "a", k=0) == []


def test_a_chunk_is_a_part_of_its_document_and_follows_another(db, tmp_path):
    text = "".join(f"# Title {n}\n\n{'rain and sun. ' * 60}{n}\n\n" for n in range(3))
    (tmp_path / "a.md").write_text(text)
    ingest_files(db, [tmp_path], embedder=HashEmbedder())
    rows = [row[0] for row in db.get("docs", "a.md")["chunks"]]
    assert len(rows) > 2
    first = db.related("docs.chunks", rows[1], types=["composition", "sequence"])

    assert ("composition", rows[1], "a.md") in said(first)
    assert ("sequence", rows[0], rows[1]) in said(first)
    assert ("sequence", rows[1], rows[2]) in said(first)
    check(db, first)
    whole = db.related("docs", "a.md", types="composition", k=100)
    assert sorted(each.source.key for each in whole) == sorted(rows)
    assert sum(each.strength for each in whole) == pytest.approx(1.0, abs=0.02)
    check(db, whole)

    then = db.as_of(None).seq
    (tmp_path / "a.md").write_text(text.replace("Title 0", "Heading 0"))
    ingest_files(db, [tmp_path], embedder=HashEmbedder())
    left = db.related("docs", "a.md", types="composition", k=100)
    now = [row[0] for row in db.get("docs", "a.md")["chunks"]]
    assert sorted(each.source.key for each in left) == sorted(now)
    check(db, left)
    assert db.related("docs", "a.md", types="composition", k=100, as_of=then) == whole
    check(db, whole, then)
    before = {(each.source.id, each.target.id) for each in left}
    assert not any(verify(each, db, then) for each in left), before


def test_a_text_that_does_not_stand_in_the_whole_is_no_part_of_it(db):
    whole = db.put("d", "whole", {"text": "rain and sun"})
    db.put("d", "part", {"text": "rain"}, causes=[("derived_from", whole)])
    db.put("d", "other", {"text": "snow"}, causes=[("derived_from", whole)])
    db.put("d", "alike", {"text": "sun"})
    found = db.related("d", "whole", types=["composition"])

    assert said(found) == [("composition", "part", "whole")]
    assert found[0].strength == pytest.approx(4 / 12)
    check(db, found)


def test_a_summary_of_several_is_an_abstraction_of_each(db):
    one = db.embed("d", "one", [1.0, 0.2], {"text": "rain"})
    two = db.embed("d", "two", [1.0, -0.2], {"text": "hail"})
    causes = [("derived_from", one), ("derived_from", two)]
    db.embed("d", "sum", [1.0, 0.0], {"text": "weather"}, causes=causes)
    db.embed("d", "off", [0.0, 1.0], {"text": "weather?"}, causes=causes)
    db.put("d", "single", {"text": "a note"}, causes=[("derived_from", one)])
    db.put("d", "bare", {"text": "no vector"}, causes=causes)

    found = db.related("d", "sum", types=["abstraction"])
    assert said(found) == [("abstraction", "sum", "one"), ("abstraction", "sum", "two")]
    assert [each.strength for each in found] == pytest.approx([1.0, 1.0])
    check(db, found)
    assert db.related("d", "off", types=["abstraction"]) == []
    assert db.related("d", "single", types=["abstraction"]) == []
    found = db.related("d", "one", types=["instantiation"])
    assert sorted(said(found)) == [
        ("instantiation", "one", "bare"),
        ("instantiation", "one", "sum"),
    ]
    check(db, found)


def test_versions_runs_and_indexes_make_sequences(db):
    first = db.put("d", "k", 1)
    second = db.put("d", "k", 2)
    db.delete("d", "k")
    third = db.put("d", "k", 3)
    found = db.related("d", "k", types=["sequence"])
    assert [(each.source.id, each.target.id) for each in found] == [
        (db.history("d", "k")[2].id, third.id)
    ]
    check(db, found)
    past = db.related("d", "k", types=["sequence"], as_of=second)
    assert [(each.source.id, each.target.id) for each in past] == [(first.id, second.id)]
    check(db, past)

    for n in range(3):
        db.put("log", f"e{n}", n, run="r1")
        db.put("log", f"f{n}", n, run="r2")
        db.put("elsewhere", f"e{n}", n, run="r1")
    found = db.related("log", "e1", types=["sequence"])
    assert said(found) == [("sequence", "e0", "e1"), ("sequence", "e1", "e2")]
    check(db, found)
    assert said(db.related("log", "e1", as_of=db.version("log", "e1"))) == [
        ("sequence", "e0", "e1")
    ]

    for n in (0, 1, 2, 4):
        db.put("c", f"c{n}", {"document": "a", "index": n, "text": str(n)})
        db.put("c", f"d{n}", {"metadata": {"document": "a", "index": n}})
    found = db.related("c", "c1", types=["sequence"])
    assert said(found) == [("sequence", "c0", "c1"), ("sequence", "c1", "c2")]
    check(db, found)
    assert said(db.related("c", "d0")) == [("sequence", "d0", "d1")]
    assert db.related("c", "c4") == []


def test_causation_is_what_the_log_says_and_nothing_else(db):
    cause = db.embed("d", "cause", [1.0, 0.0])
    db.embed("d", "twin", [1.0, 0.0])
    db.put("d", "effect", 1, causes=[cause])
    db.put("d", "made", 1, causes=[("derived_from", cause)])
    db.put("d", "mention", 1, causes=[("references", cause), ("supersedes", cause)])
    found = db.related("d", "cause", types=["causation"])

    assert said(found) == [("causation", "cause", "effect"), ("causation", "cause", "made")]
    check(db, found)
    assert said(db.related("d", "effect")) == [("causation", "cause", "effect")]
    assert db.related("d", "twin", types=["causation"]) == []
    assert db.related("d", "cause", types=["causation"], as_of=cause) == []


def test_relations_are_said_in_json_and_in_words(db):
    cause = db.put("d", "cause", 1)
    effect = db.put("d", "effect", 1, causes=[cause])
    (found,) = db.related("d", "effect")
    assert str(found) == "cause brought about effect (causation, 1.000)"
    assert found.to_dict() == {
        "kind": "causation",
        "source": {"namespace": "d", "key": "cause", "id": cause.id},
        "target": {"namespace": "d", "key": "effect", "id": effect.id},
        "strength": 1.0,
        "evidence": {
            "edges": [["caused_by", effect.id, cause.id]], "model": None, "cosine": None,
            "order": None, "document": None,
        },
    }  # fmt: skip
    assert found.target == Node("d", "effect", effect.id)


def test_what_cannot_be_related_is_refused(db):
    db.embed("d", "k", [1.0])
    for types in (["nearness"], "similarity", ["proximity", 3]):
        with pytest.raises(QueryError):
            db.related("d", "k", types=types)
    for k in (-1, 1.5, True):
        with pytest.raises(QueryError):
            db.related("d", "k", k=k)
    with pytest.raises(KeyNotFoundError):
        db.related("d", "nobody")
    with pytest.raises(KeyNotFoundError):
        db.related("d", "k", as_of=0)
    assert db.related("d", "k", types=[]) == []


def test_a_view_and_the_past_relate_what_stood_then(db):
    db.embed_many("v", [("a", [1.0, 0.0]), ("b", [1.0, 0.1])])
    then = db.as_of(None)
    before = db.related("v", "a")
    db.embed("v", "b", [0.0, 1.0])

    assert db.related("v", "a", types=["proximity"]) == []
    assert then.related("v", "a") == db.related("v", "a", as_of=then.seq) == before
    check(db, before, then.seq)


def test_hops_count_typed_edges_either_way_up_to_four(db):
    versions = [db.put("d", "k0", 0)]
    for n in range(1, 7):
        versions.append(db.put("d", f"k{n}", n, causes=[("derived_from", versions[-1])]))
    cut = db._log.now()
    found = hops(db, [versions[1], ("d", "k2")], cut)

    assert [found.get(version.id) for version in versions] == [1, 0, 0, 1, 2, 3, 4]
    assert versions[5].id not in hops(db, [versions[0].id], cut)
    assert hops(db, [versions[0]], cut, kinds=["caused_by"]) == {versions[0].id: 0}
    early = db._log.cut(versions[2])
    assert set(hops(db, [versions[0]], early)) == {version.id for version in versions[:3]}


def test_anchors_that_do_not_exist_are_refused(db):
    first = db.put("d", "a", 1)
    late = db.put("d", "b", 1)
    cut = db._log.cut(first)
    for anchor in (late, late.id, NOWHERE, "zz"):
        with pytest.raises(UnknownVersionError):
            hops(db, [anchor], cut)
    with pytest.raises(KeyNotFoundError):
        hops(db, [("d", "b")], cut)
    for anchors in ([], first.id, late):
        with pytest.raises(QueryError):
            hops(db, anchors, cut)


def test_a_cycle_of_references_between_keys_ends():
    with koru_delta.open() as db:
        one = db.put("d", "a", 1)
        two = db.put("d", "b", 1, causes=[one])
        db.put("d", "a", 2, causes=[two])
        found = hops(db, [("d", "a")], db._log.now())
        assert sorted(found.values()) == [0, 1, 2]
        check(db, db.related("d", "a"))


WRITES = st.lists(
    st.tuples(
        st.sampled_from(["put", "embed", "embed", "delete"]),
        st.integers(0, 4),
        st.sampled_from(["rain", "rain and sun", "rain and sun and snow", "hail"]),
        st.lists(
            st.tuples(
                st.sampled_from(["caused_by", "derived_from", "derived_from", "references"]),
                st.integers(0, 30),
            ),
            max_size=3,
        ),
        st.sampled_from([None, "r1", "r2"]),
    ),
    min_size=1,
    max_size=14,
)


def write(db: Database, action: Any, written: list[koru_delta.Version]) -> None:
    kind, number, text, named, run = action
    key, value = f"k{number}", {"text": text, "document": "d", "index": number}
    causes = [(name, written[at % len(written)]) for name, at in named if written]
    if kind == "delete":
        written += db.delete_many("d", [key], run=run)
    elif kind == "put":
        written.append(db.put("d", key, value, causes=causes, run=run))
    else:
        vector = [1.0, float(len(text) % 5), float(number)]
        written.append(db.embed("d", key, vector, value, causes=causes, run=run))


@given(WRITES, st.data())
@settings(deadline=None, max_examples=60)
def test_relations_of_the_past_verify_and_are_those_of_a_database_that_never_went_on(actions, data):
    stop = data.draw(st.integers(1, len(actions)))
    with koru_delta.open(clock=FixedClock()) as db, koru_delta.open(clock=FixedClock()) as fresh:
        mine: list[koru_delta.Version] = []
        theirs: list[koru_delta.Version] = []
        for action in actions[:stop]:
            write(db, action, mine)
            write(fresh, action, theirs)
        then = db.as_of(None)
        for action in actions[stop:]:
            write(db, action, mine)
        for key in then.list_keys("d"):
            found = then.related("d", key, k=100)
            assert found == fresh.related("d", key, k=100)
            here = then.version("d", key).id
            for relation in found:
                assert here in (relation.source.id, relation.target.id)
                assert relation.verify(db, then.seq), str(relation)
                assert relation.verify(fresh)
