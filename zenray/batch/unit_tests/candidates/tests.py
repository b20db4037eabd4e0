"""From one answer to tests: every claim of every test function in it, each a module of its own."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from zenray.batch.unit_tests.candidates.claims import (
    loaded_names,
    split_claims,
    stored_names,
    weakness,
)
from zenray.batch.unit_tests.candidates.imports import FocalModule, Imports, Refused, drop_inner_imports
from zenray.batch.unit_tests.candidates.normalise import normalised
from zenray.batch.unit_tests.candidates.text import Unparsable, parse_module
from zenray.batch.unit_tests.candidates.unittest_methods import NotSimple, function_body
from zenray.batch.unit_tests.candidates.unroll import parametrised, unroll_loops

_MAX_NAME_CHARACTERS = 60
_MAX_FUNCTIONS = 64
"""Of one answer, parametrised ones once for each case."""


@dataclass(frozen=True, slots=True)
class DraftTest:
    """A test before it has an id: equal `key`s are the same test."""

    name: str
    source: str
    key: str


@dataclass(frozen=True, slots=True)
class DraftRejection:
    """A test of an answer, or all of it, that is none, and why."""

    reason: str
    source: str


def tests_of(module: ast.Module, focal: FocalModule) -> Iterator[DraftTest | DraftRejection]:
    """The tests of an answer in its order. Changes `module`. May raise RecursionError for trees nested too deep."""
    module = focal.rewrite(module)
    imports = Imports.of(module, focal)
    helpers = {name: node for node in module.body for name in _defined(node)}
    loose = _loose_body(module)
    written = list(islice((test for node in module.body for test in _test_functions(node)), _MAX_FUNCTIONS))
    if loose:
        written.append(_Written(f"test_{focal.function_name}", loose, ""))
    if not written:
        yield DraftRejection("no test function", _shown(module))
    for test in written:
        if test.refused:
            yield DraftRejection(test.refused, _shown(test.body))
            continue
        claims = split_claims(unroll_loops(test.body))
        if not claims:
            yield DraftRejection("asserts nothing", _shown(test.body))
        for index, claim in enumerate(claims):
            name = test.name if len(claims) == 1 else f"{test.name}_{index + 1}"
            try:
                yield _draft(name, claim, focal, imports, helpers)
            except Refused as refused:
                yield DraftRejection(str(refused), _shown(claim))


@dataclass(frozen=True, slots=True)
class _Written:
    """A test function as it was written; `refused` says why it cannot become candidates."""

    name: str
    body: list[ast.stmt]
    refused: str


def _test_functions(node: ast.stmt) -> Iterator[_Written]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
        yield from _cases(node, node.body, num_given=0)
    elif isinstance(node, ast.ClassDef) and (node.name.startswith("Test") or _is_test_case(node)):
        for method in node.body:
            if not (isinstance(method, ast.FunctionDef) and method.name.startswith("test")):
                continue
            is_static = any(isinstance(each, ast.Name) and each.id == "staticmethod" for each in method.decorator_list)
            try:
                yield from _cases(method, function_body(method, node), num_given=0 if is_static else 1)
            except NotSimple as reason:
                yield _Written(method.name, method.body, str(reason))


def _is_test_case(node: ast.ClassDef) -> bool:
    return any("TestCase" in ast.dump(base) for base in node.bases)


def _cases(
    function: ast.FunctionDef | ast.AsyncFunctionDef, body: list[ast.stmt], num_given: int
) -> Iterator[_Written]:
    """The function's body, once for each case it is parametrised with. `num_given` parameters need no fixture."""
    if isinstance(function, ast.AsyncFunctionDef):
        yield _Written(function.name, body, "it is asynchronous")
        return
    parameters = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs][num_given:]
    decorators = [each for each in function.decorator_list if ast.unparse(each) != "staticmethod"]
    parametrizing = [each for each in decorators if "parametrize" in ast.unparse(each)]
    if len(decorators) > len(parametrizing) or len(parametrizing) > 1:
        yield _Written(function.name, body, "it is decorated")
    elif parametrizing:
        bodies = parametrised(parametrizing[0], body)
        if bodies is None or not bodies:
            yield _Written(function.name, body, "its cases are not written out")
            return
        for index, each in enumerate(bodies):
            yield _Written(f"{function.name}_{index + 1}", each, "")
    elif parameters or function.args.vararg or function.args.kwarg:
        yield _Written(function.name, body, "it wants fixtures")
    else:
        yield _Written(function.name, body, "")


