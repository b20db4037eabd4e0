"""Requests to score and their records: the wire changes nothing, and nothing that is wrong gets through it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.api import convert_scoring
from zenray.api.convert_scoring import (
    score_event_from_proto,
    score_event_to_proto,
    score_request_from_proto,
    score_request_to_proto,
)
from zenray.api.validate_scoring import check_scoring, max_record_bytes
from zenray.engine.request import Final, FinishReason, GenerateRequest, Priority, Scored, Started, Timings, Usage
from zenray.engine.scoring import HiddenRows, ScoredRows, ScoreFormat, Scoring, join_rows
from zenray.errors import InvalidRequest
from zenray.model.load import LoadedModel
from zenray.v1 import verifier_pb2

ARRAYS = ("gold_logprobs_R", "entropies_R", "head_counts_R", "head_ids_N", "head_logprobs_N", "tail_masses_R",
          "tail_ids_RS")  # fmt: skip
BYTES_FIELDS = ("gold_logprobs", "entropies", "head_counts", "head_ids", "head_logprobs", "tail_masses", "tail_ids")
MAX_TOKENS = 512


@st.composite
def rows_of_a_step(draw: st.DrawFn) -> ScoredRows:
    """Any bits in any float, NaN's too: records are carried, not judged."""
    num_rows, num_samples = draw(st.integers(1, 12)), draw(st.integers(0, 3))
    generator = np.random.Generator(np.random.Philox(draw(st.integers(0, 2**32))))
    head_counts_R = generator.integers(0, draw(st.integers(1, 9)), num_rows).astype(np.int32)
    num_entries = int(head_counts_R.sum())

    def floats(*shape: int) -> np.ndarray:
        return generator.integers(0, 2**32, shape, dtype=np.uint32).view(np.float32)

    def ids(*shape: int) -> np.ndarray:
        return generator.integers(-1, 2**31, shape).astype(np.int32)

    width = draw(st.integers(1, 5))
    layers = draw(st.lists(st.integers(0, 80), unique=True, max_size=3))
    hidden = {
        layer: HiddenRows(generator.integers(-128, 128, (num_rows, width)).astype(np.int8), floats(num_rows))
        for layer in layers
    }
    first_position = draw(st.integers(1, 2**31))
    return ScoredRows(
        first_position, floats(num_rows), floats(num_rows), head_counts_R, ids(num_entries), floats(num_entries),
        floats(num_rows), ids(num_rows, num_samples), hidden,
    )  # fmt: skip


def same(one: ScoredRows, other: ScoredRows) -> bool:
    """Equal to the last bit, shapes and types too."""

    def arrays(rows: ScoredRows) -> list[np.ndarray]:
        states = [array for each in rows.hidden.values() for array in (each.values_RD, each.scales_R)]
        return [getattr(rows, name) for name in ARRAYS] + states

    return (
        one.first_position == other.first_position
        and list(one.hidden) == list(other.hidden)
        and all(
            (left.shape, left.dtype, left.tobytes()) == (right.shape, right.dtype, right.tobytes())
            for left, right in zip(arrays(one), arrays(other), strict=True)
        )
    )


def num_bytes(rows: verifier_pb2.ScoredRows) -> int:
    hidden = sum(len(states.values) + len(states.scales) for states in rows.hidden)
    return hidden + sum(len(getattr(rows, name)) for name in BYTES_FIELDS)


def over_the_wire(message: verifier_pb2.ScoreEvent) -> verifier_pb2.ScoreEvent:
    return verifier_pb2.ScoreEvent.FromString(message.SerializeToString())


@given(rows_of_a_step(), st.integers(1, 400))
def test_a_steps_records_arrive_to_the_last_bit_in_messages_of_bounded_size(rows: ScoredRows, max_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert_scoring, "MAX_ROWS_BYTES", max_bytes)
        messages = [over_the_wire(message) for message in score_event_to_proto(Scored(rows))]
    parts = [event.rows for event in map(score_event_from_proto, messages) if isinstance(event, Scored)]
    assert same(join_rows(parts), rows)
    sizes = [num_bytes(message.rows) for message in messages]
    assert all(size <= max_bytes or part.num_rows == 1 for size, part in zip(sizes, parts, strict=True))
    record_bytes = 16 + rows.tail_ids_RS[0].nbytes + sum(each.values_RD.shape[1] + 4 for each in rows.hidden.values())
    for size, following in zip(sizes, parts[1:], strict=False):
        assert size + record_bytes + 8 * following.head_counts_R[0] > max_bytes, "one more would have fitted"


