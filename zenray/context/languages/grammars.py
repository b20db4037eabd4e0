"""Parsing with tree-sitter: grammars loaded when first needed, in bounded time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import cast

from tree_sitter import Language as Grammar
from tree_sitter import Node, Parser, Point, Tree
from tree_sitter_language_pack import SupportedLanguage, get_language

from zenray.context.languages.registry import language

MAX_SOURCE_BYTES = 8 << 20
MAX_LINE_BYTES = 32 << 10
"""Some scanners count columns from the start of the line at every token, so long lines cost quadratic time between two
looks at the clock. Such lines are generated or data."""

_MIN_BUDGET_S = 0.25
_BUDGET_S_PER_BYTE = 1.5e-6
"""Code parses at 2 to 10 MB/s; error recovery on hostile input is up to 100 times slower."""
_CHUNK_BYTES = 16 << 10


class _Scratch(threading.local):
    """What a thread hands the parser text in. tree-sitter 0.26.0 never lets go of what a reader returns, so a reader
    that made new objects would leak the source at every parse."""

    def __init__(self) -> None:
        self.chunk = bytearray()


_SCRATCH = _Scratch()


@lru_cache(maxsize=256)
def grammar(language_id: str) -> Grammar | None:
    """The grammar of a language; None when there is none."""
    known = language(language_id)
    return get_language(cast(SupportedLanguage, known.grammar)) if known and known.grammar else None


def parse(language_id: str, source: bytes, old_tree: Tree | None = None) -> Tree | None:
    """The syntax tree of `source`, which is UTF-8; may be called from any thread.

    `old_tree`, edited to match `source`, makes it incremental. None when the language has no grammar, and when
    parsing would take too long: a source of more than `MAX_SOURCE_BYTES`, a line of more than `MAX_LINE_BYTES`, or
    more processor time than 0.25 s and 1.5 s per MB.

    Nodes do not know their text (`Node.text` raises TypeError): slice `source` with their offsets.
    """
    known = grammar(language_id)
    if known is None or len(source) > MAX_SOURCE_BYTES or _has_long_line(source):
        return None
    give_up_at_s = time.thread_time() + _MIN_BUDGET_S + _BUDGET_S_PER_BYTE * len(source)
    chunk = _SCRATCH.chunk
    is_parsing = True

    def read(offset: int, _: Point) -> bytearray | None:
        if not is_parsing or offset >= len(source):
            return None
        chunk[:] = source[offset : offset + _CHUNK_BYTES]
        return chunk

    def is_too_late(_: int, __: bool) -> bool:
        return time.thread_time() > give_up_at_s

    parser = Parser(known)
    try:
        if old_tree is None:
            return parser.parse(read, progress_callback=is_too_late)
        return parser.parse(read, old_tree, progress_callback=is_too_late)
    except ValueError:  # what the binding makes of a parse that was halted
        return None
    finally:
        is_parsing = False


def num_syntax_errors(tree: Tree) -> int:
    """How many ERROR and MISSING nodes a tree holds; microseconds for a tree without any."""
    return sum(node.is_error or node.is_missing for node in nodes_at_errors(tree))


def nodes_at_errors(tree: Tree) -> Iterator[Node]:
    """The root and every node whose parent has an error inside, in order.

    A query for them would take time quadratic in the depth of the tree, and in the length of an ERROR node.
    """
    cursor = tree.walk()
    while True:
        node = cast(Node, cursor.node)
        yield node
        if node.has_error and cursor.goto_first_child():
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return


def _has_long_line(source: bytes) -> bool:
    """Whether a line of `source` is longer than `MAX_LINE_BYTES`. Looks at few bytes: the last end of a line in each
    window of that size."""
    start = 0
    while len(source) - start > MAX_LINE_BYTES:
        end = source.rfind(b"\n", start, start + MAX_LINE_BYTES + 1)
        if end < 0:
            return True
        start = end + 1
    return False
