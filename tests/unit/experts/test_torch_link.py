"""Rows by gloo: the same rows, and a lost peer breaks its own link and nothing else."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from zenray.config import ExpertSettings, ModelSettings
from zenray.errors import ConfigError
from zenray.experts.link import ExpertCall, ShardLost, ShardRefused
from zenray.experts.placement import ExpertId
from zenray.experts.process_host import ProcessHost
from zenray.experts.rows import LEADER_RANK, rows_of
from zenray.experts.stream import Connection, Listener, dial
from zenray.model.load import OpenedWeights

MakeCall = Callable[..., ExpertCall]
Expected = Callable[[ExpertCall], torch.Tensor]
FIRST_TWO = (ExpertId(0, 0), ExpertId(0, 1))


@pytest.fixture
def host(toy: OpenedWeights, toy_settings: ModelSettings) -> Iterator[ProcessHost]:
    settings = ExpertSettings(transport="gloo", num_threads=1, silence_timeout_ms=2000)
    host = ProcessHost(toy_settings, settings, toy.provider.digest)
    yield host
    host.close()


@pytest.mark.parametrize("bind", ["unix", "127.0.0.1"])
def test_rows_are_those_computed_here(bind: str, serve: Any, make_call: MakeCall, expected: Expected) -> None:
    link = serve(bind=bind, transport="gloo").link()
    assert link.transport == "gloo"
    link.load(FIRST_TWO)
    for seed, num_rows in enumerate([1, 2, 3000, 1]):
        call = make_call(seed, num_rows=num_rows)
        assert torch.equal(send_and_receive(link, call), expected(call))


def test_refusals_and_aborted_steps_leave_the_group_in_step(
    serve: Any, make_call: MakeCall, expected: Expected
) -> None:
    link = serve(transport="gloo").link()
    link.load(FIRST_TWO)
    with pytest.raises(ShardRefused):
        send_and_receive(link, make_call(experts=(6,)))
    for seed in range(3):
        link.send(make_call(seed, num_rows=3000))
    link.send(make_call(8))
    assert torch.equal(link.receive(), expected(make_call(8)))


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_peer_breaks_its_own_link_only(
    fault: signal.Signals, host: ProcessHost, make_call: MakeCall, expected: Expected
) -> None:
    links = {}
    starts = [threading.Thread(target=lambda shard=shard: links.update({shard: host.start(shard)})) for shard in (1, 2)]
    for start in starts:
        start.start()
    for start in starts:
        start.join(120)
    for link in links.values():
        link.load(FIRST_TWO)
        assert torch.equal(send_and_receive(link, make_call()), expected(make_call()))
    os.kill(host.pid(1), fault)
    with pytest.raises(ShardLost):
        send_and_receive(links[1], make_call(num_rows=5000))
    assert torch.equal(send_and_receive(links[2], make_call(1)), expected(make_call(1)))
    again = host.start(1)
    again.load(FIRST_TWO)
    assert torch.equal(send_and_receive(again, make_call(2)), expected(make_call(2)))


def test_hanging_up_wakes_a_waiting_call(serve: Any, gated: Any, make_call: MakeCall) -> None:
    link = serve(gated, transport="gloo").link()
    link.load(FIRST_TWO)
    link.send(make_call())
    outcome: list[BaseException] = []

    def wait() -> None:
        with pytest.raises(ShardLost) as lost:
            link.receive()
        outcome.append(lost.value)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert gated.entered.wait(60)
    link.close()
    waiting.join(60)
    assert "closed" in str(outcome[0])


@pytest.mark.parametrize("answer", [b"", b"noise" * 100])
def test_a_peer_that_does_not_come_is_an_error(answer: bytes) -> None:
    listener = Listener("unix")
    connection = Connection(dial(listener.address, 10))
    peer = listener.accept(10)
    listener.close()
    peer.sendall(answer)
    peer.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionError, match="no process group with gloo"):
        rows_of("gloo", connection, LEADER_RANK, 5, torch.device("cpu"))
    connection.close()
    peer.close()


def test_nccl_needs_a_gpu(serve: Any) -> None:
    with pytest.raises(ConfigError, match=r"experts\.transport is 'nccl'"):
        serve(transport="nccl").link()


def send_and_receive(link: Any, call: ExpertCall) -> torch.Tensor:
    link.send(call)
    rows: torch.Tensor = link.receive()
    return rows
