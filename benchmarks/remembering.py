"""An agent's memory: recalls over many memories, by words and meaning, and what they cost.

No question is asked twice. The peer is the plain search a recall is made of, on the same
memories; what a recall adds is relevance, spans of facts and outcomes of procedures.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from random import Random

import koru_delta
from benchmarks.measure import Row, Side, at_most, by_turns, sized
from koru_delta.testing import HashEmbedder

MEMORIES, DIMENSIONS = 100_000, 384
_VOCABULARY = 20_000
_AT_ONCE = 2_000


def run(folder: Path, scale: float) -> Iterator[Row]:
    stored, rounds = sized(MEMORIES, scale, 100), sized(60, scale, 3)
    chance = Random(1)
    words = [f"word{number}" for number in range(_VOCABULARY)]
    often = list(accumulate(1 / (number + 1) for number in range(_VOCABULARY)))

    def text(length: int) -> str:
        return " ".join(chance.choices(words, cum_weights=often, k=length))

    embedder = HashEmbedder(DIMENSIONS)
    with koru_delta.open(folder / "memories", durability="relaxed", embedder=embedder) as db:
        memory = db.workspace("agent").ai_context()
        plain = db.workspace("plain")
        for start in range(0, stored, _AT_ONCE):
            episodes = [
                {"text": text(15), "session": f"s{n % 1000}", "tags": [f"t{n % 50}"]}
                for n in range(start, min(start + _AT_ONCE, stored))
            ]
            memory.remember_episodes(episodes)
        for number in range(sized(300, scale, 3)):
            memory.remember_fact(f"fact {number}", text(3))
        db.build_index("agent/memory")
        asked = [text(8) for _ in range(8 * (rounds + 3))]
        sides: tuple[Side, ...] = (
            lambda n: memory.recall(asked[8 * n]),
            lambda n: db.search("agent/memory", asked[8 * n + 1], syntax=False).load(),
            lambda n: memory.recall(asked[8 * n + 2], session="s3", tags="t3"),
            lambda n: memory.recall(asked[8 * n + 3], types="fact"),
            lambda n: memory.context(asked[8 * n + 4], 500),
            lambda n: memory.remember_episode(asked[8 * n + 5]),
            lambda n: plain.add("notes", asked[8 * n + 6]),
        )
        for side in sides:
            side(-1)  # reads what is kept in files
        recall, search, session, facts, context, remember, add = (
            each / 1e6 for each in by_turns(sides, rounds, warm_up=2)
        )
    yield Row(
        f"recall, k=10, hybrid, {stored:,} memories", recall, "ms", search, "search alone",
        (at_most(10),),
    )  # fmt: skip
    yield Row("  of one session and tag", session, "ms", recall, "of all")
    yield Row("  of the facts among them", facts, "ms", recall, "of all")
    yield Row("context of 500 tokens, k=20", context, "ms", recall, "recall")
    yield Row("remember an episode", remember, "ms", add, "add to a workspace")
