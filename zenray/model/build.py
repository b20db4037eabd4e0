"""From model settings to a loaded model, whatever its source."""

from __future__ import annotations

import os
from typing import Any

import torch

from zenray.config import ModelSettings
from zenray.model.catalog import Catalog
from zenray.model.convert import ConvertedProvider, Progress, converted_folder
from zenray.model.formats import activation_dtype
from zenray.model.load import (
    PRESET_PREFIX,
    ExpertsFactory,
    LoadedModel,
    OpenedWeights,
    load_model,
    load_preset,
    open_preset,
)
from zenray.model.random_weights import RandomProvider
from zenray.ops import backend_for


def build_model(
    settings: ModelSettings, progress: Progress | None = None, experts: ExpertsFactory | None = None
) -> LoadedModel:
    """The model in the configured weight format, on the configured device; `experts` as for `load_model`.

    Raises `NotFound` for an unknown model and `ModelFileError` for a missing, corrupt or unreadable one.
    """
    if settings.name.startswith(PRESET_PREFIX):
        return load_preset(**_preset(settings), device=settings.device, experts=experts)
    path = Catalog.load().resolve(settings.name)
    return load_model(
        path, weight_format=settings.weight_format, device=settings.device, progress=progress, experts=experts
    )


def open_weights(settings: ModelSettings, progress: Progress | None = None) -> OpenedWeights:
    """What a leader and its expert shards must have alike: the same settings give equal digests. Builds no decoder.

    Raises as `build_model`.
    """
    provider: RandomProvider | ConvertedProvider
    if settings.name.startswith(PRESET_PREFIX):
        provider = open_preset(**_preset(settings))
    else:
        path = Catalog.load().resolve(settings.name)
        provider = ConvertedProvider(converted_folder(path, settings.weight_format, progress)[0])
    return OpenedWeights(provider.config, provider, backend_for(settings.device, provider.dtype))


def _preset(settings: ModelSettings) -> dict[str, Any]:
    """The arguments that make a preset's weights."""
    return {
        "name": settings.name.removeprefix(PRESET_PREFIX),
        "overrides": settings.preset_overrides,
        "seed": settings.random_seed,
        "dtype": activation_dtype(settings.weight_format),
        "weight_format": settings.weight_format if settings.weight_format in ("int8", "int4") else None,
    }


def set_num_threads(num_threads: int) -> None:
    """Kernel threads of this process; 0 takes the cores the process may run on."""
    torch.set_num_threads(num_threads or len(os.sched_getaffinity(0)))