def _loose_body(module: ast.Module) -> list[ast.stmt]:
    """Asserts that stand outside of any function, with the statements around them; empty without any."""
    kept: list[ast.stmt] = [
        node for node in module.body if isinstance(node, ast.Assert | ast.Assign | ast.AnnAssign | ast.Expr)
    ]
    return kept if any(isinstance(node, ast.Assert) for node in kept) else []


def _defined(node: ast.stmt) -> set[str]:
    """What a statement outside of tests gives to them."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name.lower().startswith("test"):
        return set()
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    return stored_names(node) if isinstance(node, ast.Assign | ast.AnnAssign) else set()


def _draft(
    name: str, claim: list[ast.stmt], focal: FocalModule, imports: Imports, helpers: dict[str, ast.stmt]
) -> DraftTest:
    """One claim as a module. Raises Refused."""
    body = drop_inner_imports(claim, imports)
    body = _helpers_used(body, focal, helpers) + body
    if reason := weakness(body[-1]):
        raise Refused(reason)
    if not focal.is_used(body):
        raise Refused("never calls the function")
    bound = {stored for statement in body for stored in stored_names(statement)}
    if focal.import_name in bound:
        raise Refused(f"binds {focal.import_name} itself")
    free = {loaded for statement in body for loaded in loaded_names(statement)} - bound - {focal.import_name}
    needed = imports.needed((name for name in free if not hasattr(builtins, name)), body)
    function = ast.parse(f"def {_test_name(name, focal)}(): pass").body[0]
    assert isinstance(function, ast.FunctionDef)
    function.body = body
    blank = "\n\n\n" if needed else ""
    source = "\n".join(needed) + blank + ast.unparse(ast.fix_missing_locations(function)) + "\n"
    try:
        parse_module(source)
    except Unparsable as error:  # Such as a block that held nothing but an import.
        raise Refused(f"does not stand alone: {error}") from None
    return DraftTest(function.name, source, normalised(function))


def _helpers_used(body: list[ast.stmt], focal: FocalModule, helpers: dict[str, ast.stmt]) -> list[ast.stmt]:
    """Definitions of the answer that the body uses, in the answer's order; its own copy of the function is none."""
    own = {name for statement in body for name in stored_names(statement)} | {focal.import_name}
    used: dict[int, ast.stmt] = {}
    pending = {name for statement in body for name in loaded_names(statement)} - own
    while pending:
        node = helpers.get(pending.pop())
        if node is not None and id(node) not in used:
            used[id(node)] = node
            pending |= loaded_names(node) - {focal.import_name}
    return sorted(used.values(), key=lambda node: (node.lineno, node.col_offset))


def _test_name(name: str, focal: FocalModule) -> str:
    plain = re.sub(r"\W+", "_", name, flags=re.ASCII)[:_MAX_NAME_CHARACTERS].strip("_")
    if plain in ("", "test"):
        plain = re.sub(r"\W+", "_", f"test_{focal.function_name}", flags=re.ASCII)
    return plain if plain.startswith("test_") else f"test_{plain.removeprefix('test')}"


def _shown(node: ast.Module | list[ast.stmt]) -> str:
    tree = node if isinstance(node, ast.Module) else ast.Module(node, [])
    return ast.unparse(ast.fix_missing_locations(tree))
