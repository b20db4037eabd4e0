"""Messages of `VerifierService.Score` to the engine's objects and back. Arrays are little-endian on the wire."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from zenray.api.convert_common import priority_from_proto, priority_to_proto
from zenray.api.convert_verifier import final_from_proto, final_to_proto, started_from_proto, started_to_proto
from zenray.engine.request import Final, GenerateRequest, Scored, ScoreEvent
from zenray.engine.scoring import HiddenRows, ScoredRows, ScoreFormat, Scoring, split_rows
from zenray.errors import InvalidRequest
from zenray.v1 import verifier_pb2

MAX_ROWS_BYTES = 4 * 2**20
"""Of one message: far below what a channel takes, and what a reader need hold of it twice."""

_FLOAT32, _INT32, _INT8 = np.dtype("<f4"), np.dtype("<i4"), np.dtype("i1")


def score_request_to_proto(request: GenerateRequest) -> verifier_pb2.ScoreRequest:
    """The message of a request with `scoring` and a seed."""
    scoring = request.scoring
    assert scoring is not None and request.sampling.seed is not None
    return verifier_pb2.ScoreRequest(
        request_id=request.request_id,
        token_ids=request.prompt_token_ids,
        first_scored=scoring.first_scored,
        format=verifier_pb2.ScoreFormat(
            max_head=scoring.format.max_head,
            head_mass=scoring.format.head_mass,
            num_tail_samples=scoring.format.num_tail_samples,
            least_probability=scoring.format.least_probability,
        ),
        seed=request.sampling.seed,
        hidden_layers=scoring.hidden_layers,
        priority=priority_to_proto(request.priority),
        deadline_ms=request.limits.deadline_ms or 0,
    )


def score_request_from_proto(message: verifier_pb2.ScoreRequest) -> GenerateRequest:
    """The engine's request, unchecked: see `check_scoring`. Raises InvalidRequest for a priority of another version."""
    priority = priority_from_proto(message.priority)
    if priority is None:
        raise InvalidRequest.of("priority", message.priority, "a priority that this version knows")
    kept = message.format
    scoring = Scoring(
        ScoreFormat(kept.max_head, kept.head_mass, kept.num_tail_samples, kept.least_probability),
        message.first_scored,
        tuple(message.hidden_layers),
    )
    return GenerateRequest.to_score(
        message.request_id, message.token_ids, scoring, message.seed, priority, message.deadline_ms or None
    )


def score_event_to_proto(event: ScoreEvent) -> Iterator[verifier_pb2.ScoreEvent]:
    """The event's messages: a step's records may be several."""
    if isinstance(event, Scored):
        for part in split_rows(event.rows, _runs_within(event.rows, MAX_ROWS_BYTES)):
            yield verifier_pb2.ScoreEvent(rows=_rows_to_proto(part))
    elif isinstance(event, Final):
        yield verifier_pb2.ScoreEvent(final=final_to_proto(event))
    else:
        yield verifier_pb2.ScoreEvent(started=started_to_proto(event))


def score_event_from_proto(message: verifier_pb2.ScoreEvent) -> ScoreEvent:
    """Raises ValueError for a message that is no event, or whose arrays do not fit each other."""
    kind = message.WhichOneof("event")
    if kind == "rows":
        return Scored(_rows_from_proto(message.rows))
    if kind == "final":
        return final_from_proto(message.final)
    if kind == "started":
        return started_from_proto(message.started)
    raise ValueError("a ScoreEvent without an event")


def _runs_within(rows: ScoredRows, max_bytes: int) -> list[tuple[int, int]]:
    """First positions and lengths of runs of at most `max_bytes` each, or of one record that has more."""
    row_bytes = 4 * _FLOAT32.itemsize + rows.tail_ids_RS.shape[1] * _INT32.itemsize
    row_bytes += sum(states.values_RD.shape[1] + _FLOAT32.itemsize for states in rows.hidden.values())
    ends_R = np.cumsum(rows.head_counts_R.astype(np.int64) * (_INT32.itemsize + _FLOAT32.itemsize) + row_bytes)
    runs, start, sent = [], 0, 0
    while start < rows.num_rows:
        stop = max(start + 1, int(np.searchsorted(ends_R, sent + max_bytes, side="right")))
        runs.append((rows.first_position + start, stop - start))
        start, sent = stop, int(ends_R[stop - 1])
    return runs


