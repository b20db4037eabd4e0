"""A completion request to the prompt the verifier sees."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby

from zenray.context.budget import (
    MOST_CHARS_PER_TOKEN,
    FittedText,
    PromptLimits,
    TooManyTokens,
    deadline_budget,
    encode_within,
    infill_budget,
    keep_end,
    keep_start,
)
from zenray.context.fim import NUM_CONTROL_TOKENS, stop_token_ids
from zenray.context.healing import heal
from zenray.context.languages.registry import language_of
from zenray.context.pieces import ContextPiece, ContextSource, DroppedPiece
from zenray.context.privacy.secret_files import is_secret_file
from zenray.context.prompt.covering import CoveredText
from zenray.context.prompt.editor_prompt import EditorPrompt, bos_parts, editor_prompt, file_part
from zenray.context.prompt.layout import gap_parts, text_part
from zenray.context.prompt.memory import PromptMemory
from zenray.context.prompt.stops import text_stops
from zenray.context.request import CompletionRequest, EditorState, Infill, TextPrompt, TokenPrompt
from zenray.context.surroundings import NOTHING_AROUND, Document, Surroundings
from zenray.context.tokens import PromptTokenizer
from zenray.engine.request import GenerateRequest, TextStops
from zenray.errors import InvalidRequest, Quantity


@dataclass(frozen=True, slots=True)
class AssembledPrompt:
    """A prompt within its budget. The pieces are in prompt order and their token counts add up to it."""

    token_ids: tuple[int, ...]
    pieces: tuple[ContextPiece, ...]
    token_budget: int
    max_tokens: int
    """What the request asked for, clipped to what the context holds behind the prompt."""
    dropped_tokens: int = 0
    stop_token_ids: tuple[int, ...] = ()
    """To be added to the request's own."""
    dropped_pieces: tuple[DroppedPiece, ...] = ()
    """Context that was found and left out, best first."""
    forced_prefix: str = ""
    """Text before the cursor that the model writes again, because it is part of a token."""
    text_stops: TextStops | None = None
    assemble_ms: float = 0.0

    @property
    def text(self) -> str:
        """The prompt as text, control tokens spelled out."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def attribution(self) -> tuple[tuple[ContextSource, int], ...]:
        """Tokens of each source, in the order in which they begin."""
        tokens: dict[ContextSource, int] = {}
        for piece in self.pieces:
            tokens[piece.source] = tokens.get(piece.source, 0) + piece.token_count
        return tuple(tokens.items())

    def generate_request(self, request: CompletionRequest) -> GenerateRequest:
        """The engine's request for this prompt of `request`."""
        limits = request.limits
        return GenerateRequest(
            request_id=request.request_id,
            prompt_token_ids=self.token_ids,
            sampling=request.sampling,
            limits=replace(
                limits,
                max_tokens=self.max_tokens,
                stop_token_ids=tuple(dict.fromkeys((*limits.stop_token_ids, *self.stop_token_ids))),
            ),
            priority=request.priority,
            session_id=request.session_id,
            text_stops=self.text_stops,
            forced_prefix=self.forced_prefix.encode(),
        )


def assemble(
    request: CompletionRequest,
    tokenizer: PromptTokenizer,
    limits: PromptLimits,
    surroundings: Surroundings = NOTHING_AROUND,
    memory: PromptMemory | None = None,
) -> AssembledPrompt:
    """The prompt of `request`.

    A plain prompt is taken whole: one longer than the context is an InvalidRequest. An infill is trimmed
    to its budget. A model without infill tokens continues the text before the cursor; it takes an `Infill`
    only with an empty suffix, because the caller of one asked for something it cannot do, and ignores the
    text behind an editor's cursor, because there the server chooses what to use.

    An editor in a file made to hold secrets is an InvalidRequest: nothing of such a file enters a prompt. Any other
    with surroundings gets their snippets too (`editor_prompt`). Requests that come with the same `memory`
    cost what changed since the last one, and those of one session begin as the last one did where they can.
    """
    started_s = time.perf_counter()
    prompt = _assemble(request, tokenizer, limits, surroundings, memory)
    return replace(prompt, assemble_ms=(time.perf_counter() - started_s) * 1000)


