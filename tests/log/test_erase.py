"""What is erased is gone from every file and every moment, and what it was is still proved."""

from __future__ import annotations

import asyncio
import io
import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest

import koru_delta
from koru_delta import (
    AsyncDatabase,
    CausalFilter,
    Database,
    ErasedError,
    errors,
    verify_consistency,
    verify_inclusion,
)
from koru_delta.search import graph, texts, upkeep
from koru_delta.storage import clean, scrubber
from koru_delta.testing import FixedClock, HashEmbedder
from tests.indexing import SMALL, lower
from tests.worker import Worker

SECRET = "Zanzibarwort"  # one word, found nowhere else
SECRET_VECTOR = [0.123456789, -0.987654321, 0.555555555, 0.31415926]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db"


@pytest.fixture
def kept(path: Path, clock: FixedClock) -> Iterator[Database]:
    with koru_delta.open(path, embedder=HashEmbedder(), clock=clock) as database:
        yield database


def places(path: Path, *needles: bytes) -> list[str]:
    """The files that hold any of some bytes, in whatever case."""
    return [
        str(file.relative_to(path))
        for file in sorted(path.rglob("*"))
        if file.is_file()
        if any(needle.lower() in file.read_bytes().lower() for needle in needles)
    ]


def incompressible(size: int) -> str:
    return os.urandom(size // 2).hex()


# What is gone, and what stays


def test_an_erased_value_raises_wherever_it_is_asked_for_and_its_record_stays(
    db: Database, clock: FixedClock
) -> None:
    first = db.embed("n", "a", [1.0, 0.0], {"text": SECRET})
    clock.advance(seconds=1)
    second = db.put("n", "a", {"text": "harmless"})
    record = first.record()
    clock.advance(seconds=1)

    gone = db.erase(first, author="Ada", message="asked to")

    assert (gone.versions, gone.is_clean) == ((first.id,), True)
    [entry] = gone.entries
    assert (entry.operation, entry.targets, entry.is_annotation) == ("erase", (first.id,), True)
    assert (entry.value, entry.target, entry.author) == (None, None, "Ada")
    again = db.get_version(first.id)
    assert again.record() == record
    assert again.is_erased
    assert again.erasure == koru_delta.Erasure(entry.id, entry.time, "Ada", "asked to")
    for asked in (
        lambda: again.value,
        lambda: again.raw,
        lambda: db.get("n", "a", as_of=first),
        lambda: db.get("n", "a", None, as_of=first),
        lambda: db.get_raw("n", "a", as_of=first),
        lambda: db.get_many("n", ["a"], as_of=first),
        lambda: db.vectors(first),
        lambda: db.vectors(first.id),
        lambda: db.diff(first, second),
        lambda: db.revert("n", "a", first),
        lambda: db.history("n", "a")[0].value,
        lambda: next(db.changes()).value,
    ):
        with pytest.raises(ErasedError, match="asked to") as told:
            asked()
        error = told.value
        assert (error.namespace, error.key, error.version) == ("n", "a", first.id)
        assert (error.erased_at, error.reason, error.horizon) == (entry.time, "asked to", None)
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert db.version("n", "a", as_of=first) == first
    assert not db.contains("n", "a", as_of=first)
    assert db.get("n", "a") == {"text": "harmless"}
    assert db.history("n", "a") == [first, second]
    assert db.history("n", "a", include_annotations=True) == [first, second, entry]
    assert list(db.changes()) == [first, second, entry]
    report = db.verify()
    assert (report.ok, report.erased, report.versions) == (True, 1, 3)


def test_what_was_erased_is_out_of_search_at_every_moment_and_the_rest_is_not(
    db: Database,
) -> None:
    old = db.embed("n", "a", f"{SECRET} falls", {"text": f"{SECRET} falls", "x": 1})
    other = db.embed("n", "b", "rain falls", {"text": "rain falls", "x": 1})
    db.embed("n", "a", "sun falls", {"text": "sun falls", "x": 1})
    everything = CausalFilter(exclude_superseded=False)

    def found(**moment: Any) -> list[list[str]]:
        return [
            sorted(hit.key for hit in db.similar("n", "falls", **moment)),
            sorted(hit.key for hit in db.search("n", "falls", **moment)),
            sorted(hit.key for hit in db.search("n", "falls", mode="text", **moment)),
            [row.key for row in db.query("n", **moment)],
            [row.key for row in db.query("n", {"x": 1}, **moment)],
            [row.key for row in db.query("n", {"x": 1}, causal=everything, **moment)],
            db.list_keys("n", **moment),
        ]

    assert found(as_of=other) == [["a", "b"]] * 7  # and so everything was read once
    db.erase(old)
    assert found(as_of=other) == [["b"]] * 7
    assert found(as_of=old) == [[]] * 7
    assert found() == [["a", "b"]] * 7
    assert db.count("n", as_of=other) == db.count("n", {"x": 1}, as_of=other) == 1
    assert db.count("n", text="falls", as_of=other) == 1
    assert db.search("n", SECRET, mode="text", as_of=other) == []
    assert db.list_namespaces(as_of=old) == ["n"]


def test_a_key_is_erased_with_all_it_ever_held_and_deleted(db: Database) -> None:
    versions = [db.put("n", "a", {"n": n}) for n in range(5)]
    db.put("n", "b", 1)

    gone = db.erase(("n", "a"))

    assert sorted(gone.versions) == sorted(version.id for version in versions)
    assert [entry.operation for entry in gone.entries] == ["erase", "delete"]
    assert len({entry.tx_time for entry in gone.entries}) == 1
    with pytest.raises(errors.KeyNotFoundError):
        db.get("n", "a")
    assert db.list_keys("n") == ["b"]
    for version in versions:
        with pytest.raises(ErasedError):
            db.get("n", "a", as_of=version)
    assert db.erase(("n", "a")).versions == ()  # what is erased stays so
    assert db.put("n", "a", {"n": 0}, if_match=None).value == {"n": 0}
    assert db.get("n", "a") == {"n": 0}


def test_what_a_key_holds_now_can_be_erased_and_still_stands(db: Database) -> None:
    db.put("n", "a", 1)
    now = db.embed("n", "a", [1.0, 0.0], {"text": SECRET})
    assert db.get("n", "a") == {"text": SECRET}  # from memory from now on
    db.erase(now)

    with pytest.raises(ErasedError):
        db.get("n", "a")
    assert db.version("n", "a") == now
    assert db.list_keys("n") == []
    with pytest.raises(errors.ConflictError):
        db.put("n", "a", 2, if_match=None)
    with pytest.raises(ErasedError):
        db.embed("n", "a", [0.0, 1.0])  # keeps what it holds
    with db.transaction() as tx:
        with pytest.raises(ErasedError):
            tx.get("n", "a")
        assert not tx.contains("n", "a")
    db.delete("n", "a", if_match=now)
    assert db.history("n", "a")[-1].is_tombstone


def test_a_value_that_others_hold_too_stays_with_them(kept: Database, path: Path) -> None:
    large = {"text": SECRET + incompressible(6000)}
    for value in (large, {"text": SECRET}):
        one, other = kept.put("n", "a", value), kept.put("n", "b", value)
        kept.embed("v", "x", SECRET_VECTOR, value)
        also = kept.embed("v", "y", SECRET_VECTOR, value)
        kept.erase([one, ("v", "x")])
        assert kept.get("n", "b") == value
        assert kept.get_version(other.id).value == value
        assert kept.vectors(also)["default"].tolist() == np.float32(SECRET_VECTOR).tolist()
        assert [hit.key for hit in kept.similar("v", SECRET_VECTOR)] == ["y"]
        kept.erase([("n", "b"), ("v", "y")])
        assert kept.verify().ok
    assert places(path, SECRET.encode()) == []
    assert kept.stats()["objects"] == 0


def test_what_was_told_by_its_difference_to_an_erased_value_is_still_there(
    kept: Database,
) -> None:
    base = incompressible(20_000)
    versions = [kept.put("n", "a", {"base": base, "n": n, "at": base[n]}) for n in range(8)]
    con = apsw.Connection(str(kept.directory / "log.db"))  # type: ignore[operator]
    assert con.execute("SELECT count(*) FROM objects WHERE base IS NOT NULL").get == 7
    con.close()

    kept.erase(versions[0])
    assert [v.value["n"] for v in kept.history("n", "a")[1:]] == list(range(1, 8))
    kept.erase(versions[7])
    kept.erase([versions[3], versions[4]])
    assert [v.value["n"] for v in kept.history("n", "a") if not v.is_erased] == [1, 2, 5, 6]
    assert kept.verify().ok
    assert kept.stats()["log_bytes"] < 200_000
    kept.put("n", "a", {"base": base, "n": 9})
    assert kept.get("n", "a")["n"] == 9
    assert kept.verify().ok


def test_what_was_erased_may_be_written_again(db: Database) -> None:
    large = {"text": SECRET * 1000}
    first = db.embed("n", "a", SECRET_VECTOR, large)
    db.erase(first)
    with db.transaction() as tx:
        tx.embed("n", "a", SECRET_VECTOR, large)
    again = db.version("n", "a")
    assert again.value == large
    assert [hit.version for hit in db.similar("n", SECRET_VECTOR)] == [again]
    with db.transaction() as tx:  # in one commit with the erase of the same
        tx.embed("n", "b", SECRET_VECTOR, large)
        tx.erase(again, message="why not")
    assert db.get("n", "b") == large
    assert [hit.key for hit in db.similar("n", SECRET_VECTOR)] == ["b"]
    assert db.verify().ok


def test_only_puts_of_one_s_own_can_be_erased(db: Database) -> None:
    version = db.put("n", "a", 1)
    deleted = db.delete("n", "a")
    hidden = db.hide("n", "a", version=version)
    db.tag("here")
    tag = list(db.changes())[-1]
    root = db.stats()["root"]

    for what, error in (
        (deleted, errors.AnnotationError),
        (hidden, errors.AnnotationError),
        (("n", "never"), errors.KeyNotFoundError),
        ("0" * 64, errors.UnknownVersionError),
        ([version, ("n", "never")], errors.KeyNotFoundError),
        (tag, errors.InvalidDataError),
        (("$tags", "here"), errors.InvalidDataError),
        (7, errors.InvalidDataError),
        ([7], errors.InvalidDataError),
        ([("n", "a", "b")], errors.InvalidDataError),
    ):
        with pytest.raises(error):
            db.erase(what)  # type: ignore[arg-type]
    assert db.stats()["root"] == root
    assert db.erase([]).versions == ()
    assert db.stats()["root"] == root
    assert db.get_version(version.id).value == 1


def test_a_hidden_version_can_be_erased_and_an_erased_one_hidden(db: Database) -> None:
    version = db.embed("n", "a", [1.0, 0.0], {"x": 1})
    db.similar("n", [1.0, 0.0])
    db.hide("n", "a")
    db.erase(version)
    db.unhide("n", "a", version=version)
    assert db.similar("n", [1.0, 0.0]) == []
    db.hide("n", "a", version=version)
    assert db.query("n") == []
    assert db.verify().ok


# Where copies were


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some dozen rows have every kind of file, made when they are asked for."""
    lower(SMALL, monkeypatch.setattr)
    monkeypatch.setattr(upkeep.Upkeep, "nudge", lambda _self, _space: None)
    monkeypatch.setattr(texts, "SAVE_SLOTS", 1)


@pytest.mark.usefixtures("small")
def test_no_file_of_the_database_holds_what_was_erased(path: Path, clock: FixedClock) -> None:
    vector = np.array([*SECRET_VECTOR, *range(1, 13)], dtype=np.float32)
    needles = (SECRET.encode(), vector[:4].tobytes())
    noise = np.random.default_rng(5).standard_normal((200, 16))
    with koru_delta.open(path, clock=clock) as db:
        for round in range(2):  # one goes into the file, the other is in the log ahead of it
            db.put("n", "small", {"text": f"{SECRET} is small"})
            db.put("n", "large", {"text": SECRET + incompressible(300_000)})
            secret = db.embed("v", "s", vector, {"text": f"{SECRET} as a vector"}, metric="dot")
            items = [(f"k{n}", row, {"text": f"noise {n}"}) for n, row in enumerate(noise)]
            db.embed_many("v", items)
            db.build_index()
            db.build_index("v")
            db.build_index("n")
            assert [hit.key for hit in db.similar("v", vector, k=1)] == ["s"]
            assert [hit.key for hit in db.search("n", SECRET, mode="text")]
            if round == 0:
                db.compact()
        found = places(path, *needles)
        assert "log.db" in found
        assert any(name.startswith("index/text/") for name in found)
        assert any("/vectors-" in name for name in found)
        assert any("/graph" in name for name in found) == graph.available()

        gone = db.erase([("n", "small"), ("n", "large"), ("v", "s")], message="gone")

        assert gone.is_clean
        assert places(path, *needles) == []
        assert [hit.key for hit in db.similar("v", vector, k=1)] != ["s"]
        assert db.similar("v", vector, k=300, exact=True, as_of=secret).considered == 200
        assert db.search("n", SECRET, mode="text") == []
        db.build_index()
        assert db.verify().ok
    assert places(path, *needles) == []
    with koru_delta.open(path, clock=clock) as db:
        assert len(db.similar("v", vector, k=300, exact=True)) == 200
        assert db.search("v", SECRET, mode="text") == []
        assert db.verify().ok
    assert places(path, *needles) == []


@pytest.mark.usefixtures("small")
def test_index_files_from_before_an_erasure_are_not_believed(
    path: Path, tmp_path: Path, clock: FixedClock
) -> None:
    rows = np.random.default_rng(6).standard_normal((100, 4))
    with koru_delta.open(path, clock=clock) as db:
        db.embed_many("v", [(f"k{n}", row, {"text": f"word{n}"}) for n, row in enumerate(rows)])
        db.build_index("v")
    old = {file: file.read_bytes() for file in (path / "index").rglob("*") if file.is_file()}
    with koru_delta.open(path, clock=clock) as db:
        db.erase(("v", "k7"))
    for file, data in old.items():  # as an old backup may bring them back
        file.write_bytes(data)
    with koru_delta.open(path, clock=clock) as db:
        found = {hit.key for hit in db.similar("v", rows[7], k=200, exact=True)}
        assert found == {f"k{n}" for n in range(100)} - {"k7"}
        assert db.search("v", "word7", mode="text") == []
        past = {hit.key for hit in db.similar("v", rows[7], k=200, exact=True, as_of=100)}
        assert past == found


def test_another_process_does_not_go_on_serving_what_was_erased(path: Path) -> None:
    worker = Worker()
    try:
        with koru_delta.open(path, durability="relaxed") as db:
            worker.ask(do="open", path=str(path), now=db.stats()["seq"])
            version = db.put("n", "k", {"text": SECRET})
            db.embed("v", "k", [1.0, 0.0], {"text": SECRET})
            assert worker.ask(do="get", namespace="n", key="k") == [{"text": SECRET}]
            assert worker.ask(do="get", namespace="n", key="k") == [{"text": SECRET}]
            assert [hit.key for hit in db.similar("v", [1.0, 0.0])] == ["k"]
            assert db.get("n", "k") == {"text": SECRET}
            given = {"what": [version.id, ["v", "k"]]}
            [made, _] = worker.ask(do="write", verb="erase", given=given)
            assert len(made) == 3
            with pytest.raises(ErasedError):
                db.get("n", "k")
            assert db.similar("v", [1.0, 0.0]) == []
            assert worker.ask(do="get", namespace="n", key="k") == {"error": "ErasedError"}
            db.put("n", "k", 1)
            assert worker.ask(do="get", namespace="n", key="k") == [1]
            worker.ask(do="close")
        assert places(path, SECRET.encode()) == []
    finally:
        worker.close()


def test_a_reader_in_the_way_delays_the_cleaning_and_no_answer(
    kept: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrubber, "_READERS_LEAVE_MS", 20)
    kept.put("n", "a", {"text": SECRET})
    reader = apsw.Connection(str(path / "log.db"))
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM versions").get == 1

    gone = kept.erase(("n", "a"))

    assert not gone.is_clean
    with pytest.raises(ErasedError):
        kept.get("n", "a", as_of=1)
    assert not kept.erase(kept.put("n", "a", 1)).is_clean
    reader.execute("COMMIT")
    reader.close()
    kept.sweep()
    assert places(path, SECRET.encode()) == []
    assert kept.erase(kept.put("n", "a", 2)).is_clean


def test_pages_that_went_into_the_file_uncleaned_are_cleaned_there(path: Path) -> None:
    with koru_delta.open(path) as db:
        for number in range(50):
            db.put("n", f"k{number}", {"n": number, "filler": "x" * 900})
    file = path / "log.db"
    page_bytes = int.from_bytes(file.read_bytes()[16:18], "big")
    pages = file.stat().st_size // page_bytes
    with file.open("r+b") as pages_file:  # as SQLite leaves copies of rows that it has moved
        dirty = 0
        for number in range(1, pages):
            pages_file.seek(number * page_bytes)
            page = pages_file.read(page_bytes)
            rows, content = (int.from_bytes(page[at : at + 2], "big") for at in (3, 5))
            if page[0] == 13 and content - (8 + 2 * rows) > len(SECRET):
                pages_file.seek(number * page_bytes + content - len(SECRET))
                pages_file.write(SECRET.encode())
                dirty += 1
        assert dirty > 3
    reader = apsw.Connection(str(file))
    reader.execute("INSERT INTO meta VALUES('scrub', '{\"namespaces\":[],\"late\":true}')")
    reader.close()

    with koru_delta.open(path) as db:
        assert places(path, SECRET.encode()) == []
        assert db.erase(("n", "k1")).is_clean
        assert db.verify().ok
        assert [db.get("n", f"k{n}")["n"] for n in range(2, 50)] == list(range(2, 50))
    assert places(path, SECRET.encode()) == []


def test_a_disk_that_fails_after_an_erasure_does_not_make_it_look_undone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> bool:
        raise apsw.FullError("database or disk is full")

    with koru_delta.open(path) as db:
        db.put("n", "a", {"text": SECRET * 100_000})
        db.put("n", "b", {"text": SECRET})
        with monkeypatch.context() as patch:
            patch.setattr(clean, "checkpoint", full)

            gone = db.erase([("n", "a"), ("n", "b")])

            assert (len(gone.versions), gone.is_clean) == (2, False)
            assert db.sweep().versions == 0
            with koru_delta.open(path) as other:  # it can be opened, and read
                assert other.list_keys("n") == []
        assert db.erase(db.put("n", "c", 1)).is_clean
    assert places(path, SECRET.encode()) == []


def test_a_process_killed_before_it_had_cleaned_up_leaves_that_to_the_next(
    path: Path, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with koru_delta.open(path, clock=clock) as db:
        db.put("n", "a", {"text": SECRET})
        db.put("n", "a", {"text": "other"})
        (path / "index" / "text").mkdir(parents=True)
        (path / "index" / "text" / "text-0.kdx").write_text(SECRET)
        with monkeypatch.context() as patch:
            patch.setattr(db._log, "after_erase", lambda: None)  # killed there
            db.erase(("n", "a"))
        assert places(path, SECRET.encode())
        copy = path.parent / "copy"
        copy.mkdir()
        for file in path.rglob("*"):
            if file.is_file() and file.name != "lock":
                target = copy / file.relative_to(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
    with koru_delta.open(copy, clock=clock) as db:
        assert places(copy, SECRET.encode()) == []
        assert db.verify().ok


# The log


def test_proofs_made_before_and_after_an_erasure_hold(db: Database) -> None:
    first = db.put("n", "a", {"text": SECRET})
    db.put("n", "b", 1)
    old = db.tree_head()
    before = db.prove(first, old)

    db.erase(first)

    new = db.tree_head()
    assert verify_inclusion(before, old)
    assert verify_inclusion(db.prove(first.id, old), old)
    assert verify_inclusion(db.prove(first, new), new)
    assert verify_consistency(db.prove_consistency(old.size), old, new)


def test_a_log_with_erased_values_can_be_carried_elsewhere(db: Database) -> None:
    first = db.embed("v", "a", SECRET_VECTOR, {"text": SECRET}, model="m", metric="l2")
    shared = db.embed("v", "b", SECRET_VECTOR, {"text": "shared vector"}, model="m")
    large = db.put("n", "large", SECRET * 1000)
    before = io.BytesIO()
    db.export_log(before)
    db.erase([first, large], message="gone")
    after = io.BytesIO()
    db.export_log(after)
    assert SECRET.encode() not in after.getvalue()

    with koru_delta.open() as other:  # one that never held it
        other.import_log(io.BytesIO(after.getvalue()))
        assert other.stats()["root"] == db.stats()["root"]
        with pytest.raises(ErasedError, match="gone"):
            other.get("v", "a")
        assert other.similar("v", SECRET_VECTOR)[0].version == shared
        assert other.similar("v", SECRET_VECTOR, as_of=first.seq) == []
        report = other.verify()
        assert (report.ok, report.erased) == (True, 2)
        again = io.BytesIO()
        other.export_log(again)
        assert again.getvalue() == after.getvalue()
    with koru_delta.open() as other:  # one that held it
        other.import_log(io.BytesIO(before.getvalue()))
        assert other.get("n", "large") == SECRET * 1000
        assert len(other.similar("v", SECRET_VECTOR)) == 2
        assert other.import_log(io.BytesIO(after.getvalue())) == 1
        with pytest.raises(ErasedError):
            other.get("n", "large")
        assert [hit.key for hit in other.similar("v", SECRET_VECTOR)] == ["b"]
        # What was exported before brings nothing back.
        assert other.import_log(io.BytesIO(before.getvalue())) == 0
        with pytest.raises(ErasedError):
            other.get("n", "large")
        assert other.verify().ok


def test_an_export_up_to_a_moment_before_an_erasure_is_refused(db: Database) -> None:
    first = db.put("n", "a", 1)
    second = db.put("n", "b", 2)
    erased = db.erase(second).entries[0]
    assert db.export_log(io.BytesIO(), as_of=first) == 4
    with pytest.raises(ErasedError, match="export"):
        db.export_log(io.BytesIO(), as_of=second)
    db.export_log(io.BytesIO(), as_of=erased)


def test_a_value_missing_from_an_import_without_an_erasure_is_damage(db: Database) -> None:
    version = db.put("n", "a", {"text": SECRET})
    lines = io.BytesIO()
    db.export_log(lines)
    cut = lines.getvalue().replace(b',"value":{"text":"%s"}' % SECRET.encode(), b"")
    assert cut != lines.getvalue()
    with koru_delta.open() as other:
        with pytest.raises(errors.CorruptionError, match=version.id[:16]):
            other.import_log(io.BytesIO(cut))
        assert other.stats()["versions"] == 0


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE versions SET body = NULL, erased = 3 WHERE seq = 2",
        "UPDATE versions SET erased = NULL WHERE seq = 1",
        "UPDATE versions SET erased = 2 WHERE seq = 1",
        "UPDATE versions SET body = x'31' WHERE seq = 1",
        "DELETE FROM marks WHERE kind = 4",
    ],
)
def test_verify_tells_an_erasure_from_damage(path: Path, harm: str) -> None:
    with koru_delta.open(path) as db:
        first = db.put("n", "a", 1)
        db.put("n", "b", 2)
        db.erase(first)
        assert db.verify().ok
    con = apsw.Connection(str(path / "log.db"))
    con.execute(harm)
    con.close()
    with koru_delta.open(path) as db:
        assert not db.verify().ok


def test_a_database_of_format_2_is_opened_and_can_erase(path: Path, clock: FixedClock) -> None:
    with koru_delta.open(path, clock=clock) as db:
        version = db.embed("n", "a", [1.0, 0.0], {"text": SECRET + incompressible(90_000)})
        db.put("n", "b", 1)
    con = apsw.Connection(str(path / "log.db"))
    con.execute("ALTER TABLE versions DROP COLUMN erased")
    con.execute("DROP TABLE tiers")
    con.execute("DROP INDEX objects_by_base")
    con.execute("PRAGMA user_version = 2")
    con.execute("PRAGMA journal_mode = DELETE").fetchall()
    con.execute("PRAGMA auto_vacuum = NONE").fetchall()
    con.execute("VACUUM")
    con.execute("PRAGMA journal_mode = WAL").fetchall()
    con.close()
    with pytest.raises(errors.ReadOnlyError, match="older format"):
        koru_delta.open(path, read_only=True)

    with koru_delta.open(path, clock=clock) as db:
        assert db.verify().ok
        assert [hit.version for hit in db.similar("n", [1.0, 0.0])] == [version]
        assert db.erase(version).is_clean
        assert db.similar("n", [1.0, 0.0]) == []
        assert places(path, SECRET.encode()) == []
        assert db.verify().ok
        assert db.compact() > 0  # from now on it gives room back by itself
        con = apsw.Connection(str(path / "log.db"))
        assert con.execute("PRAGMA auto_vacuum").get == 2
        con.close()
        assert db.verify().ok


def test_what_an_erasure_is_caused_by_and_said_of_it_is_recorded(db: Database) -> None:
    request = db.put("requests", "r1", {"from": "somebody"})
    version = db.put("n", "a", 1)
    [entry] = db.erase(version, causes=[request], run="r", message="m").entries
    assert [cause.id for cause in entry.causes] == [request.id]
    assert (entry.run, entry.message) == ("r", "m")
    assert entry in db.descendants(request)


def test_readers_and_an_eraser_at_once_see_a_value_or_that_it_was_erased(path: Path) -> None:
    with koru_delta.open(path, durability="relaxed") as db:
        base = incompressible(8000)
        versions = [
            db.embed("n", f"k{n % 5}", [1.0, float(n)], {"base": base, "n": n}) for n in range(60)
        ]
        wrong: list[object] = []
        done = threading.Event()

        def read() -> None:
            number = 0
            while not done.is_set():
                number += 1
                version = versions[number % len(versions)]
                try:
                    value = db.get_version(version.id).value
                    if value["n"] != version.seq - 1:
                        wrong.append(value)
                    for hit in db.similar("n", [1.0, 5.0], as_of=version, k=3):
                        _ = hit.value
                except ErasedError:
                    pass
                except Exception as error:  # noqa: BLE001 - told to the thread that looks
                    wrong.append(error)

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for start in range(0, 60, 6):
            db.erase(versions[start : start + 6])
        done.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert db.verify().ok


def test_the_same_verbs_are_awaited() -> None:
    async def go() -> None:
        async with await AsyncDatabase.open(None) as db:
            version = await db.put("n", "a", 1)
            async with db.transaction() as tx:
                await tx.erase([version], message="m")
            with pytest.raises(ErasedError):
                await db.get("n", "a")
            await db.put("n", "b", 1)
            assert len((await db.erase(("n", "b"))).versions) == 1
            policy = await db.retain("n", versions=1)
            assert (await db.retentions()) == {"n": policy}
            assert (await db.sweep()).versions == 0
            assert (await db.compact()) >= 0

    asyncio.run(go())
