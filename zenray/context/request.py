"""A completion request as the doors hand it on: decoded and validated, not yet a prompt."""

from __future__ import annotations

from dataclasses import dataclass, field

from zenray.context.cursors import Position, PositionUnit
from zenray.context.pieces import Snippet
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

    @property
    def before(self) -> str:
        """The text before the cursor."""
        return self.text[: self.cursor_offset]

    @property
    def after(self) -> str:
        """The text after the cursor."""
        return self.text[self.cursor_offset :]


@dataclass(frozen=True, slots=True)
class TrackedEditor:
    """A cursor in a document of the session, which the session's own state resolves to an `EditorState`.

    `content_hash` is SHA-256 of the text's UTF-8 bytes in lower-case hex; empty is not checked. An empty `language`
    is that of the document.
    """

    path: str
    language: str
    version: int
    content_hash: str
    position: Position
    unit: PositionUnit


CompletionInput = TextPrompt | TokenPrompt | Infill | EditorState | TrackedEditor


@dataclass(frozen=True, slots=True)
class SuggestionOptions:
    """How raw tokens become a suggestion; see `zenray.v1.SuggestionOptions`. `single_line` None depends on the
    cursor: it is on when more than white space and closing brackets follow on its line."""

    scope_end: bool = False
    suffix_match: bool = False
    single_line: bool | None = False
    repetition: bool = False
    heal_tokens: bool = False
    post_process: bool = False
    reuse: bool = False


RAW = SuggestionOptions()
"""What every input but an editor's gets."""
FOR_EDITORS = SuggestionOptions(True, True, None, True, True, True, True)


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
    suggestion: SuggestionOptions = RAW
    snippets: tuple[Snippet, ...] = ()
