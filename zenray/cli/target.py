"""Where in a file to complete: `path/to/file.py:LINE:COL`, as an editor shows it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from zenray.errors import InvalidRequest

_LINE_END = re.compile(r"\r\n|\n|\r")
_TARGET = re.compile(r"(?P<path>.+?)(?::(?P<line>\d+)(?::(?P<column>\d+))?:?)?\Z", re.DOTALL)


@dataclass(frozen=True)
class Target:
    """A document and a cursor in it, counted in code points of `text`."""

    path: Path
    text: str
    offset: int

    @property
    def prefix(self) -> str:
        return self.text[: self.offset]

    @property
    def suffix(self) -> str:
        return self.text[self.offset :]

    @property
    def shown_path(self) -> str:
        return path_in(None, self.path)


def path_in(workspace: Path | None, path: Path) -> str:
    """`path` as an editor names it: relative to the workspace or else the working folder where it lies below, or its
    bare name."""
    relative = os.path.relpath(path, workspace or ".")
    return path.name if relative.startswith("..") else relative.replace(os.sep, "/")


def read_target(target: str) -> Target:
    """Parse and read. LINE and COL count from 1; COL n stands before the n-th character of the line.

    Without COL the cursor is at the end of the line, without LINE at the end of the file.
    Raises InvalidRequest naming what is wrong and what is allowed.
    """
    match = _TARGET.match(target)
    if match is None:
        raise InvalidRequest.of("TARGET", target, "FILE:LINE:COL, such as src/app.py:12:5")
    whole = Path(target).expanduser()
    if whole.is_file():
        path, line, column = whole, None, None
    else:
        path, line, column = Path(match["path"]).expanduser(), match["line"], match["column"]
    text = read_text("TARGET", path)
    if line is None:
        return Target(path, text, len(text))
    starts = [0, *(end.end() for end in _LINE_END.finditer(text))]
    if not 1 <= int(line) <= len(starts):
        raise InvalidRequest.of("LINE", int(line), f"1 to {len(starts)}, the lines of {path}")
    start = starts[int(line) - 1]
    end_match = _LINE_END.search(text, start)
    length = (end_match.start() if end_match else len(text)) - start
    if column is None:
        return Target(path, text, start + length)
    if not 1 <= int(column) <= length + 1:
        raise InvalidRequest.of("COL", int(column), f"1 to {length + 1} on line {line} of {path}")
    return Target(path, text, start + int(column) - 1)


def read_text(option: str, path: Path) -> str:
    """A file's text. Raises InvalidRequest naming `option` for one that cannot be read or is no UTF-8."""
    try:
        return path.expanduser().read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest.of(option, str(path), f"a UTF-8 text; its byte {error.start} is not") from error
    except OSError as error:
        raise InvalidRequest.of(option, str(path), f"a readable file ({error.strerror or error})") from error
