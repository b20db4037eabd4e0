"""What a class's methods read of their own objects without any of its code ever setting it.

Such a class is a mixin or a base whose subclasses fill it in: nobody can make an object of it to test a method on.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator

from zenray.batch.unit_tests.mining.module_map import ModuleMap, Piece
from zenray.batch.unit_tests.mining.module_names import DEFINITIONS, Definition

_MAKES_ATTRIBUTES = frozenset(("__getattr__", "__getattribute__", "__setattr__", "__slots__"))


def missing_attributes(module: ModuleMap, owner: Piece, members: list[ast.stmt]) -> set[str]:
    """Attributes that `members` of the class `owner` read of `self` and no class of its line sets; empty where a class
    of the line comes from elsewhere, or makes attributes as they are asked for."""
    line = _line_of_classes(module, owner)
    if line is None:
        return set()
    known = {*dir(object), *dir(type)}
    for each in line:
        if isinstance(each, str):
            known.update(dir(getattr(builtins, each)))
            continue
        pieces = module.class_pieces(each)
        if not _MAKES_ATTRIBUTES.isdisjoint(pieces.members_by_name):
            return set()
        known.update(pieces.members_by_name)
        known.update(_annotated(pieces.node))
        if each not in module.attributes_set:
            stored = (name for piece in pieces.members for name in _attributes(piece.node, ast.Store))
            module.attributes_set[each] = frozenset(stored)
        known.update(module.attributes_set[each])
    return {name for member in members for name in _attributes(member, ast.Load)} - known


def _annotated(node: ast.ClassDef) -> Iterator[str]:
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            yield each.target.id


def _line_of_classes(module: ModuleMap, owner: Piece) -> list[Piece | str] | None:
    """The class and its bases, builtin ones by name; None where one of them is unknown."""
    line: list[Piece | str] = []
    waiting = [owner]
    while waiting:
        piece = waiting.pop()
        if piece in line:
            continue
        line.append(piece)
        assert isinstance(piece.node, ast.ClassDef)
        if piece.node.keywords or piece.node.decorator_list:
            return None
        for base in piece.node.bases:
            if not isinstance(base, ast.Name):
                return None
            found = module.by_name.get(base.id, ())
            if len(found) == 1 and isinstance(found[0].node, ast.ClassDef):
                waiting.append(found[0])
            elif not found and isinstance(getattr(builtins, base.id, None), type):
                line.append(base.id)
            else:
                return None
    return line


def _attributes(member: ast.stmt, context: type[ast.expr_context]) -> Iterator[str]:
    """Names read or set on a method's first parameter."""
    if not isinstance(member, DEFINITIONS) or any(_is_static(each) for each in member.decorator_list):
        return
    first = _first_parameter(member)
    for node in ast.walk(member):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, context)
            and isinstance(node.value, ast.Name)
            and node.value.id == first
        ):
            yield node.attr


def _is_static(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Name) and decorator.id == "staticmethod"


def _first_parameter(node: Definition) -> str | None:
    parameters = [*node.args.posonlyargs, *node.args.args]
    return parameters[0].arg if parameters else None
