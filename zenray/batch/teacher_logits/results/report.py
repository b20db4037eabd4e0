"""What a job gave, for people and for scripts: report.html, report.png, report.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zenray.batch.output.layout import shard_path
from zenray.batch.output.read import read_contents, read_shards
from zenray.batch.rows import canonical_json
from zenray.batch.teacher_logits.planning.account import PlanAccount
from zenray.batch.teacher_logits.results.figures import REPORT_COLUMNS, Figures, Stored, stored_in
from zenray.batch.teacher_logits.results.report_html import render_report
from zenray.batch.teacher_logits.results.report_plot import draw_report
from zenray.plot_style import DARK, LIGHT


def write_report(folder: Path, job: Mapping[str, Any], output: Path, plan: PlanAccount) -> None:
    """Fills an empty folder from the shards of `output`. The bytes follow from those, `job` and `plan`."""
    figures, stored = Figures.of(_records(output)), _stored(output)
    told = {**figures.to_json(stored), "plan": plan.to_json()}
    light, dark = (draw_report(figures, stored, paper) for paper in (LIGHT, DARK))
    (folder / "report.png").write_bytes(light)
    (folder / "report.html").write_text(render_report(job, told, light, dark), encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(json.loads(canonical_json(told)), indent=1), encoding="utf-8")


def _records(output: Path) -> Iterator[Mapping[str, Any]]:
    for table in read_shards(output, REPORT_COLUMNS):
        yield from table.to_pylist()


def _stored(output: Path) -> Stored:
    contents = read_contents(output)
    companions = {name: [shard_path(output, at, name) for at in contents.shards] for name in contents.companions}
    return stored_in([shard_path(output, at) for at in contents.shards], companions)
