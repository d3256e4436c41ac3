"""The memory of an agent: episodes, facts and procedures in one workspace.

An *episode* happened, and is written once. A *fact* has one value at each time: what is said
anew ends what it contradicts, in whatever order things become known. A *procedure* has
versions, and outcomes of trying them. All three are in the namespace `memory`, so that a
recall is one search with one ranking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from koru_delta.causal import When
from koru_delta.errors import InvalidDataError, KeyNotFoundError, UnknownMemoryError
from koru_delta.intents import CauseLike, ttl_microseconds
from koru_delta.lifecycle import Consolidate, Policy, Summarizer
from koru_delta.log.retention import Erased
from koru_delta.values import Value
from koru_delta.workspace.inside import Item
from koru_delta.workspace.patterns import Outcomes
from koru_delta.workspace.recall import chosen_by
from koru_delta.workspace.recalling import MemoryReads
from koru_delta.workspace.recollection import Forgotten, Memory, check_word, sentence, value_of
from koru_delta.workspace.shelf import MEMORY, claim_prefix
from koru_delta.workspace.writes import Intended

_PREFIXES: Final = ("episode:", "fact:", "claim:", "procedure:")
_EPISODE: Final = ("text", "session", "tags", "source", "at", "data")
_FORGOTTEN_BY_QUERY: Final = 0.5  # relevance from which on a query forgets


class AgentMemory(MemoryReads):
    """What an agent remembers; made by `Workspace.ai_context`.

    Every memory keeps where it came from and when: what was believed at any moment can be
    asked for (`as_of`), and what was true at any time (`valid_at`). Nothing is lost by
    forgetting, which is dated and can be taken back. Works by words alone where the
    workspace has no embedder. Several agents, threads and processes may share it.
    """

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
            unknown = said.keys() - set(_EPISODE)
            if unknown:
                raise InvalidDataError(
                    f"an episode has no {', '.join(sorted(map(str, unknown)))}: it has "
                    f"{', '.join(_EPISODE)}; of a chat message, make a text such as 'user: Hello'"
                )
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
        known of the years before and of the time since stands. So what began before another
        value, and is still true, is said once more from now on. The memory that comes back
        tells by its `valid_to` how long it holds. Said again with the same value, it goes on
        to hold since it began to.

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
            UnknownMemoryError: there is no such procedure.
        """
        named = procedure.id if isinstance(procedure, Memory) else procedure
        check_word("procedure", named)
        if not named.startswith("procedure:"):
            named = f"procedure:{named}"
        if self._workspace.settings.pattern(MEMORY, named) is None:
            raise UnknownMemoryError(self._whole, named)
        try:
            return self._workspace.outcome(
                MEMORY, named, success, note=note, author=author, run=run
            )
        except KeyNotFoundError as error:
            raise UnknownMemoryError(self._whole, named) from error

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
            UnknownMemoryError: there is no such memory.
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
            UnknownMemoryError: there never was such a memory.
        """
        why = message or "remembered again"
        if isinstance(what, Forgotten):
            ids = [memory.id for memory in what.memories]
            mine = {version.id for id in ids for version in self._shelf.puts(id)}
            hidden = [id for id in what.versions if id in mine] if what.mode == "hide" else []
        else:
            ids = _ids([what] if isinstance(what, str) else what)
            hidden = [version.id for id in ids for version in self._shelf.puts(id)]
        self._db.unhide_many(hidden, author=author, message=why)
        self._shelf.end(ids, None, author=author, message=why)
        return [self._shelf.known(id) for id in ids]

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
            UnknownMemoryError: there is no such memory.
        """
        ids = _ids([memories] if isinstance(memories, str) else memories)
        return self._db.used([self._shelf.known(id).version for id in ids])


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
