"""The report of benchmarks/compare_typing.py as one PNG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zenray.plot_style import GREY, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette: distinguishable with colour-blind eyes. A class of weights has a line style.
_COLOURS = {"zenray": "#0072B2", "llama": "#D55E00", "vllm": "#009E73"}
_STYLES = ("-", (0, (4, 1.6)), (0, (1, 1)))
_TICKS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


def plot_typing(report: dict[str, Any], path: Path) -> None:
    """Two panels, both cumulative: how many of all requests had their first text after how long, and in how many of
    the pauses a line was there. A curve ends where the rest never came before the user went on."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = report["results"]
    with pyplot.rc_context(STYLE | {"axes.grid.axis": "both"}):
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(10.5, 4.3))
        requests = [(row, row["ttft_values_ms"], row["requests"] - row["failed"]) for row in rows]
        pauses = [(row, row["pause_line_ms"]["values_ms"], row["pause_line_ms"]["count"]) for row in rows]
        _draw(left, requests, rows, "Every key: time to first text", "share of all requests")
        _draw(right, pauses, rows, "In pauses: key to a line shown", "share of pauses of ½ s and more")
        left.axvline(150, color=GREY, linewidth=0.8, linestyle=":")
        left.text(155, 1.0, "the next key, typically", fontsize=7.5, color=GREY, va="center")
        handles, labels = left.get_legend_handles_labels()
        columns = min(len(rows), 5)
        figure.legend(handles, labels, loc="upper left", ncols=columns, bbox_to_anchor=(0.005, 0.995), fontsize=8.5)
        figure.tight_layout(rect=(0, 0.05, 1, 0.92), w_pad=3)
        figure.text(0.01, 0.012, _footer(report), color=GREY, fontsize=7.5)
        figure.savefig(path, dpi=150, bbox_inches="tight", pad_inches=0.15)
        pyplot.close(figure)


def _draw(
    axes: Axes, series: list[tuple[dict[str, Any], list[float], int]], rows: list[dict[str, Any]], title: str, y: str
) -> None:
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    for row, values, count in series:
        colour = _COLOURS.get(row["key"].partition("-")[0], "#000000")
        style: Any = _STYLES[sizes.index(row["size"]) % len(_STYLES)]
        shares = [(number + 1) / count for number in range(len(values))]
        axes.step(values, shares, where="post", color=colour, linestyle=style, linewidth=1.8, label=row["label"])
        if values:
            axes.plot(values[-1], shares[-1], marker="o", markersize=3.5, color=colour)
    axes.set_xscale("log")
    everything = [value for _, values, _ in series for value in values] or [1.0, 1000.0]
    ticks = [tick for tick in _TICKS_MS if min(everything) / 2 <= tick <= max(everything) * 2]
    axes.set_xticks(ticks, [f"{tick:g}" if tick < 1000 else f"{tick / 1000:g} s" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(0, 1.04)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel("milliseconds")
    axes.set_ylabel(y)
    axes.set_title(title)


def _footer(report: dict[str, Any]) -> str:
    machine, typed = report["machine"], report["typed"]
    most = max((row["foreign_cpu_share"] for row in report["results"]), default=0.0)
    parts = [
        machine["processor"],
        f"{machine['threads']} threads",
        f"{typed['requests']} requests, {typed['pauses']} pauses in {typed['seconds']:.0f} s of typing",
        f"other processes up to {most:.0%} of the cores" if most > 0.05 else "",
        report["created"],
    ]
    return " · ".join(part for part in parts if part)
