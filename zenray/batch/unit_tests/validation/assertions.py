"""Whether a test asserts anything, by its form. Whether that depends on the function, stubs and mutants tell."""

from __future__ import annotations

from zenray.batch.unit_tests.candidates.claims import is_claim, weakness
from zenray.batch.unit_tests.validation.focal_function import FunctionNode, parse_quietly


def why_no_assertion(test_source: str) -> str | None:
    """What is wrong with the first claim of a test, if all of them say nothing; None where one may say something."""
    tree = parse_quietly(test_source)
    functions = [node for node in (tree.body if tree else ()) if isinstance(node, FunctionNode)]
    try:
        reasons = [weakness(statement) for function in functions for statement in function.body if is_claim(statement)]
    except RecursionError:
        return None  # Nobody writes such a claim to say nothing; its runs will tell.
    if None in reasons:
        return None
    return reasons[0] if reasons else "asserts nothing"
