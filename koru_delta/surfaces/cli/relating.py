"""Commands about how things hang together: relations of a key, layers of a namespace."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer
from rich.text import Text
from rich.tree import Tree

from koru_delta import Cluster, Layers, Relation, Version
from koru_delta.surfaces import moments, show
from koru_delta.surfaces.cli.app import app
from koru_delta.surfaces.cli.frame import note, opened
from koru_delta.surfaces.cli.options import AsOf, Db, Json, Key, Model, Namespace, ValidAt
from koru_delta.surfaces.cli.searching import Searched

_PANEL: Final = "Search"
_TYPES: Final = "proximity, composition, abstraction, instantiation, sequence, causation"
# By type: what the key is to the other, and what the other is to it.
_SAYS: Final = {
    "proximity": ("is near", "is near"),
    "composition": ("is a part of", "has as a part"),
    "abstraction": ("sums up", "is summed up by"),
    "instantiation": ("is an instance of", "has as an instance"),
    "sequence": ("comes right before", "comes right after"),
    "causation": ("brought about", "was brought about by"),
}


@app.command(rich_help_panel=_PANEL)
def related(
    ctx: typer.Context,
    namespace: Namespace,
    key: Key,
    types: Annotated[
        list[str] | None,
        typer.Option("--type", "-t", metavar="TYPE", help=f"{_TYPES}; repeat it. Else all."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=0, help="At most so many of each type.")] = 5,
    model: Model = None,
    as_of: AsOf = None,
    valid_at: ValidAt = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Tell what a key is related to, and by what evidence."""
    with opened(ctx, db) as database:
        known, true = moments.as_of(as_of), moments.valid_at(database, namespace, valid_at)
        found = database.related(
            namespace, key, types=types or None, k=k, model=model, as_of=known, valid_at=true
        )
        others = {
            node.id: database.get_version(node.id)
            for relation in found
            for node in (relation.source, relation.target)
        }
    if as_json:
        show.print_json([relation.to_dict() for relation in found])
        return
    if not found:
        note("it is related to nothing at that moment")
        return
    rows = [_row(relation, namespace, key, others) for relation in found]
    columns = ("type", "the key ...", "strength", "evidence")
    show.console().print(show.table(columns, rows, right=("strength",)))


def _row(
    relation: Relation, namespace: str, key: str, versions: dict[str, Version]
) -> tuple[object, ...]:
    forward = (relation.source.namespace, relation.source.key) == (namespace, key)
    other = relation.target if forward else relation.source
    says = _SAYS[relation.kind][0 if forward else 1]
    text = show.text_of(versions[other.id].value)
    told = Text.assemble((f"{says} ", "dim"), _place(other.namespace, other.key, namespace))
    if text:
        told.append(f"\n{show.gist(text, 60)}", "dim")
    evidence = relation.evidence
    reasons = []
    if evidence.cosine is not None:
        reasons.append(f"cosine {evidence.cosine:.2f}")
    if evidence.order is not None:
        reasons.append(f"by {evidence.order}")
    reasons += [f"{edge.kind} {edge.cause[:12]}" for edge in evidence.edges[:2]]
    if len(evidence.edges) > 2:
        reasons.append(f"and {len(evidence.edges) - 2:,} more")
    return relation.kind, told, f"{relation.strength:.2f}", ", ".join(reasons)


def _place(namespace: str, key: str, here: str) -> str:
    """A key, as one asks for it from `here`: of another namespace with its name."""
    return show.one_line(key if namespace == here else f"{namespace} {key}", 80)


@app.command(rich_help_panel=_PANEL)
def layers(
    ctx: typer.Context,
    namespace: Namespace,
    levels: Annotated[int, typer.Option(help="How deep, 1 to 8.")] = 2,
    branching: Annotated[
        int | None, typer.Option(metavar="N", help="Clusters inside one, at most, 2 to 256.")
    ] = None,
    model: Model = None,
    as_of: AsOf = None,
    valid_at: ValidAt = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Show what a namespace is about: clusters of what is alike, and clusters inside those."""
    with opened(ctx, db) as database:
        known, true = moments.as_of(as_of), moments.valid_at(database, namespace, valid_at)
        space = Searched.of(database, namespace)
        options: dict[str, Any] = {"model": model, "as_of": known, "valid_at": true}
        found = database.layers(space.place, levels=levels, branching=branching, **options)
    if as_json:
        show.print_json(
            {
                "namespace": found.namespace, "model": found.model, "size": found.size,
                "levels": [[each.to_dict() for each in level] for level in found.levels],
            }
        )  # fmt: skip
        return
    if not found.size:
        note(f"there are no vectors in {show.clean(space.place)} at that moment")
        return
    show.console().print(_tree(found, space))


def _tree(found: Layers, space: Searched) -> Tree:
    root = Tree(
        Text.assemble(
            (show.clean(found.namespace), "bold"), (f"  {show.counted(found.size, 'key')}", "dim")
        ),
        guide_style="dim",
    )
    branches: dict[str | None, Tree] = {None: root}
    for level in found.levels:
        for cluster in level:
            branches[cluster.id] = branches[cluster.parent].add(_leaf(cluster, space))
    return root


def _leaf(cluster: Cluster, space: Searched) -> Text:
    told = Text(", ".join(map(show.clean, cluster.labels)) or "(no words)", "cyan")
    told.append(f"  {cluster.size:,}", "bold")
    if not cluster.children:
        names = dict.fromkeys(space.named(key) for key in cluster.representatives)
        told.append(f"  {', '.join(names)}", "dim")
    return told
