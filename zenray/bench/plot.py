"""Reports as one PNG. matplotlib comes with `pip install 'zenray[bench]'`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zenray.plot_style import COLOURS, GREY, INK, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DASHES = (0, (3, 2))
_SERVING_PANELS = (
    ("ttft_ms", "Time to first token"),
    ("tfcl_ms", "Time to first complete line"),
    ("itl_ms", "Inter-token latency"),
)
_ENGINE_PANELS = ("decode", "prefill", "repeat")


def plot_report(report: dict[str, Any], path: Path) -> None:
    """Draws a report."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context(STYLE):
        draw = {
            "engine": _draw_engine,
            "serving": _draw_serving,
            "overhead": _draw_overhead,
            "speculative": _draw_speculative,
        }[report["kind"]]
        figure = draw(report)
        figure.text(0.01, 0.012, _footer(report), color=GREY, fontsize=7.5)
        figure.savefig(path, dpi=150, bbox_inches="tight", pad_inches=0.15)
        pyplot.close(figure)


def _draw_engine(report: dict[str, Any]) -> Figure:
    """Decode rates by format and batch against the bandwidth bound; prefill; repeat. One colour per series."""
    from matplotlib import pyplot
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    rows = {name: [row for row in report["results"] if row["measure"] == name] for name in _ENGINE_PANELS}
    panels = [name for name in _ENGINE_PANELS if rows[name]]
    batches = len({row["batch"] for row in rows["decode"]})
    widths = [max(1.0, 0.6 * batches) if name == "decode" else 1.0 for name in panels]
    size = (1.5 + 3.0 * sum(widths), 4.1)
    figure, grid = pyplot.subplots(1, len(panels), squeeze=False, width_ratios=widths, figsize=size)
    series = _series(report["results"])
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(series)}
    for name, axes in zip(panels, grid[0], strict=True):
        draw = {"decode": _draw_decode, "prefill": _draw_prefill, "repeat": _draw_repeat}[name]
        draw(axes, rows[name], report, colours)
    figure.tight_layout(rect=(0, 0.05, 1, 0.91), w_pad=2.5)
    handles: list[Any] = [Patch(color=colour) for colour in colours.values()]
    labels = list(colours)
    if rows["decode"] and report["machine"]["read_gb_per_s"]:
        handles.append(Line2D([], [], color=INK, linestyle=_DASHES, lw=1.1))
        labels.append(f"what {report['machine']['read_gb_per_s']:.0f} GB/s of memory bandwidth allows")
    figure.legend(
        handles, labels, loc="upper left", ncols=min(4, len(labels)), bbox_to_anchor=(0.005, 0.995), fontsize=9
    )
    return figure


def _draw_decode(axes: Axes, rows: list[dict[str, Any]], report: dict[str, Any], colours: dict[str, str]) -> None:
    limit = report["machine"]["read_gb_per_s"]
    batches = sorted({row["batch"] for row in rows})
    width = 0.8 / len(colours)
    reached = max((row["tokens_per_s"]["maximum"] or 0) for row in rows)
    top = reached * 1.25
    for place, name in enumerate(colours):
        for row in (row for row in rows if _name(row) == name):
            at = batches.index(row["batch"]) + (place - (len(colours) - 1) / 2) * width
            _bar(axes, at, width * 0.92, row["tokens_per_s"], colours[name], top)
            if limit:
                bound = limit * 1e9 / (row["weight_bytes_per_step"] + row["kv_bytes_per_step"]) * row["batch"]
                edges = at - width * 0.46, at + width * 0.46
                axes.hlines(bound, *edges, color=INK, linestyle=_DASHES, lw=1.1)
    axes.set_xticks(range(len(batches)), [f"batch {batch}" for batch in batches])
    axes.tick_params(axis="x", length=0)
    axes.set_title("Decode")
    axes.set_ylabel("tokens per second")
    axes.set_ylim(0, top)  # the bound of a large batch may be far above anything reached; keep the bars readable


def _draw_prefill(axes: Axes, rows: list[dict[str, Any]], report: dict[str, Any], colours: dict[str, str]) -> None:
    top = max(row["tokens_per_s"]["maximum"] for row in rows) * 1.15
    for place, row in enumerate(rows):
        _bar(axes, place, 0.7, row["tokens_per_s"], colours[_name(row)], top)
    axes.set_xticks([])
    axes.set_title(f"Cold prefill, {rows[0]['prompt_tokens']['p50']:.0f} tokens")
    axes.set_ylabel("prompt tokens per second")
    axes.set_ylim(0, top)


def _draw_repeat(axes: Axes, rows: list[dict[str, Any]], report: dict[str, Any], colours: dict[str, str]) -> None:
    ticks: dict[float, str] = {}
    for place, row in enumerate(rows):
        cold, warm = row["cold_ttft_ms"]["p50"], row["warm_ttft_ms"]["p50"]
        axes.bar(place - 0.2, cold, 0.36, color=colours[_name(row)], alpha=0.4)
        axes.bar(place + 0.2, warm, 0.36, color=colours[_name(row)])
        _above(axes, place - 0.2, cold, f"{cold:.0f}")
        _above(axes, place + 0.2, warm, f"{warm:.0f}\n{row['warm_over_cold']['p50']:.1%}")
        ticks |= {place - 0.2: "cold", place + 0.2: "again"}
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.tick_params(axis="x", length=0)
    axes.set_title(f"{rows[0]['prompt_tokens']['p50']:.0f} tokens, then one line more")
    axes.set_ylabel("time to first token, ms")
    axes.margins(y=0.12)


