"""What is near and what is far: the lifecycle, and what it is told of uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from koru_delta.causal import Cut
from koru_delta.database.opened import Opened
from koru_delta.embedders import TextEmbedder
from koru_delta.intents import Intents
from koru_delta.lifecycle import Feedback, Lifecycle, Usable
from koru_delta.log import Write
from koru_delta.log.log import QUARANTINES
from koru_delta.search.text.analysis import Analyzer


class LifecycleVerbs(Opened):
    """Budgets, pins, idle keys; and feedback."""

    _lifecycle: Lifecycle

    @property
    def lifecycle(self) -> Lifecycle:
        """What is near, what is far, what is hidden for being idle, and why."""
        return self._lifecycle

    def used(self, what: Usable | Iterable[Usable], *, kind: Feedback = "used") -> int:
        """Say that hits or versions helped; it makes their keys more important.

        It is kept beside the log, not in it, and changes no answer.

        Args:
            what: A match, a version or its id, or `(namespace, key)`; one, or a list of them.
            kind: "used", or "recall" for what was only handed to somebody.

        Returns:
            How many were named.

        Raises:
            InvalidDataError: one of them is nothing that could be used.
            UnknownVersionError: there is no such version.
        """
        return self._tracker.feedback(self._log, what, kind)


class Around:
    """What consolidating asks of the database: texts and vectors, and rules of workspaces."""

    def __init__(self, intents: Intents) -> None:
        self._intents = intents
        self._analyzer = Analyzer()

    @property
    def embedder(self) -> TextEmbedder | None:
        """That of the database."""
        return self._intents.embedder

    def sentences(self, text: str) -> Sequence[str]:
        """The sentences of a text."""
        from koru_delta.ingest.chunking.borders import sentence_ends  # loaded where it is used

        borders = [0, *sentence_ends(text, 0, len(text)), len(text)]
        parts = (text[low:high] for low, high in pairwise(borders))
        return [part for part in parts if part.strip()]

    def terms(self, text: str) -> Sequence[str]:
        """The terms of a text, as they are searched."""
        return self._analyzer.terms(text)

    def spares(self, namespace: str) -> Callable[[str], bool]:
        """References and procedures of workspaces, agents' facts among them: never consolidated."""
        workspace, border, inside = namespace.partition("/")
        if not border:
            return lambda _: False
        from koru_delta.workspace.settings import Recorded

        settings, _ = Recorded(self._intents.log, self._intents, workspace).read()
        return lambda key: settings.pattern(inside, key) in ("reference", "procedure")

    def besides(self, namespace: str) -> Sequence[Write]:
        """Have a workspace with a quota count what it holds anew."""
        workspace, border, _ = namespace.partition("/")
        if not border:
            return ()
        from koru_delta.workspace.writes import uncounted

        return (uncounted(workspace),)

    def quarantined(self, cut: Cut) -> Mapping[str, str]:
        """What a quarantine covers, by the ids of versions, and its record."""
        log = self._intents.log
        if not log.engine.visible_keys(QUARANTINES, cut.seq, cut.clock, cut.clock, limit=1):
            return {}
        from koru_delta.ingest.quarantine import active

        return {
            version.id: log.version_at(QUARANTINES, each.id, cut, cut.clock).id
            for each in active(log, cut)
            for version in each.versions
        }
