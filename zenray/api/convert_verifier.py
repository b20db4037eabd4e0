"""Messages between the context aggregator and a verifier replica to the engine's objects and back."""

from __future__ import annotations

from zenray.api.convert_common import (
    finish_reason_from_proto,
    finish_reason_to_proto,
    limits_from_proto,
    limits_to_proto,
    load_from_proto,
    load_to_proto,
    logprobs_from_proto,
    logprobs_to_proto,
    no_token_bytes,
    priority_from_proto,
    priority_to_proto,
    sampling_from_proto,
    sampling_to_proto,
    timings_from_proto,
    timings_to_proto,
    usage_from_proto,
    usage_to_proto,
)
from zenray.api.convert_experts import expert_status_from_proto, expert_status_to_proto
from zenray.api.service import VerifierLoad
from zenray.engine.request import (
    Delta,
    Final,
    GenerateEvent,
    GenerateRequest,
    Limits,
    Priority,
    Sampling,
    Started,
    TextStops,
)
from zenray.v1 import verifier_pb2


def generate_request_to_proto(request: GenerateRequest) -> verifier_pb2.GenerateRequest:
    return verifier_pb2.GenerateRequest(
        request_id=request.request_id,
        prompt_token_ids=request.prompt_token_ids,
        sampling=sampling_to_proto(request.sampling),
        limits=limits_to_proto(request.limits),
        priority=priority_to_proto(request.priority),
        session_id=request.session_id,
        text_stops=_text_stops_to_proto(request.text_stops),
        forced_prefix=request.forced_prefix,
    )


def generate_request_from_proto(message: verifier_pb2.GenerateRequest) -> GenerateRequest:
    """The engine's request; the sender has validated it and set every field."""
    priority = priority_from_proto(message.priority)
    return GenerateRequest(
        request_id=message.request_id,
        prompt_token_ids=tuple(message.prompt_token_ids),
        sampling=sampling_from_proto(message.sampling, Sampling()),
        limits=limits_from_proto(message.limits, Limits()),
        priority=Priority.INTERACTIVE if priority is None else priority,
        session_id=message.session_id,
        text_stops=_text_stops_from_proto(message.text_stops) if message.HasField("text_stops") else None,
        forced_prefix=message.forced_prefix,
    )


_TEXT_STOPS_FIELDS = tuple(field.name for field in verifier_pb2.TextStops.DESCRIPTOR.fields)


def _text_stops_to_proto(stops: TextStops | None) -> verifier_pb2.TextStops | None:
    if stops is None:
        return None
    return verifier_pb2.TextStops(**{name: getattr(stops, name) for name in _TEXT_STOPS_FIELDS})


def _text_stops_from_proto(message: verifier_pb2.TextStops) -> TextStops:
    return TextStops(**{name: getattr(message, name) for name in _TEXT_STOPS_FIELDS})


def generate_event_to_proto(event: GenerateEvent) -> verifier_pb2.GenerateEvent:
    if isinstance(event, Delta):
        return verifier_pb2.GenerateEvent(
            delta=verifier_pb2.GenerateDelta(
                index=event.index,
                text=event.text,
                token_ids=event.token_ids,
                logprobs=logprobs_to_proto(event.logprobs, no_token_bytes),
            )
        )
    if isinstance(event, Final):
        return verifier_pb2.GenerateEvent(final=final_to_proto(event))
    return verifier_pb2.GenerateEvent(started=started_to_proto(event))


def generate_event_from_proto(message: verifier_pb2.GenerateEvent) -> GenerateEvent:
    """Raises ValueError for a message without an event: the sender speaks a newer protocol."""
    kind = message.WhichOneof("event")
    if kind == "delta":
        delta = message.delta
        return Delta(delta.index, delta.text, tuple(delta.token_ids), logprobs_from_proto(delta.logprobs))
    if kind == "final":
        return final_from_proto(message.final)
    if kind == "started":
        return started_from_proto(message.started)
    raise ValueError("a GenerateEvent without an event")


def started_to_proto(event: Started) -> verifier_pb2.GenerateStarted:
    return verifier_pb2.GenerateStarted(
        prompt_tokens=event.prompt_tokens,
        cached_tokens=event.cached_tokens,
        prompt_logprobs=logprobs_to_proto(event.prompt_logprobs, no_token_bytes),
    )


def started_from_proto(message: verifier_pb2.GenerateStarted) -> Started:
    return Started(message.prompt_tokens, message.cached_tokens, logprobs_from_proto(message.prompt_logprobs))


def final_to_proto(event: Final) -> verifier_pb2.GenerateFinal:
    return verifier_pb2.GenerateFinal(
        index=event.index,
        text=event.text,
        finish_reason=finish_reason_to_proto(event.finish_reason),
        usage=usage_to_proto(event.usage),
        timings=timings_to_proto(event.timings),
    )


def final_from_proto(message: verifier_pb2.GenerateFinal) -> Final:
    """Raises KeyError for a reason this version does not know."""
    return Final(
        index=message.index,
        text=message.text,
        finish_reason=finish_reason_from_proto(message.finish_reason),
        usage=usage_from_proto(message.usage),
        timings=timings_from_proto(message.timings),
    )


def verifier_load_to_proto(load: VerifierLoad) -> verifier_pb2.GetVerifierLoadResponse:
    experts = None if load.experts is None else expert_status_to_proto(load.experts)
    return verifier_pb2.GetVerifierLoadResponse(load=load_to_proto(load.engine), experts=experts)


def verifier_load_from_proto(message: verifier_pb2.GetVerifierLoadResponse) -> VerifierLoad:
    """Raises KeyError for what this version does not know."""
    experts = expert_status_from_proto(message.experts) if message.HasField("experts") else None
    return VerifierLoad(load_from_proto(message.load), experts)
