"""The oracle: the plainest decoding there is, and requests of all kinds to hold every engine against it."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
import torch

from zenray.engine.engine import Engine
from zenray.engine.noise import choice_seed
from zenray.engine.request import Delta, Final, GenerateRequest, Limits, Priority, Sampling
from zenray.engine.sampler import apply_penalties, choose_token
from zenray.model.load import LoadedModel
from zenray.ops.batch import StepBatch

PROMPTS = (
    tuple(b"def add(a, b):\n    return a + b\n\n"),
    tuple(b"def add(a, b):\n    return a - b"),
    tuple(b"x"),
    tuple(b"import os\n" * 7),
)
SAMPLINGS = (
    Sampling(),
    Sampling(temperature=1.0, seed=1),
    Sampling(temperature=0.8, top_k=20, top_p=0.9, seed=2),
    Sampling(temperature=1.3, repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.3, seed=3),
)
LENGTH = 16


def decode_plainly(model: LoadedModel, prompt: tuple[int, ...], sampling: Sampling, length: int) -> list[int]:
    """The whole sequence anew for every token: no cache, no batch, no draft."""
    token_ids = list(prompt)
    for _ in range(length):
        count = len(token_ids)
        batch = StepBatch(
            token_ids_T=torch.tensor(token_ids),
            positions_T=torch.arange(count),
            query_starts=torch.tensor([0, count], dtype=torch.int32),
            context_lens_S=torch.tensor([count], dtype=torch.int32),
            block_tables_SB=torch.tensor([[0]], dtype=torch.int32),
            slots_T=torch.arange(count),
            logit_rows_R=torch.tensor([count - 1]),
            query_starts_list=[0, count],
            context_lens_list=[count],
        )
        logits_V = model.decoder.forward(batch, model.decoder.new_caches(1, count))[0]
        output = token_ids[len(prompt) :]
        counts = {token: output.count(token) for token in output}
        penalised_V = apply_penalties(logits_V, sampling, token_ids, counts)
        token_ids.append(choose_token(penalised_V, sampling, choice_seed(sampling.seed or 0, 0), count))
    return token_ids[len(prompt) :]


@dataclass(frozen=True)
class Oracle:
    """What every case must give. A case is (index of prompt, index of sampling)."""

    streams: dict[tuple[int, int], list[int]]

    def truth(self, prompt: tuple[int, ...], sampling: Sampling) -> list[int]:
        return self.streams[PROMPTS.index(prompt), SAMPLINGS.index(sampling)]

    def check(self, engine: Engine, chance: random.Random, num_repeats: int = 1) -> None:
        """All cases arrive at random moments with random priorities; some are cancelled; every survivor is
        exact, its usage adds up, and the engine's books are in order after every step."""
        cases = list(self.streams) * num_repeats
        chance.shuffle(cases)
        running: dict[int, tuple[int, int]] = {}
        streams: dict[int, list[int]] = {}
        while cases or engine.has_work:
            while cases and chance.random() < 0.4:
                p, s = cases.pop()
                limits = Limits(max_tokens=LENGTH, ignore_eos=True)
                priority = chance.choice(list(Priority))
                handle = engine.add(
                    GenerateRequest("r", PROMPTS[p], SAMPLINGS[s], limits, priority, chance.choice(("", "a", "b")))
                )
                running[handle], streams[handle] = (p, s), []
            if running and chance.random() < 0.02:
                handle = chance.choice(list(running))
                engine.cancel(handle)
                del running[handle]
            for handle, event in engine.step():
                if isinstance(event, Delta):
                    streams[handle] += event.token_ids
                if isinstance(event, Final) and handle in running:
                    usage = event.usage
                    accepted = sum(drafter.accepted_tokens for drafter in usage.drafters)
                    assert usage.completion_tokens == usage.rounds + accepted == LENGTH
            engine.check_integrity()
        for handle, case in running.items():
            assert streams[handle] == self.streams[case], f"case {case}"


@pytest.fixture(scope="session")
def oracle(tiny_model: LoadedModel) -> Oracle:
    return Oracle(
        {
            (p, s): decode_plainly(tiny_model, prompt, sampling, LENGTH)
            for p, prompt in enumerate(PROMPTS)
            for s, sampling in enumerate(SAMPLINGS)
        }
    )
