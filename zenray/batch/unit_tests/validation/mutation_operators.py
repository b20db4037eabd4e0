"""What a mutant may change: one small mistake at one place, as programmers make them.

The operators are those that mutmut, Cosmic Ray and PIT agree on. Left out is what tests should not see (messages of
exceptions, annotations, docstrings) and what Python refuses at once (a string minus a string).
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from zenray.batch.unit_tests.validation.focal_function import FunctionNode

Node = TypeVar("Node", bound=ast.AST)


@dataclass(frozen=True, slots=True)
class Change:
    """Another text for a node."""

    operator: str
    node: ast.AST
    text: str


_BOUNDARY: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
}  # fmt: skip
_OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr, ast.MatMult: ast.Mult,
}  # fmt: skip
_SIBLINGS = {
    a: b
    for pair in (
        ("lower", "upper"), ("lstrip", "rstrip"), ("split", "rsplit"), ("partition", "rpartition"), ("find", "rfind"),
        ("index", "rindex"), ("startswith", "endswith"), ("removeprefix", "removesuffix"), ("ljust", "rjust"),
        ("min", "max"), ("any", "all"), ("append", "appendleft"), ("floor", "ceil"), ("keys", "values"),
    )
    for a, b in (pair, pair[::-1])
}  # fmt: skip


def changes_of(function: FunctionNode) -> Iterator[Change]:
    """Every change of a function, in the order of its text."""
    arguments = function.args
    for default in [*arguments.defaults, *(each for each in arguments.kw_defaults if each)]:
        yield from (Change("default_argument", change.node, change.text) for change in _constants(default))
    for node in _nodes(function):
        yield from _changes_at(node)


def _nodes(function: FunctionNode) -> Iterator[ast.AST]:
    """What runs when the function is called, without texts for people."""
    stack: list[ast.AST] = list(reversed(function.body))
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(list(_children(node))))


def _children(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.JoinedStr):  # The places of its parts are known only since Python 3.12.
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # A docstring.
        return
    if isinstance(node, ast.Raise):
        return
    skipped = {"annotation", "returns", "decorator_list", "msg", "type_comment"}
    for field, value in ast.iter_fields(node):
        if field in skipped:
            continue
        yield from (each for each in (value if isinstance(value, list) else [value]) if isinstance(each, ast.AST))


def _changes_at(node: ast.AST) -> Iterator[Change]:
    match node:
        case ast.Compare():
            yield from _comparisons(node)
        case ast.BinOp() if _is_arithmetic(node.op, node.left, node.right):
            yield _instead("arithmetic", node, op=_ARITHMETIC[type(node.op)]())
        case ast.AugAssign():
            if _is_arithmetic(node.op, node.value):
                yield _instead("arithmetic", node, op=_ARITHMETIC[type(node.op)]())
            yield Change("statement_deleted", node, "pass")
        case ast.UnaryOp(op=ast.UAdd()):
            pass
        case ast.UnaryOp(op=ast.Not()):
            yield _expression("not_removed", node, node.operand)
        case ast.UnaryOp():
            yield _expression("sign_removed", node, node.operand)
        case ast.BoolOp():
            yield _instead("boolean_operator", node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        case ast.Constant():
            yield from _constants(node)
        case ast.Subscript(slice=ast.Slice()):
            yield from _slices(node)
        case ast.Call():
            yield from _calls(node)
        case ast.Return():
            is_none = node.value is None or (isinstance(node.value, ast.Constant) and node.value.value is None)
            yield Change("return_value", node, "return False" if is_none else "return None")
        case ast.Assign() | ast.AnnAssign(value=ast.expr()):
            if not (isinstance(node.value, ast.Constant) and node.value.value is None):
                assert node.value is not None
                yield Change("assigned_none", node.value, "None")
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.Assert() | ast.Delete():
            yield Change("statement_deleted", node, "pass")
        case ast.Raise():
            yield Change("raise_removed", node, "pass")
        case ast.Break():
            yield Change("loop_control", node, "continue")
        case ast.Continue():
            yield Change("loop_control", node, "break")
        case ast.For():
            yield Change("loop_emptied", node.iter, "()")
        case ast.ExceptHandler(type=ast.expr()):
            assert node.type is not None
            yield Change("handler_removed", node.type, "()")
    yield from _conditions(node)


def _comparisons(node: ast.Compare) -> Iterator[Change]:
    for place, operator in enumerate(node.ops):
        for name, table in (("comparison_boundary", _BOUNDARY), ("comparison_negated", _OPPOSITE)):
            if type(operator) in table:
                operators = [*node.ops]
                operators[place] = table[type(operator)]()
                yield _instead(name, node, ops=operators)


def _conditions(node: ast.AST) -> Iterator[Change]:
    match node:
        case ast.If() | ast.While() | ast.IfExp() | ast.Assert():
            tests = [node.test]
        case ast.comprehension():
            tests = node.ifs
        case ast.match_case(guard=ast.expr()):
            assert node.guard is not None
            tests = [node.guard]
        case _:
            return
    for test in tests:
        # Other operators negate these.
        is_negated_elsewhere = isinstance(test, ast.Compare) and len(test.ops) == 1
        is_endless = isinstance(test, ast.Constant)
        if not (is_negated_elsewhere or is_endless or isinstance(test, ast.UnaryOp)):
            yield _expression("condition_negated", test, ast.UnaryOp(ast.Not(), test))


def _constants(node: ast.AST) -> Iterator[Change]:
    if not isinstance(node, ast.Constant):
        return
    value: Any = node.value
    others: list[Any] = []
    if isinstance(value, bool):
        others = [not value]
    elif isinstance(value, int | float):
        others = [value + 1, value - 1]
    elif isinstance(value, str):
        others = ["" if value else "mutant"]
    elif isinstance(value, bytes):
        others = [b"" if value else b"mutant"]
    for other in others:
        yield _expression("constant", node, ast.Constant(other))


def _slices(node: ast.Subscript) -> Iterator[Change]:
    assert isinstance(node.slice, ast.Slice)
    for bound in ("lower", "upper", "step"):
        if getattr(node.slice, bound) is not None:
            part = copy.copy(node.slice)
            setattr(part, bound, None)
            yield _instead("slice_bound", node, slice=part)


def _calls(node: ast.Call) -> Iterator[Change]:
    match node.func:
        case ast.Name(id=name) if name in _SIBLINGS:
            yield _expression("sibling_function", node.func, ast.Name(_SIBLINGS[name], ast.Load()))
        case ast.Attribute(attr=name) if name in _SIBLINGS:
            yield _instead("sibling_function", node.func, attr=_SIBLINGS[name])
    if any(isinstance(argument, ast.Starred) for argument in node.args):
        return
    if len(node.args) + len(node.keywords) > 1:
        if node.args and not node.keywords:
            yield _instead("argument_dropped", node, args=node.args[:-1])
        for place, keyword in enumerate(node.keywords):
            if keyword.arg is not None:
                yield _instead("argument_dropped", node, keywords=node.keywords[:place] + node.keywords[place + 1 :])
    elif node.keywords and node.keywords[0].arg is not None:
        yield _instead("argument_dropped", node, keywords=[])
    if len(node.args) > 1 and ast.dump(node.args[0]) != ast.dump(node.args[1]):
        yield _instead("arguments_swapped", node, args=[node.args[1], node.args[0], *node.args[2:]])


def _is_arithmetic(operator: ast.operator, *operands: ast.expr) -> bool:
    """Whether the operator may mean numbers or sets: on literal text and lists another one fails at once."""
    texts = (ast.JoinedStr, ast.List, ast.Tuple, ast.ListComp)
    return type(operator) in _ARITHMETIC and not any(
        isinstance(each, texts) or (isinstance(each, ast.Constant) and isinstance(each.value, str | bytes))
        for each in operands
    )


def _instead(operator: str, node: Node, **fields: Any) -> Change:
    """The node with other fields."""
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    if isinstance(node, ast.stmt):
        return Change(operator, node, ast.unparse(other))
    return _expression(operator, node, other)


def _expression(operator: str, node: ast.AST, other: ast.AST) -> Change:
    """In parentheses, so that it stands alone wherever it is put."""
    text = ast.unparse(other)
    is_atom = isinstance(other, ast.Constant | ast.Name | ast.Call | ast.Subscript | ast.Attribute)
    return Change(operator, node, text if is_atom else f"({text})")
