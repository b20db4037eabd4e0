"""Work is spread over processes, some of which die of it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from zenray.context.index.workers import Workers

_MODULE = """
import os, signal

def work(items):
    for item in items:
        if item in (13, 77):
            os.kill(os.getpid(), signal.SIGSEGV)
    return [(item, os.getpid()) for item in items]
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the processes can import too."""
    (tmp_path / "work_for_workers.py").write_text(_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("work_for_workers")


def batches(count: int) -> Iterator[Sequence[int]]:
    yield from ([number, number + 1] for number in range(0, count, 2))


def test_an_item_that_kills_its_process_costs_no_other(module: Any) -> None:
    workers = Workers(module.work, on_crash=lambda item: (item, 0), num_workers=2, num_own_batches=1)
    results = [result for batch in workers.run(batches(100)) for result in batch]
    assert [item for item, _ in results] == list(range(100))
    assert [item for item, process in results if process == 0] == [13, 77]
    assert {process for _, process in results[:2]} == {os.getpid()}
    assert os.getpid() not in {process for _, process in results[2:]}


def test_no_more_batches_are_taken_than_two_per_worker_and_one(module: Any) -> None:
    taken = 0

    def counted() -> Iterator[Sequence[int]]:
        nonlocal taken
        for batch in batches(60):
            taken += 1
            yield [item + 1000 for item in batch]

    workers = Workers(module.work, on_crash=lambda item: (item, 0), num_workers=2, num_own_batches=0)
    for number, _ in enumerate(workers.run(counted())):
        assert taken <= number + 4


def test_small_work_starts_no_process(module: Any) -> None:
    workers = Workers(module.work, on_crash=lambda item: (item, 0), num_workers=2, num_own_batches=3)
    assert {process for batch in workers.run(batches(6)) for _, process in batch} == {os.getpid()}
