"""What an expert shard computes, whatever carries the calls. It keeps nothing between calls but weights."""

from __future__ import annotations

import torch

from zenray.experts.link import ExpertCall
from zenray.experts.placement import ExpertId
from zenray.experts.store import ExpertStore
from zenray.ops.backend import Backend


def compute(store: ExpertStore, ops: Backend, call: ExpertCall) -> torch.Tensor:
    """[P, D]: each pair's expert applied to its row, unweighted. KeyError for an expert that is not held."""
    held = store.held
    experts = [held[ExpertId(call.layer, expert)] for expert in call.expert_ids]
    return ops.swiglu_rows(call.x_ND, [(e.gate_up, e.down) for e in experts], call.counts, call.rows_P)
