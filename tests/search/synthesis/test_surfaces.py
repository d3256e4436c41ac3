"""The verbs of synthesis answer alike on the database, on a view of it, and awaited."""

from __future__ import annotations

import numpy as np
import pytest

import koru_delta
from koru_delta import Add, AsyncDatabase, Subtract
from koru_delta.testing import FixedClock, HashEmbedder

CALLS = {
    "related": (("d", "k03"), {"types": ["proximity", "causation", "sequence"], "k": 3}),
    "layers": (("d",), {"levels": 2, "branching": 3, "labels": 2, "representatives": 1}),
    "descend": (("d", "word3 common"), {"branching": 3, "cluster": "0"}),
    "navigate": (("d", "k01", [Add("k02"), Subtract("k05", weight=0.5)]),
                 {"k": 4, "filter": {"n": {"$gt": 2}}, "exact": True}),
}  # fmt: skip


def plain(answer: object) -> object:
    """What of an answer can be compared."""
    if isinstance(answer, koru_delta.Layers):
        return answer.to_dict()
    if isinstance(answer, koru_delta.Descent):
        return [each.to_dict() for each in (*answer.path, *answer.children)], answer.keys
    return answer


@pytest.mark.parametrize("name", CALLS)
async def test_every_surface_gives_the_same_answer(name):
    arguments, options = CALLS[name]
    numbers = np.random.default_rng(7)
    async with await AsyncDatabase.open(clock=FixedClock(), embedder=HashEmbedder(8)) as adb:
        db = adb.database
        for n in range(20):
            vector = numbers.standard_normal(8)
            value = {"n": n, "text": f"word{n % 4} common"}
            cause = [db.version("d", f"k{n - 1:02}")] if n % 3 == 0 and n else []
            db.embed("d", f"k{n:02}", vector, value, model="hash-words-8", causes=cause, run="r")
        then = db.as_of(None).seq
        answer = plain(getattr(db, name)(*arguments, **options))
        assert answer
        assert plain(await getattr(adb, name)(*arguments, **options)) == answer
        for n in range(9):
            db.embed("d", f"k{n:02}", numbers.standard_normal(8), model="hash-words-8")

        assert plain(getattr(db, name)(*arguments, as_of=then, **options)) == answer
        assert plain(getattr(db.as_of(then), name)(*arguments, **options)) == answer
        view = await adb.as_of(then)
        assert plain(await getattr(view, name)(*arguments, **options)) == answer
        assert plain(await getattr(adb, name)(*arguments, as_of=then, **options)) == answer
