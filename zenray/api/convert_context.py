"""What surrounds a completion, to messages and back: options, snippets, pieces of a prompt, suggestions."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from zenray.context.assemble import AssembledPrompt
from zenray.context.pieces import ContextSource, Snippet
from zenray.context.request import FOR_EDITORS, RAW, CompletionInput, EditorState, SuggestionOptions, TrackedEditor
from zenray.context.suggestion.model import Suggestion, SuggestionFilter
from zenray.v1 import completion_pb2, context_pb2

_SOURCES = {source: completion_pb2.ContextSource.Value(f"CONTEXT_SOURCE_{source.value}") for source in ContextSource}
_FILTERS = {
    reason: completion_pb2.SuggestionFilter.Value(f"SUGGESTION_FILTER_{reason.value}") for reason in SuggestionFilter
}


def options_from_proto(message: completion_pb2.SuggestionOptions, given: CompletionInput) -> SuggestionOptions:
    """The options of a request for `given`, whose kind says what absent fields mean."""
    silent = FOR_EDITORS if isinstance(given, EditorState | TrackedEditor) else RAW
    names = completion_pb2.SuggestionOptions.DESCRIPTOR.fields_by_name
    return SuggestionOptions(**{name: getattr(message if message.HasField(name) else silent, name) for name in names})


def options_to_proto(options: SuggestionOptions) -> completion_pb2.SuggestionOptions:
    names = completion_pb2.SuggestionOptions.DESCRIPTOR.fields_by_name
    return completion_pb2.SuggestionOptions(**{name: getattr(options, name) for name in names})


def snippets_from_proto(messages: Iterable[completion_pb2.Snippet], most: int) -> tuple[Snippet, ...]:
    """The first ones that hold text: at most `most` and one more, which tells that there are too many."""
    shown = (message for message in messages if message.text)
    return tuple(
        Snippet(ContextSource.SNIPPET, message.path, message.text, message.start_line)
        for message in islice(shown, most + 1)
    )


def attribution_to_proto(attribution: Iterable[tuple[ContextSource, int]]) -> list[completion_pb2.SourceTokens]:
    return [completion_pb2.SourceTokens(source=_SOURCES[source], token_count=count) for source, count in attribution]


def suggestion_to_proto(suggestion: Suggestion | None) -> completion_pb2.Suggestion | None:
    if suggestion is None:
        return None
    reason = completion_pb2.SUGGESTION_FILTER_UNSPECIFIED if suggestion.filter is None else _FILTERS[suggestion.filter]
    return completion_pb2.Suggestion(text=suggestion.text, filter=reason, changes=suggestion.changes)


def assembled_to_proto(prompt: AssembledPrompt) -> context_pb2.AssembleResponse:
    return context_pb2.AssembleResponse(
        token_ids=prompt.token_ids,
        prompt=prompt.text,
        pieces=[
            context_pb2.ContextPiece(
                source=_SOURCES[piece.source],
                path=piece.path,
                token_count=piece.token_count,
                text=piece.text,
                start_line=piece.start_line,
                end_line=piece.end_line,
                score=piece.score,
            )
            for piece in prompt.pieces
        ],
        token_budget=prompt.token_budget,
        dropped_tokens=prompt.dropped_tokens,
        stop_token_ids=prompt.stop_token_ids,
        dropped_pieces=[
            context_pb2.DroppedPiece(
                source=_SOURCES[piece.source],
                path=piece.path,
                start_line=piece.start_line,
                end_line=piece.end_line,
                score=piece.score,
                reason=piece.reason,
            )
            for piece in prompt.dropped_pieces
        ],
        forced_prefix=prompt.forced_prefix,
        assemble_ms=prompt.assemble_ms,
    )
