"""Reports of what became of a suggestion, decoded and checked."""

from __future__ import annotations

from zenray.api.service import ModelCard
from zenray.api.validate import Violations, check_id, check_language
from zenray.context.suggestion.outcomes import Outcome, OutcomeReport
from zenray.v1 import completion_pb2

_OUTCOMES = {completion_pb2.Outcome.Value(f"OUTCOME_{outcome.value}"): outcome for outcome in Outcome}


def outcome_from_proto(message: completion_pb2.ReportOutcomeRequest, card: ModelCard) -> OutcomeReport:
    """Raises InvalidRequest with every bad field."""
    found = Violations()
    outcome = _OUTCOMES.get(message.outcome)
    if outcome is None:
        found.add("outcome", message.outcome, f"one of {', '.join(f'OUTCOME_{known.value}' for known in Outcome)}")
    check_id("request_id", message.request_id, found, required=True)
    check_id("session_id", message.session_id, found)
    check_language("language", message.language, found)
    if message.index >= card.bounds.max_n:
        found.add("index", message.index, f"0 to {card.bounds.max_n - 1}")
    found.raise_if_any()
    assert outcome is not None
    return OutcomeReport(
        request_id=message.request_id,
        outcome=outcome,
        session_id=message.session_id,
        index=message.index,
        accepted_characters=message.accepted_characters,
        elapsed_ms=message.elapsed_ms,
        language=message.language,
    )
