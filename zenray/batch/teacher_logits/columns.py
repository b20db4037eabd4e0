"""The columns that say what a sequence is made of: lists with one item a segment, in the segments' order.

What stands at each position (token ids, records, checksums) is in the columns of `records`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from zenray.batch.teacher_logits.model import Mode, Segment

SEGMENT_LENGTHS = "segment_lengths"
"""Tokens of each, the ones that only give context among them; together the sequence's."""
SEGMENT_FIRST_SCORED = "segment_first_scored"
"""The first position within the segment that has a record."""
SEGMENT_MODES = "segment_modes"
SEGMENT_LANGUAGES = "segment_languages"
SEGMENT_PATHS = "segment_paths"
SEGMENT_REPOSITORIES = "segment_repositories"
SEGMENT_REVISIONS = "segment_revisions"
SEGMENT_LICENCE_FILES = "segment_licence_files"
SEGMENT_WINDOWS = "segment_windows"
"""Which window of its document it is, from 0."""

_NUMBERS, _TEXTS = pa.list_(pa.int32()), pa.list_(pa.string())

SEGMENT_FIELDS: tuple[pa.Field, ...] = (
    pa.field(SEGMENT_LENGTHS, _NUMBERS),
    pa.field(SEGMENT_FIRST_SCORED, _NUMBERS),
    pa.field(SEGMENT_MODES, _TEXTS),
    pa.field(SEGMENT_LANGUAGES, _TEXTS),
    pa.field(SEGMENT_PATHS, _TEXTS),
    pa.field(SEGMENT_REPOSITORIES, _TEXTS),
    pa.field(SEGMENT_REVISIONS, _TEXTS),
    pa.field(SEGMENT_LICENCE_FILES, _TEXTS),
    pa.field(SEGMENT_WINDOWS, _NUMBERS),
)


def segment_columns(segments: Sequence[Segment]) -> dict[str, list[Any]]:
    """A value for each of `SEGMENT_FIELDS`."""
    return {
        SEGMENT_LENGTHS: [len(each.token_ids) for each in segments],
        SEGMENT_FIRST_SCORED: [each.first_scored for each in segments],
        SEGMENT_MODES: [each.mode.value for each in segments],
        SEGMENT_LANGUAGES: [each.language for each in segments],
        SEGMENT_PATHS: [each.path for each in segments],
        SEGMENT_REPOSITORIES: [each.repository for each in segments],
        SEGMENT_REVISIONS: [each.revision for each in segments],
        SEGMENT_LICENCE_FILES: [each.licence_file for each in segments],
        SEGMENT_WINDOWS: [each.window for each in segments],
    }


def segments_of(columns: Mapping[str, Sequence[Any]], token_ids: Sequence[int]) -> tuple[Segment, ...]:
    """The segments of a sequence with `token_ids`, of what `segment_columns` gave.

    Raises ValueError where the lengths do not make up the sequence or the columns are not equally long.
    """
    if sum(columns[SEGMENT_LENGTHS]) != len(token_ids):
        raise ValueError(f"segments have {sum(columns[SEGMENT_LENGTHS])} tokens, the sequence {len(token_ids)}")
    made, start = [], 0
    for values in zip(*(columns[each.name] for each in SEGMENT_FIELDS), strict=True):
        length, first_scored, mode, language, path, repository, revision, licence_file, window = values
        own_ids = tuple(int(each) for each in token_ids[start : start + length])
        place = (language, path, repository, revision, licence_file)
        made.append(Segment(own_ids, int(first_scored), Mode(mode), *place, int(window)))
        start += length
    return tuple(made)
