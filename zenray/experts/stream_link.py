"""The leader's side of a shard that is another process, over two streams: data for calls, control for all else.

Nothing can block for ever. A shard reads its data stream whenever it does not compute, and it computes one call at a
time; the leader sends a call only after it has read the reply of the one before, also when the step of that one
was aborted and nobody wants its rows any more (`send` drains it). So the two never wait for each other to read.
A shard that dies is seen at once, by the end of its streams; one that is stopped or cut off by its silence: while it
works it shows life on the stream that waits for it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from zenray.config import ExpertSettings
from zenray.errors import ConfigError
from zenray.experts import wire
from zenray.experts.link import ExpertCall, ShardLost, ShardRefused, ShardReport
from zenray.experts.placement import ExpertId
from zenray.experts.rows import LEADER_RANK, Rows, StreamRows, carriers, rows_of
from zenray.experts.stream import ROLES, Connection, HungUp, clear_away, dial, proof, proves

HELLO_TIMEOUT_S = 20.0
_BROKEN = (OSError, HungUp, wire.ProtocolError)
_CPU = torch.device("cpu")
_R = TypeVar("_R")


@dataclass(slots=True)
class _Pending:
    number: int
    call: ExpertCall


class StreamLink:
    """A `ShardLink` over two connections whose hello is done; `connect` makes one."""

    def __init__(self, shard: int, data: Connection, control: Connection, settings: ExpertSettings, rows: Rows) -> None:
        self.shard = shard
        self._data, self._control, self._settings, self._rows = data, control, settings, rows
        self._pending: _Pending | None = None
        self._num_calls = self._num_requests = 0
        self._lost: str | None = None
        # Held while a connection is in use, so that `close` gives no descriptor back under somebody's feet.
        self._data_lock, self._control_lock = threading.RLock(), threading.RLock()
        for connection in (data, control):
            connection.limit_silence(settings.silence_timeout_ms / 1e3)

    @property
    def transport(self) -> str:
        if self._rows.name != StreamRows.name:
            return self._rows.name
        return "unix" if self._data.is_local else "tcp"

    def send(self, call: ExpertCall) -> None:
        with self._data_lock:
            self._guarded(lambda: self._send(call))

    def receive(self) -> torch.Tensor:
        with self._data_lock:
            return self._guarded(self._receive)

    def load(self, experts: Iterable[ExpertId]) -> None:
        wanted = sorted(experts)
        self._ask({"do": "load", "experts": wanted}, self._settings.call_timeout_s * (1 + len(wanted)))

    def drop(self, experts: Iterable[ExpertId]) -> None:
        self._ask({"do": "drop", "experts": sorted(experts)}, self._settings.call_timeout_s)

    def report(self) -> ShardReport:
        answer = self._ask({"do": "report"}, self._settings.call_timeout_s)
        try:
            return ShardReport(**answer["report"])
        except (KeyError, TypeError):
            raise self._lose(f"it sent no report but {answer}") from None

    def close(self) -> None:
        self._lose("the link was closed")
        for lock, connection in ((self._data_lock, self._data), (self._control_lock, self._control)):
            with lock:
                connection.close()

    def _send(self, call: ExpertCall) -> None:
        if self._pending is not None:
            self._drain()
        self._num_calls += 1
        x_ND = call.x_ND.to(self._rows.device)
        self._rows.send(self._data, wire.encode_call(self._num_calls, call), x_ND)
        self._pending = _Pending(self._num_calls, call)

    def _drain(self) -> None:
        """Reads the reply of a call whose step was aborted."""
        with contextlib.suppress(ShardRefused):
            self._receive()

    def _receive(self) -> torch.Tensor:
        pending = self._pending
        assert pending is not None, "nothing was sent"
        header = self._await(self._data, pending.number, self._settings.call_timeout_s)
        self._pending = None
        if header.kind == wire.Kind.REFUSED:
            raise ShardRefused(bytes(self._data.receive_text(header)).decode(errors="replace"))
        x_ND = pending.call.x_ND
        expected = (wire.Kind.ROWS, pending.call.num_pairs, x_ND.shape[1])
        if (header.kind, header.num_rows, header.width) != expected or header.dtype != x_ND.dtype:
            raise wire.ProtocolError(f"another reply than asked for: {header}")
        y_PD = torch.empty((header.num_rows, header.width), dtype=x_ND.dtype, device=self._rows.device)
        self._rows.receive(self._data, y_PD)
        return y_PD.to(x_ND.device)

    def _ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        with self._control_lock:
            answer = self._guarded(lambda: self._exchange(request, timeout_s))
        if "refused" in answer:
            raise ShardRefused(str(answer["refused"]))
        return answer

    def _exchange(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        self._num_requests += 1
        self._control.send(wire.encode_control(self._num_requests, request))
        header = self._await(self._control, self._num_requests, timeout_s)
        if header.kind != wire.Kind.CONTROL:
            raise wire.ProtocolError(f"no answer but {header}")
        return wire.decode_control(self._control.receive_text(header))

    def _await(self, connection: Connection, number: int, timeout_s: float) -> wire.Header:
        """The frame that answers, after any signs of life. Time counts from here: the reply of an aborted step may be
        asked for much later than it came."""
        deadline_s = time.monotonic() + timeout_s
        while (header := connection.receive_header()).kind == wire.Kind.ALIVE:
            if time.monotonic() > deadline_s:
                raise TimeoutError
        if header.number != number:
            raise wire.ProtocolError(f"an answer to {header.number} where {number} was asked")
        return header

    def _guarded(self, operation: Callable[[], _R]) -> _R:
        """Whatever ends an operation in its middle ends the link: the streams are out of step."""
        if self._lost is not None:
            raise ShardLost(self.shard, self._lost)
        try:
            return operation()
        except ShardRefused:
            raise
        except BlockingIOError:
            raise self._lose(f"no sign of life for {self._settings.silence_timeout_ms:g} ms") from None
        except TimeoutError:
            raise self._lose("it did not finish in time, though it is alive") from None
        except _BROKEN as error:
            raise self._lose(str(error)) from None
        except BaseException as error:
            self._lose(f"the leader gave up in mid-call: {error!r}")
            raise

    def _lose(self, reason: str) -> ShardLost:
        """The first reason stays. Wakes whoever waits on either stream; the shard, hung up on, ends by itself."""
        self._lost = self._lost or reason
        self._data.shut_down()
        self._control.shut_down()
        return ShardLost(self.shard, self._lost)


def connect(
    address: str, token: str, digest: str, shard: int, settings: ExpertSettings, device: torch.device = _CPU
) -> StreamLink:
    """A link to the shard that listens there, after both sides have shown the token and compared their weights.

    digest: of the leader's weights. device: where the leader's activations are. Raises `ShardLost` when nobody
    answers, or somebody without the token, `ShardRefused` for other weights and ConfigError for nccl without a GPU.
    """
    connections: list[Connection] = []
    carrier = settings.transport if settings.transport in ("gloo", "nccl") else StreamRows.name
    if carrier not in carriers(device):
        raise ConfigError(f"experts.transport is {carrier!r}, which needs a model on a GPU, not on {device}")
    try:
        for role in ROLES:
            connections.append(Connection(dial(address, HELLO_TIMEOUT_S)))
            _say_hello(connections[-1], role, token, digest, shard, carrier)
        rows = rows_of(carrier, connections[0], LEADER_RANK, settings.silence_timeout_ms / 1e3, device)
    except (*_BROKEN, ValueError, ShardRefused) as error:
        for connection in connections:
            connection.close()
        if isinstance(error, ShardRefused):
            raise
        raise ShardLost(shard, f"no hello from {address}: {error}") from None
    finally:
        clear_away(address)  # also where the shard was killed before it could
    return StreamLink(shard, connections[0], connections[1], settings, rows)


def _say_hello(connection: Connection, role: str, token: str, digest: str, shard: int, carrier: str) -> None:
    connection.limit_silence(HELLO_TIMEOUT_S)
    hello = {"role": role, "digest": digest, "proof": proof(token, f"leader {role} {shard}"), "rows": carrier}
    connection.send(wire.encode_control(0, hello))
    header = connection.receive_header()
    if header.kind != wire.Kind.CONTROL:
        raise wire.ProtocolError("no hello")
    answer = wire.decode_control(connection.receive_text(header))
    if not proves(answer, token, f"shard {role} {shard}"):
        raise wire.ProtocolError("whoever answered does not have the token")
    if answer.get("digest") != digest:
        raise ShardRefused(f"expert shard {shard} has other weights than the leader")
