"""Layers of a namespace: clusters of its vectors, clusters of those, with names.

Spherical k-means with a fixed seed over unit vectors sorted by key, so that the layers of
a past moment are those of a database that never went on. Labels are the terms that are
frequent in a cluster and rare in the rest.

Source: spherical k-means, Dhillon & Modha, Machine Learning 2001; the first centroids by
k-means++, Arthur & Vassilvitskii, SODA 2007.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import log
from threading import Lock
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from koru_delta.causal import Cut
from koru_delta.errors import QueryError
from koru_delta.log import CausalLog
from koru_delta.search.nearest import VectorSpace
from koru_delta.search.seen import Numbers
from koru_delta.search.synthesis.proximity import Scores, unit
from koru_delta.search.truth import Matrix
from koru_delta.values import Value, decode

SEED: Final = 0
MOST_LEVELS: Final = 8
MOST_BRANCHES: Final = 256
_ROUNDS: Final = 10
_ROUNDS_AFTER: Final = 2  # of all rows, where the others were of some
_SETTLED: Final = 256  # rows for each centroid, that are enough to find where it belongs
_SETTLED_LEAST: Final = 8192
_SAMPLED: Final = 64  # rows for each centroid, among which the first centroids are sought
_SAMPLED_LEAST: Final = 4096
_WIDEST: Final = 64  # clusters of one, unless asked for more
_ROWS_AT_ONCE: Final = 2048
_LABEL_TEXTS: Final = 4096  # texts read for labels, shared out over the smallest clusters
_SHOWN: Final = 100  # clusters, in the text for people
_KEPT: Final = 4
_KEPT_BYTES: Final = 256 * 1024 * 1024
_WORD = re.compile(r"[^\W\d_]\w+")


class Analyze(Protocol):
    """Turns a text into its terms."""

    def __call__(self, text: str, /) -> Iterable[str]:
        """The terms of a text, in order, repeated as they are."""
        ...


def words(text: str) -> list[str]:
    """Case-folded words of two characters or more that start with a letter.

    >>> words("Rain, and 2 more RAINS")
    ['rain', 'and', 'more', 'rains']
    """
    return _WORD.findall(text.casefold())


@dataclass(frozen=True, slots=True, eq=False)
class Cluster:
    """Keys whose vectors point the same way.

    `id` is a path of places, largest first: "0" is the largest cluster of the first level,
    "0.2" the third of those inside it. `centroid` is a unit vector; `representatives` are
    the keys nearest to it, `labels` terms, both best first; `cohesion` is the mean cosine
    of members and centroid.
    """

    id: str
    level: int  # the first is 1
    size: int
    cohesion: float
    centroid: Scores = field(repr=False)
    representatives: tuple[str, ...]
    labels: tuple[str, ...]
    children: tuple[str, ...]

    @property
    def parent(self) -> str | None:
        """The id of the cluster around it; None on the first level."""
        return self.id.rpartition(".")[0] or None

    def to_dict(self) -> dict[str, Any]:
        """Everything but the centroid, as JSON."""
        return {
            "id": self.id, "level": self.level, "size": self.size,
            "cohesion": round(self.cohesion, 6), "representatives": list(self.representatives),
            "labels": list(self.labels), "children": list(self.children),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Descent:
    """Where a descent came to: the clusters passed, coarsest first, and what the last holds.

    `children` are clusters inside the last one, none at the bottom; `keys` are all its keys,
    those nearest to the query (or to the centroid, where a cluster was named) first.
    """

    path: tuple[Cluster, ...]
    children: tuple[Cluster, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Layers:
    """Clusters of a namespace's vectors at a moment, by level; the first is the coarsest.

    Every key is in one cluster of each level, and a cluster lies inside one of the level
    before. Within a level, clusters come largest first inside their parent.
    """

    namespace: str
    model: str | None  # None: there were no vectors
    seq: int  # the position of the moment
    levels: tuple[tuple[Cluster, ...], ...]
    _by_id: dict[str, Cluster]
    _members: dict[str, Numbers]  # rows of each cluster
    _keys: list[str]
    _rows: Matrix  # unit vectors

    def __len__(self) -> int:
        return len(self.levels)

    def __repr__(self) -> str:
        counts = ", ".join(str(len(level)) for level in self.levels)
        return (
            f"<Layers of {self.namespace!r}: {self.size:,} keys in levels of [{counts}] clusters>"
        )

    def __str__(self) -> str:
        """A tree of the clusters: id, labels, how many keys, and the key nearest the middle."""
        keys = "1 key" if self.size == 1 else f"{self.size:,} keys"
        lines = [f"{self.namespace}: {keys}, {len(self)} level{'s' * (len(self) != 1)}"]
        waiting = [(each, 1) for each in reversed(self.levels[0])] if self.levels else []
        while waiting and len(lines) <= _SHOWN:
            cluster, depth = waiting.pop()
            such = f", such as {cluster.representatives[0]}" if cluster.representatives else ""
            labels = " ".join(cluster.labels) or "-"
            lines.append(f"{'  ' * depth}{cluster.id}  {labels}  ({cluster.size:,}{such})")
            waiting += [(self._by_id[id], depth + 1) for id in reversed(cluster.children)]
        if waiting:
            lines.append("  ...")
        return "\n".join(lines)

    @property
    def size(self) -> int:
        """How many keys there are."""
        return len(self._keys)

    def cluster(self, id: str) -> Cluster:
        """The cluster of that id.

        Raises:
            QueryError: there is none.
        """
        try:
            return self._by_id[id]
        except (KeyError, TypeError):
            raise QueryError(
                f"no cluster {id!r}; the first level has {len(self.levels[0]) if self else 0}, "
                'and ids are as "0" or "0.2"'
            ) from None

    def keys(self, id: str) -> tuple[str, ...]:
        """The keys of a cluster, in order."""
        self.cluster(id)
        return tuple(self._keys[row] for row in sorted(self._members[id].tolist()))

    def descend(self, query: npt.ArrayLike | None = None, *, cluster: str | None = None) -> Descent:
        """Go down to the cluster whose centroids are nearest to a query, or to a named one.

        Args:
            query: A vector (dimensions,). With `cluster`, the descent begins there.

        Raises:
            QueryError: neither is given, no such cluster, or the query is zero or has
                other dimensions.
        """
        if query is None and cluster is None:
            raise QueryError("descend by a query or into a cluster; neither was given")
        path: list[Cluster] = []
        if cluster is not None:
            here: Cluster | None = self.cluster(cluster)
            while here is not None:
                path.append(here)
                here = None if here.parent is None else self._by_id[here.parent]
            path.reverse()
        target = None if query is None else unit(query)
        if not self.levels:
            return Descent((), (), ())
        if target is None:
            target = path[-1].centroid
        else:
            if len(target) != self._rows.shape[1]:
                raise QueryError(
                    f"the query has {len(target)} numbers, the vectors {self._rows.shape[1]}"
                )
            below = [self._by_id[id] for id in path[-1].children] if path else self.levels[0]
            while below:
                scores = [float(each.centroid @ target) for each in below]
                path.append(below[int(np.argmax(scores))])
                below = [self._by_id[id] for id in path[-1].children]
        last = path[-1]
        members = self._members[last.id]
        near = np.add.reduce(self._rows[members].astype(np.float64) * target, axis=1).tolist()
        names = [self._keys[row] for row in members.tolist()]
        ordered = sorted(zip(near, names, strict=True), key=lambda pair: (-pair[0], pair[1]))
        return Descent(
            tuple(path),
            tuple(self._by_id[id] for id in last.children),
            tuple(name for _, name in ordered),
        )

    def to_dict(self) -> dict[str, Any]:
        """The clusters by level, as JSON."""
        return {
            "namespace": self.namespace, "model": self.model, "seq": self.seq,
            "size": self.size,
            "levels": [[each.to_dict() for each in level] for level in self.levels],
        }  # fmt: skip


class Shape(NamedTuple):
    """What layers to make."""

    levels: int
    branching: int | None
    labels: int
    representatives: int
    seed: int

    @classmethod
    def of(
        cls, levels: int, branching: int | None, labels: int, representatives: int, seed: int
    ) -> Shape:
        """Checked.

        Raises:
            QueryError: a number is out of its range.
        """
        for name, number, low, high in (
            ("levels", levels, 1, MOST_LEVELS),
            ("branching", 2 if branching is None else branching, 2, MOST_BRANCHES),
            ("labels", labels, 0, 1000),
            ("representatives", representatives, 0, 1000),
            ("seed", seed, 0, 2**63 - 1),
        ):
            if type(number) is not int or not low <= number <= high:
                raise QueryError(f"{name} is a whole number from {low} to {high}, not {number!r}")
        return cls(levels, branching, labels, representatives, seed)


class LayersOf:
    """Makes layers of vector spaces, and keeps the last few: what they are made of is a name."""

    def __init__(self, log: CausalLog, analyze: Analyze = words) -> None:
        self._log = log
        self._analyze = analyze
        self._begin()
        log.engine.after_fork.append(self._begin)

    def _begin(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[tuple[int, bytes, Shape], Layers] = OrderedDict()

    def forget(self) -> None:
        """Keep none."""
        with self._lock:
            self._kept.clear()

    def of(self, space: VectorSpace, cut: Cut, valid_at: int, shape: Shape) -> Layers:
        """The layers of what is visible at a cut and valid time."""
        keys, seqs, matrix = space.everything(cut, valid_at)
        # Versions never change, so their positions tell everything about them.
        named = (space.space.space_id, blake3(seqs.tobytes()).digest(), shape)
        with self._lock:
            known = self._kept.get(named)
            if known is not None:
                self._kept.move_to_end(named)
        if known is None:
            known = make_layers(
                keys, matrix, shape, lambda rows: self._texts(seqs[rows]), self._analyze,
                namespace=space.space.namespace, model=space.space.model, seq=cut.seq,
            )  # fmt: skip
            with self._lock:
                self._kept[named] = known
                while len(self._kept) > 1 and (
                    len(self._kept) > _KEPT
                    or sum(each._rows.nbytes for each in self._kept.values()) > _KEPT_BYTES
                ):
                    self._kept.popitem(last=False)
        if known.seq == cut.seq:
            return known
        return Layers(
            known.namespace, known.model, cut.seq, known.levels, known._by_id, known._members,
            known._keys, known._rows,
        )  # fmt: skip

    def _texts(self, seqs: Numbers) -> list[str]:
        bodies = self._log.engine.bodies(seqs.tolist())
        return [text_of(decode(body or b"null")) for body in bodies]


def no_layers(namespace: str, seq: int) -> Layers:
    """The layers of a namespace without vectors: none."""
    return Layers(namespace, None, seq, (), {}, {}, [], np.empty((0, 0), dtype=np.float32))


def text_of(value: Value) -> str:
    """The text of a value: itself, its field "text" or "content", else every string in it."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        for name in ("text", "content"):
            if isinstance(value.get(name), str):
                return str(value[name])
    found: list[str] = []
    waiting: list[Value] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, dict):
            waiting += [item[name] for name in sorted(item, reverse=True)]
        elif isinstance(item, list):
            waiting += item[::-1]
    return " ".join(found)


