"""What a query says must be there, or must not, holds for every leg of a hybrid search."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

import koru_delta
from koru_delta import CausalFilter, Database
from koru_delta.testing import FixedClock, HashEmbedder

TEXTS = {
    "java": "java is an island in Indonesia",
    "coffee": "java coffee is strong",
    "py": "python is a snake",
}


@pytest.fixture
def db() -> Iterator[Database]:
    with koru_delta.open(embedder=HashEmbedder(), clock=FixedClock()) as database:
        for key, text in TEXTS.items():
            database.embed("n", key, text, {"text": text}, author=key)
        yield database


@pytest.mark.parametrize(
    ("query", "keys"),
    [
        ("java -coffee", {"java", "py"}),
        ("+island", {"java"}),
        ('+"java coffee"', {"coffee"}),
        ('java -"java coffee"', {"java", "py"}),
        ("java +py*", {"py"}),
        ("+nowhere java", set()),
        ("java -nowhere", {"java", "coffee", "py"}),
        ("-java", set()),
    ],
)
@pytest.mark.parametrize("weights", [None, {"text": 0}])
def test_musts_and_exclusions_bind_both_legs(
    db: Database, query: str, keys: set[str], weights: dict[str, float] | None
) -> None:
    found = db.search("n", query, weights=weights)

    assert {hit.key for hit in found} == keys
    assert all(hit.explanation.problems(db) == [] for hit in found if hit.explanation)


def test_the_vector_is_made_of_what_is_said_not_of_what_is_excluded(db: Database) -> None:
    said = db.search("n", "java -coffee", weights={"text": 0})
    plain = db.similar("n", "java")

    assert {hit.key: hit.score for hit in said} == {
        hit.key: hit.score for hit in plain if hit.key != "coffee"
    }


def test_with_syntax_off_a_dash_is_a_dash(db: Database) -> None:
    assert len(db.search("n", "java -coffee", syntax=False)) == 3


def test_filters_moments_and_causes_hold_beside_it(db: Database) -> None:
    then = db.history("n", "py")[0]
    db.embed("n", "coffee", "tea is no coffee", {"text": "tea is no coffee"}, author="x")
    db.embed("n", "java", "java is a language", {"text": "java is a language"}, author="x")

    for query, author in product(("java -coffee", "+java"), ("java", "x", "coffee")):
        causal = CausalFilter(author=author)
        now = {hit.key for hit in db.search("n", query, causal=causal)}
        past = {hit.key for hit in db.search("n", query, causal=causal, as_of=then)}

        assert now == ({"java"} if author == "x" else set())
        wanted = {"java"} if author == "java" else set()
        if query == "+java" and author == "coffee":
            wanted = {"coffee"}
        assert past == wanted


def test_pages_of_a_bounded_search_are_its_hits(db: Database) -> None:
    for n in range(30):
        db.embed("n", f"more{n:02}", f"java number {n}", {"text": f"java number {n}"})
    every = [hit.key for hit in db.search("n", "java -coffee", k=50, exact=True)]
    pages: list[str] = []
    cursor = None
    while True:
        page = db.search("n", "java -coffee", k=7, exact=True, cursor=cursor)
        pages += [hit.key for hit in page]
        cursor = page.cursor
        if cursor is None:
            break

    assert pages == every
    assert "coffee" not in pages
