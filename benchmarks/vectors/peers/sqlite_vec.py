"""sqlite-vec: a virtual table in SQLite; it looks at every vector, so it has no knob."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw
import sqlite_vec

from benchmarks.vectors.peers.base import Fields, K, Search, Setting, Store, Vectors, Where


class Subject(Store):
    name = "sqlite-vec"
    module = "sqlite_vec"
    package = "sqlite-vec"
    returns = "rows: id, distance, fields"
    built_as = "a vec0 table, exact; fields are metadata columns, the text an auxiliary one"
    durable = "insert, synchronous=FULL, WAL"

    def fill(self, vectors: Vectors, fields: Sequence[Fields] | None) -> None:
        self._connect()
        sample = fields[0] if fields else {}
        columns = [
            f"+{name} text" if isinstance(value, str) else f"{name} integer"
            for name, value in sample.items()
        ]
        head = f"id integer primary key, vector float[{self.dimensions}] distance_metric=cosine"
        self.connection.execute(
            f"create virtual table docs using vec0({', '.join([head, *columns])})"
        )
        self.names = list(sample)
        with self.connection:
            self.connection.executemany(self._insertion(), self._rows(0, vectors, fields))

    def settings(self) -> list[Setting]:
        return [Setting("exact (default)", {}, default=True)]

    def searcher(self, setting: Setting, where: Where | None = None) -> Search:
        del setting
        narrowed = "" if where is None else f" and {where.field} >= {int(where.least)}"
        columns = ", ".join(["id", "distance", *self.names])
        statement = f"select {columns} from docs where vector match ? and k = {K}{narrowed}"
        execute = self.connection.execute
        return lambda vector: list(execute(statement, (vector.tobytes(),)))

    def ids(self, found: Any) -> list[int]:
        return [int(row[0]) for row in found]

    def insert(self, number: int, vector: Vectors, fields: Fields) -> None:
        for row in self._rows(number, vector[None], [fields]):
            self.connection.execute(self._insertion(), row)

    def reopen(self) -> None:
        self._connect()
        described = list(self.connection.execute("select name from pragma_table_info('docs')"))
        hidden = ("id", "vector", "distance", "k")
        self.names = [name for (name,) in described if name not in hidden]

    def close(self) -> None:
        self.connection.close()

    def _connect(self) -> None:
        self.connection = apsw.Connection(str(self.folder / "sqlite-vec.db"))
        self.connection.enable_load_extension(True)
        self.connection.load_extension(sqlite_vec.loadable_path())
        self.connection.execute("pragma journal_mode=wal; pragma synchronous=full")

    def _insertion(self) -> str:
        names = ["id", "vector", *self.names]
        return f"insert into docs({', '.join(names)}) values ({', '.join('?' * len(names))})"

    def _rows(self, first: int, vectors: Vectors, fields: Sequence[Fields] | None) -> Any:
        for n, vector in enumerate(vectors):
            values = [fields[n][name] for name in self.names] if fields else []
            yield (first + n, vector.tobytes(), *values)
