"""What is kept of rows of logits: a head of probable tokens, and of the tail its mass and a few draws.

Shapes: R rows, V columns, K entries kept for a head, S draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

NEGLIGIBLE = -87.0
"""Natural logarithm of the weight, relative to the most probable token's, under which a token counts for nothing:
the least that float32 holds in full."""


@dataclass(frozen=True, slots=True)
class RowSummaries:
    """One distribution a row, natural logarithms throughout. Reals have the logits' type, ids are int32.

    gold_logprobs_R: of the row's target. entropies_R: of the whole distribution.
    head_counts_R: how many of the K (the smaller of `max_head` and V) entries belong to the head.
    head_ids_RK, head_logprobs_RK: the head, most probable first, the lower id first among equals; -1 and -inf behind.
    tail_masses_R: summed over the tail itself, so it is exact however small.
    tail_ids_RS: the draws, ascending; -1 where the tail has no mass.

    A row that is no distribution (a NaN, +inf, or nothing but -inf) has NaN for every number, an empty head and no
    draws.
    """

    gold_logprobs_R: torch.Tensor
    entropies_R: torch.Tensor
    head_counts_R: torch.Tensor
    head_ids_RK: torch.Tensor
    head_logprobs_RK: torch.Tensor
    tail_masses_R: torch.Tensor
    tail_ids_RS: torch.Tensor


def summarise_rows(
    logits_RV: torch.Tensor,
    targets_R: torch.Tensor,
    uniforms_R: torch.Tensor,
    max_head: int,
    head_mass: float,
    num_samples: int,
    least_probability: float = 0.0,
) -> RowSummaries:
    """`zenray.ops.backend.Backend.summarise` in torch's operations, in float64, on the device of the logits."""
    kind, device, width = logits_RV.dtype, logits_RV.device, min(max_head, logits_RV.shape[1])
    largest_R1 = logits_RV.double().amax(dim=1, keepdim=True)
    valid_R1 = largest_R1.isfinite()  # A NaN makes the largest one, too.
    shifted_RV = torch.where(valid_R1, logits_RV.double() - largest_R1, 0.0)
    weights_RV = torch.where(shifted_RV >= NEGLIGIBLE, shifted_RV.exp(), 0.0)
    total_R1 = weights_RV.sum(dim=1, keepdim=True)
    log_total_R1 = total_R1.log()

    # What is larger than the K-th largest, and of those equal to it the first: topk leaves open which it takes.
    last_R1 = shifted_RV.topk(width, dim=1).values[:, -1:]
    larger_RV, equal_RV = shifted_RV > last_R1, shifted_RV == last_R1
    wanted_R1 = width - larger_RV.sum(dim=1, keepdim=True)
    ids_RK = (larger_RV | (equal_RV & (equal_RV.cumsum(dim=1) <= wanted_R1))).nonzero()[:, 1].view(-1, width)
    order_RK = shifted_RV.gather(1, ids_RK).sort(dim=1, descending=True, stable=True).indices
    ids_RK = ids_RK.gather(1, order_RK)
    kept_RK = weights_RV.gather(1, ids_RK)
    counts_R1 = (kept_RK >= least_probability * total_R1).sum(dim=1, keepdim=True).clamp(min=1)
    if head_mass < 1:
        reached_R1 = 1 + (kept_RK.cumsum(dim=1) < head_mass * total_R1).sum(dim=1, keepdim=True)
        counts_R1 = torch.minimum(counts_R1, reached_R1)
    counts_R1 = torch.where(valid_R1, counts_R1, 0)
    in_head_RK = torch.arange(width, device=device) < counts_R1

    tail_RV = weights_RV.scatter(1, ids_RK, torch.where(in_head_RK, 0.0, weights_RV.gather(1, ids_RK)))
    mass_RV = tail_RV.cumsum(dim=1)
    mass_R1 = mass_RV[:, -1:].contiguous()
    fractions_RS = (torch.arange(num_samples, device=device) + uniforms_R.double()[:, None]) / max(1, num_samples)
    draws_RS = torch.searchsorted(mass_RV, fractions_RS * mass_R1, right=True)
    draws_RS = torch.minimum(draws_RS, torch.searchsorted(mass_RV, mass_R1))  # The last token that has any mass.

    logprobs_RV = shifted_RV - log_total_R1
    surprise_R = (weights_RV * shifted_RV.clamp(min=NEGLIGIBLE)).sum(dim=1) / total_R1[:, 0]
    valid_R = valid_R1[:, 0]
    return RowSummaries(
        gold_logprobs_R=torch.where(valid_R, logprobs_RV.gather(1, targets_R[:, None])[:, 0], torch.nan).to(kind),
        entropies_R=torch.where(valid_R, log_total_R1[:, 0] - surprise_R, torch.nan).to(kind),
        head_counts_R=counts_R1[:, 0].int(),
        head_ids_RK=torch.where(in_head_RK, ids_RK, -1).int(),
        head_logprobs_RK=torch.where(in_head_RK, logprobs_RV.gather(1, ids_RK), -torch.inf).to(kind),
        tail_masses_R=torch.where(valid_R, (mass_R1 / total_R1)[:, 0], torch.nan).to(kind),
        tail_ids_RS=torch.where(valid_R1 & (mass_R1 > 0), draws_RS, -1).int(),
    )