def make_layers(
    keys: Sequence[str],
    matrix: Matrix,
    shape: Shape,
    texts: Callable[[Numbers], Sequence[str]],
    analyze: Analyze = words,
    *,
    namespace: str = "",
    model: str | None = None,
    seq: int = 0,
) -> Layers:
    """Cluster the rows of a matrix, whose keys are given in ascending order.

    Args:
        texts: Gives the texts of some rows; asked once, if there are labels.
    """
    rows = units(matrix)
    count = len(rows)
    if not count:
        return no_layers(namespace, seq)
    branching = shape.branching
    if branching is None:
        branching = min(_WIDEST, max(2, round(count ** (1 / (shape.levels + 1)))))
    members: dict[str, Numbers] = {"": np.arange(count)}
    below: dict[str, list[str]] = {}
    by_level: list[list[str]] = []
    previous = [""]
    for level in range(1, shape.levels + 1):
        here: list[str] = []
        for parent in previous:
            inside = members[parent]
            groups = _groups(rows[inside], branching, shape.seed)
            below[parent] = []
            for place, group in enumerate(groups):
                id = f"{parent}.{place}" if level > 1 else str(place)
                members[id] = inside[group]
                below[parent].append(id)
                here.append(id)
        by_level.append(here)
        previous = here
    nearest: dict[str, Numbers] = {}
    facts: dict[str, tuple[Scores, float]] = {}
    for id in (id for level in by_level for id in level):
        inside = members[id]
        centroid = _centroid(rows[inside])
        near = np.add.reduce(rows[inside].astype(np.float64) * centroid, axis=1)
        # Rounded, so that the last bits of a sum decide nothing; then by key.
        nearest[id] = inside[np.lexsort((inside, -np.round(near, 9)))]
        facts[id] = centroid, float(np.mean(near))
    labels = _labels(by_level, members, nearest, shape.labels, texts, analyze)
    by_id = {
        id: Cluster(
            id, depth, len(members[id]), facts[id][1], facts[id][0],
            tuple(keys[row] for row in nearest[id][: shape.representatives].tolist()),
            labels.get(id, ()), tuple(below.get(id, ())),
        )
        for depth, level in enumerate(by_level, start=1)
        for id in level
    }  # fmt: skip
    levels = tuple(tuple(by_id[id] for id in level) for level in by_level)
    del members[""]
    return Layers(namespace, model, seq, levels, by_id, members, list(keys), rows)


