"""What a source file defines and imports, read off its syntax tree."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import cast

from tree_sitter import Node

from zenray.context.languages.grammars import parse
from zenray.context.languages.registry import language
from zenray.context.languages.table import Language
from zenray.context.symbols.documentation import comment_above, docstring
from zenray.context.symbols.imports import read_imports
from zenray.context.symbols.model import NO_SYMBOLS, FileSymbols, Import, Symbol, SymbolKind
from zenray.context.symbols.patterns import extract_by_patterns
from zenray.context.symbols.tags import Tag, has_own_query, tags_in

MAX_SIGNATURE_CHARS = 400
_MAX_NAME_BYTES = 200
_MAX_IMPORT_BYTES = 2000
_MAX_TAIL_BYTES = 16
_CODE_INSIDE = ("function", "method", "equation")
_WHOLE_WHEN_SHORT = ("type", "constant", "field")
_MAX_SCRIPTS = 100
_WITH_SCRIPTS = ("astro", "html", "svelte", "vue")
_SCRIPT = re.compile(r"(?:\A---(?=\s)|<script\b[^<>]{0,200}>)(?P<code>.*?)(?:</script>|^---|\Z)", re.S | re.I | re.M)
_BODY_OPENING = re.compile(r"(\s|=>|=|\{|;|\bend\b)+$")


def extract(text: str, language_id: str) -> FileSymbols:
    """The definitions of a file that other code can name, and its imports, in order.

    Definitions inside functions are left out. Without a grammar, or when parsing takes too long, a regular
    expression finds what it can. Never raises.
    """
    known = language(language_id)
    if known is None:
        return NO_SYMBOLS
    if known.id in _WITH_SCRIPTS:
        return _extract_scripts(text)
    source = text.encode("utf-8", "replace")
    tree = parse(known.id, source)
    tags = tags_in(source, tree, known.grammar) if tree is not None and known.grammar else None
    if tags is None:
        return extract_by_patterns(text)
    reader = _Reader(known, text.split("\n"), source)
    for tag in tags:
        reader.take(tag)
    symbols = reader.symbols
    if (tree is not None and tree.root_node.has_error) or not (symbols or has_own_query(cast(str, known.grammar))):
        symbols = _completed(symbols, extract_by_patterns(text).symbols)
    return FileSymbols(tuple(symbols), tuple(dict.fromkeys(reader.imports)))


def _extract_scripts(text: str) -> FileSymbols:
    """Those of the scripts in a page or component, at their lines in the whole."""
    symbols: list[Symbol] = []
    imports: list[Import] = []
    line, counted_to = 0, 0
    for script in islice(_SCRIPT.finditer(text), _MAX_SCRIPTS):
        line += text.count("\n", counted_to, script.start("code"))
        counted_to = script.start("code")
        found = extract(script["code"], "typescript")
        imports += found.imports
        symbols += (
            replace(symbol, start_line=symbol.start_line + line, end_line=symbol.end_line + line)
            for symbol in found.symbols
        )
    return FileSymbols(tuple(symbols), tuple(dict.fromkeys(imports)))


def _completed(parsed: Sequence[Symbol], guessed: Sequence[Symbol]) -> list[Symbol]:
    """With those of `guessed` on lines that belong to nothing parsed, or only to classes and modules: definitions
    that a syntax error hides from the parser."""
    taken: set[int] = set()
    for symbol in parsed:
        is_open = symbol.kind in ("class", "module")
        taken.update((symbol.start_line,) if is_open else range(symbol.start_line, symbol.end_line))
    found = [*parsed, *(symbol for symbol in guessed if symbol.start_line not in taken)]
    return sorted(found, key=lambda symbol: symbol.start_line)


@dataclass(slots=True)
class _Reader:
    """Turns tags, which come in order and the outermost first, into symbols and imports."""

    language: Language
    lines: list[str]
    source: bytes
    symbols: list[Symbol] = field(default_factory=list)
    imports: list[Import] = field(default_factory=list)
    around: list[tuple[Tag, str]] = field(default_factory=list)
    """The definitions and scopes that the current tag is in, with their names."""
    outer: Tag | None = None
    names_seen: set[int] = field(default_factory=set)
    """Where they start: what two patterns match, the first of them names."""

    def take(self, tag: Tag) -> None:
        if tag.kind == "import":
            self._import(tag)
            return
        if tag.name is not None and tag.name.start_byte in self.names_seen:
            return
        while self.around and not _contains(self.around[-1][0], tag):
            self.around.pop()
        if self.around and self.around[-1][0].kind in _CODE_INSIDE:
            return
        if tag.kind == "outer":
            self.outer = tag if self.outer is None or self.outer.end <= tag.start else self.outer
        elif tag.name is not None:
            self.names_seen.add(tag.name.start_byte)
            self._define(tag, tag.name)

    def _import(self, tag: Tag) -> None:
        if tag.end - tag.start <= _MAX_IMPORT_BYTES:
            self.imports += read_imports(cast(str, self.language.grammar), self._text(tag.start, tag.end))

    def _define(self, tag: Tag, name_node: Node) -> None:
        start, end = name_node.byte_range
        if end - start > _MAX_NAME_BYTES:
            return
        qualifier, _, name = self._text(start, end).strip("\"'").rpartition("::")
        if not name:
            return
        inside = self.around[-1] if self.around else None
        if tag.kind == "scope":
            self.around.append((tag, _type_name(name)))
            return
        self.around.append((tag, name))
        if tag.container is not None:
            qualifier = qualifier or self._text(*tag.container.byte_range)
        container = _type_name(qualifier) if qualifier else inside[1] if inside else ""
        kind = tag.kind
        if kind in ("function", "equation"):
            kind = "method" if container and not (inside and inside[0].kind == "module") else "function"
        last = self.symbols[-1] if self.symbols else None
        if tag.kind == "equation" and last and (last.name, last.container) == (name, container):
            self.symbols[-1] = replace(last, end_line=_end_line(tag))
        else:
            self.symbols.append(self._symbol(tag, name, cast(SymbolKind, kind), container))

    def _symbol(self, tag: Tag, name: str, kind: SymbolKind, container: str) -> Symbol:
        outer, self.outer = self.outer, None
        first = outer.node if outer is not None and self._ends_with(outer, tag) else tag.node
        body = tag.body or tag.node.child_by_field_name("body")
        line, column = first.start_point
        documentation = self._docstring(body) if body is not None and self.language.id == "python" else ""
        return Symbol(
            name=name,
            kind=kind,
            start_line=line,
            end_line=_end_line(tag),
            signature=self._signature(first.start_byte, column, tag, body),
            documentation=documentation or self._comment_above(line, column),
            container=container,
        )

    def _signature(self, start: int, column: int, tag: Tag, body: Node | None) -> str:
        """What stands before the body: of a short type or value all, else its first lines."""
        is_short = tag.kind in _WHOLE_WHEN_SHORT and tag.end - start <= MAX_SIGNATURE_CHARS
        end = tag.end if body is None or is_short else body.start_byte
        text = self._text(start, min(end, start + 4 * MAX_SIGNATURE_CHARS))
        if body is None and tag.kind not in _WHOLE_WHEN_SHORT:
            text = _head(text)
        if len(text) > MAX_SIGNATURE_CHARS:
            text = text[:MAX_SIGNATURE_CHARS].rpartition("\n")[0] or text[:MAX_SIGNATURE_CHARS]
        if "\n" in text:
            text = re.sub(rf"\r?\n[ \t]{{0,{column}}}", "\n", text)
        return _BODY_OPENING.sub("", text)

    def _docstring(self, body: Node) -> str:
        literal = body.named_child(0) if body.named_child_count else None
        if literal is None or literal.type != "string":
            return ""
        return docstring(self._text(literal.start_byte, literal.end_byte))

    def _comment_above(self, line: int, column: int) -> str:
        """The comment above a definition that begins its line; another one on the line has none of its own."""
        if self.lines[line][:column].strip():
            return ""
        return comment_above(self.lines, line, self.language.line_comment, self.language.block_comment)

    def _ends_with(self, outer: Tag, tag: Tag) -> bool:
        """Whether nothing of `outer` stands behind `tag`."""
        return tag.end <= outer.end and not self.source[tag.end : outer.end][:_MAX_TAIL_BYTES].strip(b" \t\r\n;")

    def _text(self, start: int, end: int) -> str:
        return self.source[start:end].decode("utf-8", "replace")


def _contains(outer: Tag, tag: Tag) -> bool:
    """Whether `tag` is inside. Two tags of one node (`var a, b = 1, 2` in Go) are beside each other."""
    return tag.start < outer.end and (tag.start, tag.end) != (outer.start, outer.end)


def _end_line(tag: Tag) -> int:
    """Behind the last line of a definition and its body."""
    last = tag.body if tag.body is not None and tag.body.end_byte > tag.node.end_byte else tag.node
    line, column = last.end_point
    return line + (column > 0 or line == tag.node.start_point.row)


def _head(text: str) -> str:
    """The first line, and those on which its brackets close."""
    depth = 0
    for end, char in enumerate(text):
        depth += (char in "([") - (char in ")]")
        if char == "\n" and depth <= 0:
            return text[:end]
    return text


def _type_name(text: str) -> str:
    """The bare name of a type: `Tree` for `(t *Tree[K])`, `&'a Tree<K>` or `Tree.prototype`."""
    words = re.findall(r"\w+", re.split(r"[\[<]", text)[0].removesuffix(".prototype"))
    return words[-1] if words else ""
