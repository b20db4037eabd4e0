"""A completion request as the doors hand it on: decoded and validated, not yet a prompt."""

from __future__ import annotations

from dataclasses import dataclass, field

from zenray.engine.request import Limits, Priority, Sampling


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """Plain text to continue. Control tokens spelled in it are plain text."""

    text: str


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """Token ids to continue, in range of the model's vocabulary."""

    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Infill:
    """Text before and after the place to fill."""

    prefix: str
    suffix: str


@dataclass(frozen=True, slots=True)
class EditorState:
    """A document and a cursor, counted in code points of `text`."""

    path: str
    language: str
    text: str
    cursor_offset: int


CompletionInput = TextPrompt | TokenPrompt | Infill | EditorState


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """What every door produces and the context aggregator consumes."""

    request_id: str
    input: CompletionInput
    session_id: str = ""
    model: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    limits: Limits = field(default_factory=Limits)
    priority: Priority = Priority.INTERACTIVE
