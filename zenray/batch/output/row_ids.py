"""Whether the rows of an output are the planned ones, in order and each once, in sixteen bytes a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b, sha256

import numpy as np

_HASH_BYTES = 16


def is_part_of(some: Iterable[str], row_ids: Iterable[str]) -> bool:
    """Whether `some` are of `row_ids`, in their order and each at most as often."""
    rest = iter(row_ids)
    return all(each in rest for each in some)


class RowIdCheck:
    """Fed with ids in the order of the shards."""

    def __init__(self) -> None:
        self._digest = sha256()
        self._hashes = bytearray()

    def add(self, row_ids: Sequence[str]) -> None:
        for each in row_ids:
            data = each.encode()
            self._digest.update(data + b"\n")  # As `row_ids_digest`.
            self._hashes += blake2b(data, digest_size=_HASH_BYTES).digest()

    @property
    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def repeated(self) -> list[tuple[int, int]]:
        """Pairs of rows, counted from zero over the whole output, that have one id."""
        halves = np.frombuffer(bytes(self._hashes), dtype=np.uint64).reshape(-1, _HASH_BYTES // 8)
        order = np.lexsort(halves.T)  # Stable, so that of equals the earlier row comes first.
        same = (halves[order[1:]] == halves[order[:-1]]).all(axis=1)
        return sorted(zip(order[:-1][same].tolist(), order[1:][same].tolist(), strict=True))