def _bar(axes: Axes, at: float, width: float, value: dict[str, Any], colour: str, top: float) -> None:
    """A bar of the median with its spread; the number inside where it fits."""
    middle, low, high = value["p50"], value["minimum"], value["maximum"]
    axes.bar(at, middle, width, color=colour)
    axes.vlines(at, low, high, color=INK, lw=1.2)
    text = f"{middle:.0f}" if middle >= 100 else f"{middle:.1f}"
    if middle > top * 0.09:
        axes.annotate(text, (at, low), (0, -4), textcoords="offset points", ha="center", va="top", color="white",
                      fontweight="bold")  # fmt: skip
    else:
        _above(axes, at, high, text)


def _above(axes: Axes, at: float, height: float, text: str) -> None:
    axes.annotate(text, (at, height), (0, 3), textcoords="offset points", ha="center", va="bottom")


def _draw_serving(report: dict[str, Any]) -> Figure:
    """Latency and throughput against load: a row of panels per kind of prompt, a colour per target."""
    from matplotlib import pyplot

    results = report["results"]
    kinds = list(dict.fromkeys(row["prompts"] for row in results))
    targets = list(dict.fromkeys(row["target"] for row in results))
    height = 0.9 + 2.9 * len(kinds)
    figure, grid = pyplot.subplots(len(kinds), 4, squeeze=False, figsize=(14, height))
    for kind, row_of_axes in zip(kinds, grid, strict=True):
        for place, target in enumerate(targets):
            rows = [row for row in results if (row["prompts"], row["target"]) == (kind, target)]
            _draw_load(row_of_axes, rows, COLOURS[place % len(COLOURS)], target, band=len(targets) <= 2)
        for axes, (_, title) in zip(row_of_axes, (*_SERVING_PANELS, ("", "Throughput")), strict=True):
            axes.set_title(f"{title}, {kind}")
            axes.set_ylabel("tokens per second" if title == "Throughput" else "milliseconds")
            axes.set_ylim(bottom=0)
    for axes in grid[-1]:
        axes.set_xlabel("requests per second" if any(row["rate_per_s"] for row in results) else "requests at once")
    figure.tight_layout(rect=(0, 0.2 / height, 1, 1 - 0.35 / height), w_pad=2, h_pad=2)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper left", ncols=min(4, len(targets)), bbox_to_anchor=(0.005, 1))
    band = " · band to p99" if len(targets) <= 2 else ""
    figure.text(0.99, 1 - 0.2 / height, f"line p50 · dashed p95{band}", ha="right", color=GREY, fontsize=8)
    return figure


def _draw_load(panels: Any, rows: list[dict[str, Any]], colour: str, label: str, band: bool) -> None:
    """One target's lines over its loads in the panels of one kind of prompt."""
    rows = sorted(rows, key=lambda row: row["rate_per_s"] or row["concurrency"])
    for axes, (key, _) in zip(panels, _SERVING_PANELS, strict=False):
        known = [row for row in rows if row[key]["count"]]
        at = [row["rate_per_s"] or row["concurrency"] for row in known]
        p50, p95, p99 = ([row[key][name] for row in known] for name in ("p50", "p95", "p99"))
        axes.plot(at, p50, "-o", color=colour, ms=4, label=label)
        axes.plot(at, p95, "--", color=colour, lw=1)
        if band:
            axes.fill_between(at, p50, p99, color=colour, alpha=0.12, lw=0)
    at = [row["rate_per_s"] or row["concurrency"] for row in rows]
    panels[-1].plot(at, [row["output_tokens_per_s"] for row in rows], "-o", color=colour, ms=4)
    for axes in panels:
        axes.set_xticks(at, [f"{tick:g}" for tick in at])


def _draw_overhead(report: dict[str, Any]) -> Figure:
    from matplotlib import pyplot

    rows = [row for row in report["results"] if row["measure"] == "path"]
    figure, grid = pyplot.subplots(1, 2, figsize=(7.6, 3.6))
    for axes, key, title in zip(
        grid, ("ttft_ms", "itl_ms"), ("Time to first token", "Inter-token latency"), strict=True
    ):
        for place, row in enumerate(rows):
            value = row[key]
            axes.bar(place, value["p50"], 0.6, color=COLOURS[place])
            axes.vlines(place, value["p50"], value["p95"], color=INK, lw=1.2)
            _above(axes, place, value["p95"], f"{value['p50']:.2f}")
        axes.set_xticks(range(len(rows)), [row["path"] for row in rows])
        axes.tick_params(axis="x", length=0)
        axes.set_title(f"{title}, p50 (line to p95)")
        axes.set_ylabel("milliseconds")
        axes.margins(y=0.15)
    figure.tight_layout(rect=(0, 0.05, 1, 1), w_pad=2)
    return figure


def _draw_speculative(report: dict[str, Any]) -> Figure:
    from zenray.bench.speculative_plot import draw_speculative

    return draw_speculative(report, COLOURS, INK)


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
