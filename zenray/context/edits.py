"""Edits of a text: applied as an editor sends them, found between two texts, remembered as regions."""

from __future__ import annotations

from dataclasses import dataclass, replace

from zenray.context.cursors import cursor_offset
from zenray.context.document_events import TextEdit
from zenray.context.surroundings import RecentEdit
from zenray.errors import InvalidRequest

MAX_RECENT_EDITS = 16
MAX_REGION_CHARACTERS, MAX_REGION_LINES = 4096, 128
"""Of a remembered edit, before or after it: what is larger is a document rather than an edit."""
_JOINED_LINES = 2
"""Edits with at most so many lines between them become one."""
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Change:
    """`text` takes the place of the code points [start, end)."""

    start: int
    end: int
    text: str

    def applied_to(self, before: str) -> str:
        return "".join((before[: self.start], self.text, before[self.end :]))


def change_of(edit: TextEdit, text: str, field: str) -> Change:
    """`edit` of `text` in code points. Raises InvalidRequest, naming the part of `field`, where it does not fit."""
    start = cursor_offset(text, edit.start, edit.unit, f"{field}.start")
    end = start if edit.end == edit.start else cursor_offset(text, edit.end, edit.unit, f"{field}.end")
    if end < start:
        raise InvalidRequest.of(f"{field}.end", edit.end, "a place not before the start")
    return Change(start, end, edit.text)


def difference(before: str, after: str) -> Change:
    """The one change between two texts that touches least: what begins and ends both is not part of it."""
    shorter = min(len(before), len(after))
    start = _common_start(before, after, shorter)
    rest = _common_end(before, after, shorter - start)
    return Change(start, len(before) - rest, after[start : len(after) - rest])


def _common_start(a: str, b: str, most: int) -> int:
    """Characters that both begin with, at most `most`: compared in blocks, then in halves of the one that differs."""
    same = 0
    step = _BLOCK
    while step:
        while same + step <= most and a[same : same + step] == b[same : same + step]:
            same += step
        step //= 2
    return same


def _common_end(a: str, b: str, most: int) -> int:
    same = 0
    step = _BLOCK
    while step:
        i, j = len(a) - same, len(b) - same
        while same + step <= most and a[i - step : i] == b[j - step : j]:
            same, i, j = same + step, i - step, j - step
        step //= 2
    return same


def remember(
    edits: tuple[RecentEdit, ...], path: str, before: str, change: Change, at_s: float
) -> tuple[RecentEdit, ...]:
    """`edits`, newest first, with one more, which turned the document of `path` from `before` into its present text.

    An edit is a region of whole lines (a line ends with LF). The regions of a document never touch: a change joins
    all those near it, so `after` is always what stands at `start_line` now, and putting every `before` back
    gives the text of old. A region that grows too large is forgotten.
    """
    if before[change.start : change.end] == change.text:
        return edits
    start, end = _whole_lines(before, change)
    first = before.count("\n", 0, start)
    last = first + num_lines(before[start:end])
    moved_lines = change.text.count("\n") - before.count("\n", change.start, change.end)
    near: list[RecentEdit] = []
    others: list[RecentEdit] = []
    for edit in edits:
        if edit.path != path:
            others.append(edit)
        elif edit.start_line <= last + _JOINED_LINES and first <= _end_line(edit) + _JOINED_LINES:
            near.append(edit)
        else:
            others.append(replace(edit, start_line=edit.start_line + moved_lines) if edit.start_line > last else edit)
    if _is_large(before[start:end]) or _is_large(change.text):
        return tuple(others)
    near.sort(key=lambda edit: edit.start_line)
    places = [_offset_of_line(before, edit.start_line, first, start) for edit in near]
    lines_before: list[str] = []
    start = done = min([start, *places])
    for edit, place in zip(near, places, strict=True):
        lines_before += (before[done:place], edit.before)
        done = place + len(edit.after)
    end = max(end, done)
    lines_before.append(before[done:end])
    joined = RecentEdit(
        path=path,
        start_line=min([first, *(edit.start_line for edit in near)]),
        before="".join(lines_before),
        after="".join((before[start : change.start], change.text, before[change.end : end])),
        at_s=at_s,
    )
    if joined.before == joined.after or _is_large(joined.before) or _is_large(joined.after):
        return tuple(others)
    return (joined, *others)[:MAX_RECENT_EDITS]


def still_there(edits: tuple[RecentEdit, ...], path: str, text: str) -> tuple[RecentEdit, ...]:
    """`edits` without those of `path` that its new `text` does not show."""
    return tuple(edit for edit in edits if edit.path != path or _shows(text, edit))


def num_lines(region: str) -> int:
    """Of whole lines, the last of which may lack its end."""
    return region.count("\n") + (region != "" and not region.endswith("\n"))


def _is_large(region: str) -> bool:
    return len(region) > MAX_REGION_CHARACTERS or region.count("\n") > MAX_REGION_LINES


def _end_line(edit: RecentEdit) -> int:
    return edit.start_line + num_lines(edit.after)


def _whole_lines(text: str, change: Change) -> tuple[int, int]:
    """Where the lines of `text` that `change` touches start and end. Whole lines put in or taken out touch no other."""
    start = text.rfind("\n", 0, change.start) + 1
    ends_lines = change.end == 0 or text[change.end - 1] == "\n"
    leaves_lines = change.text.endswith("\n") or (change.text == "" and change.start == start)
    if ends_lines and leaves_lines:
        return start, change.end
    return start, _next_line(text, change.end)


def _next_line(text: str, offset: int) -> int:
    return text.find("\n", offset) + 1 or len(text)


def _offset_of_line(text: str, line: int, known_line: int, known_offset: int) -> int:
    """Where `line` starts, found from the start of a line near it."""
    offset = known_offset
    for _ in range(line, known_line):
        offset = text.rfind("\n", 0, offset - 1) + 1
    for _ in range(known_line, line):
        offset = _next_line(text, offset)
    return offset


def _shows(text: str, edit: RecentEdit) -> bool:
    start = _offset_of_line(text, edit.start_line, 0, 0)
    end = start + len(edit.after)
    return text.count("\n", 0, start) == edit.start_line and (
        text[start:end] == edit.after and (end == len(text) or end == start or text[end - 1] == "\n")
    )
