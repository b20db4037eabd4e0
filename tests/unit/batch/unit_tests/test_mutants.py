"""Mutants: one change each, all different, of the function alone, and the same every time."""

from __future__ import annotations

import ast
import bisect
import colorsys
import heapq
import inspect
import shlex
import textwrap
from collections.abc import Iterator
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.batch.unit_tests.validation.focal_function import FunctionText, find_function
from zenray.batch.unit_tests.validation.mutants import make_mutants

_MODULES = (bisect, colorsys, heapq, shlex, textwrap)


def _functions(module: ModuleType) -> Iterator[str]:
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{member.name}" for member in node.body if isinstance(member, ast.FunctionDef))


_LIBRARY = [(module, name) for module in _MODULES for name in _functions(module)]
_SOURCES = {module: inspect.getsource(module) for module in _MODULES}


def changes_in(body: str, max_mutants: int = 500) -> dict[str, set[str]]:
    """By operator, what the mutants of a function with this body have in its place."""
    source = "def f(a, b=1):\n" + textwrap.indent(textwrap.dedent(body).strip("\n"), "    ") + "\n"
    found: dict[str, set[str]] = {}
    for mutant in make_mutants(source, "f", max_mutants):
        changed = [line.strip() for line in mutant.module_source.splitlines() if line not in source.splitlines()]
        found.setdefault(mutant.operator, set()).add("\n".join(changed))
    return found


@given(st.sampled_from(_LIBRARY), st.integers(0, 40))
@settings(deadline=None, max_examples=40)
def test_each_mutant_is_the_module_with_one_other_place_inside_the_function(function: tuple, max_mutants: int) -> None:
    module, name = function
    source = _SOURCES[module]
    mutants = make_mutants(source, name, max_mutants)
    assert len(mutants) <= max_mutants
    assert len({mutant.mutant_id for mutant in mutants}) == len(mutants)
    assert len({mutant.module_source for mutant in mutants} | {source}) == len(mutants) + 1
    text = FunctionText.find(source, name)
    assert text is not None
    node = text.node
    for mutant in mutants:
        compile(mutant.module_source, "mutant", "exec")
        prefix = _common_prefix(source, mutant.module_source)
        suffix = _common_prefix(source[::-1], mutant.module_source[::-1])
        first_changed = source[:prefix].count("\n") + 1
        last_changed = source[: len(source) - suffix].count("\n") + 1
        assert node.lineno <= first_changed <= last_changed <= (node.end_lineno or 0)
        assert mutant.line <= last_changed


@given(st.sampled_from(_LIBRARY))
@settings(deadline=None, max_examples=20)
def test_fewer_mutants_are_some_of_the_more(function: tuple) -> None:
    module, name = function
    few, more = (make_mutants(_SOURCES[module], name, number) for number in (5, 30))
    assert {mutant.mutant_id for mutant in few if "-" not in mutant.mutant_id.partition("-")[2]} <= {
        mutant.mutant_id for mutant in more
    }
    assert {mutant.module_source for mutant in few} <= {mutant.module_source for mutant in more}
    assert more == make_mutants(_SOURCES[module], name, 30)


def test_a_bounded_choice_is_spread_over_lines_and_operators() -> None:
    body = "\n".join(f"a = a + {number}" for number in range(2, 12)) + "\nif a < b:\n    return -a\nreturn b"
    source = "def f(a, b):\n" + textwrap.indent(body, "    ")
    mutants = make_mutants(source, "f", 12)
    assert len({mutant.line for mutant in mutants}) == 12, "one on each line that can be changed, before any second"
    assert len({mutant.operator for mutant in mutants}) >= 4


