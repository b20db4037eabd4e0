"""Frames say what was meant, and whatever else arrives is refused before memory is taken for it."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zenray.experts import wire
from zenray.experts.link import ExpertCall
from zenray.experts.wire import HEADER_BYTES, Header, Kind, ProtocolError


@st.composite
def calls(draw: st.DrawFn) -> ExpertCall:
    expert_ids = sorted(draw(st.sets(st.integers(0, wire.MAX_EXPERTS - 1), min_size=1, max_size=9)))
    counts = [draw(st.integers(1, 5)) for _ in expert_ids]
    num_rows, width = draw(st.integers(1, 6)), draw(st.integers(1, 40))
    rows = [draw(st.integers(0, num_rows - 1)) for _ in range(sum(counts))]
    dtype = draw(st.sampled_from([torch.bfloat16, torch.float32, torch.float64]))
    epoch, layer = draw(st.integers(0, 2**64 - 1)), draw(st.integers(0, 2**32 - 1))
    x_ND = torch.arange(num_rows * width).reshape(num_rows, width).to(dtype)
    return ExpertCall(epoch, layer, expert_ids, counts, torch.tensor(rows), x_ND)


def split(frame: bytes) -> tuple[Header, memoryview]:
    return wire.decode_header(frame[:HEADER_BYTES]), memoryview(bytearray(frame[HEADER_BYTES:]))


@given(calls(), st.integers(0, 2**64 - 1))
def test_a_call_arrives_as_it_was_sent(call: ExpertCall, number: int) -> None:
    header, body = split(wire.encode_call(number, call))
    assert len(body) == header.body_bytes
    assert header.body_bytes % 64 == 0, "x begins where vector loads like it"
    assert (header.kind, header.number, header.dtype) == (Kind.CALL, number, call.x_ND.dtype)
    assert (header.num_rows, header.width) == call.x_ND.shape
    arrived = wire.decode_call(header, body, call.x_ND)
    assert (arrived.epoch, arrived.layer) == (call.epoch, call.layer)
    assert (arrived.expert_ids, arrived.counts) == (call.expert_ids, call.counts)
    assert torch.equal(arrived.rows_P, call.rows_P)

    y_PD = torch.zeros(call.num_pairs, header.width, dtype=call.x_ND.dtype)
    reply, nothing = split(wire.encode_rows(header, y_PD))
    assert (reply.kind, reply.number, reply.epoch, reply.layer) == (Kind.ROWS, number, call.epoch, call.layer)
    assert (reply.num_rows, reply.width, reply.dtype, len(nothing)) == (*y_PD.shape, y_PD.dtype, 0)


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.integers())), st.integers(0, 2**64 - 1))
def test_control_messages_and_refusals_arrive_as_they_were_sent(message: dict[str, Any], number: int) -> None:
    header, body = split(wire.encode_control(number, message))
    assert (header.kind, header.number, header.body_bytes) == (Kind.CONTROL, number, len(body))
    assert wire.decode_control(body) == message
    header, body = split(wire.encode_refused(Header(Kind.CALL, number=number), str(message)))
    assert (header.kind, header.number) == (Kind.REFUSED, number)
    assert bytes(body).decode() == str(message)


@given(st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES))
def test_noise_is_no_frame(noise: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.decode_header(noise)


@given(
    st.integers(0, 255),
    st.integers(0, 255),
    st.tuples(*[st.integers(0, 2**32 - 1) | st.integers(0, 200)] * 6),
)
def test_a_header_that_passes_promises_bounded_memory(kind: int, code: int, numbers: tuple[int, ...]) -> None:
    """Whatever the numbers: either an error, or sizes within the bounds that agree with each other."""
    try:
        header = wire.decode_header(wire.encode_header(Header(kind, code, *numbers)))
    except ProtocolError:
        return
    assert header.body_bytes <= 8 * (wire.MAX_EXPERTS + wire.MAX_PAIRS) + 64
    if header.num_rows:
        row_bytes = header.width * header.dtype.itemsize
        assert max(header.num_rows, header.num_pairs) * row_bytes <= wire.MAX_ROW_BYTES


@given(calls(), st.data())
def test_a_damaged_call_is_an_error_or_a_call_that_can_be_computed(call: ExpertCall, data: st.DataObject) -> None:
    frame = bytearray(wire.encode_call(1, call))
    for _ in range(data.draw(st.integers(1, 8))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        header, body = split(bytes(frame))
        if header.kind != Kind.CALL or header.body_bytes != len(body):
            return  # the receiver would wait for as many bytes as were announced
        arrived = wire.decode_call(header, body, call.x_ND)
    except ProtocolError:
        return
    assert sum(arrived.counts) == arrived.num_pairs == len(arrived.rows_P)
    assert 0 <= int(arrived.rows_P.min()) <= int(arrived.rows_P.max()) < header.num_rows
    assert len(set(arrived.expert_ids)) == len(arrived.expert_ids) == len(arrived.counts)


@given(st.binary(max_size=200) | st.text().map(str.encode) | st.just(b"[" * 100_000))
def test_noise_is_no_control_message(noise: bytes) -> None:
    try:
        message = wire.decode_control(noise)
    except ProtocolError:
        return
    assert isinstance(message, dict)


def test_a_call_too_large_for_a_frame_is_not_sent() -> None:
    x_ND = torch.empty(1, dtype=torch.float64).expand(2**11, 2**17)
    call = ExpertCall(1, 0, [0], [1], torch.tensor([0]), x_ND)
    tracemalloc.start()
    with pytest.raises(ProtocolError, match="too many for one call"):
        wire.encode_call(1, call)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
