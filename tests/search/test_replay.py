"""Every search at every cut is that of a fresh database, replayed to that cut and no further.

A short run is in the gate; `KORU_LONG_SECONDS=600` runs fresh seeds for that long and
prints the seed of a failure, `KORU_SEED=n` runs that one again.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import koru_delta
from koru_delta import CausalFilter, Database
from koru_delta.causal import moment
from koru_delta.errors import KoruDeltaError
from koru_delta.testing import FixedClock
from tests.indexing import SMALL, lower
from tests.model import Moment
from tests.search.histories import (
    FILTERS,
    NAMESPACES,
    UNIT,
    Clause,
    Told,
    bm25,
    codes,
    fitted,
    history,
    is_free,
    opened,
    question,
    written,
)

EXAMPLES = 60
ALL = 1000


def outcome(ask: Callable[[], Any]) -> Any:
    """What came of a search: an answer, or the kind of error."""
    try:
        return ask()
    except KoruDeltaError as error:
        return type(error).__name__


def hits(found: Sequence[koru_delta.Match]) -> list[tuple[str, float, str]]:
    return [(hit.key, hit.score, hit.version.id) for hit in found]


def pages(db: Database, namespace: str, text: str, **asked: Any) -> list[list[tuple[Any, ...]]]:
    """A search read to its end, page by page."""
    found: list[list[tuple[Any, ...]]] = []
    cursor = None
    while True:
        page = db.search(namespace, text, cursor=cursor, **asked)
        found.append(hits(page))
        cursor = page.cursor
        if cursor is None:
            return found
        assert len(page) == asked["k"]
        asked.pop("as_of", None)  # the cursor has it
        assert len(found) < 50


def causal_filters(told: Told, cut: Moment, chance: random.Random) -> list[CausalFilter | None]:
    """Some that a database at the cut can be asked with."""
    puts = [e for e in told.model.entries if e.operation == "put" and 0 < e.seq <= cut.seq
            and not e.namespace.startswith("$")]  # fmt: skip
    ends = [0, *(commit.seq for commit in told.model.commits if commit.seq <= cut.seq)]
    found: list[CausalFilter | None] = [
        None,
        CausalFilter(exclude_superseded=False),
        CausalFilter(author="ada"),
        CausalFilter(run="r1", max_versions=2),
        CausalFilter(min_versions=2, exclude_superseded=False),
        CausalFilter(after=chance.choice(ends)),
        CausalFilter(before=chance.choice(ends)),
        CausalFilter(predicate=_is_short),
    ]
    if puts:
        some = [entry.id for entry in chance.choices(puts, k=2)]
        found += [
            CausalFilter(descendants_of=some),
            CausalFilter(related_to=some[0], exclude_superseded=False),
            CausalFilter(derived_from=some),
            CausalFilter(ancestors_of=some, max_hops=2),
        ]
    return found


def _is_short(version: koru_delta.Version) -> bool:
    return len(str(version.value)) % 2 == 0


def searches(
    told: Told, cut: Moment, namespace: str, query: Sequence[Clause], vector: list[float],
    chance: random.Random,
) -> list[Callable[[Database], Any]]:  # fmt: skip
    """Every mode with random conditions, as functions of a database."""
    text = written(query)
    at: dict[str, Any] = {"as_of": told.ref(cut)}
    if chance.random() < 0.3:
        at["valid_at"] = moment(told.begun + chance.randint(-14 * UNIT, 20 * UNIT))
    where, _ = chance.choice([*FILTERS, FILTERS[0], FILTERS[0]])
    asked: dict[str, Any] = {**at, "filter": where, "causal": chance.choice(
        causal_filters(told, cut, chance))}  # fmt: skip
    beside: dict[str, Any] = {"vector": vector, "model": "m", "exact": True, **asked}
    hybrid: dict[str, Any] = {**beside, "k": chance.choice([1, 2, 3, ALL])}
    if chance.random() < 0.5:
        hybrid["weights"] = {"vector": chance.choice([0, 0.3, 1]), "text": chance.choice([0.5, 2])}
    if chance.random() < 0.5:
        hybrid["fusion"] = "score"
    if chance.random() < 0.3:
        hybrid["half_life"] = chance.choice([0.5, 3, 60])
    if chance.random() < 0.3:
        hybrid["group_by"] = chance.choice(["doc", "n", ""])
    if chance.random() < 0.3:
        hybrid["threshold"] = chance.choice([0.0, 0.01, 0.016, 0.5])
    diverse = {**hybrid, "mmr": chance.choice([0, 0.5, 1])}
    small = {**hybrid, "k": chance.choice([1, 2])}
    mode = chance.choice(["vector", "text", "hybrid"])
    sort = chance.choice([None, "n", "-n", ["doc", "-text"]])
    return [
        lambda db: hits(
            db.similar(namespace, vector, model="m", k=ALL, exact=True, **asked)
        ),
        lambda db: hits(db.search(namespace, text, mode="text", k=ALL, **asked)),
        lambda db: hits(db.search(namespace, text, mode="vector", k=ALL, **beside)),
        lambda db: hits(db.search(namespace, text, **hybrid)),
        lambda db: hits(db.search(namespace, text, **diverse)),
        lambda db: pages(db, namespace, text, mode=mode, **small),
        lambda db: [e.to_dict() for e in map(db.explain, db.search(namespace, text, **small)) if e],
        lambda db: db.count(namespace, text=text, **asked),
        lambda db: db.count(namespace, **asked),
        lambda db: [(r.key, r.version.id) for r in db.query(namespace, sort=sort, **asked)],
    ]  # fmt: skip


def check_words(
    told: Told, cut: Moment, namespace: str, query: Sequence[Clause], chance: random.Random
) -> None:
    """A search by words is BM25 by the book over what the naive model says is visible."""
    at: dict[str, Any] = {"as_of": told.ref(cut)}
    valid = cut.clock
    if chance.random() < 0.3:
        valid = told.begun + chance.randint(-14 * UNIT, 20 * UNIT)
        at["valid_at"] = moment(valid)
    where, passes = chance.choice([*FILTERS, FILTERS[0], FILTERS[0]])
    texts, entries = told.texts(namespace, cut, valid, passes)
    chosen = told.model.answer("$text", namespace, cut, cut.clock)
    stemmer = None if chosen is None else chosen.value["stemmer"]
    expected = bm25(query, texts, stemmer)

    found = told.db.search(namespace, written(query), mode="text", k=ALL, filter=where, **at)

    assert {hit.key: hit.score for hit in found} == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert [(hit.key, hit.score) for hit in found] == sorted(
        ((hit.key, hit.score) for hit in found), key=lambda pair: (-pair[1], pair[0])
    )
    assert {hit.key: hit.version.id for hit in found} == {
        key: entries[key].id for key in expected
    }  # fmt: skip
    text = written(query)
    assert told.db.count(namespace, where, text=text, **at) == len(expected)
    k = chance.randint(0, 3)
    assert told.db.search(namespace, text, mode="text", k=k, filter=where, **at) == found[:k]


def check_fused(
    told: Told, cut: Moment, namespace: str, query: Sequence[Clause], vector: list[float]
) -> None:
    """Hybrid is reciprocal ranks of its two legs, added up; the query's bounds hold for both."""
    at: dict[str, Any] = {"as_of": told.ref(cut), "k": ALL, "model": "m", "exact": True}
    text = written(query)
    by_words = told.db.search(namespace, text, mode="text", **at)
    by_vector = outcome(lambda: told.db.similar(namespace, vector, **at))
    if isinstance(by_vector, str):
        return
    texts, _ = told.texts(namespace, cut, cut.clock, lambda _value: True)
    chosen = told.model.answer("$text", namespace, cut, cut.clock)
    stemmer = None if chosen is None else chosen.value["stemmer"]
    free = {key for key, words in texts.items() if is_free(query, words, stemmer)}
    by_vector = [hit for hit in by_vector if hit.key in free]
    scores: dict[str, float] = {}
    for leg, weight in ((by_vector, 0.5), (by_words, 1.0)):
        for rank, hit in enumerate(leg, 1):
            scores[hit.key] = scores.get(hit.key, 0.0) + weight / (60 + rank)
    found = told.db.search(
        namespace, text, vector=vector, weights={"vector": 0.5}, fusion="rrf", **at
    )
    assert {hit.key: hit.score for hit in found} == pytest.approx(scores, rel=1e-12)
    assert [hit.key for hit in found] == sorted(
        (hit.key for hit in found), key=lambda key: (-{h.key: h.score for h in found}[key], key)
    )


