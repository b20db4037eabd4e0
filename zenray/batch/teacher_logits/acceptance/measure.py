"""A draft model beside the teacher's records: what it would have had accepted along the same texts.

The draft model runs teacher-forced, in this process and without the teacher. At temperature 0 a guess is accepted
where both find the same token most probable; at temperature 1 as often as the Gumbel coupling says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from zenray.batch.teacher_logits.acceptance.coupling import acceptance, agreement
from zenray.batch.teacher_logits.acceptance.rounds import Rounds, follow_rounds
from zenray.engine.scoring import ScoredRows
from zenray.model.decoder import Decoder
from zenray.model.evaluate import chunked_logits

_ROWS_AT_ONCE = 64  # A row of a large vocabulary is more than half a megabyte.


@dataclass(frozen=True, slots=True)
class TeacherText:
    """A text that the teacher read by itself, and its records of the positions from `rows.first_position` on."""

    language: str
    token_ids: tuple[int, ...]
    rows: ScoredRows


@dataclass(frozen=True, slots=True)
class DraftRows:
    """What the draft model thinks of the positions of a text's records [R], K columns a row.

    `ids_RK` are the teacher's head and behind it the token that stands in the text, -1 where there is none or it is
    in the head; `q_RK` their probabilities by the draft model and `p_RK` by the teacher. `best_R` is the draft model's
    most probable token.
    """

    ids_RK: np.ndarray
    p_RK: np.ndarray
    q_RK: np.ndarray
    best_R: np.ndarray


@dataclass(slots=True)
class Accepted:
    """Rounds over some texts: at temperature 0, and bounds of those at temperature 1."""

    gamma: int
    num_positions: int = 0
    greedy: Rounds = field(init=False)
    sampled_lower: Rounds = field(init=False)
    sampled_upper: Rounds = field(init=False)

    def __post_init__(self) -> None:
        self.greedy = self.sampled_lower = self.sampled_upper = Rounds.none(self.gamma)

    def add(self, rows: DraftRows, gold_ids_R: np.ndarray) -> None:
        """The positions of one text."""
        follows_R = rows.ids_RK[:, 0] == gold_ids_R
        matches_R = rows.ids_RK[:, 0] == rows.best_R
        self.greedy += follow_rounds(matches_R.astype(float), (matches_R & follows_R).astype(float), self.gamma)
        p_rest_R, q_rest_R = _rest(rows.p_RK), _rest(rows.q_RK)
        agreed = agreement(rows.p_RK, rows.q_RK, p_rest_R, q_rest_R)
        is_gold_RK = rows.ids_RK == gold_ids_R[:, None]
        lower_R, upper_R = acceptance(agreed, p_rest_R, q_rest_R)
        p_gold_R = (rows.p_RK * is_gold_RK).sum(-1)
        for name, accepted_R, both_RK in (
            ("sampled_lower", lower_R, agreed.lower_RK),
            ("sampled_upper", upper_R, agreed.upper_RK),
        ):
            both_R = (both_RK * is_gold_RK).sum(-1)
            carried_R = np.where(p_gold_R > 0, both_R / np.where(p_gold_R > 0, p_gold_R, 1.0), 0.0).clip(0, 1)
            setattr(self, name, getattr(self, name) + follow_rounds(accepted_R, carried_R, self.gamma))
        self.num_positions += len(gold_ids_R)


def measure_acceptance(
    decoder: Decoder, texts: Iterable[TeacherText], gamma: int, on_positions: Callable[[int], None] = lambda count: None
) -> dict[str, Accepted]:
    """By language, for drafts of up to `gamma` tokens of the model of `decoder`. `on_positions` hears of progress."""
    result: dict[str, Accepted] = {}
    for text in texts:
        gold_ids_R = np.array(text.token_ids[text.rows.first_position :])
        result.setdefault(text.language, Accepted(gamma)).add(draft_rows(decoder, text), gold_ids_R)
        on_positions(text.rows.num_rows)
    return result


def draft_rows(decoder: Decoder, text: TeacherText) -> DraftRows:
    """The draft model's view of a text's records."""
    ids_RK, p_RK = _heads(text)
    q_RK, best_R = np.zeros_like(p_RK), np.zeros(len(ids_RK), dtype=np.int64)
    # The last token of a text predicts nothing that stands there.
    for start, end, logits_RV in _predictions(decoder, text):
        known = ids_RK[start:end]
        chosen_RK = logits_RV.gather(1, torch.from_numpy(np.where(known < 0, 0, known)))
        q = torch.exp(chosen_RK - torch.logsumexp(logits_RV, -1, keepdim=True)).double().numpy()
        q_RK[start:end] = np.where(known < 0, 0.0, q)
        best_R[start:end] = logits_RV.argmax(-1).numpy()
    return DraftRows(ids_RK, p_RK, q_RK, best_R)


def _predictions(decoder: Decoder, text: TeacherText) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Logits that predict records [start, end) of a text."""
    first = text.rows.first_position - 1  # The row that predicts the first record.
    position = 0
    for logits_TV in chunked_logits(decoder, text.token_ids[:-1], _ROWS_AT_ONCE):
        begin, position = max(first, position), position + len(logits_TV)
        if begin < position:
            yield begin - first, position - first, logits_TV[begin - position :]


def _heads(text: TeacherText) -> tuple[np.ndarray, np.ndarray]:
    """Ids and probabilities [R, K] of heads and the tokens that stand there, padded with -1 and 0."""
    rows = text.rows
    num_rows, widest = rows.num_rows, int(rows.head_counts_R.max(initial=0))
    ids_RK = np.full((num_rows, widest + 1), -1, dtype=np.int64)
    p_RK = np.zeros((num_rows, widest + 1))
    within = np.arange(widest + 1) < rows.head_counts_R[:, None]
    ids_RK[within], p_RK[within] = rows.head_ids_N, np.exp(rows.head_logprobs_N.astype(np.float64))
    # Coded probabilities need not sum to one.
    p_RK /= (p_RK.sum(-1) + rows.tail_masses_R)[:, None]
    gold_ids_R = np.array(text.token_ids[rows.first_position :])
    is_outside_R = ~(ids_RK == gold_ids_R[:, None]).any(-1)
    ids_RK[is_outside_R, -1] = gold_ids_R[is_outside_R]
    p_gold_R = np.exp(rows.gold_logprobs_R.astype(np.float64))
    p_RK[is_outside_R, -1] = np.minimum(p_gold_R, _rest(p_RK))[is_outside_R]
    return ids_RK, p_RK


def _rest(probabilities_RK: np.ndarray) -> np.ndarray:
    rest_R: np.ndarray = np.maximum(0.0, 1.0 - probabilities_RK.sum(-1))
    return rest_R
