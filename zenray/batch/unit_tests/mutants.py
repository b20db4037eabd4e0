"""Mutants of the function under test: what its tests should notice. A function of the module's text alone."""

from __future__ import annotations

import types
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from zenray.batch.unit_tests.focal_function import FunctionNode, find_function, parse_quietly
from zenray.batch.unit_tests.model import Mutant
from zenray.batch.unit_tests.mutation_operators import Change, changes_of


def make_mutants(module_source: str, function_name: str, max_mutants: int = 20) -> tuple[Mutant, ...]:
    """At most `max_mutants` mutants of the function, in the order of its text.

    Each differs from `module_source` in one place inside the function; no two compile to the same code, and none to
    the original's. Where there are too many, those are taken whose line and operator have fewest so far.
    """
    source = module_source.replace("\r\n", "\n").replace("\r", "\n")  # As Python counts lines.
    tree = parse_quietly(source)
    function = find_function(tree, function_name) if tree else None
    if function is None:
        return ()
    text = _Text(source, function)
    seen = {_meaning(text.function())}
    chosen: list[_Edit] = []
    for edit in _spread([text.edit(change) for change in changes_of(function)]):
        if len(chosen) == max_mutants:
            break
        meaning = _meaning(text.function(edit))
        if meaning is not None and meaning not in seen:
            seen.add(meaning)
            chosen.append(edit)
    chosen.sort(key=lambda edit: (edit.start, edit.end, edit.operator, edit.text))
    return tuple(
        Mutant(name, edit.operator, edit.line, text.module(edit))
        for name, edit in zip(_names(chosen), chosen, strict=True)
    )


@dataclass(frozen=True, slots=True)
class _Edit:
    """Bytes of the module from `start` to `end` become `text`."""

    operator: str
    line: int
    column: int
    start: int
    end: int
    text: bytes


class _Text:
    """A module's text and where the function stands in it; as bytes, which is what trees count columns in."""

    def __init__(self, source: str, function: FunctionNode) -> None:
        self._bytes = source.encode("utf-8", "surrogatepass")
        self._line_starts = [0]
        for line in self._bytes.split(b"\n"):
            self._line_starts.append(self._line_starts[-1] + len(line) + 1)
        first_line = min(node.lineno for node in [function, *function.decorator_list])
        self._start = self._line_starts[first_line - 1]
        self._end = self._place(function.end_lineno, function.end_col_offset)

    def _place(self, line: int | None, column: int | None) -> int:
        assert line is not None and column is not None
        return self._line_starts[line - 1] + column

    def edit(self, change: Change) -> _Edit:
        node: Any = change.node
        return _Edit(
            change.operator,
            node.lineno,
            node.col_offset,
            self._place(node.lineno, node.col_offset),
            self._place(node.end_lineno, node.end_col_offset),
            change.text.encode("utf-8", "surrogatepass"),
        )

    def function(self, edit: _Edit | None = None) -> str:
        """The text of the function alone, indented as it is."""
        if edit is None:
            return _decode(self._bytes[self._start : self._end])
        return _decode(self._bytes[self._start : edit.start] + edit.text + self._bytes[edit.end : self._end])

    def module(self, edit: _Edit) -> str:
        return _decode(self._bytes[: edit.start] + edit.text + self._bytes[edit.end :])


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _spread(edits: Sequence[_Edit]) -> Iterator[_Edit]:
    """All edits, those first whose line and operator were taken least often so far; then in the order of the text."""
    left = sorted(set(edits), key=lambda edit: (edit.start, edit.end, edit.operator, edit.text))
    lines: Counter[int] = Counter()
    operators: Counter[str] = Counter()
    while left:
        edit = min(left, key=lambda edit: lines[edit.line] + operators[edit.operator])
        left.remove(edit)
        lines[edit.line] += 1
        operators[edit.operator] += 1
        yield edit


def _names(edits: Iterable[_Edit]) -> Iterator[str]:
    """`LINE.COLUMN-operator`, with a number from the second of a kind at one place."""
    seen: Counter[str] = Counter()
    for edit in edits:
        name = f"{edit.line}.{edit.column}-{edit.operator}"
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name}-{seen[name]}"


def _meaning(function: str) -> object | None:
    """What the text of a function compiles to, the same for texts that do the same by construction. Runs nothing."""
    indented = "if True:\n" + function if function[:1].isspace() else function
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Such as `is` with a number.
            return _of_code(compile(indented, "function", "exec", dont_inherit=True))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _of_code(code: types.CodeType) -> object:
    """A code object without its places in the text."""
    constants = tuple(map(_of_value, code.co_consts))
    return (
        code.co_name, code.co_code, code.co_flags, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount,
        code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, code.co_exceptiontable, constants,
    )  # fmt: skip


def _of_value(value: object) -> object:
    """With its type: 0, 0.0 and False are equal and mean different things. Sets in an order of their own."""
    if isinstance(value, types.CodeType):
        return _of_code(value)
    if isinstance(value, tuple):
        return tuple(_of_value(each) for each in value)
    if isinstance(value, frozenset):
        return ("frozenset", *sorted(repr(_of_value(each)) for each in value))
    return type(value).__name__, repr(value)
