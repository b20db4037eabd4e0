"""Measured tables inside documents: what a script wrote between two markers, it can write again.

A block is everything between `<!-- NAME:begin -->` and `<!-- NAME:end -->`, each on a line of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zenray.bench.aggregation import aggregation_markdown
from zenray.bench.coserving_report import coserving_markdown
from zenray.bench.draft_acceptance_report import acceptance_markdown
from zenray.bench.indexing_report import indexing_markdown
from zenray.bench.infilling_tables import infilling_markdown
from zenray.bench.record_report import records_markdown
from zenray.bench.report import merge_rows
from zenray.bench.scoring_report import scoring_markdown
from zenray.bench.speculative_prompts import MAX_TOKENS
from zenray.bench.speculative_tables import speculative_block, speculative_markdown
from zenray.bench.suggestion_tables import suggestions_markdown
from zenray.bench.typing_report import SCHEMA as TYPING_SCHEMA
from zenray.bench.typing_report import typing_markdown
from zenray.bench.unit_tests_tables import unit_tests_markdown
from zenray.errors import ConfigError

PEERS_SCHEMA = "zenray.peers/1"


def replace_block(document: str, name: str, body: str) -> str:
    """`document` with `body` between the markers of `name`. Raises ConfigError unless there is exactly one
    such block, so that nothing is lost in silence."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    pattern = re.compile(rf"^{re.escape(begin)}$.*?^{re.escape(end)}$", re.DOTALL | re.MULTILINE)
    if len(pattern.findall(document)) != 1 or document.count(begin) != 1 or document.count(end) != 1:
        raise ConfigError(f"the document needs one line {begin} and, behind it, one line {end}")
    return pattern.sub(lambda _: f"{begin}\n{body.strip()}\n{end}", document)


def update_document(document: str, report: dict[str, Any], block: str = "") -> str:
    """`document` with the block of one report written again; `block` names another than its own. Raises ConfigError
    for a report without one."""
    kind = {PEERS_SCHEMA: "peers", TYPING_SCHEMA: "typing"}.get(report.get("schema", ""), report.get("kind", ""))
    if kind not in _MARKDOWN:
        raise ConfigError(
            "only reports of compare_peers.py, compare_typing.py and generate_tests.py, of zenray.bench.aggregation, "
            ".indexing, .suggestions, .coserving, .scoring, .record_fidelity and .draft_acceptance and of "
            "`zenray bench overhead`, `speculative` and `infilling` have a block"
        )
    name = speculative_block(report) if kind == "speculative" else kind
    return replace_block(document, block or name, _MARKDOWN[kind](report))


def write_blocks(path: Path, *reports: dict[str, Any]) -> None:
    """Writes the block of each report again in the document at `path`."""
    text = path.read_text(encoding="utf-8")
    for report in reports:
        text = update_document(text, report)
    path.write_text(text, encoding="utf-8")


def overhead_table(report: dict[str, Any]) -> str:
    """A report of `zenray bench overhead` as Markdown."""
    model = report["settings"]["config"]["model"]
    lines = [
        f"Measured {report['created'][:10]}: {model['name']} {model['weight_format']}, one request at a time.",
        "",
        "| path | TTFT p50 | p95 | ITL p50 | p95 | decode tok/s |",
        "|---|---|---|---|---|---|",
    ]
    for row in (row for row in report["results"] if row["measure"] == "path"):
        times = [row[name][at] for name in ("ttft_ms", "itl_ms") for at in ("p50", "p95")]
        shown = " | ".join(f"{value:.2f} ms" for value in times)
        lines.append(f"| {row['path']} | {shown} | {_number(row['tokens_per_s']['p50'])} |")
    for row in (row for row in report["results"] if row["measure"] == "added"):
        first = row["ttft_ms"]
        lines += [
            "",
            f"Added on the first token: p50 {first['p50']:.2f} ms, p95 {first['p95']:.2f} ms (each request against the "
            f"engine's own time for it). Added per streamed chunk: {row['itl_p50_difference_ms']:.2f} ms.",
        ]
    for row in (row for row in report["results"] if row["measure"] == "memory"):
        lines += [
            "",
            f"Verifier process: {row['resident_mib']:.0f} MiB resident, of which weights {row['weights_mib']:.0f}, KV "
            f"budget {row['kv_budget_mib']:.0f}, everything else {row['other_mib']:.0f} MiB.",
        ]
    return "\n".join(lines)


