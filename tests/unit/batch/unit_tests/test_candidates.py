"""What a model writes becomes candidates: one claim each, standing alone, once."""

from __future__ import annotations

import ast
import subprocess
import sys
from textwrap import dedent

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.batch.unit_tests.focal_examples import CLAMP, SHAPE_AREA
from zenray.batch.unit_tests.candidates.collect import DUPLICATE, MAX_REJECTED_CHARACTERS, Answer, collect_tests
from zenray.batch.unit_tests.candidates.text import MAX_CHARACTERS
from zenray.batch.unit_tests.model import CandidateTest, MinedFunction, RejectedText


def collected(
    text: str, function: MinedFunction = CLAMP, is_cut: bool = False, begins_in_code: bool = True
) -> tuple[list[CandidateTest], list[RejectedText]]:
    return collect_tests(function, [Answer(dedent(text), begins_in_code, is_cut)], max_tests=50)


def bodies(text: str, function: MinedFunction = CLAMP) -> list[str]:
    """What the tests do, without imports and names."""
    tests, _ = collected(text, function)
    return [
        ast.unparse(ast.parse(test.source).body[-1]).partition("\n")[2].replace("    ", "").strip() for test in tests
    ]


def reasons(text: str, function: MinedFunction = CLAMP) -> list[str]:
    tests, rejected = collected(text, function)
    assert tests == []
    return [each.reason for each in rejected]


def test_every_claim_is_a_test_with_what_it_needs() -> None:
    assert bodies("""
        def test_clamp():
            low, high = 0, 9
            value = 12
            print(value)
            assert clamp(value, low, high) == 9
            other = clamp(-1, low, high)
            assert other == 0
            with pytest.raises(TypeError):
                clamp(None, low, high)
    """) == [
        "low, high = (0, 9)\nvalue = 12\nassert clamp(value, low, high) == 9",
        "low, high = (0, 9)\nother = clamp(-1, low, high)\nassert other == 0",
        "low, high = (0, 9)\nwith pytest.raises(TypeError):\nclamp(None, low, high)",
    ]


@pytest.mark.parametrize(
    "cases",
    [
        """
        @pytest.mark.parametrize("value, expected", [(5, 5), pytest.param(12, 9, id="above")])
        def test_clamp(value, expected):
            assert clamp(value, 0, 9) == expected
        """,
        """
        def test_clamp():
            for value, expected in [(5, 5), (12, 9)]:
                assert clamp(value, 0, 9) == expected
        """,
        """
        def test_clamp():
            cases = [(5, 5), (12, 9)]
            for value, expected in cases:
                assert clamp(value, 0, 9) == expected
        """,
        """
        def test_clamp():
            for value, expected in {5: 5, 12: 9}.items():
                assert clamp(value, 0, 9) == expected
        """,
        """
        class TestClamp(unittest.TestCase):
            def test_clamp(self):
                self.assertEqual(clamp(5, 0, 9), 5)
                with self.subTest("above"):
                    self.assertEqual(clamp(12, 0, 9), 9)
        """,
        """
        assert clamp(5, 0, 9) == 5
        assert clamp(12, 0, 9) == 9
        """,
    ],
)
def test_however_cases_are_written_each_is_a_test(cases: str) -> None:
    assert bodies(cases) == ["assert clamp(5, 0, 9) == 5", "assert clamp(12, 0, 9) == 9"]


def test_a_case_that_is_changed_is_made_anew_for_every_claim() -> None:
    text = """
        for values in [[3, 1]]:
            values.sort()
            assert clamp(values[0], 0, 2) == 1
    """
    assert bodies(f"def test_clamp():{text}") == ["values = [3, 1]\nvalues.sort()\nassert clamp(values[0], 0, 2) == 1"]


def test_asserts_outside_of_functions_see_what_stands_before_them() -> None:
    text = "x = 1\nassert clamp(x, 0, 9) == 1\nx = 12\nassert clamp(x, 0, 9) == 9\n"
    assert bodies(text) == ["x = 1\nassert clamp(x, 0, 9) == 1", "x = 12\nassert clamp(x, 0, 9) == 9"]


def test_test_classes_lose_their_self() -> None:
    assert bodies(
        """
        class TestShape(unittest.TestCase):
            FACTOR = 2
            def setUp(self):
                self.shape = Shape(2, 3)
            def test_area(self):
                self.assertEqual(self.shape.area(self.FACTOR), 12)
                self.assertTrue(self.shape.area() > 5)
                self.assertRaises(TypeError, self.shape.area, 1, 2)
        """,
        SHAPE_AREA,
    ) == [
        "FACTOR = 2\nshape = Shape(2, 3)\nassert shape.area(FACTOR) == 12",
        "shape = Shape(2, 3)\nassert shape.area() > 5",
        "shape = Shape(2, 3)\nwith pytest.raises(TypeError):\nshape.area(1, 2)",
    ]


