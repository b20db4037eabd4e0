"""Where a completion ends and the text behind the cursor begins: white space and columns."""

from __future__ import annotations

_TAB_COLUMNS = 4


def leading_space(text: str) -> str:
    """The white space a text begins with, line ends included."""
    return text[: len(text) - len(text.lstrip())]


def indentation(line: str) -> str:
    """The white space a line begins with."""
    return line[: len(line) - len(line.lstrip(" \t\f"))]


def column(space: str) -> int:
    """How far `space` indents."""
    return len(space.expandtabs(_TAB_COLUMNS))


def end_of_content(text: str, stop: int | None = None) -> int:
    """Where the white space that ends `text[:stop]` begins."""
    return len(text[:stop].rstrip())


def cut_before(text: str, content: int, after: str) -> int:
    """Where a completion that must not have what stands at `content` ends, if `after` follows it.

    The white space `after` brings itself goes; where it brings none of its own, what ends the completion's last
    line stays.
    """
    space = text[end_of_content(text, content) : content]
    brought = leading_space(after)
    if len(brought) == len(after) or (not space.endswith(brought) and "\n" in brought):
        return content - len(space)
    if space.endswith(brought):
        return content - len(brought)
    return content - len(space) + space.find("\n") + 1


def line_start_behind(text: str, position: int) -> int:
    """The start of the first line at or behind `position`, which may be negative; `position` if there is none."""
    return text.find("\n", position - 1) + 1 or position if position > 0 else 0
