"""From logits to a token: penalties, temperature, top-k, top-p, then argmax(log p + Gumbel noise).

A pure function of the logits row, the sampling parameters, the sequence's own tokens, its seed and the
position. Nothing else in the batch, no device state, no call count takes part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from zenray.engine.noise import gumbel, ids_with_noise_above
from zenray.engine.request import Sampling, TokenLogprob

_SHORTLIST = 128
_TOP_P_TRIES = (
    128,
    2048,
    16_384,
)  # candidates that nearly always cover top_p; the whole vocabulary is sorted otherwise


def is_plain_greedy(sampling: Sampling) -> bool:
    """Whether the choice is the argmax of the raw logits, so that rows can be reduced together."""
    return sampling.temperature == 0 and not has_penalties(sampling)


def has_penalties(sampling: Sampling) -> bool:
    """Whether the choice depends on the tokens so far."""
    return sampling.repetition_penalty != 1 or sampling.presence_penalty != 0 or sampling.frequency_penalty != 0


def argmax_rows(logits_RV: torch.Tensor) -> list[int]:
    """The likeliest token of each row, the lowest id of equals.

    On a CPU by numpy, in the calling thread: torch would do it with all its threads, which go on spinning on
    the cores that the next forward needs (4 ms were lost).
    """
    if logits_RV.device.type == "cpu":
        return [int(row_V.argmax()) for row_V in logits_RV.numpy()]
    return [int(token) for token in logits_RV.argmax(dim=-1).tolist()]


def apply_penalties(
    logits_V: torch.Tensor, sampling: Sampling, seen_ids: Sequence[int], output_counts: Mapping[int, int]
) -> torch.Tensor:
    """A penalised copy of one row, on the CPU.

    Repetition divides positive and multiplies negative logits of every token seen in prompt or output
    (Keskar et al., arXiv 1909.05858); presence and frequency subtract from tokens of the output, once
    and per occurrence (OpenAI's definition).
    """
    logits_V = torch.from_numpy(logits_V.cpu().numpy().copy())  # torch would copy with all its threads
    if sampling.repetition_penalty != 1 and seen_ids:
        ids = torch.tensor(sorted(set(seen_ids)))
        seen = logits_V[ids]
        logits_V[ids] = torch.where(seen > 0, seen / sampling.repetition_penalty, seen * sampling.repetition_penalty)
    if output_counts and (sampling.presence_penalty or sampling.frequency_penalty):
        ids = torch.tensor(list(output_counts))
        counts = torch.tensor(list(output_counts.values()), dtype=logits_V.dtype)
        logits_V[ids] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    return logits_V


def choose_token(logits_V: torch.Tensor, sampling: Sampling, seed: int, position: int) -> int:
    """The token at `position`, for one row of (already penalised) logits.

    Temperature scales the logits, top-k keeps the k largest, top-p keeps the smallest set of the most
    likely tokens whose mass reaches p, at least one.
    """
    return best_tokens(logits_V, sampling, seed, position, 1)[0]


def best_tokens(logits_V: torch.Tensor, sampling: Sampling, seed: int, position: int, count: int) -> list[int]:
    """The token `choose_token` gives and those it would give next if the former were left out, at most `count`."""
    logits_V = logits_V.cpu()  # one row is small, and the same logarithms on every device mean the same tokens
    if sampling.temperature == 0:
        return _argsort(logits_V, count)
    if sampling.top_p < 1 or 0 < sampling.top_k < len(logits_V):
        kept_ids = _truncated(logits_V, sampling)
    else:
        kept_ids = _contenders(logits_V, sampling.temperature, seed, position, count)
    scores = logits_V[kept_ids].double() / sampling.temperature + gumbel(seed, position, kept_ids)
    chosen: list[int] = kept_ids[_argsort(scores, count)].tolist()
    return chosen


def _argsort(scores_V: torch.Tensor, count: int) -> list[int]:
    """Indices of the `count` largest, the first of them the argmax also among equals."""
    first = int(scores_V.argmax())
    if count == 1:
        return [first]
    largest: list[int] = torch.topk(scores_V, min(count, len(scores_V))).indices.tolist()
    return [first, *(index for index in largest if index != first)][:count]


def _contenders(logits_V: torch.Tensor, temperature: float, seed: int, position: int, count: int) -> torch.Tensor:
    """Ascending ids among which are the `count` best of the whole vocabulary, noise included.

    The noise of a vocabulary is slow to take logarithms for. But a token outside the `_SHORTLIST` likeliest
    needs more noise than their `count`-th best score lies above the least likely of them, and few have that.
    """
    shortlist = min(max(_SHORTLIST, count), len(logits_V))
    top, ids = torch.topk(logits_V, shortlist)
    top = top.double() / temperature
    score = float(torch.topk(top + gumbel(seed, position, ids), min(count, shortlist)).values[-1])
    floor = score - float(top[-1])
    if math.isnan(floor):  # infinities: a temperature or penalty of next to nothing lets logits overflow
        return torch.arange(len(logits_V))
    # Sums of equal terms round alike and rounding keeps order; the margin covers the sum and the subtraction.
    others = ids_with_noise_above(seed, position, len(logits_V), floor - 1e-9 - 1e-15 * abs(score))
    return torch.from_numpy(np.union1d(ids.numpy(), others))


@np.errstate(over="ignore", invalid="ignore")
def _truncated(logits_V: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Ids that top-k and top-p keep, most likely first."""
    vocab_size = len(logits_V)
    top_k, temperature = min(sampling.top_k, vocab_size) or vocab_size, sampling.temperature
    if sampling.top_p >= 1:
        return torch.topk(logits_V, top_k).indices
    # Top-p applies to the distribution renormalised over the top-k tokens.
    normaliser = _logsumexp(logits_V if top_k == vocab_size else torch.topk(logits_V, top_k).values, temperature)
    for width in (*_TOP_P_TRIES, top_k):
        top, ids = torch.topk(logits_V, min(width, top_k))
        mass = np.exp(top.double().numpy() / temperature - normaliser).cumsum()
        if mass[-1] >= sampling.top_p or len(ids) == top_k:
            break
    return ids[: int((mass < sampling.top_p).sum()) + 1]


def _logsumexp(logits_V: torch.Tensor, temperature: float) -> float:
    """log sum exp(logits / temperature) in float64, by numpy on this thread, as in `gumbel`."""
    scaled_V = logits_V.numpy().astype(np.float64) / temperature
    largest = scaled_V.max()
    scaled_V -= largest
    return float(largest + np.log(np.exp(scaled_V, out=scaled_V).sum()))


def token_logprobs(logits_RV: torch.Tensor, token_ids: Sequence[int], num_top: int) -> list[TokenLogprob]:
    """Log-probabilities under the model's own distribution: raw logits, before penalties and temperature."""
    logprobs_RV = torch.log_softmax(logits_RV, dim=-1)
    chosen = logprobs_RV.gather(1, torch.tensor(token_ids, device=logits_RV.device)[:, None])[:, 0].tolist()
    tops: list[tuple[tuple[int, float], ...]] = [()] * len(chosen)
    if num_top:
        values, ids = torch.topk(logprobs_RV, min(num_top, logprobs_RV.shape[1]), dim=-1)
        tops = [
            tuple(zip(row_ids, row_values, strict=True))
            for row_ids, row_values in zip(ids.tolist(), values.tolist(), strict=True)
        ]
    return [TokenLogprob(t, lp, top) for t, lp, top in zip(token_ids, chosen, tops, strict=True)]
