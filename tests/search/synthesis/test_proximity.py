from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from koru_delta.errors import QueryError
from koru_delta.search.synthesis import (
    FACTORS,
    Distinctions,
    causal,
    compose,
    compositional,
    geometric,
    proximity_of,
    temporal,
)

UNIT = st.floats(0, 1) | st.just(math.nan)


@st.composite
def scored(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, float]]:
    count = draw(st.integers(0, 8))
    names = draw(st.sets(st.sampled_from(FACTORS), min_size=1))
    factors = {name: draw(arrays.arrays(np.float64, count, elements=UNIT)) for name in names}
    weights = {name: draw(st.floats(0, 1e6)) for name in FACTORS}
    weights[draw(st.sampled_from(sorted(names)))] = draw(st.floats(1e-3, 1e6))
    return factors, weights


SLIGHT = dict.fromkeys(FACTORS, 0.0) | {"temporal": 5e-324, "causal": 1.0}


@given(scored())
@example(({"temporal": np.array([0.5]), "causal": np.array([math.nan])}, SLIGHT))
def test_contributions_add_up_to_the_score_which_is_the_weighted_mean(case):
    factors, weights = case
    found = proximity_of(factors, weights)

    assert np.allclose(sum(found.contributions.values()), found.scores, rtol=0, atol=1e-6)
    for n, score in enumerate(found.scores.tolist()):
        known = [
            (Fraction(weights[f]), Fraction(v[n]))  # a product of floats may be too small for one
            for f, v in factors.items()
            if not math.isnan(v[n])
        ]
        whole = sum(weight for weight, _ in known)
        mean = sum(weight * value for weight, value in known) / whole if whole else 0
        assert score == pytest.approx(float(mean), abs=1e-6)
        assert 0 <= score <= 1 + 1e-9


@given(scored(), st.data())
def test_leaving_a_factor_out_is_scoring_without_it(case, data):
    factors, weights = case
    name = data.draw(st.sampled_from(sorted(factors)))
    rest = {other: values for other, values in factors.items() if other != name}
    found = proximity_of(factors, weights)
    if not any(weights[other] for other in rest):
        with pytest.raises(QueryError):
            found.without(name)
        return
    again = proximity_of(rest, weights)
    keys = [f"k{n}" for n in range(len(found.scores))]
    assert found.without(name).scores.tolist() == again.scores.tolist()
    assert found.without(name).ranks(keys).tolist() == again.ranks(keys).tolist()


@pytest.mark.parametrize(
    "weights",
    [
        {"geometric": -1.0}, {"geometric": math.nan}, {"geometric": math.inf}, {"geometric": True},
        {"geometric": "1"}, {"geometric": None}, {"nearness": 1.0},
        dict.fromkeys(FACTORS, 0.0), dict.fromkeys(FACTORS, 0),
    ],
)  # fmt: skip
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(QueryError):
        proximity_of({"geometric": [0.5]}, weights)


@pytest.mark.parametrize(
    "factors",
    [
        {}, {"geometric": None}, {"semantic": [0.5]}, {"nearness": [0.5]}, {"geometric": [1.5]},
        {"geometric": [-0.1]}, {"geometric": [[0.5]]}, {"geometric": ["a"]},
        {"geometric": [0.5], "semantic": [0.5, 0.5]},
    ],
)  # fmt: skip
def test_factors_that_are_none_or_weigh_nothing_are_refused(factors):
    with pytest.raises(QueryError):
        proximity_of(factors, {"geometric": 1.0, "semantic": 0.0})


def test_weights_of_what_is_not_available_count_for_nothing():
    alone = proximity_of({"geometric": [0.25, 0.75]}, {"geometric": 0.1, "causal": 100})
    assert alone.scores.tolist() == [0.25, 0.75]
    some = proximity_of(
        {"geometric": [0.5, 0.5], "causal": [1.0, math.nan]}, {"geometric": 1, "causal": 1}
    )
    assert some.scores.tolist() == [0.75, 0.5]


def test_equal_scores_rank_by_key():
    found = proximity_of({"geometric": [0.5, 0.9, 0.5]})
    assert found.ranks(["b", "c", "a"]).tolist() == [3, 1, 2]


