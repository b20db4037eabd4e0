"""Formats by name."""

from __future__ import annotations

import re

from zenray.batch.teacher_logits.records.compact import CompactFormat
from zenray.batch.teacher_logits.records.dense import DenseFormat
from zenray.batch.teacher_logits.records.format import RecordFormat
from zenray.errors import InvalidRequest

_MAX_COMPACT, _MAX_TOP = 255, 256


def parse_format(name: str) -> RecordFormat:
    """The format a user names. Raises InvalidRequest."""
    if match := re.fullmatch(r"(compact|top)-([1-9][0-9]{0,2})", name):
        kind, size = match[1], int(match[2])
        if kind == "compact" and size <= _MAX_COMPACT:
            return CompactFormat(size)
        if kind == "top" and size <= _MAX_TOP:
            return DenseFormat(size)
    allowed = f"compact-1 to compact-{_MAX_COMPACT} (long heads cost bytes only where the teacher is unsure), "
    allowed += f"top-1 to top-{_MAX_TOP}"
    raise InvalidRequest.of("format", name, allowed)
