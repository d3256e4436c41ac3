"""Kill a process that makes indexes at random moments; they are only ever a cache.

    python -m tests.indexing --kills 50 [--seed N] [--keep]

Each round forks a process that opens the directory, writes, searches and makes indexes: in
the background, by `build_index`, or as it closes. It is killed wherever it is then. The
next to open the directory must give exact answers, those of scoring all that the log
holds, and approximate ones that keep their contract. Now and then it makes everything,
and must be left with files that the next one takes, and nothing half written beside them.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import koru_delta
from koru_delta.search import candidates, graphs, masks, nearest, upkeep

ROWS, DIMENSIONS = 2_500, 24
LONGEST_LIFE_SECONDS = 0.5
ROUNDS_PER_DIRECTORY = 10
# So low that some dozen rows have everything that some thousand have.
SMALL = {
    "SEAL_ROWS": 40, "SEAL_LEAST": 16, "SEGMENT_ROWS": 100, "GRAPH_ROWS": 30, "FEED_ROWS": 8,
    "BULK_ROWS": 16, "SAVE_ENTRIES": 50, "PAUSE_SECONDS": 0.0, "_CALIBRATED": 12,
}  # fmt: skip
# So low that a build has many steps to be killed in.
MANY_STEPS = {"SEAL_ROWS": 300, "FEED_ROWS": 20, "BULK_ROWS": 200, "SAVE_ENTRIES": 50,
              "GRAPH_ROWS": 600, "SEGMENT_ROWS": 1500, "PAUSE_SECONDS": 0.0}  # fmt: skip


def lower(thresholds: dict[str, Any], put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Set thresholds of the upkeep, by `monkeypatch.setattr` where they should come back."""
    for name, value in thresholds.items():
        put(graphs if hasattr(graphs, name) else upkeep, name, value)
    if thresholds is SMALL:
        # Made-up vectors are all unlike each other; asked for, the graph is to answer.
        put(nearest.VectorSpace, "_unusual", lambda *_: False)
        # A filter's own codes are made when it comes again.
        put(candidates, "_OFTEN", 1)
        put(masks, "_LEAST_CODED", 8)
        put(masks, "_WORTH_CODING", float("inf"))


