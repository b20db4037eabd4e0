"""Calls to a function that another open file defines, under names no model has seen.

In an installed package, module B imports a function from module A, calls it once, and gives an argument by keyword.
Function and parameters get a seeded word into their names, in both files alike, so that the keywords cannot be known
without A, which is open beside two other files of the package. Missing is the call's argument list, or the rest of
its line.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from zenray.bench.infilling_gap import Gap
from zenray.context.surroundings import Document

PACKAGES = ("torch", "ray", "pydantic", "huggingface_hub", "fastapi", "networkx", "rich", "typer")
"""Those zenray itself needs, so they are there and constraints.txt says which version."""

_WORDS = ("outer", "given", "wanted", "first", "own", "base", "spare", "inner", "prior", "final", "known", "early")
_LARGEST_FILE_CHARACTERS = 60_000
_ARGUMENTS_CHARACTERS = (8, 80)
_NUM_OTHER_FILES = 2


@dataclass(frozen=True, slots=True)
class _Replacement:
    """Characters of one line of a file, by line from 1 and column from 0, and what takes their place."""

    line: int
    column: int
    old: str
    new: str


def cross_file_gaps(rng: random.Random) -> Iterator[Gap]:
    """Gaps of every package in turn, at most one per function."""
    makers = [_of_package(folder, random.Random(rng.random())) for name in PACKAGES if (folder := package_folder(name))]
    while makers:
        for maker in tuple(makers):
            gap = next(maker, None)
            if gap is None:
                makers.remove(maker)
            else:
                yield gap


def package_folder(name: str) -> Path | None:
    """Where an installed package's sources lie; None where it is missing."""
    spec = find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def _of_package(folder: Path, rng: random.Random) -> Iterator[Gap]:
    paths = sorted(folder.rglob("*.py"))
    rng.shuffle(paths)
    used: set[tuple[Path, str]] = set()
    imports_own = re.compile(rf"^from (?:\.|{folder.name}\b)", re.MULTILINE)
    for path in paths:
        text = _read(path)
        tree = _parsed(text) if text is not None and imports_own.search(text) else None
        if text is None or tree is None:
            continue
        for call, definition_path in _imported_calls(path, tree, folder):
            assert isinstance(call.func, ast.Name)
            if (definition_path, call.func.id) in used:
                continue
            gap = _gap(folder.parent, path, text, call, definition_path, rng)
            if gap is not None:
                used.add((definition_path, call.func.id))
                yield gap


def _imported_calls(path: Path, tree: ast.Module, folder: Path) -> Iterator[tuple[ast.Call, Path]]:
    """The only call of an imported function, where it gives something by keyword on one line, and the file imported
    from."""
    sources: dict[str, Path] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (source := _module_path(path, node, folder)) not in (None, path):
            assert source is not None
            sources |= {alias.name: source for alias in node.names if alias.asname is None}
    named: dict[str, int] = {}
    calls: dict[str, ast.Call] = {}
    for inner in ast.walk(tree):
        if isinstance(inner, ast.Name) and inner.id in sources:
            named[inner.id] = named.get(inner.id, 0) + 1
        elif isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id in sources:
            calls[inner.func.id] = inner
    for name, call in calls.items():
        if named[name] == 1 and call.lineno == call.end_lineno and any(keyword.arg for keyword in call.keywords):
            yield call, sources[name]


def _module_path(path: Path, node: ast.ImportFrom, folder: Path) -> Path | None:
    """The file a `from ... import` of the package's own names."""
    names = node.module.split(".") if node.module else []
    if node.level:
        base = path.parents[node.level - 1]
    elif names and names[0] == folder.name:
        base = folder.parent
    else:
        return None
    module = base.joinpath(*names)
    return next((found for found in (module.with_suffix(".py"), module / "__init__.py") if found.is_file()), None)


def _gap(root: Path, path: Path, text: str, call: ast.Call, definition_path: Path, rng: random.Random) -> Gap | None:
    """The gap of one call, or None where it does not fit or its names cannot be changed safely."""
    defining = _read(definition_path)
    tree = _parsed(defining) if defining is not None else None
    if defining is None or tree is None:
        return None
    assert isinstance(call.func, ast.Name) and call.end_col_offset is not None
    function = _plain_function(tree, call.func.id)
    if function is None:
        return None
    names = _new_names(function, rng)
    if not any(keyword.arg in names for keyword in call.keywords) or any(new in text for new in names.values()):
        return None
    other = _rename_definition(defining, function, names)
    caller = _rename_call(text, call, names)
    if other is None or caller is None:
        return None
    lines = caller.splitlines(keepends=True)
    opening = lines[call.lineno - 1].index(f"{names[function.name]}(") + len(names[function.name]) + 1
    code = lines[call.lineno - 1].rstrip("\n")
    shift = len(code) - len(text.splitlines()[call.lineno - 1])
    end = len(code) if rng.random() < 0.5 else call.end_col_offset + shift - 1
    missing = code[opening:end]
    if not _ARGUMENTS_CHARACTERS[0] <= len(missing) <= _ARGUMENTS_CHARACTERS[1] or set("\\#") & set(missing):
        return None
    before = "".join(lines[: call.lineno - 1]) + code[:opening]
    open_files = [Document(definition_path.relative_to(root).as_posix(), "python", other)]
    open_files += _other_files(root, path, definition_path, rng)
    rng.shuffle(open_files)
    name = path.relative_to(root).as_posix()
    return Gap(
        "cross-file",
        f"{name}:{call.lineno}",
        name,
        before,
        missing,
        caller[len(before) + len(missing) :],
        documents=tuple(open_files),
        definition=f"def {names[function.name]}(",
    )


