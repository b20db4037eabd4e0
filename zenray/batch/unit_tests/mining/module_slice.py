"""The smallest module in which a function runs alone: tree shaking from one function of a module.

What is kept needs names, attributes and operators; what provides those is kept in turn, until nothing is missing.
Attributes are matched by name alone, for all kept classes at once: that keeps too much, and never too little.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from zenray.batch.unit_tests.mining.module_map import (
    BUILTIN_NAMES,
    MODULE_NAMES,
    STANDARD_LIBRARY,
    ClassPieces,
    ModuleMap,
    Piece,
    absolute_module,
)
from zenray.batch.unit_tests.mining.module_names import DEFINITIONS
from zenray.batch.unit_tests.mining.module_selves import missing_attributes
from zenray.batch.unit_tests.model import SkipReason

_ALWAYS_WORDS = """
__init__ __new__ __post_init__ __getattr__ __getattribute__ __setattr__ __delattr__ __get__ __set__ __delete__
__set_name__ __init_subclass__ __class_getitem__ __slots__ __eq__ __hash__ __prepare__
"""
_ALWAYS = frozenset(_ALWAYS_WORDS.split())
_SHAKEN_BASES_WORDS = """
object dict list tuple set frozenset int float str bytes Exception ValueError TypeError KeyError LookupError
IndexError RuntimeError ArithmeticError AttributeError UserWarning Warning
"""
_SHAKEN_BASES = frozenset(_SHAKEN_BASES_WORDS.split())
"""Bases that call none of a subclass's methods by names we would not see."""


class CannotStandAlone(Exception):
    """Why no module of its own can be made for a function."""

    def __init__(self, detail: str, reason: SkipReason = SkipReason.TOO_DEPENDENT) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class SliceLimits:
    """How much of its module a function may bring along."""

    max_lines: int = 200
    max_definitions: int = 12
    """Functions and classes besides the focal one."""


@dataclass(eq=False)
class Slice:
    """What was kept. `members` are those of kept classes, by the index of the class's piece."""

    module: ModuleMap
    pieces: dict[int, Piece]
    members: dict[int, dict[int, Piece]]
    needed: set[str]
    needs_lazy_annotations: bool = False

    def running_pieces(self) -> Iterator[Piece]:
        """Everything kept, classes member by member."""
        for index, piece in sorted(self.pieces.items()):
            if isinstance(piece.node, ast.ClassDef):
                yield self.module.class_pieces(piece).header
                yield from (member for _, member in sorted(self.members[index].items()))
            else:
                yield piece


def slice_module(module: ModuleMap, focal: Piece, member: Piece | None, limits: SliceLimits) -> Slice:
    """The part of `module` in which `focal` (a top-level statement; `member` of it, for a method) runs.

    Raises CannotStandAlone for what needs third-party or sibling modules, unknown names, or too much.
    """
    return _Slicer(module, limits).run(focal, member)


