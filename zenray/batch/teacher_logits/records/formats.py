"""Formats by name."""

from __future__ import annotations

import re

from zenray.batch.teacher_logits.records.compact import CompactFormat
from zenray.batch.teacher_logits.records.dense import DenseFormat
from zenray.batch.teacher_logits.records.format import RecordFormat
from zenray.errors import InvalidRequest

DEFAULT_FORMAT = "compact-48"
MAX_TOP = 256
_COMPACT = {each.name: each for each in (CompactFormat(48), CompactFormat(24))}


def parse_format(name: str) -> RecordFormat:
    """The format a user names. Raises InvalidRequest."""
    if name in _COMPACT:
        return _COMPACT[name]
    if (match := re.fullmatch(r"top-([1-9][0-9]{0,2})", name)) and int(match[1]) <= MAX_TOP:
        return DenseFormat(int(match[1]))
    raise InvalidRequest.of("format", name, f"{', '.join(_COMPACT)}, top-1 to top-{MAX_TOP}")
