"""Text leaves whole, once, and never past a stop."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from zenray.engine.output import OutputText
from zenray.engine.request import FinishReason, Limits
from zenray.engine.stopping import find_line_limit, held_back


def stream(pieces: list[bytes], limits: Limits) -> tuple[list[str], OutputText]:
    output, shown = OutputText(limits), []
    for piece in pieces:
        output.append(piece)
        if output.finish_reason is not None:
            break
        shown.append(output.take())
    output.close()
    shown.append(output.take(final=True))
    return shown, output


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(c % (len(data) + 1) for c in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


SMALL_TEXT = st.text(alphabet="ab\n€😀", max_size=30)


@given(
    SMALL_TEXT,
    st.lists(st.integers(0, 200), max_size=20),
    st.lists(st.text("ab\n€", min_size=1, max_size=4), max_size=3),
)
def test_any_cutting_of_the_bytes_shows_the_text_up_to_the_first_stop(
    text: str, cuts: list[int], stops: list[str]
) -> None:
    shown, output = stream(cut(text.encode(), cuts), Limits(stop=tuple(stops)))
    ends = [text.find(stop) for stop in stops if stop in text]
    # Which stop is met first is the one that is complete first, as tokens arrive; its text never shows.
    assert "".join(shown) == output.text
    if not ends:
        assert output.text == text
        assert output.finish_reason is None
    else:
        assert output.finish_reason is FinishReason.STOP
        assert text.startswith(output.text)
        assert not any(stop in output.text for stop in stops)
        assert any(text.startswith(stop, len(output.text)) for stop in stops)


@given(SMALL_TEXT, st.lists(st.integers(0, 200), max_size=20))
def test_no_piece_ever_holds_half_a_character(text: str, cuts: list[int]) -> None:
    shown, _ = stream(cut(text.encode(), cuts), Limits())
    assert not any("�" in piece for piece in shown)
    assert "".join(shown) == text


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    shown, _ = stream([b"a\xff", b"b\xe2\x82"], Limits())
    assert "".join(shown) == "a�b�"


def test_text_that_may_start_a_stop_waits_and_is_let_go() -> None:
    output = OutputText(Limits(stop=("</s>",)))
    output.append(b"x</")
    assert output.take() == "x"
    output.append(b"div>")
    assert output.take() == "</div>"


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=3))
def test_held_back_is_the_longest_end_that_begins_a_stop(text: str, stops: list[str]) -> None:
    expected = max(
        (n for stop in stops for n in range(len(stop)) if n <= len(text) and text.endswith(stop[:n])), default=0
    )
    assert held_back(text, stops) == expected


def test_the_line_limit_counts_lines_of_text() -> None:
    assert find_line_limit("one\ntwo\n", 1) == 3
    assert find_line_limit("one\ntwo\n", 2) == 7
    assert find_line_limit("one\ntwo", 2) is None
    assert find_line_limit("\none\ntwo", 1) == 4, "a completion at the end of a line begins with a newline"
    assert find_line_limit("a\nb\nc", 0) is None


def test_the_line_limit_ends_the_choice_before_the_newline() -> None:
    shown, output = stream([b"x = 1", b"\ny =", b" 2"], Limits(max_lines=1))
    assert "".join(shown) == output.text == "x = 1"
    assert output.finish_reason is FinishReason.LENGTH
