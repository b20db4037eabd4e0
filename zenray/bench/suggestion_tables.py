"""The report of `zenray.bench.suggestions` as Markdown."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import Any

_JUDGEMENTS = ("exact", "early", "late", "never")


def suggestions_markdown(report: dict[str, Any]) -> str:
    """Three tables: the rules, the true texts, and a model's completions if there are any."""
    of = {
        name: [row for row in report["results"] if row["measure"] == name]
        for name in ("rules", "true texts", "completions")
    }
    lines = [
        f"Measured {report['created'][:10]} on {report['prompts']['gaps']} gaps in real files "
        f"({', '.join(report['settings']['sources'])}).",
        "",
        "The rules read the true text of a gap and the true suffix. They end it where the gap ends (but for white "
        "space), too early, too late, or never:",
        "",
        "| language | gaps | exact | early | late | never |",
        "|---|---|---|---|---|---|",
    ]
    for language, grouped in groupby(of["rules"], key=lambda row: row["language"]):
        lines.append(_rules_line(language, list(grouped)))
    lines.append(_rules_line("all", of["rules"]))
    lines += [
        "",
        "Post-processing should leave true texts alone (but for white space at their end):",
        "",
        "| language | left alone | changed | filtered | processor time p50 | p95 |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_true_texts_line(row) for row in of["true texts"]]
    if of["completions"]:
        lines += _completions(report, of["completions"])
    return "\n".join(lines)


def _completions(report: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    settings = report["settings"]
    lines = [
        "",
        f"{settings['model']} completed gaps without any rule, up to {settings['max_tokens']} tokens. The file parses "
        "no worse than before with the raw text, with what the rules leave of it, and with what is shown:",
        "",
        "| language | completions | raw | ended by rules | shown | exact raw | exact shown | cut away |",
        "|---|---|---|---|---|---|---|---|",
    ]
    total: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for row in rows:
        reasons.update(row["reasons"])
        total.update({name: value for name, value in row.items() if isinstance(value, int)})
        lines.append(_completions_line(row["language"], row))
    lines.append(_completions_line("all", total))
    ends = ", ".join(f"{name} {count}" for name, count in reasons.most_common())
    lines += ["", f"They ended by: {ends}. Post-processing changed {total['changed']} and refused {total['filtered']}."]
    return lines


def _completions_line(language: str, row: dict[str, Any] | Counter[str]) -> str:
    shares = [_share(row[name], row["parsed"]) for name in ("raw", "ended", "shown")]
    shares += [_share(row[name], row["completions"]) for name in ("exact_raw", "exact_shown")]
    shares.append(_share(row["cut_characters"], row["raw_characters"]))
    return f"| {language} | {row['completions']} | {' | '.join(shares)} |"


def _true_texts_line(row: dict[str, Any]) -> str:
    shares = " | ".join(_share(row.get(name, 0), row["gaps"]) for name in ("left alone", "changed", "filtered"))
    time_ms = row["post_process_ms"]
    return f"| {row['language']} | {shares} | {time_ms['p50']:.1f} ms | {time_ms['p95']:.1f} ms |"


def _rules_line(language: str, rows: list[dict[str, Any]]) -> str:
    gaps = sum(row["gaps"] for row in rows)
    shares = " | ".join(_share(sum(row.get(name, 0) for row in rows), gaps) for name in _JUDGEMENTS)
    return f"| {language} | {gaps} | {shares} |"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "-"
