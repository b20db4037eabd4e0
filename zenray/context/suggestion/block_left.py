"""Completions that go on outside the cursor's block without having closed it."""

from __future__ import annotations

import re

from zenray.context.suggestion.lexing import brackets, unmatched
from zenray.context.suggestion.open_brackets import column_of_line, open_at_cursor
from zenray.context.suggestion.seams import column, indentation
from zenray.context.suggestion.windows import sure_start

_SEARCHED_CHARACTERS = 8192
_MAX_LINES_LOOKED_AT = 8
_MAY_STAND_OUTSIDE = re.compile(r"[)\]}#/*]|(?:case|default)\b|\w+\s*:(?!:)")
"""Closers, directives, comments and labels keep no indentation."""


def without_lines_outside(text: str, before: str, after: str, language: str) -> str:
    """`text` up to the first line that is indented no deeper than the line that opened the cursor's block, while the
    block is open: its closer stands behind the cursor, so what the model meant for behind it would land within."""
    first_line = before[before.rfind("\n") + 1 :] + text.split("\n", 1)[0]
    others = [column(indentation(line)) for line in text.split("\n")[1:] if line.strip()]
    if not others or min(others) >= column(indentation(first_line)):
        return text
    before = before[sure_start(before, _SEARCHED_CHARACTERS) :]
    read = brackets(language, before)
    around = open_at_cursor(language, before, after[:_SEARCHED_CHARACTERS], read)
    if not around or read.resume < len(before):
        return text
    block, opener = around[-1], unmatched(read.found)[1][-1]
    level = column_of_line(before, opener.position)
    if block.closer != "}" or block.is_on_cursor_line or not block.is_closed:
        return text
    if column(indentation(first_line)) <= level:
        return text
    num_looked_at = 0
    for line_end in re.finditer(r"\n", text):
        line = text[line_end.end() :].split("\n", 1)[0]
        content = line.strip()
        if not content or column(indentation(line)) > level or _MAY_STAND_OUTSIDE.match(content):
            continue
        so_far = brackets(language, before + text[: line_end.end()])
        in_code = so_far.resume == len(before) + line_end.end()
        if in_code and unmatched(so_far.found)[1][-1:] == [opener]:
            return text[: line_end.start()].rstrip()
        num_looked_at += 1
        if num_looked_at == _MAX_LINES_LOOKED_AT:
            break
    return text
