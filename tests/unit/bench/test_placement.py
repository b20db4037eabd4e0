"""The comparison of placements runs on a toy and accounts for every token."""

from __future__ import annotations

from zenray.bench.placement import measure, sides


def test_every_side_is_measured_on_the_same_prompts() -> None:
    toy = ["draft.model=preset:tiny", "draft.weight_format=float32", "draft.num_threads=1", "speculation.gamma=4"]
    rows = measure("tiny", toy, num_prompts=1, max_tokens=24)
    assert [row["side"] for row in rows] == [side.name for side in sides()]
    for row in rows:
        assert row["tokens_per_s"] > 0
        assert (row["acceptance"] > 0) <= ("plain" not in row["side"])
    colocated = rows[1]
    assert colocated["against_colocated"] == 1
    assert colocated["tokens_per_round"] > 1
