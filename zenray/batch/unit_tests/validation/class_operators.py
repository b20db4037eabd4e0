"""Which special methods Python may call for an operator, a statement or a builtin.

The Python Language Reference, section 3.3, turned around.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

_ARITHMETIC: dict[type[ast.AST], str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.MatMult: "matmul", ast.Div: "truediv",
    ast.FloorDiv: "floordiv", ast.Mod: "mod", ast.Pow: "pow", ast.LShift: "lshift", ast.RShift: "rshift",
    ast.BitOr: "or", ast.BitXor: "xor", ast.BitAnd: "and",
}  # fmt: skip
_ITERATION = ("iter", "next", "getitem", "len")
_ORDER = ("lt", "le", "gt", "ge")
_TRUTH = ("bool", "len")
_NODES: dict[type[ast.AST], tuple[str, ...]] = {
    **{node: (name, f"r{name}", f"i{name}") for node, name in _ARITHMETIC.items()},
    **dict.fromkeys((ast.Lt, ast.LtE, ast.Gt, ast.GtE), _ORDER),
    **dict.fromkeys((ast.Eq, ast.NotEq), ("eq", "ne")),
    **dict.fromkeys((ast.In, ast.NotIn), ("contains", *_ITERATION)),
    **dict.fromkeys((ast.For, ast.comprehension, ast.Starred, ast.YieldFrom), _ITERATION),
    **dict.fromkeys((ast.If, ast.IfExp, ast.While, ast.BoolOp, ast.Not, ast.Assert), _TRUTH),
    ast.Subscript: ("getitem", "setitem", "delitem", "missing"),
    ast.With: ("enter", "exit"),
    ast.Call: ("call",),
    ast.USub: ("neg",),
    ast.UAdd: ("pos",),
    ast.Invert: ("invert",),
    ast.FormattedValue: ("str", "repr", "format"),
}
_BUILTINS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ["list", "tuple", "enumerate", "zip", "map", "filter", "any", "all", "iter", "next", "dict"], _ITERATION
    ),
    **dict.fromkeys(["sorted", "min", "max"], (*_ITERATION, *_ORDER)),
    **dict.fromkeys(["str", "repr", "format", "print"], ("str", "repr", "format")),
    **dict.fromkeys(["int", "float", "complex", "index", "range"], ("int", "float", "complex", "index", "trunc")),
    "sum": (*_ITERATION, "add", "radd"),
    "len": ("len",),
    "bool": _TRUTH,
    "reversed": ("reversed", "len", "getitem"),
    "abs": ("abs",),
    "round": ("round",),
    "divmod": ("divmod", "rdivmod"),
    "pow": ("pow", "rpow"),
    "bytes": ("bytes", *_ITERATION),
    "isinstance": ("instancecheck",),
    "issubclass": ("subclasscheck", "subclasshook"),
}
_OF_MODULES: dict[str, tuple[str, ...]] = {
    "copy": ("copy", "deepcopy", "reduce", "reduce_ex", "getstate", "setstate"),
    "deepcopy": ("copy", "deepcopy", "reduce", "reduce_ex", "getstate", "setstate"),
    "index": ("index",),
    "total_ordering": _ORDER,
}
"""Of functions such as `copy.copy`, by their last name."""


def operators_of(node: ast.AST) -> frozenset[str]:
    """Names of special methods, such as `__add__`, that the code in `node` may call without naming them."""
    found: set[str] = set()
    for each in ast.walk(node):
        found.update(_NODES.get(type(each), ()))
        if isinstance(each, ast.Name):
            found.update(_BUILTINS.get(each.id, ()))
            found.update(_OF_MODULES.get(each.id, ()))
        elif isinstance(each, ast.Attribute):
            found.update(_OF_MODULES.get(each.attr, ()))
            if each.attr == "format":
                found.update(("str", "repr", "format"))
        elif isinstance(each, ast.BinOp) and isinstance(each.op, ast.Mod):
            found.update(("str", "repr"))  # It may format a string.
    return special(found)


def special(names: Iterable[str]) -> frozenset[str]:
    return frozenset(f"__{name}__" for name in names)
