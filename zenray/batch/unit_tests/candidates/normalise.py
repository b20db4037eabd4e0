"""When two pieces of code are the same: comments, layout, docstrings and names of locals do not count."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator


def normalised(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Equal for functions that differ only in their name, docstring, annotations, the names of their parameters and
    locals, and the order of asserts that follow each other."""
    renamed = {name: f"_{index}" for index, name in enumerate(_local_names(function))}
    parts = [_render(statement, renamed) for statement in without_docstring(function.body)]
    return "\n".join(["|".join(_parameters(function.args)), *_sorted_asserts(parts)])


def without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    is_docstring = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    return body[1:] if is_docstring else body


def _parameters(args: ast.arguments) -> Iterator[str]:
    """Kinds and defaults, in order."""
    yield f"{len(args.posonlyargs)},{len(args.args)},{len(args.kwonlyargs)},{args.vararg is None},{args.kwarg is None}"
    yield from ("" if default is None else ast.dump(default) for default in (*args.defaults, *args.kw_defaults))


def _sorted_asserts(parts: Iterable[str]) -> list[str]:
    """`parts` with each run of asserts in one order."""
    done: list[str] = []
    run: list[str] = []
    for part in parts:
        if part.startswith("Assert("):
            run.append(part)
        else:
            done += [*sorted(run), part]
            run = []
    return [*done, *sorted(run)]


def _local_names(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Names bound in a function, by where they first stand; those of nested scopes too, which is enough to compare."""
    names: dict[str, None] = {}
    shared: set[str] = set()
    for node in _in_order(function):
        if isinstance(node, ast.arg):
            names.setdefault(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            names.setdefault(node.id)
        elif isinstance(node, ast.ExceptHandler):
            names.setdefault(node.name or "_")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node is not function:
            names.setdefault(node.name)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            shared.update(node.names)
    return [name for name in names if name not in shared]


def _in_order(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below in the order of the text. Deep trees do not exhaust the stack."""
    stack = [node]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(reversed(list(ast.iter_child_nodes(current))))


def _render(value: object, renamed: dict[str, str]) -> str:
    """As `ast.dump`, with locals renamed and annotations left out."""
    if isinstance(value, list):
        return "[" + ",".join(_render(item, renamed) for item in value) + "]"
    if not isinstance(value, ast.AST):
        return repr(value)
    fields = []
    for field, item in ast.iter_fields(value):
        if field in ("annotation", "returns", "type_comment", "ctx", "kind"):
            continue
        is_name = field in ("id", "arg", "name") and not isinstance(value, ast.keyword | ast.alias)
        shown = renamed.get(item, item) if is_name and isinstance(item, str) else item
        if field == "body" and isinstance(value, ast.FunctionDef | ast.AsyncFunctionDef) and isinstance(item, list):
            shown = without_docstring(item)
        fields.append(f"{field}={_render(shown, renamed)}")
    return f"{type(value).__name__}({','.join(fields)})"
