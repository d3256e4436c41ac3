"""Where bytes lie changes what they cost, and no answer: beside a twin that has no tiers.

A short run is in the gate. `KORU_LONG_SECONDS=600` runs fresh seeds for that long and prints the
seed of a failure; `KORU_SEED=n` runs that one again.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import koru_delta
from koru_delta import Database, errors
from koru_delta.lifecycle import Move, Tier, Tiers
from koru_delta.storage import COLD, DEEP, WARM
from koru_delta.storage import mover as moving
from koru_delta.storage.steps import SqliteSteps
from koru_delta.testing import FixedClock, HashEmbedder

EXAMPLES, STEPS = 25, 25
START = 1_767_225_600_000_000
NAMESPACES = ("a", "b")
KEYS = ("k", "k2", "z", "é")
WORDS = ("rain", "sun", "wind", "snow")
TIERS = (WARM, COLD, DEEP)
LONG = "".join(chr(97 + n * n % 23) for n in range(7_000))

namespaces = st.sampled_from(NAMESPACES)
keys = st.sampled_from(KEYS)
texts = st.builds(" ".join, st.lists(st.sampled_from(WORDS), min_size=1, max_size=3))
values = st.one_of(
    st.builds(lambda text, n: {"text": text, "n": n}, texts, st.integers(0, 3)),
    st.builds(lambda text, n: {"text": text + LONG[n:], "n": n}, texts, st.integers(0, 3)),
    st.sampled_from([None, 1, [], {}]),
)


class Killed(BaseException):
    """What a test raises where a process would be killed."""


def picture(db: Database, moments: list[int]) -> dict[str, Any]:
    """Everything there is to see, at several moments."""
    seen: dict[str, Any] = {
        "changes": [
            (v.id, "erased" if v.is_erased else v.raw, v.operation, _vectors(db, v))
            for v in db.changes()
        ],
        "head": db.tree_head(),
    }
    for at in [None, *moments]:
        for namespace in NAMESPACES:
            name = f"{at}/{namespace}"
            seen[name] = [
                (row.key, row.version.id, row.value) for row in db.query(namespace, as_of=at)
            ]
            seen[f"{name}/keys"] = [_got(db, namespace, key, at) for key in KEYS]
            for mode in ("hybrid", "vector", "text"):
                seen[f"{name}/{mode}"] = _hits(
                    lambda mode=mode, namespace=namespace, at=at: db.search(  # type: ignore[misc]
                        namespace, "rain snow", mode=mode, as_of=at
                    )
                )
            seen[f"{name}/exact"] = _hits(
                lambda namespace=namespace, at=at: db.similar(  # type: ignore[misc]
                    namespace, "sun", exact=True, as_of=at, filter={"n": {"$gte": 1}}
                )
            )
    return seen


def _vectors(db: Database, version: Any) -> Any:
    if not version.vectors or version.is_erased:
        return None
    return {model: vector.tolist() for model, vector in db.vectors(version).items()}


def _got(db: Database, namespace: str, key: str, at: int | None) -> Any:
    try:
        return db.get_many(namespace, [key], as_of=at)
    except errors.ErasedError as error:
        return str(error)


def _hits(search: Callable[[], Any]) -> Any:
    try:
        return [(hit.key, hit.score, hit.version.id, hit.value) for hit in search()]
    except errors.KoruDeltaError as error:
        return type(error).__name__


def open_at(path: Path, clock: FixedClock) -> Database:
    return koru_delta.open(
        path, durability="relaxed", clock=clock, embedder=HashEmbedder(8), track=False
    )


class TiersBesideNone(RuleBasedStateMachine):
    """One database whose bytes are moved about, and one that is only written to."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="koru-tiers-"))
        self.lives = 0
        self.clock = FixedClock(START)
        self.db = open_at(self.folder / "0", self.clock)
        self.twin = open_at(self.folder / "twin", self.clock)
        self.random = random.Random(0)

    @initialize(number=st.integers(0, 2**32))
    def begin(self, number: int) -> None:
        self.random = random.Random(number)

    def teardown(self) -> None:
        self.db.close()
        self.twin.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, verb: Callable[[Database], Any]) -> None:
        """Tell both; they must do the same, or refuse in the same way."""
        self.clock.advance(seconds=1)
        told = []
        for db in (self.twin, self.db):
            try:
                verb(db)
                told.append("")
            except errors.KoruDeltaError as error:
                told.append(f"{type(error).__name__}: {error}")
        assert told[0] == told[1]

    def versions(self, count: int) -> list[str]:
        """Some of the log's entries, chosen by chance."""
        every = [v.id for v in self.twin.changes() if not v.is_annotation and not v.is_tombstone]
        return self.random.sample(every, min(count, len(every)))

    # Writes

    @rule(namespace=namespaces, key=keys, value=values)
    def put(self, namespace: str, key: str, value: Any) -> None:
        self.write(lambda db: db.put(namespace, key, value))

    @rule(namespace=namespaces, key=keys, text=texts, value=values)
    def embed(self, namespace: str, key: str, text: str, value: Any) -> None:
        self.write(lambda db: db.embed(namespace, key, text, value))

    @rule(namespace=namespaces, key=keys, text=texts)
    def embed_what_is_there(self, namespace: str, key: str, text: str) -> None:
        self.write(lambda db: db.embed(namespace, key, text, model="other"))

    @rule(items=st.lists(st.tuples(namespaces, keys, values), min_size=2, max_size=8))
    def put_many(self, items: list[tuple[str, str, Any]]) -> None:
        self.write(lambda db: db.put_many(items))

    @rule(namespace=namespaces, key=keys)
    def delete(self, namespace: str, key: str) -> None:
        self.write(lambda db: db.delete(namespace, key))

    @rule(namespace=namespaces, key=keys)
    def hide(self, namespace: str, key: str) -> None:
        self.write(lambda db: db.hide(namespace, key))

    @rule(namespace=namespaces, key=keys, which=st.integers(0, 5))
    def revert(self, namespace: str, key: str, which: int) -> None:
        def verb(db: Database) -> None:
            past = [v for v in db.history(namespace, key) if not v.is_erased]
            if past:
                db.revert(namespace, key, past[which % len(past)])

        self.write(verb)

    @rule(count=st.integers(1, 3))
    def erase(self, count: int) -> None:
        chosen = self.versions(count)
        self.write(lambda db: db.erase(chosen))
        assert self.db._log.engine.is_scrubbed()

    # Where bytes lie

    def seqs(self, share: float) -> list[int]:
        last = self.db.stats()["seq"]
        return [seq for seq in range(1, last + 1) if self.random.random() < share]

    @rule(tier=st.sampled_from(TIERS), share=st.sampled_from([0.2, 0.5, 1.0]))
    def move(self, tier: int, share: float) -> None:
        seqs, engine = self.seqs(share), self.db._log.engine
        engine.move(seqs, tier)
        assert engine.move(seqs, tier).items == 0  # what is there stays

    @rule(namespace=namespaces, tier=st.sampled_from(list(Tier)))
    def move_keys(self, namespace: str, tier: Tier) -> None:
        present = tuple(self.db.list_keys(namespace))
        result = Tiers(self.db._log).move(Move(namespace, present, Tier.HOT, tier, "told to", 0))
        assert result.keys == present

    @rule(
        tier=st.sampled_from(TIERS),
        share=st.sampled_from([0.5, 1.0]),
        point=st.integers(0, 12),
        then=st.booleans(),
    )
    def move_and_be_killed(self, tier: int, share: float, point: int, then: bool) -> None:
        seqs = self.seqs(share)
        self.killed(lambda: self.db._log.engine.move(seqs, tier), point)
        if then:
            self.db._log.engine.move(seqs, tier)

    @rule(count=st.integers(1, 2), point=st.integers(0, 6))
    def erase_and_be_killed_cleaning_up(self, count: int, point: int) -> None:
        chosen = self.versions(count)
        self.clock.advance(seconds=1)
        self.twin.erase(chosen)
        self.killed(lambda: self.db.erase(chosen), point)
        assert self.db._log.engine.is_scrubbed()  # whoever opens it does that first

    def killed(self, work: Callable[[], object], point: int) -> None:
        """Do something until the `point`-th moment a kill may come at; go on with what is left.

        What is left is a copy of the files as they are then.
        """
        self.lives += 1
        left = self.folder / str(self.lives)
        passed = 0

        def pass_by() -> None:
            nonlocal passed
            if passed == point:
                assert self.db.directory is not None
                shutil.copytree(
                    self.db.directory, left, ignore=shutil.ignore_patterns("log.db-shm")
                )
                passed += 1
                raise Killed
            passed += 1

        def around(function: Callable[..., Any]) -> Callable[..., Any]:
            def told(*given: Any, **named: Any) -> Any:
                pass_by()
                done = function(*given, **named)
                pass_by()
                return done

            return told

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(moving, "write", around(moving.write))
            patch.setattr(moving.genome, "write", around(moving.genome.write))
            patch.setattr(SqliteSteps, "_one_step", around(SqliteSteps._one_step))
            try:
                work()
            except Killed:
                pass
            else:
                return
        self.db.close()
        shutil.rmtree(str(self.db.directory))
        self.db = open_at(left, self.clock)

    @rule()
    def reopen(self) -> None:
        self.db.close()
        assert self.db.directory is not None
        self.db = open_at(self.db.directory, self.clock)

    @rule()
    def compact(self) -> None:
        self.db.compact()
        files = self.db._log.engine._files()
        assert all(
            len(self.db._log.engine._used(number)[0]) == items for number, _, _, items, *_ in files
        )

    @rule()
    def back_up_and_restore(self) -> None:
        self.lives += 1
        self.db.backup(self.folder / str(self.lives))
        self.db.close()
        self.db = open_at(self.folder / str(self.lives), self.clock)

    # What must not change

    @rule()
    def nothing_is_wrong(self) -> None:
        assert self.db.verify().problems == ()

    @invariant()
    def answers_are_those_of_the_twin(self) -> None:
        commits = [commit.seq for commit in self.twin.commits()]
        moments = self.random.sample(commits, min(2, len(commits)))
        wanted, found = picture(self.twin, moments), picture(self.db, moments)
        for name, answer in wanted.items():
            assert found[name] == answer, name
        for identity in self.versions(1):
            proofs = [db.prove(db.get_version(identity)) for db in (self.twin, self.db)]
            assert proofs[0] == proofs[1]
            assert koru_delta.verify_inclusion(proofs[1], self.twin.tree_head())


def _run(number: int) -> None:
    machine = seed(number)(type("TiersBesideNone", (TiersBesideNone,), {}))
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, database=None,
                suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
                phases=[Phase.generate, Phase.shrink],
            ),
        )  # fmt: skip
    except BaseException:
        print(f"\nfailed with KORU_SEED={number}", flush=True)
        raise


def test_moves_kills_and_reopens_change_no_answer_at_any_cut() -> None:
    if "KORU_SEED" in os.environ:
        _run(int(os.environ["KORU_SEED"]))
        return
    until = time.monotonic() + float(os.environ.get("KORU_LONG_SECONDS", "0"))
    rounds = 0
    while rounds == 0 or time.monotonic() < until:
        _run(random.SystemRandom().getrandbits(32))
        rounds += 1
    if rounds > 1:
        print(f"\n{rounds} rounds of {EXAMPLES} histories agreed")
