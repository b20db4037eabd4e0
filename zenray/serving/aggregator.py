"""The ContextAggregator deployment: the platform's door, gRPC and HTTP, over the completion service.

Each replica listens by itself. Serve's proxies would add a process and a hop to every token, know neither
`grpc.health.v1` nor a call's deadline, and bind to all interfaces (docs/serving.md has the numbers).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from functools import partial
from typing import Any

import grpc.aio
import uvicorn
from starlette.responses import PlainTextResponse

from zenray.api import grpc_server
from zenray.api.handlers import Handlers
from zenray.api.openai import build_app
from zenray.config import ServerSettings, ZenrayConfig
from zenray.errors import ConfigError
from zenray.model.catalog import is_preset, resolve
from zenray.model.load import load_tokenizer
from zenray.observe.logs import configure_logging
from zenray.serving.channels import bracketed
from zenray.serving.completion import ClusterCompletionService
from zenray.serving.directory import watch
from zenray.serving.locality import LocalOnly
from zenray.serving.memory import settle
from zenray.serving.peers import Peers
from zenray.serving.verifier_client import VerifierClient
from zenray.serving.verifier_service import SERVICE_NAME
from zenray.v1 import verifier_pb2_grpc

log = logging.getLogger(__name__)

_STOP_MARGIN_S = 1.0
_BACKLOG = 256


class ContextAggregator:
    """A replica: assembles prompts, finds a verifier for each, streams back. `verifier` and `draft_pool` are
    Serve handles that make those deployments part of the application; no request crosses them."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, config: dict[str, Any], verifier: Any, draft_pool: Any = None
    ) -> None:
        configure_logging()
        self._config = ZenrayConfig.model_validate(config)
        model, settings = self._config.model, self._config.server
        tokenizer = await asyncio.to_thread(
            lambda: load_tokenizer(model.name if is_preset(model.name) else resolve(model.name), model.preset_overrides)
        )
        verifiers = LocalOnly(partial(watch, SERVICE_NAME), "verifier")
        is_local = self._config.context.mode == "local"
        self._peers = Peers(
            verifiers if is_local else partial(watch, SERVICE_NAME), verifier_pb2_grpc.VerifierServiceStub
        )
        client = VerifierClient(
            self._peers, settings.affinity_slack, settings.failover_timeout_s, lambda: verifiers.refused
        )
        self._service = ClusterCompletionService(self._config, tokenizer, client)
        await self._peers.start()
        self._following = asyncio.create_task(self._service.follow_verifiers())
        self._grpc = await start_grpc(self._service, settings)
        self._http = HttpDoor(self._service, self._config)
        await self._http.start()
        settle()
        log.info("listening on %s, gRPC %d, HTTP %d", settings.host, settings.grpc_port, settings.http_port)

    async def check_health(self) -> None:
        """Serve replaces the replica when this raises: a background task of it has ended."""
        if self._following.done() or not self._peers.following or not self._http.running:
            raise RuntimeError("the aggregator has stopped serving")

    async def pid(self) -> int:
        """The replica's process, for people and fault tests."""
        return os.getpid()

    async def __del__(self) -> None:
        """Drains: closes the doors, lets running requests end within drain_timeout_s."""
        if not hasattr(self, "_http"):
            return
        timeout_s = self._config.server.drain_timeout_s
        await asyncio.gather(
            self._service.drain(timeout_s), self._grpc.stop(timeout_s + _STOP_MARGIN_S), self._http.stop(timeout_s)
        )
        self._following.cancel()
        await self._peers.stop()


async def start_grpc(service: ClusterCompletionService, settings: ServerSettings) -> grpc.aio.Server:
    """The public gRPC server. Its port is shared with the other aggregators of this machine."""
    options = {**dict(grpc_server.SERVER_OPTIONS), "grpc.so_reuseport": 1}
    server = grpc.aio.server(options=list(options.items()))
    server.add_generic_rpc_handlers(grpc_server.generic_handlers(Handlers(service)))
    try:
        server.add_insecure_port(f"{bracketed(settings.host)}:{settings.grpc_port}")
    except RuntimeError as error:
        raise ConfigError(f"server.grpc_port: cannot listen on {settings.host}:{settings.grpc_port}") from error
    await server.start()
    return server


class HttpDoor:
    """The HTTP application on a port shared with the other aggregators of this machine."""

    def __init__(self, service: ClusterCompletionService, config: ZenrayConfig) -> None:
        settings = config.server
        app = build_app(
            lambda: service, metrics=service.metrics.text, max_request_bytes=config.bounds.max_request_bytes
        )
        # Where KubeRay and Ray's own load balancer files look whether this node has a door.
        app.add_api_route("/-/healthz", lambda: PlainTextResponse("success"), methods=["GET"], include_in_schema=False)
        self._socket = _listen(settings.host, settings.http_port)
        self._server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                limit_concurrency=4 * settings.max_ongoing_requests,  # connections; requests are bounded behind it
                timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
            )
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    async def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def stop(self, timeout_s: float) -> None:
        self._server.should_exit = True
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._task, timeout_s + _STOP_MARGIN_S)


class _Server(uvicorn.Server):
    """Leaves the process's signals alone: they are Ray's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigError(f"server.http_port: cannot listen on {host}:{port}: {error.strerror}") from error
    return listener
