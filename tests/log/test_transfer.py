"""An import takes only what a write could have made, however well its hashes fit."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import koru_delta
from koru_delta import errors
from koru_delta.causal import GENESIS, chained_root, commit_header, commit_tree, version_id
from koru_delta.testing import FixedClock
from koru_delta.values import as_vector, canonical_bytes, distinction_id, vector_bytes

Record = dict[str, Any]


def forged(
    *records: Record, values: dict[str, Any] | None = None, vector: Any = None
) -> io.BytesIO:
    """A log of one commit a record, every hash in it as it should be."""
    lines = [canonical_bytes({"format": "koru-delta-log", "version": 1})]
    if vector is not None:
        data = vector if isinstance(vector, bytes) else vector_bytes(as_vector(vector))
        name = distinction_id("vec", data).hex()
        lines.append(canonical_bytes({"object": name, "f32": base64.b64encode(data).decode()}))
    root: bytes = GENESIS
    for number, record in enumerate(records):
        line: Record = {"record": record}
        if record.get("distinction"):
            line["value"] = (values or {}).get(record["distinction"], 1)
        lines.append(canonical_bytes(line))
        tree = commit_tree([version_id(canonical_bytes(record))])
        time = record["time"] if isinstance(record.get("time"), int) else 0
        root = chained_root(root, commit_header(number + 1, number + 1, time, tree))
        lines.append(canonical_bytes({"commit": number, "root": root.hex()}))
    lines.append(canonical_bytes({"end": len(records)}))
    return io.BytesIO(b"\n".join(lines))


def put(**changes: Any) -> Record:
    record = {
        "op": "put", "namespace": "n", "key": "k", "time": 1_000, "clock": {"local": 1},
        "distinction": distinction_id("json", b"1").hex(),
    }  # fmt: skip
    return {name: value for name, value in {**record, **changes}.items() if value is not ...}


def test_a_log_made_by_hand_is_taken() -> None:
    first = put(author="ada")
    second = put(
        time=2_000, clock={"local": 2}, previous=version_id(canonical_bytes(first)).hex(),
        causes=[["caused_by", version_id(canonical_bytes(first)).hex()]],
    )  # fmt: skip
    with koru_delta.open(None, clock=FixedClock()) as db:
        assert db.import_log(forged(first, second)) == 2
        assert db.get("n", "k") == 1
        assert db.verify().ok


VEC = [1.0, 2.0]
VEC_ID = distinction_id("vec", vector_bytes(as_vector(VEC))).hex()
ZERO_ID = distinction_id("vec", vector_bytes(as_vector([0.0, 0.0]))).hex()
NAN = b"\0\0\xc0\x7f" * 2
NAN_ID = distinction_id("vec", NAN).hex()


def carried(identity: str, **changes: Any) -> dict[str, Any]:
    return {"m": {"id": identity, "dimensions": 2, "metric": "cosine", **changes}}


@pytest.mark.parametrize(
    "make",
    [
        lambda: forged(put(op="erase")),
        lambda: forged(put(key="")),
        lambda: forged(put(key="x" * 2000)),
        lambda: forged(put(key="a\0b")),
        lambda: forged(put(key=5)),
        lambda: forged(put(namespace="$mine")),
        lambda: forged(put(namespace=...)),
        lambda: forged(put(clock=...)),
        lambda: forged(put(clock={"local": 0})),
        lambda: forged(put(clock={"local": "1"})),
        lambda: forged(put(time="now")),
        lambda: forged(put(time=2**63 - 1)),
        lambda: forged(put(time=True)),
        lambda: forged(put(extra=1)),
        lambda: forged(put(author=5)),
        lambda: forged(put(previous="ab" * 32)),
        lambda: forged(put(causes=[["caused_by", "ab" * 32]])),
        lambda: forged(put(causes=[["because", "ab" * 32]])),
        lambda: forged(put(parents=["ab" * 32])),
        lambda: forged(put(valid_to=1_000)),
        lambda: forged(put(expires_at=1_000)),
        lambda: forged(put(op="delete")),
        lambda: forged(put(distinction=...)),
        lambda: forged(put(), put()),
        lambda: forged(put(), put(key="l")),
        lambda: forged(put(vectors=carried(VEC_ID))),
        lambda: forged(put(vectors=carried(VEC_ID, dimensions=3)), vector=VEC),
        lambda: forged(put(vectors=carried(VEC_ID, metric="odd")), vector=VEC),
        lambda: forged(put(vectors=carried(ZERO_ID)), vector=[0.0, 0.0]),
        lambda: forged(put(vectors=carried(NAN_ID)), vector=NAN),
        lambda: forged(
            put(vectors=carried(VEC_ID)),
            put(time=2_000, key="l", vectors=carried(VEC_ID, metric="dot")),
            vector=VEC,
        ),
        lambda: io.BytesIO(b'{"format":"koru-delta-log","version":1}\n[]'),
        lambda: io.BytesIO(b'{"format":"koru-delta-log","version":1}\n{"record":[]}'),
        lambda: io.BytesIO(b'{"format":"koru-delta-log","version":1}\n{"object":"x","f32":"!"}'),
        lambda: io.BytesIO(b'{"format":"koru-delta-log","version":1}\n{"commit":0,"root":"00"}'),
        lambda: io.BytesIO(b'{"format":"koru-delta-log","version":2}'),
        lambda: io.BytesIO(b"[" * 100_000),
        lambda: io.BytesIO(b"\xff\xfe"),
    ],
)  # fmt: skip
def test_what_no_write_could_have_made_is_refused_whole(make: Callable[[], io.BytesIO]) -> None:
    with koru_delta.open(None, clock=FixedClock()) as db:
        with pytest.raises((errors.InvalidDataError, errors.CorruptionError)):
            db.import_log(make())
        assert db.stats()["seq"] == 0
        db.embed("n", "k", [1.0, 0.0], {"v": 1}, model="m", metric="dot")
        assert db.verify().ok


def test_an_export_that_breaks_off_anywhere_is_refused(tmp_path: Path) -> None:
    with koru_delta.open(None, clock=FixedClock()) as db:
        db.embed("n", "k", [1.0, 2.0], {"v": 1})
        db.put_many([("n", "l", 1), ("n", "m", 2)])
        db.export_log(tmp_path / "log")
    lines = (tmp_path / "log").read_bytes().splitlines(keepends=True)
    for count in range(len(lines)):
        with koru_delta.open(None) as copy:
            with pytest.raises(errors.InvalidDataError):
                copy.import_log(io.BytesIO(b"".join(lines[:count])))
            assert copy.stats()["seq"] == 0


def test_an_export_never_writes_over_the_database_or_half_a_file(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db") as db:
        db.put("n", "k", 1)
        for inside in ("log.db", "generation", "new", "index/deep"):
            with pytest.raises((errors.InvalidDataError, errors.StorageError)):
                db.export_log(tmp_path / "db" / inside)
        for odd in (tmp_path, tmp_path / "none" / "log"):
            with pytest.raises(errors.StorageError):
                db.export_log(odd)
        with pytest.raises(errors.StorageError):
            db.import_log(tmp_path)
        assert db.verify().ok
        assert {item.name for item in tmp_path.iterdir()} == {"db"}
