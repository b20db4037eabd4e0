"""How often each token occurs in what a job scores: short numbers for frequent tokens, and a guess at unseen tails."""

from __future__ import annotations

from functools import cached_property
from hashlib import sha256

import numpy as np

from zenray.errors import OutputDamaged

_VERSION = 1
_PSEUDO_COUNT = 0.25
_FLATTENING = 0.5


class Vocabulary:
    """Counts of the V token ids of a tokenizer over a corpus.

    counts_V: int64, at least 0. Two with equal counts are equal, and have equal bytes.
    """

    def __init__(self, counts_V: np.ndarray) -> None:
        if counts_V.ndim != 1 or not len(counts_V) or counts_V.min() < 0:
            raise ValueError(f"counts of shape {counts_V.shape}; allowed: one number from 0 on for every token id")
        self.counts_V = counts_V.astype(np.int64)

    @property
    def size(self) -> int:
        return len(self.counts_V)

    @cached_property
    def ids_V(self) -> np.ndarray:
        """int32: the ids by falling count, the lower id first among equals."""
        return np.argsort(-self.counts_V, kind="stable").astype(np.int32)

    @cached_property
    def ranks_V(self) -> np.ndarray:
        """int32: the place of every id in `ids_V`."""
        ranks_V = np.empty(self.size, np.int32)
        ranks_V[self.ids_V] = np.arange(self.size, dtype=np.int32)
        return ranks_V

    def ids_at(self, ranks: np.ndarray) -> np.ndarray:
        """int32: the ids of ranks that were read, in any shape. Raises OutputDamaged for ranks that there are none."""
        if ranks.size and not (ranks.min() >= 0 and ranks.max() < self.size):
            raise OutputDamaged(f"rank {ranks.max()} of a vocabulary of {self.size}")
        ids: np.ndarray = self.ids_V[ranks]
        return ids

    @cached_property
    def prior_V(self) -> np.ndarray:
        """float64, sums to 1, nowhere 0: the unigram distribution flattened to its square root, every count raised by
        a quarter first. Of the powers and pseudo-counts tried, those nearest to the 1.5B's tails over five languages:
        what a teacher deems unlikely is rarer than what is written.
        """
        raised_V = (self.counts_V + _PSEUDO_COUNT) ** _FLATTENING
        prior_V: np.ndarray = raised_V / raised_V.sum()
        return prior_V

    def to_bytes(self) -> bytes:
        """Version, V, the number of ids that occur, the gaps between them, their counts: as LEB128 varints."""
        ids = np.flatnonzero(self.counts_V)
        gaps = np.diff(ids, prepend=0)
        return _to_varints(np.concatenate([[_VERSION, self.size, len(ids)], gaps, self.counts_V[ids]]))

    @classmethod
    def from_bytes(cls, data: bytes) -> Vocabulary:
        """Raises OutputDamaged for what no `to_bytes` gives."""
        numbers = _from_varints(data)
        if len(numbers) < 3 or numbers[0] != _VERSION:
            raise OutputDamaged("not a vocabulary")
        size, num_ids = int(numbers[1]), int(numbers[2])
        if not 0 < size < 2**24 or len(numbers) != 3 + 2 * num_ids:
            raise OutputDamaged("a vocabulary of another length than it says")
        ids, counts = np.cumsum(numbers[3 : 3 + num_ids]), numbers[3 + num_ids :]
        if num_ids and not (ids.min() >= 0 and ids.max() < size):
            raise OutputDamaged(f"a vocabulary of {size} ids with others among them")
        counts_V = np.zeros(size, np.int64)
        counts_V[ids] = counts
        vocabulary = cls(counts_V)
        if vocabulary.to_bytes() != data:
            raise OutputDamaged("a vocabulary in another spelling than its own")
        return vocabulary

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the bytes."""
        return sha256(self.to_bytes()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and np.array_equal(self.counts_V, other.counts_V)

    def __hash__(self) -> int:
        return hash(self.digest)


_MAX_VARINT_BYTES = 9  # 63 bits.


def _to_varints(numbers_N: np.ndarray) -> bytes:
    """LEB128: seven bits a byte, low ones first, the top bit set on all but a number's last byte."""
    sevens_NB = (numbers_N.astype(np.int64)[:, None] >> (7 * np.arange(_MAX_VARINT_BYTES))) & 0x7F
    lengths_N = np.maximum(1, _MAX_VARINT_BYTES - np.argmax(sevens_NB[:, ::-1] != 0, axis=1))
    lengths_N[~sevens_NB.any(axis=1)] = 1
    places_B = np.arange(_MAX_VARINT_BYTES)
    goes_on_NB = places_B < lengths_N[:, None] - 1
    octets_M = (sevens_NB | (goes_on_NB << 7))[places_B < lengths_N[:, None]]
    return bytes(octets_M.astype(np.uint8))


def _from_varints(data: bytes) -> np.ndarray:
    """int64. Raises OutputDamaged for a number that does not end or is too long."""
    found_M = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(found_M < 0x80)
    if not len(ends) or ends[-1] != len(found_M) - 1:
        raise OutputDamaged("a number without an end")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_VARINT_BYTES:
        raise OutputDamaged("a number of more than 63 bits")
    places_M = np.arange(len(found_M)) - np.repeat(starts, lengths)
    return np.add.reduceat((found_M & 0x7F).astype(np.int64) << (7 * places_M), starts)
