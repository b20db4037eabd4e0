"""The Verifier deployment: one engine per replica, reached over gRPC, placed and healed by Ray Serve."""

from __future__ import annotations

import asyncio
import logging
import os
from functools import partial
from typing import Any

import grpc.aio
from ray import serve
from ray.util.placement_group import get_current_placement_group

from zenray.build import build_engine
from zenray.config import ZenrayConfig
from zenray.engine.async_engine import AsyncEngine
from zenray.experts.build import expert_status
from zenray.model.load import LoadedModel
from zenray.observe.logs import configure_logging
from zenray.serving.channels import SERVER_OPTIONS, bind
from zenray.serving.directory import Endpoint, Registration, node_ip, watch
from zenray.serving.draft_client import PoolDrafter
from zenray.serving.draft_service import SERVICE_NAME as DRAFT_SERVICE_NAME
from zenray.serving.expert_shards import RayShardHost
from zenray.serving.locality import LocalOnly
from zenray.serving.memory import settle
from zenray.serving.model_card import model_key, served_model_info
from zenray.serving.peers import Watch
from zenray.serving.verifier_service import SERVICE_NAME, VerifierServicer, engine_failure, watch_engine
from zenray.speculative.drafter import Drafter
from zenray.v1 import verifier_pb2_grpc

log = logging.getLogger(__name__)

READINESS_PERIOD_S = 0.1
_STOP_MARGIN_S = 1.0


class Verifier:
    """A replica. Its engine runs on a thread of its own; the hot loop never crosses a Serve handle.

    `peer_host` is where it listens for aggregators; None takes the node's address in the Ray cluster.
    """

    async def __init__(self, config: dict[str, Any], peer_host: str | None) -> None:  # type: ignore[misc]  # Serve awaits it
        configure_logging()
        self._config, self._peer_host = ZenrayConfig.model_validate(config), peer_host
        settings = self._config.server
        replica_id = serve.get_replica_context().replica_id.unique_id
        self._placement_group = get_current_placement_group()
        engine = await asyncio.to_thread(build_engine, self._config, None, self._remote_drafters, self._shard_host)
        self._engine = AsyncEngine(engine)
        await self._engine.start()
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        experts = partial(expert_status, engine.model.decoder.experts)
        model = served_model_info(engine, self._config)
        servicer = VerifierServicer(self._engine, model, replica_id, experts)
        verifier_pb2_grpc.add_VerifierServiceServicer_to_server(servicer, self._server)  # type: ignore[no-untyped-call]
        address = bind(self._server, peer_host or node_ip())
        await self._server.start()
        self._registration = Registration(SERVICE_NAME, Endpoint(replica_id, address, model=model_key(model)))
        await self._registration.start()
        self._watchdog = asyncio.create_task(watch_engine(self._engine, settings.stall_timeout_s, self._give_up))
        self._readiness = asyncio.create_task(self._tell_readiness())
        settle()
        log.info("verifier %s serves %s at %s", replica_id, self._config.model.name, address)

    async def check_health(self) -> None:
        """Serve replaces the replica when this raises or does not return."""
        reason = engine_failure(self._engine, self._config.server.stall_timeout_s)
        if reason is not None:
            raise RuntimeError(reason)

    async def pid(self) -> int:
        """The replica's process, for people and fault tests."""
        return os.getpid()

    async def __del__(self) -> None:
        """Drains: no new request is routed here, running ones finish within drain_timeout_s."""
        if not hasattr(self, "_watchdog"):
            return
        self._watchdog.cancel()
        self._readiness.cancel()
        await self._registration.stop()
        await self._engine.shutdown(self._config.server.drain_timeout_s)
        await self._server.stop(_STOP_MARGIN_S)

    async def _tell_readiness(self) -> None:
        """While some expert has no place the replica lives on, waits for its shards and is sent nothing."""
        said = None
        while True:
            reason = self._engine.unavailable
            if reason != said:
                said = reason
                self._registration.say(reason or "")
                log.warning("%s", f"takes no request: {reason}" if reason else "takes requests again")
            await asyncio.sleep(READINESS_PERIOD_S)

    def _remote_drafters(self, model: LoadedModel) -> list[Drafter]:
        if not self._config.has_draft_pool:
            return []
        pool: Watch = partial(watch, DRAFT_SERVICE_NAME)
        if self._config.context.mode == "local":
            pool = LocalOnly(pool, "draft pool replica")
        return [PoolDrafter(self._config.speculation, model.config.vocab_size, pool)]

    def _shard_host(self, weights_digest: str) -> RayShardHost:
        assert self._placement_group is not None, "a verifier with expert shards has a bundle for each"
        config = self._config
        return RayShardHost(
            config.model,
            config.experts,
            weights_digest,
            self._placement_group,
            self._peer_host,
            local_only=config.context.mode == "local",
        )

    @staticmethod
    def _give_up(reason: str) -> None:
        """A process whose engine is dead or hangs can only lose time: its end tells callers and Serve at once."""
        log.critical("%s; this replica ends", reason)
        logging.shutdown()
        os._exit(1)
