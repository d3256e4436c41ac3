"""Documents and vectors to measure with: made up, and the same in every run."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
import numpy.typing as npt

_WORDS = re.findall(
    r"\w+",
    """the of and to in a is that for it as was with be by on not he his but at are this have
    from or had an they which one you were her all she there would their we him been has when
    who will more no if out so said what up its about into than them can only other new some""",
)


def text(rng: random.Random, characters: int) -> str:
    """Words of about this length together."""
    words: list[str] = []
    length = 0
    while length < characters:
        word = rng.choice(_WORDS)
        words.append(word)
        length += len(word) + 1
    return " ".join(words)[:characters]


def document(number: int, characters: int = 830) -> dict[str, Any]:
    """A JSON object of 8 fields; about 1 KB of canonical bytes by default."""
    rng = random.Random(number)
    return {
        "id": number,
        "title": text(rng, 40),
        "body": text(rng, characters),
        "author": f"user-{number % 97}",
        "score": rng.random(),
        "published": number % 3 > 0,
        "tags": [rng.choice(_WORDS) for _ in range(3)],
        "size": {"width": number % 640, "height": number % 480},
    }


def unit_vectors(count: int, dimensions: int, seed: int) -> npt.NDArray[np.float32]:
    """Random float32 rows of length 1."""
    rows = np.random.default_rng(seed).standard_normal((count, dimensions))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)
