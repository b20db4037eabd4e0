"""Where a completion ends because of what it says: each rule on its stories, and what must hold for all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.context.suggestion.stops import make_text_rule
from zenray.engine.output import OutputText
from zenray.engine.request import FinishReason, Limits, TextStops
from zenray.engine.stopping import TextEnd

ALL = {"scope_end": True, "suffix_match": True, "repetition": True}


def ended(text: str, stops: TextStops) -> tuple[str, FinishReason] | None:
    """The text that remains and why, when it comes character by character."""
    rule = make_text_rule(stops)
    for length in range(1, len(text) + 1):
        if end := rule.find_end(text[:length], length - 1):
            return text[: end.at], end.reason
    return None


PIECES = st.sampled_from(
    [
        *(
            "\n",
            "\r\n",
            "\r",
            "\n\n",
            " ",
            "    ",
            "\t",
            "  ",
            ";",
            ",",
            ":",
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            '"',
            "'",
            "`",
        ),
        *(
            "return x",
            "foo(",
            "def f():",
            "class A:",
            "# note",
            "// note",
            "/*",
            "*/",
            '"""',
            "else:",
            "@d",
            "end",
            "x = 1",
        ),
        *(
            "if (a) {",
            "} else {",
            "});",
            "function f() {",
            "fn f<'a>() {",
            "ünï",
            "中文",
            "😀\u2028",
            "\x0c",
            "\x85",
            "\ufeff",
            "\\",
            "-",
            "/",
            "0, 0, 0,",
        ),
    ]
)
TEXTS = st.lists(PIECES, max_size=30).map("".join)
LANGUAGES = st.sampled_from(["python", "javascript", "rust", "go", "ruby", "haskell", "", "nonsense", "shellscript"])


@st.composite
def anything(draw: st.DrawFn) -> TextStops:
    flags = {name: draw(st.booleans()) for name in ("scope_end", "suffix_match", "single_line", "repetition")}
    return TextStops(language=draw(LANGUAGES), before=draw(TEXTS), after=draw(TEXTS), **flags)


@st.composite
def texts_for(draw: st.DrawFn) -> tuple[TextStops, str]:
    """A text that often reaches the suffix or repeats itself."""
    stops = draw(anything())
    pieces = [TEXTS, st.just(stops.after), st.just(stops.before[-20:])]
    return stops, "".join(draw(st.lists(st.one_of(pieces), max_size=5))) * draw(st.sampled_from([1, 1, 1, 4]))


@given(texts_for(), st.data())
def test_the_end_does_not_depend_on_how_the_text_was_cut_into_tokens(
    case: tuple[TextStops, str], data: st.DataObject
) -> None:
    stops, text = case
    expected = ended(text, stops)
    rule, length, found = make_text_rule(stops), 0, None
    while length < len(text) and found is None:
        searched, length = length, data.draw(st.integers(length + 1, len(text)))
        end = rule.find_end(text[:length], searched)
        found = (text[: end.at], end.reason) if end else None
    assert found == expected


@given(texts_for())
def test_nothing_is_shown_that_a_later_end_takes_back(case: tuple[TextStops, str]) -> None:
    stops, text = case
    rule, shown = make_text_rule(stops), 0
    for length in range(1, len(text) + 1):
        if end := rule.find_end(text[:length], length - 1):
            assert end.at >= shown
            return
        held = rule.held_back(text[:length])
        assert 0 <= held <= length
        shown = max(shown, length - held)


