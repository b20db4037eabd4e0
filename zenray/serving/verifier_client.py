"""Requests to verifier replicas: choose one, stream from it, and carry on when it dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import grpc

from zenray.api.convert_scoring import score_event_from_proto, score_request_to_proto
from zenray.api.convert_verifier import (
    generate_event_from_proto,
    generate_request_to_proto,
    verifier_load_from_proto,
)
from zenray.api.service import VerifierLoad
from zenray.engine.request import Final, FinishReason, GenerateEvent, GenerateRequest, Scored, ScoreEvent
from zenray.engine.scoring import ScoredRows, join_rows
from zenray.errors import DeadlineExceeded, Overloaded, Unavailable
from zenray.serving.asked_records import AskedRecords
from zenray.serving.channels import ReplicaLost, closing_loses, error_of
from zenray.serving.peers import Peer, Peers
from zenray.serving.replay import Replay
from zenray.serving.routing import Candidate, choose_replica
from zenray.v1 import common_pb2, verifier_pb2

DEADLINE_MARGIN_S = 1.0
"""A verifier ends a request at its deadline by itself; one that is this much later does not answer any more."""
INFO_TIMEOUT_S = 2.0
CONNECT_TIMEOUT_S = 1.0
MAX_RERUNS = 3
"""A request that was lost this often may be what kills the replicas: it is given up."""


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """One run of a request on one replica, behind `num_lost` that broke; `begun_s` is of the monotonic clock."""

    num_lost: int
    begun_s: float


class VerifierClient:
    """Streams from whichever replica suits; a request with a seed survives the death of its replica.

    `affinity_slack` is how many requests busier a session's own replica may be before another takes over.
    `failover_timeout_s` is how long a request whose replica died waits for another one. `refused` says why replicas
    that are there are not among the peers.
    """

    def __init__(
        self,
        peers: Peers,
        affinity_slack: int,
        failover_timeout_s: float,
        refused: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._peers = peers
        self._refused = refused
        self._slack, self._failover_timeout_s = affinity_slack, failover_timeout_s
        self.num_reruns = 0

    def check_available(self) -> None:
        """Raises Unavailable, with the reason, unless some replica takes requests."""
        if self._peers.available():
            return
        reasons = {*(peer.endpoint.unavailable for peer in self._peers.listed()), *self._refused()}
        raise Unavailable(f"no verifier replica is ready{': ' if reasons else ''}{'; '.join(sorted(reasons))}")

    async def generate(
        self, request: GenerateRequest, affinity: str, deadline_s: float
    ) -> AsyncGenerator[GenerateEvent, None]:
        """Events of `request`, whose seed is set, until `deadline_s` of the monotonic clock.

        A run that breaks is run again from the start, on another replica where there is one, and goes on
        behind what was passed on already. Raises what the verifier raised, Unavailable when no replica
        takes the request, and DeadlineExceeded when nothing was produced in time.
        """
        begun_s = time.monotonic()
        replay = Replay()
        current: _Run | None = None
        try:
            async with aclosing(self._runs(request, affinity, deadline_s)) as events:
                async for run, event in events:
                    if run is not current:
                        current = run
                        if run.num_lost:
                            replay.rerun((run.begun_s - begun_s) * 1000)
                    assert not isinstance(event, Scored), "nothing was to be scored"
                    fresh = replay.pass_on(event, (time.monotonic() - begun_s) * 1000)
                    if fresh is not None:
                        yield fresh
        except DeadlineExceeded:
            if not replay.produced:
                raise
            total_ms = (time.monotonic() - begun_s) * 1000
            for final in replay.cut(request.sampling.n, FinishReason.DEADLINE, total_ms):
                yield final

    async def score(
        self, request: GenerateRequest, affinity: str, deadline_s: float, on_rows: Callable[[int], None]
    ) -> ScoredRows:
        """All records of `request`, which has `scoring`; `on_rows` hears how many have just come. Chosen, repeated and
        bounded as in `generate`, but all records are of one run: another replica may round otherwise.

        Raises what `generate` does, and DeadlineExceeded whenever they are not whole by `deadline_s`.
        """
        current: _Run | None = None
        parts: list[ScoredRows] = []
        async with aclosing(self._runs(request, affinity, deadline_s)) as events:
            async for run, event in events:
                if run is not current:
                    current, parts = run, []
                if isinstance(event, Scored):
                    parts.append(event.rows)
                    on_rows(event.rows.num_rows)
                elif isinstance(event, Final) and event.finish_reason is not FinishReason.LENGTH:
                    raise Unavailable(f"a verifier ended a request early: {event.finish_reason.value}")
        return join_rows(parts)

    async def _runs(
        self, request: GenerateRequest, affinity: str, deadline_s: float
    ) -> AsyncGenerator[tuple[_Run, GenerateEvent | ScoreEvent], None]:
        """Events of one run after the other, each with its run, until one is whole."""
        full: set[str] = set()
        num_lost = 0
        failover_s: float | None = None  # Until when a request that had a replica looks for another one.
        while True:
            peer = await self._choose(affinity, full, failover_s)
            if not await self._peers.connect(peer, min(CONNECT_TIMEOUT_S, max(0.0, deadline_s - time.monotonic()))):
                peer.suspect()
                failover_s = failover_s or min(deadline_s, time.monotonic() + self._failover_timeout_s)
                continue
            self.num_reruns += num_lost > 0
            run = _Run(num_lost, time.monotonic())
            try:
                async with aclosing(self._run(peer, request, deadline_s)) as events:
                    async for event in events:
                        yield run, event
                return
            except ReplicaLost:
                peer.suspect()
                num_lost += 1
                if num_lost > MAX_RERUNS:
                    raise
                failover_s = min(deadline_s, time.monotonic() + self._failover_timeout_s)
            except Overloaded as error:
                if isinstance(error, Unavailable):
                    raise
                full.add(peer.replica_id)
                if full >= {peer.replica_id for peer in self._peers.available()}:
                    raise

    async def loads(self) -> dict[str, VerifierLoad]:
        """What every replica says of itself now, also one that takes no request; one that does not answer is left
        out."""
        peers = self._peers.listed()
        answers = await asyncio.gather(*(self._load(peer) for peer in peers))
        return {peer.replica_id: load for peer, load in zip(peers, answers, strict=True) if load is not None}

    async def info(self) -> common_pb2.ModelInfo:
        """What is served. Raises Unavailable when no replica answers."""
        for peer in self._peers.listed():
            try:
                with closing_loses():
                    answer = await peer.stub.GetVerifierInfo(
                        verifier_pb2.GetVerifierInfoRequest(), timeout=INFO_TIMEOUT_S
                    )
            except (grpc.RpcError, ReplicaLost):
                continue
            model: common_pb2.ModelInfo = answer.model
            return model
        raise Unavailable("no verifier replica is ready yet")

    async def _load(self, peer: Peer) -> VerifierLoad | None:
        try:
            with closing_loses():
                answer = await peer.stub.GetVerifierLoad(verifier_pb2.GetVerifierLoadRequest(), timeout=INFO_TIMEOUT_S)
        except (grpc.RpcError, ReplicaLost):
            return None
        load = verifier_load_from_proto(answer)
        peer.reported = load.engine.running_sequences + load.engine.waiting_sequences
        return load

    async def _choose(self, affinity: str, full: set[str], failover_s: float | None) -> Peer:
        """A replica that is not in `full`. A request that has lost one waits for one until `failover_s`; any
        other takes a suspect when there is nobody else."""
        if failover_s is not None:
            await self._peers.wait_for_any(max(0.0, failover_s - time.monotonic()))
        peers = [peer for peer in self._peers.available() if peer.replica_id not in full]
        usable = [peer for peer in peers if not peer.is_suspect] or (peers if failover_s is None else [])
        if not usable:
            self.check_available()
            raise Unavailable("no verifier replica can take the request now")
        chosen = choose_replica([Candidate(peer.replica_id, peer.load) for peer in usable], affinity, self._slack)
        return next(peer for peer in usable if peer.replica_id == chosen)

    async def _run(
        self, peer: Peer, request: GenerateRequest, deadline_s: float
    ) -> AsyncGenerator[GenerateEvent | ScoreEvent, None]:
        """One run on one replica. Raises ReplicaLost when it breaks before the last Final or makes no sense."""
        remaining_s = deadline_s - time.monotonic()
        if remaining_s <= 0:
            raise DeadlineExceeded("the deadline passed before a verifier could take the request")
        limits = replace(request.limits, deadline_ms=max(1, int(remaining_s * 1000)))
        request = replace(request, limits=limits)
        open_choices = request.sampling.n
        with self._peers.use(peer), closing_loses():
            call, decode = _call(peer, request, remaining_s + DEADLINE_MARGIN_S)
            try:
                async for reply in call:
                    try:
                        event = decode(reply)
                    except (ValueError, KeyError) as error:
                        raise ReplicaLost(f"a verifier sent what cannot be read: {error}") from error
                    open_choices -= isinstance(event, Final)
                    yield event
            except grpc.RpcError as error:
                raise error_of(error) from error
            finally:
                call.cancel()
        if open_choices:
            raise ReplicaLost("a verifier ended a stream too early")


def _call(
    peer: Peer, request: GenerateRequest, timeout_s: float
) -> tuple[Any, Callable[[Any], GenerateEvent | ScoreEvent]]:
    """The call that answers a request, and what reads its messages."""
    if request.scoring is None:
        return peer.stub.Generate(generate_request_to_proto(request), timeout=timeout_s), generate_event_from_proto
    asked = AskedRecords(request)

    def decode(message: verifier_pb2.ScoreEvent) -> ScoreEvent:
        event = score_event_from_proto(message)
        asked.check(event)
        return event

    return peer.stub.Score(score_request_to_proto(request), timeout=timeout_s), decode
