"""Planned sequences as rows and back."""

from __future__ import annotations

import sys
from array import array
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from zenray.batch.rows import ROW_ID, Row
from zenray.batch.teacher_logits.model import Mode, PackedSequence, Segment, token_array

SEGMENTS = "segments"


def to_row(sequence: PackedSequence) -> Row:
    """A JSON object; token ids are base64 of little-endian 32-bit numbers, which takes less room in memory and less
    time to write and read than a list of them."""
    return {ROW_ID: sequence.row_id, SEGMENTS: [_segment_to_json(segment) for segment in sequence.segments]}


def from_row(row: Mapping[str, Any]) -> PackedSequence:
    """What `to_row` was given; other keys of the row do not matter."""
    return PackedSequence(row[ROW_ID], tuple(map(_segment_from_json, row[SEGMENTS])))


def _segment_to_json(segment: Segment) -> dict[str, Any]:
    return {
        "token_ids": b64encode(_little_endian(token_array(segment.token_ids))).decode(),
        "first_scored": segment.first_scored,
        "mode": segment.mode.value,
        "language": segment.language,
        "path": segment.path,
        "repository": segment.repository,
        "revision": segment.revision,
        "licence_file": segment.licence_file,
        "window": segment.window,
    }


def _segment_from_json(data: Mapping[str, Any]) -> Segment:
    token_ids = array("I", b64decode(data["token_ids"], validate=True))
    return Segment(**{**data, "token_ids": _little_endian(token_ids), "mode": Mode(data["mode"])})


def _little_endian(token_ids: array[int]) -> array[int]:
    """From or to the machine's order, as one does the same as the other."""
    if sys.byteorder == "little":
        return token_ids
    swapped = token_ids[:]
    swapped.byteswap()
    return swapped
