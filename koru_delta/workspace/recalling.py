"""What an agent remembers, as far as it is read: recalls, lists, and facts in time."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Any, Final

from koru_delta.causal import FOREVER, Version, When, microseconds, moment
from koru_delta.errors import KeyNotFoundError, QueryError, UnknownMemoryError
from koru_delta.log.moments import AsOf
from koru_delta.search.answers import Match
from koru_delta.search.filters import Filter
from koru_delta.values import Vector, as_vector
from koru_delta.workspace.patterns import Span
from koru_delta.workspace.recall import Relevance, checked_count, checked_share, chosen_by
from koru_delta.workspace.recollection import (
    Context,
    Contradiction,
    Memory,
    check_word,
    context_of,
    is_memory,
    memory_of,
    within,
)
from koru_delta.workspace.shelf import MEMORY, Shelf, says
from koru_delta.workspace.workspace import Workspace

_WIDER: Final = (1, 4, 16)  # times k that are looked at, for as many that are relevant enough


class MemoryReads:
    """An agent's memory, as far as it is read."""

    def __init__(self, workspace: Workspace) -> None:
        """Made by `Workspace.ai_context`."""
        self._workspace = workspace
        self._shelf = Shelf(workspace)
        self._db = self._shelf.db
        self._whole = self._shelf.whole

    @property
    def workspace(self) -> Workspace:
        """Where it is kept."""
        return self._workspace

    def __repr__(self) -> str:
        return f"<AgentMemory in {self._workspace!r}>"

    # Recalling

    def recall(
        self,
        query: str,
        k: int = 10,
        *,
        types: str | Iterable[str] | None = None,
        tags: str | Iterable[str] | None = None,
        session: str | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
        min_relevance: float = 0.0,
        budget_tokens: int | None = None,
        explain: bool = False,
    ) -> list[Memory]:
        """Find what is remembered about something, the most relevant first.

        By words, and by meaning where there is an embedder. What matches in neither way is
        never returned; what is forgotten is not. `types`, `tags` and `session` choose before
        the best are taken, so that there are `k` memories if as many match.

        Args:
            query: A question, a message or words, taken as they are, however long: of more than
                512 words, those at the beginning and at the end are looked for.
            types: "episode", "fact", "procedure", or several of them.
            tags: One, or several that it has all of.
            session: Only what belongs to it.
            as_of: As it was remembered then.
            valid_at: What was true, or had happened, then.
            min_relevance: Leave out what is less relevant than that, in [0, 1]. Among the
                best `16 k`.
            budget_tokens: Pass over memories whose texts would be more than that together: what
                matters less may still fit.
            explain: Make each `explanation` at once, and not when it is asked for.

        Raises:
            QueryError: an argument that makes no sense; and those of `Database.search`.
        """
        found = self._recalled(
            query, k, chosen_by(types, tags, session), as_of, valid_at, min_relevance, explain
        )
        if budget_tokens is not None:
            found = within(found, checked_count("budget_tokens", budget_tokens))
        if as_of is None:
            self._db.used([(self._whole, memory.id) for memory in found], kind="recall")
        return found

    def context(
        self,
        query: str,
        budget_tokens: int = 1000,
        *,
        k: int = 20,
        types: str | Iterable[str] | None = None,
        tags: str | Iterable[str] | None = None,
        session: str | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
        min_relevance: float = 0.0,
    ) -> Context:
        """What is remembered about something, as a block for a prompt with citations.

        Never longer than `budget_tokens`, all of it counted; what does not fit any more is
        passed over for what does, and counted in `left_out`. What a session says more than once
        in the same words is told once. Other arguments are those of `recall`.
        """
        budget = checked_count("budget_tokens", budget_tokens)
        found = self._recalled(
            query, k, chosen_by(types, tags, session), as_of, valid_at, min_relevance, False
        )
        return context_of(found, self._db.as_of(as_of).time, budget)

    def get(self, id: str, *, as_of: AsOf = None, valid_at: When | None = None) -> Memory:
        """One memory by its id, also if it is hidden.

        Raises:
            UnknownMemoryError: there is no such memory at that moment.
        """
        check_word("id", id)
        try:
            version = self._db.version(self._whole, id, as_of=as_of, valid_at=valid_at)
        except KeyNotFoundError as error:
            raise UnknownMemoryError(self._whole, id) from error
        return self._shelf.memory(version, as_of, valid_at)

    def memories(
        self,
        *,
        types: str | Iterable[str] | None = None,
        tags: str | Iterable[str] | None = None,
        session: str | None = None,
        limit: int | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> list[Memory]:
        """Everything that is remembered and passes, by id: episodes in the order of time."""
        where = chosen_by(types, tags, session)
        rows = self._db.query(self._whole, where, limit=limit, as_of=as_of, valid_at=valid_at)
        return [
            self._shelf.memory(row.version, as_of, valid_at) for row in rows if is_memory(row.value)
        ]

    def history(self, id: str, *, as_of: AsOf = None) -> list[Version]:
        """Every version of a memory and what was said of it, oldest first."""
        check_word("id", id)
        return self._db.history(self._whole, id, as_of=as_of, include_annotations=True)

    def why(self, memory: str | Memory, *, as_of: AsOf = None) -> list[Version]:
        """What a memory came from inside the workspace, nearest first."""
        version = (memory if isinstance(memory, Memory) else self.get(memory, as_of=as_of)).version
        return self._workspace.ancestors(version, as_of=as_of)

    # Facts in time

    def what_did_i_believe(
        self, key: str | Memory, at: AsOf, *, valid_at: When | None = None
    ) -> Memory | None:
        """What was believed of a fact at a moment, whatever was learnt since; None if nothing.

        Args:
            key: That of the fact; or its id, or a memory of it.
            at: The moment: as `as_of` everywhere.
            valid_at: Of which time; by default of that moment. To ask what is known now of
                that time, recall with `valid_at`, or see `timeline`.
        """
        clock = microseconds(self._db.as_of(at).time)
        when = clock if valid_at is None else microseconds(valid_at)
        believed = [
            span for _, span in self._spans(key, at) if span.valid_from <= when < span.valid_to
        ]
        if not believed:
            return None
        span = max(believed, key=lambda span: span.version.seq)
        return memory_of(span.version, span=span)

    def timeline(self, key: str | Memory, *, as_of: AsOf = None) -> list[Memory]:
        """What a fact said when, by what was known at a moment: in the order of valid time.

        What was forgotten by then, or ended, is left out. `key` may be the id of the fact, or
        a memory of it, as well.
        """
        found = sorted(span for _, span in self._spans(key, as_of))
        return [memory_of(span.version, span=span) for span in found]

    def contradictions(self, *, as_of: AsOf = None) -> list[Contradiction]:
        """Facts asserted apart that say different things for the same time, by key.

        Those that are over by that moment are left out: `as_of` shows them as they stood.
        """
        said: list[Any] = [row.value for row in self._db.query(self._shelf.index, as_of=as_of)]
        keys = {each["key"] for each in said}
        clock = microseconds(self._db.as_of(as_of).time)
        found = []
        for key in sorted(keys):
            for (one, first), (other, second) in combinations(
                sorted(self._shelf.spans(key, as_of)), 2
            ):
                starts = max(first.valid_from, second.valid_from)
                ends = min(first.valid_to, second.valid_to)
                over = ends <= max(starts, clock)
                if one == other or over or says(first) == says(second):
                    continue
                pair = (
                    memory_of(first.version, span=first),
                    memory_of(second.version, span=second),
                )
                until = None if ends == FOREVER else moment(ends)
                found.append(Contradiction(key, pair, moment(starts), until))
        return found

    def forgotten(self, *, as_of: AsOf = None) -> list[Memory]:
        """What is hidden, and would be recalled if it were not: by id.

        Not what a summary stands for: see `consolidate`.
        """
        seen = {row.key for row in self._db.query(self._whole, select=[], as_of=as_of)}
        for each in self._db.lifecycle.consolidations(self._whole, as_of=as_of):
            seen.update(each.keys)
        hidden = (
            self._db.version(self._whole, key, as_of=as_of)
            for key in self._db.list_keys(self._whole, as_of=as_of)
            if key not in seen
        )
        return [self._shelf.memory(each, as_of) for each in hidden if is_memory(each.value)]

    # Parts of the above

    def _spans(self, key: str | Memory, as_of: AsOf) -> list[tuple[str, Span]]:
        """Everything a fact says, by its key; or by its id, where no fact has that for a key."""
        named = (key.name or key.id) if isinstance(key, Memory) else key
        check_word("key", named)
        found = self._shelf.spans(named, as_of)
        return found or self._shelf.spans(named.removeprefix("fact:"), as_of)

    def _recalled(
        self,
        query: str,
        k: int,
        where: Filter | None,
        as_of: AsOf,
        valid_at: When | None,
        min_relevance: float,
        explain: bool,
        *,
        by_words: bool = False,
    ) -> list[Memory]:
        relevant = checked_share("min_relevance", min_relevance)
        k = checked_count("k", k)
        vector: Vector | None = None
        embedder = None if by_words else self._workspace.embedder
        given: object = query
        if not isinstance(given, str):
            raise QueryError(f"query is a text, not {type(given).__name__}")
        if embedder is not None and query.strip():
            vector = as_vector(embedder.embed_query(query))
        relevance = Relevance(self._workspace, MEMORY, query, vector, as_of, valid_at)
        kept: list[tuple[Match, float]] = []
        for wider in _WIDER:
            found = self._workspace.search(
                MEMORY, relevance.question, k=wider * k, filter=where, as_of=as_of,
                valid_at=valid_at, vector=vector, syntax=False, explain=explain,
                mode="text" if by_words else "hybrid",
            )  # fmt: skip
            rated = [(each, relevance.of(each)) for each in found if is_memory(each.value)]
            kept = [pair for pair in rated if pair[1] > 0 and pair[1] >= relevant][:k]
            if len(kept) == k or len(found) < wider * k or not relevant:
                break
        return [
            self._shelf.memory(match.version, as_of, valid_at, match, share)
            for match, share in kept
        ]
