"""Hiding is an entry of the log: chained, hashed, carried along, and moving no key."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

import koru_delta
from koru_delta import Database, errors, verify_inclusion
from koru_delta.causal import version_id
from koru_delta.testing import FixedClock
from koru_delta.values import canonical_bytes
from tests.log.test_transfer import forged, put


def keys(db: Database, **moment: Any) -> list[str]:
    found = [row.key for row in db.query("n", **moment)]
    assert db.count("n", **moment) == len(found)
    return found


def test_a_hidden_key_is_out_of_query_and_count_and_nowhere_else(db: Database) -> None:
    first = db.put("n", "a", {"x": 1})
    other = db.put("n", "b", {"x": 1})
    hidden = db.hide("n", "a", author="Ada", message="wrong", run="r", causes=[other])

    assert keys(db) == ["b"]
    assert db.query("n", {"x": 1}) == [db.query("n")[0]]
    assert db.count("n", {"x": 1}) == 1
    assert [row.key for row in db.query("n", limit=1)] == ["b"]
    assert db.query("n", limit=1, offset=1) == []
    assert db.get("n", "a") == {"x": 1}
    assert db.version("n", "a") == first
    assert db.contains("n", "a")
    assert db.list_keys("n") == ["a", "b"]
    assert db.list_namespaces() == ["n"]
    assert db.get_many("n", ["a", "b"]) == {"a": {"x": 1}, "b": {"x": 1}}
    assert keys(db, as_of=other) == ["a", "b"]
    assert [row.key for row in db.as_of(hidden).query("n")] == ["b"]
    assert (hidden.operation, hidden.target, hidden.is_annotation) == ("hide", first.id, True)
    assert (hidden.author, hidden.message, hidden.run) == ("Ada", "wrong", "r")
    assert (hidden.value, hidden.raw, hidden.is_tombstone) == (None, None, False)
    assert [cause.id for cause in hidden.causes] == [other.id]
    assert first.target is None
    assert not first.is_annotation


def test_history_shows_annotations_when_asked(db: Database) -> None:
    first = db.put("n", "a", 1)
    hidden = db.hide("n", "a")
    shown = db.unhide("n", "a")
    second = db.put("n", "a", 2)

    assert db.history("n", "a") == [first, second]
    whole = db.history("n", "a", include_annotations=True)
    assert whole == [first, hidden, shown, second]
    assert db.as_of(hidden).history("n", "a", include_annotations=True) == whole[:2]
    assert db.history("n", "a", include_annotations=True, reverse=True, limit=1) == [second]
    assert list(db.changes()) == whole
    assert [version.previous for version in whole] == [None, first.id, hidden.id, shown.id]
    assert [version.clock["local"] for version in whole] == [1, 2, 3, 4]


def test_a_hide_does_not_move_the_key_for_those_who_compare(db: Database) -> None:
    first = db.put("n", "a", 1)
    db.hide("n", "a")
    second = db.put("n", "a", 2, if_match=first)
    db.hide("n", "a")
    with pytest.raises(errors.ConflictError):
        db.put("n", "a", 3, if_match=first)
    db.delete("n", "a", if_match=second)
    assert db.get("n", "a", None) is None


def test_it_does_not_uncover_what_the_key_held_before_and_a_later_put_is_there(
    db: Database,
) -> None:
    db.put("n", "a", 1)
    db.put("n", "a", 2)
    db.hide("n", "a")
    assert keys(db) == []
    third = db.put("n", "a", 3)
    assert keys(db) == ["a"]
    db.unhide("n", "a", version=db.history("n", "a")[1])
    assert [row.version for row in db.query("n")] == [third]


def test_an_earlier_version_is_hidden_where_it_is_still_what_was_true(
    db: Database, clock: FixedClock
) -> None:
    first = db.put("n", "a", 1)
    clock.advance(seconds=10)
    db.put("n", "a", 2)
    assert keys(db, valid_at=first.time) == ["a"]
    hidden = db.hide("n", "a", version=first)
    assert keys(db) == ["a"]
    assert keys(db, valid_at=first.time) == []
    assert db.get("n", "a", valid_at=first.time) == 1
    db.unhide("n", "a", version=first.id)
    assert keys(db, valid_at=first.time) == ["a"]
    assert keys(db, valid_at=first.time, as_of=hidden) == []


def test_what_expires_while_hidden_is_gone_when_it_is_unhidden(
    db: Database, clock: FixedClock
) -> None:
    db.put("n", "a", 1, ttl=5)
    version = db.version("n", "a")
    db.hide("n", "a")
    clock.advance(seconds=6)
    with pytest.raises(errors.KeyNotFoundError):
        db.unhide("n", "a")
    db.unhide("n", "a", version=version)
    assert keys(db) == []


REFUSED: dict[str, tuple[type[Exception], Callable[[Database], object]]] = {
    "hidden already": (errors.AnnotationError, lambda db: db.hide("n", "hidden")),
    "not hidden": (errors.AnnotationError, lambda db: db.unhide("n", "a")),
    "never there": (errors.KeyNotFoundError, lambda db: db.hide("n", "none")),
    "deleted": (errors.KeyNotFoundError, lambda db: db.hide("n", "gone")),
    "a tombstone": (
        errors.AnnotationError,
        lambda db: db.hide("n", "gone", version=db.history("n", "gone")[1]),
    ),
    "an annotation": (
        errors.AnnotationError,
        lambda db: db.hide("n", "hidden", version=_last(db, "hidden")),
    ),
    "of another key": (
        errors.AnnotationError,
        lambda db: db.hide("n", "hidden", version=db.version("n", "a")),
    ),
    "unknown": (errors.UnknownVersionError, lambda db: db.hide("n", "a", version="ab" * 32)),
    "of KoruDelta's own": (errors.InvalidDataError, lambda db: db.hide("$tags", "t")),
    "many, a tombstone": (
        errors.AnnotationError,
        lambda db: db.hide_many([db.version("n", "a"), db.history("n", "gone")[1]]),
    ),
    "many, but one": (errors.InvalidDataError, lambda db: db.hide_many(db.version("n", "a").id)),
    "many, a tag": (errors.InvalidDataError, lambda db: db.hide_many([next(db.changes(0))])),
    "an unknown cause": (
        errors.UnknownCauseError, lambda db: db.hide("n", "a", causes=["ab" * 32]),
    ),
}  # fmt: skip


def _last(db: Database, key: str) -> koru_delta.Version:
    return db.history("n", key, include_annotations=True)[-1]


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_hidden_is_refused_and_nothing_is_written(db: Database, case: str) -> None:
    db.tag("t", 0)
    for key in ("a", "hidden", "gone"):
        db.put("n", key, 1)
    db.hide("n", "hidden")
    db.delete("n", "gone")
    before = db.stats()["root"]

    error, call = REFUSED[case]
    with pytest.raises(error):
        call(db)
    assert db.stats()["root"] == before


def test_many_are_hidden_in_one_commit_and_those_that_are_already_left_out(db: Database) -> None:
    versions = [db.put(name, "a", 1) for name in ("n", "m", "o")]
    db.hide("m", "a")
    made = db.hide_many([versions[0], versions[1], versions[2].id, versions[0]], message="bad")
    assert [version.target for version in made] == [versions[0].id, versions[2].id]
    assert {version.tx_time for version in made} == {made[0].tx_time}
    assert {version.message for version in made} == {"bad"}
    assert db.hide_many(versions) == []
    assert [version.namespace for version in db.unhide_many(versions)] == ["n", "m", "o"]
    assert db.unhide_many(versions) == db.hide_many([]) == []
    assert keys(db) == ["a"]


def together(db: Database, do: Callable[[koru_delta.Transaction], object]) -> None:
    with db.transaction() as tx:
        do(tx)


def test_a_transaction_hides_what_it_writes_and_what_was_there(db: Database) -> None:
    db.put("n", "there", 1)
    with db.transaction(author="Ada") as tx:
        made = tx.put("n", "mine", 1)
        tx.hide("n", "mine", version=made)
        tx.hide("n", "there")
        tx.put("n", "mine", 2)
        tx.hide("n", "mine")
        tx.unhide("n", "mine", version=made)
        assert tx.get("n", "mine") == 2
        assert tx.get("n", "there") == 1
        with pytest.raises(errors.KeyNotFoundError):
            tx.hide("n", "none")
        with pytest.raises(TypeError):
            tx.hide("n", "there", ttl=5)
    assert [version.operation for version in tx.versions] == [
        "put", "hide", "hide", "put", "hide", "unhide",
    ]  # fmt: skip
    assert {version.author for version in tx.versions} == {"Ada"}
    assert tx.versions[4].target == tx.versions[3].id
    assert keys(db) == []
    with pytest.raises(errors.AnnotationError):
        together(db, lambda tx: (tx.put("n", "new", 1), tx.hide("n", "there")))
    assert not db.contains("n", "new")
    assert db.verify().ok


def filled(db: Database) -> None:
    first = db.put("n", "a", 1)
    db.hide("n", "a")
    db.embed("n", "b", [1.0, 0.0], 2, causes=[("supersedes", first), ("derived_from", first)])
    with db.transaction() as tx:
        made = tx.put("n", "c", 3)
        tx.hide("n", "c", version=made, causes=[("supersedes", first)])
        tx.put("n", "a", 4, causes=[("supersedes", made)])
    db.unhide("n", "a", version=first)


def test_hiding_is_proved_exported_and_imported_like_every_entry(db: Database) -> None:
    filled(db)
    assert db.verify().ok
    head = db.tree_head()
    for version in db.changes():
        assert verify_inclusion(db.prove(version, head), head)
    lines = io.BytesIO()
    db.export_log(lines)
    lines.seek(0)
    with koru_delta.open(None) as copy:
        copy.import_log(lines)
        assert copy.stats()["root"] == db.stats()["root"]
        assert copy.stats()["marks"] == db.stats()["marks"] == 6
        assert list(copy.changes()) == list(db.changes())
        assert keys(copy) == keys(db) == ["a", "b"]
        assert copy.verify().ok


@pytest.mark.parametrize(
    "harm",
    ["DELETE FROM marks WHERE kind = 2", "UPDATE marks SET kind = 3 WHERE kind = 2",
     "UPDATE marks SET target = target + 1 WHERE kind = 100",
     "INSERT INTO marks VALUES (1, 2, 3, 4)"],
)  # fmt: skip
def test_marks_that_the_log_does_not_account_for_are_found(tmp_path: Path, harm: str) -> None:
    with koru_delta.open(tmp_path) as db:
        filled(db)
    con = apsw.Connection(str(tmp_path / "log.db"))
    con.execute(harm)
    con.close()
    with koru_delta.open(tmp_path) as db:
        assert not db.verify().ok


def test_a_database_of_format_1_is_opened_with_what_its_causes_supersede(
    tmp_path: Path, clock: FixedClock
) -> None:
    with koru_delta.open(tmp_path, clock=clock) as db:
        old = db.embed("n", "old", [1.0, 0.0], 1)
        then = db.embed("m", "also", [1.0, 0.0], 1)
        db.embed("n", "new", [1.0, 0.1], 2, causes=[("supersedes", old), ("references", then)])
        db.put("n", "gone", 3)
        db.delete("n", "gone", causes=[("supersedes", then)])
        marks = db.stats()["marks"]
    con = apsw.Connection(str(tmp_path / "log.db"))
    con.execute("DROP TABLE tiers")
    con.execute("DROP INDEX objects_by_base")
    con.execute("DROP TABLE marks")
    con.execute("ALTER TABLE versions DROP COLUMN erased")
    con.execute("PRAGMA user_version = 1")
    con.close()
    with pytest.raises(errors.ReadOnlyError, match="older format"):
        koru_delta.open(tmp_path, read_only=True)

    with koru_delta.open(tmp_path, clock=clock) as db:
        assert db.stats()["marks"] == marks == 2
        assert db.verify().ok
        assert [hit.key for hit in db.similar("n", [1.0, 0.0])] == ["new"]
        assert db.similar("m", [1.0, 0.0]) == []
        assert [hit.key for hit in db.similar("n", [1.0, 0.0], as_of=then)] == ["old"]
        db.hide("n", "new")
        assert db.similar("n", [1.0, 0.0]) == []
        assert keys(db) == ["old"]


def annotation(of: dict[str, Any], **changes: Any) -> dict[str, Any]:
    made = {
        "op": "hide", "namespace": "n", "key": "k", "time": 2_000, "clock": {"local": 2},
        "target": _id(of), "previous": _id(of), **changes,
    }  # fmt: skip
    return {name: value for name, value in made.items() if value is not ...}


def _id(record: dict[str, Any]) -> str:
    return version_id(canonical_bytes(record)).hex()


def _again() -> tuple[dict[str, Any], ...]:
    hide = annotation(put())
    return put(), hide, annotation(put(), time=3_000, previous=_id(hide))


@pytest.mark.parametrize(
    "records",
    [
        lambda: (put(), annotation(put(), target=...)),
        lambda: (put(), annotation(put(), target="ab" * 32)),
        lambda: (put(), annotation(put(), op="unhide")),
        lambda: (put(), annotation(put(), op="delete")),
        lambda: (put(), annotation(put(), valid_from=1)),
        lambda: (put(), annotation(put(), expires_at=9_000)),
        lambda: (put(), annotation(put(), distinction=put()["distinction"])),
        lambda: (put(), annotation(put(), key="l", previous=...)),
        lambda: (put(target="ab" * 32),),
        _again,
    ],
)  # fmt: skip
def test_an_annotation_no_write_could_have_made_is_not_imported(
    records: Callable[[], tuple[dict[str, Any], ...]],
) -> None:
    with koru_delta.open(None, clock=FixedClock()) as db:
        with pytest.raises((errors.InvalidDataError, errors.CorruptionError)):
            db.import_log(forged(*records()))
        assert db.stats()["seq"] == 0
        assert db.import_log(forged(put(), annotation(put()))) == 2
        assert keys(db) == []
        assert db.verify().ok


def test_a_killed_or_refused_write_hides_nothing(db: Database) -> None:
    version = db.put("n", "a", 1)
    with pytest.raises(ZeroDivisionError):
        together(db, lambda tx: (tx.hide("n", "a"), 1 / 0))
    with pytest.raises(errors.ConflictError):
        together(db, lambda tx: (tx.hide("n", "a"), tx.put("n", "a", 2, if_match=None)))
    assert keys(db) == ["a"]
    assert db.hide("n", "a").target == version.id
