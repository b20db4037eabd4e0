"""From a raw text to the suggestion an editor shows."""

from __future__ import annotations

import asyncio

from zenray.context.request import CompletionRequest, EditorState
from zenray.context.suggestion.model import CompletionFinal, Suggestion
from zenray.context.suggestion.post_process import post_process
from zenray.engine.request import Final, FinishReason
from zenray.observe.outcomes import SuggestionRecord
from zenray.serving.prompts import text_around

_QUICK_TEXT = 2_000
"""Characters around the cursor up to which brackets and syntax are looked at on the event loop, in about 1 ms. Where
many repairs are tried it is 20 ms for 16,000."""


async def suggest(request: CompletionRequest, final: Final) -> CompletionFinal:
    """`final` with a suggestion, when one was asked for. Nobody shows what was superseded."""
    suggestion: Suggestion | None = None
    if request.suggestion.post_process and final.finish_reason is not FinishReason.SUPERSEDED:
        before, after = text_around(request)
        language = request.input.language if isinstance(request.input, EditorState) else ""

        def make() -> Suggestion:
            return post_process(
                final.text,
                before=before,
                after=after,
                language=language,
                finish_reason=final.finish_reason,
                max_lines=request.limits.max_lines,
            )

        is_quick = len(before) + len(after) < _QUICK_TEXT
        suggestion = make() if is_quick else await asyncio.to_thread(make)
    return CompletionFinal(final.index, final.text, final.finish_reason, final.usage, final.timings, suggestion)


def record_of(
    request: CompletionRequest, editor: EditorState, final: CompletionFinal, *, reused: bool
) -> SuggestionRecord:
    """What is remembered of `final` until its outcome is reported."""
    text = final.text if final.suggestion is None else final.suggestion.text
    return SuggestionRecord(
        request_id=request.request_id,
        index=final.index,
        language=editor.language,
        path=editor.path,
        text=text,
        num_characters=len(text),
        prompt_tokens=final.usage.prompt_tokens,
        cached_tokens=final.usage.cached_tokens,
        completion_tokens=final.usage.completion_tokens,
        finish_reason=final.finish_reason.value,
        reused=reused,
        first_token_ms=final.timings.first_token_ms,
        total_ms=final.timings.total_ms,
    )
