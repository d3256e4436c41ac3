"""Removing from index files what was erased from the log.

Files under `index/` hold copies of vectors, and words of texts. Whoever erases removes the
files of that namespace; they are made anew from what is left. Who writes such a file holds the
folder's lock and looks first whether something was erased that it does not know of; here the
lock is waited for. So once this is done no copy is left, and none comes after it.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from koru_delta.search import cache
from koru_delta.search.cache import CacheFile, Unusable
from koru_delta.storage import SqliteEngine


def scrub(engine: SqliteEngine, namespaces: Collection[str]) -> None:
    """Remove the index files of some namespaces.

    Raises:
        OSError: one of them cannot be removed.
    """
    index = engine.directory / "index"
    for namespace in namespaces:
        for space in engine.spaces(namespace):
            _empty(index / str(space.space_id))
    texts = index / "text"
    if texts.is_dir():
        with cache.writing(texts, wait=True):
            cache.sweep(texts)
            for file in texts.glob("text-*.kdx"):
                if _is_of(file, namespaces):
                    file.unlink(missing_ok=True)


def _empty(folder: Path) -> None:
    if not folder.is_dir():
        return
    with cache.writing(folder, wait=True):
        cache.sweep(folder)
        for pattern in ("state-*", "vectors-*", "signs-*", "graph.*"):
            for file in folder.glob(pattern):
                file.unlink(missing_ok=True)


def _is_of(file: Path, namespaces: Collection[str]) -> bool:
    """Whether a file of words is one of these namespaces'; one that cannot be read may be."""
    try:
        opened = CacheFile(file)
    except Unusable:
        return True
    opened.close()
    return opened.about.get("namespace") in namespaces
