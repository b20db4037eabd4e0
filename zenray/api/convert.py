"""Messages of the public services to domain objects and back.

Decoding fills absent fields from the server's defaults, so that everything behind the door is explicit.
"""

from __future__ import annotations

import uuid

from zenray.api.convert_common import (
    TokenBytes,
    finish_reason_to_proto,
    limits_from_proto,
    limits_to_proto,
    load_to_proto,
    logprobs_to_proto,
    model_info_to_proto,
    priority_from_proto,
    sampling_from_proto,
    sampling_to_proto,
    timings_to_proto,
    usage_to_proto,
)
from zenray.api.convert_context import (
    attribution_to_proto,
    options_from_proto,
    snippets_from_proto,
    suggestion_to_proto,
)
from zenray.api.convert_experts import expert_status_to_proto
from zenray.api.service import ModelCard, ServiceLoad
from zenray.api.totals import total_usage
from zenray.api.validate import Violations
from zenray.context.cursors import LinePosition, OffsetPosition, Position, PositionUnit, cursor_offset
from zenray.context.request import (
    CompletionInput,
    CompletionRequest,
    EditorState,
    Infill,
    TextPrompt,
    TokenPrompt,
    TrackedEditor,
)
from zenray.context.suggestion.model import CompletionFinal, CompletionStarted
from zenray.context.text_facts import guess_language
from zenray.engine.request import Delta, Final, GenerateEvent, Limits, Priority, Sampling, Started, Usage
from zenray.errors import InvalidRequest
from zenray.v1 import completion_pb2

_UNITS: dict[int, PositionUnit] = {
    completion_pb2.POSITION_UNIT_UNSPECIFIED: PositionUnit.UTF8_BYTE,
    completion_pb2.POSITION_UNIT_UTF8_BYTE: PositionUnit.UTF8_BYTE,
    completion_pb2.POSITION_UNIT_UTF16_CODE_UNIT: PositionUnit.UTF16_CODE_UNIT,
    completion_pb2.POSITION_UNIT_CODE_POINT: PositionUnit.CODE_POINT,
}


def new_request_id() -> str:
    """An id for a request that came without one."""
    return uuid.uuid4().hex


def default_sampling(card: ModelCard) -> Sampling:
    """What a request that says nothing about sampling gets."""
    return Sampling(temperature=card.defaults.temperature, top_k=card.defaults.top_k, top_p=card.defaults.top_p)


def default_limits(card: ModelCard) -> Limits:
    """What a request that says nothing about limits gets."""
    return Limits(max_tokens=card.defaults.max_tokens, deadline_ms=card.defaults.deadline_ms)


def request_from_proto(
    message: completion_pb2.CompleteRequest, card: ModelCard, found: Violations
) -> CompletionRequest:
    """The domain request of a message. What has no domain value is added to `found`; the request then only
    serves to collect further violations."""
    priority = priority_from_proto(message.priority)
    if priority is None:
        found.add("priority", message.priority, "PRIORITY_INTERACTIVE or PRIORITY_BATCH")
    given = _input_from_proto(message, found)
    return CompletionRequest(
        request_id=message.request_id or new_request_id(),
        input=given,
        session_id=message.session_id,
        model=message.model,
        sampling=sampling_from_proto(message.sampling, default_sampling(card)),
        limits=limits_from_proto(message.limits, default_limits(card)),
        priority=Priority.INTERACTIVE if priority is None else priority,
        suggestion=options_from_proto(message.suggestion, given),
        snippets=snippets_from_proto(message.snippets, card.bounds.max_snippets),
    )


def _input_from_proto(message: completion_pb2.CompleteRequest, found: Violations) -> CompletionInput:
    kind = message.WhichOneof("input")
    if kind == "prompt":
        return TextPrompt(message.prompt)
    if kind == "prompt_token_ids":
        return TokenPrompt(tuple(message.prompt_token_ids.ids))
    if kind == "infill":
        return Infill(message.infill.prefix, message.infill.suffix)
    if kind == "editor":
        return _editor_from_proto(message.editor, found)
    found.add("input", None, "one of prompt, infill, editor and prompt_token_ids")
    return TokenPrompt((0,))


def _editor_from_proto(message: completion_pb2.EditorState, found: Violations) -> EditorState | TrackedEditor:
    position, unit = position_from_proto(message.cursor, "editor.cursor", found)
    if message.HasField("tracked"):
        if message.text:
            found.add("editor.text", message.text[:40], "empty with editor.tracked, which names the text")
        tracked = message.tracked
        return TrackedEditor(message.path, message.language, tracked.version, tracked.content_hash, position, unit)
    offset = 0
    try:
        offset = cursor_offset(message.text, position, unit, "editor.cursor")
    except InvalidRequest as error:
        found.extend(error.violations)
    return EditorState(
        message.path, message.language or guess_language(message.path, message.text), message.text, offset
    )


