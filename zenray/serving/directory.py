"""Where the replicas of a service listen: a small directory of leases, kept by one named Ray actor.

Serve places and heals replicas but gives their addresses to nobody, so each replica that opens a gRPC port
registers it here and renews the lease while it lives; who calls replicas watches the set. Nothing on the
way of a request touches the directory: a watcher keeps what it last knew while the actor restarts.

Any process of the Ray cluster may use it: the aggregator for verifiers, verifiers for the draft pool,
batch jobs for both.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import ray

log = logging.getLogger(__name__)

NAMESPACE = "zenray"
ACTOR_NAME = "zenray-directory"
LEASE_S = 6.0
RENEW_PERIOD_S = 2.0
WATCH_TIMEOUT_S = 30.0
_CALL_TIMEOUT_S = 5.0
_RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One replica of a service and the address of its gRPC server. `unavailable` says why it takes no request now,
    although it lives; empty while it takes them. `model` is the `model_key` of what it serves."""

    replica_id: str
    address: str
    unavailable: str = ""
    model: str = ""


@dataclass(slots=True)
class _Service:
    version: int = 0
    leases: dict[str, tuple[Endpoint, float]] = field(default_factory=dict)


class Leases:
    """The directory's state: endpoints by service, each until its lease ends. `clock` is monotonic seconds."""

    def __init__(self, lease_s: float = LEASE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease_s, self._clock = lease_s, clock
        self._services: dict[str, _Service] = {}

    def renew(self, service_name: str, endpoint: Endpoint) -> bool:
        """Adds or prolongs a lease. True when the set changed."""
        service = self._services.setdefault(service_name, _Service())
        known = service.leases.get(endpoint.replica_id)
        service.leases[endpoint.replica_id] = (endpoint, self._clock() + self._lease_s)
        changed = known is None or known[0] != endpoint
        service.version += changed
        return changed

    def remove(self, service_name: str, replica_id: str) -> bool:
        """Ends a lease. True when there was one."""
        service = self._services.get(service_name)
        if service is None or service.leases.pop(replica_id, None) is None:
            return False
        service.version += 1
        return True

    def expire(self) -> bool:
        """Drops leases that have ended. True when a set changed."""
        now = self._clock()
        changed = False
        for service in self._services.values():
            ended = [replica_id for replica_id, (_, until) in service.leases.items() if until <= now]
            for replica_id in ended:
                del service.leases[replica_id]
            service.version += bool(ended)
            changed |= bool(ended)
        return changed

    def snapshot(self, service_name: str) -> tuple[int, list[Endpoint]]:
        """The version of the set, and the set."""
        service = self._services.get(service_name, _Service())
        return service.version, [endpoint for endpoint, _ in service.leases.values()]


class Directory:
    """The actor. `epoch` tells its incarnations apart: a restarted one has forgotten everything."""

    def __init__(self, lease_s: float = LEASE_S) -> None:
        self._leases = Leases(lease_s)
        self._epoch = time.time_ns()
        self._changed = asyncio.Event()
        self._lease_s = lease_s
        self._expiry: asyncio.Task[None] | None = None

    async def renew(self, service_name: str, endpoint: Endpoint) -> None:
        self._ensure_expiry()
        if self._leases.renew(service_name, endpoint):
            self._announce()

    async def remove(self, service_name: str, replica_id: str) -> None:
        if self._leases.remove(service_name, replica_id):
            self._announce()

    async def watch(
        self, service_name: str, known: tuple[int, int] | None, timeout_s: float
    ) -> tuple[tuple[int, int], list[Endpoint]]:
        """The set as soon as it differs from version `known`, at the latest after `timeout_s`."""
        self._ensure_expiry()
        deadline = time.monotonic() + timeout_s
        while True:
            changed = self._changed
            version, endpoints = self._leases.snapshot(service_name)
            remaining = deadline - time.monotonic()
            if (self._epoch, version) != known or remaining <= 0:
                return (self._epoch, version), endpoints
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), remaining)

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _ensure_expiry(self) -> None:
        if self._expiry is None:
            self._expiry = asyncio.get_running_loop().create_task(self._expire_forever())

    async def _expire_forever(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 4)
            if self._leases.expire():
                self._announce()


def directory_actor() -> Any:
    """A handle of the cluster's directory, which is created when there is none."""
    return (
        ray.remote(Directory)
        .options(
            name=ACTOR_NAME,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
        )
        .remote()
    )


class _Caller:
    """Calls the directory from an event loop, finding the actor anew after a failure."""

    def __init__(self) -> None:
        self._actor: Any = None

    async def __call__(self, method: str, *args: Any, timeout_s: float = _CALL_TIMEOUT_S) -> Any:
        """Raises ConnectionError when there is no answer."""
        try:
            async with asyncio.timeout(timeout_s):
                if self._actor is None:  # Looking an actor up blocks its thread.
                    self._actor = await asyncio.to_thread(directory_actor)
                return await getattr(self._actor, method).remote(*args)
        except (ray.exceptions.RayError, TimeoutError, ValueError) as error:
            self._actor = None
            raise ConnectionError(f"the directory does not answer: {type(error).__name__}") from error


def node_ip() -> str:
    """The address other nodes of the Ray cluster know this one by."""
    node_id = ray.get_runtime_context().get_node_id()
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return next(str(node["NodeManagerAddress"]) for node in nodes if node["NodeID"] == node_id)


def remove_directory() -> None:
    """Ends the cluster's directory, if there is one."""
    with contextlib.suppress(ValueError):
        ray.kill(ray.get_actor(ACTOR_NAME, namespace=NAMESPACE), no_restart=True)


class Registration:
    """Keeps one endpoint in the directory from `start` to `stop`."""

    def __init__(self, service_name: str, endpoint: Endpoint, period_s: float = RENEW_PERIOD_S) -> None:
        self._service_name, self._endpoint, self._period_s = service_name, endpoint, period_s
        self._call = _Caller()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._renew_forever())

    def say(self, unavailable: str) -> None:
        """Tells callers why the endpoint takes no request from now on, or with "" that it does."""
        if unavailable != self._endpoint.unavailable:
            self._endpoint = replace(self._endpoint, unavailable=unavailable)
            self._changed.set()

    async def stop(self) -> None:
        """Callers learn at once that the endpoint has gone."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        try:
            await self._call("remove", self._service_name, self._endpoint.replica_id)
        except ConnectionError:
            log.info("%s was not removed from the directory; its lease will end", self._endpoint.replica_id)

    async def _renew_forever(self) -> None:
        while True:
            self._changed.clear()
            pause_s = self._period_s
            try:
                await self._call("renew", self._service_name, self._endpoint)
            except ConnectionError as error:
                log.warning("%s", error)
                pause_s = _RETRY_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), pause_s)


async def watch(service_name: str) -> AsyncGenerator[list[Endpoint], None]:
    """The endpoints of a service now and after every change, for as long as somebody iterates.

    A restarted directory starts empty, while the replicas it forgot still serve: what was known is kept
    for the time they need to renew.
    """
    call = _Caller()
    known: tuple[int, int] | None = None
    while True:
        try:
            version, endpoints = await call(
                "watch", service_name, known, WATCH_TIMEOUT_S, timeout_s=WATCH_TIMEOUT_S + _CALL_TIMEOUT_S
            )
        except ConnectionError as error:
            log.warning("%s", error)
            await asyncio.sleep(_RETRY_S)
            continue
        if known is not None and version[0] != known[0]:
            await asyncio.sleep(2 * RENEW_PERIOD_S)
            known = None
        elif version != known:
            known = version
            yield endpoints
