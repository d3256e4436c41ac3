"""Proofs, care and files of a database, one promise at a time."""

from __future__ import annotations

import io
import json
import os
import pickle
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import koru_delta
from koru_delta import Database, TreeHead, Version, errors, verify_consistency, verify_inclusion
from koru_delta.search import tune as tuning
from koru_delta.testing import FixedClock, HashEmbedder
from tests.test_database import keys


def test_a_stranger_can_check_that_a_version_is_in_the_log(db: Database) -> None:
    versions = [db.put("n", f"k{i}", i) for i in range(20)]
    versions += db.put_many([("m", f"k{i}", i) for i in range(5)])
    early = db.tree_head()
    db.put("n", "k", "later")
    head = db.tree_head()

    for version in versions:
        proof = db.prove(version)
        assert verify_inclusion(proof, head)
        assert not verify_inclusion(proof, early)
        assert verify_inclusion(db.prove(version, early), early)
        forged = {**proof.record, "author": "mallory"}
        assert not verify_inclusion(type(proof)(**{**_fields(proof), "record": forged}), head)
    link = db.prove_consistency(early.size)
    assert verify_consistency(link, early, head)
    assert not verify_consistency(link, TreeHead(early.size, "00" * 32), head)
    with pytest.raises(errors.QueryError):
        db.prove_consistency(head.size + 1)


@pytest.mark.parametrize("call", ["build_index", "tune", "verify"])
def test_what_takes_long_shows_a_bar_if_told_to_and_none_if_not(
    db: Database, call: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "_SECONDS", 0.0)
    monkeypatch.setattr(tuning, "_CODED_ROWS", (64, 128))
    monkeypatch.setattr(tuning, "_FED_ROWS", 64)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes standard error for a terminal
    db.embed_many("v", [(f"k{n}", vector) for n, vector in enumerate(np.eye(8))])
    done: list[tuple[int, int]] = []
    getattr(db, call)(progress=lambda *so_far: done.append(so_far))
    assert done[-1][0] == done[-1][1] > 0
    for quiet in (False, None):
        getattr(db, call)(progress=quiet)
        assert capsys.readouterr() == ("", "")
    getattr(db, call)(progress=True)
    assert capsys.readouterr().err
    with pytest.raises(errors.InvalidDataError, match="progress is a function"):
        getattr(db, call)(progress="yes")


def _fields(proof: Any) -> dict[str, Any]:
    return {name: getattr(proof, name) for name in type(proof).__slots__}


def test_an_exported_log_is_the_same_log(db: Database, tmp_path: Path) -> None:
    first = db.embed("docs", "a", "some text", message="first")
    db.put("big", "k", "x" * 20_000, causes=[first])
    db.put("big", "k", "x" * 20_000 + "y", valid_from="2025-01-01T00:00:00Z", ttl=60)
    half = db.delete("docs", "a")
    file = tmp_path / "log.jsonl"
    assert db.export_log(file, as_of=half) == len(file.read_bytes().splitlines())

    with koru_delta.open(tmp_path / "copy", clock=FixedClock()) as copy:
        assert copy.import_log(file) == 4
        assert copy.stats()["root"] == db.stats()["root"]
        assert copy.get("docs", "a", as_of=first) == {"text": "some text"}
        assert copy.verify().ok
        assert copy.import_log(file) == 0

        db.put("n", "k", 1)
        whole = io.BytesIO()
        db.export_log(whole)
        whole.seek(0)
        assert copy.import_log(whole) == 1
        assert copy.tree_head() == db.tree_head()

        copy.put("n", "k", "my own")
        db.put("n", "k", "theirs")
        db.export_log(file)
        with pytest.raises(errors.DivergedLogError, match="from commit 5 on"):
            copy.import_log(file)
        assert copy.get("n", "k") == "my own"


@pytest.mark.parametrize("damage", ["cut", "value", "record", "root", "order", "text", "empty"])
def test_a_damaged_export_is_refused_whole(db: Database, damage: str) -> None:
    db.put("n", "k", {"v": "needle"})
    db.embed("n", "l", [1.0, 2.0], {"v": 2})
    file = io.BytesIO()
    db.export_log(file)
    lines = file.getvalue().splitlines(keepends=True)
    match damage:
        case "cut":
            lines = lines[:-1]
        case "value":
            lines = [line.replace(b"needle", b"noodle") for line in lines]
        case "record":
            lines = [line.replace(b'"local":1', b'"local":7') for line in lines]
        case "root":
            lines[2] = json.dumps({"commit": 0, "root": "00" * 32}).encode() + b"\n"
        case "order":
            lines = [lines[0], *lines[3:], *lines[1:3]]
        case "text":
            lines[1] = b"not json\n"
        case "empty":
            lines = []
    with koru_delta.open(None) as copy:
        with pytest.raises((errors.InvalidDataError, errors.CorruptionError)):
            copy.import_log(io.BytesIO(b"".join(lines)))
        assert copy.stats()["seq"] == 0
        assert copy.list_namespaces() == []
        copy.put("n", "k", 1)
        assert copy.verify().ok


