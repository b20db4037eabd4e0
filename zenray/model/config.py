"""The architecture of a decoder, as data. One `Decoder` reads every field; no model has its own class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from zenray.errors import ConfigError

QkNorm = Literal["none", "head", "full"]
"""RMSNorm on queries and keys: none, over each head (Qwen3), over the whole projection (OLMoE)."""

RopeType = Literal["default", "linear", "llama3", "yarn", "factors"]


_AT_LEAST_ONE = (
    "vocab_size",
    "hidden_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "max_position_embeddings",
)


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are stretched past the trained context. Unused fields keep defaults.

    `attention_factor` None takes the type's own rule (yarn: 0.1 ln(factor) + 1). Type "factors" divides
    each frequency by its own number in `frequency_factors`, as GGUF files store llama3's rule.
    """

    type: RopeType = "default"
    factor: float = 1.0
    original_max_position_embeddings: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    truncate: bool = True
    frequency_factors: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A decoder-only transformer: RMSNorm, RoPE, grouped-query attention, SwiGLU dense or MoE.

    num_experts 0 means dense everywhere; otherwise layers in `dense_layers` stay dense.
    intermediate_size is the dense FFN width, expert_intermediate_size that of one expert.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling = RopeScaling()
    max_position_embeddings: int = 4096
    qkv_bias: bool = False
    attention_out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: QkNorm = "none"
    tie_word_embeddings: bool = False
    num_experts: int = 0
    num_experts_per_token: int = 0
    expert_intermediate_size: int = 0
    norm_topk_prob: bool = True
    dense_layers: tuple[int, ...] = ()
    eos_token_ids: tuple[int, ...] = ()
    bos_token_id: int | None = None

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not self.rope_theta > 0 or self.rms_norm_eps < 0 or not self.rope_scaling.factor > 0:
            raise ConfigError(
                f"rope_theta {self.rope_theta} and its factor {self.rope_scaling.factor} must be above 0, "
                f"rms_norm_eps {self.rms_norm_eps} not below"
            )
        if self.rope_scaling.type in ("llama3", "yarn") and self.rope_scaling.original_max_position_embeddings < 1:
            raise ConfigError(f"rope scaling {self.rope_scaling.type} needs original_max_position_embeddings")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(f"num_heads is {self.num_heads}; allowed: multiples of num_kv_heads {self.num_kv_heads}")
        if self.head_dim % 2:
            raise ConfigError(f"head_dim is {self.head_dim}; rotary embeddings need an even width")
        if self.rope_scaling.type == "factors" and len(self.rope_scaling.frequency_factors) != self.head_dim // 2:
            found = len(self.rope_scaling.frequency_factors)
            raise ConfigError(
                f"rope_scaling.frequency_factors has {found} entries; head_dim needs {self.head_dim // 2}"
            )
        if self.num_experts:
            chosen = self.num_experts_per_token
            if not 1 <= chosen <= self.num_experts:
                raise ConfigError(f"num_experts_per_token is {chosen}; allowed: 1 to num_experts {self.num_experts}")
            if self.expert_intermediate_size < 1:
                raise ConfigError(f"expert_intermediate_size is {self.expert_intermediate_size}; it must be at least 1")
        if self.has_dense_layers and self.intermediate_size < 1:
            raise ConfigError(f"intermediate_size is {self.intermediate_size}; dense layers need at least 1")

    @property
    def q_size(self) -> int:
        """Width of all query heads."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of all key heads (and of all value heads)."""
        return self.num_kv_heads * self.head_dim

    @property
    def has_dense_layers(self) -> bool:
        return not self.num_experts or bool(self.dense_layers)

    def is_moe_layer(self, layer: int) -> bool:
        """Whether layer `layer` routes to experts."""
        return self.num_experts > 0 and layer not in self.dense_layers

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """The layers that route to experts."""
        return tuple(filter(self.is_moe_layer, range(self.num_layers)))

    @property
    def num_parameters(self) -> int:
        """Weights and biases, tied embeddings counted once."""
        return self._count(self.num_experts)

    @property
    def num_active_parameters(self) -> int:
        """What one token passes through: top-k experts, and the head but not the embedding row."""
        embedding = 0 if self.tie_word_embeddings else self.vocab_size * self.hidden_size
        return self._count(self.num_experts_per_token) - embedding

    def _count(self, experts_per_layer: int) -> int:
        hidden, q, kv = self.hidden_size, self.q_size, self.kv_size
        attention = 2 * hidden * q + 2 * hidden * kv
        attention += (q + 2 * kv if self.qkv_bias else 0) + (hidden if self.attention_out_bias else 0)
        attention += {"none": 0, "head": 2 * self.head_dim, "full": q + kv}[self.qk_norm]
        dense = 3 * hidden * self.intermediate_size
        dense += 2 * self.intermediate_size + hidden if self.mlp_bias else 0
        moe = hidden * self.num_experts + experts_per_layer * 3 * hidden * self.expert_intermediate_size
        layers = sum(
            attention + 2 * hidden + (moe if self.is_moe_layer(layer) else dense) for layer in range(self.num_layers)
        )
        tables = self.vocab_size * hidden * (1 if self.tie_word_embeddings else 2)
        return tables + layers + hidden

    def kv_bytes_per_token(self, element_size: int) -> int:
        """KV cache bytes one token takes over all layers."""
        return 2 * self.num_layers * self.kv_size * element_size

    def replace(self, overrides: Mapping[str, Any]) -> ModelConfig:
        """A copy with fields changed, such as a scaled-down preset. Unknown names are refused.

        Raises:
            ConfigError: naming the field and what is allowed.
        """
        known = {field.name for field in dataclasses.fields(self)}
        for name in overrides:
            if name not in known:
                raise ConfigError(f"{name!r} is no architecture field; known: {', '.join(sorted(known))}")
        return dataclasses.replace(self, **overrides)

    def to_json(self) -> dict[str, Any]:
        """Plain data for a JSON file; `from_json` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelConfig:
        fields = dict(data)
        scaling = dict(fields["rope_scaling"])
        scaling["frequency_factors"] = tuple(scaling["frequency_factors"])
        fields["rope_scaling"] = RopeScaling(**scaling)
        fields["dense_layers"] = tuple(fields["dense_layers"])
        fields["eos_token_ids"] = tuple(fields["eos_token_ids"])
        return cls(**fields)
