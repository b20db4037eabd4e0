"""Cursors: exact conversion of an editor's position in a document to code points."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from itertools import islice

from zenray.errors import InvalidRequest

_LINE_END = re.compile(r"\r\n|\n|\r")


class PositionUnit(Enum):
    """What a cursor counts. The names are those of `zenray.v1.PositionUnit`."""

    UTF8_BYTE = "UTF-8 bytes"
    UTF16_CODE_UNIT = "UTF-16 code units"
    CODE_POINT = "code points"


@dataclass(frozen=True, slots=True)
class OffsetPosition:
    """A place counted from the start of the document."""

    offset: int


@dataclass(frozen=True, slots=True)
class LinePosition:
    """A line and a column, both from zero. A line ends with LF, CR LF or CR; its end is a legal column."""

    line: int
    column: int


Position = OffsetPosition | LinePosition


def cursor_offset(text: str, position: Position, unit: PositionUnit, field: str = "cursor") -> int:
    """The code point offset of `position` in `text`, which must hold no lone surrogate.

    Raises InvalidRequest, naming the part of `field`, for a cursor outside the document or its line, inside
    a UTF-8 character, or between the halves of a surrogate pair. A cursor is never moved to a nearby place.
    """
    if isinstance(position, OffsetPosition):
        return _code_points(text, position.offset, unit, f"{field}.offset", "the document")
    start, end = _line_span(text, position.line, f"{field}.line_column.line")
    where = f"line {position.line}"
    return start + _code_points(text[start:end], position.column, unit, f"{field}.line_column.column", where)


def _line_span(text: str, line: int, field: str) -> tuple[int, int]:
    """Start and end of `line` in code points, without its line end."""
    start = 0
    if line > 0:
        before = next(islice(_LINE_END.finditer(text), min(line - 1, len(text)), None), None)
        if before is None:
            last = sum(1 for _ in _LINE_END.finditer(text))
            raise InvalidRequest.of(field, line, f"0 to {last}, the lines of the document")
        start = before.end()
    if line < 0:
        raise InvalidRequest.of(field, line, "0 or more")
    end = _LINE_END.search(text, start)
    return start, end.start() if end else len(text)


def _code_points(text: str, count: int, unit: PositionUnit, field: str, where: str) -> int:
    """How many code points of `text` its first `count` units are."""
    if unit is PositionUnit.CODE_POINT or text.isascii():
        _check_range(count, len(text), unit, field, where)
        return count
    if unit is PositionUnit.UTF8_BYTE:
        encoded = text.encode("utf-8")
        _check_range(count, len(encoded), unit, field, where)
        if count < len(encoded) and encoded[count] & 0xC0 == 0x80:
            raise InvalidRequest.of(field, count, "a boundary between characters; this is inside one")
        return len(encoded[:count].decode("utf-8"))
    wide = text.encode("utf-16-le")
    _check_range(count, len(wide) // 2, unit, field, where)
    if 2 * count < len(wide) and 0xDC <= wide[2 * count + 1] <= 0xDF:
        raise InvalidRequest.of(field, count, "a boundary between characters; this splits a surrogate pair")
    return len(wide[: 2 * count].decode("utf-16-le"))


def _check_range(count: int, most: int, unit: PositionUnit, field: str, where: str) -> None:
    if not 0 <= count <= most:
        raise InvalidRequest.of(field, count, f"0 to {most}, the {unit.value} of {where}")
