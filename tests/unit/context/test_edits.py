"""Edits apply exactly in every unit, differences are minimal, and remembered regions always tell the truth."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.context.cursors import LinePosition, OffsetPosition, Position, PositionUnit
from zenray.context.document_events import TextEdit
from zenray.context.edits import (
    MAX_RECENT_EDITS,
    MAX_REGION_CHARACTERS,
    MAX_REGION_LINES,
    Change,
    change_of,
    difference,
    num_lines,
    remember,
    still_there,
)
from zenray.context.surroundings import RecentEdit
from zenray.errors import InvalidRequest

CHARACTERS = ["a", "b", " ", "\n", "\n", "\r", "\r\n", "\t", "é", "漢", "🙂", "\u0301", "\u2028"]
texts = st.lists(st.sampled_from(CHARACTERS), max_size=10).map("".join)
CODECS = {PositionUnit.UTF8_BYTE: ("utf-8", 1), PositionUnit.UTF16_CODE_UNIT: ("utf-16-le", 2)}


def encoded_edit(text: str, start: int, end: int, new: str, unit: PositionUnit) -> str:
    """The edit made on the encoded text, as another program would."""
    if unit is PositionUnit.CODE_POINT:
        return text[:start] + new + text[end:]
    codec, width = CODECS[unit]
    data = text.encode(codec)
    return (data[: start * width] + new.encode(codec) + data[end * width :]).decode(codec)


def in_unit(text: str, unit: PositionUnit) -> int:
    if unit is PositionUnit.CODE_POINT:
        return len(text)
    codec, width = CODECS[unit]
    return len(text.encode(codec)) // width


def line_position(text: str, offset: int, unit: PositionUnit) -> Position | None:
    """Line and column by hand; None between CR and LF, which is inside a line end."""
    if text[offset - 1 : offset + 1] == "\r\n":
        return None
    lines = text[:offset].replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return LinePosition(len(lines) - 1, in_unit(lines[-1], unit))


@given(st.data(), texts, texts, st.sampled_from(PositionUnit))
def test_an_edit_is_what_it_is_in_the_encoded_text(
    data: st.DataObject, text: str, new: str, unit: PositionUnit
) -> None:
    a, b = sorted((data.draw(st.integers(0, len(text))), data.draw(st.integers(0, len(text)))))
    start, end = in_unit(text[:a], unit), in_unit(text[:b], unit)
    expected = encoded_edit(text, start, end, new, unit)
    by_offset = TextEdit(OffsetPosition(start), OffsetPosition(end), unit, new)
    assert change_of(by_offset, text, "edits[0]").applied_to(text) == expected
    first, last = line_position(text, a, unit), line_position(text, b, unit)
    if first is not None and last is not None:
        assert change_of(TextEdit(first, last, unit, new), text, "edits[0]").applied_to(text) == expected


@pytest.mark.parametrize(
    ("start", "end", "field"),
    [
        (OffsetPosition(3), OffsetPosition(1), "edits[4].end"),
        (OffsetPosition(9), OffsetPosition(9), "edits[4].start.offset"),
        (OffsetPosition(0), LinePosition(7, 0), "edits[4].end.line_column.line"),
        (LinePosition(0, 99), OffsetPosition(0), "edits[4].start.line_column.column"),
    ],
)
def test_an_edit_that_does_not_fit_names_its_end(start: Position, end: Position, field: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        change_of(TextEdit(start, end, PositionUnit.CODE_POINT, "x"), "ab\ncd", "edits[4]")
    assert raised.value.violations[0].field == field


@given(texts, texts, texts, texts)
def test_the_difference_leads_from_one_text_to_the_other(a: str, b: str, head: str, tail: str) -> None:
    before, after = head + a + tail, head + b + tail
    change = difference(before, after)
    assert change.applied_to(before) == after
    taken = before[change.start : change.end]
    assert not (taken and change.text) or (taken[0] != change.text[0] and taken[-1] != change.text[-1])
    assert len(change.text) <= len(b)
    if before == after:
        assert (taken, change.text) == ("", "")


@pytest.mark.parametrize("at", [0, 1, 4095, 4096, 4097, 500_000, 999_999, 1_000_000])
def test_one_character_in_a_line_of_a_million_is_found(at: int) -> None:
    line = "x" * 1_000_000
    assert difference(line, line[:at] + "é" + line[at:]) == Change(at, at, "é")
    same = "xy" * 500_000
    assert difference(same, same[:at] + same[at + 1 :]).end - difference(same, same[:at] + same[at + 1 :]).start <= 1


changes = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 8), texts), min_size=1, max_size=12)


def play(text: str, steps: list[tuple[int, int, str]]) -> tuple[str, tuple[RecentEdit, ...]]:
    edits: tuple[RecentEdit, ...] = ()
    for time, (start, length, new) in enumerate(steps):
        start = min(start, len(text))
        change = Change(start, min(start + length, len(text)), new)
        edits = remember(edits, "a.py", text, change, float(time))
        text = change.applied_to(text)
    return text, edits


@given(st.lists(texts, max_size=12).map("\n".join), changes)
def test_regions_show_the_present_and_undo_to_the_past(original: str, steps: list[tuple[int, int, str]]) -> None:
    text, edits = play(original, steps)
    assert still_there(edits, "a.py", text) == edits
    restored = text
    for edit in sorted(edits, key=lambda edit: -edit.start_line):
        start = sum(len(line) + 1 for line in restored.split("\n")[: edit.start_line])
        start = min(start, len(restored))
        assert restored[start:].startswith(edit.after)
        restored = restored[:start] + edit.before + restored[start + len(edit.after) :]
    assert restored == original
    by_line = sorted(edits, key=lambda edit: edit.start_line)
    for above, below in pairwise(by_line):
        assert below.start_line > above.start_line + num_lines(above.after) + 2


def test_typing_is_one_edit_and_a_change_far_away_another() -> None:
    text = "".join(f"line {i}\n" for i in range(20))
    typed = text.index("line 5") + 6
    steps = [(typed + i, 0, letter) for i, letter in enumerate(" and more\n")]
    text, edits = play(text, [*steps, (0, 6, "first")])
    assert edits == (
        RecentEdit("a.py", 0, "line 0\n", "first\n", 10.0),
        RecentEdit("a.py", 5, "line 5\n", "line 5 and more\n\n", 9.0),
    )
    _, edits = play("".join(f"line {i}\n" for i in range(20)), [*steps, (0, 0, "above\n"), (6, 1, "")])
    assert edits[-1].start_line == 6, "a line put in above moves the region down"


def test_whole_lines_put_in_or_taken_out_touch_no_other() -> None:
    text = "a\nb\nc\nd\n"
    assert remember((), "a", text, Change(2, 2, "x\n"), 0.0) == (RecentEdit("a", 1, "", "x\n", 0.0),)
    assert remember((), "a", text, Change(2, 6, ""), 0.0) == (RecentEdit("a", 1, "b\nc\n", "", 0.0),)
    assert remember((), "a", "", Change(0, 0, "x"), 0.0) == (RecentEdit("a", 0, "", "x", 0.0),)


def test_what_was_undone_what_is_huge_and_what_is_old_is_forgotten() -> None:
    text, edits = play("a\nb\n", [(0, 1, "xyz"), (0, 3, "a")])
    assert (text, edits) == ("a\nb\n", ())
    _, edits = play("a\n", [(1, 0, "b"), (1, 0, "x" * (MAX_REGION_CHARACTERS + 1))])
    assert edits == ()
    _, edits = play("a\n", [(1, 0, "b"), (1, 0, "\n" * (MAX_REGION_LINES + 1))])
    assert edits == ()
    _, edits = play("y" * 1_000_000, [(500_000, 0, "x")])
    assert edits == ()
    far_apart = "".join(f"{i}\n\n\n\n" for i in range(40))
    places = [far_apart.index(f"\n{i}\n") + 1 for i in range(1, 40)]
    _, edits = play(far_apart, [(place, 1, "z") for place in places])
    assert len(edits) == MAX_RECENT_EDITS
    assert [edit.at_s for edit in edits] == [float(38 - i) for i in range(MAX_RECENT_EDITS)]


def test_other_documents_are_left_alone_and_a_changed_one_loses_what_it_no_longer_shows() -> None:
    _, edits = play("a\n", [(0, 1, "x")])
    other = remember(edits, "b.py", "1\n2\n", Change(0, 1, "one"), 9.0)
    assert other == (RecentEdit("b.py", 0, "1\n", "one\n", 9.0), *edits)
    assert still_there(other, "b.py", "0\none\n") == edits
    assert still_there(other, "b.py", "one\nmore\n") == other
    assert still_there(other, "b.py", "") == edits
