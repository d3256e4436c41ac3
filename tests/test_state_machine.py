"""Random histories, told to the database and to the naive model; both must agree, always.

A short run is in the gate. `KORU_LONG_SECONDS=600` runs fresh seeds for that long and
prints the seed of a failure; `KORU_SEED=n` runs that one again.
"""

from __future__ import annotations

import atexit
import io
import os
import random
import shutil
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import koru_delta
from koru_delta.causal import Cut, moment
from koru_delta.errors import (
    AnnotationError,
    ConflictError,
    ErasedError,
    InvalidTimestampError,
    KeyNotFoundError,
    KoruDeltaError,
    ModelMismatchError,
)
from koru_delta.testing import FixedClock
from tests.model import (
    FOREVER,
    KEEP,
    SCORES,
    Absent,
    Conflict,
    EmptyInterval,
    Entry,
    Gone,
    Intent,
    Model,
    Moment,
    Refused,
    same,
)
from tests.worker import Worker, perform

EXAMPLES, STEPS = 80, 30
UNIT = 1_000_000
START = 1_767_225_600_000_000
NAMESPACES = ("a", "b")
KEYS = ("k", "k2", "z", "é")
# The vector spaces: (namespace, model) -> (dimensions, metric).
SPACES = {("a", "m"): (3, "cosine"), ("a", "n"): (2, "l2"), ("b", "m"): (3, "dot")}
REFUSALS: dict[type[Exception], type[KoruDeltaError]] = {
    Absent: KeyNotFoundError,
    Conflict: ConflictError,
    EmptyInterval: InvalidTimestampError,
    Refused: AnnotationError,
    Gone: ErasedError,
}
FILTERS = (
    ({"n": {"$gte": 2}}, lambda v: _field(v, "n", float("-inf")) >= 2),
    ({"t": "x"}, lambda v: _field(v, "t", None) == "x"),
    ({"n": {"$exists": False}}, lambda v: _field(v, "n", None) is None),
    ({"": "word"}, lambda v: v == "word"),
)

namespaces = st.sampled_from(NAMESPACES)
keys = st.sampled_from(KEYS)
values = st.one_of(
    st.fixed_dictionaries(
        {"n": st.integers(0, 3)},
        optional={"t": st.sampled_from("xy"), "deep": st.just({"list": [1, {"a": None}]})},
    ),
    st.sampled_from([None, 1, 1.0, True, "word", [], {}, "long " * 1000]),
)
offsets = st.integers(-12, 30)
handles = st.sampled_from([0, 0, 0, 0, 1, 1, 1, 2])
spaces = st.sampled_from(sorted(SPACES))
numbers = st.lists(st.integers(-2, 2), min_size=3, max_size=3).filter(any)


@st.composite
def intervals(draw: st.DrawFn) -> dict[str, int]:
    """Explicit valid times: one end, or both; now and then an empty interval."""
    ends: dict[str, int] = {}
    shape = draw(st.sampled_from(["from", "to", "both", "both"]))
    if shape != "to":
        ends["valid_from"] = START + draw(offsets) * UNIT
    if shape != "from":
        ends["valid_to"] = ends.get("valid_from", START) + draw(st.integers(-1, 20)) * UNIT
    return ends


@cache
def worker() -> Worker:
    process = Worker()
    atexit.register(process.close)
    return process


