"""The oracle: the plainest decoding and scoring, and requests of all kinds to hold every engine against it."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from zenray.engine.engine import Engine
from zenray.engine.noise import choice_seed, uniform
from zenray.engine.request import (
    Delta,
    DrafterLoad,
    Final,
    GenerateRequest,
    Limits,
    Priority,
    Sampling,
    Scored,
    Started,
)
from zenray.engine.sampler import apply_penalties, choose_token
from zenray.engine.scoring import ScoredRows, ScoreFormat, Scoring, join_rows
from zenray.engine.sequence import Sequence
from zenray.engine.speculation import Draft, Round
from zenray.model.load import LoadedModel
from zenray.ops.batch import StepBatch

PROMPTS = (
    tuple(b"def add(a, b):\n    return a + b\n\n"),
    tuple(b"def add(a, b):\n    return a - b"),
    tuple(b"x"),
    tuple(b"import os\n" * 7),
    tuple(b"y = th"),
)
SAMPLINGS = (
    Sampling(),
    Sampling(temperature=1.0, seed=1),
    Sampling(temperature=0.8, top_k=20, top_p=0.9, seed=2),
    Sampling(temperature=1.3, repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.3, seed=3),
)
FORCED = (b"", b"", b"", b"", b"is_")
"""What the output of each prompt must begin with."""
LENGTH = 16
SCORINGS = (
    Scoring(ScoreFormat(max_head=6, head_mass=0.9, num_tail_samples=4, least_probability=0.01), hidden_layers=(2, 0)),
    Scoring(ScoreFormat(max_head=6, head_mass=1.0, num_tail_samples=1), first_scored=5),
    Scoring(ScoreFormat(max_head=200, head_mass=0.9, num_tail_samples=0), first_scored=2, hidden_layers=(1,)),
)
SCORED_AT_ONCE = 5
"""Of all that could be scored, how many are beside the cases of one check."""


def decode_plainly(
    model: LoadedModel, prompt: tuple[int, ...], forced: bytes, sampling: Sampling, length: int
) -> list[int]:
    """The whole sequence anew for every token: no cache, no batch, no draft. Tokens that contradict `forced` are
    made impossible one by one."""
    token_ids = list(prompt)
    spelled = b""
    for _ in range(length):
        count = len(token_ids)
        batch = whole_sequence(token_ids, [count - 1])
        logits_V = model.decoder.forward(batch, model.decoder.new_caches(1, count))[0]
        output = token_ids[len(prompt) :]
        counts = {token: output.count(token) for token in output}
        penalised_V = apply_penalties(logits_V, sampling, token_ids, counts)
        if remaining := forced[len(spelled) :]:
            for token_id in range(len(penalised_V)):
                text = model.tokenizer.token_bytes(token_id)
                if not text or text[: len(remaining)] != remaining[: len(text)]:
                    penalised_V[token_id] = float("-inf")
        token_ids.append(choose_token(penalised_V, sampling, choice_seed(sampling.seed or 0, 0), count))
        spelled += model.tokenizer.token_bytes(token_ids[-1])
    return token_ids[len(prompt) :]


def whole_sequence(token_ids: Ordered[int], rows: list[int]) -> StepBatch:
    """All of it in one step and one block."""
    count = len(token_ids)
    return StepBatch(
        token_ids_T=torch.tensor(token_ids),
        positions_T=torch.arange(count),
        query_starts=torch.tensor([0, count], dtype=torch.int32),
        context_lens_S=torch.tensor([count], dtype=torch.int32),
        block_tables_SB=torch.tensor([[0]], dtype=torch.int32),
        slots_T=torch.arange(count),
        logit_rows_R=torch.tensor(rows),
        query_starts_list=[0, count],
        context_lens_list=[count],
    )


@dataclass(frozen=True, repr=False)
class TrueScores:
    """What scoring a prompt must give, and the hidden states [R, D] of its records by layer."""

    prompt: tuple[int, ...]
    scoring: Scoring
    seed: int
    records: ScoredRows
    hidden: dict[int, np.ndarray]

    def check(self, got: ScoredRows) -> None:
        assert (got.first_position, got.end_position) == (self.scoring.first_scored, len(self.prompt))
        for name in ("head_counts_R", "head_ids_N", "tail_ids_RS"):
            np.testing.assert_array_equal(getattr(got, name), getattr(self.records, name), name)
        for name in ("gold_logprobs_R", "entropies_R", "head_logprobs_N", "tail_masses_R"):
            np.testing.assert_allclose(getattr(got, name), getattr(self.records, name), rtol=1e-6, err_msg=name)
        assert set(got.hidden) == set(self.scoring.hidden_layers)
        for layer, states in got.hidden.items():
            errors_RD = np.abs(states.values_RD * states.scales_R[:, None] - self.hidden[layer])
            assert (errors_RD <= 0.5001 * states.scales_R[:, None]).all(), f"layer {layer}"
            assert (np.abs(states.values_RD.astype(int)).max(axis=1) == 127).all(), f"layer {layer}"


def score_plainly(model: LoadedModel, prompt: tuple[int, ...], scoring: Scoring, seed: int) -> TrueScores:
    """One step of all tokens and all of its logits, then record after record as its definition says."""
    format, first = scoring.format, scoring.first_scored
    batch, caches = whole_sequence(prompt, list(range(first - 1, len(prompt) - 1))), model.decoder.new_caches(1, 100)
    states = model.decoder.states(batch, caches, scoring.hidden_layers)
    logprobs_RV = torch.log_softmax(model.decoder.head(states.final_RD), dim=1).numpy()
    heads, tail_masses, tail_ids = [], [], []
    for position, logprobs_V in enumerate(logprobs_RV, first):
        tail_V = np.exp(logprobs_V)
        head = sorted(range(len(tail_V)), key=lambda token: (-tail_V[token], token))[: format.max_head]
        if format.head_mass < 1:
            head = head[: 1 + int(np.searchsorted(np.cumsum(tail_V[head]), format.head_mass))]
        head = [token for place, token in enumerate(head) if place == 0 or tail_V[token] >= format.least_probability]
        tail_V[head] = 0
        quantiles = (np.arange(format.num_tail_samples) + uniform(seed, position)) / max(1, format.num_tail_samples)
        heads.append(head)
        tail_masses.append(tail_V.sum())
        tail_ids.append(np.searchsorted(tail_V.cumsum(), quantiles * tail_V.sum(), side="right"))
    records = ScoredRows(
        first_position=first,
        gold_logprobs_R=logprobs_RV[np.arange(len(heads)), prompt[first:]],
        entropies_R=-(np.exp(logprobs_RV) * logprobs_RV).sum(axis=1),
        head_counts_R=np.array([len(head) for head in heads]),
        head_ids_N=np.concatenate(heads),
        head_logprobs_N=np.concatenate([row[head] for row, head in zip(logprobs_RV, heads, strict=True)]),
        tail_masses_R=np.array(tail_masses),
        tail_ids_RS=np.array(tail_ids),
    )
    hidden = {layer: hidden_RD.numpy() for layer, hidden_RD in states.hidden_RD.items()}
    return TrueScores(prompt, scoring, seed, records, hidden)


@dataclass(frozen=True)
class Oracle:
    """What every case must give. A case is (index of prompt, index of sampling); `scores` are of prompts read
    beside."""

    streams: dict[tuple[int, int], list[int]]
    scores: tuple[TrueScores, ...]

    def truth(self, prompt: tuple[int, ...], sampling: Sampling) -> list[int]:
        return self.streams[PROMPTS.index(prompt), SAMPLINGS.index(sampling)]

    def check(self, engine: Engine, chance: random.Random, num_repeats: int = 1) -> None:
        """All cases, and some prompts to be scored, arrive at random moments with random priorities; some are
        cancelled; every survivor is exact, its usage adds up, and the engine's books are in order after every step."""
        cases = list(self.streams) * num_repeats
        chance.shuffle(cases)
        running: dict[int, tuple[int, int]] = {}
        streams: dict[int, list[int]] = {}
        to_score = chance.sample(self.scores, min(SCORED_AT_ONCE, len(self.scores)))
        scored: dict[int, TrueScores] = {}
        records: dict[int, list[ScoredRows]] = defaultdict(list)
        while cases or to_score or engine.has_work:
            while cases and chance.random() < 0.4:
                p, s = cases.pop()
                limits = Limits(max_tokens=LENGTH, ignore_eos=True)
                priority = chance.choice(list(Priority))
                handle = engine.add(
                    GenerateRequest(
                        "r",
                        PROMPTS[p],
                        SAMPLINGS[s],
                        limits,
                        priority,
                        chance.choice(("", "a", "b")),
                        forced_prefix=FORCED[p],
                    )
                )
                running[handle], streams[handle] = (p, s), []
            while to_score and chance.random() < 0.2:
                true = to_score.pop()
                priority = chance.choice(list(Priority))
                request = GenerateRequest.to_score("r", true.prompt, true.scoring, true.seed, priority)
                scored[engine.add(request)] = true
            if running and chance.random() < 0.02:
                handle = chance.choice([*running, *scored])
                engine.cancel(handle)
                running.pop(handle, None)
                scored.pop(handle, None)
            for handle, event in engine.step():
                if isinstance(event, Started):
                    assert handle not in records, "a scored prompt starts before its first record"
                if isinstance(event, Scored):
                    records[handle].append(event.rows)
                if isinstance(event, Delta):
                    streams[handle] += event.token_ids
                if isinstance(event, Final) and handle in running:
                    usage = event.usage
                    accepted = sum(drafter.accepted_tokens for drafter in usage.drafters)
                    assert usage.completion_tokens == usage.rounds + accepted == LENGTH
            engine.check_integrity()
        for handle, case in running.items():
            assert streams[handle] == self.streams[case], f"case {case}"
        for handle, true in scored.items():
            true.check(join_rows(records[handle]))


