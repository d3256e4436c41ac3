"""The memory of an agent: episodes, facts and procedures in one workspace.

An *episode* happened, and is written once. A *fact* has one value at each time: what is said
anew ends what it contradicts, in whatever order things become known. A *procedure* has
versions, and outcomes of trying them. All three are in the namespace `memory`, so that a
recall is one search with one ranking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import combinations
from typing import Any, Final, Literal

from koru_delta.causal import FOREVER, Version, When, microseconds, moment
from koru_delta.errors import InvalidDataError, KeyNotFoundError, QueryError
from koru_delta.lifecycle import Consolidate, Policy, Summarizer
from koru_delta.log.moments import AsOf
from koru_delta.log.retention import Erased
from koru_delta.search.answers import Match
from koru_delta.search.filters import Filter
from koru_delta.transaction import CauseLike, ttl_microseconds
from koru_delta.values import Value, Vector, as_vector
from koru_delta.workspace.inside import Item
from koru_delta.workspace.patterns import Outcomes
from koru_delta.workspace.recall import Relevance, checked_count, checked_share, chosen_by
from koru_delta.workspace.recollection import (
    Context,
    Contradiction,
    Forgotten,
    Memory,
    check_word,
    context_of,
    memory_of,
    sentence,
    value_of,
    within,
)
from koru_delta.workspace.shelf import MEMORY, Shelf, claim_prefix, says
from koru_delta.workspace.workspace import Workspace
from koru_delta.workspace.writes import Intended

_PREFIXES: Final = ("episode:", "fact:", "claim:", "procedure:")
_WIDER: Final = (1, 4, 16)  # times k that are looked at, for as many that are relevant enough
_FORGOTTEN_BY_QUERY: Final = 0.5  # relevance from which on a query forgets


class AgentMemory:
    """What an agent remembers; made by `Workspace.ai_context`.

    Every memory keeps where it came from and when: what was believed at any moment can be
    asked for (`as_of`), and what was true at any time (`valid_at`). Nothing is lost by
    forgetting, which is dated and can be taken back. Works by words alone where the
    workspace has no embedder. Several agents, threads and processes may share it.
    """

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

    # Remembering

    def remember_episode(
        self,
        text: str,
        *,
        session: str | None = None,
        tags: Iterable[str] = (),
        source: str | None = None,
        at: When | None = None,
        data: Mapping[str, Any] | None = None,
        causes: Sequence[CauseLike] = (),
        ttl: float | timedelta | None = None,
        author: str | None = None,
        run: str | None = None,
    ) -> Memory:
        """Remember that something happened; it is written once, and never changes.

        Args:
            session: The conversation or task it belongs to.
            tags: Words to find it by, and to choose by.
            source: Who or what it comes from.
            at: When it happened; by default now.
            data: Whatever else to keep with it, as JSON.
            causes: Versions of this workspace it came from.
            ttl: Seconds (or a timedelta) after which it is forgotten.

        Raises:
            InvalidDataError: there is no text, or something cannot be stored.
            QuotaExceededError, IsolationError, EmbedderError: as for `Workspace.store`.
        """
        episode = {
            "text": text, "session": session, "tags": tags, "source": source, "at": at,
            "data": data,
        }  # fmt: skip
        return self.remember_episodes([episode], causes=causes, ttl=ttl, author=author, run=run)[0]

    def remember_episodes(
        self,
        episodes: Iterable[str | Mapping[str, Any]],
        *,
        causes: Sequence[CauseLike] = (),
        ttl: float | timedelta | None = None,
        author: str | None = None,
        run: str | None = None,
    ) -> list[Memory]:
        """Remember many episodes in one commit, such as a conversation, in their order.

        Args:
            episodes: Texts, or mappings with `text` and whatever else of `session tags source
                at data` `remember_episode` takes.
        """
        if isinstance(episodes, (str, Mapping)) or not isinstance(episodes, Iterable):
            raise InvalidDataError("episodes is a list of texts or mappings")
        items = []
        for given in episodes:
            if not isinstance(given, (str, Mapping)):
                raise InvalidDataError(f"an episode is a text or a mapping, not {given!r}")
            said = {"text": given} if isinstance(given, str) else dict(given)
            unknown = said.keys() - {"text", "session", "tags", "source", "at", "data"}
            if unknown:
                raise InvalidDataError(f"an episode has no {', '.join(sorted(map(str, unknown)))}")
            at = said.pop("at", None)
            value = value_of("episode", **said)
            items.append(Item(None, value, value["text"], {"valid_from": at}))
        return self._shelf.remember(
            items, prefix="episode:", causes=causes, ttl=ttl, author=author, run=run
        )

    def remember_fact(
        self,
        key: str,
        value: Value,
        *,
        text: str | None = None,
        source: str | None = None,
        tags: Iterable[str] = (),
        session: str | None = None,
        valid_from: When | None = None,
        valid_to: When | None = None,
        supersede: bool = True,
        data: Mapping[str, Any] | None = None,
        causes: Sequence[CauseLike] = (),
        ttl: float | timedelta | None = None,
        author: str | None = None,
        run: str | None = None,
    ) -> Memory:
        """Remember that something is true, from `valid_from` (now) on.

        It holds up to the next change that is known of, and ends what it contradicts, also
        where it becomes known late: told on Tuesday that somebody moved last year, what was
        known of the years before and of the time since stands. Said again with the same value,
        it goes on to hold since it began to.

        Args:
            key: Names the fact: "home-city". Several memories of one key are one fact.
            value: What it says, as JSON.
            text: How it reads; by default the key and the value. It is what is searched.
            valid_to: When it stopped being true, if that is known; what holds from there on
                is then what held before.
            supersede: False asserts it apart, by `source` (or else `author`), and ends nothing
                but what the same one has asserted so: see `contradictions`. A fact that
                supersedes ends what was asserted apart as well.

        Raises:
            InvalidDataError: something cannot be stored, or an assertion has no source.
            InvalidTimestampError: the times are none.
        """
        check_word("key", key)
        if type(supersede) is not bool:
            raise InvalidDataError(f"supersede is True or False, not {supersede!r}")
        said = value_of(
            "fact", text=sentence(key, value) if text is None else text, name=key, value=value,
            tags=tags, session=session, source=source, data=data,
        )  # fmt: skip
        times = {"valid_from": valid_from, "valid_to": valid_to}
        siblings: Callable[[], list[str]] | None = None
        watched: str | None = None
        besides: list[Intended] = []
        if supersede:
            siblings = lambda: self._shelf.claims(key)  # noqa: E731 - read anew for each try
            watched = claim_prefix(key)
            identity = f"fact:{key}"
        else:
            by = source or author
            if not by:
                raise InvalidDataError("what is asserted apart needs a source= (or an author=)")
            identity = f"{claim_prefix(key)}{by}"
            if identity not in self._shelf.claims(key):
                besides.append(Intended(self._shelf.index, identity, {"key": key}))
        fact = Item(identity, said, said["text"], times, siblings, watched, "value")
        return self._shelf.remember(
            [fact], besides=besides, causes=causes, ttl=ttl, author=author, run=run
        )[0]

    def remember_procedure(
        self,
        name: str,
        steps: str | Sequence[str],
        *,
        text: str | None = None,
        source: str | None = None,
        tags: Iterable[str] = (),
        session: str | None = None,
        data: Mapping[str, Any] | None = None,
        causes: Sequence[CauseLike] = (),
        ttl: float | timedelta | None = None,
        author: str | None = None,
        run: str | None = None,
    ) -> Memory:
        """Remember how something is done; said anew, it is the next version.

        Args:
            name: Names the procedure: "deploy".
            steps: A text, or a list of them.
            text: How it reads; by default the name and the steps. It is what is searched.
        """
        check_word("name", name)
        given: object = steps
        listed = [given] if isinstance(given, str) else given
        if isinstance(listed, (bytes, Mapping)) or not isinstance(listed, Iterable):
            raise InvalidDataError(f"steps is a text or a list of texts, not {given!r}")
        listed = list(listed)
        if not listed or not all(isinstance(step, str) and step.strip() for step in listed):
            raise InvalidDataError("steps is a text, or a list of at least one, none of them blank")
        steps = listed[0] if isinstance(given, str) else listed
        said = value_of(
            "procedure", text=sentence(name, steps) if text is None else text, name=name,
            value=steps, tags=tags, session=session, source=source, data=data,
        )  # fmt: skip
        return self._shelf.remember(
            [Item(f"procedure:{name}", said, said["text"])], causes=causes, ttl=ttl,
            author=author, run=run,
        )[0]  # fmt: skip

    def record_outcome(
        self,
        procedure: str | Memory,
        success: bool,
        *,
        note: str | None = None,
        author: str | None = None,
        run: str | None = None,
    ) -> Outcomes:
        """Record what came of trying a procedure; returns all that came of it as it stands.

        Args:
            procedure: Its name or id, or the memory itself.

        Raises:
            KeyNotFoundError: there is no such procedure.
        """
        named = procedure.id if isinstance(procedure, Memory) else procedure
        check_word("procedure", named)
        if not named.startswith("procedure:"):
            named = f"procedure:{named}"
        if self._workspace.settings.pattern(MEMORY, named) is None:
            raise KeyNotFoundError(self._whole, named)
        return self._workspace.outcome(MEMORY, named, success, note=note, author=author, run=run)

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
            budget_tokens: Stop adding memories whose texts would be more than that together.
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
            KeyNotFoundError: there is no such memory at that moment.
        """
        check_word("id", id)
        version = self._db.version(self._whole, id, as_of=as_of, valid_at=valid_at)
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
        return [self._shelf.memory(row.version, as_of, valid_at) for row in rows]

    def history(self, id: str, *, as_of: AsOf = None) -> list[Version]:
        """Every version of a memory and what was said of it, oldest first."""
        check_word("id", id)
        return self._db.history(self._whole, id, as_of=as_of, include_annotations=True)

    def why(self, memory: str | Memory, *, as_of: AsOf = None) -> list[Version]:
        """What a memory came from inside the workspace, nearest first."""
        version = memory.version if isinstance(memory, Memory) else self.get(memory).version
        return self._workspace.ancestors(version, as_of=as_of)

    # Facts in time

    def what_did_i_believe(
        self, key: str, at: AsOf, *, valid_at: When | None = None
    ) -> Memory | None:
        """What was believed of a fact at a moment, whatever was learnt since; None if nothing.

        Args:
            at: The moment: as `as_of` everywhere.
            valid_at: Of which time; by default of that moment. To ask what is known now of
                that time, recall with `valid_at`, or see `timeline`.
        """
        check_word("key", key)
        clock = microseconds(self._db.as_of(at).time)
        when = clock if valid_at is None else microseconds(valid_at)
        believed = [
            span
            for _, span in self._shelf.spans(key, at)
            if span.valid_from <= when < span.valid_to
        ]
        if not believed:
            return None
        span = max(believed, key=lambda span: span.version.seq)
        return memory_of(span.version, span=span)

    def timeline(self, key: str, *, as_of: AsOf = None) -> list[Memory]:
        """What a fact said when, by what was known at a moment: in the order of valid time.

        What was forgotten by then, or ended, is left out.
        """
        check_word("key", key)
        found = sorted(span for _, span in self._shelf.spans(key, as_of))
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

    # Forgetting

    def forget(
        self,
        what: str | Memory | Iterable[str | Memory],
        *,
        mode: Literal["hide", "ttl"] = "hide",
        ttl: float | timedelta | None = None,
        k: int = 10,
        types: str | Iterable[str] | None = None,
        tags: str | Iterable[str] | None = None,
        session: str | None = None,
        min_relevance: float = _FORGOTTEN_BY_QUERY,
        author: str | None = None,
        message: str | None = None,
    ) -> Forgotten:
        """Forget memories from now on, or from when `ttl` is over; `restore` takes it back.

        The answer has those that were not forgotten already.

        A fact is forgotten with all it said at any time. Every moment before goes on as it
        was, and what is remembered later is recalled. A summary that an episode went into (see
        `consolidate`) is taken back, so that it does not tell of it any more; the other episodes
        are recalled again.

        Args:
            what: Memories or their ids, in a list; or a query: then what `recall` finds with
                its words and the other arguments. By words alone: how near in meaning a memory
                must be differs from embedder to embedder. Look at that first.
            mode: "hide" takes them out of every recall at once; "ttl" once `ttl` (seconds, or
                a timedelta) is over.
            min_relevance: Of a query, the share of its words that a memory must have to be
                forgotten, rare ones counting more.
            message: Why.

        Raises:
            KeyNotFoundError: there is no such memory.
            InvalidDataError: the arguments make no sense; a single id in place of a list.
        """
        if mode not in ("hide", "ttl"):
            raise InvalidDataError(f"mode is 'hide' or 'ttl', not {mode!r}")
        if (mode == "ttl") != (ttl is not None):
            raise InvalidDataError("ttl= belongs to mode='ttl': how long it is still remembered")
        length = None if ttl is None else ttl_microseconds(ttl)
        if isinstance(what, str):
            if what.startswith(_PREFIXES):
                raise InvalidDataError(
                    f"forget() takes a text as a query; to forget by id, pass a list: [{what!r}]"
                )
            where = chosen_by(types, tags, session)
            chosen = self._recalled(what, k, where, None, None, min_relevance, False, by_words=True)
        else:
            if types is not None or tags is not None or session is not None:
                raise InvalidDataError(
                    "types, tags and session choose what a query forgets; what is named is "
                    "forgotten whatever it is"
                )
            chosen = [self._shelf.known(id) for id in _ids(what)]
        ids = list(dict.fromkeys(memory.id for memory in chosen))
        why = message or (f"forgotten: {what}" if isinstance(what, str) else "forgotten")
        until: datetime | None = None
        summaries = {each.id: each for each in map(self._shelf.summary_of, ids) if each is not None}
        self._db.lifecycle.undo(summaries.values(), author=author, message=why)
        if length is not None:
            written = self._shelf.end(ids, length, author=author, message=why)
            until = written[0].expires_at if written else None
            versions = [version.id for version in written]
        else:
            hidden = self._db.hide_many(
                [each for id in ids for each in self._shelf.puts(id)], author=author, message=why
            )
            written = hidden
            versions = [str(entry.target) for entry in hidden]
        time = written[-1].time if written else self._db.as_of(None).time
        done = {entry.key for entry in written}
        return Forgotten(
            tuple(each for each in chosen if each.id in done), mode, time, until, tuple(versions)
        )

    def erase(
        self,
        what: Memory | Iterable[str | Memory],
        *,
        author: str | None = None,
        message: str | None = None,
    ) -> Erased:
        """Remove memories for good, from the past and from every file; that cannot be undone.

        As `Database.erase`, of all a memory ever was, and of the outcomes of a procedure.
        Summaries it went into go with it. `Erased.derived` names what else came from it: look
        at that, since it may tell of it. Ids are kept, so the key of a fact and the name of a
        procedure are.

        Args:
            what: Memories or their ids, in a list.

        Raises:
            KeyNotFoundError: there never was such a memory.
            InvalidDataError: a single id in place of a list.
        """
        ids = _ids(what)
        places = [(self._whole, self._shelf.puts(id)[0].key) for id in ids]
        places += [place for id in ids for place in self._shelf.outcomes(id)]
        return self._db.erase(places, author=author, message=message)

    def restore(
        self,
        what: Forgotten | Memory | str | Iterable[str | Memory],
        *,
        author: str | None = None,
        message: str | None = None,
    ) -> list[Memory]:
        """Remember again what was forgotten: what `forget` returned, or memories or their ids.

        Raises:
            KeyNotFoundError: there never was such a memory.
        """
        why = message or "remembered again"
        if isinstance(what, Forgotten):
            ids = [memory.id for memory in what.memories]
            hidden = list(what.versions) if what.mode == "hide" else []
        else:
            ids = _ids([what] if isinstance(what, str) else what)
            hidden = [version.id for id in ids for version in self._shelf.puts(id)]
        self._db.unhide_many(hidden, author=author, message=why)
        self._shelf.end(ids, None, author=author, message=why)
        return [self._shelf.known(id) for id in ids]

    def forgotten(self, *, as_of: AsOf = None) -> list[Memory]:
        """What is hidden, and would be recalled if it were not: by id.

        Not what a summary stands for: see `consolidate`.
        """
        seen = {row.key for row in self._db.query(self._whole, select=[], as_of=as_of)}
        for each in self._db.lifecycle.consolidations(self._whole, as_of=as_of):
            seen.update(each.keys)
        return [
            self.get(key, as_of=as_of)
            for key in self._db.list_keys(self._whole, as_of=as_of)
            if key not in seen
        ]

    def consolidate(
        self,
        older_than: timedelta | None = timedelta(days=30),
        *,
        at_least: int = 5,
        below: float = 0.3,
        alike: float | None = None,
        summarizer: Summarizer | None = None,
        author: str | None = None,
        message: str | None = None,
    ) -> Policy:
        """Wish that old episodes of a session become one that sums them up; facts never do.

        It is done every hour, where the database stays open, or by
        `lifecycle.run_once("consolidate")`. The summary is recalled in place of its sources,
        which `why` names and `get` still has. `lifecycle.undo(memory.version)` takes it back.

        Args:
            older_than: For how long nobody has written them; None lifts the wish.
            at_least: How many of a session it takes.
            below: The importance from which on an episode stays as it is.
            alike: Least cosine to those it becomes one with; also without a session, then.
            summarizer: A callable from their texts, oldest first, to one: as for
                `Lifecycle.policy`. By default some of their sentences.

        Raises:
            InvalidDataError: the arguments make no sense.
        """
        wish: Consolidate | None = None
        if older_than is not None:
            wish = Consolidate(("session",), older_than, at_least, below, alike, keys="episode:*")
        return self._db.lifecycle.policy(
            self._whole, consolidate=wish, summarizer=summarizer, author=author, message=message
        )

    def used(self, memories: Memory | str | Iterable[str | Memory]) -> int:
        """Say that memories were of use: what teaches which ones matter. Returns how many.

        Raises:
            KeyNotFoundError: there is no such memory.
        """
        ids = _ids([memories] if isinstance(memories, str) else memories)
        return self._db.used([self._shelf.known(id).version for id in ids])

    # Parts of the above

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
            rated = [(match, relevance.of(match)) for match in found]
            kept = [pair for pair in rated if pair[1] > 0 and pair[1] >= relevant][:k]
            if len(kept) == k or len(found) < wider * k or not relevant:
                break
        return [
            self._shelf.memory(match.version, as_of, valid_at, match, share)
            for match, share in kept
        ]


def _ids(given: Memory | Iterable[str | Memory]) -> list[str]:
    if isinstance(given, Memory):
        return [given.id]
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise InvalidDataError(f"memories are given as a list of them or their ids, not {given!r}")
    found = []
    for each in given:
        if not isinstance(each, (str, Memory)):
            raise InvalidDataError(f"a memory is named by itself or its id, not {each!r}")
        found.append(each.id if isinstance(each, Memory) else each)
    for id in found:
        check_word("id", id)
    return list(dict.fromkeys(found))
