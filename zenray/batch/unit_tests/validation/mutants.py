"""Mutants of the function under test: what its tests should notice. A function of the module's text alone."""

from __future__ import annotations

import types
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from zenray.batch.unit_tests.model import Mutant
from zenray.batch.unit_tests.validation.focal_function import Edit, FunctionText
from zenray.batch.unit_tests.validation.mutation_operators import Change, changes_of


def make_mutants(module_source: str, function_name: str, max_mutants: int = 20) -> tuple[Mutant, ...]:
    """At most `max_mutants` mutants of the function, in the order of its text.

    Each differs from `module_source` in one place inside the function; no two compile to the same code, and none to
    the original's. Where there are too many, those are taken whose line and operator have fewest so far.
    """
    text = FunctionText.find(module_source, function_name)
    if text is None:
        return ()
    try:
        proposed = [_Proposal.of(change, text) for change in changes_of(text.node)]
    except RecursionError:  # An expression that is nested too deep to be written anew.
        return ()
    seen = {_meaning(text.function())}
    chosen: list[_Proposal] = []
    for proposal in _spread(proposed):
        if len(chosen) == max_mutants:
            break
        meaning = _meaning(text.function(proposal.edit))
        if meaning is not None and meaning not in seen:
            seen.add(meaning)
            chosen.append(proposal)
    chosen.sort(key=_Proposal.place)
    return tuple(
        Mutant(name, proposal.operator, proposal.line, text.module(proposal.edit))
        for name, proposal in zip(_names(chosen), chosen, strict=True)
    )


@dataclass(frozen=True, slots=True)
class _Proposal:
    """A change and where it is made."""

    operator: str
    line: int
    column: int
    edit: Edit

    @classmethod
    def of(cls, change: Change, text: FunctionText) -> _Proposal:
        node: Any = change.node
        return cls(change.operator, node.lineno, node.col_offset, text.edit(change.node, change.text))

    def place(self) -> tuple[int, int, str, bytes]:
        return self.edit.start, self.edit.end, self.operator, self.edit.text


def _spread(proposals: Iterable[_Proposal]) -> Iterator[_Proposal]:
    """All of them: those first whose line was taken least often so far, of these those whose operator was; of equals
    any, so that not the beginning of a long function alone is tested, but always the same."""
    left = sorted(set(proposals), key=lambda each: blake2b(repr(each.place()).encode()).digest())
    lines: Counter[int] = Counter()
    operators: Counter[str] = Counter()
    while left:
        proposal = min(left, key=lambda each: (lines[each.line], operators[each.operator]))
        left.remove(proposal)
        lines[proposal.line] += 1
        operators[proposal.operator] += 1
        yield proposal


def _names(proposals: Iterable[_Proposal]) -> Iterator[str]:
    """`LINE.COLUMN-operator`, with a number from the second of a kind at one place."""
    seen: Counter[str] = Counter()
    for each in proposals:
        name = f"{each.line}.{each.column}-{each.operator}"
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
