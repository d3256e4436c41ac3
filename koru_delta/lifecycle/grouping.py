"""Which events belong together, by what is wished of a namespace: fields, likeness, age."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from koru_delta.errors import InvalidDataError
from koru_delta.values import Value

Vectors = Mapping[int, npt.NDArray[np.float32]]

AT_MOST: Final = 100  # sources of one summary: a commit keeps other writers waiting
_WINDOW: Final = 2_000  # events, in order of time, that are looked at for likeness together
_LONGEST_NAME: Final = 512


def days(length: timedelta) -> str:
    """A length of time in words.

    >>> days(timedelta(days=1)), days(timedelta(hours=36))
    ('1 day', '1.5 days')
    """
    number = length / timedelta(days=1)
    return f"{number:,g} {'day' if number == 1 else 'days'}"


@dataclass(frozen=True, slots=True)
class Consolidate:
    """What is wished: which old events become a summary together.

    Only what is a string, or has one under `text`, and does not end by itself (by a ttl or a
    `valid_to`) is ever taken. The summary is valid from when the last of its sources is. It
    may quote them, so whoever erases one of them erases the summary, too.

    Attributes:
        by: Fields (dotted paths) that events of a group have in common. Events that lack one
            are left alone, unless `alike` groups them.
        older_than: Since they were written, or anything was said of them (so also since they
            were brought back).
        at_least: Fewer are left as they are; up to 100 become one summary.
        below: Importance below which they are taken, in [0, 1] or above: see
            `Lifecycle.importance`.
        alike: Take apart what is not alike: the least cosine of a vector to those of its
            group. None goes by fields alone.
        keys: A pattern of keys, such as "event-*".
        text: Where the text of a value is, and will be in that of the summary.
        sentences: How many of them an extractive summary takes.
        summarizer: The name of the callable that summarizes, set by `policy(summarizer=)`;
            None is sentences taken from the texts.
    """

    by: Sequence[str] = ("session",)
    older_than: timedelta = timedelta(days=30)
    at_least: int = 5
    below: float = 0.3
    alike: float | None = None
    keys: str = "*"
    text: str = "text"
    sentences: int = 5
    summarizer: str | None = None

    def __str__(self) -> str:
        alike = "" if self.alike is None else f", alike by {self.alike:g}"
        made = "" if self.summarizer is None else f" made by {self.summarizer}"
        return (
            f"of {self.keys!r}, {self.at_least} or more of one {' and '.join(self.by) or 'kind'}"
            f"{alike}, {days(self.older_than)} old and of importance below {self.below:g}, become "
            f"a summary{made}"
        )

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            InvalidDataError: it does not.
        """
        given: Any = self.by
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise InvalidDataError(f"by is a list of fields, such as ['session'], not {given!r}")
        object.__setattr__(self, "by", tuple(given))
        for what, name in (*(("by", name) for name in given), ("text", self.text)):
            if not isinstance(name, str) or not all(name.split(".")):
                raise InvalidDataError(f"{what} names fields by dotted paths, not {name!r}")
        if not given and self.alike is None:
            raise InvalidDataError("say by= which fields, or how alike=, events are to be grouped")
        if self.alike is not None and not (_is_number(self.alike) and -1 <= self.alike <= 1):
            raise InvalidDataError(f"alike is a cosine in [-1, 1], not {self.alike!r}")
        if not isinstance(self.older_than, timedelta) or self.older_than < timedelta(0):
            raise InvalidDataError(f"older_than is a timedelta from 0 on, not {self.older_than!r}")
        if type(self.at_least) is not int or not 2 <= self.at_least <= AT_MOST:
            raise InvalidDataError(f"at_least is 2 to {AT_MOST}, not {self.at_least!r}")
        if not _is_number(self.below) or not self.below > 0:
            raise InvalidDataError(f"below is a number above 0, not {self.below!r}")
        if type(self.sentences) is not int or self.sentences < 1:
            raise InvalidDataError(f"sentences is 1 or more, not {self.sentences!r}")
        if (
            not isinstance(self.keys, str)
            or not 0 < len(self.keys.encode("utf-8", "replace")) <= _LONGEST_NAME
        ):
            raise InvalidDataError(f"keys is a pattern such as 'event-*', not {self.keys!r}")

    def to_json(self) -> dict[str, Value]:
        """As it is kept in the log."""
        return {
            "by": list(self.by), "older_than": self.older_than // timedelta(microseconds=1),
            "at_least": self.at_least, "below": self.below, "alike": self.alike,
            "keys": self.keys, "text": self.text, "sentences": self.sentences,
            "summarizer": self.summarizer,
        }  # fmt: skip

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Consolidate:
        """From the log."""
        return cls(**{**said, "older_than": timedelta(microseconds=said["older_than"])})


