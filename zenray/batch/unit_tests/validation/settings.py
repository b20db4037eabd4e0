"""What the validation of tests may take, and how much it asks."""

from __future__ import annotations

from pydantic import Field

from zenray.config import Settings


class ValidationSettings(Settings):
    """Decides verdicts and scores: a part of the job's parameters."""

    reference_runs: int = Field(5, ge=1, le=50, description="Times a test must pass, each with another hash seed.")
    max_mutants: int = Field(20, ge=0, le=500, description="Mutants of a function at most.")
    test_cpu_s: float = Field(0.5, gt=0, le=60, description="Processor time that a test may take.")
    test_wall_s: float = Field(30.0, gt=0, le=600, description="Time that a test may take if it only waits.")
    memory_mib: int = Field(512, ge=128, description="Memory that a test may take, Python's own included.")
