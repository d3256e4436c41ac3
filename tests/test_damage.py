"""Bad input, and files that were damaged: a typed error, and nothing lost or changed."""

from __future__ import annotations

import datetime
import decimal
import inspect
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest

import koru_delta
from koru_delta import Database, errors
from koru_delta.storage import formats
from koru_delta.testing import FixedClock
from tests.test_fork import in_child

UTC = datetime.UTC
FLIPS = int(os.environ.get("KORU_FLIPS", "150"))


def picture(db: Database) -> dict[str, Any]:
    """Everything there is to see, at every moment."""
    seen: dict[str, Any] = {"root": db.stats()["root"], "tags": db.tags()}
    commits = db.commits()
    for commit in [None, *commits[:: max(1, len(commits) // 12)]]:
        for namespace in ("n", "v"):
            seen[f"{commit and commit.seq}/{namespace}"] = [
                (row.key, row.version.id, row.version.raw)
                for row in db.query(namespace, as_of=commit)
            ]
    seen["v"] = [(hit.key, hit.score) for hit in db.similar("v", [1.0, 2.0, 3.0], model="m")]
    return seen


def fill(db: Database) -> None:
    """A little of everything."""
    db.put("n", "a", {"text": "first"})
    db.put("n", "b", [1, 2, 3])
    db.put("n", "a", {"text": "second"})
    db.put_many([("n", f"k{n}", {"n": n, "filler": "x" * 40 * n}) for n in range(12)])
    db.delete("n", "k3")
    db.put("n", "big", "".join(chr(97 + n % 26) for n in range(9000)))
    db.put("n", "big", "".join(chr(97 + n % 26) for n in range(9100)))
    db.put(
        "n", "past", "was so", valid_from="2020-01-01T00:00:00Z", valid_to="2021-01-01T00:00:00Z"
    )
    db.embed("v", "x", [1.0, 2.0, 3.0], {"at": 1}, model="m")
    db.embed("v", "y", [3.0, 2.0, 1.0], {"at": 2}, model="m")
    db.embed("v", "x", [0.0, 1.0, 0.0], model="m")
    db.tag("here")
    db.put("n", "b", {"text": "last"}, causes=[db.history("n", "a")[0]])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that was filled and closed."""
    path = tmp_path_factory.mktemp("whole") / "db"
    with koru_delta.open(path) as db:
        fill(db)
    return path


def copied(whole: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(whole, to)
    return to


# Bad arguments

circular: list[Any] = []
circular.append(circular)
deep: Any = None
for _ in range(10_000):
    deep = [deep]
deep_object: Any = None
for _ in range(10_000):
    deep_object = {"k": deep_object}

BAD_VALUES = {
    "nan": float("nan"), "infinity": [float("inf")], "minus infinity": {"a": float("-inf")},
    "key that is a number": {1: 2}, "key that is null": {None: 1}, "key that is true": {True: 1},
    "date": datetime.date(2026, 1, 1), "time": datetime.datetime(2026, 1, 1, tzinfo=UTC),
    "set": {1}, "bytes": b"x", "tuple": (1, 2), "uuid": uuid.UUID(int=1),
    "decimal": decimal.Decimal(1), "complex": 1j, "object": object(), "function": len,
    "numpy float": np.float64(1), "numpy float32": np.float32(1), "numpy int": np.int64(1),
    "numpy bool": np.True_, "numpy array": np.zeros(2), "2**63": 2**63, "-2**63-1": -(2**63) - 1,
    "10,000 lists": deep, "10,000 objects": deep_object, "circle": circular,
    "surrogate": "\ud800", "surrogate inside": {"a": ["\udfff"]}, "surrogate key": {"\ud800": 1},
    "enum-like subclass": type("S", (str,), {})("x"), "dict subclass": type("D", (dict,), {})(a=1),
}  # fmt: skip
BAD_NAMES: dict[str, Any] = {
    "empty": "", "2 KiB": "x" * 2048, "2 KiB of two bytes": "é" * 1024, "NUL": "a\0b",
    "a number": 5, "null": None, "bytes": b"x", "surrogate": "\ud800", "tuple": ("a",),
}  # fmt: skip
naive = datetime.datetime(2026, 1, 1)  # noqa: DTZ001 - the very thing
ahead = datetime.datetime(2999, 1, 1, tzinfo=UTC)
REFUSED: dict[str, tuple[type[Exception], Callable[[Database], Any]]] = {
    # vectors
    "vector with NaN": (
        errors.InvalidDataError, lambda d: d.embed("v", "z", [1.0, float("nan"), 0]),
    ),
    "vector beyond float32": (errors.InvalidDataError, lambda d: d.embed("v", "z", [1e39, 0, 0])),
    "empty vector": (errors.InvalidDataError, lambda d: d.embed("v", "z", [])),
    "matrix": (errors.InvalidDataError, lambda d: d.embed("v", "z", [[1.0, 2.0, 3.0]])),
    "vector of text": (errors.InvalidDataError, lambda d: d.embed("v", "z", ["a", "b", "c"])),
    "ragged": (errors.InvalidDataError, lambda d: d.embed("v", "z", [[1.0], [1.0, 2.0]])),
    "too many dimensions": (errors.InvalidDataError, lambda d: d.embed("v", "z", np.ones(65_537))),
    "zero under cosine": (errors.InvalidDataError, lambda d: d.embed("v", "z", [0.0, 0.0, 0.0])),
    "other dimensions": (errors.DimensionMismatchError, lambda d: d.embed("v", "z", [1.0, 2.0])),
    "other metric": (
        errors.MetricMismatchError, lambda d: d.embed("v", "z", [1.0, 2.0, 3.0], metric="l2"),
    ),
    "no metric": (errors.QueryError, lambda d: d.embed("v", "z", [1.0, 2.0, 3.0], metric="x")),
    "bad one of many": (
        errors.DimensionMismatchError,
        lambda d: d.embed_many("v", [("z", [1.0, 2.0, 3.0]), ("w", [1.0])]),
    ),
    "bad item of many": (errors.InvalidDataError, lambda d: d.embed_many("v", [("z",)])),
    "list in the place of a tuple": (
        errors.InvalidDataError, lambda d: d.embed_many("v", [["z", [1.0, 2.0, 3.0]]]),
    ),
    "nothing to embed": (errors.InvalidDataError, lambda d: d.embed_many("v", None)),
    "an object of items": (
        errors.InvalidDataError, lambda d: d.embed_many("v", {"z": [1.0, 2.0, 3.0]}),
    ),
    "nothing to put": (errors.InvalidDataError, lambda d: d.put_many(None)),
    "text to put": (errors.InvalidDataError, lambda d: d.put_many("abc")),
    "empty model": (errors.InvalidDataError, lambda d: d.embed("v", "z", [1.0, 2, 3], model="")),
    "model with a surrogate": (
        errors.InvalidDataError, lambda d: d.embed("v", "z", [1.0, 2, 3], model="\ud800"),
    ),
    "model with NUL": (
        errors.InvalidDataError, lambda d: d.embed("v", "z", [1.0, 2, 3], model="a\0b"),
    ),
    "first vector of a model refused": (
        errors.ConflictError, lambda d: d.embed("v", "x", [1.0], model="new", if_match=None),
    ),
    "search with other dimensions": (
        errors.DimensionMismatchError, lambda d: d.similar("v", [1.0]),
    ),
    "search with NaN": (errors.InvalidDataError, lambda d: d.similar("v", [float("nan"), 0, 1])),
    "search with zero": (errors.InvalidDataError, lambda d: d.similar("v", [0.0, 0.0, 0.0])),
    "search of another model": (
        errors.ModelMismatchError, lambda d: d.similar("v", [1.0, 2, 3], model="other"),
    ),
    "search for minus one": (errors.QueryError, lambda d: d.similar("v", [1.0, 2, 3], k=-1)),
    "search for true": (errors.QueryError, lambda d: d.similar("v", [1.0, 2, 3], k=True)),
    # values
    "value over the limit": (
        errors.ValueTooLargeError, lambda d: d.put("n", "z", "x" * (64 * 1024 * 1024)),
    ),
    "bad one of a batch": (
        errors.InvalidDataError, lambda d: d.put_many([("n", "z", 1), ("n", "w", {1})]),
    ),
    "bad item of a batch": (errors.InvalidDataError, lambda d: d.put_many([("n", "z")])),
    # times
    "naive as_of": (errors.InvalidTimestampError, lambda d: d.get("n", "a", as_of=naive)),
    "naive text": (errors.InvalidTimestampError, lambda d: d.get("n", "a", as_of="2026-01-01")),
    "future as_of": (errors.InvalidTimestampError, lambda d: d.get("n", "a", as_of=ahead)),
    "no time": (errors.InvalidTimestampError, lambda d: d.get("n", "a", as_of="yesterday")),
    "float as_of": (errors.InvalidTimestampError, lambda d: d.get("n", "a", as_of=1.5)),
    "true as_of": (errors.InvalidTimestampError, lambda d: d.get("n", "a", as_of=True)),
    "negative as_of": (errors.InvalidTimestampError, lambda d: d.get("n", "a", as_of=-1)),
    "as_of past the end": (errors.InvalidTimestampError, lambda d: d.get("n", "a", as_of=10**6)),
    "as_of beyond 64 bit": (errors.InvalidTimestampError, lambda d: d.get("n", "a", as_of=2**70)),
    "as_of inside a commit": (errors.InvalidTimestampError, lambda d: d.get("n", "a", as_of=5)),
    "unknown version": (errors.UnknownVersionError, lambda d: d.get("n", "a", as_of="ab" * 32)),
    "unknown tag": (errors.UnknownVersionError, lambda d: d.get("n", "a", as_of="tag:none")),
    "tag with a surrogate": (
        errors.KoruDeltaError, lambda d: d.get("n", "a", as_of="tag:\ud800"),
    ),
    "naive valid_at": (errors.InvalidTimestampError, lambda d: d.get("n", "a", valid_at=naive)),
    "number valid_at": (errors.InvalidTimestampError, lambda d: d.get("n", "a", valid_at=5)),
    "naive valid_from": (
        errors.InvalidTimestampError, lambda d: d.put("n", "z", 1, valid_from=naive),
    ),
    "valid_to before valid_from": (
        errors.InvalidTimestampError,
        lambda d: d.put("n", "z", 1, valid_from=ahead, valid_to="2020-01-01T00:00:00Z"),
    ),
    "valid_to in the past": (
        errors.InvalidTimestampError, lambda d: d.put("n", "z", 1, valid_to="2020-01-01T00:00:00Z"),
    ),
    **{
        f"ttl {ttl!r}": (errors.InvalidDataError, lambda d, ttl=ttl: d.put("n", "z", 1, ttl=ttl))
        for ttl in (0, -1, float("nan"), float("inf"), True, "1", 1e12)
    },
    # references
    "unknown cause": (errors.KoruDeltaError, lambda d: d.put("n", "z", 1, causes=["ab" * 32])),
    "cause that is none": (errors.KoruDeltaError, lambda d: d.put("n", "z", 1, causes=["x"])),
    "cause of a number": (errors.InvalidDataError, lambda d: d.put("n", "z", 1, causes=[5])),
    "unknown kind": (
        errors.InvalidDataError,
        lambda d: d.put("n", "z", 1, causes=[("because", d.history("n", "a")[0])]),
    ),
    "stale if_match": (
        errors.ConflictError, lambda d: d.put("n", "a", 1, if_match=d.history("n", "a")[0]),
    ),
    "if_match None": (errors.ConflictError, lambda d: d.put("n", "a", 1, if_match=None)),
    "if_match rubbish": (errors.UnknownVersionError, lambda d: d.put("n", "a", 1, if_match="x")),
    "if_match a number": (errors.KoruDeltaError, lambda d: d.put("n", "a", 1, if_match=5)),
    "author a number": (errors.InvalidDataError, lambda d: d.put("n", "z", 1, author=5)),
    "message a surrogate": (
        errors.InvalidDataError, lambda d: d.put("n", "z", 1, message="\ud800"),
    ),
    "delete of nothing": (errors.KeyNotFoundError, lambda d: d.delete("n", "z")),
    "delete of the deleted": (errors.KeyNotFoundError, lambda d: d.delete("n", "k3")),
    "tag twice": (errors.ConflictError, lambda d: d.tag("here")),
    "our own namespace": (errors.InvalidDataError, lambda d: d.put("$tags", "here", 1)),
    "version of a number": (errors.KoruDeltaError, lambda d: d.get_version(5)),
    # questions
    **{
        f"filter {filter!r}": (errors.QueryError, lambda d, f=filter: d.query("n", f))
        for filter in (
            {"a": {"$near": 1}}, {"$nor": []}, {"a": {"$in": 5}}, {"a": {"$regex": "("}}, [], 5,
            {"a": {"$gt": None}}, {"a": {"$gt": 1, "b": 2}}, {"a": float("nan")},
        )
    },
    "count by no filter": (errors.QueryError, lambda d: d.count("n", {"a": {"$near": 1}})),
    "search by no filter": (
        errors.QueryError, lambda d: d.similar("v", [1.0, 2, 3], filter={"a": {"$near": 1}}),
    ),
    "negative limit": (errors.QueryError, lambda d: d.query("n", limit=-1)),
    "negative offset": (errors.QueryError, lambda d: d.query("n", offset=-1)),
    "prefix with a surrogate": (errors.KoruDeltaError, lambda d: d.list_keys("n", prefix="\ud800")),
    "after a surrogate": (errors.KoruDeltaError, lambda d: d.list_keys("n", after="\ud800")),
}  # fmt: skip


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Database]:
    with koru_delta.open(tmp_path / "db", durability="relaxed") as db:
        fill(db)
        yield db


def _refuses(db: Database, error: type[Exception], verb: Callable[[Database], Any]) -> None:
    """`verb` raises, and memory and disk are equal and as before."""
    before = picture(db)
    with pytest.raises(error):
        verb(db)
    assert picture(db) == before
    assert db.directory is not None
    with koru_delta.open(db.directory, durability="relaxed") as other:
        assert picture(other) == before
    assert db.verify().ok


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_and_changes_nothing(filled: Database, name: str) -> None:
    _refuses(filled, *REFUSED[name])


@pytest.mark.parametrize("name", BAD_VALUES)
def test_what_json_cannot_say_is_refused(filled: Database, name: str) -> None:
    value = BAD_VALUES[name]
    for verb in (
        lambda d: d.put("n", "z", value),
        lambda d: d.put_many([("n", "ok", 1), ("n", "z", value)]),
        lambda d: d.embed("v", "z", [1.0, 2.0, 3.0], value),
    ):
        _refuses(filled, errors.InvalidDataError, verb)

    def in_transaction(db: Database) -> None:
        with db.transaction() as tx:
            tx.put("n", "ok", 1)
            tx.put("n", "z", value)

    _refuses(filled, errors.InvalidDataError, in_transaction)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_cannot_be_are_refused(filled: Database, name: str) -> None:
    bad = BAD_NAMES[name]
    for namespace, key in ((bad, "k"), ("n", bad)):
        _refuses(filled, errors.InvalidDataError, lambda d, n=namespace, k=key: d.put(n, k, 1))
        for verb in (filled.get, filled.contains, filled.history, filled.delete, filled.get_raw):
            with pytest.raises(errors.InvalidDataError):
                verb(namespace, key)
    for read in (filled.list_keys, filled.query, filled.count, filled.drop_namespace):
        with pytest.raises(errors.InvalidDataError):
            read(bad)


def test_a_refused_first_vector_does_not_fix_its_space(filled: Database) -> None:
    with pytest.raises(errors.ConflictError):
        filled.embed("v", "x", [1.0], model="new", metric="l2", if_match=None)
    filled.embed("v", "x", [1.0, 2.0], model="new")
    assert filled.history("v", "x")[-1].vectors["new"]["metric"] == "cosine"


# Closed, read-only


ARGUMENTS: dict[str, Any] = {
    "namespace": "n", "key": "a", "value": 1, "vector": [1.0, 2.0, 3.0], "query": [1.0, 2.0, 3.0],
    "queries": [[1.0, 2.0, 3.0]], "model": "other",
    "embed_fn": lambda texts: [[1.0, 2.0] for _ in texts], "keys": ["a"], "to": 1,
    "name": "t", "ref": 1, "timestamp": 1, "old_size": 0,
}  # fmt: skip


def _calls(db: Database, tmp_path: Path) -> dict[str, Callable[[], Any]]:
    """Every public verb, called with something that would do."""
    version = db.history("n", "a")[0]
    db.export_log(tmp_path / "log.jsonl")
    given = {
        **ARGUMENTS, "version": version, "versions": [version], "before": version,
        "after": version, "effect": version, "cause": version, "what": version,
        "target": tmp_path / "target", "source": tmp_path / "log.jsonl", "quarantine": "q1",
        "hit": db.similar("v", [1.0, 2.0, 3.0], model="m")[0], "text": "words", "t1": 1,
        "start": [1.0, 2.0, 3.0], "steps": [],
    }  # fmt: skip
    items = {
        "put_many": [("n", "z", 1)], "embed_many": [("z", [1.0, 2.0, 3.0])],
        "delete_many": [("n", "a")],
    }  # fmt: skip
    calls: dict[str, Callable[[], Any]] = {}
    for name, verb in inspect.getmembers(db, inspect.ismethod):
        if name.startswith("_") or name in ("close", "ingest"):
            continue
        needed = [
            p for p in inspect.signature(verb).parameters.values()
            if p.default is p.empty and p.kind is not p.VAR_KEYWORD
        ]  # fmt: skip
        arguments = [items[name] if p.name == "items" else given[p.name] for p in needed]
        if name == "backup":
            arguments = [tmp_path / "backup"]
        elif name in ("lineage", "quarantine"):
            arguments = [version]
        elif name == "descend":
            arguments = ["v", [1.0, 2.0, 3.0]]
        calls[name] = lambda verb=verb, arguments=arguments: _used(verb(*arguments))
    calls["expire"] = lambda: db.expire("n", "a", ttl=60)
    calls["transaction"] = lambda: _in_transaction(db)
    calls["ingest"] = lambda: db.ingest([("z", "text")], namespace="notes", embedder=None)
    return calls


def _used(result: Any) -> Any:
    return list(result) if isinstance(result, Iterator) else result


def _in_transaction(db: Database) -> None:
    with db.transaction() as tx:
        tx.put("n", "z", 1)


def test_a_closed_database_says_so_whatever_is_asked(tmp_path: Path) -> None:
    db = koru_delta.open(tmp_path / "db")
    fill(db)
    view = db.as_of(1)
    db.get("n", "a")
    db.similar("v", [1.0, 2.0, 3.0])
    calls = _calls(db, tmp_path)
    assert len(calls) > 35
    db.close()
    db.close()

    for name, call in calls.items():
        with pytest.raises(errors.DatabaseClosedError):
            pytest.fail(f"{name} returned {call()!r}")
    for read in (lambda: view.get("n", "a"), lambda: view.list_keys("n"), view.commits):
        with pytest.raises(errors.DatabaseClosedError):
            read()


def test_closing_while_threads_are_at_work(tmp_path: Path) -> None:
    problems: list[BaseException] = []
    for turn in range(15):
        db = koru_delta.open(tmp_path / "db", durability="relaxed")
        db.put("n", "k", {"turn": turn})

        def work(db: Database = db) -> None:
            try:
                while True:
                    db.get("n", "k")
                    db.list_keys("n")
                    db.put("n", "k", {"turn": 1})
            except errors.DatabaseClosedError:
                pass
            except BaseException as error:  # noqa: BLE001 - reported below
                problems.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        db.close()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
        with pytest.raises(errors.DatabaseClosedError):
            db.get("n", "k")
    assert problems == []


def test_a_read_only_handle_reads_and_does_not_write(whole: Path, tmp_path: Path) -> None:
    path = copied(whole, tmp_path / "db")
    before = {item.name: item.read_bytes() for item in path.iterdir() if item.is_file()}
    with koru_delta.open(path, read_only=True) as db:
        seen = picture(db)
        calls = _calls(db, tmp_path)
        writes = {
            "put", "put_many", "delete", "delete_many", "embed", "embed_many", "revert", "tag",
            "drop_namespace", "import_log", "reembed", "transaction", "hide", "hide_many", "unhide",
            "unhide_many", "ingest", "quarantine", "release", "configure_text", "erase", "retain",
            "sweep", "compact", "expire", "touch",
        }  # fmt: skip
        for name in writes & calls.keys():
            with pytest.raises(errors.ReadOnlyError):
                pytest.fail(f"{name} returned {calls[name]()!r}")
        for name in calls.keys() - writes:
            calls[name]()
        assert picture(db) == seen
    after = {item.name: item.read_bytes() for item in path.iterdir() if item.is_file()}
    assert {name: after[name] for name in before} == before


def test_a_read_only_handle_sees_what_others_write(whole: Path, tmp_path: Path) -> None:
    path = copied(whole, tmp_path / "db")
    with koru_delta.open(path) as db, koru_delta.open(path, read_only=True) as reader:
        for number in range(50):
            db.put("n", "a", {"at": number})
            assert reader.get("n", "a") == {"at": number}
            assert reader.get("n", "a") == {"at": number}


# Directories


def test_a_directory_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(errors.NotADatabaseError, match=r"thesis\.txt"):
        koru_delta.open(tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(errors.NotADatabaseError):
        koru_delta.open(tmp_path / "file")
    with pytest.raises((errors.NotADatabaseError, errors.StorageError)):
        koru_delta.open(tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "x"


def test_nothing_to_open_read_only(tmp_path: Path) -> None:
    with pytest.raises(errors.NotADatabaseError):
        koru_delta.open(tmp_path / "none", read_only=True)
    with pytest.raises(errors.NotADatabaseError):
        koru_delta.open(tmp_path, read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "log.db"
    con = apsw.Connection(str(file))
    con.execute("CREATE TABLE precious(x); INSERT INTO precious VALUES(1)")
    con.close()
    before = file.read_bytes()
    for read_only in (True, False):
        with pytest.raises(errors.NotADatabaseError):
            koru_delta.open(tmp_path, read_only=read_only)
    assert file.read_bytes() == before


def test_a_text_file_called_log_db(tmp_path: Path) -> None:
    (tmp_path / "log.db").write_text("dear diary, " * 1000)
    with pytest.raises((errors.NotADatabaseError, errors.CorruptionError)):
        koru_delta.open(tmp_path)
    assert (tmp_path / "log.db").read_text() == "dear diary, " * 1000


def test_a_newer_format_says_what_to_upgrade(whole: Path, tmp_path: Path) -> None:
    path = copied(whole, tmp_path / "db")
    con = apsw.Connection(str(path / "log.db"))
    con.execute("PRAGMA user_version = 99")
    con.close()
    with pytest.raises(errors.UnsupportedFormatError, match="upgrade"):
        koru_delta.open(path)
    con = apsw.Connection(str(path / "log.db"))
    con.execute(f"PRAGMA user_version = {formats.FORMAT}")
    con.close()
    with koru_delta.open(path) as db:
        assert db.verify().ok


@pytest.fixture
def anybody() -> Iterator[Path]:
    """A directory that other users can reach, which pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="koru-anybody-"))
    path.chmod(0o755)
    yield path
    for item in [path, *path.rglob("*")]:
        item.chmod(0o755)
    shutil.rmtree(path)


def test_a_directory_that_may_not_be_written(whole: Path, anybody: Path) -> None:
    path = copied(whole, anybody / "db")
    for item in path.rglob("*"):
        item.chmod(0o555 if item.is_dir() else 0o444)
    path.chmod(0o555)
    with koru_delta.open(whole) as db:
        expected = picture(db)

    def child() -> None:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65_534)
            os.setuid(65_534)
        with pytest.raises(errors.ReadOnlyError, match="read_only"):
            koru_delta.open(path)
        with pytest.raises(errors.KoruDeltaError):
            koru_delta.open(path / "new")
        with koru_delta.open(path, read_only=True) as db:
            assert picture(db) == expected
            assert db.verify().ok

    in_child(child)


