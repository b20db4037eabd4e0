"""What a text defines and imports."""

from __future__ import annotations

import re

_DEFINITION = re.compile(
    r"^[ \t]*(?:[\w@]+[ \t]+){0,4}?(?:def|class|fn|func|function|fun|struct|interface|enum|trait|type|module|record)"
    r"[ \t]+(?:\([^)\n]*\)[ \t]*)?([^\W\d]\w*)",
    re.MULTILINE,
)


def defined_names(text: str, language: str) -> dict[int, list[str]]:
    """Names by the line that defines them."""
    found: dict[int, list[str]] = {}
    line, at = 0, 0
    for match in _DEFINITION.finditer(text):
        line += text.count("\n", at, match.start(1))
        at = match.start(1)
        found.setdefault(line, []).append(match.group(1))
    return found


def imported_modules(text: str, language: str) -> tuple[str, ...]:
    """Modules that the text imports."""
    return ()
