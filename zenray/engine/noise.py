"""The one random source of the platform: noise that is a function of (seed, position), and of the token where tokens
are chosen.

Whoever samples position p of a sequence with seed s sees the same noise: the verifier, any drafter, a
retried or preempted run, any batch. Sampling is then `argmax(log p + noise)` (the Gumbel-max trick),
and a draft that equals it is accepted (Gumbel coupling, Daliri et al., arXiv 2408.07978).
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_LARGEST_UNIFORM = 1 - 2.0**-53
_IDS_AT_ONCE = 32_768  # scratch that stays in the second-level cache


def choice_seed(seed: int, index: int) -> int:
    """Seed of choice `index` of a request; choice 0 keeps the request's own."""
    return seed & _MASK if index == 0 else _mix((seed + index * _GOLDEN) & _MASK)


def gumbel(seed: int, position: int, token_ids: torch.Tensor) -> torch.Tensor:
    """Gumbel(0, 1) noise for the given token ids at one position: float64, the ids' shape, on the CPU.

    `position` is the index of the token being chosen within prompt plus completion.
    """
    # By numpy: torch hands logarithms to MKL, which wakes its threads for however few. A busy machine waits for them.
    x = _split_mix((token_ids.cpu().numpy().astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN), seed, position)
    uniform = ((x >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    # All 53 bits set and a half more round to 1, whose noise is infinite.
    return torch.from_numpy(-np.log(-np.log(np.minimum(uniform, _LARGEST_UNIFORM))))


def uniform(seed: int, position: int) -> float:
    """Uniform in [0, 1) for what is drawn once at a position. Independent of `gumbel`, which counts tokens from 1: this
    is what stands at 0."""
    return (_mix(_key(seed, position)) >> 11) * 2.0**-53


def ids_with_noise_above(seed: int, position: int, vocab_size: int, floor: float) -> np.ndarray:
    """Ascending ids below `vocab_size` that hold every one whose `gumbel` is at least `floor`, and hardly others.

    The noise grows with the uniform it is made of, so integers are compared and no logarithm is taken: a fifth
    of a millisecond for 150,000 ids on one core.
    """
    uniform = math.exp(-math.exp(-max(floor, -6.0)))  # below -6 it is 0
    # Eight units of the last place are more than both roundings; the low 11 bits are not in the uniform.
    lowest = np.uint64(max(0, int(uniform * 2.0**53) - 8) << 11)
    counters = _counters(vocab_size)
    parts = [counters[start : start + _IDS_AT_ONCE] for start in range(0, vocab_size, _IDS_AT_ONCE)]
    return np.concatenate(
        [np.flatnonzero(_split_mix(part, seed, position) >= lowest) + _IDS_AT_ONCE * i for i, part in enumerate(parts)]
    )


def _split_mix(counters: np.ndarray, seed: int, position: int) -> np.ndarray:
    """SplitMix64 (Steele, Lea & Flood 2014): the finaliser of state plus counter, an array of uint64."""
    x = counters + np.uint64(_key(seed, position))
    shifted = x >> np.uint64(30)
    for factor, bits in ((_MIX_1, 27), (_MIX_2, 31)):
        np.bitwise_xor(x, shifted, out=x)
        np.multiply(x, np.uint64(factor), out=x)
        np.right_shift(x, np.uint64(bits), out=shifted)
    np.bitwise_xor(x, shifted, out=x)
    return x


def _key(seed: int, position: int) -> int:
    """The generator's state at a position."""
    return _mix((_mix(seed & _MASK) + position * _GOLDEN) & _MASK)


def _mix(x: int) -> int:
    """The same finaliser of one Python integer."""
    x = (x ^ (x >> 30)) * _MIX_1 & _MASK
    x = (x ^ (x >> 27)) * _MIX_2 & _MASK
    return x ^ (x >> 31)


@functools.lru_cache(maxsize=4)
def _counters(vocab_size: int) -> np.ndarray:
    return np.arange(1, vocab_size + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
