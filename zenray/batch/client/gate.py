"""A bound on what is under way that may move at any time. First come, first served."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator


class Gate:
    """Lets in units of work while fewer than `limit` are inside. What is larger than the limit goes in alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.in_flight = 0

    @property
    def limit(self) -> int:
        return self._limit

    @limit.setter
    def limit(self, value: int) -> None:
        self._limit = value
        self._let_in()

    @property
    def is_idle(self) -> bool:
        """Nobody is inside and nobody waits."""
        return not self.in_flight and not self._queue

    @contextlib.asynccontextmanager
    async def places(self, num_units: int) -> AsyncGenerator[None, None]:
        """Waits until `num_units` may come in, and takes them out again at the end."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((num_units, turn))
        self._let_in()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self.in_flight -= num_units
            else:
                with contextlib.suppress(ValueError):  # The queue may have come to it after it was cancelled.
                    self._queue.remove((num_units, turn))
            self._let_in()

    def _let_in(self) -> None:
        while self._queue:
            num_units, turn = self._queue[0]
            if self.in_flight and self.in_flight + num_units > self._limit:
                return
            self._queue.popleft()
            if not turn.cancelled():
                self.in_flight += num_units
                turn.set_result(None)
