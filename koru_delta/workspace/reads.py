"""What can be read of a workspace, as it is and as it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from koru_delta.causal import Version, When
from koru_delta.embedders import Embedder, TextEmbedder
from koru_delta.errors import ModelMismatchError
from koru_delta.log.moments import AsOf
from koru_delta.search.answers import Matches
from koru_delta.search.causality import CausalFilter
from koru_delta.search.filters import Filter
from koru_delta.search.fusion import Mode
from koru_delta.search.query import Row
from koru_delta.values import LeftOut, Value, VectorLike
from koru_delta.workspace.inside import Inside
from koru_delta.workspace.patterns import Outcomes
from koru_delta.workspace.settings import (
    Recorded,
    Settings,
)
from koru_delta.workspace.verbs import Verbs

OUTCOMES: Final = ".outcomes"  # after the namespace of procedures
_RAISE: Final[Any] = LeftOut()  # a `default`: an absent key is an error


class WorkspaceReads:
    """A workspace, as far as it reads: namespaces are named as inside it."""

    def __init__(
        self, db: Verbs, recorded: Recorded, name: str, embedder: Embedder | None = None
    ) -> None:
        """Made by `Database.workspace`."""
        self._inside = Inside(db, recorded, name, embedder)
        self._db = db

    @property
    def name(self) -> str:
        """What it is called."""
        return self._inside.name

    @property
    def settings(self) -> Settings:
        """What is recorded of it."""
        return self._inside.settings

    @property
    def embedder(self) -> TextEmbedder | None:
        """What turns its texts to vectors: its own, or the database's if that filled it.

        None finds by words alone.
        """
        return self._inside.embedder

    @property
    def inside(self) -> Inside:
        """What agents' memories are built on: not for anybody else."""
        return self._inside

    def __repr__(self) -> str:
        return f"<Workspace {self._inside.name!r} of {self._db!r}>"

    def get(
        self,
        namespace: str,
        key: str,
        default: Value = _RAISE,
        *,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> Value:
        """As `Database.get`."""
        whole = self._inside.whole(namespace)
        if default is _RAISE:
            return self._db.get(whole, key, as_of=as_of, valid_at=valid_at)
        return self._db.get(whole, key, default, as_of=as_of, valid_at=valid_at)

    def version(
        self,
        namespace: str,
        key: str,
        *,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> Version:
        """As `Database.version`."""
        return self._db.version(self._inside.whole(namespace), key, as_of=as_of, valid_at=valid_at)

    def get_version(self, version: Version | str) -> Version:
        """As `Database.get_version`.

        Raises:
            IsolationError: it is not of this workspace.
        """
        return self._inside.mine(version)

    def history(
        self,
        namespace: str,
        key: str,
        *,
        as_of: AsOf = None,
        reverse: bool = False,
        limit: int | None = None,
        include_annotations: bool = False,
    ) -> list[Version]:
        """As `Database.history`."""
        return self._db.history(
            self._inside.whole(namespace), key, as_of=as_of, reverse=reverse, limit=limit,
            include_annotations=include_annotations,
        )  # fmt: skip

    def ancestors(
        self,
        version: Version | str,
        *,
        kinds: Sequence[str] | None = None,
        max_hops: int | None = None,
        as_of: AsOf = None,
    ) -> list[Version]:
        """As `Database.ancestors`, those of this workspace."""
        found = self._db.ancestors(
            self._inside.mine(version), kinds=kinds, max_hops=max_hops, as_of=as_of
        )
        return [each for each in found if each.namespace.startswith(self._inside.prefix)]

    def search(
        self,
        namespace: str,
        text: str,
        *,
        mode: Mode = "hybrid",
        k: int = 10,
        filter: Filter | None = None,
        causal: CausalFilter | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
        vector: VectorLike | None = None,
        threshold: float | None = None,
        syntax: bool = True,
        exact: bool = False,
        explain: bool = False,
    ) -> Matches:
        """As `Database.search`, by the workspace's embedder; by words alone where it has none.

        Args:
            vector: In the place of what the embedder makes of the text.

        Raises:
            IsolationError: an anchor of `causal` is not of this workspace.
            EmbedderError: mode "vector", and there is no embedder.
        """
        whole, embedder = self._inside.whole(namespace), self.embedder
        only = None if causal is None else self._inside.own_filter(causal)
        model: str | None = None
        asked: object = text
        if mode == "vector" and vector is None:
            self._inside.filling(needed=True)
        if mode != "text" and embedder is not None:
            model = embedder.name
            if vector is None and isinstance(asked, str) and text.strip():
                vector = embedder.embed_query(text)
        if mode == "hybrid" and vector is None:
            mode = "text"

        def ask(mode: Mode, vector: VectorLike | None, model: str | None) -> Matches:
            return self._db.search(
                whole, text, mode=mode, k=k, filter=filter, causal=only, as_of=as_of,
                valid_at=valid_at, model=model, vector=vector, threshold=threshold,
                syntax=syntax, exact=exact, explain=explain,
            )  # fmt: skip

        try:
            return ask(mode, vector, model)
        except ModelMismatchError:
            if mode != "hybrid":
                raise
            return ask("text", None, None)  # another embedder filled it at that moment

    def query(
        self,
        namespace: str,
        filter: Filter | None = None,
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        offset: int = 0,
        select: Sequence[str] | None = None,
        causal: CausalFilter | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> list[Row]:
        """As `Database.query`."""
        return self._db.query(
            self._inside.whole(namespace), filter, sort=sort, limit=limit, offset=offset,
            select=select, causal=None if causal is None else self._inside.own_filter(causal),
            as_of=as_of, valid_at=valid_at,
        )  # fmt: skip

    def count(
        self,
        namespace: str,
        filter: Filter | None = None,
        *,
        text: str | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> int:
        """As `Database.count`."""
        whole = self._inside.whole(namespace)
        return self._db.count(whole, filter, text=text, as_of=as_of, valid_at=valid_at)

    def list_keys(
        self,
        namespace: str,
        *,
        prefix: str = "",
        after: str | None = None,
        limit: int | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> list[str]:
        """As `Database.list_keys`."""
        return self._db.list_keys(
            self._inside.whole(namespace), prefix=prefix, after=after, limit=limit, as_of=as_of,
            valid_at=valid_at,
        )  # fmt: skip

    def list_namespaces(self, *, as_of: AsOf = None, valid_at: When | None = None) -> list[str]:
        """Namespaces inside with at least one present key, in order."""
        found = self._inside.writer.namespaces(as_of=as_of, valid_at=valid_at)
        return [name[len(self._inside.prefix) :] for name in found]

    def outcomes(
        self, namespace: str, key: str, *, as_of: AsOf = None, valid_at: When | None = None
    ) -> Outcomes:
        """What came of trying a procedure as it stands at that moment; `score` rates it.

        Outcomes belong to the content: another version of it begins anew, and one that is
        brought back has its own again.
        """
        tried = self.version(namespace, key, as_of=as_of, valid_at=valid_at)
        return outcomes_of(self, tried, as_of)


def outcomes_of(workspace: WorkspaceReads, procedure: Version, as_of: AsOf) -> Outcomes:
    """What came by a moment of trying what a version of a procedure says."""
    namespace = procedure.namespace.partition("/")[2] + OUTCOMES
    tried: dict[str, Any] = {"procedure": procedure.key, "content": procedure.distinction}
    successes, failures = (
        workspace.count(namespace, tried | {"success": so}, as_of=as_of) for so in (True, False)
    )
    return Outcomes(successes, failures)
