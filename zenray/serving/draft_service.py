"""DraftService over a worker: what a draft pool replica answers, without Ray.

Everything a verifier says is checked here, before the worker sees it; a stream that says nonsense ends, and no
other notices.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import cast

import grpc.aio

from zenray.api.convert_common import sampling_from_proto
from zenray.api.status import as_zenray_error, grpc_status
from zenray.api.validate import Violations, collect_choice
from zenray.engine.request import Sampling
from zenray.errors import InvalidRequest, Quantity, ZenrayError
from zenray.serving import channels
from zenray.speculative.draft_model import DraftModel
from zenray.speculative.draft_worker import DraftWorker
from zenray.speculative.drafting import Drafted, Opening
from zenray.v1 import common_pb2, draft_pb2, draft_pb2_grpc

SERVICE_NAME = draft_pb2.DESCRIPTOR.services_by_name["DraftService"].full_name
MAX_SEQUENCES = 512
"""Open sequences of one stream."""
MAX_TOKENS = 1 << 20
"""Committed tokens of all open sequences of one stream."""
MAX_PATH_TOKENS = 128
MAX_WAITING_PATHS = 1024
"""Paths that wait for a verifier that does not read; older ones are dropped, newer ones say more."""
MAX_MESSAGE_BYTES = 8 * 2**20
SERVER_OPTIONS = {**dict(channels.SERVER_OPTIONS), "grpc.max_receive_message_length": MAX_MESSAGE_BYTES}


class DraftServicer(draft_pb2_grpc.DraftServiceServicer):
    """Streams over one draft model, which a worker of its own runs from `start` to `stop`."""

    def __init__(self, model: DraftModel, info: common_pb2.ModelInfo, replica_id: str) -> None:
        self._info, self._replica_id = info, replica_id
        self._worker = DraftWorker(model, self._deliver, self._failed)
        self._loop = asyncio.get_running_loop()
        self._streams: dict[int, _Stream] = {}
        self._numbers = itertools.count()
        self._stopping = False

    @property
    def healthy(self) -> bool:
        """The worker runs."""
        return self._worker.healthy

    def start(self) -> None:
        self._worker.start()

    async def stop(self) -> None:
        """Ends every stream in order, refuses new ones, ends the worker."""
        self._end_streams()
        await asyncio.to_thread(self._worker.stop)

    async def Draft(self, messages: AsyncIterator[draft_pb2.DraftRequest], context: grpc.aio.ServicerContext) -> None:
        stream = _Stream(next(self._numbers), self._worker, self._info.vocab_size)
        self._streams[stream.number] = stream
        if self._stopping:
            stream.end()
        reading = asyncio.create_task(self._read(stream, messages))
        try:
            async for response in stream.responses():
                await context.write(response)
            if stream.error is not None:
                await context.abort_with_status(grpc_status(stream.error))
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            stream.close_all()
            del self._streams[stream.number]

    async def GetDraftInfo(
        self, message: draft_pb2.GetDraftInfoRequest, context: grpc.aio.ServicerContext
    ) -> draft_pb2.GetDraftInfoResponse:
        return draft_pb2.GetDraftInfoResponse(model=self._info, replica_id=self._replica_id)

    async def _read(self, stream: _Stream, messages: AsyncIterator[draft_pb2.DraftRequest]) -> None:
        try:
            async for message in messages:
                stream.take(message)
        except Exception as error:
            stream.error = as_zenray_error(error)
        finally:
            stream.end()

    def _end_streams(self) -> None:
        self._stopping = True
        for stream in self._streams.values():
            stream.end()

    def _failed(self) -> None:
        """On the worker's thread: verifiers learn at once what Serve finds at its next health check."""
        self._loop.call_soon_threadsafe(self._end_streams)

    def _deliver(self, found: list[Drafted]) -> None:
        """On the worker's thread."""
        self._loop.call_soon_threadsafe(self._sort, found)

    def _sort(self, found: list[Drafted]) -> None:
        for drafted in found:
            number, key = cast(tuple[int, int], drafted.key)
            stream = self._streams.get(number)
            if stream is not None:
                stream.put(key, drafted)


