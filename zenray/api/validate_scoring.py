"""What a verifier scores, checked at its door: whoever asks may be another version. Pure."""

from __future__ import annotations

from zenray.api.validate import Violations, check_id
from zenray.engine.admission import check_request
from zenray.engine.request import GenerateRequest
from zenray.errors import InvalidRequest, Quantity
from zenray.model.config import ModelConfig

MAX_RECORD_BYTES = 256 * 2**20
"""Of all records of a request: what a reader who does not read may leave in a verifier."""

_ROW_BYTES = 16  # Gold log-probability, entropy, head count, tail mass.
_HEAD_ENTRY_BYTES, _SAMPLE_BYTES, _SCALE_BYTES = 8, 4, 4


def check_scoring(request: GenerateRequest, config: ModelConfig, max_sequence_tokens: int) -> None:
    """Raises InvalidRequest naming what the engine of such a model would refuse or could not answer."""
    check_request(request, config, max_sequence_tokens)
    found = Violations()
    check_id("request_id", request.request_id, found)
    ids = request.prompt_token_ids
    if max(ids) >= config.vocab_size:
        i = next(i for i, each in enumerate(ids) if each >= config.vocab_size)
        found.add(f"token_ids[{i}]", ids[i], f"0 to {config.vocab_size - 1}, the model's vocabulary")
    found.raise_if_any()
    num_bytes = max_record_bytes(request, config.hidden_size)
    if num_bytes > MAX_RECORD_BYTES:
        raise InvalidRequest.of(
            "token_ids",
            Quantity(num_bytes, "bytes of records"),
            f"at most {MAX_RECORD_BYTES}: score fewer positions at once, or keep less of each",
        )


def max_record_bytes(request: GenerateRequest, model_width: int) -> int:
    """The most that the records of a request may take, with every head full."""
    scoring = request.scoring
    assert scoring is not None
    kept = scoring.format
    row = _ROW_BYTES + _HEAD_ENTRY_BYTES * kept.max_head + _SAMPLE_BYTES * kept.num_tail_samples
    row += len(scoring.hidden_layers) * (model_width + _SCALE_BYTES)
    return row * (len(request.prompt_token_ids) - scoring.first_scored)
