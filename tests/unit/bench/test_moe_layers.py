"""The bench of one Mixture-of-Experts layer."""

from __future__ import annotations

import torch

from zenray.bench.moe import LayerSizes, time_layer
from zenray.ops import backend_for


def test_every_part_of_a_layer_is_timed_for_one_token_and_for_many() -> None:
    ops, sizes = backend_for("cpu", torch.bfloat16), LayerSizes(hidden=64, expert_ffn=32, num_experts=8, num_chosen=2)
    one, many = (time_layer(ops, sizes, "int8", num_tokens, budget_s=0.0) for num_tokens in (1, 50))
    assert one.num_used == 2
    assert many.num_used == 8
    for times in (one, many):
        assert min(times.route_us, times.group_us, times.swiglu_us, times.combine_us, times.dense_us) > 0
        assert times.moe_us > 0
