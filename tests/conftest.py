"""Fixtures shared by every suite: a tiny exact model, and one real model."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import zenray.serving  # noqa: F401 - sets Ray's environment before any test module can import Ray
from zenray.config import EngineSettings
from zenray.engine.engine import Engine
from zenray.engine.speculation import Speculator
from zenray.engine.stopping import MakeTextRule
from zenray.model.load import LoadedModel, load_preset

# Tiny tensors gain nothing from threads, and OpenMP's waiting ones cost much on a busy machine: 20 times here.
# Engines of real models set their own number.
torch.set_num_threads(1)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell ignores it for what it runs in the background, and whatever tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_model() -> LoadedModel:
    """The tiny preset in float64, where equal means equal."""
    return load_preset("tiny", seed=0, dtype=torch.float64)


@pytest.fixture(scope="session")
def make_engine(tiny_model: LoadedModel) -> Callable[..., Engine]:
    """An engine over the tiny model: `make_engine(num_blocks=…, block_size=…, any EngineSettings field)`."""

    def make(
        num_blocks: int = 256,
        context_length: int | None = None,
        speculator: Speculator | None = None,
        make_text_rule: MakeTextRule | None = None,
        **fields: object,
    ) -> Engine:
        settings = EngineSettings.model_validate({"block_size": 4, "kv_cache_mib": 1, **fields})
        config = tiny_model.config
        block_bytes = 2 * config.num_layers * config.num_kv_heads * config.head_dim * settings.block_size * 8
        sized = settings.model_copy(update={"kv_cache_mib": num_blocks * block_bytes / 2**20})
        engine = Engine(tiny_model, sized, context_length, speculator=speculator, make_text_rule=make_text_rule)
        assert engine.pool.num_blocks == num_blocks
        return engine

    return make


@pytest.fixture(scope="session")
def real_model_05b() -> Path:
    """Qwen2.5-Coder-0.5B-Instruct, pulled through the catalog and verified by hash."""
    if os.environ.get("ZENRAY_SKIP_REAL_MODEL") == "1":
        pytest.skip("ZENRAY_SKIP_REAL_MODEL=1")
    from zenray.model.catalog import Catalog

    return Catalog.load().pull("qwen2.5-coder-0.5b")
