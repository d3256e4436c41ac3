"""Parts of a text that are not put in one chunk with others unless they are small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from koru_delta.ingest.chunking.rulers import Ruler


@dataclass(frozen=True, slots=True)
class Section:
    """`text[start:end]`, and what it stands under, outermost first."""

    start: int
    end: int
    path: tuple[str, ...] = ()
    kind: str | None = None


def joined(
    sections: Sequence[Section], ruler: Ruler, *, most: int, least: int, by_size: bool
) -> list[Section]:
    """Put sections shorter than `least` together with their neighbours, while `most` allows.

    A small section goes with what follows where that is its sibling or stands under it, else
    with what came before. Both limits are estimates where the ruler's are.

    Args:
        sections: In order, each beginning where the last one ends.
        by_size: Several together are named as the one that fills at least half of them;
            else, and where none does, as what they have in common.
    """
    groups: list[_Group] = []
    for section in sections:
        if groups and ruler.limit(groups[-1].start, most) >= section.end:
            last = groups[-1]
            last_small = _small(last.start, last.end, ruler, least)
            if (last_small and last.goes_on_in(section)) or (
                (last_small or not section.path)
                and _small(section.start, section.end, ruler, least)
            ):
                last.add(section)
                continue
        groups.append(_Group(section))
    # What is still small had nothing after it to go with.
    kept: list[_Group] = []
    for group in groups:
        if (
            kept
            and _small(group.start, group.end, ruler, least)
            and ruler.limit(kept[-1].start, most) >= group.end
        ):
            kept[-1].add(group.whole(by_size=by_size))
        else:
            kept.append(group)
    return [group.whole(by_size=by_size) for group in kept]


class _Group:
    """Neighbours that become one section."""

    __slots__ = ("_first", "_largest", "_path", "_several", "end", "start")

    def __init__(self, section: Section) -> None:
        self.start, self.end = section.start, section.end
        self._path = section.path  # what all stand under that stand under something
        self._first = self._largest = section
        self._several = False

    def add(self, section: Section) -> None:
        self.end = section.end
        self._several = True
        if section.end - section.start > self._largest.end - self._largest.start:
            self._largest = section
        if not self._path:
            # Nothing in common, or nothing yet to have in common.
            self._path = () if self._first.path else section.path
            self._first = section if section.path else self._first
        elif section.path:
            both = zip(self._path, section.path, strict=False)
            self._path = tuple(name for name, _ in takewhile(lambda pair: pair[0] == pair[1], both))

    def goes_on_in(self, section: Section) -> bool:
        """Whether `section` is a sibling of these, or stands under them."""
        return section.path[: max(0, len(self._path) - 1)] == self._path[:-1]

    def whole(self, *, by_size: bool) -> Section:
        if not self._several:
            return self._first
        largest = self._largest
        if by_size and 2 * (largest.end - largest.start) >= self.end - self.start:
            return Section(self.start, self.end, largest.path, largest.kind)
        kind = self._first.kind if self._first.path == self._path else None
        return Section(self.start, self.end, self._path, kind)


def _small(start: int, end: int, ruler: Ruler, least: int) -> bool:
    return least > 0 and ruler.limit(start, least) > end
