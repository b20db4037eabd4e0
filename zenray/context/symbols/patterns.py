"""Definitions by regular expression, for languages without a grammar."""

from __future__ import annotations

import re

from zenray.context.symbols.model import FileSymbols, Symbol, SymbolKind

_MODIFIERS = (
    "pub|public|private|protected|internal|export|default|static|final|abstract|async|open|override|local|inline"
)
_WORDS = (
    "def|defp|func|function|fn|fun|sub|proc|class|struct|interface|trait|enum|protocol|module|namespace|type|record|"
    "theorem|lemma"
)
_DEFINITION = re.compile(
    rf"^[ \t]{{0,64}}(?:(?:{_MODIFIERS})\s+){{0,4}}(?P<word>{_WORDS})\s+(?P<name>[^\W\d]\w{{0,99}})[^\n]{{0,300}}", re.M
)
_KINDS: dict[str, SymbolKind] = {
    "class": "class",
    "interface": "class",
    "trait": "class",
    "protocol": "class",
    "struct": "type",
    "enum": "type",
    "type": "type",
    "record": "type",
    "module": "module",
    "namespace": "module",
}


def extract_by_patterns(text: str) -> FileSymbols:
    """Lines that begin like a definition in most languages. Where a definition ends is not known: one line each."""
    symbols = []
    line, counted_to = 0, 0
    for match in _DEFINITION.finditer(text):
        line += text.count("\n", counted_to, match.start())
        counted_to = match.start()
        symbols.append(
            Symbol(
                name=match["name"],
                kind=_KINDS.get(match["word"], "function"),
                start_line=line,
                end_line=line + 1,
                signature=match[0].strip().removesuffix("{").rstrip(),
                documentation="",
                container="",
            )
        )
    return FileSymbols(tuple(symbols))
