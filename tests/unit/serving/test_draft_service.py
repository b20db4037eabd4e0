"""What a draft replica accepts: everything out of bounds ends the stream that said it, and no other."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from zenray.model.load import LoadedModel
from zenray.serving import draft_service
from zenray.serving.channels import CHANNEL_OPTIONS, bind
from zenray.serving.draft_service import MAX_PATH_TOKENS, SERVER_OPTIONS, DraftServicer
from zenray.speculative.draft_model import DraftModel
from zenray.v1 import common_pb2, draft_pb2, draft_pb2_grpc

VOCAB = 264


@asynccontextmanager
async def serving(weights: LoadedModel) -> AsyncIterator[tuple[draft_pb2_grpc.DraftServiceStub, DraftServicer]]:
    servicer = DraftServicer(DraftModel(weights, 256), common_pb2.ModelInfo(vocab_size=VOCAB), "a")
    servicer.start()
    server = grpc.aio.server(options=list(SERVER_OPTIONS.items()))
    draft_pb2_grpc.add_DraftServiceServicer_to_server(servicer, server)
    address = bind(server, "127.0.0.1")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
            yield draft_pb2_grpc.DraftServiceStub(channel), servicer
    finally:
        await servicer.stop()
        await server.stop(None)
        assert not servicer.healthy


def opening(key: int = 1, **fields: Any) -> draft_pb2.DraftOpening:
    return draft_pb2.DraftOpening(
        **{"key": key, "token_ids": [1, 2, 3], "num_prompt_tokens": 3, "max_draft_tokens": 4, **fields}
    )


def request(*openings: draft_pb2.DraftOpening, **fields: Any) -> draft_pb2.DraftRequest:
    return draft_pb2.DraftRequest(openings=openings, **fields)


def commit(key: int, base_length: int, *token_ids: int) -> draft_pb2.DraftCommit:
    return draft_pb2.DraftCommit(key=key, base_length=base_length, token_ids=token_ids)


async def first_path(call: Any, key: int, base_length: int) -> draft_pb2.DraftedPath:
    """The next path for a sequence behind so many tokens."""
    while True:
        response = await call.read()
        assert response is not grpc.aio.EOF
        for path in response.paths:
            if (path.key, path.base_length) == (key, base_length):
                return path


async def how_it_ended(call: Any) -> grpc.StatusCode:
    """The status of a stream, once it has ended."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:
            pass
    status: grpc.StatusCode = await call.code()
    return status


NONSENSE = {
    "no tokens": [request(opening(token_ids=[]))],
    "a token beyond the vocabulary": [request(opening(token_ids=[1, VOCAB]))],
    "no prompt": [request(opening(num_prompt_tokens=0))],
    "more prompt than tokens": [request(opening(num_prompt_tokens=4))],
    "no draft": [request(opening(max_draft_tokens=0))],
    "an endless draft": [request(opening(max_draft_tokens=MAX_PATH_TOKENS + 1))],
    "sampling out of range": [request(opening(sampling=common_pb2.Sampling(temperature=11)))],
    "sampling that is no number": [request(opening(sampling=common_pb2.Sampling(top_p=float("nan"))))],
    "one key for two": [request(opening(1), opening(1))],
    "a commit of nothing": [request(opening(1)), request(commits=[commit(1, 3)])],
    "a commit beyond the vocabulary": [request(opening(1), commits=[commit(1, 3, VOCAB)])],
    "a commit with a gap before it": [request(opening(1), commits=[commit(1, 4, 5)])],
    "a commit said twice": [request(opening(1), commits=[commit(1, 3, 5), commit(1, 3, 5)])],
}


@pytest.mark.parametrize("what", NONSENSE)
async def test_nonsense_ends_its_stream_and_no_other(draft_weights: LoadedModel, what: str) -> None:
    async with serving(draft_weights) as (stub, servicer):
        other, call = stub.Draft(), stub.Draft()
        await other.write(request(opening(1)))
        assert (await first_path(other, 1, 3)).token_ids
        for message in NONSENSE[what]:
            await call.write(message)
        assert await how_it_ended(call) is grpc.StatusCode.INVALID_ARGUMENT
        await other.write(request(commits=[commit(1, 3, 9)]))
        assert (await first_path(other, 1, 4)).token_ids
        assert servicer.healthy


async def test_what_is_not_open_is_ignored_and_keys_belong_to_their_stream(draft_weights: LoadedModel) -> None:
    async with serving(draft_weights) as (stub, _):
        one, two = stub.Draft(), stub.Draft()
        await one.write(request(commits=[commit(99, 3, 5)], closed_keys=[98]))
        await one.write(request(opening(1)))
        await two.write(request(opening(1, token_ids=[7, 8, 9, 10])))
        paths = [await first_path(one, 1, 3), await first_path(two, 1, 4)]
        assert all(len(path.token_ids) == len(path.classes) > 0 for path in paths)
        await one.write(request(opening(2), closed_keys=[1]))
        await one.write(request(commits=[commit(1, 3, 5)]))
        assert (await first_path(one, 2, 3)).token_ids


async def test_sequences_and_tokens_of_a_stream_are_bounded(
    draft_weights: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft_service, "MAX_SEQUENCES", 2)
    monkeypatch.setattr(draft_service, "MAX_TOKENS", 10)
    async with serving(draft_weights) as (stub, _):
        within = stub.Draft()
        for key in range(1, 9):  # One after the other is no more than one at a time.
            await within.write(request(opening(key), closed_keys=[key]))
        await within.write(request(opening(10), opening(11)))
        assert await first_path(within, 11, 3)
        for message in (
            request(opening(1), opening(2), opening(3)),
            request(opening(1), commits=[commit(1, 3, *[5] * 8)]),
        ):
            call = stub.Draft()
            await call.write(message)
            assert await how_it_ended(call) is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_verifier_that_does_not_read_costs_a_bounded_queue(
    draft_weights: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft_service, "MAX_WAITING_PATHS", 3)
    from zenray.speculative.drafting import Drafted

    class NoWorker:
        def open(self, key: object, opened: object) -> None: ...

    stream = draft_service._Stream(0, NoWorker(), VOCAB)  # type: ignore[arg-type]
    stream.take(request(opening(1)))
    for length in range(1, 9):
        stream.put(1, Drafted((0, 1), 3, (5,) * length, (1,) * length, 1.0))
    response = await anext(stream.responses())
    assert [len(path.token_ids) for path in response.paths] == [6, 7, 8]


async def test_a_replica_that_stops_ends_its_streams_in_order(draft_weights: LoadedModel) -> None:
    async with serving(draft_weights) as (stub, servicer):
        call = stub.Draft()
        await call.write(request(opening(1)))
        await first_path(call, 1, 3)
        await servicer.stop()
        assert await how_it_ended(call) is grpc.StatusCode.OK
        late = stub.Draft()
        assert await late.read() is grpc.aio.EOF


async def test_a_model_that_fails_ends_the_streams_at_once(
    draft_weights: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the accelerator is gone")

    monkeypatch.setattr(DraftModel, "extend", fail)
    async with serving(draft_weights) as (stub, servicer):
        call = stub.Draft()
        await call.write(request(opening(1)))
        assert await how_it_ended(call) is grpc.StatusCode.OK
        assert not servicer.healthy
