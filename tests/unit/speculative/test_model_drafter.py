"""The colocated draft model: equal to its verifier it is always right; it stops where drafting no longer pays."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.engine.request import GenerateRequest, Limits, Sampling
from zenray.engine.sequence import Sequence
from zenray.model.load import LoadedModel, load_preset
from zenray.speculative.draft_model import DraftModel
from zenray.speculative.drafter import Ask
from zenray.speculative.model_drafter import ModelDrafter

SAMPLINGS = (
    Sampling(),
    Sampling(temperature=0.9),
    Sampling(temperature=1.2, top_k=12, top_p=0.8),
    Sampling(temperature=0.6, repetition_penalty=1.2, frequency_penalty=0.3),
)


def a_sequence(seed: int = 0, sampling: Sampling | None = None, num_prompt: int = 12, **limits: object) -> Sequence:
    ids = torch.randint(0, 256, (num_prompt,), generator=torch.Generator().manual_seed(seed)).tolist()
    limits = {"ignore_eos": True, **limits}
    request = GenerateRequest(f"r{seed}", tuple(ids), sampling or Sampling(), Limits(**limits))  # type: ignore[arg-type]
    return Sequence(seed, 0, request, seed, 0.0, seed)


def a_drafter(model: LoadedModel, num_blocks: int = 64) -> ModelDrafter:
    return ModelDrafter(DraftModel(model, num_blocks, block_size=4), model)


def ask(sequence: Sequence, max_tokens: int, min_survival: float = 0.0, probability: float = 0.9) -> Ask:
    return Ask(sequence, max_tokens, min_survival, lambda confidence: probability)


def commit(sequence: Sequence, token_ids: list[int]) -> None:
    for token_id in token_ids:
        sequence.append_token(token_id, 0.0)


class Verifier:
    """Chooses a sequence's next tokens one at a time, by a model of its own."""

    def __init__(self, model: LoadedModel) -> None:
        self._draft = DraftModel(model, num_blocks=64, block_size=4)

    def next_tokens(self, sequence: Sequence, count: int) -> list[int]:
        sampling = sequence.request.sampling
        chain = self._draft.open(sequence.token_ids, sampling, sequence.seed, sequence.num_prompt)
        for _ in range(count):
            self._draft.extend([chain])
        chosen = chain.token_ids[len(sequence.token_ids) :]
        self._draft.close(chain)
        return chosen


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_draft_equal_to_its_verifier_is_always_accepted(tiny_model: LoadedModel, sampling: Sampling) -> None:
    drafter, verifier = a_drafter(tiny_model), Verifier(tiny_model)
    sequences = [a_sequence(seed, sampling) for seed in range(3)]
    for sequence in sequences:
        drafter.opened(sequence)
        commit(sequence, verifier.next_tokens(sequence, 1))
    for _ in range(4):
        drafts = drafter.offer([ask(sequence, 5) for sequence in sequences])
        for sequence, draft in zip(sequences, drafts, strict=True):
            assert draft is not None
            chosen = verifier.next_tokens(sequence, 6)
            assert list(draft.token_ids) == chosen[:5]
            commit(sequence, chosen)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_whatever_is_committed_the_next_draft_follows_it(tiny_model: LoadedModel, data: st.DataObject) -> None:
    drafter, verifier = a_drafter(tiny_model, data.draw(st.integers(6, 64))), Verifier(tiny_model)
    sequences = [a_sequence(seed, data.draw(st.sampled_from(SAMPLINGS))) for seed in range(2)]
    for sequence in sequences:
        drafter.opened(sequence)
    for _ in range(data.draw(st.integers(1, 5))):
        asked = [data.draw(st.integers(1, 6)) for _ in sequences]
        drafts = drafter.offer([ask(s, count) for s, count in zip(sequences, asked, strict=True)])
        for sequence, count, draft in zip(sequences, asked, drafts, strict=True):
            drafted = [] if draft is None else list(draft.token_ids)
            assert len(drafted) <= count
            assert drafted == verifier.next_tokens(sequence, len(drafted))
            num_accepted = data.draw(st.integers(0, len(drafted)))
            commit(sequence, [*drafted[:num_accepted], data.draw(st.integers(0, 255))])
    drafter.shutdown()
    drafter._draft.check_integrity()


def test_each_sequence_gets_what_it_asks_for(tiny_model: LoadedModel) -> None:
    drafter = a_drafter(tiny_model)
    sequences = [a_sequence(seed) for seed in range(4)]
    for sequence in sequences:
        drafter.opened(sequence)
    drafts = drafter.offer([ask(s, count) for s, count in zip(sequences, (1, 7, 3, 2), strict=True)])
    assert [len(draft.token_ids) for draft in drafts if draft] == [1, 7, 3, 2]
    assert all(draft and len(draft.classes) == len(draft.token_ids) for draft in drafts)


