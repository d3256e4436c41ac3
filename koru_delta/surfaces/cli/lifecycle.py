"""A command that tells what is near, what is far, and what is wished of that."""

from __future__ import annotations

from typing import Any

import typer
from rich.text import Text

from koru_delta.lifecycle import Policy
from koru_delta.surfaces import show
from koru_delta.surfaces.cli.app import app
from koru_delta.surfaces.cli.frame import opened
from koru_delta.surfaces.cli.options import Db, Json


@app.command(rich_help_panel="Agents")
def lifecycle(ctx: typer.Context, db: Db = None, as_json: Json = False) -> None:
    """Tell what is hot, warm, cold and deep, what is wished of that, and what is to move.

    Hot and warm keys are both in the log. Which of them are warm is decided by each process that
    has the database open, so that here all of them count as hot. Wishes are made from Python:
    policy, pin and undo of db.lifecycle.
    """
    with opened(ctx, db) as database:
        care = database.lifecycle
        told, policies, pins = care.stats(), care.policies(), care.pins()
        summaries, plan = care.consolidations(), care.plan()
    sources = sum(len(each.keys) for each in summaries)
    if as_json:
        show.print_json(
            {
                **told,
                "policies": [_facts(policy) for policy in policies.values()],
                "pins": [{"namespace": namespace, "key": key} for namespace, key in pins],
                "summaries": {"count": len(summaries), "sources": sources},
                "plan": plan.to_json(),
            }
        )
        return
    out = show.console()
    rows = [
        (name, f"{tier['keys']:,}", show.size(tier["bytes"]),
         "" if tier["budget_bytes"] is None else show.size(tier["budget_bytes"]))
        for name, tier in told["tiers"].items()
    ]  # fmt: skip
    columns = ("tier", "keys", "size", "budget")
    out.print(show.table(columns, rows, right=columns[1:]))
    lines = [("wished", str(policy)) for policy in policies.values() if policy.is_active]
    lines += [("pinned", f"{namespace} {key}") for namespace, key in pins]
    if summaries:
        last = summaries[-1]
        lines.append(
            ("summaries",
             f"{len(summaries):,}, of {show.counted(sources, 'key')}; the last is "
             f"{last.namespace} {last.key}")
        )  # fmt: skip
    lines += [("to move", line) for line in str(plan).splitlines()]
    for name, line in lines:
        out.print(Text.assemble((f"{name:<16}", "dim"), show.clean(line)), soft_wrap=True)


def _facts(policy: Policy) -> dict[str, Any]:
    """A policy as JSON."""
    return {
        "namespace": policy.namespace,
        "hot_bytes": policy.budget.hot, "warm_bytes": policy.budget.warm,
        "cold_bytes": policy.budget.cold,
        "idle_seconds": {keys: ttl.total_seconds() for keys, ttl in policy.idle.items()},
        "consolidate": None if policy.consolidate is None else policy.consolidate.to_json(),
    }  # fmt: skip
