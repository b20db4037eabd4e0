"""Two verifiers, checked often, whose processes tests may kill."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from zenray.api.client import Client
from zenray.serving.app import Platform
from zenray.serving.harness import eventually, is_idle, tiny_platform

NUM_VERIFIERS = 2


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with tiny_platform(
        "model.context_length=8192",
        "draft.num_replicas=0",
        f"server.verifier_replicas={NUM_VERIFIERS}",
        "server.health_check_period_s=0.5",
        "server.health_check_timeout_s=1",
        "server.drain_timeout_s=5",
    ) as running:
        yield running


@pytest.fixture
def client(platform: Platform) -> Iterator[Client]:
    """A client of a healed, idle platform, which heals again afterwards."""
    with Client(platform.grpc_address) as connected:
        eventually(lambda: is_idle(connected, NUM_VERIFIERS), "the platform is whole before the test")
        yield connected
        eventually(lambda: is_idle(connected, NUM_VERIFIERS), "the platform heals after the test")
