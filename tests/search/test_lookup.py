"""A lookup is a dict from numbers to numbers, whatever lies in arrays and what came since."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from koru_delta.search.lookup import Lookup

numbers = st.integers(0, 12)
steps = st.lists(st.tuples(st.sampled_from(["get", "pop", "put"]), numbers, numbers), max_size=30)


@given(st.dictionaries(st.integers(-3, 12), numbers), st.randoms(), steps)
def test_it_answers_as_a_dict_does(
    first: dict[int, int], chance: object, then: list[tuple[str, int, int]]
) -> None:
    items = list(first.items())
    chance.shuffle(items)  # type: ignore[attr-defined]
    keys, values = np.array(items, dtype=np.int64).reshape(-1, 2).T.copy()
    known, found = dict(first), Lookup(keys, values)
    for verb, key, value in then:
        if verb == "get":
            assert found.get(key) == known.get(key)
        elif verb == "pop":
            assert found.pop(key) == known.pop(key, None)
        else:
            known[key] = value
            found.put(key, value)
    assert {key: found.get(key) for key in range(-3, 13)} == {
        key: known.get(key) for key in range(-3, 13)
    }


def test_what_came_first_takes_no_dict() -> None:
    found = Lookup(np.arange(1000), np.arange(1000))
    found.put(7, 8)
    assert (found.fresh, found.nbytes) == (0, 16_000)
    found.put(1000, 8)
    assert found.fresh == 1
