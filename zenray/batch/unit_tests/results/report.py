"""What a job gave, for people and for scripts: report.html, report.png, figures.json, skipped.parquet."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from zenray.batch.rows import canonical_json
from zenray.batch.unit_tests.codec import to_row
from zenray.batch.unit_tests.model import Skipped
from zenray.batch.unit_tests.results.funnel import Outcome, outcome_of, to_json
from zenray.batch.unit_tests.results.report_html import render_report
from zenray.batch.unit_tests.results.report_plot import draw_report
from zenray.plot_style import DARK, LIGHT

Records = Callable[[], Iterable[Mapping[str, Any]]]
"""Gives rows of `record.SCHEMA` from the first, every time it is called: no more than one of them is in memory."""

SKIPPED_SCHEMA = pa.schema({name: pa.string() for name in ("repository", "path", "qualified_name", "reason", "detail")})
_NUM_EXAMPLES = 4
_FEWEST_MUTANTS = 5  # A full score of one mutant says little.


def write_report(folder: Path, job: Mapping[str, Any], records: Records, skipped: Sequence[Skipped]) -> None:
    """Fills an empty folder. The bytes follow from the arguments."""
    outcomes = [outcome_of(record) for record in records()]
    reasons = Counter(each.reason.value for each in skipped)
    figures = to_json(outcomes, reasons)
    chosen = choose_examples(outcomes)
    wanted = {outcome.row_id for shown in chosen.values() for outcome in shown}
    found = {record["row_id"]: record for record in records() if record["row_id"] in wanted}
    examples = {name: [(outcome, found[outcome.row_id]) for outcome in shown] for name, shown in chosen.items()}
    light, dark = (draw_report(outcomes, reasons, paper) for paper in (LIGHT, DARK))
    (folder / "report.png").write_bytes(light)
    (folder / "report.html").write_text(render_report(job, figures, examples, light, dark), encoding="utf-8")
    (folder / "figures.json").write_text(json.dumps(json.loads(canonical_json(figures)), indent=1), encoding="utf-8")
    (folder / "skipped.parquet").write_bytes(_skipped_bytes(skipped))


def choose_examples(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """A few functions worth a look, by what they show. No function is shown twice."""
    scored = [
        outcome
        for outcome in outcomes
        if outcome.num_kept and outcome.mutation_score is not None and outcome.num_mutants >= _FEWEST_MUTANTS
    ]

    def score(outcome: Outcome) -> tuple[float, float, str]:
        return outcome.mutation_score or 0.0, outcome.line_coverage or 0.0, outcome.row_id

    shown: set[str] = set()

    def take(candidates: Iterable[Outcome]) -> list[Outcome]:
        taken = [outcome for outcome in candidates if outcome.row_id not in shown][:_NUM_EXAMPLES]
        shown.update(outcome.row_id for outcome in taken)
        return taken

    disagreeing = [outcome for outcome in outcomes if outcome.num_kept and outcome.agreement == 0.0]
    return {
        "Implementations disagree": take(sorted(disagreeing, key=lambda outcome: outcome.row_id)),
        "Best suites": take(sorted(scored, key=score, reverse=True)),
        "Weakest suites": take(sorted(scored, key=score)),
    }


def _skipped_bytes(skipped: Sequence[Skipped]) -> bytes:
    table = pa.Table.from_pylist([to_row(each) for each in skipped], schema=SKIPPED_SCHEMA)
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd", write_page_checksum=True)
    return file.getvalue()
