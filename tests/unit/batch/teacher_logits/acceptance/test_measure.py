"""A draft model measured against records is accepted as often as when it really drafts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zenray.batch.teacher_logits.acceptance.measure import Accepted, TeacherText, draft_rows, measure_acceptance
from zenray.engine.noise import gumbel
from zenray.engine.scoring import ScoredRows
from zenray.model.decoder import Decoder
from zenray.model.evaluate import sequence_logits
from zenray.model.load import LoadedModel, load_preset

NUM_TOKENS = 70


@pytest.fixture(scope="module")
def draft(tiny_model: LoadedModel) -> Decoder:
    """A model that is nearly the teacher: its weights with a little noise."""
    decoder = load_preset("tiny", seed=0, dtype=torch.float64).decoder
    noise = torch.Generator().manual_seed(1)
    for layer in decoder.weights.layers:
        shape = layer.input_norm_D.shape
        layer.input_norm_D.add_(0.3 * torch.randn(shape, generator=noise, dtype=torch.float64))
    return decoder


def records(decoder: Decoder, token_ids: tuple[int, ...], first: int, max_head: int) -> ScoredRows:
    """Exact records of a text: heads of at most `max_head` tokens, no draws."""
    logprobs = torch.log_softmax(sequence_logits(decoder, token_ids)[first - 1 : -1], -1).numpy()
    order = np.argsort(-logprobs, axis=-1, kind="stable")[:, :max_head]
    heads = np.take_along_axis(logprobs, order, -1)
    gold = np.array(token_ids[first:])
    return ScoredRows(
        first_position=first,
        gold_logprobs_R=logprobs[np.arange(len(gold)), gold],
        entropies_R=-(np.exp(logprobs) * logprobs).sum(-1),
        head_counts_R=np.full(len(gold), max_head, dtype=np.int32),
        head_ids_N=order.ravel().astype(np.int32),
        head_logprobs_N=heads.ravel(),
        tail_masses_R=(1 - np.exp(heads).sum(-1)).clip(0),
        tail_ids_RS=np.zeros((len(gold), 0), dtype=np.int32),
    )


def continued(decoder: Decoder, start: tuple[int, ...], seed: int | None) -> tuple[int, ...]:
    """The teacher's own text: greedy, or at temperature 1 with the noise of `seed`."""
    token_ids = list(start)
    ids = torch.arange(decoder.config.vocab_size)
    while len(token_ids) < NUM_TOKENS:
        scores = torch.log_softmax(sequence_logits(decoder, token_ids)[-1], -1)
        if seed is not None:
            scores = scores + gumbel(seed, len(token_ids), ids)
        token_ids.append(int(scores.argmax()))
    return tuple(token_ids)


def test_greedy_rounds_are_those_of_real_speculation(tiny_model: LoadedModel, draft: Decoder) -> None:
    """On the teacher's own greedy text a draft is accepted for as long as the draft model's choices are the text."""
    text = continued(tiny_model.decoder, (5, 17, 40, 3), None)
    rows = records(tiny_model.decoder, text, 4, 16)  # From the first token on that is its own.
    found = measure_acceptance(draft, [TeacherText("python", text, rows)], gamma=4)["python"]
    choices = sequence_logits(draft, text[:-1]).argmax(-1).tolist()
    matches = [choices[position - 1] == text[position] for position in range(4, NUM_TOKENS)]
    rounds, start = [], 0
    while start < len(matches):
        run = next((i for i, hit in enumerate(matches[start : start + 4]) if not hit), 4)
        rounds.append((run, len(matches) - start))
        start += run + 1
    for place in range(4):
        alive = [run for run, left in rounds if run >= place and place < left]
        assert found.greedy.weights[place] == len(alive)
        assert found.greedy.accepted[place] == sum(run > place for run in alive)
    assert 0 < found.greedy.rates[0] < 1, "a draft model that is never or always right shows nothing"


def test_sampled_rates_are_those_of_equal_noise(tiny_model: LoadedModel, draft: Decoder) -> None:
    """Both models choose with the engine's noise, at every position of a text and for many seeds."""
    text = continued(tiny_model.decoder, (5, 17, 40, 3), 8)
    rows = records(tiny_model.decoder, text, 2, 264)
    found = measure_acceptance(draft, [TeacherText("python", text, rows)], gamma=1)["python"]
    assert np.allclose(found.sampled_lower.rates, found.sampled_upper.rates), "whole distributions leave no doubt"
    both = [torch.log_softmax(sequence_logits(each, text[:-1])[1:], -1) for each in (tiny_model.decoder, draft)]
    ids = torch.arange(both[0].shape[1])
    agreed = [
        float((both[0][row] + noise).argmax() == (both[1][row] + noise).argmax())
        for seed in range(60)
        for row in range(len(both[0]))
        for noise in [gumbel(seed, row, ids)]
    ]
    error = np.std(agreed) / np.sqrt(len(agreed))
    assert abs(np.mean(agreed) - found.sampled_lower.rates[0]) < 4 * error


def test_shorter_heads_only_widen_the_bounds(tiny_model: LoadedModel, draft: Decoder) -> None:
    text = continued(tiny_model.decoder, (9, 9, 1, 2), 3)
    before: Accepted | None = None
    for max_head in (264, 64, 8):
        rows = records(tiny_model.decoder, text, 1, max_head)
        found = measure_acceptance(draft, [TeacherText("c", text, rows)], gamma=3)["c"]
        if before is not None:
            assert found.sampled_lower.rates[0] <= before.sampled_lower.rates[0] + 1e-9
            assert found.sampled_upper.rates[0] >= before.sampled_upper.rates[0] - 1e-9
        assert np.array_equal(found.greedy.accepted, (before or found).greedy.accepted)
        before = found


def test_a_token_outside_the_head_is_still_known(tiny_model: LoadedModel, draft: Decoder) -> None:
    text = continued(tiny_model.decoder, (1, 2, 3), 5)
    rows = draft_rows(draft, TeacherText("c", text, records(tiny_model.decoder, text, 1, 2)))
    exact = torch.softmax(sequence_logits(draft, text[:-1]), -1)
    for row, gold in enumerate(text[1:]):
        ((column,),) = np.nonzero(rows.ids_RK[row] == gold)
        assert np.isclose(rows.q_RK[row, column], exact[row, gold])
        assert rows.p_RK[row, column] > 0


def test_the_teacher_accepts_itself(tiny_model: LoadedModel) -> None:
    text = continued(tiny_model.decoder, (1, 2, 3), None)
    rows = records(tiny_model.decoder, text, 3, 264)
    found = measure_acceptance(tiny_model.decoder, [TeacherText("c", text, rows)], gamma=8)["c"]
    assert np.allclose(found.sampled_lower.rates, 1) and np.allclose(found.greedy.rates, 1)
    assert np.isclose(found.sampled_lower.tokens_per_round, 9)