def merge_peer_reports(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """`new` with the rows of `old` that it does not measure again; rows keep their first place."""

    def together(name: str, *keys: str) -> list[dict[str, Any]]:
        return merge_rows(old[name], new[name], keys)

    return {
        **new,
        "versions": sorted({*old["versions"], *new["versions"]}),
        "comparisons": together("comparisons", "what"),
        "measurements": together("measurements", "label", "measure"),
        "agreement": together("agreement", "ours", "peer"),
    }


def peer_tables(report: dict[str, Any]) -> str:
    """The report of benchmarks/compare_peers.py as Markdown: what was wanted, and every contestant's numbers."""
    machine = report["machine"]
    lines = [
        f"Measured {report['created'][:10]} on {machine['processor']}, {machine['threads']} threads, "
        f"{machine['read_gb_per_s']:.0f} GB/s read bandwidth; {report['rounds']} rounds in alternating order, greedy, "
        f"{report['max_tokens']} tokens, no speculation unless said. Medians; in brackets the smallest and largest "
        "round.",
        "",
        "| what | ours | peer | ratio | wanted | |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_comparison_line(row) for row in report["comparisons"]]
    if any(row["measure"] in MAX_TOKENS for row in report["measurements"]):
        most = ", ".join(f"{kind} {count}" for kind, count in MAX_TOKENS.items())
        lines += ["", f"These answers end where the model ends them, at the latest after so many tokens: {most}."]
    lines += ["", "| contestant | measure | median | spread | unit | rounds |", "|---|---|---|---|---|---|"]
    for row in report["measurements"]:
        value = row["value"]
        lines.append(
            f"| {row['label']} | {row['measure']} | {_number(value['p50'])} | "
            f"{_number(value['minimum'])} to {_number(value['maximum'])} | {row['unit']} | {value['count']} |"
        )
    if report["agreement"]:
        lines += [
            "",
            "The same model runs everywhere: characters of greedy text two contestants agree on before they part",
        ]
        lines += ["(median over prompts; numerics of different kernels part them at near ties):", ""]
        lines += [
            f"- {row['ours']} and {row['peer']}: {row['common_characters']['p50']:.0f}"
            f" of {row['characters']['p50']:.0f}, {row['same_start']:.0%} of prompts start alike"
            for row in report["agreement"]
        ]
    lines += ["", "Versions: " + ", ".join(report["versions"]) + "."]
    if report["disturbed_samples"]:
        lines.append(
            f"{report['disturbed_samples']} of {report['samples']} samples were left out because other processes used "
            f"more than {report['max_foreign_share']:.0%} of the cores meanwhile."
        )
    return "\n".join(lines)


def _comparison_line(row: dict[str, Any]) -> str:
    ratio, wanted = row["ratio"], row["wanted"]
    if ratio["count"] == 0:
        return f"| {row['what']} | - | - | not measured | {_wanted(row)} | |"
    judged = ratio["minimum"] if row["on_every_prompt"] else ratio["p50"]
    met = wanted is not None and (judged >= wanted if row["more_is_better"] else judged <= wanted)
    verdict = "" if wanted is None else "met" if met else "missed"
    spread = f"{_number(ratio['p50'])} [{_number(ratio['minimum'])} to {_number(ratio['maximum'])}]"
    ours, peer = (f"{_number(row[side]['p50'])} {row['unit']}" for side in ("ours", "peer"))
    return f"| {row['what']} | {ours} | {peer} | {spread} | {_wanted(row)} | {verdict} |"


def _wanted(row: dict[str, Any]) -> str:
    """The bound, or nothing where the ratio is only reported."""
    if row["wanted"] is None:
        return ""
    return f"{'≥' if row['more_is_better'] else '≤'} {row['wanted']:g}{' always' if row['on_every_prompt'] else ''}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


_MARKDOWN: dict[str, Callable[[dict[str, Any]], str]] = {
    "peers": peer_tables,
    "typing": typing_markdown,
    "overhead": overhead_table,
    "speculative": speculative_markdown,
    "indexing": indexing_markdown,
    "infilling": infilling_markdown,
    "aggregation": aggregation_markdown,
    "suggestions": suggestions_markdown,
    "unit_tests": unit_tests_markdown,
    "coserving": coserving_markdown,
    "records": records_markdown,
    "acceptance": acceptance_markdown,
    "scoring": scoring_markdown,
}
"""By the kind of a report, which also names its block."""
