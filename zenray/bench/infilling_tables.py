"""The report of the infilling benchmark, on the terminal and as Markdown: the same cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

_COLUMNS = (
    "gaps", "n", "context", "treatment", "exact", "similarity", "names", "passes", "shown", "parses", "tokens",
    "prompt", "definition",
)  # fmt: skip
_LEGEND = (
    "treatment: raw is the model's own text, stops ends it by the stop rules, all also heals tokens and post-processes "
    "(what editors get). exact: equal but for white space; similarity: 1 - edit distance / longer length; names: F1 of "
    "identifiers; passes: the problem's own tests (pass@1, greedy); shown: not filtered; parses: of those shown, the "
    "file has no more syntax errors than without; tokens: generated, prompt: in the prompt (means); definition: "
    "prompts that hold the called function's head."
)


def infilling_tables(report: dict[str, Any]) -> list[RenderableType]:
    """A table per model, and how to read it."""
    from rich.text import Text

    from zenray.bench.tables import make_table

    parts: list[RenderableType] = []
    for title, rows in _groups(report):
        table = make_table(title, *_COLUMNS)
        for column in (0, 2, 3):
            table.columns[column].justify = "left"
        for row in rows:
            table.add_row(*_cells(row))
        parts.append(table)
    return [*parts, *(Text(line, "dim") for line in (*_remarks(report), _LEGEND))]


def infilling_markdown(report: dict[str, Any]) -> str:
    """The same as Markdown."""
    machine = report["machine"]
    lines = [
        f"Measured {report['created'][:10]} on {machine['processor']}, {machine['threads']} threads; greedy, "
        f"gaps {report['prompts']['sha256'][:12]} (seed {report['settings']['seed']}).",
    ]
    for title, rows in _groups(report):
        lines += ["", f"**{title}**", "", f"| {' | '.join(_COLUMNS)} |", f"|{'|'.join(['---'] * len(_COLUMNS))}|"]
        lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    return "\n".join([*lines, "", *(f"{line}\n" for line in _remarks(report)), _LEGEND])


def _groups(report: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in report["results"]:
        title = f"{row['model']} {row['format']}"
        groups.setdefault(title, []).append(row)
    return list(groups.items())


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    def share(name: str) -> str:
        return "" if row[name] is None else f"{row[name]:.0%}"

    return (
        row["kind"],
        str(row["count"]),
        "open files" if row["with_context"] else "",
        row["treatment"],
        share("exact"),
        f"{row['similarity']:.2f}",
        f"{row['identifiers']:.2f}",
        share("passed"),
        share("shown"),
        share("parses_no_worse"),
        f"{row['tokens']:.0f}",
        f"{row['prompt_tokens']:.0f}",
        share("has_definition"),
    )


def _remarks(report: dict[str, Any]) -> list[str]:
    reason = report["settings"]["functional"]
    return [f"functional: not run ({reason})"] if reason else []
