"""What a student loses by the sparse targets."""

from __future__ import annotations

import torch


def sparse_cross_entropy(
    student_logits_RV: torch.Tensor, ids_RK: torch.Tensor, probabilities_RK: torch.Tensor
) -> torch.Tensor:
    """float32 [R], nats: -sum of p log q over the K targets of each row, q the softmax of the student's logits.

    Ids may repeat, and the p of a row need not sum to 1: where the expectation of p is the teacher's distribution, that
    of this loss is the full cross-entropy's, and so is its gradient's, which is (sum of p) q - p. Less the teacher's
    entropy it is the forward KL. Computed as logsumexp(z) sum(p) - sum(p z), which makes no second [R, V] in float32
    of the log-probs.
    """
    logits_RV = student_logits_RV.float()
    picked_RK = logits_RV.gather(1, ids_RK)
    log_total_R = torch.logsumexp(logits_RV, dim=1)
    return (probabilities_RK * (log_total_R[:, None] - picked_RK)).sum(dim=1)