class _Slicer:
    def __init__(self, module: ModuleMap, limits: SliceLimits) -> None:
        self._module, self._limits = module, limits
        self._slice = Slice(module, {}, {}, set())
        self._attributes: set[str] = set()
        self._operators: set[str] = set()
        self._soft: set[str] = set()
        self._names: list[str] = []
        self._num_lines = 0

    def run(self, focal: Piece, member: Piece | None) -> Slice:
        assert isinstance(focal.node, (*DEFINITIONS, ast.ClassDef))
        self._focal_name, self._focal = focal.node.name, focal
        self._slice.needed.add(self._focal_name)
        self._keep(focal)
        for piece in self._module.by_name[self._focal_name]:
            if piece is not focal:
                self._keep_change_of_focal(piece)
        if member is not None:
            self._keep_member(focal, member)
        self._settle()
        self._check_order()
        if member is not None:
            missing = missing_attributes(
                self._module, focal, [each.node for each in self._slice.members[focal.index].values()]
            )
            if missing:
                raise CannotStandAlone(f"needs self.{min(missing)}, which its class does not set")
        self._resolve_annotations()
        return self._slice

    def _check_order(self) -> None:
        """What runs at import finds its names bound, and nothing takes the focal one away."""
        bound: set[str] = set()
        for _, piece in sorted(self._slice.pieces.items()):
            if piece is not self._focal and self._focal_name in piece.binds:
                raise CannotStandAlone(f"{self._focal_name} is bound more than once")
            if not isinstance(piece.node, (ast.ClassDef, ast.Import, ast.ImportFrom)):
                missing = piece.names.outer - bound - piece.binds - BUILTIN_NAMES - MODULE_NAMES
                if missing:
                    raise CannotStandAlone(f"needs {min(missing)} before it is bound")
            bound |= piece.binds

    def _keep_change_of_focal(self, piece: Piece) -> None:
        """Another statement about the focal name. One that imports a faster twin would hide what is to be tested."""
        if self._focal_name not in piece.binds:
            self._keep(piece)
        elif not isinstance(piece.node, ast.Try | ast.If | ast.ImportFrom):
            raise CannotStandAlone(f"{self._focal_name} is bound more than once")

    def _settle(self) -> None:
        while True:
            while self._names:
                self._provide(self._names.pop())
            if not self._keep_members_in_use():
                return

    def _provide(self, name: str) -> None:
        if name in self._slice.needed:
            return
        self._slice.needed.add(name)
        providers = self._module.by_name.get(name, ())
        if not any(name in piece.binds for piece in providers):
            if name not in BUILTIN_NAMES and name not in MODULE_NAMES:
                raise CannotStandAlone(f"needs {name}, which the module does not bind itself")
            if not providers:
                return
        for piece in providers:
            self._keep(piece)

    def _keep(self, piece: Piece) -> None:
        if piece.index in self._slice.pieces:
            return
        self._slice.pieces[piece.index] = piece
        self._check_imports(piece)
        if isinstance(piece.node, ast.ClassDef):
            pieces = self._module.class_pieces(piece)
            self._slice.members[piece.index] = {}
            self._take(pieces.header)
            for each in pieces.members:
                if _is_always_kept(each, pieces, self._module):
                    self._keep_member(piece, each)
        elif isinstance(piece.node, ast.Import | ast.ImportFrom):
            pass
        else:
            self._take(piece)
            self._count(piece)
        definitions = sum(isinstance(each.node, (*DEFINITIONS, ast.ClassDef)) for each in self._slice.pieces.values())
        if definitions - 1 > self._limits.max_definitions:
            raise CannotStandAlone(f"needs more than {self._limits.max_definitions} other definitions of its module")

    def _count(self, piece: Piece) -> None:
        self._num_lines += piece.last_line - piece.first_line + 1
        if self._num_lines > self._limits.max_lines:
            raise CannotStandAlone(f"needs more than {self._limits.max_lines} lines of its module")

    def _take(self, piece: Piece, class_names: Iterable[str] = ()) -> None:
        """Note what a kept piece needs; `class_names` are those its class binds, for what runs in its body."""
        names = piece.names
        self._names += sorted(names.outer - frozenset(class_names) | names.inner)  # Sets have another order each run.
        self._soft |= names.annotations - frozenset(class_names)
        self._attributes |= names.attributes
        self._operators |= piece.operators

    def _keep_member(self, owner: Piece, member: Piece) -> None:
        kept = self._slice.members[owner.index]
        if member.index in kept:
            return
        kept[member.index] = member
        self._check_imports(member)
        by_name = self._module.class_pieces(owner).members_by_name
        # In `x = x` the first is the class's and the second the module's.
        before = {name for name, pieces in by_name.items() if pieces[0].index < member.index}
        self._take(member, before)
        self._count(member)
        for name in sorted(
            (member.names.outer & before) | member.binds
        ):  # Decorators, defaults, aliases; a setter's getter.
            for each in by_name.get(name, ()):
                self._keep_member(owner, each)

    def _keep_members_in_use(self) -> bool:
        """Whether there was one to keep."""
        found = False
        for index in list(self._slice.members):
            owner = self._slice.pieces[index]
            for name, members in self._module.class_pieces(owner).members_by_name.items():
                if name in self._attributes or name in self._operators:
                    for member in members:
                        if member.index not in self._slice.members[index]:
                            self._keep_member(owner, member)
                            found = True
        return found

    def _resolve_annotations(self) -> None:
        """Types that come from imports of the standard library are kept for the reader, the others stay unread."""
        for name in sorted(self._soft - self._slice.needed):
            providers = self._module.by_name.get(name, ())
            if providers and all(_imports_types(piece.node) for piece in providers):
                self._slice.needed.add(name)
                self._slice.pieces.update({piece.index: piece for piece in providers})
            elif name not in BUILTIN_NAMES or providers:
                self._slice.needs_lazy_annotations = True

    def _check_imports(self, piece: Piece) -> None:
        """Only the standard library, but where a failure to import is handled. Names of a star are not known."""
        if piece.imports_star:
            raise CannotStandAlone("imports *")
        for node in piece.hard_imports:
            if isinstance(node, ast.ImportFrom) and node.level:
                module = absolute_module(self._module.path, node.module, node.level)
                if module is None or not isinstance(piece.node, ast.ImportFrom):
                    raise CannotStandAlone(f"imports {'.' * node.level}{node.module or ''}")
                modules = [module]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            else:
                modules = [alias.name for alias in node.names if self._is_needed(piece.node, alias)]
            for module in modules:
                if module.partition(".")[0] not in STANDARD_LIBRARY:
                    raise CannotStandAlone(f"imports {module}")

    def _is_needed(self, statement: ast.stmt, alias: ast.alias) -> bool:
        return (
            statement not in self._module.by_node
            or not isinstance(statement, ast.Import)
            or ((alias.asname or alias.name.partition(".")[0]) in self._slice.needed)
        )


def _is_always_kept(member: Piece, pieces: ClassPieces, module: ModuleMap) -> bool:
    """Fields, what makes objects, and all of a class whose imported bases may call any of its methods."""
    is_one_line = member.node.lineno == pieces.node.lineno
    if is_one_line or not _has_only_known_bases(pieces.node, module):
        return True
    if isinstance(member.node, DEFINITIONS):
        return member.node.name in _ALWAYS
    if isinstance(member.node, ast.Assign):
        of_methods = {each.node.name for each in pieces.members if isinstance(each.node, DEFINITIONS)}
        return not (member.names.outer & of_methods)  # `__radd__ = __add__` comes when it is in use.
    return not isinstance(member.node, ast.ClassDef) and not _is_docstring(member.node)


def _has_only_known_bases(node: ast.ClassDef, module: ModuleMap) -> bool:
    for base in [*node.bases, *(each.value for each in node.keywords)]:
        if isinstance(base, ast.Name) and (base.id in _SHAKEN_BASES or _is_class_of(base.id, module)):
            continue
        return False
    return True


def _is_class_of(name: str, module: ModuleMap) -> bool:
    pieces = module.by_name.get(name, ())
    return bool(pieces) and all(isinstance(piece.node, ast.ClassDef) for piece in pieces)


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _imports_types(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.ImportFrom)
        and not node.level
        and node.module in ("typing", "collections.abc", "types", "collections", "numbers", "fractions", "decimal")
    ) or (isinstance(node, ast.Import) and all(alias.name == "typing" for alias in node.names))
