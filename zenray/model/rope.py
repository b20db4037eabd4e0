"""Rotary position embeddings: the table of cosines and sines, with context-extension rules.

Source of the rotation: Su et al., arXiv 2104.09864; llama3 rule: the Llama 3.1 release; yarn: Peng et
al., arXiv 2309.00071.
"""

from __future__ import annotations

import math

import torch

from zenray.model.config import ModelConfig, RopeScaling


def inverse_frequencies(config: ModelConfig) -> tuple[torch.Tensor, float]:
    """Radians per position of each rotated pair, [head_dim / 2] float64, and a factor on cos and sin."""
    half = config.head_dim // 2
    exponents = torch.arange(half, dtype=torch.float64) / half
    frequencies = config.rope_theta**-exponents
    scaling = config.rope_scaling
    if scaling.type == "linear":
        return frequencies / scaling.factor, 1.0
    if scaling.type == "factors":
        return frequencies / torch.tensor(scaling.frequency_factors, dtype=torch.float64), 1.0
    if scaling.type == "llama3":
        return _llama3(frequencies, scaling), 1.0
    if scaling.type == "yarn":
        return _yarn(frequencies, scaling, config)
    return frequencies, 1.0


def cos_sin_table(config: ModelConfig, num_positions: int, dtype: torch.dtype) -> torch.Tensor:
    """[num_positions, head_dim]: row p holds cos(p f) for each pair, then sin(p f).

    Angles are formed in float64, so far positions lose nothing before the final rounding.
    """
    frequencies, factor = inverse_frequencies(config)
    angles = torch.arange(num_positions, dtype=torch.float64)[:, None] * frequencies[None, :]
    return (torch.cat((angles.cos(), angles.sin()), dim=1) * factor).to(dtype)


def _llama3(frequencies: torch.Tensor, scaling: RopeScaling) -> torch.Tensor:
    """Long wavelengths are divided by `factor`, short ones kept, those between interpolated."""
    wavelengths = 2 * math.pi / frequencies
    original = scaling.original_max_position_embeddings
    smooth = (original / wavelengths - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    smooth = smooth.clamp(0, 1)
    return (1 - smooth) * frequencies / scaling.factor + smooth * frequencies


def _yarn(frequencies: torch.Tensor, scaling: RopeScaling, config: ModelConfig) -> tuple[torch.Tensor, float]:
    """Interpolates the pairs that turn less than beta_slow times over the trained context, keeps those
    that turn more than beta_fast times, ramps between."""
    dim, original = config.head_dim, scaling.original_max_position_embeddings

    def pair_of(turns: float) -> float:
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(config.rope_theta))

    low, high = pair_of(scaling.beta_fast), pair_of(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = ((torch.arange(dim // 2, dtype=torch.float64) - low) / max(high - low, 1e-3)).clamp(0, 1)
    mixed = frequencies / scaling.factor * ramp + frequencies * (1 - ramp)
    factor = scaling.attention_factor
    if factor is None:
        factor = 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0
    return mixed, factor
