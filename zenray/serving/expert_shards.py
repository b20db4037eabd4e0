"""Expert shards as Ray actors in their verifier's placement group: shard n lives in bundle n, the verifier in bundle 0.

Ray starts and ends the processes; what leader and shards tell each other travels on their own streams
(`zenray.experts.stream_link`). An actor is never restarted by Ray: the leader has to know that the experts are gone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import threading
import time
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from zenray.config import ExpertSettings, ModelSettings
from zenray.errors import ConfigError
from zenray.experts.link import ShardLost, ShardRefused
from zenray.experts.shard_server import ShardServer
from zenray.experts.stream import UNIX
from zenray.experts.stream_link import StreamLink, connect
from zenray.model.build import open_weights, set_num_threads
from zenray.observe.logs import configure_logging
from zenray.serving.directory import node_ip
from zenray.serving.guard import began
from zenray.serving.locality import REMEDY, host_of, is_here
from zenray.serving.memory import settle

log = logging.getLogger(__name__)

PROCESS_TIMEOUT_S = 60.0
"""How long Ray may take to start a process."""
LISTEN_TIMEOUT_S = 300.0
"""How long a shard may take until it listens: a machine that has not served the model yet converts it first."""
_SIGN_TIMEOUT_S = 10.0
"""A shard that is silent for so long meanwhile is stopped or cut off."""
_SIGNS = "signs"
_EMPTY_BUNDLE_CPUS = 0.001


def bundle(num_cpus: float, num_gpus: float) -> dict[str, float]:
    """Resources of one process in a placement group. Ray takes no bundle that is empty."""
    wanted = {"CPU": num_cpus, "GPU": num_gpus}
    return {name: amount for name, amount in wanted.items() if amount} or {"CPU": _EMPTY_BUNDLE_CPUS}


def shard_bundle(experts: ExpertSettings) -> dict[str, float]:
    """What an expert shard takes: all of its bundle, so that a successor starts when its predecessor is gone."""
    return bundle(experts.shard_num_cpus, experts.shard_num_gpus)


@dataclass(frozen=True, slots=True)
class ShardAddress:
    """Where a shard listens, and which process it is: `began` tells it from one that is given its id later."""

    address: str
    node_id: str
    pid: int
    began: str | None


class ExpertShardActor:
    """One process with a `ShardServer`: first `listen`, then `serve`, which is its life."""

    @ray.method(concurrency_group=_SIGNS)
    def show_life(self) -> None:
        """Returns while `listen` takes its time."""

    def listen(
        self, shard: int, model: ModelSettings, experts: ExpertSettings, token: str, leader_node_id: str, peer_host: str
    ) -> ShardAddress:
        """Opens the weights without reading them. `peer_host` as for `Verifier`, "" for None."""
        configure_logging()
        set_num_threads(experts.num_threads)
        node_id = ray.get_runtime_context().get_node_id()
        if experts.transport == UNIX and node_id != leader_node_id:
            raise ConfigError("experts.transport is unix, and the shard is on another machine; set auto or tcp")
        is_unix = experts.transport != "tcp" and node_id == leader_node_id
        bind = UNIX if is_unix else peer_host or node_ip()
        self._server = ShardServer(shard, open_weights(model), experts, token, bind=bind, device=model.device)
        settle()
        return ShardAddress(self._server.address, node_id, os.getpid(), began(os.getpid()))

    def serve(self) -> None:
        """Until the leader hangs up, dies, or never comes. Then the process ends."""
        try:
            self._server.serve()
        except Exception:
            log.exception("an expert shard failed")
        ray.actor.exit_actor()  # type: ignore[no-untyped-call]


class RayShardHost:
    """A `ShardHost` inside a verifier replica, for shards that must have the weights of this digest."""

    def __init__(
        self,
        model: ModelSettings,
        experts: ExpertSettings,
        weights_digest: str,
        placement_group: PlacementGroup,
        peer_host: str | None,
        *,
        local_only: bool = False,
    ) -> None:
        """`local_only`: shards of other machines are refused (context.mode local)."""
        self._local_only = local_only
        self._model, self._experts, self._digest = model, experts, weights_digest
        self._placement_group, self._peer_host = placement_group, peer_host or ""
        self._node_id = ray.get_runtime_context().get_node_id()
        self._lock = threading.Lock()
        self._actors: dict[int, Any] = {}
        self._found: dict[int, ShardAddress] = {}
        self._closed = False

    def start(self, shard: int) -> StreamLink:
        token = secrets.token_hex(32)
        with self._lock:
            self._end_predecessor(shard)
            if self._closed:
                raise ShardLost(shard, "the verifier ends")
            actor = self._actors[shard] = self._make_actor(shard)
        try:
            listening = actor.listen.remote(shard, self._model, self._experts, token, self._node_id, self._peer_host)
            found = _result_of_living(actor, listening)
            actor.serve.remote()
        except (ray.exceptions.RayError, TimeoutError) as error:
            raise ShardLost(shard, f"it did not start: {_cause(error)}") from error
        if self._local_only and found.node_id != self._node_id and not is_here(host_of(found.address)):
            ray.kill(actor, no_restart=True)
            raise ShardRefused(f"context.mode is local, and shard {shard} is on another machine; {REMEDY}")
        with self._lock:
            self._found[shard] = found
        link = connect(found.address, token, self._digest, shard, self._experts, torch.device(self._model.device))
        log.info("expert shard %d is up at %s, process %d", shard, found.address, found.pid)
        return link

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for actor in self._actors.values():
                ray.kill(actor, no_restart=True)

    def _make_actor(self, shard: int) -> Any:
        wanted = shard_bundle(self._experts)
        return (
            ray.remote(concurrency_groups={_SIGNS: 1})(ExpertShardActor)  # type: ignore[call-overload]
            .options(
                num_cpus=wanted.get("CPU", 0),
                num_gpus=wanted.get("GPU", 0),
                max_restarts=0,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    self._placement_group, placement_group_bundle_index=shard
                ),
            )
            .remote()
        )

    def _end_predecessor(self, shard: int) -> None:
        """Also one that is stopped, for which Ray alone would take five seconds."""
        actor, found = self._actors.pop(shard, None), self._found.pop(shard, None)
        if actor is not None:
            ray.kill(actor, no_restart=True)
        if found is not None and found.node_id == self._node_id and found.began == began(found.pid) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(found.pid, signal.SIGKILL)


def _result_of_living(actor: Any, listening: Any) -> ShardAddress:
    """What `listen` returns, for as long as the process shows life. Raises RayError and TimeoutError."""
    deadline_s = time.monotonic() + LISTEN_TIMEOUT_S
    ray.get(actor.show_life.remote(), timeout=PROCESS_TIMEOUT_S)
    while not ray.wait([listening], timeout=_SIGN_TIMEOUT_S)[0]:
        ray.get(actor.show_life.remote(), timeout=_SIGN_TIMEOUT_S)
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"it does not listen after {LISTEN_TIMEOUT_S:g} s")
    found: ShardAddress = ray.get(listening)
    return found


def _cause(error: BaseException) -> str:
    """The first line of what happened, without Ray's traceback."""
    if isinstance(error, ray.exceptions.RayTaskError) and error.cause is not None:
        return f"{type(error.cause).__name__}: {error.cause}"
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
