"""`kdelta`: the database on the command line.

Exit codes: 0 fine, 1 an error, 2 a mistake in the command, 3 not found, 4 a conflict.
Answers go to standard output, everything else to standard error.
"""

# Importing a module gives its commands to the app; help lists them in this order.
from koru_delta.surfaces.cli import (  # noqa: I001
    trying as _trying,  # noqa: F401
    values as _values,  # noqa: F401
    history as _history,  # noqa: F401
    searching as _searching,  # noqa: F401
    relating as _relating,  # noqa: F401
    ingesting as _ingesting,  # noqa: F401
    provenance as _provenance,  # noqa: F401
    marks as _marks,  # noqa: F401
    erasing as _erasing,  # noqa: F401
    serving as _serving,  # noqa: F401
    lifecycle as _lifecycle,  # noqa: F401
    care as _care,  # noqa: F401
)
from koru_delta.surfaces.cli.app import app, let_help_flow, main

let_help_flow(app)

__all__ = ["app", "main"]
