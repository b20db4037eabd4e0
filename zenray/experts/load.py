"""How busy each expert has been lately."""

from __future__ import annotations

from collections.abc import Sequence

from zenray.experts.placement import ExpertId

HALF_LIFE_PAIRS = 65_536
"""Pairs of a token and an expert in one layer after which an observation counts half. Long enough that the share of
one expert in 16 is known within a percent or so, short enough to follow a change of text within minutes."""

_LARGEST_WEIGHT = 1e100


class LoadMeter:
    """Pairs per expert, exponentially decayed by the pairs of the layer's later steps.

    Old counts are not made smaller; new ones weigh more, and everything is scaled back once in a long while. One
    thread counts; any thread may take a snapshot.
    """

    def __init__(self, layers: Sequence[int], num_experts: int, half_life_pairs: float = HALF_LIFE_PAIRS) -> None:
        self._decayed = {layer: [0.0] * num_experts for layer in layers}
        self._weights = dict.fromkeys(layers, 1.0)
        self._growth = 2.0 ** (1.0 / half_life_pairs)

    def count(self, layer: int, expert_ids: Sequence[int], counts: Sequence[int]) -> None:
        """counts[i] pairs went to expert_ids[i] in this layer."""
        row = self._decayed[layer]
        weight = self._weights[layer] * self._growth ** sum(counts)
        for expert, num_pairs in zip(expert_ids, counts, strict=True):
            row[expert] += weight * num_pairs
        if weight > _LARGEST_WEIGHT:
            self._decayed[layer] = [value / weight for value in row]  # replaced whole: a snapshot sees old or new
            weight = 1.0
        self._weights[layer] = weight

    def snapshot(self) -> dict[ExpertId, float]:
        """Every expert's share of its layer's pairs lately; 0 throughout a layer that has had none."""
        shares = {}
        for layer, row in self._decayed.items():
            values = row.copy()
            total = sum(values) or 1.0
            shares.update({ExpertId(layer, expert): value / total for expert, value in enumerate(values)})
        return shares
