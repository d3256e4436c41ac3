"""Numbers by numbers: many in arrays, sixteen bytes each, and what came since in a dict."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ITEM_BYTES = 120  # of what is in a dict, about
Numbers = npt.NDArray[np.int64]
_NONE = -1


class Lookup:
    """A dict from numbers to numbers that are not negative. One thread at a time changes it."""

    def __init__(self, keys: Numbers, values: Numbers) -> None:
        """Begin with these; the arrays become this object's own."""
        if len(keys) > 1 and not (keys[:-1] < keys[1:]).all():
            order = np.argsort(keys, kind="stable")
            keys, values = keys[order], values[order]
        self._keys, self._values = keys, values
        self._last = int(keys[-1]) if len(keys) else _NONE  # new keys are mostly higher
        self._fresh: dict[int, int] = {}

    @property
    def fresh(self) -> int:
        """How many are in a dict."""
        return len(self._fresh)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self._keys.nbytes + self._values.nbytes

    def get(self, key: int) -> int | None:
        """What a key stands for, if anything."""
        place = None if key > self._last else self._place(key)
        if place is None:
            return self._fresh.get(key)
        value = int(self._values[place])
        return None if value == _NONE else value

    def pop(self, key: int) -> int | None:
        """Likewise; from now on it stands for nothing."""
        place = None if key > self._last else self._place(key)
        if place is None:
            return self._fresh.pop(key, None)
        value = int(self._values[place])
        self._values[place] = _NONE
        return None if value == _NONE else value

    def put(self, key: int, value: int) -> None:
        """Let a key stand for a number."""
        place = None if key > self._last else self._place(key)
        if place is None:
            self._fresh[key] = value
        else:
            self._values[place] = value

    def _place(self, key: int) -> int | None:
        place = int(self._keys.searchsorted(key))
        return place if place < len(self._keys) and self._keys[place] == key else None
