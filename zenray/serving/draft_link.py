"""Streams to the draft pool's replicas: one per replica, each kept up by a thread of its own.

The engine's thread hands messages over and never waits. The streams are gRPC's synchronous ones: there and back
takes 0.40 ms, 0.46 ms with grpc.aio, which moreover makes two event loops of one process wake each other for
every message, and a verifier has one already.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from zenray.serving.channels import CHANNEL_OPTIONS
from zenray.serving.directory import Endpoint
from zenray.serving.peers import Watch
from zenray.v1 import draft_pb2, draft_pb2_grpc

log = logging.getLogger(__name__)

MAX_UNSENT_TOKENS = 1 << 20
"""Tokens that may wait for a replica that does not read. One that is this far behind is cut off."""
INFO_TIMEOUT_S = 2.0
FIRST_BACKOFF_S = 0.1
LAST_BACKOFF_S = 5.0
_JOIN_TIMEOUT_S = 10.0


class Link:
    """One stream to one replica, from its beginning to its end; a stream that broke is never used again."""

    def __init__(self, replica_id: str) -> None:
        self.replica_id = replica_id
        self.is_open = True
        self._changed = threading.Condition()
        self._unsent = draft_pb2.DraftRequest()
        self._num_unsent = 0
        self._is_flushed = False
        self._call: Any = None

    def open_sequence(self, opening: draft_pb2.DraftOpening) -> None:
        """To be sent at the next `flush`, like the two below."""
        with self._changed:
            self._unsent.openings.append(opening)
            self._num_unsent += len(opening.token_ids)

    def commit(self, key: int, base_length: int, token_ids: list[int]) -> None:
        with self._changed:
            self._unsent.commits.add(key=key, base_length=base_length, token_ids=token_ids)
            self._num_unsent += len(token_ids)

    def close_sequence(self, key: int) -> None:
        with self._changed:
            self._unsent.closed_keys.append(key)
            self._num_unsent += 1

    def flush(self) -> None:
        """Lets go what has gathered. Does not wait; a replica that does not read is cut off."""
        with self._changed:
            is_behind = self._num_unsent > MAX_UNSENT_TOKENS
            self._is_flushed = self._num_unsent > 0
            self._changed.notify_all()
        if is_behind:
            self.close()

    def close(self) -> None:
        """Ends the stream. Any thread, any number of times."""
        with self._changed:
            self.is_open = False
            self._changed.notify_all()
            call = self._call
        if call is not None:
            call.cancel()

    def run(self, stub: Any, landed: Callable[[Link, draft_pb2.DraftResponse], None]) -> None:
        """Carries messages until the stream ends. `landed` raises ValueError for an answer that makes no sense.

        Raises what ended the stream; returns when the replica ended it in order.
        """
        call = stub.Draft(self._messages())
        with self._changed:
            self._call = call
        if not self.is_open:
            call.cancel()
        try:
            for response in call:
                landed(self, response)
        finally:
            self.close()

    def _messages(self) -> Iterator[draft_pb2.DraftRequest]:
        """On a thread of gRPC's, which asks for the next message when the replica has room for it."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_flushed or not self.is_open)
                if not self.is_open:
                    return
                message, self._unsent = self._unsent, draft_pb2.DraftRequest()
                self._num_unsent, self._is_flushed = 0, False
            yield message


class Links:
    """A link to every replica the directory lists, made again with a growing pause when it ends.

    `began` and `ended` tell of links; they and `landed` run on the links' threads and must not block. A replica
    whose vocabulary is not `vocab_size` is not used.
    """

    def __init__(
        self,
        watch: Watch,
        vocab_size: int,
        began: Callable[[Link], None],
        ended: Callable[[Link], None],
        landed: Callable[[Link, draft_pb2.DraftResponse], None],
    ) -> None:
        self._watch, self._vocab_size = watch, vocab_size
        self._began, self._ended, self._landed = began, ended, landed
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._keepers: dict[Endpoint, _Keeper] = {}
        self._thread = threading.Thread(target=self._run, name="zenray-draft-links", daemon=True)
        self._thread.start()

    def shutdown(self) -> None:
        """Ends every link and every thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_JOIN_TIMEOUT_S)
        for keeper in self._keepers.values():
            keeper.stop()
        for keeper in self._keepers.values():
            keeper.join()

    def connect(self, endpoint: Endpoint, started: Callable[[Link], None]) -> None:
        """Runs one link; `started` is told of it first. Raises ValueError for a replica that cannot draft for this
        verifier, and whatever ends the link."""
        with grpc.insecure_channel(endpoint.address, options=CHANNEL_OPTIONS) as channel:
            stub = draft_pb2_grpc.DraftServiceStub(channel)  # type: ignore[no-untyped-call]
            info = stub.GetDraftInfo(draft_pb2.GetDraftInfoRequest(), timeout=INFO_TIMEOUT_S)
            if info.model.vocab_size != self._vocab_size:
                raise ValueError(f"its vocabulary has {info.model.vocab_size} tokens, not {self._vocab_size}")
            link = Link(endpoint.replica_id)
            started(link)
            self._began(link)
            try:
                link.run(stub, self._landed)
            finally:
                self._ended(link)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._until_stopped())

    async def _until_stopped(self) -> None:
        following = asyncio.create_task(self._follow())
        await self._stop.wait()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    async def _follow(self) -> None:
        """Keeps a link to each listed endpoint."""
        while True:
            try:
                async with contextlib.aclosing(self._watch()) as sets:
                    async for endpoints in sets:
                        for endpoint in set(self._keepers) - set(endpoints):
                            self._keepers.pop(endpoint).stop()
                        for endpoint in set(endpoints) - set(self._keepers):
                            self._keepers[endpoint] = _Keeper(endpoint, self)
            except Exception:  # What is known stays in use.
                log.exception("the draft pool cannot be followed")
            await asyncio.sleep(LAST_BACKOFF_S)


class _Keeper:
    """A thread that keeps a link to one endpoint until it is stopped."""

    def __init__(self, endpoint: Endpoint, links: Links) -> None:
        self._endpoint, self._links = endpoint, links
        self._link: Link | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"zenray-draft-link {endpoint.address}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._link is not None:
            self._link.close()

    def join(self) -> None:
        self._thread.join(_JOIN_TIMEOUT_S)

    def _started(self, link: Link) -> None:
        self._link = link
        if self._stopped.is_set():
            link.close()

    def _keep(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        while not self._stopped.is_set():
            begun_s = time.monotonic()
            try:
                self._links.connect(self._endpoint, self._started)
                reason: object = "in order"
            except Exception as error:
                reason = error.code() if isinstance(error, grpc.RpcError) else error
            if not self._stopped.is_set():
                log.warning("the stream to draft replica %s ended: %s", self._endpoint.replica_id, reason)
            if time.monotonic() - begun_s > LAST_BACKOFF_S:
                backoff_s = FIRST_BACKOFF_S
            self._stopped.wait(backoff_s)
            backoff_s = min(2 * backoff_s, LAST_BACKOFF_S)
