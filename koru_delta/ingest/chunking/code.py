"""Source code by its definitions, as tree-sitter's grammars see them.

A definition goes with its decorators, attributes and the comments right above it. One that
is too long is cut at the definitions in it, and so on. Code with mistakes is cut as well as
the grammar can tell; a text that is no code of the language at all, at its lines.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from koru_delta.errors import MissingExtraError
from koru_delta.ingest.chunking.rulers import Ruler
from koru_delta.ingest.chunking.sections import Section

if TYPE_CHECKING:
    from tree_sitter import Language, Node, Query

# tree-sitter repairs what it cannot read, and on some garbage takes quadratic time to. The
# densest code takes a step (a hundred of the parser's) for 13 bytes; what takes far more is
# given up.
_STEPS: Final = 100
_BYTES_PER_STEP: Final = 5
_READ: Final = 1 << 16  # bytes

_LONGEST_NAME: Final = 200  # characters


class _Grammar(NamedTuple):
    module: str  # also the package's name, with - for _
    function: str
    kinds: dict[str, str]  # node type -> what it is called here
    query: str = ""  # more patterns, with @def
    wraps: tuple[str, ...] = ()  # nodes around one definition that belong to it
    above: tuple[str, ...] = ("//", "/*")  # what lines begin with that belong to what follows


_JAVASCRIPT: Final = {
    "function_declaration": "function",
    "generator_function_declaration": "function",
    "class_declaration": "class",
    "method_definition": "method",
}
_ASSIGNED: Final = """
(lexical_declaration (variable_declarator value: [(arrow_function) (function_expression)
    (generator_function) (class)])) @function
(variable_declaration (variable_declarator value: [(arrow_function) (function_expression)
    (generator_function) (class)])) @function
