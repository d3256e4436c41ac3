"""Uses are noted beside reads and searches, added up in a side file, and change no answer."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import koru_delta
from koru_delta import Database, errors
from koru_delta.lifecycle import Tracker, UsageFile, sidefile, tracker
from koru_delta.lifecycle.sidefile import Sample
from koru_delta.lifecycle.usage import GET, HIT, HOUR, KINDS, RECALL, USED, Trace, Usage
from koru_delta.testing import FixedClock, HashEmbedder
from tests.test_fork import in_child

DAY = 24 * HOUR


class Row(NamedTuple):
    """The uses of one key; counts are as of the last of them."""

    first: int
    last: int
    counts: list[float]
    lately: float
    gaps: float
    gap_log: float
    hours: list[float]


def rows_of(file: UsageFile | None, namespace: str = "docs") -> dict[str, Row]:
    """What a file tells of the keys of a namespace, in their order."""
    assert file is not None
    _, places, usage = file.changed(0, 1_000_000)
    found = {
        key: Row(*(getattr(usage, name)[row].tolist() for name in Row._fields))
        for row, (name, key) in enumerate(places)
        if name == namespace
    }
    return dict(sorted(found.items()))


def counts(db: Database, namespace: str = "docs") -> dict[str, dict[str, float]]:
    """What was counted so far, by key and kind, as of the last use of each."""
    db._tracker.flush()
    assert db._tracker.file is not None
    return {
        key: {kind: round(n, 6) for kind, n in zip(KINDS, row.counts, strict=True) if n}
        for key, row in rows_of(db._tracker.file, namespace).items()
    }


def test_every_kind_of_use_is_counted_by_key(db: Database) -> None:
    for key in ("rain", "snow", "sun"):
        db.embed("docs", key, f"{key} falls")

    db.get("docs", "rain")
    db.get_raw("docs", "snow", as_of=2)
    db.get_many("docs", ["rain", "sun", "none"])
    assert db.get("docs", "none", None) is None
    found = db.similar("docs", "snow falls", k=2)
    db.search("docs", "sun", mode="text")
    assert db.used(found[0]) == 1
    assert db.used([("docs", "sun"), db.version("docs", "rain")], kind="recall") == 2
    assert db.used(db.version("docs", "rain").id[:12]) == 1

    assert {match.key for match in found} == {"snow", found[1].key}
    expected = {
        "rain": Counter({"get": 2, "recall": 1, "used": 1}),
        "snow": Counter({"get": 1, "used": 1}),
        "sun": Counter({"get": 1, "hit": 1, "recall": 1}),
    }
    for match in found:
        expected[match.key]["hit"] += 1
    assert counts(db) == {key: dict(each) for key, each in expected.items()}


def test_what_finds_nothing_is_no_use(db: Database) -> None:
    db.put("docs", "key", 1)
    db.embed("v", "key", [1.0, 0.0])

    assert db.get_many("docs", ["none"]) == {}
    assert db.search("docs", "nothing", mode="text") == []
    assert db.similar("v", [1.0, 0.0], k=0) == []
    assert db.used([]) == 0

    assert counts(db) == counts(db, "v") == {}


def test_reads_from_memory_are_sampled_and_count_for_those_between(db: Database) -> None:
    for number in range(50):
        db.put("docs", f"key-{number}", {"n": number})
    for _ in range(2_000):
        for number in range(50):
            db.get("docs", f"key-{number}")

    found = counts(db)
    reads = [found[f"key-{number}"]["get"] for number in range(50)]
    assert sum(reads) == pytest.approx(100_000, rel=0.02)
    assert min(reads) > 1_000
    assert max(reads) < 3_000
    assert db._tracker.noted < 100_000 / tracker.SAMPLED * 1.1


def test_of_very_many_answers_a_second_some_are_noted_and_count_for_all(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(tracker, "monotonic", lambda: now)
    noting = db._tracker
    noting.on_notes = None  # nobody else adds up
    noting.begin()
    db.put("docs", "rain", 1)
    hits = [db.version("docs", "rain")]

    def ask(seconds: int, times: int) -> float:
        """Ask so often in each second; how many of these answers were noted by themselves."""
        nonlocal now
        before = noting.noted
        for _ in range(seconds):
            for _ in range(times):
                noting.found("docs", hits)
            now += 1
            noting.gather()
        return (noting.noted - before) / (seconds * times)

    assert ask(seconds=60, times=50) == 1.0
    ask(seconds=1, times=5_000)  # until their rate is known
    assert 0.01 < ask(seconds=10, times=5_000) < 0.03
    assert counts(db)["rain"]["hit"] == pytest.approx(60 * 50 + 55_000, rel=0.1)
    ask(seconds=30, times=50)  # likewise
    assert ask(seconds=10, times=50) == 1.0


def test_uses_fade_and_their_hours_and_gaps_are_known(db: Database, clock: FixedClock) -> None:
    db.put("docs", "note", 1)
    for _ in range(3):
        db.used(("docs", "note"))
        clock.advance(seconds=86_400)
    db.used(("docs", "note"))
    db._tracker.flush()

    found = rows_of(db._tracker.file)["note"]
    faded = sum(0.5 ** (days / 7) for days in range(4))
    assert found.counts[USED] == pytest.approx(faded)
    assert found.last - found.first == 3 * DAY
    assert 2.0 ** (found.gap_log / found.gaps) == pytest.approx(86_400)
    assert found.hours.index(max(found.hours)) == 0  # 2026 begins at midnight
    assert sum(found.hours) == pytest.approx(faded, rel=1e-6)
    assert found.lately == pytest.approx(1.0, rel=1e-6)


def test_what_follows_a_key_is_known_within_bounds(db: Database, clock: FixedClock) -> None:
    for number in range(30):
        db.put("docs", f"key-{number:02}", number)
    for number in [*range(1, 30), 29, 29]:
        db.used(("docs", "key-00"))
        db.used(("docs", f"key-{number:02}"))
    clock.advance(seconds=3_600)
    db.used(("docs", "key-05"))  # much later: it follows nothing
    db._tracker.flush()

    assert db._tracker.file is not None
    found: dict[str, dict[str, float]] = {}
    for _, key, after, times in db._tracker.file.followers(0, clock.now):
        found.setdefault(key, {})[after] = times
    assert len(found["key-00"]) == sidefile.MOST_FOLLOWERS
    assert max(found["key-00"], key=lambda key: found["key-00"][key]) == "key-29"
    assert found["key-01"] == {"key-00": pytest.approx(1, rel=0.01)}
    assert "key-05" not in found["key-29"]


def test_tracking_writes_nothing_to_the_log_and_losing_it_changes_no_answer(
    tmp_path: Path,
) -> None:
    path = tmp_path / "db"
    with koru_delta.open(path, embedder=HashEmbedder(), durability="relaxed") as db:
        db.embed("docs", "rain", "rain falls")
        db.embed("docs", "sun", "the sun shines")
        before = db.stats()["root"]
        answers = [db.get("docs", "rain"), db.search("docs", "sun").load()]
        db.used(("docs", "rain"))
        assert db.stats()["root"] == before
    file = path / "tiers" / "usage.db"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    for damage in (file.unlink, lambda: file.write_bytes(b"not a database" * 999)):
        damage()
        with koru_delta.open(path, embedder=HashEmbedder(), durability="relaxed") as db:
            assert [db.get("docs", "rain"), db.search("docs", "sun").load()] == answers
            assert db.verify().ok
            assert counts(db)["rain"]["get"] == 1


def test_what_was_noted_is_kept_when_the_database_is_closed(tmp_path: Path) -> None:
    for _ in range(3):
        with koru_delta.open(tmp_path / "db", clock=FixedClock(), durability="relaxed") as db:
            db.put("docs", "note", 1)
            db.get("docs", "note")
    with koru_delta.open(tmp_path / "db", clock=FixedClock(), durability="relaxed") as db:
        assert counts(db) == {"note": {"get": 3}}


def test_tracking_can_be_off(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db", durability="relaxed", track=False) as db:
        db.put("docs", "note", {"x": 1})
        for _ in range(5_000):
            db.get("docs", "note")
        assert db.used(("docs", "note")) == 1
        assert db._tracker.noted == 0
        assert db.lifecycle.stats()["usage"]["tracked"] is False
        assert db.lifecycle.importance("docs")["note"] > 0
    with koru_delta.open(tmp_path / "db", read_only=True) as db:
        before = sorted(tmp_path.rglob("*"))
        db.get("docs", "note")
        db.used(("docs", "note"))
        with pytest.raises(errors.ReadOnlyError):
            db.lifecycle.run_once("check")
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("what", "error"),
    [
        (7, errors.InvalidDataError),
        ([7], errors.InvalidDataError),
        (("docs", ""), errors.InvalidDataError),
        ("0" * 64, errors.UnknownVersionError),
    ],
)
def test_feedback_on_nothing_is_refused(
    db: Database, what: Any, error: type[errors.KoruDeltaError]
) -> None:
    with pytest.raises(error):
        db.used(what)
    with pytest.raises(errors.InvalidDataError, match="'used' or 'recall'"):
        db.used(("docs", "note"), kind="liked")  # type: ignore[arg-type]


def test_every_use_is_a_sign_that_somebody_is_there_and_adding_up_is_none(db: Database) -> None:
    for key in ("rain", "snow"):
        db.embed("docs", key, f"{key} falls")
    tracked = db._tracker
    signs = [tracked.uses()]
    for use in (
        lambda: db.get("docs", "rain", as_of=1),
        lambda: db.get_many("docs", ["rain", "snow"]),
        lambda: db.similar("docs", "snow falls"),
        lambda: db.search("docs", "snow", mode="text"),
        lambda: db.used(("docs", "rain")),
        lambda: [db.get("docs", "rain") for _ in range(200)],
    ):
        use()
        signs.append(tracked.uses())
    assert len(set(signs)) == 7

    db.put("docs", "sun", 1)
    tracked.flush()
    db.lifecycle.run_once("check")
    assert tracked.uses() == signs[-1]


def test_where_uses_are_not_tracked_somebody_may_always_be_there() -> None:
    untracked = Tracker(UsageFile(None), FixedClock(), is_on=False)

    assert len({untracked.uses() for _ in range(5)}) == 5


USES = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([1, 16]), st.integers(0, 40 * DAY)),
    min_size=1, max_size=30,
)  # fmt: skip


def used(uses: list[tuple[int, int, int]]) -> Usage:
    trace = Trace(uses[0][2])
    for kind, times, time in uses:
        trace.add(kind, times, time, time // HOUR % 24)
    return Usage.of([trace])


@given(USES, st.integers(1, 4), st.randoms(use_true_random=False))
def test_what_several_processes_gathered_adds_up_in_any_order(
    uses: list[tuple[int, int, int]], processes: int, chance: Any
) -> None:
    uses.sort(key=lambda use: use[2])
    parts = [uses[start::processes] for start in range(min(processes, len(uses)))]
    chance.shuffle(parts)

    added = used(parts[0])
    for part in parts[1:]:
        added = added.plus(used(part))

    at = max(time for _, _, time in uses)
    for kind in (GET, HIT, RECALL, USED):
        plain = sum(n * 0.5 ** ((at - time) / (7 * DAY)) for k, n, time in uses if k == kind)
        assert added.counts[0, kind] == pytest.approx(plain, rel=1e-4, abs=1e-9)
    hours = np.zeros(24)
    for _, times, time in uses:
        hours[time // HOUR % 24] += times * 0.5 ** ((at - time) / (7 * DAY))
    assert added.hours[0].tolist() == pytest.approx(hours.tolist(), rel=1e-4, abs=1e-9)
    assert (added.first[0], added.last[0]) == (uses[0][2], at)


TOLD = st.lists(
    st.tuples(
        st.sampled_from(["docs", "notes"]), st.sampled_from(["a", "b", 'c "d"', "\U0001f600"]),
        st.sampled_from([USED, RECALL]), st.integers(0, 2 * HOUR),
    ),
    min_size=1, max_size=40,
)  # fmt: skip


@given(TOLD, st.integers(1, 3))
def test_uses_are_the_same_however_few_are_written_and_read_at_once(
    uses: list[tuple[str, str, int, int]], at_once: int
) -> None:
    found = []
    for portion in (10_000, at_once):
        clock, file = FixedClock(), UsageFile(None)
        tracked = Tracker(file, clock)
        file.add_samples([Sample((name, key), clock.now, np.zeros(2)) for name, key, *_ in uses],
                         most=100)  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sidefile, "_ADDED_AT_ONCE", portion)
            patch.setattr(sidefile, "_READ_AT_ONCE", portion)
            for number, (name, key, kind, since) in enumerate(uses):
                clock.advance(seconds=since // 1_000_000)
                tracked._note(kind, name, (key,))
                if number % 5 == 0:
                    assert tracked.flush()
            tracked.flush()
            found.append((
                rows_of(file), rows_of(file, "notes"), sorted(file.followers(0, clock.now)),
                [(each.place, each.used) for each in file.settled(clock.now)],
            ))  # fmt: skip

    assert found[0] == found[1]


def test_what_could_be_written_before_the_file_refused_is_not_added_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sidefile, "_ADDED_AT_ONCE", 3)
    tracked = Tracker(UsageFile(tmp_path / "usage.db"), FixedClock())
    for number in range(10):
        tracked.got("docs", f"key-{number}")
    plain, calls = sidefile._add_traces, []

    def refusing(*given: Any) -> None:
        calls.append(given)
        plain(*given)
        if len(calls) == 3:
            raise apsw.FullError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(sidefile, "_add_traces", refusing)
        assert tracked.flush() is False
    assert list(rows_of(tracked.file)) == [f"key-{number}" for number in range(6)]
    assert tracked.flush() is True

    assert [row.counts[GET] for row in rows_of(tracked.file).values()] == [1.0] * 10


PROCESS = """
import sys
from koru_delta.lifecycle import Tracker, UsageFile
from koru_delta.testing import FixedClock
from pathlib import Path
tracker = Tracker(UsageFile(Path(sys.argv[1])), FixedClock())
lost = 0
for _ in range(40):
    for number in range(20):
        tracker.got("docs", f"key-{number}")
    while not tracker.flush():
        lost += 1
