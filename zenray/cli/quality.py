"""`zenray models inspect --quality`: what each weight format costs against bf16, by `zenray.model.quality`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from zenray.cli.console import megabytes, stdout, table
from zenray.cli.phases import phase
from zenray.config import WeightFormat

if TYPE_CHECKING:
    from zenray.model.quality import QualityReport

FORMATS: tuple[WeightFormat, ...] = ("int8", "int4", "mixed")


def measure(path: Path, formats: Sequence[WeightFormat]) -> list[QualityReport]:
    """One report per format. Takes minutes: both models read the same held-out code."""
    with phase("load", "torch"):
        from zenray.model.quality import compare

    reports = []
    for weight_format in formats:
        with phase("measure", weight_format) as running:

            def report(done: int, total: int, what: str) -> None:
                running.detail, running.share = what, done / max(total, 1)

            reports.append(compare(path, weight_format, progress=report))
            running.detail = weight_format
    return reports


def as_dicts(reports: Sequence[QualityReport]) -> list[dict[str, Any]]:
    return [asdict(report) for report in reports]


def show(reports: Sequence[QualityReport]) -> None:
    numbers = ("top-1 agreement", "KL, nats", "perplexity", "in bf16", "weights", "read per token")
    shown = table("format", *numbers, right=numbers)
    for report in reports:
        shown.add_row(
            report.weight_format,
            f"{report.top1_agreement:.2%}",
            f"{report.mean_kl:.4f}",
            f"{report.perplexity:.3f}",
            f"{report.reference_perplexity:.3f}",
            megabytes(report.weight_bytes),
            megabytes(report.bytes_per_token),
        )
    stdout().print()
    stdout().print(shown)
    positions = reports[0].num_positions if reports else 0
    note = f"against bf16 on {positions:,} positions of held-out code, teacher-forced"
    stdout().print(Text(f"\n{note}", "quiet"))
    for report in reports:
        if report.tensors:
            worst, mean = report.tensors[0], sum(t.relative_rms for t in report.tensors) / len(report.tensors)
            off = f"off by {mean:.2%} rms on average, {worst.name} most, by {worst.relative_rms:.2%}"
            stdout().print(Text(f"{report.weight_format}: tensors are {off}", "quiet"))
