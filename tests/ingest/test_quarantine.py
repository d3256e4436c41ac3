"""`Database.quarantine`: whatever came of something is found no more, until it is released."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import koru_delta
from koru_delta import AsyncDatabase, Database, Version
from koru_delta.errors import (
    InvalidDataError,
    KeyNotFoundError,
    ReadOnlyError,
    UnknownCauseError,
    UnknownVersionError,
)
from koru_delta.ingest import Git
from koru_delta.testing import FixedClock, HashEmbedder
from tests.ingest.history_maker import HistoryMaker, moment

RAIN = "# Rain\n\n" + "It rains on the plain, and the plain is wet. " * 6 + "\n"
SNOW = "# Snow\n\n" + "It snows on the hill, and the hill is white. " * 6 + "\n"
WIND = "# Wind\n\n" + "It blows on the sea, and the sea is rough. " * 6 + "\n"


@pytest.fixture
def db() -> Iterator[Database]:
    with koru_delta.open(embedder=HashEmbedder(64), clock=FixedClock()) as database:
        yield database


def found(
    db: Database, query: str = "rain snow wind", namespace: str = "docs", **when: object
) -> list[str]:
    """The documents and headings of the chunks that are found, however they are asked for."""
    hits = db.similar(f"{namespace}.chunks", query, k=100, **when)
    told = sorted(f"{h.value['metadata']['document']}: {h.value['text'][:6]}" for h in hits)
    rows = db.query(f"{namespace}.chunks", **when)  # type: ignore[arg-type]
    assert told == sorted(
        f"{row.value['metadata']['document']}: {row.value['text'][:6]}" for row in rows
    )
    return told


def test_a_document_vanishes_with_its_chunks_and_comes_back(db: Database, tmp_path: Path) -> None:
    (tmp_path / "good.md").write_text(RAIN + "\n" + SNOW)
    (tmp_path / "bad.md").write_text(RAIN + "\n" + WIND)  # shares a chunk, byte for byte
    db.ingest(tmp_path, namespace="docs")
    before = db.stats()["seq"]
    everything = found(db)

    held = db.quarantine(("docs", "bad.md"), author="Ada", message="not licensed")

    assert found(db) == ["good.md: # Rain", "good.md: # Snow"]
    assert [row.key for row in db.query("docs")] == ["good.md"]
    assert found(db, as_of=before) == everything
    assert db.get("docs", "bad.md")["text"] == RAIN + "\n" + WIND
    assert (held.id, held.hidden, held.author, held.message) == ("q1", 3, "Ada", "not licensed")
    assert [v.namespace for v in held.versions] == ["docs", "docs.chunks", "docs.chunks"]
    assert len(db.commits(after=before)) == 1
    assert db.quarantines() == [held]
    assert db.quarantines(as_of=before) == db.as_of(before).quarantines() == []

    entries = db.release(held, author="Ben", message="licensed now")

    assert found(db) == everything
    assert sorted(v.target or "" for v in entries) == sorted(v.id for v in held.versions)
    assert {v.author for v in entries} == {"Ben"}
    assert len(db.commits(after=before)) == 2
    assert db.quarantines() == []
    assert found(db, as_of=db.commits(after=before)[0]) == [
        "good.md: # Rain", "good.md: # Snow",
    ]  # fmt: skip
    assert db.verify().ok


def test_a_chunk_that_an_edit_left_alone_goes_with_its_document(db: Database) -> None:
    db.ingest([("a", RAIN), ("b", SNOW)], namespace="docs")
    db.ingest([("a", RAIN + "\n" + WIND)], namespace="docs")

    by_key = db.quarantine(("docs", "a"))
    after_key = found(db)
    db.release(by_key)
    by_version = db.quarantine(db.version("docs", "a"))

    assert after_key == ["b: # Snow"]
    # The version alone: the chunk that came from the one before it is not its doing.
    assert found(db) == ["a: # Rain", "b: # Snow"]
    assert by_version.hidden == 2


def test_a_commit_of_a_history_goes_with_what_it_brought(db: Database, tmp_path: Path) -> None:
    maker = HistoryMaker(tmp_path / "made")
    maker.commit(100, {"a.md": RAIN, "b.md": SNOW})
    maker.commit(200, {"a.md": RAIN + "\n" + WIND})
    db.ingest(Git(maker.write()), namespace="docs")

    db.quarantine(("docs.commits", maker.commits[1].sha))

    assert found(db) == ["a.md: # Rain", "b.md: # Snow"]
    assert found(db, valid_at=moment(150)) == ["a.md: # Rain", "b.md: # Snow"]


def test_a_run_goes_with_all_it_wrote(db: Database) -> None:
    db.ingest([("a", RAIN)], namespace="docs")
    bad = db.ingest([("a", RAIN), ("b", SNOW)], namespace="docs")
    db.ingest([("c", WIND)], namespace="docs")

    held = db.quarantine(bad)

    assert found(db) == ["a: # Rain", "c: # Wind"]
    db.release(held.id)
    assert found(db) == ["a: # Rain", "b: # Snow", "c: # Wind"]


def test_what_is_derived_later_is_found_until_asked_for_once_more(db: Database) -> None:
    source = db.put("n", "source", {"text": "s"})
    first = db.quarantine(source)
    db.put("n", "summary", {"text": "t"}, causes=[("derived_from", source)])
    before = [row.key for row in db.query("n")]

    second = db.quarantine(source)

    assert before == ["summary"]
    assert (first.hidden, second.hidden, len(second.versions)) == (1, 1, 2)
    assert db.query("n") == []
    db.release(first)
    assert db.query("n") == []
    db.release(second)
    assert [row.key for row in db.query("n")] == ["source", "summary"]


def test_a_changed_document_is_taken_in_anew(db: Database) -> None:
    db.ingest([("a", RAIN + "\n" + SNOW)], namespace="docs")
    db.quarantine(("docs", "a"))

    same = db.ingest([("a", RAIN + "\n" + SNOW)], namespace="docs")
    unchanged = found(db)
    db.ingest([("a", RAIN + "\n" + WIND)], namespace="docs")

    assert (same.run, unchanged) == (None, [])
    assert found(db) == ["a: # Wind"]


def test_two_that_overlap_hold_until_the_last_is_released(db: Database) -> None:
    one, two = db.put("n", "one", 1), db.put("n", "two", 2)
    both = db.put("n", "both", 3, causes=[("derived_from", one), ("derived_from", two)])
    left, right = db.quarantine(one), db.quarantine(two)

    db.release(left)
    between = [row.key for row in db.query("n")]
    again = db.quarantine(one)
    db.release(right)
    still = [row.key for row in db.query("n")]
    db.release(again)

    assert (left.hidden, right.hidden) == (2, 1)
    assert both in right.versions
    assert (between, still) == (["one"], ["two"])
    assert [row.key for row in db.query("n")] == ["both", "one", "two"]
    assert [q.id for q in (left, right, again)] == ["q1", "q2", "q3"]


def test_what_was_hidden_otherwise_stays_hidden(db: Database) -> None:
    source = db.put("n", "source", 1)
    db.put("n", "a", 1, causes=[("derived_from", source)])
    db.put("n", "b", 1, causes=[("derived_from", source)])
    db.hide("n", "a")
    held = db.quarantine(source)
    db.unhide("n", "b")
    db.hide("n", "b", message="by hand")

    db.release(held)

    assert held.hidden == 2
    assert [row.key for row in db.query("n")] == ["source"]


def test_a_cause_that_is_no_derivation_is_not_followed(db: Database) -> None:
    source = db.put("n", "source", 1)
    db.put("n", "answer", 1, causes=[("references", source), ("caused_by", source)])

    assert len(db.quarantine(source).versions) == 1
    assert [row.key for row in db.query("n")] == ["answer"]


def test_nothing_and_nonsense_are_refused(db: Database, tmp_path: Path) -> None:
    db.put("n", "k", 1)
    gone = db.delete("n", "k")
    before = db.stats()["seq"]

    with pytest.raises(KeyNotFoundError):
        db.quarantine(("n", "never"))
    with pytest.raises(InvalidDataError, match="no put"):
        db.quarantine(gone)
    with pytest.raises(UnknownVersionError):
        db.quarantine("feedfeedfeed")
    with pytest.raises(InvalidDataError):
        db.quarantine(7)  # type: ignore[arg-type]
    with pytest.raises(UnknownVersionError, match="q9"):
        db.release("q9")
    with pytest.raises(InvalidDataError):
        db.release(9)  # type: ignore[arg-type]
    assert db.stats()["seq"] == before
    held = db.quarantine(("n", "k"))  # deleted, and still to be found in the past
    db.release(held)
    with pytest.raises(UnknownVersionError, match="released"):
        db.release(held)
    with koru_delta.open(tmp_path / "db") as other:
        other.put("n", "k", 1)
    with (
        koru_delta.open(tmp_path / "db", read_only=True) as other,
        pytest.raises(ReadOnlyError),
    ):
        other.quarantine(("n", "k"))


def test_its_records_are_not_among_the_namespaces(db: Database) -> None:
    db.put("n", "k", 1)
    db.quarantine(("n", "k"))

    assert "$quarantines" not in db.list_namespaces()
    with pytest.raises(InvalidDataError):
        db.put("$quarantines", "q1", {})


def test_it_travels_with_an_exported_log(db: Database) -> None:
    db.ingest([("a", RAIN), ("b", SNOW)], namespace="docs")
    held = db.quarantine(("docs", "a"), message="why")
    file = io.BytesIO()
    db.export_log(file)
    file.seek(0)

    with koru_delta.open(embedder=HashEmbedder(64)) as other:
        other.import_log(file)
        assert other.quarantines() == [held]
        assert found(other) == ["b: # Snow"]
        other.release("q1")
        assert found(other) == ["a: # Rain", "b: # Snow"]


def test_another_process_sees_it_and_can_release_it(tmp_path: Path) -> None:
    words = HashEmbedder(64)
    with (
        koru_delta.open(tmp_path / "db", embedder=words) as one,
        koru_delta.open(tmp_path / "db", embedder=words) as two,
    ):
        one.ingest([("a", RAIN), ("b", SNOW)], namespace="docs")
        assert len(found(two)) == 2
        one.quarantine(("docs", "a"))
        assert found(two) == ["b: # Snow"]
        two.release("q1")
        assert found(one) == ["a: # Rain", "b: # Snow"]


async def test_an_event_loop_can_trace_and_quarantine() -> None:
    async with await AsyncDatabase.open(embedder=HashEmbedder(64)) as adb:
        await adb.ingest([("a", RAIN)], namespace="docs")
        [hit] = await adb.similar("docs.chunks", "it rains")

        up = await adb.lineage(hit)
        held = await adb.quarantine(("docs", "a"))

        assert [version.namespace for version in up.versions] == ["docs", "docs.runs"]
        assert await adb.similar("docs.chunks", "it rains") == []
        assert await adb.quarantines() == await (await adb.as_of(None)).quarantines() == [held]
        assert len(await adb.release(held)) == 2
        assert len(await adb.similar("docs.chunks", "it rains")) == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.lists(st.integers(0, 20), max_size=3)),
            st.tuples(st.just("quarantine"), st.integers(0, 20)),
            st.tuples(st.just("release"), st.integers(0, 5)),
            st.tuples(st.just("hide"), st.integers(0, 20)),
            st.tuples(st.just("unhide"), st.integers(0, 20)),
        ),
        max_size=25,
    )
)
def test_a_version_is_found_unless_something_that_stands_hides_it(
    steps: list[tuple[str, object]],
) -> None:
    """Against a plain model: who hid what last, and which quarantines cover it."""
    with koru_delta.open() as db:
        made: list[Version] = []
        hidden_by: dict[str, str] = {}  # "hand" or "quarantine"
        covers: dict[str, set[str]] = {}
        cuts: list[tuple[int, list[str]]] = []
        for kind, what in steps:
            if kind == "put":
                assert isinstance(what, list)
                causes = [("derived_from", made[n % len(made)]) for n in what if made]
                made.append(db.put("n", f"k{len(made):02}", 0, causes=causes))
            elif kind == "release":
                assert isinstance(what, int)
                if covers:
                    name = sorted(covers)[what % len(covers)]
                    db.release(name)
                    mine = covers.pop(name)
                    for each in mine - set().union(*covers.values()):
                        if hidden_by.get(each) == "quarantine":
                            del hidden_by[each]
            elif made:
                assert isinstance(what, int)
                target = made[what % len(made)]
                if kind == "quarantine":
                    held = db.quarantine(target)
                    covers[held.id] = {v.id for v in held.versions}
                    assert covers[held.id] == {
                        target.id, *(v.id for v in db.descendants(target, kinds=["derived_from"])),
                    }  # fmt: skip
                    for each in covers[held.id]:
                        hidden_by.setdefault(each, "quarantine")
                elif kind == "hide":
                    db.hide_many([target])
                    hidden_by.setdefault(target.id, "hand")
                else:
                    db.unhide_many([target])
                    hidden_by.pop(target.id, None)
            shown = [version.key for version in made if version.id not in hidden_by]
            assert [row.key for row in db.query("n")] == shown
            assert sorted(held.id for held in db.quarantines()) == sorted(covers)
            cuts.append((db.stats()["seq"], shown))
        for seq, shown in cuts:
            assert [row.key for row in db.query("n", as_of=seq)] == shown


def test_a_cause_must_be_in_the_log(db: Database) -> None:
    with pytest.raises(UnknownCauseError):
        db.put("n", "k", 1, causes=[("derived_from", "ab" * 32)])


@pytest.mark.parametrize("meanwhile", ["held", "released"])
def test_a_text_that_is_embedded_anew_meanwhile_comes_back_as_well(
    db: Database, meanwhile: str
) -> None:
    db.ingest([("a", RAIN), ("b", SNOW)], namespace="docs")
    db.hide_many([row.version for row in db.query("docs.chunks", {"metadata.document": "b"})])
    first, second = db.quarantine(("docs", "a")), db.quarantine(("docs", "a"))

    db.reembed("docs.chunks", "other", HashEmbedder(16))

    assert db.query("docs.chunks") == []
    db.release(first if meanwhile == "held" else second)
    assert db.query("docs.chunks") == []
    assert len(db.quarantines()[0].versions) == 3
    db.release(second if meanwhile == "held" else first)
    [row] = db.query("docs.chunks")
    assert (row.value["text"], list(row.version.vectors)) == (RAIN.strip(), ["other"])


def test_a_quarantine_reads_well(db: Database) -> None:
    db.put("n", "a", {"text": "rain"})

    held = db.quarantine(("n", "a"), author="ada", message="wrong")

    assert str(held).startswith("q1: n/a and what came of it, 1 version, since ")
    assert str(held).endswith(" by ada (wrong)")
