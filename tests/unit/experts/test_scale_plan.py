"""Expected bytes per token, memory per shard, and the verdict."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.experts.model_bytes import PlanFormat, model_bytes
from zenray.experts.planning import plan_placement
from zenray.experts.scale_plan import (
    MAX_SHARDS,
    ScalePlan,
    Wanted,
    committed_per_round,
    distinct_experts,
)
from zenray.model.presets import PRESETS

EIGHTY_GB = 80e9


def wanted(weight_format: PlanFormat = "bf16", num_shards: int = 1, **others: Any) -> Wanted:
    return Wanted(
        **{
            "weight_format": weight_format,
            "num_shards": num_shards,
            "memory_bytes": EIGHTY_GB,
            "context_length": 8192,
            "concurrency": 8,
            **others,
        }
    )


def plan(name: str, weight_format: PlanFormat = "bf16", num_shards: int = 1, **others: Any) -> ScalePlan:
    config = PRESETS[name]
    return ScalePlan(config, model_bytes(config, weight_format), wanted(weight_format, num_shards, **others))


class TestShards:
    @pytest.mark.parametrize(
        ("name", "num_shards", "redundant"),
        [
            ("moe-70b", 4, 0),
            ("moe-358b", 8, 2),
            ("moe-1t", 33, 0),
            ("tiny-moe", 3, 1),
            ("zen4-coder-flash", 2, 40),
        ],
    )
    def test_shards_hold_what_the_placement_gives_them(self, name: str, num_shards: int, redundant: int) -> None:
        config = PRESETS[name]
        leader, other = plan(name, "int4", num_shards, redundant_experts=redundant).shards
        placement = plan_placement(
            epoch=1,
            layers=[layer for layer in range(config.num_layers) if config.is_moe_layer(layer)],
            num_experts=config.num_experts,
            capacity=dict.fromkeys(range(num_shards)),
            load={},
            redundant_experts=redundant,
        )
        held = [len(placement.held_by(shard)) for shard in range(num_shards)]
        assert (leader.num_experts, other.num_experts) == (held[0], max(held))


class TestBytesPerToken:
    def test_grow_with_gamma_as_the_design_says(self) -> None:
        """Relative weight bytes of a step that verifies T tokens, for 16 experts with the top 2 chosen."""
        expected = {1: 1, 2: 1.64, 3: 2.21, 5: 3.13, 9: 4.38, 17: 5.55, 33: 6.08}
        one = plan("zen4-coder-flash", gamma=0).reads(1).weight_bytes
        for tokens, relative in expected.items():
            found = plan("zen4-coder-flash", gamma=tokens - 1).reads(1).weight_bytes / one
            assert found == pytest.approx(relative, rel=0.03)

    @settings(deadline=None, max_examples=30)
    @given(st.integers(1, 40), st.integers(1, 4), st.integers(4, 16))
    def test_expected_experts_are_those_that_random_routing_touches(self, tokens: int, chosen: int, num: int) -> None:
        generator = torch.Generator().manual_seed(tokens)
        trials = torch.rand(2000, tokens, num, generator=generator).topk(chosen).indices.flatten(1)
        touched = torch.zeros(2000, num).scatter_(1, trials, 1.0).sum(1).mean()
        assert distinct_experts(num, chosen, tokens) == pytest.approx(float(touched), rel=0.02)

    @settings(deadline=None, max_examples=30)
    @given(st.integers(0, 20), st.floats(0, 1))
    def test_a_round_commits_the_accepted_prefix_and_one_more(self, gamma: int, acceptance: float) -> None:
        assert committed_per_round(gamma, acceptance) == pytest.approx(sum(acceptance**n for n in range(gamma + 1)))

    def test_more_shards_read_at_the_same_time_until_each_reads_one_expert(self) -> None:
        rates = [plan("moe-358b", "int4", n).reads(1).tokens_per_s(3e12) for n in (1, 2, 8, 64)]
        assert rates == sorted(rates)
        assert len(set(rates)) == 4
        one = plan("moe-70b", gamma=0)
        assert one.reads(1).distinct_experts == pytest.approx(4)
        alone = plan("moe-70b", "bf16", 64, gamma=0).reads(1)
        assert alone.busiest_expert_bytes == pytest.approx(alone.expert_bytes / 4)


class TestVerdict:
    def test_is_the_first_number_of_shards_whose_memory_suffices(self) -> None:
        made = plan("moe-358b", "int4", 2, concurrency=1)
        assert not made.fits
        fewest = made.fewest_shards
        assert fewest is not None and fewest > 2
        assert plan("moe-358b", "int4", fewest, concurrency=1).fits
        assert not plan("moe-358b", "int4", fewest - 1, concurrency=1).fits

    def test_no_number_of_shards_replaces_memory_for_the_context(self) -> None:
        made = plan("moe-70b", "int4", 4, context_length=32_768)
        assert made.fewest_shards is None
        assert made.bottleneck == "memory of the leader: KV cache"
        assert not plan("moe-70b", "int4", MAX_SHARDS, context_length=32_768).fits

    @settings(deadline=None, max_examples=40)
    @given(
        st.sampled_from([name for name in PRESETS if not name.startswith("tiny")]),
        st.integers(1, 16),
        st.integers(1, 40_000),
        st.integers(1, 64),
    )
    def test_the_leader_has_room_for_as_many_sequences_as_it_says(
        self, name: str, num_shards: int, context: int, concurrency: int
    ) -> None:
        def leader(concurrency: int) -> int:
            options = {"context_length": context, "concurrency": concurrency}
            return plan(name, "int4", num_shards, **options).shards[0].total_bytes

        most = plan(name, "int4", num_shards, context_length=context, concurrency=concurrency).most_sequences
        assert most == 0 or leader(most) <= EIGHTY_GB
        assert leader(most + 1) > EIGHTY_GB

    def test_names_what_a_step_reads_most_of_when_all_fits(self) -> None:
        assert plan("moe-358b", "int4", 8, concurrency=1, context_length=1024).bottleneck == "bandwidth: expert weights"
        assert plan("zen4-coder-flash", "int4", concurrency=64).bottleneck == "bandwidth: KV cache"
        assert plan("dense-14b", concurrency=1).bottleneck == "bandwidth: the leader's weights"

    def test_a_format_with_fewer_bits_never_needs_more(self) -> None:
        for name in PRESETS:
            totals = [model_bytes(PRESETS[name], format_).total for format_ in ("float32", "bf16", "fp8", "int4")]
            assert totals == sorted(totals, reverse=True)
