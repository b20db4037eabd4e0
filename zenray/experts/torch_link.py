"""Rows by torch.distributed: frames and signs of life stay on the streams, rows go point to point.

Each link has a process group of its own with two ranks, leader 0 and shard 1, and there is no default group: a lost
peer breaks its own link and nothing else. The two find each other through the data stream, whose hello is done
(`_Exchange`), not through a TCPStore, which listens on every interface and asks nobody who he is.

gloo listens for its peer on the interface of the stream and does not ask either: for loopback and private networks.
A killed peer fails the operation within milliseconds, a stopped one at the timeout; neither hangs nor aborts the
process. nccl takes the same way with tensors on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
from torch.distributed import distributed_c10d as c10d

from zenray.experts import wire
from zenray.experts.rows import LEADER_RANK, SHARD_RANK
from zenray.experts.stream import Connection, HungUp


class TorchRows:
    """Rows by a process group of two; `rows.Rows`. Both ends are made at the same time.

    timeout_s: longest that rows may take once their frame is there. Raises ConnectionError when the other end does
    not come.
    """

    def __init__(self, backend: str, connection: Connection, rank: int, timeout_s: float, device: torch.device) -> None:
        self.name, self.device = backend, device if backend == "nccl" else torch.device("cpu")
        self._peer = LEADER_RANK if rank == SHARD_RANK else SHARD_RANK
        self._timeout = timedelta(seconds=timeout_s)
        try:
            self._group = _process_group(backend, connection, rank, self._timeout)
        except RuntimeError as error:
            raise ConnectionError(f"no process group with {backend}: {error}") from None

    def send(self, connection: Connection, frame: bytes, rows: torch.Tensor) -> None:
        connection.send(frame)
        self._wait(self._group.send([rows.contiguous()], self._peer, 0))

    def receive(self, connection: Connection, rows: torch.Tensor) -> None:
        self._wait(self._group.recv([rows], self._peer, 0))

    def _wait(self, work: c10d.Work) -> None:
        try:
            work.wait(self._timeout)
        except RuntimeError as error:
            raise ConnectionError(str(error).splitlines()[0]) from None


def _process_group(backend: str, connection: Connection, rank: int, timeout: timedelta) -> Any:
    """Made directly: the one way to a group that no other group and no environment variable knows of."""
    store = _Exchange(connection)
    if backend == "nccl":
        options: Any = c10d.ProcessGroupNCCL.Options()
        options._timeout = timeout
        return c10d.ProcessGroupNCCL(store, rank, 2, options)
    made: Any = c10d.ProcessGroupGloo
    options = made._Options()
    options._timeout = timeout
    options._threads = 1
    options._devices = [made.create_device(hostname=connection.local_host)]
    return made(store, rank, 2, options)


class _Exchange(c10d.Store):
    """A store of two parties: what one sets is sent to the other, who waits for it."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self._known: dict[str, bytes] = {}

    def set(self, key: str, value: str | bytes) -> None:
        self._known[key] = value.encode() if isinstance(value, str) else value
        self._connection.send(wire.encode_control(0, {"key": key, "value": self._known[key].hex()}))

    def get(self, key: str) -> bytes:
        while key not in self._known:
            self._learn()
        return self._known[key]

    def wait(self, keys: Sequence[str], timeout: timedelta = timedelta(0)) -> None:
        for key in keys:
            self.get(key)

    def _learn(self) -> None:
        """The connection limits how long this may take."""
        try:
            header = self._connection.receive_header()
            message = wire.decode_control(self._connection.receive_text(header))
            self._known[str(message["key"])] = bytes.fromhex(message["value"])
        except (OSError, HungUp, wire.ProtocolError, KeyError, TypeError, ValueError) as error:
            raise RuntimeError(f"the other end did not answer: {error}") from None