def test_a_draft_ends_once_its_survival_is_too_small(tiny_model: LoadedModel) -> None:
    drafter = a_drafter(tiny_model)
    careful, bold = a_sequence(0), a_sequence(1)
    drafter.opened(careful)
    drafter.opened(bold)
    drafts = drafter.offer([ask(careful, 8, min_survival=0.3, probability=0.5), ask(bold, 8, probability=0.5)])
    assert [len(draft.token_ids) for draft in drafts if draft] == [2, 8], "0.5, then 0.25"


def test_ids_that_only_the_draft_has_are_never_drafted(tiny_model: LoadedModel) -> None:
    padded = load_preset("tiny", {"vocab_size": 2 * tiny_model.config.vocab_size}, dtype=torch.float64)
    drafter = ModelDrafter(DraftModel(padded, 64, block_size=4), tiny_model)
    sequence = a_sequence(sampling=Sampling(temperature=10.0))
    drafter.opened(sequence)
    drafts = []
    for _ in range(10):
        drafts += drafter.offer([ask(sequence, 4)])
        commit(sequence, [1])
    assert None in drafts, "half of the draft's tokens are of no use"
    drafted = [token_id for draft in drafts if draft is not None for token_id in draft.token_ids]
    assert drafted and max(drafted) < tiny_model.config.vocab_size


def test_nothing_is_drafted_behind_the_end_of_the_text(tiny_model: LoadedModel) -> None:
    free = a_sequence(3)
    drafter = a_drafter(tiny_model)
    drafter.opened(free)
    [draft] = drafter.offer([ask(free, 6)])
    assert draft is not None
    stopping = a_sequence(3, stop_token_ids=(draft.token_ids[2],))
    drafter.opened(stopping)
    [shorter] = drafter.offer([ask(stopping, 6)])
    assert shorter is not None
    assert shorter.token_ids == draft.token_ids[: draft.token_ids.index(draft.token_ids[2]) + 1]


class Clock:
    """Each forward of `draft` takes 2 ms and 1 ms per token."""

    def __init__(self, draft: DraftModel) -> None:
        self.now_s = 0.0
        forward = draft.model.decoder.forward

        def timed(batch: object, caches: object) -> torch.Tensor:
            self.now_s += 0.002 + 0.001 * len(batch.token_ids_T)  # type: ignore[attr-defined]
            return forward(batch, caches)  # type: ignore[arg-type]

        draft.model.decoder.forward = timed  # type: ignore[method-assign, assignment]

    def __call__(self) -> float:
        return self.now_s


def test_costs_are_those_measured() -> None:
    model = load_preset("tiny", seed=0, dtype=torch.float64)
    draft = DraftModel(model, num_blocks=256, block_size=4)
    drafter = ModelDrafter(draft, model, Clock(draft))
    sequence = a_sequence(0, num_prompt=102)
    drafter.opened(sequence)
    cost = drafter.cost(sequence, batch_size=1)
    assert cost is not None
    assert cost.token_ms == pytest.approx(3.0)
    assert cost.start_ms == pytest.approx(100.0, rel=0.03)
    for batch_size in (2, 8, 12):
        batched = drafter.cost(sequence, batch_size)
        assert batched is not None
        assert batched.token_ms == pytest.approx(2.0 + batch_size)

    [drafted] = drafter.offer([ask(sequence, 4)])
    assert drafted is not None
    commit(sequence, [*drafted.token_ids, 1])
    in_sync = drafter.cost(sequence, batch_size=1)
    assert in_sync is not None
    assert in_sync.start_ms == 0.0


def test_a_sequence_beyond_the_drafts_reach_has_no_price(tiny_model: LoadedModel) -> None:
    drafter = a_drafter(tiny_model, num_blocks=4)
    long = a_sequence(0, num_prompt=20)
    drafter.opened(long)
    assert drafter.cost(long, batch_size=1) is None
    assert drafter.offer([ask(long, 4)]) == [None]
    drafter.closed(long)


def test_closed_sequences_leave_nothing_behind(tiny_model: LoadedModel) -> None:
    drafter = a_drafter(tiny_model)
    sequences = [a_sequence(seed) for seed in range(5)]
    for sequence in sequences:
        drafter.opened(sequence)
    drafter.offer([ask(sequence, 3) for sequence in sequences])
    for sequence in sequences:
        drafter.closed(sequence)
    drafter._draft.check_integrity()
    assert not drafter._chains


def test_a_prompt_with_ids_that_only_the_verifier_has_is_not_drafted_for(tiny_model: LoadedModel) -> None:
    """Raw token prompts may name the padding of a wider embedding; one such request takes nothing from the next."""
    drafter = a_drafter(tiny_model)
    request = GenerateRequest("r", (1, 2, tiny_model.config.vocab_size), Sampling(), Limits())
    strange, usual = Sequence(1, 0, request, 0, 0.0, 1), a_sequence()
    for sequence in (strange, usual):
        drafter.opened(sequence)
    assert drafter.cost(strange, 2) is None
    assert drafter.cost(usual, 2) is not None
    drafter.closed(strange)
    (draft,) = drafter.offer([ask(usual, 4)])
    assert draft is not None