def position_from_proto(cursor: completion_pb2.Cursor, field: str, found: Violations) -> tuple[Position, PositionUnit]:
    """Where a cursor stands; a start of the document takes the place of what cannot be read."""
    unit = _UNITS.get(cursor.unit)
    if unit is None:
        found.add(f"{field}.unit", cursor.unit, "a PositionUnit")
        unit = PositionUnit.CODE_POINT
    if cursor.WhichOneof("position") == "offset":
        return OffsetPosition(cursor.offset), unit
    if cursor.WhichOneof("position") == "line_column":
        return LinePosition(cursor.line_column.line, cursor.line_column.column), unit
    found.add(field, None, "an offset or a line_column")
    return OffsetPosition(0), unit


def event_to_proto(event: GenerateEvent, request_id: str, token_bytes: TokenBytes) -> completion_pb2.CompleteEvent:
    """A public event; the request's id goes with Started."""
    if isinstance(event, Delta):
        return completion_pb2.CompleteEvent(
            delta=completion_pb2.Delta(
                index=event.index,
                text=event.text,
                token_count=len(event.token_ids),
                logprobs=logprobs_to_proto(event.logprobs, token_bytes),
            )
        )
    if isinstance(event, Final):
        return completion_pb2.CompleteEvent(
            final=completion_pb2.Final(
                index=event.index,
                text=event.text,
                finish_reason=finish_reason_to_proto(event.finish_reason),
                usage=usage_to_proto(event.usage),
                timings=timings_to_proto(event.timings),
                suggestion=suggestion_to_proto(event.suggestion) if isinstance(event, CompletionFinal) else None,
            )
        )
    assert isinstance(event, Started)
    started = event if isinstance(event, CompletionStarted) else None
    return completion_pb2.CompleteEvent(
        started=completion_pb2.Started(
            prompt_tokens=event.prompt_tokens,
            cached_tokens=event.cached_tokens,
            request_id=request_id,
            prompt_logprobs=logprobs_to_proto(event.prompt_logprobs, token_bytes),
            attribution=attribution_to_proto(started.attribution) if started else (),
            reused=started is not None and started.reused,
        )
    )


class ResponseBuilder:
    """Folds a stream of events into one CompleteResponse."""

    def __init__(self, request_id: str, token_bytes: TokenBytes) -> None:
        self._response = completion_pb2.CompleteResponse(request_id=request_id)
        self._choices: dict[int, completion_pb2.Choice] = {}
        self._usage = Usage(0, 0, 0)
        self._token_bytes = token_bytes

    def add(self, event: GenerateEvent) -> None:
        if isinstance(event, Started):
            self._usage = Usage(event.prompt_tokens, 0, event.cached_tokens)
            self._response.prompt_logprobs.extend(logprobs_to_proto(event.prompt_logprobs, self._token_bytes))
            return
        choice = self._choices.setdefault(event.index, completion_pb2.Choice(index=event.index))
        if isinstance(event, Delta):
            choice.logprobs.extend(logprobs_to_proto(event.logprobs, self._token_bytes))
            return
        choice.text = event.text
        choice.finish_reason = finish_reason_to_proto(event.finish_reason)
        choice.usage.CopyFrom(usage_to_proto(event.usage))
        choice.timings.CopyFrom(timings_to_proto(event.timings))
        if isinstance(event, CompletionFinal) and event.suggestion is not None:
            choice.suggestion.CopyFrom(suggestion_to_proto(event.suggestion))
        self._usage = total_usage((self._usage, event.usage))

    def build(self) -> completion_pb2.CompleteResponse:
        """The response; the prompt, which all choices share, is counted once."""
        self._response.choices.extend(self._choices[index] for index in sorted(self._choices))
        self._response.usage.CopyFrom(usage_to_proto(self._usage))
        return self._response


def card_to_proto(card: ModelCard) -> completion_pb2.GetModelInfoResponse:
    bounds = card.bounds
    return completion_pb2.GetModelInfoResponse(
        model=model_info_to_proto(card),
        default_sampling=sampling_to_proto(default_sampling(card)),
        default_limits=limits_to_proto(default_limits(card)),
        bounds=completion_pb2.RequestBounds(
            max_tokens=bounds.max_tokens,
            max_n=bounds.max_n,
            max_logprobs=bounds.max_logprobs,
            max_stop=bounds.max_stop,
            max_stop_length=bounds.max_stop_length,
            max_request_bytes=bounds.max_request_bytes,
            max_deadline_ms=bounds.max_deadline_ms,
            max_snippets=bounds.max_snippets,
            max_snippet_bytes=bounds.max_snippet_bytes,
            max_stream_events=bounds.max_stream_events,
        ),
    )


def service_load_to_proto(load: ServiceLoad) -> completion_pb2.GetLoadResponse:
    return completion_pb2.GetLoadResponse(
        load=load_to_proto(load.load),
        verifier_replicas=load.verifier_replicas,
        experts=[
            completion_pb2.ReplicaExperts(replica_id=replica_id, status=expert_status_to_proto(status))
            for replica_id, status in load.experts.items()
        ],
    )
