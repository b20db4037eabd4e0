"""A Ray cluster to run on: one of our own on this machine, which leaves nothing behind, or one that is there."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any

import psutil

from zenray.errors import ConfigError, Unavailable
from zenray.serving.environment import prepare_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
_OBJECT_STORE_BYTES = 80 * 2**20  # Ray's minimum: nothing we do passes through the object store.
_LEFTOVER_TIMEOUT_S = 10.0


class Cluster:
    """A connection to Ray. `owned` when this process started Ray and therefore ends it."""

    def __init__(self, address: str | None, num_cpus: float) -> None:
        """Connects to `address`, uses the connection this process already has, or starts Ray on the loopback.

        `num_cpus` are the logical CPUs a Ray of our own offers at least. Raises Unavailable when there is
        no cluster at `address`, ConfigError when Ray cannot start here.
        """
        prepare_environment()
        import ray

        self._processes: list[psutil.Process] = []
        self.owned = False
        self._connected = False
        if ray.is_initialized():
            return
        options: dict[str, Any] = {
            "log_to_driver": False,
            "logging_level": logging.WARNING,
            "namespace": "zenray",
        }
        self._connected = True
        if address is not None:
            try:
                ray.init(address=address, **options)
            except (ConnectionError, ValueError) as error:
                raise Unavailable(f"no Ray cluster answers at {address}: {error}") from error
            return
        self.owned = True
        try:
            ray.init(
                address="local",
                num_cpus=max(os.cpu_count() or 1, round(num_cpus + 0.5)),
                object_store_memory=_OBJECT_STORE_BYTES,
                include_dashboard=False,
                _node_ip_address=LOOPBACK,
                **options,
            )
        except BaseException as error:
            self.stop()
            if isinstance(error, RuntimeError | OSError | ValueError):
                raise ConfigError(f"Ray cannot start on this machine: {error}") from error
            raise
        self._processes = _descendants()

    def stop(self) -> None:
        """Ends what this object started; a Ray that was there before stays."""
        import ray

        if not self._connected:
            return
        self._connected = False
        processes = {process.pid: process for process in (*self._processes, *_descendants())} if self.owned else {}
        with contextlib.suppress(Exception):  # whatever state Ray is in, its processes are ended below
            ray.shutdown()
        _end(list(processes.values()))


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
        command[0].startswith("ray::") or any(f"{os.sep}ray{os.sep}" in word for word in command[:3])
    )


def _end(processes: Sequence[psutil.Process]) -> None:
    """Waits for `processes` to end, and ends the ones that do not."""
    _, alive = psutil.wait_procs(processes, timeout=_LEFTOVER_TIMEOUT_S)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            log.warning("process %d of Ray did not end by itself", process.pid)
            process.kill()
    psutil.wait_procs(alive, timeout=_LEFTOVER_TIMEOUT_S)
