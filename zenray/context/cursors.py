"""Cursors: exact conversion of an editor's position in a document to code points."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from itertools import islice

from zenray.errors import InvalidRequest

_LINE_END = re.compile(r"\r\n|\n|\r")
_BLOCK, _SMALL_BLOCK = 4096, 128
"""Characters looked at together: counting in a block runs at the speed of memory, so a cursor at the end of a file of
5,000 lines takes a tenth of a millisecond. A line is then looked for in small blocks of the one that has it."""


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
    if line < 0:
        raise InvalidRequest.of(field, line, "0 or more")
    start = stop = 0
    missing = line
    for size in (_BLOCK, _SMALL_BLOCK):
        while missing:
            if start == len(text):
                raise InvalidRequest.of(field, line, f"0 to {line - missing}, the lines of the document")
            stop = _block_end(text, start, size)
            num_ends = _num_line_ends(text, start, stop)
            if num_ends >= missing:
                break
            start, missing = stop, missing - num_ends
    if missing:
        start = next(islice(_LINE_END.finditer(text, start, stop), missing - 1, None)).end()
    end = text.find("\n", start)
    end = len(text) if end < 0 else end
    carriage_return = text.find("\r", start, end)
    return start, end if carriage_return < 0 else carriage_return


def _block_end(text: str, start: int, size: int) -> int:
    """Where the block from `start` ends: never between the halves of a CR LF."""
    stop = min(start + size, len(text))
    return stop + 1 if text[stop - 1 : stop + 1] == "\r\n" else stop


def _num_line_ends(text: str, start: int, stop: int) -> int:
    num_carriage_returns = text.count("\r", start, stop)
    if num_carriage_returns:
        num_carriage_returns -= text.count("\r\n", start, stop)
    return text.count("\n", start, stop) + num_carriage_returns


def _code_points(text: str, count: int, unit: PositionUnit, field: str, where: str) -> int:
    """How many code points of `text` its first `count` units are."""
    if unit is PositionUnit.CODE_POINT or text.isascii():
        _check_range(count, len(text), unit, field, where)
        return count
    missing = count
    for start in range(0, len(text), _BLOCK):
        block = text[start : start + _BLOCK]
        num_units = len(block) if block.isascii() else len(_encode(block, unit)) // _BYTES_OF_UNIT[unit]
        if 0 <= missing < num_units:
            return start + _code_points_of_block(block, missing, count, unit, field)
        missing -= num_units
    _check_range(count, count - missing, unit, field, where)
    return len(text)


def _code_points_of_block(block: str, num_units: int, count: int, unit: PositionUnit, field: str) -> int:
    """The same within a block, of which `num_units` are wanted, fewer than it has."""
    if block.isascii():
        return num_units
    encoded = _encode(block, unit)
    if unit is PositionUnit.UTF8_BYTE:
        if encoded[num_units] & 0xC0 == 0x80:
            raise InvalidRequest.of(field, count, "a boundary between characters; this is inside one")
    elif 0xDC <= encoded[2 * num_units + 1] <= 0xDF:
        raise InvalidRequest.of(field, count, "a boundary between characters; this splits a surrogate pair")
    return len(encoded[: num_units * _BYTES_OF_UNIT[unit]].decode(_CODECS[unit]))


_CODECS = {PositionUnit.UTF8_BYTE: "utf-8", PositionUnit.UTF16_CODE_UNIT: "utf-16-le"}
_BYTES_OF_UNIT = {PositionUnit.UTF8_BYTE: 1, PositionUnit.UTF16_CODE_UNIT: 2}


def _encode(text: str, unit: PositionUnit) -> bytes:
    return text.encode(_CODECS[unit])


def _check_range(count: int, most: int, unit: PositionUnit, field: str, where: str) -> None:
    if not 0 <= count <= most:
        raise InvalidRequest.of(field, count, f"0 to {most}, the {unit.value} of {where}")
