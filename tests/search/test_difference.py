"""What changed between two moments, and why: causes are true, and undoing them undoes it."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import koru_delta.ingest
from koru_delta import CausalFilter, Database, Version, errors
from koru_delta.causal import moment
from koru_delta.testing import FixedClock
from tests.model import Entry, Moment
from tests.search.histories import FILTERS, Told, codes, fitted, history, opened, question, written

DAY = timedelta(days=1)


def value(text: str, **more: Any) -> dict[str, Any]:
    return {"text": text, **more}


def begin(db: Database) -> Version:
    """Three that answer "rain", best first a, b, c; and what does not."""
    db.embed("n", "a", [1.0, 0.0, 0.0], value("rain rain rain"), model="m")
    db.embed("n", "b", [0.9, 0.1, 0.0], value("rain rain and sun"), model="m")
    db.embed("n", "c", [0.8, 0.3, 0.0], value("rain and sun and wind and fog"), model="m")
    db.embed("n", "d", [0.0, 0.0, 1.0], value("hail\nand snow"), model="m")
    db.put("n", "e", value("frost"))
    return db.put("other", "x", value("rain"))


@pytest.fixture
def db(clock: FixedClock) -> Any:
    with opened(clock) as database:
        yield database


Event = Callable[[Database, FixedClock], Version | None]


def _later(db: Database, clock: FixedClock) -> None:
    clock.advance(seconds=100)


SINGLE: dict[str, tuple[Event | None, Event, str, str]] = {
    # What was before, what happens, to which key, and what it is to be called.
    "new": (None, lambda db, _: db.put("n", "new", value("rain rain rain rain")), "new", "new"),
    "edited into it": (None, lambda db, _: db.put("n", "d", value("rain")), "d", "edited"),
    "edited out of it": (None, lambda db, _: db.put("n", "b", value("nothing")), "b", "edited"),
    "edited": (None, lambda db, _: db.put("n", "b", value("rain rain rain rain")), "b", "edited"),
    "deleted": (None, lambda db, _: db.delete("n", "a"), "a", "deleted"),
    "hidden": (None, lambda db, _: db.hide("n", "a"), "a", "hidden"),
    "superseded": (
        None,
        lambda db, _: db.put(
            "n", "e", value("frost"), causes=[("supersedes", db.version("n", "a"))]),
        "a", "superseded",
    ),
    "superseded from elsewhere": (
        None,
        lambda db, _: db.put("other", "y", 1, causes=[("supersedes", db.version("n", "a"))]),
        "a", "superseded",
    ),
    "unhidden": (
        lambda db, _: db.hide("n", "a"), lambda db, _: db.unhide("n", "a"), "a", "unhidden",
    ),
    "restored": (
        lambda db, _: db.delete("n", "a"), lambda db, _: db.put("n", "a", value("rain")),
        "a", "restored",
    ),
    "restored by a revert": (
        lambda db, _: db.delete("n", "a"), lambda db, _: db.revert("n", "a", 1), "a", "restored",
    ),
    "expired": (
        lambda db, _: db.put("n", "a", value("rain rain"), ttl=50), _later, "a", "expired",
    ),
    "ended": (
        lambda db, clock: db.put(
            "n", "a", value("rain rain"), valid_to=moment(clock.now) + timedelta(seconds=50)),
        _later, "a", "ended",
    ),
    "ended, and nothing before": (
        lambda db, clock: db.put(
            "n", "new", value("rain rain"), valid_to=moment(clock.now) + timedelta(seconds=50)),
        _later, "new", "ended",
    ),
    "began in place of another": (
        lambda db, clock: db.put(
            "n", "a", value("rain rain"), valid_from=moment(clock.now) + timedelta(seconds=50)),
        _later, "a", "began",
    ),
    "began": (
        lambda db, clock: db.put(
            "n", "new", value("rain rain"), valid_from=moment(clock.now) + timedelta(seconds=50)),
        _later, "new", "began",
    ),
    "ended by a back-dated delete": (
        None, lambda db, clock: db.delete("n", "a", valid_from=moment(clock.now) - DAY),
        "a", "deleted",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SINGLE)
def test_one_event_is_named_with_the_version_that_did_it(
    db: Database, clock: FixedClock, what: str
) -> None:
    before, event, key, name = SINGLE[what]
    begin(db)
    clock.advance(seconds=5)
    if before is not None:
        before(db, clock)
    clock.advance(seconds=5)
    t1 = moment(clock.now)
    clock.advance(seconds=5)
    did = event(db, clock)

    found = db.retrieval_diff("n", "rain", t1, mode="text")

    (mine,) = [change for change in found if change.key == key]
    (cause,) = mine.causes
    assert (cause.key, cause.name) == (key, name)
    if did is not None:
        assert cause.version == did
    assert all(change.verified for change in found)
    for change in found:  # everything that happened is this one event
        assert [(cause.key, cause.name) for cause in change.causes] == [(key, name)]
    assert name in str(mine)
    told = found.to_dict()
    assert told["changes"][0]["verified"] is True


@pytest.mark.parametrize("since", ["embedded", "noted", "both", "often"])
def test_an_edit_is_put_down_to_who_made_it_and_not_to_who_wrote_beside_it(
    db: Database, since: str
) -> None:
    t1 = begin(db)
    db.put("n", "b", value("rain, and then fog"), author="before")
    did = db.put("n", "b", value("rain rain rain rain"), author="ben")
    for n in range({"often": 40, "embedded": 0}.get(since, 1)):
        db.put("n", "b", value("rain rain rain rain", seen=n), author="cron")
    if since in ("embedded", "both"):
        db.embed("n", "b", [1.0, 0.0, 0.0], model="m", author="ops")

    found = db.retrieval_diff("n", "rain", t1, mode="text")

    (change,) = [each for each in found if each.key == "b"]
    assert [(cause.name, cause.version) for cause in change.causes] == [("edited", did)]
    assert change.verified


def test_what_a_filter_leaves_out_is_put_down_to_who_edited_it(db: Database) -> None:
    db.put("n", "f", value("rain", kind="x"))
    t1 = begin(db)
    did = db.put("n", "f", value("rain", kind="y"), author="ben")
    db.embed("n", "f", [1.0, 0.0, 0.0], model="m", author="ops")

    (left,) = db.retrieval_diff("n", "rain", t1, mode="text", filter={"kind": "x"})
    assert [(cause.name, cause.version) for cause in left.causes] == [("edited", did)]
    (came,) = db.retrieval_diff("n", "rain", t1, mode="text", filter={"kind": "y"})
    assert [(cause.name, cause.version) for cause in came.causes] == [("edited", did)]


def test_what_was_embedded_again_is_said_so(db: Database) -> None:
    t1 = begin(db)
    did = db.embed("n", "c", [1.0, 0.0, 0.0], model="m")

    found = db.retrieval_diff("n", [1.0, 0.0, 0.0], t1, model="m", k=3)

    (change,) = [each for each in found if each.key == "c"]
    assert (change.kind, change.rank_before, change.rank_after) == ("moved", 3, 2)
    (cause,) = change.causes
    assert (cause.key, cause.name, cause.version) == ("c", "re-embedded", did)
    (other,) = [each for each in found if each.key == "b"]
    assert [(cause.key, cause.name) for cause in other.causes] == [("c", "re-embedded")]
    assert "outranked: c (re-embedded)" in str(other)
    assert found.unchanged == ("a",)


def test_a_hit_that_was_pushed_out_names_who_did_it(db: Database) -> None:
    t1 = begin(db)
    did = db.embed("n", "new", [1.0, 0.01, 0.0], value("x"), model="m")

    found = db.retrieval_diff("n", [1.0, 0.0, 0.0], t1, model="m", k=3)

    assert [(c.key, c.kind) for c in found] == [("new", "entered"), ("b", "moved"), ("c", "left")]
    for change in found:
        assert [(cause.key, cause.version) for cause in change.causes] == [("new", did)]
        assert change.verified
    db.delete("n", "new")
    back = db.retrieval_diff("n", [1.0, 0.0, 0.0], did, model="m", k=3)
    assert [(c.key, c.kind) for c in back] == [("b", "moved"), ("c", "entered"), ("new", "left")]
    assert "made room: new (deleted)" in str(back.changes[1])
    assert db.retrieval_diff("n", [1.0, 0.0, 0.0], t1, model="m", k=3).changes == ()


def test_a_change_of_text_is_shown_as_a_diff(db: Database) -> None:
    begin(db)
    t1 = db.put("n", "c", value("rain\nsun\nwind", n=1))
    db.put("n", "c", value("rain\nsnow\nwind", n=2))

    (change,) = db.retrieval_diff("n", '"rain"', t1, mode="text")

    assert change.kind == "edited"
    assert change.text_diff.splitlines() == [
        "--- before", "+++ after", "@@ -1,3 +1,3 @@", " rain", "-sun", "+snow", " wind",
    ]  # fmt: skip
    db.put("n", "c", value("rain\n" + "\n".join(map(str, range(900)))))
    found = {change.key: change for change in db.retrieval_diff("n", "rain", t1, mode="text")}
    assert found["c"].text_diff.splitlines()[-1].endswith("more lines")


def test_other_settings_of_text_are_named_as_the_cause(db: Database) -> None:
    db.put("n", "a", value("rain", title="sun"))
    t1 = db.put("n", "b", value("sun", title="rain"))
    did = db.configure_text("n", fields=["title"])

    found = db.retrieval_diff("n", "rain", t1, mode="text")
    assert [(c.key, c.kind, c.verified) for c in found] == [
        ("b", "entered", True), ("a", "left", True),
    ]  # fmt: skip
    for change in found:
        (cause,) = change.causes
        assert (cause.key, cause.name) == (change.key, "settings")
        assert cause.version is not None
        assert cause.version.id == did.id
    db.put("n", "c", value("rain", title="rain rain"))
    both = db.retrieval_diff("n", "rain", t1, mode="text")
    assert all(change.verified for change in both)
    names = {change.key: {c.name for c in change.causes} for change in both}
    assert names == {"a": {"settings"}, "b": {"settings"}, "c": {"new"}}


def test_what_was_true_at_two_times_is_compared_by_what_is_known_now(
    db: Database, clock: FixedClock
) -> None:
    start = moment(clock.now)
    db.put("n", "a", value("rain"), valid_from=start - 9 * DAY, valid_to=start - 3 * DAY)
    db.put("n", "b", value("rain"), valid_from=start - 5 * DAY, valid_to=start + 5 * DAY)
    db.put("n", "c", value("rain"), valid_from=start + 2 * DAY)

    def changes(t1: Any, t2: Any) -> list[tuple[str, str, str]]:
        found = db.retrieval_diff("n", "rain", t1, t2, axis="valid_at", mode="text")
        assert all(change.verified for change in found)
        return [(c.key, c.kind, c.causes[0].name) for c in found]

    assert changes(start - 8 * DAY, start - 6 * DAY) == []
    assert changes(start - 8 * DAY, None) == [("b", "entered", "began"), ("a", "left", "ended")]
    assert changes(start, start + 9 * DAY) == [("c", "entered", "began"), ("b", "left", "ended")]
    assert changes((start - 8 * DAY).isoformat(), start - 4 * DAY) == [("b", "entered", "began")]


def test_conditions_hold_on_both_sides(db: Database) -> None:
    begin(db)
    t1 = db.put("n", "f", value("rain", doc="x"), author="ada")
    db.put("n", "g", value("rain", doc="y"), author="ada")
    db.put("n", "h", value("rain", doc="x"), author="bob")
    db.put("n", "f", value("rain", doc="y"), author="ada")

    found = db.retrieval_diff("n", "rain", t1, mode="text", filter={"doc": "x"})
    assert [(c.key, c.kind) for c in found] == [("h", "entered"), ("f", "left")]
    assert [c.causes[0].name for c in found] == ["new", "edited"]
    ada = db.retrieval_diff("n", "rain", t1, mode="text", causal=CausalFilter(author="ada"))
    assert [(c.key, c.kind) for c in ada if c.kind != "edited"] == [("g", "entered")]
    at = db.get_version(t1).time
    timed = db.retrieval_diff("n", "rain", t1, mode="text", causal=CausalFilter(valid_at=at))
    assert timed.before == db.search("n", "rain", mode="text", as_of=t1, valid_at=at)
    assert timed.after == db.search("n", "rain", mode="text", valid_at=at)


def test_moments_and_anchors_that_make_no_sense_are_errors(db: Database) -> None:
    first = db.put("n", "a", value("rain"))
    last = begin(db)
    for wrong in (
        {"t1": last, "t2": first},
        {"t1": 10**9},
        {"t1": first, "axis": "both"},
        {"t1": first, "t2": "tag:never"},
        {"t1": first, "k": -1},
        {"t1": first, "mode": "text", "weights": {"text": 0}},
        {"t1": first, "causal": CausalFilter(derived_from=last)},  # not there at t1
        {"t1": "2020-01-01"},
        {"t1": last.time, "t2": first.time, "axis": "valid_at"},
    ):
        with pytest.raises(errors.KoruDeltaError):
            db.retrieval_diff("n", "rain", **wrong)
    with pytest.raises(errors.KoruDeltaError):
        db.retrieval_diff("n", [1.0, 2.0], first, model="m")
    assert db.retrieval_diff("nothing", "rain", 0, mode="text").changes == ()
    assert db.retrieval_diff("n", "", 0, mode="text").changes == ()
    same = db.retrieval_diff("n", "rain", last, last, mode="text")
    assert same.changes == ()
    assert same.unchanged == tuple(hit.key for hit in same.after)


# Random histories


def _world(told: Told, namespace: str, cut: Moment) -> dict[str, Entry]:
    return told.model.searched(namespace, cut, cut.clock)


def _undone(
    told: Told, namespace: str, cuts: tuple[Moment, Moment], keys: set[str], ask: Any
) -> list[tuple[str, Any]]:
    """What a fresh database finds that holds the later world, but some keys as they were."""
    then, now = (_world(told, namespace, cut) for cut in cuts)
    mixed = {key: then.get(key) if key in keys else now.get(key) for key in {*then, *now}}
    with opened(told.clock) as fresh:
        for key, entry in mixed.items():
            if entry is not None and entry.vectors:
                fresh.embed(namespace, key, list(entry.vectors["m"]), entry.value, model="m",
                            metric=told.metric(namespace))  # fmt: skip
            elif entry is not None:
                fresh.put(namespace, key, entry.value)
        return [(hit.key, hit.value) for hit in ask(fresh)]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(codes, st.binary(min_size=8, max_size=8))
def test_a_verified_cause_is_one_in_a_database_where_it_never_happened(
    numbers: bytes, number: bytes
) -> None:
    chance = random.Random(number)
    clock = FixedClock()
    steps = [step for step in history(numbers) if step[0] != "configure"]  # see above
    with opened(clock) as db:
        told = Told(db, clock)
        told.tell(steps)
        for namespace in ("a", "a", "b"):
            cuts = (told.cut(chance), told.cut(chance))
            cuts = (min(cuts), max(cuts))
            if cuts[0].clock > cuts[1].clock:
                continue
            where, _ = chance.choice([FILTERS[0], FILTERS[0], *FILTERS])
            text = written(question(chance))
            vector = fitted([chance.randint(-2, 2) for _ in range(3)])
            k, mode = chance.choice([2, 3, 9]), chance.choice(["vector", "text", "hybrid"])
            t1, t2 = (told.ref(cut) for cut in cuts)
            asked: dict[str, Any] = {"mode": mode, "filter": where, "k": k}
            query: Any = text
            if mode == "vector":
                query, asked["model"] = vector, "m"

            try:
                found = db.retrieval_diff(namespace, query, t1, t2, **asked)
            except errors.ModelMismatchError:
                continue  # there were no vectors yet

            def ask(fresh: Database) -> koru_delta.Matches:
                if mode == "vector":  # noqa: B023
                    return fresh.similar(namespace, vector, model=None, k=k, filter=where)  # noqa: B023
                return fresh.search(namespace, text, **asked)  # noqa: B023

            before = {hit.key: (place, hit.value) for place, hit in enumerate(found.before)}
            assert len({change.key for change in found} | {*found.unchanged}) == len(
                {hit.key for side in (found.before, found.after) for hit in side}
            )
            for change in found:
                assert change.verified, str(change)
                assert change.causes
                keys = {cause.key for cause in change.causes}
                world = _undone(told, namespace, cuts, keys, ask)
                again = {key: (place, value) for place, (key, value) in enumerate(world)}
                if change.kind in ("entered", "left"):
                    assert (change.key in again) == (change.kind == "left"), str(change)
                else:
                    assert again.get(change.key) == before[change.key], str(change)


# An edit of a document is one change


def read_in(db: Database, text: str, **said: Any) -> None:
    db.ingest([("leave", text)], namespace="kb", embedder=None, **said)


def test_an_edited_chunk_is_one_change_though_it_has_another_key(db: Database) -> None:
    read_in(db, "Everyone has 25 days of leave a year.")
    then = db.commits()[-1]
    [before] = db.list_keys("kb.chunks")
    read_in(db, "Everyone has 30 days of leave a year.", author="ben")
    [after] = db.list_keys("kb.chunks")

    for k in (1, 5):
        changed = db.retrieval_diff("kb.chunks", "days of leave", then, k=k, mode="text")

        [change] = changed
        assert (change.key, change.counterpart) == (after, before)
        assert (change.kind, change.rank_before, change.rank_after) == ("edited", 1, 1)
        assert [(cause.key, cause.name) for cause in change.causes] == [
            (after, "edited"), (before, "edited"),
        ]  # fmt: skip
        assert change.verified
        assert change.text_diff.splitlines()[-2:] == [
            "-Everyone has 25 days of leave a year.", "+Everyone has 30 days of leave a year.",
        ]  # fmt: skip
        assert str(changed).splitlines() == [
            f"{after}: edited (1 -> 1), edited",
            "    -Everyone has 25 days of leave a year.",
            "    +Everyone has 30 days of leave a year.",
        ]
        assert changed.to_dict()["changes"][0]["counterpart"] == before


def test_an_edit_of_an_edit_is_one_change_too(db: Database) -> None:
    read_in(db, "Everyone has 25 days of leave a year.")
    then = db.commits()[-1]
    read_in(db, "Everyone has 28 days of leave a year.")
    read_in(db, "Everyone has 30 days of leave a year.")

    [change] = db.retrieval_diff("kb.chunks", "days of leave", then, mode="text")

    assert (change.kind, change.verified) == ("edited", True)


def test_a_new_document_is_no_edit_of_one_that_is_gone(db: Database) -> None:
    read_in(db, "Everyone has 25 days of leave a year.")
    then = db.commits()[-1]
    records = koru_delta.ingest.Records([("other", "Everyone has 30 days of leave a year.")], True)
    db.ingest(records, namespace="kb", embedder=None)

    changed = db.retrieval_diff("kb.chunks", "days of leave", then, mode="text")

    assert {(c.kind, c.causes[0].name, c.counterpart) for c in changed} == {
        ("entered", "new", None), ("left", "deleted", None),
    }  # fmt: skip
