"""The function under test with nothing in it: what a test that means anything must fail on."""

from __future__ import annotations

import ast

from zenray.batch.unit_tests.focal_function import find_function, parse_quietly

_BODIES = ("return None", "return object()")


def make_stubs(module_source: str, function_name: str) -> tuple[str, ...]:
    """The module twice, with a function that returns None, and with one that returns an object like no other.

    A test fails on the stub if it fails on either. One alone would throw honest tests away: `assert f(x) is None` holds
    for the first and `assert f(x)` for the second, as `assert not f(x)` for the first; what passes on both does not
    look at the result, nor at the exception, nor at what the function does to its arguments.
    """
    stubs = []
    for body in _BODIES:
        tree = parse_quietly(module_source)
        function = find_function(tree, function_name) if tree else None
        if tree is None or function is None:
            return ()
        function.body = ast.parse(f"def stub():\n    {body}").body[0].body  # type: ignore[attr-defined]
        stubs.append(ast.unparse(tree))
    return tuple(stubs)
