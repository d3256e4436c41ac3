"""What tools do with a memory."""

from __future__ import annotations

from typing import Any, Final

from koru_delta import AgentMemory, Database, Memory
from koru_delta.errors import KeyNotFoundError
from koru_delta.surfaces.tools.answers import (
    AsOfAnswer,
    Disagreement,
    Entry,
    ForgetAnswer,
    HistoryAnswer,
    RecallAnswer,
    RememberAnswer,
    Remembered,
    WhyAnswer,
    iso,
)
from koru_delta.surfaces.tools.arguments import (
    TYPES,
    AsOf,
    Forget,
    History,
    Recall,
    Remember,
    Why,
)

_SHOWN: Final = 50  # versions of one memory, or sources of it, that an answer has at most


class Tools:
    """The tools, on one memory.

    Every method takes the arguments of one tool and may block. They can be called from
    several threads at once.
    """

    def __init__(self, db: Database, memory: AgentMemory, *, author: str | None = None) -> None:
        """`author` is who writes."""
        self._db, self._memory, self._author = db, memory, author

    def remember(self, given: Remember) -> RememberAnswer:
        """Keep something."""
        memory, name = self._memory, given.name or ""
        if given.kind == "outcome":
            memory.record_outcome(name, bool(given.success), note=given.text, author=self._author)
            id = name if name.startswith("procedure:") else f"procedure:{name}"
            return RememberAnswer(memory=Remembered.of(memory.get(id)))
        options: dict[str, Any] = {
            "session": given.session, "tags": given.tags, "source": given.source,
            "causes": [memory.get(id).version for id in given.because],
            "ttl": given.ttl_seconds, "author": self._author,
        }  # fmt: skip
        if given.kind == "fact":
            kept = memory.remember_fact(
                name.removeprefix("fact:"), given.value, text=given.text,
                valid_from=given.valid_from, valid_to=given.valid_to,
                supersede=given.supersede, **options,
            )  # fmt: skip
        elif given.kind == "procedure":
            kept = memory.remember_procedure(
                name.removeprefix("procedure:"), given.steps or [], text=given.text, **options
            )
        else:
            known = self._known(given)
            if known is not None:
                return RememberAnswer(memory=Remembered.of(known), known_before=True)
            kept = memory.remember_episode(given.text or "", at=given.valid_from, **options)
        return RememberAnswer(memory=Remembered.of(kept))

    def _known(self, given: Remember) -> Memory | None:
        """The same episode, told before; models often say a thing again to be sure.

        Where anything else is said of it, a time of its own for one, it is another.
        """
        if given.valid_from is not None or given.ttl_seconds is not None or given.because:
            return None
        same: dict[str, Any] = {"type": "episode", "text": given.text}
        for name, said in (("session", given.session), ("source", given.source)):
            same[name] = {"$exists": False} if said is None else said
        for row in self._memory.workspace.query("memory", same):
            known = self._memory.get(row.key)
            if set(given.tags) <= set(known.tags) and known.expires_at is None:
                return known
        return None

    def recall(self, given: Recall) -> RecallAnswer:
        """Find what is remembered about something."""
        found = self._memory.recall(
            given.query, given.limit, types=given.types, tags=given.tags, session=given.session,
            valid_at=given.valid_at, min_relevance=given.min_relevance,
            budget_tokens=given.budget_tokens,
        )  # fmt: skip
        return RecallAnswer(memories=[Remembered.of(each) for each in found])

    def as_of(self, given: AsOf) -> AsOfAnswer:
        """What was remembered, or believed, at a moment."""
        moment = self._db.as_of(given.moment)
        if given.fact is not None:
            name = given.fact.removeprefix("fact:")
            believed = self._memory.what_did_i_believe(name, given.moment, valid_at=given.valid_at)
            found = [] if believed is None else [believed]
        else:
            found = self._memory.recall(
                given.query or "", given.limit, as_of=given.moment, valid_at=given.valid_at
            )
        return AsOfAnswer(
            as_of=moment.time.isoformat(), memories=[Remembered.of(each) for each in found]
        )

    def forget(self, given: Forget) -> ForgetAnswer:
        """Forget, or take that back."""
        if given.mode == "restore":
            back = self._memory.restore(given.ids or [], author=self._author, message=given.reason)
            return ForgetAnswer(mode="restore", memories=[Remembered.of(each) for each in back])
        gone = self._memory.forget(
            given.ids or f" {given.query}",  # with a space, so that no query is taken for an id
            mode=given.mode, ttl=given.ttl_seconds, k=given.limit,
            min_relevance=given.min_relevance, author=self._author,
            message=given.reason or (given.query and f"forgotten: {given.query}"),
        )  # fmt: skip
        return ForgetAnswer(
            mode=given.mode, memories=[Remembered.of(each) for each in gone.memories],
            until=iso(gone.until),
        )  # fmt: skip

    def why(self, given: Why) -> WhyAnswer:
        """What a memory came from."""
        memory = self._memory.get(given.id, as_of=given.moment)
        sources = self._memory.why(memory, as_of=given.moment)
        return WhyAnswer(
            memory=Remembered.of(memory), sources=[Entry.of(each) for each in sources[:_SHOWN]],
            left_out=max(0, len(sources) - _SHOWN),
        )  # fmt: skip

    def history(self, given: History) -> HistoryAnswer:
        """Everything recorded of a memory."""
        kept = self._memory.history(given.id)[::-1]
        name = given.id.removeprefix("fact:") if given.id.startswith("fact:") else None
        timeline = [] if name is None else self._memory.timeline(name)
        if not kept and not timeline:
            raise KeyNotFoundError("memory", given.id)
        disagreeing = [] if name is None else self._memory.contradictions()
        return HistoryAnswer(
            id=given.id, versions=[Entry.of(each) for each in kept[:_SHOWN]],
            left_out=max(0, len(kept) - _SHOWN),
            timeline=[Remembered.of(each) for each in timeline],
            disagreements=[
                Disagreement(
                    memories=[Remembered.of(memory) for memory in each.memories],
                    valid_from=each.valid_from.isoformat(), valid_to=iso(each.valid_to),
                )
                for each in disagreeing
                if each.name == name
            ],
        )  # fmt: skip

    def stats(self) -> dict[str, Any]:
        """How much is remembered, and how: ready for JSON."""
        space, counted = self._memory.workspace, self._memory.workspace.stats()
        limits = ("max_items", "max_bytes")
        return {
            "workspace": space.name,
            "found_by": "words" if space.embedder is None else "words and meaning",
            "embedder": counted["embedder"],
            **{f"{kind}s": space.count("memory", {"type": kind}) for kind in TYPES},
            "bytes": counted["bytes"],
            **{name: counted[name] for name in limits if counted[name] is not None},
            "facts_on_which_sources_disagree": sorted(
                {each.name for each in self._memory.contradictions()}
            ),
        }