def _assemble(
    request: CompletionRequest,
    tokenizer: PromptTokenizer,
    limits: PromptLimits,
    surroundings: Surroundings,
    memory: PromptMemory | None,
) -> AssembledPrompt:
    given = request.input
    if isinstance(given, TextPrompt):
        return _plain(request, given.text, tokenizer, limits)
    if isinstance(given, TokenPrompt):
        return _tokens(request, given.token_ids, tokenizer, limits)
    if isinstance(given, EditorState):
        return _editor(request, given, tokenizer, limits, surroundings, memory)
    assert isinstance(given, Infill)
    if tokenizer.fim is None and given.suffix:
        raise InvalidRequest.of("infill.suffix", given.suffix[:40], "empty: this model has no infill tokens")
    if tokenizer.fim is None and not given.prefix:
        raise _nothing_before("infill.prefix")
    return _around(request, given.prefix, given.suffix, "", tokenizer, limits)


def _editor(
    request: CompletionRequest,
    editor: EditorState,
    tokenizer: PromptTokenizer,
    limits: PromptLimits,
    surroundings: Surroundings,
    memory: PromptMemory | None,
) -> AssembledPrompt:
    if tokenizer.fim is None and editor.cursor_offset == 0:
        raise _nothing_before("editor.text")
    if is_secret_file(editor.path):
        raise InvalidRequest.of("editor.path", editor.path, "a file that is not made to hold secrets")
    if surroundings.is_withheld(editor.path):
        raise InvalidRequest.of("editor.path", editor.path, "a file that .zenrayignore does not name")
    memory = PromptMemory.of(tokenizer) if memory is None else memory
    cursor, options = editor.cursor_offset, request.suggestion
    document = Document(editor.path, editor.language or language_of(editor.path), editor.text)
    shown = CoveredText(document.text, memory.covered_blocks)
    stops = text_stops(options, document.language, document.text, cursor, shown)
    is_blank = not document.text.strip()
    if (surroundings == NOTHING_AROUND or limits.snippet_share == 0) and not is_blank:
        far = max(0, cursor - limits.context_length * MOST_CHARS_PER_TOKEN)
        prefix, suffix = document.text[:far] + shown(far, cursor), shown(cursor, len(document.text))
        return replace(_around(request, prefix, suffix, document.path, tokenizer, limits), text_stops=stops)
    budget = _infill_budget(request, limits)
    made = editor_prompt(
        document, cursor, request.session_id, budget, limits, surroundings, memory, shown, options.heal_tokens
    )
    return replace(_assembled(request, made, budget, limits, tokenizer), text_stops=stops)


def _plain(request: CompletionRequest, text: str, tokenizer: PromptTokenizer, limits: PromptLimits) -> AssembledPrompt:
    bos = bos_parts(tokenizer)
    room = _room(request, limits)
    ids = encode_within(text, room - len(bos), tokenizer)
    if isinstance(ids, TooManyTokens):
        unit = "tokens long" if ids.exact else "tokens long at least"
        raise _too_long("prompt", Quantity(ids.num_tokens + len(bos), unit), request, limits)
    parts = (*bos, text_part(ContextPiece(ContextSource.PROMPT, text, 0), ids))
    return _assembled(request, EditorPrompt(parts), room, limits, tokenizer)


def _tokens(
    request: CompletionRequest, ids: tuple[int, ...], tokenizer: PromptTokenizer, limits: PromptLimits
) -> AssembledPrompt:
    room = _room(request, limits)
    if len(ids) > room:
        raise _too_long("prompt_token_ids", Quantity(len(ids), "tokens long"), request, limits)
    part = text_part(ContextPiece(ContextSource.PROMPT, spell(ids, tokenizer), 0), ids)
    return _assembled(request, EditorPrompt((part,)), room, limits, tokenizer)