def scores(metric: str, vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Of each vector, in float64, as the promise has it."""
    wide, target = vectors.astype(np.float64), query.astype(np.float64)
    if metric == "l2":
        return -np.sqrt(np.square(wide - target).sum(axis=1))
    products = (wide * target).sum(axis=1)
    if metric == "cosine":
        products /= np.sqrt(np.square(wide).sum(axis=1) * np.square(target).sum())
    return products


def stored(db: koru_delta.Database, namespace: str, as_of: Any = None) -> dict[str, np.ndarray]:
    """Each key's vector, read from the log alone."""
    found = {}
    for row in db.query(namespace, as_of=as_of):
        vectors = db.vectors(row.version)
        if vectors:
            (found[row.key],) = vectors.values()
    return found


def check_exact(
    db: koru_delta.Database, namespace: str, metric: str, query: np.ndarray, k: int = 10
) -> koru_delta.Matches:
    """All answers of one exact search against scoring what the log holds."""
    held = stored(db, namespace)
    found = db.similar(namespace, query, k=len(held) + 5, exact=True)
    assert {match.key for match in found} == held.keys()
    assert found.considered == len(held)
    assert not found.approximate
    if held:
        truth = dict(zip(held, scores(metric, np.stack(list(held.values())), query), strict=True))
        for match in found:
            assert abs(match.score - truth[match.key]) <= 1e-9 * (1 + abs(match.score)), match.key
    pairs = [(match.key, match.score) for match in found]
    assert pairs == sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
    best = db.similar(namespace, query, k=k, exact=True)
    assert [(match.key, match.score) for match in best] == pairs[:k]
    return found


def check_approximate(
    found: koru_delta.Matches, exact: koru_delta.Matches, k: int, note: object = ""
) -> None:
    """The contract of an approximate answer; `exact` holds all that may be found."""
    truth = {match.key: match.score for match in exact}
    pairs = [(match.key, match.score) for match in found]
    assert len(pairs) == min(k, len(truth)), note
    assert len({key for key, _ in pairs}) == len(pairs), note
    for key, score in pairs:
        assert truth.get(key) == score, (note, key)
    assert pairs == sorted(pairs, key=lambda pair: (-pair[1], pair[0])), note
    assert found.considered == len(truth), note
    if not found.approximate:
        assert pairs == [(match.key, match.score) for match in exact][:k], note


# The campaign


@dataclass
class Campaign:
    """What has been done and what has gone wrong."""

    kills: int = 0
    taken: Counter[str] = field(default_factory=Counter)  # what the next process found in files
    problems: list[str] = field(default_factory=list)


def campaign(kills: int, *, seed: int, say: Callable[[str], None], keep: bool = False) -> Campaign:
    """Kill `kills` builders; the result's `problems` are empty if all went well."""
    lower(MANY_STEPS)
    chance = random.Random(seed)
    done = Campaign()
    folder = Path(tempfile.mkdtemp(prefix="koru-indexing-"))
    number = 0
    try:
        while done.kills < kills and not done.problems:
            number += 1
            path, metric = folder / str(number), ("cosine", "l2", "dot")[number % 3]
            _fill(path, metric)
            for turn in range(ROUNDS_PER_DIRECTORY):
                if done.kills < kills and not done.problems:
                    _round(path, metric, chance, done, whole=turn % 3 == 2)
            if done.problems:
                say(f"the directory is {path}, seed {seed}")
                keep = True
            say(f"{done.kills}/{kills} kills, {len(done.problems)} problems")
            if not keep:
                shutil.rmtree(path, ignore_errors=True)
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    return done


def _fill(path: Path, metric: str) -> None:
    vectors = np.random.default_rng(1).standard_normal((ROWS, DIMENSIONS), dtype=np.float32)
    items = [(f"k{n:05}", vector, {"n": n}) for n, vector in enumerate(vectors)]
    with koru_delta.open(path, durability="relaxed") as db:
        db.embed_many("v", items, metric=metric)  # type: ignore[arg-type]


def _round(path: Path, metric: str, chance: random.Random, done: Campaign, *, whole: bool) -> None:
    work = chance.choice([_search, _build, _close])
    # Now and then it dies in the first moments, while it opens and takes what is there.
    life = LONGEST_LIFE_SECONDS * chance.random() ** chance.choice([1, 1, 3])
    seed = chance.randrange(2**31)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _until_killed(work, path, seed, writing)
    os.close(writing)
    time.sleep(life)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    if said or status != signal.SIGKILL:
        done.problems.append(f"{work.__name__} ended by itself, with {status:#x}: {said}")
    done.kills += 1
    try:
        _check(path, metric, seed, done, whole=whole)
    except Exception:  # noqa: BLE001 - whatever it is, it is reported
        done.problems.append(f"after kill {done.kills}, in {work.__name__}: {_trace()}")


def _check(path: Path, metric: str, seed: int, done: Campaign, *, whole: bool) -> None:
    random_numbers = np.random.default_rng(seed)
    queries = random_numbers.standard_normal((4, DIMENSIONS), dtype=np.float32)
    with koru_delta.open(path, durability="relaxed") as db:
        if db.stats()["vector_spaces"]:
            raise AssertionError("read before it was asked")
        exact = [check_exact(db, "v", metric, queries[0])]
        exact += [db.similar("v", query, k=10**6, exact=True) for query in queries[1:]]
        (space,) = db.stats()["vector_spaces"]
        done.taken["files" if space["bytes"]["mapped"] else "the log alone"] += 1
        if whole:
            db.build_index()
        for query, all_of_it in zip(queries, exact, strict=True):
            for k in (1, 10):
                check_approximate(db.similar("v", query, k=k, recall=0.9), all_of_it, k)
        for found, all_of_it in zip(db.similar_many("v", queries, k=7), exact, strict=True):
            check_approximate(found, all_of_it, 7)
    if whole:
        left = [str(file) for file in (path / "index").rglob(".tmp-*")]
        assert not left, f"left behind: {left}"
        with koru_delta.open(path, read_only=True) as db:
            check_exact(db, "v", metric, queries[1])
            (space,) = db.stats()["vector_spaces"]
            assert space["bytes"]["mapped"] == 4 * DIMENSIONS * (
                space["vectors"] - space["in_tail"]
            )
            assert space["in_tail"] <= upkeep.SEAL_ROWS
            done.taken["all that was made"] += 1


def _until_killed(
    work: Callable[[Path, np.random.Generator], None], path: Path, seed: int, pipe: int
) -> None:
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        numbers = np.random.default_rng(seed)
        while True:
            work(path, numbers)
    except BaseException:  # noqa: BLE001 - nothing may unwind into the parent's frames
        os.write(pipe, _trace().encode())
    finally:
        os._exit(1)


def _search(path: Path, numbers: np.random.Generator) -> None:
    """Write and search, and let the indexes be made in the background."""
    with koru_delta.open(path, durability="relaxed") as db:
        for _ in range(10):
            _write(db, numbers)
            db.similar("v", numbers.standard_normal(DIMENSIONS), k=5)
            time.sleep(0.03)


def _build(path: Path, numbers: np.random.Generator) -> None:
    with koru_delta.open(path, durability="relaxed") as db:
        _write(db, numbers)
        db.build_index()


def _close(path: Path, numbers: np.random.Generator) -> None:
    """Be closed in the middle of a build, and write what is made so far."""
    with koru_delta.open(path, durability="relaxed") as db:
        _write(db, numbers)
        db.similar("v", numbers.standard_normal(DIMENSIONS), k=5)


def _write(db: koru_delta.Database, numbers: np.random.Generator) -> None:
    """Some new, some overwritten, some with a vector that is there, some deleted."""
    rows = numbers.integers(0, ROWS + 500, 60)
    fresh = numbers.standard_normal((60, DIMENSIONS), dtype=np.float32)
    fresh[40:] = fresh[39]
    items = [
        (f"k{row:05}", vector, {"n": int(row)}) for row, vector in zip(rows, fresh, strict=True)
    ]
    db.embed_many("v", items)
    db.delete_many("v", [f"k{row:05}" for row in numbers.integers(0, ROWS + 500, 10)])


def _trace() -> str:
    return traceback.format_exc()[-3000:]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--keep", action="store_true", help="leave the directories behind")
    given = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if given.seed is None else given.seed
    started = time.monotonic()
    done = campaign(
        given.kills, seed=seed, keep=given.keep, say=lambda line: print(line, flush=True)
    )
    for problem in done.problems:
        print(f"PROBLEM: {problem}")
    taken = ", ".join(f"{count} began with {what}" for what, count in sorted(done.taken.items()))
    print(
        f"{done.kills} kills in {time.monotonic() - started:.0f} s, seed {seed}: "
        f"{len(done.problems)} problems; {taken}"
    )
    return 1 if done.problems else 0


if __name__ == "__main__":
    sys.exit(main())
