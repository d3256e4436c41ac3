"""The handle of whoever opened a database, which the verbs that change something stand on."""

from __future__ import annotations

from pathlib import Path

from koru_delta.database.reads import ReadVerbs
from koru_delta.embedders import TextEmbedder
from koru_delta.errors import ReadOnlyError


class Opened(ReadVerbs):
    """An open database: it reads, and tells where it is and what may be done with it."""

    @property
    def directory(self) -> Path | None:
        """Where the database lives, or None in memory."""
        return self._log.engine.path

    @property
    def embedder(self) -> TextEmbedder | None:
        """What turns text to vectors here, or None."""
        return self._intents.embedder

    @property
    def read_only(self) -> bool:
        """Whether writes are refused."""
        return self._log.engine.read_only

    def _check_writable(self) -> None:
        if self.read_only:
            raise ReadOnlyError(f"{self.directory} was opened with read_only=True")
