"""What the grammar of a language says about a completion, from a window around the cursor."""

from __future__ import annotations

from tree_sitter import Node, Point

from zenray.context.languages.grammars import num_syntax_errors, parse
from zenray.context.suggestion.windows import after_window, before_window, sure_start

_NO_CODE = (
    *("string", "comment", "char_literal", "character", "regex", "heredoc", "literal_content"),
    *("quote_scalar", "block_scalar"),
)
_CODE_BY_ANOTHER_NAME = "string_scalar"
"""In YAML a key without quotes."""
_WINDOW = 4096


def in_code(language: str, source: str, position: int) -> bool:
    """Whether the character at `position` stands in no string or comment, as far as the grammar can tell."""
    start = sure_start(source[:position], _WINDOW)
    window = source[start:]
    tree = parse(language, _encoded(window))
    if tree is None:
        return True
    at = len(_encoded(source[start:position]))
    node = tree.root_node.descendant_for_byte_range(at, at + 1)
    return node is None or not _within_text(node, at)


def _within_text(node: Node, at: int) -> bool:
    """Whether `node`, at byte `at`, is part of a string or comment, and neither its delimiter nor code within it."""
    while node.parent is not None:
        if node.is_named and node.type != _CODE_BY_ANOTHER_NAME and any(kind in node.type for kind in _NO_CODE):
            return "substitution" not in node.type and "interpolation" not in node.type
        if "substitution" in node.type or "interpolation" in node.type:
            return False
        node = node.parent
    return False


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


class SyntaxCheck:
    """Counts the syntax errors a completion leaves between `before` and `after`, in a window around the cursor. That is
    parsed once; a completion costs what it changes."""

    def __init__(self, language: str, before: str, after: str) -> None:
        self._language = language
        self._before = _encoded(before_window(before))
        self._after = _encoded(after_window(after))
        self._tree = parse(language, self._before + self._after)
        self.base: int | None = None if self._tree is None else num_syntax_errors(self._tree)
        """The errors without a completion; None where no grammar can tell."""

    def num_errors(self, text: str) -> int:
        """The errors with `text` at the cursor. Not to be asked where `base` is None."""
        assert self._tree is not None
        added = _encoded(text)
        start, end = len(self._before), len(self._before) + len(added)
        source = self._before + added + self._after
        tree = self._tree.copy()
        at, behind = _point(source, start), _point(source, end)
        tree.edit(start, start, end, at, at, behind)
        new = parse(self._language, source, tree)
        return num_syntax_errors(new) if new is not None else len(source)


def _point(source: bytes, offset: int) -> Point:
    line_start = source.rfind(b"\n", 0, offset) + 1
    return Point(source.count(b"\n", 0, offset), offset - line_start)
