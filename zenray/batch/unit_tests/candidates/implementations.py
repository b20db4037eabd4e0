"""From an answer to a re-implementation: the mined module with the function's body written anew."""

from __future__ import annotations

import ast
import re
import textwrap

from zenray.batch.unit_tests.candidates.imports import Refused, is_allowed
from zenray.batch.unit_tests.candidates.normalise import normalised, without_docstring
from zenray.batch.unit_tests.candidates.text import Unparsable, parse_module
from zenray.batch.unit_tests.model import MinedFunction
from zenray.batch.unit_tests.prompting.prompts_source import Definition, FocalSource

_SAYS_NOTHING = frozenset(
    re.findall(
        r"\w+",
        "call callback check convert create decorator do execute func function get handle handler helper impl inner "
        "make main method perform process run set setup update util value wrapper",
    )
)
"""Words of names that say something is done, but not what."""
_MIN_WORD_CHARACTERS = 3


def why_not_asked(function: MinedFunction) -> str | None:
    """Why nobody could write the function anew from what is shown, its header and its module; None where one can.

    A docstring says what it does; without one its name must: a word that is not only that something is done.
    """
    if function.docstring.strip():
        return None
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", function.call_name.rpartition(".")[2])
    telling = {word.lower() for word in words if len(word) >= _MIN_WORD_CHARACTERS} - _SAYS_NOTHING
    return None if telling else "nothing says what it should do: no docstring, no telling name"


def implementation_of(answer: ast.Module, is_whole: bool, source: FocalSource) -> tuple[str, str]:
    """The whole module with the answer's body, and a key that is equal for equal bodies.

    Where the answer is not whole, its last statements may be missing. Raises Refused.
    """
    found = _find(answer, source.node.name)
    if found is None:
        raise Refused("does not define the function")
    if not is_whole and not _is_followed(found, answer):
        raise Refused("ends within the function")
    if ast.dump(_plain(found.args)) != ast.dump(_plain(source.node.args)):
        raise Refused("has another signature")
    body = without_docstring(found.body)
    if _does_nothing(body):
        raise Refused("does nothing")
    helpers = [node for node in answer.body if _is_helper(node, source)]
    for node in (each for part in (*helpers, *body) for each in ast.walk(part)):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if outside := [module for module in modules if not is_allowed(module) or module == "pytest"]:
            raise Refused(f"imports {outside[0] or 'from its own package'}")
    statements = textwrap.indent(_unparsed(body), source.indentation)
    module = source.with_body(statements + "\n", _unparsed(helpers))
    try:
        parse_module(module)
    except Unparsable as error:
        raise Refused(f"does not fit into the module: {error}") from None
    return module, normalised(found)


def original_key(source: FocalSource) -> str:
    """What `implementation_of` would give for the mined function itself."""
    return normalised(source.node)


def _find(answer: ast.Module, name: str) -> Definition | None:
    """The definition nearest to the beginning, in whichever class the answer puts it; the prompt began it."""
    for node in ast.walk(answer):
        if isinstance(node, Definition) and node.name == name:
            return node
    return None


def _is_followed(found: Definition, answer: ast.Module) -> bool:
    end = found.end_lineno or 0
    return any(isinstance(node, ast.stmt) and node.lineno > end for node in ast.walk(answer))


def _plain(arguments: ast.arguments) -> ast.arguments:
    """Parameters without their annotations."""
    stripped = ast.parse(f"def _({ast.unparse(arguments)}): pass").body[0]
    assert isinstance(stripped, ast.FunctionDef)
    for node in ast.walk(stripped.args):
        if isinstance(node, ast.arg):
            node.annotation = None
    return stripped.args


def _does_nothing(body: list[ast.stmt]) -> bool:
    """Nothing but `pass`, `...` and raising NotImplementedError."""
    for statement in body:
        match statement:
            case ast.Pass() | ast.Expr(value=ast.Constant()):
                continue
            case ast.Raise(exc=ast.Name(id="NotImplementedError") | ast.Call(func=ast.Name(id="NotImplementedError"))):
                continue
        return False
    return True


def _is_helper(node: ast.stmt, source: FocalSource) -> bool:
    """What the answer defines beside the function; what the module has already stays the module's."""
    if isinstance(node, Definition | ast.ClassDef):
        is_test = node.name.startswith(("test_", "Test"))
        return not is_test and node.name not in source.top_level | {source.node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        bound = {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        return not bound <= source.top_level
    return False


def _unparsed(statements: list[ast.stmt]) -> str:
    return ast.unparse(ast.fix_missing_locations(ast.Module(statements, [])))
