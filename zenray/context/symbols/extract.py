"""What a source file defines and imports, read off its syntax tree by queries."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

from tree_sitter import Node, QueryCursor

from zenray.context.languages.grammars import grammar, parse
from zenray.context.languages.registry import language
from zenray.context.languages.table import Language
from zenray.context.symbols.documentation import comment_above, docstring
from zenray.context.symbols.imports import read_imports
from zenray.context.symbols.model import FileSymbols, Import, Symbol, SymbolKind
from zenray.context.symbols.patterns import extract_by_patterns
from zenray.context.symbols.tags import tags_of

MAX_SIGNATURE_CHARS = 400
_MAX_NAME_BYTES = 200
_MAX_IMPORT_BYTES = 4000
_MAX_TAIL_BYTES = 16
_MATCH_LIMIT = 4096
_MAX_DEPTH = 128
"""Nodes below are not looked at: a query takes time proportional to nodes times depth, and its progress callback
crashes in tree-sitter 0.26.0."""
_LOCAL_TO = ("function", "method")
_PARTS = ("name", "body", "container")
_BODY_OPENING = re.compile(r"(\s|=>|=|\{|;|\bend\b)+$")


def extract(text: str, language_id: str) -> FileSymbols:
    """The definitions of a file that other code can name, and its imports, in order.

    Definitions inside functions are left out. Without a grammar, or when parsing takes too long, a regular
    expression finds what it can. Never raises.
    """
    known = language(language_id)
    if known is None:
        return FileSymbols()
    rules = grammar(known.id)
    source = text.encode("utf-8", "replace")
    tree = parse(known.id, source) if rules else None
    if tree is None or rules is None:
        return extract_by_patterns(text)
    cursor = QueryCursor(tags_of(cast(str, known.grammar), rules), match_limit=_MATCH_LIMIT)
    cursor.set_max_start_depth(_MAX_DEPTH)
    matches = cursor.matches(tree.root_node)
    return _Reader(known, text.split("\n"), source).read(matches)


@dataclass(slots=True)
class _Reader:
    """Turns the matches of a query over one file into symbols."""

    language: Language
    lines: list[str]
    source: bytes

    def read(self, matches: list[tuple[int, dict[str, list[Node]]]]) -> FileSymbols:
        """Definitions come outermost first, so that those around one are known when it comes."""
        symbols: list[Symbol] = []
        imports: list[Import] = []
        around: list[tuple[int, int, str, str]] = []  # start, end, kind and name of what the current one is in
        outer: Node | None = None
        last_name_at = -1
        for (start, minus_end, _), tag, captured in sorted(map(_keyed, matches), key=lambda item: item[0]):
            end, kind = -minus_end, tag
            if kind == "import":
                if end - start <= _MAX_IMPORT_BYTES:
                    imports += read_imports(cast(str, self.language.grammar), self._text(start, end))
                continue
            while around and (around[-1][1] <= start or around[-1][:2] == (start, end)):
                around.pop()
            if around and around[-1][2] in _LOCAL_TO:
                continue
            if kind == "outer":
                outer = captured[kind][0] if outer is None or outer.end_byte <= start else outer
                continue
            name_start, name_end = captured["name"][0].byte_range
            if name_start <= last_name_at or name_end - name_start > _MAX_NAME_BYTES:
                continue
            last_name_at = name_start
            qualifier, _, name = self._text(name_start, name_end).rpartition("::")
            if kind == "scope":
                around.append((start, end, kind, _type_name(name)))
                continue
            if "container" in captured:
                qualifier = qualifier or self._text(*captured["container"][0].byte_range)
            container = _type_name(qualifier) if qualifier else around[-1][3] if around else ""
            if kind == "function" and container and not (around and around[-1][2] == "module"):
                kind = "method"
            node = captured[tag][0]
            whole = outer if outer is not None and self._ends(outer, end) else node
            outer = None
            around.append((start, end, kind, name))
            symbols.append(self._symbol(name, cast(SymbolKind, kind), container, node, whole, captured.get("body")))
        return FileSymbols(tuple(symbols), tuple(dict.fromkeys(imports)))

    def _symbol(
        self, name: str, kind: SymbolKind, container: str, node: Node, whole: Node, body_nodes: list[Node] | None
    ) -> Symbol:
        body = body_nodes[0] if body_nodes else node.child_by_field_name("body")
        start_line, column = whole.start_point
        end_line, end_column = whole.end_point
        documentation = self._docstring(body) if body is not None and self.language.id == "python" else ""
        return Symbol(
            name=name,
            kind=kind,
            start_line=start_line,
            end_line=end_line + (end_column > 0 or end_line == start_line),
            signature=self._signature(whole, body, kind, column),
            documentation=documentation or self._comment_above(start_line, column),
            container=container,
        )

    def _signature(self, whole: Node, body: Node | None, kind: SymbolKind, column: int) -> str:
        start, end = whole.start_byte, whole.end_byte
        if body is not None and (kind != "type" or end - start > MAX_SIGNATURE_CHARS):
            end = body.start_byte
        text = self._text(start, min(end, start + 4 * MAX_SIGNATURE_CHARS))
        if len(text) > MAX_SIGNATURE_CHARS:
            text = text[:MAX_SIGNATURE_CHARS].rpartition("\n")[0] or text[:MAX_SIGNATURE_CHARS]
        if "\n" in text:
            text = re.sub(rf"\r?\n[ \t]{{0,{column}}}", "\n", text)
        return _BODY_OPENING.sub("", text)

    def _docstring(self, body: Node) -> str:
        first = body.named_child(0)
        literal = first.named_child(0) if first is not None and first.type == "expression_statement" else first
        if literal is None or literal.type != "string":
            return ""
        return docstring(self._text(literal.start_byte, literal.end_byte))

    def _ends(self, outer: Node, end: int) -> bool:
        """Whether `outer` has nothing behind the definition that ends at `end`."""
        return end <= outer.end_byte and not self.source[end : outer.end_byte][:_MAX_TAIL_BYTES].strip(b" \t\r\n;")

    def _comment_above(self, line: int, column: int) -> str:
        """The comment above a definition that begins its line; the next one on a line has none of its own."""
        if self.lines[line][:column].strip():
            return ""
        return comment_above(self.lines, line, self.language.line_comment, self.language.block_comment)

    def _text(self, start: int, end: int) -> str:
        return self.source[start:end].decode("utf-8", "replace")


def _keyed(match: tuple[int, dict[str, list[Node]]]) -> tuple[tuple[int, int, int], str, dict[str, list[Node]]]:
    """A match with its kind and the order it is read in: by start, the longer first, then as in the query."""
    pattern, captured = match
    kind = next(capture for capture in captured if capture not in _PARTS)
    node = captured[kind][0]
    return (node.start_byte, -node.end_byte, pattern), kind, captured


def _type_name(text: str) -> str:
    """The bare name of a type: `Tree` for `(t *Tree[K])`, `&'a Tree<K>` or `Tree.prototype`."""
    words = re.findall(r"\w+", re.split(r"[\[<]", text)[0].removesuffix(".prototype"))
    return words[-1] if words else ""
