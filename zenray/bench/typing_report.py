"""The report of benchmarks/compare_typing.py as tables, on the terminal and in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zenray.bench.tables import make_table, number

if TYPE_CHECKING:
    from rich.console import RenderableType

SCHEMA = "zenray.typing-report/1"
WANTED_TTFT_RATIO = 0.5
WANTED_CACHED_SHARE = 0.9


def compare_typing(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each of ours against the best peer of its class of weights, and the cache shares, with what is wanted."""
    rows = []
    for ours in (result for result in results if result["ours"]):
        peers = [result for result in results if not result["ours"] and result["size"] == ours["size"]]
        for what, measure in (
            ("TTFT p50 of what was answered", "ttft_ms"),
            ("TTFT p50 in pauses", "pause_ttft_ms"),
            ("wait for a line p50 in pauses", "pause_line_ms"),
        ):
            values = {peer["label"]: peer[measure]["p50"] for peer in peers if peer[measure]["p50"] is not None}
            best = min(values, key=lambda label: values[label], default=None)
            mine = ours[measure]["p50"]
            rows.append(
                {
                    "what": f"{ours['label']}: {what}",
                    "ours": mine,
                    "peer": best,
                    "peer_value": None if best is None else values[best],
                    "ratio": None if best is None or mine is None else mine / values[best],
                    "wanted": WANTED_TTFT_RATIO if measure == "ttft_ms" else None,
                }
            )
        rows.append(
            {
                "what": f"{ours['label']}: cached share of prompt tokens",
                "ours": ours["cached_share"],
                "peer": None,
                "peer_value": None,
                "ratio": ours["cached_share"],
                "wanted": WANTED_CACHED_SHARE,
            }
        )
    return rows


_COLUMNS: tuple[tuple[str, str], ...] = (
    ("answered", "answered"),
    ("TTFT p50 ms", "ttft_p50"),
    ("p95", "ttft_p95"),
    ("TFCL p50 ms", "tfcl_p50"),
    ("p95", "tfcl_p95"),
    ("in pauses: TTFT p50", "pause_ttft_p50"),
    ("line p50", "pause_line_p50"),
    ("line p95", "pause_line_p95"),
    ("line shown", "pause_seen"),
    ("cached", "cached"),
    ("prompt tokens", "prompt_tokens"),
    ("wasted tokens", "wasted"),
    ("useful characters a pause", "useful"),
)


def _cells(row: dict[str, Any]) -> list[str]:
    pauses, lines = row["pause_ttft_ms"], row["pause_line_ms"]

    def waited(value: float | None) -> str:
        return "never" if value is None else number(value)

    values = {
        "answered": f"{row['answered'] / max(1, row['requests']):.0%}",
        "ttft_p50": number(row["ttft_ms"]["p50"]),
        "ttft_p95": number(row["ttft_ms"]["p95"]),
        "tfcl_p50": number(row["tfcl_ms"]["p50"]),
        "tfcl_p95": number(row["tfcl_ms"]["p95"]),
        "pause_ttft_p50": waited(pauses["p50"]),
        "pause_line_p50": waited(lines["p50"]),
        "pause_line_p95": waited(lines["p95"]),
        "pause_seen": f"{lines['seen']} of {lines['count']}",
        "cached": "-" if row["cached_share"] is None else f"{row['cached_share']:.1%}",
        "prompt_tokens": number(row["prompt_tokens"]["p50"]),
        "wasted": f"{row['wasted_tokens']} of {row['completion_tokens']}",
        "useful": number(row["useful_characters_per_pause"]),
    }
    return [values[key] for _, key in _COLUMNS]


def typing_tables(report: dict[str, Any]) -> list[RenderableType]:
    """To be printed in order."""
    latency = make_table("Typing, replayed", "", *(title for title, _ in _COLUMNS))
    for row in report["results"]:
        latency.add_row(row["label"], *_cells(row))
    wanted = make_table("What was wanted", "", "ours", "best peer", "ratio", "wanted", "verdict")
    for row in report["comparisons"]:
        peer = "-" if row["peer"] is None else f"{number(row['peer_value'])} ({row['peer']})"
        wanted.add_row(row["what"], number(row["ours"]), peer, number(row["ratio"]), *_verdict(row))
    return [latency, wanted, typing_notes(report)]


def typing_markdown(report: dict[str, Any]) -> str:
    """The block of a document."""
    lines = [
        typing_notes(report),
        "",
        f"| | {' | '.join(title for title, _ in _COLUMNS)} |",
        f"|---{'|---' * len(_COLUMNS)}|",
        *(f"| {row['label']} | {' | '.join(_cells(row))} |" for row in report["results"]),
        "",
        "| what | ours | best peer | ratio | wanted | |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["comparisons"]:
        peer = "-" if row["peer"] is None else f"{number(row['peer_value'])} ({row['peer']})"
        wanted, verdict = _verdict(row)
        ratio = "-" if row["peer"] is None else number(row["ratio"])
        lines.append(f"| {row['what']} | {number(row['ours'])} | {peer} | {ratio} | {wanted} | {verdict} |")
    reused = [f"{row['label']} {row['reused']} of {row['requests']}" for row in report["results"] if row["reused"]]
    if reused:
        fresh = ", ".join(
            f"{row['label']} {number(row['ttft_fresh_ms']['p50'])} ms" for row in report["results"] if row["reused"]
        )
        lines += [
            "",
            f"Went on with an earlier completion: {', '.join(reused)}. TTFT p50 of the others: {fresh}.",
        ]
    failed = [
        f"{row['label']} {row['failed']} ({'; '.join(row['errors'])})" for row in report["results"] if row["failed"]
    ]
    if failed:
        lines += ["", f"Failed requests: {', '.join(failed)}."]
    return "\n".join(lines)


def typing_notes(report: dict[str, Any]) -> str:
    """What was replayed, where, and how quiet it was."""
    machine = report["machine"]
    typed = report["typed"]
    return (
        f"Measured {report['created'][:10]} on {machine['processor']}, {machine['threads']} threads: "
        f"{len(typed['sessions'])} sessions, {typed['seconds']:.0f} s of typing, {typed['requests']} requests, "
        f"{typed['pauses']} pauses of {typed['pause_ms']:.0f} ms or more, greedy, at most "
        f"{report['max_tokens']} tokens."
    )


def _verdict(row: dict[str, Any]) -> tuple[str, str]:
    if row["wanted"] is None:
        return "", ""
    at_least = row["wanted"] == WANTED_CACHED_SHARE
    wanted = f"{'≥' if at_least else '≤'} {row['wanted']:g}"
    if row["ratio"] is None:
        return wanted, "not measured"
    return wanted, "met" if (row["ratio"] >= row["wanted"] if at_least else row["ratio"] <= row["wanted"]) else "missed"
