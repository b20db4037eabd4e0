"""Which requests an engine takes: what fits, and what of a request to be scored makes sense."""

from __future__ import annotations

from zenray.engine.request import GenerateRequest
from zenray.engine.scoring import MAX_HEAD, MAX_TAIL_SAMPLES
from zenray.errors import FieldViolation, InvalidRequest
from zenray.model.config import ModelConfig


def check_request(request: GenerateRequest, config: ModelConfig, max_sequence_tokens: int) -> None:
    """Raises `InvalidRequest` for a sequence that could never fit and for a scoring that asks for what is not there,
    with every field that is wrong."""
    num_tokens = len(request.prompt_token_ids) + request.limits.max_tokens
    if not request.prompt_token_ids or num_tokens > max_sequence_tokens:
        raise InvalidRequest.of(
            "prompt_token_ids",
            f"{len(request.prompt_token_ids)} tokens with max_tokens {request.limits.max_tokens}",
            f"1 to {max_sequence_tokens} tokens of prompt plus completion",
        )
    if request.scoring is not None and (violations := _violations(request, config)):
        raise InvalidRequest(violations)


def _violations(request: GenerateRequest, config: ModelConfig) -> list[FieldViolation]:
    scoring, sampling = request.scoring, request.sampling
    assert scoring is not None
    format, layers = scoring.format, scoring.hidden_layers
    num_prompt, max_head = len(request.prompt_token_ids), min(MAX_HEAD, config.vocab_size)
    rules = (
        ("limits.max_tokens", request.limits.max_tokens, request.limits.max_tokens == 0, "0 where a prompt is scored"),
        ("sampling.n", sampling.n, sampling.n == 1, "1 where a prompt is scored"),
        ("sampling.prompt_logprobs", sampling.prompt_logprobs, not sampling.prompt_logprobs,
         "False where a prompt is scored"),
        ("scoring.first_scored", scoring.first_scored, 1 <= scoring.first_scored < num_prompt,
         f"at least 1 and below the number of tokens, {num_prompt}"),
        ("scoring.format.max_head", format.max_head, 1 <= format.max_head <= max_head, f"1 to {max_head}"),
        ("scoring.format.head_mass", format.head_mass, 0 < format.head_mass <= 1, "above 0, at most 1"),
        ("scoring.format.num_tail_samples", format.num_tail_samples, 0 <= format.num_tail_samples <= MAX_TAIL_SAMPLES,
         f"0 to {MAX_TAIL_SAMPLES}"),
        ("scoring.format.least_probability", format.least_probability, 0 <= format.least_probability < 1,
         "0 or more, below 1"),
        ("scoring.hidden_layers", layers,
         len(set(layers)) == len(layers) and all(0 <= layer <= config.num_layers for layer in layers),
         f"0 to {config.num_layers}, each once"),
    )  # fmt: skip
    return [FieldViolation(field, value, allowed) for field, value, holds, allowed in rules if not holds]
