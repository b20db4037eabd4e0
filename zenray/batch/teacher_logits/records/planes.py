"""Arrays of integers as byte planes: all low bytes, then all middle ones, then all high ones.

Ranks by frequency are mostly small, so that the upper planes are mostly zeros, and a general compressor sees in each
plane one kind of number.
"""

from __future__ import annotations

import numpy as np

from zenray.errors import OutputDamaged

NUM_RANK_PLANES = 3
"""Of token ranks: enough for 16 million tokens; a plane of zeros costs nothing once compressed."""


def to_planes(values_N: np.ndarray, num_planes: int) -> bytes:
    """Values from 0 to 256**num_planes - 1, `num_planes` at most 4."""
    octets_NP = values_N.astype("<u4", order="C").reshape(-1, 1).view(np.uint8)[:, :num_planes]
    return octets_NP.T.tobytes()


def from_planes(data: bytes, num_planes: int, count: int) -> np.ndarray:
    """int64 [count]. Raises OutputDamaged for another number of bytes."""
    found = octets(data, num_planes * count).reshape(num_planes, count)
    values_N = np.zeros(count, np.int64)
    for plane in range(num_planes):
        values_N |= found[plane].astype(np.int64) << (8 * plane)
    return values_N


def octets(data: bytes, count: int) -> np.ndarray:
    """uint8 [count]. Raises OutputDamaged for another number of bytes."""
    if len(data) != count:
        raise OutputDamaged(f"a column has {len(data)} bytes, its row has {count}")
    return np.frombuffer(data, np.uint8)
