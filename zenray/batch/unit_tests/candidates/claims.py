"""One claim per test: a test of several asserts becomes several tests, each with the statements its assert needs.

A small model computes some results in its head and gets some wrong; one wrong assert would take the right ones with
it. And the worth of a test, the mutants it kills, is then the worth of one claim.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

MAX_CLAIMS = 16
"""Of one test."""
_TOO_BROAD = frozenset({"Exception", "BaseException", "NameError", "ImportError", "ModuleNotFoundError"})
"""Errors that a broken test raises too."""
_TYPE_CHECKS = frozenset({"isinstance", "issubclass", "callable", "hasattr", "type", "id"})


def split_claims(body: Iterable[ast.stmt]) -> list[list[ast.stmt]]:
    """For each top-level statement that claims something, it and those before it that it depends on."""
    done: list[ast.stmt] = []
    claims: list[list[ast.stmt]] = []
    for statement in body:
        if len(claims) == MAX_CLAIMS:
            break
        if is_claim(statement):
            claims.append([*_needed(done, statement), statement])
        elif not _is_idle(statement):
            done.append(statement)
    return claims


def is_claim(statement: ast.stmt) -> bool:
    return any(isinstance(node, ast.Assert) or is_raises(node) for node in ast.walk(statement))


def is_raises(node: ast.AST) -> bool:
    """`pytest.raises(...)`, `pytest.warns(...)`."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("raises", "warns")
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "pytest"
    )


def weakness(claim: ast.stmt) -> str | None:
    """Why the claim says nothing of any function, judged by its form; None where it may."""
    raised = [node for node in ast.walk(claim) if is_raises(node) and isinstance(node, ast.Call)]
    if any(not call.args or _names_of(call.args[0]) & _TOO_BROAD for call in raised):
        return "expects an error that a broken test raises too"
    asserted = [node.test for node in ast.walk(claim) if isinstance(node, ast.Assert)]
    if raised or not all(_is_vacuous(test) for test in asserted):
        return None
    return "asserts only constants, types or what is always so" if asserted else "asserts nothing"


def _is_vacuous(test: ast.expr) -> bool:
    """True, or false, whatever any function does. A check of a type alone is: nearly every wrong result passes."""
    match test:
        case ast.Constant() | ast.JoinedStr() | ast.Lambda() | ast.Tuple() | ast.List() | ast.Dict() | ast.Set():
            return True
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _is_vacuous(operand)
        case ast.BoolOp(op=ast.Or(), values=values):
            return any(_is_vacuous(value) for value in values)
        case ast.BoolOp(values=values):
            return all(_is_vacuous(value) for value in values)
        case ast.Call(func=ast.Name(id=name)):
            return name in _TYPE_CHECKS
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return _is_vacuous_comparison(left, op, right)
    return False


def _is_vacuous_comparison(left: ast.expr, op: ast.cmpop, right: ast.expr) -> bool:
    if ast.dump(left) == ast.dump(right) and isinstance(op, ast.Eq | ast.Is | ast.LtE | ast.GtE):
        return True
    if isinstance(left, ast.Constant) and isinstance(right, ast.Constant):
        return True
    match left:
        case ast.Call(func=ast.Name(id="type")):
            return True
        case ast.Call(func=ast.Name(id="len")):
            return isinstance(op, ast.GtE) and isinstance(right, ast.Constant) and right.value == 0
    return False


def _is_idle(statement: ast.stmt) -> bool:
    """A docstring, a `pass`, a `print`: nothing depends on it."""
    match statement:
        case ast.Pass() | ast.Expr(value=ast.Constant()) | ast.Expr(value=ast.Call(func=ast.Name(id="print"))):
            return True
    return False


def _needed(before: list[ast.stmt], claim: ast.stmt) -> list[ast.stmt]:
    """Those of `before` that `claim` depends on by names, in order. What two names of one object do to it is not
    followed: such a test then fails, or says something else, and is validated as what it is."""
    needed = loaded_names(claim)
    kept = []
    for statement in reversed(before):
        bound = _simple_targets(statement)
        if bound is not None:
            if not bound & needed:
                continue
            needed -= bound
        elif not (loaded_names(statement) | stored_names(statement)) & needed:
            continue
        needed |= loaded_names(statement)
        kept.append(statement)
    return kept[::-1]


def _simple_targets(statement: ast.stmt) -> set[str] | None:
    """The names that an assignment, import or definition binds and does nothing else with; None for others."""
    match statement:
        case ast.Assign(targets=targets) if all(_is_pattern(target) for target in targets):
            return stored_names(statement)
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
        case ast.Import() | ast.ImportFrom() | ast.FunctionDef() | ast.ClassDef():
            return stored_names(statement)
    return None


def _is_pattern(target: ast.expr) -> bool:
    if isinstance(target, ast.Tuple | ast.List):
        return all(_is_pattern(item) for item in target.elts)
    return isinstance(target, ast.Name)


def loaded_names(node: ast.AST) -> set[str]:
    return {found.id for found in ast.walk(node) if isinstance(found, ast.Name) and isinstance(found.ctx, ast.Load)}


def stored_names(node: ast.AST) -> set[str]:
    """Every name bound anywhere below, in nested scopes too."""
    return set(_stored(node))


def _stored(node: ast.AST) -> Iterator[str]:
    for found in ast.walk(node):
        match found:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield name
            case ast.arg(arg=name):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from ((alias.asname or alias.name).split(".")[0] for alias in aliases)


def _names_of(node: ast.expr) -> set[str]:
    """Last parts of the names in an expression such as `(ValueError, decimal.InvalidOperation)`."""
    return loaded_names(node) | {found.attr for found in ast.walk(node) if isinstance(found, ast.Attribute)}
