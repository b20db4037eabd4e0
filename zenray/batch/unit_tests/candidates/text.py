"""From what a model wrote to a syntax tree, whatever it wrote. Nothing here runs any of it."""

from __future__ import annotations

import ast
import re
import warnings

MAX_CHARACTERS = 16_384
"""Of one answer that is looked at: several times what a sensible limit of tokens gives."""
_MAX_CUTS = 24
"""Each cut goes back to where the parser stumbled, so a sound text needs a few."""
_FENCE = re.compile(r"^\s*(```+|~~~+)\s*([\w+-]*)")
_PYTHON = frozenset({"", "python", "py", "python3", "pytest"})


class Unparsable(Exception):
    """The text is no Python that can be dealt with; says why, and at which line (from one), if that is known."""

    def __init__(self, reason: str, line: int = 1) -> None:
        super().__init__(reason)
        self.line = line


def parse_module(source: str) -> ast.Module:
    """The tree of untrusted `source`. Raises Unparsable, and nothing else, whatever it holds."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Such as an invalid escape in a string.
            return ast.parse(source)
    except SyntaxError as error:
        raise Unparsable(f"line {error.lineno}: {error.msg}", error.lineno or 1) from None
    except (ValueError, RecursionError, MemoryError) as error:  # A null byte; nested too deep.
        raise Unparsable(f"{type(error).__name__}: {str(error)[:100]}") from None


def code_of(text: str, begins_in_code: bool) -> str:
    """The Python of an answer: what its fences hold, or all of it where there are none.

    With `begins_in_code`, the answer's beginning was given and stands inside a fence.
    """
    lines = text[:MAX_CHARACTERS].splitlines(keepends=True)
    if not begins_in_code and not any(_FENCE.match(line) for line in lines):
        return "".join(lines)
    kept, inside, is_python = [], begins_in_code, True
    for line in lines:
        if fence := _FENCE.match(line):
            inside = not inside
            is_python = fence[2].lower() in _PYTHON
        elif inside and is_python:
            kept.append(line)
    return "".join(kept)


def parse_complete(code: str, is_cut: bool) -> ast.Module:
    """The tree of `code` up to its last complete statement; with `is_cut` its last line is not trusted to be whole.

    Raises Unparsable where not one statement is.
    """
    lines = code.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if is_cut:
        lines = lines[:-1]
    reason = "no statement is complete"
    for _ in range(_MAX_CUTS):
        if not any(line.strip() for line in lines):
            break
        try:
            return parse_module("\n".join(lines) + "\n")
        except Unparsable as error:
            reason = str(error)
            del lines[max(0, min(error.line, len(lines)) - 1) :]
    raise Unparsable(reason)
