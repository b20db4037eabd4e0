"""The report as one HTML page that needs nothing else: no script, no network, light and dark."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from zenray.batch.unit_tests.results.funnel import Outcome, words

_STYLE = """
:root { color-scheme: light dark; --paper: light-dark(#fff, #16181c); --ink: light-dark(#202124, #e8eaed);
  --quiet: light-dark(#5f6368, #9aa0a6); --line: light-dark(#e3e5e8, #33363c); --code: light-dark(#f6f7f9, #1f2227);
  --link: light-dark(#0b5cad, #7cb8f0); }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 72rem; padding: 2.5rem 1.5rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif }
h1 { font-size: 1.7rem; margin: 0 0 .3rem } h2 { font-size: 1.2rem; margin: 2.6rem 0 .7rem }
p { max-width: 46rem } .quiet { color: var(--quiet) } a { color: var(--link) }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.4rem, 1fr)); gap: .9rem; margin: 1.6rem 0 }
.tile { border: 1px solid var(--line); border-radius: 10px; padding: .8rem 1rem }
.tile b { display: block; font-size: 1.6rem; font-weight: 650; font-variant-numeric: tabular-nums }
.tile span { color: var(--quiet); font-size: .85rem }
img { width: 100%; height: auto; border: 1px solid var(--line); border-radius: 10px }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums }
th, td { padding: .35rem 1.1rem .35rem 0; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top }
th { color: var(--quiet); font-weight: 500 } th:first-child, td:first-child { text-align: left }
details { border: 1px solid var(--line); border-radius: 10px; margin: .6rem 0; padding: .2rem 1rem }
summary { cursor: pointer; padding: .45rem 0 } summary code { font-size: .95rem }
pre { background: var(--code); border-radius: 8px; padding: .8rem 1rem; overflow-x: auto;
  font: 13px/1.5 ui-monospace, monospace }
h3 { font-size: .9rem; color: var(--quiet); font-weight: 600; margin: .9rem 0 .3rem }
"""


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
        f'<p class="quiet">{_origin(job)}</p>',
        _tiles(figures),
        _picture(light_png, dark_png),
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
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Unit tests: report</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _origin(job: Mapping[str, Any]) -> str:
    """Model, inputs and seed in a line each."""
    model = job["model"]
    asked = f"{model['name']}, {model['weight_format']}, SHA-256 {model['sha256'][:16]}…" if model else "no model"
    inputs = ", ".join(" ".join(filter(None, (each["name"], each["revision"][:12]))) for each in job["inputs"])
    return f"Model: {escape(asked)}<br>Inputs: {escape(inputs)}<br>Seed {job['seed']}, job version {job['job_version']}"


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
    tiles = "".join(f'<div class="tile"><b>{value}</b><span>{label}</span></div>' for value, label in shown)
    return f'<div class="tiles">{tiles}</div>'


def _picture(light_png: bytes, dark_png: bytes) -> str:
    light, dark = (f"data:image/png;base64,{b64encode(png).decode()}" for png in (light_png, dark_png))
    return (
        f'<picture><source srcset="{dark}" media="(prefers-color-scheme: dark)">'
        f'<img src="{light}" alt="Yield of functions and tests, scores, and reasons for rejections"></picture>'
    )


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
    return _table(names, lines)


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


def _table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _counts(names: Sequence[str], counts: Mapping[str, int]) -> str:
    """Most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return _table(names, [(words(name), f"{count:,}") for name, count in ordered])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "–"
