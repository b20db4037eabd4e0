"""A mined function within the module it runs in: what stands before it, its header, its body, what stands behind."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from zenray.batch.unit_tests.candidates.normalise import without_docstring
from zenray.batch.unit_tests.candidates.text import Unparsable, parse_module
from zenray.batch.unit_tests.model import MinedFunction
from zenray.batch.unit_tests.validation.focal_function import find_function

Definition = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class FocalSource:
    """`before + header + body + after` is the module. `header` is whole lines: decorators, signature, docstring; it
    says what a re-implementation may know."""

    before: str
    header: str
    body: str
    after: str
    node: Definition
    enclosing: tuple[str, ...]
    """Names of the classes around it, outermost first."""
    top_level: frozenset[str]
    """What the module defines or imports."""

    indentation: str
    """Of its body."""

    @property
    def without_body(self) -> str:
        """The module with `...` for the body."""
        return f"{self.before}{self.header}{self.indentation}...\n{self.after}"

    def with_body(self, statements: str, helpers: str = "") -> str:
        """The module with other statements, already indented, and helper definitions at its end, where the function
        finds them when it is called and no name of the module can be hidden before its time."""
        module = f"{self.before}{self.header}{statements}{self.after}"
        return f"{module}\n\n{helpers}\n" if helpers else module


def locate(function: MinedFunction) -> FocalSource:
    """Where the function stands in its module. Raises ValueError where it does not."""
    try:
        module = parse_module(function.module_source)
    except Unparsable as error:
        raise ValueError(f"the module of {function.call_name} does not parse: {error}") from None
    node = find_function(module, function.call_name)
    if node is None:
        raise ValueError(f"{function.call_name} is not defined in its module")
    enclosing = tuple(function.call_name.split(".")[:-1])
    return _cut(function.module_source, node, enclosing, defined_names(module))


def _cut(source: str, node: Definition, enclosing: tuple[str, ...], top_level: frozenset[str]) -> FocalSource:
    # As the parser counts lines: a form feed ends none.
    lines = [line + "\n" for line in source.removesuffix("\n").split("\n")]
    start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
    statements = without_docstring(node.body)
    has_docstring = len(statements) < len(node.body)
    if node.body[0].lineno == node.lineno or (statements and _shares_line(lines, statements[0])):
        raise ValueError(f"{node.name} has its body on the line of its signature")
    header_end = (node.body[0].end_lineno or 0) if has_docstring else node.body[0].lineno - 1
    while not has_docstring and header_end > start and _is_comment_or_blank(lines[header_end - 1]):
        header_end -= 1  # Comments before the first statement tell of the body.
    end = node.end_lineno or len(lines)
    while end < len(lines) and _is_inner_comment(lines[end], node.col_offset):
        end += 1
    parts = (lines[:start], lines[start:header_end], lines[header_end:end], lines[end:])
    before, header, body, after = ("".join(part) for part in parts)
    indentation = _indentation(lines[node.body[0].lineno - 1])
    if len(indentation) != (len(enclosing) + 1) * (len(indentation) - node.col_offset):
        raise ValueError(f"{node.name} is defined under a condition, or in steps of unequal width")
    return FocalSource(before, header, body, after, node, enclosing, top_level, indentation)


def _indentation(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _shares_line(lines: list[str], statement: ast.stmt) -> bool:
    """Something else stands before the statement on its line, such as the docstring."""
    line = lines[statement.lineno - 1].encode()
    decorators = getattr(statement, "decorator_list", [])
    return bool(line[: statement.col_offset].strip()) and not decorators


def _is_comment_or_blank(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _is_inner_comment(line: str, indentation: int) -> bool:
    return line.lstrip().startswith("#") and len(line) - len(line.lstrip()) > indentation


def defined_names(module: ast.Module) -> frozenset[str]:
    """What importing from the module gives: definitions, constants and imports, also under `if` and `try`."""
    names: set[str] = set()
    pending: list[ast.AST] = list(module.body)
    while pending:
        node = pending.pop()
        if isinstance(node, Definition | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.stmt | ast.expr | ast.ExceptHandler | ast.withitem | ast.match_case):
            pending.extend(ast.iter_child_nodes(node))
    return frozenset(names)
