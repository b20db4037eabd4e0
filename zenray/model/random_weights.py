"""Weights drawn from a seed, for presets. Every tensor has its own stream, so one tensor's shape or the
order of creation never changes another."""

from __future__ import annotations

import hashlib
import json

import torch

from zenray.model.config import ModelConfig
from zenray.model.weights import has_bias, matrix_parts, part_shape
from zenray.ops import pack
from zenray.ops.weights import PackedWeight

# At unit gain attention is almost uniform, the last token alone decides and greedy text is one token repeated;
# doubled, the context matters and tests see varied tokens.
_SHARP_ATTENTION = 2.0


class RandomProvider:
    """A `WeightProvider` of lively random weights: variance 1/fan-in, norms near 1, small biases.

    dtype: of activations and norms. weight_format: as `zenray.ops.pack` takes it, "dense" for dtype itself.
    """

    def __init__(self, config: ModelConfig, seed: int, dtype: torch.dtype, weight_format: str = "dense") -> None:
        self.config, self.dtype = config, dtype
        self._seed, self._format = seed, weight_format
        self._embed: PackedWeight | None = None

    def matrix(self, name: str) -> PackedWeight:
        if name == "head" and self.config.tie_word_embeddings and self._format == "dense":
            assert self._embed is not None, "the embedding is asked for first"
            return self._embed
        shapes = [part_shape(self.config, part) for part in matrix_parts(self.config, name)]
        rows, columns = sum(shape[0] for shape in shapes), shapes[0][1]
        source = "embed" if name == "head" and self.config.tie_word_embeddings else name
        gain = _SHARP_ATTENTION if name.endswith((".qkv", ".out")) else 1.0
        values = self._normal(source, rows, columns) * (gain / columns**0.5)
        bias = self._normal(name + ".bias", rows).mul_(0.5).to(self.dtype) if has_bias(self.config, name) else None
        # A row gather reads one row per token, so the table stays as precise as activations.
        if self._format == "dense" or name == "embed":
            packed = PackedWeight("dense", (rows, columns), values.to(self.dtype), bias=bias)
        else:
            packed = pack(values, self._format, bias)
        if name == "embed":
            self._embed = packed
        return packed

    def vector(self, name: str) -> torch.Tensor:
        config = self.config
        leaf = name.rsplit(".", 1)[-1]
        if leaf == "router":
            wide = torch.float64 if self.dtype == torch.float64 else torch.float32
            # Twice unit variance: routers of trained models are decided, not flat.
            return self._normal(name, *part_shape(config, name)).mul_(2 / config.hidden_size**0.5).to(wide)
        mean = _SHARP_ATTENTION if leaf in ("q_norm", "k_norm") else 1.0
        return self._normal(name, *part_shape(config, name)).mul_(0.1).add_(mean).to(self.dtype)

    @property
    def digest(self) -> str:
        chosen = json.dumps([self.config.to_json(), self._seed, str(self.dtype), self._format])
        return hashlib.sha256(chosen.encode()).hexdigest()

    def check(self, name: str) -> None:
        """Nothing: these bytes were drawn a moment ago."""

    def release(self, name: str) -> None:
        """Nothing: these bytes are in no file."""

    def _normal(self, name: str, *shape: int) -> torch.Tensor:
        digest = hashlib.sha256(f"{self._seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        # Drawn in float32 whatever the model's type, so that one seed is one model in every precision.
        values = torch.randn(shape, generator=generator)
        return values.double() if self.dtype == torch.float64 else values
