"""One platform on one Ray for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from zenray.serving.app import Platform
from zenray.serving.harness import tiny_platform


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with tiny_platform("model.context_length=4096", "server.drain_timeout_s=5") as running:
        yield running
