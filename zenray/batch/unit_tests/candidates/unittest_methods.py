"""Methods of test classes as functions: `self.assertEqual(a, b)` is `assert a == b`."""

from __future__ import annotations

import ast
from copy import deepcopy

_COMPARISONS: dict[str, type[ast.cmpop]] = {
    "assertEqual": ast.Eq,
    "assertEquals": ast.Eq,
    "assertListEqual": ast.Eq,
    "assertDictEqual": ast.Eq,
    "assertTupleEqual": ast.Eq,
    "assertSetEqual": ast.Eq,
    "assertSequenceEqual": ast.Eq,
    "assertMultiLineEqual": ast.Eq,
    "assertNotEqual": ast.NotEq,
    "assertIs": ast.Is,
    "assertIsNot": ast.IsNot,
    "assertIn": ast.In,
    "assertNotIn": ast.NotIn,
    "assertGreater": ast.Gt,
    "assertGreaterEqual": ast.GtE,
    "assertLess": ast.Lt,
    "assertLessEqual": ast.LtE,
}


_MAX_SET_UP_NODES = 500


class NotSimple(Exception):
    """A method that cannot become a function of its own; says why."""


def function_body(method: ast.FunctionDef, test_class: ast.ClassDef) -> list[ast.stmt]:
    """What the method does, after its class's `setUp`, as statements without `self`. Raises NotSimple."""
    if any(isinstance(node, ast.FunctionDef) and node.name == "tearDown" for node in test_class.body):
        raise NotSimple("the test class has a tearDown")
    set_up = [
        node for node in test_class.body if isinstance(node, ast.FunctionDef) and node.name in ("setUp", "setup_method")
    ]
    if sum(1 for node in set_up for _ in ast.walk(node)) > _MAX_SET_UP_NODES:
        raise NotSimple("the test class has a long setUp")
    constants: list[ast.stmt] = [node for node in test_class.body if isinstance(node, ast.Assign)]
    statements = deepcopy([*constants, *(statement for node in set_up for statement in node.body), *method.body])
    attributes = {name for statement in statements for name in _assigned_attributes(statement)} | {
        target.id
        for node in constants
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    body: list[ast.stmt] = []
    for statement in statements:
        converted = _ToFunction(attributes).visit(statement)
        body += converted if isinstance(converted, list) else [converted]
    if any(isinstance(node, ast.Name) and node.id == "self" for statement in body for node in ast.walk(statement)):
        raise NotSimple("it uses self for more than simple assertions")
    return body


def _assigned_attributes(statement: ast.stmt) -> set[str]:
    return {
        node.attr
        for node in ast.walk(statement)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value)
    }


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


class _ToFunction(ast.NodeTransformer):
    def __init__(self, attributes: set[str]) -> None:
        self._attributes = attributes

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        if _is_self(node.value) and node.attr in self._attributes:
            return ast.Name(node.attr, node.ctx)
        self.generic_visit(node)
        return node

    def visit_With(self, node: ast.With) -> ast.stmt | list[ast.stmt]:
        """`subTest` only names its cases."""
        self.generic_visit(node)
        match node.items:
            case [ast.withitem(context_expr=ast.Call(func=ast.Attribute(value=owner, attr="subTest")))] if _is_self(
                owner
            ):
                return node.body
            case [ast.withitem(context_expr=ast.Call() as call) as item]:
                item.context_expr = _raises(call) or call
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        self.generic_visit(node)
        if not isinstance(node.value, ast.Call):
            return node
        return _assertion(node.value) or node


def _assertion(call: ast.Call) -> ast.stmt | None:
    """The statement that claims what a call of `self.assertX` does; None where it is none of the simple ones."""
    if not (isinstance(call.func, ast.Attribute) and _is_self(call.func.value)):
        return None
    name, arguments = call.func.attr, call.args
    match name, arguments:
        case ("assertTrue", [value, *_]):
            return ast.Assert(value)
        case ("assertFalse", [value, *_]):
            return ast.Assert(ast.UnaryOp(ast.Not(), value))
        case ("assertIsNone", [value, *_]):
            return ast.Assert(ast.Compare(value, [ast.Is()], [ast.Constant(None)]))
        case ("assertIsNotNone", [value, *_]):
            return ast.Assert(ast.Compare(value, [ast.IsNot()], [ast.Constant(None)]))
        case ("assertIsInstance", [value, kind, *_]):
            return ast.Assert(ast.Call(ast.Name("isinstance", ast.Load()), [value, kind], []))
        case ("assertCountEqual", [left, right, *_]):
            ordered = [ast.Call(ast.Name("sorted", ast.Load()), [side], []) for side in (left, right)]
            return ast.Assert(ast.Compare(ordered[0], [ast.Eq()], [ordered[1]]))
        case ("assertAlmostEqual", [left, right, *places]) if not call.keywords:
            shown = places[0] if places else ast.Constant(7)
            difference = ast.Call(ast.Name("round", ast.Load()), [ast.BinOp(left, ast.Sub(), right), shown], [])
            return ast.Assert(ast.Compare(difference, [ast.Eq()], [ast.Constant(0)]))
        case ("assertRaises" | "assertRaisesRegex", [_, *rest]) if rest and (raises := _raises(call, with_call=True)):
            called, *passed = rest[1:] if name == "assertRaisesRegex" else rest
            action = ast.Expr(ast.Call(called, passed, call.keywords))
            return ast.With([ast.withitem(raises)], [action])
        case (_, [left, right, *_]) if name in _COMPARISONS:
            return ast.Assert(ast.Compare(left, [_COMPARISONS[name]()], [right]))
    return None


def _raises(call: ast.Call, with_call: bool = False) -> ast.Call | None:
    """`pytest.raises(...)` for `self.assertRaises(...)`; None for another call."""
    if not (isinstance(call.func, ast.Attribute) and _is_self(call.func.value) and call.args):
        return None
    has_pattern = call.func.attr == "assertRaisesRegex" and len(call.args) > 1
    if not has_pattern and call.func.attr != "assertRaises":
        return None
    if with_call and has_pattern and len(call.args) < 3:
        return None
    match = [ast.keyword("match", call.args[1])] if has_pattern else []
    return ast.Call(ast.Attribute(ast.Name("pytest", ast.Load()), "raises", ast.Load()), [call.args[0]], match)
