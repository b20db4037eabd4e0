"""What became of suggestions is counted per language and, when asked for, logged in files that are whole."""

from __future__ import annotations

import stat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zenray.config import SuggestionSettings
from zenray.context.suggestion.outcomes import Outcome, OutcomeReport
from zenray.errors import ConfigError
from zenray.observe import outcome_log, outcomes
from zenray.observe.metrics import ServingMetrics
from zenray.observe.outcome_log import ParquetLog
from zenray.observe.outcomes import Outcomes, SuggestionRecord

SECRET = "launch_code = 7"
SCHEMA = pa.schema([pa.field("number", pa.int64()), pa.field("text", pa.string())])
CLOSE_S = 20.0


def record(request_id: str = "r-1", index: int = 0) -> SuggestionRecord:
    return SuggestionRecord(
        request_id=request_id,
        index=index,
        language="python",
        path="silo.py",
        text=SECRET,
        num_characters=len(SECRET),
        prompt_tokens=100,
        cached_tokens=90,
        completion_tokens=6,
        finish_reason="SCOPE_END",
        reused=True,
        first_token_ms=12.5,
        total_ms=80.0,
    )


def rows(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for path in sorted(folder.iterdir()):
        assert path.suffix == ".parquet"
        found += pq.read_table(path, page_checksum_verification=True).to_pylist()
    return found


@pytest.fixture
def metrics() -> ServingMetrics:
    return ServingMetrics(dict)


def value(metrics: ServingMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_outcomes_are_counted_by_language(metrics: ServingMetrics) -> None:
    recorder = Outcomes(SuggestionSettings(), metrics.suggestions)
    recorder.remember(record())
    for outcome in Outcome:
        recorder.report(OutcomeReport("r-1", outcome, "s", elapsed_ms=700, accepted_characters=0))
    recorder.report(OutcomeReport("forgotten", Outcome.PARTLY_ACCEPTED, "s", accepted_characters=3, language="go"))
    recorder.report(OutcomeReport("forgotten", Outcome.SHOWN, "s", language="klingon\n"))
    for outcome in Outcome:
        counted = value(metrics, "zenray_suggestion_outcomes_total", language="python", outcome=outcome.value.lower())
        assert counted == 1
    assert value(metrics, "zenray_accepted_characters_total", language="python") == len(SECRET)
    assert value(metrics, "zenray_accepted_characters_total", language="go") == 3
    assert value(metrics, "zenray_accept_seconds_sum", language="python") == pytest.approx(1.4)
    assert value(metrics, "zenray_accept_seconds_count", language="go") is None
    assert value(metrics, "zenray_suggestion_outcomes_total", language="other", outcome="shown") == 1


def test_no_more_can_be_accepted_than_was_suggested(metrics: ServingMetrics) -> None:
    recorder = Outcomes(SuggestionSettings(), metrics.suggestions)
    recorder.remember(record())
    recorder.report(OutcomeReport("r-1", Outcome.PARTLY_ACCEPTED, "s", accepted_characters=2**32 - 1))
    assert value(metrics, "zenray_accepted_characters_total", language="python") == len(SECRET)


def test_a_log_has_a_row_for_every_report_and_no_source_text(metrics: ServingMetrics, tmp_path: Path) -> None:
    recorder = Outcomes(SuggestionSettings(outcome_log=str(tmp_path / "log")), metrics.suggestions)
    recorder.remember(record())
    recorder.report(OutcomeReport("r-1", Outcome.ACCEPTED, "session-7", elapsed_ms=700))
    recorder.report(OutcomeReport("unknown", Outcome.REJECTED, "session-7", accepted_characters=2**32 - 1))
    recorder.close(CLOSE_S)
    known, unknown = rows(tmp_path / "log")
    assert (known["request_id"], known["outcome"], known["language"]) == ("r-1", "ACCEPTED", "python")
    assert (known["accepted_characters"], known["suggested_characters"]) == (len(SECRET), len(SECRET))
    assert (known["prompt_tokens"], known["cached_tokens"], known["completion_tokens"]) == (100, 90, 6)
    assert (known["finish_reason"], known["reused"], known["first_token_ms"]) == ("SCOPE_END", True, 12.5)
    assert known["session_hash"] == unknown["session_hash"]
    assert unknown["prompt_tokens"] is None
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o700
    written = b"".join(path.read_bytes() for path in (tmp_path / "log").iterdir())
    for text in (SECRET, "silo.py", "session-7"):
        assert text not in repr((known, unknown))
        assert text.encode() not in written


def test_source_text_is_logged_on_demand(metrics: ServingMetrics, tmp_path: Path) -> None:
    settings = SuggestionSettings(outcome_log=str(tmp_path), log_source_text=True)
    recorder = Outcomes(settings, metrics.suggestions)
    recorder.remember(record())
    recorder.report(OutcomeReport("r-1", Outcome.SHOWN))
    recorder.close(CLOSE_S)
    (row,) = rows(tmp_path)
    assert (row["path"], row["suggestion"]) == ("silo.py", SECRET)


def test_only_the_latest_completions_are_remembered(metrics: ServingMetrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "MAX_REMEMBERED", 2)
    recorder = Outcomes(SuggestionSettings(), metrics.suggestions)
    for number in range(3):
        recorder.remember(record(f"r-{number}"))
        recorder.remember(record(f"r-{number}", index=1))
    for number in range(3):
        recorder.report(OutcomeReport(f"r-{number}", Outcome.SHOWN))
    assert value(metrics, "zenray_suggestion_outcomes_total", language="python", outcome="shown") == 1
    assert value(metrics, "zenray_suggestion_outcomes_total", language="other", outcome="shown") == 2


def test_files_are_rotated_by_size(tmp_path: Path) -> None:
    dropped: list[int] = []
    parquet = ParquetLog(tmp_path, SCHEMA, dropped.append, max_file_bytes=100)
    for number in range(50):
        parquet.add({"number": number, "text": "0123456789"})
    parquet.close(CLOSE_S)
    assert len(list(tmp_path.iterdir())) == 9  # 18 bytes a row: six to a file
    assert [row["number"] for row in rows(tmp_path)] == list(range(50))
    assert not dropped


def test_a_full_queue_drops_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome_log.ParquetLog, "_write_all", lambda self: None)  # a disk that never answers
    dropped: list[int] = []
    parquet = ParquetLog(tmp_path, SCHEMA, dropped.append, max_queued_rows=3)
    for number in range(5):
        parquet.add({"number": number, "text": ""})
    assert sum(dropped) == 2
    parquet.close(0.01)


def test_what_cannot_be_written_is_dropped_and_counted_and_leaves_no_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, dropped = tmp_path / "log", list[int]()
    parquet = ParquetLog(folder, SCHEMA, dropped.append)
    folder.rmdir()
    parquet.add({"number": 1, "text": SECRET})
    parquet.close(CLOSE_S)
    assert sum(dropped) == 1
    assert not folder.exists()
    assert "1 outcomes were not logged" in caplog.text
    assert SECRET not in caplog.text


def test_a_row_that_does_not_fit_the_schema_does_not_end_the_log(tmp_path: Path) -> None:
    dropped: list[int] = []
    parquet = ParquetLog(tmp_path, SCHEMA, dropped.append, max_file_bytes=1)
    parquet.add({"number": 2**70, "text": ""})
    parquet.add({"number": 1, "text": "kept"})
    parquet.close(CLOSE_S)
    assert sum(dropped) == 1
    assert [row["text"] for row in rows(tmp_path)] == ["kept"]


def test_a_folder_that_cannot_be_made_is_a_configuration_error(metrics: ServingMetrics, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"suggestion\.outcome_log"):
        Outcomes(SuggestionSettings(outcome_log=str(tmp_path / "file" / "log")), metrics.suggestions)
