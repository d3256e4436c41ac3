"""What the SQLite engine does beneath the log."""

from __future__ import annotations

import gc
from pathlib import Path

import apsw
import pytest

import koru_delta
from koru_delta import errors
from koru_delta.storage import formats, schema


def test_an_older_format_is_brought_up_to_date_in_one_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with koru_delta.open(tmp_path) as db:
        db.put("n", "k", 1)

    def step(con: apsw.Connection) -> None:
        con.execute("CREATE TABLE added(x INTEGER) STRICT")

    def failing(con: apsw.Connection) -> None:
        step(con)
        raise RuntimeError("interrupted")

    monkeypatch.setattr(formats, "FORMAT", formats.FORMAT + 1)
    with pytest.raises(errors.ReadOnlyError, match="older format"):
        koru_delta.open(tmp_path, read_only=True)
    monkeypatch.setattr(formats, "MIGRATIONS", {formats.FORMAT - 1: failing})
    with pytest.raises(RuntimeError):
        koru_delta.open(tmp_path)
    monkeypatch.setattr(formats, "MIGRATIONS", {formats.FORMAT - 1: step})
    with koru_delta.open(tmp_path) as db:
        assert db.get("n", "k") == 1
        assert db.verify().ok
    con = apsw.Connection(str(tmp_path / "log.db"))
    assert con.execute("PRAGMA user_version").get == formats.FORMAT
    assert con.execute("SELECT count(*) FROM added").get == 0
    con.close()


@pytest.mark.parametrize("emptied", [False, True])
def test_a_log_that_was_acknowledged_and_is_gone_is_not_begun_anew(
    tmp_path: Path, emptied: bool
) -> None:
    with koru_delta.open(tmp_path) as db:
        db.put("n", "k", 1)
    (tmp_path / "log.db").unlink()
    if emptied:
        (tmp_path / "log.db").touch()
    for _ in range(2):
        with pytest.raises(errors.CorruptionError, match="acknowledged"):
            koru_delta.open(tmp_path)
    (tmp_path / "generation").unlink()
    with koru_delta.open(tmp_path) as db:
        assert db.list_namespaces() == []


def test_the_durability_a_log_was_last_written_with_is_noted(tmp_path: Path) -> None:
    def noted() -> str:
        con = apsw.Connection(str(tmp_path / "log.db"))
        try:
            mode: str = con.execute("SELECT value FROM meta WHERE name = 'durability'").get
            return mode
        finally:
            con.close()

    with koru_delta.open(tmp_path) as db:
        db.put("n", "k", 1)
    assert noted() == "full"
    with koru_delta.open(tmp_path, durability="relaxed") as db:
        db.get("n", "k")
    assert noted() == "full"
    with koru_delta.open(tmp_path, durability="relaxed") as db:
        db.put("n", "k", 2)
    assert noted() == "relaxed"


def test_an_object_comes_back_whatever_its_codec(tmp_path: Path) -> None:
    import random

    noise = random.Random(1).randbytes(6000).hex()
    values = ["a" * 10_000, noise, noise + "x", "b" * 5_000 + noise, "a" * 10_000, "é" * 4096]
    with koru_delta.open(tmp_path, durability="relaxed") as db:
        versions = [db.put("n", "k", value) for value in values]
        assert [db.get_version(v.id).value for v in versions] == values
    con = apsw.Connection(str(tmp_path / "log.db"))
    rows = con.execute("SELECT codec, base FROM objects").fetchall()
    con.close()
    assert len(rows) == len(set(values))
    assert {codec for codec, _ in rows} == {1, 2}
    assert all((codec == 2) == (base is not None) for codec, base in rows)


def test_a_long_log_of_other_namespaces_does_not_hide_a_vector(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path, durability="relaxed") as db:
        db.embed("v", "a", [1.0, 0.0])
        assert len(db.similar("v", [1.0, 0.0])) == 1
        db.put_many([("other", f"k{i}", i) for i in range(3000)])
        db.embed("v", "b", [1.0, 0.0])
        assert [m.key for m in db.similar("v", [1.0, 0.0])] == ["a", "b"]
        assert len(db.tags()) == 0


def test_proofs_hold_across_blocks_of_commits(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path, durability="relaxed") as db:
        versions = [db.put("n", "k", i) for i in range(schema.BLOCK * 2 + 3)]
        head = db.tree_head()
        for version in (versions[0], versions[1023], versions[1024], versions[-1]):
            assert koru_delta.verify_inclusion(db.prove(version), head)
        old = koru_delta.TreeHead(1024, _root_of(db, 1024))
        assert koru_delta.verify_consistency(db.prove_consistency(1024), old, head)


def _root_of(db: koru_delta.Database, size: int) -> str:
    from koru_delta.merkle import tree_hash

    return tree_hash([bytes.fromhex(c.root) for c in db.commits(limit=size)]).hex()


@pytest.mark.parametrize("path", ["", "a\0b", "x" * 300])
def test_a_path_that_cannot_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((errors.NotADatabaseError, errors.StorageError)):
        koru_delta.open(path)
    assert list(tmp_path.iterdir()) == []


def test_a_handle_that_is_dropped_keeps_no_file_open(tmp_path: Path) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not list open files")
    before = count()
    for number in range(20):
        koru_delta.open(tmp_path / str(number % 3)).list_keys("n")
        koru_delta.open(None).list_keys("n")
    gc.collect()
    assert count() <= before + 2


@pytest.mark.parametrize("question", [schema.IS_USED, schema.TOLD_BY])
def test_erasing_many_looks_each_object_up_and_scans_no_table(
    tmp_path: Path, question: str
) -> None:
    with koru_delta.open(tmp_path) as db:
        db.erase(db.embed("n", "k", [1.0, 0.0], 1))
        con = db._log.engine._writer_connection()  # plans depend on how it is set up
        plan = [row[3] for row in con.execute(f"EXPLAIN QUERY PLAN {question}", (1,))]
        assert any("SEARCH" in step for step in plan)
        assert not [step for step in plan if step.startswith("SCAN") and "CONSTANT" not in step]
