"""A slice as source text: the authors' own lines, in their order."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from zenray.batch.unit_tests.mining.module_map import ModuleMap, Piece, absolute_module
from zenray.batch.unit_tests.mining.module_names import DEFINITIONS
from zenray.batch.unit_tests.mining.module_slice import Slice

_LAZY = "from __future__ import annotations"


def module_text(kept: Slice) -> str:
    """The slice as a module: imports trimmed to the names in need, everything else as it was written."""
    module = kept.module
    head = [_LAZY] if kept.needs_lazy_annotations and not module.has_lazy_annotations else []
    head += [ast.unparse(node) for node in module.future_imports]
    blocks = ["\n".join(head)] if head else []
    imports: list[str] = []
    for index in sorted(kept.pieces):
        piece = kept.pieces[index]
        if piece.node in module.future_imports:
            continue
        if isinstance(piece.node, ast.Import | ast.ImportFrom):
            imports.append(_trimmed_import(piece.node, kept))
            continue
        if imports:
            blocks.append("\n".join(imports))
            imports = []
        blocks.append(_class_text(piece, kept) if isinstance(piece.node, ast.ClassDef) else piece_text(piece, module))
    if imports:
        blocks.append("\n".join(imports))
    return _joined(blocks) + "\n"


def piece_text(piece: Piece, module: ModuleMap) -> str:
    """The lines of a statement, indented as they stand; unparsed where it shares a line with another."""
    if _shares_a_line(piece, module):
        indent = " " * piece.node.col_offset
        return "\n".join(indent + line if line else line for line in ast.unparse(piece.node).split("\n"))
    return "\n".join(module.lines[piece.first_line - 1 : piece.last_line])


def _shares_a_line(piece: Piece, module: ModuleMap) -> bool:
    node = piece.node
    before = module.lines[piece.first_line - 1].encode()[: 0 if piece.first_line < node.lineno else node.col_offset]
    after = module.lines[piece.last_line - 1].encode()[node.end_col_offset :].decode()
    return bool(before.strip()) or after.strip().startswith(";")


def _trimmed_import(node: ast.Import | ast.ImportFrom, kept: Slice) -> str:
    """The names in need alone; an absolute module for a relative one."""
    needed = [alias for alias in node.names if (alias.asname or alias.name.partition(".")[0]) in kept.needed]
    if isinstance(node, ast.Import):
        return ast.unparse(ast.Import(needed))
    module = absolute_module(kept.module.path, node.module, node.level) if node.level else node.module
    return ast.unparse(ast.ImportFrom(module, needed, 0))


def _class_text(piece: Piece, kept: Slice) -> str:
    """The class with the members that were kept."""
    module = kept.module
    assert isinstance(piece.node, ast.ClassDef)
    pieces = module.class_pieces(piece)
    members = kept.members[piece.index]
    if len(members) == len(pieces.members):
        return piece_text(piece, module)
    first = pieces.members[0]
    if first.first_line == piece.node.lineno:  # The body stands on the header's line.
        return piece_text(piece, module)
    header_end = first.first_line - 1
    header = list(module.lines[piece.first_line - 1 : header_end])
    while len(header) > 1 and (not header[-1].strip() or header[-1].lstrip().startswith("#")):
        header.pop()
    parts = [piece_text(members[index], module) for index in sorted(members)]
    if not parts:
        parts = [" " * first.node.col_offset + "pass"]
    text = "\n".join(header)
    for before, (index, part) in enumerate(zip(sorted(members) or [0], parts, strict=True)):
        gap = "\n\n" if before and isinstance(pieces.members[index].node, (*DEFINITIONS, ast.ClassDef)) else "\n"
        text += gap + part
    return text


def _joined(blocks: list[str]) -> str:
    return "".join(_with_gaps(blocks))


def _is_import(block: str) -> bool:
    return block.startswith(("import ", "from "))


def _with_gaps(blocks: list[str]) -> Iterator[str]:
    """Two empty lines around definitions, one between imports and other statements."""
    for number, block in enumerate(blocks):
        if number:
            is_large = "\n    " in block or "\n    " in blocks[number - 1]
            yield "\n\n\n" if is_large else "\n\n" if _is_import(blocks[number - 1]) != _is_import(block) else "\n"
        yield block
