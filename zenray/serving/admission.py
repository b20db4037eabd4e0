"""How many requests are being answered, and whether more may come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from zenray.errors import Overloaded, Unavailable


class Admission:
    """At most `limit` at once (server.max_ongoing_requests); none once draining has begun."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ongoing = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False

    @contextlib.contextmanager
    def admit(self) -> Iterator[None]:
        """Around one request. Raises Overloaded and Unavailable."""
        self.check_open()
        if self._ongoing >= self._limit:
            raise Overloaded(f"{self._limit} requests are being answered; server.max_ongoing_requests allows no more")
        self._ongoing += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._ongoing -= 1
            if not self._ongoing:
                self._idle.set()

    def check_open(self) -> None:
        """Raises Unavailable while draining."""
        if self.draining:
            raise Unavailable("this aggregator is draining")

    async def drain(self, timeout_s: float) -> None:
        """Refuses new requests and lets running ones end for at most `timeout_s`."""
        self.draining = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)
