"""Named architectures without public weights: the reference models, and toys for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zenray.errors import NotFound
from zenray.model.config import ModelConfig

TOY_VOCAB_SIZE = 264
"""256 bytes and the eight control tokens of the toy tokenizer."""

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
