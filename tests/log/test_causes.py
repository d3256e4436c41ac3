"""A walk over causes gives each version once, at its shortest distance."""

from __future__ import annotations

import koru_delta
from koru_delta import Version
from koru_delta.log.causes import Walk


def test_rings_are_as_far_away_as_the_shortest_way_is_long(db: koru_delta.Database) -> None:
    def put(*causes: Version) -> Version:
        return db.put("n", "k", 1, causes=[("derived_from", cause) for cause in causes])

    a = put()
    b, c = put(a), put()
    d = put(b, a)
    e = put(d, c, d)
    walk = Walk(db._log.engine, e.seq)

    def rings(*starts: Version, to: str, hops: int | None = None) -> list[list[int]]:
        assert to in ("up", "down", "both")
        return list(walk.rings([start.seq for start in starts], to, hops))  # type: ignore[arg-type]

    assert rings(a, to="down") == [[b.seq, d.seq], [e.seq]]
    assert rings(e, to="up") == [[c.seq, d.seq], [a.seq, b.seq]]
    assert rings(c, to="both") == [[e.seq], [d.seq], [a.seq, b.seq]]
    assert rings(a, to="down", hops=1) == [[b.seq, d.seq]]
    assert rings(a, to="down", hops=0) == rings(e, to="down") == rings(to="up") == []
    # A start that another leads to is there once, however many ways lead to it.
    assert rings(a, b, d, to="down") == [[b.seq, d.seq, e.seq]]
    assert rings(a, d, to="down") == [[b.seq, d.seq, e.seq]]
    # What was not known at a position is not there.
    assert list(Walk(db._log.engine, d.seq).rings([a.seq], "down")) == [[b.seq, d.seq]]


def test_a_way_is_the_one_that_was_named_first_among_the_shortest(
    db: koru_delta.Database,
) -> None:
    top = db.put("n", "top", 1)
    left, right = (db.put("n", side, 1, causes=[top]) for side in ("left", "right"))
    for causes in ([left, right], [right, left]):
        end = db.put("n", "end", 1, causes=causes)
        assert db.path(end, top) == [end, causes[0], top]