class Histories(RuleBasedStateMachine):
    """One directory, two handles and a second process; one list."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="koru-machine-"))
        self.path = self.folder / "db"
        self.clock = FixedClock(START)
        self.model = Model()
        self.handles = [self._open()]
        self.abroad = False
        self.random = random.Random(0)

    def _open(self) -> koru_delta.Database:
        return koru_delta.open(self.path, durability="relaxed", clock=self.clock)

    @initialize(number=st.integers(0, 2**32))
    def begin(self, number: int) -> None:
        self.random = random.Random(number)

    # Writes

    def write(self, handle: int, verb: str, given: dict[str, Any], intents: list[Intent]) -> None:
        """Tell both; they must do the same, or refuse in the same way."""
        expected: type[KoruDeltaError] | None = None
        made: list[Entry] = []
        saw: Any = None
        try:
            if verb == "transaction":
                made, saw = self.model.transaction(self.clock.now, intents)
            else:
                made = self.model.commit(self.clock.now, intents)
        except (Absent, Conflict, EmptyInterval, Refused, Gone) as refusal:
            expected = REFUSALS[type(refusal)]
        result = self._perform(handle, verb, given)
        if isinstance(result, dict):
            assert expected is not None, result
            assert result["error"] == expected.__name__
            return
        assert expected is None, f"expected {expected}"
        versions, told = result
        assert [seq for seq, _ in versions] == [entry.seq for entry in made]
        for entry, (_, identity) in zip(made, versions, strict=True):
            entry.id = identity
        if verb == "transaction":
            assert len(saw) == len(told)
            for mine, theirs in zip(saw, told, strict=True):
                assert same(mine, theirs)

    def _perform(self, handle: int, verb: str, given: dict[str, Any]) -> Any:
        if handle == 2:
            return self._ask(do="write", verb=verb, given=given)
        try:
            return perform(self._handle(handle), verb, given)
        except KoruDeltaError as error:
            return {"error": type(error).__name__}

    def _handle(self, number: int) -> koru_delta.Database:
        if number and len(self.handles) == 1:
            self.handles.append(self._open())
        return self.handles[number]

    def _ask(self, **request: Any) -> Any:
        if not self.abroad:
            worker().ask(do="open", path=str(self.path), now=self.clock.now)
            self.abroad = True
        return worker().ask(now=self.clock.now, **request)

    @rule(handle=handles, namespace=namespaces, key=keys, value=values)
    def put(self, handle: int, namespace: str, key: str, value: Any) -> None:
        given = {"namespace": namespace, "key": key, "value": value}
        self.write(handle, "put", given, [Intent("put", namespace, key, value)])

    @rule(handle=handles, namespace=namespaces, key=keys, value=values, times=intervals())
    def put_back_dated(
        self, handle: int, namespace: str, key: str, value: Any, times: dict[str, int]
    ) -> None:
        given = {"namespace": namespace, "key": key, "value": value, **times}
        self.write(handle, "put", given, [Intent("put", namespace, key, value, **times)])

    @rule(handle=handles, namespace=namespaces, key=keys, value=values, ttl=st.integers(1, 6))
    def put_for_a_while(self, handle: int, namespace: str, key: str, value: Any, ttl: int) -> None:
        lasts = {"ttl": ttl * UNIT}
        given = {"namespace": namespace, "key": key, "value": value, **lasts}
        self.write(handle, "put", given, [Intent("put", namespace, key, value, **lasts)])

    @rule(
        handle=handles,
        items=st.lists(st.tuples(namespaces, keys, values), max_size=5),
        times=st.one_of(st.just({}), intervals()),
    )
    def put_many(
        self, handle: int, items: list[tuple[str, str, Any]], times: dict[str, int]
    ) -> None:
        given = {"items": items, **times}
        self.write(handle, "put_many", given, [Intent("put", *item, **times) for item in items])

    @rule(
        handle=handles,
        namespace=namespaces,
        key=keys,
        times=st.one_of(st.just({}), st.just({}), intervals()),
    )
    def delete(self, handle: int, namespace: str, key: str, times: dict[str, int]) -> None:
        given = {"namespace": namespace, "key": key, **times}
        self.write(handle, "delete", given, [Intent("delete", namespace, key, **times)])

    @rule(
        handle=handles,
        space=spaces,
        key=keys,
        vector=numbers,
        value=st.one_of(st.just(KEEP), values),
        extra=st.one_of(
            st.just({}),
            st.just({}),
            intervals(),
            st.builds(lambda n: {"ttl": n * UNIT}, st.integers(1, 6)),
        ),
    )
    def embed(
        self,
        handle: int,
        space: tuple[str, str],
        key: str,
        vector: list[float],
        value: Any,
        extra: dict[str, int],
    ) -> None:
        given, intent = self._embedding(space, key, vector, value, extra)
        self.write(handle, "embed", given, [intent])

    def _embedding(
        self,
        space: tuple[str, str],
        key: str,
        vector: list[float],
        value: Any,
        extra: dict[str, int],
    ) -> tuple[dict[str, Any], Intent]:
        namespace, model = space
        dimensions, metric = SPACES[space]
        vector = _fit(vector, dimensions)
        given = {
            "namespace": namespace, "key": key, "vector": vector, "model": model,
            "metric": None if metric == "cosine" else metric, **extra,
        }  # fmt: skip
        if value is not KEEP:
            given["value"] = value
        return given, Intent("put", namespace, key, value, vectors={model: tuple(vector)}, **extra)

    @rule(
        handle=handles,
        space=spaces,
        items=st.lists(st.tuples(keys, numbers, values), min_size=1, max_size=4),
    )
    def embed_many(
        self, handle: int, space: tuple[str, str], items: list[tuple[str, list[float], Any]]
    ) -> None:
        namespace, model = space
        dimensions, metric = SPACES[space]
        fitted = [(key, _fit(vector, dimensions), value) for key, vector, value in items]
        given = {
            "namespace": namespace, "items": fitted, "model": model,
            "metric": None if metric == "cosine" else metric,
        }  # fmt: skip
        intents = [
            Intent("put", namespace, key, value, vectors={model: tuple(vector)})
            for key, vector, value in fitted
        ]
        self.write(handle, "embed_many", given, intents)

    @rule(
        handle=handles,
        writes=st.lists(
            st.tuples(
                st.sampled_from(["put", "put", "delete", "embed", "keep", "hide", "unhide"]),
                spaces,
                st.sampled_from(KEYS[:2]),
                values,
                numbers,
                st.one_of(st.just({}), st.just({}), st.just({}), intervals()),
            ),
            min_size=1,
            max_size=5,
        ),
    )
    def transaction(self, handle: int, writes: list[tuple[Any, ...]]) -> None:
        commands, intents = [], []
        for verb, space, key, value, vector, times in writes:
            if verb in ("embed", "keep"):
                value = KEEP if verb == "keep" else value
                given, intent = self._embedding(space, key, vector, value, times)
                verb = "embed"
            else:
                times = {} if verb in ("hide", "unhide") else times
                given = {"namespace": space[0], "key": key, "version": None, **times}
                intent = Intent(verb, space[0], key, **times)
                if verb == "put":
                    given["value"] = intent.value = value
            commands.append((verb, given))
            intents.append(intent)
        self.write(handle, "transaction", {"writes": commands}, intents)

    @rule(
        handle=handles,
        namespace=namespaces,
        key=keys,
        value=values,
        choice=st.sampled_from(["right", "stale", "none"]),
        verb=st.sampled_from(["put", "delete"]),
    )
    def compare_and_set(
        self, handle: int, namespace: str, key: str, value: Any, choice: str, verb: str
    ) -> None:
        now = self.model.now(self.clock.now)
        present = self.model.answer(namespace, key, now, now.clock)
        match: str | None = None
        if choice == "right" and present is not None:
            match = present.id
        elif choice == "stale" and self.model.entries:
            match = self.random.choice(self.model.entries).id
        given = {"namespace": namespace, "key": key, "if_match": match}
        intent = Intent(verb, namespace, key, if_match=match)
        if verb == "put":
            given["value"] = intent.value = value
        self.write(handle, verb, given, [intent])

    # What is said of versions

    def _versions(self, *, told: bool) -> list[Entry]:
        """Puts, most likely of those that are hidden already or are not, as asked."""
        now = self.model.now(self.clock.now)
        puts = [e for e in self.model.entries if e.operation == "put" and e.namespace != "$tags"]
        likely = [e for e in puts if self.model.hidden(e, now) == told]
        return likely if likely and self.random.random() < 0.8 else puts

    @precondition(lambda self: self.model.commits)
    @rule(
        handle=handles,
        namespace=namespaces,
        key=keys,
        verb=st.sampled_from(["hide", "hide", "unhide"]),
        which=st.sampled_from(["now", "now", "some", "some", "any"]),
    )
    def annotate(self, handle: int, namespace: str, key: str, verb: str, which: str) -> None:
        target: str | None = None
        if which == "any":
            target = self.random.choice(self.model.entries).id
        elif which == "some" and (versions := self._versions(told=verb == "unhide")):
            chosen = self.random.choice(versions)
            namespace, key, target = chosen.namespace, chosen.key, chosen.id
        given = {"namespace": namespace, "key": key, "version": target}
        self.write(handle, verb, given, [Intent(verb, namespace, key, target=target)])

    @precondition(lambda self: self.model.commits)
    @rule(handle=handles, verb=st.sampled_from(["hide", "hide", "unhide"]), count=st.integers(0, 4))
    def annotate_many(self, handle: int, verb: str, count: int) -> None:
        versions = self._versions(told=verb == "unhide")
        chosen = self.random.choices(versions, k=count) if versions else []
        intents = [
            Intent(verb, entry.namespace, entry.key, target=entry.id, missing_ok=True)
            for entry in chosen
        ]
        given = {"versions": [entry.id for entry in chosen]}
        self.write(handle, f"{verb}_many", given, intents)

    @precondition(lambda self: self.model.commits)
    @rule(
        handle=handles,
        space=spaces,
        key=keys,
        vector=numbers,
        value=values,
        verb=st.sampled_from(["put", "embed"]),
        extra=st.one_of(st.just({}), st.just({}), intervals()),
        count=st.integers(1, 3),
    )
    def supersede(
        self,
        handle: int,
        space: tuple[str, str],
        key: str,
        vector: list[float],
        value: Any,
        verb: str,
        extra: dict[str, int],
        count: int,
    ) -> None:
        named = tuple(entry.id for entry in self.random.choices(self.model.entries, k=count))
        if verb == "embed":
            given, intent = self._embedding(space, key, vector, value, extra)
        else:
            given = {"namespace": space[0], "key": key, "value": value, **extra}
            intent = Intent("put", space[0], key, value, **extra)
        intent.supersedes = named
        self.write(handle, verb, {**given, "supersedes": named}, [intent])

    @precondition(lambda self: self.model.commits)
    @rule(handle=handles, namespace=namespaces, key=keys)
    def revert(self, handle: int, namespace: str, key: str) -> None:
        cut = self.random.choice(self.model.commits)
        past = self.model.answer(namespace, key, cut, cut.clock)
        if past is None:
            intent = Intent("delete", namespace, key)
        else:
            intent = Intent("put", namespace, key, past.value, carried=past.vectors)
            intent.of_erased = bool(past.erased)
        given = {"namespace": namespace, "key": key, "to": cut.seq}
        self.write(handle, "revert", given, [intent])

    @precondition(lambda self: self.model.commits)
    @rule(
        handle=handles,
        whole=st.lists(st.tuples(namespaces, keys), max_size=2),
        count=st.integers(0, 3),
        seldom=st.sampled_from([True, False, False]),
    )
    def erase(self, handle: int, whole: list[tuple[str, str]], count: int, seldom: bool) -> None:
        if seldom:
            return
        puts = [
            e for e in self.model.entries
            if e.namespace != "$tags" and (e.operation == "put" or self.random.random() < 0.02)
        ]  # fmt: skip
        written = {(e.namespace, e.key) for e in self.model.entries}
        if self.random.random() < 0.9:
            whole = [place for place in whole if place in written]
        whole = list(dict.fromkeys(whole))[: self.random.choice([0, 0, 1, 2])]
        chosen = self.random.choices(puts, k=count) if puts else []
        intents = []
        for place in whole:
            intents += [Intent("erase", *place), Intent("delete", *place, missing_ok=True)]
        some: dict[tuple[str, str], list[str]] = {}
        for entry in chosen:
            if (entry.namespace, entry.key) not in whole:
                some.setdefault((entry.namespace, entry.key), []).append(entry.id)
        intents += [Intent("erase", *p, targets=tuple(ids)) for p, ids in some.items()]
        given = {"what": [*whole, *(entry.id for entry in chosen)]}
        self.write(handle, "erase", given, intents)

    @precondition(lambda self: self.model.commits)
    @rule(handle=handles, name=st.sampled_from("pqr"), past=st.booleans(), move=st.booleans())
    def tag(self, handle: int, name: str, past: bool, move: bool) -> None:
        cut = self.model.now(self.clock.now)
        if past:
            cut = self.random.choice(self.model.commits)
        given = {"name": name, "ref": cut.seq if past else None, "move": move}
        intent = Intent("put", "$tags", name)
        if not move:
            intent.if_match = None
        before = len(self.model.entries)
        self.write(handle, "tag", given, [intent])
        if len(self.model.entries) > before:
            self.model.tags[name] = cut

    @precondition(lambda self: self.model.commits)
    @rule(handle=handles, namespace=namespaces)
    def drop_namespace(self, handle: int, namespace: str) -> None:
        now = self.model.now(self.clock.now)
        intents = [
            Intent("delete", namespace, key, missing_ok=True)
            for key in self.model.present(namespace, now, now.clock)
        ]
        self.write(handle, "drop", {"namespace": namespace, "head": now.seq}, intents)

    # The world

    @rule(units=st.sampled_from([0.000001, 0.5, 1, 2, 7]))
    def time_passes(self, units: float) -> None:
        self.clock.advance(microseconds=int(units * UNIT))

    @rule(before=st.booleans())
    def time_passes_to_where_an_answer_changes(self, before: bool) -> None:
        self._to_where_an_answer_changes(before)

    @rule(handle=handles, namespace=namespaces, key=keys, value=values, ttl=st.integers(1, 6))
    def put_until_it_expires(
        self, handle: int, namespace: str, key: str, value: Any, ttl: int
    ) -> None:
        """Read while it is there, so that it may be kept in memory, and when it is not."""
        self.put_for_a_while(handle, namespace, key, value, ttl)
        self.agrees_now_and_at_one_past_cut()
        self._to_where_an_answer_changes(before=self.random.random() < 0.2)

    def _to_where_an_answer_changes(self, before: bool) -> None:
        """To the instant what is there ends or expires, or what is to come begins."""
        now = self.model.now(self.clock.now)
        held = [e for n in NAMESPACES for e in self.model.present(n, now, now.clock).values()]
        ahead = {e.valid_to for e in held} | {e.expires_at for e in held}
        ahead |= {e.valid_from for e in self.model.entries if e.valid_from > now.clock}
        ahead.discard(FOREVER)
        if ahead:
            self.clock.now = int(self.random.choice(sorted(ahead))) - before

    def _instants(self) -> set[int]:
        return {
            int(instant)
            for entry in self.model.entries
            for instant in (entry.valid_from, entry.valid_to, entry.expires_at)
            if instant != FOREVER
        }

    @rule(units=st.sampled_from([0.000001, 1, 5]))
    def clock_set_back(self, units: float) -> None:
        self.clock.advance(microseconds=-int(units * UNIT))

    @rule(which=st.sampled_from([0, 0, 1]))
    def reopen(self, which: int) -> None:
        if which < len(self.handles):
            self.handles[which].close()
            self.handles[which] = self._open()

    # Agreement

    @invariant()
    def agrees_now_and_at_one_past_cut(self) -> None:
        db = self.random.choice(self.handles)
        now = self.model.now(self.clock.now)
        self.check(db, None, now, None)
        for namespace in NAMESPACES:  # twice: the second time from memory
            for key in KEYS:
                self._check_get(db, namespace, key, {}, self._answer(namespace, key, now, None))
        if self.model.commits:
            self.check_past(db, self.random.choice(self.model.commits))

    @precondition(lambda self: self.abroad)
    @invariant()
    def the_other_process_sees_it_too(self) -> None:
        if self.random.random() < 0.3:
            namespace, key = self.random.choice(NAMESPACES), self.random.choice(KEYS)
            expected = self._answer(namespace, key, self.model.now(self.clock.now), None)
            found = self._ask(do="get", namespace=namespace, key=key)
            if expected is not None and expected.erased:
                assert found == {"error": "ErasedError"}
            else:
                assert same(found, None if expected is None else [expected.value])

    def teardown(self) -> None:
        try:
            db = self.handles[-1]
            for commit in self.model.commits:
                self.check_past(db, commit)
            report = db.verify()
            assert report.ok, report.problems
            assert report.versions == len(self.model.entries)
            assert report.erased == sum(entry.erased > 0 for entry in self.model.entries)
            if self.model.commits:
                self.check_replay(db)
        finally:
            for handle in self.handles:
                handle.close()
            if self.abroad:
                worker().ask(do="close")
            shutil.rmtree(self.folder)

    def check_past(self, db: koru_delta.Database, commit: Moment) -> None:
        """One commit, by one of its names, at its own and at another valid time."""
        last = self.model.entries[commit.seq - 1]
        refs: list[tuple[Any, Moment]] = [
            (commit.seq, commit),
            (moment(commit.clock), self.model.at_time(commit.clock)),
            (moment(commit.clock).isoformat(), self.model.at_time(commit.clock)),
            (last.id, commit),
            (db.get_version(last.id), commit),
            (db.commits(as_of=commit.seq, reverse=True, limit=1)[0], commit),
            *((f"tag:{name}", cut) for name, cut in self.model.tags.items()),
        ]
        now = self.model.now(self.clock.now)
        instants = [instant for instant in self._instants() if instant <= now.clock]
        for between in (
            now.clock - self.random.randint(0, 12 * UNIT),
            self.random.choice(sorted(instants) or [now.clock]) - self.random.randint(0, 1),
        ):
            refs.append((moment(between), self.model.at_time(between)))
        ref, cut = self.random.choice(refs)
        self.check(db, ref, cut, None)
        self.check(db, ref, cut, START + self.random.randint(-15, 60) * UNIT // 2)
        edge = self.random.choice(sorted(self._instants())) - self.random.randint(0, 1)
        self.check(db, ref, cut, edge)

    def check_replay(self, db: koru_delta.Database) -> None:
        """Answers at a cut are those of a fresh database that got the log so far."""
        cut = self.random.choice(self.model.commits)
        lines = io.BytesIO()
        if any(entry.seq <= cut.seq < entry.erased for entry in self.model.entries):
            with pytest.raises(ErasedError):
                db.export_log(lines, as_of=cut.seq)
            return
        db.export_log(lines, as_of=cut.seq)
        lines.seek(0)
        with koru_delta.open(clock=self.clock) as fresh:
            fresh.import_log(lines)
            assert fresh.stats()["root"] == db.commits(as_of=cut.seq)[-1].root
            for (namespace, model), (dimensions, _) in SPACES.items():
                query = _fit([1, -2, 2], dimensions)
                found: list[Any] = []
                for each in (db, fresh):
                    try:
                        hits = each.similar(
                            namespace, query, model=model, as_of=cut.seq, k=10, exact=True
                        )
                    except ModelMismatchError:
                        found.append("not begun at that cut")
                    else:
                        found.append([(hit.key, hit.score, hit.version) for hit in hits])
                assert found[0] == found[1]
            self.check(fresh, cut.seq, cut, None)

    def _answer(self, namespace: str, key: str, cut: Moment, valid: int | None) -> Entry | None:
        return self.model.answer(namespace, key, cut, cut.clock if valid is None else valid)

    def _check_get(
        self, db: koru_delta.Database, namespace: str, key: str, at: dict[str, Any],
        expected: Entry | None,
    ) -> None:  # fmt: skip
        if expected is None:
            with pytest.raises(KeyNotFoundError):
                db.get(namespace, key, **at)
        elif expected.erased:
            with pytest.raises(ErasedError):
                db.get(namespace, key, **at)
            assert db.version(namespace, key, **at).id == expected.id
        else:
            assert same(db.get(namespace, key, **at), expected.value)
        there = expected is not None and not expected.erased
        assert db.contains(namespace, key, **at) == there

    def check(self, db: koru_delta.Database, ref: Any, cut: Moment, valid: int | None) -> None:
        """Every read at one moment."""
        at: dict[str, Any] = {} if ref is None else {"as_of": ref}
        if valid is not None:
            at["valid_at"] = moment(valid)
        true_at = cut.clock if valid is None else valid
        for namespace in NAMESPACES:
            present = self.model.present(namespace, cut, true_at)
            for key in KEYS:
                self._check_get(db, namespace, key, at, present.get(key))
                past = {} if ref is None else {"as_of": ref}
                whole = self.model.history(namespace, key, cut)
                history = [entry for entry in whole if not entry.annotates]
                assert [v.id for v in db.history(namespace, key, **past)] == [e.id for e in history]
                annotated = db.history(namespace, key, include_annotations=True, **past)
                assert [v.id for v in annotated] == [e.id for e in whole]
                assert [v.target for v in annotated] == [e.target and e.target.id for e in whole]
                assert [v.is_erased for v in annotated] == [e.erased > 0 for e in whole]
                assert [v.targets for v in annotated if v.operation == "erase"] == [
                    tuple(t.id for t in e.targets) for e in whole if e.operation == "erase"
                ]
            if any(entry.erased for entry in present.values()):
                with pytest.raises(ErasedError):
                    db.get_many(namespace, KEYS, **at)
                present = {key: e for key, e in present.items() if not e.erased}
            else:
                assert list(db.get_many(namespace, KEYS, **at)) == [
                    key for key in KEYS if key in present
                ]
            assert db.list_keys(namespace, **at) == list(present)
            assert db.list_keys(namespace, prefix="k", after="k", **at) == [
                key for key in present if key == "k2"
            ]
            shown = self.model.shown(namespace, cut, true_at)
            assert db.count(namespace, **at) == len(shown)
            rows = db.query(namespace, **at)
            assert [(r.key, r.version.id) for r in rows] == [(k, e.id) for k, e in shown.items()]
            assert [row.key for row in db.query(namespace, limit=1, offset=1, **at)] == [*shown][
                1:2
            ]
            assert all(
                same(row.value, entry.value)
                for row, entry in zip(rows, shown.values(), strict=True)
            )
            filter, passes = self.random.choice(FILTERS)
            kept = [key for key, entry in shown.items() if passes(entry.value)]
            assert [row.key for row in db.query(namespace, filter, **at)] == kept
            assert db.count(namespace, filter, **at) == len(kept)
            self._check_similar(db, namespace, cut, true_at, at)
        assert db.list_namespaces(**at) == self.model.namespaces(cut, true_at)

    def _check_similar(
        self, db: koru_delta.Database, namespace: str, cut: Moment, true_at: int, at: dict[str, Any]
    ) -> None:
        models = self.model.models(namespace, cut, true_at)
        for _, model in (space for space in SPACES if space[0] == namespace):
            dimensions, metric = SPACES[namespace, model]
            query = _fit([self.random.randint(-2, 2) for _ in range(3)], dimensions)
            filter, passes = self.random.choice([(None, lambda _: True), *FILTERS])
            expected = self.model.similar(
                namespace, model, tuple(query), cut, true_at, SCORES[metric], passes
            )
            asked = {**at, "filter": filter, "model": model}
            begun = {
                name
                for entry in self.model.entries
                if entry.namespace == namespace and entry.seq <= cut.seq
                for name in entry.vectors
            }
            if model not in begun:
                if begun:
                    with pytest.raises(ModelMismatchError):
                        db.similar(namespace, query, **asked)
                else:
                    assert db.similar(namespace, query, **asked) == []
                continue
            self._check_superseded(db, namespace, model, cut, true_at)
            hits = db.similar(namespace, query, k=10, **asked)
            assert {hit.key for hit in hits} == set(expected)
            for hit in hits:
                score, entry = expected[hit.key]
                assert hit.score == pytest.approx(score, abs=1e-6)
                assert hit.version.id == entry.id
                assert same(hit.value, entry.value)
            assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.key))
            k = self.random.randint(0, 3)
            assert db.similar(namespace, query, k=k, **asked) == hits[:k]
            if filter is None and len(models) > 1:
                with pytest.raises(ModelMismatchError):
                    db.similar(namespace, query, **at)
            elif filter is None and models == {model}:
                assert db.similar(namespace, query, k=10, **at) == hits
            elif filter is None and not models:
                assert db.similar(namespace, query, **at) == []

    def _check_superseded(
        self, db: koru_delta.Database, namespace: str, model: str, cut: Moment, true_at: int
    ) -> None:
        """The rows that a search takes in when it asks for what is superseded, too."""
        wanted = {
            (key, entry.seq)
            for key, entry in self.model.searched(namespace, cut, true_at, superseded=True).items()
            if model in entry.vectors
        }
        at = Cut(*cut)
        space = db._vectors.space(namespace, model, at, true_at)  # no verb asks for it yet
        assert space is not None
        seen = space.at(cut.seq).seen
        mask = seen.visible(at, true_at, db._log.position, superseded=True)
        if seen.is_now(at, true_at, superseded=True):
            assert (mask == seen.alive()).all()
        found = zip(space.names(seen.key[mask].tolist()), seen.seq[mask].tolist(), strict=True)
        assert sorted(found) == sorted(wanted)


def _fit(vector: list[float], dimensions: int) -> list[float]:
    fitted = [float(number) for number in vector[:dimensions]]
    return fitted if any(fitted) else [1.0] * dimensions


def _field(value: Any, name: str, default: Any) -> Any:
    return value.get(name, default) if isinstance(value, dict) else default


def _run(number: int, *, examples: int, steps: int) -> None:
    machine = seed(number)(type("Histories", (Histories,), {}))
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples, stateful_step_count=steps, deadline=None, database=None,
                suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
                phases=[Phase.generate, Phase.shrink],
            ),
        )  # fmt: skip
    except BaseException:
        print(f"\nfailed with KORU_SEED={number}", flush=True)
        raise


def test_random_histories_agree_with_the_naive_model_at_every_cut() -> None:
    if "KORU_SEED" in os.environ:
        _run(int(os.environ["KORU_SEED"]), examples=EXAMPLES, steps=STEPS)
        return
    until = time.monotonic() + float(os.environ.get("KORU_LONG_SECONDS", "0"))
    rounds = 0
    while rounds == 0 or time.monotonic() < until:
        _run(random.SystemRandom().getrandbits(32), examples=EXAMPLES, steps=STEPS)
        rounds += 1
    if rounds > 1:
        print(f"\n{rounds} rounds of {EXAMPLES} histories agreed")
