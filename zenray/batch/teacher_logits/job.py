"""The teacher-logits job: texts in, what the served model thinks of each of their tokens out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from zenray.batch.derived import replaced_folder
from zenray.batch.inputs.document import InputAccount, SourceDocument
from zenray.batch.inputs.read import account_of, read_documents
from zenray.batch.inputs.spec import InputSpec
from zenray.batch.job import ModelIdentity, Say, ServedModel, StagePlan
from zenray.batch.output.read import read_job
from zenray.batch.rows import Row
from zenray.batch.teacher_logits.code import code_digest
from zenray.batch.teacher_logits.codec import from_row, to_row
from zenray.batch.teacher_logits.extract import ExtractPlan, ExtractStage
from zenray.batch.teacher_logits.planning.account import PlanAccount
from zenray.batch.teacher_logits.planning.plan import plan_sequences
from zenray.batch.teacher_logits.records.footer import Footer
from zenray.batch.teacher_logits.records.formats import parse_format
from zenray.batch.teacher_logits.records.vocabulary import Vocabulary
from zenray.batch.teacher_logits.results.record import (
    HIDDEN_STATES,
    hidden_schema,
    num_scored,
    record_schema,
    to_hidden_record,
    to_record,
)
from zenray.batch.teacher_logits.results.report import write_report
from zenray.batch.teacher_logits.settings import TeacherLogitsSettings
from zenray.errors import InvalidRequest
from zenray.model.tokenizer_json import tokenizer_digest

_ROWS_AT_ONCE = 16  # Each has a request for every segment under way: an engine's places are always taken.


class TeacherLogitsJob:
    """Packs texts into sequences and records the teacher's distribution at every token. A `zenray.batch.job.Job`."""

    name = "teacher-logits"
    version = 1

    def __init__(self, inputs: Sequence[InputSpec], seed: int, settings: TeacherLogitsSettings) -> None:
        self.seed = seed
        self._specs = tuple(inputs)
        self._settings = settings
        self._accounts: tuple[InputAccount, ...] = ()
        self._known: _Planned | None = None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Every setting, those without an option included, and which code makes records of them: another version of
        it goes on with no output of this one, since one file would not say what the next does."""
        planning = asdict(self._settings.planning.settings())
        settings = {**self._settings.model_dump(mode="json"), "planning": planning}
        return {**settings, "zenray_sources_sha256": code_digest()}

    @property
    def inputs(self) -> tuple[Mapping[str, Any], ...]:
        return tuple(account.to_json() for account in self._accounts)

    @property
    def schema(self) -> pa.Schema:
        return self._planned.schema

    @property
    def companions(self) -> Mapping[str, pa.Schema]:
        return self._planned.companions

    @property
    def rows_per_shard(self) -> int:
        return self._settings.sequences_per_shard

    @property
    def stages(self) -> tuple[StagePlan, ...]:
        # Before `rows` a stage is asked what it needs, not to work.
        vocabulary = self._known.footer.vocabulary.to_bytes() if self._known else b""
        settings = self._settings
        window_tokens = settings.planning.window_tokens
        plan = ExtractPlan(self.seed, window_tokens, settings.format, settings.hidden_layers, vocabulary)
        return (StagePlan("extract", partial(ExtractStage, plan), needs_model=True, rows_at_once=_ROWS_AT_ONCE),)

    def rows(self, say: Say, model: ServedModel | None) -> list[Row]:
        """Raises InvalidRequest for windows that the teacher cannot read or heads longer than its vocabulary."""
        assert model is not None, "the stage asks for the model"
        _check_teacher(self._settings, model.identity)
        self._accounts = tuple(account_of(spec) for spec in self._specs)
        plan = plan_sequences(self._documents(say), model.tokenizer, self._settings.planning.settings(), self.seed, say)
        footer = Footer(
            record_format=parse_format(self._settings.format),
            vocabulary=Vocabulary(plan.counts_V),
            teacher={name: getattr(model.identity, name) for name in ("name", "sha256", "weight_format")},
            tokenizer_sha256=tokenizer_digest(model.tokenizer),
            code_sha256=code_digest(),
            hidden_layers=self._settings.hidden_layers,
        )
        self._known = _Planned.of(footer, plan.account)
        say(_what_was_planned(self._accounts, plan.account, model.identity))
        return [to_row(sequence) for sequence in plan.sequences]

    def record(self, row: Row) -> Mapping[str, Any]:
        return to_record(row, self._planned.schema)

    def companion(self, name: str, row: Row) -> Mapping[str, Any] | None:
        return to_hidden_record(row)

    def num_tokens(self, row: Row) -> int:
        return num_scored(row)

    def tokens_to_do(self, row: Row) -> int | None:
        return from_row(row).num_scored

    def finish(self, output: Path, say: Say) -> None:
        """Writes `report/`."""
        say("writing the report")
        with replaced_folder(output, "report") as folder:
            write_report(folder, read_job(output), output, self._planned.account)

    @property
    def _planned(self) -> _Planned:
        assert self._known is not None, "rows comes first"
        return self._known

    def _documents(self, say: Say) -> Iterator[SourceDocument]:
        for spec, account in zip(self._specs, self._accounts, strict=True):
            say(f"reading {spec.display_name}")
            yield from read_documents(spec, account)


@dataclass(frozen=True, slots=True)
class _Planned:
    """What is known once the rows are."""

    footer: Footer
    account: PlanAccount
    schema: pa.Schema
    companions: Mapping[str, pa.Schema]

    @classmethod
    def of(cls, footer: Footer, account: PlanAccount) -> _Planned:
        companions = {HIDDEN_STATES: hidden_schema(footer)} if footer.hidden_layers else {}
        return cls(footer, account, record_schema(footer), companions)


def _check_teacher(settings: TeacherLogitsSettings, model: ModelIdentity) -> None:
    """What every row would be refused for."""
    window_tokens, max_head = settings.planning.window_tokens, parse_format(settings.format).score_format.max_head
    if max_head > model.vocab_size:
        raise InvalidRequest.of("format", settings.format, f"at most the {model.vocab_size} tokens of {model.name}")
    if window_tokens > model.context_length:
        allowed = f"at most the {model.context_length} that {model.name} reads as it is served"
        raise InvalidRequest.of("window_tokens", window_tokens, allowed)


def _what_was_planned(accounts: Sequence[InputAccount], plan: PlanAccount, teacher: ModelIdentity) -> str:
    """Above all for those whose files are not in it, or who expect another teacher: it is whoever serves."""
    num_read = sum(account.num_documents for account in accounts)
    num_passed_over = sum(account.num_passed_over for account in accounts)
    text = (
        f"files: {num_read} read, {num_passed_over} passed over; {plan.num_scored:,} tokens of "
        f"{plan.num_planned_documents} documents for {teacher.name} ({teacher.weight_format}) to score, "
        f"in {plan.num_sequences} sequences"
    )
    reasons = ", ".join(f"{number} {reason}" for reason, number in plan.documents_left_out.most_common())
    return f"{text}; documents left out: {reasons}" if reasons else text
