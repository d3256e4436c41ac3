"""Making one summary of many old events, and taking that back.

A consolidation is one commit: a record of it (namespace `$lifecycle`), the summary, which is
`derived_from` all its sources, and a hide for each source, `caused_by` the record. So it is
whole or not there, every moment before still finds the sources, and nothing is lost. It holds
only if nobody wrote any of the keys meanwhile: no source ends up in two summaries.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from koru_delta.causal import (
    FOREVER,
    HIDE,
    PUT,
    Cut,
    Version,
    microseconds,
)
from koru_delta.embedders import TextEmbedder
from koru_delta.errors import (
    ConflictError,
    ErasedError,
    InvalidDataError,
    KoruDeltaError,
    SummarizerError,
)
from koru_delta.lifecycle import undoing
from koru_delta.lifecycle.examined import Examined
from koru_delta.lifecycle.grouping import (
    Consolidate,
    Event,
    portions,
    summary_value,
    text_of,
)
from koru_delta.lifecycle.holdings import Held, Ids
from koru_delta.lifecycle.policies import literal_prefix
from koru_delta.lifecycle.summary import extract
from koru_delta.lifecycle.undoing import Said
from koru_delta.log import CausalLog, Pending, Write
from koru_delta.log.log import LIFECYCLE
from koru_delta.log.moments import AsOf
from koru_delta.log.writes import NewVector
from koru_delta.values import as_vector, canonical_bytes, decode, distinction_id, vector_bytes

Summarizer = Callable[[Sequence[str]], str]  # the texts of the sources, oldest first
Vectors = dict[str, tuple[str, npt.NDArray[np.float32]]]  # by model: metric and vector

_PAGE: Final = 2_000
_TRIES: Final = 20
_logger = logging.getLogger("koru_delta")


@dataclass(frozen=True, slots=True, repr=False)
class Consolidation:
    """A summary and what it is a summary of: `undo` takes it back.

    Attributes:
        summary: As it was made; its `causes` are all its sources.
        keys: Those of the sources, in order of time.
    """

    summary: Version
    keys: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<Consolidation of {len(self.keys)} keys into {self.namespace!r}/{self.key!r}>"

    @property
    def namespace(self) -> str:
        """The namespace of the summary and of its sources."""
        return self.summary.namespace

    @property
    def key(self) -> str:
        """The key of the summary."""
        return self.summary.key

    @property
    def sources(self) -> tuple[str, ...]:
        """The ids of the versions it was made of, in the order of `keys`."""
        return tuple(id for kind, id in self.summary.causes if kind == "derived_from")


Undoable = Consolidation | Version | str


class Surroundings(Protocol):
    """What consolidating asks of the database around it."""

    @property
    def embedder(self) -> TextEmbedder | None:
        """What embeds the texts of summaries, if it made the vectors of their sources."""
        ...

    def sentences(self, text: str) -> Sequence[str]:
        """The sentences of a text."""
        ...

    def terms(self, text: str) -> Sequence[str]:
        """The terms of a text, as they are searched."""
        ...

    def spares(self, namespace: str) -> Callable[[str], bool]:
        """Which keys of a namespace are never to be consolidated, whatever is wished."""
        ...

    def besides(self, namespace: str) -> Sequence[Write]:
        """What else belongs into a commit that adds to a namespace."""
        ...

    def quarantined(self, cut: Cut) -> Mapping[str, str]:
        """The ids of versions that stay hidden, and of the record of what wants them to."""
        ...


class Consolidator:
    """Consolidates what is wished to be, and undoes it."""

    def __init__(self, log: CausalLog, around: Surroundings, *, author: str | None) -> None:
        self._log = log
        self._around = around
        self._author = author
        self._records: dict[bytes, tuple[str, str, tuple[str, ...]]] = {}  # read once
        self._examined: dict[str, Examined] = {}
        self._lock = threading.Lock()
        self._demoted: tuple[int, Ids] = (0, np.zeros(0, np.int64))
        self.summarizers: dict[str, tuple[str, Summarizer]] = {}  # by namespace: name, callable

    # What there is

    def demoted(self, cut: Cut) -> Ids:
        """The numbers of the keys that are hidden by consolidations."""
        with self._lock:
            seq, known = self._demoted
            if seq != cut.seq and (not seq or self._log.engine.records(LIFECYCLE, seq)):
                found: dict[str, list[str]] = {}
                for namespace, _, keys in self._standing(cut):
                    found.setdefault(namespace, []).extend(keys)
                known = np.array(
                    [
                        number
                        for name, keys in found.items()
                        for number in self._log.engine.key_ids_of(name, keys).values()
                    ],
                    dtype=np.int64,
                )
            self._demoted = cut.seq, known
            return known

    def consolidations(self, namespace: str | None, as_of: AsOf) -> list[Consolidation]:
        """Those that stand at a moment, in the order they were made."""
        cut = self._log.cut(as_of)
        found = [
            Consolidation(undoing.first(self._log, name, key), keys)
            for name, key, keys in self._standing(cut)
            if namespace in (None, name)
        ]
        return sorted(found, key=lambda each: each.summary.seq)

    def _standing(self, cut: Cut) -> list[tuple[str, str, tuple[str, ...]]]:
        """Namespace, key and keys of the sources of each that stands."""
        found = self._log.engine.visible_keys(
            LIFECYCLE, cut.seq, cut.clock, cut.clock, prefix=undoing.PREFIX, bodies=False
        )
        ids = [entry.version_id for key, entry in found if key.startswith(undoing.PREFIX)]
        fresh = [entry.seq for _, entry in found if entry.version_id not in self._records]
        for start in range(0, len(fresh), _PAGE):
            for entry in self._log.engine.at_many(fresh[start : start + _PAGE]):
                said: dict[str, Any] = decode(entry.body or b"null")
                self._records[entry.version_id] = (
                    said["namespace"], said["key"], tuple(said["sources"])
                )  # fmt: skip
        return [self._records[each] for each in ids]

    # Consolidating

    def run(
        self,
        namespace: str,
        wish: Consolidate,
        held: Held,
        rows: Ids,
        is_stopping: Callable[[], bool],
    ) -> list[Consolidation]:
        """Consolidate what is wished of a namespace, until it is to stop; what was made.

        Args:
            held: What is present in the namespace, `rows` what of it is unimportant enough.

        Raises:
            SummarizerError, EmbedderError: what is to summarize or embed failed; what was made
                before that stays.
        """
        summarizer: Summarizer | None = None
        if wish.summarizer is not None:
            name, given = self.summarizers.get(namespace, (None, None))
            if name != wish.summarizer:
                _logger.info(
                    "%r is summarized by %r, which this process was not given",
                    namespace, wish.summarizer,
                )  # fmt: skip
                return []
            summarizer = given
        now = self._log.now()
        limit = now.clock - wish.older_than // timedelta(microseconds=1)
        examined = self._examined.get(namespace)
        if examined is None or examined.wish != wish:
            examined = self._examined[namespace] = Examined(self._log, wish)
        summaries = {key for name, key, _ in self._standing(now) if name == namespace}
        spares = self._around.spares(namespace)
        rows = rows[held.written[rows] <= limit]
        made: list[Consolidation] = []
        for group in examined.groups(
            held, rows, self._likeness, lambda key: key in summaries or spares(key)
        ):
            for some in portions(group):
                if is_stopping():
                    return made  # the rest when the database is open again
                one = self._consolidated(namespace, wish, summarizer, some, limit)
                if one is not None:
                    made.append(one)
        return made

    def _likeness(self, events: Sequence[Event]) -> dict[int, npt.NDArray[np.float32]]:
        """The vectors of events by the model that made most of them."""
        by_model: dict[str, dict[int, npt.NDArray[np.float32]]] = {}
        for event in events:
            for model, (_, vector) in self._vectors(event.seq).items():
                by_model.setdefault(model, {})[event.seq] = vector
        return max((by_model[name] for name in sorted(by_model)), key=len, default={})

    def _vectors(self, seq: int) -> Vectors:
        return {
            model: (metric, np.frombuffer(data, dtype="<f4"))
            for model, metric, _, _, data in self._log.engine.vectors_at(seq)
        }

    def _consolidated(
        self,
        namespace: str,
        wish: Consolidate,
        summarizer: Summarizer | None,
        events: Sequence[Event],
        limit: int,
    ) -> Consolidation | None:
        """A summary of those of the events that are still as they were, if they are enough."""
        for _ in range(_TRIES):
            last = {event: self._untouched(namespace, event, limit) for event in events}
            some = [event for event in events if last[event] is not None]
            if len(some) < wish.at_least:
                return None
            try:
                sources = self._log.versions([event.seq for event in some])
                writes = self._written(wish, summarizer, sources, [last[each] for each in some])
                summary = self._log.commit(writes)[1]
            except (ConflictError, ErasedError):
                continue  # somebody wrote one of the keys meanwhile, or consolidated them
            return Consolidation(summary, tuple(event.key for event in some))
        return None  # the next time, then

    def _untouched(self, namespace: str, event: Event, limit: int) -> str | None:
        """The last entry of the key of an event; None if that is new, or it is not there."""
        (last,) = self._log.engine.key_versions(
            namespace, event.key, FOREVER, reverse=True, limit=1, annotations=True
        )
        (held,) = self._log.engine.key_versions(
            namespace, event.key, FOREVER, reverse=True, limit=1
        )
        shade = self._log.engine.shade(event.seq, FOREVER)
        if last.tx_time > limit or held.version_id != event.id or held.erased:
            return None
        return None if shade.hidden or shade.superseded else last.version_id.hex()

    def _written(
        self,
        wish: Consolidate,
        summarizer: Summarizer | None,
        sources: Sequence[Version],
        last: Sequence[str | None],
    ) -> list[Write]:
        """The commit: the record, the summary, a hide for each source."""
        namespace = sources[0].namespace
        values = [version.value for version in sources]
        texts = [text_of(value, wish.text) or "" for value in values]
        if summarizer is None:
            text = extract(
                texts, wish.sentences, sentences=self._around.sentences, terms=self._around.terms
            )
            by = "sentences taken from them"
        else:
            text, by = _summarized(summarizer, texts), str(wish.summarizer)
        # The same sources, brought back and consolidated again, are another summary.
        short = blake3("".join(map(str, last)).encode()).hexdigest()[:16]
        when = sources[-1].valid_from
        key = (
            f"{literal_prefix(wish.keys)}{when:%Y%m%dT%H%M%S}.{when.microsecond:06}Z"
            f"-summary-{short}"
        )
        record, author = Pending(), self._author
        keys = [version.key for version in sources]
        said = {"namespace": namespace, "key": key, "sources": keys}
        return [
            Write(
                PUT, LIFECYCLE, undoing.record_name(namespace, key), canonical_bytes(said),
                if_last=None, made=record, author=author,
            ),
            Write(
                PUT, namespace, key, canonical_bytes(summary_value(values, wish, text)),
                vectors=self._embedded(sources, text), if_last=None,
                causes=[("derived_from", version.id) for version in sources],
                valid_from=microseconds(when), author=author,
                message=f"summary of {len(sources)} items, by {by}",
            ),
            *(
                Write(
                    HIDE, namespace, version.key, target=version.id, if_last=known,
                    causes=[("caused_by", record)], author=author,
                    message=f"consolidated into {key!r}",
                )
                for version, known in zip(sources, last, strict=True)
            ),
            *self._around.besides(namespace),
        ]  # fmt: skip

    def _embedded(self, sources: Sequence[Version], text: str) -> list[NewVector]:
        """A vector of every model that sources have some of: of the text, or between theirs."""
        rows: dict[str, list[npt.NDArray[np.float64]]] = {}
        metrics: dict[str, str] = {}
        for source in sources:
            for model, (metric, vector) in self._vectors(source.seq).items():
                row = vector.astype(np.float64)
                length = float(np.linalg.norm(row))
                if metric == "cosine" and length:
                    row /= length
                rows.setdefault(model, []).append(row)
                metrics[model] = metric
        made = []
        embedder = self._around.embedder
        for model, known in sorted(rows.items()):
            if embedder is not None and embedder.name == model:
                mean = as_vector(embedder.embed_documents([text])[0])
            else:
                between = np.mean(known, axis=0)
                length = float(np.linalg.norm(between))
                if metrics[model] == "cosine":
                    if length < 1e-6:
                        continue  # they point everywhere
                    between /= length
                mean = as_vector(between)
            data = vector_bytes(mean)
            made.append(NewVector(model, None, distinction_id("vec", data), data))
        return made

    # Undoing

    def undo(self, what: Undoable, *, author: str | None, message: str | None) -> list[Version]:
        """Bring back the sources and delete the summary, as `Lifecycle.undo` says."""
        summary = what.summary if isinstance(what, Consolidation) else self._log.version(what)
        said: Said = {
            "author": author or self._author,
            "message": message or f"undid the consolidation into {summary.key!r}",
        }
        conflict: ConflictError | None = None
        for _ in range(_TRIES):
            cut = self._log.now()
            record = undoing.record_of(self._log, summary.namespace, summary.key, cut)
            if record is None:
                raise InvalidDataError(
                    f"{summary!r} is no summary that was made by consolidating; "
                    "lifecycle.consolidations() has those that stand"
                )
            if record.is_tombstone:
                return []
            kept = self._around.quarantined(cut)
            writes, back = undoing.undone(self._log, summary, record, cut, said, kept)
            try:
                self._log.commit(writes)
            except ConflictError as error:
                conflict = error
                continue
            return back
        assert conflict is not None
        raise conflict

    def besides_erases(self, erases: Sequence[Write]) -> list[Write]:
        """What has to go with erases: summaries of what is erased, which may quote it.

        The other sources of each come back, to be summed up anew without what was erased.
        """
        cut = self._log.now()
        return undoing.besides_erases(self._log, erases, cut, lambda: self._around.quarantined(cut))


def _summarized(summarizer: Summarizer, texts: Sequence[str]) -> str:
    """What a summarizer makes of texts.

    Raises:
        SummarizerError: it failed, or returned no text.
    """
    try:
        text: object = summarizer(texts)
    except KoruDeltaError:
        raise
    except Exception as error:
        raise SummarizerError(
            f"summarizer {name_of(summarizer)!r} failed: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(text, str) or not text.strip():
        raise SummarizerError(
            f"summarizer {name_of(summarizer)!r} was given {len(texts)} texts and returned "
            f"{text!r}; it must return one text that is not blank"
        )
    return text


def name_of(summarizer: Summarizer) -> str:
    """What a summarizer is called in the log."""
    return str(getattr(summarizer, "__name__", type(summarizer).__name__))
