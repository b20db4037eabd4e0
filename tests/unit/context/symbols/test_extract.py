"""What a file defines and imports, in every language that has a grammar, and never an exception."""

from __future__ import annotations

import argparse
import ast
import asyncio.events
import dataclasses
import pathlib
import typing
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.context.languages.grammars import MAX_LINE_BYTES, grammar
from zenray.context.languages.table import LANGUAGES
from zenray.context.symbols import FileSymbols, Symbol, extract
from zenray.context.symbols.tags import query_of

CASES = yaml.safe_load((Path(__file__).parent / "cases.yaml").read_text("utf-8"))
SAMPLES = yaml.safe_load((Path(__file__).parents[1] / "languages" / "samples.yaml").read_text("utf-8"))
PIECES = [
    *("class A:\n", "    def f(self):\n", "        return 1\n", "def é(x,\n  y): pass\n", '"""doc"""\n', "# note\n"),
    *("@dec\n", "import a.b as c\n", "from . import (x,\n y)\n", "K = {\n", "}\n", "function f(a) {\n", ") => 1;\n"),
    *(
        "export const g = (",
        "struct S {\n",
        "fn f() {}\n",
        "/** d */\n",
        "/*\n",
        "*/ int f(int x) {\n",
        "#include <a>\n",
    ),
    *("use a::{b, c};\n", "defmodule A do\n", "end\n", "'", '"', "`", "\r\n", "\r", "\t", "\x00", "\ufeff", "😀"),
    *("\u2028", "((((", "<T>", "::"),
]


def told(symbol: Symbol) -> str:
    name = f"{symbol.container}.{symbol.name}" if symbol.container else symbol.name
    parts = [f"{symbol.start_line}-{symbol.end_line} {symbol.kind} {name}", symbol.signature, symbol.documentation]
    return " | ".join(filter(None, parts))


@pytest.mark.parametrize("language_id", CASES)
def test_definitions_and_imports_of_a_small_file(language_id: str) -> None:
    case = CASES[language_id]
    found = extract(case["text"], language_id)
    assert [told(symbol) for symbol in found.symbols] == case["symbols"]
    assert [[each.module, *each.names] for each in found.imports] == case.get("imports", [])


@pytest.mark.parametrize("language_id", CASES)
def test_line_ends_of_another_system_change_nothing(language_id: str) -> None:
    text = CASES[language_id]["text"]
    assert extract(text.replace("\n", "\r\n"), language_id) == extract(text, language_id)


def test_every_query_fits_its_grammar_and_has_one() -> None:
    files = {
        path.name.removesuffix(".scm") for path in (resources.files("zenray.context.symbols") / "queries").iterdir()
    }
    by_grammar = {known.grammar: known.id for known in LANGUAGES}
    assert sorted(files - by_grammar.keys()) == []
    for name in files:
        assert query_of(name, grammar(by_grammar[name]))[0].pattern_count > 0


@pytest.mark.parametrize("language_id", SAMPLES)
def test_every_grammar_has_a_query_that_compiles(language_id: str) -> None:
    assert extract(SAMPLES[language_id], language_id) == extract(SAMPLES[language_id], language_id.upper())


@pytest.mark.parametrize("text", ["", "\n", "\ufeff", "x", " " * 100, "\x00", "\r\r\r", "é" * 1000])
@pytest.mark.parametrize("language_id", ["python", "typescript", "plaintext", "crystal", "never heard of"])
def test_nothing_comes_of_nothing(text: str, language_id: str) -> None:
    assert extract(text, language_id) == FileSymbols()


def test_without_a_grammar_lines_that_look_like_definitions_are_taken() -> None:
    text = 'require "a"\n\nclass Tree < Base\n  def grow(by)\n  end\nend\n'
    assert [told(symbol) for symbol in extract(text, "crystal").symbols] == [
        "2-3 class Tree | class Tree < Base",
        "3-4 function grow | def grow(by)",
    ]


def test_a_file_too_long_to_parse_still_tells_what_lines_look_like() -> None:
    data = "x = '" + "a" * MAX_LINE_BYTES + "'\n"
    assert [symbol.name for symbol in extract("def f(x):\n    pass\n" + data, "python").symbols] == ["f"]


def test_a_definition_without_a_name_is_none() -> None:
    assert not extract(':"class A', "python").symbols, "an annotation of nothing, before a string that never ends"


def test_definitions_around_a_syntax_error_are_found() -> None:
    text = "def before():\n    pass\n\nresult = compute(\n\ndef after(x):\n    return x\n"
    text += "\nclass Last:\n    x = (\n    def m(self): pass\n"
    found = extract(text, "python").symbols
    assert [symbol.name for symbol in found if symbol.kind != "constant"] == ["before", "after", "Last", "m"]


def test_what_is_local_to_a_function_is_left_out() -> None:
    text = "def f():\n    K = 1\n    class Local:\n        def g(self): pass\n    def h(): pass\n"
    assert [symbol.name for symbol in extract(text, "python").symbols] == ["f"]


def test_long_signatures_and_documentation_are_cut() -> None:
    names = ",\n".join(f"    argument_{number}: int" for number in range(200))
    [symbol] = extract(f'def f(\n{names}\n):\n    """{"word " * 1000}"""\n', "python").symbols
    assert symbol.signature.startswith("def f(\n    argument_0: int,\n")
    assert len(symbol.signature) <= 400
    assert symbol.signature.split("\n")[-1].strip().startswith("argument_")
    assert 0 < len(symbol.documentation) <= 600


@pytest.mark.parametrize("opening", ["(", "[", "{", "if (\n", "class A {\n", "((((\n", "class A:\n "])
@pytest.mark.parametrize("language_id", ["python", "cpp", "typescript", "clojure"])
def test_deep_nesting_ends(opening: str, language_id: str) -> None:
    """The suite's own time limit is the judge of endless work."""
    found = extract(opening * (200_000 // len(opening)), language_id)
    assert {symbol.name for symbol in found.symbols} <= {"A"}


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join) | st.text(), st.sampled_from([*CASES, "crystal"]))
def test_any_text_gives_symbols_within_it(text: str, language_id: str) -> None:
    found = extract(text, language_id)
    num_lines = text.count("\n") + 1
    starts = [symbol.start_line for symbol in found.symbols]
    assert starts == sorted(starts)
    for symbol in found.symbols:
        assert 0 <= symbol.start_line < symbol.end_line <= num_lines
        assert symbol.name
        assert len(symbol.signature) <= 400
        assert len(symbol.documentation) <= 600
    assert all(each.module for each in found.imports)
    assert len(set(found.imports)) == len(found.imports)


MODULES = [argparse, ast, asyncio.events, dataclasses, pathlib, typing]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_the_standard_library_reads_as_its_own_parser_reads_it(module: ModuleType) -> None:
    text = Path(str(module.__file__)).read_text("utf-8")
    tree = ast.parse(text)
    found = extract(text, "python")
    kinds = ("function", "method", "class")
    assert {(it.start_line, it.name) for it in found.symbols if it.kind in kinds} == set(definitions(tree))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {"." * it.level + (it.module or "") for it in ast.walk(tree) if isinstance(it, ast.ImportFrom)}
    assert {each.module for each in found.imports} == modules


def definitions(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of what is defined outside of functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield min(part.lineno for part in (child, *child.decorator_list)) - 1, child.name
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from definitions(child)
