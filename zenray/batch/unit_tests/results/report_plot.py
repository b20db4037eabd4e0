"""The report's picture: both funnels, the scores, and why tests were rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zenray.batch.unit_tests.results.funnel import (
    Funnel,
    Outcome,
    funnel_of_functions,
    funnel_of_tests,
    rejections,
    words,
)
from zenray.plot_style import LIGHT, Paper, new_figure, png_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NUM_BINS = 10
_MOST_REASONS = 9
_LINEAR_UP_TO = 20  # Times the last count; beyond it, its bar could not be seen.
_SCORES = (("mutation_score", "mutation score"), ("line_coverage", "lines covered"), ("agreement", "agreement"))


def draw_report(outcomes: Sequence[Outcome], skipped: Mapping[str, int], paper: Paper = LIGHT) -> bytes:
    """A PNG whose bytes follow from the arguments (and matplotlib's version)."""
    with new_figure(11.5, 7.6, paper) as figure:
        axes: Any = figure.subplots(2, 2, width_ratios=(1, 1.08))
        _draw_funnel(axes[0][0], "Functions", funnel_of_functions(outcomes, skipped), paper, paper.bars[0])
        _draw_funnel(axes[0][1], "Tests", funnel_of_tests(outcomes), paper, paper.bars[1])
        _draw_scores(axes[1][0], [outcome for outcome in outcomes if outcome.num_kept], paper)
        _draw_reasons(axes[1][1], rejections(outcomes), paper)
        return png_bytes(figure)


def _draw_funnel(axes: Axes, title: str, funnel: Funnel, paper: Paper, colour: str) -> None:
    """Bars from the top down, each with its count and its share of the one above."""
    names, counts = [name for name, _ in funnel], [count for _, count in funnel]
    before = [None, *counts[:-1]]
    shares = [f"  {count / above:.0%}" if above else "" for count, above in zip(counts, before, strict=True)]
    labels = [f"{count:,}{share}" for count, share in zip(counts, shares, strict=True)]
    _draw_bars(axes, names, counts, labels, paper, colour)
    scale = ""
    if counts[0] > _LINEAR_UP_TO * max(counts[-1], 1):
        axes.set_xscale("log")
        axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        axes.set_xlim(0.9, counts[0] ** 1.2)
        scale = ", logarithmic"
    axes.set_title(f"{title}: {counts[0]:,} → {counts[-1]:,}{scale}")


def _draw_reasons(axes: Axes, reasons: Mapping[str, int], paper: Paper) -> None:
    shown = list(reasons.items())[:_MOST_REASONS]
    if rest := sum(reasons.values()) - sum(count for _, count in shown):
        shown.append(("all other reasons", rest))
    whole, counts = sum(reasons.values()), [count for _, count in shown]
    names = [_shorten(words(name)) for name, _ in shown]
    _draw_bars(axes, names, counts, [f"{count:,}  {count / whole:.0%}" for count in counts], paper, paper.bars[2])
    axes.set_title("Why tests were rejected")


def _draw_bars(
    axes: Axes, names: Sequence[str], counts: Sequence[int], labels: Sequence[str], paper: Paper, colour: str
) -> None:
    places = range(len(names))
    axes.bar_label(axes.barh(places, counts, color=colour, height=0.72), labels, padding=4, fontsize=8.5)
    axes.set_yticks(places, names)
    axes.tick_params(axis="y", length=0, labelcolor=paper.ink)
    axes.tick_params(axis="x", bottom=False, labelbottom=False)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xlim(0, max(counts, default=0) * 1.22 or 1)


def _draw_scores(axes: Axes, kept: Sequence[Outcome], paper: Paper) -> None:
    """How many functions with kept tests score how much, in tenths; a full score has its own place."""
    from matplotlib.ticker import MaxNLocator

    width = 0.27
    for place, ((name, label), colour) in enumerate(zip(_SCORES, (*paper.bars[:2], paper.bars[3]), strict=True)):
        values = [value for outcome in kept if (value := getattr(outcome, name)) is not None]
        counts = [0] * (_NUM_BINS + 1)
        for value in values:
            counts[int(value * _NUM_BINS)] += 1
        offset = (place - 1) * width
        average = f", mean {sum(values) / len(values):.2f}" if values else ""
        axes.bar([at + offset for at in range(_NUM_BINS + 1)], counts, width, color=colour, label=f"{label}{average}")
    edges = [f"{at / _NUM_BINS:.1f}" for at in range(_NUM_BINS)]
    axes.set_xticks(range(_NUM_BINS + 1), [*(f"{edge}–" for edge in edges), "1"])
    axes.set_title("Scores of functions with kept tests")
    axes.set_ylabel("functions")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.25)  # For the legend.
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8.5, labelcolor=paper.ink, loc="upper left")


def _shorten(text: str, most: int = 34) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
