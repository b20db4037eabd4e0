"""Where the function under test stands in its module."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
    whole = [node for node in functions if not _is_part_of_property(node)] or functions
    return whole[-1] if whole else None


def _is_part_of_property(node: FunctionNode) -> bool:
    """A setter or deleter: what is under test by that name is what the getter computes."""
    return any(isinstance(each, ast.Attribute) and each.attr in ("setter", "deleter") for each in node.decorator_list)


@dataclass(frozen=True, slots=True)
class Edit:
    """Bytes of a module from `start` to `end` become `text`."""

    start: int
    end: int
    text: bytes


class FunctionText:
    """A function, the module around it, and what edits make of them. As bytes: trees count columns in them."""

    def __init__(self, source: str, node: FunctionNode) -> None:
        self.node = node
        self._bytes = _encode(source)
        self._line_starts = [0]
        for line in self._bytes.split(b"\n"):
            self._line_starts.append(self._line_starts[-1] + len(line) + 1)
        self._start = self._line_starts[_first_line(node) - 1]
        self._end = self._place(node.end_lineno, node.end_col_offset)

    @classmethod
    def find(cls, module_source: str, name: str) -> FunctionText | None:
        """None where the module does not parse or does not define `name`."""
        source = module_source.replace("\r\n", "\n").replace("\r", "\n")  # As Python counts lines.
        tree = parse_quietly(source)
        node = find_function(tree, name) if tree else None
        return cls(source, node) if node else None

    @property
    def body_lines(self) -> tuple[int, int]:
        """First and last line of what runs when the function is called."""
        assert self.node.end_lineno is not None
        return _first_line(self.node.body[0]), self.node.end_lineno

    def edit(self, node: ast.AST, text: str) -> Edit:
        """Another text for an expression or a statement."""
        place: Any = node
        start = self._place(place.lineno, place.col_offset)
        return Edit(start, self._place(place.end_lineno, place.end_col_offset), _encode(text))

    def body_edit(self, statement: str) -> Edit:
        """One statement in the place of all."""
        first = self.node.body[0]
        return Edit(self._place(_first_line(first), first.col_offset), self._end, _encode(statement))

    def function(self, edit: Edit | None = None) -> str:
        """The text of the function alone, indented as it is."""
        if edit is None:
            return _decode(self._bytes[self._start : self._end])
        return _decode(self._bytes[self._start : edit.start] + edit.text + self._bytes[edit.end : self._end])

    def module(self, edit: Edit) -> str:
        return _decode(self._bytes[: edit.start] + edit.text + self._bytes[edit.end :])

    def _place(self, line: int | None, column: int | None) -> int:
        assert line is not None and column is not None
        return self._line_starts[line - 1] + column


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


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
