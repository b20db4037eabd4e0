"""SIGINT and SIGTERM as one exception in the main thread, that cannot get lost."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from zenray.batch.job import Say

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Raises KeyboardInterrupt in the main thread once SIGINT or SIGTERM has come; later ones are ignored, so that
    what is being cleaned up ends in order."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._asked = False
        self._leaving = False

    def insist(self) -> None:
        """Asks again, from another thread: Python drops an exception that is raised inside a finaliser."""
        if self._asked and not self._leaving:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    @contextlib.contextmanager
    def raised_here(self) -> Iterator[None]:
        """The block that an interrupt ends; what cleans up after it is left alone. Of the main thread, any other
        one's block is not interrupted."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        try:
            yield
        finally:
            self._leaving = True
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._asked:
            self._asked = True
            self._say("stopping; what is finished stays")  # Taking down what the run started may take seconds.
        if not (self._leaving or _is_being_handled()):
            raise KeyboardInterrupt


def _is_being_handled() -> bool:
    """Whether what runs now cleans up after an interrupt already."""
    error = sys.exception()
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None
