"""The report of the indexing benchmark as Markdown."""

from __future__ import annotations

from typing import Any

GOAL_MB_PER_S, GOAL_LOOKUP_MS = 2.0, 2.0

_LEGEND = (
    "Peak memory: resident, of the parent, of its largest worker and of all together (pages shared between them count "
    "each time). Unchanged: run again over a tree that is the same. Lookups ask for {names} names or {modules} modules "
    "at once, {lookups} times, first with nothing kept of them."
)


def indexing_markdown(report: dict[str, Any]) -> str:
    """A column per tree."""
    trees = [row for row in report["results"] if row["measure"] == "tree"]
    machine = report["machine"]
    lines = [
        f"Measured {report['created'][:10]} on {machine['processor']}, {machine['cores']} cores; other processes used "
        f"{report['foreign_cpu_share']:.0%} of them meanwhile.",
        "",
        f"| | {' | '.join(row['tree'] for row in trees)} | goal |",
        f"|---|{'---|' * (len(trees) + 1)}",
    ]
    for title, shown, goal in (
        ("files, definitions", lambda row: f"{row['files']:,}, {row['definitions']:,}", ""),
        ("source, index", lambda row: f"{row['source_mb']:.1f} MB, {row['database_mb']:.1f} MB", ""),
        ("built in", lambda row: f"{row['build_s']:.1f} s, {row['files_per_s']:,.0f} files/s", ""),
        ("source read", lambda row: f"{row['mb_per_s']:.1f} MB/s", f"≥ {GOAL_MB_PER_S:g} MB/s"),
        ("of one core's time", lambda row: f"{row['mb_per_cpu_s']:.1f} MB/s", ""),
        ("unchanged", lambda row: f"{row['unchanged_s'] * 1e3:,.0f} ms", ""),
        ("a few files changed", lambda row: f"{row['changed_files']}: {row['changed_s'] * 1e3:,.0f} ms", ""),
        ("peak memory", _memory, "does not grow with the tree"),
        ("definitions, p50 / p95", lambda row: _lookup(row, "definitions"), f"≤ {GOAL_LOOKUP_MS:g} ms"),
        ("exports, p50 / p95", lambda row: _lookup(row, "exports"), f"≤ {GOAL_LOOKUP_MS:g} ms"),
    ):
        lines.append(f"| {title} | {' | '.join(map(shown, trees))} | {goal} |")
    lines += ["", _LEGEND.format(**report["settings"])]
    for row in (row for row in report["results"] if row["measure"] == "secrets"):
        lines += [
            "",
            f"Secrets: {row['spans']} spans of the standard library's {row['source_mb']:.0f} MB are taken for secrets "
            f"({row['spans'] / row['source_mb']:.2f} a MB); one core searches {row['mb_per_s']:.0f} MB/s.",
        ]
    return "\n".join(lines)


def _memory(row: dict[str, Any]) -> str:
    return f"{row['parent_mib']:.0f}, {row['worker_mib']:.0f}, {row['all_mib']:.0f} MiB"


def _lookup(row: dict[str, Any], kind: str) -> str:
    first, again = row[f"{kind}_first_ms"], row[f"{kind}_again_ms"]
    return f"{first['p50']:.2f} / {first['p95']:.2f} ms, again {again['p50']:.2f} / {again['p95']:.2f} ms"
