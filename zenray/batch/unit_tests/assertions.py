"""Whether a test asserts anything that depends on the function it tests, as far as its text tells.

Says no only where that is certain enough; whether the assertion is worth anything, stubs and mutants tell.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from zenray.batch.unit_tests.focal_function import parse_quietly

_EXPECTING_CALLS = frozenset({"raises", "warns", "deprecated_call", "assertRaises", "assertWarns", "assertRaisesRegex"})
_FAILING_CALLS = frozenset({"fail", "xfail"})


def asserts_something(test_source: str, import_name: str) -> bool:
    """Whether an assertion of the test, or an expected exception, depends on a call of `import_name`."""
    tree = parse_quietly(test_source)
    return tree is not None and _Reader(import_name).finds_assertion(tree)


class _Reader:
    """Follows by name what came out of the function. Grows until nothing new is found."""

    def __init__(self, import_name: str) -> None:
        self._callable = {import_name, "focal"}  # Names by which the function can be reached.
        self._results: set[str] = set()  # Names that hold something a call gave or was given.

    def finds_assertion(self, tree: ast.Module) -> bool:
        while True:
            size = len(self._callable) + len(self._results)
            self._learn(tree)
            if len(self._callable) + len(self._results) == size:
                break
        return self._asserts(tree.body, decided=False)

    def _learn(self, tree: ast.Module) -> None:
        for node in ast.walk(tree):
            match node:
                case ast.Assign() | ast.AnnAssign(value=ast.expr()) | ast.AugAssign() | ast.NamedExpr():
                    assert node.value is not None
                    self._bind(node.targets if isinstance(node, ast.Assign) else [node.target], node.value)
                case ast.For() | ast.comprehension():
                    self._bind([node.target], node.iter)
                case ast.withitem(optional_vars=ast.expr()):
                    assert node.optional_vars is not None
                    self._bind([node.optional_vars], node.context_expr)
                case ast.With() if self._expects(node):
                    # What was caught: `with raises(...) as caught`.
                    for item in node.items:
                        self._results |= _names([item.optional_vars] if item.optional_vars else [])
                case ast.Try() if any(self._depends(statement) for statement in node.body):
                    self._results |= {handler.name for handler in node.handlers if handler.name}
                case ast.Call() if self._reaches(node.func):
                    # The function may change what it is given.
                    self._results |= _names([*node.args, *(keyword.value for keyword in node.keywords)])
                case ast.FunctionDef() | ast.Lambda() if self._mentions(node, self._callable):
                    if isinstance(node, ast.FunctionDef):
                        self._callable.add(node.name)

    def _bind(self, targets: Sequence[ast.expr], value: ast.expr) -> None:
        if self._depends(value):
            self._results |= _names(targets)
        elif self._mentions(value, self._callable):
            self._callable |= _names(targets)

    def _depends(self, node: ast.AST) -> bool:
        """Whether a call of the function, or what came of one, is part of `node`."""
        return self._mentions(node, self._results) or any(
            isinstance(each, ast.Call) and (self._reaches(each.func) or any(map(self._reaches, each.args)))
            for each in ast.walk(node)
        )

    def _reaches(self, callee: ast.AST) -> bool:
        return self._mentions(callee, self._callable)

    @staticmethod
    def _mentions(node: ast.AST, names: set[str]) -> bool:
        return any(isinstance(each, ast.Name) and each.id in names for each in ast.walk(node))

    def _asserts(self, body: list[ast.stmt], decided: bool) -> bool:
        """`decided`: whether these statements are reached depends on the function."""
        return any(self._asserts_at(statement, decided) for statement in body)

    def _asserts_at(self, node: ast.stmt, decided: bool) -> bool:
        match node:
            case ast.Assert():
                return decided or (self._depends(node.test) and not _is_tautology(node.test))
            case ast.Raise():
                return decided
            case ast.Expr(value=ast.Call()):
                return (decided and _called(node.value) in _FAILING_CALLS) or (
                    _called(node.value) in _EXPECTING_CALLS and self._depends(node)
                )
            case ast.With():
                return self._expects(node) or self._asserts(node.body, decided)
            case ast.If() | ast.While():
                decides = decided or self._depends(node.test)
                return self._asserts([*node.body, *node.orelse], decides)
            case ast.For():
                decides = decided or self._depends(node.iter)
                return self._asserts([*node.body, *node.orelse], decides)
            case ast.Try():
                decides = decided or any(self._depends(statement) for statement in node.body)
                handlers = [statement for handler in node.handlers for statement in handler.body]
                return self._asserts([*node.body, *handlers, *node.orelse, *node.finalbody], decides)
            case ast.Match():
                decides = decided or self._depends(node.subject)
                return self._asserts([statement for case in node.cases for statement in case.body], decides)
            case ast.FunctionDef():
                return self._asserts(node.body, decided)
        return False

    def _expects(self, node: ast.With) -> bool:
        is_expecting = any(_called(item.context_expr) in _EXPECTING_CALLS for item in node.items)
        return is_expecting and any(self._depends(statement) for statement in node.body)


def _is_tautology(test: ast.expr) -> bool:
    """`assert f(x) == f(x)` holds for every function worth testing; `assert (f(x), "message")` for every one."""
    if isinstance(test, ast.Tuple):
        return bool(test.elts)
    return (
        isinstance(test, ast.Compare)
        and len(test.ops) == 1
        and isinstance(test.ops[0], ast.Eq | ast.Is | ast.GtE | ast.LtE)
        and ast.dump(test.left) == ast.dump(test.comparators[0])
    )


def _called(node: ast.expr) -> str:
    """`raises` of `pytest.raises(...)`."""
    match node:
        case ast.Call(func=ast.Attribute(attr=name)) | ast.Call(func=ast.Name(id=name)):
            return name
    return ""


def _names(nodes: Sequence[ast.expr]) -> set[str]:
    return {each.id for node in nodes for each in ast.walk(node) if isinstance(each, ast.Name)}