@pytest.mark.parametrize(
    ("body", "operator", "expected"),
    [
        ("return a < b", "comparison_boundary", {"return (a <= b)"}),
        ("return a < b", "comparison_negated", {"return (a >= b)"}),
        ("return a in b", "comparison_negated", {"return (a not in b)"}),
        ("return 0 < a <= b", "comparison_boundary", {"return (0 <= a <= b)", "return (0 < a < b)"}),
        ("return a + b", "arithmetic", {"return (a - b)"}),
        ("a += b\nreturn a", "arithmetic", {"a -= b"}),
        ("a += b\nreturn a", "statement_deleted", {"pass"}),
        ("return not a", "not_removed", {"return a"}),
        ("return -a", "sign_removed", {"return a"}),
        ("return a and b", "boolean_operator", {"return (a or b)"}),
        ("if a:\n    return b", "condition_negated", {"if (not a):"}),
        ("return [x for x in a if x]", "condition_negated", {"return [x for x in a if (not x)]"}),
        ("return 5", "constant", {"return 6", "return 4"}),
        ("return True", "constant", {"return False"}),
        ("return 'text'", "constant", {"return ''"}),
        ("return ''", "constant", {"return 'mutant'"}),
        ("return a[1:b]", "slice_bound", {"return a[:b]", "return a[1:]"}),
        ("return a.lower()", "sibling_function", {"return a.upper()"}),
        ("return a", "return_value", {"return None"}),
        ("return None", "return_value", {"return False"}),
        ("x = a\nreturn x", "assigned_none", {"x = None"}),
        ("a.append(b)\nreturn a", "statement_deleted", {"pass"}),
        ("if a:\n    raise ValueError('no')\nreturn b", "raise_removed", {"pass"}),
        ("for x in a:\n    if x:\n        break\nreturn x", "loop_control", {"continue"}),
        ("for x in a:\n    return x", "loop_emptied", {"for x in ():"}),
        ("try:\n    return int(a)\nexcept ValueError:\n    return 0", "handler_removed", {"except ():"}),
        ("return f(a, b)", "arguments_swapped", {"return f(b, a)"}),
        ("return f(a, b)", "argument_dropped", {"return f(a)"}),
        ("return sorted(a, key=b)", "argument_dropped", {"return sorted(a)"}),
        ("return b", "default_argument", {"def f(a, b=2):", "def f(a, b=0):"}),
    ],
)
def test_operators(body: str, operator: str, expected: set[str]) -> None:
    assert changes_in(body)[operator] == expected


@pytest.mark.parametrize(
    "body",
    [
        '"""A docstring."""\npass',
        "x: int = None\npass",
        "assert a, 'a message'",
        "raise ValueError('a message: %s' % 1)",
        "f'{1 + 1}'",
        "return a + 'text'",
    ],
)
def test_what_tests_should_not_see_is_left_alone(body: str) -> None:
    found = set(changes_in(body))
    assert found <= {
        "default_argument",
        "statement_deleted",
        "raise_removed",
        "condition_negated",
        "return_value",
        "constant",
    }
    assert ("constant" in found) == ("'text'" in body)


def test_changes_without_effect_are_dropped() -> None:
    # `not` in front of a condition that is always true changes nothing that runs, nor does code after a return.
    assert set(changes_in("while True:\n    return 1\nreturn 7")) == {"constant", "default_argument", "return_value"}
    sources = changes_in("while True:\n    return 1\nreturn 7")["constant"]
    assert not any("8" in source or "6" in source for source in sources)


def test_the_function_is_found_where_python_would() -> None:
    source = textwrap.dedent("""\
        def area(x): return x + 1
        class Shape:
            def area(self): return 2 * self.x
        if True:
            def area(x): return x + 3
        """)
    assert {mutant.line for mutant in make_mutants(source, "area")} == {5}
    assert {mutant.line for mutant in make_mutants(source, "Shape.area")} == {3}
    assert make_mutants(source, "volume") == ()
    assert find_function(ast.parse(source), "Circle.area") is None


def test_any_text_of_python_can_be_mutated() -> None:
    source = 'def f(a):\r\n\tb = "ä\N{GRINNING FACE}" if a else "\\udc80"\r\n\treturn (a +\r\n\t  1), b; x = 2\r\n'
    mutants = make_mutants(source, "f", 100)
    assert {"arithmetic", "constant", "condition_negated", "return_value"} <= {mutant.operator for mutant in mutants}
    for mutant in mutants:
        compile(mutant.module_source, "mutant", "exec")
    assert make_mutants("def f(:\n", "f") == ()
    assert make_mutants("def f(a):\n    return " + "+".join(["a"] * 50_000), "f") == ()


def _common_prefix(a: str, b: str) -> int:
    return next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def test_of_a_property_it_is_the_getter_that_is_under_test() -> None:
    source = (
        "class Box:\n    @property\n    def size(self):\n        return self.edge * 3\n\n"
        "    @size.setter\n    def size(self, value):\n        self.edge = value / 3\n"
    )
    text = FunctionText.find(source, "Box.size")
    assert text is not None and text.body_lines == (4, 4)
    assert {mutant.line for mutant in make_mutants(source, "Box.size")} == {4}
