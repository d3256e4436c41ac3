"""Bodies and vectors in tier files: what a move keeps, what damage is told, what is erased."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest

import koru_delta
from koru_delta import Database, errors
from koru_delta.lifecycle import Move, Tier, Tiers, UsageFile
from koru_delta.lifecycle import tiers as lifecycle_tiers
from koru_delta.storage import COLD, DEEP, WARM, SqliteEngine, steps
from koru_delta.storage import mover as moving
from koru_delta.storage.tiercare import SqliteTierCare
from koru_delta.storage.tierfile import path_of
from koru_delta.testing import FixedClock, HashEmbedder
from tests.worker import Worker

SECRET = "Zanzibarwort"
FAR = (COLD, DEEP)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db"


@pytest.fixture
def kept(path: Path, clock: FixedClock) -> Iterator[Database]:
    with opened(path, clock) as database:
        yield database


def opened(path: Path, clock: FixedClock, **options: Any) -> Database:
    return koru_delta.open(path, clock=clock, embedder=HashEmbedder(32), track=False, **options)


def engine_of(db: Database) -> SqliteEngine:
    return db._log.engine  # where bytes lie is no public verb's concern


def fill(db: Database, count: int = 40) -> list[int]:
    """Small values, large ones that differ a little, and vectors; the places of all."""
    for number in range(count):
        value = {"text": f"rain {number}", "filler": "ab" * (number * 7 % 300)}
        db.embed("v", f"k{number % 9}", f"rain {number}", value)
        if number % 4 == 0:
            db.put("large", f"l{number % 3}", {"n": number, "text": noise(number % 3)})
    return everything(db)


def noise(number: int, size: int = 9_000) -> str:
    return bytes(np.random.default_rng(number).integers(97, 123, size, np.uint8)).decode()


def everything(db: Database) -> list[int]:
    return [version.seq for version in db.changes()]


def answers(db: Database) -> list[Any]:
    return [
        [(v.id, v.is_erased or v.raw) for v in db.changes()],
        [
            {model: vector.tolist() for model, vector in db.vectors(v).items()}
            for v in db.changes()
            if v.vectors and not v.is_erased
        ],
        [(hit.key, hit.score, hit.value) for hit in db.search("v", "rain 7", k=5)],
        [(hit.key, hit.score) for hit in db.similar("v", "rain 7", k=5, exact=True, as_of=20)],
        [(row.key, row.value) for row in db.query("large", as_of=30)],
        db.get_many("v", db.list_keys("v")),
        db.tree_head(),
    ]


def files(db: Database) -> list[Path]:
    assert db.directory is not None
    return sorted((db.directory / "tiers").rglob("*.kdt"))


def in_tiers(db: Database) -> bytes:
    """All that lies in tier files, used or not."""
    engine = engine_of(db)
    held = [b""]
    for number, tier, *_ in engine._files():
        file = engine._shelf.file(number, engine._file_facts)
        assert file.path == path_of(engine.directory, tier, number)
        held += [file.block(block) for block in range(len(file))]
    assert len(files(db)) == len(engine._files())
    return b"\0".join(held)


def in_the_log(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(path.glob("log.db*")))


# What moves, and what it costs


@pytest.mark.parametrize("tier", FAR)
def test_what_lies_far_is_shorter_and_comes_back_byte_for_byte(kept: Database, tier: int) -> None:
    seqs, engine = fill(kept), engine_of(kept)
    kept.compact()
    before, size = answers(kept), kept.stats()["log_bytes"]

    moved = engine.move(seqs, tier)

    assert answers(kept) == before
    assert set(engine.tier_of(seqs)) == {tier}
    sizes = engine.tier_sizes()[tier]
    assert (sizes.files, sizes.items, sizes.size_bytes) == (1, moved.items, moved.bytes_written)
    assert sizes.size_bytes == files(kept)[0].stat().st_size < sizes.raw_bytes / 3
    kept.compact()
    assert kept.stats()["log_bytes"] < size * 0.8
    assert kept.stats()[{COLD: "cold_bytes", DEEP: "deep_bytes"}[tier]] == sizes.size_bytes
    assert engine.move(seqs, tier).items == 0

    engine.move(seqs, WARM)

    assert answers(kept) == before
    assert set(engine.tier_of(seqs)) == {WARM}
    assert files(kept) == []
    assert kept.verify().ok


def test_what_is_written_again_is_near_again(kept: Database) -> None:
    first = kept.embed("n", "large", "rain", {"text": noise(1)})
    small = kept.put("n", "small", {"text": "sun"})
    for n in range(3):
        kept.embed("n", "large", f"wind {n}", {"n": n})
        kept.put("n", "small", n)
    engine = engine_of(kept)
    engine.move(everything(kept), DEEP)

    again = kept.revert("n", "large", first)
    kept.revert("n", "small", small)
    also = kept.embed("n", "other", "rain", {"text": noise(1)})

    places = [again.seq, kept.version("n", "small").seq, also.seq]
    assert engine.tier_of(places) == [WARM, WARM, WARM]
    assert kept.get("n", "large") == kept.get("n", "other") == {"text": noise(1)}
    assert [hit.key for hit in kept.similar("n", "rain", k=1)] == ["large"]
    assert kept.verify().ok


def test_no_near_value_is_told_by_its_difference_to_a_far_one(
    path: Path, clock: FixedClock
) -> None:
    text = noise(5, 20_000)
    with opened(path, clock) as db:
        seqs = [db.put("n", "k", {"text": text, "n": n}).seq for n in range(6)]
        engine_of(db).move(seqs[:-1], COLD)
        files(db)[0].rename(files(db)[0].with_suffix(".away"))
    with opened(path, clock) as db:
        assert db.get("n", "k")["n"] == 5  # all of it is near
        db.put("n", "k", {"text": text, "n": 6})
        assert db.get("n", "k")["n"] == 6
        with pytest.raises(errors.CorruptionError):
            db.get("n", "k", as_of=seqs[0])


def test_what_stays_near_is_told_by_nothing_that_goes_with_its_base(kept: Database) -> None:
    text = noise(6, 20_000)
    versions = [kept.put("n", "k", {"text": text, "n": n}) for n in range(4)]
    engine_of(kept).move([versions[0].seq, versions[2].seq, versions[3].seq], COLD)

    con = apsw.Connection(str(engine_of(kept).directory / "log.db"))
    far = con.execute(
        "SELECT count(*) FROM objects o JOIN objects b ON b.object = o.base WHERE b.codec = 3"
    ).get
    con.close()
    assert far == 0
    for version in versions:
        kept.put("n", "k", version.value)
        assert kept.get("n", "k") == version.value
    assert [v.value["n"] for v in kept.history("n", "k")] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert kept.verify().ok


def test_a_moved_database_is_exported_imported_and_copied_whole(
    kept: Database, tmp_path: Path, clock: FixedClock
) -> None:
    seqs = fill(kept)
    engine_of(kept).move(seqs[::2], COLD)
    engine_of(kept).move(seqs[::3], DEEP)
    before = answers(kept)
    kept.export_log(tmp_path / "log.jsonl")
    kept.backup(tmp_path / "copy")
    with opened(tmp_path / "copy", clock) as copy:
        assert answers(copy) == before
        assert copy.verify().ok
        assert engine_of(copy).tier_of(seqs) == engine_of(kept).tier_of(seqs)
        engine_of(copy).move(seqs, WARM)
        assert answers(copy) == before
    with opened(tmp_path / "imported", clock) as other:
        other.import_log(tmp_path / "log.jsonl")
        assert answers(other) == before
        assert set(engine_of(other).tier_of(seqs)) == {WARM}


def test_retention_sweeps_what_lies_far(kept: Database, clock: FixedClock) -> None:
    past = [kept.put("n", "k", {"text": f"{SECRET} {n}"}) for n in range(8)]
    clock.advance(seconds=3_600)
    engine_of(kept).move(everything(kept), COLD)
    kept.retain("n", versions=2)

    kept.sweep()  # or the thread that sweeps from time to time, whichever comes first

    assert in_tiers(kept).count(SECRET.encode()) == 2
    assert [v.is_erased for v in kept.history("n", "k")] == [True] * 6 + [False] * 2
    assert kept.get("n", "k") == past[-1].value
    assert kept.verify().ok


def test_a_reader_that_may_not_write_and_another_process_see_through_moves(
    kept: Database, path: Path, clock: FixedClock
) -> None:
    seqs = fill(kept)
    worker = Worker()
    try:
        worker.ask(do="open", path=str(path), now=clock.now)
        with opened(path, clock, read_only=True) as reader:
            before = answers(reader)
            for tier in (COLD, DEEP, COLD, WARM, DEEP):
                engine_of(kept).move(seqs, tier)
                assert answers(reader) == before
                held = worker.ask(do="get", namespace="v", key="k3")
                assert held == [kept.get("v", "k3")]
            with pytest.raises(errors.ReadOnlyError):
                engine_of(reader).move(seqs, WARM)
    finally:
        worker.close()


def test_threads_read_and_write_while_everything_moves(kept: Database) -> None:
    seqs = fill(kept)
    wanted = {v.id: v.raw for v in kept.changes()}
    stop, failed = threading.Event(), []

    def work(number: int) -> None:
        try:
            while not stop.is_set():
                assert {v.id: v.raw for v in kept.changes() if v.id in wanted} == wanted
                kept.put("busy", f"k{number}", {"n": number})
                kept.embed("v", f"new{number}", "rain 7", {"text": "rain 7"})
                assert kept.similar("v", "rain 7", k=3, as_of=30)
        except BaseException as error:  # noqa: BLE001 - told to the test
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for tier in (COLD, DEEP, WARM, COLD, WARM):
        engine_of(kept).move(seqs, tier)
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert kept.verify().ok
    assert kept.erase(("busy", "k1")).is_clean


def test_the_write_ahead_log_stays_small_whatever_moves(
    kept: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "_PAGES_CHECKPOINTED", 20)
    monkeypatch.setattr(steps, "_PAGES_BEGUN_ANEW", 50)
    monkeypatch.setattr(steps, "_MOST_ROWS", 32)
    values = {f"k{number:04}": {"text": noise(number, 2_000)} for number in range(1_500)}
    kept.put_many([("n", key, value) for key, value in values.items()])
    engine_of(kept)._checkpoint()  # cuts it, too

    engine_of(kept).move(everything(kept), COLD)

    assert (path / "log.db-wal").stat().st_size < 2_000_000
    assert kept.get_many("n", list(values)) == values


def test_a_step_of_a_move_is_a_few_statements_however_much_it_moves(kept: Database) -> None:
    seqs = fill(kept, 400)
    con = engine_of(kept)._writer_connection()
    told: list[str] = []
    con.exec_trace = lambda _, statement, __: not told.append(statement)

    engine_of(kept).move(seqs, COLD)

    laid = told.count("INSERT INTO laying VALUES(?, ?)")
    assert 1 < laid < len(seqs) / 10
    assert len(told) < 8 * laid + 20
    con.exec_trace = None


def test_two_processes_move_at_once(kept: Database, path: Path, clock: FixedClock) -> None:
    seqs = fill(kept)
    before = answers(kept)
    with opened(path, clock) as other:
        threads = [
            threading.Thread(target=engine_of(db).move, args=(some, tier))
            for db, some, tier in (
                (kept, seqs, COLD), (other, seqs, DEEP), (kept, seqs[::2], WARM),
            )
        ]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers(kept) == answers(other) == before
    assert kept.verify().ok


# Erased


@pytest.mark.parametrize("tier", FAR)
def test_what_is_erased_is_in_no_tier_file_and_no_page(
    kept: Database, path: Path, tier: int
) -> None:
    fill(kept)
    small = kept.put("n", "small", {"text": SECRET})
    large = kept.embed("n", "large", SECRET, {"text": SECRET + noise(3)})
    vector = kept.vectors(large)
    kept.put("n", "stays", {"text": "sun"})
    engine_of(kept).move(everything(kept), tier)
    held = np.ascontiguousarray(next(iter(vector.values()))).tobytes()
    assert in_tiers(kept).count(SECRET.encode()) == 2
    assert held in in_tiers(kept)
    before = files(kept)

    gone = kept.erase([small, large])

    assert gone.is_clean
    assert gone.bytes_erased > 9_000
    assert SECRET.encode() not in in_tiers(kept) + in_the_log(path)
    assert held not in in_tiers(kept)
    assert not set(before) & set(files(kept))  # written anew, not changed
    assert kept.get("n", "stays") == {"text": "sun"}
    assert kept.verify().ok
    genomes = [json.loads(file.read_bytes()) for file in path.rglob("*.json")]
    assert len(genomes) == (tier == DEEP)


def test_a_copy_that_was_left_behind_goes_with_what_is_erased(kept: Database, path: Path) -> None:
    seqs = fill(kept)
    secret = kept.put("n", "k", {"text": SECRET})
    large = kept.put("n", "large", {"text": SECRET + noise(3)})
    engine = engine_of(kept)
    engine.move([*seqs, secret.seq, large.seq], COLD)
    engine.move([secret.seq, large.seq], WARM)
    assert in_tiers(kept).count(SECRET.encode()) == 2  # in a file that the rest is still in
    engine.move([secret.seq], DEEP)

    assert kept.erase([secret, large]).is_clean

    assert SECRET.encode() not in in_tiers(kept) + in_the_log(path)
    assert kept.verify().ok


@pytest.mark.parametrize("tier", FAR)
def test_what_is_erased_while_it_is_carried_away_does_not_arrive(
    kept: Database, path: Path, monkeypatch: pytest.MonkeyPatch, tier: int
) -> None:
    seqs = fill(kept)
    secret = kept.embed("n", "k", SECRET, {"text": SECRET + noise(3)})
    cleaned: list[bool] = []
    write, threads = moving.write, []

    def slowly(*given: Any) -> Any:
        made = write(*given)
        if not threads:
            erase = lambda: cleaned.append(kept.erase(secret).is_clean)  # noqa: E731
            threads.append(threading.Thread(target=erase))
            threads[0].start()
            while not kept.get_version(secret.id).is_erased:
                pass
        return made

    monkeypatch.setattr(moving, "write", slowly)
    engine_of(kept).move([*seqs, secret.seq], tier)
    threads[0].join()

    assert cleaned == [True]
    assert SECRET.encode() not in in_tiers(kept) + in_the_log(path)
    assert set(engine_of(kept).tier_of(seqs)) == {tier}
    assert kept.verify().ok


def test_what_is_erased_before_a_mover_is_killed_is_in_no_file_of_it(
    kept: Database, path: Path, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    seqs = fill(kept)
    secret = kept.put("n", "k", {"text": SECRET})
    write = moving.write

    def erasing(*given: Any) -> Any:
        made = write(*given)
        with monkeypatch.context() as patch:
            patch.setattr(SqliteTierCare, "clean_tiers", lambda _: True)  # it would wait
            kept.erase(secret)
        return made

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(moving, "write", erasing)
    monkeypatch.setattr(SqliteTierCare, "_point_one_by_one", killed)  # what is left, at the end
    with pytest.raises(KeyboardInterrupt):
        engine_of(kept).move([*seqs, secret.seq], COLD)
    kept.close()
    monkeypatch.undo()

    with opened(path, clock) as db:
        assert SECRET.encode() in in_tiers(db)
        db.lifecycle.run_once("genome")
        assert SECRET.encode() not in in_tiers(db) + in_the_log(path)
        assert db.verify().ok


def test_what_another_version_holds_too_stays_where_it_is(kept: Database) -> None:
    one = kept.put("n", "a", {"text": noise(1)})
    other = kept.put("n", "b", {"text": noise(1)})
    engine_of(kept).move([one.seq], COLD)
    assert engine_of(kept).tier_of([one.seq, other.seq]) == [COLD, COLD]
    kept.erase(one)
    assert kept.get("n", "b") == {"text": noise(1)}
    assert engine_of(kept).tier_of([other.seq]) == [COLD]
    kept.erase(other)
    assert files(kept) == []


def test_compacting_leaves_only_what_is_used(kept: Database) -> None:
    seqs = fill(kept, 80)
    engine = engine_of(kept)
    engine.move(seqs, COLD)
    engine.move(seqs[: len(seqs) // 3], WARM)
    size = engine.tier_sizes()[COLD]
    assert kept.compact() > 0
    assert engine.tier_sizes()[COLD].items < size.items
    assert kept.verify().ok


# Damaged


@pytest.mark.parametrize("tier", FAR)
@pytest.mark.parametrize("harm", ["gone", "empty", "cut", "header", "block", "directory", "other"])
def test_a_damaged_tier_file_is_named_with_what_to_do(
    path: Path, clock: FixedClock, tier: int, harm: str
) -> None:
    with opened(path, clock) as db:
        seqs = fill(db)
        near = db.put("n", "near", {"text": "sun"})
        engine_of(db).move(seqs, tier)
        engine_of(db).move(seqs[:5], COLD if tier == DEEP else DEEP)
        before = answers(db)
        [file] = [
            each for each in files(db) if each.stem.startswith(("", "", "cold", "deep")[tier])
        ]
        [other] = [each for each in files(db) if each != file]
    whole = file.read_bytes()
    match harm:
        case "gone":
            file.unlink()
        case "empty":
            file.write_bytes(b"")
        case "cut":
            file.write_bytes(whole[:-7])
        case "other":
            file.write_bytes(other.read_bytes())
        case place:
            at = {"header": 20, "block": 80, "directory": len(whole) - 20}[place]
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with opened(path, clock) as db:
        for ask in (
            lambda: db.get("v", "k3"),
            lambda: db.history("v", "k3")[-1].value,
            lambda: list(db.changes()),
            lambda: db.vectors(db.version("v", "k3")),
        ):
            with pytest.raises(errors.CorruptionError, match="backup") as told:
                ask()
            assert str(file) in str(told.value)
        assert db.get("n", "near") == near.value
        report = db.verify()
        assert not report.ok
        assert any(str(file) in problem for problem in report.problems)
        assert len(report.problems) < 6
        with pytest.raises(errors.CorruptionError):
            engine_of(db).move(seqs, WARM)
        if harm == "gone":
            with pytest.raises(errors.CorruptionError, match="no whole copy"):
                db.backup(path.parent / "copy")
    file.write_bytes(whole)
    with opened(path, clock) as db:
        assert answers(db) == before
        assert db.verify().ok


def test_what_cannot_be_read_stays_and_keeps_back_nothing_else(
    kept: Database, clock: FixedClock
) -> None:
    kept.put_many([("n", f"k{number:02}", {"text": noise(number, 300)}) for number in range(40)])
    tiers = Tiers(kept._log)
    lost, rest = ([f"k{number:02}" for number in some] for some in (range(5), range(5, 40)))
    tiers.move(Move("n", tuple(lost), Tier.HOT, Tier.COLD, "told to", 0))
    [file] = files(kept)
    tiers.move(Move("n", tuple(rest), Tier.HOT, Tier.COLD, "told to", 0))
    whole = file.read_bytes()
    file.unlink()
    engine_of(kept)._shelf.forget()
    kept.lifecycle.policy(hot_bytes=1_000_000)

    checked = kept.lifecycle.run_once("check")

    [result] = checked.results
    assert list(result.keys) == rest
    assert result.note.startswith(f"5 keys were left: {file} is missing; put that one file back")
    assert kept.get_many("n", rest).keys() == set(rest)
    assert not kept.verify().ok
    file.write_bytes(whole)
    clock.advance(seconds=86_400)
    assert kept.lifecycle.run_once("check").moved == 5
    assert kept.verify().ok


def test_a_flipped_bit_in_a_tier_file_is_never_read(path: Path, clock: FixedClock) -> None:
    with opened(path, clock) as db:
        engine_of(db).move(fill(db), COLD)
        before = answers(db)[0]
        [file] = files(db)
    whole = file.read_bytes()
    for bit in np.random.default_rng(1).choice(8 * len(whole), 60, replace=False).tolist():
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
        with opened(path, clock, read_only=True) as db:
            assert not db.verify().ok
            with pytest.raises(errors.CorruptionError):
                answers(db)
    file.write_bytes(whole)
    with opened(path, clock) as db:
        assert answers(db)[0] == before


def test_a_full_disk_leaves_everything_where_it_was(
    kept: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    seqs = fill(kept)
    before = answers(kept)

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(errors.StorageFullError, match="where it was"):
            engine_of(kept).move(seqs, DEEP)
    assert answers(kept) == before
    assert set(engine_of(kept).tier_of(seqs)) == {WARM}
    engine_of(kept).move(seqs, DEEP)
    assert answers(kept) == before
    assert len(files(kept)) == 1


def test_files_that_the_log_does_not_know_are_removed_when_it_is_opened(
    path: Path, clock: FixedClock
) -> None:
    with opened(path, clock) as db:
        engine_of(db).move(fill(db), DEEP)
        [file] = files(db)
        before = answers(db)
    strays = [
        file.with_name("deep-77.kdt"), file.with_name("deep-77.json"),
        file.parent.parent / "cold-78.kdt", file.with_name(".deep-79.kdt.tmp"),
    ]  # fmt: skip
    kept = file.parent.parent / "notes.txt"
    for stray in [*strays, kept]:
        stray.write_bytes(b"?")
    with opened(path, clock) as db:
        assert [stray for stray in strays if stray.exists()] == []
        assert file.exists()
        assert kept.exists()
        assert answers(db) == before


def test_a_database_of_format_3_is_opened_and_moves(path: Path, clock: FixedClock) -> None:
    with opened(path, clock) as db:
        seqs, before = fill(db), answers(db)
    con = apsw.Connection(str(path / "log.db"))
    con.execute("DROP TABLE tiers")
    con.execute("DROP INDEX objects_by_base")
    con.execute("CREATE INDEX objects_by_base ON objects(base) WHERE base IS NOT NULL")
    con.execute("CREATE INDEX versions_by_object ON versions(object) WHERE object IS NOT NULL")
    con.execute("PRAGMA user_version = 3")
    con.close()
    with opened(path, clock) as db:
        engine_of(db).move(seqs, COLD)
        assert answers(db) == before
        assert db.erase(("v", "k1")).is_clean
        assert db.verify().ok


# Genomes


def test_a_genome_says_what_is_archived_and_holds_none_of_it(kept: Database) -> None:
    seqs = fill(kept)
    engine_of(kept).move(seqs, DEEP)
    [file] = files(kept)
    genome = json.loads(file.with_suffix(".json").read_bytes())
    every = list(kept.changes())
    assert genome["file"] == file.name
    assert genome["bytes"] == file.stat().st_size
    assert genome["entries"] == [seqs[0], seqs[-1]]
    assert genome["times"] == [every[0].tx_time, every[-1].tx_time]
    assert genome["namespaces"] == {
        "large": {"entries": 10, "keys": ["l0", "l2"]}, "v": {"entries": 40, "keys": ["k0", "k8"]},
    }  # fmt: skip
    rows = sorted({tuple(each.tolist()) for v in every for each in kept.vectors(v).values()})
    assert (genome["bodies"], genome["vectors"]) == (50, len(rows))
    [space] = genome["spaces"]
    assert (space["namespace"], space["vectors"]) == ("v", len(rows))
    assert space["centroid"] == pytest.approx(np.mean(rows, axis=0).tolist(), abs=1e-6)
    assert b"rain 7" not in file.with_suffix(".json").read_bytes()


@pytest.mark.parametrize("harm", ["gone", "changed", "rubbish"])
def test_a_genome_that_does_not_match_is_told_and_a_missing_one_is_made_anew(
    kept: Database, harm: str
) -> None:
    engine_of(kept).move(fill(kept), DEEP)
    [file] = files(kept)
    path = file.with_suffix(".json")
    whole = path.read_bytes()
    match harm:
        case "gone":
            path.unlink()
        case "rubbish":
            path.write_bytes(b"?")
        case _:
            path.write_bytes(whole.replace(b'"bodies": 50', b'"bodies": 51'))
    [problem] = kept.verify().problems
    assert str(path) in problem
    result = kept.lifecycle.run_once("genome")
    if harm == "changed":
        assert result.problems == (problem,)
        return
    assert result.problems == ()
    assert path.read_bytes() == whole
    assert kept.verify().ok


# Keys


def test_the_job_looks_at_some_files_in_turn(
    kept: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle_tiers, "_READ_BYTES", 1)
    moved = Tiers(kept._log, UsageFile(None))
    for number in range(4):
        kept.put("n", f"k{number}", {"text": noise(number, 300)})
        moved.move(Move("n", (f"k{number}",), Tier.HOT, Tier.DEEP, "told to", 0))
    names = [file.name for file in files(kept)]
    for file in files(kept):
        file.write_bytes(file.read_bytes()[:-1])

    told = [moved.genome().problems for _ in range(5)]

    assert [len(problems) for problems in told] == [1] * 5
    found = [next(name for name in names if name in problem) for (problem,) in told]
    assert sorted(found[:4]) == names
    assert found[4] == found[0]


def test_keys_are_moved_with_all_they_ever_held_and_come_back_with_what_they_hold(
    kept: Database,
) -> None:
    fill(kept)
    tiers = Tiers(kept._log)
    keys = tuple(kept.list_keys("v"))

    def lie() -> dict[str, set[int]]:
        return {
            name: set(held.tiers[rows].tolist())
            for held in [tiers.look()]
            for name, rows in held.by_namespace()
        }  # fmt: skip

    assert lie() == {"large": {Tier.HOT}, "v": {Tier.HOT}}
    for target in (Tier.WARM, Tier.COLD, Tier.DEEP, Tier.HOT, Tier.DEEP, Tier.WARM):
        move = Move("v", keys, Tier.HOT, target, "told to", 0)
        assert tiers.move(move).keys == keys
        assert tiers.move(move).keys == keys
        assert lie() == {"large": {Tier.HOT}, "v": {target}}
    past = [v.seq for v in kept.history("v", "k1")]
    assert engine_of(kept).tier_of(past) == [DEEP] * (len(past) - 1) + [WARM]
    gone = tiers.move(Move("v", ("k1", "never"), Tier.WARM, Tier.COLD, "told to", 0))
    assert gone.keys == ("k1",)
    assert gone.note


def test_budgets_are_held_by_moves_and_a_second_check_moves_nothing(kept: Database) -> None:
    seqs = fill(kept)
    before = answers(kept)
    kept.lifecycle.policy(hot_bytes=900, warm_bytes=900, cold_bytes=500)

    checked = kept.lifecycle.run_once("check")

    assert checked.moved > 0
    told = kept.lifecycle.stats()["tiers"]
    for name, budget in (("hot", 900), ("warm", 900), ("cold", 500)):
        assert 0 < told[name]["bytes"] <= budget
    assert told["deep"]["keys"] > 0
    assert kept.lifecycle.plan().moves == ()
    assert [v.raw for v in kept.changes()][: len(seqs)] == [raw for _, raw in before[0]]
    assert kept.verify().ok
