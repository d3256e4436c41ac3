"""What integrations ask for by name, each loaded when it is first asked for.

>>> from koru_delta.integrations import CausalFilter
>>> CausalFilter(run="nightly").exclude_superseded
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from koru_delta.search.causality import CausalFilter

__all__ = ["CausalFilter"]

_HOMES: Final = {"CausalFilter": "koru_delta.search.causality"}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
