"""What is equal comes in the order of keys, however much there is and whenever it came."""

from __future__ import annotations

import random

import koru_delta


def test_pages_are_in_key_order_while_keys_come_change_and_go() -> None:
    rng = random.Random(1)
    keys = [f"{n:04d}-\U0001f511é"[n % 2 :] for n in range(3_000)]
    rng.shuffle(keys)
    held: dict[str, int] = {}
    with koru_delta.open() as db:
        at = 0
        for step, size in enumerate((2_000, 5, 300, 695)):
            some = keys[at : at + size]
            at += size
            changed = rng.sample(sorted(held), min(len(held), 50))
            gone = rng.sample(sorted(held.keys() - set(changed)), min(len(held), 20))
            db.put_many([("ns", key, {"n": step, "odd": len(key) % 2}) for key in some + changed])
            held |= dict.fromkeys(some + changed, step)
            if gone:
                db.delete_many("ns", gone)
            for key in gone:
                del held[key]
            for _ in range(3):  # columns, and the order of keys, are kept once that pays
                for wanted in ({"n": {"$gte": 0}}, {"n": {"$gte": step}}, {"n": 0}):
                    found = [row.key for row in db.query("ns", wanted)]
                    least = wanted["n"]["$gte"] if isinstance(wanted["n"], dict) else None
                    expected = sorted(
                        key for key, n in held.items()
                        if (n == 0 if least is None else n >= least)
                    )  # fmt: skip
                    assert found == expected
                    for limit, offset in ((0, 0), (1, 0), (10, 0), (10, 7), (3_000, 5)):
                        page = db.query("ns", wanted, limit=limit, offset=offset)
                        assert [row.key for row in page] == expected[offset : offset + limit]
                    by_number = db.query("ns", wanted, sort="-n", limit=40)
                    assert [row.key for row in by_number] == sorted(
                        expected, key=lambda key: (-held[key], key)
                    )[:40]


def test_texts_that_answer_equally_well_are_in_key_order_however_few_are_asked_for() -> None:
    rng = random.Random(2)
    keys = [f"{n:04d}-\U0001f511é"[n % 2 :] for n in range(3_000)]
    rng.shuffle(keys)
    held: dict[str, str] = {}
    moments = []
    with koru_delta.open() as db:
        at = 0
        for size in (1_500, 5, 400, 1_095):
            some = keys[at : at + size] + rng.sample(sorted(held), min(len(held), 50))
            at += size
            texts = {key: rng.choice(["every day", "day every", "every every"]) for key in some}
            last = db.put_many([("ns", key, {"text": text}) for key, text in texts.items()])[-1]
            held |= texts
            gone = rng.sample(sorted(held), 20)
            last = db.delete_many("ns", gone)[-1]
            for key in gone:
                del held[key]
            moments.append((last, dict(held)))
            for then, was in moments:
                for _ in range(2):  # the order of keys is kept once that pays
                    best = sorted(was, key=lambda key: (was[key] != "every every", key))
                    twice = sum(text == "every every" for text in was.values())
                    for k in (1, 10, twice - 1, twice, twice + 7, len(was), 4_000):
                        found = db.search("ns", "every", k=k, mode="text", as_of=then)
                        assert [hit.key for hit in found] == best[:k]
                        assert (found.cursor is None) == (k >= len(was))