def test_geometric_is_the_cosine_where_it_is_above_zero():
    vectors = [[2.0, 0.0], [3.0, 3.0], [-1.0, 0.0], [0.0, 0.0], [1e-30, 0.0]]
    found = geometric([1e30, 0.0], vectors)
    assert found[:3].tolist() == pytest.approx([1.0, math.sqrt(0.5), 0.0])
    assert math.isnan(found[3])
    assert found[4] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("query", "vectors"),
    [
        ([0.0, 0.0], [[1.0, 0.0]]), ([math.nan, 1.0], [[1.0, 0.0]]), ([1.0], [[1.0, 0.0]]),
        ([1.0, 0.0], [[math.inf, 0.0]]), ([1.0, 0.0], [1.0, 0.0]), ("ab", [[1.0, 0.0]]),
        ([1.0, 0.0], [[1.0], [1.0, 2.0]]),
    ],
)  # fmt: skip
def test_vectors_that_point_nowhere_or_elsewhere_are_refused(query, vectors):
    with pytest.raises(QueryError):
        geometric(query, vectors)


def test_a_query_is_composed_with_its_context_halfway():
    assert compose([2.0, 0.0], [[0.0, 5.0]]).tolist() == pytest.approx([math.sqrt(0.5)] * 2)
    found = compositional([1.0, 0.0], [[0.0, 1.0]], [[1.0, 1.0], [-1.0, -1.0]])
    assert found.tolist() == pytest.approx([1.0, 0.0])
    for context in ([], [[-1.0, 0.0]], [[1.0, 0.0], [-1.0, 0.0]]):
        with pytest.raises(QueryError):
            compose([1.0, 0.0], context)


def test_causes_count_half_with_each_hop_up_to_four():
    assert causal([0, 1, 2, 4, 5, math.inf]).tolist() == [1, 0.5, 0.25, 0.0625, 0, 0]
    for hops in ([-1], [math.nan], 3):
        with pytest.raises(QueryError):
            causal(hops)


def test_time_counts_half_with_each_half_life_either_way():
    assert temporal([0, 10, 20, 30], 10, 10).tolist() == [0.5, 1.0, 0.5, 0.25]
    for times, at, half_life in (([0], 0, 0), ([0], 0, -1), ([0], 0, math.nan),
                                 ([math.nan], 0, 1), ([0], math.inf, 1)):  # fmt: skip
        with pytest.raises(QueryError):
            temporal(times, at, half_life)


TERMS = st.lists(st.sampled_from("abcdefgh"), max_size=6)


@given(st.lists(TERMS, max_size=6), TERMS, st.booleans())
def test_distinctions_overlap_as_sets_that_are_weighed(candidates, query, own):
    weights = {term: n / 2 for n, term in enumerate("abcdefgh")}
    held = Distinctions(candidates, weights.__getitem__ if own else None)

    def weight(terms: set[str]) -> float:
        def idf(term: str) -> float:
            if own:
                return weights[term]
            df = sum(term in terms for terms in candidates)
            return math.log(1 + (len(candidates) - df + 0.5) / (df + 0.5))

        return math.fsum(map(idf, terms))

    wanted = set(query)
    containment = [
        weight(wanted & set(each)) / weight(wanted) if weight(wanted) else 0.0
        for each in candidates
    ]
    jaccard = [
        weight(wanted & set(each)) / weight(wanted | set(each)) if weight(wanted) else 0.0
        for each in candidates
    ]
    assert held.semantic(query).tolist() == pytest.approx(containment)
    assert held.semantic(query, measure="jaccard").tolist() == pytest.approx(jaccard)


def test_a_distinction_that_nobody_has_lowers_every_share():
    held = Distinctions([["rain"], ["sun"]])
    assert held.semantic(["rain"]).tolist() == [1.0, 0.0]
    assert 0 < held.semantic(["rain", "snow"])[0] < 0.5
    assert held.semantic(["snow"]).tolist() == held.semantic([]).tolist() == [0.0, 0.0]
    with pytest.raises(QueryError):
        held.semantic(["rain"], measure="cosine")  # type: ignore[arg-type]
    with pytest.raises(QueryError):
        Distinctions([["rain"]], lambda _term: -1.0)
