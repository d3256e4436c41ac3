"""Synthesis: how versions are related, what layers they form, where steps lead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from koru_delta.causal import When
from koru_delta.database.arguments import check_namespace, check_search
from koru_delta.database.history import HistoryVerbs
from koru_delta.database.keys import KeyVerbs
from koru_delta.database.search import SearchVerbs
from koru_delta.errors import NoVectorError
from koru_delta.log.moments import AsOf
from koru_delta.search.answers import Matches
from koru_delta.search.filters import Filter, compiled
from koru_delta.search.scoring import Target
from koru_delta.search.synthesis.layers import Descent, Layers, Shape, no_layers
from koru_delta.search.synthesis.navigation import Operand, Step, Words, operands, walk
from koru_delta.search.synthesis.relations import Relation, related
from koru_delta.values import Vector, VectorLike, as_vector, check_key


class SynthesisVerbs(KeyVerbs, HistoryVerbs, SearchVerbs):
    """What versions make together."""

    def related(
        self,
        namespace: str,
        key: str,
        *,
        types: Iterable[str] | None = None,
        k: int = 10,
        as_of: AsOf = None,
        valid_at: When | None = None,
        model: str | None = None,
    ) -> list[Relation]:
        """What a key's version is related to, and by what evidence.

        Args:
            types: Out of `proximity composition abstraction instantiation sequence
                causation`; None is all. Their criteria are told in
                `koru_delta.search.synthesis.relations`.
            k: At most this many of each type.
            model: Whose vectors proximity goes by, where the key has several.

        Returns:
            Type by type, the strongest first, then by keys. The version is the `source` or
            the `target`; `relation.verify(db, as_of)` checks the criterion again.

        Raises:
            KeyNotFoundError: the key is absent at that moment.
            QueryError: an unknown type, or several models and none named.
        """
        check_key(namespace, key)
        k = check_search(k, None, 1.0)
        cut, _ = self._moment(namespace, as_of, valid_at)
        return related(self, namespace, key, cut, valid_at, types=types, k=k, model=model)

    def layers(
        self,
        namespace: str,
        *,
        levels: int = 2,
        branching: int | None = None,
        labels: int = 5,
        representatives: int = 3,
        seed: int = 0,
        as_of: AsOf = None,
        valid_at: When | None = None,
        model: str | None = None,
    ) -> Layers:
        """Clusters of a namespace's vectors, clusters of those, with keys and terms that tell.

        By spherical k-means; the same for the same vectors, however they came to be there.

        Args:
            levels: How deep, 1 to 8.
            branching: Clusters inside one, at most, 2 to 256; by default what makes the
                smallest clusters as large as there are branches, up to 64.
            labels: Terms for each cluster.
            representatives: Keys for each, those nearest to its centroid.

        Raises:
            QueryError: a number out of its range.
            ModelMismatchError: several models and none named.
        """
        check_namespace(namespace)
        shape = Shape.of(levels, branching, labels, representatives, seed)
        cut, at = self._moment(namespace, as_of, valid_at)
        space = self._space(namespace, model, cut, at, text=False)
        if space is None:
            return no_layers(namespace, cut.seq)
        return self._layers.of(space, cut, at, shape)

    def descend(
        self,
        namespace: str,
        query: VectorLike | str | None = None,
        *,
        cluster: str | None = None,
        levels: int = 2,
        branching: int | None = None,
        seed: int = 0,
        as_of: AsOf = None,
        valid_at: When | None = None,
        model: str | None = None,
    ) -> Descent:
        """Go from layer to layer to the keys most like a query, or into a named cluster.

        Args:
            query: A vector, or text for the database's embedder.
            cluster: Id of a cluster of `layers` with the same arguments: where the descent
                begins; without a query, where it ends.

        Raises:
            QueryError: neither query nor cluster, no such cluster; and those of `layers`.
        """
        target = None if query is None else self._query_vector(query)
        layers = self.layers(
            namespace, levels=levels, branching=branching, seed=seed, as_of=as_of,
            valid_at=valid_at, model=model,
        )  # fmt: skip
        return layers.descend(target, cluster=cluster)

    def navigate(
        self,
        namespace: str,
        start: Operand,
        steps: Sequence[Step],
        *,
        k: int = 10,
        filter: Filter | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
        model: str | None = None,
        threshold: float | None = None,
        exact: bool = False,
        recall: float = 0.95,
    ) -> Matches:
        """Find the keys where steps from a start lead to, other than those named on the way.

        Each step ends on a unit vector: `Add` and `Subtract` move by a unit vector, `Toward`
        turns by a share of the angle.

        Args:
            start: A key, a vector, or `Words` for the database's embedder; as the operands
                of the steps. What keys held at that moment counts.

        Returns:
            As `similar`; the keys that start and steps name are never among the hits.

        Raises:
            KeyNotFoundError: a key is absent at that moment; NoVectorError: has no vector.
            QueryError: a step leads to zero or is none; and those of `similar`.
        """
        check_namespace(namespace)
        k = check_search(k, threshold, recall)
        where = None if filter is None else compiled(filter)
        cut, at = self._moment(namespace, as_of, valid_at)
        used = operands(start, steps)
        texts = any(isinstance(operand, Words) for operand in used)
        space = self._space(namespace, model, cut, at, text=texts)

        def vector_of(operand: Operand) -> Vector:
            if isinstance(operand, Words):
                return self._query_vector(operand.text)
            if not isinstance(operand, str):
                return as_vector(operand)
            check_key(namespace, operand)
            version = self._log.version_at(namespace, operand, cut, at)
            held = self.vectors(version)
            if space is None or space.space.model not in held:
                raise NoVectorError(namespace, operand, model)
            return held[space.space.model]

        target = Target.of(as_vector(walk(vector_of(start), steps, vector_of)))
        if space is None:
            return Matches()
        named = {operand for operand in used if isinstance(operand, str)}
        found = space.search(
            target, k + len(named), cut, at, where=where, threshold=threshold,
            recall=1.0 if exact else recall,
        )  # fmt: skip
        # A key is there at most once, so that many more hits than wanted are enough.
        hits = [hit for hit in found.hits if hit[1] not in named][:k]
        return self._answers.of(found._replace(hits=hits))
