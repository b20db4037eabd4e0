"""What became of a suggestion in the editor, as data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """The names are those of `zenray.v1.Outcome`."""

    SHOWN = "SHOWN"
    ACCEPTED = "ACCEPTED"
    PARTLY_ACCEPTED = "PARTLY_ACCEPTED"
    REJECTED = "REJECTED"
    PERSISTED = "PERSISTED"


@dataclass(frozen=True, slots=True)
class OutcomeReport:
    """The outcome of choice `index` of a completion. `accepted_characters` counts code points; `elapsed_ms` counts
    from when it was shown; an empty `language` is that of the completion, if it is still known."""

    request_id: str
    outcome: Outcome
    session_id: str = ""
    index: int = 0
    accepted_characters: int = 0
    elapsed_ms: int = 0
    language: str = ""
