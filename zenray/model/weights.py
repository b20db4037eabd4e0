"""The weights a decoder holds, and where each of them comes from.

A `WeightProvider` answers for canonical names: `embed`, `head`, `final_norm`, and per layer
`layers.{i}.` + `input_norm`, `qkv`, `q_norm`, `k_norm`, `out`, `post_norm`, then `gate_up`, `down` for a
dense layer or `router`, `experts.{e}.gate_up`, `experts.{e}.down` for an MoE layer. Query, key and value
rows are stacked in that order, as are gate over up: one matrix product each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from zenray.model.config import ModelConfig
from zenray.ops.weights import PackedWeight


@dataclass(frozen=True, slots=True)
class FeedForwardWeights:
    """SwiGLU: gate over up [2F, D], down [D, F]. One dense layer, or one expert."""

    gate_up: PackedWeight
    down: PackedWeight


@dataclass(frozen=True, slots=True)
class MoeWeights:
    """Router [E, D] in float32 (float64 in a float64 model) and E experts."""

    router_ED: torch.Tensor
    experts: tuple[FeedForwardWeights, ...]


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder layer; q_norm and k_norm are None where the architecture has none."""

    input_norm_D: torch.Tensor
    qkv: PackedWeight
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    out: PackedWeight
    post_norm_D: torch.Tensor
    feed_forward: FeedForwardWeights | MoeWeights


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """Everything a decoder multiplies with. `dtype` is that of activations and norms."""

    dtype: torch.dtype
    embed: PackedWeight
    layers: tuple[LayerWeights, ...]
    final_norm_D: torch.Tensor
    head: PackedWeight

    @property
    def num_bytes(self) -> int:
        """Bytes of all matrices and router weights held in memory, a shared table counted once."""
        matrices = [self.embed] if self.head is self.embed else [self.embed, self.head]
        routers = []
        for layer in self.layers:
            matrices += [layer.qkv, layer.out]
            if isinstance(layer.feed_forward, MoeWeights):
                routers.append(layer.feed_forward.router_ED)
                matrices += [m for expert in layer.feed_forward.experts for m in (expert.gate_up, expert.down)]
            else:
                matrices += [layer.feed_forward.gate_up, layer.feed_forward.down]
        return sum(m.num_bytes for m in matrices) + sum(r.numel() * r.element_size() for r in routers)


class WeightProvider(Protocol):
    """Answers for canonical names; raises ModelFileError for what it lacks."""

    dtype: torch.dtype

    def matrix(self, name: str) -> PackedWeight: ...

    def vector(self, name: str) -> torch.Tensor: ...


def gather(config: ModelConfig, provider: WeightProvider) -> ModelWeights:
    """All weights of `config`, asked for once each in file order."""
    embed = provider.matrix("embed")
    layers = tuple(_layer(config, provider, layer) for layer in range(config.num_layers))
    final_norm = provider.vector("final_norm")
    return ModelWeights(provider.dtype, embed, layers, final_norm, provider.matrix("head"))


def _layer(config: ModelConfig, provider: WeightProvider, layer: int) -> LayerWeights:
    at = f"layers.{layer}."
    has_qk_norm = config.qk_norm != "none"
    return LayerWeights(
        input_norm_D=provider.vector(at + "input_norm"),
        qkv=provider.matrix(at + "qkv"),
        q_norm=provider.vector(at + "q_norm") if has_qk_norm else None,
        k_norm=provider.vector(at + "k_norm") if has_qk_norm else None,
        out=provider.matrix(at + "out"),
        post_norm_D=provider.vector(at + "post_norm"),
        feed_forward=_moe(config, provider, at) if config.is_moe_layer(layer) else _feed_forward(provider, at),
    )


def _moe(config: ModelConfig, provider: WeightProvider, at: str) -> MoeWeights:
    router = provider.vector(at + "router")
    experts = (_feed_forward(provider, f"{at}experts.{expert}.") for expert in range(config.num_experts))
    return MoeWeights(router, tuple(experts))


def _feed_forward(provider: WeightProvider, at: str) -> FeedForwardWeights:
    return FeedForwardWeights(provider.matrix(at + "gate_up"), provider.matrix(at + "down"))
