"""Tokens of tiktoken, counted offline and only once.

A text is encoded once. How many tokens a chunk is could differ from what that says only near
its ends, where the chunk shows the encoder less than the whole text did; so the ends are
encoded again, up to the next place where tokens part in any context.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import tempfile
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from koru_delta.errors import MissingExtraError

if TYPE_CHECKING:
    from tiktoken import Encoding

# What tiktoken calls the table of an encoding in its cache, and the table's SHA-256.
_TABLES: Final = {
    "cl100k_base": (
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
    "o200k_base": (
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
}
# Packages that carry tables under those names.
_CARRIERS: Final = (
    ("llama_index", "core/_static/tiktoken_cache"),
    ("litellm", "litellm_core_utils/tokenizers"),
)

# A letter or digit and then one of these are never in one token: no pattern of either encoding
# has both, and none looks behind. (Not before an apostrophe: o200k has `don't` in one piece.)
_PARTS: Final = re.compile(
    r"(?<=[^\W_])(?=[ \t\n\r.,;:!?()\"\u2026\u3002\u3001\uff0c\uff01\uff1f])"
)
_NEAR: Final = 48
_FAR: Final = 400
_SEGMENT: Final = 1 << 17  # characters encoded at once: longer runs exhaust the encoder's stack
_GAP: Final = re.compile(r"(?<!\s)\s{512,}+")  # for the same reason no chunk goes across one
_STEP: Final = 64
_SAMPLED_GAP: Final = re.compile(r"\s{7}")  # what every 64th character shows of a gap
_SURROGATE: Final = re.compile("[\ud800-\udfff]")

_LOADING = Lock()


def encoding_named(name: str) -> Encoding:
    """The encoding, from a table on this machine; nothing is downloaded.

    Looked for in `TIKTOKEN_CACHE_DIR`, `DATA_GYM_CACHE_DIR`, tiktoken's default cache, and the
    packages llama-index-core and litellm, which are not imported. A table whose hash is
    wrong is passed over.

    Raises:
        MissingExtraError: tiktoken is not installed, or no table was found.
    """
    try:
        from tiktoken import get_encoding
        from tiktoken.registry import ENCODINGS
    except ImportError as error:
        raise MissingExtraError("counting tokens", "tokens") from error
    with _LOADING:
        if name in ENCODINGS:
            return ENCODINGS[name]
        folder = _folder_with_table(name)
        before = os.environ.get("TIKTOKEN_CACHE_DIR")
        os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
        try:
            return get_encoding(name)
        finally:
            if before is None:
                del os.environ["TIKTOKEN_CACHE_DIR"]
            else:
                os.environ["TIKTOKEN_CACHE_DIR"] = before


def _folder_with_table(name: str) -> Path:
    file, digest = _TABLES[name]
    for folder in _folders():
        try:
            data = (folder / file).read_bytes()
        except OSError:
            continue
        if hashlib.sha256(data).hexdigest() == digest:
            return folder
    raise MissingExtraError(
        f"the table of {name} (neither TIKTOKEN_CACHE_DIR nor an installed package has it whole)",
        "tokens",
    )


def _folders() -> Iterator[Path]:
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if os.environ.get(variable):
            yield Path(os.environ[variable])
    yield Path(tempfile.gettempdir(), "data-gym-cache")
    for package, inside in _CARRIERS:
        found = importlib.util.find_spec(package)
        for place in (found and found.submodule_search_locations) or ():
            yield Path(place, inside)


@cache
def _lengths(name: str) -> NDArray[np.int64]:
    """How many bytes each token is."""
    encoding = encoding_named(name)
    lengths = np.zeros(encoding.n_vocab, np.int64)
    for value in encoding.token_byte_values():
        lengths[encoding.encode_single_token(value)] = len(value)
    return lengths


class Tokens:
    """Counts the tokens of one text."""

    def __init__(self, text: str, name: str) -> None:
        self._text = text
        self._encoding = encoding_named(name)
        self._counts: dict[str, int] = {}  # of short pieces: words and full stops come again
        # tiktoken reads a broken text as UTF-16 with replacements: never quite where we think.
        self._broken = not text.isascii() and _SURROGATE.search(text) is not None
        gaps: list[tuple[int, int]] = []
        if _SAMPLED_GAP.search(text[::_STEP]) is not None:
            gaps = [match.span() for match in _GAP.finditer(text)]
        self._gaps = [start for start, _ in gaps]
        self._doubtful: list[int] = []  # where a segment ends though a token may not
        readable = _SURROGATE.sub("\ufffd", text) if self._broken else text
        # For every token the character after its last; for a piece of one, that one counts.
        self._ends = self._encode(readable, gaps, _lengths(name))

    def limit(self, start: int, allowance: int) -> int:
        """See `Ruler`."""
        last = self._before(start) + max(allowance, 1) - 1
        found = int(self._ends[last]) if last < len(self._ends) else len(self._text)
        if self._gaps:
            gap = bisect_right(self._gaps, start)
            if gap < len(self._gaps):
                found = min(found, self._gaps[gap])
        return max(found, start + 1)

    def back(self, end: int, allowance: int) -> int:
        """See `Ruler`."""
        first = self._before(end) - allowance
        return int(self._ends[first - 1]) if first > 0 else 0

    def size(self, start: int, end: int) -> int:
        """See `Ruler`."""
        text = self._text
        if self._broken:
            return self._count(start, end)
        head = _PARTS.search(text, start + 1, min(end, start + _FAR))
        if head is None:
            return self._count(start, end)
        first = head.start()
        last = first
        for reach in (_NEAR, _FAR):
            for match in _PARTS.finditer(text, max(first, end - reach), end):
                last = match.start()
            if last > first:
                break
        if last == first or bisect_right(self._doubtful, last) > bisect_right(
            self._doubtful, first
        ):
            return self._count(start, end)
        between = self._before(last) - self._before(first)
        return self._count(start, first) + between + self._count(last, end)

    def _count(self, start: int, end: int) -> int:
        piece = self._text[start:end]
        count = self._counts.get(piece)
        if count is None:
            count = len(self._encoding.encode(piece, disallowed_special=()))
            if len(piece) <= _NEAR:
                self._counts[piece] = count
        return count

    def _before(self, position: int) -> int:
        """How many tokens end at or before `position`."""
        return int(self._ends.searchsorted(position, "right"))

    def _encode(
        self, text: str, gaps: list[tuple[int, int]], lengths: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        found: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        position = 0
        for gap, after in [*gaps, (len(text), len(text))]:
            while position < gap:
                stop = self._stop(text, position, gap)
                part = text[position:stop]
                tokens = self._encoding.encode_to_numpy(part, disallowed_special=())
                ends = np.cumsum(lengths[tokens])
                if not part.isascii():
                    data = np.frombuffer(part.encode(), np.uint8)
                    ends = np.cumsum((data & 0xC0) != 0x80)[ends - 1]
                found.append(ends + position)
                position = stop
            position = after
        return np.concatenate(found)

    def _stop(self, text: str, position: int, gap: int) -> int:
        if gap - position <= _SEGMENT:
            return gap
        stop = position + _SEGMENT
        for reach in (_FAR, _SEGMENT // 2):
            ends = [match.start() for match in _PARTS.finditer(text, stop - reach, stop)]
            if ends:
                return ends[-1]
        self._doubtful.append(stop)
        return stop
