"""A mined function comes with the smallest module in which it runs alone."""

from __future__ import annotations

import ast
import builtins
import dis
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from types import CodeType

import pytest

from zenray.batch.inputs.document import SourceDocument
from zenray.batch.unit_tests.mining.mine import Mined, MiningSettings, mine_functions
from zenray.batch.unit_tests.mining.module_slice import SliceLimits
from zenray.batch.unit_tests.model import MinedFunction, SkipReason


def mine(source: str, path: str = "shop/prices.py", settings: MiningSettings | None = None) -> Mined:
    return mine_functions([SourceDocument(path, dedent(source), "shop", "r1", "LICENSE")], settings)


def mined(source: str, name: str) -> MinedFunction:
    found = mine(source)
    named = [each for each in found.functions if each.qualified_name == name]
    assert named, found.skipped
    return named[0]


def refusal(source: str, name: str, path: str = "shop/prices.py") -> tuple[SkipReason, str]:
    found = mine(source, path)
    assert name not in [each.qualified_name for each in found.functions]
    return next((each.reason, each.detail) for each in found.skipped if each.qualified_name == name)


def unbound_names(source: str) -> set[str]:
    """Global names that the compiled module loads and never binds; read off its byte code."""
    module = compile(source, "focal", "exec", dont_inherit=True)
    bound = {*dir(builtins), "__name__", "__doc__", "__debug__", "__annotations__", "__builtins__", "__package__"}
    bound |= {each.argval for each in dis.get_instructions(module) if each.opname in ("STORE_NAME", "STORE_GLOBAL")}
    bound |= {
        e.argval for code in _code_objects(module) for e in dis.get_instructions(code) if e.opname == "STORE_GLOBAL"
    }
    loaded = set()
    for code in _code_objects(module):
        own = {each.argval for each in dis.get_instructions(code) if each.opname == "STORE_NAME"}
        for each in dis.get_instructions(code):
            if each.opname == "LOAD_GLOBAL" or (each.opname == "LOAD_NAME" and each.argval not in own):
                loaded.add(each.argval)
    return loaded - bound - {"__module__", "__qualname__"}


