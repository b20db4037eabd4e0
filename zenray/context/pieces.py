"""The pieces a prompt is made of, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ContextSource(Enum):
    """Where a piece of a prompt comes from. The names are those of `zenray.v1.ContextSource`."""

    CONTROL = "CONTROL"
    PROMPT = "PROMPT"
    PREFIX = "PREFIX"
    SUFFIX = "SUFFIX"
    FILE_HEADER = "FILE_HEADER"
    OPEN_FILE = "OPEN_FILE"
    RECENT_EDIT = "RECENT_EDIT"
    DEFINITION = "DEFINITION"
    IMPORT = "IMPORT"
    VIEWED = "VIEWED"
    CLIPBOARD = "CLIPBOARD"
    SNIPPET = "SNIPPET"
    SAME_FILE = "SAME_FILE"


@dataclass(frozen=True, slots=True)
class Snippet:
    """A run of whole lines of a file that may help. `start_line` counts from zero."""

    source: ContextSource
    path: str
    text: str
    start_line: int = 0

    @property
    def end_line(self) -> int:
        """Behind its last line."""
        return self.start_line + self.text.count("\n") + (not self.text.endswith("\n"))


@dataclass(frozen=True, slots=True)
class ContextPiece:
    """A run of the prompt from one source. `text` spells control tokens out, for people to read.

    `start_line` and `end_line` (behind the last) are lines of its file, both 0 where lines mean nothing; `score` is
    what it was chosen by, 0 where nothing was chosen.
    """

    source: ContextSource
    text: str
    token_count: int
    path: str = ""
    start_line: int = 0
    end_line: int = 0
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class DroppedPiece:
    """Context that was found and left out. `reason` is duplicate, budget, secret or ignored."""

    source: ContextSource
    path: str
    start_line: int
    end_line: int
    score: float
    reason: str
