"""Workspaces, which are built on all that writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from koru_delta.database.erasing import EraseVerbs
from koru_delta.database.expiring import ExpireVerbs
from koru_delta.database.ingesting import IngestVerbs
from koru_delta.database.lifecycle import LifecycleVerbs
from koru_delta.database.writes import WriteVerbs
from koru_delta.embedders import Embedder

if TYPE_CHECKING:  # loaded where it is used
    from koru_delta.workspace import Workspace


class WorkspaceVerbs(LifecycleVerbs, EraseVerbs, ExpireVerbs, IngestVerbs, WriteVerbs):
    """Isolated parts of a database."""

    def workspace(self, name: str, *, embedder: Embedder | None = None) -> Workspace:
        """An isolated part of the database, for one agent, user or project.

        What is stored in it is found, and named as a cause, only in it. Opening writes
        nothing; the first thing stored makes it.

        Args:
            name: Without a slash: its namespaces are those that begin with it and one.
            embedder: Its own, the same one each time; by default that of the database.

        Raises:
            ModelMismatchError: another embedder filled it: `Workspace.reembed` changes that.
        """
        from koru_delta.workspace import Workspace
        from koru_delta.workspace.settings import Recorded, check_workspace

        check_workspace(name)
        return Workspace(self, Recorded(self._log, self._intents, name), name, embedder)
