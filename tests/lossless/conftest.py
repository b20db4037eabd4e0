"""The oracle: the plainest decoding there is, and requests of all kinds to hold every engine against it."""

from __future__ import annotations

import random
from collections.abc import Callable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass

import pytest
import torch

from zenray.engine.engine import Engine
from zenray.engine.noise import choice_seed
from zenray.engine.request import Delta, DrafterLoad, Final, GenerateRequest, Limits, Priority, Sampling
from zenray.engine.sampler import apply_penalties, choose_token
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


def decode_plainly(
    model: LoadedModel, prompt: tuple[int, ...], forced: bytes, sampling: Sampling, length: int
) -> list[int]:
    """The whole sequence anew for every token: no cache, no batch, no draft. Tokens that contradict `forced` are
    made impossible one by one."""
    token_ids = list(prompt)
    spelled = b""
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
        if remaining := forced[len(spelled) :]:
            for token_id in range(len(penalised_V)):
                text = model.tokenizer.token_bytes(token_id)
                if not text or text[: len(remaining)] != remaining[: len(text)]:
                    penalised_V[token_id] = float("-inf")
        token_ids.append(choose_token(penalised_V, sampling, choice_seed(sampling.seed or 0, 0), count))
        spelled += model.tokenizer.token_bytes(token_ids[-1])
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
def make_oracle() -> Callable[[LoadedModel], Oracle]:
    def make(model: LoadedModel) -> Oracle:
        return Oracle(
            {
                (p, s): decode_plainly(model, prompt, FORCED[p], sampling, LENGTH)
                for p, prompt in enumerate(PROMPTS)
                for s, sampling in enumerate(SAMPLINGS)
            }
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