def test_a_backup_is_a_database_of_its_own(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "a") as mine:
        mine.put("n", "k", 1)
        mine.backup(tmp_path / "b")
        mine.put("n", "k", 2)
        with koru_delta.open(tmp_path / "b") as copy:
            assert copy.get("n", "k") == 1
            assert copy.verify().ok
            assert copy.verify().compared
        with pytest.raises(errors.NotADatabaseError):
            mine.backup(tmp_path / "b")


def test_everything_is_there_after_a_reopen(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path, embedder=HashEmbedder()) as first:
        version = first.embed("docs", "a", "rain in spring")
        first.put("n", "big", "x" * 100_000)
        first.tag("t")
    with koru_delta.open(tmp_path, embedder=HashEmbedder()) as again:
        assert again.get("docs", "a") == {"text": "rain in spring"}
        assert keys(again.similar("docs", "rain")) == ["a"]
        assert again.get("docs", "a", as_of="tag:t") == {"text": "rain in spring"}
        assert again.get_version(version.id) == version
        assert len(again.get("n", "big")) == 100_000
        assert again.verify().ok
    with koru_delta.open(tmp_path, read_only=True) as reader:
        assert reader.contains("docs", "a")
        with pytest.raises(errors.ReadOnlyError):
            reader.put("n", "k", 1)


def test_the_files_are_for_their_owner_only(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "new") as database:
        database.put("n", "k", 1)
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
        for file in (tmp_path / "new").iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


def test_an_in_memory_database_leaves_nothing_behind() -> None:
    database = koru_delta.open()
    folder = database._log.engine.directory
    database.put("n", "k", 1)
    database.close()
    database.close()
    assert not folder.exists()


def test_large_values_that_change_a_little_take_little_room(tmp_path: Path) -> None:
    words = np.random.default_rng(1).integers(0, 10**9, 20_000)
    text = " ".join(map(str, words))
    with koru_delta.open(tmp_path, durability="relaxed") as database:
        for number in range(100):
            database.put("n", "k", {"text": f"{text} {number}"})
        for number in (0, 50, 99):
            assert database.history("n", "k")[number].value == {"text": f"{text} {number}"}
        assert database.verify().ok
    assert (tmp_path / "log.db").stat().st_size < 5 * len(text)


def test_threads_that_put_at_once_share_commits_of_the_disk(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path) as database:

        def write(thread: int) -> None:
            for number in range(50):
                database.put(f"n{thread}", f"k{number}", number)

        threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = database.stats()
        assert stats["seq"] == stats["commits"] == 400
        assert stats["transactions"] <= 0.6 * 400
        assert all(database.count(f"n{n}") == 50 for n in range(8))
        assert database.verify().ok


def test_a_refused_batch_does_not_disturb_those_it_shares_a_commit_with(db: Database) -> None:
    from koru_delta.log.append import Appender

    put = db._intents.put
    good = [put("new", "a", 1, {}), put("new", "b", 2, {})]
    bad = [put("fresh", "c", 3, {}), put("new", "a", 4, {"if_match": None})]
    with db._log.engine.writing(lambda _a, _b: None) as writer:
        appender = Appender(writer, "local", db._log.clock())
        appender.append(good)
        with pytest.raises(errors.ConflictError):
            appender.append(bad)
        appender.append([put("fresh", "d", 5, {})])
    assert db.list_namespaces() == ["fresh", "new"]
    assert db.list_keys("fresh") == ["d"]
    assert db.verify().ok


def test_importing_is_light() -> None:
    code = "import koru_delta, sys; print([m for m in ('pydantic', 'typer', 'rich', 'jsonpatch', " \
           "'langchain_core', 're2', 'wordllama') if m in sys.modules])"  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "[]"


def test_every_public_name_says_what_it_is() -> None:
    for name in koru_delta.__all__:
        thing = getattr(koru_delta, name)
        assert name.startswith("__") or name == "KEEP" or (thing.__doc__ or "").strip(), name


