"""What was measured of a draft model, as JSON, as rows of a table, and drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zenray.batch.teacher_logits.acceptance.measure import Accepted
from zenray.batch.teacher_logits.acceptance.rounds import Rounds
from zenray.plot_style import COLOURS, LIGHT, new_figure, png_bytes

ALL = "all"


@dataclass(frozen=True, slots=True)
class AcceptanceReport:
    """`by_language` has the most positions first; the sum of them stands under `ALL`, first of all."""

    draft: str
    teacher: str
    gamma: int
    by_language: Mapping[str, Accepted]

    @classmethod
    def of(cls, draft: str, teacher: str, gamma: int, measured: Mapping[str, Accepted]) -> AcceptanceReport:
        ordered = dict(sorted(measured.items(), key=lambda item: (-item[1].num_positions, item[0])))
        return cls(draft, teacher, gamma, {ALL: _sum(gamma, list(ordered.values())), **ordered})

    def to_json(self) -> dict[str, Any]:
        return {
            "draft": self.draft,
            "teacher": self.teacher,
            "gamma": self.gamma,
            "languages": {name: _language_json(accepted) for name, accepted in self.by_language.items()},
        }


def _sum(gamma: int, parts: Sequence[Accepted]) -> Accepted:
    total = Accepted(gamma)
    for part in parts:
        total.num_positions += part.num_positions
        total.greedy += part.greedy
        total.sampled_lower += part.sampled_lower
        total.sampled_upper += part.sampled_upper
    return total


def _language_json(accepted: Accepted) -> dict[str, Any]:
    return {
        "positions": accepted.num_positions,
        "greedy": _rounds_json(accepted.greedy),
        "temperature_1_at_least": _rounds_json(accepted.sampled_lower),
        "temperature_1_at_most": _rounds_json(accepted.sampled_upper),
    }


def _rounds_json(rounds: Rounds) -> dict[str, Any]:
    return {
        "rates": [None if math.isnan(rate) else round(rate, 5) for rate in rounds.rates.tolist()],
        "survival": [round(rate, 5) for rate in rounds.survival.tolist()],
        "rounds": [round(weight, 1) for weight in rounds.weights.tolist()],
        "tokens_per_round": round(rounds.tokens_per_round, 4),
    }


def draw(report: AcceptanceReport, most_languages: int = 6) -> bytes:
    """PNG: how likely a draft is still whole after each of its tokens, by language, at temperatures 0 and 1."""
    with new_figure(9.0, 3.6, LIGHT) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        places = range(1, report.gamma + 1)
        for colour, (name, accepted) in zip(
            (*COLOURS, *COLOURS), list(report.by_language.items())[: most_languages + 1], strict=False
        ):
            width = 2.2 if name == ALL else 1.2
            label = f"{name} ({accepted.greedy.tokens_per_round:.1f})"
            left.plot(places, accepted.greedy.survival, color=colour, linewidth=width, marker="o", ms=3, label=label)
            low, high = accepted.sampled_lower.survival, accepted.sampled_upper.survival
            label = f"{name} ({accepted.sampled_lower.tokens_per_round:.1f})"
            right.plot(places, low, color=colour, linewidth=width, marker="o", ms=3, label=label)
            right.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
        for axes, title in ((left, "Temperature 0"), (right, "Temperature 1, equal noise")):
            axes.set(title=title, xlabel="tokens of a draft", ylim=(0, 1), xticks=list(places))
            axes.legend(title="tokens a round")
        left.set_ylabel("P(all accepted)")
        figure.suptitle(f"{report.draft} drafting for {report.teacher}", x=0.02, ha="left")
        return png_bytes(figure)