def _rows_to_proto(rows: ScoredRows) -> verifier_pb2.ScoredRows:
    return verifier_pb2.ScoredRows(
        first_position=rows.first_position,
        num_rows=rows.num_rows,
        gold_logprobs=_to_bytes(rows.gold_logprobs_R, _FLOAT32),
        entropies=_to_bytes(rows.entropies_R, _FLOAT32),
        head_counts=_to_bytes(rows.head_counts_R, _INT32),
        head_ids=_to_bytes(rows.head_ids_N, _INT32),
        head_logprobs=_to_bytes(rows.head_logprobs_N, _FLOAT32),
        tail_masses=_to_bytes(rows.tail_masses_R, _FLOAT32),
        tail_ids=_to_bytes(rows.tail_ids_RS, _INT32),
        hidden=[
            verifier_pb2.HiddenRows(
                layer=layer,
                values=_to_bytes(states.values_RD, _INT8),
                scales=_to_bytes(states.scales_R, _FLOAT32),
            )
            for layer, states in rows.hidden.items()
        ],
    )


def _rows_from_proto(message: verifier_pb2.ScoredRows) -> ScoredRows:
    num_rows = message.num_rows
    if not num_rows or not message.first_position:
        raise ValueError(f"{num_rows} records from position {message.first_position} on")
    head_counts_R = _array("head_counts", message.head_counts, _INT32, num_rows)
    if head_counts_R.min() < 0:
        raise ValueError("head_counts: a head of less than no entries")
    num_entries = int(head_counts_R.sum(dtype=np.int64))
    hidden = {
        each.layer: HiddenRows(
            _table("hidden.values", each.values, _INT8, num_rows, min_width=1),
            _array("hidden.scales", each.scales, _FLOAT32, num_rows),
        )
        for each in message.hidden
    }
    if len(hidden) < len(message.hidden):
        raise ValueError("hidden: a layer twice")
    return ScoredRows(
        first_position=message.first_position,
        gold_logprobs_R=_array("gold_logprobs", message.gold_logprobs, _FLOAT32, num_rows),
        entropies_R=_array("entropies", message.entropies, _FLOAT32, num_rows),
        head_counts_R=head_counts_R,
        head_ids_N=_array("head_ids", message.head_ids, _INT32, num_entries),
        head_logprobs_N=_array("head_logprobs", message.head_logprobs, _FLOAT32, num_entries),
        tail_masses_R=_array("tail_masses", message.tail_masses, _FLOAT32, num_rows),
        tail_ids_RS=_table("tail_ids", message.tail_ids, _INT32, num_rows),
        hidden=hidden,
    )


def _to_bytes(array: np.ndarray, dtype: np.dtype) -> bytes:
    return np.ascontiguousarray(array, dtype).tobytes()


def _array(name: str, data: bytes, dtype: np.dtype, length: int) -> np.ndarray:
    """A read-only view of `data` as so many numbers."""
    if len(data) != length * dtype.itemsize:
        raise ValueError(f"{name} has {len(data)} bytes where {length * dtype.itemsize} belong")
    return np.frombuffer(data, dtype) if data else np.empty(0, dtype)


def _table(name: str, data: bytes, dtype: np.dtype, num_rows: int, min_width: int = 0) -> np.ndarray:
    """Such a view with as many columns as there are."""
    width, rest = divmod(len(data), num_rows * dtype.itemsize)
    if rest or width < min_width:
        raise ValueError(f"{name} has {len(data)} bytes, which are not {num_rows} rows")
    return _array(name, data, dtype, num_rows * width).reshape(num_rows, width)