class Event(NamedTuple):
    """An event that may be taken."""

    when: int  # when it happened, in microseconds
    key: str
    seq: int
    id: bytes


def at_path(value: Value, path: str) -> Value:
    """What is under a dotted path; None if nothing is.

    >>> at_path({"of": {"session": 7}}, "of.session"), at_path("text", "of")
    (7, None)
    """
    for name in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def text_of(value: Value, path: str) -> str | None:
    """The text of a value: itself, or what is under the path; None if there is none."""
    found = value if isinstance(value, str) else at_path(value, path)
    return found if isinstance(found, str) and found.strip() else None


def summary_value(values: Sequence[Value], wish: Consolidate, text: str) -> Value:
    """The value of a summary: the text, what all values have in common, lists joined.

    Where all values are strings, it is the text alone.

    >>> given = [{"text": "a", "at": "home", "tags": ["x"]}, {"text": "b", "tags": ["y", "x"]}]
    >>> summary_value(given, Consolidate(), "both")
    {'tags': ['x', 'y'], 'text': 'both', 'summary_of': 2}
    """
    if all(isinstance(value, str) for value in values):
        return text
    known: list[dict[str, Any]] = [value for value in values if isinstance(value, dict)]
    made: dict[str, Any] = {}
    for name in dict.fromkeys(name for value in known for name in value):
        held = [value[name] for value in known if name in value]
        if all(isinstance(each, list) for each in held):
            made[name] = joined = []
            for item in (item for each in held for item in each):
                if item not in joined:
                    joined.append(item)
        elif len(held) == len(values) and all(each == held[0] for each in held):
            made[name] = held[0]
    for name in wish.by:
        held = [at_path(value, name) for value in values]
        if held[0] is not None and all(each == held[0] for each in held):
            _set(made, name, held[0])
    _set(made, wish.text, text)
    made["summary_of"] = len(values)
    return made


def _set(value: dict[str, Any], path: str, field: Value) -> None:
    """Put something under a dotted path."""
    *parents, last = path.split(".")
    for name in parents:
        value[name] = dict(value[name]) if isinstance(value.get(name), dict) else {}
        value = value[name]
    value[last] = field


def alike(
    events: Sequence[Event], vectors_of: Callable[[Sequence[Event]], Vectors], least: float
) -> Iterator[list[Event]]:
    """Parts of events, given in order of time, of which each is like the mean of those before.

    Each goes to the part it is most like; what has no vector is in none.

    Args:
        vectors_of: The vectors of some events, by their places; all of one length.
        least: Cosine, in [-1, 1].
    """
    for start in range(0, len(events), _WINDOW):
        vectors = vectors_of(events[start : start + _WINDOW])
        some = [event for event in events[start : start + _WINDOW] if event.seq in vectors]
        parts: list[list[Event]] = []
        sums = np.zeros((len(some), len(next(iter(vectors.values()), ()))))
        means = np.zeros_like(sums)
        for event in some:
            row = vectors[event.seq].astype(np.float64)
            length = float(np.linalg.norm(row))
            if not length:
                continue
            row /= length
            likeness = means[: len(parts)] @ row
            best = int(likeness.argmax()) if parts else -1
            if best < 0 or likeness[best] < least:
                best = len(parts)
                parts.append([])
            parts[best].append(event)
            sums[best] += row
            length = float(np.linalg.norm(sums[best]))
            means[best] = sums[best] / length if length else row
        yield from parts


def portions(events: Sequence[Event]) -> list[Sequence[Event]]:
    """The same in parts of about one size, each small enough for one summary.

    >>> [len(part) for part in portions([Event(0, "", n, b"") for n in range(250)])]
    [83, 83, 84]
    """
    count = -(-len(events) // AT_MOST)
    borders = [len(events) * each // count for each in range(count + 1)] if count else []
    return [events[low:high] for low, high in pairwise(borders)]


def _is_number(given: object) -> bool:
    return isinstance(given, (int, float)) and not isinstance(given, bool)
