"""The terminal: two consoles, the few styles, and text that must not act on the terminal."""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# C0 and C1 controls except tab, newline and carriage return: an escape sequence in a model's output or in a
# document would otherwise move the cursor or retitle the window.
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def stdout() -> Console:
    """What was asked for goes here."""
    return _console(id(sys.stdout), False)


def stderr() -> Console:
    """Everything said about it goes here, so that a pipe carries only results."""
    return _console(id(sys.stderr), True)


@lru_cache(maxsize=8)
def _console(stream_id: int, is_stderr: bool) -> Console:
    """One console per stream object: tests replace the streams."""
    from rich.console import Console
    from rich.theme import Theme

    theme = Theme(
        {
            "failure": "bold red",
            "hint": "cyan",
            "quiet": "dim",
            "good": "green",
            "warn": "yellow",
            "name": "bold",
            "inserted": "bold green",
        }
    )
    return Console(stderr=is_stderr, theme=theme, highlight=False, soft_wrap=True, emoji=False)


def printable(text: str) -> str:
    """`text` with control characters shown as their Unicode pictures."""
    return _CONTROLS.sub(lambda match: _picture(match.group()), text)


def _picture(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table without frame; the columns of `right` hold numbers."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        made.add_column(
            column, justify="right" if column in right else "left", overflow="fold", no_wrap=column == "name"
        )
    return made


def facts() -> Table:
    """Two columns: what, and its value."""
    from rich.table import Table

    made = Table.grid(padding=(0, 2))
    made.add_column(style="quiet", no_wrap=True)
    made.add_column(overflow="fold")
    return made


def megabytes(num_bytes: float) -> str:
    if 0 < num_bytes < 1e5:
        return f"{num_bytes / 1e3:.1f} kB"
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def millions(count: int) -> str:
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.0f} M"