def test_a_directory_that_may_not_be_looked_into(whole: Path, anybody: Path) -> None:
    path = copied(whole, anybody / "db")
    path.chmod(0o000)

    def child() -> None:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65_534)
            os.setuid(65_534)
        for read_only in (False, True):
            with pytest.raises(errors.KoruDeltaError):
                koru_delta.open(path, read_only=read_only)

    in_child(child)


# Locks


def test_a_lock_held_elsewhere_is_waited_for_and_then_reported(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db", lock_timeout_seconds=0.2) as db:
        db.put("n", "k", 1)
        holder = subprocess.Popen(
            [
                sys.executable, "-c",
                "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); "
                "print('held', flush=True); sys.stdin.read()",
                str(tmp_path / "db" / "lock"),
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"held\n"
        for verb in (
            lambda: db.put("n", "k", 2),
            lambda: db.put_many([("n", "k", 2)]),
            lambda: db.delete("n", "k"),
            lambda: db.tag("t"),
        ):
            with pytest.raises(errors.DatabaseLockedError):
                verb()
        assert db.get("n", "k") == 1
        with koru_delta.open(tmp_path / "db", read_only=True) as reader:
            assert reader.get("n", "k") == 1
        holder.stdin.close()
        holder.stdout.close()
        holder.wait()
        db.put("n", "k", 3)
        assert [version.value for version in db.history("n", "k")] == [1, 3]


def test_sqlites_own_lock_held_elsewhere(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db", lock_timeout_seconds=0.2) as db:
        db.put("n", "k", 1)
        holder = subprocess.Popen(
            [
                sys.executable, "-c",
                "import apsw, sys; c = apsw.Connection(sys.argv[1]); c.execute('BEGIN IMMEDIATE'); "
                "print('held', flush=True); sys.stdin.read()",
                str(tmp_path / "db" / "log.db"),
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(errors.DatabaseLockedError):
            db.put("n", "k", 2)
        assert db.get("n", "k") == 1
        holder.stdin.close()
        holder.stdout.close()
        holder.wait()
        db.put("n", "k", 3)
        assert db.verify().ok


# Clocks


def test_a_clock_set_back_hides_nothing(tmp_path: Path) -> None:
    clock = FixedClock()
    with koru_delta.open(tmp_path / "db", clock=clock) as db:
        db.put("n", "k", {"at": 1})
        clock.advance(seconds=-3600)
        assert db.get("n", "k") == {"at": 1}
        second = db.put("n", "k", {"at": 2})
        assert db.get("n", "k") == {"at": 2}
        assert db.list_keys("n") == ["k"]
        assert second.tx_time == db.history("n", "k")[0].tx_time + 1
        assert db.verify().ok


def test_a_clock_set_back_and_the_generation_file_gone(tmp_path: Path) -> None:
    clock = FixedClock()
    with koru_delta.open(tmp_path / "db", clock=clock) as db:
        db.put("n", "k", {"at": 1})
    (tmp_path / "db" / "generation").unlink()
    clock.advance(seconds=-3600)
    with koru_delta.open(tmp_path / "db", clock=clock) as db:
        assert db.list_keys("n") == ["k"]
        assert db.get("n", "k") == {"at": 1}
        assert not db.verify().compared


def test_a_writer_killed_after_its_commit_and_a_write_refused_after_it(tmp_path: Path) -> None:
    """The end the killed writer could not note must not stay unnoted."""
    clock = FixedClock()
    with koru_delta.open(tmp_path / "db", clock=clock) as db:
        db.put("n", "other", 1)

        def child() -> None:
            from koru_delta.storage.generation import Generation

            Generation.acknowledge = lambda *_: os._exit(0)  # type: ignore[method-assign]
            clock.advance(seconds=3600)
            db.put("n", "k", {"at": 1})

        in_child(child)
        with pytest.raises(errors.ConflictError):
            db.put("n", "other", 2, if_match=None)

        assert db.list_keys("n") == ["k", "other"]
        assert db.get("n", "k") == {"at": 1}


# Files cut short


def test_log_db_cut_short(whole: Path, tmp_path: Path) -> None:
    size = (whole / "log.db").stat().st_size
    with koru_delta.open(copied(whole, tmp_path / "db")) as db:
        gets = _gets(db)
    for left in [0, 1, 50, 100, 4096, *range(5000, size, 9973), size - 4096, size - 1]:
        path = copied(whole, tmp_path / "db")
        os.truncate(path / "log.db", left)
        try:
            with koru_delta.open(path) as db:
                assert not db.verify().ok, f"with {left} of {size} bytes all seems well"
                assert _wrong_gets(db, gets)[0] == []
        except errors.KoruDeltaError:
            continue


def _with_a_wal(tmp_path: Path, durability: str) -> Path:
    """A directory as a killed writer leaves it: most of the log is in the WAL."""
    path = tmp_path / f"killed-{durability}"
    with koru_delta.open(path, durability=durability) as db:  # type: ignore[arg-type]
        for number in range(10):
            db.put("n", f"early{number}", number)

    def child() -> None:
        db = koru_delta.open(path, durability=durability)  # type: ignore[arg-type]
        for number in range(60):
            db.put("n", f"k{number}", {"n": number})
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(AssertionError, match="0x9"):
        in_child(child)
    assert (path / "log.db-wal").stat().st_size > 100_000
    return path


def test_a_wal_cut_short_or_damaged_is_not_taken_for_the_end(tmp_path: Path) -> None:
    killed = _with_a_wal(tmp_path, "full")
    size = (killed / "log.db-wal").stat().st_size
    with koru_delta.open(copied(killed, tmp_path / "db")) as db:
        assert db.count("n") == 70
    chance = random.Random(1)
    for left in [None, 0, 1, 32, 100, *(chance.randrange(size) for _ in range(20)), size - 1]:
        path = copied(killed, tmp_path / "db")
        (path / "log.db-shm").unlink(missing_ok=True)
        if left is None:
            (path / "log.db-wal").unlink()
        else:
            os.truncate(path / "log.db-wal", left)
        for _ in range(2):  # the second opening is no milder than the first
            with pytest.raises(errors.CorruptionError, match="acknowledged"):
                koru_delta.open(path).close()
    seen = 0
    for _ in range(40):
        path = copied(killed, tmp_path / "db")
        (path / "log.db-shm").unlink(missing_ok=True)
        _flip(path / "log.db-wal", chance)
        try:
            with koru_delta.open(path) as db:
                assert db.count("n") == 70
                assert db.verify().ok
        except errors.CorruptionError:
            seen += 1
    assert seen > 20


def test_a_cut_wal_under_relaxed_durability_is_reported_and_opened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    killed = _with_a_wal(tmp_path, "relaxed")
    (killed / "log.db-shm").unlink(missing_ok=True)
    os.truncate(killed / "log.db-wal", (killed / "log.db-wal").stat().st_size // 2)
    with koru_delta.open(killed, durability="relaxed") as db:
        assert "acknowledged" in caplog.text
        assert 10 <= db.count("n") < 70
        assert "acknowledged" in " ".join(db.verify().problems)
        db.put("n", "on", "it goes")
        assert db.get("n", "on") == "it goes"


@pytest.mark.parametrize("damage", ["gone", "short", "zeros", "other"])
def test_a_damaged_generation_file(whole: Path, tmp_path: Path, damage: str) -> None:
    path = copied(whole, tmp_path / "db")
    file = path / "generation"
    if damage == "gone":
        file.unlink()
        with koru_delta.open(path) as db:
            report = db.verify()
            assert report.ok
            assert not report.compared
            db.put("n", "a", 1)
            assert db.get("n", "a") == 1
            assert db.verify().compared
        return
    file.write_bytes({"short": b"x", "zeros": bytes(4096), "other": b"?" * 4096}[damage])
    with pytest.raises(errors.CorruptionError, match="generation"):
        koru_delta.open(path)


# Flipped bits


def _flip(file: Path, chance: random.Random) -> int:
    data = bytearray(file.read_bytes())
    place = chance.randrange(len(data) * 8)
    data[place // 8] ^= 1 << place % 8
    file.write_bytes(data)
    return place


def test_a_flipped_bit_is_found_or_does_not_matter(whole: Path, tmp_path: Path) -> None:
    whole = copied(whole, tmp_path / "full")  # of bytes that matter, as files in use are
    chance = random.Random(FLIPS)
    with koru_delta.open(whole) as db:
        for number in range(120):
            db.put("n", f"more{number % 40}", {"filler": chance.randbytes(300).hex()})
        db.put_many([("n", f"most{n}", chance.randbytes(9 * n).hex()) for n in range(40)])
        gets = _gets(db)
        truth = picture(db)
    outcomes = {"refused": 0, "reported": 0, "unused": 0}
    hiding = 0
    for _ in range(FLIPS):
        path = copied(whole, tmp_path / "db")
        place = _flip(path / "log.db", chance)
        try:
            with koru_delta.open(path) as db:
                found, hidden = _wrong_gets(db, gets)
                assert found == [], f"bit {place}: get returned {found}"
                hiding += bool(hidden)
                if not db.verify().ok:
                    outcomes["reported"] += 1
                    continue
                # Then nothing that can be seen may have changed.
                assert hidden == 0, f"bit {place} hides an entry, and verify is content"
                assert picture(db) == truth, f"bit {place} changes answers, and verify is content"
                outcomes["unused"] += 1
        except errors.KoruDeltaError:
            outcomes["refused"] += 1
    print(f"\n{FLIPS} flipped bits: {outcomes}; {hiding} hid an entry from get, and verify said so")
    assert outcomes["refused"] + outcomes["reported"] > FLIPS // 2


@dataclass
class _Gets:
    """Values at many commits and at present, and every value each key ever had."""

    at: dict[tuple[str, str, int | None], bytes]
    past: dict[tuple[str, str], set[bytes | None]]


def _gets(db: Database) -> _Gets:
    found = _Gets({}, {})
    seqs = [commit.seq for commit in db.commits()]
    for commit in [None, *seqs[:: max(1, len(seqs) // 12)]]:
        for namespace in ("n", "v"):
            for key in db.list_keys(namespace, as_of=commit):
                found.at[namespace, key, commit] = db.get_raw(namespace, key, as_of=commit)
    for version in db.changes():
        found.past.setdefault((version.namespace, version.key), set()).add(version.raw)
    return found


def _wrong_gets(db: Database, expected: _Gets) -> tuple[list[Any], int]:
    """Values that were never those of their key, and how many are hidden or overtaken.

    Damage to an index can hide the newest entry of a key, and `get`, which does not walk
    the log, cannot know: it finds an earlier one, or none. `verify` does walk it.
    """
    wrong, hidden = [], 0
    for (namespace, key, commit), value in expected.at.items():
        try:
            found = db.get_raw(namespace, key, as_of=commit)
        except errors.KeyNotFoundError:
            hidden += 1
        except errors.KoruDeltaError:
            continue
        else:
            if found != value:
                hidden += 1
                if found not in expected.past[namespace, key]:
                    wrong.append((namespace, key, commit, found[:60], value[:60]))
    return wrong, hidden
