"""The measurement of record formats as Markdown and as a picture."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zenray.plot_style import COLOURS, GREY, STYLE

WANTED_BYTES, WANTED_KL, WANTED_KL_P99, WANTED_BIAS = 50.0, 0.03, 0.35, 0.5
_KINDS = ("compact", "top", "DistillKit", "RS-KD")
_PLACES = {"DistillKit recommended": (6, 9), "DistillKit Qwen3-235B": (-10, -13)}
"""Of labels, in points, where they would lie upon each other."""
_CROWDED_BYTES = 20
"""Beyond which ours and those of as many bytes stand."""
_TICKS = (5, 10, 20, 50, 100, 200, 400)
_REFERENCE = ("top-50", "renormalised")
"""Whose bias ours is compared with: what a student trained on it gets."""


def records_markdown(report: dict[str, Any]) -> str:
    """The block of a document."""
    rows = report["results"]
    formats = [row for row in rows if row["measure"] == "format"]
    (teacher,) = (row for row in rows if row["measure"] == "teacher")
    settings, everything = report["settings"], teacher["languages"][0]
    return "\n".join(
        [
            f"Measured {report['created'][:10]}: {settings['teacher']} ({settings['weight_format']}) over "
            f"{everything['tokens']:,} tokens of code, of {_packages(report)}, in windows of "
            f"{settings['window_tokens']:,} tokens, {settings['fim_rate']:.0%} of documents arranged for infilling. "
            f"Mean entropy {everything['entropy']:.2f} nats ({_languages(teacher)}), loss {everything['loss']:.2f}.",
            "",
            *_goals(formats),
            "",
            "Bytes of a token: in Parquet with zstd, the token itself included (in brackets before compression). KL of "
            "the teacher to what is read, in nats; of readings that give other tokens nothing it is infinite, and what "
            "stands there in italics is the divergence over the kept tokens alone, both made to sum to 1.",
            "",
            "| format | bytes | mass kept | reading | KL mean | p50 | p90 | p99 | max | top-1 kept |",
            "|---|---|---|---|---|---|---|---|---|---|",
            *(_fidelity_line(row, reading) for row in formats for reading in row["readings"]),
            "",
            f"Bias of the mean gradient, in units of 1/1000. With respect to the student's logits: the length of the "
            f"mean over tokens of what is read less the teacher's, as measured and free of noise (± a standard "
            f"error; by products of batches that share none), and the sum of its absolute values beside what noise "
            f"alone makes of it. With respect to the output layer of {settings['student']}: the Frobenius norm, by "
            "random projections.",
            "",
            "| format | reading | L2 measured | L2 | of top-50's | L1 | L1 of noise | student's output layer |",
            "|---|---|---|---|---|---|---|---|",
            *(_bias_line(row, reading, formats) for row in formats for reading in row["readings"]),
            "",
            *(_redraw_line(row) for row in rows if row["measure"] == "redraws"),
        ]
    )


def _goals(formats: list[dict[str, Any]]) -> list[str]:
    """What was wanted, and what our formats reach; of biases as they were measured, noise and all."""
    ours = [row for row in formats if row["format"].startswith(_KINDS[0])]
    dense, sparse = ([_reading(row, name) for row in ours] for name in ("dense", "sparse"))
    yardstick = _reference(formats)["bias"]["measured"]

    def line(name: str, values: Iterable[float], most: float, digits: int) -> str:
        cells = (f"{value:.{digits}f} {'met' if value <= most else 'missed'}" for value in values)
        return f"| {name} | {' | '.join(cells)} | ≤ {most:g} |"

    return [
        f"| | {' | '.join(row['format'] for row in ours)} | wanted |",
        f"|---|{'---|' * (len(ours) + 1)}",
        line("bytes a token", (row["bytes_per_token"] for row in ours), WANTED_BYTES, 1),
        line("KL of dense, mean", (each["kl"]["mean"] for each in dense), WANTED_KL, 3),
        line("KL of dense, p99", (each["kl"]["p99"] for each in dense), WANTED_KL_P99, 2),
        line("bias of sparse, of top-50's", (each["bias"]["measured"] / yardstick for each in sparse), WANTED_BIAS, 2),
        line("bias of dense, of top-50's", (each["bias"]["measured"] / yardstick for each in dense), WANTED_BIAS, 2),
    ]


def _fidelity_line(row: dict[str, Any], reading: dict[str, Any]) -> str:
    is_first = reading is row["readings"][0]
    size = f"{row['bytes_per_token']:.1f} ({row['raw_bytes_per_token']:.0f})"
    mass = f"{row['mass_kept']:.4f}" if row["mass_kept"] else "-"
    shown = [row["format"], size, mass] if is_first else ["", "", ""]
    return f"| {' | '.join(shown)} | {reading['reading']} | {_divergences(reading)} | {reading['same_top']:.4f} |"


def _divergences(reading: dict[str, Any]) -> str:
    names, kept = ("mean", "p50", "p90", "p99", "max"), reading["kl_of_kept"]
    if reading["kl"] is not None:
        return " | ".join(f"{reading['kl'][name]:.3g}" for name in names)
    return " | ".join("-" if kept is None else f"*{kept[name]:.2g}*" for name in names)


def _bias_line(row: dict[str, Any], reading: dict[str, Any], formats: list[dict[str, Any]]) -> str:
    bias, student = reading["bias"], reading["student_bias"]
    share = bias["measured"] / _reference(formats)["bias"]["measured"]
    name = row["format"] if reading is row["readings"][0] else ""
    cells = (
        f"{bias['measured'] * 1e3:.3f}",
        _noise_free(bias),
        f"{share:.2f}",
        f"{reading['bias_l1'] * 1e3:.1f}",
        f"{reading['bias_l1_noise'] * 1e3:.1f}",
        f"{student['measured'] * 1e3:.2f}",
    )
    return f"| {name} | {reading['reading']} | {' | '.join(cells)} |"


def _noise_free(bias: dict[str, float]) -> str:
    """With its standard error where it is two of them; else what it is below."""
    if bias["corrected_squared"] < 2 * bias["standard_error_squared"]:
        return f"< {bias['upper'] * 1e3:.3f}"
    error = bias["standard_error_squared"] / (2 * bias["corrected"])
    return f"{bias['corrected'] * 1e3:.3f} ± {error * 1e3:.3f}"


def _redraw_line(row: dict[str, Any]) -> str:
    return (
        f"- {row['format']}, {row['positions']} positions of all entropies encoded {row['redraws']} times: of "
        f"{row['statistics']} statistics (mass by frequency band, random signs, total mass, a student's loss, each for "
        f"sure, middling and unsure positions) the mean of the redraws is at most {row['largest_z']:.2f} standard "
        f"errors from the exact value; chance alone makes the largest {row['expected_largest_z']:.2f}. Beyond 3: "
        f"{row['beyond_3']}; root mean square {row['root_mean_square_z']:.2f}."
    )


def plot_records(report: dict[str, Any], path: Path) -> None:
    """Bytes against divergence and against bias, a point a format."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, LogLocator

    formats = [row for row in report["results"] if row["measure"] == "format"]
    with pyplot.rc_context(STYLE):
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.4))
        for row in formats:
            spread = next((each for each in row["readings"] if each["kl"] is not None), None)
            taught = next(each for each in row["readings"] if each["reading"] in ("sparse", "renormalised"))
            _point(left, row, spread["kl"]["mean"] if spread else None)
            _point(right, row, taught["bias"]["measured"] * 1e3)
        left.axhline(WANTED_KL, color=GREY, lw=0.8, ls=(0, (3, 2)))
        left.axvline(WANTED_BYTES, color=GREY, lw=0.8, ls=(0, (3, 2)))
        left.set_title("Mean KL of the teacher to what is read, nats")
        right.set_title("Length of the mean gradient's bias, 1/1000, as measured")
        for axes in (left, right):
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xlim(4, 900)
            axes.set_xticks(_TICKS, [str(tick) for tick in _TICKS])
            axes.minorticks_off()
            axes.set_xlabel("bytes a token, compressed")
            axes.margins(y=0.12)
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        handles = [Line2D([], [], color=COLOURS[n], marker="o", lw=0, label=name) for n, name in enumerate(_KINDS)]
        right.legend(handles=handles, loc="upper right", fontsize=8)
        figure.tight_layout(w_pad=3)
        figure.savefig(path, dpi=150)
        pyplot.close(figure)


