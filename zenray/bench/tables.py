"""Reports as tables on the terminal. The machine's limit stands beside every rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


def show(report: dict[str, Any]) -> list[RenderableType]:
    """The tables of a report, to be printed in order."""
    from zenray.bench.infilling_tables import infilling_tables
    from zenray.bench.speculative_tables import speculative_tables

    makers = {
        "engine": _engine_tables,
        "serving": _serving_tables,
        "overhead": _overhead_tables,
        "speculative": speculative_tables,
        "infilling": infilling_tables,
    }
    return [_machine_line(report), *makers[report["kind"]](report)]


def _machine_line(report: dict[str, Any]) -> str:
    machine = report["machine"]
    read = f", {machine['read_gb_per_s']:.0f} GB/s read" if machine["read_gb_per_s"] else ""
    line = (
        f"[dim]{machine['processor']}, {machine['threads']} threads{read}, prompts {report['prompts']['sha256'][:12]}"
    )
    if (report["foreign_cpu_share"] or 0) > 0.05:
        line += f"[/dim] [yellow]disturbed: other processes used {report['foreign_cpu_share']:.0%} of the cores"
    return line


def _engine_tables(report: dict[str, Any]) -> list[RenderableType]:
    limit = report["machine"]["read_gb_per_s"]
    tables: list[RenderableType] = []
    if rows := _rows(report, "decode"):
        table = make_table(
            "Decode",
            "model",
            "format",
            "batch",
            "tok/s",
            "spread",
            "GB/s",
            "of limit",
            "TTFT ms",
            "ITL p50",
            "p95",
            "p99",
        )
        for row in rows:
            rate, gap = row["tokens_per_s"], row["itl_ms"]
            share = row["gb_per_s"] / limit if limit and row["gb_per_s"] else None
            table.add_row(
                _name(row), str(row["batch"]),
                number(rate["p50"]), f"{number(rate['minimum'])}-{number(rate['maximum'])}",
                number(row["gb_per_s"]), "" if share is None else f"{share:.0%}",
                number(row["ttft_ms"]["p50"]), number(gap["p50"]), number(gap["p95"]), number(gap["p99"]),
            )  # fmt: skip
        tables.append(table)
    if rows := _rows(report, "prefill"):
        table = make_table("Cold prefill", "model", "tokens", "tok/s", "spread", "TTFT ms")
        for row in rows:
            rate = row["tokens_per_s"]
            table.add_row(
                _name(row), number(row["prompt_tokens"]["p50"]),
                number(rate["p50"]), f"{number(rate['minimum'])}-{number(rate['maximum'])}",
                number(row["ttft_ms"]["p50"]),
            )  # fmt: skip
        tables.append(table)
    if rows := _rows(report, "repeat"):
        table = make_table(
            "Repeat with one line appended",
            "model",
            "format",
            "tokens",
            "cached",
            "cold TTFT ms",
            "warm TTFT ms",
            "warm/cold",
        )
        for row in rows:
            table.add_row(
                _name(row), number(row["prompt_tokens"]["p50"]), number(row["cached_tokens"]["p50"]),
                number(row["cold_ttft_ms"]["p50"]), number(row["warm_ttft_ms"]["p50"]),
                f"{row['warm_over_cold']['p50']:.1%}",
            )  # fmt: skip
        tables.append(table)
    return tables


def _serving_tables(report: dict[str, Any]) -> list[RenderableType]:
    table = make_table(
        "Serving", "target", "prompts", "load", "ok", "failed", "req/s", "tok/s",
        "TTFT p50", "p95", "p99", "ITL p50", "p95", "p99", "TFCL p50", "p95",
    )  # fmt: skip
    for row in report["results"]:
        ttft, gap, line = row["ttft_ms"], row["itl_ms"], row["tfcl_ms"]
        table.add_row(
            row["target"], row["prompts"], load_label(row),
            str(row["num_requests"] - row["num_failed"]), str(row["num_failed"]),
            number(row["requests_per_s"]), number(row["output_tokens_per_s"]),
            number(ttft["p50"]), number(ttft["p95"]), number(ttft["p99"]),
            number(gap["p50"]), number(gap["p95"]), number(gap["p99"]), number(line["p50"]), number(line["p95"]),
        )  # fmt: skip
    return [table]


def _overhead_tables(report: dict[str, Any]) -> list[RenderableType]:
    table = make_table(
        "The same prompts, direct and through gRPC and Ray", "", "TTFT p50 ms", "p95", "ITL p50 ms", "p95", "tok/s"
    )
    for row in _rows(report, "path"):
        ttft, gap = row["ttft_ms"], row["itl_ms"]
        table.add_row(
            row["path"], number(ttft["p50"]), number(ttft["p95"]), number(gap["p50"], 2), number(gap["p95"], 2),
            number(row["tokens_per_s"]["p50"]),
        )  # fmt: skip
    return [table, *map(_added_line, _rows(report, "added")), *map(_memory_line, _rows(report, "memory"))]


def _added_line(row: dict[str, Any]) -> str:
    first = row["ttft_ms"]
    return (
        f"added on the first token: p50 {number(first['p50'], 2)} ms, p95 {number(first['p95'], 2)} ms"
        f" (each request against the engine's own time for it)\n"
        f"added per streamed chunk: {number(row['itl_p50_difference_ms'], 2)} ms (difference of the medians)"
    )


def _memory_line(row: dict[str, Any]) -> str:
    return (
        f"verifier process: {row['resident_mib']:.0f} MiB resident = weights {row['weights_mib']:.0f}"
        f" + KV budget {row['kv_budget_mib']:.0f} + {row['other_mib']:.0f} MiB"
    )


def number(value: float | None, digits: int | None = None) -> str:
    """Three or so significant digits; a dash where nothing was measured."""
    if value is None:
        return "-"
    if digits is None:
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


def load_label(row: dict[str, Any]) -> str:
    """How a serving row was loaded, in a word."""
    return f"{row['rate_per_s']:g}/s" if row.get("rate_per_s") else f"C={row['concurrency']}"


def _name(row: dict[str, Any]) -> str:
    return f"{row['model']} {row['format']}"


def _rows(report: dict[str, Any], measure: str) -> list[dict[str, Any]]:
    return [row for row in report["results"] if row["measure"] == measure]


def make_table(title: str, *columns: str) -> Table:
    """A table with a title; columns of names are to the left and wrap, numbers to the right."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        textual = column in ("", "model", "target", "prompts", "load", "drafters")
        table.add_column(column, justify="left" if textual else "right", no_wrap=not textual)
    return table