@pytest.mark.parametrize(
    ("imported", "called"),
    [
        ("from focal import clamp", "clamp"),
        ("from focal import clamp as limit", "limit"),
        ("from numbers import clamp", "clamp"),
        ("from .module import *", "clamp"),
        ("import focal", "focal.clamp"),
        ("import my_package.module", "my_package.module.clamp"),
        ("import my_module as m", "m.clamp"),
    ],
)
def test_whatever_the_module_is_called_it_is_the_one_under_test(imported: str, called: str) -> None:
    for text in (
        f"{imported}\ndef test_clamp():\n    assert {called}(1, 0, 9) == 1\n",
        f"def test_clamp():\n    {imported}\n    assert {called}(1, 0, 9) == 1\n",
    ):
        tests, _ = collected(text)
        assert [test.source for test in tests] == ["def test_clamp():\n    assert clamp(1, 0, 9) == 1\n"]


def test_a_test_has_the_imports_and_helpers_it_uses_and_no_others() -> None:
    tests, _ = collected(
        """
        import os
        from decimal import Decimal as D
        ONE = D(1)
        def clamp(value, low, high):
            return "the model's own copy"
        def ten(times):
            return math.floor(10.5) * times
        def test_clamp():
            assert clamp(ten(2), 0, ONE) == ONE
        """
    )
    (test,) = tests
    tree = ast.parse(test.source)
    assert [ast.unparse(node) for node in tree.body[:-1]] == ["from decimal import Decimal as D", "import math"]
    assert ast.unparse(tree.body[-1]).count("def ") == 2


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("pass", "asserts nothing"),
        ("clamp(1, 2, 3)", "asserts nothing"),
        ("assert True", "asserts only"),
        ("assert isinstance(clamp(1, 0, 9), int)", "asserts only"),
        ("x = clamp(1, 0, 9); assert x == x", "asserts only"),
        ("assert (clamp(1, 0, 9) == 1, 'a pair is true')", "asserts only"),
        ("assert len(clamp([1], [0], [2])) >= 0", "asserts only"),
        ("assert clamp is not None", "never calls"),
        ("assert max(1, 2) == 2", "never calls"),
        ("with pytest.raises(Exception): clamp()", "expects an error that a broken test raises too"),
        ("assert clamp(unheard_of, 0, 9) == 1", "unheard_of is not defined"),
        ("import numpy as np; assert clamp(np.int64(1), 0, 9) == 1", "int64 is not defined"),
        ("clamp = abs; assert clamp(1) == 1", "binds clamp itself"),
    ],
)
def test_what_says_nothing_of_the_function_is_refused(statement: str, reason: str) -> None:
    (found,) = reasons(f"def test_clamp():\n    {statement}\n")
    assert found.startswith(reason)


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        ("def test_clamp(tmp_path):", "it wants fixtures"),
        ("async def test_clamp():", "it is asynchronous"),
        ("@pytest.mark.skip\ndef test_clamp():", "it is decorated"),
        ("@pytest.mark.parametrize('x', make_cases())\ndef test_clamp(x):", "its cases are not written out"),
        ("def check():", "no test function"),
    ],
)
def test_what_is_no_plain_test_is_refused(definition: str, reason: str) -> None:
    assert reasons(f"{definition}\n    assert clamp(1, 0, 9) == 1\n") == [reason]


def test_a_name_of_the_module_that_a_test_cannot_import_is_refused() -> None:
    text = "from focal import Shape, LIMIT\ndef test_area():\n    assert Shape(1, LIMIT).area() == 3\n"
    assert reasons(text, SHAPE_AREA) == ["uses LIMIT of the module, which a test does not import"]


def test_equal_tests_are_one() -> None:
    """Comments, layout, names of tests and of locals do not count."""
    tests, rejected = collected("""
        def test_clamp():
            value = clamp(1, 0, 9)  # inside
            assert value == 1
        def test_inside():
            '''The same in other words.'''
            result = clamp(1,
                           0, 9)
            assert result == 1
        def test_other():
            result = clamp(1, 0, 9)
            assert result < 2
    """)
    assert [test.name for test in tests] == ["test_clamp", "test_other"]
    assert [each.reason for each in rejected] == [DUPLICATE]


def test_names_are_made_unique() -> None:
    tests, _ = collected("\n".join(f"def test_clamp():\n    assert clamp({n}, 0, 9) == {n}" for n in range(3)))
    assert [test.name for test in tests] == ["test_clamp", "test_clamp_2", "test_clamp_3"]
    assert all(f"def {test.name}():" in test.source for test in tests)
    assert len({test.test_id for test in tests}) == 3


