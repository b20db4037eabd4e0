"""The two numbers that every format keeps of a row, each in two bytes: the gold token's log-prob and the entropy."""

from __future__ import annotations

import numpy as np

from zenray.batch.teacher_logits.records.planes import from_planes, to_planes

STEPS_PER_NAT = 512
"""Values are kept to half a step, up to 128 nats: log-probs below that become it, entropies never get there."""
_NUM_PLANES = 2
_MOST = 2 ** (8 * _NUM_PLANES) - 1


def encode_gold_logprobs(logprobs_R: np.ndarray) -> bytes:
    return _encode(-logprobs_R)


def decode_gold_logprobs(data: bytes, count: int) -> np.ndarray:
    """float32 [count]. Raises OutputDamaged."""
    return -_decode(data, count)


def encode_entropies(entropies_R: np.ndarray) -> bytes:
    return _encode(entropies_R)


def decode_entropies(data: bytes, count: int) -> np.ndarray:
    """float32 [count]. Raises OutputDamaged."""
    return _decode(data, count)


def _encode(values_R: np.ndarray) -> bytes:
    """To the nearest step of a range that begins at 0; what is outside becomes the range's end."""
    steps_R = np.clip(np.rint(values_R.astype(np.float64) * STEPS_PER_NAT), 0, _MOST)
    return to_planes(steps_R.astype(np.int64), _NUM_PLANES)


def _decode(data: bytes, count: int) -> np.ndarray:
    values_R: np.ndarray = from_planes(data, _NUM_PLANES, count).astype(np.float32) / STEPS_PER_NAT
    return values_R
