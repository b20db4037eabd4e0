"""From raw text to what an editor shows: what is repaired, what is refused, and what is left alone."""

from __future__ import annotations

import ast
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.context.suggestion.test_stops import LANGUAGES, TEXTS
from zenray.context.suggestion.model import Suggestion, SuggestionFilter
from zenray.context.suggestion.post_process import post_process
from zenray.context.suggestion.syntax import SyntaxCheck
from zenray.engine.request import FinishReason


def made(
    text: str,
    before: str = "",
    after: str = "",
    language: str = "python",
    reason: FinishReason = FinishReason.EOS,
    max_lines: int = 0,
) -> Suggestion:
    return post_process(text, before=before, after=after, language=language, finish_reason=reason, max_lines=max_lines)


class TestRepairs:
    @pytest.mark.parametrize(
        ("text", "before", "after", "language", "shown"),
        [
            ("a, b)", "y = foo(", ")\nz = 1\n", "python", "a, b"),
            ('world"', 'print("hello ', '")\n', "python", "world"),
            ('world")', 'print("hello ', '")\n', "python", "world"),
            (
                "total += x\n\nreport(total, when)",
                "for x in xs:\n    ",
                "\n\nreport(total, when)\n",
                "python",
                "total += x",
            ),
            ("  return 1;\n}", "function f() {\n", "\n}\n", "javascript", "  return 1;"),
            ("return x", "def f(x):\n    return ", "\n", "python", "x"),
            ("    return x", "def f(x):\n    ", "\n", "python", "return x"),
            ("    y = x\n    return y", "def f(x):\n    ", "\n", "python", "y = x\n    return y"),
            ("\n    y()\n    z()\n", "func f() {\n\tx()", "\n}\n", "go", "\n\ty()\n\tz()"),
            ("\n\ty()", "def f():\n    x()", "\n", "python", "\n    y()"),
            ("x = 1   \n", "def f():\n    ", "\n", "python", "x = 1"),
            ("  let y = f();\n    g(y);", "fn h() {\n    ", "\n}\n", "rust", "let y = f();\n    g(y);"),
            (
                "const a = 1;\n  return f(a);",
                "function g() {\n  for (const x of y) {\n    ",
                "\n  }\n}\n",
                "typescript",
                "const a = 1;",
            ),
            ("x();\n  y();", "void f() {\r\n  ", "\r\n}\r\n", "cpp", "x();\r\n  y();"),
            ("x();\n  y();", "\r\nvoid f() {\r\n  ", "\r\n}\r\n", "cpp", "x();\r\n  y();"),
            ("x();\r\n  y();", "void f() {\n  ", "\n}\n", "cpp", "x();\n  y();"),
            ("foo(bar(1", "x = 1\ny = ", "\nz = 3\n", "python", "foo(bar(1))"),
            ("foo(1))", "x = 1\ny = ", "\nz = 3\n", "python", "foo(1)"),
        ],
    )
    def test_what_is_wrong_is_put_right(self, text: str, before: str, after: str, language: str, shown: str) -> None:
        suggestion = made(text, before, after, language)
        assert suggestion.text == shown
        assert suggestion.filter is None and suggestion.changes

    def test_a_line_that_was_cut_off_is_dropped_unless_it_is_the_only_one(self) -> None:
        assert made("a = 1\nb = so", reason=FinishReason.LENGTH).text == "a = 1"
        assert made("a = 1\nb = so", reason=FinishReason.DEADLINE).text == "a = 1"
        assert made("b = so", reason=FinishReason.LENGTH).text == "b = so"
        assert made("a = 1\nb = 2", reason=FinishReason.LENGTH, max_lines=2).text == "a = 1\nb = 2"
        assert made("\na = 1\nb = 2", "x", reason=FinishReason.LENGTH, max_lines=2).text == "\na = 1\nb = 2"
        assert made("a = 1\nb = so").text == "a = 1\nb = so"

    def test_of_a_loop_one_round_is_left(self) -> None:
        assert made("a()\nb()\na()\nb()", reason=FinishReason.REPETITION).text == "a()\nb()"
        assert made("x = " + "foo, " * 80, reason=FinishReason.REPETITION).text == "x = foo,"

    def test_lines_that_break_what_parsed_are_dropped(self) -> None:
        before, after = "def f():\n    a = 1\n", "\n\ndef g():\n    return 2\n"
        assert made("    b = 2\n    ) = (3\n", before, after).text == "    b = 2"

    def test_a_block_that_was_cut_off_is_dropped_also_where_something_else_is_broken(self) -> None:
        before, after = "int a = ;\nint f(void) {\n    g();\n", "\n}\n"
        text = "    h();\n    if (a) {\n        k();\n        m("
        assert made(text, before, after, "c", FinishReason.LENGTH).text == "    h();"


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "before", "after", "reason"),
        [
            ("", "x", "", SuggestionFilter.EMPTY),
            (" \n\t\n", "x", "", SuggestionFilter.EMPTY),
            ("total = 0\n", "import os\ntotal = 0\n", "", SuggestionFilter.PREFIX_ECHO),
            ("b = two()\n", "a = 1\n", "\nb = two()\nc = 3\n", SuggestionFilter.SUFFIX_ECHO),
            ("return b", "def f(a):\n    b = a\n    ", "\n    check(b)\n    return b\n", SuggestionFilter.SUFFIX_ECHO),
            (")", "foo(", ")\n", SuggestionFilter.SUFFIX_ECHO),
            ('"ghp_' + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8" + '"', "token = ", "\n", SuggestionFilter.SECRET),
        ],
    )
    def test_nothing_is_offered(self, text: str, before: str, after: str, reason: SuggestionFilter) -> None:
        suggestion = made(text, before, after)
        assert (suggestion.text, suggestion.filter) == ("", reason)

    def test_two_branches_may_end_alike(self) -> None:
        before, after = "def f(a):\n    if a:\n        ", "\n    b()\n    return g(a)\n"
        assert made("return g(a)", before, after).text == "return g(a)"

    def test_a_table_may_go_on_with_the_line_above(self) -> None:
        assert made("    0x20, 0x20,", "    0x20, 0x20,\n" * 3, "\n}", "c").text == "    0x20, 0x20,"


