"""What must be the same in every run that fills a namespace."""

from __future__ import annotations

from typing import NamedTuple

from koru_delta.errors import IngestError
from koru_delta.ingest.layout import runs_of
from koru_delta.ingest.store import Store
from koru_delta.values import Value


class Settings(NamedTuple):
    """What must be the same in every run that fills a namespace."""

    source: str
    include: tuple[str, ...]
    max_chars: int | None  # None where `chunking` says how
    min_chars: int | None
    max_bytes: int
    model: str | None
    chunking: Value = None


def settings_of(db: Store, namespace: str) -> dict[str, Value] | None:
    """What an earlier run into a namespace was asked to do; None if there was none."""
    runs = runs_of(namespace)
    earlier = db.list_keys(runs)
    if not earlier:
        return None
    value = db.get(runs, earlier[-1])
    return value if isinstance(value, dict) else None


def check_settings(namespace: str, earlier: Value, settings: Settings) -> None:
    """Refuse settings that are others than those of the run before.

    Raises:
        IngestError: they are.
    """
    before, now = (_cutting(each) for each in (earlier, settings._asdict()))
    if before != now:
        raise IngestError(
            f"namespace {namespace!r} was filled with chunking={before}, this run has {now}; "
            "leave chunking out to cut as before, or ingest into another namespace"
        )
    for name, given in settings._asdict().items():
        asked = list(given) if isinstance(given, tuple) else given
        if earlier.get(name) != asked:
            raise IngestError(
                f"namespace {namespace!r} was filled with {name} {_shown(earlier.get(name))}, "
                f"this run has {_shown(asked)}; ingest the same way, or into another namespace"
            )


def _cutting(settings: Value) -> str:
    """How texts are cut, as one would write it."""
    told = settings.get("chunking")
    if told is None:
        told = {
            "strategy": "content", "size": settings.get("max_chars"),
            "min_size": settings.get("min_chars"),
        }  # fmt: skip
    rest = [f"{name}={told[name]!r}" for name in sorted(told.keys() - {"strategy"})]
    return f"ChunkingConfig({', '.join([repr(told['strategy']), *rest])})"


def _shown(setting: Value) -> str:
    if setting is None or setting == []:
        return "unset"
    return ", ".join(setting) if isinstance(setting, list) else str(setting)
