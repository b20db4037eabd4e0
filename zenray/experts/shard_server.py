"""A shard's side of the streams: serves one leader, from its hello until it hangs up."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import asdict
from typing import Any

import torch

from zenray.config import ExpertSettings
from zenray.errors import ZenrayError
from zenray.experts import wire
from zenray.experts.link import ShardRefused
from zenray.experts.placement import ExpertId
from zenray.experts.rows import SHARD_RANK, Rows, StreamRows, carriers, rows_of
from zenray.experts.shard import ExpertShard
from zenray.experts.store import ExpertStore, capacity_of
from zenray.experts.stream import ROLES, Connection, HungUp, Listener, proof, proves
from zenray.model.load import OpenedWeights

LEADER_TIMEOUT_S = 60.0
"""A shard that nobody claims for so long ends."""
_STRANGER_TIMEOUT_S = 2.0
"""Longest that a connection may take for its hello: whoever dials next waits behind it."""
_MAX_SIGN_PERIOD_S = 0.1
_MAX_HELLO_BYTES = 4096
_BROKEN = (OSError, HungUp, wire.ProtocolError)
_logger = logging.getLogger(__name__)


class ShardServer:
    """One shard, holding no expert at first. `serve` is its life; `close` ends it from another thread.

    bind: "unix", or the address of an interface. `address` is where `connect` finds it.
    """

    def __init__(
        self,
        shard: int,
        weights: OpenedWeights,
        settings: ExpertSettings,
        token: str,
        *,
        bind: str,
        device: str = "cpu",
    ) -> None:
        capacity = capacity_of(settings.shard_memory_mib, weights.config, weights.provider)
        self._settings, self._device = settings, torch.device(device)
        store = ExpertStore(weights.provider, capacity=capacity, device=self._device)
        self._worker = ExpertShard(shard, store, weights.ops)
        self._digest, self._token, self._shard = weights.provider.digest, token, shard
        self._config, self._dtype = weights.config, weights.provider.dtype
        self._sign_period_s = min(_MAX_SIGN_PERIOD_S, settings.silence_timeout_ms / 1e3 / 4)
        self._connections: dict[str, Connection] = {}
        self._ended = threading.Event()
        self._carrier = StreamRows.name
        self._rows: Rows = StreamRows()
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self._listener = Listener(bind)

    @property
    def address(self) -> str:
        return self._listener.address

    def serve(self) -> None:
        """Returns when the leader hung up, or none came within LEADER_TIMEOUT_S. Computes in the calling thread."""
        try:
            if not self._meet_leader():
                _logger.warning("expert shard %d ends: no leader came", self._shard)
                return
            data, control = self._connections["data"], self._connections["control"]
            self._rows = rows_of(self._carrier, data, SHARD_RANK, self._settings.call_timeout_s, self._device)
            threads = [
                threading.Thread(target=self._answer, args=(control,), name="zenray-shard-control", daemon=True),
                threading.Thread(target=self._show_life, name="zenray-shard-alive", daemon=True),
            ]
            for thread in threads:
                thread.start()
            self._serve_calls(data)
            self.close()
            for thread in threads:
                thread.join()
        finally:
            self.close()
            for connection in self._connections.values():
                connection.close()

    def close(self) -> None:
        """Hangs up. A call that is being computed is not waited for."""
        self._ended.set()
        self._listener.close()
        for connection in list(self._connections.values()):
            connection.shut_down()

    def _meet_leader(self) -> bool:
        """Both connections of one leader; strangers are dropped without a word."""
        deadline_s = time.monotonic() + LEADER_TIMEOUT_S
        try:
            while len(self._connections) < len(ROLES):
                connection = Connection(self._listener.accept(max(0.001, deadline_s - time.monotonic())))
                role = self._hear_hello(connection)
                if role is None:
                    connection.close()
                else:
                    self._connections[role] = connection
        except OSError:
            return False
        finally:
            self._listener.close()
        return not self._ended.is_set()

    def _hear_hello(self, connection: Connection) -> str | None:
        """The role of a connection whose peer has the token and the same weights; None for anybody else."""
        limit = threading.Timer(_STRANGER_TIMEOUT_S, connection.shut_down)
        limit.start()
        try:
            header = connection.receive_header()
            if header.kind != wire.Kind.CONTROL or header.body_bytes > _MAX_HELLO_BYTES:
                return None
            hello = wire.decode_control(connection.receive_text(header))
            role = hello.get("role")
            if role not in ROLES or role in self._connections or hello.get("rows") not in carriers(self._device):
                return None
            if not proves(hello, self._token, f"leader {role} {self._shard}"):
                _logger.warning("expert shard %d: a connection without the token was dropped", self._shard)
                return None
            self._carrier = hello["rows"]
            is_ours = hello.get("digest") == self._digest
            if is_ours and len(self._connections) == len(ROLES) - 1:
                self._listener.close()  # before the leader counts on this process, which may be killed right then
            answer = {"digest": self._digest, "proof": proof(self._token, f"shard {role} {self._shard}")}
            connection.send(wire.encode_control(0, answer))
            if not is_ours:
                self.close()  # of no use to the only one who has the token
            return str(role) if is_ours else None
        except _BROKEN:
            return None
        finally:
            limit.cancel()

    def _serve_calls(self, data: Connection) -> None:
        try:
            while True:
                header = data.receive_header()
                if (
                    header.kind != wire.Kind.CALL
                    or header.width != self._config.hidden_size
                    or header.dtype != self._dtype
                ):
                    raise wire.ProtocolError(f"no call for these weights: {header}")
                data.busy = True
                try:
                    self._serve_call(data, header)
                finally:
                    data.busy = False
        except HungUp:
            pass
        except (OSError, wire.ProtocolError) as error:
            if not self._ended.is_set():
                _logger.warning("expert shard %d ends: %s", self._shard, error)

    def _serve_call(self, data: Connection, header: wire.Header) -> None:
        body = data.receive_text(header)
        x_ND = self._receive_rows(data, header)
        call = wire.decode_call(header, body, x_ND)
        try:
            y_PD = self._worker.compute(call)
        except ShardRefused as error:
            data.send(wire.encode_refused(header, str(error)))
        else:
            self._rows.send(data, wire.encode_rows(header, y_PD), y_PD.to(self._rows.device))

    def _receive_rows(self, data: Connection, header: wire.Header) -> torch.Tensor:
        """x in memory that is used again; nothing of a call outlives it."""
        num_bytes = header.num_rows * header.width * header.dtype.itemsize
        if len(self._buffer) < num_bytes:
            self._buffer = torch.empty(num_bytes, dtype=torch.uint8, device=self._rows.device)
        x_ND = self._buffer[:num_bytes].view(header.dtype).view(header.num_rows, header.width)
        self._rows.receive(data, x_ND)
        return x_ND.to(self._device)

    def _answer(self, control: Connection) -> None:
        """The control thread: what the leader asks besides calls."""
        try:
            while True:
                header = control.receive_header()
                if header.kind != wire.Kind.CONTROL:
                    raise wire.ProtocolError(f"no request but {header}")
                request = wire.decode_control(control.receive_text(header))
                control.busy = True
                answer = self._carry_out(request)
                control.busy = False
                control.send(wire.encode_control(header.number, answer))
        except HungUp:
            pass
        except (OSError, wire.ProtocolError) as error:
            if not self._ended.is_set():
                _logger.warning("expert shard %d ends: %s", self._shard, error)
        finally:
            self.close()

    def _carry_out(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            match request:
                case {"do": "report"}:
                    return {"report": asdict(self._worker.report())}
                case {"do": "load", "experts": experts}:
                    self._worker.store.load(self._named(experts))
                    return {}
                case {"do": "drop", "experts": experts}:
                    self._worker.store.drop(self._named(experts))
                    return {}
        except (ShardRefused, ZenrayError) as error:
            return {"refused": str(error)}
        raise wire.ProtocolError(f"an unknown request: {request}")

    def _named(self, experts: Any) -> list[ExpertId]:
        try:
            named = [ExpertId(int(layer), int(expert)) for layer, expert in experts]
        except (TypeError, ValueError):
            raise wire.ProtocolError("a request that names no experts") from None
        for at in named:
            if at.layer not in self._config.moe_layers:
                raise ShardRefused(f"layer {at.layer} has no experts")
            if not 0 <= at.expert < self._config.num_experts:
                raise ShardRefused(f"layer {at.layer} has no expert {at.expert}")
        return named

    def _show_life(self) -> None:
        """The thread that tells a waiting leader that a long computation is none that hangs."""
        while not self._ended.wait(self._sign_period_s):
            for connection in self._connections.values():
                try:
                    connection.show_life()
                except OSError:
                    return
