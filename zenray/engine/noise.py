"""The one random source of the platform: Gumbel noise that is a function of (seed, position, token).

Whoever samples position p of a sequence with seed s sees the same noise: the verifier, any drafter, a
retried or preempted run, any batch. Sampling is then `argmax(log p + noise)` (the Gumbel-max trick),
and a draft that equals it is accepted (Gumbel coupling, Daliri et al., arXiv 2408.07978).
"""

from __future__ import annotations

import torch

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _mix(x: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014) on Python integers."""
    x = (x ^ (x >> 30)) * _MIX_1 & _MASK
    x = (x ^ (x >> 27)) * _MIX_2 & _MASK
    return x ^ (x >> 31)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >> 63 else x


def _logical_shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def choice_seed(seed: int, index: int) -> int:
    """Seed of choice `index` of a request; choice 0 keeps the request's own."""
    return seed & _MASK if index == 0 else _mix((seed + index * _GOLDEN) & _MASK)


def gumbel(seed: int, position: int, token_ids: torch.Tensor) -> torch.Tensor:
    """Gumbel(0, 1) noise for the given token ids at one position: float64, the ids' shape.

    `position` is the index of the token being chosen within prompt plus completion.
    """
    state = _mix((_mix(seed & _MASK) + position * _GOLDEN) & _MASK)
    # SplitMix64 in wrapping int64 arithmetic: counter `state + (id + 1) * golden`, then the finaliser.
    x = (token_ids.to(torch.int64) + 1) * _signed(_GOLDEN) + _signed(state)
    x = (x ^ _logical_shift(x, 30)) * _signed(_MIX_1)
    x = (x ^ _logical_shift(x, 27)) * _signed(_MIX_2)
    x = x ^ _logical_shift(x, 31)
    uniform = (_logical_shift(x, 11).to(torch.float64) + 0.5) * 2.0**-53  # in (0, 1), never an end point
    return -torch.log(-torch.log(uniform))
