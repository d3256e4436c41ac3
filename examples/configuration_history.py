"""Who changed the timeout, when, and how to put it back: a configuration with its history.

Run it with: python examples/configuration_history.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import koru_delta


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, koru_delta.open(Path(folder) / "config") as db:
        ticket = db.put("tickets", "OPS-7", {"title": "uploads time out"}, author="support")
        good = db.put("service", "web", {"timeout_s": 30, "workers": 4}, author="ada")
        db.tag("release-1")
        db.put(
            "service", "web", {"timeout_s": 3, "workers": 4},
            author="bob", message="typo in the timeout", causes=[ticket],
        )  # fmt: skip

        print("What happened to service/web:")
        for version in db.history("service", "web"):
            why = [db.get_version(cause.id).key for cause in version.causes]
            print(f"  {version.time:%H:%M:%S} {version.author}: {version.value} {why or ''}")

        bad = db.history("service", "web")[-1]
        print("The change:", db.diff(good, bad))
        assert db.diff(good, bad) == [{"op": "replace", "path": "/timeout_s", "value": 3}]

        db.revert("service", "web", "tag:release-1", author="ada", message="as released")
        assert db.get("service", "web") == {"timeout_s": 30, "workers": 4}

        # An auditor who keeps 32 bytes can check years later that nothing was rewritten.
        head = db.tree_head()
        assert koru_delta.verify_inclusion(db.prove(bad), head)
        db.put("service", "web", {"timeout_s": 60, "workers": 8}, author="ada")
        link = db.prove_consistency(head.size)
        assert koru_delta.verify_consistency(link, head, db.tree_head())
        print("The bad change is still in the log, and the log still begins as it did.")


if __name__ == "__main__":
    main()