@pytest.fixture(scope="session")
def make_oracle() -> Callable[[LoadedModel], Oracle]:
    def make(model: LoadedModel) -> Oracle:
        return Oracle(
            {
                (p, s): decode_plainly(model, prompt, FORCED[p], sampling, LENGTH)
                for p, prompt in enumerate(PROMPTS)
                for s, sampling in enumerate(SAMPLINGS)
            },
            tuple(
                score_plainly(model, prompt, scoring, seed)
                for prompt in PROMPTS
                for seed, scoring in enumerate(SCORINGS)
                if scoring.first_scored < len(prompt)
            ),
        )

    return make


@pytest.fixture(scope="session")
def oracle(make_oracle: Callable[[LoadedModel], Oracle], tiny_model: LoadedModel) -> Oracle:
    return make_oracle(tiny_model)


class Liar:
    """Proposes the truth with `lie_rate` wrong tokens, at most `gamma` of them, now and then nothing or an
    answer to an older state of the sequence. Checks that it hears of everything exactly once."""

    def __init__(self, oracle: Oracle, gamma: int, lie_rate: float, chance: random.Random) -> None:
        self._oracle, self._gamma, self._lie_rate, self._chance = oracle, gamma, lie_rate, chance
        self._open: set[Sequence] = set()
        self._stale: dict[Sequence, Draft] = {}
        self.accepted_lengths: set[int] = set()

    def opened(self, sequence: Sequence) -> None:
        assert sequence not in self._open
        self._open.add(sequence)

    def propose(self, sequences: Ordered[Sequence], room: int) -> None:
        for sequence in sequences:
            assert sequence in self._open and sequence.is_decoding
            sequence.draft = self._draft(sequence, min(room, sequence.max_draft, self._gamma))
            room -= 0 if sequence.draft is None else len(sequence.draft.token_ids)

    def _draft(self, sequence: Sequence, longest: int) -> Draft | None:
        if longest == 0 or self._chance.random() < 0.1:
            return None
        stale = self._stale.get(sequence)
        truth = self._oracle.truth(sequence.request.prompt_token_ids, sequence.request.sampling)
        coming = truth[sequence.num_output : sequence.num_output + self._chance.randint(1, longest)]
        token_ids = tuple(
            token if self._chance.random() >= self._lie_rate else self._chance.randrange(256) for token in coming
        )
        draft = Draft("liar", token_ids, (0,) * len(token_ids))
        self._stale[sequence] = draft
        if stale is not None and len(stale.token_ids) <= longest and self._chance.random() < 0.1:
            return stale
        return draft or None

    def observe(self, rounds: Ordered[Round], logits_RV: torch.Tensor, step_ms: float, is_pure_decode: bool) -> None:
        for done in rounds:
            assert done.sequence in self._open
            if done.draft is not None:
                assert 0 <= done.num_accepted <= len(done.draft.token_ids)
                self.accepted_lengths.add(done.num_accepted)
            last_rows = logits_RV[done.first_row : done.first_row + done.num_committed]
            assert len(last_rows) == done.num_committed

    def closed(self, sequence: Sequence) -> None:
        self._open.remove(sequence)

    def load(self) -> tuple[DrafterLoad, ...]:
        return ()

    def shutdown(self) -> None:
        assert not self._open


@pytest.fixture(scope="session")
def liar_class() -> type[Liar]:
    return Liar
