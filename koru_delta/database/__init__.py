"""The facade: `Database` and what its verbs need.

No rule lives here; `log`, `search` and `transaction` have them. Here arguments become cuts
and entries. The verbs come in families, each a class in a module of its own:

    handle                                    what they all stand on
    keys  history  search  synthesis          -> reads: of a `View` as well
    writes  ingesting  erasing  expiring      of a `Database` alone
    workspaces  care                          likewise

A new family is one more module here, named among the bases of `Database` in `facade`; the
test that compares the surfaces then asks for its verbs in `aio`.
"""

from koru_delta.database.facade import Database, open
from koru_delta.database.reads import ReadVerbs, View
from koru_delta.log.retention import Erased

__all__ = ["Database", "Erased", "ReadVerbs", "View", "open"]
