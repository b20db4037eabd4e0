"""Shards without a transport keep the promises of real ones, and fail when a test wants them to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from zenray.experts.in_process import InProcessHost
from zenray.experts.link import ExpertCall, ShardLost, ShardRefused
from zenray.experts.placement import ExpertId
from zenray.model.load import OpenedWeights

MakeCall = Callable[..., ExpertCall]
FIRST_TWO = (ExpertId(0, 0), ExpertId(0, 1))


def test_it_computes_reports_and_refuses_as_a_process_does(
    toy: OpenedWeights, make_call: MakeCall, expected: Callable[[ExpertCall], torch.Tensor]
) -> None:
    link = InProcessHost(toy.provider, toy.ops, capacity=2).start(4)
    link.load(FIRST_TWO)
    with pytest.raises(ShardRefused, match="no memory"):
        link.load([ExpertId(0, 2)])
    link.send(make_call(1))
    link.send(make_call(2))
    assert torch.equal(link.receive(), expected(make_call(2))), "the rows of an aborted step are nobody's"
    link.send(make_call(experts=(2,)))
    with pytest.raises(ShardRefused, match="does not hold"):
        link.receive()
    link.drop(FIRST_TWO[:1])
    report = link.report()
    assert (report.shard, report.num_experts, report.capacity, report.calls, report.pairs) == (4, 1, 2, 1, 4)


@pytest.mark.parametrize("fatal", ["send", "receive", "load", "drop", "report"])
def test_it_dies_at_the_operation_a_test_chooses(fatal: str, toy: OpenedWeights, make_call: MakeCall) -> None:
    armed = False

    def interfere(shard: int, operation: str, call: ExpertCall | None) -> None:
        assert (call is not None) == (operation in ("send", "receive"))
        if armed and operation == fatal:
            raise ShardLost(shard, "killed by the test")

    host = InProcessHost(toy.provider, toy.ops, interfere=interfere)
    link = host.start(1)
    link.load(FIRST_TWO)
    link.send(make_call())
    armed = True
    operations: dict[str, Callable[[], Any]] = {
        "send": lambda: link.send(make_call()),
        "receive": link.receive,
        "load": lambda: link.load(FIRST_TWO),
        "drop": lambda: link.drop(FIRST_TWO),
        "report": link.report,
    }
    for operation in (fatal, "report", "send"):
        with pytest.raises(ShardLost, match="killed by the test"):
            operations[operation]()
    armed = False
    again = host.start(1)
    assert again.report().num_experts == 0


def test_a_new_shard_ends_the_old_one_of_its_number_and_the_host_ends_all(toy: OpenedWeights) -> None:
    host = InProcessHost(toy.provider, toy.ops)
    first, other = host.start(1), host.start(2)
    second = host.start(1)
    with pytest.raises(ShardLost, match="closed"):
        first.report()
    assert second.report().shard == 1
    host.close()
    for link in (second, other):
        with pytest.raises(ShardLost, match="closed"):
            link.report()