def _point(axes: Any, row: dict[str, Any], value: float | None) -> None:
    if value is None:
        return
    kind = next(index for index, name in enumerate(_KINDS) if row["format"].startswith(name))
    is_ours = kind == 0
    is_left = kind == 1 or (kind == 3 and row["bytes_per_token"] > _CROWDED_BYTES)
    axes.plot(row["bytes_per_token"], value, "*" if is_ours else "o", ms=13 if is_ours else 6, color=COLOURS[kind])
    axes.annotate(
        row["format"].removeprefix("DistillKit "),
        (row["bytes_per_token"], value),
        _PLACES.get(row["format"], (-6, -11) if is_left else (6, 5)),
        textcoords="offset points",
        ha="right" if is_left else "left",
        fontsize=7.5,
        fontweight="bold" if is_ours else "normal",
        color=COLOURS[kind],
    )


def _reference(formats: list[dict[str, Any]]) -> dict[str, Any]:
    name, reading = _REFERENCE
    return _reading(next(row for row in formats if row["format"] == name), reading)


def _reading(row: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in row["readings"] if each["reading"] == name)
    return found


def _languages(teacher: dict[str, Any]) -> str:
    return ", ".join(f"{each['language']} {each['entropy']:.2f}" for each in teacher["languages"][1:])


def _packages(report: dict[str, Any]) -> str:
    *most, last = (f"{package.replace('==', ' ')}" for package in report["prompts"]["packages"].values())
    return f"{', '.join(most)} and {last}"
