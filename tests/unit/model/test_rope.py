"""Rotary embeddings: rotations that depend on position differences, with the frequencies of transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.model.config import ModelConfig, RopeScaling
from zenray.model.presets import PRESETS
from zenray.model.rope import cos_sin_table, inverse_frequencies
from zenray.ops import backend_for

CONFIG = PRESETS["tiny"].replace({"head_dim": 32, "rope_theta": 500_000.0})
OPS = backend_for("cpu", torch.float64)


def rotated(config: ModelConfig, vector: torch.Tensor, position: int) -> torch.Tensor:
    query, key = vector.clone()[None, None], vector.clone()[None, None]
    OPS.rope_(query, key, torch.tensor([position]), cos_sin_table(config, position + 1, torch.float64))
    return query[0, 0]


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), a=st.integers(0, 500), b=st.integers(0, 500), shift=st.integers(0, 500))
def test_scores_depend_on_the_difference_of_positions_only(seed: int, a: int, b: int, shift: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(32, generator=generator, dtype=torch.float64) for _ in range(2))
    score = rotated(CONFIG, q, a) @ rotated(CONFIG, k, b)
    moved = rotated(CONFIG, q, a + shift) @ rotated(CONFIG, k, b + shift)
    assert float((score - moved).abs()) < 1e-9
    assert float((rotated(CONFIG, q, a).norm() - q.norm()).abs()) < 1e-9
    assert torch.allclose(rotated(CONFIG, q, 0), q)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (RopeScaling(), {"rope_type": "default"}),
        (RopeScaling(type="linear", factor=4.0), {"rope_type": "linear", "factor": 4.0}),
        (
            RopeScaling(type="llama3", factor=8.0, original_max_position_embeddings=8192),
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        ),
        (
            RopeScaling(type="yarn", factor=4.0, original_max_position_embeddings=32_768),
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768},
        ),
    ],
    ids=lambda value: value["rope_type"] if isinstance(value, dict) else "",
)
def test_frequencies_are_those_of_transformers(ours: RopeScaling, theirs: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = transformers.LlamaConfig(
        hidden_size=128,
        num_attention_heads=4,
        max_position_embeddings=131_072,
        rope_parameters={"rope_theta": 500_000.0, **theirs},
    )
    reference = LlamaRotaryEmbedding(config)
    frequencies, factor = inverse_frequencies(CONFIG.replace({"rope_scaling": ours}))
    assert torch.allclose(frequencies.float(), reference.inv_freq, rtol=1e-5, atol=0)
    assert factor == pytest.approx(reference.attention_scaling)


def test_far_positions_are_exact() -> None:
    """float32 angles are off by 1e-3 at position 32,000; ours are formed in float64."""
    frequencies, _ = inverse_frequencies(CONFIG)
    row = cos_sin_table(CONFIG, 32_001, torch.float32)[32_000]
    assert torch.equal(row[:16], (32_000 * frequencies).cos().float())
