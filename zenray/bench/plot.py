"""Reports as one PNG. matplotlib comes with `pip install 'zenray[bench]'`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zenray.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: distinguishable with colour-blind eyes.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C6D31", "#000000")
_GREY = "#5f6368"


def plot_report(report: dict[str, Any], path: Path) -> None:
    """Draws a report. Raises ConfigError when matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise ConfigError("--plot needs matplotlib: pip install 'zenray[bench]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    style: Any = {
        "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": _GREY,
        "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.axisbelow": True,
        "axes.grid": True, "axes.grid.axis": "y", "grid.color": "#e3e5e8", "grid.linewidth": 0.8,
        "xtick.color": _GREY, "ytick.color": _GREY, "axes.labelcolor": "#3c4043", "legend.frameon": False,
    }  # fmt: skip
    with pyplot.rc_context(style):
        draw = {"engine": _draw_engine, "serving": _draw_serving, "overhead": _draw_overhead}[report["kind"]]
        figure = draw(report)
        figure.text(0.01, 0.012, _footer(report), color=_GREY, fontsize=7.5)
        figure.savefig(path, dpi=150, bbox_inches="tight", pad_inches=0.15)
        pyplot.close(figure)


def _draw_engine(report: dict[str, Any]) -> Figure:
    """Decode rates by format and batch against the bandwidth bound; prefill; repeat."""
    from matplotlib import pyplot

    panels = [name for name in ("decode", "prefill", "repeat") if any(r["measure"] == name for r in report["results"])]
    widths = [2 if name == "decode" else 1 for name in panels]
    figure, grid = pyplot.subplots(
        1, len(panels), squeeze=False, width_ratios=widths, figsize=(2.2 + 2.8 * sum(widths), 3.9)
    )
    for name, axes in zip(panels, grid[0], strict=True):
        rows = [row for row in report["results"] if row["measure"] == name]
        {"decode": _draw_decode, "prefill": _draw_prefill, "repeat": _draw_repeat}[name](axes, rows, report)
    figure.tight_layout(rect=(0, 0.05, 1, 1), w_pad=2.5)
    return figure


def _draw_decode(axes: Axes, rows: list[dict[str, Any]], report: dict[str, Any]) -> None:
    limit = report["machine"]["read_gb_per_s"]
    series = _series(rows)
    batches = sorted({row["batch"] for row in rows})
    width = 0.8 / len(series)
    bound_label = "bound by memory bandwidth"
    for place, name in enumerate(series):
        for row in (row for row in rows if _name(row) == name):
            at = batches.index(row["batch"]) + (place - (len(series) - 1) / 2) * width
            rate = row["tokens_per_s"]
            middle = rate["p50"] or 0
            spread = [[middle - (rate["minimum"] or 0)], [(rate["maximum"] or 0) - middle]]
            bar = axes.bar(at, middle, width * 0.92, color=_COLOURS[place], yerr=spread, ecolor="#202124", capsize=2.5)
            bar.set_label(name if row["batch"] == batches[0] else "")
            axes.annotate(f"{middle:.0f}", (at, rate["maximum"] or 0), (0, 3), textcoords="offset points",
                          ha="center", va="bottom", fontsize=8.5)  # fmt: skip
            if limit:
                bound = limit * 1e9 / (row["weight_bytes_per_step"] + row["kv_bytes_per_step"]) * row["batch"]
                axes.hlines(bound, at - width * 0.46, at + width * 0.46, color="#202124", linestyle=(0, (3, 2)), lw=1.1,
                            label=bound_label)  # fmt: skip
                bound_label = ""
    axes.set_xticks(range(len(batches)), [f"batch {batch}" for batch in batches])
    axes.tick_params(axis="x", length=0)
    axes.set_title("Decode")
    axes.set_ylabel("tokens per second")
    # The bound of a large batch may be far above anything reached; keep the bars readable.
    reached = max((row["tokens_per_s"]["maximum"] or 0) for row in rows)
    axes.set_ylim(0, max(1.0, min(axes.get_ylim()[1], reached * 1.5)))
    axes.legend(fontsize=8, loc="upper left")


def _draw_prefill(axes: Axes, rows: list[dict[str, Any]], report: dict[str, Any]) -> None:
    names = _series(rows)
    for place, row in enumerate(rows):
        rate = row["tokens_per_s"]
        spread = [[rate["p50"] - rate["minimum"]], [rate["maximum"] - rate["p50"]]]
        axes.bar(place, rate["p50"], 0.7, color=_COLOURS[names.index(_name(row))], yerr=spread, capsize=2.5)
        axes.annotate(f"{rate['p50']:.0f}", (place, rate["maximum"]), (0, 3), textcoords="offset points", ha="center",
                      fontsize=8.5)  # fmt: skip
    axes.set_xticks(range(len(rows)), [_name(row) for row in rows], rotation=20 if len(rows) > 2 else 0)
    axes.set_title(f"Cold prefill, {rows[0]['prompt_tokens']['p50']:.0f} tokens")
    axes.set_ylabel("prompt tokens per second")
    axes.margins(y=0.15)