def _groups(rows: Matrix, wanted: int, seed: int) -> list[Numbers]:
    """Rows by cluster, the largest first, then the one that holds the first row."""
    assigned, _ = spherical_kmeans(rows, wanted, seed=seed)
    order = np.argsort(assigned, kind="stable")
    ends = np.cumsum(np.bincount(assigned))
    groups = [group for group in np.split(order, ends[:-1]) if len(group)]
    return sorted(groups, key=lambda group: (-len(group), int(group[0])))


def _labels(
    levels: Sequence[Sequence[str]],
    members: dict[str, Numbers],
    nearest: dict[str, Numbers],
    wanted: int,
    texts: Callable[[Numbers], Sequence[str]],
    analyze: Analyze,
) -> dict[str, tuple[str, ...]]:
    """Terms by how much more of a cluster's texts than of all have them, times their idf."""
    if not wanted:
        return {}
    bottom = levels[-1]
    each = max(2, _LABEL_TEXTS // len(bottom))
    read = np.sort(np.concatenate([nearest[id][:each] for id in bottom]))
    found = [frozenset(analyze(text)) for text in texts(read)]
    terms_of = dict(zip(read.tolist(), found, strict=True))
    total: Counter[str] = Counter()
    for terms in found:
        total.update(terms)
    labels = {}
    for id in (id for level in levels for id in level):
        mine = [terms_of[row] for row in members[id].tolist() if row in terms_of]
        counts: Counter[str] = Counter()
        for terms in mine:
            counts.update(terms)
        scored = [
            (-(count / len(mine) - total[term] / len(found)) * log(1 + len(found) / total[term]),
             term)
            for term, count in counts.items()
            if count > 1 or len(mine) == 1
        ]  # fmt: skip
        scored.sort(key=lambda pair: (round(pair[0], 12), pair[1]))
        only = len(mine) == len(found)  # there is no rest to compare with
        labels[id] = tuple(term for score, term in scored if score < 0 or only)[:wanted]
    return labels


# Clustering


def units(matrix: Matrix) -> Matrix:
    """Rows of length 1, float32; a zero row stays zero."""
    rows = np.empty_like(matrix, dtype=np.float32)
    for start in range(0, len(matrix), _ROWS_AT_ONCE):
        some = matrix[start : start + _ROWS_AT_ONCE].astype(np.float64)
        lengths = np.sqrt(np.add.reduce(some * some, axis=1))
        lengths[lengths == 0] = 1.0
        rows[start : start + _ROWS_AT_ONCE] = some / lengths[:, None]
    return rows


def spherical_kmeans(
    rows: Matrix, wanted: int, *, seed: int = SEED, rounds: int = _ROUNDS
) -> tuple[Numbers, Matrix]:
    """Assign unit rows (n, dimensions) to at most `wanted` clusters by cosine.

    A cluster that loses all its rows begins again at the row that fits its own worst. Rows
    that are equal are never told apart, so there are at most as many clusters as there are
    distinct rows.

    Returns:
        The cluster of each row, shape (n,), and the centroids, shape (clusters, dimensions).
    """
    count = len(rows)
    few = max(_SETTLED_LEAST, _SETTLED * wanted)
    numbers = np.random.default_rng(seed)
    # Evenly spaced by position, which says nothing about direction.
    some = rows if count <= few else rows[np.linspace(0, count - 1, few).astype(np.int64)]
    centroids = _first_centroids(some, min(wanted, count), numbers)
    centroids, assigned = _settle(some, centroids, rounds)
    if some is not rows:
        centroids, assigned = _settle(rows, centroids, _ROUNDS_AFTER)
    used, renumbered = np.unique(assigned, return_inverse=True)
    return renumbered.astype(np.int64), centroids[used]


def _settle(rows: Matrix, centroids: Matrix, rounds: int) -> tuple[Matrix, Numbers]:
    """Assign and move centroids by turns, until hardly a row changes its cluster."""
    assigned = np.full(len(rows), -1, dtype=np.int64)
    for _ in range(rounds):
        nearest, near = _assign(rows, centroids)
        nearest = _refill(nearest, near, len(centroids))
        changed = int(np.count_nonzero(nearest != assigned))
        assigned = nearest
        centroids = _centroids(rows, assigned, centroids)
        if changed <= len(rows) // 1000:
            break
    return centroids, assigned


def _first_centroids(rows: Matrix, wanted: int, numbers: np.random.Generator) -> Matrix:
    """Rows far from each other, among a sample: greedy k-means++ with distance `1 - cosine`.

    Each time a few rows are drawn, the farther the likelier, and that one is taken which
    leaves all rows nearest to what has been taken.
    """
    sample = max(_SAMPLED_LEAST, _SAMPLED * wanted)
    if len(rows) > sample:
        rows = rows[np.linspace(0, len(rows) - 1, sample).astype(np.int64)]
    chosen = [int(numbers.integers(len(rows)))]
    far = _distances(rows, rows[chosen])[:, 0]
    drawn = 2 + int(log(wanted))
    while len(chosen) < wanted:
        heap = np.cumsum(far)
        if heap[-1] <= 0:  # all others equal one of those chosen
            break
        places = np.searchsorted(heap, numbers.random(drawn) * heap[-1], side="right")
        places = np.minimum(places, len(rows) - 1)
        left = np.minimum(far[:, None], _distances(rows, rows[places]))
        best = int(np.argmin(np.add.reduce(left, axis=0)))
        chosen.append(int(places[best]))
        far = left[:, best]
    return rows[chosen]


def _distances(rows: Matrix, some: Matrix) -> Scores:
    """`1 - cosine` of each row with each of some, shape (rows, some)."""
    # Rounded, so that equal directions are at no distance and last bits decide nothing.
    near: Scores = np.round(1.0 - np.vecdot(rows[:, None, :], some).astype(np.float64), 5)
    return np.maximum(near, 0.0)


def _assign(rows: Matrix, centroids: Matrix) -> tuple[Numbers, Matrix]:
    """For each row the nearest centroid, the first of equals, and the cosine."""
    nearest = np.empty(len(rows), dtype=np.int64)
    near = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        # No BLAS product: this one gives the same whatever stands beside a row, and keeps to
        # its own core, where small products of many threads mostly wait for each other.
        scores = np.vecdot(rows[start : start + _ROWS_AT_ONCE, None, :], centroids)
        best = scores.argmax(axis=1)
        nearest[start : start + _ROWS_AT_ONCE] = best
        near[start : start + _ROWS_AT_ONCE] = scores[np.arange(len(best)), best]
    return nearest, near


def _refill(nearest: Numbers, near: Matrix, clusters: int) -> Numbers:
    """Give each empty cluster the row that fits its own worst, if that is not lonely."""
    sizes = np.bincount(nearest, minlength=clusters)
    empty = np.flatnonzero(sizes == 0)
    if not len(empty):
        return nearest
    nearest = nearest.copy()
    worst = iter(np.argsort(near, kind="stable").tolist())
    for cluster in empty.tolist():
        for row in worst:
            if near[row] > 1 - 1e-5:
                return nearest  # all that are left are their own centroids
            if sizes[nearest[row]] > 1:
                sizes[nearest[row]] -= 1
                nearest[row] = cluster
                sizes[cluster] = 1
                break
    return nearest


def _centroids(rows: Matrix, assigned: Numbers, before: Matrix) -> Matrix:
    """The directions of the sums of each cluster's rows; of an empty one, as before."""
    sums = np.zeros(before.shape, dtype=np.float64)
    order = np.argsort(assigned, kind="stable")
    ends = np.cumsum(np.bincount(assigned, minlength=len(before)))
    for cluster, mine in enumerate(np.split(order, ends[:-1])):
        np.add.reduce(rows[mine], axis=0, dtype=np.float64, out=sums[cluster])
    lengths = np.sqrt(np.add.reduce(sums * sums, axis=1))
    found = before.copy()
    known = lengths > 1e-9
    found[known] = sums[known] / lengths[known, None]
    return found


def _centroid(rows: Matrix) -> Scores:
    """The direction of the sum of rows; the first row's if they cancel each other."""
    total = np.add.reduce(rows, axis=0, dtype=np.float64)
    length = float(np.sqrt(total @ total))
    if length < 1e-9:
        total, length = rows[0].astype(np.float64), 1.0
    found: Scores = total / length
    return found
