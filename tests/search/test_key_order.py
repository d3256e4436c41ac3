"""Pages of `query` come in the order of keys, however many there are and whenever they came."""

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
