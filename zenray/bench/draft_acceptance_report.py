"""The table of predicted and measured acceptance."""

from __future__ import annotations

from typing import Any


def acceptance_markdown(report: dict[str, Any]) -> str:
    """The block of a document."""
    (row,) = report["results"]
    predicted, measured, gamma = row["predicted"]["languages"], row["measured"], row["predicted"]["gamma"]
    lines = [
        f"Measured {report['created'][:10]}: {row['predicted']['draft']} ({report['settings']['draft_format']}) beside "
        f"a dump of {row['predicted']['teacher']}, {predicted['all']['positions']:,} records, gamma {gamma}. Then the "
        f"engine speculated with the same draft model from within {report['settings']['texts']} of these texts, "
        f"{report['settings']['new_tokens']} tokens each.",
        "",
        "| | token 1 | token 2 | token 4 | token 8 | tokens a round | measured |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, found in predicted.items():
        for label, key, temperature in (("", "greedy", "0"), (", temperature 1", "temperature_1_at_least", "1")):
            real = f"{measured[temperature]['tokens_per_round']:.2f}" if name == "all" else ""
            rates = found[key]["rates"]
            places = [f"{rates[place - 1]:.1%}" if rates[place - 1] is not None else "" for place in (1, 2, 4, 8)]
            lines.append(f"| {name}{label} | {' | '.join(places)} | {found[key]['tokens_per_round']:.2f} | {real} |")
    return "\n".join(lines)
