"""Which functions are not worth testing, whatever they need: rules about one function's own lines."""

from __future__ import annotations

import ast
import re
from pathlib import PurePosixPath

from zenray.batch.unit_tests.mining.module_names import DEFINITIONS, Definition, body_without_docstring, root_name
from zenray.batch.unit_tests.mining.skip_effects import parameters_of
from zenray.batch.unit_tests.model import SkipReason

Skip = tuple[SkipReason, str]

_TEST_FOLDER = re.compile(r"tests?|testing|.*_tests?|test_.*|.*-tests?")
_TEST_FILE = re.compile(r"test_.*|.*_tests?|tests?|conftest|runtests")
_CHANGING_METHODS_WORDS = """
append add insert extend update remove discard pop popitem clear sort reverse setdefault appendleft write
difference_update intersection_update symmetric_difference_update
"""
_CHANGING_METHODS = frozenset(_CHANGING_METHODS_WORDS.split())


def is_test_path(path: str) -> bool:
    """Whether a file holds tests, by the names of its folders and its own."""
    *folders, name = PurePosixPath(path).parts
    return any(_TEST_FOLDER.fullmatch(each) for each in folders) or bool(_TEST_FILE.fullmatch(name.removesuffix(".py")))


def skip_by_place(node: Definition, around: tuple[ast.AST, ...]) -> Skip | None:
    """Why a function cannot be reached from its module, or has no name to call it by."""
    if node.name.startswith("test_") or any(isinstance(each, ast.ClassDef) and _is_test_class(each) for each in around):
        return SkipReason.TEST_CODE, "a test"
    if any(isinstance(each, DEFINITIONS) for each in around):
        return SkipReason.NESTED, "within a function"
    if len(around) > 1:
        return SkipReason.NESTED, "within a nested class" if isinstance(around[0], ast.ClassDef) else "conditional"
    if around and not isinstance(around[0], ast.ClassDef):
        return SkipReason.NESTED, "conditional"
    if around and node.name.startswith("__") and not node.name.endswith("__"):
        return SkipReason.NESTED, "private to its class"
    if node.name.startswith("__") and node.name.endswith("__"):
        return SkipReason.SPECIAL_METHOD, node.name
    return None


def _is_test_class(node: ast.ClassDef) -> bool:
    return node.name.startswith("Test") or any(
        (base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")).endswith("TestCase")
        for base in node.bases
    )


def skip_by_body(node: Definition, num_lines: int, max_lines: int) -> Skip | None:
    """Why a function's body is not worth a test, or too much for one."""
    if isinstance(node, ast.AsyncFunctionDef):
        return SkipReason.GENERATOR_OR_ASYNC, "async"
    decorators = {_last_name(each) for each in node.decorator_list}
    if decorators & {"contextmanager", "asynccontextmanager", "coroutine"}:
        return SkipReason.GENERATOR_OR_ASYNC, "context manager or coroutine"
    if decorators & {"abstractmethod", "overload", "abstractproperty"}:
        return SkipReason.TRIVIAL, "abstract or an overload"
    if decorators & {"setter", "deleter"}:
        return SkipReason.NO_RESULT, "part of a property"
    body = body_without_docstring(node)
    if _weight(body) < _LEAST_WEIGHT:
        return SkipReason.TRIVIAL, "hardly computes anything"
    if not parameters_of(node):
        return SkipReason.TRIVIAL, "takes no argument"
    if num_lines > max_lines:
        return SkipReason.TOO_LONG, f"{num_lines} lines"
    if not _has_effect_on_caller(node):
        return SkipReason.NO_RESULT, "returns nothing, raises nothing, changes no argument"
    return None


def _last_name(decorator: ast.expr) -> str:
    node = decorator.func if isinstance(decorator, ast.Call) else decorator
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


_LEAST_WEIGHT = 4
_CHOICES = (ast.If, ast.IfExp, ast.For, ast.While, ast.Try, ast.comprehension, ast.BoolOp, ast.Match)
_OPERATIONS = (ast.BinOp, ast.Compare, ast.UnaryOp, ast.Subscript, ast.Call, ast.AugAssign, ast.JoinedStr, ast.Assign)


def _weight(body: list[ast.stmt]) -> int:
    """How much there is to get wrong: a choice or a loop counts two, an operation, call or assignment one."""
    nodes = [node for statement in body for node in ast.walk(statement)]
    return sum(2 * isinstance(node, _CHOICES) + isinstance(node, _OPERATIONS) for node in nodes)


def _has_effect_on_caller(node: Definition) -> bool:
    """Returns or yields something, raises, or changes what a parameter holds.

    A change of `self` alone does not count: what would show it may not be in the slice of the class.
    """
    parameters = set(parameters_of(node)) - {"self", "cls"}
    for each in _own_nodes(node):
        if isinstance(each, ast.Return) and each.value is not None:
            if not (isinstance(each.value, ast.Constant) and each.value.value is None):
                return True
        elif isinstance(each, ast.Yield | ast.YieldFrom) or (isinstance(each, ast.Raise) and each.exc is not None):
            return True
        elif isinstance(each, ast.Subscript | ast.Attribute) and not isinstance(each.ctx, ast.Load):
            root = root_name(each)
            if root is not None and root.id in parameters:
                return True
        elif (
            isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute) and each.func.attr in _CHANGING_METHODS
        ):
            root = root_name(each.func.value)
            if root is not None and root.id in parameters:
                return True
    return False


def _own_nodes(node: Definition) -> list[ast.AST]:
    """Those of the body, but not of functions within."""
    found: list[ast.AST] = []
    waiting: list[ast.AST] = list(node.body)
    while waiting:
        each = waiting.pop()
        found.append(each)
        if not isinstance(each, (*DEFINITIONS, ast.Lambda, ast.ClassDef)):
            waiting += ast.iter_child_nodes(each)
    return found
