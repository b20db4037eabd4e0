"""Names that a test takes from elsewhere: the module under test, whatever the model called it, and imports."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from zenray.batch.unit_tests.candidates.claims import loaded_names
from zenray.batch.unit_tests.candidates.text import Unparsable, parse_module
from zenray.batch.unit_tests.model import MinedFunction
from zenray.batch.unit_tests.prompting.prompts_source import defined_names


class Refused(Exception):
    """A test that cannot be a candidate; says why."""


@dataclass(frozen=True, slots=True)
class FocalModule:
    """What a test may say of the module under test."""

    import_name: str
    call_name: str
    top_level: frozenset[str]
    imports: dict[str, str]
    """What its own imports bind, and how: a test that uses such a name imports it likewise."""

    @classmethod
    def of(cls, function: MinedFunction) -> FocalModule:
        try:
            module = parse_module(function.module_source)
        except Unparsable:
            return cls(function.import_name, function.call_name, frozenset({function.import_name}), {})
        return cls(function.import_name, function.call_name, defined_names(module), _bindings(module))

    @property
    def function_name(self) -> str:
        return self.call_name.rpartition(".")[2]

    def rewrite(self, module: ast.Module) -> ast.Module:
        """`module` with `focal.f`, and what `f` was imported as, spelled `f`."""
        aliases = {"focal"}
        renamed: dict[str, str] = {}
        for node in ast.walk(module):
            if isinstance(node, ast.Import):
                aliases |= {alias.asname or alias.name for alias in node.names if not is_allowed(alias.name)}
            elif isinstance(node, ast.ImportFrom) and self.is_focal(node):
                renamed |= {alias.asname: alias.name for alias in node.names if alias.asname}
        rewritten = _Rewrite(aliases, renamed).visit(module)
        assert isinstance(rewritten, ast.Module)
        return rewritten

    def is_focal(self, node: ast.ImportFrom) -> bool:
        """Of the module under test: nothing a test may import, or the very name under test."""
        names = {alias.name for alias in node.names}
        return bool(node.level) or not is_allowed(node.module or "") or self.import_name in names

    def is_used(self, body: list[ast.stmt]) -> bool:
        """Whether the statements call the function, or hand it to what may."""
        nodes = [node for statement in body for node in ast.walk(statement)]
        if self.call_name == self.import_name:
            return any(self._is_handed(node) for node in nodes)
        is_imported = any(self.import_name in loaded_names(statement) for statement in body)
        is_operator = self.function_name.startswith("__")
        return is_imported and (is_operator or any(self._is_method(node) for node in nodes))

    def _is_handed(self, node: ast.AST) -> bool:
        """A call of the function, or one that is given it, or a definition that it decorates."""
        if isinstance(node, ast.Call):
            return self.import_name in loaded_names(node)
        decorators = node.decorator_list if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
        return any(self.import_name in loaded_names(each) for each in decorators)

    def _is_method(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Attribute) and node.attr == self.function_name


@dataclass(frozen=True, slots=True)
class Imports:
    """What an answer imports besides the module under test, by the name it binds."""

    statements: dict[str, str]
    focal: FocalModule

    @classmethod
    def of(cls, module: ast.Module, focal: FocalModule) -> Imports:
        return cls(_bindings(module, focal), focal)

    def needed(self, names: Iterable[str], body: list[ast.stmt]) -> list[str]:
        """Import statements that bind `names`, sorted; modules that `body` plainly means are imported unasked.

        Raises Refused for names that nothing binds.
        """
        meant = _names_with_attributes(body)
        found = set()
        for name in sorted(names):
            if name in self.statements:
                found.add(self.statements[name])
            elif name in self.focal.imports:
                found.add(self.focal.imports[name])
            elif name in meant and is_allowed(name):
                found.add(f"import {name}")
            elif name in self.focal.top_level:
                raise Refused(f"uses {name} of the module, which a test does not import")
            else:
                raise Refused(f"{name} is not defined")
        return sorted(found)


def _names_with_attributes(body: list[ast.stmt]) -> set[str]:
    """`math` of `math.pi`."""
    return {
        node.value.id
        for statement in body
        for node in ast.walk(statement)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }


def is_allowed(module: str) -> bool:
    """A test may import the standard library and pytest."""
    return module.partition(".")[0] in sys.stdlib_module_names | {"pytest"}


def drop_inner_imports(body: list[ast.stmt], imports: Imports) -> list[ast.stmt]:
    """`body` without the imports in it: they stand at the top of a module. `imports` knows them all."""
    kept = [_DropImports().visit(statement) for statement in body]
    return [statement for statement in kept if statement is not None]


def _bindings(module: ast.Module, focal: FocalModule | None = None) -> dict[str, str]:
    """Import statement by the name it binds, of what a test may import, wherever it stands."""
    found: dict[str, str] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if is_allowed(alias.name):
                    shown = f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
                    found[alias.asname or alias.name.partition(".")[0]] = shown
        elif isinstance(node, ast.ImportFrom) and is_allowed(node.module or "") and not node.level:
            if focal is not None and focal.is_focal(node):
                continue
            for alias in node.names:
                shown = f"from {node.module} import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
                found[alias.asname or alias.name] = shown
    return {name: shown for name, shown in found.items() if name != "*" and "__future__" not in shown}


class _Rewrite(ast.NodeTransformer):
    def __init__(self, aliases: set[str], renamed: dict[str, str]) -> None:
        self._aliases, self._renamed = aliases, renamed

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        if isinstance(node.ctx, ast.Load) and _dotted(node.value) in self._aliases:
            return ast.Name(node.attr, ast.Load())
        self.generic_visit(node)
        return node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Name(self._renamed.get(node.id, node.id), node.ctx)


class _DropImports(ast.NodeTransformer):
    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None


def _dotted(node: ast.expr) -> str:
    """`a.b.c` of names and attributes; empty for other expressions."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""
