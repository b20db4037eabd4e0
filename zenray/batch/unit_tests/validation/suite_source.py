"""Kept tests as the text of test modules: their imports at the top, once, and every test under its own name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from zenray.batch.unit_tests.model import CandidateTest


def join_tests(tests: Iterable[CandidateTest], module: str, import_name: str) -> tuple[str, ...]:
    """Texts of modules that together hold `tests`, which test what `module` offers as `import_name`.

    Tests share a module unless their imports give one name two meanings: nothing may change what a test says. Where
    two tests have one name, the later gets a number.
    """
    modules: list[_Module] = []
    for test in tests:
        parts = _Parts.of(test, import_name)
        for each in modules:
            if parts.fits(each):
                each.add(parts)
                break
        else:
            modules.append(_Module.of(parts))
    return tuple(each.text(f"from {module} import {import_name}") for each in modules)


@dataclass(frozen=True, slots=True)
class _Parts:
    """A test taken apart. `meanings` tells what each name that it imports stands for."""

    name: str
    function: str
    imports: tuple[str, ...]
    meanings: dict[str, str]
    shares: bool

    @classmethod
    def of(cls, test: CandidateTest, import_name: str) -> _Parts:
        """`shares` is False for a test that must be alone: it imports who knows what, two things under one name, or
        another thing under the name of what it tests."""
        imports: list[str] = []
        meanings = {import_name: "focal"}
        shares = True
        source = test.source.replace("\r\n", "\n").replace("\r", "\n")  # As Python counts lines.
        function = source
        for node in ast.parse(source).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                imports.append(ast.unparse(node))
                for name, meaning in _meanings(node):
                    shares &= name != "*" and meanings.setdefault(name, meaning) == meaning
            elif isinstance(node, ast.FunctionDef):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                function = "\n".join(source.split("\n")[first - 1 : node.end_lineno])
        return cls(test.name, function, tuple(imports), meanings, shares)

    def fits(self, module: _Module) -> bool:
        """Whether no name would get a second meaning."""
        mine, theirs = self.meanings, module.meanings
        return self.shares and module.shares and all(theirs.get(name, what) == what for name, what in mine.items())


@dataclass(slots=True)
class _Module:
    shares: bool
    meanings: dict[str, str] = field(default_factory=dict)
    imports: dict[str, None] = field(default_factory=dict)  # A set that keeps its order.
    functions: dict[str, str] = field(default_factory=dict)  # By name.

    @classmethod
    def of(cls, parts: _Parts) -> _Module:
        module = cls(parts.shares)
        module.add(parts)
        return module

    def add(self, parts: _Parts) -> None:
        self.meanings |= parts.meanings
        self.imports |= dict.fromkeys(parts.imports)
        name, number = parts.name, 1
        while name in self.functions:
            number += 1
            name = f"{parts.name}_{number}"
        self.functions[name] = re.sub(rf"\bdef\s+{re.escape(parts.name)}\b", f"def {name}", parts.function, count=1)

    def text(self, focal: str) -> str:
        future = [line for line in self.imports if line.startswith("from __future__ ")]
        others = sorted((line for line in self.imports if line not in future), key=_import_order)
        if self.shares:
            heads = [future, others, [focal]]
        else:  # As it was validated: what the test imports wins.
            heads = [future, [focal], [line for line in self.imports if line not in future]]
        head = "\n\n".join("\n".join(lines) for lines in heads if lines)
        return "\n\n\n".join([head, *(text.strip("\n") for text in self.functions.values())]) + "\n"


def _meanings(node: ast.Import | ast.ImportFrom) -> list[tuple[str, str]]:
    """The names that a statement binds, each with what it stands for."""
    if isinstance(node, ast.ImportFrom):
        source = "." * node.level + (node.module or "")
        return [(alias.asname or alias.name, f"{source}:{alias.name}") for alias in node.names]
    return [
        (alias.asname, alias.name) if alias.asname else (alias.name.split(".")[0],) * 2  # `import os.path` binds os.
        for alias in node.names
    ]


def _import_order(line: str) -> tuple[bool, str]:
    """`import x` before `from x import y`, each by name."""
    return line.startswith("from "), line
