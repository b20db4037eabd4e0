"""Stubs: the module as it is, but for what the function does."""

from __future__ import annotations

import ast
import textwrap

import pytest

from zenray.batch.unit_tests.validation.assertions import why_no_assertion
from zenray.batch.unit_tests.validation.stub import make_stubs


@pytest.mark.parametrize(
    "definition",
    [
        "def f(x):\n    return x",
        "def f(x): return x; y = 1",
        'def f(x):\n    """Says something."""\n    return x',
        "def f(x):\n    @print\n    def g(): pass\n    return g",
        "def f(\n    x,\n):\n    # A comment.\n    for y in x:\n        yield y",
    ],
)
@pytest.mark.parametrize("inside_class", [False, True])
def test_only_the_body_is_another(definition: str, inside_class: bool) -> None:
    before, after = "LIMIT = 3  # Kept.\n", "\n\ndef g(x):\n    return 'ü'\n"
    code = f"class C:\n{textwrap.indent(definition, '    ')}" if inside_class else definition
    stubs = make_stubs(before + code + after, "C.f" if inside_class else "f")
    assert len(stubs) == 2
    for stub, value in zip(stubs, ("None", "object()"), strict=True):
        assert stub.startswith(before)
        assert stub.endswith(after)
        function = next(node for node in ast.walk(ast.parse(stub)) if getattr(node, "name", "") == "f")
        assert [ast.unparse(statement) for statement in function.body] == [f"return {value}"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("f(1)", "asserts nothing"),
        ("x = f(1)\n    assert True", "asserts only constants, types or what is always so"),
        ("assert isinstance(f(1), int)", "asserts only constants, types or what is always so"),
        ("assert isinstance(f(1), int)\n    assert f(1) == 1", None),
        ("assert f(1)", None),
        ("with pytest.raises(ValueError):\n        f(1)", None),
        ("for x in range(3):\n        assert f(x) == x", None),
    ],
)
def test_a_test_without_a_claim_is_told_by_its_form(body: str, reason: str | None) -> None:
    assert why_no_assertion(f"import pytest\n\ndef test_f():\n    {body}\n") == reason
