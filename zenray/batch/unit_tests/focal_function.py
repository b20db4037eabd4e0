"""Where the function under test stands in its module."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def parse_quietly(source: str) -> ast.Module | None:
    """The tree of `source`, or None where Python cannot make one of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def find_function(tree: ast.Module, name: str) -> FunctionNode | None:
    """The definition that `name` (`f`, `Shape.area`) has once the module is imported, as far as its text tells: the
    last one, also inside of `if` and `try`."""
    *classes, function = name.split(".")
    body: Sequence[ast.AST] = tree.body
    for wanted in classes:
        found = [node for node in _definitions(body) if isinstance(node, ast.ClassDef) and node.name == wanted]
        if not found:
            return None
        body = found[-1].body
    functions = [node for node in _definitions(body) if isinstance(node, FunctionNode) and node.name == function]
    return functions[-1] if functions else None


def body_lines(function: FunctionNode) -> tuple[int, int]:
    """First and last line of what runs when the function is called."""
    return function.body[0].lineno, function.end_lineno or function.body[-1].lineno


def _definitions(body: Sequence[ast.AST]) -> list[ast.AST]:
    """Functions and classes of one scope in the order of the text, not those inside of others."""
    found: list[ast.AST] = []
    stack = list(reversed(body))
    while stack:
        node = stack.pop()
        if isinstance(node, FunctionNode | ast.ClassDef):
            found.append(node)
        elif not isinstance(node, ast.expr):
            stack.extend(reversed(list(ast.iter_child_nodes(node))))
    return found
