"""The window before the cursor: exact, of whole lines, and the same pieces at every keystroke."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.context.privacy.secrets import redact
from zenray.context.prompt.bounded import BoundedCache
from zenray.context.prompt.covering import CoveredText
from zenray.context.prompt.encoding import RememberingTokenizer
from zenray.context.prompt.window import Window, fit_before
from zenray.model.tokenizer import ByteTokenizer

CODE = "".join(f"def function_{n}(argument):\n    value = argument + {n}\n\n    return value\n\n\n" for n in range(300))


class CountingTokenizer(ByteTokenizer):
    encoded_characters = 0

    def _encode(self, text: str, data: bytes) -> list[int]:
        self.encoded_characters += len(text)
        return super()._encode(text, data)


def window_of(text: str, cursor: int, budget: int, tokenizer: ByteTokenizer | RememberingTokenizer) -> Window:
    return fit_before(text, cursor, budget, tokenizer, lambda start, end: text[start:end])


texts = st.lists(st.sampled_from(["a", " ", "\n", "é", "🙂", "\r\n", "x = 1\n", "    y\n", "z" * 200])).map("".join)


@settings(deadline=None)
@given(texts, st.integers(0, 5), st.data(), st.integers(0, 900))
def test_an_end_of_the_text_within_the_budget(text: str, times: int, data: st.DataObject, budget: int) -> None:
    text *= 1 + times
    cursor = data.draw(st.integers(0, len(text)))
    tokenizer = ByteTokenizer()
    window = window_of(text, cursor, budget, tokenizer)
    assert window.text == text[window.start : cursor]
    assert window.token_ids == tokenizer.encode(window.text)
    assert len(window.token_ids) <= budget
    if len(tokenizer.encode(text[:cursor])) <= budget:
        assert window.start == 0


def test_it_starts_at_a_line_and_uses_most_of_the_budget_at_every_place() -> None:
    tokenizer = ByteTokenizer()
    for cursor in range(4000, len(CODE), 37):
        window = window_of(CODE, cursor, 2000, tokenizer)
        assert CODE[window.start - 1] == "\n"
        assert len(window.token_ids) > 2000 * 0.55


def test_typing_moves_the_start_seldom_and_encodes_only_the_last_piece() -> None:
    inner = CountingTokenizer()
    tokenizer = RememberingTokenizer(inner)
    starts, costs = [], []
    for cursor in range(9000, 9800):
        before = inner.encoded_characters
        starts.append(window_of(CODE, cursor, 4000, tokenizer).start)
        costs.append(inner.encoded_characters - before)
    assert len(set(starts)) <= 3
    assert starts == sorted(starts)
    assert sorted(costs)[len(costs) * 9 // 10] <= 3 * 512


def test_in_a_session_the_start_stays_while_budgets_waver_and_moves_by_an_eighth() -> None:
    tokenizer = RememberingTokenizer(ByteTokenizer())
    starts = []
    last = -1
    for typed in range(800):
        budget = 4000 - typed % 7  # the snippets take a little more or less
        cursor = 9000 + typed
        window = fit_before(
            CODE, cursor, budget, tokenizer, lambda start, end: CODE[start:end], scale=4000, last_start=last
        )
        assert window.text == CODE[window.start : cursor]
        assert budget // 2 <= len(window.token_ids) <= budget
        if window.start != last:
            assert len(window.token_ids) <= budget - budget // 8
            starts.append(window.start)
        last = window.start
    assert len(starts) <= 1 + 800 // (4000 // 8) + 1
    assert starts == sorted(starts)


def test_a_line_without_end_is_cut_inside_and_costs_what_fits() -> None:
    inner = CountingTokenizer()
    window = window_of("x" * 1_000_000, 999_999, 500, inner)
    assert 250 <= len(window.token_ids) <= 500
    assert inner.encoded_characters < 5_000


@settings(deadline=None)
@given(st.text(max_size=40), st.integers(0, 40_000), st.integers(0, 3_000))
def test_covered_text_is_the_redacted_document_wherever_it_is_read(word: str, start: int, length: int) -> None:
    secret = 'password = "tr0ub4dor&3xyzzy"\nAWS = "AKIAIOSFODNN7REALKEY"\n'
    document = "".join(f"line {n} {word}\n" + (secret if n % 97 == 0 else "") for n in range(2500))
    covered = CoveredText(document, BoundedCache(1 << 20, str.__len__))
    assert covered(start, start + length) == redact(document)[start : start + length]
