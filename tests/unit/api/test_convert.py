"""Messages and domain objects say the same, both ways."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.api import convert, convert_common, convert_verifier
from zenray.api.service import ModelCard, VerifierLoad
from zenray.api.validate import Violations
from zenray.context.request import EditorState, Infill, TextPrompt, TokenPrompt
from zenray.engine.request import (
    Delta,
    DrafterLoad,
    DrafterUsage,
    EngineLoad,
    Final,
    FinishReason,
    GenerateEvent,
    GenerateRequest,
    Limits,
    Priority,
    Sampling,
    Started,
    Timings,
    TokenLogprob,
    Usage,
)
from zenray.experts.link import ShardReport
from zenray.experts.placement import ExpertId, ExpertPlacement
from zenray.experts.status import ExpertStatus, ShardState, ShardStatus
from zenray.v1 import common_pb2, completion_pb2, verifier_pb2

uint32, float32 = st.integers(0, 2**32 - 1), st.floats(width=32, allow_nan=False)
logprobs = st.builds(
    TokenLogprob, uint32, st.none() | float32, st.lists(st.tuples(uint32, float32), max_size=3).map(tuple)
)
samplings = st.builds(
    Sampling,
    temperature=st.floats(0, 10),
    top_k=uint32,
    top_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.1, 10),
    presence_penalty=st.floats(-2, 2),
    frequency_penalty=st.floats(-2, 2),
    seed=st.none() | st.integers(0, 2**63 - 1),
    n=uint32,
    logprobs=st.none() | uint32,
    prompt_logprobs=st.just(False),
)
limits = st.builds(
    Limits,
    max_tokens=uint32,
    max_lines=uint32,
    stop=st.lists(st.text(), max_size=3).map(tuple),
    stop_token_ids=st.lists(uint32, max_size=3).map(tuple),
    deadline_ms=st.none() | uint32,
    ignore_eos=st.booleans(),
)
requests = st.builds(
    GenerateRequest,
    request_id=st.text(),
    prompt_token_ids=st.lists(uint32).map(tuple),
    sampling=samplings,
    limits=limits,
    priority=st.sampled_from(Priority),
    session_id=st.text(),
)
names = st.sampled_from(("draft_model", "draft_pool", "suffix", "recycling"))
usages = st.builds(
    Usage,
    prompt_tokens=uint32,
    completion_tokens=uint32,
    cached_tokens=uint32,
    rounds=uint32,
    drafters=st.lists(st.builds(DrafterUsage, names, uint32, uint32, uint32), max_size=3).map(tuple),
)
uint64, float64 = st.integers(0, 2**64 - 1), st.floats(allow_nan=False)
drafter_loads = st.builds(DrafterLoad, names, uint64, uint64, uint64, uint64, float64, float64, uint32)
loads = st.builds(
    EngineLoad,
    *[uint32] * 6,
    *[uint64] * 6,
    drafters=st.lists(drafter_loads, max_size=3).map(tuple),
)
reports = st.builds(
    ShardReport, st.just(0), st.text(), *[uint32] * 2, *[uint64] * 2, st.none() | uint32, *[uint64] * 2, float64
)


@st.composite
def expert_statuses(draw: st.DrawFn) -> ExpertStatus:
    """Any placement on up to 64 shards, the most there can be."""
    holders = st.sets(st.integers(0, 63), max_size=4).map(lambda shards: tuple(sorted(shards)))
    rows = draw(st.dictionaries(st.integers(0, 90), st.lists(holders, min_size=1, max_size=6).map(tuple), max_size=4))
    ids = [ExpertId(layer, expert) for layer, row in rows.items() for expert in range(len(row))]
    shards = [
        ShardStatus(
            number,
            draw(st.sampled_from(get_args(ShardState))),
            draw(st.sampled_from(("in-process", "unix", "tcp"))),
            draw(st.none() | reports.map(lambda report, number=number: replace(report, shard=number))),
        )
        for number in range(draw(st.integers(1, 4)))
    ]
    return ExpertStatus(
        ExpertPlacement(draw(uint64), rows),
        tuple(shards),
        {expert_id: draw(st.floats(0, 1, width=32)) for expert_id in ids},
        draw(uint64),
        *[draw(float64) for _ in range(2)],
        draw(uint64),
        *[draw(float64) for _ in range(2)],
        draw(st.none() | st.text(min_size=1)),
    )


verifier_loads = st.builds(VerifierLoad, loads, st.none() | expert_statuses())
events: st.SearchStrategy[GenerateEvent] = st.one_of(
    st.builds(Started, uint32, uint32, st.lists(logprobs, max_size=3).map(tuple)),
    st.builds(Delta, uint32, st.text(), st.lists(uint32).map(tuple), st.lists(logprobs, max_size=3).map(tuple)),
    st.builds(
        Final,
        uint32,
        st.text(),
        st.sampled_from(FinishReason),
        usages,
        st.builds(Timings, float32, float32, float32),
    ),
)


@given(requests)
def test_verifier_requests_round_trip_through_the_wire(request: GenerateRequest) -> None:
    wire = convert_verifier.generate_request_to_proto(request).SerializeToString()
    assert convert_verifier.generate_request_from_proto(verifier_pb2.GenerateRequest.FromString(wire)) == request


@given(events)
def test_verifier_events_round_trip_through_the_wire(event: GenerateEvent) -> None:
    wire = convert_verifier.generate_event_to_proto(event).SerializeToString()
    assert convert_verifier.generate_event_from_proto(verifier_pb2.GenerateEvent.FromString(wire)) == event


def test_an_event_of_a_newer_protocol_is_an_error() -> None:
    with pytest.raises(ValueError, match="without an event"):
        convert_verifier.generate_event_from_proto(verifier_pb2.GenerateEvent())


@given(verifier_loads)
def test_loads_round_trip_through_the_wire(load: VerifierLoad) -> None:
    wire = convert_verifier.verifier_load_to_proto(load).SerializeToString()
    assert convert_verifier.verifier_load_from_proto(verifier_pb2.GetVerifierLoadResponse.FromString(wire)) == load


def test_where_all_experts_of_a_large_model_are_fits_a_few_packets() -> None:
    copies = {layer: tuple((expert % 16, 16 + expert % 8) for expert in range(256)) for layer in range(61)}
    load = {ExpertId(layer, expert): 1 / 256 for layer in copies for expert in range(256)}
    status = ExpertStatus(ExpertPlacement(1, copies), (), load, 0, 0.0, 0.0, 0, 0.0, 0.0, None)
    assert (
        len(convert_verifier.verifier_load_to_proto(VerifierLoad(EngineLoad(), status)).SerializeToString()) < 150_000
    )


def decoded(message: completion_pb2.CompleteRequest, card: ModelCard) -> tuple[object, list[str]]:
    found = Violations()
    request = convert.request_from_proto(message, card, found)
    return request, [violation.field for violation in found]


def test_a_silent_request_gets_the_servers_defaults(card: ModelCard) -> None:
    request, bad = decoded(completion_pb2.CompleteRequest(prompt="x"), card)
    assert bad == []
    assert request.input == TextPrompt("x")
    assert request.sampling == convert.default_sampling(card)
    assert request.limits == convert.default_limits(card)
    assert request.priority is Priority.INTERACTIVE
    assert len(request.request_id) == 32
    info = convert.card_to_proto(card)
    assert convert_common.sampling_from_proto(info.default_sampling, Sampling()) == request.sampling
    assert convert_common.limits_from_proto(info.default_limits, Limits()) == request.limits


def test_what_a_request_says_arrives(card: ModelCard) -> None:
    message = completion_pb2.CompleteRequest(
        request_id="r",
        session_id="s",
        model="tiny-coder",
        infill=completion_pb2.Infill(prefix="a", suffix="b"),
        sampling=common_pb2.Sampling(temperature=0.7, top_p=0.9, seed=0, n=2, prompt_logprobs=True),
        limits=common_pb2.Limits(max_tokens=0, max_lines=3, stop=["x", "y"], deadline_ms=9, stop_token_ids=[1]),
        priority=common_pb2.PRIORITY_BATCH,
    )
    request, bad = decoded(message, card)
    assert bad == []
    assert (request.request_id, request.session_id, request.model) == ("r", "s", "tiny-coder")
    assert request.input == Infill("a", "b")
    assert request.sampling == Sampling(temperature=0.7, top_p=0.9, seed=0, n=2, logprobs=0, prompt_logprobs=True)
    assert request.limits == Limits(0, 3, ("x", "y"), (1,), 9, False)
    assert request.priority is Priority.BATCH


def test_inputs(card: ModelCard) -> None:
    token_ids = completion_pb2.CompleteRequest(prompt_token_ids=completion_pb2.TokenIds(ids=[1, 2]))
    assert decoded(token_ids, card)[0].input == TokenPrompt((1, 2))
    assert decoded(completion_pb2.CompleteRequest(prompt=""), card)[0].input == TextPrompt("")
    assert decoded(completion_pb2.CompleteRequest(), card)[1] == ["input"]


@pytest.mark.parametrize(
    ("cursor", "offset", "bad"),
    [
        (completion_pb2.Cursor(offset=3), 2, []),
        (completion_pb2.Cursor(offset=3, unit=completion_pb2.POSITION_UNIT_UTF16_CODE_UNIT), 3, []),
        (completion_pb2.Cursor(line_column=completion_pb2.LineColumn(line=1, column=2)), 5, []),
        (completion_pb2.Cursor(offset=2), None, ["editor.cursor.offset"]),
        (completion_pb2.Cursor(offset=99), None, ["editor.cursor.offset"]),
        (
            completion_pb2.Cursor(line_column=completion_pb2.LineColumn(line=9)),
            None,
            ["editor.cursor.line_column.line"],
        ),
        (completion_pb2.Cursor(), None, ["editor.cursor"]),
        (completion_pb2.Cursor(offset=1, unit=77), None, ["editor.cursor.unit"]),
    ],
)
def test_editor_cursors(card: ModelCard, cursor: completion_pb2.Cursor, offset: int | None, bad: list[str]) -> None:
    state = completion_pb2.EditorState(path="a.go", text="aé\nbcd", cursor=cursor)
    request, fields = decoded(completion_pb2.CompleteRequest(editor=state), card)
    assert fields == bad
    if offset is not None:
        assert request.input == EditorState("a.go", "go", "aé\nbcd", offset)


def test_numbers_of_a_newer_protocol_are_violations(card: ModelCard) -> None:
    assert decoded(completion_pb2.CompleteRequest(prompt="x", priority=9), card)[1] == ["priority"]


def test_a_response_is_the_fold_of_its_events() -> None:
    builder = convert.ResponseBuilder("id", lambda token_id: bytes((token_id,)))
    timings = Timings(1, 2, 3)
    for event in (
        Started(5, 2, (TokenLogprob(97, None), TokenLogprob(98, -0.5))),
        Delta(1, "x", (120,), (TokenLogprob(120, -1.0, ((121, -0.5),)),)),
        Delta(0, "y", (121,)),
        Final(1, "x", FinishReason.STOP, Usage(5, 1, 2, 1, (DrafterUsage("suffix", 1, 4, 0),)), timings),
        Final(0, "y", FinishReason.LENGTH, Usage(5, 3, 2, 2, (DrafterUsage("suffix", 1, 2, 1),)), timings),
    ):
        builder.add(event)
    response = builder.build()
    assert [(choice.index, choice.text) for choice in response.choices] == [(0, "y"), (1, "x")]
    assert response.choices[1].finish_reason == common_pb2.FINISH_REASON_STOP
    assert response.choices[1].logprobs[0].top[0].token == b"y"
    assert (response.usage.prompt_tokens, response.usage.completion_tokens, response.usage.cached_tokens) == (5, 4, 2)
    assert response.usage.rounds == 3
    assert list(response.usage.drafters) == [
        common_pb2.DrafterUsage(drafter="suffix", rounds=2, drafted_tokens=6, accepted_tokens=1)
    ]
    assert not response.prompt_logprobs[0].HasField("logprob")
    assert response.prompt_logprobs[1].token == b"b"
