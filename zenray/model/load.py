"""One door to every model: a preset, a GGUF file, a folder of safetensors."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zenray.model.config import ModelConfig
from zenray.model.decoder import Decoder
from zenray.model.presets import preset_config
from zenray.model.random_weights import RandomProvider
from zenray.model.tokenizer import ByteTokenizer, Tokenizer
from zenray.model.weights import gather
from zenray.ops import backend_for

PRESET_PREFIX = "preset:"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a loaded model is and where it came from. `sha256` is of the source, "" for presets."""

    name: str
    source: Path | None
    sha256: str
    weight_format: str
    num_parameters: int
    weight_bytes: int
    load_seconds: float


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A decoder ready to run, its tokenizer, and its provenance."""

    decoder: Decoder
    tokenizer: Tokenizer
    info: ModelInfo

    @property
    def config(self) -> ModelConfig:
        return self.decoder.config


def load_preset(
    name: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    weight_format: str | None = None,
    device: str = "cpu",
) -> LoadedModel:
    """A preset with random weights. `weight_format` None holds matrices in `dtype` itself.

    Raises:
        NotFound: no such preset.
        ConfigError: an override makes no architecture.
    """
    started = time.perf_counter()
    config = preset_config(name, overrides or {})
    tokenizer = ByteTokenizer(config.vocab_size)
    config = config.replace({"eos_token_ids": tuple(sorted(tokenizer.eos_token_ids))})
    packed_format = weight_format if weight_format in ("int8", "int4") else "dense"
    provider = RandomProvider(config, seed, dtype, packed_format)
    decoder = Decoder(config, gather(config, provider), backend_for(device, dtype))
    info = ModelInfo(
        name=PRESET_PREFIX + name,
        source=None,
        sha256="",
        weight_format=weight_format or str(dtype).removeprefix("torch."),
        num_parameters=config.num_parameters,
        weight_bytes=decoder.weights.num_bytes,
        load_seconds=time.perf_counter() - started,
    )
    return LoadedModel(decoder, tokenizer, info)
