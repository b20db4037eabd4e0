"""A verifier spread over three machines: addresses, rendezvous and a cut cable are real, machines are namespaces."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import pytest

from zenray.api.client import Client
from zenray.serving.expert_harness import (
    MODEL,
    experts_of,
    is_whole,
    open_stream,
    plain_texts,
    remote_shards,
    whole_text,
)
from zenray.serving.harness import WAIT_S, eventually
from zenray.serving.host_harness import RAY_PORT, Hosts, HostsNotPermitted, ray_on
from zenray.v1 import experts_pb2

NUM_HOSTS = 3
NUM_TOKENS = 800
SERVE = """
import sys
from zenray.config_load import load_config
from zenray.serving.app import run

address, *overrides = sys.argv[1:]
say = lambda what: print(what, flush=True)
try:
    run(load_config("tiny", None, overrides), lambda platform: say(f"ready {platform.config.server.grpc_port}"), say,
        address=address)
except KeyboardInterrupt:
    sys.exit(130)
"""


@dataclass
class Served:
    """A platform whose door is on host 0, where the leader is too; each other host has one expert shard."""

    hosts: Hosts
    address: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with contextlib.ExitStack() as stack:
        try:
            hosts = stack.enter_context(Hosts(NUM_HOSTS))
        except HostsNotPermitted as reason:
            pytest.skip(str(reason))
        yield hosts


@pytest.fixture(scope="module")
def served(hosts: Hosts) -> Iterator[Served]:
    # The shards ask for accelerators, of which only the other hosts say they have any.
    nodes = [["--num-cpus=2", "--num-gpus=0"], *[["--num-cpus=0", "--num-gpus=1"]] * (NUM_HOSTS - 1)]
    settings = (
        *MODEL,
        *(f"experts.num_shards={NUM_HOSTS}", "experts.spread=true", "experts.num_threads=1"),
        *("experts.shard_num_cpus=0", "experts.shard_num_gpus=1", "experts.recovery_timeout_s=60"),
        *("server.host=0.0.0.0", "server.grpc_port=0", "server.http_port=0"),
        "context.mode=cloud",
    )
    with ray_on(hosts, nodes) as environment:
        command = [sys.executable, "-c", SERVE, f"{hosts.addresses[0]}:{RAY_PORT}", *settings]
        with hosts.start(0, command, environment, subprocess.PIPE) as serving:
            assert serving.stdout is not None
            said = []
            for line in serving.stdout:
                said.append(line)
                if line.startswith("ready"):
                    break
            else:
                raise AssertionError("".join(said))
            yield Served(hosts, f"{hosts.addresses[0]}:{line.split()[1]}", environment)
            serving.send_signal(signal.SIGINT)
            assert serving.wait(WAIT_S) == 130


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.address) as connected:
        eventually(lambda: is_whole(connected, NUM_HOSTS), "every shard serves")
        yield connected


@pytest.fixture(scope="module")
def undisturbed() -> str:
    return plain_texts(1, NUM_TOKENS)[0]


def test_the_shards_are_on_the_other_hosts_and_the_text_is_that_of_one_process(
    served: Served, client: Client, undisturbed: str
) -> None:
    assert whole_text(list(open_stream(client, 0, NUM_TOKENS))) == undisturbed
    status = experts_of(client)
    assert served.hosts.host_of(status.shards[0].report.pid) == 0
    remote = remote_shards(status).values()
    assert {served.hosts.host_of(shard.report.pid) for shard in remote} == set(range(1, NUM_HOSTS))
    assert {shard.transport for shard in remote} == {"tcp"}


def test_a_cut_link_is_a_lost_shard_and_mended_it_comes_back(served: Served, client: Client, undisturbed: str) -> None:
    before = remote_shards(experts_of(client))[1]
    host = served.hosts.host_of(before.report.pid)
    stream = open_stream(client, 0, NUM_TOKENS)
    head = list(islice(stream, 20))
    served.hosts.cut(host)
    try:
        assert whole_text([*head, *stream]) == undisturbed
        cut = experts_of(client)
        assert remote_shards(cut)[1].state == experts_pb2.SHARD_STATE_LOST
        assert cut.recoveries > 0
        assert not cut.unavailable
    finally:
        served.hosts.mend(host)
    eventually(lambda: is_whole(client, NUM_HOSTS), "the shard is replaced")
    after = remote_shards(experts_of(client))[1]
    assert after.report.pid != before.report.pid
    assert whole_text(list(open_stream(client, 0, NUM_TOKENS))) == undisturbed


def test_local_mode_refuses_a_cluster_of_several_machines(served: Served) -> None:
    cluster = f"{served.hosts.addresses[0]}:{RAY_PORT}"
    ports = ("server.grpc_port=0", "server.http_port=0")
    command = [sys.executable, "-c", SERVE, cluster, *ports, "context.mode=local"]
    with served.hosts.start(0, command, served.environment, subprocess.PIPE) as refused:
        said, _ = refused.communicate(timeout=WAIT_S)
    assert refused.returncode == 1
    assert "ConfigError: context.mode is local, and the Ray cluster has other machines" in said
    assert served.hosts.addresses[1] in said