def _code_objects(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code_objects(constant)


MODULE = '''
    """Prices."""
    import json, os, re
    from decimal import Decimal
    import requests

    RATE = 0.2
    RATES = {"a": 1}
    RATES["b"] = RATE
    UNUSED = requests.get

    def _round(value):
        return int(value * SCALE + 0.5) / SCALE

    SCALE = 100

    def unrelated(x):
        return [requests.get(x + "a", timeout=3 + y) for y in UNUSED if y > 2]

    def gross(net, kind="a"):
        """Net plus tax."""
        if not re.match("[a-z]", kind):
            raise ValueError(kind)
        return _round(net * (1 + RATES[kind]))
'''


def test_a_function_brings_what_it_reaches_and_nothing_else() -> None:
    function = mined(MODULE, "gross")

    assert function.module_source.split("\n") == dedent('''\
        import re

        RATE = 0.2
        RATES = {"a": 1}
        RATES["b"] = RATE


        def _round(value):
            return int(value * SCALE + 0.5) / SCALE


        SCALE = 100


        def gross(net, kind="a"):
            """Net plus tax."""
            if not re.match("[a-z]", kind):
                raise ValueError(kind)
            return _round(net * (1 + RATES[kind]))
        ''').split("\n")
    assert (function.signature, function.docstring) == ("gross(net, kind='a')", "Net plus tax.")
    assert function.imports == ("import re",)
    assert (function.import_name, function.call_name) == ("gross", "gross")
    assert function.source.startswith("def gross(net") and function.source.endswith("[kind]))\n")
    assert (function.provenance.start_line, function.provenance.end_line) == (20, 24)
    assert function.provenance.licence_file == "LICENSE"


def test_not_a_character_of_what_is_kept_changes() -> None:
    source = 'TABLE = """a  \n\n\f b\t\n"""\nclass E(Exception): code = TABLE; level = 3\n'
    source += "def f(a):\n    if a > 2: b = a; a = E.code  \n    else: raise E(a + 1)\n    return [a, b * 2]\n"
    (function,) = mine_functions([SourceDocument("m.py", source, "r", "")]).functions
    assert function.module_source.replace("\n\n\n", "\n") == source.replace("\n\n\n", "\n")


def test_third_party_code_is_too_much_to_depend_on() -> None:
    assert refusal(MODULE, "unrelated") == (SkipReason.TOO_DEPENDENT, "imports requests")


def test_what_shadows_a_global_name_needs_no_global() -> None:
    function = mined(
        """
        import numpy as total

        def add(values, total=0):
            for rate in values:
                total += rate if rate > 0 else -rate
            return [total for total in range(total)], lambda numpy: numpy + total
        """,
        "add",
    )
    assert "import" not in function.module_source


def test_a_class_keeps_what_its_method_needs() -> None:
    function = mined(
        '''
        import os
        from functools import total_ordering

        class Shape:
            """A shape."""
            sides: int = 4
            __slots__ = ("edge",)

            def __init__(self, edge):
                self.edge = check(edge)

            def __add__(self, other):
                return Shape(self.edge + other.edge)

            __radd__ = __add__

            def save(self):
                os.remove(self.path)

            @property
            def half(self):
                return self.edge / 2

            @half.setter
            def half(self, value):
                self.edge = value * 2

            def area(self, scale=1):
                total = 0
                for _ in range(self.sides):
                    total += self.half * self.edge * scale / self.sides
                return total

        def check(edge):
            if edge < 0:
                raise ValueError(edge)
            return edge
        ''',
        "Shape.area",
    )

    assert (function.import_name, function.call_name) == ("Shape", "Shape.area")
    kept = {node.name for node in ast.walk(ast.parse(function.module_source)) if isinstance(node, ast.FunctionDef)}
    assert kept == {"__init__", "half", "area", "check", "__add__"}
    assert function.module_source.count("def half") == 2
    assert "__slots__" in function.module_source and "os" not in function.imports
    assert function.source.startswith("def area(self, scale=1):\n    total = 0\n")
    assert "def __init__(self, edge):" in function.class_context and "def area" in function.class_context


def test_annotations_that_name_the_unreachable_are_left_unread() -> None:
    function = mined(
        """
        from typing import Sequence
        from .types import Price
        if TYPE_CHECKING:
            from .types import Tax

        def total(prices: Sequence[Price], tax: "Tax" = 0) -> Price:
            result: Price = 0
            for price in prices:
                result += price * (1 + tax)
            return result
        """,
        "total",
    )
    assert function.module_source.startswith("from __future__ import annotations\nfrom typing import Sequence\n")
    assert unbound_names(function.module_source) == set()


def test_a_faster_twin_does_not_hide_the_function() -> None:
    function = mined(
        """
        def insort(a, x):
            lo = 0
            while lo < len(a) and a[lo] < x:
                lo += 1
            a.insert(lo, x)

        try:
            from _bisect import insort
        except ImportError:
            pass
        """,
        "insort",
    )
    assert "_bisect" not in function.module_source


def test_a_guarded_import_of_a_third_party_is_kept_with_its_guard() -> None:
    function = mined(
        """
        try:
            import numpy
        except ImportError:
            numpy = None

        def mean(values):
            if numpy is not None:
                return numpy.mean(values)
            return sum(values) / len(values)
        """,
        "mean",
    )
    assert "except ImportError:\n    numpy = None" in function.module_source


def test_relative_imports_of_the_standard_library_become_absolute() -> None:
    source = """
        from . import errors
        from .charset import Charset as Set

        def encode(text, charset=None):
            if not isinstance(charset, Set) or len(text) > 3:
                raise errors.CharsetError(text + "!")
            return text * 2
        """
    found = mine(source, "email/encoding.py")
    assert found.functions[0].imports == ("from email import errors", "from email.charset import Charset as Set")
    assert refusal(source, "encode", "shop/encoding.py")[0] is SkipReason.TOO_DEPENDENT


@pytest.mark.parametrize(
    ("source", "detail"),
    [
        ("from x import *\ndef f(a, b):\n    return helper(a + b) * a[b] - 1\n", "needs helper"),
        ("from .near import helper\ndef f(a, b):\n    return helper(a + b) * a[b] - 1\n", "imports .near"),
        ("def f(a, b):\n    return a + b * a[0] - len(b)\nf = g = print\n", "f is bound more than once"),
        ("x = y\ny = 1\ndef f(a):\n    return a * x + a[x] - len(a)\n", "needs y before it is bound"),
        ("def f(a):\n    return a * len(__file__) + a[0] - 1\n", "needs __file__"),
    ],
)
def test_what_cannot_stand_alone_says_why(source: str, detail: str) -> None:
    reason, said = refusal(source, "f")
    assert reason is SkipReason.TOO_DEPENDENT
    assert detail in said


def test_needs_are_bounded() -> None:
    chain = "".join(f"def f{n}(a):\n    return f{n + 1}(a + 1) * a[0] - len(a)\n" for n in range(30))
    source = chain + "def f30(a):\n    return a\n"
    few = MiningSettings(slice_limits=SliceLimits(max_lines=200, max_definitions=4))
    kept = mine(source, settings=few)
    assert [each.qualified_name for each in kept.functions] == ["f26", "f27", "f28", "f29"]
    assert sum(each.reason is SkipReason.TOO_DEPENDENT for each in kept.skipped) == 26


def test_mined_modules_of_the_standard_library_bind_all_their_names() -> None:
    folder = Path(sysconfig.get_path("stdlib"))
    names = (
        "base64 bisect calendar cgi colorsys configparser difflib email/utils email/_header_value_parser fnmatch heapq "
        "html/__init__ http/cookies ipaddress json/decoder optparse posixpath shlex statistics string textwrap "
        "tomllib/_parser urllib/parse xml/dom/minidom"
    )
    paths = [f"{name}.py" for name in names.split()]
    documents = [
        SourceDocument(path, (folder / path).read_text(), "cpython", "") for path in paths if (folder / path).exists()
    ]
    found = mine_functions(documents)

    assert len(found.functions) > 200
    unbound = {each.qualified_name: unbound_names(each.module_source) for each in found.functions}
    assert {name: names for name, names in unbound.items() if names} == {}
    for each in found.functions:
        assert each.source.strip() and each.signature
        assert len(each.module_source.splitlines()) < 400


def test_mining_is_the_same_under_every_hash_seed() -> None:
    """Details of refusals too: they stand in reports, which must not differ between two runs of a job."""
    program = """
import hashlib, pathlib, sysconfig
from zenray.batch.inputs.document import SourceDocument
from zenray.batch.unit_tests.mining.mine import mine_functions
folder = pathlib.Path(sysconfig.get_path("stdlib"))
paths = ["calendar.py", "difflib.py", "pathlib.py", "email/message.py"]
mined = mine_functions(SourceDocument(path, (folder / path).read_text(), "r", "") for path in paths)
print(len(mined.functions), hashlib.sha256(repr(mined).encode()).hexdigest())
"""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1
    assert int(outputs.pop().split()[0]) > 50