def check_diff(
    told: Told, fresh: Database, cuts: list[Moment], namespace: str, text: str, vector: list[float]
) -> None:
    """The sides of a diff are the searches of both moments; all of it is in the fresh one too."""
    t1, t2 = (told.ref(cut) for cut in cuts)

    def diff(db: Database) -> Any:
        found = db.retrieval_diff(namespace, text, t1, t2, k=3)
        return found.to_dict(), hits(found.before), hits(found.after)

    here = outcome(lambda: diff(told.db))
    assert here == outcome(lambda: diff(fresh))
    if not isinstance(here, str):
        sides = [hits(told.db.search(namespace, text, k=3, as_of=t)) for t in (t1, t2)]
        assert list(here[1:]) == sides

    def by_vector(db: Database) -> Any:
        return db.retrieval_diff(namespace, vector, t1, t2, k=3, model="m").to_dict()

    assert outcome(lambda: by_vector(told.db)) == outcome(lambda: by_vector(fresh))


def check(numbers: bytes, number: bytes) -> None:
    chance = random.Random(number)
    clock = FixedClock()
    steps = history(numbers)
    with opened(clock) as db:
        told = Told(db, clock)
        told.tell(steps[: len(steps) // 2])
        check_words(told, told.cut(chance), "a", question(chance), chance)  # something is kept
        told.tell(steps[len(steps) // 2 :])
        if chance.random() < 0.2:
            db.build_index()
        for _ in range(3):
            cut = told.cut(chance)
            with told.replayed(cut) as fresh:
                for namespace in NAMESPACES:
                    _check_at(told, fresh, cut, namespace, chance)


def _check_at(
    told: Told, fresh: Database, cut: Moment, namespace: str, chance: random.Random
) -> None:
    query = question(chance)
    vector = fitted([chance.randint(-2, 2) for _ in range(3)])
    check_words(told, cut, namespace, query, chance)
    check_fused(told, cut, namespace, query, vector)
    for search in searches(told, cut, namespace, query, vector, chance):
        assert outcome(lambda: search(told.db)) == outcome(lambda: search(fresh))  # noqa: B023
    earlier = told.cut(chance)
    if earlier.seq <= cut.seq and earlier.clock <= cut.clock:
        check_diff(told, fresh, [earlier, cut], namespace, written(query), vector)


def _run(number: int, *, examples: int) -> None:
    try:
        run = given(codes, st.binary(min_size=8, max_size=8))(check)
        seed(number)(
            settings(
                max_examples=examples, deadline=None, database=None, report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink],
            )(run)
        )()  # fmt: skip
    except BaseException:
        print(f"\nfailed with KORU_SEED={number}", flush=True)
        raise


def test_every_search_at_every_cut_is_that_of_a_replayed_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lower(SMALL, monkeypatch.setattr)
    if "KORU_SEED" in os.environ:
        _run(int(os.environ["KORU_SEED"]), examples=EXAMPLES)
        return
    until = time.monotonic() + float(os.environ.get("KORU_LONG_SECONDS", "0"))
    rounds = 0
    while rounds == 0 or time.monotonic() < until:
        _run(random.SystemRandom().getrandbits(32), examples=EXAMPLES)
        rounds += 1
    if rounds > 1:
        print(f"\n{rounds} rounds of {EXAMPLES} histories agreed")
