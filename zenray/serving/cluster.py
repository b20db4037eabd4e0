"""A Ray cluster to run on: one of our own on this machine, which leaves nothing behind, or one that is there."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import psutil

from zenray.errors import ConfigError, Unavailable
from zenray.serving.environment import put_interpreter_first
from zenray.serving.guard import Guard
from zenray.serving.preflight import free_port

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
_OBJECT_STORE_BYTES = 80 * 2**20  # Ray's minimum. Only rows of jobs pass through it; what does not fit goes to disk.
_LEFTOVER_TIMEOUT_S = 10.0
_CONNECT_TIMEOUT_S = 5.0
_AGENT_PORT = 52365  # Ray's default.


class Cluster:
    """A connection to Ray. `owned` when this process started Ray and therefore ends it.

    `peer_host` is where replicas listen for each other; None is their node's address in the cluster. `job_server` is
    the URL that takes jobs; None where there is none.
    """

    def __init__(self, address: str | None, num_cpus: float, dashboard_port: int | None = None) -> None:
        """Connects to `address`, else uses the connection this process has, else starts Ray on this machine.

        `num_cpus` are the logical CPUs a Ray of our own offers at least; its dashboard is on `dashboard_port` of the
        loopback or the next free one, 0 takes any, None starts none. Raises Unavailable when there is
        no cluster at `address`, ConfigError for an address that is none and when Ray cannot start here.
        """
        import ray

        self.owned = False
        self.peer_host: str | None = None
        self.job_server: str | None = None
        self._connected = False
        self._processes: list[psutil.Process] = []
        self._guard: Guard | None = None
        if ray.is_initialized():
            connected = ray.get_runtime_context().gcs_address
            if address not in (None, "auto", connected):
                raise Unavailable(f"this process is connected to the Ray cluster at {connected}, not to {address}")
        elif address is not None:
            self._connect(address)
        else:
            self._start(num_cpus, dashboard_port)

    def node_addresses(self) -> list[str]:
        """The machines that are part of the cluster now."""
        import ray

        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        return [str(node["NodeManagerAddress"]) for node in nodes if node["Alive"]]

    def stop(self) -> None:
        """Ends what this object started; a Ray that was there before stays."""
        import ray

        if not self._connected:
            return
        self._connected = False
        processes = {process.pid: process for process in (*self._processes, *_descendants())} if self.owned else {}
        with contextlib.suppress(Exception):  # whatever state Ray is in, its processes are ended below
            ray.shutdown()
        _end([process for pid, process in processes.items() if self._guard is None or pid != self._guard.pid])
        if self._guard is not None:
            self._guard.dismiss()

    def _connect(self, address: str) -> None:
        import ray

        if address != "auto":
            check_address(address)
        try:
            with _our_signals():
                self.job_server = _job_server(ray.init(address=address, **_options()))
        except (ConnectionError, ValueError) as error:
            raise Unavailable(f"no Ray cluster answers at {address}: {error}") from error
        self._connected = True

    def _start(self, num_cpus: float, dashboard_port: int | None) -> None:
        import ray

        put_interpreter_first()
        self.owned = self._connected = True
        self.peer_host = LOOPBACK
        self._guard = Guard()
        try:
            with _our_signals(), _agent_on_a_free_port():
                context = ray.init(
                    address="local",
                    num_cpus=max(os.cpu_count() or 1, round(num_cpus + 0.5)),
                    object_store_memory=_OBJECT_STORE_BYTES,
                    include_dashboard=dashboard_port is not None,
                    dashboard_host=LOOPBACK,
                    dashboard_port=None if dashboard_port is None else free_port(LOOPBACK, dashboard_port),
                    **_options(),
                )
        except BaseException as error:
            self.stop()
            if isinstance(error, RuntimeError | OSError | ValueError):
                raise ConfigError(f"Ray cannot start on this machine: {error}") from error
            raise
        self.job_server = _job_server(context)
        self._processes = _descendants()
        self._guard.watch(process.pid for process in self._processes)


def check_address(address: str) -> None:
    """Raises ConfigError for what is not HOST:PORT, Unavailable where nothing listens. Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()) or "/" in host:
        raise ConfigError(f"a Ray cluster's address is HOST:PORT of its head, or auto, not {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise Unavailable(f"no Ray cluster answers at {address}: {error}") from error


def find_cluster() -> str | None:
    """HOST:PORT of the Ray that runs on this machine; None where none does. Raises ConfigError where several do."""
    from ray._private.services import find_gcs_addresses

    found = sorted(find_gcs_addresses())  # type: ignore[no-untyped-call]
    if len(found) > 1:
        raise ConfigError(f"several Ray clusters run on this machine: {', '.join(found)}; choose one by --ray-address")
    return found[0] if found else None


@contextlib.contextmanager
def _agent_on_a_free_port() -> Iterator[None]:
    """Gives each Ray on a machine its own agent's port. Where another has the usual one, the agent has no server, and
    the job server answers that there is no agent to take a job. `ray.init` has no argument for it."""
    from ray._private.parameter import RayParams

    initialise = RayParams.__init__
    port = free_port(LOOPBACK, _AGENT_PORT)
    RayParams.__init__ = functools.partialmethod(initialise, dashboard_agent_listen_port=port)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        RayParams.__init__ = initialise  # type: ignore[method-assign]


@contextlib.contextmanager
def _our_signals() -> Iterator[None]:
    """Keeps this process's handling of signals: ray.init puts its own in place of SIGTERM's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _job_server(context: Any) -> str | None:
    return f"http://{context.dashboard_url}" if context.dashboard_url else None


def _options() -> dict[str, Any]:
    return {"log_to_driver": False, "logging_level": logging.WARNING, "namespace": "zenray"}


def _descendants() -> list[psutil.Process]:
    """Everything below this process that belongs to Ray: its own programs and the workers they start."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if _is_rays(process):
                found.append(process)
    return found


def _is_rays(process: psutil.Process) -> bool:
    command = process.cmdline()
    return bool(command) and (
        command[0].startswith(("ray::", "ray-dashboard-"))
        or any(f"{os.sep}ray{os.sep}" in word for word in command[:3])
    )


def _end(processes: Sequence[psutil.Process]) -> None:
    """Waits for `processes` to end, and ends the ones that do not."""
    _, alive = psutil.wait_procs(processes, timeout=_LEFTOVER_TIMEOUT_S)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            log.warning("process %d of Ray did not end by itself", process.pid)
            process.kill()
    psutil.wait_procs(alive, timeout=_LEFTOVER_TIMEOUT_S)
