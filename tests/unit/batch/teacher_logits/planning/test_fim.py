"""Fill in the middle: nothing of a text is lost, every place is as likely, and every piece fits."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.unit.batch.teacher_logits.planning.planning_examples import (
    TEXTS,
    TOKENIZERS,
    RunTokenizer,
    by_path,
    documents_of,
    read_infill,
)
from zenray.batch.teacher_logits.model import Mode
from zenray.batch.teacher_logits.planning.cut import cut
from zenray.batch.teacher_logits.planning.draws import Draws
from zenray.batch.teacher_logits.planning.fim import Split, arrange, split_text
from zenray.batch.teacher_logits.planning.plan import Plan, plan_sequences
from zenray.batch.teacher_logits.planning.settings import PlanSettings
from zenray.errors import ConfigError
from zenray.model.tokenizer import ByteTokenizer, Tokenizer

PREFIX, SUFFIX, MIDDLE, END = 258, 260, 259, 256


def planned(texts: list[str], tokenizer: Tokenizer, seed: int, window_tokens: int, **settings: float) -> Plan:
    made = PlanSettings(window_tokens, 8, min_document_tokens=1, **settings)  # type: ignore[arg-type]
    return plan_sequences(documents_of(texts), tokenizer, made, seed, say=lambda _: None)


def test_the_two_formats_are_those_of_the_paper() -> None:
    split = Split("ab", "cd", "ef")
    a, b, c, d, e, f = b"abcdef"
    assert list(arrange(split, Mode.PSM, ByteTokenizer(), END)) == [PREFIX, a, b, SUFFIX, e, f, MIDDLE, c, d, END]
    assert list(arrange(split, Mode.SPM, ByteTokenizer(), END)) == [PREFIX, SUFFIX, e, f, MIDDLE, a, b, c, d, END]


@given(TEXTS, st.sampled_from(TOKENIZERS), st.integers(0, 5), st.integers(16, 90))
def test_the_pieces_of_a_document_read_back_to_its_text_and_fit(
    text: str, tokenizer: Tokenizer, seed: int, window_tokens: int
) -> None:
    plan = planned([text], tokenizer, seed, window_tokens, fim_rate=1)
    assume(not plan.account.windows_left_out)  # Of two equal pieces that are split alike one is planned.
    segments = by_path(plan.sequences)["0.py"]
    assert all(len(each.token_ids) <= window_tokens for each in segments)
    assert all(each.first_scored == 1 for each in segments)
    assert "".join(read_infill(each, tokenizer).text for each in segments) == text


@given(st.integers(0, 10_000), st.integers(200, 3000))
def test_a_piece_fits_even_where_every_split_makes_many_tokens_of_one(seed: int, length: int) -> None:
    plan = planned(["a" * length], RunTokenizer(), seed, 16, fim_rate=1)
    assert all(len(each.token_ids) <= 16 for sequence in plan.sequences for each in sequence.segments)


@given(TEXTS, st.data())
def test_a_cut_is_between_characters_and_behind_a_line_where_it_can_be(text: str, data: st.DataObject) -> None:
    encoded = text.encode()
    starts = [len(text[:index].encode()) for index in range(len(text))]
    begin = data.draw(st.sampled_from(starts))
    most = data.draw(st.integers(begin + 1, len(encoded)))
    end = cut(encoded, begin, most)
    assert begin < end and end in [*starts, len(encoded)]
    if most >= len(encoded):
        assert end == len(encoded)
    elif b"\n" in encoded[(half := begin + (most - begin) // 2) : most]:
        assert half < end <= most and encoded[end - 1 : end] == b"\n" and b"\n" not in encoded[end:most]
    else:
        fitting = [start for start in starts if begin < start <= most]
        assert end == (fitting[-1] if fitting else next(start for start in [*starts, len(encoded)] if start > begin))


def test_every_pair_of_places_is_equally_likely() -> None:
    """Pearson's test over the 16 pairs of places in a text of three characters, which make 10 splits."""
    num_draws, text = 8000, "abc"
    found = Counter(split_text(text, Draws(0, str(number)), piece=number % 3) for number in range(num_draws))
    places = [(first, second) for first in range(4) for second in range(4)]
    expected = Counter(Split(text[: min(p)], text[min(p) : max(p)], text[max(p) :]) for p in places)
    assert found.keys() == expected.keys() and len(expected) == 10
    statistic = sum(
        (found[split] - num_draws * pairs / 16) ** 2 / (num_draws * pairs / 16) for split, pairs in expected.items()
    )
    assert statistic < 33.7  # With 9 degrees of freedom: fair draws pass 9999 times in 10,000.


@pytest.mark.parametrize(("fim_rate", "spm_share"), [(0.5, 0.5), (0.9, 0.2), (0, 0.5), (1, 0), (1, 1)])
def test_modes_come_at_their_rates(fim_rate: float, spm_share: float) -> None:
    num_documents = 2000
    texts = [f"def f{number}(): return {number}" for number in range(num_documents)]
    plan = planned(texts, ByteTokenizer(), 7, 64, fim_rate=fim_rate, spm_share=spm_share)
    found = plan.account.segments_by_mode
    assert found.total() == num_documents
    rates = {Mode.PLAIN: 1 - fim_rate, Mode.PSM: fim_rate * (1 - spm_share), Mode.SPM: fim_rate * spm_share}
    for mode, rate in rates.items():
        four_sigma = 4 * (num_documents * rate * (1 - rate)) ** 0.5
        assert abs(found[mode.value] - num_documents * rate) <= four_sigma


def test_every_piece_of_a_document_has_draws_of_its_own() -> None:
    text = "".join(f"line {number}\n" for number in range(400))
    plan = planned([text], ByteTokenizer(), 0, 128, fim_rate=1)
    segments = by_path(plan.sequences)["0.py"]
    assert len(segments) > 20 and {each.mode for each in segments} == {Mode.PSM, Mode.SPM}
    lengths = {len(read_infill(each, ByteTokenizer()).split[-1]) for each in segments}
    assert len(lengths) > len(segments) / 2


def test_a_model_without_the_control_tokens_is_told_what_to_set() -> None:
    class PlainTokenizer(ByteTokenizer):
        def __init__(self) -> None:
            super().__init__()
            self.fim = None

    with pytest.raises(ConfigError, match="set fim_rate to 0"):
        planned(["a text"], PlainTokenizer(), 0, 64, fim_rate=0.5)
    assert planned(["a text"], PlainTokenizer(), 0, 64, fim_rate=0).account.num_scored == len("a text")
