"""What decides the bytes of the unit-test job, besides its inputs, its seed and its model."""

from __future__ import annotations

from pydantic import Field

from zenray.batch.unit_tests.mining.mine import MiningSettings
from zenray.batch.unit_tests.prompting.generate import GenerateSettings
from zenray.batch.unit_tests.validation.settings import ValidationSettings
from zenray.config import Settings

_MINED = MiningSettings()


class MiningOptions(Settings):
    """Which functions are worth testing."""

    max_function_lines: int = Field(_MINED.max_function_lines, ge=1, description="Longer functions are left out.")

    def settings(self) -> MiningSettings:
        return MiningSettings(max_function_lines=self.max_function_lines)


class UnitTestSettings(Settings):
    """The job's options."""

    max_functions: int | None = Field(
        None, ge=1, description="At most so many functions, spread over the repositories; all if not given."
    )
    rows_per_shard: int = Field(16, ge=1, le=10_000, description="Functions per Parquet file: what a kill costs.")
    mining: MiningOptions = Field(default_factory=MiningOptions)
    generation: GenerateSettings = Field(default_factory=GenerateSettings)
    validation: ValidationSettings = Field(default_factory=ValidationSettings)
