"""The two numbers that every format keeps of a row, each in two bytes: the gold token's log-prob and the entropy."""

from __future__ import annotations

import numpy as np

from zenray.batch.teacher_logits.records.planes import from_planes, to_planes

GOLD_STEPS_PER_NAT = 2048
"""Log-probs of gold tokens: from 0 down to -32 nats, to half a step; less is kept as the least."""
ENTROPY_STEPS_PER_NAT = 4096
"""Entropies: up to 16 nats, to half a step. No vocabulary below 8.8 million has more."""
_NUM_PLANES = 2
_MOST = 2 ** (8 * _NUM_PLANES) - 1


def encode_gold_logprobs(logprobs_R: np.ndarray) -> bytes:
    return _encode(-logprobs_R, GOLD_STEPS_PER_NAT)


def decode_gold_logprobs(data: bytes, count: int) -> np.ndarray:
    """float32 [count]. Raises OutputDamaged."""
    return -_decode(data, count, GOLD_STEPS_PER_NAT)


def encode_entropies(entropies_R: np.ndarray) -> bytes:
    return _encode(entropies_R, ENTROPY_STEPS_PER_NAT)


def decode_entropies(data: bytes, count: int) -> np.ndarray:
    """float32 [count]. Raises OutputDamaged."""
    return _decode(data, count, ENTROPY_STEPS_PER_NAT)


def _encode(values_R: np.ndarray, steps_per_nat: int) -> bytes:
    """To the nearest step of a range that begins at 0; what is outside becomes the range's end."""
    steps_R = np.clip(np.rint(values_R.astype(np.float64) * steps_per_nat), 0, _MOST)
    return to_planes(steps_R.astype(np.int64), _NUM_PLANES)


def _decode(data: bytes, count: int, steps_per_nat: int) -> np.ndarray:
    values_R: np.ndarray = from_planes(data, _NUM_PLANES, count).astype(np.float32) / steps_per_nat
    return values_R
