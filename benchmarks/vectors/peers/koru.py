"""KoruDelta itself, measured as its peers are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import koru_delta
from benchmarks.vectors.peers.base import Fields, K, Search, Setting, Store, Vectors, Where

NAMESPACE = "docs"
_BATCH = 10_000


class Subject(Store):
    name = "KoruDelta"
    module = "koru_delta"
    package = "koru-delta"
    returns = "matches: key, score; version and value read when asked for"
    built_as = "build_index(), its defaults"
    durable = "embed, durability full"

    def fill(self, vectors: Vectors, fields: Sequence[Fields] | None) -> None:
        self.reopen()
        for start in range(0, len(vectors), _BATCH):
            stop = min(start + _BATCH, len(vectors))
            self.db.embed_many(
                NAMESPACE,
                [(str(n), vectors[n], fields[n] if fields else None) for n in range(start, stop)],
                metric="cosine",
            )
        self.db.build_index()

    def settings(self) -> list[Setting]:
        return [
            Setting("recall=0.95 (default)", {}, default=True),
            *(Setting(f"recall={target}", {"recall": target}) for target in (0.9, 0.98, 0.99)),
            Setting("exact=True", {"exact": True}),
        ]

    def searcher(self, setting: Setting, where: Where | None = None) -> Search:
        options: dict[str, Any] = dict(setting.knobs)
        if where is not None:
            options["filter"] = {where.field: {"$gte": where.least}}
        similar = self.db.similar
        return lambda vector: similar(NAMESPACE, vector, k=K, **options)

    def ids(self, found: Any) -> list[int]:
        return [int(match.key) for match in found]

    def reader(self, search: Search) -> Search:
        return lambda vector: [(match.key, match.value) for match in search(vector)]

    def insert(self, number: int, vector: Vectors, fields: Fields) -> None:
        self.db.embed(NAMESPACE, str(number), vector, fields)

    def reopen(self) -> None:
        self.db = koru_delta.open(self.folder / "koru")

    def settle(self) -> None:
        self.db.build_index()

    def close(self) -> None:
        self.db.close()
