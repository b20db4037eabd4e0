"""Server-sent events from bytes as they come (WHATWG HTML §9.2.6), as far as streams of completions use them."""

from __future__ import annotations

import codecs
import re

_LINE_END = re.compile(r"\r\n|\n|\r")


class SseParser:
    """Feed it bytes in any pieces; it returns the `data` of every event those bytes complete.

    Lines end with LF, CRLF or CR; several data lines of one event are joined by LF; comments and other
    fields are skipped; a leading byte-order mark is dropped; bytes that are not UTF-8 become U+FFFD.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._line = ""
        self._data: list[str] = []
        self._after_cr = False

    def feed(self, piece: bytes) -> list[str]:
        """Events completed by `piece`, in order."""
        text = self._decoder.decode(piece)
        if not text:
            return []
        if self._after_cr:
            text = text.removeprefix("\n")  # the second half of a CRLF whose first half ended a line already
        self._after_cr = text.endswith("\r")
        *lines, self._line = _LINE_END.split(self._line + text)
        events: list[str] = []
        for line in lines:
            self._end_line(line, events)
        return events

    def _end_line(self, line: str, events: list[str]) -> None:
        if not line:
            if self._data:
                events.append("\n".join(self._data))
            self._data = []
            return
        name, _, value = line.partition(":")
        if name == "data":
            self._data.append(value.removeprefix(" "))
