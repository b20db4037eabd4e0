"""Randomness of a plan: a function of the job's seed and of a document's content, so the same on every machine."""

from __future__ import annotations

from dataclasses import dataclass

from zenray.batch.rows import derive_seed

_DRAW_BITS = 63  # Of `derive_seed`.


@dataclass(frozen=True, slots=True)
class Draws:
    """Independent draws for one document, each by its purpose and number: no draw depends on how many came before."""

    job_seed: int
    document_id: str

    def chance(self, probability: float, purpose: str, number: int = 0) -> bool:
        """True with `probability`; always for 1, never for 0."""
        return self._draw(purpose, number) < int(probability * 2**_DRAW_BITS)

    def below(self, end: int, purpose: str, number: int = 0) -> int:
        """One of 0 .. end - 1, equally likely to within end / 2^63."""
        return self._draw(purpose, number) * end >> _DRAW_BITS

    def _draw(self, purpose: str, number: int) -> int:
        return derive_seed(self.job_seed, self.document_id, purpose, number)
