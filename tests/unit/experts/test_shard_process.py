"""Shards as real processes: killed, stopped, orphaned, given damaged files. Nothing hangs, nobody is left behind."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from zenray.config import ExpertSettings, ModelSettings
from zenray.experts.link import ExpertCall, ShardLost, ShardRefused
from zenray.experts.placement import ExpertId
from zenray.experts.process_host import ProcessHost
from zenray.model.build import open_weights
from zenray.model.convert import converted_folder
from zenray.model.load import OpenedWeights

MakeCall = Callable[..., ExpertCall]
Expected = Callable[[ExpertCall], torch.Tensor]
FIRST_TWO = (ExpertId(0, 0), ExpertId(0, 1))


@pytest.fixture(scope="module")
def make_host(toy: OpenedWeights, toy_settings: ModelSettings) -> Iterator[Callable[..., ProcessHost]]:
    """`make_host(model=the toy, digest=its own, **settings)`; every host is closed and leaves no process."""
    hosts: list[ProcessHost] = []

    def make(model: ModelSettings = toy_settings, digest: str = toy.provider.digest, **fields: Any) -> ProcessHost:
        hosts.append(
            ProcessHost(model, ExpertSettings(**{"num_threads": 1, "silence_timeout_ms": 2000, **fields}), digest)
        )
        return hosts[-1]

    yield make
    for host in hosts:
        host.close()


@pytest.mark.parametrize("transport", ["auto", "tcp"])
def test_a_child_computes_what_this_process_would(
    transport: str, make_host: Any, make_call: MakeCall, expected: Expected
) -> None:
    host = make_host(transport=transport)
    link = host.start(3)
    assert link.transport == {"auto": "unix"}.get(transport, transport)
    os.kill(host.pid(3), signal.SIGINT)
    link.load(FIRST_TWO)
    report = link.report()
    assert (report.shard, report.pid, report.num_experts) == (3, host.pid(3), 2)
    link.send(make_call())
    assert torch.equal(link.receive(), expected(make_call()))
    child = psutil.Process(host.pid(3))
    link.close()
    assert child.wait(60) == 0, "hung up on, a shard ends by itself"


@pytest.mark.parametrize("when", ["before the call", "in mid-call", "while loading"])
def test_a_killed_shard_is_lost_and_another_takes_its_number(
    when: str, make_host: Any, make_call: MakeCall, expected: Expected
) -> None:
    """Stopped first, so that the blow falls while the leader waits, and not before."""
    host = make_host(silence_timeout_ms=60_000)
    link = host.start(1)
    link.load(FIRST_TWO)
    pid = host.pid(1)
    if when == "before the call":
        os.kill(pid, signal.SIGKILL)
    else:
        stop(pid)
        threading.Thread(target=os.kill, args=(pid, signal.SIGKILL)).start()
    with pytest.raises(ShardLost):
        link.load([ExpertId(1, 1)]) if when == "while loading" else send_and_receive(link, make_call())
    again = host.start(1)
    assert host.pid(1) != pid
    again.load(FIRST_TWO)
    assert torch.equal(send_and_receive(again, make_call()), expected(make_call()))
    host.close()


def test_a_stopped_shard_is_lost_by_its_silence_and_ended_by_its_successor(
    make_host: Any, make_call: MakeCall, expected: Expected
) -> None:
    host = make_host()
    link = host.start(1)
    link.load(FIRST_TWO)
    stopped = psutil.Process(host.pid(1))
    stop(stopped.pid)
    with pytest.raises(ShardLost, match="no sign of life for 2000 ms"):
        send_and_receive(link, make_call())
    again = host.start(1)
    assert not stopped.is_running()
    again.load(FIRST_TWO)
    assert torch.equal(send_and_receive(again, make_call()), expected(make_call()))


def test_a_stopped_shard_is_lost_while_loading_too(make_host: Any) -> None:
    host = make_host(silence_timeout_ms=300)
    link = host.start(1)
    stop(host.pid(1))
    with pytest.raises(ShardLost, match="no sign of life"):
        link.load(FIRST_TWO)


def test_several_shards_start_at_once_and_end_with_their_host(make_host: Any) -> None:
    host = make_host()
    links: dict[int, Any] = {}
    threads = [threading.Thread(target=lambda n=n: links.update({n: host.start(n)})) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    # The threads that started them are gone; the shards are not.
    assert {link.report().shard for link in links.values()} == {1, 2}
    children = [psutil.Process(host.pid(shard)) for shard in (1, 2)]
    stop(children[1].pid)
    host.close()
    assert not any(child.is_running() for child in children)
    with pytest.raises(ShardLost, match="closed"):
        host.start(1)
    with pytest.raises(ShardLost):
        links[1].report()


def test_closing_the_host_ends_a_start(make_host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child that is being started is stopped before it can say where it listens."""
    from zenray.experts import process_host

    spawned = threading.Event()
    spawn = process_host._spawn

    def spawn_and_stop() -> Any:
        process = spawn()
        os.kill(process.pid, signal.SIGSTOP)
        spawned.set()
        return process

    monkeypatch.setattr(process_host, "_spawn", spawn_and_stop)
    host = make_host()

    def close_when_spawned() -> None:
        assert spawned.wait(60)
        host.close()

    closing = threading.Thread(target=close_when_spawned)
    closing.start()
    with pytest.raises(ShardLost):
        host.start(1)
    closing.join(60)


