"""Random histories of texts and vectors, told to a database and to the naive model alike.

For the oracles of search: `history` makes what is done, `tell` does it, and `bm25` reads the
definition of a search by words aloud, over what the model says is visible.
"""

from __future__ import annotations

import io
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hypothesis import strategies as st

import koru_delta
from koru_delta import Database
from koru_delta.causal import moment
from koru_delta.errors import KoruDeltaError
from koru_delta.testing import FixedClock, HashEmbedder
from tests.model import KEEP, Entry, Intent, Model, Moment

UNIT = 1_000_000
NAMESPACES = ("a", "b")
KEYS = ("k", "k2", "k3", "m", "z", "z z", "é", "ж")
WORDS = ("rain", "sun", "wind", "fog", "hail", "run", "runs", "running")
STEMS = {"runs": "run", "running": "run"}  # the other words are their own
METRICS = {"a": "cosine", "b": "l2"}
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"fields": ["title"]},
    {"fields": ["text", "title"]},
    {"stemmer": "english"},
    {"fields": ["tags"], "stemmer": "english"},
)
FILTERS: tuple[tuple[Any, Callable[[Any], bool]], ...] = (
    (None, lambda value: True),
    ({"n": {"$gte": 2}}, lambda value: _field(value, "n", -1) >= 2),
    ({"doc": {"$in": ["d1", "d2"]}}, lambda value: _field(value, "doc", "") in ("d1", "d2")),
    ({"$not": {"doc": "d1"}}, lambda value: _field(value, "doc", "") != "d1"),
    ({"title": {"$exists": False}}, lambda value: _field(value, "title", None) is None),
)

Step = tuple[str, dict[str, Any]]

SIZE = 4
codes = st.binary(min_size=18 * SIZE, max_size=45 * SIZE)
"""What becomes a history: some bytes a step. Made of lists, most would be alike or short."""


def history(numbers: bytes) -> list[Step]:
    """The history that some bytes stand for."""
    steps: list[Step] = []
    times: Counter[bytes] = Counter()
    for at in range(0, len(numbers), SIZE):
        code = numbers[at : at + SIZE]
        steps.append(_step(random.Random(code + bytes([times[code]]))))
        times[code] += 1
    return steps


def _step(chance: random.Random) -> Step:
    kind = chance.choices(["one", "transaction", "configure", "time"], [12, 2, 1, 2])[0]
    if kind == "transaction":
        return kind, {"writes": [_one(chance) for _ in range(chance.randint(2, 4))]}
    if kind == "configure":
        return kind, {"namespace": chance.choice(NAMESPACES), "settings": chance.choice(SETTINGS)}
    if kind == "time":
        return kind, {"seconds": chance.choice([0.000001, 1, 3, 9])}
    return _one(chance)


def _one(chance: random.Random) -> Step:
    verb = chance.choices(["put", "embed", "delete", "hide", "unhide"], [6, 9, 1, 1, 1])[0]
    given: dict[str, Any] = {
        "namespace": chance.choices(NAMESPACES, [3, 1])[0], "key": chance.choice(KEYS),
    }  # fmt: skip
    if verb in ("hide", "unhide"):
        return verb, {**given, "version": chance.choice([None, chance.randrange(99)])}
    given["extra"] = _extra(chance)
    if verb == "delete":
        given["extra"].pop("ttl", None)
        return verb, given
    given |= {
        "value": _value(chance), "author": chance.choice([None, "ada", "bob"]),
        "run": chance.choice([None, "r1"]), "causes": [],
    }  # fmt: skip
    for _ in range(chance.choice([0, 0, 0, 0, 1, 2])):
        kinds = ["supersedes", "derived_from", "caused_by", "references"]
        given["causes"].append((chance.choice(kinds), chance.randrange(99)))
    if verb == "embed":
        given["vector"] = [chance.randint(-2, 2) for _ in range(3)]
        if chance.random() < 0.4:
            given["value"] = KEEP
    return verb, given


def _extra(chance: random.Random) -> dict[str, Any]:
    """Now and then an end of life, or an interval of valid time, in seconds from the beginning."""
    begin, length = chance.randint(-12, 12), chance.randint(1, 12)
    some: list[dict[str, Any]] = [
        {"ttl": length}, {"valid_from": begin}, {"valid_to": length},
        {"valid_from": begin, "valid_to": begin + length},
    ]  # fmt: skip
    return dict(chance.choice(some)) if chance.random() < 0.25 else {}


