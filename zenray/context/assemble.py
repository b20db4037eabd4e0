"""A completion request to the prompt the verifier sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from zenray.context.budget import PromptLimits, TooManyTokens, encode_within, infill_budget, keep_end, keep_start
from zenray.context.fim import NUM_CONTROL_TOKENS, stop_token_ids
from zenray.context.pieces import ContextPiece, ContextSource, DroppedPiece
from zenray.context.request import CompletionRequest, EditorState, Infill, TextPrompt, TokenPrompt
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


def assemble(request: CompletionRequest, tokenizer: PromptTokenizer, limits: PromptLimits) -> AssembledPrompt:
    """The prompt of `request`.

    A plain prompt is taken whole: one longer than the context is an InvalidRequest. An infill is trimmed
    to its budget. A model without infill tokens continues the text before the cursor; it takes an `Infill`
    only with an empty suffix, because the caller of one asked for something it cannot do, and ignores the
    text behind an editor's cursor, because there the server chooses what to use.
    """
    given = request.input
    if isinstance(given, TextPrompt):
        return _plain(request, given.text, tokenizer, limits)
    if isinstance(given, TokenPrompt):
        return _tokens(request, given.token_ids, tokenizer, limits)
    if isinstance(given, EditorState):
        prefix, suffix, path = given.text[: given.cursor_offset], given.text[given.cursor_offset :], given.path
    else:
        assert isinstance(given, Infill)
        prefix, suffix, path = given.prefix, given.suffix, ""
    if tokenizer.fim is not None:
        return _infill(request, prefix, suffix, path, tokenizer, limits)
    if suffix and isinstance(given, Infill):
        raise InvalidRequest.of("infill.suffix", suffix[:40], "empty: this model has no infill tokens")
    if not prefix:
        field = "editor.text" if isinstance(given, EditorState) else "infill.prefix"
        raise InvalidRequest.of(field, "", "text before the cursor: this model has no infill tokens")
    return _prefix_only(request, prefix, suffix, path, tokenizer, limits)


def _plain(request: CompletionRequest, text: str, tokenizer: PromptTokenizer, limits: PromptLimits) -> AssembledPrompt:
    bos = _bos(tokenizer)
    room = _room(request, limits)
    ids = encode_within(text, room - len(bos), tokenizer)
    if isinstance(ids, TooManyTokens):
        unit = "tokens long" if ids.exact else "tokens long at least"
        raise _too_long("prompt", Quantity(ids.num_tokens + len(bos), unit), request, limits)
    pieces = [_control(token_id, tokenizer) for token_id in bos]
    pieces.append(ContextPiece(ContextSource.PROMPT, text, len(ids)))
    return _assembled(request, (*bos, *ids), pieces, room, limits)


def _tokens(
    request: CompletionRequest, ids: tuple[int, ...], tokenizer: PromptTokenizer, limits: PromptLimits
) -> AssembledPrompt:
    room = _room(request, limits)
    if len(ids) > room:
        raise _too_long("prompt_token_ids", Quantity(len(ids), "tokens long"), request, limits)
    pieces = [ContextPiece(ContextSource.PROMPT, spell(ids, tokenizer), len(ids))]
    return _assembled(request, ids, pieces, room, limits)


def _infill(
    request: CompletionRequest,
    prefix: str,
    suffix: str,
    path: str,
    tokenizer: PromptTokenizer,
    limits: PromptLimits,
) -> AssembledPrompt:
    fim = tokenizer.fim
    assert fim is not None
    bos = _bos(tokenizer)
    budget = infill_budget(limits, request.limits.max_tokens)
    room = budget - NUM_CONTROL_TOKENS - len(bos)
    # The suffix stands behind the prefix, so every keystroke computes it anew: it never gets more than its share.
    after = keep_start(suffix, int(room * limits.suffix_share), tokenizer)
    before = keep_end(prefix, room - len(after.token_ids), tokenizer)
    ids = (*bos, fim.prefix, *before.token_ids, fim.suffix, *after.token_ids, fim.middle)
    pieces = [
        *(_control(token_id, tokenizer) for token_id in bos),
        _control(fim.prefix, tokenizer),
        ContextPiece(ContextSource.PREFIX, before.text, len(before.token_ids), path),
        _control(fim.suffix, tokenizer),
        ContextPiece(ContextSource.SUFFIX, after.text, len(after.token_ids), path),
        _control(fim.middle, tokenizer),
    ]
    return _assembled(
        request, ids, pieces, budget, limits, before.dropped_tokens + after.dropped_tokens, stop_token_ids(fim)
    )


def _prefix_only(
    request: CompletionRequest,
    prefix: str,
    suffix: str,
    path: str,
    tokenizer: PromptTokenizer,
    limits: PromptLimits,
) -> AssembledPrompt:
    bos = _bos(tokenizer)
    budget = infill_budget(limits, request.limits.max_tokens)
    before = keep_end(prefix, budget - len(bos), tokenizer)
    unused = keep_start(suffix, 0, tokenizer)
    pieces = [_control(token_id, tokenizer) for token_id in bos]
    pieces.append(ContextPiece(ContextSource.PREFIX, before.text, len(before.token_ids), path))
    dropped = before.dropped_tokens + unused.dropped_tokens
    return _assembled(request, (*bos, *before.token_ids), pieces, budget, limits, dropped)


def _assembled(
    request: CompletionRequest,
    ids: tuple[int, ...],
    pieces: list[ContextPiece],
    budget: int,
    limits: PromptLimits,
    dropped_tokens: int = 0,
    stop_ids: tuple[int, ...] = (),
) -> AssembledPrompt:
    return AssembledPrompt(
        token_ids=ids,
        pieces=tuple(pieces),
        token_budget=budget,
        max_tokens=min(request.limits.max_tokens, limits.context_length - len(ids)),
        dropped_tokens=dropped_tokens,
        stop_token_ids=stop_ids,
    )


def _room(request: CompletionRequest, limits: PromptLimits) -> int:
    """Tokens a plain prompt may have: the context, less one to generate when any is asked for."""
    return limits.context_length - min(1, request.limits.max_tokens)


def _too_long(field: str, size: Quantity, request: CompletionRequest, limits: PromptLimits) -> InvalidRequest:
    room = _room(request, limits)
    allowed = f"at most {room} tokens, the model's context of {limits.context_length}"
    if room < limits.context_length:
        allowed += " less one to generate"
    return InvalidRequest.of(field, size, allowed)


def _bos(tokenizer: PromptTokenizer) -> tuple[int, ...]:
    wanted = tokenizer.add_bos and tokenizer.bos_token_id is not None
    return (tokenizer.bos_token_id,) if wanted and tokenizer.bos_token_id is not None else ()


def _control(token_id: int, tokenizer: PromptTokenizer) -> ContextPiece:
    return ContextPiece(ContextSource.CONTROL, spell((token_id,), tokenizer), 1)


def spell(ids: Sequence[int], tokenizer: PromptTokenizer) -> str:
    """Ids as text, with control tokens spelled out: for people to read, never to be tokenised again."""
    parts: list[str] = []
    for is_control, run in groupby(ids, lambda token_id: tokenizer.control_token_text(token_id) is not None):
        if is_control:
            parts.extend(tokenizer.control_token_text(token_id) or "" for token_id in run)
        else:
            parts.append(tokenizer.decode(list(run)))
    return "".join(parts)
