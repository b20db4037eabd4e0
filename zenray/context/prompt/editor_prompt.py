"""The prompt of an editor: the text around its cursor, and what its surroundings have to say about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from zenray.context.budget import MOST_CHARS_PER_TOKEN, FittedText, PromptLimits, keep_start
from zenray.context.fim import NUM_CONTROL_TOKENS
from zenray.context.healing import heal
from zenray.context.pieces import ContextPiece, ContextSource, DroppedPiece, Snippet
from zenray.context.prompt.choosing import MOST_SHARE, Place, choose_snippets
from zenray.context.prompt.covering import CoveredText
from zenray.context.prompt.layout import (
    Part,
    control,
    file_header,
    gap_parts,
    num_tokens,
    repository_header,
    snippet_parts,
    text_part,
)
from zenray.context.prompt.memory import PromptMemory, Remembered
from zenray.context.prompt.window import Window, fit_before
from zenray.context.surroundings import Document, Surroundings
from zenray.context.tokens import PromptTokenizer

_NEAR_SHARE = 0.05
"""Of a prompt, for the text right behind the cursor: in PSM every keystroke computes it anew."""
_LEAST_NEAR_TOKENS, _MOST_NEAR_TOKENS = 32, 128
_CHARS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class EditorPrompt:
    """The parts of a prompt in order, what was left out, and what of the text the model writes again."""

    parts: tuple[Part, ...]
    dropped: tuple[DroppedPiece, ...] = ()
    dropped_tokens: int = 0
    forced_prefix: str = ""


def editor_prompt(
    document: Document,
    cursor: int,
    session_id: str,
    budget: int,
    limits: PromptLimits,
    surroundings: Surroundings,
    memory: PromptMemory,
    shown: CoveredText,
    heal_tokens: bool,
) -> EditorPrompt:
    """At most `budget` tokens. The current file comes first: the text around the cursor keeps what
    `limits.snippet_share` leaves, and gets what the snippets do not need."""
    tokenizer, fim = memory.tokenizer, memory.tokenizer.fim
    bos = bos_parts(tokenizer)
    room = max(0, budget - len(bos) - (NUM_CONTROL_TOKENS if fim is not None else 0))
    near = _near(document.text, cursor, room, limits, shown, memory) if fim is not None else FittedText("", [])
    place = Place(document, cursor, cursor + len(near.text), shown)
    chosen = choose_snippets(place, session_id, room, limits, surroundings, memory)
    lead = _lead(chosen, document, surroundings.workspace, memory)
    if not lead and not document.text.strip() and document.path:  # Nothing else says what is wanted.
        header = file_header(document.path, document.language, memory.tokenizer)
        lead = header if num_tokens(header) <= room // 2 else []
    lead_tokens = num_tokens(lead)
    last_start = chosen.window_start if session_id else None
    left = room - len(near.token_ids) - lead_tokens
    window = fit_before(document.text, cursor, left, tokenizer, shown, scale=budget, last_start=last_start)
    if window.start != last_start:
        memory.selections.keep(session_id, document.path, replace(chosen, window_start=window.start))
    forced = ""
    if heal_tokens and window.token_ids:
        kept, forced = heal(window.token_ids, tokenizer)
        window = Window(window.start, window.text[: len(window.text) - len(forced)], kept)

    line = document.text.count("\n", 0, window.start)
    before = file_part(ContextSource.PREFIX, document.path, window.text, line, window.token_ids)
    after = file_part(ContextSource.SUFFIX, document.path, near.text, line + window.text.count("\n"), near.token_ids)
    if fim is None:
        parts = [*bos, *lead, before]
    elif fim.file_sep is not None:
        parts = [*bos, *lead, *gap_parts(limits.order, before, after, fim, tokenizer)]
    else:
        parts = [*bos, *gap_parts(limits.order, before, after, fim, tokenizer, lead)]
    num_shown = cursor - window.start + len(near.text) + (len(chosen.distant.raw) if chosen.distant else 0)
    dropped_tokens = max(0, len(document.text) - num_shown) // _CHARS_PER_TOKEN
    return EditorPrompt(tuple(parts), chosen.dropped, dropped_tokens, forced)


def bos_parts(tokenizer: PromptTokenizer) -> tuple[Part, ...]:
    """The token a model wants at the beginning, if it wants one."""
    wanted = tokenizer.add_bos and tokenizer.bos_token_id is not None
    return (control(tokenizer.bos_token_id, tokenizer),) if wanted and tokenizer.bos_token_id is not None else ()


def _near(
    text: str, cursor: int, room: int, limits: PromptLimits, shown: CoveredText, memory: PromptMemory
) -> FittedText:
    """The text right behind the cursor: a twentieth of the prompt in PSM, which stands behind what changes, and in a
    small file no less than a model needs to see where it must arrive. A short rest of the file comes along."""
    share = int(room * min(MOST_SHARE, limits.suffix_share))
    budget = share
    if limits.order == "psm":
        expected = min(room, (cursor + int(room * limits.snippet_share)) // _CHARS_PER_TOKEN)
        budget = min(share, max(_LEAST_NEAR_TOKENS, min(_MOST_NEAR_TOKENS, int(expected * _NEAR_SHARE))))
        if len(text) - cursor <= 2 * _CHARS_PER_TOKEN * budget:
            budget = min(share, 2 * budget)
    return keep_start(shown(cursor, cursor + MOST_CHARS_PER_TOKEN * budget), budget, memory.tokenizer)


def _lead(chosen: Remembered, document: Document, workspace: str, memory: PromptMemory) -> list[Part]:
    """What stands before the current file, and its header; nothing where nothing does."""
    tokenizer, language = memory.tokenizer, document.language
    # Lines behind the cursor have moved since the document was read.
    moved = document.text.count("\n") - chosen.document.text.count("\n")
    cursor_line = chosen.document.text.count("\n", 0, chosen.cursor)
    shown: list[Part] = []
    for each in chosen.selection.shown:
        snippet = each.candidate.snippet
        if snippet.source is ContextSource.SAME_FILE and snippet.start_line > cursor_line:
            snippet = replace(snippet, start_line=max(0, snippet.start_line + moved))
        shown += snippet_parts(snippet, each.score, language, tokenizer)
    if chosen.distant is not None:
        shown += snippet_parts(chosen.distant.snippet, 0.0, language, tokenizer)
    if not shown:
        return []
    return [*repository_header(workspace, tokenizer), *shown, *file_header(document.path, language, tokenizer)]


def file_part(source: ContextSource, path: str, text: str, start_line: int, token_ids: Sequence[int]) -> Part:
    end_line = Snippet(source, path, text, start_line).end_line if text else start_line
    return text_part(ContextPiece(source, text, 0, path, start_line, end_line), token_ids)
