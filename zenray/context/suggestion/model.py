"""What an editor is offered, as data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from zenray.context.pieces import ContextSource
from zenray.engine.request import Final, Started


class SuggestionFilter(Enum):
    """Why nothing is offered. The names are those of `zenray.v1.SuggestionFilter`."""

    EMPTY = "EMPTY"
    PREFIX_ECHO = "PREFIX_ECHO"
    SUFFIX_ECHO = "SUFFIX_ECHO"
    SECRET = "SECRET"  # noqa: S105  # a name, not a secret


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Text to insert at the cursor, empty when `filter` says why; `changes` says what was done to the raw text."""

    text: str
    filter: SuggestionFilter | None = None
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CompletionStarted(Started):
    """Also says where the prompt's tokens come from, in prompt order, and whether an earlier completion goes on."""

    attribution: tuple[tuple[ContextSource, int], ...] = ()
    reused: bool = False


@dataclass(frozen=True, slots=True)
class CompletionFinal(Final):
    """Also holds the suggestion made of the text, when one was asked for."""

    suggestion: Suggestion | None = None