class _Stream:
    """One verifier's sequences, and what waits to be sent to it."""

    def __init__(self, number: int, worker: DraftWorker, vocab_size: int) -> None:
        self.number = number
        self.error: ZenrayError | None = None
        self._worker = worker
        self._vocab_size = vocab_size
        self._lengths: dict[int, int] = {}  # committed tokens by key
        self._num_tokens = 0
        self._paths: deque[draft_pb2.DraftedPath] = deque(maxlen=MAX_WAITING_PATHS)
        self._wake = asyncio.Event()
        self._ended = False

    def end(self) -> None:
        """Nothing more will be sent."""
        self._ended = True
        self._wake.set()

    async def responses(self) -> AsyncIterator[draft_pb2.DraftResponse]:
        """All that waits, in one message, as soon as anything does; until the end."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._ended:
                return
            paths = list(self._paths)
            self._paths.clear()
            if paths:
                yield draft_pb2.DraftResponse(paths=paths)

    def put(self, key: int, drafted: Drafted) -> None:
        if key in self._lengths:
            self._paths.append(
                draft_pb2.DraftedPath(
                    key=key,
                    base_length=drafted.base_length,
                    token_ids=drafted.token_ids,
                    classes=drafted.classes,
                    token_ms=drafted.token_ms,
                )
            )
            self._wake.set()

    def take(self, message: draft_pb2.DraftRequest) -> None:
        """Raises InvalidRequest for a message out of bounds; what stands before the fault has been taken."""
        for opening in message.openings:
            self._open(opening)
        for commit in message.commits:
            self._commit(commit)
        for key in message.closed_keys:
            if key in self._lengths:
                self._close(key)

    def close_all(self) -> None:
        for key in list(self._lengths):
            self._close(key)

    def _open(self, message: draft_pb2.DraftOpening) -> None:
        checked = check_opening(message, self._vocab_size)
        if message.key in self._lengths:
            raise InvalidRequest.of("openings.key", message.key, "a key that is not open")
        if len(self._lengths) >= MAX_SEQUENCES:
            raise InvalidRequest.of("openings", Quantity(len(self._lengths) + 1, "sequences"), f"{MAX_SEQUENCES}")
        self._count(message.key, len(message.token_ids))
        self._worker.open((self.number, message.key), checked)

    def _commit(self, message: draft_pb2.DraftCommit) -> None:
        length = self._lengths.get(message.key)
        if length is None:
            return
        check_token_ids("commits.token_ids", message.token_ids, self._vocab_size)
        if message.base_length != length:
            raise InvalidRequest.of("commits.base_length", message.base_length, f"{length}, what was committed before")
        self._count(message.key, len(message.token_ids))
        self._worker.commit((self.number, message.key), message.token_ids)

    def _close(self, key: int) -> None:
        self._num_tokens -= self._lengths.pop(key)
        self._worker.close((self.number, key))

    def _count(self, key: int, num_tokens: int) -> None:
        if self._num_tokens + num_tokens > MAX_TOKENS:
            total = Quantity(self._num_tokens + num_tokens, "tokens")
            raise InvalidRequest.of("token_ids", total, f"at most {MAX_TOKENS} tokens of open sequences")
        self._num_tokens += num_tokens
        self._lengths[key] = self._lengths.get(key, 0) + num_tokens


def check_opening(message: draft_pb2.DraftOpening, vocab_size: int) -> Opening:
    """The opening as the worker takes it. Raises InvalidRequest naming what is out of bounds."""
    check_token_ids("openings.token_ids", message.token_ids, vocab_size)
    if not 0 < message.num_prompt_tokens <= len(message.token_ids):
        raise InvalidRequest.of("openings.num_prompt_tokens", message.num_prompt_tokens, "1 to the number of token ids")
    if not 0 < message.max_draft_tokens <= MAX_PATH_TOKENS:
        raise InvalidRequest.of("openings.max_draft_tokens", message.max_draft_tokens, f"1 to {MAX_PATH_TOKENS}")
    sampling = sampling_from_proto(message.sampling, Sampling())
    found = Violations()
    collect_choice(sampling, found)
    found.raise_if_any()
    return Opening(
        tuple(message.token_ids),
        message.num_prompt_tokens,
        replace(sampling, seed=None, n=1, logprobs=None, prompt_logprobs=False),
        message.seed,
        message.max_draft_tokens,
    )


def check_token_ids(field: str, token_ids: Iterable[int], vocab_size: int) -> None:
    """Raises InvalidRequest unless there are token ids, all of the vocabulary."""
    largest = max(token_ids, default=None)
    if largest is None or largest >= vocab_size:
        raise InvalidRequest.of(field, largest, f"at least one id, each 0 to {vocab_size - 1}")
