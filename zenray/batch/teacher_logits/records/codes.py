"""Numbers of a record as small integers.

Probabilities lie on a grid whose steps are a sixteenth of a nat down to exp(-3), an eighth down to exp(-4), a quarter
down to exp(-5) and a half below. A probability between two grid points becomes one of them at random, so that the
expectation of what is read is the probability itself, not its logarithm: a student's gradient is linear in the
teacher's probabilities. Rounding adds to the divergence half the variance of its logarithm times the probability, so
the steps may widen as probabilities fall: all together 0.001 nats, for a tenth of the bytes.
"""

from __future__ import annotations

import numpy as np

ZERO_CODE = 255
"""Stands for probability 0. The grid's last point is exp(-102); what is less becomes that or 0."""

_STEPS_K = np.repeat([1 / 16, 1 / 8, 1 / 4, 1 / 2], [48, 8, 4, ZERO_CODE - 1 - 48 - 8 - 4])
LOGPROBS_K = np.append(-np.cumsum(np.append(0.0, _STEPS_K)), -np.inf)
"""float64 [256]: natural logarithms of what each code stands for."""
GRID_K = np.exp(LOGPROBS_K)


def uniforms(seed: int, size: int) -> np.ndarray:
    """float64 [size] in [0, 1), from the Philox stream of `seed` (0 to 2**128). Made from its raw 64-bit numbers,
    which numpy promises never to change, as it does not of `Generator.random`."""
    raw_N = np.asarray(np.random.Philox(key=seed).random_raw(size), np.uint64)
    uniforms_N: np.ndarray = (raw_N >> np.uint64(11)) * 2.0**-53
    return uniforms_N


def probability_cells(probabilities_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each probability the code of the grid point above it (int64), and the chance of that one (float64): else it
    becomes the next one, so that the mean is the probability. Taken into [0, 1] first."""
    wanted_N = np.clip(probabilities_N.astype(np.float64), 0.0, 1.0)
    # Of the falling grid, the last point that is not below.
    codes_N = np.searchsorted(-GRID_K, -wanted_N, side="right") - 1
    codes_N = np.minimum(codes_N, ZERO_CODE - 1)
    above_N, below_N = GRID_K[codes_N], GRID_K[codes_N + 1]
    return codes_N, (wanted_N - below_N) / (above_N - below_N)


def encode_probabilities(probabilities_N: np.ndarray, uniforms_N: np.ndarray) -> np.ndarray:
    """uint8 codes; `uniforms_N` in [0, 1) decide between neighbours."""
    codes_N, chances_N = probability_cells(probabilities_N)
    return (codes_N + (uniforms_N >= chances_N)).astype(np.uint8)


def decode_probabilities(codes_N: np.ndarray) -> np.ndarray:
    """float64."""
    probabilities_N: np.ndarray = GRID_K[codes_N]
    return probabilities_N


def decode_logprobs(codes_N: np.ndarray) -> np.ndarray:
    """float32, -inf for `ZERO_CODE`."""
    logprobs_N: np.ndarray = LOGPROBS_K[codes_N].astype(np.float32)
    return logprobs_N
