"""What becomes of the past of namespaces that nobody asks the past of."""

from __future__ import annotations

from datetime import timedelta

from koru_delta import Database


def retain_by_default(database: Database, namespace: str, keep: timedelta | None) -> None:
    """Let a namespace give the disk of what is out of use for `keep` back.

    Nothing is done where `keep` is None, or where somebody has said how much the namespace
    retains (`Database.retain`): that holds.
    """
    if keep is not None and namespace not in database.retentions():
        database.retain(namespace, keep=keep, message="what a cache no longer answers")
