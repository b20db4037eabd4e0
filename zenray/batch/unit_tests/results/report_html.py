"""The report as one HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from zenray.batch.report_page import origin, page, picture, table, tiles
from zenray.batch.unit_tests.results.funnel import Outcome, words


def render_report(
    job: Mapping[str, Any],
    figures: Mapping[str, Any],
    examples: Mapping[str, Sequence[tuple[Outcome, Mapping[str, Any]]]],
    light_png: bytes,
    dark_png: bytes,
) -> str:
    """The page. `job` is job.json, `figures` what `funnel.to_json` gives; `examples` are functions with their records
    under the headings that say what they show."""
    parts = [
        f"<h1>Unit tests: {figures['tests'][-1][1]:,} kept for {figures['functions'][-1][1]:,} functions</h1>",
        f'<p class="quiet">{origin(job)}</p>',
        _tiles(figures),
        picture(light_png, dark_png, "Yield of functions and tests, scores, and reasons for rejections"),
        '<p class="quiet">Each bar of a funnel shows how many came through and their share of the bar above. A test is '
        "rejected for the first check that it does not pass.</p>",
        "<h2>By repository</h2>",
        _repositories(figures["repositories"]),
        "<h2>Why functions were left out</h2>",
        "<p>Every one of them is listed with its reason in <code>skipped.parquet</code> beside this page.</p>",
        _counts(("reason", "functions"), figures["skipped"]),
        "<h2>Why tests were rejected</h2>",
        _counts(("reason", "tests"), figures["rejected"]),
    ]
    if figures["errors"]:
        parts += ["<h2>Functions with an error</h2>", _counts(("error", "functions"), figures["errors"])]
    for heading, shown in examples.items():
        if shown:
            parts += [f"<h2>{escape(heading)}</h2>", *(_example(outcome, record) for outcome, record in shown)]
    return page("Unit tests: report", parts)


def _tiles(figures: Mapping[str, Any]) -> str:
    functions, tests, means = dict(figures["functions"]), dict(figures["tests"]), figures["means"]
    kept, generated = tests["kept"], tests["generated"]
    shown = [
        (_share(functions["with kept tests"], functions["chosen"]), "of the chosen functions have kept tests"),
        (_share(kept, generated), "of the generated tests were kept"),
        (_number(means["mutation_score"]), "mean mutation score"),
        (_number(means["line_coverage"]), "mean line coverage"),
        (_number(means["branch_coverage"]), "mean branch coverage"),
        (_number(means["agreement"]), "mean agreement"),
        (f"{figures['num_generated_tokens'] / kept:,.0f}" if kept else "–", "generated tokens per kept test"),
    ]
    return tiles(shown)


def _repositories(rows: Iterable[Mapping[str, Any]]) -> str:
    names = (
        "repository",
        "functions",
        "with kept tests",
        "candidates",
        "kept tests",
        "mutation score",
        "lines covered",
    )
    lines = [
        (
            row["repository"],
            f"{row['num_functions']:,}",
            f"{row['num_with_kept']:,} ({_share(row['num_with_kept'], row['num_functions'])})",
            f"{row['num_candidates']:,}",
            f"{row['num_kept']:,}",
            _number(row["mutation_score"]),
            _number(row["line_coverage"]),
        )
        for row in rows
    ]
    return table(names, lines)


def _example(outcome: Outcome, record: Mapping[str, Any]) -> str:
    scores = ", ".join(
        f"{label} {_number(value)}"
        for label, value in (
            ("mutation score", outcome.mutation_score),
            ("lines", outcome.line_coverage),
            ("agreement", outcome.agreement),
        )
    )
    blocks = [("The function", record["source"])]
    blocks += [(f"Kept test, kills {len(test['killed_mutants'])} mutants", test["source"])
               for test in record["tests"] if test["kept"]]  # fmt: skip
    blocks += [("An implementation that disagrees", one["module_source"])
               for one in record["implementations"] if one["agrees"] is False][:1]  # fmt: skip
    if outcome.mutation_score is not None and record["surviving_mutants"]:
        blocks.append(("Mutants that no test notices", "\n".join(record["surviving_mutants"])))
    shown = "".join(f"<h3>{escape(title)}</h3><pre>{escape(text.strip(chr(10)))}</pre>" for title, text in blocks)
    title = f"<code>{escape(outcome.qualified_name)}</code> <span class=quiet>{escape(outcome.repository)}: "
    return f"<details><summary>{title}{escape(outcome.path)}; {scores}</span></summary>{shown}</details>"


def _counts(names: Sequence[str], counts: Mapping[str, int]) -> str:
    """Most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return table(names, [(words(name), f"{count:,}") for name, count in ordered])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "–"
