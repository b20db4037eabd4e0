"""A bound on what is under way that may move at any time. First come, first served."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator


class Gate:
    """Lets work in while fewer than `limit` units are inside. A group goes in as a whole, although its last units may
    then be beyond the limit: a limit that follows what is used would else never leave room for a group."""

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
            if self.in_flight >= self._limit:
                return
            self._queue.popleft()
            if not turn.cancelled():
                self.in_flight += num_units
                turn.set_result(None)
