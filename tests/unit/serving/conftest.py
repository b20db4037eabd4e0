"""Fixtures of the draft pool: a tiny draft model, and replicas that come and go."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from zenray.model.load import LoadedModel, load_preset
from zenray.serving.draft_harness import Replicas


@pytest.fixture(scope="session")
def draft_weights() -> LoadedModel:
    return load_preset("tiny", {"num_layers": 1}, seed=3, dtype=torch.float64)


@pytest.fixture
def replicas() -> Iterator[Replicas]:
    running = Replicas()
    yield running
    running.shutdown()
