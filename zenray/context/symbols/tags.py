"""Queries that find definitions and imports: one file per grammar in `queries/`, else one made from node types.

A pattern captures the definition under the name of its kind, and with it `@name`, `@body` where the grammar has no
field of that name, and `@container` where the code names one. `@outer` widens the definition that ends it (decorators,
`export`, `template`); `@scope` names a container that is no definition itself (`impl`, `extension`); `@import` is a
whole import. A first line `; inherits: other` puts the patterns of another file in front.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import resources

from tree_sitter import Language as Grammar
from tree_sitter import Query, QueryError

_QUERIES = resources.files("zenray.context.symbols") / "queries"
_INHERITS = re.compile(r"; inherits: (\w+)\n")

_DEFINITION = re.compile(
    r"(definition|declaration|_item|_def|_decl|_stmt|_statement)$|^(function|method|class|module)$"
)
_KIND_WORDS = (
    ("function", r"func|method|subroutine|procedure|macro|constructor|rule|task"),
    ("class", r"class|interface|trait|contract|object|protocol|service"),
    ("type", r"struct|enum|type|record|union|message|data|newtype"),
    ("module", r"module|namespace|package|library"),
)
_IMPORT = re.compile(r"^(import|include|use|using|open|require)(_(statement|declaration|directive|stmt|decl|clause))?$")


@lru_cache(maxsize=256)
def tags_of(grammar_name: str, grammar: Grammar) -> Query:
    """The query for a grammar."""
    if (_QUERIES / f"{grammar_name}.scm").is_file():
        return Query(grammar, _read(grammar_name))
    return Query(grammar, "\n".join(_generic_patterns(grammar)))


def _read(grammar_name: str) -> str:
    text = (_QUERIES / f"{grammar_name}.scm").read_text("utf-8")
    inherits = _INHERITS.match(text)
    return _read(inherits[1]) + text if inherits else text


def _generic_patterns(grammar: Grammar) -> list[str]:
    """Patterns for node types that by their names are definitions of something with a `name`, and imports."""
    patterns = []
    for id in range(grammar.node_kind_count):
        node_type = grammar.node_kind_for_id(id)
        if not node_type or not grammar.node_kind_is_named(id) or not grammar.node_kind_is_visible(id):
            continue
        if _IMPORT.search(node_type):
            patterns.append(f"({node_type}) @import")
        elif _DEFINITION.search(node_type):
            kind = next((kind for kind, words in _KIND_WORDS if re.search(words, node_type)), None)
            if kind:
                patterns.append(f"({node_type} name: (_) @name) @{kind}")
    return [pattern for pattern in dict.fromkeys(patterns) if _is_possible(grammar, pattern)]


def _is_possible(grammar: Grammar, pattern: str) -> bool:
    try:
        Query(grammar, pattern)
    except QueryError:
        return False
    return True
