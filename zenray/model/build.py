"""From model settings to a loaded model, whatever its source."""

from __future__ import annotations

import os

import torch

from zenray.config import ModelSettings
from zenray.model.catalog import Catalog
from zenray.model.convert import Progress
from zenray.model.load import PRESET_PREFIX, ExpertsFactory, LoadedModel, load_model, load_preset


def build_model(
    settings: ModelSettings, progress: Progress | None = None, experts: ExpertsFactory | None = None
) -> LoadedModel:
    """The model in the configured weight format, on the configured device; `experts` as for `load_model`.

    Raises `NotFound` for an unknown model and `ModelFileError` for a missing, corrupt or unreadable one.
    """
    if settings.name.startswith(PRESET_PREFIX):
        return load_preset(
            settings.name.removeprefix(PRESET_PREFIX),
            settings.preset_overrides,
            seed=settings.random_seed,
            dtype=torch.float32 if settings.weight_format == "float32" else torch.bfloat16,
            weight_format=settings.weight_format if settings.weight_format in ("int8", "int4") else None,
            device=settings.device,
            experts=experts,
        )
    path = Catalog.load().resolve(settings.name)
    return load_model(
        path, weight_format=settings.weight_format, device=settings.device, progress=progress, experts=experts
    )


def set_num_threads(num_threads: int) -> None:
    """Kernel threads of this process; 0 takes the cores the process may run on."""
    torch.set_num_threads(num_threads or len(os.sched_getaffinity(0)))
