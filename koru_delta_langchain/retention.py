"""What becomes of the past of namespaces that nobody asks the past of."""

from __future__ import annotations

from koru_delta import Database


def keep_the_present(database: Database, namespace: str) -> None:
    """Let a namespace of answers that expire give their disk back, once they are no more.

    The one place where the stores of this package ask for retention.
    """
