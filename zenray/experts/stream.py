"""Two stream sockets to one shard, data and control: listening, dialling, and moving bytes.

A Unix domain socket between processes of one machine, TCP between machines. Addresses are written `unix:PATH`
and `tcp:HOST:PORT`.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Mapping

from zenray.experts import wire

_TCP_LIMITS = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 20_000}
UNIX = "unix"
ROLES = ("data", "control")


class HungUp(Exception):
    """The peer closed the connection, or died."""


class Listener:
    """Accepts connections at `address`. bind: "unix", or the address of an interface, where a port is chosen."""

    def __init__(self, bind: str) -> None:
        self._folder: str | None = None
        if bind == UNIX:
            self._folder = tempfile.mkdtemp(prefix="zenray-")  # 0700: the path is the first lock, the token the second
            path = os.path.join(self._folder, "shard")
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.bind(path)
            self.address = f"unix:{path}"
        else:
            family = socket.AF_INET6 if ":" in bind else socket.AF_INET
            self._socket = socket.create_server((bind, 0), family=family)
            self.address = f"tcp:{bind}:{self._socket.getsockname()[1]}"
        self._socket.listen()

    def accept(self, timeout_s: float) -> socket.socket:
        """The next connection. Raises TimeoutError, and OSError once closed."""
        self._socket.settimeout(timeout_s)
        connection, _ = self._socket.accept()
        return connection

    def close(self) -> None:
        """A waiting `accept` ends."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def dial(address: str, timeout_s: float) -> socket.socket:
    """A connection to a listener. Raises OSError."""
    scheme, _, rest = address.partition(":")
    if scheme == UNIX:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout_s)
        try:
            connection.connect(rest)
        except OSError:
            connection.close()
            raise
        return connection
    host, _, port = rest.rpartition(":")
    return socket.create_connection((host, int(port)), timeout_s)


def clear_away(address: str) -> None:
    """Removes what a listener has in the file system: whoever came needs it no more, and nobody else shall come."""
    scheme, _, path = address.partition(":")
    if scheme == UNIX:
        with contextlib.suppress(OSError):
            os.unlink(path)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(path))


def proof(token: str, role: str) -> str:
    """What only a holder of the token can say, and only in this role: an impostor learns nothing from it."""
    return hmac.new(token.encode(), role.encode(), "sha256").hexdigest()


def proves(hello: Mapping[str, object], token: str, role: str) -> bool:
    """Whether a hello carries that proof."""
    return hmac.compare_digest(str(hello.get("proof")).encode(), proof(token, role).encode())


class Connection:
    """One stream: frames out from any thread, frames in by one. `busy` asks for signs of life on it."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._header = memoryview(bytearray(wire.HEADER_BYTES))
        self._sending = threading.Lock()
        self.busy = False
        connected.settimeout(None)
        if connected.family != socket.AF_UNIX:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Finds out within 20 s that a silent peer is gone; it matters to a shard, which waits without a limit.
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _TCP_LIMITS.items():
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    @property
    def is_local(self) -> bool:
        return self._socket.family == socket.AF_UNIX

    @property
    def local_host(self) -> str:
        """The address of the interface that leads to the peer."""
        return "127.0.0.1" if self.is_local else str(self._socket.getsockname()[0])

    def limit_silence(self, timeout_s: float) -> None:
        """Afterwards, BlockingIOError is raised when for so long no byte moves. One system call less per frame than
        Python's own timeouts."""
        seconds, fraction = divmod(timeout_s, 1)
        limit = struct.pack("ll", int(seconds), int(fraction * 1e6))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._socket.setsockopt(socket.SOL_SOCKET, option, limit)

    def send(self, *parts: bytes | memoryview) -> None:
        """All parts, without copying them together. Raises OSError."""
        with self._sending:
            sent, total = self._socket.sendmsg(parts), sum(map(len, parts))
            if sent < total:
                for part in parts:
                    if sent < len(part):
                        self._socket.sendall(part[sent:])
                    sent = max(0, sent - len(part))

    def receive_header(self) -> wire.Header:
        """Raises OSError, HungUp and ProtocolError."""
        self.receive_into(self._header)
        return wire.decode_header(self._header)

    def receive_into(self, view: memoryview) -> None:
        """Fills the view. Raises OSError and HungUp."""
        got = self._socket.recv_into(view)
        while 0 < got < len(view):
            more = self._socket.recv_into(view[got:])
            got = got + more if more else 0
        if not got and len(view):
            raise HungUp("it hung up")

    def receive_text(self, header: wire.Header) -> memoryview:
        """The body of a REFUSED or CONTROL frame."""
        body = memoryview(bytearray(header.body_bytes))
        self.receive_into(body)
        return body

    def show_life(self) -> None:
        """Unless a frame is being sent, which is a sign of life too."""
        if self.busy and self._sending.acquire(blocking=False):
            try:
                self._socket.sendall(wire.ALIVE)
            finally:
                self._sending.release()

    def shut_down(self) -> None:
        """Whoever waits here, on either side, is woken. `close` gives the file descriptor back afterwards."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()