SOURCE = textwrap.dedent(
    '''
    """A module (with brackets: ] and quotes: ') in its text."""

    import os

    TABLE = {"a": [1, 2], "b": (3,)}


    def first(items, default=None):
        """The first of `items`."""
        for item in items:
            if item is not None:
                return TABLE.get(item, [default])
        else:
            raise ValueError(f"no {len(items)} in {items!r}")


    class Holder:
        size = 3

        @property
        def twice(self):
            return [
                self.size,
                self.size * 2,
            ]
    '''
)


@given(st.integers(0, len(SOURCE)), st.integers(0, 120))
def test_the_true_text_of_a_gap_is_left_alone(start: int, length: int) -> None:
    """But for white space at its end, wherever it is cut out: within a line, or to the end of one; not from within an
    indentation, which may be meant to be whole."""
    ast.parse(SOURCE)
    line_start = SOURCE.rfind("\n", 0, start) + 1
    start = start if SOURCE[line_start:start].strip() else line_start
    stop = start + length
    if "\n" in SOURCE[start:stop]:
        stop = SOURCE.find("\n", stop) % (len(SOURCE) + 1)
    before, middle, after = SOURCE[:start], SOURCE[start:stop], SOURCE[stop:]
    suggestion = made(middle, before, after)
    if suggestion.filter is None:
        assert middle.startswith(suggestion.text) and not middle[len(suggestion.text) :].strip()
    else:
        assert len(middle.strip()) < 12


@st.composite
def completions(draw: st.DrawFn) -> tuple[str, str, str, str]:
    before, after = draw(TEXTS), draw(TEXTS)
    text = "".join(draw(st.lists(st.one_of(TEXTS, st.just(after), st.just(before[-20:])), max_size=4)))
    return text, before, after, draw(LANGUAGES)


@given(completions(), st.sampled_from(FinishReason))
def test_what_it_returns_it_leaves_alone(case: tuple[str, str, str, str], reason: FinishReason) -> None:
    text, before, after, language = case
    once = made(text, before, after, language, reason)
    finished = (FinishReason.EOS, FinishReason.SCOPE_END)
    again = made(once.text, before, after, language, FinishReason.EOS if reason in finished else FinishReason.STOP)
    assert again.text == once.text
    assert once.filter is not None or not again.changes


@given(completions())
def test_a_change_is_told_and_nothing_told_is_no_change(case: tuple[str, str, str, str]) -> None:
    text, before, after, language = case
    suggestion = made(text, before, after, language)
    if suggestion.filter is None:
        assert bool(suggestion.changes) == (suggestion.text != text)
    else:
        assert suggestion.text == ""


@given(completions())
def test_it_never_parses_worse_than_the_raw_text(case: tuple[str, str, str, str]) -> None:
    text, before, after, language = case
    check = SyntaxCheck(language, before, after)
    suggestion = made(text, before, after, language)
    if check.base is not None and suggestion.filter is None:
        assert check.num_errors(suggestion.text) <= max(check.base, check.num_errors(text))


def test_a_line_of_a_megabyte_and_lone_surrogates_are_taken() -> None:
    line = "x = [" + "1, " * 350_000
    assert made("2]", line, "\n").text == "2]"
    assert made("\ud800 = 1", "a\udfff", "\ud800\n").text
