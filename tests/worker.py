"""Writes as plain data: performed here on a handle, or by a second process.

`python -m tests.worker` reads commands as JSON lines and answers each with one line.
A command is `[verb, {arguments}]`; times are microseconds since 1970, as in the model.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import koru_delta
from koru_delta.causal import moment
from koru_delta.errors import ErasedError, KeyNotFoundError, KoruDeltaError
from koru_delta.testing import FixedClock

Command = tuple[str, dict[str, Any]]
ROOT = Path(__file__).resolve().parent.parent


def perform(db: koru_delta.Database, verb: str, given: dict[str, Any]) -> list[Any]:
    """Do one write; returns what came of it as `[[seq, id], ...]`, and what a reader saw."""
    if verb == "transaction":
        saw: list[Any] = []
        with db.transaction() as tx:
            for inner, arguments in given["writes"]:
                _write(tx, inner, arguments)
                try:
                    saw.append([tx.get(arguments["namespace"], arguments["key"])])
                except KeyNotFoundError:
                    saw.append(None)
                except ErasedError:
                    saw.append("gone")
        return [[[version.seq, version.id] for version in tx.versions], saw]
    if verb == "drop":
        before = len(db.commits(after=given["head"]))
        count = db.drop_namespace(given["namespace"])
        assert len(db.commits(after=given["head"])) == before + bool(count)
        made = list(db.changes(after=given["head"]))
        assert len(made) == count
    elif verb == "put_many":
        options = _options(given)
        made = db.put_many([tuple(item) for item in given["items"]], **options)
    elif verb == "embed_many":
        made = db.embed_many(
            given["namespace"], [tuple(item) for item in given["items"]],
            model=given["model"], metric=given["metric"], **_options(given),
        )  # fmt: skip
    elif verb in ("hide_many", "unhide_many"):
        made = getattr(db, verb)(given["versions"])
    elif verb == "erase":
        what = [each if isinstance(each, str) else tuple(each) for each in given["what"]]
        erased = db.erase(what)
        assert erased.is_clean
        made = list(erased.entries)
    elif verb == "revert":
        made = [db.revert(given["namespace"], given["key"], given["to"])]
    elif verb == "tag":
        made = [db.tag(given["name"], given["ref"], move=given["move"])]
    else:
        made = [_write(db, verb, given)]
    return [[[version.seq, version.id] for version in made], None]


def _write(target: Any, verb: str, given: dict[str, Any]) -> Any:
    options = _options(given)
    if verb == "put":
        return target.put(given["namespace"], given["key"], given["value"], **options)
    if verb == "delete":
        return target.delete(given["namespace"], given["key"], **options)
    if verb in ("hide", "unhide"):
        change = getattr(target, verb)
        return change(given["namespace"], given["key"], version=given["version"], **options)
    assert verb == "embed"
    value = [given["value"]] if "value" in given else []
    return target.embed(
        given["namespace"], given["key"], given["vector"], *value,
        model=given["model"], metric=given["metric"], **options,
    )  # fmt: skip


def _options(given: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {
        name: moment(given[name]) for name in ("valid_from", "valid_to") if name in given
    }
    if "ttl" in given:
        options["ttl"] = given["ttl"] / 1_000_000
    if "if_match" in given:
        options["if_match"] = given["if_match"]
    if "supersedes" in given:
        options["causes"] = [("supersedes", version) for version in given["supersedes"]]
    return options


class Worker:
    """A second process that stays, and writes to whatever database it is told."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip

    def ask(self, **request: Any) -> Any:
        """Send one request and wait for its answer; errors come back as their name."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the worker died"
        return json.loads(line)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _serve() -> None:
    clock = FixedClock()
    db: koru_delta.Database | None = None
    for line in sys.stdin:
        request = json.loads(line)
        clock.now = request.get("now", clock.now)
        answer: Any = None
        try:
            match request["do"]:
                case "open":
                    db = koru_delta.open(request["path"], durability="relaxed", clock=clock)
                case "close":
                    if db is not None:
                        db.close()
                case "write":
                    assert db is not None
                    answer = perform(db, request["verb"], request["given"])
                case "get":
                    assert db is not None
                    try:
                        answer = [db.get(request["namespace"], request["key"])]
                    except KeyNotFoundError:
                        answer = None
        except KoruDeltaError as error:
            answer = {"error": type(error).__name__}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
