"""What a text defines and imports, as quickly as ranking needs it."""

from __future__ import annotations

from zenray.context.symbols import extract
from zenray.context.symbols.patterns import extract_by_patterns

_KEYWORD_LED = frozenset(
    (
        *(
            "elixir",
            "fsharp",
            "go",
            "groovy",
            "javascript",
            "javascriptreact",
            "julia",
            "kotlin",
            "lua",
            "nim",
            "ocaml",
        ),
        *("perl", "php", "python", "ruby", "rust", "scala", "shellscript", "swift", "typescript", "typescriptreact"),
    )
)
"""Languages whose definitions begin with a word that says so: a regular expression finds the same names as a syntax
tree, ten times as fast. Of a class of JavaScript it misses the methods."""
_HEAD_CHARS = 8_000  # Imports stand at the top.


def defined_names(text: str, language: str) -> dict[int, list[str]]:
    """Names by the line that defines them."""
    symbols = extract_by_patterns(text) if language in _KEYWORD_LED else extract(text, language)
    found: dict[int, list[str]] = {}
    for symbol in symbols.symbols:
        found.setdefault(symbol.start_line, []).append(symbol.name)
    return found


def head_of(text: str) -> str:
    """The lines that may hold a text's imports."""
    return text if len(text) <= _HEAD_CHARS else text[: text.rfind("\n", 0, _HEAD_CHARS) + 1]


def imported_modules(head: str, language: str) -> tuple[str, ...]:
    """Modules that the head of a text imports, each once."""
    return tuple(dict.fromkeys(each.module for each in extract(head, language).imports))
