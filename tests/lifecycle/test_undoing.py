"""What is erased lives on in no summary; what else came from it is named."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

import koru_delta
from koru_delta import Consolidate, Consolidation, Database, errors
from koru_delta.testing import FixedClock

DAY = timedelta(days=1)
SECRET = "Ann has the rare Zerfallskrankheit."
TEXTS = (SECRET, "Ann asked for tea.", "Ann asked for more tea.", "Ann left.")


def later(clock: FixedClock) -> None:
    clock.advance(seconds=31 * 86_400)


def talk(db: Database, session: str = "s", texts: Sequence[str] = TEXTS) -> list[str]:
    keys = [f"{session}{number}" for number in range(len(texts))]
    for key, text in zip(keys, texts, strict=True):
        db.embed("log", key, text, {"text": text, "session": session, "tags": [text[:12]]})
    return keys


def consolidated(db: Database, clock: FixedClock) -> list[Consolidation]:
    db.lifecycle.policy("log", consolidate=Consolidate(older_than=DAY, at_least=2, below=9))
    later(clock)
    made: list[Consolidation] = db.lifecycle.run_once("consolidate")
    return made


def all_bytes(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def shown(db: Database) -> list[str]:
    return [row.key for row in db.query("log")]


@pytest.mark.parametrize("whole", [True, False])
def test_a_summary_is_erased_with_any_of_its_sources_and_the_others_come_back(
    db: Database, clock: FixedClock, whole: bool
) -> None:
    keys = talk(db)
    [made] = consolidated(db, clock)
    before = db.stats()["seq"]
    assert SECRET in db.get("log", made.key)["text"]

    gone = db.erase(("log", "s0") if whole else made.sources[0], author="Ann", message="asked")

    assert set(gone.versions) == {made.sources[0], made.summary.id}
    assert {entry.time for entry in gone.entries} == {gone.entries[0].time}  # one commit
    assert {entry.author for entry in gone.entries} == {"Ann"}
    assert shown(db) == keys[1:]
    assert db.lifecycle.consolidations() == []
    assert db.history("log", made.key)[0].is_erased
    with pytest.raises(errors.ErasedError, match="asked"):
        db.get("log", made.key, as_of=before)
    for at in (before, None):
        for mode in ("text", "vector", "hybrid"):
            found = db.search("log", "Zerfallskrankheit", mode=mode, as_of=at, k=9)
            assert not any("Zerfall" in str(match.value) for match in found)
    assert db.verify().ok


def test_the_others_are_summed_up_anew_without_what_is_gone(
    db: Database, clock: FixedClock
) -> None:
    keys = talk(db)
    [made] = consolidated(db, clock)
    db.erase(("log", "s0"))
    later(clock)

    [again] = db.lifecycle.run_once("consolidate")

    assert again.keys == tuple(keys[1:])
    assert again.key != made.key
    assert db.get("log", again.key) == {
        "text": "\n".join(TEXTS[1:]), "session": "s", "summary_of": 3,
        "tags": ["Ann asked fo", "Ann left."],
    }  # fmt: skip


def test_no_file_has_what_a_summary_quoted_of_what_is_erased(tmp_path: Path) -> None:
    clock = FixedClock()
    with koru_delta.open(tmp_path / "db", clock=clock, durability="relaxed") as db:
        for number, text in enumerate(TEXTS):
            db.put("log", f"s{number}", {"text": text, "session": "s"})
        [made] = consolidated(db, clock)
        db.expire("log", made.key, ttl=DAY)  # another version of it
        assert db.search("log", "Zerfallskrankheit", mode="text")
        assert b"Zerfall" in all_bytes(tmp_path)
        assert db.erase(("log", "s0")).is_clean
    assert b"Zerfall" not in all_bytes(tmp_path)


def test_a_summary_that_was_taken_back_before_is_erased_as_well(
    db: Database, clock: FixedClock
) -> None:
    keys = talk(db)
    [made] = consolidated(db, clock)
    db.lifecycle.undo(made)
    db.hide("log", "s2")

    gone = db.erase(("log", "s0"))

    assert set(gone.versions) == {made.sources[0], made.summary.id}
    assert shown(db) == [keys[1], keys[3]]  # who is hidden for another reason stays so
    assert db.verify().ok


def test_what_took_the_place_of_a_summary_stays(db: Database, clock: FixedClock) -> None:
    talk(db)
    [made] = consolidated(db, clock)
    own = db.put("log", made.key, {"text": "My own words."})

    gone = db.erase(("log", "s0"))

    assert own.id not in gone.versions
    assert made.summary.id in gone.versions
    assert db.get("log", made.key) == {"text": "My own words."}


def test_only_summaries_of_what_is_erased_are_touched(db: Database, clock: FixedClock) -> None:
    talk(db, "a")
    others = talk(db, "b")
    one, other = consolidated(db, clock)

    gone = db.erase([("log", "a0"), ("log", "a1"), ("log", "b1"), ("log", other.key)])

    assert set(gone.versions) == {
        one.summary.id, other.summary.id, one.sources[0], one.sources[1], other.sources[1]
    }  # fmt: skip
    assert shown(db) == ["a2", "a3", others[0], *others[2:]]
    assert db.verify().ok


def test_all_sources_of_a_summary_can_be_erased_at_once(db: Database, clock: FixedClock) -> None:
    keys = talk(db)
    [made] = consolidated(db, clock)
    gone = db.erase([("log", key) for key in keys])
    assert set(gone.versions) == {*made.sources, made.summary.id}
    assert shown(db) == db.list_keys("log") == []
    assert db.lifecycle.consolidations() == []


def test_what_is_in_quarantine_does_not_come_back_by_an_erase(
    db: Database, clock: FixedClock
) -> None:
    keys = talk(db)
    consolidated(db, clock)
    quarantine = db.quarantine(db.version("log", "s1"), message="wrong")

    db.erase(("log", "s0"))

    assert shown(db) == keys[2:]
    db.release(quarantine)
    assert shown(db) == keys[1:]


def test_a_transaction_that_erases_a_source_erases_its_summary(
    db: Database, clock: FixedClock
) -> None:
    keys = talk(db)
    [made] = consolidated(db, clock)
    with db.transaction(message="asked") as tx:
        tx.erase(("log", "s0"))
    assert db.history("log", made.key)[0].is_erased
    assert shown(db) == keys[1:]


def test_who_consolidates_while_a_source_is_erased_leaves_no_quote(
    clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with koru_delta.open(clock=clock) as db:
        for number, text in enumerate(TEXTS):
            db.put("log", f"s{number}", {"text": text, "session": "s"})
        planned, erase = threading.Event(), db._intents.erase

        def slow(*args: object) -> object:
            writes = erase(*args)  # type: ignore[arg-type]
            if not planned.is_set():
                planned.set()
                consolidated(db, clock)  # before the commit
            return writes

        monkeypatch.setattr(db._intents, "erase", slow)
        db.erase(("log", "s0"))

        assert shown(db) == ["s1", "s2", "s3"]
        assert not any(
            "Zerfall" in str(version.value) for version in db.changes()
            if version.operation == "put" and not version.is_erased and version.namespace == "log"
        )  # fmt: skip


def test_what_came_from_what_is_erased_is_named(db: Database, clock: FixedClock) -> None:
    keys = talk(db)
    [made] = consolidated(db, clock)
    fact = db.put("facts", "health", "ill", causes=[("derived_from", made.sources[0])])
    advice = db.put("facts", "advice", "rest", causes=[("derived_from", fact)])
    told = db.put("facts", "told", "by tea", causes=[("derived_from", made.summary)])
    db.put("facts", "other", "tea", causes=[("derived_from", db.version("log", keys[1]))])
    db.put("facts", "why", "x", causes=[("references", made.sources[0])])

    gone = db.erase(("log", "s0"))

    assert gone.derived == (fact.id, advice.id, told.id)
    assert db.erase(("log", "s0")).derived == gone.derived
    assert db.get("facts", "told") == told.value
    assert db.erase(list(gone.derived)).derived == ()
    assert db.erase(("log", "s0")).derived == ()


def test_chunks_of_a_document_that_is_erased_are_named(db: Database) -> None:
    db.ingest([("readme", "Ann is ill, and rests.")], namespace="docs")
    chunks = [row.version.id for row in db.query("docs.chunks")]
    assert chunks
    assert list(db.erase(("docs", "readme")).derived) == chunks
