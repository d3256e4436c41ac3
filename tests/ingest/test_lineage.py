"""`Database.lineage`: from a hit up to where it came from, and down to what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import koru_delta
from koru_delta import Database, Version
from koru_delta.errors import (
    InvalidDataError,
    KeyNotFoundError,
    QueryError,
    UnknownVersionError,
)
from koru_delta.ingest import Edge, Git, Lineage, origin
from koru_delta.testing import FixedClock, HashEmbedder
from tests.ingest.history_maker import HistoryMaker

RAIN = "# Rain\n\n" + "It rains on the plain, and the plain is wet. " * 6 + "\n"
SNOW = "# Snow\n\n" + "It snows on the hill, and the hill is white. " * 6 + "\n"


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def db(clock: FixedClock) -> Iterator[Database]:
    with koru_delta.open(embedder=HashEmbedder(32), clock=clock) as database:
        yield database


def named(versions: tuple[Version, ...]) -> list[str]:
    return [f"{version.namespace}/{version.key.partition('#')[0]}" for version in versions]


def test_a_hit_leads_up_to_its_document_commit_and_run(db: Database, tmp_path: Path) -> None:
    maker = HistoryMaker(tmp_path / "made")
    maker.commit(100, {"a.md": RAIN}, author="Ada", message="Begin")
    db.ingest(Git(maker.write()), namespace="docs")
    [hit] = db.similar("docs.chunks", "it rains", k=1)

    up = db.lineage(hit)

    sha = maker.commits[0].sha
    assert named(up.start) == ["docs.chunks/a.md"]
    assert named(up.versions) == [
        "docs/a.md", "docs.runs/git-000001", f"docs.commits/{sha}",
    ]  # fmt: skip
    assert [hops for _, hops in up.nodes] == [0, 1, 2, 2]
    chunk, document, run, commit = (version.id for version, _ in up.nodes)
    assert set(up.edges) == {
        Edge(chunk, "derived_from", document),
        Edge(document, "derived_from", commit),
        Edge(document, "written_in", run),
    }
    assert named(up.sources) == ["docs.runs/git-000001", f"docs.commits/{sha}"]
    assert up.leaves == up.start
    assert len(up) == 3


def test_the_tree_reads_from_the_hit_to_its_sources(db: Database, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("It rains on the plain.\n")
    db.ingest(tmp_path, namespace="docs", author="Ada", message="first notes")
    [hit] = db.similar("docs.chunks", "it rains", k=1)

    assert str(db.lineage(hit)) == (
        f"docs.chunks/{hit.key}, “It rains on the plain.”, by Ada, (first notes), "
        "2026-01-01 00:00:00Z\n"
        "└─ derived_from: docs/a.md, by Ada, (first notes), 2026-01-01 00:00:00Z\n"
        "   └─ written_in: docs.runs/files-000001, a run over files, by Ada, (first notes), "
        "2026-01-01 00:00:00Z"
    )


def test_downwards_a_key_means_every_version_it_had(db: Database, clock: FixedClock) -> None:
    db.ingest([("a", RAIN)], namespace="docs")
    then = clock()
    clock.advance(seconds=1)
    db.ingest([("a", RAIN + "\n" + SNOW), ("b", RAIN)], namespace="docs")
    clock.advance(seconds=1)
    db.delete("docs", "a")

    down = db.lineage(("docs", "a"), "down")
    past = db.lineage(("docs", "a"), "down", as_of=koru_delta.causal.moment(then))

    texts = [version.value["text"] for version in down.leaves]
    assert [version.value["text"] for version in down.start] == [RAIN, RAIN + "\n" + SNOW]
    assert texts == [RAIN.strip(), SNOW.strip()]
    assert [version.value["text"] for version in past.leaves] == [RAIN.strip()]
    assert db.as_of(koru_delta.causal.moment(then)).lineage(("docs", "a"), "down") == past
    with pytest.raises(KeyNotFoundError):
        db.lineage(("docs", "a"))


def test_a_run_leads_down_to_what_it_wrote_and_no_further(db: Database) -> None:
    first = db.ingest([("a", RAIN), ("b", SNOW)], namespace="docs")
    db.ingest([("a", RAIN), ("b", SNOW), ("c", RAIN)], namespace="docs")

    down = db.lineage(first, "down")

    assert sorted(named(down.versions)) == [
        "docs.chunks/a", "docs.chunks/b", "docs/a", "docs/b",
    ]  # fmt: skip
    assert {edge.kind for edge in down.edges} == {"written_in", "derived_from"}


def test_a_run_that_was_begun_again_under_its_name_is_told_apart(db: Database) -> None:
    db.ingest([("a", RAIN)], namespace="docs", run="mine")
    db.ingest([("b", SNOW)], namespace="docs", run="mine")

    [first, _, second, _] = db.history("docs.runs", "mine")

    assert db.lineage(("docs", "a")).versions == (first,)
    assert db.lineage(("docs", "b")).versions == (second,)
    assert named(db.lineage(first, "down").versions) == ["docs/a", "docs.chunks/a"]


def test_kinds_and_hops_limit_the_walk(db: Database) -> None:
    one = db.put("n", "one", 1)
    two = db.put("n", "two", 2, causes=[("derived_from", one)])
    three = db.put("n", "three", 3, causes=[two, ("references", one)])

    assert db.lineage(three).versions == (two, one)[::-1]  # both one step, in log order
    assert db.lineage(three, kinds=["caused_by"]).versions == (two,)
    assert db.lineage(three, kinds="references").versions == (one,)
    assert db.lineage(three, max_hops=0).versions == ()
    assert db.lineage(one, "down", max_hops=1).versions == (two, three)
    assert db.lineage(two, "down", as_of=two).versions == ()
    assert db.lineage(three.id[:12]).edges == (
        Edge(three.id, "caused_by", two.id),
        Edge(three.id, "references", one.id),
        Edge(two.id, "derived_from", one.id),
    )


def test_what_came_twice_is_told_once(db: Database) -> None:
    one = db.put("n", "one", {"text": "root"})
    left, right = (db.put("n", side, 0, causes=[one]) for side in ("left", "right"))
    two = db.put("n", "two", 0, causes=[left, right])
    three = db.put("n", "three", 0, causes=[two])

    told = str(db.lineage(one, "down"))

    at = ", 2026-01-01 00:00:00Z"
    assert [line.replace(at, "") for line in told.splitlines()] == [
        "n/one, “root”",
        "├─ caused_by: n/left",
        "│  └─ caused_by: n/two",
        "│     └─ caused_by: n/three",
        "└─ caused_by: n/right",
        "   └─ caused_by: n/two (as above)",
    ]
    assert db.lineage(one, "down").leaves == (three,)


def test_a_long_list_is_cut_short_for_people_only(db: Database) -> None:
    one = db.put("n", "one", 0)
    db.put_many([("n", f"k{number:02}", 0) for number in range(25)], causes=[one])

    down = db.lineage(one, "down")

    assert len(down) == 25
    assert str(down).splitlines()[-1] == "└─ and 5 more"
    assert len(list(down.lines(limit=100))) == 26


def test_a_chain_of_thousands_is_walked_and_told(db: Database) -> None:
    last = db.put("n", "k0", 0)
    with db.transaction() as tx:
        before: object = last
        for number in range(1, 3000):
            before = tx.put("n", f"k{number}", 0, causes=[before])

    up = db.lineage(("n", "k2999"))

    assert (len(up), up.nodes[-1].hops, up.sources) == (2999, 2999, (last,))
    assert len(str(up).splitlines()) == 3000


def test_it_can_be_drawn_and_sent(db: Database) -> None:
    one = db.put("n", 'a "b" <c>\x1b[31m', {"text": "x"}, author="Ada", message="why\nnot")
    two = db.put("n", "two", 2, causes=[("derived_from", one)])

    up = db.lineage(two)

    assert up.to_mermaid() == (
        "flowchart RL\n"
        '    v0["n/two, 2026-01-01 00:00:00Z"]\n'
        '    v1["n/a #34;b#34; #60;c#62; #91;31m, “x”, by Ada, (why not), 2026-01-01 00:00:00Z"]\n'
        "    v1 -->|derived_from| v0\n"
    )
    sent = json.loads(json.dumps(up.to_dict()))
    assert (sent["direction"], sent["start"]) == ("up", [two.id])
    assert [node["id"] for node in sent["nodes"]] == [two.id, one.id]
    assert sent["edges"] == [{"effect": two.id, "kind": "derived_from", "cause": one.id}]
    assert "\x1b" not in str(up)


def test_what_is_no_reference_is_refused(db: Database) -> None:
    first = db.put("n", "k", 1)
    later = db.put("n", "k", 2)
    again = db.ingest([], namespace="docs")

    with pytest.raises(QueryError, match="direction"):
        db.lineage(later, "sideways")  # type: ignore[arg-type]
    with pytest.raises(QueryError, match=r"unknown kind.*written_in"):
        db.lineage(later, kinds=["because"])
    with pytest.raises(QueryError):
        db.lineage(later, max_hops=-1)
    with pytest.raises(UnknownVersionError):
        db.lineage("feedfeedfeed")
    with pytest.raises(UnknownVersionError):
        db.lineage(later, as_of=first)
    with pytest.raises(KeyNotFoundError):
        db.lineage(("n", "nothing"))
    with pytest.raises(InvalidDataError, match="nothing new"):
        db.lineage(again)
    for odd in (7, None, ("n",), ("n", 7), ["n", "k"]):
        with pytest.raises(InvalidDataError):
            db.lineage(odd)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 30), max_size=4), min_size=1, max_size=14), st.data())
def test_it_finds_what_ancestors_and_descendants_find(
    graph: list[list[int]], data: st.DataObject
) -> None:
    with koru_delta.open() as db:
        made: list[Version] = []
        for number, causes in enumerate(graph):
            chosen = [made[c % len(made)] for c in causes] if made else []
            made.append(db.put("n", f"k{number}", 0, causes=[("derived_from", c) for c in chosen]))
        start, cut = data.draw(st.sampled_from(made)), made[-1]
        if data.draw(st.booleans()):
            cut = data.draw(st.sampled_from(made[made.index(start) :]))

        up, down = db.lineage(start, as_of=cut), db.lineage(start, "down", as_of=cut)

        assert list(up.versions) == db.ancestors(start, as_of=cut)
        assert list(down.versions) == db.descendants(start, as_of=cut)
        for lineage in (up, down):
            assert_edges_hold(db, lineage)
            assert all(node.version.seq <= cut.seq for node in lineage.nodes)


def assert_edges_hold(db: Database, lineage: Lineage) -> None:
    inside = {version.id for version, _ in lineage.nodes}
    for effect, kind, cause in lineage.edges:
        assert (kind, cause) in db.get_version(effect).causes
        assert {effect, cause} <= inside
    told = "\n".join(lineage.lines(limit=1000))
    assert all(f"n/{version.key}," in told for version, _ in lineage.nodes)


def test_the_origin_of_a_hit_is_told_and_of_what_is_none_is_not(db: Database) -> None:
    db.ingest([("leave", "Leave is 25 days.")], namespace="kb", embedder=None)
    [hit] = db.search("kb.chunks", "leave", mode="text")
    by_hand = db.put("kb.chunks", "x", {"text": "by hand"})

    assert origin(db, "kb", hit) == origin(db, "kb", hit.version)
    assert origin(db, "kb", hit).path == "leave"
    for namespace, chunk, told in (
        ("kb", db.version("kb", "leave"), "pass a hit of a search in 'kb.chunks'"),
        ("kb.chunks", hit, "call it with namespace 'kb'"),
        ("other", hit, "call it with namespace 'kb'"),
        ("kb", by_hand, "no chunk that was ingested"),
        ("kb", "leave", "a hit or its version is wanted, not str"),
    ):
        with pytest.raises(InvalidDataError) as refused:
            origin(db, namespace, chunk)  # type: ignore[arg-type]
        assert told in str(refused.value)
