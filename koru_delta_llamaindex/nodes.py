"""LlamaIndex nodes as JSON values, and back: equal, metadata untouched.

A node is `{"id": ..., "text": ..., "metadata": {...}, "ref_doc_id": ..., "node": {...}}`:
the text and metadata are where searches and filters look, `node` is the rest of what differs
from its class's defaults. Enumerated strings become strings, which equal them; nothing else is
coerced: what is no JSON is refused where it is stored.
"""

from __future__ import annotations

from typing import Any, Final

from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageDocument,
    ImageNode,
    IndexNode,
    MediaResource,
    Node,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)

import koru_delta
from koru_delta_llamaindex.keys import in_order, order_of, plain

_CLASSES: Final[dict[str, type[BaseNode]]] = {
    cls.class_name(): cls for cls in (TextNode, ImageNode, IndexNode, Node, Document, ImageDocument)
}
_RESOURCES: Final = ("text_resource", "image_resource", "audio_resource", "video_resource")
_APART: Final = {"id_", "embedding", "metadata", "text", *_RESOURCES}
_TEXT_DEFAULTS: Final = [
    (name, field.get_default(call_default_factory=True))
    for name, field in TextNode.model_fields.items()
    if name not in _APART and name != "relationships"
]


def value_of(node: BaseNode) -> dict[str, Any]:
    """A node as the value of a key; its embedding is left out.

    Raises:
        InvalidDataError: it is of a class with fields of its own but not a name.
    """
    rest = _rest(node)
    value = {
        "id": node.node_id, "text": _text_apart(node, rest), "metadata": plain(node.metadata),
        "node": rest,
    }  # fmt: skip
    source = node.ref_doc_id
    if source is not None:
        value["ref_doc_id"] = source
    order = order_of(node.metadata)
    if order is not None:
        value["order"] = order
    return value


def node_of(value: Any, embedding: list[float] | None = None) -> BaseNode:
    """The node that `value_of` made a value of.

    Raises:
        InvalidDataError: the value is something else, or of a class not imported here.
    """
    try:
        name, rest = value["id"], dict(value["node"])
        text, metadata = value["text"], in_order(value["metadata"], value.get("order"))
    except (TypeError, KeyError, ValueError) as error:
        raise koru_delta.errors.InvalidDataError(
            f"this is no node of LlamaIndex: {_short(value)}; keep other values in another "
            "namespace"
        ) from error
    cls = _class_of(rest.get("class_name"))
    if issubclass(cls, Node):
        resource = rest.get("text_resource")
        if resource is not None and "text" not in resource:
            rest["text_resource"] = {**resource, "text": text}
    else:
        rest["text"] = text
    if embedding is not None:
        rest["embedding"] = embedding
    rest["id_"], rest["metadata"] = name, metadata
    return cls.from_dict(rest)


def dumped(node: BaseNode) -> dict[str, Any]:
    """Everything that makes a node, as LlamaIndex's `from_dict` takes it, in JSON's types."""
    rest = _rest(node)
    text = _text_apart(node, rest)
    if not isinstance(node, Node):
        rest["text"] = text
    elif "text_resource" in rest:
        rest["text_resource"].setdefault("text", text)
    return {"id_": node.node_id, "metadata": node.metadata, "embedding": node.embedding, **rest}


def loaded(data: dict[str, Any]) -> BaseNode:
    """The node that `dumped` made data of, or LlamaIndex's own `to_dict`."""
    return _class_of(data.get("class_name")).from_dict(data)


def _rest(node: BaseNode) -> dict[str, Any]:
    """What differs from the defaults of the class, but for what is kept apart."""
    cls = type(node)
    if cls is TextNode:  # most are; the way below takes five times as long
        fields = vars(node)
        rest = {name: fields[name] for name, usual in _TEXT_DEFAULTS if fields[name] != usual}
        if node.relationships:
            rest["relationships"] = {
                kind.value: [_related(each) for each in related]
                if isinstance(related, list)
                else _related(related)
                for kind, related in node.relationships.items()
            }
        rest["class_name"] = "TextNode"
        return rest
    named = _class_of(cls.class_name())
    if named is not cls and cls.model_fields.keys() - named.model_fields.keys():
        raise koru_delta.errors.InvalidDataError(
            f"{cls.__name__} has fields that {cls.class_name()!r}, as which it would come back, "
            "has not; give it a class_name() of its own"
        )
    rest = node.model_dump(exclude_defaults=True, exclude=_APART)
    if isinstance(node, IndexNode):
        what = plain(rest.pop("obj", None))
        if what is not None:
            rest["obj"] = what
    if isinstance(node, Node):
        for name in _RESOURCES:
            resource: MediaResource | None = getattr(node, name)
            if resource is not None:
                rest[name] = resource.model_dump(mode="json", exclude_defaults=True)
                if resource.data is not None:  # base64 already; LlamaIndex leaves it out
                    rest[name]["data"] = resource.data.decode("ascii")
    return rest


def _related(info: RelatedNodeInfo) -> dict[str, Any]:
    kind = info.node_type
    return {
        "node_id": info.node_id, "metadata": plain(info.metadata), "hash": info.hash,
        "node_type": kind.value if isinstance(kind, ObjectType) else kind,
    }  # fmt: skip


def _text_apart(node: BaseNode, rest: dict[str, Any]) -> str:
    """The text to search by, taken out of the rest."""
    if isinstance(node, Node):
        resource = rest.get("text_resource")
        if resource is None:
            return ""
        text = resource.pop("text", None)
        if text is None:
            resource["text"] = None  # tells it from a text that is empty
        return text or ""
    return str(getattr(node, "text", ""))


def _class_of(name: object) -> type[BaseNode]:
    cls = (_CLASSES.get(name) or _found(name)) if isinstance(name, str) else None
    if cls is None:
        raise koru_delta.errors.InvalidDataError(
            f"a node is of the class {name!r}, which is not imported here; import the module that "
            "defines it"
        )
    return cls


def _found(name: str) -> type[BaseNode] | None:
    """The class of nodes of that name that somebody has defined and imported."""
    waiting = BaseNode.__subclasses__()
    while waiting:
        cls = waiting.pop()
        if cls.class_name() == name:
            return cls
        waiting += cls.__subclasses__()
    return None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."
