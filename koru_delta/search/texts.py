"""The texts of namespaces as a search by words reads them: postings that follow the log.

Which part of a value is its text, and how words are made of it, is recorded in the log
(namespace `$text`), since it changes answers: a search in the past goes by what was recorded
then. An index is a reading of the log: made when first asked for, followed from the log's
tail, kept in a file for the next process, and thrown away whenever that file does not fit.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from blake3 import blake3

from koru_delta.causal import Cut
from koru_delta.errors import CorruptionError, KeyNotFoundError, QueryError
from koru_delta.log import CausalLog
from koru_delta.log.log import TEXTS
from koru_delta.search import cache
from koru_delta.search.cache import CacheFile, Unusable
from koru_delta.search.causality import CompiledCausal, Narrowed
from koru_delta.search.columns import look_up
from koru_delta.search.filters import CompiledFilter
from koru_delta.search.hybrid import TextHits
from koru_delta.search.lookup import Numbers
from koru_delta.search.records import Passing, RecordReading, Records, Swap
from koru_delta.search.text.analysis import Analyzer
from koru_delta.search.text.postings import Among, Contribution, Postings, Scores
from koru_delta.search.text.queries import TextQuery, parse_query
from koru_delta.values import Value, canonical_bytes, decode

SETTINGS: Final = TEXTS
FORMAT: Final = 1
SAVE_SLOTS: Final = 5_000  # read since the file was written, until it is written again
_BODIES_AT_ONCE: Final = 2_000
_log = logging.getLogger("koru_delta")


@dataclass(frozen=True, slots=True)
class TextSettings:
    """What is searched by words: `fields` of the value (dotted paths), with `stemmer`.

    Without fields it is a value that is a string, the string under `"text"` of an object, or
    else every string in the value.
    """

    fields: tuple[str, ...] = ()
    stemmer: str | None = None

    @classmethod
    def of(cls, fields: Sequence[str] | None, stemmer: str | None) -> TextSettings:
        """Settings, checked.

        Raises:
            QueryError: fields that are no list of dotted paths, or no such stemmer.
        """
        if isinstance(fields, str) or not isinstance(fields, Sequence | None):
            raise QueryError(f"fields is a list of dotted paths, not {fields!r}")
        for name in fields or ():
            if not isinstance(name, str):
                raise QueryError(f"fields holds dotted paths, not {name!r}")
        Analyzer(stemmer)  # raises where there is none
        return cls(tuple(fields or ()), stemmer)

    @classmethod
    def read(cls, value: Value) -> TextSettings:
        """Settings as they were recorded."""
        if not isinstance(value, dict):
            raise QueryError(f"the settings recorded under {SETTINGS} are no object: {value!r}")
        fields, stemmer = value.get("fields"), value.get("stemmer")
        if not isinstance(fields, list | None) or not isinstance(stemmer, str | None):
            raise QueryError(f"the settings recorded under {SETTINGS} make no sense: {value!r}")
        return cls.of(fields, stemmer)

    def to_json(self) -> dict[str, Value]:
        """As `read` takes it."""
        return {"fields": list(self.fields) or None, "stemmer": self.stemmer}

    def text_of(self, value: Value) -> str:
        """The text of a value; empty where it has none."""
        if self.fields:
            found = (look_up(value, tuple(name.split(".")) if name else ()) for name in self.fields)
            return "\n".join(part for each in found for part in _strings(each))
        if isinstance(value, str):
            return value
        if isinstance(value, dict) and isinstance(value.get("text"), str):
            return str(value["text"])
        return "\n".join(_strings(value))


def _strings(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
    elif isinstance(value, dict):
        for key in sorted(value):
            yield from _strings(value[key])


class TextIndex:
    """The words of one namespace under some settings. Safe to share by threads."""

    def __init__(
        self,
        records: Records,
        settings: TextSettings,
        place: Path | None,
        old: TextIndex | None = None,
    ) -> None:
        """Go on from another one, without what was erased since, or from a file in `place`.

        What does not fit the log is not used.
        """
        self._records = records
        self.settings = settings
        self._analyzer = Analyzer(settings.stemmer)
        self._place = place
        self._lock = threading.Lock()  # held to read texts
        self._postings = Postings()
        self._saved = 0
        self._failed = 0  # slots that could not be saved
        if old is None or not self._follow(old):
            self._restore()

    @property
    def records(self) -> Records:
        """What it reads the texts of."""
        return self._records

    # Searching

    def parse(self, text: str, *, syntax: bool) -> TextQuery:
        """What a text asks for.

        Raises:
            QueryError: more words than a query may have.
        """
        return parse_query(text, self._analyzer, syntax=syntax)

    def search(
        self,
        text: str,
        k: int,
        cut: Cut,
        valid_at: int,
        *,
        where: CompiledFilter | None = None,
        causal: CompiledCausal | None = None,
        syntax: bool = True,
        swap: Swap | None = None,
    ) -> TextHits:
        """The `k` best by BM25 over what is visible, ties by key."""
        query = self.parse(text, syntax=syntax)
        reading = self._records.at(cut.seq)
        if swap is None:
            passing = self._records.passing(reading, cut, valid_at, where, causal)
        else:
            passing = self._records.swapped(reading, cut, valid_at, where, causal, swap)
        # One more than is wanted tells whether there is more.
        slots, scores = self.among(reading, passing).top(query, k + 1)
        complete = len(slots) <= k
        if not complete:
            slots, scores = self._first(reading, slots, scores, k)
        keys = self._records.keys(reading, slots)
        seqs = reading.seqs[slots].tolist()
        hits = sorted(zip((-scores).tolist(), keys, seqs, strict=True))[:k]
        return TextHits(hits, complete, passing.count)

    def _first(
        self, reading: RecordReading, slots: Numbers, scores: Scores, k: int
    ) -> tuple[Numbers, Scores]:
        """Of more than `k`, best first and equal ones by slot, those that are first by key too."""
        if not k:
            return slots[:0], scores[:0]
        better = int(np.count_nonzero(scores > scores[k - 1]))
        tied = slots[better : int(np.count_nonzero(scores >= scores[k - 1]))]
        if len(tied) > k - better:  # a word that is in every text, say
            tied = self._records.in_key_order(reading, tied, k - better)
        return np.concatenate([slots[:better], tied]), scores[:k]

    def explain(
        self,
        text: str,
        seqs: Sequence[int],
        cut: Cut,
        valid_at: int,
        *,
        where: CompiledFilter | None = None,
        causal: CompiledCausal | None = None,
        syntax: bool = True,
    ) -> list[list[Contribution]]:
        """For each of some hits what each word earned it."""
        query = self.parse(text, syntax=syntax)
        reading, among = self.at(cut, valid_at, where=where, causal=causal)
        slots = reading.slots_at(np.array(seqs, dtype=np.int64)).tolist()
        return [among.explain(query, slot) for slot in slots]

    def bound(
        self,
        text: str,
        cut: Cut,
        valid_at: int,
        *,
        where: CompiledFilter | None,
        causal: CompiledCausal | None,
        syntax: bool,
        swap: Swap | None,
    ) -> Narrowed | CompiledCausal | None:
        """`causal`, and besides what the query's `+must` and `-not` leave."""
        query = self.parse(text, syntax=syntax)
        if not query.of("must") and not query.of("not"):
            return causal
        reading = self._records.at(cut.seq)
        if swap is None:
            passing = self._records.passing(reading, cut, valid_at, where, causal)
        else:
            passing = self._records.swapped(reading, cut, valid_at, where, causal, swap)
        mask = self.among(reading, passing).bounds(query)
        assert mask is not None
        seqs = reading.seqs[np.flatnonzero(mask[: reading.slots])]
        return Narrowed(causal, seqs, (self.settings, query))

    def count(
        self,
        text: str,
        cut: Cut,
        valid_at: int,
        *,
        where: CompiledFilter | None = None,
        causal: CompiledCausal | None = None,
    ) -> int:
        """How many visible texts answer."""
        query = self.parse(text, syntax=True)
        return self.at(cut, valid_at, where=where, causal=causal)[1].count(query)

    def at(
        self,
        cut: Cut,
        valid_at: int,
        *,
        where: CompiledFilter | None = None,
        causal: CompiledCausal | None = None,
    ) -> tuple[RecordReading, Among]:
        """The texts that a question may find at a moment, and their statistics."""
        reading = self._records.at(cut.seq)
        passing = self._records.passing(reading, cut, valid_at, where, causal)
        return reading, self.among(reading, passing)

    def among(self, reading: RecordReading, passing: Passing) -> Among:
        """The texts of what passes, and their statistics; kept with it."""
        known = passing.made.get(self)
        if known is None:
            self._catch_up(reading)
            seen = self._postings.seen()
            mask = passing.mask
            if seen.count > len(mask):  # more was read meanwhile, for a later moment
                mask = np.concatenate([mask, np.zeros(seen.count - len(mask), dtype=np.bool_)])
            known = passing.made[self] = seen.among(mask)
        found: Among = known
        return found

    # Reading the log

    def _follow(self, old: TextIndex) -> bool:
        with old._lock:  # it has come no farther than its records
            postings, reading = old._postings, old._records.reading
            gone = self._records.missing(reading)
            if gone is None:
                return False
            self._postings = postings.without(gone[gone < postings.count])
        return True

    def _catch_up(self, reading: RecordReading) -> None:
        """Read the texts of all slots of a reading: slots are log order, and never change."""
        if self._postings.count >= reading.slots:
            return
        with self._lock:
            engine = self._records.log.engine
            for start in range(self._postings.count, reading.slots, _BODIES_AT_ONCE):
                bodies = engine.bodies(reading.seqs[start : start + _BODIES_AT_ONCE].tolist())
                values = (decode(body or b"null") for body in bodies)
                texts = (self.settings.text_of(value) for value in values)
                self._postings.add([self._analyzer.terms(text) for text in texts])
            if self._postings.count - max(self._saved, self._failed) >= SAVE_SLOTS:
                self._save(reading)

    def statistics(self) -> dict[str, Any]:
        """What is held in memory of this process."""
        return {
            "namespace": self._records.namespace,
            "texts": self._postings.count,
            "bytes": self._postings.nbytes,
        }

    # Files

    def build(self, cut: Cut) -> OSError | None:
        """Read all texts up to a cut, and keep them in a file; see `save`."""
        self._catch_up(self._records.at(cut.seq))
        return self.save()

    def save(self) -> OSError | None:
        """Keep in a file what was read since the last one, if it is worth while.

        Returns:
            What kept it from being written.
        """
        with self._lock:
            fresh = self._postings.count - self._saved
            return self._save(self._records.reading) if fresh > self._saved // 16 else None

    def _about(self) -> dict[str, Any]:
        return {
            "format": FORMAT, "kind": "text", "namespace": self._records.namespace,
            "settings": self.settings.to_json(), "analyzer": self._analyzer.signature,
            "erased": self._records.erased,
        }  # fmt: skip

    def _save(self, reading: RecordReading) -> OSError | None:
        place, slots, log = self._place, self._postings.count, self._records.log
        if place is None or log.engine.read_only or not slots or slots != reading.slots:
            return None
        about = self._about() | {
            "seq": reading.seq, "root": log.root_at(reading.seq).hex(), "slots": slots,
        }  # fmt: skip
        try:
            with cache.writing(place) as mine:
                if mine and not self._records.is_stale:
                    cache.sweep(place)
                    cache.write(place / self._name(), about, self._postings.dump())
                    self._saved = slots
        except OSError as error:
            _log.log(
                logging.INFO if self._failed else logging.WARNING,
                "the words of %r are not kept in a file (searches stay right, the next process "
                "reads them anew): %s", self._records.namespace, error,
            )  # fmt: skip
            self._failed = slots
            return error
        return None

    def _restore(self) -> None:
        path = None if self._place is None else self._place / self._name()
        if path is None or not path.exists():
            return
        log = self._records.log
        try:
            try:
                file = CacheFile(path)
                about = self._about()
                # Files from before anything could be erased do not speak of it.
                if {"erased": 0} | {n: v for n, v in file.about.items() if n in about} != about:
                    raise Unusable(f"{path.name} is of another format, or of other settings")
                seq, slots = file.about["seq"], file.about["slots"]
                if seq > log.head().seq or log.root_at(seq).hex() != file.about["root"]:
                    raise Unusable(f"{path.name} was made from another log")
                seqs = self._records.at(seq).seqs
                if slots != np.searchsorted(seqs, seq, side="right"):
                    raise Unusable(f"{path.name} holds another number of texts")
                found = Postings.restore({name: file.array(name) for name in file.names()})
                if found.count != slots:
                    raise Unusable(f"{path.name} does not hold what it says")
                self._postings, self._saved = found, slots
                file.close()
            except (CorruptionError, KeyError, TypeError, ValueError) as error:
                raise Unusable(f"{path.name} makes no sense: {error!r}") from error
        except Unusable as error:
            _log.info("a cache is not used, and made anew from the log: %s", error)

    def _name(self) -> str:
        named = blake3(canonical_bytes([self._records.namespace, self.settings.to_json()]))
        return f"text-{named.hexdigest()[:32]}.kdx"


