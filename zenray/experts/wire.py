"""Frames between a leader and its expert shards: a header of fixed size, a body whose size follows from it.

    CALL     leader to shard: which experts, how many pairs of each, which row each pair takes; then the rows x
    ROWS     shard to leader: nothing; then the rows y, one for each pair
    REFUSED  shard to leader, in place of ROWS: why, as text
    ALIVE    shard to leader: nothing; it is still at it
    CONTROL  both ways: a JSON object

Rows travel behind the frame, or by a process group (`zenray.experts.torch_link`). Little-endian, no pickle. Whatever
a broken peer sends is a `ProtocolError`, found before memory is taken for it.
"""

from __future__ import annotations

import enum
import itertools
import json
import math
import struct
from typing import Any, NamedTuple

import numpy as np
import torch

from zenray.experts.link import ExpertCall

MAX_EXPERTS, MAX_PAIRS, MAX_WIDTH = 1 << 16, 1 << 22, 1 << 18
MAX_ROW_BYTES = 1 << 30
MAX_TEXT_BYTES = 1 << 22
_ALIGNMENT = 64
_MAGIC = b"ZXP1"
_HEADER = struct.Struct("<4sBBxxIIIIIIQQ16x")
HEADER_BYTES = _HEADER.size
_DTYPES = (torch.bfloat16, torch.float32, torch.float64)
_CODES = {dtype: code for code, dtype in enumerate(_DTYPES)}


class ProtocolError(Exception):
    """The peer sent what this protocol does not know."""


class Kind(enum.IntEnum):
    CALL = 1
    ROWS = 2
    REFUSED = 3
    ALIVE = 4
    CONTROL = 5


class Header(NamedTuple):
    """number: of the call or request. body_bytes: behind the header, rows not counted. Zero where it means nothing."""

    kind: int
    dtype_code: int = 0
    layer: int = 0
    num_experts: int = 0
    num_pairs: int = 0
    num_rows: int = 0
    width: int = 0
    body_bytes: int = 0
    epoch: int = 0
    number: int = 0

    @property
    def dtype(self) -> torch.dtype:
        return _DTYPES[self.dtype_code]


def encode_header(header: Header) -> bytes:
    return _HEADER.pack(_MAGIC, *header)


def decode_header(data: bytes | bytearray | memoryview) -> Header:
    """Of HEADER_BYTES bytes. Every number in it is within bounds afterwards, and they agree with each other."""
    magic, *numbers = _HEADER.unpack(data)
    header = Header(*numbers)
    if magic != _MAGIC:
        raise ProtocolError("not a frame of this protocol")
    if header.kind == Kind.CALL:
        agree = (
            1 <= header.num_experts <= min(header.num_pairs, MAX_EXPERTS)
            and header.num_pairs <= MAX_PAIRS
            and header.num_rows >= 1
            and header.body_bytes == _index_bytes(header.num_experts, header.num_pairs)
        )
    elif header.kind == Kind.ROWS:
        agree = header.body_bytes == 0 and header.num_rows == header.num_pairs >= 1
    elif header.kind in (Kind.REFUSED, Kind.CONTROL):
        agree = header.body_bytes <= MAX_TEXT_BYTES and header.num_rows == 0
    else:
        agree = header.kind == Kind.ALIVE and header.body_bytes == header.num_rows == 0
    if header.num_rows:
        agree = agree and header.dtype_code < len(_DTYPES) and 1 <= header.width <= MAX_WIDTH
        agree = agree and _row_bytes(header) <= MAX_ROW_BYTES
    if not agree:
        raise ProtocolError(f"an impossible frame: {header}")
    return header


ALIVE = encode_header(Header(Kind.ALIVE))


def encode_call(number: int, call: ExpertCall) -> bytes:
    """Header and body of a call; x follows. Raises ProtocolError for a call beyond the bounds."""
    ids_and_counts = np.array((*call.expert_ids, *call.counts), np.int32).tobytes()
    rows = call.rows_P.cpu().numpy().tobytes()
    num_rows, width = call.x_ND.shape
    num_experts, num_pairs = len(call.expert_ids), call.num_pairs
    num_bytes = _index_bytes(num_experts, num_pairs)
    code = _CODES[call.x_ND.dtype]
    header = Header(Kind.CALL, code, call.layer, num_experts, num_pairs, num_rows, width, num_bytes, call.epoch, number)
    if num_pairs > MAX_PAIRS or width > MAX_WIDTH or _row_bytes(header) > MAX_ROW_BYTES:
        raise ProtocolError(f"{num_pairs} pairs of {num_rows} rows of width {width} are too many for one call")
    return (encode_header(header) + ids_and_counts + rows).ljust(HEADER_BYTES + num_bytes, b"\0")


def decode_call(header: Header, body: memoryview, x_ND: torch.Tensor) -> ExpertCall:
    """The call whose frame has this header and body; its rows_P share memory with a writable body."""
    num_experts = header.num_experts
    numbers = np.frombuffer(body, np.int32, 2 * num_experts).tolist()
    expert_ids, counts = numbers[:num_experts], numbers[num_experts:]
    rows = np.frombuffer(body, np.int64, header.num_pairs, offset=8 * num_experts)
    ascending = expert_ids[0] >= 0 and all(a < b for a, b in itertools.pairwise(expert_ids))
    if not ascending or min(counts) < 1 or sum(counts) != header.num_pairs:
        raise ProtocolError(f"experts {expert_ids} with {counts} of {header.num_pairs} pairs")
    if rows.view(np.uint64).max() >= header.num_rows:
        raise ProtocolError(f"a pair takes a row beyond the {header.num_rows} there are")
    return ExpertCall(header.epoch, header.layer, expert_ids, counts, torch.from_numpy(rows), x_ND)


def encode_rows(call: Header, y_PD: torch.Tensor) -> bytes:
    """The frame that answers a call; y follows."""
    num_pairs, width = y_PD.shape
    code = _CODES[y_PD.dtype]
    return encode_header(
        Header(Kind.ROWS, code, call.layer, 0, num_pairs, num_pairs, width, epoch=call.epoch, number=call.number)
    )


def encode_refused(call: Header, why: str) -> bytes:
    body = why.encode()[:MAX_TEXT_BYTES]
    return encode_header(Header(Kind.REFUSED, body_bytes=len(body), number=call.number)) + body


def encode_control(number: int, message: dict[str, Any]) -> bytes:
    body = json.dumps(message).encode()
    if len(body) > MAX_TEXT_BYTES:
        raise ProtocolError(f"a control message of {len(body)} bytes")
    return encode_header(Header(Kind.CONTROL, body_bytes=len(body), number=number)) + body


def decode_control(body: bytes | bytearray | memoryview) -> dict[str, Any]:
    try:
        message = json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a control message that is no JSON: {error}") from None
    if not isinstance(message, dict):
        raise ProtocolError("a control message that is no JSON object")
    return message


def _row_bytes(header: Header) -> int:
    """Of x or y, whichever is larger."""
    return max(header.num_rows, header.num_pairs) * header.width * header.dtype.itemsize


def _index_bytes(num_experts: int, num_pairs: int) -> int:
    """ids and counts as int32, rows as int64, and up to where x is aligned for vector loads."""
    return math.ceil((8 * num_experts + 8 * num_pairs) / _ALIGNMENT) * _ALIGNMENT