"""
_TYPESCRIPT: Final = _JAVASCRIPT | {
    "abstract_class_declaration": "class",
    "interface_declaration": "interface",
    "type_alias_declaration": "type",
    "enum_declaration": "enum",
    "function_signature": "function",
    "internal_module": "namespace",
    "module": "module",
}
_C: Final = {"function_definition": "function"}
_C_TYPES: Final = """
(struct_specifier body: (_)) @struct
(union_specifier body: (_)) @union
(enum_specifier body: (_)) @enum
"""
_WITH_NOTES: Final = ("//", "/*", "#", "@")

_GRAMMARS: Final[dict[str, _Grammar]] = {
    "c": _Grammar("tree_sitter_c", "language", _C, _C_TYPES, ("type_definition",)),
    "cpp": _Grammar(
        "tree_sitter_cpp",
        "language",
        _C | {"namespace_definition": "namespace", "concept_definition": "concept"},
        _C_TYPES + "(class_specifier body: (_)) @class",
        ("template_declaration", "type_definition"),
    ),
    "csharp": _Grammar(
        "tree_sitter_c_sharp",
        "language",
        {
            "class_declaration": "class",
            "struct_declaration": "struct",
            "interface_declaration": "interface",
            "enum_declaration": "enum",
            "record_declaration": "record",
            "namespace_declaration": "namespace",
            "method_declaration": "method",
            "constructor_declaration": "constructor",
            "delegate_declaration": "delegate",
            "local_function_statement": "function",
        },
    ),
    "go": _Grammar(
        "tree_sitter_go",
        "language",
        {
            "function_declaration": "function",
            "method_declaration": "method",
            "type_declaration": "type",
        },
    ),
    "java": _Grammar(
        "tree_sitter_java",
        "language",
        {
            "class_declaration": "class",
            "interface_declaration": "interface",
            "enum_declaration": "enum",
            "record_declaration": "record",
            "annotation_type_declaration": "annotation",
            "method_declaration": "method",
            "constructor_declaration": "constructor",
        },
    ),
    "javascript": _Grammar(
        "tree_sitter_javascript",
        "language",
        _JAVASCRIPT,
        _ASSIGNED,
        ("export_statement",),
        ("//", "/*", "@"),
    ),
    "php": _Grammar(
        "tree_sitter_php",
        "language_php",
        {
            "function_definition": "function",
            "method_declaration": "method",
            "class_declaration": "class",
            "interface_declaration": "interface",
            "trait_declaration": "trait",
            "enum_declaration": "enum",
        },
        "(namespace_definition body: (_)) @namespace",
        above=_WITH_NOTES,
    ),
    "python": _Grammar(
        "tree_sitter_python",
        "language",
        {"function_definition": "function", "class_definition": "class"},
        wraps=("decorated_definition",),
        above=("#", "@"),
    ),
    "ruby": _Grammar(
        "tree_sitter_ruby",
        "language",
        {"singleton_method": "method", "singleton_class": "class"},
        # Their keywords are nodes of the same name.
        "(method name: (_)) @method (class name: (_)) @class (module name: (_)) @module",
        above=("#",),
    ),
    "rust": _Grammar(
        "tree_sitter_rust",
        "language",
        {
            "function_item": "function",
            "struct_item": "struct",
            "enum_item": "enum",
            "union_item": "union",
            "trait_item": "trait",
            "impl_item": "impl",
            "mod_item": "module",
            "macro_definition": "macro",
        },
        above=("//", "/*", "#"),
    ),
    "tsx": _Grammar(
        "tree_sitter_typescript",
        "language_tsx",
        _TYPESCRIPT,
        _ASSIGNED,
        ("export_statement", "ambient_declaration"),
        ("//", "/*", "@"),
    ),
    "typescript": _Grammar(
        "tree_sitter_typescript",
        "language_typescript",
        _TYPESCRIPT,
        _ASSIGNED,
        ("export_statement", "ambient_declaration"),
        ("//", "/*", "@"),
    ),
}
_METHODS_IN: Final = frozenset(("class", "struct", "interface", "trait", "impl", "union", "enum"))
_REST_OF_LINE: Final = re.compile(r"[ \t;,]*(?:(?://|#|/\*)[^\n]*)?(?=\r?\n|\Z)")
_WORD: Final = re.compile(r"\b(?!end\b)\w")
_RECEIVER: Final = re.compile(r"(\w+)\s*(?:\[[^\]]*\])?\s*\)\s*$")
_SPACES: Final = re.compile(r"\s+")


@dataclass(slots=True)
class _Definition:
    start: int  # characters, with what belongs to it
    end: int
    name: str
    kind: str
    inner: list[_Definition] = field(default_factory=list)


def definitions(text: str, language: str, ruler: Ruler, most: int) -> list[Section]:
    """Cut `text` at its definitions: sections that follow each other without a gap.

    A section longer than `most` holds no definition that could be cut off. What stands
    between definitions is a section too, named after what it stands in.

    Raises:
        MissingExtraError: tree-sitter or the grammar is not installed.
    """
    outermost = _tree(text, language)
    sections: list[Section] = []
    start = 0
    # What is still to be told, last first: a definition, or the end of the one it came from.
    waiting: list[tuple[_Definition | None, tuple[str, ...], str | None, int]] = [
        (None, (), None, len(text))
    ]
    waiting.extend((each, (), None, each.end) for each in reversed(outermost))
    while waiting:
        definition, path, kind, end = waiting.pop()
        begin = end if definition is None else definition.start
        if begin > start:
            _add(text, sections, Section(start, begin, path, kind), ruler, most)
            start = begin
        if definition is None:
            continue
        own = (*path, definition.name)
        if not definition.inner or ruler.limit(start, most) >= definition.end:
            sections.append(Section(start, definition.end, own, definition.kind))
            start = definition.end
            continue
        waiting.append((None, own, definition.kind, definition.end))
        waiting.extend(
            (each, own, definition.kind, each.end) for each in reversed(definition.inner)
        )
    return sections


def _add(text: str, sections: list[Section], section: Section, ruler: Ruler, most: int) -> None:
    """What holds no word (a closing brace, `end`) goes with the section before it, if it fits."""
    if sections and _WORD.search(text, section.start, section.end) is None:
        last = sections[-1]
        if ruler.limit(last.start, most) >= section.end:
            sections[-1] = Section(last.start, section.end, last.path, last.kind)
            return
    sections.append(section)


def _tree(text: str, language: str) -> list[_Definition]:
    """The outermost definitions, in order, each with those in it; none if it is not such code."""
    grammar, query = _GRAMMARS[language], _query(language)
    from tree_sitter import Parser, QueryCursor

    data = text.encode("utf-8", "surrogatepass")
    steps = _STEPS + len(data) // _BYTES_PER_STEP

    def too_long(_position: int, _has_error: bool) -> bool:
        nonlocal steps
        steps -= 1
        return steps < 0

    try:
        tree = Parser(_language(language)).parse(
            lambda at, _: data[at : at + _READ], progress_callback=too_long
        )
    except ValueError:  # the parser was told to stop
        return []
    captured = QueryCursor(query).captures(tree.root_node)
    nodes = [
        (node.start_byte, -node.end_byte, kind == "wrap", kind, node)
        for kind, found in captured.items()
        for node in found
    ]
    # Around before inside; of two that are as long, the wrap is around.
    nodes.sort(key=lambda each: (each[0], each[1], not each[2]))
    position = _positions(text, data, nodes)
    lines_end = 0
    outermost: list[_Definition] = []
    open_: list[_Definition] = []
    wrap: tuple[int, int, Node] | None = None
    for begin, minus_end, is_wrap, kind, node in nodes:
        start, end = position[begin], position[-minus_end]
        if is_wrap:
            if wrap is None or end > wrap[1]:
                wrap = (start, end, node)
            continue
        around: Node | None = None
        if wrap is not None:
            if wrap[0] <= start and end <= wrap[1]:
                start, end, around = wrap
            wrap = None
        while open_ and open_[-1].end <= start:
            lines_end = max(lines_end, open_.pop().end)
        if open_ and end > open_[-1].end:
            continue  # the grammar's repair of broken code: they are not nested
        floor = max(lines_end, open_[-1].start + 1 if open_ else 0)
        start = _with_above(text, start, floor, grammar.above)
        rest = _REST_OF_LINE.match(text, end)
        end = end if rest is None else rest.end()
        if open_:
            end = min(end, open_[-1].end)
        name = _name(node, data) or ("" if around is None else _name(around, data)) or node.type
        outer = open_[-1].kind if open_ else ""
        if kind == "function" and outer in _METHODS_IN:
            kind = "method"
        definition = _Definition(start, end, name, kind)
        (open_[-1].inner if open_ else outermost).append(definition)
        open_.append(definition)
    return outermost


def _positions(
    text: str, data: bytes, nodes: Sequence[tuple[int, int, bool, str, Node]]
) -> dict[int, int]:
    """Character positions of the nodes' byte positions."""
    wanted = {at for node in nodes for at in (node[0], -node[1])}
    if len(data) == len(text):
        return {at: at for at in wanted}
    starts = (np.frombuffer(data, np.uint8) & 0xC0) != 0x80
    before = np.concatenate(([0], np.cumsum(starts)))
    return {at: int(before[at]) for at in wanted}


