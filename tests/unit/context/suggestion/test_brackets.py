"""Brackets as a language has them, which of them are open at the cursor, and the window that is parsed around it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.context.suggestion.test_stops import LANGUAGES, TEXTS
from zenray.context.languages.grammars import num_syntax_errors, parse
from zenray.context.suggestion.lexing import CLOSER_OF, Bracket, brackets, unmatched
from zenray.context.suggestion.open_brackets import open_at_cursor
from zenray.context.suggestion.syntax import in_code
from zenray.context.suggestion.windows import after_window, before_window


def shown(language: str, source: str) -> str:
    return "".join(bracket.character for bracket in brackets(language, source).found)


@pytest.mark.parametrize(
    ("language", "source", "expected"),
    [
        ("python", "f('(', \"[\") # {\n", "()"),
        ("python", 'x = """\n(\n"""[0]', "[]"),
        ("javascript", "a(/[)(]/, `}${'{'}`) // (\n/* { */ [1 / 2, (3) / 4]", "()[()]"),
        ("rust", "fn f<'a>(x: &'a str) { '{'; r#\"(\"#; }", "(){}"),
        ("go", "x := `}` + \"{\" + '['", ""),
        ("c", "char c = '\\''; int a[1] = {0}; // don't (", "[]{}"),
        ("haskell", "f' x = (x') -- (", "()"),
    ],
)
def test_strings_and_comments_hold_none(language: str, source: str, expected: str) -> None:
    assert shown(language, source) == expected


@given(LANGUAGES, TEXTS, TEXTS)
def test_reading_on_finds_what_reading_at_once_does(language: str, first: str, second: str) -> None:
    first += "\n"
    read = brackets(language, first)
    assert (
        read.found + brackets(language, first + second, read.resume).found == brackets(language, first + second).found
    )


def test_a_closer_of_another_kind_closes_the_nearest_of_its_own() -> None:
    closers, openers = unmatched(brackets("c", "{ ( [ } ] (").found)
    assert [bracket.character for bracket in closers] == ["]"]
    assert [bracket.character for bracket in openers] == ["("]


@given(st.text("()[]{}", max_size=40))
def test_unmatched_brackets_are_those_of_the_definition(source: str) -> None:
    found = brackets("c", source).found
    closers: list[Bracket] = []
    openers: list[Bracket] = []
    for bracket in found:
        own = [at for at, opener in enumerate(openers) if CLOSER_OF.get(opener.character) == bracket.character]
        if bracket.character in CLOSER_OF:
            openers.append(bracket)
        elif own:
            openers = openers[: own[-1]]
        else:
            closers.append(bracket)
    assert unmatched(found) == (closers, openers)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("f() {\n", "\n}\n", "}+"),
        ("f() {\n", "", "}-"),
        ("f() {\n  if (a) {", "\n}\n", "}+ }-"),
        ("f() {\n  if (a) {", "\n  }\n}\n", "}+ }+"),
        ("f() {\n  g(h(", ");\n}\n", "}+ )+ )-"),
        ("f() {\n  g(h(", "\n}\n", "}+ )- )-"),
        ("f() {\n  g(h(", "));\n}\n", "}+ )+ )+"),
        ("f() {\n  g", "(1);\n}\n", "}+"),
    ],
)
def test_what_the_text_behind_the_cursor_closes(before: str, after: str, expected: str) -> None:
    """Outermost first; + has its closer there, - has not."""
    found = open_at_cursor("javascript", before, after, brackets("javascript", before))
    assert " ".join(bracket.closer + "-+"[bracket.is_closed] for bracket in found) == expected


def test_of_brackets_nested_beyond_all_code_the_innermost_are_looked_at() -> None:
    before, after = "(\n" * 1000 + "[\n" * 9, "]\n" * 9 + ")\n" * 1000
    found = open_at_cursor("c", before, after, brackets("c", before))
    assert "".join(bracket.closer for bracket in found).lstrip(")") == "]" * 9
    assert all(bracket.is_closed for bracket in found)
    assert 64 < len(found) < 256


class TestWindow:
    PYTHON = "class Holder:\n" + "".join(
        f"    def method_{number}(self, value):\n        if value:\n            return [{number}, value]\n\n"
        for number in range(400)
    )
    BRACES = "class Holder {\n" + "".join(
        f"  method{number}(value) {{\n    if (value) {{\n      go();\n    }} else {{\n      stop();\n    }}\n  }}\n"
        for number in range(400)
    )
    BRACES += "}\n"

    @given(st.integers(0, len(PYTHON)))
    def test_of_a_large_class_a_small_part_parses_like_the_whole(self, cursor: int) -> None:
        self.check("python", self.PYTHON, cursor)

    @given(st.integers(0, len(BRACES)))
    def test_so_does_one_with_braces(self, cursor: int) -> None:
        self.check("javascript", self.BRACES, cursor)

    def check(self, language: str, source: str, cursor: int) -> None:
        before, after = before_window(source[:cursor]), after_window(source[cursor:])
        assert len(before) + len(after) < 6000
        tree = parse(language, (before + after).encode())
        assert tree is not None and num_syntax_errors(tree) == 0

    def test_an_empty_document_has_an_empty_one(self) -> None:
        assert (before_window(""), after_window("")) == ("", "")


@pytest.mark.parametrize(
    ("language", "source", "expected"),
    [
        ("python", "x = '|'", False),
        ("python", "x = f'{|a}'", True),
        ("python", "# |x\n", False),
        ("javascript", "x = `${|a}`", True),
        ("ruby", "x = <<END\n|end\nEND\n", False),
        ("python", "x = |1", True),
        ("cpp", "template <typename T> struct A { int f() { return 1; |} };", True),
        ("plaintext", "'|'", True),
    ],
)
def test_grammars_know_strings_from_code(language: str, source: str, expected: bool) -> None:
    position = source.index("|")
    assert in_code(language, source.replace("|", ""), position) is expected
