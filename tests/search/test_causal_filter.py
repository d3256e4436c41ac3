"""A causal filter passes what its definition, read aloud over the log, passes; now and then."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import koru_delta
from koru_delta import AsyncDatabase, CausalFilter, Version
from koru_delta.causal import EPOCH, moment
from koru_delta.errors import (
    AnnotationError,
    InvalidTimestampError,
    KeyNotFoundError,
    KoruDeltaError,
    QueryError,
    UnknownVersionError,
)
from koru_delta.testing import FixedClock
from tests.search.test_plans import EVERY_WAY, forced, rows_of
from tests.test_fork import in_child

EXAMPLES = int(os.environ.get("KORU_EXAMPLES", "40"))
KINDS = ("caused_by", "derived_from", "supersedes", "references", "same_run")
NAMESPACES, KEYS = ("a", "b"), ("k", "l", "m")
QUERY = [1.0, 0.5]


def hits(found: Sequence[koru_delta.Match]) -> list[tuple[str, float, str]]:
    return [(match.key, match.score, match.version.id) for match in found]


# The definition, read aloud

ANCHORED = {
    "derived_from": (True, False, {"derived_from"}),
    "descendants_of": (True, False, set(KINDS)),
    "ancestors_of": (False, True, set(KINDS)),
    "related_to": (True, True, set(KINDS)),
}


Moments = Callable[[Any], int]  # microseconds


def moments_of(db: koru_delta.Database) -> Moments:
    times = {0: 0} | {commit.seq: commit.tx_time for commit in db.commits()}
    tags = {f"tag:{name}": times[seq] for name, seq in db.tags().items()}

    def moment_of(given: Any) -> int:
        if isinstance(given, (Version, koru_delta.Commit)):
            return given.tx_time
        if isinstance(given, int):
            return times[given]
        if given in tags:
            return tags[given]
        when = given if isinstance(given, datetime) else datetime.fromisoformat(given)
        return (when - EPOCH) // timedelta(microseconds=1)

    return moment_of


class Naive:
    """The log up to a cut as a list of versions, and each condition as a walk over it."""

    def __init__(self, versions: Iterable[Version]) -> None:
        self.versions = list(versions)
        self.moves = [version for version in self.versions if not version.is_annotation]

    def visible(self, namespace: str, valid_at: datetime, *, superseded: bool) -> set[str]:
        """What every key of a namespace holds then that has a vector and is to be found."""
        winners = {
            version.key: version
            for version in self.moves
            if version.namespace == namespace
            and version.valid_from <= valid_at
            and (version.valid_to is None or valid_at < version.valid_to)
        }
        shown = {version.id: True for version in winners.values() if version.vectors}
        for version in self.versions:
            if version.target in shown:
                shown[version.target] = version.operation == "unhide"
        if not superseded:
            for version in self.versions:
                shown |= {
                    cause.id: False
                    for cause in version.causes
                    if cause.kind == "supersedes" and cause.id in shown
                }
        return {identity for identity, found in shown.items() if found}

    def anchors(self, given: Any) -> set[str]:
        """Ids of what is named; the error is that of a database that knows no more."""
        several = isinstance(given, frozenset)
        found: set[str] = set()
        for one in given if several else [given]:
            if isinstance(one, tuple):
                ids = {v.id for v in self.moves if (v.namespace, v.key) == one}
                if not ids:
                    raise KeyNotFoundError(*one)
            else:
                prefix = one.id if isinstance(one, Version) else one
                ids = {v.id for v in self.versions if v.id.startswith(prefix)}
                if len(ids) != 1:
                    raise UnknownVersionError(prefix)
            found |= ids
        return found

    def led_to(self, name: str, given: Any, max_hops: int | None) -> set[str]:
        """Every version that some way of at most so many hops leads to from an anchor."""
        down, up, kinds = ANCHORED[name]
        edges = {
            (cause.id, version.id)
            for version in self.versions
            for cause in version.causes
            if cause.kind in kinds
        }
        steps = {(a, b) for a, b in edges if down} | {(b, a) for a, b in edges if up}
        anchors = self.anchors(given)
        if max_hops is None:
            max_hops = 4 if name == "related_to" else len(self.versions)
        ring, found = set(anchors), set[str]()
        for _ in range(max_hops):
            ring = {b for a, b in steps if a in ring}
            found |= ring
        return found - anchors if name == "related_to" else found

    def passing(self, causal: CausalFilter, moments: Moments) -> set[str]:
        puts = [version for version in self.moves if not version.is_tombstone]
        walks = {
            name: self.led_to(name, getattr(causal, name), causal.max_hops)
            for name in ANCHORED
            if getattr(causal, name) is not None
        }
        found = set()
        for version in puts:
            had = sum((p.namespace, p.key) == (version.namespace, version.key) for p in puts)
            if (
                (causal.after is None or version.tx_time > moments(causal.after))
                and (causal.before is None or version.tx_time < moments(causal.before))
                and (causal.min_versions is None or had >= causal.min_versions)
                and (causal.max_versions is None or had <= causal.max_versions)
                and (causal.run is None or version.run in causal.run)
                and (causal.author is None or version.author in causal.author)
                and all(version.id in walked for walked in walks.values())
                and (causal.predicate is None or causal.predicate(version))
            ):
                found.add(version.id)
        return found


# Random logs

WRITES = st.lists(
    st.fixed_dictionaries({
        "verb": st.sampled_from(["embed", "embed", "embed", "put", "delete", "two", "hide"]),
        "namespace": st.sampled_from(NAMESPACES),
        "key": st.sampled_from(KEYS),
        "vector": st.tuples(st.integers(-3, 3), st.integers(-3, 3)).filter(any),
        "author": st.sampled_from([None, "ada", "bob"]),
        "run": st.sampled_from([None, "r1", "r2"]),
        "causes": st.lists(
            st.tuples(st.sampled_from(KINDS), st.integers(0, 30)), max_size=3
        ),
        "valid_back": st.sampled_from([None, None, None, 1, 3]),
        "advance": st.sampled_from([0, 1, 1, 5]),
    }),
    min_size=3, max_size=22,
)  # fmt: skip
MOMENTS = st.one_of(
    st.none(),
    st.tuples(st.sampled_from(["version", "commit", "seq", "time", "text", "tag"]),
              st.integers(0, 30)),
)  # fmt: skip
ANCHORS = st.one_of(
    st.none(), st.none(),
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["version", "id", "prefix"]), st.integers(0, 30)),
            st.tuples(st.just("key"), st.sampled_from(NAMESPACES), st.sampled_from(KEYS)),
        ),
        max_size=3,
    ),
)  # fmt: skip
FILTERS = st.fixed_dictionaries({
    "after": MOMENTS,
    "before": MOMENTS,
    "min_versions": st.sampled_from([None, None, 0, 1, 2]),
    "max_versions": st.sampled_from([None, None, 1, 2, 3]),
    **dict.fromkeys(ANCHORED, ANCHORS),
    "max_hops": st.sampled_from([None, None, 0, 1, 2]),
    "run": st.sampled_from([None, None, "r1", ["r1", "r2"], "r9", []]),
    "author": st.sampled_from([None, None, "ada", ("ada", "bob")]),
    "exclude_superseded": st.booleans(),
    "predicate": st.sampled_from([None, None, lambda version: version.seq % 2 == 0]),
})  # fmt: skip


def write(db: koru_delta.Database, clock: FixedClock, steps: Sequence[dict[str, Any]]) -> None:
    made: list[Version] = []
    for step in steps:
        clock.advance(microseconds=step["advance"])
        namespace, key = step["namespace"], step["key"]
        causes = [(kind, made[n % len(made)]) for kind, n in step["causes"] if made]
        options: dict[str, Any] = {"causes": causes, "author": step["author"], "run": step["run"]}
        if step["valid_back"] is not None and step["verb"] in ("embed", "put"):
            options["valid_from"] = moment(clock.now - step["valid_back"])
        try:
            if step["verb"] == "embed":
                made.append(db.embed(namespace, key, step["vector"], {"n": len(made)}, **options))
            elif step["verb"] == "put":
                made.append(db.put(namespace, key, len(made), **options))
            elif step["verb"] == "hide":
                hide = db.unhide if step["advance"] == 0 else db.hide
                made.append(hide(namespace, key, **options))
            elif step["verb"] == "delete":
                made.append(db.delete(namespace, key, **options))
            else:
                pair = [(each, step["vector"], {"n": len(made)}) for each in KEYS[:2]]
                made += db.embed_many(namespace, pair, **options)
        except (KeyNotFoundError, AnnotationError):  # nothing to delete or hide
            continue
    for name, seq in (("early", 0), ("late", db.stats()["seq"])):
        db.tag(name, seq)


def build(
    spec: dict[str, Any], versions: Sequence[Version], commits: Sequence[koru_delta.Commit]
) -> CausalFilter:
    def at(given: tuple[str, int] | None) -> Any:
        if given is None:
            return None
        kind, n = given
        commit = commits[n % len(commits)]
        return {
            "version": versions[n % len(versions)], "commit": commit, "seq": commit.seq,
            "time": commit.time, "text": moment(commit.tx_time + n % 3).isoformat(),
            "tag": "tag:early" if n % 2 else "tag:late",
        }[kind]  # fmt: skip

    def anchor(given: tuple[Any, ...]) -> Any:
        if given[0] == "key":
            return given[1:]
        version = versions[given[1] % len(versions)]
        return {"version": version, "id": version.id, "prefix": version.id[:12]}[given[0]]

    given = dict(spec)
    for name in ("after", "before"):
        given[name] = at(given[name])
    for name in ANCHORED:
        if given[name] is not None:
            given[name] = [anchor(each) for each in given[name]]
    return CausalFilter(**given)


def outcome(search: Callable[[], Sequence[koru_delta.Match]]) -> Any:
    """The hits, or which error it was."""
    try:
        return hits(search())
    except KoruDeltaError as error:
        return type(error)


@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
@given(steps=WRITES, specs=st.lists(FILTERS, min_size=1, max_size=4), data=st.data())
def test_a_causal_filter_is_its_definition_at_every_cut_and_in_a_replayed_database(
    steps: list[dict[str, Any]], specs: list[dict[str, Any]], data: st.DataObject
) -> None:
    clock = FixedClock()
    with koru_delta.open(clock=clock) as db:
        write(db, clock, steps)
        versions, commits = list(db.changes()), db.commits()
        moments = moments_of(db)
        # One after the other: what is kept of the first is gone on from by the next.
        drawn = data.draw(st.lists(st.sampled_from(commits), min_size=1, max_size=3))
        for commit in sorted({*drawn, commits[-1]}, key=lambda each: each.seq):
            log = io.BytesIO()
            db.export_log(log, as_of=commit)
            log.seek(0)
            with koru_delta.open(clock=FixedClock(commit.tx_time)) as then:
                then.import_log(log)
                for spec in specs:
                    causal = build(spec, versions, commits)
                    namespace = data.draw(st.sampled_from(NAMESPACES))
                    k = data.draw(st.integers(0, 4))
                    naive = Naive(v for v in versions if v.seq <= commit.seq)
                    superseded = not causal.exclude_superseded
                    visible = db.similar(
                        namespace, QUERY, k=99, exact=True, as_of=commit,
                        causal=CausalFilter(exclude_superseded=not superseded),
                    )  # fmt: skip
                    assert {match.version.id for match in visible} == naive.visible(
                        namespace, commit.time, superseded=superseded
                    )
                    expected: Any = None
                    with suppress(KeyNotFoundError, UnknownVersionError):
                        passing = naive.passing(causal, moments)
                        expected = hits([m for m in visible if m.version.id in passing][:k])

                    def found(
                        place: Any,
                        causal: CausalFilter = causal,
                        namespace: str = namespace,
                        k: int = k,
                        **more: Any,
                    ) -> Any:
                        return outcome(
                            lambda: place.similar(namespace, QUERY, k=k, causal=causal, **more)
                        )

                    if expected is None:  # an anchor is missing; of several any may be named
                        expected = found(db, as_of=commit)
                        assert expected in (KeyNotFoundError, UnknownVersionError)
                    assert found(db, as_of=commit) == expected
                    assert found(db.as_of(commit)) == expected
                    if not _names_a_later_moment(causal, commit):
                        assert found(then) == expected


def _names_a_later_moment(causal: CausalFilter, commit: koru_delta.Commit) -> bool:
    """Moments are those of the log as it is now; a database of that day lacks the later ones."""
    later = False
    for at in (causal.after, causal.before):
        if isinstance(at, str) and at.startswith("tag:"):
            later = True
        elif isinstance(at, (Version, koru_delta.Commit)):
            later |= at.seq > commit.seq
        elif isinstance(at, int):
            later |= at > commit.seq
    return later


# However the search goes about it


@pytest.mark.parametrize("way", EVERY_WAY)
def test_every_plan_chooses_among_what_passes(
    way: str,
    small: pytest.MonkeyPatch,
) -> None:
    numbers = np.random.default_rng(5)
    vectors = rows_of(numbers, 900, 16)
    with koru_delta.open(clock=FixedClock()) as db:
        source = db.put("docs", "source", 1)
        for start, causes in ((0, ()), (300, [("derived_from", source)]), (600, ())):
            db.embed_many(
                "v", [(f"k{n:03}", vectors[n]) for n in range(start, start + 300)],
                causes=causes, run=f"run {start}",
            )  # fmt: skip
        db.build_index("v")
        derived = {f"k{n:03}" for n in range(300, 600)}
        causal = CausalFilter(derived_from=source)
        with forced(db, way):
            for query in rows_of(numbers, 6, 16):
                for _ in range(3):  # what is made of a mask that comes again is right too
                    found = db.similar("v", query, k=7, causal=causal)
                    assert len(found) == 7
                    assert {match.key for match in found} <= derived
                    assert found.considered == 300
                [many] = db.similar_many("v", [query], k=7, causal=causal)
                assert hits(many) == hits(found)
                best = db.similar("v", query, k=900, exact=True)
                right = hits([match for match in best if match.key in derived])
                assert set(hits(found)) <= set(right)
                if not found.approximate:
                    assert hits(found) == right[:7]
                both = db.similar(
                    "v", query, k=400, exact=True, causal=CausalFilter(run=["run 300", "run 600"]),
                    filter={"": None},
                )  # fmt: skip
                assert [m.key for m in both] == [m.key for m in best if m.key >= "k300"][:400]


def test_a_search_finds_all_that_pass_when_they_are_fewer_than_k(db: koru_delta.Database) -> None:
    for n in range(20):
        db.embed("v", f"k{n:02}", [1.0, n], run="odd" if n % 2 else "even")

    found = db.similar("v", [1.0, 0.0], k=50, causal=CausalFilter(run="odd"))

    assert [match.key for match in found] == [f"k{n:02}" for n in range(1, 20, 2)]
    assert found.considered == 10


def test_what_is_kept_of_a_filter_never_answers_for_later_writes(db: koru_delta.Database) -> None:
    source = db.put("docs", "s", 1)
    db.embed("v", "a", [1.0, 0.0], causes=[("derived_from", source)])
    derived, twice = CausalFilter(derived_from=source), CausalFilter(min_versions=2)
    chained = CausalFilter(related_to=source)

    def keys(causal: CausalFilter) -> list[str]:
        return [match.key for match in db.similar("v", [1.0, 0.0], causal=causal)]

    assert (keys(derived), keys(twice), keys(chained)) == (["a"], [], ["a"])
    other = db.embed("v", "b", [1.0, 1.0])
    assert (keys(derived), keys(twice), keys(chained)) == (["a"], [], ["a"])
    # An edge that only another namespace's version adds.
    db.put("notes", "n", 1, causes=[("references", other), ("references", source)])
    assert (keys(derived), keys(twice), keys(chained)) == (["a"], [], ["a", "b"])
    db.embed("v", "b", [1.0, 1.0], causes=[("derived_from", source)])
    assert (keys(derived), keys(twice), keys(chained)) == (["a", "b"], ["b"], ["a", "b"])
    db.delete("v", "b")
    assert (keys(derived), keys(twice), keys(chained)) == (["a"], [], ["a"])


def test_what_is_kept_goes_on_over_all_that_was_written_since(db: koru_delta.Database) -> None:
    first = db.embed("v", "0", [1, 0])
    down = CausalFilter(descendants_of=("v", "0"))
    up = CausalFilter(ancestors_of=("docs", "end"))

    def keys(causal: CausalFilter) -> str:
        return "".join(match.key for match in db.similar("v", [1, 0], causal=causal))

    db.put("docs", "end", 1, causes=[first])
    assert (keys(down), keys(up)) == ("", "0")
    second = db.embed("v", "1", [1, 0], causes=[first])
    third = db.embed("v", "2", [1, 0], causes=[second])  # by way of what came since, too
    assert (keys(down), keys(up)) == ("12", "0")
    db.put("docs", "end", 2, causes=[third])  # the anchor has another version
    assert (keys(down), keys(up)) == ("12", "012")
    fresh = db.embed("v", "0", [1, 0])
    db.embed("v", "3", [1, 0], causes=[fresh])
    assert (keys(down), keys(up)) == ("123", "12")


# Moments


def test_after_and_before_leave_out_the_moment_itself(
    db: koru_delta.Database, clock: FixedClock
) -> None:
    def embed(*keys: str) -> list[Version]:
        clock.advance(seconds=1)
        return db.embed_many("v", [(key, [1.0, 0.0]) for key in keys])

    first, (second, _), third = embed("a"), embed("b", "c"), embed("d")
    commit = db.commits()[1]

    def keys(**given: Any) -> str:
        return "".join(match.key for match in db.similar("v", [1, 0], causal=CausalFilter(**given)))

    for at in (second, second.id, commit, commit.seq, commit.time, commit.time.isoformat()):
        assert keys(after=at) == "d"
        assert keys(before=at) == "a"
    assert keys(after=first[0], before=third[0]) == "bc"
    assert keys(after=0) == keys(before=moment(commit.tx_time + 10**7)) == "abcd"
    assert keys(before=0) == keys(before=first[0]) == keys(after=third[0]) == ""
    assert keys(after="2200-01-01T00:00:00Z") == ""  # nothing was written after it
    assert keys(before="2200-01-01T00:00:00Z") == "abcd"
    db.tag("then", commit)
    assert (keys(after="tag:then"), keys(before="tag:then")) == ("d", "a")
    for wrong, error in (
        ({"after": "tag:never"}, UnknownVersionError),
        ({"before": "f" * 64}, UnknownVersionError),
        ({"after": datetime(2026, 1, 1)}, InvalidTimestampError),  # noqa: DTZ001 - naive
        ({"before": "yesterday"}, InvalidTimestampError),
        ({"after": 99}, InvalidTimestampError),
        ({"before": 2}, InvalidTimestampError),  # inside the commit
    ):
        with pytest.raises(error):
            keys(**wrong)


def test_valid_at_may_stand_in_the_filter_or_beside_it(
    db: koru_delta.Database, clock: FixedClock
) -> None:
    early, late = datetime(2020, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)
    db.embed("v", "old", [1.0, 0.0], valid_from=early, valid_to=late)
    db.embed("v", "new", [1.0, 0.0], valid_from=late)
    asked = CausalFilter(valid_at="2021-01-01T00:00:00Z")

    assert [m.key for m in db.similar("v", [1, 0], causal=asked)] == ["old"]
    assert [m.key for m in db.similar_many("v", [[1, 0]], causal=asked)[0]] == ["old"]
    same = datetime(2021, 1, 1, tzinfo=UTC)
    assert [m.key for m in db.similar("v", [1, 0], causal=asked, valid_at=same)] == ["old"]
    with pytest.raises(QueryError, match="valid_at"):
        db.similar("v", [1, 0], causal=asked, valid_at=late)
    with pytest.raises(QueryError, match="valid_at"):
        db.similar_many("v", [[1, 0]], causal=asked, valid_at=late)


# Anchors


def test_an_anchor_is_found_only_where_another_leads_to_it(db: koru_delta.Database) -> None:
    first = db.embed("v", "a", [1, 0])
    second = db.embed("v", "b", [1, 0], causes=[("derived_from", first)])
    third = db.embed("v", "c", [1, 0], causes=[("references", second)])

    def keys(**given: Any) -> str:
        return "".join(match.key for match in db.similar("v", [1, 0], causal=CausalFilter(**given)))

    assert keys(derived_from=first) == "b"
    assert keys(descendants_of=first) == "bc"
    assert keys(descendants_of=[first, second]) == "bc"
    assert keys(descendants_of=[first, second], max_hops=1) == "bc"
    assert keys(descendants_of=first, max_hops=0) == ""
    assert keys(ancestors_of=third) == "ab"
    assert keys(ancestors_of=third.id[:8], max_hops=1) == "b"
    assert keys(ancestors_of={third, second}) == "ab"
    assert keys(related_to=second) == "ac"
    assert keys(related_to=[first, second, third]) == ""
    assert keys(derived_from=("v", "a")) == "b"
    assert keys(derived_from=[]) == ""


def test_an_anchor_that_is_not_there_at_the_cut_is_an_error(db: koru_delta.Database) -> None:
    then = db.embed("v", "a", [1, 0])
    later = db.put("docs", "d", 1)
    with koru_delta.open() as other:
        stranger = other.put("docs", "d", 1)

    for anchor in (later, later.id, later.id[:10], stranger, "f" * 64, "00000000", "no id", ""):
        with pytest.raises(UnknownVersionError):
            db.similar("v", [1, 0], causal=CausalFilter(descendants_of=anchor), as_of=then)
    for key in (("docs", "d"), ("docs", "never"), ("never", "d")):
        with pytest.raises(KeyNotFoundError):
            db.similar("v", [1, 0], causal=CausalFilter(related_to=key), as_of=then)
    with pytest.raises(UnknownVersionError):  # also where nothing could be found
        db.similar("empty", [1, 0], causal=CausalFilter(ancestors_of=stranger))
    assert db.similar("v", [1, 0], causal=CausalFilter(descendants_of=later)) == []


def test_ways_that_meet_again_are_walked_once(db: koru_delta.Database) -> None:
    ends = [db.embed("v", "0", [1, 0])]
    for n in range(1, 200):  # 2**199 ways from one end to the other
        left, right = (
            db.put("sides", f"{side}{n}", n, causes=[("derived_from", ends[-1])]) for side in "lr"
        )
        ends.append(
            db.embed("v", f"{n}", [1, 0], causes=[("derived_from", left), ("derived_from", right)])
        )

    found = db.similar("v", [1, 0], k=500, causal=CausalFilter(derived_from=ends[0]))
    assert {match.key for match in found} == {str(n) for n in range(1, 200)}
    found = db.similar("v", [1, 0], k=500, causal=CausalFilter(related_to=ends[100]))
    assert {match.key for match in found} == {"98", "99", "101", "102"}
    assert len(db.path(ends[-1], ends[0])) == 2 * 199 + 1


def test_a_great_many_anchors_and_effects_are_walked(db: koru_delta.Database) -> None:
    source = db.put("docs", "s", 1)
    chunks = db.embed_many(
        "v", [(f"{n:05}", [1.0, n % 7]) for n in range(3000)], causes=[("derived_from", source)]
    )
    db.embed("sum", "all", [1, 0], causes=[("derived_from", chunk) for chunk in chunks])

    derived = db.similar("v", [1, 0], k=5000, causal=CausalFilter(derived_from=source))
    assert len(derived) == 3000
    assert len(db.similar("v", [1, 0], causal=CausalFilter(ancestors_of=chunks), k=9)) == 0
    [summary] = db.similar("sum", [1, 0], causal=CausalFilter(descendants_of=chunks))
    assert summary.key == "all"


# What is superseded


def test_what_is_superseded_is_found_if_it_is_asked_for(db: koru_delta.Database) -> None:
    old = db.embed("v", "old", [1, 0], run="r")
    fresh = db.embed("v", "fresh", [1, 1], run="r", causes=[("supersedes", old)])
    db.embed("v", "other", [0, 1])

    def keys(causal: CausalFilter | None, as_of: Version | None = None) -> list[str]:
        return [match.key for match in db.similar("v", [1, 0], causal=causal, as_of=as_of)]

    assert keys(None) == keys(CausalFilter()) == ["fresh", "other"]
    assert keys(CausalFilter(exclude_superseded=False)) == ["old", "fresh", "other"]
    assert keys(CausalFilter(exclude_superseded=False), as_of=fresh) == ["old", "fresh"]
    assert keys(CausalFilter(run="r")) == ["fresh"]
    assert keys(CausalFilter(run="r", exclude_superseded=False)) == ["old", "fresh"]
    assert keys(CausalFilter(ancestors_of=fresh)) == []
    assert keys(CausalFilter(ancestors_of=fresh, exclude_superseded=False)) == ["old"]
    db.hide("v", "old")
    assert keys(CausalFilter(run="r", exclude_superseded=False)) == ["fresh"]


# Predicates


def test_a_predicate_is_asked_last_and_only_of_what_passes_all_else(
    db: koru_delta.Database,
) -> None:
    for n in range(6):
        db.embed("v", f"k{n}", [1.0, n], {"n": n}, run="r" if n % 2 else "s")
    asked: list[str] = []

    def predicate(version: Version) -> bool:
        asked.append(version.key)
        return version.value["n"] > 1

    causal = CausalFilter(run="r", predicate=predicate)
    found = db.similar("v", [1, 0], k=1, filter={"n": {"$lt": 4}}, causal=causal)

    assert ([match.key for match in found], found.considered) == (["k3"], 1)
    assert sorted(asked) == ["k1", "k3"]


def test_what_a_predicate_raises_is_raised_as_it_is(db: koru_delta.Database) -> None:
    db.embed("v", "a", [1, 0])
    broken = LookupError("mine")

    def predicate(_: Version) -> bool:
        raise broken

    with pytest.raises(LookupError) as raised:
        db.similar("v", [1, 0], causal=CausalFilter(predicate=predicate))
    assert raised.value is broken
    assert len(db.similar("v", [1, 0], causal=CausalFilter(predicate=lambda _: True))) == 1


def test_predicates_that_call_themselves_equal_are_not_taken_for_each_other(
    db: koru_delta.Database,
) -> None:
    class Alike:
        def __init__(self, answer: bool) -> None:
            self.answer = answer

        def __eq__(self, _: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

        def __call__(self, _: Version) -> bool:
            return self.answer

    db.embed("v", "a", [1, 0])
    for answer in (True, False):
        found = db.similar("v", [1, 0], causal=CausalFilter(predicate=Alike(answer)))
        assert len(found) == answer


# What is no filter


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("after", True), ("after", 1.5), ("before", b"x"), ("before", ["a"]),
        ("valid_at", 3), ("min_versions", -1), ("min_versions", True), ("max_versions", 1.0),
        ("max_hops", -1), ("max_hops", "2"), ("derived_from", 7), ("derived_from", [7]),
        ("descendants_of", b"ab"), ("ancestors_of", {"a": 1}), ("related_to", [None]),
        ("related_to", [("a", "b", "c")]), ("related_to", ("", "k")), ("run", 3), ("run", [None]),
        ("run", b"r"), ("author", ["a", 1]), ("author", {"a": 1}), ("exclude_superseded", 1),
        ("exclude_superseded", None), ("predicate", "name"),
    ],
)  # fmt: skip
def test_a_field_of_the_wrong_type_is_named(field: str, given: Any) -> None:
    with pytest.raises(QueryError, match=f"causal {field} "):
        CausalFilter(**{field: given})


def test_something_else_than_a_causal_filter_is_refused(db: koru_delta.Database) -> None:
    for wrong in ({"run": "r"}, "r", CausalFilter):
        with pytest.raises(QueryError, match="CausalFilter"):
            db.similar("v", [1, 0], causal=wrong)  # type: ignore[arg-type]
        with pytest.raises(QueryError, match="CausalFilter"):
            db.similar_many("v", [[1, 0]], causal=wrong)  # type: ignore[arg-type]


def test_filters_that_ask_the_same_are_equal(db: koru_delta.Database) -> None:
    version = db.put("n", "k", 1)
    one = CausalFilter(run=["b", "a"], derived_from=[version, ("n", "k")], max_hops=2)
    two = CausalFilter(run=("a", "b"), derived_from={("n", "k"), version}, max_hops=2)
    assert one == two
    assert hash(one) == hash(two)
    assert replace(one, max_hops=3) == replace(two, max_hops=3) != one
    assert CausalFilter(derived_from=("n", "k")) == CausalFilter(derived_from=[("n", "k")])


def test_nothing_asked_is_no_filter(db: koru_delta.Database) -> None:
    for n in range(9):
        db.embed("v", f"k{n}", [1.0, n])
    plain = db.similar("v", [1, 0])
    assert hits(db.similar("v", [1, 0], causal=CausalFilter())) == hits(plain)
    assert db.similar("v", [1, 0], causal=CausalFilter(max_hops=3)).plan == plain.plan


# The other surfaces


async def test_the_async_verbs_and_views_filter_alike() -> None:
    async with await AsyncDatabase.open(clock=FixedClock()) as adb:
        first = await adb.embed("v", "a", [1, 0], run="r")
        await adb.embed("v", "a", [1, 0], run="s")
        causal = CausalFilter(run="r")
        view = await adb.as_of(first)
        assert await adb.similar("v", [1, 0], causal=causal) == []
        assert [m.key for m in await adb.similar("v", [1, 0], causal=causal, as_of=first)] == ["a"]
        assert [m.key for m in await view.similar("v", [1, 0], causal=causal)] == ["a"]
        for many in (
            await adb.similar_many("v", [[1, 0]], causal=causal, as_of=first),
            await view.similar_many("v", [[1, 0]], causal=causal),
        ):
            assert [[m.key for m in found] for found in many] == [["a"]]
        assert adb.database.as_of(first).similar("v", [1, 0], causal=causal)[0].key == "a"


def test_it_is_offered_to_integrations() -> None:
    from koru_delta import integrations

    assert integrations.CausalFilter is koru_delta.CausalFilter
    assert "CausalFilter" in dir(integrations)
    with pytest.raises(AttributeError):
        integrations.Nothing  # noqa: B018


# Many at once


def test_threads_that_write_and_filter_see_what_was_written_before(
    db: koru_delta.Database,
) -> None:
    problems: list[str] = []

    def work(name: str) -> None:
        last = db.put("docs", name, 0)
        for n in range(25):
            last = db.embed("v", f"{name}{n}", [1.0, 0.0], run=name, causes=[("caused_by", last)])
            for causal, wanted in (
                (CausalFilter(run=name), n + 1),
                (CausalFilter(descendants_of=("docs", name)), n + 1),
                (CausalFilter(min_versions=2), 0),
            ):
                found = db.similar("v", [1, 0], k=200, causal=causal)
                if len(found) != wanted:
                    problems.append(f"{name} {n}: {causal} found {len(found)}")

    threads = [threading.Thread(target=work, args=(name,)) for name in "wxyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_a_forked_child_filters_by_what_both_have_written(tmp_path: Any) -> None:
    with koru_delta.open(tmp_path / "db", durability="relaxed") as db:
        db.embed("v", "a", [1, 0], run="r")
        db.similar("v", [1, 0], causal=CausalFilter(run="r", min_versions=1))

        def child() -> None:
            db.embed("v", "b", [1, 0], run="r")
            found = db.similar("v", [1, 0], causal=CausalFilter(run="r", max_versions=1))
            assert [match.key for match in found] == ["a", "b"]

        in_child(child)
        found = db.similar("v", [1, 0], causal=CausalFilter(run="r"))
        assert [match.key for match in found] == ["a", "b"]


def test_positions_far_apart_are_found_too(db: koru_delta.Database) -> None:
    for n in range(3):
        db.embed("v", f"k{n}", [1, 0], run=f"r{n}")
        for start in (0, 3000, 6000) if n < 2 else ():
            db.put_many([("filler", f"{n}-{start + each}", None) for each in range(3000)])
        for m in range(n + 1):
            [found] = db.similar("v", [1, 0], causal=CausalFilter(run=f"r{m}", max_versions=1))
            assert found.key == f"k{m}"
    db.embed("v", "k0", [1, 0], run="r0")
    [found] = db.similar("v", [1, 0], causal=CausalFilter(run="r0", min_versions=2))
    assert found.key == "k0"
