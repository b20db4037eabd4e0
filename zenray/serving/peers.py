"""The live replicas of a service, each with an open channel, as the directory tells of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from zenray.serving.channels import CHANNEL_OPTIONS
from zenray.serving.directory import Endpoint

log = logging.getLogger(__name__)

SUSPECT_S = 1.0
"""How long a replica that just failed is passed over while others are there."""

Watch = Callable[[], AsyncGenerator[list[Endpoint], None]]


@dataclass(eq=False)
class Peer:
    """One replica. `outstanding` counts our calls on it; `reported` is its own count, as last heard."""

    endpoint: Endpoint
    channel: grpc.aio.Channel
    stub: Any
    outstanding: int = 0
    reported: int = 0
    suspect_until_s: float = field(default=0.0)
    listed: bool = True

    @property
    def replica_id(self) -> str:
        return self.endpoint.replica_id

    @property
    def load(self) -> int:
        return max(self.outstanding, self.reported)

    @property
    def is_suspect(self) -> bool:
        return time.monotonic() < self.suspect_until_s

    def suspect(self) -> None:
        """A call on it just failed."""
        self.suspect_until_s = time.monotonic() + SUSPECT_S


class Peers:
    """Replicas that may be called. One that left the directory keeps its channel until its calls end."""

    def __init__(self, watch: Watch, make_stub: Callable[[grpc.aio.Channel], Any]) -> None:
        self._watch, self._make_stub = watch, make_stub
        self._peers: dict[str, Peer] = {}
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for peer in self._peers.values():
            await peer.channel.close()
        self._peers.clear()

    @property
    def following(self) -> bool:
        """The directory is being watched; nothing but `stop` should end that."""
        return self._task is not None and not self._task.done()

    def listed(self) -> list[Peer]:
        """The replicas in the directory now."""
        return [peer for peer in self._peers.values() if peer.listed]

    def available(self) -> list[Peer]:
        """Those of them that take requests."""
        return [peer for peer in self.listed() if not peer.endpoint.unavailable]

    async def wait_for_any(self, timeout_s: float) -> bool:
        """True as soon as a replica is available and not suspect, False after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            usable = [peer for peer in self.available() if not peer.is_suspect]
            remaining_s = deadline_s - time.monotonic()
            if usable or remaining_s <= 0:
                return bool(usable)
            arrived = self._arrived
            with contextlib.suppress(TimeoutError):  # A suspect is trusted again without any event.
                await asyncio.wait_for(arrived.wait(), min(remaining_s, SUSPECT_S / 4))

    async def connect(self, peer: Peer, timeout_s: float) -> bool:
        """Whether the channel of `peer` is up, or comes up within `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while (state := peer.channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                    if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
                        return False
                    await peer.channel.wait_for_state_change(state)
                return True
        return False

    @contextlib.contextmanager
    def use(self, peer: Peer) -> Iterator[None]:
        """Counts a call on `peer` and keeps its channel open meanwhile."""
        peer.outstanding += 1
        try:
            yield
        finally:
            peer.outstanding -= 1
            if not peer.listed and peer.outstanding == 0:
                self._close_later(peer)

    async def _follow(self) -> None:
        async with contextlib.aclosing(self._watch()) as sets:
            async for endpoints in sets:
                self._update(endpoints)

    def _update(self, endpoints: list[Endpoint]) -> None:
        wanted = {endpoint.replica_id: endpoint for endpoint in endpoints}
        for replica_id, peer in list(self._peers.items()):
            endpoint = wanted.get(replica_id)
            if endpoint is not None and endpoint.address == peer.endpoint.address:
                if endpoint != peer.endpoint:
                    log.info("replica %s %s", replica_id, endpoint.unavailable or "takes requests again")
                peer.endpoint = endpoint
            else:
                peer.listed = False
                del self._peers[replica_id]
                log.info("replica %s left", replica_id)
                if peer.outstanding == 0:
                    self._close_later(peer)
        for replica_id, endpoint in wanted.items():
            if replica_id not in self._peers:
                channel = grpc.aio.insecure_channel(endpoint.address, options=CHANNEL_OPTIONS)
                channel.get_state(try_to_connect=True)  # The first request does not pay for the handshake.
                self._peers[replica_id] = Peer(endpoint, channel, self._make_stub(channel))
                log.info("replica %s at %s joined", replica_id, endpoint.address)
        self._arrived.set()
        self._arrived = asyncio.Event()

    def _close_later(self, peer: Peer) -> None:
        async def close() -> None:
            if peer.outstanding == 0:  # A call may have begun since.
                await peer.channel.close()

        task = asyncio.ensure_future(close())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
