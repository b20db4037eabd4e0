"""Drafts stand back: who waits for a first token or for blocks fares as if nobody drafted."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Ordered

import pytest
import torch

from zenray.engine.engine import Engine
from zenray.engine.request import DrafterLoad, GenerateRequest, Limits, Priority, Started
from zenray.engine.sequence import Sequence
from zenray.engine.speculation import Draft, Round

MakeEngine = Callable[..., Engine]


class Babbler:
    """Drafts as much as it may, always the same token."""

    def __init__(self, gamma: int) -> None:
        self._gamma = gamma

    def opened(self, sequence: Sequence) -> None: ...

    def propose(self, sequences: Ordered[Sequence], room: int) -> None:
        for sequence in sequences:
            length = min(self._gamma, room, sequence.max_draft)
            sequence.draft = Draft("babbler", (7,) * length, (0,) * length) if length else None
            room -= length

    def observe(
        self, rounds: Ordered[Round], logits_RV: torch.Tensor, step_ms: float, is_pure_decode: bool
    ) -> None: ...

    def closed(self, sequence: Sequence) -> None: ...

    def load(self) -> tuple[DrafterLoad, ...]:
        return ()

    def shutdown(self) -> None: ...


def request(num_prompt: int, max_tokens: int, priority: Priority = Priority.INTERACTIVE) -> GenerateRequest:
    prompt = tuple(index % 250 for index in range(num_prompt))
    return GenerateRequest("r", prompt, limits=Limits(max_tokens=max_tokens, ignore_eos=True), priority=priority)


def steps_to_first_token(engine: Engine, handle: int) -> int:
    for count in range(1, 100):
        if any(h == handle and isinstance(event, Started) for h, event in engine.step()):
            return count
    raise AssertionError("it never starts")


@pytest.mark.parametrize("gamma", [0, 16])
def test_drafts_of_a_lower_priority_take_nothing_of_a_prompt(make_engine: MakeEngine, gamma: int) -> None:
    engine = make_engine(max_step_tokens=32, mixed_step_tokens=32, speculator=Babbler(gamma))
    engine.add(request(3, 200, Priority.BATCH))
    engine.step()
    assert steps_to_first_token(engine, engine.add(request(128, 2))) == 4


@pytest.mark.parametrize("gamma", [0, 16])
def test_drafts_of_its_own_priority_take_at_most_half_of_what_a_prompt_could_have(
    make_engine: MakeEngine, gamma: int
) -> None:
    engine = make_engine(max_step_tokens=33, mixed_step_tokens=33, speculator=Babbler(gamma))
    engine.add(request(3, 200))
    engine.step()
    assert steps_to_first_token(engine, engine.add(request(128, 2))) == (8 if gamma else 4)


@pytest.mark.parametrize("gamma", [0, 12])
def test_blocks_that_only_rejected_tokens_filled_do_not_keep_anybody_waiting(
    make_engine: MakeEngine, gamma: int
) -> None:
    engine = make_engine(num_blocks=16, prefix_cache=False, speculator=Babbler(gamma))
    for _ in range(4):
        engine.add(request(3, 14))
    for _ in range(3):
        engine.step()
    assert steps_to_first_token(engine, engine.add(request(20, 2))) == 1
    engine.check_integrity()