def _draw_repeat(axes: Axes, rows: list[dict[str, Any]], report: dict[str, Any]) -> None:
    names = _series(rows)
    for place, row in enumerate(rows):
        colour = _COLOURS[names.index(_name(row))]
        cold, warm = row["cold_ttft_ms"]["p50"], row["warm_ttft_ms"]["p50"]
        axes.bar(place - 0.19, cold, 0.36, color=colour, alpha=0.35)
        axes.bar(place + 0.19, warm, 0.36, color=colour)
        axes.annotate("cold", (place - 0.19, cold), (0, 3), textcoords="offset points", ha="center", fontsize=8)
        axes.annotate(f"{row['warm_over_cold']['p50']:.1%}", (place + 0.19, warm), (0, 3), textcoords="offset points",
                      ha="center", fontsize=8.5)  # fmt: skip
    axes.set_xticks(range(len(rows)), [_name(row) for row in rows], rotation=20 if len(rows) > 2 else 0)
    axes.set_title("Repeat, one line more")
    axes.set_ylabel("time to first token, ms")
    axes.margins(y=0.15)


def _draw_serving(report: dict[str, Any]) -> Figure:
    """Latency and throughput against load, one line per target and kind of prompt."""
    from matplotlib import pyplot

    rows = report["results"]
    open_loop = any(row.get("rate_per_s") for row in rows)
    load = "rate_per_s" if open_loop else "concurrency"
    figure, grid = pyplot.subplots(1, 4, figsize=(14, 3.9))
    panels = (
        ("ttft_ms", "Time to first token"),
        ("tfcl_ms", "Time to first complete line"),
        ("itl_ms", "Inter-token latency"),
    )
    names = list(dict.fromkeys(_target_name(row) for row in rows))
    for place, name in enumerate(names):
        mine = sorted((row for row in rows if _target_name(row) == name), key=lambda row: row[load])
        x = [row[load] for row in mine]
        colour = _COLOURS[place % len(_COLOURS)]
        for axes, (key, _) in zip(grid, panels, strict=False):
            known = [(at, row[key]) for at, row in zip(x, mine, strict=True) if row[key]["count"]]
            at = [place for place, _ in known]
            axes.plot(at, [v["p50"] for _, v in known], "-o", color=colour, ms=4, label=f"{name}")
            axes.plot(at, [v["p95"] for _, v in known], "--", color=colour, lw=1)
            axes.fill_between(
                at, [v["p50"] for _, v in known], [v["p99"] for _, v in known], color=colour, alpha=0.12, lw=0
            )
        grid[3].plot(x, [row["output_tokens_per_s"] for row in mine], "-o", color=colour, ms=4)
    for axes, (_, title) in zip(grid, panels, strict=False):
        axes.set_title(title)
        axes.set_ylabel("milliseconds")
    grid[3].set_title("Throughput")
    grid[3].set_ylabel("tokens per second")
    for axes in grid:
        axes.set_ylim(bottom=0)
        axes.set_xlabel("requests per second" if open_loop else "requests at once")
        axes.set_xticks(sorted({row[load] for row in rows}))
    figure.tight_layout(rect=(0, 0.05, 1, 0.9), w_pad=2)
    figure.legend(
        *grid[0].get_legend_handles_labels(), loc="upper left", ncols=min(4, len(names)), bbox_to_anchor=(0.01, 0.99)
    )
    figure.text(0.99, 0.955, "line p50 · dashed p95 · band to p99", ha="right", color=_GREY, fontsize=8)
    return figure


def _draw_overhead(report: dict[str, Any]) -> Figure:
    from matplotlib import pyplot

    rows = [row for row in report["results"] if row["measure"] == "path"]
    figure, grid = pyplot.subplots(1, 2, figsize=(7.6, 3.6))
    for axes, key, title in zip(
        grid, ("ttft_ms", "itl_ms"), ("Time to first token", "Inter-token latency"), strict=True
    ):
        for place, row in enumerate(rows):
            value = row[key]
            axes.bar(place, value["p50"], 0.6, color=_COLOURS[place])
            axes.vlines(place, value["p50"], value["p95"], color="#202124", lw=1.2)
            axes.annotate(f"{value['p50']:.2f}", (place, value["p95"]), (0, 3), textcoords="offset points", ha="center")
        axes.set_xticks(range(len(rows)), [row["path"] for row in rows])
        axes.tick_params(axis="x", length=0)
        axes.set_title(f"{title}, p50 (line to p95)")
        axes.set_ylabel("milliseconds")
        axes.margins(y=0.15)
    figure.tight_layout(rect=(0, 0.05, 1, 1), w_pad=2)
    return figure


def _footer(report: dict[str, Any]) -> str:
    machine = report["machine"]
    parts = [
        machine["processor"],
        f"{machine['threads']} threads",
        f"{machine['read_gb_per_s']:.0f} GB/s read" if machine["read_gb_per_s"] else "",
        f"torch {machine['packages']['torch']}",
        f"other processes {report['foreign_cpu_share']:.0%} of the cores"
        if (report["foreign_cpu_share"] or 0) > 0.05
        else "",
        report["created"],
    ]
    return " · ".join(part for part in parts if part)


def _series(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(_name(row) for row in rows))


def _name(row: dict[str, Any]) -> str:
    return f"{row['model']} {row['format']}"


def _target_name(row: dict[str, Any]) -> str:
    return f"{row['target']} ({row['prompts']})"