def _around(
    request: CompletionRequest,
    prefix: str,
    suffix: str,
    path: str,
    tokenizer: PromptTokenizer,
    limits: PromptLimits,
) -> AssembledPrompt:
    """The text around one place and nothing else. A model that cannot infill gets the text before it."""
    fim = tokenizer.fim
    bos = bos_parts(tokenizer)
    budget = _infill_budget(request, limits)
    room = max(0, budget - len(bos) - (NUM_CONTROL_TOKENS if fim is not None else 0))
    # The suffix stands behind the prefix, so every keystroke computes it anew: it never gets more than its share.
    share = limits.suffix_share if fim is not None else 0
    after = keep_start(suffix, int(room * share), tokenizer)
    before = keep_end(prefix, room - len(after.token_ids), tokenizer)
    healed = _healed(request, before, tokenizer)
    cursor_line = prefix.count("\n") if path else 0
    start_line = cursor_line - healed.text.count("\n") if path else 0
    gap = [file_part(ContextSource.PREFIX, path, healed.text, start_line, healed.token_ids)]
    if fim is not None:
        behind = file_part(ContextSource.SUFFIX, path, after.text, cursor_line, after.token_ids)
        gap = gap_parts(limits.order, gap[0], behind, fim, tokenizer)
    forced = before.text[len(healed.text) :]
    made = EditorPrompt((*bos, *gap), (), before.dropped_tokens + after.dropped_tokens, forced)
    return _assembled(request, made, budget, limits, tokenizer)


def _healed(request: CompletionRequest, before: FittedText, tokenizer: PromptTokenizer) -> FittedText:
    """`before` without what the model is to write again."""
    if not request.suggestion.heal_tokens or not before.token_ids:
        return before
    kept, forced = heal(before.token_ids, tokenizer)
    return FittedText(before.text[: len(before.text) - len(forced)], kept)


def _assembled(
    request: CompletionRequest, made: EditorPrompt, budget: int, limits: PromptLimits, tokenizer: PromptTokenizer
) -> AssembledPrompt:
    ids = tuple(chain.from_iterable(part.token_ids for part in made.parts))
    is_plain = isinstance(request.input, TextPrompt | TokenPrompt)
    return AssembledPrompt(
        token_ids=ids,
        pieces=tuple(part.piece for part in made.parts),
        token_budget=budget,
        max_tokens=min(request.limits.max_tokens, limits.context_length - len(ids)),
        dropped_tokens=made.dropped_tokens,
        stop_token_ids=stop_token_ids(tokenizer.fim) if tokenizer.fim is not None and not is_plain else (),
        dropped_pieces=made.dropped,
        forced_prefix=made.forced_prefix,
    )


def _infill_budget(request: CompletionRequest, limits: PromptLimits) -> int:
    budget = infill_budget(limits, request.limits.max_tokens)
    return deadline_budget(budget, request.limits.deadline_ms, limits.prefill_tokens_per_s)


def _nothing_before(field: str) -> InvalidRequest:
    return InvalidRequest.of(field, "", "text before the cursor: this model has no infill tokens")


def _room(request: CompletionRequest, limits: PromptLimits) -> int:
    """Tokens a plain prompt may have: the context, less one to generate when any is asked for."""
    return limits.context_length - min(1, request.limits.max_tokens)


def _too_long(field: str, size: Quantity, request: CompletionRequest, limits: PromptLimits) -> InvalidRequest:
    room = _room(request, limits)
    allowed = f"at most {room} tokens, the model's context of {limits.context_length}"
    if room < limits.context_length:
        allowed += " less one to generate"
    return InvalidRequest.of(field, size, allowed)


def spell(ids: Sequence[int], tokenizer: PromptTokenizer) -> str:
    """Ids as text, with control tokens spelled out: for people to read, never to be tokenised again."""
    parts: list[str] = []
    for is_control, run in groupby(ids, lambda token_id: tokenizer.control_token_text(token_id) is not None):
        if is_control:
            parts.extend(tokenizer.control_token_text(token_id) or "" for token_id in run)
        else:
            parts.append(tokenizer.decode(list(run)))
    return "".join(parts)
