"""What decides the bytes of the teacher-logits job, besides its inputs, its seed and its teacher."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from zenray.batch.teacher_logits.planning.settings import MIN_WINDOW_TOKENS, PlanSettings
from zenray.batch.teacher_logits.records.formats import parse_format
from zenray.config import Settings
from zenray.errors import ConfigError, InvalidRequest

_PLAN = PlanSettings()
_WINDOWS_PER_OVERLAP = 8


class PlanningOptions(Settings):
    """Which sequences there are."""

    window_tokens: int = Field(
        _PLAN.window_tokens,
        ge=MIN_WINDOW_TOKENS,
        description="Of one packed sequence. Longer documents are cut into windows.",
    )
    overlap_tokens: int | None = Field(
        None,
        ge=1,
        description="That a window repeats of the one before: context, which gets no second record. An eighth of a "
        "window if not given.",
    )
    fim_rate: float = Field(
        _PLAN.fim_rate,
        ge=0,
        le=1,
        description="Share of documents arranged for filling in the middle, half of their pieces PSM and half SPM.",
    )
    max_tokens: int | None = Field(
        _PLAN.max_tokens, ge=1, description="So many scored tokens are enough, of documents drawn at random."
    )
    min_document_tokens: int = Field(
        _PLAN.min_document_tokens, ge=1, description="Documents of fewer tokens are left out."
    )
    languages: tuple[str, ...] = Field(
        _PLAN.languages, description="Ids as editors have them, such as python; all if not given. Repeatable."
    )

    @field_validator("overlap_tokens", "languages")
    @classmethod
    def _can_be_planned(cls, value: Any, info: ValidationInfo) -> Any:
        """What `PlanSettings` refuses."""
        given = {} if value is None else {str(info.field_name): value}
        if given and info.field_name == "overlap_tokens":
            given["window_tokens"] = info.data.get("window_tokens", _PLAN.window_tokens)
        try:
            PlanSettings(**given)
        except ConfigError as error:
            raise ValueError(str(error).partition("allowed: ")[2]) from error
        return value

    def settings(self) -> PlanSettings:
        given = self.model_dump()
        if self.overlap_tokens is None:
            given["overlap_tokens"] = self.window_tokens // _WINDOWS_PER_OVERLAP
        return PlanSettings(**given)


class TeacherLogitsSettings(Settings):
    """The job's options."""

    format: str = Field(
        "compact-255",
        description="What is kept of a distribution: compact-K, a head of at most K tokens and a sample of the tail; "
        "top-K, the K most probable tokens alone.",
    )
    hidden_layers: tuple[int, ...] = Field(
        (), description="Layers whose hidden states to keep: 0 the embeddings, the last the final norm's. Repeatable."
    )
    sequences_per_shard: int = Field(32, ge=1, le=10_000, description="Sequences per Parquet file: what a kill costs.")
    planning: PlanningOptions = Field(default_factory=PlanningOptions)

    @field_validator("format")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            return parse_format(name).name
        except InvalidRequest as error:
            raise ValueError(error.violations[0].allowed) from error

    @field_validator("hidden_layers")
    @classmethod
    def _each_once(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if any(each < 0 for each in layers):
            raise ValueError("numbers from 0 on")
        return tuple(sorted(set(layers)))
