from __future__ import annotations

import sys
from pathlib import Path

import pytest

from koru_delta.errors import MissingExtraError
from koru_delta.ingest.chunking import ChunkingConfig, chunk_document
from koru_delta.ingest.chunking.config import LANGUAGES
from tests.ingest.texts import MONOTONOUS, checked

Found = list[tuple[str | None, str | None, str]]


def cut(text: str, language: str, size: int = 2000, least: int = 0) -> Found:
    """Name, kind and first line of each chunk."""
    config = ChunkingConfig("code", language=language, size=size, min_size=least)
    return [
        (chunk.name, chunk.kind, chunk.text.partition("\n")[0]) for chunk in checked(text, config)
    ]


SOURCES: dict[str, tuple[str, Found]] = {
    "python": (
        '"""Doc."""\nimport os\n\nX = 1\n\n# About f.\n@cache(\n    None\n)\nasync def f(a):\n'
        '    """Doc."""\n\n    return a\n\nclass A(B):\n    def m(self): ...\n',
        [
            (None, None, '"""Doc."""'),
            ("f", "function", "# About f."),
            ("A", "class", "class A(B):"),
        ],
    ),
    "javascript": (
        "import x from 'y';\n\n/**\n * Doc.\n */\nexport function f(a) { return a; }\n// Arrow.\n"
        "export const g = async (x) => { return x };\nexport default class A { m() {} }\n"
        "function* h() {}\n",
        [
            (None, None, "import x from 'y';"),
            ("f", "function", "/**"),
            ("g", "function", "// Arrow."),
            ("A", "class", "export default class A { m() {} }"),
            ("h", "function", "function* h() {}"),
        ],
    ),
    "typescript": (
        "@Component({a: 1})\nexport class A<T> { foo(): void {} }\n"
        "export interface I { a: string }\n"
        "type T = string | number;\nenum E { A, B }\nnamespace N { export function f() {} }\n"
        "abstract class Q { abstract f(): void; }\ndeclare function d(): void;\n",
        [
            ("A", "class", "@Component({a: 1})"),
            ("I", "interface", "export interface I { a: string }"),
            ("T", "type", "type T = string | number;"),
            ("E", "enum", "enum E { A, B }"),
            ("N", "namespace", "namespace N { export function f() {} }"),
            ("Q", "class", "abstract class Q { abstract f(): void; }"),
            ("d", "function", "declare function d(): void;"),
        ],
    ),
    "tsx": (
        "// Shows a greeting.\nexport const C: React.FC = () => <b>hello</b>;\n",
        [("C", "function", "// Shows a greeting.")],
    ),
    "go": (
        "package main\n\n// T is a thing.\ntype T struct { a int }\n\nfunc (t *T) M() {}\n"
        "func F[K any](x K) {}\nfunc (g *G[K]) H() {}\n",
        [
            (None, None, "package main"),
            ("T", "type", "// T is a thing."),
            ("T.M", "method", "func (t *T) M() {}"),
            ("F", "function", "func F[K any](x K) {}"),
            ("G.H", "method", "func (g *G[K]) H() {}"),
        ],
    ),
    "rust": (
        "use std::fmt;\n\n/// Doc.\n#[derive(Debug)]\npub struct S { a: i32 }\n"
        "impl fmt::Display for S { fn fmt(&self) {} }\ntrait T { fn t(&self); }\n"
        "mod m { fn x() {} }\nmacro_rules! mm { () => {} }\npub(crate) async fn f() {}\n",
        [
            (None, None, "use std::fmt;"),
            ("S", "struct", "/// Doc."),
            ("S", "impl", "impl fmt::Display for S { fn fmt(&self) {} }"),
            ("T", "trait", "trait T { fn t(&self); }"),
            ("m", "module", "mod m { fn x() {} }"),
            ("mm", "macro", "macro_rules! mm { () => {} }"),
            ("f", "function", "pub(crate) async fn f() {}"),
        ],
    ),
    "java": (
        "package a;\n\n/** Doc. */\n@Entity\npublic class A { void m() {} }\n"
        "interface I { void f(); }\nrecord R(int a) {}\nenum E { X }\n",
        [
            (None, None, "package a;"),
            ("A", "class", "/** Doc. */"),
            ("I", "interface", "interface I { void f(); }"),
            ("R", "record", "record R(int a) {}"),
            ("E", "enum", "enum E { X }"),
        ],
    ),
    "c": (
        "#include <stdio.h>\n/* Doc\n * of f. */\nstatic int *f(int a) { return 0; }\n"
        "typedef struct { int a; } T;\nstruct S { int b; };  // S\nenum E { A };\n",
        [
            (None, None, "#include <stdio.h>"),
            ("f", "function", "/* Doc"),
            ("T", "struct", "typedef struct { int a; } T;"),
            ("S", "struct", "struct S { int b; };  // S"),
            ("E", "enum", "enum E { A };"),
        ],
    ),
    "cpp": (
        "#include <x>\n\n// A template.\ntemplate <typename T>\nclass A { void f() {} };\n"
        "void A::f() const {}\nint& h() { static int z; return z; }\n",
        [
            (None, None, "#include <x>"),
            ("A", "class", "// A template."),
            ("A::f", "function", "void A::f() const {}"),
            ("h", "function", "int& h() { static int z; return z; }"),
        ],
    ),
    "csharp": (
        "using System;\n\n/// <summary>Doc.</summary>\n[Serializable]\n"
        "public class A : B { void M() {} }\n"
        "public record R(int X);\ninterface I { }\n",
        [
            (None, None, "using System;"),
            ("A", "class", "/// <summary>Doc.</summary>"),
            ("R", "record", "public record R(int X);"),
            ("I", "interface", "interface I { }"),
        ],
    ),
    "ruby": (
        "require 'x'\n\n# Doc.\nmodule M\n  class A < B\n    def m(a) = a\n  end\nend\n\n"
        "def top\nend\n",
        [
            (None, None, "require 'x'"),
            ("M", "module", "# Doc."),
            ("top", "method", "def top"),
        ],
    ),
    "php": (
        "<?php\nuse B;\n\n/** Doc. */\n#[Attr]\nfinal class C extends D { function m() {} }\n"
        "function f() {}\ntrait T { }\n",
        [
            (None, None, "<?php"),
            ("C", "class", "/** Doc. */"),
            ("f", "function", "function f() {}"),
            ("T", "trait", "trait T { }"),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_definition_is_a_chunk_with_what_belongs_to_it(language):
    text, expected = SOURCES[language]

    assert cut(text, language) == expected
    windows = cut(text.replace("\n", "\r\n"), language)
    assert [(name, kind, line.rstrip("\r")) for name, kind, line in windows] == expected


STACK = '''\
class Stack:
    """Last in, first out."""

    limit = 10

    # Adds one.
    def push(self, item):
        self.items.append(item)

    @property
    def size(self):
        return len(self.items)

    class Error(Exception):
        def __str__(self):
            return "empty"
'''


def test_a_class_that_is_too_long_is_cut_at_its_methods():
    assert cut(STACK, "python", size=100) == [
        ("Stack", "class", "class Stack:"),
        ("Stack.push", "method", "    # Adds one."),
        ("Stack.size", "method", "    @property"),
        ("Stack.Error", "class", "    class Error(Exception):"),
    ]


def test_a_function_that_is_too_long_is_cut_at_lines_and_keeps_its_name():
    text = "def long():\n" + "".join(f"    step_{n}()\n" for n in range(40))

    found = cut(text, "python", size=100)

    assert {(name, kind) for name, kind, _ in found} == {("long", "function")}
    assert all(line.startswith(("def long", "    step_")) for _, _, line in found)


def test_small_definitions_are_put_together_and_named_after_the_largest_or_what_is_around():
    small = "".join(f"def f{n}():\n    pass\n\n" for n in range(4))
    large = "def g():\n" + "    work()\n" * 12

    assert cut(small, "python", least=60) == [(None, None, "def f0():")]
    assert cut("X = 1\n\n" + large, "python", least=60) == [("g", "function", "X = 1")]


def test_closing_braces_stay_with_the_last_member():
    methods = "".join(f"  void m{n}() {{ run({n}); }}\n" for n in range(6))
    text = f"class A {{\n{methods}}}\n"

    found = checked(text, ChunkingConfig("code", language="java", size=60, min_size=0))

    assert [chunk.name for chunk in found] == ["A", *(f"A.m{n}" for n in range(6))]
    assert found[-1].text.endswith("}\n}")


def test_definitions_in_texts_of_many_scripts_are_found_where_they_are():
    text = (
        "# 漢字 👩‍👩‍👧‍👦\nX = 'é' * 3\n\n\ndef größe():\n    return 'ñ'\n\n\ndef b(): return '🇫🇷'\n"
    )

    assert [name for name, _, _ in cut(text, "python")] == [None, "größe", "b"]


def test_broken_code_is_cut_all_the_same():
    text = "def f(:\n    return ((\n\nclass \ndef g():\n    pass\n\ud800\n}}}\ndef h(): pass\n"

    assert cut(text, "python")


def test_this_package_cut_by_definition_keeps_the_promises():
    for file in sorted(Path(__file__).parents[2].glob("koru_delta/ingest/**/*.py")):
        text = file.read_text(encoding="utf-8")
        for config in (
            ChunkingConfig("code", language="python"),
            ChunkingConfig("code", language="python", size=200, overlap=50),
        ):
            checked(text, config)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_no_code_is_cut_at_lines_in_bounded_time(language):
    for unit in MONOTONOUS:
        config = ChunkingConfig("code", language=language, size=300)
        checked(unit * (2000 // len(unit)), config)


def test_garbage_that_a_parser_repairs_in_quadratic_time_is_given_up():
    text = "<!--" * 25_000

    assert checked(text, ChunkingConfig("code", language="ruby"))[0].name is None


@pytest.mark.parametrize("unit", ["class A:\n ", "def f():\n ", "class A: pass\n"])
def test_definitions_by_the_ten_thousand_are_no_trouble(unit):
    checked(unit * 20_000, ChunkingConfig("code", language="python"))


def test_functions_in_functions_in_functions_are_no_trouble():
    checked("function f() {" * 10_000, ChunkingConfig("code", language="javascript"))


@pytest.mark.parametrize("missing", ["tree_sitter", "tree_sitter_go"])
def test_without_the_grammar_an_error_says_what_to_install(monkeypatch, missing):
    from koru_delta.ingest.chunking import code

    monkeypatch.setitem(sys.modules, missing, None)
    code._language.cache_clear()
    code._query.cache_clear()

    with pytest.raises(MissingExtraError, match=r"go by definition .*'koru-delta\[code\]'"):
        chunk_document("package a", ChunkingConfig("code", language="go"))
