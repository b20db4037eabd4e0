"""From acceptance at single positions to acceptance by place in a draft, along texts that nobody speculated on.

A round that starts at a position drafts gamma tokens. Its second token counts only where the first was accepted, and
it is met along the text only where the text goes on as the teacher would: a round is followed with the weight it has
left, the chance that the token that stands there was chosen by both. The next one starts behind the token at which it
ended, which the verifier chose, as the rounds of a real speculation do: they skip what is easy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Rounds:
    """What rounds along some texts add up to. Index j of each [gamma] stands for the token at place j + 1 of a draft.

    weights: rounds that got so far; accepted: those of them whose next token is accepted, too.
    """

    weights: np.ndarray
    accepted: np.ndarray

    def __add__(self, other: Rounds) -> Rounds:
        return Rounds(self.weights + other.weights, self.accepted + other.accepted)

    @classmethod
    def none(cls, gamma: int) -> Rounds:
        return cls(np.zeros(gamma), np.zeros(gamma))

    @property
    def rates(self) -> np.ndarray:
        """P(token at place j + 1 is accepted | all before it were) [gamma]; NaN where no round got there."""
        with np.errstate(invalid="ignore"):
            return np.where(self.weights > 0, self.accepted / np.where(self.weights > 0, self.weights, 1.0), np.nan)

    @property
    def survival(self) -> np.ndarray:
        """P(the first j + 1 tokens of a draft are all accepted) [gamma]."""
        return np.cumprod(np.nan_to_num(self.rates))

    @property
    def tokens_per_round(self) -> float:
        """Expected tokens of a round: the accepted ones and the verifier's own."""
        return 1.0 + float(self.survival.sum())


def follow_rounds(accepted_R: np.ndarray, carried_R: np.ndarray, gamma: int) -> Rounds:
    """Rounds along R consecutive positions of one text, from the first on, cut where the text ends.

    `accepted_R`: P(the draft token there is accepted). `carried_R`: P(it is accepted and is the token that stands in
    the text | the teacher chose that token): what of a round goes on to the next position. Under greedy decoding both
    are 0 or 1, and a round goes on where draft, teacher and text agree.
    """
    num_positions = len(accepted_R)
    result = Rounds.none(gamma)
    starts = np.zeros(num_positions + gamma + 2)  # How much of a round begins at each position.
    starts[0] = 1.0
    for start in range(num_positions):
        if starts[start] == 0:
            continue
        carried = carried_R[start : start + gamma]
        weights = starts[start] * np.cumprod(np.append(1.0, carried))
        result.weights[: len(carried)] += weights[:-1]
        result.accepted[: len(carried)] += weights[:-1] * accepted_R[start : start + gamma]
        starts[start + 1 : start + len(carried) + 1] += weights[:-1] - weights[1:]
        starts[start + len(carried) + 1] += weights[-1]
    return result
