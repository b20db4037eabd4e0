"""What context.mode local means: no connection that carries somebody's code leaves this machine."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING

import psutil

from zenray.errors import ConfigError

if TYPE_CHECKING:
    from zenray.serving.directory import Endpoint
    from zenray.serving.peers import Watch

log = logging.getLogger(__name__)

REMEDY = "set context.mode=cloud to let code be sent there"


def is_here(host: str) -> bool:
    """Whether an IP address, or localhost, is this machine's own."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address in _own_addresses()


def check_nodes_here(addresses: Iterable[str]) -> None:
    """Raises ConfigError unless every node of a Ray cluster is this machine."""
    elsewhere = sorted({address for address in addresses if not is_here(address)})
    if elsewhere:
        raise ConfigError(
            f"context.mode is local, and the Ray cluster has other machines: {', '.join(elsewhere)}; {REMEDY}"
        )


class LocalOnly:
    """A watch of a service's replicas that leaves out those of other machines; `refused` says which, and why."""

    def __init__(self, watch: Watch, kind: str) -> None:
        self._watch, self._kind = watch, kind
        self.refused: tuple[str, ...] = ()

    async def __call__(self) -> AsyncGenerator[list[Endpoint], None]:
        async with aclosing(self._watch()) as sets:
            async for endpoints in sets:
                here = [endpoint for endpoint in endpoints if is_here(host_of(endpoint.address))]
                refused = tuple(
                    f"context.mode is local, and the {self._kind} at {endpoint.address} is on another machine; {REMEDY}"
                    for endpoint in endpoints
                    if endpoint not in here
                )
                for reason in set(refused) - set(self.refused):
                    log.error("%s", reason)
                self.refused = refused
                yield here


def host_of(address: str) -> str:
    """The host of HOST:PORT."""
    return address.rpartition(":")[0]


def _own_addresses() -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    found = set()
    for interface in psutil.net_if_addrs().values():
        for entry in interface:
            try:
                found.add(ipaddress.ip_address(entry.address.partition("%")[0]))
            except ValueError:  # a hardware address
                continue
    return found
