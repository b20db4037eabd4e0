"""Tags: the nodes of a syntax tree that define or import something, found by a query per grammar.

The queries are the files in `queries/`; grammars without one get patterns made from their node types. A pattern
captures a definition under the name of its kind, and with it `@name`, `@container` where the code names one, and
`@body` where the grammar has no field of that name or the body stands behind. Besides the kinds of symbols there are

- `@equation`: a function in pieces, which neighbours of the same name belong to (Haskell, Elixir, Erlang);
- `@outer`: what widens the definition it ends with (decorators, `export`, `template`);
- `@scope`: a container that is no definition itself (`impl`, `extension`);
- `@import`: a whole import.

`(#set! words "def defp")` holds a pattern to matches whose `@word` is one of these; predicates would ask nodes for
their text, which `parse` does not keep. A first line `; inherits: other` puts the patterns of another file in front.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from tree_sitter import Language as Grammar
from tree_sitter import Node, Query, QueryCursor, QueryError, Tree

from zenray.context.languages.grammars import nodes_at_errors

_MATCH_LIMIT = 4096
_MAX_DEPTH = 128
"""Nodes below are not looked at: a query takes time proportional to nodes times depth, and its progress callback
crashes in tree-sitter 0.26.0."""
_MAX_TOKEN_RUN = 1000
"""A query looks at each token of an ERROR node, and from it at those behind up to the next that is not punctuation or
a keyword."""

_QUERIES = resources.files("zenray.context.symbols") / "queries"
_INHERITS = re.compile(r"; inherits: (\w+)\n")
_PARTS = ("name", "body", "container", "word")

_KIND_WORDS = (
    ("function", "func|method|subroutine|procedure|macro|constructor|rule$|task|rpc"),
    ("class", "class|interface|trait|contract|protocol|service"),
    ("type", "struct|enum|type|record|union|message|model"),
    ("module", "module|namespace|package|library"),
)
_DEFINITION = re.compile(
    r"(definition|declaration|_item|_def|_defn|_decl|_stmt|_statement|_block)$"
    r"|^(function|method|class|module|message|enum|service|rpc|procedure|struct|trait|macro|rule)$"
)
_IMPORT = re.compile(r"^(import|include|use|using|open|require)(_(statement|declaration|directive|stmt|decl|clause))?$")
_IDENTIFIERS = ("identifier", "simple_identifier", "type_identifier", "name")


@dataclass(slots=True)
class Tag:
    """A tagged node. `start` and `end` are bytes of the source and cover a body that stands behind the node."""

    kind: str
    start: int
    end: int
    node: Node
    name: Node | None
    body: Node | None
    container: Node | None


def tags_in(source: bytes, tree: Tree, grammar_name: str) -> list[Tag] | None:
    """The tags of a file by their start, of two with the same start the longer first, then as in the query.

    None where errors would make the query slow.
    """
    if tree.root_node.has_error and _longest_token_run(tree) > _MAX_TOKEN_RUN:
        return None
    query, words_of = query_of(grammar_name, tree.language)
    cursor = QueryCursor(query, match_limit=_MATCH_LIMIT)
    cursor.set_max_start_depth(_MAX_DEPTH)
    tags = [
        (pattern, _tag(captured))
        for pattern, captured in cursor.matches(tree.root_node)
        if pattern not in words_of or _text(source, captured["word"][0]) in words_of[pattern]
    ]
    tags.sort(key=lambda item: (item[1].start, -item[1].end, item[0]))
    return [tag for _, tag in tags]


def has_own_query(grammar_name: str) -> bool:
    """Whether a grammar has a file of patterns of its own."""
    return (_QUERIES / f"{grammar_name}.scm").is_file()


@lru_cache(maxsize=256)
def query_of(grammar_name: str, grammar: Grammar) -> tuple[Query, dict[int, frozenset[str]]]:
    """The query for a grammar, and the words that some of its patterns are held to."""
    query = Query(grammar, _read(grammar_name) if has_own_query(grammar_name) else _generic_patterns(grammar))
    settings = {pattern: query.pattern_settings(pattern).get("words") for pattern in range(query.pattern_count)}
    return query, {pattern: frozenset(words.split()) for pattern, words in settings.items() if words}


def _longest_token_run(tree: Tree) -> int:
    longest = run = 0
    for node in nodes_at_errors(tree):
        run = 0 if node.is_named else run + 1
        longest = max(longest, run)
    return longest


def _tag(captured: dict[str, list[Node]]) -> Tag:
    kind = next(capture for capture in captured if capture not in _PARTS)
    name, body, container = (captured[part][0] if part in captured else None for part in ("name", "body", "container"))
    node = captured[kind][0]
    start, end = node.byte_range
    return Tag(kind, start, max(end, body.end_byte) if body else end, node, name, body, container)


def _text(source: bytes, node: Node) -> str:
    return source[node.start_byte : node.end_byte].decode("utf-8", "replace")


def _read(grammar_name: str) -> str:
    text = (_QUERIES / f"{grammar_name}.scm").read_text("utf-8")
    inherits = _INHERITS.match(text)
    return _read(inherits[1]) + text if inherits else text


def _generic_patterns(grammar: Grammar) -> str:
    """Patterns for imports, and for node types that by their names are definitions of something with a name."""
    types = [grammar.node_kind_for_id(id) for id in range(grammar.node_kind_count) if grammar.node_kind_is_named(id)]
    patterns = []
    for node_type in dict.fromkeys(filter(None, types)):
        if _IMPORT.search(node_type):
            patterns.append(f"({node_type}) @import")
        elif _DEFINITION.search(node_type):
            kind = next((kind for kind, words in _KIND_WORDS if re.search(words, node_type)), None)
            if kind:
                patterns.append(f"({node_type} name: (_) @name) @{kind}")
                names = [name for name in (*_IDENTIFIERS, f"{node_type}_name") if name in types]
                patterns += [f"({node_type} . ({name}) @name) @{kind}" for name in names]
    return "\n".join(pattern for pattern in patterns if _is_possible(grammar, pattern))


def _is_possible(grammar: Grammar, pattern: str) -> bool:
    try:
        Query(grammar, pattern)
    except QueryError:
        return False
    return True