def _with_above(text: str, start: int, floor: int, above: tuple[str, ...]) -> int:
    """Where the comments and attributes begin that stand right above `start`; not below `floor`."""
    line = text.rfind("\n", floor, start) + 1
    if line == 0:
        if floor and text[floor - 1] != "\n":
            return start  # something else stands on the line
        line = floor
    if text[line:start].strip():
        return start
    while line > floor:
        previous = text.rfind("\n", floor, line - 1) + 1
        if previous == 0:
            if floor and text[floor - 1] != "\n":
                break
            previous = floor
        bare = text[previous : line - 1].strip()
        if bare.endswith("*/"):
            opening = text.rfind("/*", floor, line)
            if opening < 0:
                break
            previous = max(floor, text.rfind("\n", floor, opening) + 1)
            if text[previous:opening].strip():
                break
        elif not bare.startswith(above):
            break
        line = previous
    return line


def _name(node: Node, data: bytes) -> str:
    named = node.child_by_field_name("name")
    if named is None and node.type in ("lexical_declaration", "variable_declaration"):
        named = _first(node, "variable_declarator", "name")
    if named is None and node.type == "type_declaration":
        named = _first(node, "type_spec", "name") or _first(node, "type_alias", "name")
    if node.type == "impl_item":
        named = node.child_by_field_name("type")
    if named is None:
        named = node.child_by_field_name("declarator")
        while named is not None:
            inner = named.child_by_field_name("declarator")
            if inner is None and named.type == "reference_declarator" and named.named_children:
                inner = named.named_children[0]
            if inner is None:
                break
            named = inner
    if named is None:
        named = node.child_by_field_name("value")  # Ruby's `class << self`
    name = "" if named is None else _text(named, data)
    receiver = node.child_by_field_name("receiver")
    if receiver is not None and (of := _RECEIVER.search(_text(receiver, data))) is not None:
        return f"{of[1]}.{name}"
    return name


def _first(node: Node, kind: str, field_name: str) -> Node | None:
    for child in node.named_children:
        if child.type == kind:
            return child.child_by_field_name(field_name)
    return None


def _text(node: Node, data: bytes) -> str:
    raw = data[node.start_byte : min(node.end_byte, node.start_byte + 4 * _LONGEST_NAME)]
    return _SPACES.sub(" ", raw.decode("utf-8", "replace"))[:_LONGEST_NAME]


@cache
def _language(language: str) -> Language:
    grammar = _GRAMMARS[language]
    try:
        from tree_sitter import Language

        module = importlib.import_module(grammar.module)
    except ImportError as error:
        raise MissingExtraError(f"chunking {language} by definition", "code") from error
    return Language(getattr(module, grammar.function)())


@cache
def _query(language: str) -> Query:
    language_object = _language(language)
    from tree_sitter import Query

    grammar = _GRAMMARS[language]
    patterns = [f"({node}) @{kind}" for node, kind in grammar.kinds.items()]
    patterns.append(grammar.query)
    patterns.extend(f"({node}) @wrap" for node in grammar.wraps)
    return Query(language_object, "\n".join(patterns))