def _plain_function(tree: ast.Module, name: str) -> ast.FunctionDef | None:
    """The one function of that name, if nothing in it binds its parameters' names again."""
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    if len(found) != 1 or found[0].decorator_list:
        return None
    bound = [argument.arg for argument in ast.walk(found[0]) if isinstance(argument, ast.arg)]
    declared = any(isinstance(node, ast.Global | ast.Nonlocal) for node in ast.walk(found[0]))
    return found[0] if len(bound) == len(set(bound)) and not declared else None


def _new_names(function: ast.FunctionDef, rng: random.Random) -> dict[str, str]:
    """New names by old: of the function and of what it can be given by keyword."""
    parameters = [*function.args.args, *function.args.kwonlyargs]
    return {name: f"{rng.choice(_WORDS)}_{name.lstrip('_')}" for name in (function.name, *(a.arg for a in parameters))}


def _rename_definition(text: str, function: ast.FunctionDef, names: dict[str, str]) -> str | None:
    replacements = [
        _Replacement(function.lineno, function.col_offset + len("def "), function.name, names[function.name])
    ]
    parameters = names.keys() - {function.name}
    docstring = function.body[0] if ast.get_docstring(function) is not None else None
    for node in ast.walk(function):
        if isinstance(node, ast.arg) and node.arg in parameters:
            replacements.append(_Replacement(node.lineno, node.col_offset, node.arg, names[node.arg]))
        elif isinstance(node, ast.Name) and node.id in parameters:
            replacements.append(_Replacement(node.lineno, node.col_offset, node.id, names[node.id]))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name) and node.id == function.name:
            replacements.append(_Replacement(node.lineno, node.col_offset, node.id, names[node.id]))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function.name:
            replacements += _keywords(node, names)
    lines = text.splitlines(keepends=True)
    if docstring is not None:
        assert docstring.end_lineno is not None
        for at in range(docstring.lineno - 1, docstring.end_lineno):
            lines[at] = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), lines[at])
    return _replaced(lines, replacements)


def _rename_call(text: str, call: ast.Call, names: dict[str, str]) -> str | None:
    assert isinstance(call.func, ast.Name)
    name = call.func.id
    replacements = [_Replacement(call.func.lineno, call.func.col_offset, name, names[name]), *_keywords(call, names)]
    replacements += [
        _Replacement(node.lineno, node.col_offset, name, names[name])
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.alias) and node.name == name
    ]
    return _replaced(text.splitlines(keepends=True), replacements)


def _keywords(call: ast.Call, names: dict[str, str]) -> list[_Replacement]:
    return [
        _Replacement(keyword.lineno, keyword.col_offset, keyword.arg, names[keyword.arg])
        for keyword in call.keywords
        if keyword.arg in names
    ]


def _replaced(lines: list[str], replacements: list[_Replacement]) -> str | None:
    """The text with all replacements, or None where it is not what the positions say or is no Python any more."""
    for change in sorted(set(replacements), key=lambda change: (change.line, change.column), reverse=True):
        line = lines[change.line - 1]
        end = change.column + len(change.old)
        if line[change.column : end] != change.old:
            return None
        lines[change.line - 1] = line[: change.column] + change.new + line[end:]
    text = "".join(lines)
    return None if _parsed(text) is None else text


def _other_files(root: Path, path: Path, definition_path: Path, rng: random.Random) -> list[Document]:
    """Neighbours of the calling file, which have nothing to do with the call."""
    neighbours = [other for other in sorted(path.parent.glob("*.py")) if other not in (path, definition_path)]
    rng.shuffle(neighbours)
    read = ((other, _read(other)) for other in neighbours)
    documents = [Document(other.relative_to(root).as_posix(), "python", text) for other, text in read if text]
    return documents[:_NUM_OTHER_FILES]


def _read(path: Path) -> str | None:
    """The text of a file plain enough that columns are characters; None for others."""
    if path.stat().st_size > _LARGEST_FILE_CHARACTERS:
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    return text if text.isascii() and not set("\t\f\r") & set(text) else None


def _parsed(text: str) -> ast.Module | None:
    """The text as Python; None where it is none."""
    try:
        return ast.parse(text)
    except SyntaxError:
        return None
