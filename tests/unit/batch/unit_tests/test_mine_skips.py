"""Every function that is left out is left out for a reason."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.batch.inputs.document import SourceDocument
from zenray.batch.unit_tests.mining.mine import mine_functions
from zenray.batch.unit_tests.mining.skip_rules import is_test_path
from zenray.batch.unit_tests.model import SkipReason


def reasons(source: str, path: str = "pkg/module.py") -> dict[str, SkipReason]:
    return {
        each.qualified_name: each.reason for each in mine_functions([SourceDocument(path, source, "r", "")]).skipped
    }


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def f(a):\n    return a", SkipReason.TRIVIAL),
        ("def f(a):\n    raise NotImplementedError", SkipReason.TRIVIAL),
        ("def f():\n    return [a * 2 + 1 for a in range(9) if a > 3]", SkipReason.TRIVIAL),
        ("def f(a):\n" + "    a = a + len(a) - a[0]\n" * 61 + "    return a", SkipReason.TOO_LONG),
        ("def f(a):\n    b = a + 1\n    c = b * len(a) - a[0]\n    del c", SkipReason.NO_RESULT),
        ("import random\ndef f(a):\n    return a[random.randrange(len(a) - 1)] + 1", SkipReason.NONDETERMINISTIC),
        ("from time import time as now\ndef f(a):\n    return now() - a[0] + len(a)", SkipReason.NONDETERMINISTIC),
        ("def f(a):\n    return {id(b): b + 1 for b in a if b[0] > 2}", SkipReason.NONDETERMINISTIC),
        ("def f(a):\n    with open(a + 'x') as g:\n        return g.read()[1:] + a", SkipReason.INPUT_OUTPUT),
        ("import os\ndef f(a):\n    return [os.stat(b).st_size + 1 for b in a if b]", SkipReason.INPUT_OUTPUT),
        ("def f(a):\n    import subprocess as s\n    return s.run(a)[0] + a[1] - 1", SkipReason.INPUT_OUTPUT),
        (
            "import os\ndef g(a):\n    return os.path.exists(a)\ndef f(a):\n    return g(a + '/') or len(a) > a[0]",
            SkipReason.INPUT_OUTPUT,
        ),
        ("async def f(a):\n    return a + len(a) * a[0]", SkipReason.GENERATOR_OR_ASYNC),
        ("def test_f():\n    assert len([1]) + 1 == 2 * 1 - 0\n    return 1", SkipReason.TEST_CODE),
        ("def o(a):\n    def f(b):\n        return a + b * a[0] - 1\n    return f", SkipReason.NESTED),
        ("if True:\n    def f(a):\n        return a + a[0] * a - 1", SkipReason.NESTED),
        ("class A:\n    class B:\n        def f(self, a):\n            return a + a[0] * a - 1", SkipReason.NESTED),
        ("class A:\n    def __f(self, a):\n        return a + a[0] * a - 1", SkipReason.NESTED),
        ("class A:\n    def __add__(self, a):\n        return a + a[0] * a - 1", SkipReason.SPECIAL_METHOD),
        ("class A:\n    def f(self, a):\n        return a + self.b[a] * a - 1", SkipReason.TOO_DEPENDENT),
        ("class A:\n    def f(self, a):\n        self.b = a + a[0] * a - 1", SkipReason.NO_RESULT),
    ],
)  # fmt: skip
def test_the_reason_fits_the_function(source: str, reason: SkipReason) -> None:
    found = {name.rpartition(".")[2]: each for name, each in reasons(source).items()}
    assert found.get("f", found.get("__f", found.get("__add__", found.get("test_f")))) is reason


@pytest.mark.parametrize(
    "source",
    [
        "import os\ndef f(a, b):\n    return os.path.join(a, *b) + os.sep if a else b[0]",
        "def f(open, b):\n    return open(b) + b[0] * len(b) - 1",
        "import sys\ndef f(a):\n    return a if a < sys.maxsize else a - sys.maxsize + 1",
        "def f(a, n):\n    for at in range(0, len(a), n):\n        yield a[at : at + n]",
        "def f(a, x):\n    for at in range(len(a)):\n        a[at] = a[at] * x",
        "def f(a):\n    if a < 0 or a > 9 or a == 5:\n        raise ValueError(a)",
        "class A:\n    def __init__(s):\n        s.b = {}\n    def f(s, a):\n        return s.b[a] * a[0] - 1",
        "class A(Exception):\n    def f(self, a):\n        return a + len(self.args) * a - 1",
    ],
)
def test_what_only_looks_impure_is_kept(source: str) -> None:
    found = mine_functions([SourceDocument("m.py", source, "r", "")])
    assert [each.qualified_name.rpartition(".")[2] for each in found.functions] == ["f"], found.skipped


@pytest.mark.parametrize("path", ["tests/a.py", "pkg/test/x.py", "pkg/test_a.py", "a_test.py", "conftest.py"])
def test_files_of_tests_are_no_source_of_functions(path: str) -> None:
    assert is_test_path(path)
    assert reasons("def f(a):\n    return a + a[0] * len(a) - 1", path) == {"f": SkipReason.TEST_CODE}


@pytest.mark.parametrize("path", ["pkg/latest/x.py", "attest.py", "contest/a.py", "unittest/mock.py"])
def test_names_that_only_hold_the_word_are_none_of_them(path: str) -> None:
    assert not is_test_path(path)


@pytest.mark.parametrize(
    "source",
    [
        "def f(:",
        "x = 1\n\x00",
        "(" * 5000,
        "x = " + "-" * 20_000 + "1",
        "a" * 2_000_000,
        "def f():\n" + "".join(" " * (n + 1) + "if a:\n" for n in range(120)) + " " * 121 + "pass",
        "return 1",
        "\ud800",
    ],
)
def test_what_no_compiler_can_bear_is_one_skipped_file(source: str, capfd: pytest.CaptureFixture[str]) -> None:
    found = mine_functions([SourceDocument("bad.py", source, "r", "")])
    assert [each.reason for each in found.skipped] == [SkipReason.NO_SOURCE]
    assert capfd.readouterr() == ("", "")


def test_warnings_about_mined_code_are_not_ours(capfd: pytest.CaptureFixture[str]) -> None:
    source = "def f(a):\n    return a is 3 or '\\d' + a[0] * len(a)\n"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(mine_functions([SourceDocument("m.py", source, "r", "")]).functions) == 1
    assert caught == []
    assert capfd.readouterr().err == ""


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=" \n\t\f\r:()[]=,.@*\\\"'#abdefilnrtsx019\ufeffé\u2028", max_size=80))
def test_no_text_makes_mining_fail(text: str) -> None:
    mined = mine_functions(
        [SourceDocument("m.py", text, "r", ""), SourceDocument("n.py", f"def f(a):\n {text}", "r", "")]
    )
    assert mined.funnel["seen"] == len(mined.functions) + len(mined.skipped)


def test_generated_modules_are_left_out_whole() -> None:
    source = "".join(f"def f{number}(a):\n    return a[{number}] + a * 2 - len(a)\n" for number in range(2001))
    assert set(reasons(source).values()) == {SkipReason.TOO_LONG}


def test_the_funnel_counts_every_function_once() -> None:
    source = "def f(a):\n    return a\ndef g(a):\n    return a + len(a) * a[0]\ndef h(b):\n    return b\n"
    funnel = mine_functions([SourceDocument("m.py", source, "r", "")]).funnel
    assert funnel == {"seen": 3, "trivial": 2, "kept": 1}