class Texts:
    """The records of all namespaces of a log, and their words, each read when first asked for."""

    def __init__(self, log: CausalLog) -> None:
        self._log = log
        engine = log.engine
        self._folder = None if engine.temporary else engine.directory / "index" / "text"
        self._begin()
        engine.after_fork.append(self._begin)

    def _begin(self) -> None:
        """Start with nothing read, as a forked child does."""
        self._lock = threading.Lock()
        self._records: dict[str, Records] = {}
        self._indexes: dict[tuple[str, TextSettings], TextIndex] = {}

    def records(self, namespace: str) -> Records:
        """What a namespace holds."""
        found = self._records.get(namespace)
        if found is None or found.is_stale:
            with self._lock:
                found = self._records.get(namespace)
                if found is None or found.is_stale:
                    fresh = Records(self._log, namespace)
                    if found is not None:
                        fresh.follow(found)
                    for name, index in list(self._indexes.items()):
                        if name[0] == namespace:
                            self._indexes[name] = TextIndex(
                                fresh, index.settings, self._folder, index
                            )
                    found = self._records[namespace] = fresh
        return found

    def settings(self, namespace: str, cut: Cut) -> TextSettings:
        """The settings that were recorded at a cut."""
        try:
            stored = self._log.get(SETTINGS, namespace, cut, cut.clock)
        except KeyNotFoundError:
            return _PLAIN
        return TextSettings.read(decode(stored))

    def index(self, namespace: str, cut: Cut) -> TextIndex:
        """The words of a namespace, as its settings at a cut make them."""
        settings = self.settings(namespace, cut)
        name = (namespace, settings)
        records = self.records(namespace)
        found = self._indexes.get(name)
        if found is None or found.records is not records:
            with self._lock:
                found = self._indexes.get(name)
                if found is None or found.records is not records:
                    found = self._indexes[name] = TextIndex(records, settings, self._folder)
        return found

    def statistics(self) -> dict[str, Any]:
        """What is held in memory."""
        with self._lock:
            return {
                "record_spaces": [records.statistics() for records in self._records.values()],
                "text_indexes": [index.statistics() for index in self._indexes.values()],
            }

    def close(self) -> None:
        """Keep in files what was made."""
        with self._lock:
            indexes = list(self._indexes.values())
        for index in indexes:
            index.save()


_PLAIN: Final = TextSettings()
