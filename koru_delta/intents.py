"""What a writer means, made precise: arguments of a write turned into log entries.

`WriteOptions` is shared by every verb that writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypedDict

from koru_delta.causal import (
    DELETE,
    ERASE,
    HIDE,
    METRICS,
    PUT,
    UNHIDE,
    Cause,
    Version,
    When,
    microseconds,
)
from koru_delta.embedders import TextEmbedder
from koru_delta.errors import (
    EmbedderError,
    InvalidDataError,
    ModelMismatchError,
    QueryError,
    UnknownCauseError,
    UnknownVersionError,
)
from koru_delta.log import CausalLog, Pending, Write
from koru_delta.log.writes import NewVector
from koru_delta.values import (
    MAX_NAMESPACE_BYTES,
    LeftOut,
    Value,
    Vector,
    VectorLike,
    as_vector,
    canonical_bytes,
    check_key,
    check_name,
    decode,
    distinction_id,
    encoded_vectors,
)

# What may be erased: a version or its id, or a key with all it ever held.
Erasable = Version | str | tuple[str, str]
CauseLike = Version | str | Pending | Cause | tuple[str, "Version | str | Pending"]


KEEP: Final[Any] = LeftOut("as it stands")
DEFAULT_MODEL: Final = "default"
_TO_EMBED: Final = "(key, vector_or_text) or (key, vector_or_text, value)"
_PAGE: Final = 500  # keys looked at together


class WriteOptions(TypedDict, total=False):
    """What every write may say of itself."""

    author: str | None
    message: str | None
    run: str | None
    causes: Sequence[CauseLike]
    ttl: float | timedelta | None
    valid_from: When | None
    valid_to: When | None
    if_match: Version | str | None
    if_last: Version | str | None
    expires_at: When | None


def tuples_of(items: Iterable[tuple[Any, ...]], form: str, *lengths: int) -> list[tuple[Any, ...]]:
    """Items to write, each a tuple of such a form and length.

    Raises:
        InvalidDataError: not that, and what came instead.
    """
    if isinstance(items, (str, bytes, Mapping)) or not isinstance(items, Iterable):
        raise InvalidDataError(f"items are many of {form}, not {type(items).__name__}")
    found = list(items)
    for number, item in enumerate(found):
        if not isinstance(item, tuple) or len(item) not in lengths:
            came = f"a tuple of {len(item)}" if isinstance(item, tuple) else type(item).__name__
            raise InvalidDataError(f"item {number} is {came}; an item is a tuple {form}")
    return found


class Intents:
    """Builds log entries from arguments; one per database."""

    def __init__(
        self,
        log: CausalLog,
        embedder: TextEmbedder | None,
        *,
        author: str | None,
        run: str | None,
    ) -> None:
        self.log = log
        self.embedder = embedder
        self.author = _text("author", author)
        self._run = _text("run", run)
        # Namespaces, with the models they have had, where the embedder's is known to be in use.
        self._in_use: set[tuple[str, tuple[str, ...]]] = set()
        self.besides_erases: Callable[[Sequence[Write]], Sequence[Write]] = lambda _: ()

    def put(self, namespace: str, key: str, value: Value, options: WriteOptions) -> Write:
        """A put of a value."""
        check_key(namespace, key)
        return self._with(Write(PUT, namespace, key, _body(namespace, key, value)), options)

    def delete(self, namespace: str, key: str, options: WriteOptions) -> Write:
        """A tombstone."""
        check_key(namespace, key)
        if options.get("ttl") is not None:
            raise InvalidDataError("a delete has no ttl; pass valid_to= to end it")
        return self._with(Write(DELETE, namespace, key), options)

    def hide(
        self,
        namespace: str,
        key: str,
        version: Version | str | Pending | None,
        options: WriteOptions,
        *,
        back: bool = False,
    ) -> Write:
        """A hide, or an unhide, of a version; None is what the key holds."""
        check_key(namespace, key)
        unfit = options.keys() - {"causes", "author", "message", "run"}
        if unfit:
            raise TypeError(f"unknown option of a hide or unhide: {', '.join(sorted(unfit))}")
        write = self._with(Write(UNHIDE if back else HIDE, namespace, key), options)
        if version is not None:
            write.target = version if isinstance(version, Pending) else self.log.full_id(version)
        return write

    def hide_many(
        self, versions: Iterable[Version | str], options: WriteOptions, *, back: bool = False
    ) -> list[Write]:
        """Hides or unhides of versions; what is so already is left out when it is written."""
        if isinstance(versions, (str, Version)) or not isinstance(versions, Iterable):
            raise InvalidDataError("versions is a list of versions or of their ids")
        writes = []
        for given in versions:
            version = given if isinstance(given, Version) else self.log.version(given)
            write = self.hide(version.namespace, version.key, version, options, back=back)
            write.missing_ok = True
            writes.append(write)
        return writes

    def erase(self, what: Erasable | Iterable[Erasable], options: WriteOptions) -> list[Write]:
        """Erases, one for each key, and what has to go with them.

        A key that is named as such is deleted as well.
        """
        unfit = options.keys() - {"causes", "author", "message", "run"}
        if unfit:
            raise TypeError(f"unknown option of an erase: {', '.join(sorted(unfit))}")
        whole: dict[tuple[str, str], None] = {}
        some: dict[tuple[str, str], list[str]] = {}
        for each in _erasables(what):
            if isinstance(each, tuple):
                check_key(*each)
                whole[each] = None
            else:
                version = each if isinstance(each, Version) else self.log.version(each)
                check_key(version.namespace, version.key)
                some.setdefault((version.namespace, version.key), []).append(version.id)
        writes: list[Write] = []
        for place in [*whole, *(place for place in some if place not in whole)]:
            write = self._with(Write(ERASE, *place, missing_ok=True), options)
            write.every, write.targets = place in whole, some.get(place, ())
            writes.append(write)
            if write.every:
                gone = self._with(Write(DELETE, *place, missing_ok=True), options)
                writes.append(gone)
        return [*writes, *self.besides_erases(writes)]

    def embed(
        self,
        namespace: str,
        key: str,
        given: VectorLike | str,
        value: Value,
        *,
        keep: bool,
        model: str | None,
        metric: str | None,
        options: WriteOptions,
    ) -> Write:
        """A put whose version carries a vector; `keep` leaves the value as it stands."""
        items = [(key, given)] if keep else [(key, given, value)]
        return self.embed_many(namespace, items, model=model, metric=metric, options=options)[0]

    def embed_many(
        self,
        namespace: str,
        items: Iterable[tuple[Any, ...]],
        *,
        model: str | None,
        metric: str | None,
        options: WriteOptions,
    ) -> list[Write]:
        """Embeds of `(key, vector_or_text)` or `(key, vector_or_text, value)`."""
        if metric is not None and metric not in METRICS:
            raise QueryError(f"unknown metric {metric!r}; the metrics are {', '.join(METRICS)}")
        items = tuples_of(items, _TO_EMBED, 2, 3)
        for item in items:
            check_key(namespace, item[0])
        texts = [item[1] for item in items if isinstance(item[1], str)]
        if model is not None:
            check_name("model", model, MAX_NAMESPACE_BYTES)
        embedded = self.embed_texts(texts) if texts else []
        name = model or self._model_for(namespace, len(embedded[0]) if embedded else None)
        each = iter(embedded)
        vectors = _encoded(
            namespace,
            [item[0] for item in items],
            [next(each) if isinstance(item[1], str) else item[1] for item in items],
        )
        template = self._with(Write(PUT, namespace, "-"), options)
        writes = []
        for item, vector in zip(items, vectors, strict=True):
            body: bytes | None = None
            fallback: bytes | None = None
            if len(item) == 3:
                body = _body(namespace, item[0], item[2])
            elif isinstance(item[1], str):
                fallback = _body(namespace, item[0], {"text": item[1]})
            new = NewVector(name, metric, distinction_id("vec", vector), vector)
            writes.append(template.like(item[0], body, fallback, (new,)))
        return writes

    def embed_texts(self, texts: Sequence[str]) -> Sequence[Vector]:
        """Vectors for texts, by the database's embedder.

        Raises:
            EmbedderError: there is none, or it failed.
        """
        if self.embedder is None:
            raise EmbedderError(
                "text was given and the database has no embedder; open it with embedder= "
                "(koru_delta.embedders.local() needs no network), or pass a vector; to search by "
                'words alone: mode="text"'
            )
        return [as_vector(row) for row in self.embedder.embed_documents(list(texts))]

    def _model_for(self, namespace: str, of_text: int | None) -> str:
        """The model a vector is filed under when the caller named none.

        Args:
            of_text: How many numbers the embedder made of a text, if any was given.

        Raises:
            ModelMismatchError: the namespace has, or had, several; or a text would begin a second
                one beside a model that was named and is in use.
        """
        spaces = self.log.engine.spaces(namespace)
        known = tuple(space.model for space in spaces)
        if of_text is not None and self.embedder is not None:
            # What was embedded elsewhere and given no name is taken for this embedder's, as it
            # is when text is searched for.
            unnamed = [space.dimensions for space in spaces if space.model == DEFAULT_MODEL]
            if len(spaces) == 1 and unnamed == [of_text]:
                return DEFAULT_MODEL
            others = set(known) - {self.embedder.name, DEFAULT_MODEL}
            if others and (namespace, known) not in self._in_use:
                alive = self._filled_instead(namespace, self.embedder.name)
                if alive:
                    raise ModelMismatchError(namespace, self.embedder.name, alive, True)
                self._in_use.add((namespace, known))
            return self.embedder.name
        if len(known) > 1:  # after a reembed it would go to the model that was left, unfound
            raise ModelMismatchError(namespace, None, known)
        return known[0] if known else DEFAULT_MODEL

    def _filled_instead(self, namespace: str, model: str) -> tuple[str, ...]:
        """Other models, named ones, that fill a namespace in which no key has one of `model`."""
        cut, after = self.log.now(), None
        others: tuple[str, ...] = ()
        while True:
            page = self.log.engine.visible_keys(
                namespace, cut.seq, cut.clock, cut.clock, after=after, limit=_PAGE, bodies=False
            )
            for _, stored in page:
                models = decode(stored.record).get("vectors", {})
                if model in models:
                    return ()
                others = others or tuple(each for each in models if each != DEFAULT_MODEL)
            if len(page) < _PAGE:
                return others
            after = page[-1][0]

    def _with(self, write: Write, options: WriteOptions) -> Write:
        if options:
            unknown = options.keys() - WriteOptions.__annotations__.keys()
            if unknown:
                raise TypeError(f"unknown write option: {', '.join(sorted(unknown))}")
            if "if_match" in options:
                match = options["if_match"]
                write.if_match = None if match is None else self.log.full_id(match)
            if "if_last" in options:
                last = options["if_last"]
                write.if_last = None if last is None else self.log.full_id(last)
            causes = options.get("causes")
            if causes:
                write.causes = [self._cause(cause) for cause in _listed(causes)]
            ttl = options.get("ttl")
            if ttl is not None:
                write.ttl = ttl_microseconds(ttl)
            ends_at = options.get("expires_at")
            write.expires_at = None if ends_at is None else microseconds(ends_at)
            starts, ends = options.get("valid_from"), options.get("valid_to")
            write.valid_from = None if starts is None else microseconds(starts)
            write.valid_to = None if ends is None else microseconds(ends)
            write.message = _text("message", options.get("message"))
            write.author = _text("author", options.get("author"))
            write.run = _text("run", options.get("run"))
        write.author = write.author or self.author
        write.run = write.run or self._run
        return write

    def _cause(self, cause: CauseLike) -> tuple[str, str | Pending]:
        kind: str = "caused_by"
        target: object = cause
        if isinstance(cause, tuple):
            if len(cause) != 2:
                raise InvalidDataError("a cause is a version, or (kind, version)")
            kind, target = cause
        if isinstance(target, Pending):
            return kind, target
        if isinstance(target, (Version, str)):
            try:
                identity = self.log.full_id(target)
            except UnknownVersionError as error:
                raise UnknownCauseError(str(target)) from error
            assert identity is not None
            return kind, identity
        raise InvalidDataError(f"a cause names a version or its id, not {type(target).__name__}")


def _body(namespace: str, key: str, value: Value) -> bytes:
    """The bytes of a value; what cannot be stored is told of with its key."""
    try:
        return canonical_bytes(value)
    except InvalidDataError as error:
        error.namespace, error.key = namespace, key
        raise


def _encoded(namespace: str, keys: Sequence[str], given: Sequence[VectorLike]) -> list[bytes]:
    """The bytes of vectors; what is none is told of with its key."""
    try:
        return encoded_vectors(given)
    except InvalidDataError:
        for key, vector in zip(keys, given, strict=True):
            try:
                encoded_vectors([vector])
            except InvalidDataError as error:
                error.namespace, error.key = namespace, key
                raise
        raise


def _text(what: str, given: object) -> str | None:
    if given is not None and not isinstance(given, str):
        raise InvalidDataError(f"{what} is text, not {type(given).__name__}")
    return given or None


def ttl_microseconds(ttl: float | timedelta) -> int:
    """A time to live in microseconds, at least one.

    Raises:
        InvalidDataError: no positive number of seconds.
    """
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise InvalidDataError(f"ttl is seconds or a timedelta, not {type(ttl).__name__}")
    if not 0 < seconds < 1e11:
        raise InvalidDataError(f"ttl is a positive number of seconds, not {seconds!r}")
    return max(1, round(seconds * 1_000_000))


def _erasables(what: object) -> list[Erasable]:
    """What is to be erased, as a list: one thing, or many."""
    pair = isinstance(what, tuple) and len(what) == 2 and all(isinstance(w, str) for w in what)
    if pair or isinstance(what, (str, Version)):
        return [what]  # type: ignore[list-item]
    if not isinstance(what, Iterable):
        raise InvalidDataError("what is erased is versions, their ids, or (namespace, key)")
    found = list(what)
    for each in found:
        if not isinstance(each, (str, Version)) and not (
            isinstance(each, tuple) and len(each) == 2 and all(isinstance(e, str) for e in each)
        ):
            raise InvalidDataError(f"a version, its id or (namespace, key) is erased, not {each!r}")
    return found


def _listed(causes: object) -> list[CauseLike]:
    if isinstance(causes, (str, Version, Pending, Cause)) or not isinstance(causes, Sequence):
        raise InvalidDataError("causes is a list of versions or of (kind, version) pairs")
    return list(causes)
