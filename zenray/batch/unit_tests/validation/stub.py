"""The function under test with nothing in it: what a test that means anything must fail on."""

from __future__ import annotations

from zenray.batch.unit_tests.validation.focal_function import FunctionText

_BODIES = ("return None", "return object()")


def make_stubs(module_source: str, function_name: str) -> tuple[str, ...]:
    """The module twice, with a function that returns None, and with one that returns an object like no other.

    A test fails on the stub if it fails on either. One alone would throw honest tests away: `assert f(x) is None` holds
    for the first and `assert f(x)` for the second, as `assert not f(x)` for the first; what passes on both does not
    look at the result, nor at the exception, nor at what the function does to its arguments.
    """
    text = FunctionText.find(module_source, function_name)
    return tuple(text.module(text.body_edit(body)) for body in _BODIES) if text else ()
