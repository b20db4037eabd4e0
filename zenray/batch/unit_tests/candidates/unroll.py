"""Parametrised tests and loops over literal cases as one body per case."""

from __future__ import annotations

import ast
from copy import deepcopy

from zenray.batch.unit_tests.candidates.claims import is_claim, stored_names

MAX_CASES = 16
_MAX_STATEMENTS = 128
"""Of a body with its loops unrolled."""


def parametrised(decorator: ast.expr, body: list[ast.stmt]) -> list[list[ast.stmt]] | None:
    """The body once for each case of a `pytest.mark.parametrize(...)`; None where its cases are not written out."""
    if not isinstance(decorator, ast.Call) or len(decorator.args) < 2:
        return None
    names = _argument_names(decorator.args[0])
    cases = _elements(decorator.args[1])
    if not names or cases is None:
        return None
    target: ast.expr = ast.Tuple([ast.Name(name, ast.Store()) for name in names], ast.Store())
    if len(names) == 1 and not isinstance(decorator.args[0], ast.Tuple | ast.List):
        target = ast.Name(names[0], ast.Store())
    unrolled = [_with_case(target, _unwrapped(case), body) for case in cases[:MAX_CASES]]
    return [each for each in unrolled if each is not None]


def unroll_loops(body: list[ast.stmt]) -> list[ast.stmt]:
    """`body` with each top-level loop that asserts over written-out cases replaced by its rounds."""
    done: list[ast.stmt] = []
    literals: dict[str, ast.expr] = {}
    for statement in body:
        if isinstance(statement, ast.For) and not statement.orelse and is_claim(statement):
            rounds = _rounds(statement, literals)
            done += [statement] if rounds is None or len(done) + len(rounds) > _MAX_STATEMENTS else rounds
            continue
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.List() | ast.Tuple() as value):
                literals[name] = value
            case _:
                for name in stored_names(statement):
                    literals.pop(name, None)
        done.append(statement)
    return done


def _rounds(loop: ast.For, literals: dict[str, ast.expr]) -> list[ast.stmt] | None:
    iterated = literals.get(loop.iter.id) if isinstance(loop.iter, ast.Name) else loop.iter
    cases = None if iterated is None else _elements(iterated)
    leaves = any(isinstance(node, ast.Break | ast.Continue) for node in ast.walk(loop))
    if cases is None or leaves or len(loop.body) > _MAX_STATEMENTS // MAX_CASES:
        return None
    rounds = [_with_case(loop.target, case, loop.body) for case in cases[:MAX_CASES]]
    return [statement for each in rounds if each is not None for statement in each]


def _with_case(target: ast.expr, case: ast.expr, body: list[ast.stmt]) -> list[ast.stmt] | None:
    """The body with the names of `target` bound to `case`: values that are read once stand where they are read."""
    bindings = _bindings(target, case)
    if bindings is None:
        return None
    copied = deepcopy(body)
    stored = {name for statement in copied for name in stored_names(statement)}
    reads = [node.id for statement in copied for node in ast.walk(statement) if isinstance(node, ast.Name)]
    inline = {
        name: value
        for name, value in bindings.items()
        if name not in stored and (reads.count(name) == 1 or isinstance(value, ast.Constant))
    }
    assigned: list[ast.stmt] = [
        ast.Assign([ast.Name(name, ast.Store())], deepcopy(value))
        for name, value in bindings.items()
        if name not in inline
    ]
    return [*assigned, *(_Inline(inline).visit(statement) for statement in copied)]


def _bindings(target: ast.expr, case: ast.expr) -> dict[str, ast.expr] | None:
    match target, case:
        case ast.Name(id=name), _:
            return {name: case}
        case ((ast.Tuple(elts=targets) | ast.List(elts=targets)), (ast.Tuple(elts=values) | ast.List(elts=values))):
            if len(targets) != len(values) or any(isinstance(value, ast.Starred) for value in values):
                return None
            found: dict[str, ast.expr] = {}
            for each, value in zip(targets, values, strict=True):
                inner = _bindings(each, value)
                if inner is None:
                    return None
                found.update(inner)
            return found
    return None


class _Inline(ast.NodeTransformer):
    def __init__(self, values: dict[str, ast.expr]) -> None:
        self._values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return deepcopy(self._values[node.id]) if node.id in self._values else node


def _elements(node: ast.expr) -> list[ast.expr] | None:
    """The cases of a written-out collection; a dictionary's `.items()` are its pairs."""
    match node:
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return None if any(isinstance(element, ast.Starred) for element in elements) else list(elements)
        case ast.Call(func=ast.Attribute(value=ast.Dict(keys=keys, values=values), attr="items"), args=[]):
            pairs = [(key, value) for key, value in zip(keys, values, strict=True) if key is not None]
            return [ast.Tuple([key, value], ast.Load()) for key, value in pairs]
    return None


def _argument_names(node: ast.expr) -> list[str]:
    match node:
        case ast.Constant(value=str(text)):
            return [name.strip() for name in text.split(",") if name.strip().isidentifier()]
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            return [str(element.value) for element in elements if isinstance(element, ast.Constant)]
    return []


def _unwrapped(case: ast.expr) -> ast.expr:
    """`pytest.param(a, b, id=...)` as `(a, b)`."""
    match case:
        case ast.Call(func=ast.Attribute(attr="param"), args=[single]):
            return single
        case ast.Call(func=ast.Attribute(attr="param"), args=arguments):
            return ast.Tuple(arguments, ast.Load())
    return case
