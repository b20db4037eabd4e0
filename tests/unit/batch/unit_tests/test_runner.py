"""How long the runner waits for a test, on a clock of our own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from zenray.batch.unit_tests.validation import runner


class Machine:
    """Each look at the pipe takes the next of `takes_s`; from `speaks` on there is something to read."""

    def __init__(self, takes_s: Iterator[float], speaks: int) -> None:
        self.now_s, self._takes_s, self._left = 0.0, takes_s, speaks

    def monotonic(self) -> float:
        return self.now_s

    def register(self, descriptor: int, events: int) -> None: ...

    def poll(self, timeout_ms: float) -> list[int]:
        self.now_s += next(self._takes_s)
        self._left -= 1
        return [1] if self._left < 0 else []


@pytest.mark.parametrize(
    ("takes_s", "speaks", "in_time"),
    [
        ([600.0, 0.1], 1, True),  # The machine stood still, and the test with it.
        ([1.0, 1.0, 1.0, 0.1], 3, True),
        ([1.0] * 30, 30, False),
    ],
)
def test_only_time_that_passed_for_the_test_counts(
    takes_s: list[float], speaks: int, in_time: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(iter(takes_s), speaks)
    monkeypatch.setattr(runner.time, "monotonic", machine.monotonic)
    monkeypatch.setattr(runner.select, "poll", lambda: machine)
    child = runner._Child({"cpu_s": 1.0, "wall_s": 10.0}, "", [""], None)
    reading, writing = os.pipe()
    try:
        os.write(writing, b"said\n\n")
        assert child._listen(reading) == ((b"said\n\n", True) if in_time else (b"", False))
    finally:
        os.close(reading)
        os.close(writing)
