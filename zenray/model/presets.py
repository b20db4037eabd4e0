"""Named architectures without public weights: the reference models, and toys for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zenray.errors import NotFound
from zenray.model.config import ModelConfig

TOY_VOCAB_SIZE = 264
"""256 bytes and the eight control tokens of the toy tokenizer."""


def _known_shape(
    vocab_size: int, hidden_size: int, num_layers: int, num_heads: int, num_kv_heads: int, **others: Any
) -> ModelConfig:
    """A shape like that of well-known open models: heads of 128, a context of 128K, a head of its own."""
    return ModelConfig(
        architecture="zen4",
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=128,
        rope_theta=1_000_000.0,
        max_position_embeddings=131_072,
        **{"intermediate_size": 0, **others},
    )


def _experts(num: int, per_token: int, width: int) -> dict[str, int]:
    return {"num_experts": num, "num_experts_per_token": per_token, "expert_intermediate_size": width}


PRESETS: dict[str, ModelConfig] = {
    # About 8.0B parameters, 1.3B of them active per token.
    "zen4-coder-flash": ModelConfig(
        architecture="zen4",
        vocab_size=100_352,
        hidden_size=2048,
        num_layers=19,
        num_heads=8,
        num_kv_heads=1,
        head_dim=256,
        intermediate_size=0,
        rope_theta=1_000_000.0,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
        num_experts=16,
        num_experts_per_token=2,
        expert_intermediate_size=4096,
        norm_topk_prob=True,
    ),
    # About 120M parameters, the vocabulary of its verifier.
    "zen4-coder-draft": ModelConfig(
        architecture="zen4",
        vocab_size=100_352,
        hidden_size=768,
        num_layers=12,
        num_heads=12,
        num_kv_heads=4,
        head_dim=64,
        intermediate_size=896,
        rope_theta=1_000_000.0,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
    ),
    # For `zenray plan`: too large to try, not to reckon with. In all (and active per token):
    # 70.6B (27.2B), 357.9B (35.0B), 992.6B (41.2B); the expert width makes up the size that the name says.
    "moe-70b": _known_shape(128_256, 8192, 80, 64, 8, **_experts(16, 4, 1792)),
    "moe-358b": _known_shape(
        151_552, 5120, 92, 96, 8, **_experts(128, 8, 1920), dense_layers=(0,), intermediate_size=12_288, qk_norm="head"
    ),
    "moe-1t": _known_shape(
        163_840, 7168, 61, 64, 8, **_experts(256, 8, 3072), dense_layers=(0, 1, 2), intermediate_size=18_432
    ),
    "dense-4b": _known_shape(
        151_936, 2560, 36, 32, 8, intermediate_size=9728, qk_norm="head", tie_word_embeddings=True
    ),
    "dense-14b": _known_shape(151_936, 5120, 40, 40, 8, intermediate_size=17_408, qk_norm="head"),
    "dense-24b": _known_shape(131_072, 5120, 40, 32, 8, intermediate_size=32_768),
    "dense-123b": _known_shape(32_768, 12_288, 88, 96, 8, intermediate_size=28_672),
    "tiny": ModelConfig(
        architecture="zen4",
        vocab_size=TOY_VOCAB_SIZE,
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        intermediate_size=128,
        max_position_embeddings=8192,
        qkv_bias=True,
    ),
    "tiny-moe": ModelConfig(
        architecture="zen4",
        vocab_size=TOY_VOCAB_SIZE,
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=1,
        head_dim=16,
        intermediate_size=0,
        max_position_embeddings=8192,
        qk_norm="head",
        tie_word_embeddings=True,
        num_experts=8,
        num_experts_per_token=2,
        expert_intermediate_size=64,
    ),
}


def preset_config(name: str, overrides: Mapping[str, Any]) -> ModelConfig:
    """The preset's architecture with fields replaced, such as {"num_layers": 2}.

    Raises:
        NotFound: no such preset.
        ConfigError: an override that is no field, or makes no architecture.
    """
    if name not in PRESETS:
        raise NotFound("preset", name, PRESETS)
    return PRESETS[name].replace(overrides)
