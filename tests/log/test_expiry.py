"""`expire` and `touch`: an end said later, exact, as-of aware and taken back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import koru_delta
from koru_delta import AsyncDatabase, Database, errors
from koru_delta.causal import moment
from koru_delta.testing import FixedClock, HashEmbedder

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = 3600


def test_a_key_ends_at_the_microsecond_it_was_told_to(db: Database, clock: FixedClock) -> None:
    db.put("n", "k", {"x": 1})
    clock.advance(seconds=10)

    said = db.expire("n", "k", at=START + timedelta(hours=1))

    assert said.expires_at == START + timedelta(hours=1)
    clock.advance(seconds=HOUR - 10, microseconds=-1)
    assert db.get("n", "k") == {"x": 1}
    clock.advance(microseconds=1)
    assert db.get("n", "k", None) is None
    assert db.query("n") == []
    assert db.list_keys("n") == []


def test_a_ttl_counts_from_when_it_is_given(db: Database, clock: FixedClock) -> None:
    db.put("n", "k", 1)
    clock.advance(seconds=500)

    said = db.expire("n", "k", ttl=timedelta(seconds=60))

    assert said.expires_at == START + timedelta(seconds=560)
    assert (said.value, said.valid_from) == (1, START)


def test_every_moment_before_still_sees_what_has_ended(db: Database, clock: FixedClock) -> None:
    first = db.embed("n", "k", "rain in spring", {"text": "rain in spring"})
    clock.advance(seconds=1)
    said = db.expire("n", "k", ttl=5)
    clock.advance(seconds=10)

    assert db.search("n", "rain") == []
    assert [hit.key for hit in db.search("n", "rain", as_of=first)] == ["k"]
    assert [hit.key for hit in db.similar("n", "rain in spring", as_of=said)] == ["k"]
    assert db.get("n", "k", as_of=said) == {"text": "rain in spring"}
    assert db.get("n", "k", None, valid_at=START) is None  # it counts at no valid time any more


def test_what_expires_keeps_its_vectors_causes_and_valid_times(
    db: Database, clock: FixedClock
) -> None:
    source = db.put("src", "s", 1)
    first = db.embed(
        "n", "k", [1.0, 2.0], {"a": 1}, model="m", causes=[("derived_from", source)],
        valid_from="2025-01-01T00:00:00Z", valid_to="2027-01-01T00:00:00Z",
    )  # fmt: skip
    clock.advance(seconds=1)

    said = db.expire("n", "k", ttl=60, author="ada", message="only for a minute", run="r")

    assert db.vectors(said)["m"].tolist() == db.vectors(first)["m"].tolist()
    assert said.vectors == first.vectors
    assert (said.valid_from, said.valid_to) == (first.valid_from, first.valid_to)
    assert said.causes == (("derived_from", first.id), ("derived_from", source.id))
    assert (said.author, said.message, said.run) == ("ada", "only for a minute", "r")
    assert db.descendants(source) == [first, said]


def test_touch_begins_the_same_time_anew(db: Database, clock: FixedClock) -> None:
    db.put("sessions", "s", {"user": "ada"}, ttl=100)
    clock.advance(seconds=60)

    again = db.touch("sessions", "s")

    assert again.expires_at == START + timedelta(seconds=160)
    assert again.valid_from == START
    clock.advance(seconds=99)
    assert db.get("sessions", "s") == {"user": "ada"}
    db.touch("sessions", "s", ttl=5)
    clock.advance(seconds=5)
    assert not db.contains("sessions", "s")


def test_touch_lifts_an_end_and_revert_brings_back_what_has_ended(
    db: Database, clock: FixedClock
) -> None:
    db.put("n", "k", 1)
    db.expire("n", "k", ttl=10)
    clock.advance(seconds=5)
    lifted = db.touch("n", "k", ttl=None)
    clock.advance(seconds=1000)
    assert (db.get("n", "k"), lifted.expires_at) == (1, None)

    ending = db.expire("n", "k", ttl=10)
    clock.advance(seconds=10)
    with pytest.raises(errors.KeyNotFoundError):
        db.touch("n", "k", ttl=None)
    db.revert("n", "k", ending)
    assert db.get("n", "k") == 1


def test_touching_what_never_ends_writes_nothing(db: Database) -> None:
    first = db.put("n", "k", 1)
    assert db.touch("n", "k") == db.touch("n", "k", ttl=None) == first
    assert len(db.history("n", "k")) == 1


def test_what_is_hidden_stays_hidden(db: Database, clock: FixedClock) -> None:
    db.embed("n", "k", "rain", {"text": "rain"})
    cause = db.put("why", "w", 1)
    db.hide("n", "k", causes=[cause])
    clock.advance(seconds=1)

    db.expire("n", "k", ttl=60)

    assert db.search("n", "rain") == []
    assert db.query("n") == []
    assert db.get("n", "k") == {"text": "rain"}
    assert [e.operation for e in db.history("n", "k", include_annotations=True)] == [
        "put", "hide", "put", "hide",
    ]  # fmt: skip
    assert db.history("n", "k", include_annotations=True)[-1].causes == (("caused_by", cause.id),)
    db.unhide("n", "k")
    assert [hit.key for hit in db.search("n", "rain")] == ["k"]


def test_what_is_superseded_is_not_brought_back_by_an_end(db: Database) -> None:
    old = db.put("n", "old", {"text": "rain"})
    db.put("n", "new", {"text": "rain"}, causes=[("supersedes", old)])
    with pytest.raises(errors.AnnotationError, match="superseded"):
        db.expire("n", "old", ttl=60)
    assert [hit.key for hit in db.search("n", "rain")] == ["new"]


def test_what_is_planned_for_later_is_not_written_over(db: Database, clock: FixedClock) -> None:
    db.put("n", "k", "now", valid_from="2025-01-01T00:00:00Z")
    db.put("n", "k", "in between", valid_from="2025-03-01T00:00:00Z",
           valid_to="2025-04-01T00:00:00Z")  # fmt: skip
    db.put("n", "k", "planned", valid_from="2026-06-01T00:00:00Z")
    clock.advance(seconds=1)

    db.expire("n", "k", ttl=60)
    clock.advance(seconds=60)

    def at(when: str) -> Any:
        return db.get("n", "k", None, valid_at=when)

    assert at("2025-02-01T00:00:00Z") is None
    assert at("2025-03-15T00:00:00Z") == "in between"
    assert at("2025-05-01T00:00:00Z") is None
    assert at("2026-01-01T00:00:00Z") is None
    assert at("2026-07-01T00:00:00Z") == "planned"


def test_what_somebody_plans_meanwhile_is_not_written_over(
    db: Database, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.put("n", "k", "now")
    clock.advance(seconds=1)
    real = db._log.history  # behind the door: nothing else comes between

    def meanwhile(*args: Any, **options: Any) -> Any:
        found = real(*args, **options)
        monkeypatch.setattr(db._log, "history", real)
        db.put("n", "k", "planned", valid_from="2026-06-01T00:00:00Z")
        return found

    monkeypatch.setattr(db._log, "history", meanwhile)
    db.expire("n", "k", ttl=60)

    assert db.get("n", "k", valid_at="2026-07-01T00:00:00Z") == "planned"
    assert db.version("n", "k").expires_at is not None


@pytest.mark.parametrize("verb", ["expire", "touch"])
def test_ends_that_cannot_be_are_refused_and_write_nothing(db: Database, verb: str) -> None:
    say = getattr(db, verb)
    db.put("n", "k", 1, ttl=1000)
    seq = db.stats()["seq"]
    for wrong in (0, -1, float("nan"), float("inf"), "60", True, timedelta(0)):
        with pytest.raises(errors.InvalidDataError):
            say("n", "k", ttl=wrong)
    with pytest.raises(errors.KeyNotFoundError):
        say("n", "none", ttl=1)
    with pytest.raises(errors.ConflictError):
        say("n", "k", ttl=1, if_match=None)
    with pytest.raises(errors.UnknownVersionError):
        say("n", "k", ttl=1, if_match="ab" * 32)
    with pytest.raises(errors.InvalidDataError):
        say("$n", "k", ttl=1)
    assert db.stats()["seq"] == seq


def test_an_end_is_given_in_one_way_and_lies_ahead(db: Database) -> None:
    db.put("n", "k", 1)
    for wrong in ({}, {"ttl": 5, "at": "2027-01-01T00:00:00Z"}):
        with pytest.raises(errors.InvalidDataError, match="one of them"):
            db.expire("n", "k", **wrong)
    for when in (START, "2020-01-01T00:00:00Z"):
        with pytest.raises(errors.InvalidTimestampError, match="is not ahead"):
            db.expire("n", "k", at=when)
    with pytest.raises(errors.InvalidTimestampError):
        db.expire("n", "k", at=datetime(2027, 1, 1))  # noqa: DTZ001 - the point of it
    db.erase(db.version("n", "k"))
    with pytest.raises(errors.ErasedError):
        db.expire("n", "k", ttl=5)


def test_if_match_names_what_must_still_be_there(db: Database) -> None:
    first = db.put("n", "k", 1)
    second = db.put("n", "k", 2)
    with pytest.raises(errors.ConflictError) as caught:
        db.expire("n", "k", ttl=5, if_match=first)
    assert caught.value.actual == second.id
    assert db.expire("n", "k", ttl=5, if_match=second).value == 2


async def test_it_can_be_awaited(tmp_path: Path) -> None:
    async with await AsyncDatabase.open(tmp_path / "db", clock=FixedClock()) as adb:
        await adb.put("n", "k", 1)
        said = await adb.expire("n", "k", ttl=60)
        assert said.expires_at == said.time + timedelta(seconds=60)
        assert (await adb.touch("n", "k", ttl=None)).expires_at is None


def test_an_end_is_there_after_export_and_reopen(tmp_path: Path) -> None:
    clock = FixedClock()
    with koru_delta.open(tmp_path / "a", clock=clock) as db:
        db.put("n", "k", 1)
        said = db.expire("n", "k", ttl=60)
        db.export_log(tmp_path / "log.jsonl")
        assert db.verify().ok
    for path in ("a", "b"):
        with koru_delta.open(tmp_path / path, clock=clock) as db:
            if path == "b":
                db.import_log(tmp_path / "log.jsonl")
            assert db.version("n", "k") == said
            assert db.version("n", "k").expires_at == said.time + timedelta(seconds=60)


_DAYS = st.integers(-5, 5)


@settings(deadline=None)
@given(
    writes=st.lists(
        st.tuples(st.one_of(st.none(), _DAYS), st.one_of(st.none(), st.integers(1, 6))), max_size=5
    ),
    place=st.integers(0, 4),
    hide=st.booleans(),
)
def test_it_answers_as_if_the_key_had_been_put_with_that_end(
    writes: list[tuple[int | None, int | None]], place: int, hide: bool
) -> None:
    """The version that is present is found, put again in another database with its end."""
    told, born = FixedClock(), FixedClock()
    with (
        koru_delta.open(clock=told, embedder=HashEmbedder()) as said,
        koru_delta.open(clock=born, embedder=HashEmbedder()) as given_so,
    ):
        day = 86_400_000_000
        noon = told.now + 10 * day

        def write(db: Database, number: int, ttl: float | None) -> None:
            starts, length = writes[number]
            begins = None if starts is None else noon + starts * day
            ends = None
            if length is not None:
                ends = moment((begins or db_clock(db)) + length * day)
            db.embed(
                "n", "k", f"word{number}", {"text": f"word{number}"}, ttl=ttl,
                valid_from=None if begins is None else moment(begins), valid_to=ends,
            )  # fmt: skip

        def db_clock(db: Database) -> int:
            return told.now if db is said else born.now

        for number in range(len(writes)):
            told.now = born.now = noon + number
            write(said, number, None)
        told.now = noon + 10
        end = noon + day
        try:
            present = said.version("n", "k").value["text"]
        except errors.KeyNotFoundError:
            with pytest.raises(errors.KeyNotFoundError):
                said.expire("n", "k", at=moment(end))
            return
        if hide:
            said.hide("n", "k")
        said.expire("n", "k", at=moment(end))
        for number in range(len(writes)):
            born.now = noon + number
            own = present == f"word{number}"
            write(given_so, number, (end - born.now) / 1_000_000 if own else None)
        born.now = noon + 10
        if hide:
            given_so.hide("n", "k")

        for now in (end - 1, end):
            told.now = born.now = now
            for days in range(-6, 13):
                at = moment(noon + days * day + 5)
                assert said.get("n", "k", None, valid_at=at) == given_so.get(
                    "n", "k", None, valid_at=at
                )
                words = " ".join(f"word{number}" for number in range(len(writes)))
                assert [(h.key, h.value) for h in said.search("n", words, valid_at=at)] == [
                    (h.key, h.value) for h in given_so.search("n", words, valid_at=at)
                ]
                assert [r.value for r in said.query("n", valid_at=at)] == [
                    r.value for r in given_so.query("n", valid_at=at)
                ]
