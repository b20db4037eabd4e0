"""How the rows of calls travel between a leader and a shard."""

from __future__ import annotations

import ctypes
from typing import Protocol

import torch

from zenray.experts.stream import Connection

LEADER_RANK, SHARD_RANK = 0, 1


class Rows(Protocol):
    """How the rows of a call travel. `device` is where they are when they go and come."""

    name: str
    device: torch.device

    def send(self, connection: Connection, frame: bytes, rows: torch.Tensor) -> None:
        """A frame and the rows that follow it."""
        ...

    def receive(self, connection: Connection, rows: torch.Tensor) -> None:
        """Fills a contiguous tensor. Its frame has been received."""
        ...


class StreamRows:
    """Rows travel behind their frame."""

    name = "stream"
    device = torch.device("cpu")

    def send(self, connection: Connection, frame: bytes, rows: torch.Tensor) -> None:
        connection.send(frame, bytes_of(rows.contiguous()))

    def receive(self, connection: Connection, rows: torch.Tensor) -> None:
        connection.receive_into(bytes_of(rows))


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU, kept alive by the view.

    By its address: numpy knows no bfloat16, and the views it takes to pretend cost 4 µs in each of a round trip's
    four copies.
    """
    memory = (ctypes.c_ubyte * tensor.nbytes).from_address(tensor.data_ptr())
    memory.owner = tensor  # type: ignore[attr-defined]
    return memoryview(memory).cast("B")


def carriers(device: torch.device) -> tuple[str, ...]:
    """What can carry rows from and to activations on this device."""
    return ("stream", "gloo", "nccl") if device.type == "cuda" else ("stream", "gloo")


def rows_of(carrier: str, connection: Connection, rank: int, timeout_s: float, device: torch.device) -> Rows:
    """By one of `carriers(device)`, both ends at the same time. Raises ConnectionError when the other end does not
    come."""
    if carrier == StreamRows.name:
        return StreamRows()
    from zenray.experts.torch_link import TorchRows

    return TorchRows(carrier, connection, rank, timeout_s, device)