def test_versions_read_well(db: Database) -> None:
    version = db.put("users", "alice", 1)
    assert repr(version).startswith(f"<Version {version.id[:12]} put 'users'/'alice' seq=1")
    assert version == db.get_version(version)
    assert len({version, db.get_version(version)}) == 1
    assert isinstance(version, Version)
    assert version.record()["key"] == "alice"


def test_a_write_that_cannot_be_does_not_fail_those_it_shares_a_commit_with(
    tmp_path: Path,
) -> None:
    failed: list[BaseException] = []
    with koru_delta.open(tmp_path, durability="relaxed") as db:

        def good(thread: int) -> None:
            try:
                for number in range(100):
                    db.put("a", f"{thread}-{number}", number)
            except BaseException as error:  # noqa: BLE001 - told below
                failed.append(error)

        threads = [threading.Thread(target=good, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(100):
            with pytest.raises(errors.InvalidTimestampError):
                db.put("a", "b", 1, valid_to="2000-01-01T00:00:00Z")
        for thread in threads:
            thread.join()
        assert failed == []
        assert db.count("a") == 300


@pytest.mark.parametrize("when", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_outside_the_calendar_is_refused(db: Database, when: str) -> None:
    with pytest.raises(errors.InvalidTimestampError):
        db.put("a", "k", 1, valid_from=when)
    with pytest.raises(errors.InvalidTimestampError):
        db.get("a", "k", valid_at=when)


@pytest.mark.parametrize("now", [1.5, True, -5, 2**62, None, "now"])
def test_a_clock_that_tells_no_time_is_named(now: Any) -> None:
    with (
        koru_delta.open(None, clock=lambda: now) as db,
        pytest.raises(errors.InvalidTimestampError, match="clock"),
    ):
        db.put("a", "k", 1)


def test_one_string_is_no_list_of_keys(db: Database) -> None:
    db.put_many([("n", key, 1) for key in "abc"])
    for call in (db.delete_many, db.get_many):
        with pytest.raises(errors.InvalidDataError, match="list of keys"):
            call("n", "abc")
    assert db.count("n") == 3
    with pytest.raises(errors.QueryError):
        db.similar("n", [1.0], threshold=float("nan"))


async def test_a_task_begun_inside_a_transaction_may_begin_its_own_after_it() -> None:
    import asyncio

    async with await koru_delta.AsyncDatabase.open(None) as db:
        over = asyncio.Event()

        async def later() -> None:
            await over.wait()
            async with db.transaction() as tx:
                await tx.put("a", "later", 1)

        async with db.transaction() as tx:
            task = asyncio.create_task(later())
            await tx.put("a", "first", 1)
        over.set()
        await task
        assert await db.list_keys("a") == ["first", "later"]


@pytest.mark.parametrize("verb", ["put_many", "embed_many"])
def test_what_cannot_be_stored_is_told_of_by_its_key_and_the_first_of_its_faults(
    db: koru_delta.Database, verb: str
) -> None:
    values: dict[str, Any] = {"good": 1, "bad": {"a": [1, {"b": {1, 2}}], "c": object()}}

    put = [("n", key, value) for key, value in values.items()]
    embed = [(key, [1.0, 0.0], value) for key, value in values.items()]

    with pytest.raises(errors.InvalidDataError) as caught:
        _ = db.put_many(put) if verb == "put_many" else db.embed_many("n", embed)

    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert (error.namespace, error.key, error.path) == ("n", "bad", "$.a[1].b")
        assert str(error).endswith("(at $.a[1].b); it is of key 'bad' in namespace 'n'")
    assert db.list_keys("n") == []


@pytest.mark.parametrize(
    "vector", [[float("nan"), 1.0], None, [[1.0], [2.0]], [0.0, 0.0], [1.0, 2.0, 3.0]]
)
def test_a_vector_that_cannot_be_stored_is_told_of_by_its_key(
    db: koru_delta.Database, vector: Any
) -> None:
    rows: list[Any] = [(f"r{n}", [1.0, float(n)]) for n in range(200)]
    rows[137] = ("r137", vector)
    with pytest.raises((errors.InvalidDataError, errors.DimensionMismatchError)) as caught:
        db.embed_many("n", rows)
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert error.key == "r137"
        assert "it is of key 'r137'" in str(error)
    assert db.list_keys("n") == []


def test_a_check_tells_how_far_it_is(db: koru_delta.Database) -> None:
    told: list[tuple[int, int]] = []
    db.put_many([("n", f"k{number}", number) for number in range(1_500)])
    db.put("n", "last", 1)

    assert db.verify(progress=lambda done, total: told.append((done, total))).ok
    assert told == [(1_000, 1_501), (1_500, 1_501), (1_501, 1_501)]
