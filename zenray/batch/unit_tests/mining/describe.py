"""What a prompt may say about a function: its signature, source, imports and class."""

from __future__ import annotations

import ast
import textwrap

from zenray.batch.unit_tests.mining.module_map import ModuleMap, Piece
from zenray.batch.unit_tests.mining.module_names import DEFINITIONS, Definition
from zenray.batch.unit_tests.mining.module_slice import Slice
from zenray.batch.unit_tests.mining.module_text import piece_text


def signature_of(node: Definition) -> str:
    """`area(self, scale: float = 1.0) -> float`, on one line."""
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    return f"{node.name}({ast.unparse(node.args)}){returns}"


def source_of(piece: Piece, module: ModuleMap) -> str:
    """A function's own lines with its decorators, not indented."""
    return textwrap.dedent(piece_text(piece, module)) + "\n"


def imports_in(module_source: str) -> tuple[str, ...]:
    """The import statements at the top level of a module, but for those of the future."""
    return tuple(
        ast.unparse(node)
        for node in ast.parse(module_source).body
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.module != "__future__")
    )


def class_context(kept: Slice, focal: Piece) -> str:
    """The class's first line, how an object is made, and the signatures of what else was kept of it."""
    assert isinstance(focal.node, ast.ClassDef)
    node = focal.node
    bases = ", ".join(ast.unparse(each) for each in [*node.bases, *node.keywords])
    lines = [f"class {node.name}({bases}):" if bases else f"class {node.name}:"]
    for _, member in sorted(kept.members[focal.index].items()):
        if isinstance(member.node, DEFINITIONS) and member.node.name in ("__init__", "__new__"):
            lines.append(textwrap.indent(source_of(member, kept.module).rstrip(), "    "))
        elif isinstance(member.node, DEFINITIONS):
            lines += [f"    @{ast.unparse(each)}" for each in member.node.decorator_list]
            lines.append(f"    def {signature_of(member.node)}: ...")
        elif isinstance(member.node, ast.AnnAssign):
            lines.append(f"    {ast.unparse(member.node)}")
    return "\n".join(lines) + "\n"
