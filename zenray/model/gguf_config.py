"""GGUF metadata to `ModelConfig`. Keys: llama.cpp's `gguf-py/gguf/constants.py`."""

from __future__ import annotations

import math
from typing import Any

from gguf import quants

from zenray.errors import ConfigError, ModelFileError
from zenray.model.config import ModelConfig, QkNorm, RopeScaling
from zenray.model.gguf_file import GgufFile

ARCHITECTURES = ("llama", "qwen2", "qwen3", "qwen3moe", "olmoe")
"""Values of `general.architecture` that are read; llama covers Mistral and Mixtral."""
_QK_NORM: dict[str, QkNorm] = {"qwen3": "head", "qwen3moe": "head", "olmoe": "full"}


class _Numbers:
    """The numbers of one architecture's metadata, by the key behind the architecture's name."""

    def __init__(self, file: GgufFile, architecture: str) -> None:
        self._file, self._architecture = file, architecture

    def real(self, name: str, default: float | None = None) -> float:
        """A finite number that is not negative; a list of one per layer counts if all are equal."""
        key = f"{self._architecture}.{name}"
        value: Any = self._file.metadata.get(key, default)
        if value is None:
            raise ModelFileError(f"{self._file.path}: the metadata key {key} is missing")
        values = value if isinstance(value, list) and value else [value]
        if not all(type(number) in (int, float) and 0 <= number < math.inf for number in values):
            raise ModelFileError(f"{self._file.path}: {key} is {str(value)[:80]!r}; expected a number")
        if len(set(values)) > 1:
            raise ModelFileError(f"{self._file.path}: {key} differs between layers, which is not supported")
        return float(values[0])

    def integer(self, name: str, default: int | None = None) -> int:
        return int(self.real(name, default))


def config_from_gguf(file: GgufFile) -> ModelConfig:
    """The architecture a file describes.

    Raises:
        ModelFileError: an unknown architecture, missing or impossible metadata.
    """
    path, tensors = file.path, file.tensors
    architecture = file.metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise ModelFileError(f"{path}: architecture {architecture!r}; supported: {', '.join(ARCHITECTURES)}")
    numbers = _Numbers(file, architecture)
    embedding = tensors.get("token_embd.weight")
    if embedding is None:
        raise ModelFileError(f"{path}: tensor token_embd.weight is missing; is the download complete?")
    num_heads, hidden = numbers.integer("attention.head_count"), numbers.integer("embedding_length")
    head_dim = numbers.integer("attention.key_length", hidden // max(num_heads, 1))
    rotated = numbers.integer("rope.dimension_count", head_dim)
    if rotated != head_dim:
        raise ModelFileError(f"{path}: rope.dimension_count is {rotated}; only whole heads ({head_dim}) are supported")
    num_experts, width = numbers.integer("expert_count", 0), numbers.integer("feed_forward_length")
    try:
        return ModelConfig(
            architecture={"qwen3moe": "qwen3_moe"}.get(architecture, architecture),
            vocab_size=embedding.shape[0],
            hidden_size=hidden,
            num_layers=numbers.integer("block_count"),
            num_heads=num_heads,
            num_kv_heads=numbers.integer("attention.head_count_kv", num_heads),
            head_dim=head_dim,
            intermediate_size=0 if num_experts else width,
            rms_norm_eps=numbers.real("attention.layer_norm_rms_epsilon"),
            rope_theta=numbers.real("rope.freq_base", 10_000.0),
            rope_scaling=_rope_scaling(file, architecture, numbers),
            max_position_embeddings=numbers.integer("context_length"),
            qkv_bias="blk.0.attn_q.bias" in tensors,
            attention_out_bias="blk.0.attn_output.bias" in tensors,
            qk_norm=_QK_NORM.get(architecture, "none"),
            tie_word_embeddings="output.weight" not in tensors,
            num_experts=num_experts,
            num_experts_per_token=numbers.integer("expert_used_count", 0),
            expert_intermediate_size=numbers.integer("expert_feed_forward_length", width) if num_experts else 0,
            norm_topk_prob=architecture != "olmoe",
        )
    except ConfigError as error:
        raise ModelFileError(f"{path}: {error}") from None


def _rope_scaling(file: GgufFile, architecture: str, numbers: _Numbers) -> RopeScaling:
    factors = file.tensors.get("rope_freqs.weight")
    if factors is not None:
        values = quants.dequantize(file.raw_rows(factors, 0, 1), factors.type).reshape(-1)
        return RopeScaling(type="factors", frequency_factors=tuple(float(value) for value in values))
    kind = file.metadata.get(f"{architecture}.rope.scaling.type", "none")
    if kind == "none":
        return RopeScaling()
    if kind not in ("linear", "yarn"):
        raise ModelFileError(f"{file.path}: rope.scaling.type is {kind!r}; supported: none, linear, yarn")
    return RopeScaling(
        type=kind,
        factor=numbers.real("rope.scaling.factor", 1.0),
        original_max_position_embeddings=numbers.integer(
            "rope.scaling.original_context_length", numbers.integer("context_length")
        ),
        beta_fast=numbers.real("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=numbers.real("rope.scaling.yarn_beta_slow", 1.0),
    )
