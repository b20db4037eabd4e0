"""Brackets outside strings and comments, of any language, by one regular expression per style of lexing.

Not a parser: it must answer for every language, for text that ends anywhere, in microseconds per line. Where a
grammar exists, `syntax.in_code` checks what is decided by it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from zenray.context.languages.registry import language

CLOSER_OF = {"(": ")", "[": "]", "{": "}"}
OPENER_OF = {closer: opener for opener, closer in CLOSER_OF.items()}


@dataclass(frozen=True, slots=True)
class Bracket:
    position: int
    character: str


@dataclass(frozen=True, slots=True)
class Brackets:
    """The brackets of a stretch of source, and where to go on: an unfinished string or comment is read again."""

    found: tuple[Bracket, ...]
    resume: int


def brackets(language_id: str, source: str, start: int = 0) -> Brackets:
    """The brackets of `source` from `start`, which stands in no string or comment."""
    found = []
    resume = len(source)
    for match in _pattern(language_id).finditer(source, start):
        if match.lastgroup == "bracket":
            found.append(Bracket(match.start(), match.group()))
        elif match.end() == len(source):
            resume = match.start()
    return Brackets(tuple(found), resume)


def unmatched(found: tuple[Bracket, ...] | list[Bracket]) -> tuple[list[Bracket], list[Bracket]]:
    """The closers without an opener and the openers without a closer, both in order of the text. A closer of
    another kind than the innermost opener closes the nearest one of its own kind."""
    closers: list[Bracket] = []
    openers: list[Bracket] = []
    num_open = dict.fromkeys(CLOSER_OF, 0)
    for bracket in found:
        if bracket.character in CLOSER_OF:
            openers.append(bracket)
            num_open[bracket.character] += 1
        elif num_open[opener := OPENER_OF[bracket.character]]:
            closed = ""
            while closed != opener:
                closed = openers.pop().character
                num_open[closed] -= 1
        else:  # Without a look at all that is open: it may be much.
            closers.append(bracket)
    return closers, openers


_DOUBLE = r'"(?:\\[\s\S]|[^"\\\n])*"?'
_SINGLE = r"'(?:\\[\s\S]|[^'\\\n])*'?"
_CHARACTER = r"'(?:\\[^'\n]+|[^'\\\n])'"
_BACKTICK = r"`(?:\\[\s\S]|[^`\\])*`?"
_RAW_BACKTICK = r"`[^`]*`?"
_TRIPLE_DOUBLE = r'"""(?:\\[\s\S]|[^"\\]|"(?!""))*(?:""")?'
_TRIPLE_SINGLE = r"'''(?:\\[\s\S]|[^'\\]|'(?!''))*(?:''')?"
_RUST_RAW = r'\bb?r(?P<hashes>#*)"[\s\S]*?(?:"(?P=hashes)|\Z)'
_RUST_DOUBLE = r'"(?:\\[\s\S]|[^"\\])*"?'
_REGEX_LITERAL = (
    r"(?:(?<=[=(,:\[!&|?{};])|(?<=[=(,:\[!&|?{};] )|(?<=return ))"
    r"/(?![*/])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/"
)
_BRACKET = r"(?P<bracket>[()\[\]{}])"

_JAVASCRIPT = (_REGEX_LITERAL, _BACKTICK, _DOUBLE, _SINGLE)
_PYTHON = (_TRIPLE_DOUBLE, _TRIPLE_SINGLE, _DOUBLE, _SINGLE)
_TEXT_BLOCKS = (_TRIPLE_DOUBLE, _DOUBLE, _CHARACTER)
_STRINGS = {
    "javascript": _JAVASCRIPT,
    "javascriptreact": _JAVASCRIPT,
    "typescript": _JAVASCRIPT,
    "typescriptreact": _JAVASCRIPT,
    "svelte": _JAVASCRIPT,
    "vue": _JAVASCRIPT,
    "go": (_RAW_BACKTICK, _DOUBLE, _SINGLE),
    "rust": (_RUST_RAW, _RUST_DOUBLE, _CHARACTER),
    "python": _PYTHON,
    "starlark": _PYTHON,
    "toml": _PYTHON,
    "julia": _TEXT_BLOCKS,
    "elixir": _PYTHON,
    "java": _TEXT_BLOCKS,
    "kotlin": _TEXT_BLOCKS,
    "scala": _TEXT_BLOCKS,
    "groovy": _PYTHON,
    "swift": (_TRIPLE_DOUBLE, _DOUBLE),
    "csharp": _TEXT_BLOCKS,
    "haskell": (_DOUBLE, _CHARACTER),
    "ocaml": (_DOUBLE, _CHARACTER),
    "fsharp": _TEXT_BLOCKS,
    "verilog": (_DOUBLE,),
    "systemverilog": (_DOUBLE,),
    "vhdl": (_DOUBLE, _CHARACTER),
    "clojure": (_RUST_DOUBLE,),
}
"""How languages spell strings; all others have double and single quotes that end with their line."""


@lru_cache(maxsize=256)  # clients name languages as they like
def _pattern(language_id: str) -> re.Pattern[str]:
    known = language(language_id)
    comments = []
    if known and known.block_comment:
        opening, closing = map(re.escape, known.block_comment)
        comments.append(rf"{opening}[\s\S]*?(?:{closing}|\Z)")
    if known and known.line_comment:
        comments.append(rf"{re.escape(known.line_comment)}[^\n]*")
    return re.compile("|".join((*comments, *_STRINGS.get(language_id, (_DOUBLE, _SINGLE)), _BRACKET)))
