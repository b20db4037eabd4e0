"""The report of a speculative benchmark as one PNG: tokens/s by side and kind, and measured against modelled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = {"fresh": "o", "infill": "s", "edit": "^"}


def draw_speculative(report: dict[str, Any], colours: tuple[str, ...], ink: str) -> Figure:
    """Bars per kind of prompt, plain decoding as a line through them; then two panels of speed-ups against the
    diagonal: the policy's prediction and the paper's model. One colour per drafter set."""
    from matplotlib import pyplot
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    rows = report["results"]
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    sets = list(dict.fromkeys("+".join(row["drafters"]) for row in rows if row["drafters"]))
    colour_of = {name: colours[place % len(colours)] for place, name in enumerate(sets)}
    sides = max(sum(row["kind"] == kind for row in rows) for kind in kinds)
    height = max(3.6, 1.6 + 0.24 * sides)
    widths = [*[1.0] * len(kinds), 1.1, 1.1]
    figure, (axes,) = pyplot.subplots(
        1, len(widths), squeeze=False, width_ratios=widths, figsize=(3.3 * len(widths), height)
    )
    for kind, panel in zip(kinds, axes, strict=False):
        _draw_rates(panel, [row for row in rows if row["kind"] == kind], colour_of, ink, first=panel is axes[0])
        panel.set_title(kind)
    _draw_against(axes[-2], rows, "predicted_speedup", "Against the step costs", colour_of, ink)
    _draw_against(axes[-1], rows, "model_speedup", "Against (γ+1) / (1+γ(1-β))", colour_of, ink)
    figure.tight_layout(rect=(0, 0.05, 1, 0.93), w_pad=1.5)
    handles: list[Any] = [Patch(color=colour) for colour in colour_of.values()]
    handles += [Line2D([], [], color=ink, marker=_MARKERS[kind], linestyle="") for kind in kinds]
    figure.legend(
        handles, [*sets, *kinds], loc="upper left", ncols=len(handles), bbox_to_anchor=(0.005, 0.995), fontsize=8
    )
    return figure


def _draw_rates(axes: Axes, rows: list[dict[str, Any]], colour_of: dict[str, str], ink: str, first: bool) -> None:
    shown = [row for row in rows if row["drafters"] and row["tokens_per_s"]["count"]]
    for place, row in enumerate(shown):
        rate, name = row["tokens_per_s"], "+".join(row["drafters"])
        axes.barh(place, rate["p50"], 0.74, color=colour_of[name])
        axes.hlines(place, rate["minimum"], rate["maximum"], color=ink, lw=1)
        text, at = f"{row['speedup']['p50']:.2f}x", (rate["maximum"], place)
        axes.annotate(text, at, (4, 0), textcoords="offset points", va="center", fontsize=7.5)
    plain = next((row["tokens_per_s"]["p50"] for row in rows if not row["drafters"]), None)
    if plain is not None:
        axes.axvline(plain, color=ink, linestyle=(0, (3, 2)), lw=1.1)
    axes.set_yticks(range(len(shown)), [f"γ {row['gamma']}" for row in shown], fontsize=7.5)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.margins(x=0.18)
    axes.set_xlim(left=0)
    axes.set_xlabel("tokens per second" + (" (dashed: plain)" if first else ""))


def _draw_against(
    axes: Axes, rows: list[dict[str, Any]], key: str, title: str, colour_of: dict[str, str], ink: str
) -> None:
    points = [row for row in rows if row["drafters"] and row[key] and row["speedup"]["count"]]
    for row in points:
        colour, marker = colour_of["+".join(row["drafters"])], _MARKERS[row["kind"]]
        axes.scatter(row[key], row["speedup"]["p50"], color=colour, marker=marker, s=26, zorder=3)
    top = max((max(row[key], row["speedup"]["p50"]) for row in points), default=1.0) * 1.08
    axes.plot([0, top], [0, top], color=ink, linestyle=(0, (3, 2)), lw=1)
    axes.set_xlim(0, top)
    axes.set_ylim(0, top)
    axes.set_title(title)
    axes.set_xlabel("predicted speed-up")
    axes.set_ylabel("measured")
