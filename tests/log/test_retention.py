"""A namespace retains what its policy says: no less, and soon no more."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import koru_delta
from koru_delta import Database, ErasedError, Retention, errors
from koru_delta.causal import microseconds, moment
from koru_delta.database import erasing
from koru_delta.log import retention
from koru_delta.storage import SqliteEngine
from koru_delta.testing import FixedClock
from tests.worker import Worker

HOUR = timedelta(hours=1)
MB = 1_000_000


def random_text(size: int) -> str:
    return os.urandom(size // 2).hex()


def values(db: Database, key: str = "k", namespace: str = "n") -> list[object]:
    """What is left of each put of a key, oldest first; `...` for what was erased."""
    return [
        ... if version.is_erased else version.value
        for version in db.history(namespace, key)
        if version.operation == "put"
    ]


# What is swept


def test_what_has_been_out_of_use_for_longer_than_the_window_goes(
    db: Database, clock: FixedClock
) -> None:
    keep = HOUR + timedelta(seconds=1)
    policy = db.retain("n", keep=keep, author="Ada")
    assert policy == Retention("n", keep, None, None)
    for number in range(4):
        db.put("n", "k", number)
        db.put("other", "k", number)
        clock.advance(seconds=1800)
    assert db.sweep().versions == 1  # replaced an hour and a half ago
    assert values(db) == [..., 1, 2, 3]
    clock.advance(seconds=1)
    assert db.sweep().versions == 1  # replaced an hour ago, just now
    assert values(db) == [..., ..., 2, 3]
    clock.advance(seconds=1_000_000)
    assert db.sweep("n").versions == 1
    assert values(db) == [..., ..., ..., 3]
    assert db.get("n", "k") == 3
    assert values(db, namespace="other") == [0, 1, 2, 3]
    assert db.sweep().versions == 0
    report = db.verify()
    assert (report.ok, report.erased) == (True, 3)


def test_the_last_entries_of_a_key_stay_however_old(db: Database, clock: FixedClock) -> None:
    db.retain("n", versions=2)
    for number in range(5):
        db.put("n", "k", number)
        db.put("n", f"once{number}", number)
    swept = db.sweep()
    assert (swept.versions, swept.namespaces) == (3, ("n",))
    assert values(db) == [..., ..., ..., 3, 4]
    db.delete("n", "k")
    db.sweep()
    assert values(db) == [..., ..., ..., ..., 4]
    db.retain("n", versions=1)
    db.sweep()
    assert values(db) == [...] * 5
    assert [values(db, f"once{n}") for n in range(5)] == [[n] for n in range(5)]


def test_both_together_keep_what_either_keeps(db: Database, clock: FixedClock) -> None:
    db.retain("n", keep=HOUR, versions=2)
    for number in range(5):
        db.put("n", "k", number)
    db.sweep()
    assert values(db) == [0, 1, 2, 3, 4]
    clock.advance(seconds=4000)
    db.put("n", "k", 5)
    db.sweep()
    assert values(db) == [..., ..., ..., ..., 4, 5]


def test_expired_and_deleted_values_go_and_what_is_current_does_not(
    db: Database, clock: FixedClock
) -> None:
    db.retain("n", keep=timedelta(0))
    db.put("n", "short", 1, ttl=10)
    db.put("n", "long", 1, ttl=1000)
    db.put("n", "gone", 1)
    db.put("n", "stays", 1)
    db.delete("n", "gone")
    clock.advance(seconds=11)
    assert db.sweep().versions == 2
    assert [values(db, key) for key in ("short", "long", "gone", "stays")] == [
        [...], [1], [...], [1],
    ]  # fmt: skip
    with pytest.raises(errors.KeyNotFoundError):
        db.get("n", "short")
    assert db.list_keys("n") == ["long", "stays"]


def test_what_still_holds_explicit_valid_times_stays(db: Database, clock: FixedClock) -> None:
    db.retain("n", keep=timedelta(0))
    old = {"valid_from": "2020-01-01T00:00:00Z", "valid_to": "2021-01-01T00:00:00Z"}
    db.put("n", "k", "in 2020", **old)
    db.put("n", "k", "now")
    clock.advance(seconds=10)
    db.put("n", "k", "later", valid_from=moment(clock.now + 1_000_000))
    clock.advance(seconds=100)
    db.sweep()
    assert values(db) == ["in 2020", ..., "later"]
    db.put("n", "k", "in 2020, corrected", **old)
    clock.advance(seconds=100)
    db.sweep()
    assert values(db) == [..., ..., "later", "in 2020, corrected"]
    assert db.get("n", "k", valid_at="2020-06-01T00:00:00Z") == "in 2020, corrected"


# Behind the window


def test_searches_queries_and_lists_behind_the_window_raise(
    db: Database, clock: FixedClock
) -> None:
    db.retain("n", keep=HOUR)
    first = db.embed("n", "k", [1.0, 0.0], {"text": "one"})
    steady = db.embed("n", "steady", [1.0, 0.5], {"text": "one"})
    clock.advance(seconds=60)
    second = db.embed("n", "k", [0.0, 1.0], {"text": "two"})
    db.put("other", "k", 1)
    clock.advance(seconds=7200)
    db.sweep()

    horizon = db.retentions()["n"].horizon
    assert horizon == second.time
    before = {"as_of": steady}
    for asked in (
        lambda: db.query("n", **before),
        lambda: db.count("n", **before),
        lambda: db.count("n", text="one", **before),
        lambda: db.list_keys("n", **before),
        lambda: db.similar("n", [1.0, 0.0], **before),
        lambda: db.similar_many("n", [[1.0, 0.0]], **before),
        lambda: db.search("n", "one", mode="text", **before),
        lambda: db.related("n", "steady", **before),
        lambda: db.layers("n", **before),
        lambda: db.navigate("n", "steady", [], **before),
        lambda: db.retrieval_diff("n", [1.0, 0.0], steady),
        lambda: db.as_of(steady).query("n"),
        lambda: db.query("n", as_of=0),
        lambda: db.query("n", valid_at=first.time),  # the erased one would be there
    ):
        with pytest.raises(ErasedError, match="retains nothing") as told:
            asked()
        assert (told.value.namespace, told.value.horizon) == ("n", horizon)
        assert (told.value.key, told.value.version) == (None, None)
    with pytest.raises(ErasedError):
        db.get("n", "k", as_of=first)
    assert db.get("n", "steady", as_of=steady) == {"text": "one"}
    assert [hit.key for hit in db.similar("n", [1.0, 0.0], as_of=second)] == ["steady", "k"]
    assert len(db.query("n", as_of=horizon)) == 2
    assert len(db.query("n")) == 2
    assert db.query("other", as_of=steady) == []
    assert db.history("n", "k", as_of=steady) == [first]
    assert db.list_namespaces(as_of=steady) == ["n"]


def test_a_page_is_not_continued_behind_the_window(db: Database, clock: FixedClock) -> None:
    for number in range(4):
        db.put("n", f"k{number}", {"text": f"word {number}"})
    page = db.search("n", "word", mode="text", k=2)
    assert page.cursor
    clock.advance(seconds=10)
    db.put("n", "k0", {"text": "word again"})
    db.retain("n", versions=1)
    db.sweep()
    with pytest.raises(ErasedError):
        db.search("n", "word", mode="text", k=2, cursor=page.cursor)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "put", "put", "delete", "ttl", "valid", "sweep", "wait"]),
            st.sampled_from("ab"),
            st.integers(-20, 20),
            st.integers(1, 15),
        ),
        max_size=25,
    ),
    st.integers(0, 20),
    st.sampled_from([None, 1, 2]),
)
def test_inside_the_window_every_answer_is_what_it_was(
    steps: list[tuple[str, str, int, int]], keep: int, versions: int | None
) -> None:
    clock = FixedClock()
    start = clock.now
    with koru_delta.open(clock=clock) as db, koru_delta.open(clock=clock) as whole:
        db.retain("n", keep=timedelta(seconds=keep), versions=versions)
        whole.put("x", "y", 0)  # the same positions in both are not needed, the same times are
        for number, (verb, key, offset, span) in enumerate(steps):
            for each in (db, whole):
                if verb == "put":
                    each.put("n", key, number)
                elif verb == "ttl":
                    each.put("n", key, number, ttl=span)
                elif verb == "valid":
                    begins = moment(clock.now + offset * MB)
                    each.put(
                        "n", key, number, valid_from=begins,
                        valid_to=begins + timedelta(seconds=span),
                    )  # fmt: skip
                elif verb == "delete" and each.contains("n", key):
                    each.delete("n", key)
            if verb == "sweep":
                db.sweep()
            clock.advance(seconds=offset % 5 + 1)
        horizon = db.retentions()["n"].horizon
        begin = start if horizon is None else microseconds(horizon)
        assert begin <= max(start, clock.now - keep * MB)
        for time in range(begin, clock.now + 1, MB):
            for valid in (time, time - 7 * MB):
                at: dict[str, Any] = {"as_of": moment(time), "valid_at": moment(valid)}
                expected = [(row.key, row.value) for row in whole.query("n", **at)]
                try:
                    found = [(row.key, row.value) for row in db.query("n", **at)]
                except ErasedError:
                    assert valid < begin
                    continue
                assert found == expected
                for key in "ab":
                    told = db.get("n", key, None, **at)
                    assert told == whole.get("n", key, None, **at)
        assert db.verify().ok


# Disk


def test_two_hundred_large_writes_of_one_key_leave_room_for_one(tmp_path: Path) -> None:
    file = tmp_path / "db" / "log.db"
    with koru_delta.open(tmp_path / "db", durability="relaxed") as db:
        db.retain("n", versions=1)
        for number in range(200):
            db.put("n", "k", {"n": number, "data": random_text(200_000)})
        large = file.stat().st_size
        assert large > 15 * MB
        swept = db.sweep()
        assert swept.versions == 199
        assert swept.bytes_erased > 15 * MB
        assert swept.bytes_returned > 15 * MB
        assert file.stat().st_size + (tmp_path / "db" / "log.db-wal").stat().st_size < 1 * MB
        assert db.get("n", "k")["n"] == 199
        assert db.verify().ok


def test_a_counted_up_large_value_stays_small_on_disk(tmp_path: Path) -> None:
    file = tmp_path / "db" / "log.db"
    base = random_text(200_000)
    with koru_delta.open(tmp_path / "db", durability="relaxed") as db:
        db.retain("n", versions=3)
        for number in range(60):
            db.put("n", "k", {"n": number, "data": base + str(number)})
            if number % 10 == 9:
                db.sweep()
        assert file.stat().st_size < 1 * MB
        assert [v.value["n"] for v in db.history("n", "k")[-3:]] == [57, 58, 59]
        assert db.verify().ok


def test_deleting_everything_gives_the_disk_back(tmp_path: Path) -> None:
    file = tmp_path / "db" / "log.db"
    with koru_delta.open(tmp_path / "db", durability="relaxed") as db:
        db.retain("n", keep=timedelta(0))
        db.put_many([("n", f"k{n}", random_text(20_000)) for n in range(300)])
        db.embed_many("n", [(f"v{n}", [float(n + 1)] * 1000, n) for n in range(300)])
        assert file.stat().st_size + (tmp_path / "db" / "log.db-wal").stat().st_size > 4 * MB
        db.drop_namespace("n")
        swept = db.sweep()
        assert swept.versions == 600
        assert file.stat().st_size < 1 * MB
        assert db.similar("n", [1.0] * 1000) == []
        assert db.verify().ok


# Policies


def test_a_policy_is_an_entry_of_the_log_and_keeps_its_horizon(
    db: Database, clock: FixedClock
) -> None:
    db.put("n", "k", 1)
    db.put("n", "k", 2)
    db.retain("n", versions=1, author="Ada", message="small disk")
    entry = list(db.changes())[-1]
    assert (entry.namespace, entry.key, entry.author) == ("$retention", "n", "Ada")
    db.sweep()
    horizon = db.retentions()["n"].horizon
    assert horizon is not None
    everything = db.retain("n")
    assert everything == Retention("n", None, None, horizon)
    assert not everything.is_active
    db.put("n", "k", 3)
    assert db.sweep().versions == 0
    assert values(db) == [..., 2, 3]
    assert db.retentions() == {"n": everything}
    assert db.list_namespaces() == ["n"]
    with pytest.raises(ErasedError):
        db.query("n", as_of=1)


@pytest.mark.parametrize(
    "policy",
    [
        {"keep": timedelta(seconds=-1)}, {"keep": 60}, {"versions": 0}, {"versions": 1.5},
        {"versions": True}, {"keep": timedelta.max}, {"versions": 2**64},
    ],
)  # fmt: skip
def test_a_policy_that_makes_no_sense_is_refused(db: Database, policy: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidDataError, match=f"{next(iter(policy))} is"):
        db.retain("n", **policy)
    with pytest.raises(errors.InvalidDataError):
        db.retain("$tags", versions=1)
    assert db.retentions() == {}


def test_a_sweep_of_another_process_is_heard_of(tmp_path: Path) -> None:
    worker = Worker()
    path = tmp_path / "db"
    try:
        with koru_delta.open(path, durability="relaxed") as db:
            db.retain("n", versions=1)
            first = db.put("n", "k", {"x": 1})
            worker.ask(do="open", path=str(path), now=db.stats()["seq"])
            worker.ask(
                do="write", verb="put", given={"namespace": "n", "key": "k", "value": {"x": 2}}
            )
            assert [row.value for row in db.query("n", {"x": 1}, as_of=first)] == [{"x": 1}]
            with koru_delta.open(path, durability="relaxed") as other:
                assert other.sweep().versions == 1
            with pytest.raises(ErasedError):
                db.query("n", {"x": 1}, as_of=first)
            assert worker.ask(do="get", namespace="n", key="k") == [{"x": 2}]
            worker.ask(do="close")
    finally:
        worker.close()


def test_a_long_sweep_lets_others_write_between_its_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    path = tmp_path / "db"
    with (
        koru_delta.open(path, durability="relaxed") as db,
        koru_delta.open(path, durability="relaxed", lock_timeout_seconds=0) as other,
    ):
        for number in range(8):
            db.put("n", "k", number)
        db.retain("n", versions=1)
        before = db.stats()["seq"]
        aside = lambda _engine: other.put("other", "k", 1)  # noqa: E731
        monkeypatch.setattr(SqliteEngine, "step_aside", aside)

        assert db.sweep().versions == 7

        written = [(entry.namespace, entry.operation) for entry in db.changes(before)]
        swept = [("$retention", "put"), ("$retention", "erase")]
        assert written == [*([*swept, ("other", "put")] * 3), *swept]


def test_sweeping_happens_by_itself_while_there_is_a_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "SWEEP_SECONDS", 0.01)
    path = tmp_path / "db"
    with koru_delta.open(path, durability="relaxed") as db:
        assert db._runner._thread is None
        db.put("n", "k", 1)
        db.put("n", "k", 2)
        db.retain("n", versions=1)
        _until(lambda: db.history("n", "k")[0].is_erased)
    with koru_delta.open(path, durability="relaxed") as db:
        db.put("n", "k", 3)
        _until(lambda: db.history("n", "k")[1].is_erased)
        assert db.get("n", "k") == 3
    with koru_delta.open(path, durability="relaxed", read_only=True) as db:
        assert db._runner._thread is None
        with pytest.raises(errors.ReadOnlyError):
            db.sweep()


def test_a_handle_that_is_dropped_ends_its_sweeping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "SWEEP_SECONDS", 0.01)
    db = koru_delta.open(tmp_path / "db", durability="relaxed")
    db.retain("n", versions=1)
    thread = db._runner._thread
    assert thread is not None
    db.close()
    assert not thread.is_alive()


def _until(done: Any) -> None:
    for _ in range(1000):
        if done():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come to that")