def test_other_events_arrive() -> None:
    final = Final(0, "", FinishReason.LENGTH, Usage(9, 0, 4), Timings(1.0, 0.0, 2.0))
    for event in (Started(9, 4), final):
        (message,) = score_event_to_proto(event)
        assert score_event_from_proto(over_the_wire(message)) == event
    with pytest.raises(ValueError, match="without an event"):
        score_event_from_proto(verifier_pb2.ScoreEvent())


@settings(max_examples=200)
@given(rows_of_a_step(), st.data())
def test_a_message_whose_arrays_do_not_fit_is_refused_or_means_something(rows: ScoredRows, data: st.DataObject) -> None:
    """Whatever is done to a message, it is a ValueError or records whose arrays fit each other."""
    (message,) = score_event_to_proto(Scored(rows))
    for _ in range(data.draw(st.integers(1, 3))):
        _spoil(message.rows, data)
    try:
        event = score_event_from_proto(over_the_wire(message))
    except ValueError:
        return
    assert isinstance(event, Scored)
    read = event.rows
    assert read.first_position >= 1
    assert read.num_rows >= 1
    assert {len(getattr(read, name)) for name in ARRAYS if name.endswith(("_R", "_RS"))} == {read.num_rows}
    assert (read.head_counts_R >= 0).all()
    assert len(read.head_ids_N) == len(read.head_logprobs_N) == read.head_counts_R.sum(dtype=np.int64)
    for states in read.hidden.values():
        assert len(states.values_RD) == len(states.scales_R) == read.num_rows
        assert states.values_RD.size


def _spoil(rows: verifier_pb2.ScoredRows, data: st.DataObject) -> None:
    fields: list[tuple[object, str]] = [(rows, name) for name in BYTES_FIELDS]
    fields += [(states, name) for states in rows.hidden for name in ("values", "scales")]
    target, name = data.draw(st.sampled_from(fields))
    content: bytes = getattr(target, name)
    kind = data.draw(st.sampled_from(("cut", "more", "any", "num_rows", "first_position", "layer")))
    if kind == "cut":
        setattr(target, name, content[: data.draw(st.integers(0, len(content)))])
    elif kind == "more":
        setattr(target, name, content + data.draw(st.binary(max_size=8)))
    elif kind == "any":
        setattr(target, name, data.draw(st.binary(min_size=len(content), max_size=len(content))))
    elif kind == "num_rows":
        rows.num_rows = data.draw(st.integers(0, 14) | st.integers(0, 2**32 - 1))
    elif kind == "first_position":
        rows.first_position = 0
    else:
        rows.hidden.add(layer=data.draw(st.integers(0, 80)), values=data.draw(st.binary(max_size=20)))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda rows: rows.ClearField("num_rows"), "0 records"),
        (lambda rows: rows.ClearField("first_position"), "from position 0"),
        (lambda rows: setattr(rows, "entropies", rows.entropies[:-1]), "entropies has 7 bytes where 8 belong"),
        (lambda rows: setattr(rows, "head_ids", rows.head_ids + bytes(4)), "head_ids has 16 bytes where 12 belong"),
        (lambda rows: setattr(rows, "head_counts", np.array([4, -1], "<i4").tobytes()), "less than no entries"),
        (lambda rows: setattr(rows, "tail_ids", bytes(12)), "tail_ids has 12 bytes, which are not 2 rows"),
        (lambda rows: setattr(rows.hidden[0], "values", b""), "hidden.values has 0 bytes"),
        (lambda rows: rows.hidden.append(rows.hidden[0]), "a layer twice"),
    ],
)
def test_what_does_not_fit_is_named(spoil: Callable[[verifier_pb2.ScoredRows], None], reason: str) -> None:
    two, three = np.zeros(2, np.float32), np.zeros(3, np.float32)
    counts, ids, tails = np.array([1, 2], np.int32), np.zeros(3, np.int32), np.zeros((2, 4), np.int32)
    hidden = {7: HiddenRows(np.zeros((2, 3), np.int8), two)}
    (message,) = score_event_to_proto(Scored(ScoredRows(1, two, two, counts, ids, three, two, tails, hidden)))
    spoil(message.rows)
    with pytest.raises(ValueError, match=reason):
        score_event_from_proto(message)


