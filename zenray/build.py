"""From a configuration to a running engine: the one place where model files meet settings."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from zenray.config import ZenrayConfig
from zenray.engine.engine import Engine
from zenray.model.catalog import Catalog
from zenray.model.load import PRESET_PREFIX, LoadedModel, load_model, load_preset

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what) while something long runs."""


def build_engine(config: ZenrayConfig, progress: Progress | None = None) -> Engine:
    """Loads the configured model (it must be pulled already) and puts an engine around it.

    Raises `NotFound` for an unknown model and `ModelFileError` for a missing, corrupt or unreadable one.
    """
    set_num_threads(config.model.num_threads)
    return Engine(build_model(config, progress), config.engine, config.model.context_length)


def build_model(config: ZenrayConfig, progress: Progress | None = None) -> LoadedModel:
    """The configured model in the configured weight format."""
    settings = config.model
    if settings.name.startswith(PRESET_PREFIX):
        return load_preset(
            settings.name.removeprefix(PRESET_PREFIX),
            settings.preset_overrides,
            seed=settings.random_seed,
            dtype=torch.float32 if settings.weight_format == "float32" else torch.bfloat16,
            weight_format=settings.weight_format if settings.weight_format in ("int8", "int4") else None,
            device=settings.device,
        )
    path = Catalog.load().resolve(settings.name)
    return load_model(path, weight_format=settings.weight_format, device=settings.device, progress=progress)


def set_num_threads(num_threads: int) -> None:
    """Kernel threads of this process; 0 takes the cores the process may run on."""
    torch.set_num_threads(num_threads or len(os.sched_getaffinity(0)))
