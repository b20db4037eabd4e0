"""Pairs of a token and one of its experts, grouped by expert."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.model.moe import group_by_expert


@given(num_tokens=st.integers(0, 60), num_experts=st.integers(1, 40), seed=st.integers(0, 1000), data=st.data())
@settings(deadline=None)
def test_every_pair_is_in_the_group_of_its_expert(
    num_tokens: int, num_experts: int, seed: int, data: st.DataObject
) -> None:
    num_chosen = data.draw(st.integers(1, min(8, num_experts)))
    ranks_TE = torch.rand(num_tokens, num_experts, generator=torch.Generator().manual_seed(seed))
    ids_TK = ranks_TE.argsort(dim=1)[:, :num_chosen].sort(dim=1).values
    grouped = group_by_expert(ids_TK)

    assert grouped.expert_ids == sorted(set(ids_TK.flatten().tolist()))
    assert grouped.rows_P.dtype == grouped.pairs_TK.dtype == torch.int64
    experts_P = torch.tensor(grouped.expert_ids, dtype=torch.int64).repeat_interleave(
        torch.tensor(grouped.counts, dtype=torch.int64)
    )
    assert torch.equal(experts_P[grouped.pairs_TK], ids_TK)
    assert torch.equal(grouped.rows_P[grouped.pairs_TK], torch.arange(num_tokens)[:, None].expand(-1, num_chosen))
    assert grouped.pairs_TK.flatten().sort().values.tolist() == list(range(num_tokens * num_chosen))
    for rows in grouped.rows_P.split(grouped.counts):
        assert bool((rows.diff() > 0).all())
