"""Several machines on one, for tests: network namespaces on a bridge, a Ray node in each, links that can be cut.

Needs root and iproute2. What runs in a namespace sees its own addresses and ports, and everything else of this machine.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Self

from zenray.serving.harness import eventually

RAY_PORT = 6379
_OBJECT_STORE_BYTES = 80 * 2**20


class HostsNotPermitted(Exception):
    """This process may not make network namespaces."""


@contextlib.contextmanager
def without_network() -> Iterator[list[str]]:
    """What to put before a command so that it sees no network but the loopback. Its processes end with the block.
    Raises HostsNotPermitted."""
    if shutil.which("ip") is None:
        raise HostsNotPermitted("network namespaces need the ip command of iproute2")
    namespace = f"zr{os.getpid()}-alone"
    try:
        _ip("netns", "add", namespace)
    except subprocess.CalledProcessError as error:
        raise HostsNotPermitted(f"network namespaces cannot be made here: {error.stderr.strip()}") from error
    try:
        _ip("-n", namespace, "link", "set", "lo", "up")
        yield ["ip", "netns", "exec", namespace]
    finally:
        for pid in _ip("netns", "pids", namespace).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _ip("netns", "delete", namespace)


class Hosts:
    """`addresses` are the hosts' own; this process reaches them too. Everything in them ends with the `with` block."""

    def __init__(self, num_hosts: int) -> None:
        # Names of interfaces have 15 characters at most.
        self._prefix = f"zr{os.getpid()}"
        self._bridge = f"{self._prefix}b"
        network = f"10.213.{os.getpid() % 256}"
        self.addresses = [f"{network}.{10 + host}" for host in range(num_hosts)]
        self._own_address = f"{network}.1"

    def __enter__(self) -> Self:
        """Raises HostsNotPermitted."""
        if shutil.which("ip") is None:
            raise HostsNotPermitted("network namespaces need the ip command of iproute2")
        try:
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("address", "add", f"{self._own_address}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            for host in range(len(self.addresses)):
                self._add(host)
        except subprocess.CalledProcessError as error:
            self.__exit__()
            raise HostsNotPermitted(f"network namespaces cannot be made here: {error.stderr.strip()}") from error
        return self

    def __exit__(self, *exception: object) -> None:
        for host in range(len(self.addresses)):
            with contextlib.suppress(subprocess.CalledProcessError):
                self.end_processes(host)
                _ip("netns", "delete", self._namespace(host))
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("link", "delete", self._bridge)

    def end_processes(self, host: int) -> None:
        """Every process of a host, and those they start meanwhile."""

        def ended() -> bool:
            running = self._pids(host)
            for pid in running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not running

        eventually(ended, "the host's processes have ended")

    def start(
        self, host: int, command: Sequence[str], environment: dict[str, str] | None = None, stdout: int | None = None
    ) -> subprocess.Popen[str]:
        """A process on a host."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self._namespace(host), *command],  # noqa: S607
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=None if stdout is None else subprocess.STDOUT,
            text=True,
        )

    def host_of(self, pid: int) -> int:
        """Where a process runs."""
        return next(host for host in range(len(self.addresses)) if pid in self._pids(host))

    def cut(self, host: int) -> None:
        """From now on the host hears nothing and nobody hears it: no reset, no end of a stream, silence."""
        _ip("link", "set", self._link(host), "down")

    def mend(self, host: int) -> None:
        _ip("link", "set", self._link(host), "up")

    def _add(self, host: int) -> None:
        namespace, link = self._namespace(host), self._link(host)
        _ip("netns", "add", namespace)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("link", "set", link, "master", self._bridge, "up")
        _ip("-n", namespace, "address", "add", f"{self.addresses[host]}/24", "dev", "eth0")
        for interface in ("lo", "eth0"):
            _ip("-n", namespace, "link", "set", interface, "up")

    def _namespace(self, host: int) -> str:
        return f"{self._prefix}-{host}"

    def _link(self, host: int) -> str:
        return f"{self._prefix}l{host}"

    def _pids(self, host: int) -> list[int]:
        return [int(pid) for pid in _ip("netns", "pids", self._namespace(host)).split()]


@contextlib.contextmanager
def ray_on(hosts: Hosts, node_options: Sequence[Sequence[str]]) -> Iterator[dict[str, str]]:
    """A Ray node on every host, the head on the first, each with its options of `ray start`. Yields the environment
    that whoever connects needs: the cluster asks for a token, as one of ours does."""
    import zenray.serving  # noqa: F401  # prepares the environment that Ray reads

    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    folder = tempfile.mkdtemp(prefix="zenray-")  # short: Ray's sockets are in it
    head = f"{hosts.addresses[0]}:{RAY_PORT}"
    try:
        for host, options in enumerate(node_options):
            role = ["--head", f"--port={RAY_PORT}", "--include-dashboard=false"]
            command = [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
                *(role if host == 0 else [f"--address={head}"]),
                f"--node-ip-address={hosts.addresses[host]}",
                f"--temp-dir={folder}/{host}",
                f"--object-store-memory={_OBJECT_STORE_BYTES}",
                *options,
            ]
            hosts.start(host, command, environment, subprocess.DEVNULL)
            if host == 0:
                eventually(lambda: _answers(hosts.addresses[0], RAY_PORT), "the head answers")
        yield environment
    finally:
        for host in range(len(node_options)):
            hosts.end_processes(host)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


def _ip(*arguments: str) -> str:
    """Raises CalledProcessError."""
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout  # noqa: S607
