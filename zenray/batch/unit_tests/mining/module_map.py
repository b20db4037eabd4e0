"""A Python module in pieces that can be kept or left out: its statements, and the members of its classes."""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

from zenray.batch.unit_tests.mining.module_names import DEFINITIONS, Definition, Names, names_of, unguarded_imports
from zenray.batch.unit_tests.model import SkipReason
from zenray.batch.unit_tests.validation.class_operators import operators_of

BUILTIN_NAMES = frozenset(dir(builtins))
MODULE_NAMES = frozenset(
    ("__name__", "__doc__", "__package__", "__spec__", "__loader__", "__builtins__", "__debug__", "__class__")
)
"""Bound in any module without a statement. `__file__` is not here: it says where the code lies."""

_ELSEWHERE_WORDS = """
_scproxy _winapi antigravity idlelib lib2to3 msilib msvcrt nt this tkinter turtle turtledemo winreg
winsound test _msi _overlapped _tkinter
"""
_ELSEWHERE = frozenset(_ELSEWHERE_WORDS.split())
STANDARD_LIBRARY = sys.stdlib_module_names - _ELSEWHERE
"""What a mined module may import: it is there in any Python on a server."""

_MAX_SOURCE_CHARS = 1_000_000


class UnreadableModule(Exception):
    """The text does not parse; says why."""


@dataclass(eq=False)
class Piece:
    """A statement of the module, or of a class's body."""

    node: ast.stmt
    index: int

    @cached_property
    def names(self) -> Names:
        return names_of(self.node)

    @cached_property
    def operators(self) -> frozenset[str]:
        return operators_of(self.node)

    @cached_property
    def hard_imports(self) -> tuple[ast.Import | ast.ImportFrom, ...]:
        """Imports without which it does not run."""
        return tuple(unguarded_imports(self.node))

    @cached_property
    def imports_star(self) -> bool:
        return any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(self.node))

    @property
    def binds(self) -> frozenset[str]:
        """`names.binds`, cheaper."""
        if isinstance(self.node, (*DEFINITIONS, ast.ClassDef)):
            return frozenset((self.node.name,))
        return self.names.binds

    @property
    def mutates(self) -> frozenset[str]:
        """`names.mutates`, cheaper."""
        return frozenset() if isinstance(self.node, (*DEFINITIONS, ast.ClassDef)) else self.names.mutates

    @property
    def first_line(self) -> int:
        """Counted from one, decorators included."""
        decorators: list[ast.expr] = getattr(self.node, "decorator_list", [])
        return min([self.node.lineno, *(each.lineno for each in decorators)])

    @property
    def last_line(self) -> int:
        assert self.node.end_lineno is not None
        return self.node.end_lineno


@dataclass(eq=False)
class ClassPieces:
    """A class in pieces: `header` stands for its bases and decorators."""

    node: ast.ClassDef
    header: Piece
    members: tuple[Piece, ...]

    @cached_property
    def by_node(self) -> Mapping[ast.AST, Piece]:
        return {member.node: member for member in self.members}

    @cached_property
    def is_abstract(self) -> bool:
        decorators = (each for member in self.members for each in getattr(member.node, "decorator_list", []))
        return any("abstract" in ast.unparse(each) for each in decorators)

    @cached_property
    def members_by_name(self) -> Mapping[str, tuple[Piece, ...]]:
        found: dict[str, tuple[Piece, ...]] = {}
        for member in self.members:
            for name in sorted(member.binds):
                found[name] = (*found.get(name, ()), member)
        return found


