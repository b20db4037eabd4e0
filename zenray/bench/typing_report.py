"""The report of benchmarks/compare_typing.py as tables, on the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from zenray.bench.tables import make_table, number

if TYPE_CHECKING:
    from rich.console import RenderableType

SCHEMA = "zenray.typing-report/1"
WANTED_TTFT_RATIO = 0.5
WANTED_CACHED_SHARE = 0.9
QUIET_SHARE = 0.05


def compare_typing(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each of ours against the best peer of its class of weights, and the cache shares, with what is wanted."""
    rows = []
    for ours in (result for result in results if result["ours"]):
        peers = [result for result in results if not result["ours"] and result["size"] == ours["size"]]
        for what, measure in (
            ("TTFT p50 of what was answered", "ttft_ms"),
            ("TTFT p50 of those that no earlier text answered", "ttft_fresh_ms"),
            ("TTFT p50 in pauses", "pause_ttft_ms"),
            ("wait for a line p50 in pauses", "pause_line_ms"),
        ):
            best, theirs = min(
                ((peer["label"], peer[measure]["p50"]) for peer in peers),
                key=lambda each: inf if each[1] is None else each[1],
                default=(None, None),
            )
            mine = ours[measure]["p50"]
            rows.append(
                {
                    "what": f"{ours['label']}: {what}",
                    "ours": mine,
                    "peer": best,
                    "peer_value": theirs,
                    "ratio": None if theirs is None or mine is None else mine / theirs,
                    "wanted": WANTED_TTFT_RATIO if measure != "pause_line_ms" else None,
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


def _time_cells(row: dict[str, Any]) -> dict[str, str]:
    """By column. In a pause `never` says that not even half of them, or one in twenty, saw anything."""
    first, line = row["pause_ttft_ms"], row["pause_line_ms"]

    def waited(value: float | None) -> str:
        return "never" if value is None else number(value)

    return {
        "answered": f"{row['answered'] / max(1, row['requests']):.0%}",
        "TTFT p50": number(row["ttft_ms"]["p50"]),
        "p95": number(row["ttft_ms"]["p95"]),
        "TFCL p50": number(row["tfcl_ms"]["p50"]),
        "p95 ": number(row["tfcl_ms"]["p95"]),
        "pauses: TTFT p50": waited(first["p50"]),
        "line p50": waited(line["p50"]),
        "line p95": waited(line["p95"]),
        "line shown": f"{line['seen']} of {line['count']}",
    }


def _work_cells(row: dict[str, Any]) -> dict[str, str]:
    generated = max(1, row["completion_tokens"])

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    return {
        "prompt tokens": number(row["prompt_tokens"]["p50"]),
        "cached": share(row["cached_share"]),
        "of prompts that were read": share(row["cached_share_fresh"]),
        "answered by an earlier text": f"{row['reused'] / max(1, row['requests']):.0%}",
        "generated": str(row["completion_tokens"]),
        "wasted": f"{row['wasted_tokens'] / generated:.0%}",
        "useful characters in a pause": number(row["useful_characters_per_pause"]),
    }


_TABLES = (("Milliseconds until something was there", _time_cells), ("What it took", _work_cells))


def typing_tables(report: dict[str, Any]) -> list[RenderableType]:
    """To be printed in order."""
    tables: list[RenderableType] = []
    for title, cells in _TABLES:
        table = make_table(title, "", *_headings(report, cells))
        for row in report["results"]:
            table.add_row(row["label"], *cells(row).values())
        tables.append(table)
    wanted = make_table("What was wanted", "", "ours", "best peer", "ratio", "wanted", "verdict")
    for row in report["comparisons"]:
        wanted.add_row(row["what"], *_compared(row))
    return [*tables, wanted, "\n".join([typing_notes(report), *_remarks(report)])]


def typing_markdown(report: dict[str, Any]) -> str:
    """The block of a document."""
    lines = [typing_notes(report)]
    if report["plot"]:
        lines += ["", f"![time to first text, and the wait for a line in pauses]({report['plot']})"]
    for title, cells in _TABLES:
        columns = _headings(report, cells)
        lines += ["", f"| {title} | {' | '.join(columns)} |", f"|---{'|---' * len(columns)}|"]
        lines += [f"| {row['label']} | {' | '.join(cells(row).values())} |" for row in report["results"]]
    lines += ["", "| what | ours | best peer | ratio | wanted | |", "|---|---|---|---|---|---|"]
    for row in report["comparisons"]:
        lines.append(f"| {row['what']} | {' | '.join(_compared(row))} |")
    for remark in _remarks(report):
        lines += ["", remark]
    return "\n".join(lines)


def _headings(report: dict[str, Any], cells: Callable[[dict[str, Any]], dict[str, str]]) -> list[str]:
    return [heading.strip() for heading in cells(report["results"][0])]


def typing_notes(report: dict[str, Any]) -> str:
    """What was replayed, where, and how quiet it was."""
    machine = report["machine"]
    typed, windows = report["typed"], report["windows"]
    held = (
        "llama.cpp's server looks for that once a second only, so its client sends the newest one when the one under "
        "way has ended. "
        if report["llama_client"] == "hold"
        else ""
    )
    return (
        f"Measured {report['created'][:10]} on {machine['processor']}, {machine['threads']} threads: "
        f"{len(typed['sessions'])} sessions, {typed['seconds']:.0f} s of typing, {typed['requests']} requests, "
        f"{typed['pauses']} pauses of {typed['pause_ms']:.0f} ms or more, greedy, at most "
        f"{report['max_tokens']} tokens. A peer's client sends {windows['prefix_lines']} lines and more before the "
        f"cursor's, starting at one that seldom moves, {windows['suffix_lines']} behind it and the first "
        f"{windows['extra_lines']} of every other open file: llama.vim's windows, cut to about as many tokens as ours. "
        f"A request that is overtaken has its connection closed. {held}Pauses are the same for all; a server that "
        "showed nothing in one counts as slower than all that did."
    )


def _remarks(report: dict[str, Any]) -> list[str]:
    """What is not in the tables: completions shared by several requests, and what went wrong."""
    remarks = []
    for row in report["results"]:
        if row["reused"]:
            remarks.append(
                f"{row['label']}: {row['reused']} of {row['requests']} requests went on with an earlier completion; "
                f"TTFT p50 of the others {number(row['ttft_fresh_ms']['p50'])} ms."
            )
        if row["failed"]:
            remarks.append(f"{row['label']}: {row['failed']} requests failed: {'; '.join(row['errors'])}.")
        if row["foreign_cpu_share"] > QUIET_SHARE:
            remarks.append(
                f"{row['label']}: other processes used {row['foreign_cpu_share']:.0%} of the cores meanwhile."
            )
    return [*remarks, *(f"{label} was not measured: {why}." for label, why in report["not_measured"].items())]


def _compared(row: dict[str, Any]) -> list[str]:
    """Ours, the best peer, the ratio, what is wanted of it and whether it is met."""
    if row["peer"] is None:
        return [number(row["ours"]), "-", "-", *_verdict(row)]
    theirs = "never" if row["peer_value"] is None else number(row["peer_value"])
    return [number(row["ours"]), f"{theirs} ({row['peer']})", number(row["ratio"]), *_verdict(row)]


def _verdict(row: dict[str, Any]) -> tuple[str, str]:
    if row["wanted"] is None:
        return "", ""
    at_least = row["wanted"] == WANTED_CACHED_SHARE
    wanted = f"{'≥' if at_least else '≤'} {row['wanted']:g}"
    if row["ratio"] is None:
        return wanted, "not measured"
    return wanted, "met" if (row["ratio"] >= row["wanted"] if at_least else row["ratio"] <= row["wanted"]) else "missed"
