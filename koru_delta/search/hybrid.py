"""One search over text and vectors: legs under one set of conditions, fused, then chosen from.

Every leg is asked under the same cut, filter and causal conditions, before its best are
taken. What they find is fused (`fusion.py`), weighted by age if asked, and chosen from:
by groups, by diversity, by pages. A cursor carries the cut, so all pages are of one
snapshot; a page after the first compares every row.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from koru_delta.causal import Cut
from koru_delta.errors import InvalidTimestampError, QueryError
from koru_delta.log import CausalLog
from koru_delta.search.causality import CompiledCausal, Condition, Narrowed
from koru_delta.search.columns import MISSING, Path, look_up
from koru_delta.search.filters import CompiledFilter
from koru_delta.search.fusion import (
    Candidate,
    Fusion,
    Leg,
    alone,
    diverse,
    fuse,
    whole_windows,
)
from koru_delta.search.nearest import VectorSpace
from koru_delta.search.records import Swap
from koru_delta.search.scoring import Hit, Target
from koru_delta.search.text.postings import Contribution
from koru_delta.values import canonical_bytes

_LEAST_WINDOW: Final = 30  # hits of each leg that are fused together
_MORE: Final = 3  # times as many hits as are wanted
_MARK_BYTES: Final = 6  # of what a cursor says was given already
_SEAL_BYTES: Final = 12
_HEAD_MOST: Final = 200  # characters of what a cursor begins with


class TextHits(NamedTuple):
    """The best of a search by words."""

    hits: list[Hit]
    complete: bool  # whether nothing else answers
    considered: int  # how many passed every filter, whatever their words


class TextLeg(Protocol):
    """Texts of a namespace, to be searched by words."""

    def search(
        self,
        text: str,
        k: int,
        cut: Cut,
        valid_at: int,
        *,
        where: CompiledFilter | None,
        causal: CompiledCausal | None,
        syntax: bool,
        swap: Swap | None,
    ) -> TextHits:
        """The `k` best by BM25, ties by key."""
        ...

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
        ...

    def explain(
        self,
        text: str,
        seqs: Sequence[int],
        cut: Cut,
        valid_at: int,
        *,
        where: CompiledFilter | None,
        causal: CompiledCausal | None,
        syntax: bool,
    ) -> list[list[Contribution]]:
        """For each of some hits what each word earned it."""
        ...


class Cursor(NamedTuple):
    """Where a search that is read in pages stands.

    Written out it is sealed with the root of the log at its cut: changed, cut short or taken
    to another log, it is told from one that a page gave.
    """

    asked: str  # a digest of the question: it must stay the same
    cut: Cut
    valid_at: int
    window: int
    given: bytes  # short digests of what earlier pages gave

    @property
    def marks(self) -> set[bytes]:
        """The digests, one by one."""
        return {self.given[at : at + _MARK_BYTES] for at in range(0, len(self.given), _MARK_BYTES)}

    def written(self, root: bytes) -> str:
        """As text; `root` is that of the log at the cut."""
        return base64.urlsafe_b64encode(self._seal(root) + self._data()).decode().rstrip("=")

    @classmethod
    def read(cls, text: object, root_at: Callable[[Cut], bytes]) -> Cursor:
        """A cursor from its text.

        Args:
            root_at: The root of the log at a cut; raises where it never was.

        Raises:
            QueryError: it is none, or of another log.
        """
        wrong = QueryError(
            "this is no cursor of this database; pass the `cursor` of the page before, unchanged"
        )
        if not isinstance(text, str):
            raise wrong
        try:
            sealed = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
            data = sealed[_SEAL_BYTES:]
            head, _, given = data.partition(b"\n")
            if len(head) > _HEAD_MOST:
                raise wrong
            asked, seq, clock, valid_at, window = json.loads(head)
        except (ValueError, TypeError) as error:
            raise wrong from error
        numbers = (seq, clock, valid_at, window)
        if not isinstance(asked, str) or any(type(number) is not int for number in numbers):
            raise wrong
        found = cls(asked, Cut(seq, clock), valid_at, window, given)
        try:
            root = root_at(found.cut)
        except InvalidTimestampError as error:
            raise wrong from error
        if found._data() != data or found._seal(root) != sealed[:_SEAL_BYTES]:
            raise wrong
        return found

    def _data(self) -> bytes:
        facts = [self.asked, *self.cut, self.valid_at, self.window]
        return json.dumps(facts, separators=(",", ":")).encode() + b"\n" + self.given

    def _seal(self, root: bytes) -> bytes:
        return blake3(root + self._data()).digest()[:_SEAL_BYTES]


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A search, checked, with its moment resolved."""

    namespace: str
    text: str
    k: int
    cut: Cut
    valid_at: int
    where: CompiledFilter | None
    causal: CompiledCausal | None
    weights: dict[str, float]  # of the legs that are asked
    fusion: Fusion
    balance: float | None  # of relevance against diversity
    threshold: float | None
    group: Path | None
    half_life: int | None  # microseconds
    syntax: bool
    bounded: bool  # by the text's +must and -not, in every leg
    recall: float
    cursor: Cursor | None
    digest: str
    window: int  # hits of each leg that are fused together
    swap: Swap | None = None  # keys to be taken as they were at another moment


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """What a search chose, best first, and how; `cursor` is for the next page, if there is one."""

    candidates: list[Candidate]
    plan: str
    approximate: bool
    considered: int
    cursor: Cursor | None


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A search with the readings it goes to: texts and vectors, as far as it asks them."""

    asked: Asked
    texts: TextLeg | None
    space: VectorSpace | None
    target: Target | None

    def ranked(self, log: CausalLog, **changes: Any) -> Ranked:
        """Ask; with some of it changed."""
        asked = replace(self.asked, **changes) if changes else self.asked
        return _rank(asked, log, self.texts, self.space, self.target)


def window_of(k: int) -> int:
    """How many hits of each leg are fused together, for `k` that are wanted."""
    return max(_LEAST_WINDOW, _MORE * k)


def digest_of(question: dict[str, Any]) -> str:
    """A short name for a question, to tell whether a cursor belongs to it."""
    return blake3(repr(sorted(question.items())).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _rank(
    asked: Asked,
    log: CausalLog,
    texts: TextLeg | None,
    space: VectorSpace | None,
    target: Target | None,
) -> Ranked:
    """Ask the legs, fuse, and choose."""
    cursor, window = asked.cursor, asked.window
    given = set[bytes]() if cursor is None else cursor.marks
    wanted = asked.k + len(given)
    depth = wanted
    if len(asked.weights) > 1 or asked.half_life is not None or asked.balance is not None:
        depth = whole_windows(wanted, window)  # what is in a whole one is settled
    elif asked.group is not None:
        depth = max(wanted, window)
    while True:
        legs, plan, approximate, considered = _ask(asked, texts, space, target, depth)
        if len(legs) > 1:
            candidates = fuse(legs, window, asked.fusion)
        else:
            candidates = alone(legs[0], window)
        complete = all(leg.complete for leg in legs)
        if asked.half_life is not None:
            _age(candidates, asked, log)
        if asked.threshold is not None:
            candidates, ended = _above(candidates, asked.threshold)
            complete |= ended
        left = _distinct(candidates, asked.group, given, log)
        if complete or len(left) >= asked.k:
            break
        depth *= 4
    if asked.balance is not None and left:
        left = _diversify(left, asked, space, log)
    chosen = left[: asked.k]
    following = None
    if asked.k and asked.balance is None and (len(left) > asked.k or not complete):
        marks = map(_mark, _names(chosen, asked.group, log))
        following = Cursor(
            asked.digest, asked.cut, asked.valid_at, window,
            (cursor.given if cursor else b"") + b"".join(marks),
        )  # fmt: skip
    return Ranked(chosen, plan, approximate, considered, following)


def _ask(
    asked: Asked,
    texts: TextLeg | None,
    space: VectorSpace | None,
    target: Target | None,
    depth: int,
) -> tuple[list[Leg], str, bool, int]:
    """The rankings, how they were found, whether something may be missing, rows looked at."""
    legs: list[Leg] = []
    plans: list[str] = []
    approximate = False
    considered = 0
    if "vector" in asked.weights:
        hits: Sequence[Hit] = ()
        complete = True
        if space is not None and target is not None:
            causal: Condition | None = asked.causal
            swap = asked.swap
            if asked.bounded and texts is not None:
                causal = texts.bound(
                    asked.text, asked.cut, asked.valid_at, where=asked.where, causal=asked.causal,
                    syntax=asked.syntax, swap=swap,
                )  # fmt: skip
                if swap is not None and isinstance(causal, Narrowed):
                    swap = replace(swap, causal=causal.besides(swap.causal))
            found = space.search(
                target, depth, asked.cut, asked.valid_at, where=asked.where,
                causal=causal, recall=1.0 if asked.cursor is not None else asked.recall,
                swap=swap,
            )  # fmt: skip
            hits, approximate, considered = found.hits, found.approximate, found.considered
            complete = len(hits) >= considered
            plans.append(found.way)
        legs.append(Leg("vector", asked.weights["vector"], hits, complete))
    if "text" in asked.weights:
        hits, complete = (), True
        if texts is not None and asked.text.strip():
            hits, complete, passing = texts.search(
                asked.text, depth, asked.cut, asked.valid_at, where=asked.where,
                causal=asked.causal, syntax=asked.syntax, swap=asked.swap,
            )  # fmt: skip
            considered = max(considered, passing)
            plans.append("bm25")
        legs.append(Leg("text", asked.weights["text"], hits, complete))
    return legs, "+".join(plans) or "none", approximate, considered


def _age(candidates: list[Candidate], asked: Asked, log: CausalLog) -> None:
    """Halve scores for every half-life since a version began to be true.

    Each window is put in order anew. Scores below 0 have no half, and stay.
    """
    assert asked.half_life is not None
    versions = log.versions([each.seq for each in candidates])
    for each, version in zip(candidates, versions, strict=True):
        begun = int(version.record().get("valid_from", version.tx_time))
        decay = 0.5 ** (max(0, asked.valid_at - begun) / asked.half_life)
        if each.score < 0:
            continue
        each.score *= decay
        each.decay = decay
    candidates.sort(key=lambda each: (each.window, -each.score, each.key))


def _above(candidates: list[Candidate], threshold: float) -> tuple[list[Candidate], bool]:
    """The candidates that reach a threshold, and whether none that lies deeper can.

    Before age is looked at, scores fall from window to window.
    """
    enough = [each for each in candidates if each.score >= threshold]
    return enough, any(each.score / each.decay < threshold for each in candidates)


def _distinct(
    candidates: list[Candidate], group: Path | None, given: set[bytes], log: CausalLog
) -> list[Candidate]:
    """The best of each group, of those that earlier pages did not give."""
    if group is None and not given:  # each key is there once
        return candidates
    seen = set(given)
    left: list[Candidate] = []
    for each, name in zip(candidates, _names(candidates, group, log), strict=True):
        mark = _mark(name)
        if mark not in seen:
            seen.add(mark)
            left.append(each)
    return left


def _names(candidates: Sequence[Candidate], group: Path | None, log: CausalLog) -> list[bytes]:
    """What each candidate counts as: its key, or what its value says at a path."""
    names = [b"k" + each.key.encode("utf-8", "surrogatepass") for each in candidates]
    if group is None:
        return names
    versions = log.versions([each.seq for each in candidates])
    for place, version in enumerate(versions):
        if version.is_erased:  # since it was found
            continue
        found = look_up(version.value, group)
        if found is not MISSING:
            names[place] = b"g" + canonical_bytes(found)
    return names


def _mark(name: bytes) -> bytes:
    return blake3(name).digest()[:_MARK_BYTES]


def _diversify(
    left: list[Candidate], asked: Asked, space: VectorSpace | None, log: CausalLog
) -> list[Candidate]:
    assert asked.balance is not None
    pool = left[: asked.window]
    vectors = _vectors_of(pool, space, log)
    by_cosine = space is not None and space.space.metric == "cosine" and "text" not in asked.weights
    order = diverse(
        [each.score for each in pool], vectors, len(pool), asked.balance, cosines=by_cosine
    )
    return [pool[place] for place in order]


def _vectors_of(
    candidates: Sequence[Candidate], space: VectorSpace | None, log: CausalLog
) -> npt.NDArray[np.float32]:
    """Their vectors of one model; zeros for what has none."""
    if space is None:
        return np.zeros((len(candidates), 1), dtype=np.float32)
    found = np.zeros((len(candidates), space.space.dimensions), dtype=np.float32)
    for place, each in enumerate(candidates):
        for model, _, _, _, data in log.engine.vectors_at(each.seq):
            if model == space.space.model:
                found[place] = np.frombuffer(data, dtype="<f4")
    return found
