"""What one statement of a module takes from the rest of it, by the compiler's own symbol tables.

A statement is compiled alone, as if it were a whole module: what its tables then call global, the module must bind.
"""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

Definition = ast.FunctionDef | ast.AsyncFunctionDef
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class Names:
    """Names a statement needs. `outer` are looked up where it stands (decorators, defaults, bases, plain statements),
    `inner` in the module by the bodies of its functions. `annotations` are needed by annotations alone."""

    outer: frozenset[str]
    inner: frozenset[str]
    annotations: frozenset[str]
    binds: frozenset[str]
    mutates: frozenset[str]
    """Names whose objects a statement changes while the module is imported: `TABLE[x] = y`, `NAMES.append(z)`."""
    attributes: frozenset[str]


def names_of(statement: ast.stmt) -> Names:
    """The names of one statement. Raises SyntaxError, RecursionError or MemoryError for what cannot be compiled."""
    bare = _WithoutAnnotations().visit(deepcopy(statement))
    outer, inner, binds = _tables(bare)
    if isinstance(statement, ast.Delete):  # A shorter life of a name does no harm where it is left out.
        binds = outer = frozenset()
    return Names(
        outer,
        inner,
        frozenset(_annotation_names(statement)) - outer - inner,
        binds,
        frozenset(_mutated(statement)),
        frozenset(node.attr for node in ast.walk(statement) if isinstance(node, ast.Attribute)),
    )


def _tables(statement: ast.stmt) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    top = symtable.symtable(ast.unparse(ast.fix_missing_locations(statement)), "focal", "exec")
    outer = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_referenced()}
    binds = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    inner: set[str] = set()
    tables = list(top.get_children())
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_global():
                inner.add(symbol.get_name())
    return frozenset(outer), frozenset(inner), frozenset(binds)


class _WithoutAnnotations(ast.NodeTransformer):
    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        self.generic_visit(node)
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AsyncFunctionDef:
        node.returns = None
        self.generic_visit(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        """The annotation goes, the binding stays: without it a name would no longer be local."""
        node.annotation = ast.Constant(None)
        self.generic_visit(node)
        return node


def _annotation_names(statement: ast.stmt) -> Iterator[str]:
    for node in ast.walk(statement):
        if isinstance(node, ast.arg | ast.AnnAssign):
            annotations = [node.annotation]
        elif isinstance(node, DEFINITIONS):
            annotations = [node.returns]
        else:
            continue
        for annotation in annotations:
            if annotation is not None:
                yield from (each.id for each in ast.walk(annotation) if isinstance(each, ast.Name))


def _mutated(statement: ast.stmt) -> Iterator[str]:
    """Of what runs at import. A function's body runs later, a class's own names are its own."""
    if isinstance(statement, (*DEFINITIONS, ast.ClassDef, ast.Delete)):
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            root = root_name(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            root = root_name(node.value.func) if isinstance(node.value.func, ast.Attribute) else None
        else:
            continue
        if root is not None:
            yield root.id


def unguarded_imports(statement: ast.stmt) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements of a statement whose failure nothing handles."""
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.Try) and any(_catches_import_error(handler) for handler in node.handlers):
            waiting += [*node.handlers, *node.orelse, *node.finalbody]
        else:
            waiting += list(ast.iter_child_nodes(node))


def _catches_import_error(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    names = {each.id for each in ast.walk(handler.type) if isinstance(each, ast.Name)}
    return bool(names & {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


def root_name(node: ast.AST) -> ast.Name | None:
    """`x` of `x.a[b].c`."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node if isinstance(node, ast.Name) else None


def body_without_docstring(node: Definition | ast.ClassDef) -> list[ast.stmt]:
    """The statements of a body but for its docstring."""
    return node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
