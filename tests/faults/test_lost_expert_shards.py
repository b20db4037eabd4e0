"""Expert shards are killed and stopped under real streams: clients see a pause, no token changes, shards come back.

All of it twice: where every expert has a second copy, and where survivors have to load what was lost.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import psutil
import pytest

from zenray.api.client import Client
from zenray.serving.app import Platform
from zenray.serving.expert_harness import (
    experts_of,
    is_whole,
    open_stream,
    plain_texts,
    remote_shards,
    shard_process,
    sharded_platform,
    whole_client,
    whole_text,
)
from zenray.serving.harness import eventually

NUM_SHARDS = 3
NUM_STREAMS = 16
NUM_TOKENS = 600
REDUNDANCY = {"copies": 8, "reload": 0}


@pytest.fixture(scope="module", params=REDUNDANCY)
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    copies = f"experts.redundant_experts={REDUNDANCY[request.param]}"
    with sharded_platform(NUM_SHARDS, copies, "experts.rebalance_period_s=0.5") as running:
        yield running


@pytest.fixture
def client(platform: Platform) -> Iterator[Client]:
    with whole_client(platform, NUM_SHARDS) as connected:
        yield connected


@pytest.fixture(scope="module")
def undisturbed() -> list[str]:
    return plain_texts(NUM_STREAMS, NUM_TOKENS)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_streams_outlive_one_shard_after_the_other_and_both_come_back(
    client: Client, undisturbed: list[str], how: signal.Signals
) -> None:
    before = experts_of(client)
    victims: list[psutil.Process] = []

    def hurt(shard: int) -> None:
        victims.append(shard_process(client, shard))
        os.kill(victims[-1].pid, how)

    streams = [open_stream(client, number, NUM_TOKENS) for number in range(NUM_STREAMS)]
    with ThreadPoolExecutor(NUM_STREAMS) as pool:
        others = [pool.submit(list, stream) for stream in streams[1:]]
        watched = list(islice(streams[0], 20))
        hurt(1)
        watched += islice(streams[0], 60)
        hurt(2)
        assert not any(other.done() for other in others)
        watched += streams[0]
        texts = [whole_text(watched), *(whole_text(other.result()) for other in others)]
    assert texts == undisturbed

    eventually(lambda: is_whole(client, NUM_SHARDS), "the shards are replaced")
    eventually(lambda: not any(victim.is_running() for victim in victims), "those that were lost are ended")
    after = experts_of(client)
    assert not {shard.report.pid for shard in remote_shards(after).values()} & {victim.pid for victim in victims}
    assert after.epoch > before.epoch
    assert after.recoveries > before.recoveries
    assert after.longest_recovery_ms >= after.last_recovery_ms > 0