def _value(chance: random.Random) -> Any:
    def text() -> str:
        return " ".join(chance.choices(WORDS, k=chance.randint(1, 6)))

    odd: list[Any] = [None, "", [], {"n": 2}, {"deep": [{"x": "rain"}, "fog"]}, text(), text()]
    if chance.random() < 0.2:
        return chance.choice(odd)
    value: dict[str, Any] = {"text": text(), "n": chance.randint(0, 3)}
    if chance.random() < 0.5:
        value["title"] = text()
    if chance.random() < 0.6:
        value["doc"] = chance.choice(["d1", "d2", "d3"])
    if chance.random() < 0.3:
        value["tags"] = text().split()
    return value


class Texts(HashEmbedder):
    """Vectors of texts, in the space of the vectors that histories have."""

    def __init__(self) -> None:
        super().__init__(3)
        self.model_name = "m"


def opened(clock: FixedClock) -> Database:
    """An empty database that texts can be asked of."""
    return koru_delta.open(clock=clock, embedder=Texts())


class Told:
    """A database, its clock, and the model of it."""

    def __init__(self, db: Database, clock: FixedClock) -> None:
        self.db = db
        self.clock = clock
        self.begun = clock.now
        self.model = Model()

    def tell(self, history: Sequence[Step]) -> None:
        """Do all of it; what the database refuses, the model is not told."""
        for verb, given in history:
            if verb == "time":
                self.clock.advance(seconds=given["seconds"])
                continue
            try:
                if verb == "configure":
                    made, intents = self._configure(given)
                elif verb == "transaction":
                    with self.db.transaction() as tx:
                        intents = [self._write(tx, *write) for write in given["writes"]]
                    made = list(tx.versions)
                else:
                    intents = [self._write(self.db, verb, given)]
                    made = []
            except KoruDeltaError:
                continue
            entries = self.model.commit(self.clock.now, intents)
            if not made:
                first = entries[0].seq - 1
                made = list(self.db.changes(first)) if verb != "configure" else []
            for entry, version in zip(entries, made, strict=True):
                assert (entry.seq, entry.operation) == (version.seq, version.operation)
                entry.id = version.id

    def _configure(self, given: dict[str, Any]) -> tuple[list[koru_delta.Version], list[Intent]]:
        settings = {"fields": None, "stemmer": None, **given["settings"]}
        version = self.db.configure_text(given["namespace"], **settings)
        return [version], [Intent("put", "$text", given["namespace"], settings)]

    def _write(self, to: Any, verb: str, given: dict[str, Any]) -> Intent:
        namespace, key = given["namespace"], given["key"]
        if verb in ("hide", "unhide"):
            target = self._version(given["version"])
            getattr(to, verb)(namespace, key, version=target)
            return Intent(verb, namespace, key, target=target)
        extra = dict(given.get("extra", {}))
        times = {
            name: self.begun + extra.pop(name) * UNIT
            for name in ("valid_from", "valid_to")
            if name in extra
        }
        asked: dict[str, Any] = {name: moment(time) for name, time in times.items()} | extra
        named = [(kind, self._version(n)) for kind, n in given.get("causes", ())]
        causes = [(kind, identity) for kind, identity in named if identity is not None]
        if causes:
            asked["causes"] = causes
        asked |= {name: given[name] for name in ("author", "run") if given.get(name)}
        intent = Intent(verb, namespace, key, **times)
        if verb == "delete":
            to.delete(namespace, key, **asked)
            return intent
        intent.operation = "put"
        intent.ttl = extra["ttl"] * UNIT if extra else None
        intent.supersedes = tuple(identity for kind, identity in causes if kind == "supersedes")
        intent.value = given["value"]
        if verb == "put":
            to.put(namespace, key, given["value"], **asked)
            return intent
        vector = fitted(given["vector"])
        intent.vectors = {"m": tuple(vector)}
        if given["value"] is not KEEP:
            asked["value"] = given["value"]
        to.embed(namespace, key, vector, model="m", metric=METRICS[namespace], **asked)
        return intent

    def _version(self, number: int | None) -> str | None:
        """One of the puts so far, by a number that may be too great."""
        puts = [e for e in self.model.entries if e.operation == "put" and e.id
                and not e.namespace.startswith("$")]  # fmt: skip
        return puts[number % len(puts)].id if number is not None and puts else None

    def metric(self, namespace: str) -> Any:
        """How its vectors measure."""
        return METRICS[namespace]

    def cut(self, chance: random.Random) -> Moment:
        """The end of a commit, or a time between two."""
        late = self.model.commits[-len(self.model.commits) // 3 :]
        every = [Moment(0, self.begun - 1), *self.model.commits]
        commit = chance.choice(late if late and chance.random() < 0.7 else every)
        if chance.random() < 0.5:
            return commit
        now = self.model.now(self.clock.now).clock
        return self.model.at_time(min(now, commit.clock + chance.randint(0, 5 * UNIT)))

    def ref(self, cut: Moment) -> Any:
        """The moment as the database takes it."""
        return cut.seq if cut in self.model.commits else moment(cut.clock)

    def replayed(self, cut: Moment) -> Database:
        """A fresh database that got the log up to a cut, and no further."""
        lines = io.BytesIO()
        self.db.export_log(lines, as_of=self.ref(cut))
        lines.seek(0)
        fresh = opened(self.clock)
        fresh.import_log(lines)
        return fresh

    # What the model says of texts

    def texts(
        self, namespace: str, cut: Moment, valid_at: int, passes: Callable[[Any], bool]
    ) -> tuple[dict[str, list[str]], dict[str, Entry]]:
        """Of each key that may be found its words, and its entry."""
        chosen = self.model.answer("$text", namespace, cut, cut.clock)
        settings = {} if chosen is None else chosen.value
        found = {
            key: entry
            for key, entry in self.model.searched(namespace, cut, valid_at).items()
            if passes(entry.value)
        }
        words = {}
        for key, entry in found.items():
            text = _text(entry.value, settings.get("fields"))
            words[key] = [_stem(word, settings.get("stemmer")) for word in text.split()]
        return words, found


class Clause(NamedTuple):
    """A part of a query: words in a row, of which the last may be the beginning of one."""

    occur: str  # "", "+" or "-"
    words: tuple[str, ...]
    prefix: bool = False

    def __str__(self) -> str:
        if self.prefix:
            return f"{self.words[0]}*"
        if len(self.words) > 1:
            return f'{self.occur}"{" ".join(self.words)}"'
        return f"{self.occur}{self.words[0]}"

    def times(self, words: Sequence[str], stemmer: str | None) -> int:
        """How often it occurs."""
        wanted = [_stem(word, None if self.prefix else stemmer) for word in self.words]
        if self.prefix:
            return sum(word.startswith(wanted[0]) for word in words)
        size = len(wanted)
        return sum(list(words[at : at + size]) == wanted for at in range(len(words) - size + 1))


def question(chance: random.Random) -> list[Clause]:
    """What somebody asks: a few words, sometimes with operators."""
    found = []
    for _ in range(chance.randint(1, 4)):
        kind = chance.choices(["word", "phrase", "prefix"], [5, 1, 1])[0]
        occur = chance.choices(["", "+", "-"], [6, 1, 1])[0]
        if kind == "prefix":
            found.append(Clause("", (chance.choice(["ra", "run", "s"]),), prefix=True))
        else:
            size = 1 if kind == "word" else 2
            found.append(Clause(occur, tuple(chance.choices(WORDS, k=size))))
    return found


def written(query: Sequence[Clause]) -> str:
    """The query as one writes it."""
    return " ".join(map(str, query))


def bm25(
    query: Sequence[Clause], texts: dict[str, list[str]], stemmer: str | None
) -> dict[str, float]:
    """Of each text that answers its score, by the formula and nothing else."""
    count = len(texts)
    average = sum(map(len, texts.values())) / count if count else 0.0

    def has(clause: Clause, words: Sequence[str]) -> bool:
        return clause.times(words, stemmer) > 0

    scored = [clause for clause in query if clause.occur != "-"]
    must = [clause for clause in scored if clause.occur == "+"]
    among = [sum(has(clause, words) for words in texts.values()) for clause in scored]
    found = {}
    for key, words in texts.items():
        if any(has(clause, words) for clause in query if clause.occur == "-"):
            continue
        if not (all(has(c, words) for c in must) if must else any(has(c, words) for c in scored)):
            continue
        score = 0.0
        for clause, df in zip(scored, among, strict=True):
            times = clause.times(words, stemmer)
            idf = math.log(1 + (count - df + 0.5) / (df + 0.5))
            norm = 1.2 * (0.25 + 0.75 * len(words) / average) if average else 1.0
            score += idf * times / (times + norm) if times else 0.0
        found[key] = score
    return found


def fitted(vector: Sequence[float]) -> list[float]:
    """A vector that is not all zero."""
    return [float(number) for number in vector] if any(vector) else [1.0] * len(vector)


def _text(value: Any, fields: list[str] | None) -> str:
    if fields:
        return "\n".join(text for name in fields for text in _strings(_field(value, name, None)))
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        return str(value["text"])
    return "\n".join(_strings(value))


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for each in value for text in _strings(each)]
    if isinstance(value, dict):
        return [text for key in sorted(value) for text in _strings(value[key])]
    return []


def _stem(word: str, stemmer: str | None) -> str:
    return STEMS.get(word, word) if stemmer else word


def _field(value: Any, name: str, default: Any) -> Any:
    return value.get(name, default) if isinstance(value, dict) else default
