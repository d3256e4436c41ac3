"""LanceDB: a table on disk, an index made once it is filled, rows out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lancedb
import pyarrow as pa
from lancedb.index import BTree, IvfPq, IvfSq

from benchmarks.vectors.peers.base import Fields, K, Search, Setting, Store, Vectors, Where

_INDEXED_FROM = 1000  # product quantization learns from 256 rows at least


class Subject(Store):
    name = "LanceDB"
    module = "lancedb"
    package = "lancedb"
    returns = "rows as dicts: id, fields, distance"
    built_as = "IVF_PQ, its default index, then IVF_SQ; B-trees on the fields"
    durable = "add (a new table version)"

    def fill(self, vectors: Vectors, fields: Sequence[Fields] | None) -> None:
        self.names = list(fields[0]) if fields else []
        self.table = self._connect().create_table("docs", self._rows(0, vectors, fields))
        for name, value in (fields[0] if fields else {}).items():
            if isinstance(value, int):
                self.table.create_index(name, config=BTree())
        self.indexed_as = ""
        if len(vectors) >= _INDEXED_FROM:
            # Of its indexes IVF_SQ was quickest at the recall wanted, and in the making.
            self._index("IVF_SQ" if "text" in self.names else "IVF_PQ")

    def settings(self) -> list[Setting]:
        default = Setting("IVF_PQ, no knob turned (default)", {"index": "IVF_PQ"}, default=True)
        found = [
            Setting(f"IVF_PQ refine_factor={n}", {"index": "IVF_PQ", "refine_factor": n})
            for n in (5, 10)
        ]
        found += [
            Setting(f"IVF_SQ nprobes={n}", {"index": "IVF_SQ", "nprobes": n}) for n in (5, 10, 30)
        ]
        found.append(
            Setting(
                "IVF_SQ nprobes=100 refine_factor=3",
                {"index": "IVF_SQ", "nprobes": 100, "refine_factor": 3},
            )
        )
        return [default, *found]

    def searcher(self, setting: Setting, where: Where | None = None) -> Search:
        knobs = dict(setting.knobs)
        kind = knobs.pop("index")
        if self.indexed_as and kind != self.indexed_as:
            self._index(kind)
        columns = ["id", *self.names, "_distance"]
        narrowed = None if where is None else f"{where.field} >= {where.least}"

        def search(vector: Vectors) -> Any:
            query = self.table.search(vector).distance_type("cosine").select(columns).limit(K)
            for knob, value in knobs.items():
                query = getattr(query, knob)(value)
            if narrowed is not None:
                query = query.where(narrowed, prefilter=True)
            return query.to_list()

        return search

    def ids(self, found: Any) -> list[int]:
        return [int(row["id"]) for row in found]

    def insert(self, number: int, vector: Vectors, fields: Fields) -> None:
        self.table.add(self._rows(number, vector[None], [fields]))

    def reopen(self) -> None:
        self.table = self._connect().open_table("docs")
        self.names = [name for name in self.table.schema.names if name not in ("id", "vector")]
        self.indexed_as = "IVF_SQ"

    def _index(self, kind: str) -> None:
        config = (IvfPq if kind == "IVF_PQ" else IvfSq)(distance_type="cosine")
        self.table.create_index("vector", config=config, replace=True)
        self.indexed_as = kind

    def _connect(self) -> Any:
        return lancedb.connect(str(self.folder / "lance"))

    def _rows(self, first: int, vectors: Vectors, fields: Sequence[Fields] | None) -> pa.Table:
        flat = pa.array(vectors.reshape(-1), pa.float32())
        columns: dict[str, Any] = {
            "id": pa.array(range(first, first + len(vectors)), pa.int64()),
            "vector": pa.FixedSizeListArray.from_arrays(flat, self.dimensions),
        }
        for name in self.names:
            columns[name] = pa.array([each[name] for each in fields or ()])
        return pa.table(columns)
