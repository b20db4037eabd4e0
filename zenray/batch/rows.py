"""Rows of a job: who they are, and where their randomness comes from. Both are functions of content alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import blake2b, sha256
from typing import Any

Row = dict[str, Any]
"""A JSON object that has a `row_id`. `error`, where a stage put it, says why later stages pass the row by."""

ROW_ID = "row_id"
ERROR = "error"

_ROW_ID_BYTES = 16
_SEED_BITS = 63  # A seed must fit a signed 64-bit column.


def row_id(*parts: str) -> str:
    """32 hexadecimal digits that name a row by what it is made of: the same content has the same id in every run."""
    return _digest("row", *parts)[: 2 * _ROW_ID_BYTES]


def row_ids_digest(row_ids: Iterable[str]) -> str:
    """SHA-256 of ids in their order, one a line: `JobSpec.row_ids_sha256` of the planned ones."""
    state = sha256()
    for each in row_ids:
        state.update(each.encode() + b"\n")
    return state.hexdigest()


def derive_seed(job_seed: int, row: str, purpose: str, attempt: int = 0) -> int:
    """The seed of one request of a row. `purpose` keeps a row's requests apart, `attempt` its tries."""
    return int(_digest("seed", str(job_seed), row, purpose, str(attempt))[:16], 16) >> (64 - _SEED_BITS)


def canonical_json(value: Mapping[str, Any] | list[Any]) -> str:
    """One spelling for equal values: sorted keys, no spaces, ASCII, so that whatever a file name or a model's text
    holds can be encoded. Refuses NaN, which has no spelling.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(*parts: str) -> str:
    state = blake2b(digest_size=32)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "little"))  # Lengths, so that ("ab", "c") is not ("a", "bc").
        state.update(data)
    return state.hexdigest()
