"""The report's picture: how sure the teacher is, what the format loses of that, how long heads are, where bytes go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zenray.batch.teacher_logits.results.figures import Figures, Stored
from zenray.batch.teacher_logits.results.statistics import ENTROPY_EDGES, HEAD_EDGES, KL_EDGES
from zenray.plot_style import LIGHT, Paper, new_figure, png_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_COLUMNS = 9
_COARSE = 0.05  # Axes up to less have ticks between whole percents.
_QUANTILES = (0.5, 0.9, 0.99)


def draw_report(figures: Figures, stored: Stored, paper: Paper = LIGHT) -> bytes:
    """A PNG whose bytes follow from the arguments (and matplotlib's version)."""
    with new_figure(11.5, 7.4, paper) as figure:
        axes: Any = figure.subplots(2, 2)
        _draw_entropies(axes[0][0], figures, paper)
        _draw_divergences(axes[0][1], figures, paper)
        _draw_heads(axes[1][0], figures, paper)
        _draw_bytes(axes[1][1], figures, stored, paper)
        return png_bytes(figure)


def _draw_entropies(axes: Axes, figures: Figures, paper: Paper) -> None:
    shares = _shares(figures.entropy_counts)
    width = float(ENTROPY_EDGES[1] - ENTROPY_EDGES[0])
    last = _last(shares)
    axes.bar(np.arange(last) * width, shares[:last], width, align="edge", color=paper.bars[0])
    axes.set_title(_with_mean("Entropy of the teacher", figures.whole.means()["entropy_mean_nats"], "nats"))
    axes.set_xlabel("nats")
    _percent(axes)


def _draw_divergences(axes: Axes, figures: Figures, paper: Paper) -> None:
    """Bins of equal width on a logarithmic axis; what is below the first edge stands in a bin before it."""
    shares = _shares(figures.kl_counts)
    ratio = KL_EDGES[1] / KL_EDGES[0]
    lefts = np.concatenate([[KL_EDGES[0] / ratio], KL_EDGES])
    axes.bar(lefts, shares, lefts * (ratio - 1), align="edge", color=paper.bars[1])
    axes.set_xscale("log")
    quantiles = [(share, figures.kl_quantile(share)) for share in _QUANTILES]
    known = [(share, value) for share, value in quantiles if value is not None]
    for _, value in known:
        axes.axvline(value, color=paper.ink, linewidth=0.8, linestyle=(0, (4, 3)))
    text = "\n".join(f"p{share * 100:g}  {value:.2g}" for share, value in known)
    axes.text(0.1, 0.96, text, transform=axes.transAxes, va="top", linespacing=1.5)
    axes.set_title(_with_mean("KL(teacher ‖ as read back)", figures.whole.means()["kl_mean_nats"], "nats"))
    axes.set_xlabel("nats; left of all: less than that, or estimated below 0")
    _percent(axes)


def _draw_heads(axes: Axes, figures: Figures, paper: Paper) -> None:
    shares = _shares(figures.head_counts)
    last = _last(shares)
    axes.bar(np.arange(last), shares[:last], 0.86, color=paper.bars[2])
    axes.set_title(_with_mean("Entries of a head", figures.whole.means()["head_entries_mean"], "entries"))
    longest = f"; the last bar: more than {HEAD_EDGES[-1]}" if last > len(HEAD_EDGES) else ""
    axes.set_xlabel(f"entries{longest}")
    _percent(axes)


def _draw_bytes(axes: Axes, figures: Figures, stored: Stored, paper: Paper) -> None:
    of = max(1, figures.num_scored)
    ordered = sorted(stored.by_column.items(), key=lambda item: (-item[1], item[0]))
    shown = [(name.replace("_", " "), count / of) for name, count in ordered[:_MOST_COLUMNS]]
    if rest := sum(count for _, count in ordered[_MOST_COLUMNS:]):
        shown.append((f"{len(ordered) - _MOST_COLUMNS} others", rest / of))
    places = range(len(shown))
    values = [value for _, value in shown]
    bars = axes.barh(places, values, color=paper.bars[3], height=0.72)
    axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=4, fontsize=8.5)
    axes.set_yticks(places, [name for name, _ in shown])
    axes.tick_params(axis="y", length=0, labelcolor=paper.ink)
    axes.tick_params(axis="x", bottom=False, labelbottom=False)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xlim(0, max(values, default=0) * 1.15 or 1)
    axes.set_title(f"Bytes for a scored token: {stored.num_bytes / of:.1f}")


def _shares(counts: np.ndarray) -> np.ndarray:
    shares: np.ndarray = counts / max(1, counts.sum())
    return shares


def _last(shares: np.ndarray) -> int:
    """The end of the bins that hold anything."""
    filled = np.flatnonzero(shares)
    return int(filled[-1]) + 1 if len(filled) else 1


def _percent(axes: Axes) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.set_ylabel("share of tokens")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if axes.get_ylim()[1] > _COARSE else 1))


def _with_mean(title: str, mean: float | None, unit: str) -> str:
    return title if mean is None else f"{title}: mean {mean:.3g} {unit}"
