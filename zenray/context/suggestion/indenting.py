"""Indentation and line ends of a completion as the document has them."""

from __future__ import annotations

import re

from zenray.context.suggestion.seams import column, indentation

_NEARBY_LINES = 200
_ANY_LINE_END = re.compile(r"\r\n|\n")


def indented_like(text: str, before: str, after: str) -> str:
    """`text` with its lines indented by tabs where all lines around the cursor are, by spaces where none is."""
    around = [*before.splitlines()[-_NEARBY_LINES:], *after.splitlines()[:_NEARBY_LINES]]
    spaces = [indentation(line) for line in around if line[:1] in (" ", "\t") and line.strip()]
    with_tabs = sum(space.startswith("\t") for space in spaces)
    first, *lines = text.split("\n")
    own = [indentation(line) for line in lines if line.strip()]
    if with_tabs == len(spaces) > 0 and any(space.startswith(" ") for space in own):
        width = min((len(space) for space in own if space and not space.strip(" ")), default=4)
        return "\n".join([first, *(_with_tabs(line, width) for line in lines)])
    if spaces and with_tabs == 0 and any("\t" in space for space in own):
        width = min(min(map(len, spaces)), 8)
        return "\n".join(
            [first, *(indentation(line).replace("\t", " " * width) + line.lstrip(" \t") for line in lines)]
        )
    return text


def not_indented_twice(text: str, before: str, after: str) -> str:
    """`text` without the indentation of its first line, where the cursor stands behind the same already, or where the
    next line goes on in the cursor's column."""
    space, own = before.rpartition("\n")[2], indentation(text)
    if not space or not own or space.strip() or text[len(own) : len(own) + 1] in ("", "\r", "\n"):
        return text
    above = [line for line in before.splitlines()[:-1] if line.strip()][-1:]
    lines = [line for line in text.splitlines()[1:] if line.strip()][:1]
    behind = [line for line in after.splitlines()[1:] if line.strip()][:1]
    here, there = column(space), column(space) + column(own)
    nearby = [column(indentation(line)) for line in (*above, *lines, *behind)]
    if own != space and not (lines and column(indentation(lines[0])) == here):
        return text
    opens_block = bool(above) and above[0].rstrip()[-1] in ":{([" and here <= nearby[0]
    if opens_block or (there in nearby and here not in nearby) or (lines and column(indentation(lines[0])) == there):
        return text
    return text[len(own) :]


def ended_like(text: str, before: str, after: str) -> str:
    """`text` with its lines ended as all lines around the cursor are; as it is where there are both ends or none."""
    # What is given may begin in the middle of a line end.
    ends = {*_ANY_LINE_END.findall(before.removeprefix("\n")), *_ANY_LINE_END.findall(after)}
    return _ANY_LINE_END.sub(ends.pop(), text) if len(ends) == 1 else text


def _with_tabs(line: str, width: int) -> str:
    space = indentation(line)
    if not space or space.strip(" "):
        return line
    tabs, rest = divmod(len(space), width)
    return "\t" * tabs + " " * rest + line[len(space) :]