requests = st.builds(
    GenerateRequest.to_score,
    request_id=st.text(),
    token_ids=st.lists(st.integers(0, 2**32 - 1)),
    scoring=st.builds(
        Scoring,
        st.builds(
            ScoreFormat,
            st.integers(0, 2**32 - 1),
            st.floats(allow_nan=False),
            st.integers(0, 2**32 - 1),
            st.floats(allow_nan=False),
        ),
        st.integers(0, 2**32 - 1),
        st.lists(st.integers(0, 2**32 - 1)).map(tuple),
    ),
    seed=st.integers(0, 2**64 - 1),
    priority=st.sampled_from(Priority),
    deadline_ms=st.none() | st.integers(1, 2**32 - 1),
)


@given(requests)
def test_requests_round_trip_through_the_wire(request: GenerateRequest) -> None:
    wire = score_request_to_proto(request).SerializeToString()
    assert score_request_from_proto(verifier_pb2.ScoreRequest.FromString(wire)) == request


def good() -> verifier_pb2.ScoreRequest:
    kept = verifier_pb2.ScoreFormat(max_head=48, head_mass=0.9975, num_tail_samples=4)
    return verifier_pb2.ScoreRequest(request_id="r", token_ids=[1, 2, 3], first_scored=1, format=kept, seed=5)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda m: m.ClearField("token_ids"), "prompt_token_ids is '0 tokens"),
        (lambda m: m.token_ids.extend([1] * MAX_TOKENS), "prompt_token_ids is '515 tokens"),
        (lambda m: m.token_ids.append(2**32 - 1), "token_ids[3] is 4294967295; allowed: 0 to 263"),
        (lambda m: m.ClearField("first_scored"), "scoring.first_scored is 0"),
        (lambda m: setattr(m, "first_scored", 3), "scoring.first_scored is 3"),
        (lambda m: m.ClearField("format"), "scoring.format.max_head is 0; allowed: 1 to 264"),
        (lambda m: setattr(m.format, "max_head", 2**32 - 1), "scoring.format.max_head is 4294967295"),
        (lambda m: setattr(m.format, "head_mass", float("nan")), "scoring.format.head_mass is nan"),
        (lambda m: setattr(m.format, "head_mass", 1.01), "scoring.format.head_mass is 1.01"),
        (lambda m: setattr(m.format, "num_tail_samples", 65), "scoring.format.num_tail_samples is 65"),
        (lambda m: m.hidden_layers.append(9), "scoring.hidden_layers is (9,)"),
        (lambda m: m.hidden_layers.extend([1, 0, 1]), "scoring.hidden_layers is (1, 0, 1)"),
        (lambda m: setattr(m, "priority", 77), "priority is 77"),
        (lambda m: setattr(m, "request_id", "a\nb"), "request_id is"),
    ],
)
def test_what_is_wrong_with_a_request_is_named(
    tiny_model: LoadedModel, spoil: Callable[[verifier_pb2.ScoreRequest], None], said: str
) -> None:
    check_scoring(score_request_from_proto(good()), tiny_model.config, MAX_TOKENS)
    message = good()
    spoil(message)
    with pytest.raises(InvalidRequest) as refused:
        check_scoring(score_request_from_proto(message), tiny_model.config, MAX_TOKENS)
    assert said in str(refused.value)


def test_records_beyond_what_a_verifier_keeps_for_one_reader_are_refused(
    tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, request = tiny_model.config, score_request_from_proto(good())
    num_bytes = max_record_bytes(request, config.hidden_size)
    assert num_bytes == 2 * (16 + 48 * 8 + 4 * 4)
    monkeypatch.setattr("zenray.api.validate_scoring.MAX_RECORD_BYTES", num_bytes)
    check_scoring(request, config, MAX_TOKENS)
    message = good()
    message.hidden_layers.append(0)
    with pytest.raises(InvalidRequest, match=f"token_ids is {num_bytes + 2 * (config.hidden_size + 4)} bytes of rec"):
        check_scoring(score_request_from_proto(message), config, MAX_TOKENS)