tracker.close()
"""


def test_several_processes_add_to_one_file_and_none_loses_a_use(tmp_path: Path) -> None:
    file = tmp_path / "usage.db"
    running = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(file)], cwd=Path.cwd())
        for _ in range(3)
    ]

    assert [process.wait(120) for process in running] == [0, 0, 0]
    found = rows_of(UsageFile(file))
    assert [row.counts[GET] for row in found.values()] == [120.0] * 20


def test_memory_and_file_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker, "_MOST_TRACES", 50)
    monkeypatch.setattr(sidefile, "MOST_KEYS", 100)
    clock = FixedClock()
    file = UsageFile(None)
    bounded = Tracker(file, clock)
    for number in range(3_000):
        clock.advance(seconds=1)
        bounded.got("docs", f"key-{number:05}")
        if number % 10 == 0:
            bounded.gather()
            assert len(bounded._traces) <= 60
    bounded.flush()

    kept = list(rows_of(file))
    assert 90 <= len(kept) <= 100
    assert kept[-1] == "key-02999"
    assert all(key > "key-02800" for key in kept)


def test_notes_that_nobody_adds_up_are_dropped_at_some_point() -> None:
    late = Tracker(UsageFile(None), FixedClock())
    late.on_notes = lambda waiting: None
    for _ in range(40_000):
        late.got("docs", "key")

    assert len(late._notes) <= 16_384
    assert late.dropped > 0


def test_a_file_that_cannot_be_written_costs_no_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tiers").write_text("in the way")
    blocked = Tracker(UsageFile(tmp_path / "tiers" / "usage.db"), FixedClock())
    blocked.got("docs", "key")

    assert blocked.flush() is False
    (tmp_path / "tiers").unlink()
    assert blocked.flush() is True
    assert rows_of(blocked.file)["key"].counts == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forking_while_another_thread_writes_uses_hangs_no_child(tmp_path: Path) -> None:
    busy = Tracker(UsageFile(tmp_path / "usage.db"), FixedClock())
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            busy.got("docs", "parent")
            assert busy.flush()

    def child() -> None:
        busy.begin()  # as the database does
        busy.got("docs", "child")
        assert busy.flush()

    writing = threading.Thread(target=write)
    writing.start()
    try:
        for _ in range(30):
            in_child(child)
    finally:
        stop.set()
        writing.join()

    assert rows_of(busy.file)["child"].counts[GET] == 30


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_counts_its_own_uses_alone(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db", clock=FixedClock(), durability="relaxed") as db:
        db.put("docs", "note", 1)
        db.get("docs", "note")

        def child() -> None:
            db.get("docs", "note", as_of=1)
            db.close()

        in_child(child)
        assert counts(db) == {"note": {"get": 2}}