@given(texts_for())
def test_a_rule_answers_by_the_text_alone_whatever_it_was_asked_before(case: tuple[TextStops, str]) -> None:
    stops, text = case
    used = make_text_rule(stops)
    for other in (text[: len(text) // 2], "x" + text, text):
        used.find_end(other, 0)
        used.held_back(other)
    assert used.find_end(text, 0) == make_text_rule(stops).find_end(text, 0)


@given(texts_for(), st.data())
def test_the_engine_shows_what_remains_and_nothing_else(case: tuple[TextStops, str], data: st.DataObject) -> None:
    """Tokens may end within a character; what was handed out, put together, is the text the rule left."""
    stops, text = case
    output = OutputText(Limits(), make_text_rule(stops))
    rest, shown = text.encode(), ""
    while rest and output.finish_reason is None:
        size = data.draw(st.integers(1, 12))
        output.append(rest[:size])
        rest = rest[size:]
        shown += output.take()
    output.close()
    shown += output.take(final=True)
    assert (shown, output.finish_reason) == (ended(text, stops) or (text, None))


class TestSingleLine:
    @pytest.mark.parametrize("line_end", ["\n", "\r\n"])
    def test_ends_at_the_first_line_end(self, line_end: str) -> None:
        assert ended(f"x = 1{line_end}y", TextStops(single_line=True)) == ("x = 1", FinishReason.LENGTH)

    def test_ends_at_once_when_the_text_begins_with_one(self) -> None:
        assert make_text_rule(TextStops(single_line=True)).find_end("\nfoo", 0) == TextEnd(0, FinishReason.LENGTH)


class TestSuffixMatch:
    def test_the_rest_of_the_line_is_not_written_twice(self) -> None:
        stops = TextStops("python", "y = foo(", ")\nprint(y)\n", suffix_match=True)
        assert ended("a, b)\nprint", stops) == ("a, b", FinishReason.SUFFIX_MATCH)

    def test_a_bracket_of_the_text_itself_is_not_the_suffix(self) -> None:
        stops = TextStops("python", "y = foo(", ")\nprint(y)\n", suffix_match=True)
        assert ended("bar(b))\n", stops) == ("bar(b)", FinishReason.SUFFIX_MATCH)
        assert ended("bar(b)\n", stops) is None

    def test_a_line_that_stands_nowhere_else_is_enough(self) -> None:
        stops = TextStops("python", "total = 0\n", "\nreport(total, when=now)\n", suffix_match=True)
        assert ended("for x in xs:\n    total += x\nreport(total, when=now)\n", stops) == (
            "for x in xs:\n    total += x",
            FinishReason.SUFFIX_MATCH,
        )

    def test_a_common_line_needs_the_next_one_to_prove_it(self) -> None:
        before, after = "case 1:\n    a();\n    break;\n", "    break;\ncase 3:\n    c();\n"
        stops = TextStops("c", before, after, suffix_match=True)
        text = "case 2:\n    x();\n    break;\ncase 25:\n    y();\n    break;\ncase 3:\n"
        assert ended(text, stops) == (text[: text.rfind("    break;")], FinishReason.SUFFIX_MATCH)


class TestScopeEnd:
    @pytest.mark.parametrize(
        ("language", "before", "text", "after", "kept"),
        [
            ("python", "def f(x):\n", "    return x\n\n\ndef g", "", "    return x"),
            ("python", "def f(x):\n    ", "return (\nx)\ny", "", "return (\nx)"),
            ("python", "def f(x):\n    ", 'return """\nx"""\n# next\ny', "", 'return """\nx"""'),
            ("python", "if a:\n    ", "b()\n# odd\n    c()\nelse:", "", "b()\n# odd\n    c()"),
            ("python", "def f", "(x):\n    return x\n\ndef g", "", "(x):\n    return x"),
            ("python", "import os\n\n", "def f():\n    pass\n\ndef g", "", "def f():\n    pass"),
            (
                "python",
                "x = [\n",
                "    1,\n    2,\n]\n\ndef f():\n  pass\n\ndef g()",
                "",
                "    1,\n    2,\n]\n\ndef f():\n  pass",
            ),
            ("javascript", "f(() => {\n", "  return 1;\n});\nmore();\n", "", "  return 1;\n});"),
            ("javascript", "f(() => {\n", "  return 1;\n});\nmore();\n", "\n});\n", "  return 1;"),
            ("javascript", "function f() {\n  ", 'return "}";\n}\n', "\n}\n", 'return "}";'),
            ("c", "int f(int a", ") {\n  return a;\n}\nint g", "", ") {\n  return a;\n}"),
            ("go", "func f() {\n\tif a {", "\n\t\tb()\n\t}\n", "\n}\n", "\n\t\tb()\n\t}"),
            ("rust", "", "fn a() {\n    b('{')\n}\n\nfn c", "", "fn a() {\n    b('{')\n}"),
            ("ruby", "def f\n", "  1\nend\n\ndef g\n", "", "  1\nend"),
            ("c", "int x = 1;\n", "int y = 2;\n```\n\nThis code", "", "int y = 2;"),
            ("ruby", "def f\n", "  1\nend\n", "\nend\n", "  1"),
            ("yaml", "ports:\n  - ", "80\n  - 443\nenvironment:\n  A: 1\n", "", "80\n  - 443"),
        ],
    )
    def test_the_block_of_the_cursor_closes(self, language: str, before: str, text: str, after: str, kept: str) -> None:
        assert ended(text + "\n", TextStops(language, before, after, scope_end=True)) == (kept, FinishReason.SCOPE_END)

    @pytest.mark.parametrize(
        ("language", "before", "text"),
        [
            ("python", "def f(x):\n    ", 's = """\nno\n"""\n    return s\n'),
            ("python", "x = foo(", "a,\nb)\ny = 2\n"),
            ("javascript", "if (a", ") {\n  b();\n} else {\n  c();\n}\nd();\n"),
            ("javascript", "function f() {\n  ", "const r = /[}]/;\n  `}`;\n"),
            ("", "some {\n", "prose }\n"),
            ("ruby", "def f\n  ", "text = <<END\nno end\nhere\nEND\n  text.strip\n"),
            ("shellscript", "f() {\n    ", "cat <<END\nusage: }\nEND\n    return 0\n"),
        ],
    )
    def test_the_text_goes_on_within_it(self, language: str, before: str, text: str) -> None:
        assert ended(text, TextStops(language, before, "", scope_end=True)) is None


class TestRepetition:
    def test_a_line_said_three_times_is_kept_twice(self) -> None:
        line = "    self.report(result)\n"
        assert ended(line * 9, TextStops(repetition=True)) == ((line * 2)[:-1], FinishReason.REPETITION)

    def test_a_short_one_may_be_said_four_times(self) -> None:
        assert ended("#endif\n" * 4, TextStops(repetition=True)) is None
        assert ended("#endif\n" * 9, TextStops(repetition=True)) == ("#endif\n" * 3 + "#endif", FinishReason.REPETITION)

    def test_so_is_a_block(self) -> None:
        block = "if ready:\n    start(now)\n\n"
        assert ended(block * 5, TextStops(repetition=True)) == ((block * 2).rstrip(), FinishReason.REPETITION)

    def test_a_line_without_end(self) -> None:
        end = ended("x = " + "foo, " * 400, TextStops(repetition=True))
        assert end and end[1] is FinishReason.REPETITION and len(end[0]) < 400

    def test_a_table_that_repeats_around_the_cursor_may_go_on(self) -> None:
        assert ended("    0, 0,\n" * 9, TextStops("c", "    0, 0,\n    0, 0,\n", "", repetition=True)) is None

    def test_lines_without_a_word_are_no_loop(self) -> None:
        assert ended("}\n" * 9, TextStops(repetition=True)) is None


def test_all_rules_together_take_the_one_that_knows_first() -> None:
    stops = TextStops("python", "def f(x):\n    y = x\n", "    return report(y)\n", **ALL)
    text = "    y += 1\n    return report(y)\n\n\ndef g():\n"
    assert ended(text, stops) == ("    y += 1\n", FinishReason.SUFFIX_MATCH)
