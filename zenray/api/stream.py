"""What every door does with the event stream of one request."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from zenray.api.service import CompletionService
from zenray.api.status import as_zenray_error
from zenray.context.request import CompletionRequest
from zenray.engine.request import Final, FinishReason, GenerateEvent, Started
from zenray.errors import DeadlineExceeded, ZenrayError

_REPLY_MARGIN_MS = 20
"""Kept from a transport's timeout, so that what was produced still reaches the client."""


async def events_of(service: CompletionService, request: CompletionRequest) -> AsyncGenerator[GenerateEvent, None]:
    """The events of `service.complete`, closed with this iterator; raises ZenrayError only.

    Started waits for the event behind it, so that a deadline that passed before anything was produced is an
    error and not an empty success. Prompt log-probabilities count as produced.
    """
    try:
        stream = service.complete(request)
        async with aclosing(stream) as events:
            held: Started | None = None
            produced = False
            async for event in events:
                if isinstance(event, Started) and not produced:
                    held = event
                    continue
                if not produced:
                    _refuse_nothing(event, held, request)
                    produced = True
                    if held is not None:
                        yield held
                yield event
    except ZenrayError:
        raise
    except Exception as error:
        raise as_zenray_error(error) from error


def _refuse_nothing(event: GenerateEvent, started: Started | None, request: CompletionRequest) -> None:
    if (
        isinstance(event, Final)
        and event.finish_reason is FinishReason.DEADLINE
        and event.usage.completion_tokens == 0
        and not (started and started.prompt_logprobs)
    ):
        raise DeadlineExceeded(f"the deadline of {request.limits.deadline_ms} ms passed before the first token")


def within_timeout(request: CompletionRequest, timeout_s: float | None) -> CompletionRequest:
    """`request` with its deadline shortened to a transport's timeout, less a margin for the reply.

    Raises DeadlineExceeded when the timeout has passed.
    """
    if timeout_s is None:
        return request
    timeout_ms = timeout_s * 1000
    if timeout_ms <= 0:
        raise DeadlineExceeded("the call's deadline passed before the request was read")
    usable_ms = max(1, int(timeout_ms - min(_REPLY_MARGIN_MS, timeout_ms / 4)))
    own_ms = request.limits.deadline_ms
    if own_ms is not None and own_ms <= usable_ms:
        return request
    return replace(request, limits=replace(request.limits, deadline_ms=usable_ms))
