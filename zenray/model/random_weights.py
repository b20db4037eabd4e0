"""Weights drawn from a seed, for presets. Every tensor has its own stream, so one tensor's shape or the
order of creation never changes another."""

from __future__ import annotations

import hashlib

import torch

from zenray.model.config import ModelConfig
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
        self.dtype = dtype
        self._config, self._seed, self._format = config, seed, weight_format
        self._embed: PackedWeight | None = None

    def matrix(self, name: str) -> PackedWeight:
        if name == "head" and self._config.tie_word_embeddings and self._format == "dense":
            assert self._embed is not None, "the embedding is asked for first"
            return self._embed
        rows, columns = self._shape(name)
        source = "embed" if name == "head" and self._config.tie_word_embeddings else name
        gain = _SHARP_ATTENTION if name.endswith((".qkv", ".out")) else 1.0
        values = self._normal(source, rows, columns) * (gain / columns**0.5)
        bias = self._normal(name + ".bias", rows).mul_(0.5).to(self.dtype) if self._has_bias(name) else None
        # A row gather reads one row per token, so the table stays as precise as activations.
        if self._format == "dense" or name == "embed":
            packed = PackedWeight("dense", (rows, columns), values.to(self.dtype), bias=bias)
        else:
            packed = pack(values, self._format, bias)
        if name == "embed":
            self._embed = packed
        return packed

    def vector(self, name: str) -> torch.Tensor:
        config = self._config
        leaf = name.rsplit(".", 1)[-1]
        if leaf == "router":
            wide = torch.float64 if self.dtype == torch.float64 else torch.float32
            # Twice unit variance: routers of trained models are decided, not flat.
            router = self._normal(name, config.num_experts, config.hidden_size) * (2 / config.hidden_size**0.5)
            return router.to(wide)
        size = config.hidden_size
        if leaf in ("q_norm", "k_norm"):
            full = config.q_size if leaf == "q_norm" else config.kv_size
            size = full if config.qk_norm == "full" else config.head_dim
        mean = _SHARP_ATTENTION if leaf in ("q_norm", "k_norm") else 1.0
        return self._normal(name, size).mul_(0.1).add_(mean).to(self.dtype)

    def _shape(self, name: str) -> tuple[int, int]:
        return matrix_shape(self._config, name)

    def _has_bias(self, name: str) -> bool:
        leaf = name.rsplit(".", 1)[-1]
        return {"qkv": self._config.qkv_bias, "out": self._config.attention_out_bias}.get(
            leaf, self._config.mlp_bias and leaf in ("gate_up", "down") and ".experts." not in name
        )

    def _normal(self, name: str, *shape: int) -> torch.Tensor:
        digest = hashlib.sha256(f"{self._seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        return torch.randn(shape, generator=generator, dtype=dtype)


def matrix_shape(config: ModelConfig, name: str) -> tuple[int, int]:
    """Rows and columns of a canonical matrix name (`zenray.model.weights`)."""
    hidden = config.hidden_size
    width = config.expert_intermediate_size if ".experts." in name else config.intermediate_size
    return {
        "embed": (config.vocab_size, hidden),
        "head": (config.vocab_size, hidden),
        "qkv": (config.q_size + 2 * config.kv_size, hidden),
        "out": (hidden, config.q_size),
        "gate_up": (2 * width, hidden),
        "down": (hidden, width),
    }[name.rsplit(".", 1)[-1]]
