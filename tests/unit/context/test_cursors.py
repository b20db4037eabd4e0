"""Cursors convert exactly, or say why not: checked against Python's own encodings."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.context import cursors
from zenray.context.cursors import (
    LinePosition,
    OffsetPosition,
    Position,
    PositionUnit,
    cursor_offset,
)
from zenray.errors import InvalidRequest

UTF8, UTF16, POINTS = PositionUnit.UTF8_BYTE, PositionUnit.UTF16_CODE_UNIT, PositionUnit.CODE_POINT

documents = st.text(st.sampled_from(["a", " ", "\n", "\r", "\t", "é", "漢", "🙂", "\u0301", "\u2028", "\x0b", "\x85"]))
units = st.sampled_from(PositionUnit)


@pytest.fixture(params=[(1, 1), (2, 1), (7, 3), (4096, 128)], ids=str, scope="module")
def block(request: pytest.FixtureRequest) -> Iterator[None]:
    """Characters counted together: tiny blocks put an end of one everywhere, between CR and LF too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cursors, "_BLOCK", request.param[0])
        patch.setattr(cursors, "_SMALL_BLOCK", request.param[1])
        yield


def in_unit(text: str, unit: PositionUnit) -> int:
    """The length of `text` in a unit, by Python's encoders."""
    lengths = {UTF8: len(text.encode()), UTF16: len(text.encode("utf-16-le")) // 2, POINTS: len(text)}
    return lengths[unit]


@pytest.mark.usefixtures("block")
@given(st.data(), documents | st.text(), units)
def test_every_character_boundary_round_trips(data: st.DataObject, text: str, unit: PositionUnit) -> None:
    offset = data.draw(st.integers(0, len(text)))
    assert cursor_offset(text, OffsetPosition(in_unit(text[:offset], unit)), unit) == offset


@pytest.mark.usefixtures("block")
@given(documents, units)
def test_an_offset_is_a_boundary_or_an_error(text: str, unit: PositionUnit) -> None:
    boundaries = {in_unit(text[:i], unit): i for i in range(len(text) + 1)}
    for count in range(in_unit(text, unit) + 3):
        if count in boundaries:
            assert cursor_offset(text, OffsetPosition(count), unit) == boundaries[count]
        else:
            with pytest.raises(InvalidRequest) as raised:
                cursor_offset(text, OffsetPosition(count), unit)
            assert raised.value.violations[0].field == "cursor.offset"


@pytest.mark.usefixtures("block")
@given(st.data(), documents, units)
def test_lines_and_columns_agree_with_offsets(data: st.DataObject, text: str, unit: PositionUnit) -> None:
    parts = re.split(r"(\r\n|\n|\r)", text)
    lines, ends = parts[::2], [*parts[1::2], ""]
    line = data.draw(st.integers(0, len(lines) - 1))
    column = data.draw(st.integers(0, len(lines[line])))
    start = sum(len(lines[i]) + len(ends[i]) for i in range(line))
    position = LinePosition(line, in_unit(lines[line][:column], unit))
    assert cursor_offset(text, position, unit) == start + column
    with pytest.raises(InvalidRequest, match=r"line_column\.column"):
        cursor_offset(text, LinePosition(line, in_unit(lines[line], unit) + 1), unit)
    with pytest.raises(InvalidRequest, match=re.escape(f"0 to {len(lines) - 1}")):
        cursor_offset(text, LinePosition(len(lines), 0), unit)


@pytest.mark.parametrize(
    ("text", "position", "unit", "reason"),
    [
        ("é", OffsetPosition(1), UTF8, "inside one"),
        ("🙂", OffsetPosition(3), UTF8, "inside one"),
        ("🙂", OffsetPosition(1), UTF16, "splits a surrogate pair"),
        ("a\n🙂", LinePosition(1, 1), UTF16, "splits a surrogate pair"),
        ("ab", OffsetPosition(3), UTF8, "0 to 2, the UTF-8 bytes of the document"),
        ("é", OffsetPosition(3), UTF8, "0 to 2, the UTF-8 bytes"),
        ("🙂", OffsetPosition(3), UTF16, "0 to 2, the UTF-16 code units"),
        ("ab\ncd", LinePosition(0, 3), POINTS, "0 to 2, the code points of line 0"),
        ("", LinePosition(2**32 - 1, 0), UTF8, "0 to 0, the lines"),
        ("x", OffsetPosition(2**64 - 1), UTF8, "0 to 1"),
        ("x", OffsetPosition(-1), UTF16, "0 to 1"),
        ("x", LinePosition(-1, 0), UTF16, "0 or more"),
    ],
)
def test_errors_say_what_is_allowed(text: str, position: Position, unit: PositionUnit, reason: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        cursor_offset(text, position, unit, "editor.cursor")
    assert raised.value.violations[0].field.startswith("editor.cursor.")
    assert reason in raised.value.violations[0].allowed


@pytest.mark.parametrize("character", ["x", "é", "漢", "🙂"])
@pytest.mark.parametrize("unit", PositionUnit)
def test_a_line_of_a_million_bytes(character: str, unit: PositionUnit) -> None:
    length = 1_000_000 // len(character.encode())
    text = f"first\r\n{character * length}\nlast"
    width = in_unit(character, unit)
    for column in (0, 1, 4095, 4096, 4097, length // 2, length - 1, length):
        assert cursor_offset(text, LinePosition(1, column * width), unit) == 7 + column
        assert cursor_offset(text, OffsetPosition(7 + column * width), unit) == 7 + column
    assert cursor_offset(text, LinePosition(2, 4), unit) == len(text)
    with pytest.raises(InvalidRequest, match=rf"0 to {length * width}, the"):
        cursor_offset(text, LinePosition(1, length * width + 1), unit)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("unit", PositionUnit)
def test_a_cursor_at_every_offset_of_a_mixed_file(unit: PositionUnit) -> None:
    text = "def f():\r\n\treturn 'é漢🙂'\n\r\rx = 1 # \u0301\n" * 3
    line = start = 0
    for offset in range(len(text) + 1):
        assert cursor_offset(text, OffsetPosition(in_unit(text[:offset], unit)), unit) == offset
        if text[offset - 1 : offset + 1] == "\r\n":
            continue
        if offset and text[offset - 1] in "\r\n":
            line, start = line + 1, offset
        assert cursor_offset(text, LinePosition(line, in_unit(text[start:offset], unit)), unit) == offset
