"""The steps of a start, one line each: a spinner while it runs, a check mark with its time when it is done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.text import Text

from zenray.cli.console import printable, stderr

_NAME_WIDTH = 9
_BAR_WIDTH = 24


class Phase:
    """One running step. `detail` is shown beside it, and stays when it is done; `share` draws a bar meanwhile."""

    def __init__(self, name: str, detail: str) -> None:
        self.name, self.detail = name, detail
        self.share: float | None = None
        self.started = time.monotonic()

    def line(self, mark: str, style: str, *, running: bool = False) -> Text:
        took = time.monotonic() - self.started
        line = Text.assemble((f"{mark} ", style), (self.name.ljust(_NAME_WIDTH), "name"), printable(self.detail))
        if running and self.share is not None:
            full = round(self.share * _BAR_WIDTH)
            line.append("  ").append("━" * full, "hint").append("━" * (_BAR_WIDTH - full), "quiet")
            line.append(f" {self.share:.0%}")
        if took >= 0.1:
            line.append(f"  {took:.1f} s", "quiet")
        return line


@contextmanager
def phase(name: str, detail: str) -> Iterator[Phase]:
    """Show a step while the block runs; on an error it is marked as the one that failed."""
    running = Phase(name, detail)
    console = stderr()
    try:
        if console.is_terminal:
            with _Spinner(running):
                yield running
        else:
            console.print(Text(f"{name.ljust(_NAME_WIDTH)} {printable(detail)}"))
            yield running
    except BaseException:
        console.print(running.line("x", "failure"))
        raise
    console.print(running.line("✓", "good"))


def finished(name: str, detail: str) -> None:
    """The line of a step that showed its own progress."""
    stderr().print(Phase(name, detail).line("✓", "good"))


class _Spinner:
    """rich's status line, kept in step with the phase's detail and time."""

    def __init__(self, running: Phase) -> None:
        from rich.live import Live

        self._running = running
        self._live = Live(get_renderable=self._render, console=stderr(), transient=True, refresh_per_second=8)

    def _render(self) -> Text:
        frames = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
        frame = frames[int(time.monotonic() * 8) % len(frames)]
        return self._running.line(frame, "hint", running=True)

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *_: object) -> None:
        self._live.stop()
