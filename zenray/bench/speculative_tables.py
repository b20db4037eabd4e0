"""The report of a speculative benchmark, on the terminal and as Markdown: the same cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zenray.bench.speculative_report import MIN_TOKENS, NEVER_BELOW

if TYPE_CHECKING:
    from rich.console import RenderableType

_TITLES = {
    "fresh": "Fresh code: HumanEval's function heads",
    "infill": "Infill: holes in the standard library",
    "edit": "Edits: a function repeated with one small change",
}
_COLUMNS = (
    "drafters", "gamma", "tok/s", "x plain", "worst", "accepted", "tok/round", "by cost", "formula", "ms/round",
    "differ",
)  # fmt: skip
_LEGEND = (
    f"x plain: median over prompts against plain decoding in the same turn; worst: the worst prompt (wanted: at least "
    f"{NEVER_BELOW:g}). gamma: as set (draft tokens per round). by cost: predicted from the policy's step costs; "
    "formula: (gamma + 1) / (1 + gamma (1 - beta)). ms/round: draft + verify + learn. differ: prompts with other "
    "tokens than plain decoding."
)


def speculative_tables(report: dict[str, Any]) -> list[RenderableType]:
    """A table per model and kind of prompt, what differed, and how to read it."""
    from rich.text import Text

    from zenray.bench.tables import make_table

    parts: list[RenderableType] = []
    for title, rows in _groups(report):
        table = make_table(title, *_COLUMNS)
        table.columns[0].min_width = len("draft_model +")
        table.columns[-1].min_width = len(_COLUMNS[-1])
        table.collapse_padding = True
        for row in rows:
            table.add_row(*_cells(row))
        parts += [table, *(Text(line, "dim") for line in _remarks(rows))]
    return [*parts, Text(_LEGEND, "dim")]


def speculative_markdown(report: dict[str, Any]) -> str:
    """The same as Markdown."""
    machine = report["machine"]
    read = f", {machine['read_gb_per_s']:.0f} GB/s read bandwidth" if machine["read_gb_per_s"] else ""
    num_prompts = {row["kind"]: row["num_prompts"] for row in report["results"]}
    counts = ", ".join(f"{count} {kind}" for kind, count in num_prompts.items())
    lines = [
        f"Measured {report['created'][:10]} on {machine['processor']}, {machine['threads']} threads{read}; "
        f"prompts: {counts}; batch 1.",
    ]
    for title, rows in _groups(report):
        lines += ["", f"**{title}**", "", f"| {' | '.join(_COLUMNS)} |", f"|{'|'.join(['---'] * len(_COLUMNS))}|"]
        lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
        lines += [f"\n{line}" for line in _remarks(rows)]
    return "\n".join([*lines, "", _LEGEND])


def speculative_block(report: dict[str, Any]) -> str:
    """The name of the report's block in a document: one for every verifier and its weight format."""
    row = report["results"][0]
    return f"speculative-{row['model']}-{row['format']}"


def side_label(row: dict[str, Any]) -> str:
    return f"{'+'.join(row['drafters'])}, {row['gamma']}" if row["drafters"] else "plain"


def _groups(report: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in report["results"]:
        draft = f", draft {row['draft_model']}" if row["draft_model"] else ""
        sampled = f", temperature {row['temperature']:g}" if row["temperature"] else ""
        title = f"{_TITLES[row['kind']]} ({row['model']} {row['format']}{draft}{sampled})"
        groups.setdefault(title, []).append(row)
    return list(groups.items())


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    from zenray.bench.tables import number

    rate, speedup, took = row["tokens_per_s"], row["speedup"], row["round_ms"]
    spread = f" ({number(rate['minimum'], 0)}-{number(rate['maximum'], 0)})" if rate["count"] > 1 else ""
    mean = "" if row["mean_gamma"] is None else f" ({row['mean_gamma']:.1f})"
    parts = [number(took[name]["mean"], 1) for name in ("draft", "verify", "learn")]
    return (
        " + ".join(row["drafters"]) or "plain",
        f"{row['gamma']}{mean}" if row["drafters"] else "",
        f"{number(rate['p50'], 1 if rate['p50'] < 1000 else 0)}{spread}",
        number(speedup["p50"], 2),
        number(speedup["minimum"], 2),
        "" if row["acceptance"] is None else f"{row['acceptance']:.0%}",
        number(row["tokens_per_round"], 2),
        "" if row["predicted_speedup"] is None else number(row["predicted_speedup"], 2),
        "" if row["model_speedup"] is None else number(row["model_speedup"], 2),
        "+".join(parts) if row["mean_gamma"] is not None else "",
        f"{len(row['differing'])}/{row['num_prompts']}",
    )


def _remarks(rows: list[dict[str, Any]]) -> list[str]:
    """What a table cannot hold: prompts on which the policy breaks its bound (a fixed gamma has none), and how near
    the ties were that rounding broke."""
    from zenray.bench.tables import number

    lines = [
        f"{side_label(row)}: {row['num_below']} of {row['speedup']['count']} prompts below {NEVER_BELOW:g}, the worst "
        f"{row['worst_prompt']} at {number(row['speedup']['minimum'], 2)}"
        for row in rows
        if row["num_below"] and row["gamma"] == "auto"
    ]
    differing = {(entry["prompt"], entry["at"]): entry for row in rows for entry in row["differing"]}
    margins = [entry["margin"] for entry in differing.values() if entry["margin"] is not None]
    if margins:
        lines.append(
            f"Where tokens differ from plain decoding, its own choice was ahead by at most {max(margins):.4f} in log p "
            f"({len(margins)} places)."
        )
    if unexplained := len(differing) - len(margins):
        lines.append(f"{unexplained} answers only end elsewhere.")
    if short := max((row["num_too_short"] for row in rows), default=0):
        lines.append(f"{short} answers were too short to time (under {MIN_TOKENS} tokens).")
    return lines
