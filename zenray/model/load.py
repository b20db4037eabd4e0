"""One door to every model: a preset, a GGUF file, a folder of safetensors."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zenray.config import WeightFormat
from zenray.model.config import ModelConfig
from zenray.model.convert import ConvertedProvider, Progress, converted_folder, open_source
from zenray.model.decoder import Decoder
from zenray.model.formats import SourceProvider, activation_dtype
from zenray.model.moe import ExpertBackend
from zenray.model.presets import preset_config
from zenray.model.random_weights import RandomProvider
from zenray.model.tokenizer import ByteTokenizer, Tokenizer
from zenray.model.weights import WeightProvider, gather
from zenray.ops import backend_for
from zenray.ops.backend import Backend

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


@dataclass(frozen=True, slots=True)
class OpenedWeights:
    """A model's architecture and where its weights come from, none of them read yet."""

    config: ModelConfig
    provider: WeightProvider
    ops: Backend


ExpertsFactory = Callable[[ModelConfig, WeightProvider, Backend], ExpertBackend]
"""Makes what computes a model's experts from its weights, where that is not simply the decoder's own process."""


def load_model(
    path_or_preset: str | Path,
    *,
    weight_format: WeightFormat = "mixed",
    device: str = "cpu",
    num_threads: int = 0,
    progress: Progress | None = None,
    seed: int = 0,
    preset_overrides: Mapping[str, Any] | None = None,
    experts: ExpertsFactory | None = None,
) -> LoadedModel:
    """A GGUF file, a safetensors folder, or `preset:NAME`, ready to run.

    Files are converted on first use and mapped from the cache afterwards. num_threads 0 leaves torch's
    own choice; `seed` and `preset_overrides` concern presets only.

    Raises:
        ModelFileError: whatever is wrong with the file.
        NotFound, ConfigError: an unknown preset, an override that makes no architecture.
    """
    if num_threads > 0:
        torch.set_num_threads(num_threads)
    text = str(path_or_preset)
    if text.startswith(PRESET_PREFIX):
        return load_preset(
            text.removeprefix(PRESET_PREFIX),
            preset_overrides,
            seed=seed,
            dtype=activation_dtype(weight_format),
            weight_format=weight_format,
            device=device,
            experts=experts,
        )
    started = time.perf_counter()
    path = Path(path_or_preset)
    folder, digest = converted_folder(path, weight_format, progress)
    provider = ConvertedProvider(folder)
    tokenizer = provider.tokenizer()
    config = provider.config.replace({"eos_token_ids": tuple(sorted(tokenizer.eos_token_ids))})
    decoder = _decoder(config, provider, device, experts)
    return LoadedModel(decoder, tokenizer, _info(path.name, path, digest, weight_format, decoder, started))


def load_unconverted(
    path: Path, weight_format: WeightFormat, overrides: Mapping[str, WeightFormat] | None = None
) -> LoadedModel:
    """A model packed in memory, past the cache: for comparisons and experiments (`SourceProvider`).

    Raises:
        ModelFileError: as `load_model`.
    """
    started = time.perf_counter()
    source = open_source(path)
    tokenizer, provider = source.tokenizer(), SourceProvider(source, weight_format, overrides)
    decoder = _decoder(source.config, provider, "cpu")
    shown = " ".join([weight_format, *(f"{name}={format_}" for name, format_ in (overrides or {}).items())])
    return LoadedModel(decoder, tokenizer, _info(path.name, path, "", shown, decoder, started))


def load_tokenizer(path_or_preset: str | Path, preset_overrides: Mapping[str, Any] | None = None) -> Tokenizer:
    """The tokenizer alone, without converting or mapping weights.

    Raises:
        ModelFileError, NotFound, ConfigError: as `load_model`.
    """
    text = str(path_or_preset)
    if text.startswith(PRESET_PREFIX):
        return ByteTokenizer(preset_config(text.removeprefix(PRESET_PREFIX), preset_overrides or {}).vocab_size)
    return open_source(Path(path_or_preset)).tokenizer()


def load_preset(
    name: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    weight_format: WeightFormat | None = None,
    device: str = "cpu",
    experts: ExpertsFactory | None = None,
) -> LoadedModel:
    """A preset with random weights. `weight_format` None holds matrices in `dtype` itself; "mixed" is int8,
    as for any source that is not 4-bit.

    Raises:
        NotFound: no such preset.
        ConfigError: an override makes no architecture.
    """
    started = time.perf_counter()
    provider = open_preset(name, overrides, seed, dtype, weight_format)
    decoder = _decoder(provider.config, provider, device, experts)
    shown = weight_format or str(dtype).removeprefix("torch.")
    tokenizer = ByteTokenizer(provider.config.vocab_size)
    return LoadedModel(decoder, tokenizer, _info(PRESET_PREFIX + name, None, "", shown, decoder, started))


def open_preset(
    name: str,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    weight_format: WeightFormat | None = None,
) -> RandomProvider:
    """The weights of a preset, drawn as they are asked for; arguments and errors as for `load_preset`."""
    config = preset_config(name, overrides or {})
    config = config.replace({"eos_token_ids": tuple(sorted(ByteTokenizer(config.vocab_size).eos_token_ids))})
    packed_format = {"int8": "int8", "mixed": "int8", "int4": "int4"}.get(weight_format or "", "dense")
    return RandomProvider(config, seed, dtype, packed_format)


def _decoder(
    config: ModelConfig, provider: WeightProvider, device: str, make_experts: ExpertsFactory | None = None
) -> Decoder:
    backend = backend_for(device, provider.dtype)
    if not config.num_experts:
        make_experts = None
    weights = gather(config, provider, with_experts=make_experts is None)
    if torch.device(device).type != "cpu":
        weights = weights.to(torch.device(device))
    return Decoder(config, weights, backend, make_experts and make_experts(config, provider, backend))


def _info(
    name: str, source: Path | None, digest: str, weight_format: str, decoder: Decoder, started: float
) -> ModelInfo:
    return ModelInfo(
        name=name,
        source=source,
        sha256=digest,
        weight_format=weight_format,
        num_parameters=decoder.config.num_parameters,
        weight_bytes=decoder.weights.num_bytes,
        load_seconds=time.perf_counter() - started,
    )