def test_an_answer_is_cut_at_its_last_complete_statement() -> None:
    whole = "def test_clamp():\n    assert clamp(1, 0, 9) == 1\n"
    for rest in (
        "    assert clamp(12, 0,",
        "    for x in [1",
        "def test_more",
        "    text = '''",
        "Here is why:",
        "```\nSo",
    ):
        tests, _ = collected(whole + rest)
        assert [test.source for test in tests] == [whole], rest


def test_a_last_line_that_a_limit_cut_is_not_trusted() -> None:
    """`== 1` may have been going to be `== 12`."""
    tests, _ = collected(
        "def test_clamp():\n    assert clamp(5, 0, 9) == 5\n    assert clamp(12, 0, 12) == 1", is_cut=True
    )
    assert [test.source for test in tests] == ["def test_clamp():\n    assert clamp(5, 0, 9) == 5\n"]


def test_fences_are_found_where_the_beginning_was_not_given() -> None:
    text = """
        Some words first.
        ```bash
        assert clamp(9, 9, 9) == 9
        ```
        ```python
        def test_clamp():
            assert clamp(1, 0, 9) == 1
        ```
        And some more.
    """
    tests, _ = collected(text, begins_in_code=False)
    assert [test.source for test in tests] == ["def test_clamp():\n    assert clamp(1, 0, 9) == 1\n"]


def test_the_bytes_do_not_depend_on_the_hash_seed() -> None:
    text = """
        import os, re, sys
        A, B, C = 1, 2, 3
        B = 4
        def helper(x): return A + B + C + x
        def test_clamp():
            d, e, f = helper(1), helper(2), helper(3)
            assert clamp(d, e, f) == re.sub(os.name, sys.platform, "")
            assert clamp(one, two, three) == four
    """
    program = f"from {__name__} import collected; print(collected({text!r}))"
    command = [sys.executable, "-c", program]
    outputs = {subprocess.check_output(command, env={"PYTHONHASHSEED": seed}) for seed in "123"}
    assert len(outputs) == 1


_PIECES = st.sampled_from(
    [
        "def test_clamp():\n", "    ", "assert clamp(1, 0, 9)", " == 1\n", "(", ")", "[", "'", '"""', "\0", "\\", "\r",
        "```", "```python\n", "for x in", "[(1, 2)]:\n", "\n", "class TestX:\n", "self.", "assertEqual", "\udc80", "é",
        "import focal\n", "@pytest.mark.parametrize('a', [1])\n", "lambda", " if ", "1" * 5000, "-" * 3000, "{", "f'{",
        "async ", "await ", "match x:\n", "    case ", "with pytest.raises(", ":\n", "global clamp\n", "x := ", "*",
        "\t", "\x0c", "}", "**",
    ]
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(st.lists(_PIECES, max_size=40).map("".join), st.booleans())
@example("(" * MAX_CHARACTERS, False)
@example("def test_clamp():\n    assert clamp(1, 0, 9) == " + "-" * 20_000 + "1\n", False)
@example("def test_clamp():\n    assert " + "+".join(["clamp(1, 0, 9)"] * 2000) + " == 1\n", False)
@example("def test_clamp():\n    assert clamp(1, 0, 9)" + ".x" * 8000 + " == 1\n", False)
@example("def test_clamp():\n    assert clamp('\\d', 0, 9) == 1\n" * 2000, False)
@example("x\n" * 4_000_000, True)
@example(
    "@pytest.mark.parametrize('a', [" + "1," * 99 + "])\ndef test_a(a):\n" + "    assert clamp(a, 0, 9) == 1\n" * 99,
    True,
)
def test_no_text_is_too_hostile(text: str, is_cut: bool) -> None:
    """Whatever comes, it ends soon; what comes out parses, defines one test and imports only what is allowed."""
    tests, rejected = collected(text, is_cut=is_cut)
    assert len(tests) + len(rejected) <= 64
    assert sum(len(each.text) for each in rejected) <= 64 * MAX_REJECTED_CHARACTERS
    for test in tests:
        *imports, function = ast.parse(test.source).body
        assert isinstance(function, ast.FunctionDef)
        assert function.name == test.name
        assert not ast.unparse(function.args)
        assert all(isinstance(node, ast.Import | ast.ImportFrom) for node in imports)


def test_helpers_stand_in_the_order_of_the_answer() -> None:
    tests, _ = collected(
        """
        ten, two = 10, 2
        two = 3
        def test_clamp():
            assert clamp(two, ten, 9) == ten
        """
    )
    assert [line.strip() for line in tests[0].source.splitlines()[1:3]] == ["ten, two = (10, 2)", "two = 3"]
