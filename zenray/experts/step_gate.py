"""Steps on one side, changes of what they rely on on the other: never both at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

_R = TypeVar("_R")
_HAND_OVER_S = 0.002


class StepGate:
    """Held by the engine's thread for the length of a step; whoever holds it may enter it again."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._changes: deque[_Change] = deque()

    @property
    def num_waiting(self) -> int:
        """Changes that wait for the step to end."""
        return len(self._changes)

    @contextmanager
    def step(self) -> Iterator[None]:
        """First makes the changes that wait."""
        with self._lock:
            self._make_changes()
            yield

    @contextmanager
    def hold(self) -> Iterator[None]:
        """For a change that the holder itself makes at once."""
        with self._lock:
            yield

    def wait_for_change(self, timeout_s: float) -> None:
        """Lets others through, from inside a step that cannot go on."""
        self._lock.wait(timeout_s)
        self._make_changes()

    def change(self, make: Callable[[], _R]) -> _R:
        """Has `make` called while no step is under way: by the engine's thread, which seldom lets go of the lock for
        long enough to be overtaken, or by this one when the engine is idle. Raises what `make` raises."""
        waiting = _Change(make)
        self._changes.append(waiting)
        while not waiting.outcome.done():
            if self._lock.acquire(timeout=_HAND_OVER_S):
                try:
                    self._make_changes()
                    self._lock.notify_all()
                finally:
                    self._lock.release()
        result: _R = waiting.outcome.result()
        return result

    def _make_changes(self) -> None:
        while self._changes:
            self._changes.popleft().apply()


@dataclass(slots=True)
class _Change:
    """Something to be done, and what came of it."""

    make: Callable[[], object]
    outcome: Future[Any] = field(default_factory=Future)

    def apply(self) -> None:
        try:
            self.outcome.set_result(self.make())
        except BaseException as error:
            self.outcome.set_exception(error)
