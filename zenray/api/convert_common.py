"""zenray.v1 values shared by the public service and the verifier, to domain objects and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from zenray.api.service import ModelCard
from zenray.engine.request import (
    DrafterLoad,
    DrafterUsage,
    EngineLoad,
    FinishReason,
    Limits,
    Priority,
    Sampling,
    Timings,
    TokenLogprob,
    Usage,
)
from zenray.v1 import common_pb2

TokenBytes = Callable[[int], bytes]

_PRIORITY_TO_PROTO = {
    Priority.INTERACTIVE: common_pb2.PRIORITY_INTERACTIVE,
    Priority.BATCH: common_pb2.PRIORITY_BATCH,
}
_PRIORITY_FROM_PROTO: dict[int, Priority] = {
    common_pb2.PRIORITY_UNSPECIFIED: Priority.INTERACTIVE,
    common_pb2.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    common_pb2.PRIORITY_BATCH: Priority.BATCH,
}

_FINISH_TO_PROTO: dict[FinishReason, common_pb2.FinishReason] = {
    reason: common_pb2.FinishReason.Value(f"FINISH_REASON_{reason.value}") for reason in FinishReason
}
_FINISH_FROM_PROTO: dict[int, FinishReason] = {proto: reason for reason, proto in _FINISH_TO_PROTO.items()}


def no_token_bytes(token_id: int) -> bytes:
    """For log-probabilities between deployments, where the receiver knows the bytes."""
    return b""


def priority_from_proto(value: int) -> Priority | None:
    """None for a number this version does not know."""
    return _PRIORITY_FROM_PROTO.get(value)


def priority_to_proto(priority: Priority) -> common_pb2.Priority:
    return _PRIORITY_TO_PROTO[priority]


def sampling_from_proto(message: common_pb2.Sampling, silent: Sampling) -> Sampling:
    """Sampling with the values of `silent` for absent fields. Prompt log-probabilities imply `logprobs`."""
    has = message.HasField
    logprobs = message.logprobs if has("logprobs") else silent.logprobs
    if message.prompt_logprobs and logprobs is None:
        logprobs = 0
    return Sampling(
        temperature=message.temperature if has("temperature") else silent.temperature,
        top_k=message.top_k if has("top_k") else silent.top_k,
        top_p=message.top_p if has("top_p") else silent.top_p,
        repetition_penalty=message.repetition_penalty if has("repetition_penalty") else silent.repetition_penalty,
        presence_penalty=message.presence_penalty if has("presence_penalty") else silent.presence_penalty,
        frequency_penalty=message.frequency_penalty if has("frequency_penalty") else silent.frequency_penalty,
        seed=message.seed if has("seed") else silent.seed,
        n=message.n if has("n") else silent.n,
        logprobs=logprobs,
        prompt_logprobs=message.prompt_logprobs if has("prompt_logprobs") else silent.prompt_logprobs,
    )


def sampling_to_proto(sampling: Sampling) -> common_pb2.Sampling:
    """Every field set; `seed` and `logprobs` only where they have a value."""
    return common_pb2.Sampling(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        seed=sampling.seed,
        n=sampling.n,
        logprobs=sampling.logprobs,
        prompt_logprobs=sampling.prompt_logprobs,
    )


def limits_from_proto(message: common_pb2.Limits, silent: Limits) -> Limits:
    """Limits with the values of `silent` for absent fields."""
    has = message.HasField
    return Limits(
        max_tokens=message.max_tokens if has("max_tokens") else silent.max_tokens,
        max_lines=message.max_lines if has("max_lines") else silent.max_lines,
        stop=tuple(message.stop) or silent.stop,
        stop_token_ids=tuple(message.stop_token_ids) or silent.stop_token_ids,
        deadline_ms=message.deadline_ms if has("deadline_ms") else silent.deadline_ms,
        ignore_eos=message.ignore_eos if has("ignore_eos") else silent.ignore_eos,
    )


def limits_to_proto(limits: Limits) -> common_pb2.Limits:
    """Every field set; `deadline_ms` only where there is one."""
    return common_pb2.Limits(
        max_tokens=limits.max_tokens,
        max_lines=limits.max_lines,
        stop=limits.stop,
        stop_token_ids=limits.stop_token_ids,
        deadline_ms=limits.deadline_ms,
        ignore_eos=limits.ignore_eos,
    )


def finish_reason_from_proto(value: int) -> FinishReason:
    """Raises KeyError for a number this version does not know."""
    return _FINISH_FROM_PROTO[value]


def finish_reason_to_proto(reason: FinishReason) -> common_pb2.FinishReason:
    return _FINISH_TO_PROTO[reason]


def logprobs_from_proto(messages: Iterable[common_pb2.TokenLogprob]) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(
            message.token_id,
            message.logprob if message.HasField("logprob") else None,
            tuple((top.token_id, top.logprob) for top in message.top),
        )
        for message in messages
    )


def logprobs_to_proto(logprobs: Iterable[TokenLogprob], token_bytes: TokenBytes) -> list[common_pb2.TokenLogprob]:
    return [
        common_pb2.TokenLogprob(
            token_id=entry.token_id,
            logprob=entry.logprob,
            token=token_bytes(entry.token_id),
            top=[
                common_pb2.TopLogprob(token_id=token_id, logprob=logprob, token=token_bytes(token_id))
                for token_id, logprob in entry.top
            ],
        )
        for entry in logprobs
    ]


def usage_from_proto(message: common_pb2.Usage) -> Usage:
    return Usage(
        prompt_tokens=message.prompt_tokens,
        completion_tokens=message.completion_tokens,
        cached_tokens=message.cached_tokens,
        rounds=message.rounds,
        drafters=tuple(
            DrafterUsage(drafter.drafter, drafter.rounds, drafter.drafted_tokens, drafter.accepted_tokens)
            for drafter in message.drafters
        ),
        saved_tokens=message.saved_tokens,
    )


def usage_to_proto(usage: Usage) -> common_pb2.Usage:
    return common_pb2.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
        rounds=usage.rounds,
        drafters=[
            common_pb2.DrafterUsage(
                drafter=drafter.drafter,
                rounds=drafter.rounds,
                drafted_tokens=drafter.drafted_tokens,
                accepted_tokens=drafter.accepted_tokens,
            )
            for drafter in usage.drafters
        ],
        saved_tokens=usage.saved_tokens,
    )


def timings_from_proto(message: common_pb2.Timings) -> Timings:
    return Timings(message.queue_ms, message.first_token_ms, message.total_ms)


def timings_to_proto(timings: Timings) -> common_pb2.Timings:
    return common_pb2.Timings(
        queue_ms=timings.queue_ms, first_token_ms=timings.first_token_ms, total_ms=timings.total_ms
    )


def model_info_to_proto(card: ModelCard) -> common_pb2.ModelInfo:
    return common_pb2.ModelInfo(
        name=card.name,
        architecture=card.architecture,
        weight_format=card.weight_format,
        num_parameters=card.num_parameters,
        context_length=card.context_length,
        vocab_size=card.vocab_size,
        supports_infill=card.supports_infill,
        license=card.license,
        sha256=card.sha256,
    )


_LOAD_FIELDS = tuple(field.name for field in common_pb2.Load.DESCRIPTOR.fields if field.message_type is None)
_DRAFTER_LOAD_FIELDS = tuple(field.name for field in common_pb2.DrafterLoad.DESCRIPTOR.fields)


def load_from_proto(message: common_pb2.Load) -> EngineLoad:
    drafters = tuple(
        DrafterLoad(**{name: getattr(drafter, name) for name in _DRAFTER_LOAD_FIELDS}) for drafter in message.drafters
    )
    return EngineLoad(**{name: getattr(message, name) for name in _LOAD_FIELDS}, drafters=drafters)


def load_to_proto(load: EngineLoad) -> common_pb2.Load:
    drafters = [
        common_pb2.DrafterLoad(**{name: getattr(drafter, name) for name in _DRAFTER_LOAD_FIELDS})
        for drafter in load.drafters
    ]
    return common_pb2.Load(**{name: getattr(load, name) for name in _LOAD_FIELDS}, drafters=drafters)