@dataclass(eq=False)
class ModuleMap:
    """A parsed module. `path` places it in its package."""

    path: str
    source: str
    lines: tuple[str, ...]
    tree: ast.Module
    pieces: tuple[Piece, ...]
    _classes: dict[int, ClassPieces] = field(default_factory=dict)
    attributes_set: dict[Piece, frozenset[str]] = field(default_factory=dict)
    """Names that a class's methods set on their objects, as far as somebody asked."""
    first_effects: dict[Piece, tuple[SkipReason, str] | None] = field(default_factory=dict)
    """What pieces do besides computing, as far as somebody asked."""

    @cached_property
    def by_name(self) -> Mapping[str, tuple[Piece, ...]]:
        """The statements that bind a name or change its object."""
        found: dict[str, tuple[Piece, ...]] = {}
        for piece in self.pieces:
            for name in sorted(piece.binds | piece.mutates):
                found[name] = (*found.get(name, ()), piece)
        return found

    @cached_property
    def by_node(self) -> Mapping[ast.AST, Piece]:
        return {piece.node: piece for piece in self.pieces}

    @cached_property
    def origins(self) -> Mapping[str, str]:
        """What names of the module's imports stand for: `{"join": "os.path.join"}`."""
        return {name: self._absolute(origin) for name, origin in origins_of(self.tree.body).items()}

    def _absolute(self, origin: str) -> str:
        """`..utils.f` of a package of the standard library by its full name."""
        level = len(origin) - len(origin.lstrip("."))
        return absolute_module(self.path, origin[level:], level) or origin if level else origin

    def class_pieces(self, piece: Piece) -> ClassPieces:
        assert isinstance(piece.node, ast.ClassDef)
        found = self._classes.get(piece.index)
        if found is None:
            found = self._classes[piece.index] = _cut_class(piece.node, piece.index)
        return found

    @cached_property
    def future_imports(self) -> tuple[ast.ImportFrom, ...]:
        return tuple(
            node for node in self.tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"
        )

    @property
    def has_lazy_annotations(self) -> bool:
        return any(alias.name == "annotations" for node in self.future_imports for alias in node.names)


def parse_module(path: str, text: str) -> ModuleMap:
    """A module's text in pieces. Nothing is run.

    Raises UnreadableModule.
    """
    if len(text) > _MAX_SOURCE_CHARS:
        raise UnreadableModule("larger than 1 MB")
    source = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    try:
        tree = ast.parse(source)
        compile(tree, "focal", "exec", dont_inherit=True)  # Such as `return` outside of a function.
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UnreadableModule(f"{type(error).__name__}: {error}") from None
    pieces = tuple(Piece(node, index) for index, node in enumerate(tree.body))
    return ModuleMap(path, source, tuple(source.split("\n")), tree, pieces)


def origins_of(statements: list[ast.stmt]) -> dict[str, str]:
    """Names that import statements bind anywhere in `statements`, but for bodies of functions, and their origins."""
    origins: dict[str, str] = {}
    waiting: list[ast.AST] = list(reversed(statements))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                origins[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                origins[alias.asname or alias.name] = "." * node.level + f"{node.module or ''}.{alias.name}".lstrip(".")
        elif not isinstance(node, (*DEFINITIONS, ast.ClassDef)):
            waiting += reversed(
                [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.ExceptHandler)]
            )
    return origins


def absolute_module(path: str, module: str | None, level: int) -> str | None:
    """What a relative import in the file at `path` names, if its package is of the standard library; else None."""
    package = list(PurePosixPath(path).parts[:-1])
    if level > len(package) or not package or package[0] not in STANDARD_LIBRARY:
        return None
    return ".".join([*package[: len(package) - level + 1], *([module] if module else [])])


def functions_of(tree: ast.Module) -> Iterator[tuple[Definition, tuple[ast.AST, ...]]]:
    """Every function of a module with what it stands in, the module's own statement first; in order of their lines."""
    waiting: list[tuple[ast.AST, tuple[ast.AST, ...]]] = [(node, ()) for node in reversed(tree.body)]
    while waiting:
        node, around = waiting.pop()
        if isinstance(node, DEFINITIONS):
            yield node, around
        within = (*around, node) if isinstance(node, ast.stmt) else around
        waiting += [
            (child, within) for child in reversed(list(ast.iter_child_nodes(node))) if not isinstance(child, ast.expr)
        ]


def _cut_class(node: ast.ClassDef, index: int) -> ClassPieces:
    header = ast.ClassDef(node.name, node.bases, node.keywords, [ast.Pass()], node.decorator_list)
    ast.copy_location(header, node)
    return ClassPieces(node, Piece(header, index), tuple(Piece(each, at) for at, each in enumerate(node.body)))
