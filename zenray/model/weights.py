"""The weights a decoder holds, and where each of them comes from.

A `WeightProvider` answers for canonical names: `embed`, `head`, `final_norm`, and per layer
`layers.{i}.` + `input_norm`, `qkv`, `q_norm`, `k_norm`, `out`, `post_norm`, then `gate_up`, `down` for a
dense layer or `router`, `experts.{e}.gate_up`, `experts.{e}.down` for an MoE layer. Query, key and value
rows are stacked in that order, as are gate over up: one matrix product each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from zenray.model.config import ModelConfig
from zenray.ops.weights import PackedWeight


@dataclass(frozen=True, slots=True)
class FeedForwardWeights:
    """SwiGLU: gate over up [2F, D], down [D, F]. One dense layer, or one expert."""

    gate_up: PackedWeight
    down: PackedWeight

    @property
    def num_bytes(self) -> int:
        return self.gate_up.num_bytes + self.down.num_bytes


@dataclass(frozen=True, slots=True)
class MoeWeights:
    """Router [E, D] in float32 (float64 in a float64 model) and E experts, or none where others hold them.

    expert_bytes: of one expert.
    """

    router_ED: torch.Tensor
    experts: tuple[FeedForwardWeights, ...]
    expert_bytes: int


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

    def to(self, device: torch.device) -> ModelWeights:
        """The same weights on another device; a shared table stays shared."""
        return moved(self, device)


_Weights = TypeVar("_Weights", ModelWeights, FeedForwardWeights)


def moved(weights: _Weights, device: torch.device) -> _Weights:
    """The same weights on another device; what is shared stays shared."""
    done: dict[int, Any] = {}

    def move(value: Any) -> Any:
        if id(value) not in done:
            if isinstance(value, torch.Tensor):
                done[id(value)] = value.to(device)
            elif isinstance(value, tuple):
                done[id(value)] = tuple(move(item) for item in value)
            elif dataclasses.is_dataclass(value) and not isinstance(value, type):
                fields = {field.name: move(getattr(value, field.name)) for field in dataclasses.fields(value)}
                done[id(value)] = dataclasses.replace(value, **fields)
            else:
                done[id(value)] = value
        return done[id(value)]

    result = move(weights)
    assert isinstance(result, type(weights))
    return result


class WeightProvider(Protocol):
    """Answers for canonical names; raises ModelFileError for what it lacks."""

    dtype: torch.dtype

    @property
    def digest(self) -> str:
        """Equal in two processes only if all their weights are."""
        ...

    def matrix(self, name: str) -> PackedWeight: ...

    def vector(self, name: str) -> torch.Tensor: ...

    def check(self, name: str) -> None:
        """Raises ModelFileError unless a matrix's bytes are those of its digest, where one was written."""
        ...

    def release(self, name: str) -> None:
        """Gives back memory that only mirrors a file. A matrix still in use stays right: it is read again."""
        ...


def matrix_names(config: ModelConfig) -> Iterator[str]:
    """Every canonical matrix, in the order `gather` asks for them."""
    yield "embed"
    for layer in range(config.num_layers):
        at = f"layers.{layer}."
        yield at + "qkv"
        yield at + "out"
        owners = [f"experts.{e}." for e in range(config.num_experts)] if config.is_moe_layer(layer) else [""]
        for owner in owners:
            yield f"{at}{owner}gate_up"
            yield f"{at}{owner}down"
    yield "head"


def vector_names(config: ModelConfig) -> Iterator[str]:
    """Every canonical tensor that is no packed matrix: norms and routers."""
    for layer in range(config.num_layers):
        at = f"layers.{layer}."
        yield at + "input_norm"
        if config.qk_norm != "none":
            yield at + "q_norm"
            yield at + "k_norm"
        yield at + "post_norm"
        if config.is_moe_layer(layer):
            yield at + "router"
    yield "final_norm"


def matrix_parts(config: ModelConfig, name: str) -> tuple[str, ...]:
    """The parts whose rows, stacked, make a canonical matrix; a tied head is the embedding."""
    at, _, leaf = name.rpartition(".")
    if leaf == "head" and config.tie_word_embeddings:
        return ("embed",)
    parts = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}.get(leaf, (leaf,))
    return tuple(f"{at}.{part}" if at else part for part in parts)


def has_bias(config: ModelConfig, name: str) -> bool:
    """Whether a canonical matrix comes with a bias."""
    leaf = name.rpartition(".")[2]
    if leaf == "qkv":
        return config.qkv_bias
    if leaf == "out":
        return config.attention_out_bias
    return config.mlp_bias and leaf in ("gate_up", "down") and ".experts." not in name


def part_shape(config: ModelConfig, part: str) -> tuple[int, ...]:
    """The shape of a part: (rows, columns) of a matrix, (rows,) of a norm or bias."""
    if part.endswith(".bias"):
        return part_shape(config, part.removesuffix(".bias"))[:1]
    hidden, leaf = config.hidden_size, part.rpartition(".")[2]
    width = config.expert_intermediate_size if ".experts." in part else config.intermediate_size
    full = config.qk_norm == "full"
    shapes: dict[str, tuple[int, ...]] = {
        "embed": (config.vocab_size, hidden),
        "head": (config.vocab_size, hidden),
        "q": (config.q_size, hidden),
        "k": (config.kv_size, hidden),
        "v": (config.kv_size, hidden),
        "out": (hidden, config.q_size),
        "gate": (width, hidden),
        "up": (width, hidden),
        "down": (hidden, width),
        "router": (config.num_experts, hidden),
        "q_norm": (config.q_size if full else config.head_dim,),
        "k_norm": (config.kv_size if full else config.head_dim,),
    }
    return shapes.get(leaf, (hidden,))


def gather(config: ModelConfig, provider: WeightProvider, *, with_experts: bool = True) -> ModelWeights:
    """All weights of `config`, asked for once each in file order; MoE layers may be left without their experts."""
    embed = provider.matrix("embed")
    num_experts = config.num_experts if with_experts else 0
    layers = tuple(_layer(config, provider, layer, num_experts) for layer in range(config.num_layers))
    final_norm = provider.vector("final_norm")
    return ModelWeights(provider.dtype, embed, layers, final_norm, provider.matrix("head"))


def _layer(config: ModelConfig, provider: WeightProvider, layer: int, num_experts: int) -> LayerWeights:
    at = f"layers.{layer}."
    has_qk_norm = config.qk_norm != "none"
    return LayerWeights(
        input_norm_D=provider.vector(at + "input_norm"),
        qkv=provider.matrix(at + "qkv"),
        q_norm=provider.vector(at + "q_norm") if has_qk_norm else None,
        k_norm=provider.vector(at + "k_norm") if has_qk_norm else None,
        out=provider.matrix(at + "out"),
        post_norm_D=provider.vector(at + "post_norm"),
        feed_forward=_moe(provider, at, num_experts) if config.is_moe_layer(layer) else read_feed_forward(provider, at),
    )


def _moe(provider: WeightProvider, at: str, num_experts: int) -> MoeWeights:
    router = provider.vector(at + "router")
    first = read_feed_forward(provider, at + "experts.0.")
    others = (read_feed_forward(provider, f"{at}experts.{expert}.") for expert in range(1, num_experts))
    return MoeWeights(router, (first, *others) if num_experts else (), first.num_bytes)


def read_feed_forward(provider: WeightProvider, at: str) -> FeedForwardWeights:
    """The feed-forward whose names begin with `at`: a dense layer's, or one expert's."""
    return FeedForwardWeights(provider.matrix(at + "gate_up"), provider.matrix(at + "down"))