def test_a_shard_killed_before_its_leader_comes_leaves_no_socket(
    make_host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zenray.experts import process_host

    addresses: list[str] = []
    connect = process_host.connect

    def connect_too_late(address: str, *arguments: Any) -> Any:
        addresses.append(address)
        os.kill(host.pid(1), signal.SIGKILL)
        psutil.Process(host.pid(1)).wait(60)
        return connect(address, *arguments)

    monkeypatch.setattr(process_host, "connect", connect_too_late)
    host = make_host()
    with pytest.raises(ShardLost, match="no hello"):
        host.start(1)
    (address,) = addresses
    path = Path(address.removeprefix("unix:"))
    assert path.is_absolute() and not path.parent.exists()


def test_other_weights_and_unreadable_models_are_told_apart(make_host: Any, tmp_path: Path) -> None:
    with pytest.raises(ShardRefused, match="other weights"):
        make_host(digest="another").start(1)
    with pytest.raises(ShardLost, match="no-such-model"):
        make_host(model=ModelSettings(name=str(tmp_path / "no-such-model.gguf"))).start(1)


def test_a_damaged_file_is_refused_by_the_shard_that_reads_it(
    make_host: Any, toy_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZENRAY_HOME", str(tmp_path))
    model = ModelSettings(name=str(toy_checkpoint), weight_format="int8")
    folder, _ = converted_folder(toy_checkpoint, "int8")
    weights = folder / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    header_bytes = int.from_bytes(data[:8], "little")
    start, _ = json.loads(data[8 : 8 + header_bytes])["layers.2.experts.3.gate_up/int8.data"]["data_offsets"]
    data[8 + header_bytes + start + 99] ^= 1
    weights.write_bytes(data)
    link = make_host(model=model, digest=open_weights(model).provider.digest).start(1)
    with pytest.raises(ShardRefused, match=r"layers\.2\.experts\.3\.gate_up has changed"):
        link.load([ExpertId(2, 2), ExpertId(2, 3)])
    assert link.report().num_experts == 0
    link.load([ExpertId(2, 2)])
    assert link.report().num_experts == 1


def test_resident_memory_is_the_share_a_shard_holds(
    make_host: Any, wide_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured as mapped pages of the weights' file, which nothing else in the process can blur."""
    monkeypatch.setenv("ZENRAY_HOME", str(tmp_path))
    model = ModelSettings(name=str(wide_checkpoint), weight_format="float32")
    host = make_host(model=model, digest=open_weights(model).provider.digest)
    link = host.start(1)
    before, huge_page = mapped_weights(host.pid(1)), 2**21
    assert before <= huge_page, "of a file that is only mapped, the header is read"
    link.load(ExpertId(0, expert) for expert in (0, 1, 2, 3))
    report, mapped = link.report(), mapped_weights(host.pid(1))
    assert report.weight_bytes == 4 * 3 * 4096 * 64 * 4
    assert report.weight_bytes <= mapped <= before + report.weight_bytes + 2 * huge_page, "the kernel maps generously"
    assert report.rss_bytes >= mapped
    link.drop(ExpertId(0, expert) for expert in (0, 1, 2))
    left = mapped_weights(host.pid(1))
    assert left <= before + report.weight_bytes // 4 + 2 * huge_page, "and what it forgot is given back"


def mapped_weights(pid: int) -> int:
    """Resident bytes of the weights' file."""
    regions = psutil.Process(pid).memory_maps()
    return sum(region.rss for region in regions if region.path.endswith("weights.safetensors"))


LEADER = """
import sys, time
from zenray.config import ExpertSettings, ModelSettings
from zenray.experts.process_host import ProcessHost
from zenray.model.build import open_weights
model = ModelSettings(name="preset:tiny-moe", weight_format="float32")
host = ProcessHost(model, ExpertSettings(num_threads=1), open_weights(model).provider.digest)
for shard in (1, 2):
    host.start(shard)
print(host.pid(1), host.pid(2), flush=True)
sys.stdin.read()
"""


def test_shards_die_with_their_leader_even_while_stopped() -> None:
    leader = subprocess.Popen([sys.executable, "-c", LEADER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert leader.stdout is not None
    children = [int(pid) for pid in leader.stdout.readline().split()]
    assert len(children) == 2
    ends = [os.pidfd_open(pid) for pid in children]
    stop(children[1])
    leader.kill()
    leader.wait(60)
    for end in ends:
        assert select.select([end], [], [], 60)[0], "it is gone"
        os.close(end)


def stop(pid: int) -> None:
    """Returns when it stands still."""
    os.kill(pid, signal.SIGSTOP)
    process = psutil.Process(pid)
    while process.status() != psutil.STATUS_STOPPED:
        pass


def send_and_receive(link: Any, call: ExpertCall) -> torch.Tensor:
    link.send(call)
    rows: torch.Tensor = link.receive()
    return rows
