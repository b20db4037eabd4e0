"""Drafters behind the engine: one that fails is out, and holds nothing any more."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Ordered

import pytest
import torch

from zenray.engine.engine import Engine
from zenray.engine.request import GenerateRequest, Limits
from zenray.engine.sequence import Sequence
from zenray.engine.speculation import Draft, Round
from zenray.speculative.drafter import FREE, Ask, DraftCost, DrafterStatus
from zenray.speculative.gamma_policy import GammaPolicy
from zenray.speculative.recycling import RecyclingDrafter
from zenray.speculative.speculator import DraftingSpeculator
from zenray.speculative.step_cost import StepCost

MakeEngine = Callable[..., Engine]


class Prophet:
    """Knows the answer, until it fails."""

    name = "prophet"

    def __init__(self, answer: list[int], num_offers: int, fails_at_shutdown: bool) -> None:
        self._answer, self._num_offers, self._fails_at_shutdown = answer, num_offers, fails_at_shutdown
        self.num_shutdowns = 0

    def opened(self, sequence: Sequence) -> None: ...

    def cost(self, sequence: Sequence, batch_size: int) -> DraftCost | None:
        return FREE

    def offer(self, asks: Ordered[Ask]) -> list[Draft | None]:
        assert self.num_shutdowns == 0, "nobody asks whom they shut down"
        if self._num_offers == 0:
            raise RuntimeError("no vision")
        self._num_offers -= 1
        drafts: list[Draft | None] = []
        for ask in asks:
            coming = tuple(self._answer[ask.sequence.num_output :][: min(ask.max_tokens, 2)])
            drafts.append(Draft(self.name, coming, (0,) * len(coming)))
        return drafts

    def observe(self, rounds: Ordered[Round], logits_RV: torch.Tensor) -> None: ...

    def closed(self, sequence: Sequence) -> None: ...

    def status(self) -> DrafterStatus:
        return DrafterStatus()

    def shutdown(self) -> None:
        self.num_shutdowns += 1
        if self._fails_at_shutdown:
            raise RuntimeError("no end")


def answer(engine: Engine, max_tokens: int = 24) -> list[int]:
    engine.add(GenerateRequest("r", (1, 2, 3), limits=Limits(max_tokens=max_tokens, ignore_eos=True)))
    token_ids: list[int] = []
    while engine.has_work:
        for _, event in engine.step():
            token_ids += getattr(event, "token_ids", ())
    return token_ids


@pytest.mark.parametrize("fails_at_shutdown", [False, True])
def test_a_drafter_that_fails_is_shut_down_once_and_asked_no_more(
    make_engine: MakeEngine, fails_at_shutdown: bool
) -> None:
    truth = answer(make_engine())
    prophet = Prophet(truth, num_offers=4, fails_at_shutdown=fails_at_shutdown)
    policy = GammaPolicy(StepCost({1: {1: 100.0, 65: 101.0}}), gamma=4)
    engine = make_engine(speculator=DraftingSpeculator([RecyclingDrafter(), prophet], policy))
    assert answer(engine) == truth
    assert prophet.num_shutdowns == 1
    assert [load.drafter for load in engine.load().drafters] == ["recycling"]
    engine.shutdown()
    assert prophet.num_shutdowns == 1
