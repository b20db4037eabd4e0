"""What became of suggestions: counted per language and, when asked for, logged for later calibration."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from zenray.config import SuggestionSettings
from zenray.context.suggestion.outcomes import Outcome, OutcomeReport
from zenray.observe.outcome_log import ParquetLog
from zenray.observe.suggestion_metrics import SuggestionMetrics

MAX_REMEMBERED = 4096
"""Completions whose outcome may still be reported, of all sessions; oldest forgotten."""

_COLUMNS = [
    pa.field("time", pa.timestamp("ms", "UTC")),
    pa.field("request_id", pa.string()),
    pa.field("session_hash", pa.string()),
    pa.field("choice", pa.int64()),
    pa.field("language", pa.string()),
    pa.field("outcome", pa.string()),
    pa.field("accepted_characters", pa.int64()),
    pa.field("elapsed_ms", pa.int64()),
    # Of the completion; null when it was forgotten by the time its outcome came.
    pa.field("suggested_characters", pa.int32()),
    pa.field("prompt_tokens", pa.int32()),
    pa.field("cached_tokens", pa.int32()),
    pa.field("completion_tokens", pa.int32()),
    pa.field("finish_reason", pa.string()),
    pa.field("reused", pa.bool_()),
    pa.field("first_token_ms", pa.float32()),
    pa.field("total_ms", pa.float32()),
]
_TEXT_COLUMNS = [pa.field("path", pa.string()), pa.field("suggestion", pa.string())]


@dataclass(frozen=True, slots=True)
class SuggestionRecord:
    """One choice of a completion that was sent. `path` and `text` are the user's: they are kept for a log that was
    asked for them, and else forgotten at once."""

    request_id: str
    index: int
    language: str
    path: str
    text: str
    num_characters: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    finish_reason: str
    reused: bool
    first_token_ms: float
    total_ms: float


class Outcomes:
    """Of one aggregator. With `suggestion.outcome_log` it owns a thread that writes; `close` ends it."""

    def __init__(self, settings: SuggestionSettings, metrics: SuggestionMetrics) -> None:
        """Raises ConfigError for a folder that cannot be written to."""
        self._metrics = metrics
        self._with_text = settings.log_source_text
        self._remembered: OrderedDict[tuple[str, int], SuggestionRecord] = OrderedDict()
        self._log: ParquetLog | None = None
        if settings.outcome_log is not None:
            schema = pa.schema([*_COLUMNS, *(_TEXT_COLUMNS if settings.log_source_text else [])])
            self._log = ParquetLog(Path(settings.outcome_log).expanduser(), schema, metrics.dropped)

    def remember(self, record: SuggestionRecord) -> None:
        """Its outcome may be reported later."""
        if self._log is None or not self._with_text:
            record = replace(record, path="", text="")
        self._remembered[record.request_id, record.index] = record
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    def report(self, report: OutcomeReport) -> None:
        """Counts and logs `report`. All of a suggestion counts as accepted that says nothing else."""
        record = self._remembered.get((report.request_id, report.index))
        language = report.language or (record.language if record else "")
        accepted = report.accepted_characters
        if record is not None:
            takes_all = report.outcome is Outcome.ACCEPTED and not accepted
            accepted = record.num_characters if takes_all else min(accepted, record.num_characters)
        self._metrics.reported(language, report.outcome, accepted, report.elapsed_ms)
        if self._log is not None:
            self._log.add(self._row(report, record, language, accepted))

    def close(self, timeout_s: float) -> None:
        """Writes out the log, for at most `timeout_s`."""
        if self._log is not None:
            self._log.close(timeout_s)

    def _row(
        self, report: OutcomeReport, record: SuggestionRecord | None, language: str, accepted: int
    ) -> dict[str, object]:
        row: dict[str, object] = {
            "time": round(time.time() * 1000),
            "request_id": report.request_id,
            "session_hash": hashlib.blake2b(report.session_id.encode(), digest_size=16).hexdigest(),
            "choice": report.index,
            "language": language,
            "outcome": report.outcome.value,
            "accepted_characters": accepted,
            "elapsed_ms": report.elapsed_ms,
        }
        if record is not None:
            row |= {
                "suggested_characters": record.num_characters,
                "prompt_tokens": record.prompt_tokens,
                "cached_tokens": record.cached_tokens,
                "completion_tokens": record.completion_tokens,
                "finish_reason": record.finish_reason,
                "reused": record.reused,
                "first_token_ms": record.first_token_ms,
                "total_ms": record.total_ms,
            }
            if self._with_text:
                row |= {"path": record.path, "suggestion": record.text}
        return row
