"""The jobs that can be submitted, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zenray.batch.inputs.spec import InputSpec
from zenray.batch.job import Job
from zenray.batch.output.verify import RowProblems
from zenray.batch.teacher_logits.job import TeacherLogitsJob
from zenray.batch.teacher_logits.results.check import unreadable_rows
from zenray.batch.teacher_logits.settings import TeacherLogitsSettings
from zenray.batch.unit_tests.job import UnitTestJob
from zenray.batch.unit_tests.settings import UnitTestSettings
from zenray.config import Settings
from zenray.errors import NotFound


@dataclass(frozen=True, slots=True)
class JobKind:
    """A job as a user names it. The fields of `settings` are its options; all of them decide its bytes."""

    name: str
    summary: str
    settings: type[Settings]
    make: Callable[[Sequence[InputSpec], int, Any], Job]
    """From inputs, a seed and an instance of `settings`."""
    check: Callable[[], None] = lambda: None
    """Raises a typed error where this machine lacks what the job needs."""
    row_problems: RowProblems | None = None
    """What `zenray jobs verify` asks besides what holds for every output."""


def _check_sandbox() -> None:
    from zenray.batch.sandbox import SandboxPool

    SandboxPool(1).close()


JOBS: Mapping[str, JobKind] = {
    kind.name: kind
    for kind in (
        JobKind(
            "unit-tests",
            "Unit tests for Python functions, executed and validated",
            UnitTestSettings,
            UnitTestJob,
            _check_sandbox,
        ),
        JobKind(
            "teacher-logits",
            "What the served model thinks of every token of texts, for distillation",
            TeacherLogitsSettings,
            TeacherLogitsJob,
            row_problems=unreadable_rows,
        ),
    )
}


def job_kind(name: str) -> JobKind:
    """Raises NotFound, which names the jobs there are."""
    if name not in JOBS:
        raise NotFound("job", name, JOBS)
    return JOBS[name]
