"""Signals of a job's driver: one exception, and what cleans up after it is left alone."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from zenray.batch.running.interrupts import Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whoever_is_impatient_interrupts_no_cleaning_up(number: signal.Signals) -> None:
    said: list[str] = []
    done: list[str] = []

    def run() -> None:
        with Interrupts(said.append).raised_here():
            try:
                os.kill(os.getpid(), number)
                done.append("went on")
            finally:
                try:
                    os.kill(os.getpid(), number)
                    done.append("outer")
                    raise OSError("while cleaning up")
                except OSError:
                    os.kill(os.getpid(), number)
                    done.append("inner")

    with pytest.raises(KeyboardInterrupt):
        run()
    assert (done, said) == (["outer", "inner"], ["stopping; what is finished stays"])


def test_an_interrupt_that_got_lost_is_raised_again() -> None:
    def run() -> None:
        interrupts = Interrupts(lambda what: None)
        with interrupts.raised_here():
            with contextlib.suppress(KeyboardInterrupt):  # As a finaliser drops it.
                os.kill(os.getpid(), signal.SIGINT)
            interrupts.insist()

    with pytest.raises(KeyboardInterrupt):
        run()
