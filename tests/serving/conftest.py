"""One platform on one Ray for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from zenray.api.client import Client
from zenray.serving.app import Platform
from zenray.serving.harness import eventually, is_idle, tiny_platform


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with tiny_platform("model.context_length=4096", "server.drain_timeout_s=5") as running:
        yield running


@pytest.fixture
def client(platform: Platform) -> Iterator[Client]:
    """A client of an idle platform, which is idle again afterwards: no test leaves blocks behind."""
    with Client(platform.grpc_address) as connected:
        eventually(lambda: is_idle(connected), "the platform is idle before the test")
        yield connected
        eventually(lambda: is_idle(connected), "every block is free or cached after the test")
